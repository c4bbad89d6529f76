"""The state of a cluster on disk."""
