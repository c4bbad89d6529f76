"""``nodes NAME check``: deep health checks of some nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hyperpod_eks.local.stack import Stack
from tests.conftest import User, at_work

CHECKS = """\
name: gpu
region: us-west-2
instance_groups:
- {name: plain, instance_type: ml.m5.2xlarge, instance_count: 1}
- {name: usual, instance_type: ml.g5.2xlarge, instance_count: 2}
- {name: own, instance_type: ml.g5.2xlarge, instance_count: 1,
   on_start_deep_health_checks: [InstanceStress, MultiNodeTrainingValidation]}
"""


@pytest.fixture(scope="module")
def gpus(
    one_stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[User, dict[str, list[str]]]]:
    with at_work(one_stack, tmp_path_factory.mktemp("gpus")) as user:
        (user.folder / "gpu.yaml").write_text(CHECKS)
        user.has("gpu", "-f", "gpu.yaml", "--yes")
        found: dict[str, list[str]] = {}
        for row in user.types("nodes", "gpu", "-o", "json").document["nodes"]:
            found.setdefault(row["instance_group"], []).append(row["instance_id"])
        yield user, found


def test_nodes_are_checked_with_what_their_group_runs_on_new_ones(
    gpus: tuple[User, dict[str, list[str]]],
) -> None:
    user, groups = gpus
    one, two = groups["usual"]
    user.mutations()

    said = user.types("nodes", "gpu", "check", one, *groups["own"], two, "i-00000000", "--yes")

    assert said.code == 1
    assert said.out.splitlines() == [
        f"checking {one}", f"checking {groups['own'][0]}", f"checking {two}",
        "refused i-00000000: InstanceIdNotFound the cluster gpu has no node i-00000000",
    ]  # fmt: skip
    asked = {
        each["InstanceGroupName"]: (each["InstanceIds"], each["DeepHealthChecks"])
        for call in user.stack.calls if call.operation == "StartClusterHealthCheck"
        for each in json.loads(call.request.removeprefix("/?"))["DeepHealthCheckConfigurations"]
    }  # fmt: skip
    assert asked == {
        "usual": ([one, two], ["InstanceStress", "InstanceConnectivity"]),
        "own": (groups["own"], ["InstanceStress", "MultiNodeTrainingValidation"]),
    }
    assert user.mutations() == ["sagemaker.StartClusterHealthCheck"]

    said = user.types("nodes", "gpu", "check", one, "--yes", "-o", "json")
    assert (said.code, said.document["done"], said.document["failed"]) == (0, [one], [])
    (call,) = (c for c in user.stack.calls if c.operation == "StartClusterHealthCheck")
    (check,) = json.loads(call.request.removeprefix("/?"))["DeepHealthCheckConfigurations"]
    assert check["DeepHealthChecks"] == ["InstanceStress"]  # connectivity needs two nodes


def test_a_check_says_what_happens_to_pods_and_asks(
    gpus: tuple[User, dict[str, list[str]]],
) -> None:
    user, groups = gpus
    user.mutations()

    said = user.types("nodes", "gpu", "check", *groups["usual"])
    assert said.code == 2
    assert "no new pods start there until the deep health checks pass" in said.err
    said = user.types("nodes", "gpu", "check", *groups["plain"], "--yes")
    assert said.code == 2
    assert f"{groups['plain'][0]} is an ml.m5.2xlarge" in said.err
    assert user.mutations() == []
