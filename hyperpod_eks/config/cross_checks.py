"""Rules that need more than a pattern: single values, values together, and what is worth a word."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hyperpod_eks.aws import published as versions
from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config.addressing import cidr_fault, reserved, subnets
from hyperpod_eks.config.group_checks import groups, twice
from hyperpod_eks.config.rules import Finding, get
from hyperpod_eks.documents import JsonMapping

if TYPE_CHECKING:
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.config.yaml import Loc


def region_fault(region: str) -> str:
    """Refuse what is no region, and regions of partitions in which AWS offers no HyperPod."""
    if fault := model.region_fault(region):
        return fault
    partition = model.partition(region)
    if partition in versions.HYPERPOD_PARTITIONS:
        return ""
    return (
        f"is in the partition {partition}, where AWS does not offer HyperPod"
        f" ({versions.REGIONS_READ:%B %Y}); choose a region like us-west-2"
    )


_PRINCIPAL = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[\w+=,.@/-]{1,512}", re.ASCII)


def principal_fault(arn: str) -> str:
    """Refuse what EKS does not take for a principal. The source is CreateAccessEntry."""
    fix = "set arn:aws:iam::<account>:role/<path><name>, as `aws iam get-role` prints it"
    if ":assumed-role/" in arn:
        return f"is a session, not a principal (EKS takes the role behind it); {fix}"
    if not _PRINCIPAL.fullmatch(arn):
        return f"is not the ARN of an IAM role or user (CreateAccessEntry principalArn); {fix}"
    return ""


def block_fault(cidr: str) -> str:
    """Refuse what is no address block."""
    try:
        block = ipaddress.IPv4Network(cidr, strict=False)
    except ValueError:
        return "is not an IPv4 block (address/length); choose one like 10.0.0.0/16"
    return "" if str(block) == cidr else f"is not where such a block begins; set {block}"


def kubernetes_group_fault(group: str) -> str:
    """Refuse groups that EKS keeps for Kubernetes itself (CreateAccessEntry kubernetesGroups)."""
    if group.startswith("system:"):
        return "begins with system: (EKS refuses those); bind a group of your own"
    return ""


def retention_fault(days: int) -> str:
    """Refuse a retention that CloudWatch Logs does not offer."""
    if days in versions.LOG_RETENTION_DAYS:
        return ""
    near = sorted(versions.LOG_RETENTION_DAYS, key=lambda offered: abs(offered - days))[:2]
    return (
        "is not a period that CloudWatch Logs offers (PutRetentionPolicy retentionInDays);"
        f" set {min(near)} or {max(near)}"
    )


def tag_fault(key: str) -> str:
    """Refuse tag keys that belong to AWS or to the tool."""
    for prefix, owner in (("aws:", "AWS"), ("hyperpod-eks:", "this tool")):
        if key.lower().startswith(prefix):
            return f"begins with {prefix} (reserved for {owner}); choose another key"
    return ""


def across(data: JsonMapping) -> Iterator[Finding]:
    """Yield what several values do wrong together; each of them may be wrong by itself."""
    yield from _name(data)
    yield from _pods(data)
    yield from _zones(data)
    yield from groups(data)
    yield from twice(data, ("eks", "access"), "principal_arn", "has an entry already")
    yield from _access(data)
    yield from _places(data)
    yield from _kubernetes(data)
    yield from _cni(data)
    yield from _network(data)
    yield from _reach(data)
    yield from _theirs(data)


def _name(data: JsonMapping) -> Iterator[Finding]:
    """The bucket's name holds the cluster's, the account's and the region's (S3 bucket naming)."""
    name, region = data.get("name"), data.get("region")
    if not isinstance(name, str) or not isinstance(region, str) or region_fault(region):
        return
    if f"{name}-".lower().startswith("sg-"):  # CreateSecurityGroup, GroupName
        text = 'is "sg" or begins with "sg-" (EC2 takes no such name of a security group)'
        yield Finding(("name",), f"{model.show(name)} {text}; choose another")
    why = f"the lifecycle bucket will be sagemaker-{name}-<account>-{region}"
    room = 63 - len(f"sagemaker--111122223333-{region}")
    if len(name) > room:
        text = f"has {len(name)} characters ({why}, and S3 takes 63); use at most {room}"
    elif name != name.lower():
        text = f'has capitals ({why}, and S3 takes small letters only); use "{name.lower()}"'
    else:
        return
    yield Finding(("name",), f"{model.show(name)} {text}")


def _pods(data: JsonMapping) -> Iterator[Finding]:
    """Fewer pods than CoreDNS, the CNI, the agents and the operators are can never be ready."""
    groups = get(data, "instance_groups")
    listed = [each for each in groups if isinstance(each, dict)] if isinstance(groups, list) else []
    rooms = []
    for each in listed:
        kind, count = each.get("instance_type"), each.get("instance_count")
        if not isinstance(kind, str) or not isinstance(count, int) or isinstance(count, bool):
            return
        if count > 0:
            rooms.append((versions.pods(kind), count))
    known = all(room for room, _ in rooms) and not get(data, "restricted_instance_groups")
    total = sum((room or 0) * count for room, count in rooms)
    if rooms and known and total < versions.PODS_LEAST:
        text = (
            f"run at most {total} pods in total (HyperPod attaches one network interface per node;"
            f" system pods need at least {versions.PODS_LEAST}); use more or larger nodes"
        )
        yield Finding(("instance_groups",), text, True)


def _elsewhere(zone: object, region: object) -> str:
    """Return the region of a zone id, if it is another of HyperPod's; else nothing."""
    known = {versions.zone_prefix(each): each for each in versions.HYPERPOD_REGIONS}
    place = known.get(str(zone).partition("-")[0], "")
    return place if region in versions.HYPERPOD_REGIONS and place != region else ""


def _zones(data: JsonMapping) -> Iterator[Finding]:
    cidr, zones = get(data, "network", "cidr"), get(data, "network", "availability_zone_ids")
    loc = ("network", "availability_zone_ids")
    if not isinstance(zones, list) or not zones:
        return
    if not 2 <= len(zones) <= 6:
        count = "one zone" if len(zones) == 1 else f"{len(zones)} zones"
        yield Finding(loc, f"names {count} (EKS needs two or more); choose 2 to 6, or none")
        return
    for index, zone in enumerate(zones):
        if zone in zones[:index]:
            text = f"{model.show(zone)} is listed already (each zone has its own subnets)"
            yield Finding((*loc, index), f"{text}; keep one")
        place = _elsewhere(zone, data.get("region"))
        if place:
            text = f"{model.show(zone)} is a zone of {place}, not of {data['region']}"
            yield Finding((*loc, index), f"{text}; choose zones of {data['region']}")
    if cidr is None or (isinstance(cidr, str) and not cidr_fault(cidr)):
        try:
            subnets(cidr or "10.0.0.0/16", tuple(map(str, zones)))
        except ValueError as error:
            yield Finding(("network", "cidr"), str(error))


def _access(data: JsonMapping) -> Iterator[Finding]:
    """An entry without a policy works through its groups alone, which know no namespaces here."""
    entries = get(data, "eks", "access")
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, dict) or entry.get("policy", "") is not None:
            continue
        loc = ("eks", "access", index, "policy")
        if entry.get("namespaces"):
            text = "is null beside namespaces (they say where a policy counts)"
            yield Finding(loc, f"{text}; set the policy, or omit the namespaces")
        if not entry.get("kubernetes_groups"):
            text = "is null without kubernetes_groups (the entry would allow nothing)"
            yield Finding(loc, f"{text}; set one of them")


def _places(data: JsonMapping) -> Iterator[Finding]:
    """Keys and training plans serve the region that they are in, as their ARNs say."""
    found: list[tuple[Loc, object]] = []
    for name in ("instance_groups", "restricted_instance_groups"):
        groups = data.get(name)
        for index, group in enumerate(groups if isinstance(groups, list) else ()):
            found.append(((name, index, "training_plan_arn"), get(group, "training_plan_arn")))
    keys = ("eks_secrets", "volumes", "bucket", "logs")
    found += [(("encryption", name), get(data, "encryption", name)) for name in keys]
    region = data.get("region")
    for loc, arn in found:
        home = arn.split(":")[3:4] if isinstance(arn, str) else []
        if home and isinstance(region, str) and home != [region]:
            yield Finding(loc, f"{model.show(arn)} is not in {region}; choose one that is")


def _network(data: JsonMapping) -> Iterator[Finding]:
    network, existing = get(data, "network"), get(data, "existing")
    zones, more = get(network, "availability_zone_ids"), get(network, "secondary_cidrs")
    if isinstance(more, list) and isinstance(zones, list) and more and len(more) != len(zones):
        yield Finding(
            ("network", "secondary_cidrs"),
            f"has {len(more)} blocks for {len(zones)} zones (one for each); set {len(zones)}",
        )
    if isinstance(more, list) and more and not zones:
        text = "needs network.availability_zone_ids (one block for each zone, in order)"
        yield Finding(("network", "secondary_cidrs"), f"{text}; set them")
    yield from _blocks(get(network, "cidr") or "10.0.0.0/16", more)
    for key in ("private_subnets", "nat_gateways", "route_tables", "s3_endpoint", "security_group"):
        if get(existing, key) and not get(existing, "vpc") and not get(existing, "eks_cluster"):
            text = "is given without existing.vpc (they belong together); set existing.vpc too"
            yield Finding(("existing", key), text)


def _reach(data: JsonMapping) -> Iterator[Finding]:
    """Nodes need a way to AWS, and people one to the Kubernetes API."""
    network = get(data, "network")
    if isinstance(network, dict) and network.get("nat") == "none" and not _closed(network):
        text = '"none" leaves the nodes no way to AWS without interface_endpoints'
        yield Finding(("network", "nat"), f"{text}; omit those for the full set")
    eks = get(data, "eks")
    if (
        isinstance(eks, dict)
        and eks.get("endpoint_public_access") is False
        and (eks.get("endpoint_private_access") is False)
    ):
        text = "is false beside endpoint_public_access (nobody would reach the API)"
        yield Finding(("eks", "endpoint_private_access"), f"{text}; set one of them to true")
    if get(eks, "public_access_cidrs") == [] and get(eks, "endpoint_public_access") is not False:
        text = "is empty (EKS then opens the API to all, 0.0.0.0/0)"
        fix = "list blocks, or set endpoint_public_access: false"
        yield Finding(("eks", "public_access_cidrs"), f"{text}; {fix}")


def _blocks(cidr: object, more: object) -> Iterator[Finding]:
    """A block of the VPC is /16 to /28, and beside the others (AssociateVpcCidrBlock)."""
    taken = [cidr] if isinstance(cidr, str) and not block_fault(cidr) else []
    for index, each in enumerate(more if isinstance(more, list) else ()):
        if not isinstance(each, str) or block_fault(each):
            continue
        block = ipaddress.IPv4Network(each)
        text = next(
            (f"overlaps {t}" for t in taken if block.overlaps(ipaddress.IPv4Network(t))), ""
        )
        if not 16 <= block.prefixlen <= 28:
            text = "is not of a size that a VPC takes (/16 to /28)"
        text = reserved(block) or text
        if text:
            where = ("network", "secondary_cidrs", index)
            yield Finding(where, f"{model.show(each)} {text}; choose one like 10.1.0.0/16")
        taken.append(each)


def _theirs(data: JsonMapping) -> Iterator[Finding]:
    """What is somebody's is not changed: settings that would have to are refused."""
    for given, names in (
        ("private_subnets", ("secondary_cidrs", "subnet_tags")),
        ("security_group", ("security_groups", "storage_ports")),
    ):
        keys = [key for key in (given, "eks_cluster") if get(data, "existing", key)]
        for name in names if keys else ():
            if get(data, "network", name) not in (None, False, [], {}, "shared"):
                text = (
                    f"cannot be set together with existing.{keys[0]} (existing resources are never"
                    " changed)"
                )
                yield Finding(("network", name), f"{text}; remove one of them", True)


_IDLE = (
    ("eks_cluster", "eks", (
        "version", "support_type", "log_types", "log_retention_days",
        "endpoint_public_access", "endpoint_private_access", "public_access_cidrs",
    )),
    ("eks_cluster", "encryption", ("eks_secrets", "logs")),
    ("eks_cluster", "network", ("availability_zone_ids", "nat")),
    ("eks_cluster", "existing", ("cluster_role", "nat_gateways")),
    ("private_subnets", "network", ("availability_zone_ids", "nat")),
    ("private_subnets", "existing", ("nat_gateways",)),
)  # fmt: skip
"""By the setting of ``existing``: the sections and settings that are then somebody else's."""


def idle(config: Config) -> Iterator[Finding]:
    """Yield what is set and does nothing, because the thing that it is about is somebody's."""
    for given, section, names in _IDLE:
        here = getattr(config, section)
        for name in names if getattr(config.existing, given) else ():
            if getattr(here, name) != type(here).model_fields[name].default:
                text = (
                    f"cannot be set together with existing.{given} (existing resources are never"
                    " changed)"
                )
                yield Finding((section, name), f"{text}; remove one of them", True)
    theirs = config.existing
    if theirs.nat_gateways and config.network.nat == "none" and not theirs.private_subnets:
        text = '"none" leaves no use for existing.nat_gateways'
        yield Finding(("network", "nat"), f"{text}; omit one of them")


def _closed(network: JsonMapping) -> bool:
    return network.get("interface_endpoints") != []


def _kubernetes(data: JsonMapping) -> Iterator[Finding]:
    """Refuse what HyperPod never ran on; a version that is newer than our table may be right."""
    version, oldest = get(data, "eks", "version"), versions.OLDEST_KUBERNETES
    if not isinstance(version, str) or not re.fullmatch(r"1\.[0-9]{2}", version):
        return
    allowed = get(data, "eks", "allow_untested_version") is True
    if versions.order(version) < versions.order(oldest) and not allowed:
        yield Finding(
            ("eks", "version"),
            f"{model.show(version)} is too old (HyperPod needs Kubernetes {oldest} or newer);"
            " choose a newer one, or omit it",
        )


def _cni(data: JsonMapping) -> Iterator[Finding]:
    addons = get(data, "addons")
    for name in addons if isinstance(addons, dict) else ():
        version = get(addons, name, "version")
        if isinstance(version, str) and (why := versions.broken(str(name), version)):
            text = f"{model.show(version)} {why}; choose another one, or omit it"
            yield Finding(("addons", name, "version"), text)
    version = get(addons, "vpc-cni", "version")
    found = versions.numbers(version)[:3] if isinstance(version, str) else ()
    if len(found) == 3 and found < versions.OLDEST_VPC_CNI:
        oldest = ".".join(map(str, versions.OLDEST_VPC_CNI))
        yield Finding(
            ("addons", "vpc-cni", "version"),
            f"{model.show(version)} is too old (HyperPod needs Amazon VPC CNI {oldest} or newer);"
            " choose a newer one, or omit it for EKS's default",
        )
