"""Fixtures of the embedded stack's tests."""

from __future__ import annotations

from tests.conftest import REGION, Clients, apply

__all__ = ["REGION", "Clients", "apply"]
