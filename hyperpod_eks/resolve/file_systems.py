"""File systems in the account, and the zones in which those of a cluster are."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpod_eks.aws.ec2 import SUBNETS
from hyperpod_eks.aws.failures import absent, cannot_ask, why_not_asked
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import CLUSTER, LABEL, tag
from hyperpod_eks.config.model import Config
from hyperpod_eks.config.storage import FsxOpenZfs
from hyperpod_eks.documents import JsonMapping


def file_systems(snapshot: Snapshot) -> list[JsonMapping]:
    """List the Lustre file systems of the region."""
    return [each for each in every(snapshot) if each.get("FileSystemType") == "LUSTRE"]


def every(snapshot: Snapshot) -> list[JsonMapping]:
    """List the file systems of FSx in the region."""
    return snapshot.all(snapshot.aws.fsx, "describe_file_systems", "FileSystems")


def openzfs_name(one: FsxOpenZfs, region: str) -> str:
    """Return the DNS name of an OpenZFS file system (FSx for OpenZFS User Guide, "Mounting").

    Preflight compares it with what FSx describes.
    """
    return f"{one.file_system_id}.fsx.{region}.amazonaws.com"


def labelled(snapshot: Snapshot, label: str) -> list[JsonMapping]:
    """Return the file systems with this cluster's tag and this label."""
    wanted = (snapshot.aws.cluster, label)
    return [
        each
        for each in file_systems(snapshot)
        if (tag(tags := each.get("Tags") or (), CLUSTER), tag(tags, LABEL)) == wanted
    ]


def links(snapshot: Snapshot) -> list[JsonMapping]:
    """List the region's links of file systems to S3; botocore has no paginator for them."""

    def ask() -> Iterator[JsonMapping]:
        more: dict[str, str] = {}
        while True:
            page = snapshot.aws.fsx.describe_data_repository_associations(**more)
            yield from page.get("Associations") or ()
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}

    return snapshot.once("links of file systems", lambda: list(ask()))


def file_system_zones(snapshot: Snapshot, config: Config) -> dict[str, str]:
    """Return the zone ids of the declared file systems that exist, by name.

    FSx does not move a file system, so it stays where it is whatever the groups of nodes do.
    """
    names = [name for name, one in config.storage.fsx_lustre.items() if not one.file_system_id]
    if not names:
        return {}
    try:
        homes = {
            name: str(found["SubnetIds"][0])
            for name in names
            for found in labelled(snapshot, name)
            if found.get("SubnetIds") and found.get("Lifecycle") != "DELETING"
        }
    except Exception as error:
        if why := why_not_asked(error):
            raise cannot_ask("fsx", why, error) from error
        raise
    if not homes:
        return {}
    with absent(r"InvalidSubnetID\.NotFound"):
        there = snapshot.region(SUBNETS, {SUBNETS.id_filter: sorted(set(homes.values()))})
        zones = {each["SubnetId"]: str(each["AvailabilityZoneId"]) for each in there}
        return {name: zones[home] for name, home in homes.items() if home in zones}
    return {}
