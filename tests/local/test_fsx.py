"""FSx for Lustre in the embedded stack: lives, refusals, interfaces, backups, links."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients
from tests.local.ground import Ground, lay


@contextmanager
def refused(code: str, text: str = "") -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    assert caught.value.response["Error"]["Code"] == code
    assert text in str(caught.value)


@pytest.fixture
def ground(aws: Clients) -> Ground:
    return lay(aws)


PERSISTENT = {"DeploymentType": "PERSISTENT_2", "PerUnitStorageThroughput": 250}


def lustre(ground: Ground, given: Any = PERSISTENT, **changes: Any) -> dict[str, Any]:
    found = {
        "FileSystemType": "LUSTRE",
        "StorageCapacity": 1200,
        "SubnetIds": ground.subnets[:1],
        "SecurityGroupIds": [ground.group],
        "ClientRequestToken": "once",
        "Tags": [{"Key": "Name", "Value": "data"}],
        "LustreConfiguration": given,
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def create(aws: Clients, ground: Ground, given: Any = PERSISTENT, **changes: Any) -> Any:
    return aws.fsx.create_file_system(**lustre(ground, given, **changes))["FileSystem"]


def one(aws: Clients) -> Any:
    (found,) = aws.fsx.describe_file_systems()["FileSystems"]
    return found


def test_it_lives_from_creating_to_gone(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.delays = replace(stack.sim.delays, fsx_create=600, fsx_delete=300)
    made = create(aws, ground)
    assert made["Lifecycle"] == "CREATING"
    assert made["LustreConfiguration"]["MountName"]
    assert "SecurityGroupIds" not in one(aws)
    stack.clock.advance(600)
    assert one(aws)["Lifecycle"] == "AVAILABLE"
    assert one(aws)["VpcId"] == ground.vpc
    id_ = made["FileSystemId"]
    assert aws.fsx.delete_file_system(FileSystemId=id_)["Lifecycle"] == "DELETING"
    assert one(aws)["Lifecycle"] == "DELETING"
    stack.clock.advance(300)
    assert aws.fsx.describe_file_systems()["FileSystems"] == []
    with refused("FileSystemNotFound"):
        aws.fsx.describe_file_systems(FileSystemIds=[id_])
    with refused("FileSystemNotFound"):
        aws.fsx.delete_file_system(FileSystemId=id_)


def test_a_token_creates_once(aws: Clients, ground: Ground) -> None:
    assert create(aws, ground)["FileSystemId"] == create(aws, ground)["FileSystemId"]
    with refused("IncompatibleParameterError"):
        create(aws, ground, StorageCapacity=2400)
    assert len(aws.fsx.describe_file_systems()["FileSystems"]) == 1


def test_its_interfaces_hold_subnet_and_group(aws: Clients, ground: Ground) -> None:
    made = create(aws, ground, StorageCapacity=4800)
    found = aws.ec2.describe_network_interfaces(NetworkInterfaceIds=made["NetworkInterfaceIds"])
    assert len(found["NetworkInterfaces"]) > 1
    assert {each["Groups"][0]["GroupId"] for each in found["NetworkInterfaces"]} == {ground.group}
    with refused("DependencyViolation"):
        aws.ec2.delete_subnet(SubnetId=ground.subnets[0])
    with refused("DependencyViolation"):
        aws.ec2.delete_security_group(GroupId=ground.group)
    aws.fsx.delete_file_system(FileSystemId=made["FileSystemId"])
    aws.ec2.delete_subnet(SubnetId=ground.subnets[0])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"StorageCapacity": 1300}, "BadRequest"),
        ({"StorageCapacity": None}, "BadRequest"),
        ({"given": {"DeploymentType": "PERSISTENT_2"}}, "InvalidPerUnitStorageThroughput"),
        ({"given": {"DeploymentType": "SCRATCH_2", "PerUnitStorageThroughput": 50}},
         "InvalidPerUnitStorageThroughput"),
        ({"given": {"DeploymentType": "SCRATCH_2", "AutomaticBackupRetentionDays": 7}},
         "BadRequest"),
        ({"StorageType": "HDD"}, "BadRequest"),
        ({"StorageType": "INTELLIGENT_TIERING"}, "BadRequest"),
        ({"FileSystemTypeVersion": "2.10"}, "BadRequest"),
        ({"FileSystemTypeVersion": "2.12",
          "given": {**PERSISTENT, "MetadataConfiguration": {"Mode": "AUTOMATIC"}}}, "BadRequest"),
        ({"given": {**PERSISTENT, "EfaEnabled": True}}, "BadRequest"),
        ({"SubnetIds": ["subnet-0123456789abcdef0"]}, "InvalidNetworkSettings"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidNetworkSettings"),
    ],
)  # fmt: skip
def test_what_lustre_does_not_offer_is_refused(
    aws: Clients, ground: Ground, changes: Any, code: str
) -> None:
    with refused(code):
        create(aws, ground, **changes)


def test_every_deployment_type_is_created(aws: Clients, ground: Ground) -> None:
    hdd = {"DeploymentType": "PERSISTENT_1", "PerUnitStorageThroughput": 12}
    tiering = {
        "DeploymentType": "PERSISTENT_2",
        "ThroughputCapacity": 4000,
        "DataReadCacheConfiguration": {"SizingMode": "NO_CACHE"},
    }
    efa = {**PERSISTENT, "EfaEnabled": True, "MetadataConfiguration": {"Mode": "AUTOMATIC"}}
    create(aws, ground, {"DeploymentType": "SCRATCH_1"}, ClientRequestToken="a")
    create(aws, ground, {"DeploymentType": "SCRATCH_2"}, ClientRequestToken="b")
    create(
        aws, ground, {**hdd, "DriveCacheType": "NONE"},
        StorageType="HDD", StorageCapacity=6000, ClientRequestToken="c",
    )  # fmt: skip
    create(
        aws, ground, tiering,
        StorageType="INTELLIGENT_TIERING", StorageCapacity=None, ClientRequestToken="d",
    )  # fmt: skip
    create(aws, ground, efa, StorageCapacity=19200, ClientRequestToken="e")
    found = aws.fsx.describe_file_systems()["FileSystems"]
    assert [each["Lifecycle"] for each in found] == ["AVAILABLE"] * 5
    assert found[0]["LustreConfiguration"]["MountName"] == "fsx"


def test_a_group_without_lustres_port_is_refused(aws: Clients, ground: Ground) -> None:
    closed = aws.ec2.create_security_group(VpcId=ground.vpc, GroupName="no", Description="no")
    with refused("InvalidNetworkSettings", "988"):
        create(aws, ground, SecurityGroupIds=[closed["GroupId"]])


def test_new_rules_are_seen_late(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.delays = replace(stack.sim.delays, fsx_rules=10)
    with refused("InvalidNetworkSettings", "988"):
        create(aws, ground)
    stack.clock.advance(10)
    create(aws, ground)


def test_a_creation_fails_as_ordered(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.failures["file-system/data"] = "insufficient capacity"
    create(aws, ground)
    assert one(aws)["Lifecycle"] == "FAILED"
    assert one(aws)["FailureDetails"]["Message"] == "insufficient capacity"


def test_it_is_updated_after_a_while(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.delays = replace(stack.sim.delays, fsx_update=300)
    id_ = create(aws, ground)["FileSystemId"]
    changes = {"DataCompressionType": "LZ4", "AutomaticBackupRetentionDays": 7}
    aws.fsx.update_file_system(FileSystemId=id_, StorageCapacity=4800, LustreConfiguration=changes)
    assert (one(aws)["Lifecycle"], one(aws)["StorageCapacity"]) == ("UPDATING", 1200)
    with refused("BadRequest", "in progress"):
        aws.fsx.update_file_system(FileSystemId=id_, StorageCapacity=7200)
    stack.clock.advance(300)
    assert (one(aws)["Lifecycle"], one(aws)["StorageCapacity"]) == ("AVAILABLE", 4800)
    assert changes.items() <= one(aws)["LustreConfiguration"].items()
    with refused("BadRequest"):
        aws.fsx.update_file_system(FileSystemId=id_, StorageCapacity=2400)
    with refused("BadRequest"):
        aws.fsx.update_file_system(FileSystemId=id_, FileSystemTypeVersion="2.10")


def test_data_outlives_a_delete_in_a_final_backup_only(aws: Clients, ground: Ground) -> None:
    first = create(aws, ground)["FileSystemId"]
    aws.fsx.delete_file_system(FileSystemId=first)  # by default without
    assert aws.fsx.describe_backups()["Backups"] == []
    second = create(aws, ground)["FileSystemId"]
    assert second != first
    tags = [{"Key": "of", "Value": "demo"}]
    answer = aws.fsx.delete_file_system(
        FileSystemId=second,
        LustreConfiguration={"SkipFinalBackup": False, "FinalBackupTags": tags},
    )
    (backup,) = aws.fsx.describe_backups(Filters=[{"Name": "file-system-id", "Values": [second]}])[
        "Backups"
    ]
    assert backup["BackupId"] == answer["LustreResponse"]["FinalBackupId"]
    assert (backup["Lifecycle"], backup["Tags"]) == ("AVAILABLE", tags)


def test_scratch_and_linked_ones_have_no_backups(aws: Clients, ground: Ground) -> None:
    final = {"SkipFinalBackup": False}
    scratch = create(aws, ground, {"DeploymentType": "SCRATCH_2"}, FileSystemTypeVersion="2.15")
    id_ = scratch["FileSystemId"]
    with refused("BadRequest"):
        aws.fsx.delete_file_system(FileSystemId=id_, LustreConfiguration=final)
    linked = create(aws, ground, ClientRequestToken="linked")["FileSystemId"]
    aws.fsx.create_data_repository_association(
        FileSystemId=linked, FileSystemPath="/data", DataRepositoryPath="s3://bucket/data"
    )
    with refused("BadRequest"):
        aws.fsx.delete_file_system(FileSystemId=linked, LustreConfiguration=final)
    assert len(aws.fsx.describe_file_systems()["FileSystems"]) == 2


def test_links_to_s3(aws: Clients, ground: Ground) -> None:
    id_ = create(aws, ground)["FileSystemId"]
    policies = {"AutoImportPolicy": {"Events": ["NEW"]}}
    about = {"FileSystemId": id_, "DataRepositoryPath": "s3://bucket/a", "S3": policies}
    made = aws.fsx.create_data_repository_association(FileSystemPath="/a", **about)["Association"]
    with refused("BadRequest", "overlaps"):
        aws.fsx.create_data_repository_association(FileSystemPath="/a/b", **about)
    (found,) = aws.fsx.describe_data_repository_associations()["Associations"]
    assert (found["Lifecycle"], found["S3"]) == ("AVAILABLE", policies)
    export = {"AutoExportPolicy": {"Events": ["NEW", "CHANGED"]}}
    aws.fsx.update_data_repository_association(AssociationId=made["AssociationId"], S3=export)
    (found,) = aws.fsx.describe_data_repository_associations()["Associations"]
    assert found["S3"] == {**policies, **export}
    aws.fsx.delete_data_repository_association(AssociationId=made["AssociationId"])
    assert aws.fsx.describe_data_repository_associations()["Associations"] == []


def test_tags_and_inventory(stack: Stack, aws: Clients, ground: Ground) -> None:
    arn = create(aws, ground)["ResourceARN"]
    aws.fsx.tag_resource(ResourceARN=arn, Tags=[{"Key": "team", "Value": "ml"}])
    aws.fsx.untag_resource(ResourceARN=arn, TagKeys=["Name"])
    assert aws.fsx.list_tags_for_resource(ResourceARN=arn)["Tags"] == [
        {"Key": "team", "Value": "ml"}
    ]
    (row,) = stack.inventory()["us-west-2"]["fsx"]["FileSystems"].values()
    assert row["Lifecycle"] == "AVAILABLE"


def test_other_kinds_are_not_imitated(aws: Clients, ground: Ground) -> None:
    request = {"StorageCapacity": 64, "SubnetIds": ground.subnets[:1]}
    with refused("NotImplemented"):
        aws.fsx.create_file_system(FileSystemType="WINDOWS", **request)
    with refused("BadRequest"):  # of the other kind alone its members are needed
        aws.fsx.create_file_system(FileSystemType="OPENZFS", **request)
