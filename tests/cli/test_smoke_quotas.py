"""``hyperpod-eks test`` where each team has the quota of one node, as in examples/platform.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hyperpod_eks.local.stack import Stack
from tests.cli.test_smoke import examined, found, kubernetes
from tests.cli.test_smoke_teams import Jobs, hog
from tests.conftest import Said, User, at_work

CONFIG = """\
name: smoke
region: us-west-2
teams:
  vision: {quota: [{instance_type: ml.g5.8xlarge, count: 1}]}
  speech: {quota: [{instance_type: ml.g5.8xlarge, count: 1}]}
instance_groups:
- {name: gpus, instance_type: ml.g5.8xlarge, instance_count: 2}
"""


@pytest.fixture(scope="module")
def user(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with at_work(one_stack, tmp_path_factory.mktemp("smoke")) as user:
        one_stack.sim.set_quota("sagemaker", "ml.g5.8xlarge for cluster usage", 4)
        (user.folder / "smoke.yaml").write_text(CONFIG)
        user.makes("smoke", "-f", "smoke.yaml")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hyperpod_eks.smoke.accelerators.UNPLACED", 0.0)
            patch.setattr("hyperpod_eks.smoke.job.PAUSES", (0.0,))
            yield user


@contextmanager
def borrowing(user: User, team: str, limit: str) -> Iterator[None]:
    """Let a team borrow that much of every resource."""
    store = kubernetes(user)._store
    queues, name = store.registry.kind("ClusterQueue"), f"hyperpod-ns-{team}-clusterqueue"
    before = store.get(queues, "", name)
    groups = [
        {**group, "flavors": [_borrowing(flavor, limit) for flavor in group["flavors"]]}
        for group in before["spec"]["resourceGroups"]
    ]
    store.modify(queues, before, {**before, "spec": {**before["spec"], "resourceGroups": groups}})
    yield
    store.modify(queues, store.get(queues, "", name), before)


def _borrowing(flavor: Any, limit: str) -> Any:
    resources = [
        {**each, "borrowingLimit": limit if each["name"] == "nvidia.com/gpu" else "1Ti"}
        for each in flavor["resources"]
    ]
    return {**flavor, "resources": resources}


def statuses(said: Said) -> dict[str, tuple[str, str]]:
    return {row["id"]: (row["status"], row["why"]) for row in said.document["checks"]}


def test_an_all_reduce_that_no_queue_can_ever_admit_is_skipped(user: User) -> None:
    with Jobs(user) as jobs:
        said = examined(user, "--level", "3")
    assert (said.code, found(said), jobs) == (0, {}, {})
    status, why = statuses(said)["all-reduce"]
    assert status == "skipped"
    assert why == (
        "gpus: no queue can admit it: the queue hyperpod-ns-speech-localqueue can use at most 1.5"
        " nvidia.com/gpu, what it may borrow included, and the job needs 2"
    )


def test_a_queue_that_may_borrow_enough_is_used(user: User) -> None:
    with borrowing(user, "vision", "1"), Jobs(user) as jobs:
        said = examined(user, "--level", "3")
    assert (said.code, found(said)) == (0, {})
    assert statuses(said)["all-reduce"] == ("passed", "")
    (job,) = jobs
    assert job.startswith("MPIJob hyperpod-ns-vision/")


def test_a_queue_whose_quota_is_used_up_is_still_a_finding(user: User) -> None:
    store, space = kubernetes(user)._store, "hyperpod-ns-vision"
    kind = store.registry.builtin("Job")
    store.create(kind, space, hog("hog", space, **{"nvidia.com/gpu": "1"}))
    with borrowing(user, "vision", "1"):
        said = examined(user, "--level", "3")
    store.delete(kind, space, "hog")
    assert (said.code, found(said)) == (11, {"all-reduce": ["not-admitted"]})


def test_a_group_that_no_queue_admits_is_named_beside_one_that_was_tested(user: User) -> None:
    user.stack.sim.set_quota("sagemaker", "ml.g5.12xlarge for cluster usage", 4)
    free = "- {name: free, instance_type: ml.g5.12xlarge, instance_count: 2}\n"  # of no team
    (user.folder / "smoke.yaml").write_text(CONFIG + free)
    user.makes("smoke", "-f", "smoke.yaml")
    said = examined(user, "--level", "3")
    assert (said.code, found(said)) == (0, {})
    rows = {row["id"]: row for row in said.document["checks"]}
    assert rows["all-reduce"]["status"] == "passed"
    (measured,) = rows["all-reduce"]["measured"]
    assert measured["about"] == "gpus"
    assert measured["says"].startswith("not tested: no queue can admit it: ")
    assert [one["about"] for one in rows["bandwidth"]["measured"]] == ["free"]
