"""``hyperpod-eks test``: a healthy cluster passes; each broken one is found, with its cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hyperpod_eks.local.stack import Stack
from tests.conftest import Said, User, at_work

CONFIG = """\
name: smoke
region: us-west-2
instance_groups:
- {name: plain, instance_type: ml.m5.2xlarge, instance_count: 1}
- {name: gpu, instance_type: ml.p5.48xlarge, instance_count: 2}
"""


@pytest.fixture(scope="module")
def user(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with at_work(one_stack, tmp_path_factory.mktemp("smoke")) as user:
        one_stack.sim.set_quota("sagemaker", "ml.p5.48xlarge for cluster usage", 4)
        (user.folder / "smoke.yaml").write_text(CONFIG)
        user.makes("smoke", "-f", "smoke.yaml")
        yield user


def kubernetes(user: User) -> Any:
    (cluster,) = user.stack.sim.clusters.values()
    return cluster


@contextmanager
def broken(user: User, **switches: str) -> Iterator[None]:
    """Set switches of the embedded stack: ``crash="aws-node"``; afterwards it heals."""
    before = dict(user.stack.sim.failures)
    try:
        for name, how in switches.items():
            user.stack.sim.failures[f"kubernetes/{name}"] = how
        kubernetes(user).wake()
        yield
    finally:
        user.stack.sim.failures.clear()
        user.stack.sim.failures.update(before)
        kubernetes(user).wake()


@contextmanager
def changed_node(user: User, change: Any) -> Iterator[str]:
    """Change the node of the group plain as its kubelet, HyperPod or somebody else would."""
    store = kubernetes(user)._store
    resource = store.registry.builtin("Node")
    before = next(n for n in store.objects(resource) if "plain" in n["metadata"]["labels"].values())
    name = before["metadata"]["name"]
    try:
        store.modify(resource, before, change(before))
        yield name
    finally:
        store.modify(resource, store.get(resource, "", name), before)


def examined(user: User, *words: str) -> Said:
    return user.types("test", "smoke", "-o", "json", *words)


def found(said: Said) -> dict[str, list[str]]:
    """Return the causes by check, of the checks that failed."""
    return {
        row["id"]: sorted({one["cause"] for one in row["findings"]})
        for row in said.document["checks"]
        if row["status"] == "failed"
    }


def test_a_healthy_cluster_passes_and_nothing_is_changed(user: User) -> None:
    user.mutations()
    said = user.types("test", "smoke")
    assert (said.code, said.err) == (0, said.err)
    assert said.out.splitlines()[0].split() == ["LEVEL", "CHECK", "STATUS", "LOOKS", "AT"]
    assert said.out.splitlines()[-1] == "smoke works"
    assert "failed" not in said.out
    assert user.mutations() == []


def labelled(**labels: str) -> Any:
    def change(node: Any) -> Any:
        about = {**node["metadata"], "labels": {**node["metadata"]["labels"], **labels}}
        return {**node, "metadata": about}

    return change


def tainted(node: Any) -> Any:
    taint = {"key": "example.com/maintenance", "value": "x", "effect": "NoSchedule"}
    return {**node, "spec": {**node["spec"], "taints": [taint]}}


HEALTH = "sagemaker.amazonaws.com/node-health-status"


@pytest.mark.parametrize(
    ("change", "check", "cause"),
    [
        (labelled(**{HEALTH: "UnschedulablePendingReplacement"}), "node-health", "node-unhealthy"),
        (tainted, "node-taints", "node-taint"),
    ],
)
def test_a_broken_node_is_found(user: User, change: Any, check: str, cause: str) -> None:
    with changed_node(user, change) as node:
        said = examined(user)
    assert (said.code, found(said)) == (11, {check: [cause]})
    (finding,) = (one for row in said.document["checks"] for one in row["findings"])
    assert finding["about"] == f"plain/{node}"
    assert "{" not in finding["explanation"] + finding["next"]


@pytest.mark.parametrize(
    ("switches", "check", "cause", "says"),
    [
        ({"devices": "vpc.amazonaws.com/efa"}, "devices", "no-device", "vpc.amazonaws.com/efa"),
        ({"crash": "aws-node"}, "components", "component-failing", "CrashLoopBackOff"),
    ],
)
def test_a_broken_component_is_found(
    user: User, switches: dict[str, str], check: str, cause: str, says: str
) -> None:
    with broken(user, **switches):
        said = examined(user)
        text = user.types("test", "smoke")
    assert (said.code, found(said)) == (11, {check: [cause]})
    assert text.code == 11
    assert says in text.out
    assert f"({cause})\n  next:  " in text.out
    assert text.out.splitlines()[-1] == "smoke does not work"
    assert found(examined(user)) == {}


def test_a_kubelet_that_is_silent_is_found(user: User) -> None:
    cluster = kubernetes(user)
    name = next(n for n in cluster.snapshot() if n.startswith("nodes/")).removeprefix("nodes/")
    cluster.set_node_ready(name, ready=False)
    said = examined(user)
    cluster.set_node_ready(name)
    assert (said.code, found(said)["node-ready"]) == (11, ["not-ready"])


def test_a_kind_whose_definition_was_deleted_is_found(user: User) -> None:
    cluster = kubernetes(user)
    store = cluster._store
    resource = store.registry.builtin("CustomResourceDefinition")
    before = store.get(resource, "", "mpijobs.kubeflow.org")
    store.delete(resource, "", "mpijobs.kubeflow.org")
    said = examined(user)
    body = {k: v for k, v in before.items() if k in ("apiVersion", "kind", "spec")}
    store.create(resource, "", {**body, "metadata": {"name": "mpijobs.kubeflow.org"}})
    assert (said.code, found(said)) == (11, {"kinds": ["kind-missing"]})


def test_a_cluster_that_does_not_exist_is_not_found(user: User) -> None:
    assert user.types("test", "none").code == 8
