"""What the tests of the stack share with all others."""

from __future__ import annotations

from tests.conftest import REGION, Clients, apply

__all__ = ["REGION", "Clients", "apply"]
