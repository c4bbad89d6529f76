"""What people see: progress, status, plans, documents and logs."""
