"""Warnings about running clusters: missing devices of nodes, and versions known to be broken."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest

from hyperpod_eks.local.aws import instance_types
from hyperpod_eks.local.aws.eks_data import ADDONS
from hyperpod_eks.local.kubernetes.api import Answer, Api, Request
from tests.conftest import Clients, User

CONFIG = """
name: demo
region: us-west-2
instance_groups: [{name: gpu, instance_type: ml.g5.12xlarge, instance_count: 1}]
"""


@pytest.fixture
def user(user: User) -> User:
    user.stack.sim.set_quota("sagemaker", "ml.g5.12xlarge for cluster usage", 4)
    (user.folder / "gpu.yaml").write_text(CONFIG)
    return user


def without(monkeypatch: pytest.MonkeyPatch, *names: str, **instead: str) -> None:
    """Let nodes lack some of their instance type's devices."""
    capacity = instance_types.capacity

    def less(kind: str) -> dict[str, str]:
        return {k: instead.get(k, v) for k, v in capacity(kind).items() if k not in names}

    monkeypatch.setattr(instance_types, "capacity", less)
    monkeypatch.setattr("hyperpod_eks.engine.apply.DEVICES", 0.0)


@pytest.mark.prove
def test_nodes_with_all_their_devices_are_no_matter(user: User) -> None:
    assert user.makes("demo", "-f", "gpu.yaml")["warnings"] == []
    assert user.types("status", "demo", "-o", "json").document["warnings"] == []


def test_a_ready_node_without_all_its_devices_is_a_warning(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "vpc.amazonaws.com/efa", **{"nvidia.com/gpu": "3"})

    gpu, efa = user.makes("demo", "-f", "gpu.yaml")["warnings"]

    assert gpu.startswith(
        "1 of 1 Ready ml.g5.12xlarge nodes offer fewer nvidia.com/gpu to pods than the 4 of the"
    )
    assert "(hyperpod-i-" in gpu
    assert ": 3)" in gpu
    assert "vpc.amazonaws.com/efa" in efa
    said = user.types("status", "demo", "-o", "json")
    assert (said.code, said.document["warnings"]) == (0, [gpu, efa])
    assert gpu in user.types("status", "demo").err


@pytest.mark.prove
def test_a_plugin_may_take_a_moment_after_the_node(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is missing when the node becomes Ready is waited for."""
    answer = Api.answer
    bare: list[str] = []

    def late(self: Api, request: Request) -> Answer:
        found = answer(self, request)
        if request.path == "/api/v1/nodes" and request.method == "GET" and len(bare) < 2:
            items = deepcopy(found.content["items"])
            gone = [node["status"]["allocatable"].pop("nvidia.com/gpu", "") for node in items]
            bare.extend(filter(None, gone))
            return replace(found, content={**found.content, "items": items})
        return found

    monkeypatch.setattr(Api, "answer", late)

    assert user.makes("demo", "-f", "gpu.yaml")["warnings"] == []
    assert len(bare) == 2


@pytest.fixture
def broken_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let EKS's default be one of the versions that do not work on HyperPod's nodes."""
    versions = (
        "v1.23.0-eksbuild.1",
        "v1.22.4-eksbuild.2",
        "v1.22.3-eksbuild.1",
        "v1.22.1-eksbuild.1",
    )
    kind = replace(ADDONS["vpc-cni"], versions=dict.fromkeys(versions, "1.31-1.36"), default=3)
    monkeypatch.setitem(ADDONS, "vpc-cni", kind)


@pytest.mark.usefixtures("broken_default")
def test_a_broken_version_is_not_taken_and_one_that_runs_is_a_warning(
    user: User, aws: Clients
) -> None:
    (said,) = user.makes("demo")["warnings"]

    assert said.startswith(
        "the add-on vpc-cni becomes v1.23.0-eksbuild.1: EKS's default, v1.22.1-eksbuild.1, gives"
    )
    status = user.types("status", "demo", "-o", "json").document
    assert {a["name"]: a["version"] for a in status["addons"]}["vpc-cni"] == "v1.23.0-eksbuild.1"
    assert status["warnings"] == []

    aws.eks.update_addon(clusterName="demo", addonName="vpc-cni", addonVersion="v1.22.3-eksbuild.1")

    (said,) = user.types("status", "demo", "-o", "json").document["warnings"]

    assert "vpc-cni runs v1.22.3-eksbuild.1, which gives a node's primary address to pods" in said
    (user.folder / "c.yaml").write_text(
        "name: demo\nregion: us-west-2\naddons: {vpc-cni: {version: v1.22.2-eksbuild.1}}\n"
    )
    refused = user.types("validate", "-f", "c.yaml")
    assert refused.code == 2
    assert 'vpc-cni.version: "v1.22.2-eksbuild.1" gives a node' in refused.err
