"""Under throttling, errors, lost answers and delays every run succeeds without duplicates."""

from __future__ import annotations

from collections import Counter

import pytest

from hyperpod_eks.local.aws.sim import Fault

from .faults import FAULTS
from .prover import TWO_NODES, Prover


@pytest.mark.prove
@pytest.mark.parametrize("name", ["throttling 30 %", "lost answers 50 %"])
def test_a_bad_day_changes_nothing_in_the_end(prover: Prover, name: str) -> None:
    FAULTS[name](prover)


def test_what_neither_name_nor_token_protects_is_not_asked_for_twice(prover: Prover) -> None:
    made = Counter(b.what for b, _ in prover.undisturbed("create").path if b.kind == "before")
    prover.begin()
    nameless = ("CreateVpc", "CreateInternetGateway", "AllocateAddress")
    prover.host.stack.faults.extend(Fault("ec2", name, kind="lost") for name in nameless)
    prover.finish("create", TWO_NODES)
    asked = Counter(call.operation for call in prover.host.stack.calls)
    assert {name: asked[name] for name in nameless} == {
        name: made[f"ec2:{name}"] for name in nameless
    }
