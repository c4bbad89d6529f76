"""Checks of task governance: the region, and a policy of somebody else."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpod_eks.aws.published import GOVERNANCE_REGIONS
from hyperpod_eks.preflight.inputs import Facts, Finding


def governance(facts: Facts) -> Iterator[Finding]:
    """Task governance is not offered in every region that has HyperPod."""
    region = facts.aws.identity.region
    if facts.config.teams and region not in GOVERNANCE_REGIONS:
        text = f"teams: task governance was not offered in {region} in 2026-11"
        fix = "Ask AWS whether it is now, or choose another region."
        yield Finding("task-governance", "warning", text, fix, {"region": region})
