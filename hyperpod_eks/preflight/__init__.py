"""What would stop a create later, found before the first change."""
