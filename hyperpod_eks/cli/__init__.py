"""The command line: reads options, prints one document to stdout and progress to stderr."""

from __future__ import annotations

from hyperpod_eks.cli.app import main
from hyperpod_eks.cli.run import run

__all__ = ["main", "run"]
