"""The command line: options in, one document on stdout, progress on stderr, an exit code."""

from __future__ import annotations

from hyperpod_eks.cli.app import main
from hyperpod_eks.cli.run import run

__all__ = ["main", "run"]
