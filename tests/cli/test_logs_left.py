"""Log groups and delete: ours are deleted, also if a service recreates them; others stay."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import Live
from hyperpod_eks.resources.hyperpod import cluster as hyperpod
from hyperpod_eks.resources.logs import HyperPodLogGroup, LogGroup
from tests.conftest import Clients, User

THEIRS = "/aws/sagemaker/Clusters/demo/abcdefghijkl"


def groups(aws: Clients) -> list[str]:
    return [each["logGroupName"] for each in aws.logs.describe_log_groups()["logGroups"]]


def test_logs_of_another_cluster_of_that_name_are_kept_and_named(user: User, aws: Clients) -> None:
    aws.logs.create_log_group(logGroupName=THEIRS)
    user.makes("demo")

    said = user.types("delete", "demo", "--yes", "-o", "json")

    assert said.code == 0, said.err
    assert groups(aws) == [THEIRS]
    kept = said.document["kept"]["hyperpod/log-group"]
    assert kept == f"belongs to another cluster of that name: {THEIRS}"
    assert "hyperpod/log-group" in said.document["removed"]


def test_every_id_that_the_cluster_ever_had_is_remembered(user: User, aws: Clients) -> None:
    user.has("demo")
    path = user.folder / "demo.hyperpod-eks.json"
    arn = json.loads(path.read_text())["resources"]["hyperpod/cluster"]["arn"]
    aws.logs.create_log_group(logGroupName=THEIRS)
    aws.sagemaker.delete_cluster(ClusterName="demo")
    first = f"/aws/sagemaker/Clusters/demo/{arn.rpartition('/')[2]}"
    document = json.loads(path.read_text())
    for record in document["resources"].values():
        record["since"] -= 3600  # created long ago
    path.write_text(json.dumps(document))
    said = user.types("create", "demo", "--chart", str(CHART))
    assert said.code == 0, said.err
    assert first in groups(aws)

    said = user.types("delete", "demo", "--yes")

    assert said.code == 0, said.err
    assert groups(aws) == [THEIRS]


@pytest.mark.parametrize(
    ("cluster", "kind"), [(eks.Cluster, LogGroup), (hyperpod.Cluster, HyperPodLogGroup)]
)
def test_what_a_service_writes_after_its_end_is_deleted_too(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch, cluster: Any, kind: Any
) -> None:
    """EKS and HyperPod recreate their log groups for late log lines."""
    user.has("demo")
    end, delete = cluster.delete, kind.delete
    written: list[Any] = []

    def slow(self: Any, its: Any, live: Live) -> None:
        end(self, its, live)
        time.sleep(0.5)  # a cluster that is deleted at once writes no late lines

    def anew(self: Any, its: Any, live: Live) -> None:
        delete(self, its, live)
        if not written:
            name = live.attributes.get("names", [live.id])[0]
            written.append(aws.logs.create_log_group(logGroupName=name))

    monkeypatch.setattr(cluster, "delete", slow)
    monkeypatch.setattr(kind, "delete", anew)

    said = user.types("delete", "demo", "--yes")

    assert said.code == 0, said.err
    assert written
    assert groups(aws) == []
