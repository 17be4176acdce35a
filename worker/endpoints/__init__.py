"""The endpoints of the OpenAI API: each is one module that parses bodies and makes responses."""
