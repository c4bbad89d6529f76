"""File systems: created beside the cluster, and kept with their data unless consent is given."""

from __future__ import annotations

import json
import shutil
from typing import Any

import boto3
import pytest

from hyperpod_eks import session as session_of
from hyperpod_eks.aws.service_model import to_config
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.echo import Echo
from hyperpod_eks.local.aws.fsx import Backend, of_region
from hyperpod_eks.local.aws.sim import Fault
from tests.conftest import REGION, Clients, User

CONFIG = """
name: demo
region: us-west-2
storage:
  fsx_lustre:
    data: {storage_capacity: 1200, per_unit_storage_throughput: 125}
"""


@pytest.fixture
def made(user: User) -> User:
    (user.folder / "c.yaml").write_text(CONFIG)
    user.has("demo", "-f", "c.yaml")
    return user


def backend(user: User) -> Backend:
    return of_region(REGION)


def files(user: User) -> dict[str, Any]:
    return dict(user.stack.inventory()["us-west-2"]["fsx"]["FileSystems"])


def backups(user: User) -> list[Any]:
    return list(user.stack.inventory()["us-west-2"]["fsx"]["Backups"].values())


def network(user: User) -> dict[str, list[str]]:
    """Return the ids of what is in the account's own VPCs, by kind."""
    ec2 = user.stack.inventory()["us-west-2"]["ec2"]
    default = {id_ for id_, vpc in ec2["Vpcs"].items() if vpc["IsDefault"]}
    return {
        kind: sorted(id_ for id_, one in found.items() if one.get("VpcId", id_) not in default)
        for kind, found in ec2.items()
    }


def delete(user: User, *words: str) -> Any:
    said = user.types("delete", "demo", "--yes", *words, "-o", "json")
    assert said.code == 0, said.err
    return said.document


def test_it_is_created_in_the_zone_of_the_nodes_with_its_ports(
    made: User, session: boto3.Session
) -> None:
    aws = Clients(session, made.stack.endpoint)
    (one,) = files(made).values()
    assert one["Lifecycle"] == "AVAILABLE"
    assert one["StorageCapacity"] == 1200
    nodes = aws.sagemaker.describe_cluster(ClusterName="demo")["InstanceGroups"][0]
    assert one["SubnetIds"] == nodes["OverrideVpcConfig"]["Subnets"]
    groups = aws.ec2.describe_security_groups(
        GroupIds=nodes["OverrideVpcConfig"]["SecurityGroupIds"]
    )["SecurityGroups"]
    ports = {rule.get("FromPort") for group in groups for rule in group["IpPermissions"]}
    assert {988, 1018} <= ports
    made.stack.calls.clear()
    assert made.makes("demo", "-f", "c.yaml")["changed"] is False
    assert made.mutations() == []


def test_pods_of_a_namespace_get_a_claim_to_it(made: User) -> None:
    (one,) = files(made).values()
    (kubernetes,) = made.stack.inventory()["kubernetes"].values()
    objects = {(x["kind"], x["metadata"]["name"]): x for x in kubernetes.values()}
    volume = objects["PersistentVolume", "fsx-data.default"]["spec"]
    assert volume["csi"] == {
        "driver": "fsx.csi.aws.com",
        "volumeHandle": one["FileSystemId"],
        "volumeAttributes": {
            "dnsname": one["DNSName"],
            "mountname": one["LustreConfiguration"]["MountName"],
        },
    }
    assert volume["capacity"] == {"storage": "1200Gi"}
    assert volume["persistentVolumeReclaimPolicy"] == "Retain"
    claim = objects["PersistentVolumeClaim", "data"]["spec"]
    assert claim["volumeName"] == "fsx-data.default"
    assert ("StorageClass", "fsx-data") in objects


def test_a_volume_is_not_created_without_the_names_to_mount_it(made: User) -> None:
    says = {"FileSystems[].LustreConfiguration.MountName": None}
    made.stack.sim.echo = Echo(service="fsx", says=says)
    write(made, of(storage_capacity=1200, namespaces=["default", "kube-system"]))
    said = made.types("create", "-f", "c.yaml", "--chart", str(CHART))
    assert said.code == 1, said.err
    assert "FSx does not describe the DNS name and the mount name of fs-" in said.err


def test_another_case_and_a_size_that_is_left_out_are_no_change(made: User) -> None:
    write(made, of(storage_capacity=1200, data_compression_type="LZ4"))
    made.makes("demo", "-f", "c.yaml")
    compression = "FileSystems[].LustreConfiguration.DataCompressionType"
    says = {compression: "lz4", "FileSystems[].StorageCapacity": None}
    made.stack.sim.echo = Echo(service="fsx", says=says)
    said = made.types("plan", "-f", "c.yaml", "--chart", str(CHART), "--detailed-exitcode")
    assert said.code == 0, said.out


def test_a_volume_never_gets_another_file_system(made: User) -> None:
    one = backend(made).systems.pop(next(iter(files(made))))
    backend(made).systems["fs-0123456789abcdef0"] = {**one, "FileSystemId": "fs-0123456789abcdef0"}
    made.mutations()
    said = made.types("create", "-f", "c.yaml", "--chart", str(CHART), "--yes")
    assert (said.code, made.mutations()) == (2, []), said.err
    assert "Kubernetes does not give a volume another file system" in said.err
    write(made, of(namespaces=[]))
    made.makes("demo", "-f", "c.yaml", "--yes")
    write(made, of())
    made.makes("demo", "-f", "c.yaml")


def test_its_driver_is_installed_with_a_role(made: User, session: boto3.Session) -> None:
    aws = Clients(session, made.stack.endpoint)
    addon = aws.eks.describe_addon(clusterName="demo", addonName="aws-fsx-csi-driver")["addon"]
    assert addon["status"] == "ACTIVE"
    (role,) = addon["podIdentityAssociations"]
    assert role


def test_nodes_mount_a_new_one_once_it_exists(user: User, session: boto3.Session) -> None:
    aws = Clients(session, user.stack.endpoint)
    groups = """instance_groups:
- {name: a, instance_type: ml.m5.2xlarge, instance_count: 1, availability_zone_ids: [usw2-az1]}
- {name: b, instance_type: ml.m5.2xlarge, instance_count: 1, availability_zone_ids: [usw2-az2]}
"""
    write(user, groups + of(mount_on={"b": "/fsx"}, namespaces=[]))

    def mounts() -> list[Any]:
        found = aws.sagemaker.describe_cluster(ClusterName="demo")["InstanceGroups"]
        return [each["InstanceStorageConfigs"][1:] for each in found]

    def names(one: Any) -> list[Any]:
        mount = one["LustreConfiguration"]["MountName"]
        lustre = {"DnsName": one["DNSName"], "MountName": mount, "MountPath": "/fsx"}
        return [[], [{"FsxLustreConfig": lustre}]]

    user.makes("demo", "-f", "c.yaml")
    (one,) = files(user).values()
    (b,) = aws.sagemaker.describe_cluster(ClusterName="demo")["InstanceGroups"][1:]
    assert one["SubnetIds"] == b["OverrideVpcConfig"]["Subnets"]
    assert mounts() == names(one)
    assert user.makes("demo", "-f", "c.yaml")["changed"] is False
    backend(user).systems.clear()  # somebody has deleted it
    grow_old(user)
    document = user.types("plan", "-f", "c.yaml", "--chart", str(CHART), "-o", "json").document
    rows = {row["key"]: row for row in document["resources"]}
    assert rows["storage/data"]["action"] == "create"
    fact = "b.instance_storage_configs.1.fsx_lustre_config.dns_name"
    assert rows["hyperpod/cluster"]["differs"][fact][1] == "known once storage/data exists"
    user.makes("demo", "-f", "c.yaml")
    (two,) = files(user).values()
    assert mounts() == names(two) != names(one)


def test_what_nodes_mount_is_checked(user: User) -> None:
    write(user, of(mount_on={"worker": "/fsx", "worker-group": "fsx"}))
    said = user.types("validate", "-f", "c.yaml")
    assert said.code == 2
    assert "mount_on.worker-group" in said.err
    write(user, of(mount_on={"worker": "/fsx"}))
    said = user.types("validate", "-f", "c.yaml")
    assert '"worker" is no instance group; choose one of: worker-group' in said.err
    group = {
        "name": "a", "instance_type": "ml.m5.2xlarge", "instance_count": 1,
        "instance_storage_configs": [
            {"fsx_open_zfs_config": {"dns_name": f"fs-{n}123456789.fsx.amazonaws.com",
                                     "mount_path": f"/{n}"}} for n in (0, 1, 2)
        ],
    }  # fmt: skip
    write(user, f"instance_groups: [{json.dumps(group)}]\n" + of(mount_on={"a": "/2"}))
    said = user.types("validate", "-f", "c.yaml")
    assert "/2 is the path of another file system on these nodes" in said.err
    assert "is one of 5 volumes and file systems of each node of a" in said.err


@pytest.mark.prove
def test_more_namespaces_and_space_are_added_in_place(made: User) -> None:
    (id_,) = files(made)
    write(made, of(storage_capacity=2400, namespaces=["default", "kube-system"]))
    made.makes("demo", "-f", "c.yaml")
    assert files(made)[id_]["StorageCapacity"] == 2400
    assert made.makes("demo", "-f", "c.yaml")["changed"] is False
    write(made, of(storage_capacity=2400, namespaces=[]))
    made.makes("demo", "-f", "c.yaml", "--yes")
    assert files(made)[id_]["Lifecycle"] == "AVAILABLE"


def test_delete_keeps_it_and_what_it_is_in_and_create_uses_it_again(made: User) -> None:
    before = files(made)
    (id_,) = before
    said = made.types("delete", "demo", "--yes", "-o", "json")
    assert said.code == 0, said.err
    assert (
        f"storage/data ({id_}: 1200 GiB) is kept with its data, and costs about 174.00" in said.err
    )
    assert "hyperpod-eks delete demo --delete-data" in said.err
    assert said.document["kept_data"] == [
        {"key": "storage/data", "id": id_, "holds": "1200 GiB", "size_in_gib": 1200,
         "usd_per_month": 174.0}
    ]  # fmt: skip
    assert files(made) == before
    assert backups(made) == []
    there = network(made)
    assert {kind: len(ids) for kind, ids in there.items() if ids} == {
        "Vpcs": 1, "Subnets": 1, "SecurityGroups": 2, "RouteTables": 1, "NetworkAcls": 1,
        "NetworkInterfaces": len(before[id_]["NetworkInterfaceIds"]),
    }  # fmt: skip
    assert there["Subnets"] == before[id_]["SubnetIds"]
    assert (made.folder / "demo.hyperpod-eks.json").exists()
    again = delete(made)
    assert (again["removed"], [row["id"] for row in again["kept_data"]]) == ([], [id_])
    made.makes("demo")
    assert files(made) == before
    assert network(made)["Subnets"] != before[id_]["SubnetIds"]  # and others


def test_consent_deletes_it_with_a_final_backup_also_afterwards(made: User) -> None:
    (id_,) = files(made)
    delete(made)
    document = delete(made, "--delete-data")
    (backup,) = backups(made)
    assert backup["Of"] == id_
    assert document["backups"] == {"storage/data": [backup["BackupId"]]}
    assert document["kept_data"] == []
    assert not any(network(made).values())
    assert not (made.folder / "demo.hyperpod-eks.json").exists()


def test_the_prompt_names_what_is_lost(made: User) -> None:
    (id_,) = files(made)
    said = made.types("delete", "demo", "--delete-data")
    assert said.code == 2
    assert f"storage/data ({id_}): 1200 GiB; a final backup is created" in said.err
    said = made.types("delete", "demo", "--dry-run", "-o", "json")
    rows = {row["key"]: row for row in said.document["plan"]}
    assert rows["storage/data"]["action"] == "keep"
    assert rows["network/vpc"]["why"] == "storage/data needs it"
    said = made.types("delete", "demo", "--dry-run", "--delete-data", "-o", "json")
    rows = {row["key"]: row for row in said.document["plan"]}
    assert {rows["storage/data"]["action"], rows["network/vpc"]["action"]} == {"delete"}
    assert len(files(made)) == 1


# --- ways to lose it ----------------------------------------------------------------------------


def grow_old(user: User) -> None:
    """Let an hour pass since everything was recorded: what is gone cannot only be hidden then."""
    path = user.folder / "demo.hyperpod-eks.json"
    document = json.loads(path.read_text())
    for record in document["resources"].values():
        record["since"] -= 3600
    path.write_text(json.dumps(document))


def write(user: User, settings: str) -> None:
    (user.folder / "c.yaml").write_text(CONFIG.partition("storage:")[0] + settings)


def of(**settings: Any) -> str:
    return json.dumps({"storage": {"fsx_lustre": {"data": settings}}})[1:-1]


def test_no_change_of_the_config_loses_it(made: User) -> None:
    before = files(made)
    (id_,) = before
    refused: dict[str, dict[str, Any]] = {
        "FSx does not shrink": {"storage_capacity": 2400},
        "FSx sets it only when it creates": {"deployment_type": "SCRATCH_2"},
        "FSx does not move": {"availability_zone_id": "usw2-az2"},
        "has no subnet in usw2-az3": {"availability_zone_id": "usw2-az3"},
        "create already created": {"file_system_id": id_},
    }
    next(iter(backend(made).systems.values()))["StorageCapacity"] = 4800
    for words, settings in refused.items():
        write(made, of(**settings))
        said = made.types("create", "-f", "c.yaml", "--chart", str(CHART), "--yes")
        assert said.code == (7 if words.startswith("create") else 2), said.err
        assert words in said.err
    for text in ("", of().replace("data", "other")):  # left out, and under another name
        write(made, text)
        said = made.types("create", "-f", "c.yaml", "--chart", str(CHART), "--yes")
        assert said.code == 0, said.err
        assert f"storage/data ({id_}) is no longer declared; it is kept" in said.err
        assert id_ in files(made)
    rows = made.types("plan", "-f", "c.yaml", "--chart", str(CHART), "-o", "json").document
    (row,) = [row for row in rows["resources"] if row["key"] == "storage/data"]
    assert (row["action"], row["id"]) == ("keep", id_)
    kept = {row["id"] for row in delete(made)["kept_data"]}
    assert kept == files(made).keys()
    assert len(kept) == 2


def test_fewer_days_of_backups_need_consent(made: User) -> None:
    write(made, of(automatic_backup_retention_days=7))
    made.makes("demo", "-f", "c.yaml")
    write(made, of(automatic_backup_retention_days=1))
    said = made.types("create", "-f", "c.yaml", "--chart", str(CHART))
    assert said.code == 2
    assert "automatic backups that are older than 1 days are deleted" in said.err
    said = made.types("delete", "demo", "--delete-data")
    assert "a final backup is created; its automatic backups are deleted with it" in said.err
    (one,) = files(made).values()
    assert one["LustreConfiguration"]["AutomaticBackupRetentionDays"] == 7


@pytest.mark.sample("words0")
@pytest.mark.parametrize("words", [(), ("--keep", "bucket,logs"), ("-f", "c.yaml")])
def test_delete_keeps_it_although_manifest_and_config_are_lost(
    made: User, words: tuple[str, ...]
) -> None:
    before = files(made)
    for path in made.folder.iterdir():
        if "hyperpod-eks" in path.name:
            path.unlink() if path.is_file() else shutil.rmtree(path)
    write(made, "")
    document = delete(made, "--region", "us-west-2", *words)
    assert [row["id"] for row in document["kept_data"]] == list(before)
    assert files(made) == before
    assert network(made)["Subnets"] == next(iter(before.values()))["SubnetIds"]
    assert len([x for x in network(made)["SecurityGroups"] if x]) == 2  # with the VPC's default


@pytest.mark.prove
def test_a_failed_one_is_replaced_only_if_it_was_never_ready(user: User) -> None:
    (user.folder / "c.yaml").write_text(CONFIG)
    user.stack.sim.failures["file-system/demo-data"] = "insufficient capacity"
    said = user.types("create", "-f", "c.yaml", "--chart", str(CHART))
    assert said.code != 0
    assert "insufficient capacity" in said.err
    (failed,) = files(user)
    said = user.types("delete", "demo", "--dry-run", "-o", "json")
    rows = {row["key"]: row["action"] for row in said.document["plan"]}
    assert rows["storage/data"] == "delete"
    user.stack.sim.failures.clear()
    user.makes("demo", "-f", "c.yaml", "--replace-failed")
    (id_,) = files(user)
    assert id_ != failed
    backend(user).systems[id_]["Lifecycle"] = "FAILED"
    said = user.types("create", "-f", "c.yaml", "--chart", str(CHART), "--replace-failed", "--yes")
    assert said.code != 0
    assert "It may hold data, so it is never replaced" in said.err
    assert [row["id"] for row in delete(user)["kept_data"]] == [id_]


@pytest.mark.prove
def test_a_failed_one_that_another_manifest_may_have_seen_ready_is_kept(user: User) -> None:
    (user.folder / "c.yaml").write_text(CONFIG)
    user.stack.sim.failures["file-system/demo-data"] = "insufficient capacity"
    create = ("create", "-f", "c.yaml", "--chart", str(CHART))
    assert user.types(*create).code != 0
    (id_,) = files(user)
    path = user.folder / "demo.hyperpod-eks.json"
    grow_old(user)
    content = path.read_text()
    path.write_text(content.replace(id_, "fs-0123456789abcdef0"))
    rows = user.types("delete", "demo", "--dry-run", "-o", "json").document["plan"]
    assert [row["action"] for row in rows if row["key"] == "storage/data"] == ["keep"]
    path.write_text(json.dumps({**json.loads(content), "claim": "another run"}))
    said = user.types(*create, "--replace-failed", "--yes")
    assert "It may hold data, so it is never replaced" in said.err
    path.write_text(json.dumps({**json.loads(content), "claim": "another run"}))
    assert [row["id"] for row in delete(user)["kept_data"]] == [id_]
    path.write_text(content)  # the bucket, with the claims of others, is gone
    assert [row["id"] for row in delete(user)["kept_data"]] == [id_]


def test_one_that_was_ready_is_never_replaced_whatever_has_failed_since(made: User) -> None:
    """A create that goes on after a kill sees it ready, and has no duration of it."""
    path = made.folder / "demo.hyperpod-eks.json"
    document = json.loads(path.read_text())
    del document["durations"]["storage/data"]
    path.write_text(json.dumps(document))
    (id_,) = files(made)
    write(made, of(storage_capacity=2400, per_unit_storage_throughput=125))
    made.stack.sim.faults.append(Fault("fsx", "UpdateFileSystem", "BadRequest", 400, "no", 1))
    words = ("create", "-f", "c.yaml", "--chart", str(CHART), "--replace-failed", "--yes")
    assert made.types(*words).code != 0
    backend(made).systems[id_]["Lifecycle"] = "FAILED"
    said = made.types(*words)
    assert "It may hold data, so it is never replaced" in said.err
    assert list(files(made)) == [id_]
    said = made.types("preflight", "-f", "c.yaml", "--chart", str(CHART))
    assert "It may hold data, so it is never replaced" in said.out
    assert "--replace-failed" not in said.out


@pytest.mark.prove
def test_an_existing_one_in_a_vpc_of_ours_keeps_that(made: User) -> None:
    """Somebody has created it by hand beside the nodes, as AWS's tutorials do."""
    (id_,) = files(made)
    backend(made).systems[id_]["Tags"] = []
    path = made.folder / "demo.hyperpod-eks.json"
    document = json.loads(path.read_text())
    del document["resources"]["storage/data"]
    path.write_text(json.dumps(document))
    write(made, of(file_system_id=id_))
    made.makes("demo", "-f", "c.yaml")
    write(made, of(storage_capacity=4800))
    said = made.types("plan", "-f", "c.yaml", "--chart", str(CHART))
    assert said.code == 2, said.err
    assert f"the existing file system {id_} is used under this name" in said.err
    kept = delete(made, "--delete-data", "--timeout", "120")["kept"]
    assert kept["storage/data"] == "adopted; never deleted"
    assert kept["network/vpc"] == "storage/data needs it"
    assert network(made)["Subnets"] == files(made)[id_]["SubnetIds"]
    assert path.exists()


@pytest.mark.prove
def test_a_second_one_with_its_tags_is_kept_too(made: User) -> None:
    (first,) = files(made)
    one = backend(made).systems[first]
    second = {**one, "FileSystemId": "fs-0123456789abcdef0", "NetworkInterfaceIds": []}
    backend(made).systems["fs-0123456789abcdef0"] = second
    said = made.types("create", "-f", "c.yaml", "--chart", str(CHART))
    assert said.code == 0, said.err
    assert sorted(row["id"] for row in delete(made)["kept_data"]) == sorted(files(made))
    assert len(files(made)) == 2
    delete(made, "--delete-data")
    assert files(made) == {}
    assert len(backups(made)) == 2


@pytest.mark.prove
def test_without_a_final_backup_nothing_is_deleted(made: User) -> None:
    (id_,) = files(made)
    delete(made)
    denied = Fault("fsx", "DeleteFileSystem", "AccessDeniedException", 400, "no CreateBackup", 9)
    made.stack.sim.faults.append(denied)
    assert made.types("delete", "demo", "--yes", "--delete-data").code != 0
    assert [one["Lifecycle"] for one in files(made).values()] == ["AVAILABLE"]
    made.stack.sim.faults[:] = [
        Fault("fsx", "DescribeFileSystems", "AccessDeniedException", 400, "", 99)
    ]
    assert made.types("delete", "demo", "--yes", "--delete-data").code != 0
    assert list(files(made)) == [id_]
    made.stack.sim.faults[:] = [Fault("fsx", "DeleteFileSystem", kind="lost")]
    document = delete(made, "--delete-data")
    assert files(made) == {}
    assert document["backups"]["storage/data"] == [x["BackupId"] for x in backups(made)]
    assert len(backups(made)) == 1


def test_a_backup_is_asked_for_whatever_aws_leaves_out(made: User) -> None:
    says = {"FileSystems[].LustreConfiguration": None}
    made.stack.sim.echo = Echo(service="fsx", says=says)
    delete(made, "--delete-data")
    assert len(backups(made)) == 1


def test_consent_is_to_ids(made: User) -> None:
    (id_,) = files(made)
    late = {**backend(made).systems[id_], "FileSystemId": "fs-0123456789abcdef0"}
    backend(made).systems["fs-0123456789abcdef0"] = late
    with session_of.connect("c.yaml") as cluster:
        _, kept = cluster.delete(data=frozenset({id_}))
    assert "storage/data" in kept
    assert len(files(made)) == 2
    assert (made.folder / "demo.hyperpod-eks.json").exists()


@pytest.mark.prove
def test_an_existing_one_is_used_and_never_changed_or_deleted(user: User) -> None:
    (user.folder / "c.yaml").write_text(CONFIG.replace("demo", "theirs"))
    user.makes("theirs", "-f", "c.yaml")
    before = files(user)
    (id_,) = before
    write(user, of(file_system_id=id_))
    user.makes("demo", "-f", "c.yaml")
    said = user.types("status", "demo", "-o", "json")
    assert said.code == 0, said.err
    (step,) = [step for step in said.document["steps"] if step["name"] == "storage"]
    assert [row["id"] for row in step["resources"]] == [id_]
    document = delete(user, "--delete-data")
    assert document["kept"]["storage/data"] == "adopted; never deleted"
    assert files(user) == before
    write(user, of(file_system_id="fs-0123456789abcdef0"))
    said = user.types("create", "-f", "c.yaml", "--chart", str(CHART))
    assert said.code == 8
    assert "storage.fsx_lustre.data.file_system_id: fs-0123456789abcdef0 is not" in said.err


@pytest.mark.prove
def test_scratch_has_no_backup_and_the_question_says_so(user: User) -> None:
    write(user, of(deployment_type="SCRATCH_2"))
    user.makes("demo", "-f", "c.yaml")
    said = user.types("delete", "demo", "--delete-data")
    assert "1200 GiB; FSx does not back up SCRATCH_2" in said.err
    says = {"FileSystems[].LustreConfiguration.DeploymentType": None}
    user.stack.sim.echo = Echo(service="fsx", says=says)
    delete(user, "--delete-data")
    assert (files(user), backups(user)) == ({}, [])


@pytest.mark.prove
def test_the_library_keeps_it_too(made: User) -> None:
    before = files(made)
    with session_of.connect("c.yaml") as cluster:
        cluster.delete()
    assert files(made) == before
    with session_of.connect("c.yaml") as cluster:
        cluster.delete(data=frozenset(before))
    assert files(made) == {}


def test_what_it_is_in_is_left_alone_however_long_a_delete_takes(
    made: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program's first look reads no interfaces, which say where it is; later ones do."""
    monkeypatch.setattr("hyperpod_eks.engine.loop.FRESH", 0.05)
    made.stack.sim.faults.append(Fault("eks", "DeleteCluster", kind="delay", seconds=0.3))
    made.stack.calls.clear()
    with session_of.connect("c.yaml") as cluster:
        _, kept = cluster.delete()
    assert kept["network/private-subnet-usw2-az1"] == "storage/data needs it"
    (file_system,) = files(made).values()
    assert set(file_system["SubnetIds"]) <= set(network(made)["Subnets"])
    assert [call for call in made.stack.calls if call.mutating and call.status >= 400] == []


CHANGES: dict[str, Any] = {
    "storage_capacity": 4800,
    "per_unit_storage_throughput": 250,
    "data_compression_type": "LZ4",
    "automatic_backup_retention_days": 7,
    "daily_automatic_backup_start_time": "05:00",
    "weekly_maintenance_start_time": "7:09:00",
    "metadata_configuration": {"mode": "USER_PROVISIONED", "iops": 3000},
    "root_squash_configuration": {"root_squash": "65534:65534"},
}


@pytest.mark.prove
def test_settings_change_in_place_or_not_at_all(user: User) -> None:
    start: dict[str, Any] = {
        "metadata_configuration": {"mode": "AUTOMATIC"}, "file_system_type_version": "2.15",
    }  # fmt: skip
    write(user, of(**start))
    user.makes("demo", "-f", "c.yaml")
    (id_,) = files(user)
    user.mutations()
    write(user, of(**{**start, **CHANGES}))
    user.makes("demo", "-f", "c.yaml")
    assert user.mutations().count("fsx.UpdateFileSystem") == 1
    one = files(user)[id_]
    lustre = one["LustreConfiguration"]
    described = {**one, **lustre}
    assert {to_config(name): value for name, value in described.items()}.items() >= {
        **CHANGES,
        "metadata_configuration": {"Mode": "USER_PROVISIONED", "Iops": 3000},
        "root_squash_configuration": {"RootSquash": "65534:65534"},
    }.items()
    start["metadata_configuration"] = CHANGES["metadata_configuration"]
    write(user, of(**start))  # what is no longer declared stays as it is
    assert user.makes("demo", "-f", "c.yaml")["changed"] is False
    for changed in (
        {"copy_tags_to_backups": True},
        {"efa_enabled": True, "storage_capacity": 38400},
        {"kms_key": "arn:aws:kms:us-west-2:123456789012:key/other"},
        {"metadata_configuration": {"mode": "USER_PROVISIONED", "iops": 1500}},
        {"file_system_type_version": None, "metadata_configuration": None,
         "storage_type": "INTELLIGENT_TIERING", "throughput_capacity": 4000,
         "data_read_cache_configuration": {"sizing_mode": "NO_CACHE"}},
        {"deployment_type": "PERSISTENT_1", "storage_type": "HDD", "drive_cache_type": "READ",
         "metadata_configuration": None},
    ):  # fmt: skip
        settings = {k: v for k, v in {**start, **changed}.items() if v is not None}
        write(user, of(**settings))
        said = user.types("create", "-f", "c.yaml", "--chart", str(CHART), "--yes")
        assert said.code == 2, (changed, said.err)
        assert "FSx " in said.err
        assert user.mutations() == []


def associations(user: User) -> list[Any]:
    return list(user.stack.inventory()["us-west-2"]["fsx"]["Associations"].values())


@pytest.mark.prove
def test_links_to_s3_come_change_and_go_without_files(user: User) -> None:
    one = {"file_system_path": "/a", "data_repository_path": "s3://bucket/a"}
    two = {"file_system_path": "/b", "data_repository_path": "s3://bucket/b"}
    write(user, of(s3=[{**one, "auto_import": ["NEW"]}]))
    user.makes("demo", "-f", "c.yaml")
    (made,) = associations(user)
    assert made["S3"] == {"AutoImportPolicy": {"Events": ["NEW"]}}
    changed = {**one, "auto_import": ["NEW", "CHANGED"], "auto_export": ["DELETED"]}
    write(user, of(s3=[changed, two]))
    user.makes("demo", "-f", "c.yaml")
    assert user.makes("demo", "-f", "c.yaml")["changed"] is False
    found = {each["FileSystemPath"]: each for each in associations(user)}
    assert found.keys() == {"/a", "/b"}
    assert found["/a"]["AssociationId"] == made["AssociationId"]
    assert found["/a"]["S3"] == {
        "AutoImportPolicy": {"Events": ["CHANGED", "NEW"]},
        "AutoExportPolicy": {"Events": ["DELETED"]},
    }
    write(user, of(s3=[{**changed, "data_repository_path": "s3://bucket/other"}, two]))
    said = user.types("create", "-f", "c.yaml", "--chart", str(CHART), "--yes")
    assert said.code == 2
    assert "FSx does not change it" in said.err
    write(user, of(s3=[changed]))
    user.makes("demo", "-f", "c.yaml", "--yes")
    assert [each["FileSystemPath"] for each in associations(user)] == ["/a"]
    kept = delete(user)["kept"]  # as long as the file system is
    assert kept["storage/data:/a"] == "storage/data needs it"
    assert len(associations(user)) == 1
    document = delete(user, "--delete-data")  # first the link, so that there can be a backup
    assert (files(user), associations(user)) == ({}, [])
    assert document["backups"].keys() == {"storage/data"}


@pytest.mark.prove
def test_links_are_deleted_first_although_manifest_and_config_are_lost(user: User) -> None:
    link = {"file_system_path": "/a", "data_repository_path": "s3://bucket/a"}
    write(user, of(s3=[link]))
    user.makes("demo", "-f", "c.yaml")
    delete(user)
    for path in user.folder.glob("*demo*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    said = user.types("orphans", "-o", "json").document
    assert {"association", "file-system"} < {each["kind"] for each in said["orphans"]}
    document = delete(user, "--region", "us-west-2", "--delete-data")
    assert (files(user), associations(user)) == ({}, [])
    assert document["backups"].keys() == {"storage/data"}


@pytest.mark.sample("fsx")
@pytest.mark.parametrize("service", ["fsx", "ecr"])
def test_a_service_that_the_cluster_does_not_use_may_be_closed(user: User, service: str) -> None:
    user.has("demo")
    operation = {"fsx": "DescribeFileSystems", "ecr": "DescribeRepositories"}[service]
    fault = Fault(service, operation, "AccessDeniedException", 400, "no endpoint for you", 99)
    user.stack.sim.faults.append(fault)
    said = user.types("orphans", "-o", "json")
    assert said.code == 0, said.err
    (line,) = said.document["not_listed"]
    assert line.startswith(f"{service} was not asked for resources that only their tags show")
    assert line in said.err
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    assert line in said.err


def test_a_service_that_the_cluster_uses_must_answer(made: User) -> None:
    fault = Fault("fsx", "DescribeFileSystems", "AccessDeniedException", 400, "no way", 99)
    made.stack.sim.faults.append(fault)
    said = made.types("delete", "demo", "--yes")
    assert said.code == 3, said.err
    assert "fsx cannot be asked what of the cluster exists there" in said.err
    assert "AWS_ENDPOINT_URL_FSX" in said.err


def test_a_service_that_cannot_be_reached_is_named(
    made: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_FSX", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    said = made.types("orphans", "-o", "json")
    assert (said.code, len(said.document["not_listed"])) == (0, 1), said.err
    said = made.types("delete", "demo", "--yes")
    assert said.code == 1, said.err
    assert "fsx cannot be asked" in said.err


def test_one_that_took_the_place_of_another_is_told(made: User) -> None:
    """Somebody has deleted it, and created it again from a backup with all of its tags."""
    write(made, of(namespaces=[]))
    made.makes("demo", "-f", "c.yaml", "--yes")
    ((id_, one),) = backend(made).systems.items()
    backend(made).systems.clear()
    new = {**one, "FileSystemId": "fs-0123456789abcdef0"}
    backend(made).systems["fs-0123456789abcdef0"] = new
    words = f"fs-0123456789abcdef0 has taken the place of {id_}"
    plan = ("plan", "-f", "c.yaml", "--chart", str(CHART), "-o", "json")
    rows = {row["key"]: row for row in made.types(*plan).document["resources"]}
    assert (rows["storage/data"]["action"], rows["storage/data"]["why"]) == ("keep", words)
    said = made.types("create", "-f", "c.yaml", "--chart", str(CHART))
    assert (said.code, words in said.err) == (0, True)
    backend(made).systems.clear()
    grow_old(made)
    rows = {row["key"]: row for row in made.types(*plan).document["resources"]}
    assert rows["storage/data"]["action"] == "create"
    assert "no longer exists; the new one is empty" in rows["storage/data"]["why"]


def test_the_status_names_what_a_delete_kept_and_commands_that_work(
    made: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    (id_,) = files(made)
    delete(made)
    words = f"storage/data ({id_}: 1200 GiB) is kept with its data, and costs about 174.00 USD"
    here = made.types("status", "demo")
    assert words in " ".join(here.out.split())
    assert "hyperpod-eks events" not in here.err
    assert "To delete what was kept:   hyperpod-eks delete demo --delete-data" in here.err

    (made.folder / "elsewhere").mkdir()
    monkeypatch.chdir(made.folder / "elsewhere")
    there = made.types("status", "demo", "--region", REGION)
    assert words in " ".join(there.out.split())
    assert "4 resources exist (not compared)  iam, network\n" in there.out
    assert "missing" not in there.out
    assert there.err.splitlines()[1:] == [
        f"To create what is missing: hyperpod-eks create demo --region {REGION} -f FILE",
        f"To delete what was kept:   hyperpod-eks delete demo --region {REGION} --delete-data",
    ]
    said = made.types("delete", "demo", "--region", REGION, "--delete-data", "--yes")
    assert (said.code, files(made)) == (0, {}), said.err
    said = made.types("status", "demo", "--region", REGION)
    assert said.code == 8
    assert "could not be listed" not in said.err
