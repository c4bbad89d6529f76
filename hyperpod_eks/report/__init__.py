"""A cluster as one HTML page that needs nothing else: no network, no JavaScript."""
