"""Karpenter's kinds refuse what its own definitions refuse (kubernetes-sigs/karpenter, crds)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hyperpod_eks.local.kubernetes import karpenter_kinds
from tests.test_published import node_pool

from .test_kubernetes import Client
from .test_kubernetes_cel import evaluated
from .test_kubernetes_validation import DEFINITIONS

POOLS = "/apis/karpenter.sh/v1/nodepools"
TYPES = {"key": "node.kubernetes.io/instance-type"}


@pytest.fixture(scope="module", autouse=True)
def _karpenter(client: Client) -> Iterator[None]:
    for body in karpenter_kinds.definitions():
        assert client.send("POST", DEFINITIONS, body)[0] == 201
    yield
    for body in karpenter_kinds.definitions():
        client.send("DELETE", f"{DEFINITIONS}/{body['metadata']['name']}")


def changed(**template: Any) -> Any:
    """Return a pool whose template has these fields of its spec, and these labels."""
    pool = node_pool()
    labels = template.pop("labels", {})
    pool["spec"]["template"]["spec"] |= template
    pool["spec"]["template"]["metadata"] = {"labels": labels}
    return pool


@evaluated
@pytest.mark.parametrize(
    ("pool", "says"),
    [
        (node_pool(weight=1, replicas=2), "'weight' is not supported on static NodePools"),
        (node_pool(limits={"cpu": "many"}), "spec.limits"),
        (node_pool(disruption={"budgets": [{"nodes": "1", "schedule": "@daily"}]}), "'duration'"),
        (changed(labels={"karpenter.sh/nodepool": "b"}), 'label "karpenter.sh/nodepool"'),
        (changed(labels={"kubernetes.io/hostname": "b"}), "hostname"),
        (changed(labels={"a": "b" * 64}), "63"),
        (changed(requirements=[{**TYPES, "operator": "In", "values": []}]), "'In' must have"),
        (changed(requirements=[{**TYPES, "operator": "Gt", "values": ["1", "2"]}]), "'Gt'"),
        (changed(taints=[{"key": "-", "effect": "NoExecute"}]), "taints[0].key"),
        (changed(terminationGracePeriod="Never"), "terminationGracePeriod"),
    ],
)
def test_a_pool_is_refused(client: Client, pool: Any, says: str) -> None:
    status, answer = client.send("POST", POOLS, pool)
    assert (status, says in answer["message"]) == (422, True), answer["message"]


def test_a_pool_has_what_karpenter_lets_it_leave_out(client: Client) -> None:
    pool = node_pool(disruption={"consolidationPolicy": "Balanced"})
    status, answer = client.send("POST", POOLS, pool)
    assert (status, answer["spec"]["disruption"]["consolidateAfter"]) == (201, "0s")
