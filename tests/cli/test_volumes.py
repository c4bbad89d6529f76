"""EBS volumes of PersistentVolumeClaims: kept unless consent is given, then with a snapshot."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_block_store import Snapshot, Volume

from hyperpod_eks import session as session_of
from hyperpod_eks.local.aws.sim import ACCOUNT, Fault
from tests.conftest import REGION, Clients, User


@pytest.fixture
def made(user: User) -> User:
    user.has("demo")
    return user


@pytest.fixture
def ec2(made: User, session: boto3.Session) -> Any:
    return Clients(session, made.stack.endpoint).ec2


def volume(ec2: Any, name: str = "data", cluster: str = "demo", **given: Any) -> str:
    """Create a volume as the add-on's driver does (aws-ebs-csi-driver, docs/tagging.md)."""
    tags = {
        f"kubernetes.io/cluster/{cluster}": "owned",
        "KubernetesCluster": cluster,
        "ebs.csi.aws.com/cluster": "true",
        "CSIVolumeName": f"pvc-{name}",
        "kubernetes.io/created-for/pvc/namespace": "default",
        "kubernetes.io/created-for/pvc/name": name,
    }
    rows = [{"Key": key, "Value": value} for key, value in tags.items()]
    settings = {"AvailabilityZone": "us-west-2a", "Size": 100, "VolumeType": "gp3", **given}
    made = ec2.create_volume(
        TagSpecifications=[{"ResourceType": "volume", "Tags": rows}], **settings
    )
    return str(made["VolumeId"])


def found(user: User, kind: str = "Volumes") -> dict[str, Any]:
    return dict(user.stack.inventory()[REGION]["ec2"][kind])


def delete(user: User, *words: str, code: int = 0) -> Any:
    said = user.types("delete", "demo", "--yes", *words, "-o", "json")
    assert said.code == code, said.err
    return said


def test_delete_keeps_volumes_of_this_cluster_and_everything_else_goes(
    made: User, ec2: Any
) -> None:
    one, two = volume(ec2), volume(ec2, "logs", VolumeType="io1", Iops=300)
    theirs = volume(ec2, cluster="other")
    said = made.types("delete", "demo")
    assert (said.code, one in said.err, theirs in said.err) == (2, True, False)
    rows = made.types("delete", "demo", "--dry-run", "-o", "json").document["plan"]
    (row,) = [row for row in rows if row["key"] == "network/volumes"]
    assert (row["action"], {*row["id"].split(", ")}) == ("keep", {one, two})
    said = delete(made)
    assert f"network/volumes ({one}: 100 GiB, claim default/data) is kept" in said.err
    assert "about 8.00 USD per month" in said.err
    assert {each["id"]: each["usd_per_month"] for each in said.document["kept_data"]} == {
        one: 8.0, two: None,
    }  # fmt: skip
    assert found(made).keys() == {one, two, theirs}
    assert "hyperpod-eks:lineage" not in found(made)[theirs]["Tags"]
    assert not [vpc for vpc in found(made, "Vpcs").values() if not vpc["IsDefault"]]
    manifest = made.folder / "demo.hyperpod-eks.json"
    assert manifest.exists()
    assert [each["id"] for each in delete(made).document["kept_data"]] == sorted([one, two])

    manifest.unlink()  # our tags show whose they are
    rows = made.types("orphans", "-o", "json").document["orphans"]
    assert {each["id"] for each in rows} == {one, two}
    assert not delete(made, "--region", REGION).document["removed"]
    document = delete(made, "--region", REGION, "--delete-data").document
    assert found(made).keys() == {theirs}
    copies = {id_: row["VolumeId"] for id_, row in found(made, "Snapshots").items()}
    assert sorted(copies.values()) == sorted([one, two])
    assert {*document["backups"]["network/volumes"]} == copies.keys()
    assert made.types("orphans", "-o", "json").document["orphans"] == []


def test_consent_is_asked_for_and_takes_them_with_the_cluster(made: User, ec2: Any) -> None:
    id_ = volume(ec2)
    said = made.types("delete", "demo", "--delete-data")
    assert said.code == 2
    assert f"network/volumes ({id_}): 100 GiB, claim default/data; a final snapshot" in said.err
    document = delete(made, "--delete-data").document
    assert "network/volumes" in document["removed"]
    assert (found(made), len(found(made, "Snapshots"))) == ({}, 1)
    assert not (made.folder / "demo.hyperpod-eks.json").exists()


def test_only_the_volumes_that_were_listed_go(made: User, ec2: Any) -> None:
    one, late = volume(ec2), volume(ec2, "late")
    with session_of.connect({"name": "demo", "region": REGION}) as cluster:
        removed, kept = cluster.delete(data=frozenset({one}))
    assert found(made).keys() == {late}
    assert "network/volumes" in kept
    assert "network/volumes" not in removed
    assert (made.folder / "demo.hyperpod-eks.json").exists()


def test_volumes_of_a_cluster_of_others_with_the_name_are_left_alone(
    made: User, ec2: Any, session: boto3.Session
) -> None:
    """The manifest names an EKS cluster that is gone; somebody else has created another one."""
    id_, eks = volume(ec2), Clients(session, made.stack.endpoint).eks
    about = eks.describe_cluster(name="demo")["cluster"]
    eks.untag_resource(resourceArn=about["arn"], tagKeys=list(about["tags"]))
    for words in ((), ("--delete-data",)):
        said = made.types("delete", "demo", *words)
        assert (said.code, id_ in said.err) == (2, False)
        rows = made.types("delete", "demo", "--dry-run", *words, "-o", "json").document["plan"]
        (why,) = [row["why"] for row in rows if id_ in row["id"]]
        assert why == "belongs to an unknown owner (no hyperpod-eks tags)"


def snapshot_of(user: User) -> Any:
    (one,) = [x for x in ec2_backends[ACCOUNT][REGION].snapshots.values() if not x.from_ami]
    return one


@pytest.mark.prove
def test_a_volume_goes_only_with_a_complete_snapshot_of_the_same_run(made: User, ec2: Any) -> None:
    id_ = volume(ec2)
    made.stack.sim.faults.append(
        Fault("ec2", "CreateSnapshot", "UnauthorizedOperation", 403, "no", 9)
    )
    assert made.types("delete", "demo", "--yes", "--delete-data").code != 0
    assert found(made).keys() == {id_}
    made.stack.sim.faults[:] = [Fault("ec2", "DeleteVolume", "UnauthorizedOperation", 403, "no", 1)]
    assert made.types("delete", "demo", "--yes", "--delete-data").code != 0
    first = snapshot_of(made).id
    assert found(made).keys() == {id_}
    made.stack.sim.faults.clear()
    document = delete(made, "--delete-data").document
    assert first not in document["backups"]["network/volumes"]
    assert (found(made), len(found(made, "Snapshots"))) == ({}, 2)


@pytest.mark.prove
def test_a_failed_snapshot_stops_the_delete(
    made: User, ec2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = volume(ec2)
    always = property(lambda self: "error", lambda self, value: None)
    monkeypatch.setattr(Snapshot, "status", always, raising=False)
    said = made.types("delete", "demo", "--yes", "--delete-data")
    assert f"{id_}: its final snapshot snap-" in said.err
    assert (said.code, [*found(made)]) == (1, [id_])


@pytest.mark.prove
def test_an_attached_volume_is_waited_for(
    made: User, ec2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = volume(ec2)
    monkeypatch.setattr(Volume, "status", "in-use")
    said = made.types("delete", "demo", "--yes", "--delete-data", "--timeout", "0.3")
    assert "network/volumes: timed out (in-use)" in said.err
    assert (*found(made), *found(made, "Snapshots")) == (id_,)


@pytest.mark.prove
def test_volumes_that_cannot_be_tagged_are_kept_with_a_warning(made: User, ec2: Any) -> None:
    id_ = volume(ec2)
    made.stack.sim.faults.append(
        Fault("ec2", "CreateTags", "UnauthorizedOperation", 403, "not you", 9)
    )
    said = delete(made)
    assert "network/volumes is kept, but could not be tagged: " in said.err
    assert [each["id"] for each in said.document["kept_data"]] == [id_]
    document = json.loads((made.folder / "demo.hyperpod-eks.json").read_text())
    assert document["cluster"] == "demo"
    made.stack.sim.faults.clear()
    assert [each["id"] for each in delete(made).document["kept_data"]] == [id_]
