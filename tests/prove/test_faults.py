"""Throttled, shaken, unheard, unseen: every run comes to its end, and nothing is made twice."""

from __future__ import annotations

import pytest

from .faults import FAULTS
from .matrix import Prover

SAMPLE = ("throttling 30 %", "lost answers 50 %", "seen after 20 s, answers lost")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_bad_day_changes_nothing_in_the_end(prover: Prover, name: str) -> None:
    FAULTS[name](prover)
