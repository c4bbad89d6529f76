"""Checks that find, before the first change, problems that would stop create later."""
