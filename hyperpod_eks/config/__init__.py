"""What the user declares: read, checked, and said in words."""
