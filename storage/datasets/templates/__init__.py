"""Templates that make a request of a dataset's row: Jinja's language, interpreted within bounds."""
