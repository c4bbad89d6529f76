"""Kueue's quotas in the embedded stack: who borrows, who gives way, and whose share is larger."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpod_eks.local.kubernetes.kueue_quota import MOST_SHARE, Quotas

FLAVOR = "large"


def queue(name: str, cpu: int, weight: str = "1", **limits: int) -> Any:
    resource = {"name": "cpu", "nominalQuota": cpu, **limits}
    return {
        "metadata": {"name": name},
        "spec": {
            "cohortName": "pool",
            "preemption": {"withinClusterQueue": "LowerPriority", "reclaimWithinCohort": "Any"},
            "fairSharing": {"weight": weight},
            "resourceGroups": [{"flavors": [{"name": FLAVOR, "resources": [resource]}]}],
        },
    }


def runs(name: str, of: str, cpu: int, priority: int = 0, since: str = "1") -> Any:
    assigned = {"flavors": {"cpu": FLAVOR}, "resourceUsage": {"cpu": cpu}}
    return {
        "metadata": {"uid": name},
        "spec": {"priority": priority},
        "status": {
            "admission": {"clusterQueue": of, "podSetAssignments": [assigned]},
            "conditions": [
                {"type": "QuotaReserved", "status": "True", "lastTransitionTime": since}
            ],
        },
    }


def gives_way(quotas: Quotas, of: str, cpu: int, priority: int = 0) -> set[str]:
    return set(quotas.targets(of, priority, FLAVOR, {"cpu": cpu}))  # type: ignore[dict-item]


@pytest.mark.parametrize(("weight", "share"), [("1", 200), ("2", 100), ("0", MOST_SHARE)])
def test_the_share_is_what_is_borrowed_of_what_is_lendable_by_weight(
    weight: str, share: int
) -> None:
    """API reference, FairSharingStatus, weightedShare."""
    quotas = Quotas([queue("a", 8, weight), queue("b", 12)], [runs("one", "a", 12)])
    assert quotas.share("a") == share
    assert quotas.share("b") == 0


def test_what_is_lent_is_reclaimed_from_the_lowest_and_newest_that_borrows() -> None:
    """Preemption, Candidates; and no more than is needed."""
    queues = [queue("a", 8), queue("b", 8)]
    busy = [
        runs("old", "a", 8, since="1"),
        runs("high", "a", 4, priority=9, since="2"),
        runs("new", "a", 4, since="3"),
    ]
    quotas = Quotas(queues, busy)
    assert gives_way(quotas, "b", 4) == {"new"}
    assert gives_way(quotas, "b", 8) == {"old"}  # without it, "new" fits after all
    assert gives_way(quotas, "b", 9) == set()  # it would borrow itself
    assert set(quotas.workloads) == {"old", "high", "new"}


def test_only_what_is_lower_gives_way_in_its_own_queue() -> None:
    quotas = Quotas([queue("a", 8)], [runs("low", "a", 4, 1), runs("same", "a", 4, 5)])
    assert gives_way(quotas, "a", 4, priority=5) == {"low"}
    assert gives_way(quotas, "a", 8, priority=5) == set()
    assert gives_way(quotas, "a", 8, priority=6) == {"low", "same"}


def test_what_is_not_lent_cannot_be_borrowed() -> None:
    quotas = Quotas([queue("a", 8, borrowingLimit=6), queue("b", 8, lendingLimit=4)], [])
    four: Any = {"cpu": 12}
    assert quotas.lack("a", FLAVOR, four) == ""
    five: Any = {"cpu": 13}
    assert "1 more needed" in quotas.lack("a", FLAVOR, five)
