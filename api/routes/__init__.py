"""The routes: a file for each kind of object, and one for the lifecycle of a batch."""
