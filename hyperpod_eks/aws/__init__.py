"""Everything that is said to AWS, and what its answers mean."""
