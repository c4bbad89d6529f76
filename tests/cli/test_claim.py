"""The claim on a cluster: runs with other manifests, on any machine, wait for the one at work."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import pytest

from hyperpod_eks.aws.errors import PATIENCE, ErrorKind
from hyperpod_eks.errors import Locked
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.resources.s3 import claim_key
from hyperpod_eks.state import lease
from hyperpod_eks.state.claim import Claim
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.lease import Lease
from hyperpod_eks.state.objects import Objects
from tests.conftest import Clients, User, new_aws

KEY = claim_key("demo")


@pytest.fixture
def bucket(user: User) -> str:
    name: str = user.has("demo")["outputs"]["bucket"]
    user.stack.calls.clear()
    return name


def claim(aws: Clients, bucket: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(aws.s3.get_object(Bucket=bucket, Key=KEY)["Body"].read())
    return found


@pytest.fixture
def other(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """The claim of a run on another machine."""
    found = Lease(Objects(new_aws(), bucket), KEY)
    found.look()
    with monkeypatch.context() as patch:
        patch.setattr(lease, "_process", lambda pid: [])
        found.hold()
    found._over.set()  # what it writes later does not matter here
    return found


def test_a_run_claims_the_cluster_and_frees_it(user: User, aws: Clients, bucket: str) -> None:
    found = claim(aws, bucket)
    assert (found["state"], found["run"]) == (
        "released",
        json.loads((user.folder / "demo.hyperpod-eks.json").read_text())["claim"],
    )
    assert user.types("create", "demo").code == 0
    assert written(user) == []  # a no-op takes none
    assert claim(aws, bucket) == found


def written(user: User) -> list[str]:
    """Return all mutating calls since the last time, those for the claim too."""
    found = [f"{call.service}.{call.operation}" for call in user.stack.calls if call.mutating]
    user.stack.calls.clear()
    return found


def test_the_bucket_is_created_first_and_deleted_last(user: User) -> None:
    user.makes("demo")
    assert written(user)[:2] == ["s3.CreateBucket", "s3.PutObject"]
    assert user.types("delete", "demo", "--yes").code == 0
    emptied = [call.request for call in user.stack.calls if call.operation == "DeleteObjects"]
    assert emptied
    assert not [request for request in emptied if KEY in request]
    changes = written(user)
    assert changes[0] == "s3.PutObject"
    assert changes[-2:] == ["s3.DeleteObject", "s3.DeleteBucket"]


@pytest.mark.sample("delete")
@pytest.mark.parametrize(
    "words",
    [
        ("scale", "demo", "worker-group=3"),
        ("nodes", "demo", "delete", "i-00000000", "--yes"),
        ("delete", "demo", "--yes"),
    ],
    ids=lambda x: x[0],
)
def test_while_another_run_changes_the_cluster_nobody_else_does(
    user: User, other: Lease, words: tuple[str, ...]
) -> None:
    said = user.types(*words)
    assert said.code == 4
    assert all(word in said.err for word in ("process", "since", "--lock-timeout"))
    assert user.mutations() == []
    for quiet in ("status", "plan", "create"):
        assert user.types(quiet, "demo").code == 0
    other.release()
    assert user.types(*words).code == (8 if "i-00000000" in words else 0)  # there is no such node


def test_the_command_that_frees_the_cluster_leads_to_the_same_place(
    user: User, other: Lease
) -> None:
    said = user.types("scale", "demo", "worker-group=3", "--region", "us-west-2")
    assert "\nTo free it now: hyperpod-eks unlock demo --region us-west-2\n" in said.err


def test_whoever_has_the_manifest_of_a_dead_run_goes_on_at_once(user: User, other: Lease) -> None:
    path = user.folder / "demo.hyperpod-eks.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "claim": other.run}))
    copy = user.types("scale", "demo", "worker-group=3")  # the claim names no manifest: a copy
    assert copy.code == 4, copy.err
    other.manifest = FileStore(path).identity
    other._write("held")
    assert user.types("scale", "demo", "worker-group=3").code == 0


def test_a_create_that_only_deletes_reads_again_after_another_run(
    user: User, aws: Clients, other: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_process", lambda pid: [])
    (user.folder / "demo.yaml").write_text("name: demo\naddons: {metrics-server: {}}\n")
    other.release()
    assert user.types("create", "-f", "demo.yaml", "--chart", str(CHART)).code == 0
    other.look()
    other.hold()
    other.release()
    (user.folder / "demo.yaml").write_text("name: demo\n")
    said = user.types("create", "-f", "demo.yaml", "--chart", str(CHART))
    assert said.code == 0, said.err
    assert "metrics-server" not in aws.eks.list_addons(clusterName="demo")["addons"]


def test_unlock_shows_the_holder_and_frees_the_cluster(user: User, other: Lease) -> None:
    asked = user.types("unlock", "demo")
    assert asked.code == 2  # no question without a terminal
    assert "process" in asked.err
    freed = user.types("unlock", "demo", "--yes", "-o", "json")
    assert freed.code == 0, freed.err
    (lock,) = freed.document["freed"]
    assert lock["lock"].endswith(KEY)
    assert user.types("unlock", "demo").out == "no run holds the cluster demo\n"
    with pytest.raises(Locked):  # the run that held it stops
        other._write("held")
    assert user.types("scale", "demo", "worker-group=3").code == 0


def test_a_signal_is_not_delayed_by_waiting_for_another_run(
    user: User, other: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "POLL", 0.1)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    began = time.monotonic()
    said = user.types("delete", "demo", "--yes", "--lock-timeout", "60")
    timer.join()
    assert said.code == 143
    assert time.monotonic() - began < 30
    assert user.mutations() == []


def test_a_bucket_that_keeps_versions_is_deleted_too(
    user: User, aws: Clients, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DeleteObject without a version only adds a marker there (Amazon S3 User Guide)."""
    monkeypatch.setitem(PATIENCE, ErrorKind.DEPENDENCY, 0)
    versioned: Any = {"Status": "Enabled"}
    aws.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=versioned)
    assert user.types("scale", "demo", "worker-group=3").code == 0
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    assert user.stack.inventory()["s3"] == {}


def test_a_bucket_that_s3_does_not_show_everywhere_yet_is_waited_for(user: User) -> None:
    user.stack.faults.append(Fault("s3", "PutObject", "NoSuchBucket", 404, count=2))
    assert user.makes("demo")["changed"]


def test_a_delete_goes_on_without_a_bucket_that_is_gone_since_its_first_look(
    user: User, aws: Clients, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the bucket nobody has a claim, and S3 may show its tags for a while."""
    look, looks = Claim._look, []

    def late(self: Claim, ended: str) -> str:
        looks.append(ended)
        for item in aws.s3.list_objects_v2(Bucket=bucket)["Contents"]:
            aws.s3.delete_object(Bucket=bucket, Key=item["Key"])
        aws.s3.delete_bucket(Bucket=bucket)
        return look(self, ended)

    monkeypatch.setattr(Claim, "_look", late)
    monkeypatch.setattr("hyperpod_eks.state.claim.PATIENCE", 0.0)
    monkeypatch.setattr("hyperpod_eks.engine.loop.GRACE", 0.0)
    said = user.types("delete", "demo", "--yes")
    assert (said.code, len(looks)) == (0, 1), said.err
    assert not (user.folder / "demo.hyperpod-eks.json").exists()
    assert not user.stack.inventory()["s3"]


@pytest.mark.sample("known")
@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
def test_the_claim_of_another_run_is_not_deleted(
    user: User, aws: Clients, bucket: str, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Whoever was overtaken just before it deletes the bucket stops, as anywhere else."""
    delete = Lease.delete
    theirs = {"schema": lease.SCHEMA, "state": "held", "holder": "process 1 on b", "run": "b"}

    def late(self: Lease) -> None:
        aws.s3.put_object(Bucket=bucket, Key=KEY, Body=json.dumps(theirs).encode())
        if known:
            self.renew(threading.Event())
        delete(self)

    monkeypatch.setattr(Lease, "delete", late)
    said = user.types("delete", "demo", "--yes")
    assert (said.code, "process 1 on b holds the lock" in said.err) == (4, True), said.err
    assert claim(aws, bucket) == theirs


@pytest.mark.sample("deep")
@pytest.mark.parametrize("content", [b"hello", b"[" * 100_000], ids=["text", "deep"])
def test_a_claim_that_is_none_is_refused_with_the_way_out(
    user: User, aws: Clients, bucket: str, content: bytes
) -> None:
    aws.s3.put_object(Bucket=bucket, Key=KEY, Body=content)
    for words in (("scale", "demo", "worker-group=3"), ("unlock", "demo", "--yes")):
        said = user.types(*words)
        assert (said.code, f"aws s3 rm s3://{bucket}/{KEY}" in said.err) == (2, True), said.err
    aws.s3.delete_object(Bucket=bucket, Key=KEY)
    assert user.types("scale", "demo", "worker-group=3").code == 0


def test_a_change_is_checked_after_its_wait_for_the_rate_limit(aws: Clients) -> None:
    ours = new_aws()
    ours.ec2.describe_vpcs()
    pace = ours._paces["ec2"]
    pace.gap, pace._next = 1.0, time.monotonic() + 1.0
    taken = time.monotonic() + 0.8

    def check() -> None:
        if time.monotonic() > taken:
            raise Locked("another run")

    ours.before_change = check
    with pytest.raises(Locked):
        ours.ec2.create_vpc(CidrBlock="10.0.0.0/16")
    assert len(aws.ec2.describe_vpcs()["Vpcs"]) == 1  # the default one
