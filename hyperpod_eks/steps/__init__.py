"""The seven steps: each declares what it is responsible for."""
