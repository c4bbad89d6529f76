"""The kinds of things that are declared."""
