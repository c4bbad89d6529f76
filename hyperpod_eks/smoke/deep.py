"""Level 4: HyperPod's deep health checks of all nodes with accelerators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hyperpod_eks.errors import KnownCause
from hyperpod_eks.kube.nodes import Node, list_nodes
from hyperpod_eks.resources.hyperpod.devices import ACCELERATED
from hyperpod_eks.smoke.inputs import Facts, Finding, Outcome, Skipped
from hyperpod_eks.smoke.job import wait_until

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.literals import DeepHealthCheckTypeType
    from mypy_boto3_sagemaker.type_defs import InstanceGroupHealthCheckConfigurationTypeDef

LONGEST = 6 * 3600.0
"""Seconds after which the checks are given up; InstanceStress alone takes an hour or two."""
VISIBLE = 180.0
"""Seconds in which a check that has been started must be seen at its nodes."""


def accelerated(facts: Facts) -> list[Node]:
    """Return the nodes that level 4 checks."""
    return [node for node in facts.nodes if ACCELERATED.match(node.instance_type)]


def deep(facts: Facts) -> Iterator[Outcome]:
    """Every node with accelerators must pass the checks of its group."""
    nodes = accelerated(facts)
    if not nodes:
        yield Skipped("no node has accelerators")
        return
    facts.snapshot.aws.sagemaker.start_cluster_health_check(
        ClusterName=facts.name, DeepHealthCheckConfigurations=list(_asked(facts, nodes))
    )
    for node in wait_until(facts, _watching(facts, {node.name for node in nodes}), LONGEST):
        values = {"node": node.instance_id}
        yield Finding(
            f"{node.instance_group}/{node.name}",
            f"deep health checks: {node.deep_check or 'not ended'}",
            KnownCause("deep-check-failed", values),
        )


def _asked(
    facts: Facts, nodes: list[Node]
) -> Iterator[InstanceGroupHealthCheckConfigurationTypeDef]:
    for group in facts.groups:
        name = group["InstanceGroupName"]
        ids = [node.instance_id for node in nodes if node.instance_group == name]
        if ids:
            usual: list[DeepHealthCheckTypeType] = ["InstanceStress", "InstanceConnectivity"]
            yield {
                "InstanceGroupName": name,
                "InstanceIds": ids,
                "DeepHealthChecks": group.get("OnStartDeepHealthChecks") or usual[: len(ids)],
            }


def _watching(facts: Facts, names: set[str]) -> Callable[[float, bool], list[Node] | None]:
    """Return a function that returns the nodes that did not pass, once all checks have ended.

    A node may still have the label of an earlier check when it is looked at first.
    """
    seen: set[str] = set()

    def look(waited: float, last: bool) -> list[Node] | None:
        nodes = [node for node in list_nodes(facts.access, facts.name) if node.name in names]
        seen.update(node.name for node in nodes if node.checking)
        begun = waited >= VISIBLE or seen >= names
        if last or (begun and not any(node.checking for node in nodes)):
            return [node for node in nodes if node.deep_check != "Passed"]
        return None

    return look
