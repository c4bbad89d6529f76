"""What whoever runs create, status and delete must be allowed to do."""
