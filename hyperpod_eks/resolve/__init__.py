"""Resolve the config in an account: the caller's identity, zones, versions and derived names."""
