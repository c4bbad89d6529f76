"""The IAM permissions that create, status and delete need."""
