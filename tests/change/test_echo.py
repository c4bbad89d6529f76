"""A cluster is not changed because AWS describes it otherwise than it was declared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.engine.loop import Reconciler
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.local.aws.echo import Echo
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resources.compare import Observation
from hyperpod_eks.resources.hyperpod.cluster import Cluster
from hyperpod_eks.state.manifest import Manifest
from tests.conftest import known_helm, new_session, start_over

from .conftest import Owner

TEXT = """\
name: demo
region: us-west-2
instance_groups:
- {name: a, instance_type: ml.m5.2xlarge, instance_count: 2,
   kubernetes_config: {taints: [{key: k, effect: NoSchedule}, {key: l, effect: NoSchedule}]}}
- {name: b, instance_type: ml.g5.2xlarge, instance_count: 1, min_instance_count: 1,
   kubernetes_config: {labels: {team: x}},
   on_start_deep_health_checks: [InstanceStress, InstanceConnectivity]}
"""
G = "InstanceGroups[]."
ODD: dict[str, dict[str, Any]] = {
    "least count 0": {"says": {G + "MinCount": 0}},
    "no least count": {"omits": (G + "MinCount",)},
    "interface type": {"says": {G + "NetworkInterface": {"InterfaceType": "efa"}}},
    "image ids": {"says": {G + "DesiredImageId": "ami-1", G + "CurrentImageId": "ami-1"}},
    "image releases": {"says": {G + "DesiredImageReleaseVersion": "9.9.9"}},
    "no threads": {"omits": (G + "ThreadsPerCore",)},
    "no volumes": {"omits": (G + "InstanceStorageConfigs",)},
    "no labels": {"says": {G + "KubernetesConfig": None}},
    "checks in another order": {
        "says": {G + "OnStartDeepHealthChecks": ["InstanceConnectivity", "InstanceStress"]}
    },
    "settings that are off": {
        "says": {
            "TieredStorageConfig": {"Mode": "Disable"},
            "AutoScaling": {"Mode": "Disable"},
            G + "AutoPatchConfig": {"CurrentPatchingStrategy": "None"},
        }
    },
    "empty text": {
        "says": {G + "TrainingPlanArn": "", "NodeRecovery": "", "ClusterRole": "",
                 "FailureMessage": "", G + "SoftwareUpdateStatus": ""}
    },
    "on demand": {"says": {G + "CapacityRequirements": {"OnDemand": {}}}},
    "no place": {"omits": (G + "OverrideVpcConfig", "VpcConfig")},
    "no role": {"omits": (G + "ExecutionRole", "NodeProvisioningMode", "NodeRecovery")},
    "other recovery": {"says": {"NodeRecovery": "AUTOMATIC"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def base(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """An owner whose cluster lacks only HyperPod; created once per module, because it is slow."""
    folder = tmp_path_factory.mktemp("echo")
    with pytest.MonkeyPatch.context() as patch:
        start_over(one_stack, patch)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr("hyperpod_eks.engine.apply.GRACE", 0.3)  # the clock is real
        owner = Owner(one_stack, new_session(), folder, known_helm())
        owner.declares(TEXT)
        yield owner


@pytest.fixture
def owner(base: Owner) -> Iterator[Owner]:
    """The same owner without a HyperPod cluster, as before its first create."""
    path = base.folder / "demo.json"
    base.stack.sim.echo = None
    base.aws.sagemaker.delete_cluster(ClusterName="demo")
    document = json.loads(path.read_text())
    del document["resources"]["hyperpod/cluster"]
    path.write_text(json.dumps(document))
    yield base
    base.stack.sim.echo = None


def to_change(owner: Owner, text: str) -> list[Observation]:
    return [observation for observation in owner.looks(text) if observation.differs]


@pytest.mark.parametrize(
    "odd",
    [each if n == 0 else pytest.param(each, marks=pytest.mark.prove) for n, each in enumerate(ODD)],
)
def test_one_odd_member_sends_no_update(owner: Owner, odd: str) -> None:
    owner.stack.sim.echo = Echo(**ODD[odd])
    assert owner.declares(TEXT) == ["CreateCluster"]
    assert owner.declares(TEXT) == []
    assert to_change(owner, TEXT) == []
    assert len(owner.nodes("a")) == 2
    assert len(owner.nodes("b")) == 1


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(1, 10))]
)
def test_any_odd_description_sends_one_update_a_change(owner: Owner, seed: int) -> None:
    owner.stack.sim.echo = Echo(seed, "sagemaker")
    assert owner.declares(TEXT) == ["CreateCluster"]
    assert to_change(owner, TEXT) == []
    changed = TEXT.replace("labels: {team: x}", "labels: {crew: x}")
    assert [owner.declares(changed) for _ in range(3)] == [["UpdateCluster"], [], []]
    assert to_change(owner, changed) == []
    owner.stack.sim.echo = None
    assert owner.groups()["b"]["KubernetesConfig"]["DesiredLabels"] == {"crew": "x"}
    assert len(owner.nodes("a")) == 2
    assert len(owner.nodes("b")) == 1


@pytest.mark.parametrize(
    "seeds", [range(1, 3), pytest.param(range(3, 10), marks=pytest.mark.prove)], ids=str
)
def test_what_was_created_is_not_touched_under_any_seed(owner: Owner, seeds: range) -> None:
    """All services answer oddly, under nine seeds; tests/cli/test_echo_seeds.py has more.

    Each seed has one kind of oddity for all answers.  Different kinds in one run are left to the
    long proof: the order of threads determines which answer gets which.
    """
    owner.declares(TEXT)
    for seed in seeds:
        owner.stack.sim.echo = Echo(seed, truthful=True)
        assert owner.declares(TEXT) == [], seed


LATER: dict[str, dict[str, Any]] = {
    "an enumeration in another case": {"says": {"NodeRecovery": "aUTOMATIC"}},
    "parts of taints in another order": {
        "says": {
            G + "KubernetesConfig": {"DesiredTaints": [{"Key": "l"}, {"Effect": "NoSchedule"}]}
        }
    },
    "half of where it is": {"says": {G + "OverrideVpcConfig": {"Subnets": ["subnet-1"]}}},
    "no checks": {"omits": (G + "OnStartDeepHealthChecks",)},
}


def test_what_aws_has_shown_once_and_shows_in_part_is_no_drift(owner: Owner) -> None:
    zone = "{name: b, availability_zone_ids: [usw2-az1],"
    placed = TEXT.replace("{name: b,", zone)
    owner.declares(placed)
    assert owner.declares(placed) == []
    for odd, echo in LATER.items():
        owner.stack.sim.echo = Echo(service="sagemaker", **echo)
        assert to_change(owner, placed) == [], odd
    owner.stack.sim.echo = Echo(service="sagemaker", says={"NodeRecovery": "None"})
    (changed,) = to_change(owner, placed)
    assert dict(changed.differs) == {"node_recovery": ("None", "Automatic")}


class Killed(BaseException):
    """SIGKILL."""


def kill(patch: pytest.MonkeyPatch, boundary: int) -> None:
    """Raise Killed at a boundary: boundaries are before and after each save and each update."""
    passed = 0

    def dying(work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **given: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == boundary:
                raise Killed
            result = work(*args, **given)
            passed += 1
            if passed == boundary:
                raise Killed
            return result

        return wrapped

    patch.setattr(Manifest, "save", dying(Manifest.save))
    patch.setattr(Cluster, "update", dying(Cluster.update))
    patch.setattr(Reconciler, "_last_words", lambda *_: None)  # a killed process has none


EVERY = range(1, 9)
QUICK = {(4, "0.1.0")}


@pytest.mark.parametrize(
    ("boundary", "first"),
    [
        pytest.param(n, first, marks=[] if (n, first) in QUICK else [pytest.mark.prove])
        for n in EVERY
        for first in ("0.2.0", "0.1.0")
    ],
)
def test_a_label_that_is_removed_goes_whenever_we_are_killed(
    owner: Owner, boundary: int, first: str
) -> None:
    owner.declares(TEXT)
    path = owner.folder / "demo.json"
    if first == "0.1.0":  # whose manifests have no `sent`
        document = json.loads(path.read_text())
        for record in document["resources"].values():
            del record["sent"]
        path.write_text(json.dumps(document))
        assert owner.declares(TEXT) == []
    without = TEXT.replace("labels: {team: x}", "labels: {}")
    with pytest.MonkeyPatch.context() as patch:
        kill(patch, boundary)
        with pytest.raises(Killed):
            owner.declares(without)
    again = owner.declares(without)
    assert again in ([], ["UpdateCluster"])
    assert not owner.groups()["b"].get("KubernetesConfig", {}).get("DesiredLabels")
    assert owner.declares(without) == []
    sent = json.loads(path.read_text())["resources"]["hyperpod/cluster"]["sent"]
    assert [name for name in sent if "labels." in name] == []


def test_karpenter_takes_the_counts_over_and_gives_them_back(owner: Owner) -> None:
    text = TEXT.replace(", min_instance_count: 1", "")
    owner.declares(text)
    scaling = text + "auto_scaling: {mode: Enable}\n"
    assert "UpdateCluster" in owner.declares(scaling)
    assert owner.lost == []
    assert owner.declares(scaling) == []
    assert [
        observation.unproven for observation in owner.looks(scaling) if observation.unproven
    ] == []
    assert "UpdateCluster" in owner.declares(text)
    assert owner.declares(text) == []
    assert {n: group["TargetCount"] for n, group in owner.groups().items()} == {"a": 2, "b": 1}


def test_a_group_whose_zones_are_no_longer_named_stays_where_it_is(owner: Owner) -> None:
    """With and without a description by AWS that has its zones."""
    placed = TEXT.replace(
        "instance_count: 2,", "instance_count: 2, availability_zone_ids: [usw2-az1],"
    )
    owner.stack.sim.echo = Echo(**ODD["no place"])
    owner.declares(placed)
    assert owner.declares(TEXT) == []
    assert owner.lost == []


def test_a_failed_karpenter_is_told_in_its_words(owner: Owner) -> None:
    text = TEXT + "auto_scaling: {mode: Enable}\n"
    status = {"AutoScaling": {"Mode": "Enable", "Status": "Failed", "FailureMessage": "no role"}}
    owner.stack.sim.echo = Echo(says=status)
    with pytest.raises(HyperpodError, match=r"AutoScaling is Failed: no role"):
        owner.declares(text)
    owner.stack.sim.echo = None
    owner.declares(TEXT)  # deletes Karpenter's resources, because other tests use this account


def test_a_config_without_any_node_ends(owner: Owner) -> None:
    text = TEXT.replace("instance_count: 2", "instance_count: 0")
    text = text.replace("instance_count: 1, min_instance_count: 1", "instance_count: 0")
    sent = owner.declares(text)
    assert [each for each in sent if each.endswith("Cluster")] == ["CreateCluster"]
    assert owner.nodes() == []


@pytest.mark.prove
@pytest.mark.parametrize("seed", [3, *range(20, 40)])
def test_odd_descriptions_of_every_kind_change_nothing(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Create a cluster under them, and observe it.  It empties the account, so it comes last."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("hyperpod_eks.engine.apply.GRACE", 0.3)
    owner = Owner(stack, new_session(), tmp_path, known_helm())
    stack.sim.echo = Echo(seed)
    first = owner.declares(TEXT)
    assert not [each for each in first if each.startswith("Update")]
    assert to_change(owner, TEXT) == []
    assert owner.declares(TEXT) == []
    stack.sim.echo = None
    assert len(owner.nodes()) == 3
    assert owner.deletes(TEXT) == []
    assert owner.account() == owner.before
