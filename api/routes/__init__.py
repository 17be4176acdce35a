"""The routes, one file an object."""
