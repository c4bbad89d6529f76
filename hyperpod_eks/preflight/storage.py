"""Checks of file systems: quotas, the zones of nodes, and the way to existing ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Network

from hyperpod_eks import workers
from hyperpod_eks.aws.ec2 import SECURITY_GROUPS
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.config.storage import Efs, FsxOpenZfs
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.preflight.inputs import Facts, Finding
from hyperpod_eks.preflight.quotas import judge
from hyperpod_eks.resolve.file_systems import every, file_systems, openzfs_name
from hyperpod_eks.resources.fsx import FileSystem
from hyperpod_eks.resources.hyperpod import cluster as hyperpod_cluster

NFS = 2049
HDD = "Lustre Persistent HDD storage capacity"


def quotas(facts: Facts) -> Iterator[Finding]:
    """New file systems must fit the quotas of FSx, by number and by capacity."""
    missing = facts.missing(FileSystem)
    if not missing:
        return
    limits = facts.quotas("fsx")
    adds, there = Counter[str](), Counter[str]()
    for one in missing:
        every = {**one.smallest, **one.settings}
        adds += _used(
            every["deployment_type"], every["storage_type"], every.get("storage_capacity")
        )
    for found in file_systems(facts.snapshot):
        lustre = found.get("LustreConfiguration") or {}
        kind, storage = lustre.get("DeploymentType") or "", found.get("StorageType") or "SSD"
        there += _used(kind, storage, found.get("StorageCapacity"))
    for name, count in adds.items():
        id_ = "quota-file-systems" if name.endswith("systems") else "quota-file-system-capacity"
        yield from judge(id_, "fsx", name, limits, count, there[name])


def _used(kind: str, storage: str, capacity: int | None) -> Counter[str]:
    """Return what a file system adds to each quota (AWS General Reference, FSx quotas)."""
    name = "Scratch" if kind.startswith("SCRATCH") else kind.capitalize()
    size = HDD if storage == "HDD" else f"Lustre {name} storage capacity"
    used = Counter({f"Lustre {name} file systems": 1})
    return used + Counter({size: capacity or 0})


def places(facts: Facts) -> Iterator[Finding]:
    """A file system should be in the zone of some nodes."""
    declared = facts.config.storage.fsx_lustre
    if not declared or facts.resolved is None:
        return
    for name, one in declared.items():
        if one.file_system_id:
            continue
        zone = facts.resolved.file_system_zone(name)
        groups = facts.config.groups
        far = [each.name for each in groups if zone not in facts.resolved.homes(each)]
        if len(far) == len(groups):
            text = f"{name} is in {zone}, and no instance group is: {', '.join(far)}"
            fix = (
                f"Set storage.fsx_lustre.{name}.availability_zone_id to a zone of nodes: traffic"
                " between zones is slower, and AWS bills it."
            )
            seen = {"zone": zone, "groups": far}
            yield Finding("file-system-zones", "warning", text, fix, seen)


def efs(facts: Facts) -> Iterator[Finding]:
    """EFS file systems need mount targets in the nodes' zones that let NFS in from the nodes.

    A file system's DNS name resolves to the mount target in the zone of the client, in the same
    VPC (EFS User Guide, "Mounting on Amazon EC2 with a DNS name").
    """
    declared = facts.config.storage.efs
    if not declared or facts.resolved is None:
        return
    found = workers.gather(*(partial(_efs, facts, *each) for each in declared.items()))
    yield from (one for part in found for one in part)


def _efs(facts: Facts, name: str, one: Efs) -> list[Finding]:
    setting, id_ = f"storage.efs.{name}.file_system_id", one.file_system_id
    region = f" --region {facts.config.region}"
    targets: list[Json] | None = None
    points: list[Json] = []
    with absent("FileSystemNotFound"):
        ask = partial(facts.snapshot.all, facts.aws.efs, FileSystemId=id_)
        targets = ask("describe_mount_targets", "MountTargets")
        if one.access_point_id:
            points = ask("describe_access_points", "AccessPoints")
    if targets is None:
        text = f"{setting}: {id_} is not an EFS file system of this account in"
        fix = f"Correct the id: `aws efs describe-file-systems{region}` lists them."
        return [_lost(setting, f"{text} {facts.config.region}", fix)]
    if one.access_point_id not in (None, *(each.get("AccessPointId") for each in points)):
        setting = f"storage.efs.{name}.access_point_id"
        text = f"{setting}: {one.access_point_id} is not an access point of {id_}"
        fix = "Correct the id: `aws efs describe-access-points --file-system-id"
        return [_lost(setting, text, f"{fix} {id_}{region}` lists them.")]
    return [*_targets(facts, setting, id_, targets)]


def _lost(setting: str, text: str, fix: str) -> Finding:
    return Finding("file-systems", "error", text, fix, {"setting": setting})


def _targets(
    facts: Facts, setting: str, id_: str, targets: Sequence[JsonMapping]
) -> Iterator[Finding]:
    """Yield the zones of nodes without a mount target, and groups that let no NFS in."""
    vpc, blocks = _id(facts, "network/vpc"), _blocks(facts)
    here = {t.get("AvailabilityZoneId"): t for t in targets if vpc and t.get("VpcId") == vpc}
    if missing := sorted(blocks.keys() - here.keys()):
        place = vpc or "the VPC, which does not exist yet"
        yield Finding(
            "mount-targets",
            "warning" if blocks.keys() & here.keys() else "error",
            f"{setting}: {id_} has no mount target in {', '.join(missing)} of {place}; pods on"
            " nodes there cannot mount it, since its DNS name does not resolve without one",
            f"Create one in each: `aws efs create-mount-target --region {facts.config.region}"
            f" --file-system-id {id_} --subnet-id SUBNET --security-groups GROUP`."
            if vpc
            else "Set existing.vpc to the VPC of its mount targets, or create the cluster without"
            " storage.efs, create mount targets in its VPC, and add storage.efs then.",
            {"setting": setting, "file_system": id_, "zones": missing},
        )
    for zone in sorted(blocks.keys() & here.keys()):
        if closed := _closed(facts, here[zone]["MountTargetId"], blocks[zone]):
            yield _shut(facts, setting, here[zone]["MountTargetId"], closed, zone)


def _id(facts: Facts, key: str) -> str:
    live = facts.live(key)
    return facts.adopted(key) or (live.id if live else "")


def _blocks(facts: Facts) -> Mapping[str, IPv4Network]:
    """Return the address blocks of the nodes' subnets by zone."""
    seen = facts.observations.get("hyperpod/cluster")
    if seen is None or not isinstance(seen.want, hyperpod_cluster.Cluster):
        return {}
    subnets = dict(seen.want.zones)
    used = {zone: subnets[zone] for one in seen.want.groups for zone in one.zones}
    lives = {zone: (subnet, facts.live(subnet.key)) for zone, subnet in used.items()}
    return {
        zone: IPv4Network(live.facts["cidr"] if live else subnet.cidr)
        for zone, (subnet, live) in lives.items()
    }


def _closed(facts: Facts, target: str, block: IPv4Network) -> list[str]:
    """Return the security groups of a mount target; [] if one of them lets the nodes in."""
    ask = partial(facts.aws.efs.describe_mount_target_security_groups, MountTargetId=target)
    ids: list[str] = facts.snapshot.once(("groups", target), lambda: ask()["SecurityGroups"])
    nodes = _id(facts, "network/security-group")
    rules = (
        rule
        for group in (facts.ec2(SECURITY_GROUPS, ids=sorted(ids)) if ids else ())
        for rule in group.get("IpPermissions") or ()
    )
    return [] if any(_admits(rule, nodes, block) for rule in rules) else sorted(ids)


def _admits(rule: JsonMapping, nodes: str, block: IPv4Network) -> bool:
    """Whether a rule lets NFS in from the nodes; what a prefix list has is not known here."""
    protocol, low, high = (rule.get(name) for name in ("IpProtocol", "FromPort", "ToPort"))
    if protocol != "-1" and (protocol not in ("tcp", "6") or not (low or 0) <= NFS <= (high or 0)):
        return False
    groups = {each.get("GroupId") for each in rule.get("UserIdGroupPairs") or ()}
    ranges = [IPv4Network(each["CidrIp"]) for each in rule.get("IpRanges") or ()]
    inside = any(block.subnet_of(each) for each in ranges)
    return nodes in groups or inside or bool(rule.get("PrefixListIds"))


def _shut(facts: Facts, setting: str, target: str, groups: Sequence[str], zone: str) -> Finding:
    nodes = _id(facts, "network/security-group")
    origin = f"--source-group {nodes}" if nodes else f"--cidr {facts.config.network.cidr}"
    return Finding(
        "mount-targets",
        "error",
        f"{setting}: the mount target {target} in {zone} does not let TCP {NFS} in from the"
        f" nodes (security groups: {', '.join(groups)}), so mounts time out",
        f"aws ec2 authorize-security-group-ingress --group-id {groups[0]} --protocol tcp"
        f" --port {NFS} {origin} --region {facts.config.region}",
        {"setting": setting, "mount_target": target, "security_groups": list(groups)},
    )


def openzfs(facts: Facts) -> Iterator[Finding]:
    """OpenZFS file systems must exist; one in another VPC needs a route there."""
    declared = facts.config.storage.fsx_openzfs
    there = {each["FileSystemId"]: each for each in every(facts.snapshot)} if declared else {}
    for name, one in declared.items():
        setting = f"storage.fsx_openzfs.{name}.file_system_id"
        found = there.get(one.file_system_id) or {}
        if found.get("FileSystemType") == "OPENZFS":
            yield from _openzfs(facts, setting, one, found)
            continue
        text = f"{setting}: {one.file_system_id} is not an OpenZFS file system in"
        region = facts.config.region
        fix = f"Correct the id: `aws fsx describe-file-systems --region {region}` lists them."
        yield _lost(setting, f"{text} {region}", fix)


def _openzfs(facts: Facts, setting: str, one: FsxOpenZfs, found: JsonMapping) -> Iterator[Finding]:
    name, vpc = openzfs_name(one, facts.config.region), _id(facts, "network/vpc")
    if found.get("DNSName") not in (None, name):
        text = f"{setting}: FSx describes the DNS name {found['DNSName']}, not {name}"
        yield _lost(setting, text, "Declare its volumes under `objects`, with that DNS name.")
    if found.get("VpcId") not in (None, vpc):
        where = f"is in {found['VpcId']}, and the nodes are in {vpc or 'a new VPC'}"
        text = f"{setting}: {one.file_system_id} {where}; pods mount it only over a route"
        fix = "Set existing.vpc to that VPC, or connect the VPCs."
        yield Finding("file-systems", "warning", text, fix, {"setting": setting})
