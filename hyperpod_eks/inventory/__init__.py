"""List clusters and tagged resources of an account."""
