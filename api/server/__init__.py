"""The HTTP server under the application: uvicorn, and what one connection may take."""
