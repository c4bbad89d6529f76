"""Diagnose a failure: collect evidence, and match it with known causes."""
