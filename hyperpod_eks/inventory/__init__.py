"""What there is in an account, whoever made it."""
