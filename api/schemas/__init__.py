"""The objects on the wire, as the OpenAI API names and nests them."""
