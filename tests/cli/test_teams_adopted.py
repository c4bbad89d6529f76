"""Teams on an EKS cluster of somebody else: what others have on it stays as it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks import session
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.events import Event, EventType
from hyperpod_eks.kube import client
from hyperpod_eks.kube.client import Content
from hyperpod_eks.local import daemon
from hyperpod_eks.resources import eks
from tests.change.test_existing import without_the_services_entry
from tests.cli.test_task_governance import quota
from tests.conftest import REGION, Clients, User, new_aws
from tests.local.test_governance import ADDON, JOBS, QUEUE, SPACE, job

EXAMPLE = Path(__file__).parents[2] / "examples/existing-eks.yaml"
TEAMS = """
teams:
  vision: {quota: [{instance_type: ml.m5.2xlarge, count: 1}], fair_share_weight: 60}
"""
CREATE = ("create", "-f", "c.yaml", "--local")
DELETE = ("delete", "-f", "c.yaml", "--local")
SPACES = "/api/v1/namespaces"
THEIRS = ("research", "hyperpod-ns-legacy")
"""Namespaces of others; one is called as if it were a team's."""


def platform(method: str, path: str, body: Any = None) -> Any:
    """Call the Kubernetes API of the existing cluster as somebody else."""
    access = eks.access(Snapshot(new_aws()), "platform")
    assert access
    content = Content("application/json", json.dumps(body).encode()) if body else None
    return client._ask(access, path, method, content=content)


def declare(user: User, teams: str = TEAMS) -> None:
    (user.folder / "c.yaml").write_text(EXAMPLE.read_text() + teams)


@pytest.fixture
def user(user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user whose `--local` is the stack of this process."""
    running = daemon.Running(user.stack.endpoint, os.getpid(), 0.0, REGION)
    monkeypatch.setattr(daemon, "ensure", lambda *_, **__: running)
    return user


@pytest.fixture
def before(user: User) -> Any:
    """The account before the create, with an EKS cluster that others use."""

    declare(user, "")
    assert user.types("local", "prepare", "-f", "c.yaml").code == 0
    for space in THEIRS:
        platform("POST", SPACES, {"metadata": {"name": space}})
        secret = {"metadata": {"name": "keys"}, "stringData": {"a": "b"}}
        platform("POST", f"{SPACES}/{space}/secrets", secret)
    return account(user)


def account(user: User) -> Any:
    """Return everything in the account, but for the namespace that an add-on leaves empty."""
    found = user.stack.inventory()
    for cluster, objects in found["kubernetes"].items():
        kept = {key: each for key, each in objects.items() if "kueue-system" not in key}
        found["kubernetes"][cluster] = kept
    return without_the_services_entry(json.dumps(found, sort_keys=True, indent=1).splitlines())


def of_others(user: User) -> dict[str, Any]:
    """Return the objects in the namespaces of others, with these."""
    (found,) = user.stack.inventory()["kubernetes"].values()
    spaces = (*THEIRS, "hyperpod-ns-others")
    return {
        key: each
        for key, each in found.items()
        if each["metadata"].get("namespace", each["metadata"]["name"]) in spaces
    }


def create_theirs(aws: Clients) -> str:
    """Create a quota as somebody else does in the console, with a job; return its id."""
    arn = aws.sagemaker.describe_cluster(ClusterName="demo")["ClusterArn"]
    made = aws.sagemaker.create_compute_quota(
        Name="others",
        ClusterArn=arn,
        ComputeQuotaConfig={},
        ComputeQuotaTarget={"TeamName": "others"},
    )
    queue = {name: value.replace("vision", "others") for name, value in QUEUE.items()}
    platform("POST", JOBS.replace("vision", "others"), job("theirs", queue))
    return str(made["ComputeQuotaId"])


def settings(aws: Clients) -> Any:
    """Return the quota of others, as SageMaker describes it."""
    return {name: each for name, each in quota(aws, "others").items() if name != "ResponseMetadata"}


def test_teams_come_change_and_go_and_those_of_others_stay(
    user: User, before: Any, clients: Clients
) -> None:
    declare(user)
    said = user.types(*CREATE)
    assert said.code == 0, said.err
    theirs = create_theirs(clients)
    others, their_quota = of_others(user), settings(clients)
    assert any("/theirs" in each for each in others)
    user.mutations()
    assert user.types(*CREATE).code == 0
    assert user.mutations() == []

    declare(user, TEAMS.replace("60", "70"))
    said = user.types(*CREATE)
    assert said.code == 0, said.err
    assert user.mutations() == ["sagemaker.UpdateComputeQuota"]
    assert quota(clients)["ComputeQuotaTarget"]["FairShareWeight"] == 70

    platform("POST", JOBS, job("night-run", QUEUE))
    asked = user.types(*DELETE)
    assert (asked.code, user.mutations()) == (2, [])
    assert f"with the namespace {SPACE} and everything in it (job night-run)" in asked.err
    held = user.types(*DELETE, "--yes", "--timeout", "3")
    assert held.code == 9, held.err
    assert f"held by compute quota others ({theirs})" in held.err
    assert settings(clients) == their_quota
    assert of_others(user) == others
    clients.sagemaker.delete_compute_quota(ComputeQuotaId=theirs)
    gone = user.types(*DELETE, "--yes")
    assert gone.code == 0, gone.err
    assert account(user) == before


def test_a_program_takes_from_a_team_only_what_it_had_when_the_delete_began(
    user: User, before: Any, clients: Clients
) -> None:
    declare(user)
    assert user.types(*CREATE).code == 0
    platform("POST", JOBS, job("night-run", QUEUE))

    def somebody_works(event: Event) -> None:
        if (event.what, event.key) == (EventType.DELETING, "teams/quota-vision"):
            platform("POST", JOBS, job("late", QUEUE))

    late = "this has come into it: job late"
    with (
        session.connect("c.yaml", purpose=session.DELETE, report=somebody_works) as cluster,
        pytest.raises(HyperpodError, match=late),
    ):
        cluster.delete()
    assert {each["metadata"]["name"] for each in platform("GET", JOBS)["items"]} == {
        "late",
        "night-run",
    }
    with session.connect("c.yaml", purpose=session.DELETE) as cluster:
        cluster.delete()
    assert account(user) == before


@pytest.mark.prove
def test_an_add_on_and_a_policy_of_others_are_used_or_refused_and_stay(
    user: User, before: Any, clients: Clients
) -> None:
    clients.eks.create_addon(clusterName="platform", addonName=ADDON)
    declare(user, "")
    assert user.types(*CREATE).code == 0
    arn = clients.sagemaker.describe_cluster(ClusterName="demo")["ClusterArn"]
    config = {"PriorityClasses": [{"Name": "theirs", "Weight": 7}]}
    clients.sagemaker.create_cluster_scheduler_config(
        Name="theirs", ClusterArn=arn, SchedulerConfig=config
    )
    declare(user)
    user.mutations()
    said = user.types(*CREATE, "--yes")
    assert (said.code, user.mutations()) == (7, []), said.err
    (row,) = clients.sagemaker.list_cluster_scheduler_configs()["ClusterSchedulerConfigSummaries"]
    id_ = row["ClusterSchedulerConfigId"]
    command = "delete-cluster-scheduler-config --cluster-scheduler-config-id"
    assert f"to delete it: aws sagemaker {command} {id_} --region us-west-2)" in said.err
    clients.sagemaker.delete_cluster_scheduler_config(ClusterSchedulerConfigId=id_)
    said = user.types(*CREATE)
    assert said.code == 0, said.err
    gone = user.types(*DELETE, "--yes")
    assert gone.code == 0, gone.err
    found = clients.eks.describe_addon(clusterName="platform", addonName=ADDON)["addon"]
    assert found["status"] == "DEGRADED"  # without nodes
    clients.eks.delete_addon(clusterName="platform", addonName=ADDON)
    assert account(user) == before
