"""The kinds of resources that a stack declares, a module per kind or service."""
