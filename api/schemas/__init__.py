"""The objects of the API, named and nested as in the OpenAI API."""
