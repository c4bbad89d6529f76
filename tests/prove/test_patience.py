"""Waits with AWS's real durations, in simulated time: client and stack share a clock.

HyperPod takes up to half an hour to its first node (the scripts of amazon-vpc-cni-k8s wait for an
hour), and EKS goes on calling coredns DEGRADED for a quarter of an hour after it runs
(aws-ia/terraform-aws-eks-blueprints, #642).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from hyperpod_eks.events import EventType
from hyperpod_eks.local.aws.sim import Delays

from .host import Host, Process
from .prover import Prover

MINUTE = 60.0
SLOW = replace(
    Delays.real(),
    hyperpod_create=4 * MINUTE,
    hyperpod_provision=25 * MINUTE,
    hyperpod_spread=0,
    hyperpod_lifecycle=2 * MINUTE,
    addon_check=15 * MINUTE,
    deep_health=180 * MINUTE,
)
CHECKS = ["InstanceStress", "InstanceConnectivity"]


def group(name: str, kind: str, count: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "instance_type": kind, "instance_count": count, **more}


MINIMAL = [group("workers", "ml.m5.2xlarge", 1)]
CHECKED = [group("train", "ml.p5.48xlarge", 2, on_start_deep_health_checks=CHECKS)]


@pytest.fixture
def host(prover: Prover, monkeypatch: pytest.MonkeyPatch) -> Host:
    for name, value in (("SHORTEST", 3.0), ("LONGEST", 240.0), ("SHARE", 0.1)):
        monkeypatch.setattr(f"hyperpod_eks.engine.loop.{name}", value)  # fewer looks in hours
    prover.host.begin(SLOW)
    prover.host.stack.sim.set_quota("sagemaker", "ml.p5.48xlarge for cluster usage", 10)
    return prover.host


def create(host: Host, groups: list[dict[str, Any]], **more: Any) -> Process:
    config: Mapping[str, Any] = {"instance_groups": groups, **more}
    process = host.run("create", config=config)
    assert {e.key for e in process.events if e.what is EventType.READY} >= {
        "hyperpod/nodes", "addons/coredns", *(f"addons/{name}" for name in more.get("addons", {})),
    }  # fmt: skip
    return process


def statuses(host: Host) -> dict[str, str]:
    """Return the status of each add-on in EKS."""
    eks = host.session.somebody("eks")
    names = eks.list_addons(clusterName="demo")["addons"]
    return {
        name: eks.describe_addon(clusterName="demo", addonName=name)["addon"]["status"]
        for name in names
    }


def since_ready(host: Host) -> float:
    """Return seconds since the nodes became Ready, without deep health checks."""
    calls = [(f"{call.service}.{call.operation}", call.at) for call in host.stack.calls]
    (requested,) = [at for call, at in calls if call == "sagemaker.CreateCluster"]
    start = SLOW.hyperpod_create + SLOW.hyperpod_provision + SLOW.hyperpod_lifecycle
    return host.stack.clock.elapsed() - (requested + start + SLOW.node_ready)


def asked(host: Host, operation: str) -> list[str]:
    return [call.request for call in host.stack.calls if call.operation == operation]


class TestPatience:
    @pytest.mark.prove
    def test_half_an_hour_to_the_first_node(self, host: Host) -> None:
        create(host, MINIMAL, addons={"metrics-server": {}})

        assert 0 <= since_ready(host) < 5 * MINUTE  # looks are minutes apart
        assert statuses(host)["coredns"] == "DEGRADED"
        assert asked(host, "UpdateAddon") == []

    @pytest.mark.prove
    def test_three_hours_of_deep_health_checks(self, host: Host) -> None:
        process = create(host, CHECKED)

        why = [e.why for e in process.events if e.key == "hyperpod/nodes" and "deep" in e.why]
        assert "0 of 2 nodes Ready in Kubernetes; 2 under deep health checks" in why[0]
        assert 0 <= since_ready(host) - SLOW.deep_health < 5 * MINUTE  # looks are minutes apart
        assert statuses(host)["coredns"] == "DEGRADED"

    @pytest.mark.prove
    def test_what_eks_does_not_look_at_again_is_updated_once(self, host: Host) -> None:
        """The first group's nodes carry coredns while the second's are still being checked."""
        never = replace(SLOW, hyperpod_provision=60, addon_check=1e9, deep_health=20 * MINUTE)
        host.stack.sim.delays = never

        create(host, [*MINIMAL, *CHECKED])

        (update,) = asked(host, "UpdateAddon")
        assert "/addons/coredns/update" in update
        assert statuses(host)["coredns"] == "ACTIVE"

    def test_no_node_at_all(self, host: Host) -> None:
        began = host.clock.now()

        create(host, [group("workers", "ml.m5.2xlarge", 0)], addons={"cert-manager": {}})

        assert host.clock.now() - began - SLOW.eks_create < 10 * MINUTE
        assert statuses(host)["coredns"] == "DEGRADED"
        host.stack.calls.clear()
        create(host, [group("workers", "ml.m5.2xlarge", 0)], addons={"cert-manager": {}})
        assert not [call for call in host.stack.calls if call.mutating]
