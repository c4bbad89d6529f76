"""The stack's memory is bounded: after any time it keeps only the newest logs and events."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from moto.s3.models import FakeKey

from hyperpod_eks.local.aws import hyperpod_model, logs
from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import INSTANT, Cluster, store
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.local.tls import make_pki
from tests.conftest import REGION, Clients
from tests.local.ground import NAME, eks_cluster, hyperpod_cluster, lay, orchestrated, workers
from tests.local.test_kubernetes import CORE, MERGE, USERS, Client


def test_a_log_keeps_its_newest_lines_and_streams(
    stack: Stack, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "KEPT_LINES", 20)
    monkeypatch.setattr(logs, "KEPT_STREAMS", 3)
    for n in range(50):
        logs.write(REGION, "g", "s", [f"line {n}"])
    events = aws.logs.get_log_events(logGroupName="g", logStreamName="s")["events"]
    assert 20 <= len(events) <= 22
    assert events[-1]["message"] == "line 49"
    for n in range(5):
        logs.write(REGION, "g", f"node-{n}", ["started"])
    kept = aws.logs.describe_log_streams(logGroupName="g")["logStreams"]
    assert [each["logStreamName"] for each in kept] == ["node-2", "node-3", "node-4"]


def test_what_is_overwritten_or_deleted_is_kept_nowhere(aws: Clients) -> None:
    """moto itself keeps every object that was ever created."""
    bucket: Any = {"Bucket": "a-bucket"}
    where: Any = {"LocationConstraint": REGION}
    aws.s3.create_bucket(**bucket, CreateBucketConfiguration=where)
    kept = [aws.s3.put_object(**bucket, Key="k", Body=b"x") for _ in range(5)]
    gc.collect()
    assert sum(type(each) is FakeKey for each in gc.get_objects()) == 1 < len(kept)


def test_a_control_plane_that_runs_for_long_keeps_its_newest_lines(
    stack: Stack, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "KEPT_LINES", 50)
    types = [{"types": ["api"], "enabled": True}]
    aws.eks.create_cluster(**eks_cluster(lay(aws), logging={"clusterLogging": types}))
    stack.clock.advance(60 * 200)
    group = f"/aws/eks/{NAME}/cluster"
    (stream,) = aws.logs.describe_log_streams(logGroupName=group)["logStreams"]
    minutes = (stream["lastEventTimestamp"] - stream["firstEventTimestamp"]) / 60_000
    assert 49 <= minutes <= 55


def test_a_group_that_never_has_its_nodes_leaves_its_newest_events(
    stack: Stack, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hyperpod_model, "KEPT_EVENTS", 9)
    ground = orchestrated(aws)
    stack.sim.failures = {"group/workers": "capacity"}
    request = hyperpod_cluster(ground, workers(ground), NodeProvisioningMode="Continuous")
    aws.sagemaker.create_cluster(**request)
    stack.clock.advance(300 * 20.5)
    events = aws.sagemaker.list_cluster_events(ClusterName=NAME, MaxResults=100)["Events"]
    assert len(events) == 9
    assert (stack.clock.now() - events[0]["EventTime"]).total_seconds() < 300


@pytest.fixture
def timed() -> Iterator[tuple[Clock, Client]]:
    clock = Clock()
    cluster = Cluster(clock, USERS.get, "1.33", make_pki(), delays=INSTANT)
    client = Client(cluster)
    yield clock, client
    client.close()
    cluster.stop()


def test_events_of_kubernetes_last_an_hour(timed: tuple[Clock, Client]) -> None:
    """kube-apiserver's --event-ttl counts from the last write."""
    clock, client = timed
    for name in ("a", "b"):
        about = {"kind": "Pod", "name": "p", "namespace": "default"}
        event = {"metadata": {"name": name}, "involvedObject": about}
        client.ok("POST", f"{CORE}/events", event)
    clock.advance(3000)
    client.ok("PATCH", f"{CORE}/events/b", {"count": 2}, MERGE)
    clock.advance(700)
    assert [e["metadata"]["name"] for e in client.ok("GET", f"{CORE}/events")["items"]] == ["b"]
    clock.advance(3000)
    assert client.ok("GET", f"{CORE}/events")["items"] == []


def test_a_watch_that_is_too_slow_ends_and_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that was dropped before a watch sent it is never skipped silently."""
    monkeypatch.setattr(store, "_KEPT_EVENTS", 5)
    few = Cluster(Clock(), USERS.get, "1.33", make_pki(), delays=INSTANT)
    client = Client(few)
    since = client.ok("GET", f"{CORE}/configmaps")["metadata"]["resourceVersion"]
    events = few._store.events(few._store.registry.builtin("ConfigMap"), int(since), float("inf"))
    for n in range(9):
        client.ok("POST", f"{CORE}/configmaps", {"metadata": {"name": f"c{n}"}})
    assert list(events) == []
    path = f"/api/v1/configmaps?watch=1&resourceVersion={since}"
    ((kind, status),) = client.watch(path)
    assert (kind, status["code"]) == ("ERROR", 410)
    client.close()
    few.stop()
