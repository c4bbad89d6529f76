"""The seven steps of a stack; each declares its resources."""
