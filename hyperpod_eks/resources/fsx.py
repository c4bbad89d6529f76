"""FSx for Lustre file systems, which hold data and are therefore kept by default."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar

from hyperpod_eks.aws import prices
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import NETWORK_INTERFACES
from hyperpod_eks.aws.failures import absent, unless_refused
from hyperpod_eks.aws.prices import Item
from hyperpod_eks.aws.service_model import to_api
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import CLUSTER, owner
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.file_systems import file_systems, labelled, links
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import (
    MINUTE,
    Differs,
    Fact,
    Guard,
    Identity,
    Live,
    NotReady,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.compare import as_declared
from hyperpod_eks.resources.ec2.security_group import SecurityGroup
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.hyperpod.diff import leaves
from hyperpod_eks.resources.permissions import (
    Conditions,
    Statement,
    Statements,
    actions,
    forgotten,
    look,
    tagged,
)
from hyperpod_eks.resources.tagged import Candidate, Tagged

STATES = {
    "AVAILABLE": State.READY,
    "CREATING": State.BUSY,
    "UPDATING": State.BUSY,
    "MISCONFIGURED": State.READY,  # "failed but recoverable": it may be read and changed
    "DELETING": State.LEAVING,
    "FAILED": State.FAILED,
}
"""By FileSystem Lifecycle; an unknown one is busy."""
_TOP = ("storage_capacity", "storage_type", "file_system_type_version", "kms_key_id")
"""Settings outside of LustreConfiguration."""
_GROWS = {
    "storage_capacity": "FSx does not shrink a file system",
    "file_system_type_version": "FSx installs no older version of Lustre",
    "metadata_configuration.iops": "FSx does not lower metadata IOPS",
    "throughput_capacity": "FSx does not lower the throughput of INTELLIGENT_TIERING",
}
"""Settings that can only be raised (UpdateFileSystem), with the reasons."""
_FIXED = (
    "deployment_type",
    "storage_type",
    "kms_key_id",
    "efa_enabled",
    "drive_cache_type",
    "copy_tags_to_backups",
)
"""Settings that UpdateFileSystem does not have, or not for Lustre."""


@frozen
class FileSystem(Resource):
    """A Lustre file system in one subnet.

    It needs the subnet and the security group only, so it is created beside the control plane.
    Its security groups are not described: its interfaces have them.
    """

    subnet: Subnet | None
    security_group: SecurityGroup | None
    """None where only its tags are known."""
    settings: JsonMapping
    """The declared settings, in the words of the config."""
    smallest: JsonMapping
    """Settings that are sent with the create, and not compared: the config does not name them."""

    kind = "fsx/FileSystem"
    step = "storage"
    schema = 2
    elective = "fsx"
    tag_type = "file-system"
    data = True
    identity = Identity.REFUSED_TWICE
    answers = ("subnet",)
    patience = 40 * MINUTE
    usual = "10 min"
    typical = 600.0
    typical_change = 300.0
    immutable: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(_FIXED, "FSx sets it only when it creates a file system"),
        "subnet": "FSx does not move a file system; name its zone as availability_zone_id",
    }
    guards: ClassVar[Mapping[str, Guard]] = {
        "automatic_backup_retention_days": lambda is_, days: (
            f"automatic backups that are older than {days or 0} days are deleted"
            if (is_ or 0) > (days or 0)
            else ""
        ),
    }

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on file systems, limited to those with the cluster's tag.

        FSx reads the VPC's groups with the caller's permissions, and creates its service-linked
        role with the account's first file system (Service Authorization Reference, Amazon FSx;
        FSx for Lustre User Guide, "Using service-linked roles").
        """
        ours = [
            one for one in resolved.config.storage.fsx_lustre.values() if not one.file_system_id
        ]
        if resolved.config.storage.fsx_lustre:
            yield look("fsx", "DescribeFileSystems")
            yield forgotten("fsx", "DescribeBackups", "DescribeDataRepositoryAssociations")
        if not ours:
            return
        files, backups = resolved.arn("fsx", "file-system/*"), resolved.arn("fsx", "backup/*")
        signed = tagged(resolved)
        born: Conditions = {"StringEquals": {f"aws:RequestTag/{CLUSTER}": resolved.name}}
        yield Statement("FilesMake", actions("fsx", "CreateFileSystem"), (files,), born)
        yield Statement("FilesSign", actions("fsx", "TagResource"), (files, backups), born)
        yield Statement("FilesChange", actions("fsx", "UpdateFileSystem"), (files,), signed)
        vpc = (resolved.arn("ec2", "vpc/*"),)
        yield Statement("FilesGroups", actions("ec2", "GetSecurityGroupsForVpc"), vpc)
        role = "aws-service-role/fsx.amazonaws.com/AWSServiceRoleForAmazonFSx"
        linked: Conditions = {"StringEquals": {"iam:AWSServiceName": ["fsx.amazonaws.com"]}}
        own = (resolved.arn("iam", f"role/{role}"),)
        yield Statement("FilesRole", actions("iam", "CreateServiceLinkedRole"), own, linked)
        delete = ("DeleteFileSystem", "CreateBackup")
        yield Statement("FilesDelete", actions("fsx", *delete), (files,), signed, "delete")
        # the final backup itself has no tags yet
        yield Statement("FilesBackup", ("fsx:CreateBackup",), (backups,), command="delete")
        if keys := sorted({one.kms_key for one in ours if one.kms_key}):
            yield Statement("FilesKey", actions("kms", "CreateGrant", "DescribeKey"), tuple(keys))

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> FileSystem:
        """Declare it with the fields that a delete needs."""
        return FileSystem(found.label, subnet=None, security_group=None, settings={}, smallest={})

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """All Lustre file systems of the region.

        If one of them may be ours, also the links to S3, which are deleted before it.
        """
        snapshot = Snapshot(aws)
        found = [(each, each.get("Tags") or ()) for each in file_systems(snapshot)]
        for each, tags in found:
            yield "file-system", each["FileSystemId"], partial(list, tags)
        if any(owner(tags) for _, tags in found):
            with absent("AccessDenied.*"):
                for each in links(snapshot):
                    tags = each.get("Tags") or ()
                    yield "association", each["AssociationId"], partial(list, tags)

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by our tags, or the adopted one by its id."""
        if adopted := snapshot.adopted.get(self.key):
            found = [x for x in file_systems(snapshot) if x["FileSystemId"] == adopted]
        else:
            found = labelled(snapshot, self.label)
        links = _linked(snapshot) if found and snapshot.bare else frozenset()
        return [self._live(each, _held_by(snapshot, each), links) for each in found]

    def _live(
        self,
        found: JsonMapping,
        held_by: frozenset[str] | None = None,
        linked: Container[str] = (),
    ) -> Live:
        lifecycle = found["Lifecycle"]
        lustre: JsonMapping = found.get("LustreConfiguration") or {}
        sent = {**self.smallest, **self.settings}  # for what FSx does not describe
        capacity = found.get("StorageCapacity") or sent.get("storage_capacity")
        why = (found.get("FailureDetails") or {}).get("Message") or ""
        kind = str(lustre.get("DeploymentType") or sent.get("deployment_type") or "").upper()
        no_backup = ""
        if kind.startswith("SCRATCH"):
            no_backup = f"FSx does not back up {kind}"
        elif found["FileSystemId"] in linked or lustre.get("DataRepositoryConfiguration"):
            no_backup = "FSx does not back up a file system that is linked to S3"
        elif lifecycle == "FAILED":
            no_backup = "FSx does not back up a file system that has failed"
        return Live(
            found["FileSystemId"],
            found.get("ResourceARN", ""),
            owner=owner(found.get("Tags") or ()),
            state=STATES.get(lifecycle, State.BUSY),
            why=f"{why} ({lifecycle})" if why else lifecycle,
            warnings=(f"{found['FileSystemId']} is MISCONFIGURED: {why}",)
            if lifecycle == "MISCONFIGURED"
            else (),
            facts=dict(self._described(found, lustre)),
            attributes={
                "vpc": found.get("VpcId"),
                "status": lifecycle,
                "dns_name": found.get("DNSName"),
                "mount_name": lustre.get("MountName"),
                "capacity": capacity,
                "kind": (kind, lustre.get("PerUnitStorageThroughput"))
                if found.get("StorageType", "SSD") == "SSD"
                else None,
                "no_backup": no_backup,
                "days": lustre.get("AutomaticBackupRetentionDays") or 0,
            },
            held_by=held_by,
        )

    def _described(self, found: JsonMapping, lustre: JsonMapping) -> Iterator[tuple[str, Json]]:
        """Yield the declared facts of a description; AWS's other settings are its own."""
        if subnets := found.get("SubnetIds"):
            yield "subnet", subnets[0]
        described = {
            name: value
            for members in (found, lustre)
            for member, each in members.items()
            for name, value in leaves(member, each)
        }
        for name, declared in self.settings.items():
            if name in described:
                yield name, as_declared(described[name], declared)

    def names(self, live: Live | None = None) -> Iterable[str]:
        """The place, and the declared settings."""
        return ("subnet", *self.settings) if self.subnet else self.settings

    def expected(self, name: str, references: References) -> Fact:
        """The declared value, or the subnet's id."""
        if name != "subnet":
            return self.settings[name]
        if self.subnet is None:
            raise NotReady(name)
        return references(self.subnet).id

    def immutable_reason(self, name: str, differs: Differs) -> str:
        """Return why a setting cannot be changed, or not in this direction."""
        if reason := _GROWS.get(name):
            is_, declared = differs[name]
            return reason if _number(declared) < _number(is_) else ""
        return self.immutable.get(name, "")

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; idempotent by client token."""
        assert self.subnet
        assert self.security_group
        made = aws.fsx.create_file_system(
            ClientRequestToken=token,
            FileSystemType="LUSTRE",
            SubnetIds=[references(self.subnet).id],
            SecurityGroupIds=[references(self.security_group).id],
            Tags=aws.pairs(self.label),
            **_request({**self.smallest, **self.settings}, "CreateFileSystem"),
        )["FileSystem"]
        return self._live(made)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Restore its tags, and change what differs: all of it with one call, while it is used."""
        if live.owner is None:
            aws.fsx.tag_resource(ResourceARN=live.arn, Tags=aws.pairs(self.label))
        changed = {name: self.settings[name] for name in differs if name in self.settings}
        if changed:
            aws.fsx.update_file_system(
                FileSystemId=live.id, **_request(changed, "UpdateFileSystem")
            )

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it, with a final backup where FSx can; by default it has none."""
        skips = bool(live.attributes["no_backup"])
        lustre: JsonObject = {"SkipFinalBackup": skips}
        if not skips:
            lustre["FinalBackupTags"] = aws.pairs(self.label)
        aws.fsx.delete_file_system(FileSystemId=live.id, LustreConfiguration=lustre)

    def holds(self, live: Live) -> str:
        """Return its size."""
        return f"{live.attributes['capacity']} GiB" if live.attributes["capacity"] else "data"

    def lost_with(self, live: Live) -> str:
        """Return its size, and which backups go and stay (DeleteFileSystem)."""
        automatic = "; its automatic backups are deleted with it" if live.attributes["days"] else ""
        final = live.attributes["no_backup"] or "a final backup is created"
        return f"{self.holds(live)}; {final}{automatic}"

    def backups(self, aws: Aws, live: Live) -> list[str]:
        """Return the ids of its backups that stay after its delete."""
        found = aws.fsx.get_paginator("describe_backups").paginate(
            Filters=[{"Name": "file-system-id", "Values": [live.id]}]
        )
        every = [backup for page in found for backup in page.get("Backups", ())]
        return [each["BackupId"] for each in every if each.get("Type") != "AUTOMATIC"]

    def usd_per_month(self, live: Live) -> float | None:
        """Its storage with its throughput, as AWS describes them."""
        rate, size = prices.LUSTRE.get(live.attributes["kind"]), live.attributes["capacity"]
        return rate.usd * size if rate and rate.usd and size else None

    def prices(self, *, extended: bool) -> Iterator[Item]:
        """Its storage with its throughput; provisioned metadata IOPS have a price of their own."""
        every = {**self.smallest, **self.settings}
        kind, storage = every.get("deployment_type", ""), every.get("storage_type", "SSD")
        size = every.get("storage_capacity")
        rate = prices.LUSTRE.get((kind, every.get("per_unit_storage_throughput")))
        known = rate if rate and size and storage == "SSD" else prices.UNKNOWN
        what = f"FSx for Lustre, {size} GiB {kind}" if size else f"FSx for Lustre, {kind}"
        yield Item(what, 1, known, size or 0)
        if every.get("metadata_configuration.mode") == "USER_PROVISIONED":
            yield Item(f"metadata IOPS of {self.label}", 1, prices.UNKNOWN)


def _held_by(snapshot: Snapshot, found: JsonMapping) -> frozenset[str] | None:
    """Return the ids of VPC, subnets and security groups in which it is; None if not known.

    The groups are those of its interfaces; they are read for a delete only.
    """
    wanted, vpc = set(found.get("NetworkInterfaceIds") or ()), found.get("VpcId")
    if not (snapshot.bare and wanted and vpc and found.get("SubnetIds")):
        return None
    groups = {
        group["GroupId"]
        for each in snapshot.region(NETWORK_INTERFACES, {"vpc-id": [vpc]})
        if each["NetworkInterfaceId"] in wanted
        for group in each.get("Groups") or ()
    }
    return frozenset({*groups, *found["SubnetIds"], vpc}) if groups else None


def _linked(snapshot: Snapshot) -> frozenset[str]:
    """Return the ids of file systems with links of others; ours are deleted before."""
    ours = snapshot.aws.lineage
    with absent("AccessDenied.*"):
        theirs = [each for each in links(snapshot) if owner(each.get("Tags") or ()) != ours]
        return frozenset(str(each.get("FileSystemId")) for each in theirs)
    return frozenset()


def interfaces_of(snapshot: Snapshot) -> set[str]:
    """Return the ids of the interfaces of our and of adopted file systems.

    Empty if they cannot be listed.
    """
    ours, adopted = snapshot.aws.lineage, set(snapshot.adopted.values())
    with unless_refused():
        return {
            str(id_)
            for each in file_systems(snapshot)
            if owner(each.get("Tags") or ()) == ours or each["FileSystemId"] in adopted
            for id_ in each.get("NetworkInterfaceIds") or ()
        }
    return set()


def _request(settings: JsonMapping, operation: str) -> JsonObject:
    """Return settings as members of a request: the inverse of `_described`."""
    nested: JsonObject = {}
    for name, value in settings.items():
        *above, last = name.split(".")
        place = nested if name in _TOP else nested.setdefault("lustre_configuration", {})
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    request: JsonObject = to_api("fsx", operation, nested)[0]
    return request


def _number(value: Fact) -> tuple[int, ...]:
    """Return the numbers in a value, for comparison: version 2.15 is newer than 2.2."""
    return tuple(map(int, re.findall(r"[0-9]+", str(value))))
