"""A manifest in S3: one cluster, whatever the folder; one run at a time; every version kept."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.cli.commands import create
from hyperpod_eks.engine import Context
from hyperpod_eks.errors import Denied, Locked, Usage
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import ACCOUNT, Fault
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.state import lease
from hyperpod_eks.state.lease import Lease
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.state.objects import Objects, Overtaken
from hyperpod_eks.state.record import Record
from hyperpod_eks.state.s3_store import S3Store
from tests.conftest import Clients, Said, User, new_aws, until

BUCKET, URL = "team-state", "s3://team-state/ml/demo.json"
KEY = "ml/demo.json"


@pytest.fixture
def bucket(user: User, aws: Clients) -> Any:
    where: Any = {"LocationConstraint": "us-west-2"}
    aws.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
    user.mutations()
    return aws.s3


@pytest.fixture
def there(bucket: Any, stack: Stack) -> Objects:
    return Objects(new_aws(), BUCKET)


def keys(bucket: Any) -> list[str]:
    return [each["Key"] for each in bucket.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


@pytest.mark.prove
def test_a_life_from_two_folders(user: User, bucket: Any, tmp_path: Path, monkeypatch: Any) -> None:
    made = user.makes("demo", "--manifest", URL)
    assert made["cluster"]["name"] == "demo"
    assert not list(user.folder.glob("*.json"))
    document = json.loads(bucket.get_object(Bucket=BUCKET, Key=KEY)["Body"].read())
    kept = [key for key in keys(bucket) if key.startswith(f"{KEY}.versions/")]
    assert [int(key[-13:-5]) for key in kept] == list(range(1, document["serial"]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HYPERPOD_EKS_STATE", "s3://team-state/ml")
    bucket.copy_object(Bucket=BUCKET, Key="ml/demo.hyperpod-eks.json", CopySource=f"{BUCKET}/{KEY}")
    user.mutations()
    for words in (("status", "demo"), ("plan", "demo", "--detailed-exitcode")):
        said = user.types(*words)
        assert said.code == 0, said.err
    assert user.types("outputs", "demo", "vpc_id").out.strip().startswith("vpc-")
    assert user.types("create", "demo").code == 0
    assert set(user.mutations()) <= {"s3.PutObject"}  # what its look has shown
    assert user.types("create", "demo").code == 0
    assert user.mutations() == []  # neither lock nor manifest
    said = user.types("scale", "demo", "worker-group=3", "--yes")
    assert said.code == 0, said.err
    assert "s3.PutObject" in user.mutations()
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    lock = "ml/demo.hyperpod-eks.json.lock"
    left = [key for key in keys(bucket) if key.startswith("ml/demo.hyperpod")]
    assert left == [lock]
    content = json.loads(bucket.get_object(Bucket=BUCKET, Key=lock)["Body"].read())
    assert content["state"] == "released"
    assert not list(elsewhere.iterdir())


@pytest.mark.prove
@pytest.mark.parametrize("again", [False, True], ids=["deleted", "and created again"])
def test_a_delete_with_another_manifest_leaves_this_one_usable(
    user: User, aws: Clients, monkeypatch: Any, again: bool
) -> None:
    """The manifest in S3 names resources that a run with a manifest in a file has deleted."""
    user.has("demo")
    place = {"LocationConstraint": "us-west-2"}
    aws.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
    kept = user.folder / "demo.hyperpod-eks.json"
    document = json.loads(kept.read_text())
    kept.unlink()
    document["run"] = "ci-1"
    for record in document["resources"].values():
        record["since"] -= 3600  # what is an hour old and not there is gone
    aws.s3.put_object(Bucket=BUCKET, Key=KEY, Body=json.dumps(document).encode())
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    if again:
        (user.folder / "own").mkdir()
        monkeypatch.chdir(user.folder / "own")
        user.makes("demo")
        assert user.types("scale", "demo", "worker-group=3").code == 0
    theirs = ("demo", "--manifest", URL)
    user.mutations()
    said = user.types("status", *theirs, "-o", "json")
    assert said.code == (0 if again else 8), said.err
    groups = {group["name"]: group["current"] for group in said.document.get("instance_groups", ())}
    assert groups == ({"worker-group": 3} if again else {})
    if again:
        said = user.types("delete", *theirs, "--yes", "--if-created-by", "ci-1")
        assert (said.code, "not created by run ci-1" in said.out) == (0, True), said.out
        said = user.types("plan", *theirs, "--detailed-exitcode")
        assert said.code == 0, said.out + said.err
    said = user.types("create", *theirs)
    assert said.code == 0, said.err
    assert {"s3.PutObject"}.issuperset(user.mutations()) is again
    said = user.types("plan", *theirs, "--detailed-exitcode")
    assert said.code == 0, said.out
    said = user.types("delete", *theirs, "--yes", "--if-created-by", "ci-1")
    assert (said.code, "not created by run" in said.out) == (0, again), said.out
    said = user.types("delete", *theirs, "--yes")
    assert said.code == 0, said.err
    assert set(user.stack.inventory()["s3"]) == {BUCKET}


def test_another_place_of_the_manifest_changes_nothing_else(user: User, bucket: Any) -> None:
    user.makes("demo")
    user.mutations()
    (user.folder / "demo.yaml").write_text("name: demo\nstate: s3://team-state/ml\n")
    said = user.types("create", "-f", "demo.yaml", "--chart", str(CHART))
    assert said.code == 0, said.err
    assert set(user.mutations()) == {"s3.PutObject"}
    assert keys(bucket)[0] == "ml/demo.hyperpod-eks.json"
    (user.folder / "demo.hyperpod-eks.json").unlink()
    for words in (("outputs",), ("status", "--offline"), ("kubeconfig", "--stdout")):
        assert user.types(*words, "-f", "demo.yaml").code == 0


def test_a_machine_that_uses_another_manifest_is_told(
    user: User, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config in the cluster's bucket says where the manifest is, but is read after it."""
    text = f"name: demo\nstate: s3://team-state/ml\nchart: {{path: {CHART}}}\n"
    (user.folder / "demo.yaml").write_text(text)
    assert user.types("create", "-f", "demo.yaml").code == 0
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    said = user.types("plan", "demo")
    assert (said.code, "HYPERPOD_EKS_STATE=s3://team-state/ml" in said.err) == (0, True), said.err
    monkeypatch.setenv("HYPERPOD_EKS_STATE", "s3://team-state/ml")
    assert user.types("plan", "demo").err == ""


def test_a_second_run_ends_with_4_and_names_the_first(
    user: User, there: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_process", lambda pid: [])  # of another machine
    held = Lease(there, f"{KEY}.lock")
    held.look()
    held.hold()
    said = user.types("create", "demo", "--manifest", URL, "--chart", str(CHART))
    assert said.code == 4
    assert f"holds the lock s3://team-state/{KEY}.lock" in said.err
    assert user.types("status", "demo", "--manifest", URL).code == 8  # who only reads is let in
    held.release()
    assert user.types("create", "demo", "--manifest", URL, "--chart", str(CHART)).code == 0


def test_a_scale_that_comes_too_late_changes_no_count(
    user: User, there: Objects, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lock for the whole command: no other run's counts are overwritten or restored."""
    user.makes("demo", "--manifest", URL)
    said: list[Said] = []
    prepare = create._prepare
    monkeypatch.setattr(lease, "_process", lambda pid: [])

    def late(*about: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(create, "_prepare", prepare)
            words = ("scale", "demo", "worker-group=4", "--manifest", URL, "--yes")
            said.append(user.types(*words))
        return prepare(*about)

    monkeypatch.setattr(create, "_prepare", late)
    made = user.types("scale", "demo", "worker-group=3", "--manifest", URL, "--yes")
    assert said[0].code == 0, said[0].err
    assert made.code == 4, made.err
    document = json.loads(bucket.get_object(Bucket=BUCKET, Key=KEY)["Body"].read())
    assert document["config"]["instance_groups"][0]["instance_count"] == 4


def test_a_dead_holder_of_this_machine_is_not_waited_for(there: Objects) -> None:
    mine = Lease(there, "lock")
    mine.look()
    mine.hold()
    mine.release()
    held = json.loads(there.get("lock").content)  # type: ignore[union-attr]
    gone = held | {"state": "held", "process": [*held["process"][:3], "1"]}
    there.put("lock", json.dumps(gone).encode(), there.get("lock"))
    other = Lease(there, "lock")
    other.look()
    other.hold()
    other.release()


def test_a_lock_that_nobody_writes_to_is_taken_over(
    there: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a term of one's own clock, and only by who waits for it."""
    monkeypatch.setattr(lease, "_process", lambda pid: [])
    monkeypatch.setattr(lease, "TERM", 0.4)
    monkeypatch.setattr(lease, "POLL", 0.05)
    dead, other, third = (Lease(there, "lock") for _ in range(3))
    dead.look()
    dead.hold()
    with pytest.raises(Locked, match=r"process .* holds the lock s3://team-state/lock"):
        other.look()
    other.look(timeout=5)
    third.look(timeout=5)
    other.hold()
    with pytest.raises(Locked):
        third.hold()
    monkeypatch.setattr(lease, "LASTS", 0.0)
    with pytest.raises(Locked, match="holds the lock"):  # it wakes up
        dead.hold()
    with pytest.raises(Locked):
        dead.hold()
    dead.release()
    other.hold()
    other.release()


def test_the_holder_writes_on_while_it_works(
    there: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW", 0.01)
    mine = Lease(there, "lock")
    mine.look()
    mine.hold()
    first = there.get("lock")
    until(lambda: there.get("lock") != first)
    mine.release()
    last = there.get("lock")
    assert last
    assert json.loads(last.content)["state"] == "released"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("s3", "PutObject", kind="lost", count=2),
        Fault("s3", "PutObject", kind="reset", count=2),
        Fault("s3", "PutObject", "InternalError", 500, count=2),
        Fault("s3", "PutObject", "ConditionalRequestConflict", 409, count=2),
    ],
    ids=["lost", "reset", "error", "conflict"],
)
def test_a_write_whose_answer_is_lost_is_settled_by_reading(
    there: Objects, stack: Stack, fault: Fault
) -> None:
    before = there.put("x", b"1", None)
    stack.faults.append(replace(fault))
    after = there.put("x", b"2", before)
    assert there.get("x") == after
    with pytest.raises(Overtaken) as caught:
        there.put("x", b"3", before)
    assert caught.value.version == after


def test_a_bucket_of_an_account_that_is_not_expected_is_not_used(there: Objects) -> None:
    """Names of buckets are free once they are deleted: somebody else may have this one now."""
    there.put("x", b"1", None)
    theirs = Objects(there.aws, BUCKET, "the cluster demo", "999988887777")
    with pytest.raises(Denied) as caught:
        theirs.get("x")
    assert "must belong to account 999988887777" in caught.value.hint
    with pytest.raises(Denied):
        theirs.put("y", b"2", None)
    assert there.get("y") is None
    ours = Objects(there.aws, BUCKET, "the cluster demo", ACCOUNT)
    assert ours.get("x") == there.get("x")


def test_what_another_run_has_written_is_not_overwritten(
    user: User, there: Objects, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Vpc.create

    def late(self: Vpc, *about: Any) -> Any:
        bucket.put_object(Bucket=BUCKET, Key=KEY, Body=b"somebody else's")
        return create(self, *about)

    monkeypatch.setattr(Vpc, "create", late)
    said = user.types("create", "demo", "--manifest", URL, "--chart", str(CHART), "-o", "json")
    assert said.code == 4
    assert "another run has written s3://team-state/ml/demo.json" in said.err
    assert "created, but not recorded: network/vpc is vpc-" in said.err
    assert there.get(KEY).content == b"somebody else's"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("place", "code", "says"),
    [
        (
            "s3://nobody-has-this/demo.json",
            2,
            "the bucket nobody-has-this of the manifest",
        ),
        ("s3://team-state", 2, "is not s3://BUCKET/KEY"),
        ("s3://Team/x", 2, "is not s3://BUCKET/KEY"),
        ("s3://zonal--usw2-az1--x-s3/x", 2, "a directory bucket cannot keep a manifest"),
        ("s3://team-state/note.txt", 2, "is broken"),
    ],
)
def test_a_place_that_will_not_do(
    user: User, bucket: Any, place: str, code: int, says: str
) -> None:
    bucket.put_object(Bucket=BUCKET, Key="note.txt", Body=b"buy milk")
    user.mutations()
    for words in (("create", "demo", "--chart", str(CHART)), ("status", "demo")):
        said = user.types(*words, "--manifest", place)
        assert said.code == code, said.err
        assert says in said.err
    assert user.mutations() == []


def test_a_service_that_ignores_conditions_is_refused(
    there: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = there.aws.s3_once.put_object

    def ignoring(**request: Any) -> Any:
        return put(**{k: v for k, v in request.items() if not k.startswith("If")})

    monkeypatch.setattr(there.aws.s3_once, "put_object", ignoring)
    mine = Lease(there, "lock")
    mine.look()
    with pytest.raises(Usage, match="does not support conditional writes"):
        mine.hold(tried=False)


def test_times_of_another_machines_clock_are_not_believed(there: Objects) -> None:
    """What a killed run has just created is not taken for absent because its clock was slow."""
    store, began = S3Store(there.aws, BUCKET, KEY), time.time()
    slow = began - 3600
    vpc = Vpc("vpc", cidr="10.0.0.0/16")
    manifest = Manifest(store, "demo")
    manifest.intend(vpc, slow)
    manifest.records["eks/log-group"] = Record("eks/LogGroup", {}, "ready", slow - 600, "")
    times = {
        key: r.since for key, r in Context(there.aws, manifest, print).manifest.records.items()
    }
    assert times["network/vpc"] >= began
    assert times["eks/log-group"] == pytest.approx(times["network/vpc"] - 600)


def test_a_manifest_in_the_bucket_of_another_cluster_is_refused(user: User) -> None:
    own = user.has("demo")["outputs"]["bucket"]
    user.mutations()
    for words in ("create", "status"):
        said = user.types(words, "other", "--manifest", f"s3://{own}/state/other.json")
        assert (said.code, "is the bucket of the cluster demo" in said.err) == (2, True), said.err
    assert user.mutations() == []


@pytest.mark.sample("adopted")
@pytest.mark.parametrize("adopted", [False, True], ids=["own", "adopted"])
def test_a_manifest_where_the_cluster_deletes_objects_is_refused(
    user: User, bucket: Any, adopted: bool
) -> None:
    text = f"name: demo\nchart: {{path: {CHART}}}\n"
    if adopted:
        text += f"existing: {{bucket: {BUCKET}}}\n"
        place = f"s3://{BUCKET}/hyperpod-eks/demo"
    else:
        place = f"s3://{user.makes('demo')['outputs']['bucket']}/state"
    (user.folder / "demo.yaml").write_text(f"{text}state: {place}\n")
    user.mutations()
    for words in ("create", "plan"):
        said = user.types(words, "-f", "demo.yaml")
        assert (said.code, "would be deleted with them" in said.err) == (2, True), said.err
    assert set(user.mutations()) <= {"s3.PutObject"}  # of the manifest
