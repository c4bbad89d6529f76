"""Mutation tests: deliberate faults in the source, each of which a quick test must detect."""

from __future__ import annotations

import sys

from .mutant import caught
from .mutants_engine import ENGINE_MUTANTS
from .mutants_kinds import KIND_MUTANTS

MUTANTS = (*ENGINE_MUTANTS, *KIND_MUTANTS)

if __name__ == "__main__":
    for each in MUTANTS:
        if not sys.argv[1:] or any(word in each.name for word in sys.argv[1:]):
            print(  # noqa: T201  this is its output
                f"{each.name}: {caught(each) or 'caught'}", flush=True
            )
