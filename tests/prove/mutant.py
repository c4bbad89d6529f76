"""A deliberate fault in the source: one replacement in a copy, and the tests that detect it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGINE = "tests/engine"


@dataclass(frozen=True)
class Mutant:
    """Replace ``old`` by ``new`` in a file of the package; the tests ``by`` must fail."""

    name: str
    file: str
    old: str
    new: str
    by: str = ENGINE
    only: str = ""
    """An expression for pytest's ``-k`` that selects among those tests."""


def caught(mutant: Mutant) -> str:
    """Run the tests with the mutant; return "" if they fail, else a description of the problem."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in ("hyperpod_eks", "tests", "lifecycle"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", ".cache"):
            if (ROOT / name).exists():
                (copy / name).symlink_to(ROOT / name)
        source = copy / "hyperpod_eks" / mutant.file
        text = source.read_text()
        if mutant.old not in text:
            return "the source has changed: the fault cannot be put in"
        source.write_text(text.replace(mutant.old, mutant.new))
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.by]
        words += ["-m", "prove or not prove"]
        words += ["-k", mutant.only] if mutant.only else []
        run = subprocess.run(
            words,
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if run.returncode == 1:
            return ""
        return f"pytest ended with {run.returncode}: {run.stdout[-300:]}"
