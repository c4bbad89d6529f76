"""Existing file systems of EFS and FSx for OpenZFS: volumes and claims, and the way to them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.steps import network
from tests import copies
from tests.cli.test_authorization import resolved
from tests.conftest import Clients, Said, User
from tests.local import ground


class Account:
    """A VPC of somebody's with an EFS and an OpenZFS file system in it."""

    def __init__(self, user: User, aws: Clients) -> None:
        self.user, self.aws = user, aws

    def lay(self) -> None:
        laid = ground.lay(self.aws)
        self.vpc, self.subnets, self.nodes = laid.vpc, laid.subnets, laid.group
        for name in ("EnableDnsSupport", "EnableDnsHostnames"):
            self.aws.ec2.modify_vpc_attribute(VpcId=self.vpc, **{name: {"Value": True}})
        here = [{"Name": "vpc-id", "Values": [self.vpc]}]
        (table,) = self.aws.ec2.describe_route_tables(Filters=here)["RouteTables"]
        self.aws.ec2.create_vpc_endpoint(
            VpcId=self.vpc,
            ServiceName="com.amazonaws.us-west-2.s3",
            RouteTableIds=[table["RouteTableId"]],
        )
        shut = {"VpcId": self.vpc, "GroupName": "nfs", "Description": "nfs"}
        self.group = self.aws.ec2.create_security_group(**shut)["GroupId"]
        self.opens(443)
        self.efs = self.aws.efs.create_file_system(CreationToken="home")["FileSystemId"]
        self.mount(self.subnets[0])
        point = self.aws.efs.create_access_point(FileSystemId=self.efs, ClientToken="team")
        self.point = point["AccessPointId"]
        self.zfs = self.aws.fsx.create_file_system(
            FileSystemType="OPENZFS",
            StorageCapacity=64,
            SubnetIds=self.subnets[:1],
            OpenZFSConfiguration={"DeploymentType": "SINGLE_AZ_1", "ThroughputCapacity": 64},
        )["FileSystem"]["FileSystemId"]

    def opens(self, port: int) -> None:
        pair = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port}
        rule = pair | {"UserIdGroupPairs": [{"GroupId": self.nodes}]}
        self.aws.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[rule])

    def mount(self, subnet: str) -> None:
        self.aws.efs.create_mount_target(
            FileSystemId=self.efs, SubnetId=subnet, SecurityGroups=[self.group]
        )

    def write(self, **storage: Any) -> None:
        theirs = {"vpc": self.vpc, "private_subnets": self.subnets, "security_group": self.nodes}
        config = {
            "name": "demo",
            "region": "us-west-2",
            "existing": theirs,
            "storage": storage,
            "instance_groups": [
                {
                    "name": name,
                    "instance_type": "ml.m5.2xlarge",
                    "instance_count": 1,
                    "availability_zone_ids": [zone],
                }
                for name, zone in {"a": "usw2-az1", "b": "usw2-az2"}.items()
            ],
        }
        (self.user.folder / "c.yaml").write_text(json.dumps(config))

    def findings(self) -> list[tuple[str, str, str, str]]:
        """Return id, severity, text and fix of what preflight finds of file systems."""
        words = ("-f", "c.yaml", "--chart", str(CHART), "-o", "json")
        found = self.user.types("preflight", *words).document["findings"]
        return [
            (each["id"], each["severity"], each["says"], each["fix"])
            for each in found
            if each["id"] in ("file-systems", "mount-targets", "permissions")
        ]

    def objects(self) -> dict[tuple[str, str], Any]:
        (found,) = self.user.stack.inventory()["kubernetes"].values()
        return {(each["kind"], each["metadata"]["name"]): each for each in found.values()}

    def creates(self, *words: str) -> Any:
        return self.user.types("create", "-f", "c.yaml", "--chart", str(CHART), *words)


@pytest.fixture
def account(user: User, clients: Clients) -> Account:
    one = Account(user, clients)
    one.lay()
    return one


@pytest.fixture
def made(user: User, clients: Clients) -> tuple[Account, Said]:
    """The account with a cluster that uses them, and what its create said."""
    one = Account(user, clients)

    def create() -> tuple[dict[str, Any], Said]:
        one.lay()
        one.opens(2049)
        one.mount(one.subnets[1])
        efs, zfs = {"file_system_id": one.efs}, {"file_system_id": one.zfs}
        volume = {"volume_id": "fsvol-0123456789abcdef0", "volume_path": "fsx/vol1"}
        one.write(
            efs={"home": efs, "team": efs | {"access_point_id": one.point}},
            fsx_openzfs={"root": zfs, "zfs": zfs | volume},
        )
        user.stack.calls.clear()
        said = one.creates()
        assert said.code == 0, said.err
        return {name: vars(one)[name] for name in vars(one).keys() - {"user", "aws"}}, said

    ids, said = copies.once(user.stack, user.folder, ("file systems",), create)
    vars(one).update(ids)
    return one, said


def test_what_does_not_exist_is_found(account: Account) -> None:
    lost = {"file_system_id": "fs-0123456789abcdef0"}
    point = {"file_system_id": account.efs, "access_point_id": "fsap-01234567"}
    account.write(efs={"home": lost, "team": point}, fsx_openzfs={"zfs": lost})
    texts = [says for _, level, says, _ in account.findings() if level == "error"]
    assert sorted(text.partition(" is not ")[0] for text in texts) == [
        "storage.efs.home.file_system_id: fs-0123456789abcdef0",
        "storage.efs.team.access_point_id: fsap-01234567",
        "storage.fsx_openzfs.zfs.file_system_id: fs-0123456789abcdef0",
    ]


def test_the_way_to_a_file_system_is_checked(account: Account) -> None:
    account.write(efs={"home": {"file_system_id": account.efs}})
    shut, far = account.findings()
    assert shut[:2] == ("mount-targets", "error")
    assert "in usw2-az2 does not let TCP 2049 in from the nodes" in shut[2]
    assert shut[3].endswith(
        f"--group-id {account.group} --protocol tcp --port 2049 --source-group {account.nodes}"
        " --region us-west-2"
    )
    assert far[:2] == ("mount-targets", "warning")
    assert f"{account.efs} has no mount target in usw2-az1 of {account.vpc}" in far[2]
    assert f"create-mount-target --region us-west-2 --file-system-id {account.efs}" in far[3]
    account.opens(2049)
    account.mount(account.subnets[1])
    assert account.findings() == []


def test_pods_get_claims_to_existing_file_systems(made: tuple[Account, Said]) -> None:
    account, said = made
    assert "no chart of `charts` is aws-fsx-openzfs-csi-driver" in said.err
    theirs = [call for call in account.user.mutations() if call.startswith(("efs.", "fsx."))]
    assert theirs == []
    objects = account.objects()
    handles = {
        name: objects["PersistentVolume", name]["spec"]["csi"]["volumeHandle"]
        for name in ("efs-home.default", "efs-team.default", "openzfs-root.default")
    }
    assert list(handles.values()) == [account.efs, f"{account.efs}::{account.point}", account.zfs]
    volume = objects["PersistentVolume", "openzfs-zfs.default"]["spec"]
    assert volume["csi"] == {
        "driver": "fsx.openzfs.csi.aws.com",
        "volumeHandle": "fsvol-0123456789abcdef0",
        "volumeAttributes": {
            "DNSName": f"{account.zfs}.fsx.us-west-2.amazonaws.com",
            "ResourceType": "volume",
            "VolumePath": "fsx/vol1",
        },
    }
    assert volume["persistentVolumeReclaimPolicy"] == "Retain"
    for name in ("home", "team", "root", "zfs"):
        assert objects["PersistentVolumeClaim", name]["status"]["phase"] == "Bound"
    assert objects["StorageClass", "efs-home"]["provisioner"] == "kubernetes.io/no-provisioner"
    addon = account.aws.eks.describe_addon(clusterName="demo", addonName="aws-efs-csi-driver")
    assert len(addon["addon"]["podIdentityAssociations"]) == 1
    assert account.creates("-o", "json").document["changed"] is False


def test_a_volume_never_gets_another_file_system(made: tuple[Account, Said]) -> None:
    account, _ = made
    theirs = {"file_system_id": account.efs, "access_point_id": account.point}
    account.user.mutations()
    account.write(efs={"home": theirs})
    said = account.creates("--yes")
    assert (said.code, account.user.mutations()) == (2, []), said.err
    assert "Kubernetes does not give a volume another file system" in said.err


def test_delete_leaves_them(made: tuple[Account, Said]) -> None:
    account, _ = made
    said = account.user.types("delete", "demo", "--yes", "-o", "json")
    assert said.code == 0, said.err
    assert said.document["kept_data"] == []
    targets = account.aws.efs.describe_mount_targets(FileSystemId=account.efs)["MountTargets"]
    assert len(targets) == 2
    assert account.aws.fsx.describe_file_systems(FileSystemIds=[account.zfs])["FileSystems"]


def test_strict_groups_let_nfs_out_to_existing_file_systems() -> None:
    def rules(**storage: Any) -> tuple[object, ...]:
        strict = {"security_groups": "strict"}
        return network.step(resolved(network=strict, storage=storage)).security_group.egress

    assert rules() == ("self", "tcp 443 0.0.0.0/0")
    theirs = {"a": {"file_system_id": "fs-01234567"}}
    for section in ("efs", "fsx_openzfs"):
        assert rules(**{section: theirs})[2:] == ("tcp 2049 0.0.0.0/0",)


def test_permissions_only_where_one_is_declared(account: Account) -> None:
    def actions(**storage: Any) -> str:
        account.write(**storage)
        said = account.user.types("policy", "-f", "c.yaml")
        assert said.code == 0, said.err
        return str(said.out)

    assert "elasticfilesystem" not in (none := actions())
    assert "fsx:DescribeFileSystems" not in none
    some = actions(efs={"home": {"file_system_id": account.efs}})
    assert "elasticfilesystem:DescribeMountTargets" in some
    assert "fsx:DescribeFileSystems" in actions(fsx_openzfs={"z": {"file_system_id": account.zfs}})
