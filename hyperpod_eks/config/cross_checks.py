"""Rules that need code: for single values, and across settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hyperpod_eks.aws import published as versions
from hyperpod_eks.aws import service_model as model
from hyperpod_eks.aws.addon_needs import S3_DRIVER
from hyperpod_eks.config.addressing import cidr_fault, reserved, subnets
from hyperpod_eks.config.chart_checks import charts
from hyperpod_eks.config.group_checks import groups
from hyperpod_eks.config.mig import mig
from hyperpod_eks.config.monitoring_checks import monitoring
from hyperpod_eks.config.objects import doubled
from hyperpod_eks.config.pod_checks import pods
from hyperpod_eks.config.rules import Finding
from hyperpod_eks.config.scaling_checks import node_pools
from hyperpod_eks.config.storage_checks import storage
from hyperpod_eks.config.team_checks import teams

if TYPE_CHECKING:
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.config.yaml import Loc


def region_fault(region: str) -> str:
    """Refuse unknown regions, and those in partitions where AWS does not offer HyperPod."""
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
    """Refuse what EKS does not accept as a principal (CreateAccessEntry principalArn)."""
    fix = "set arn:aws:iam::<account>:role/<path><name>, as `aws iam get-role` prints it"
    if ":assumed-role/" in arn:
        return f"is a session, not a principal (EKS takes the role behind it); {fix}"
    if not _PRINCIPAL.fullmatch(arn):
        return f"is not the ARN of an IAM role or user (CreateAccessEntry principalArn); {fix}"
    return ""


def block_fault(cidr: str) -> str:
    """Refuse what is not an IPv4 address block."""
    try:
        block = ipaddress.IPv4Network(cidr, strict=False)
    except ValueError:
        return "is not an IPv4 block (address/length); choose one like 10.0.0.0/16"
    return "" if str(block) == cidr else f"is not where such a block begins; set {block}"


def kubernetes_group_fault(group: str) -> str:
    """Refuse groups that are reserved for Kubernetes (CreateAccessEntry kubernetesGroups)."""
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
    """Refuse tag keys that are reserved for AWS or for the tool."""
    for prefix, owner in (("aws:", "AWS"), ("hyperpod-eks:", "this tool")):
        if key.lower().startswith(prefix):
            return f"begins with {prefix} (reserved for {owner}); choose another key"
    return ""


def across(config: Config) -> Iterator[Finding]:
    """Yield contradictions between settings; each of them may break its own rule as well."""
    yield from _name(config)
    yield from doubled(config.objects)
    yield from _pods(config)
    yield from _zones(config)
    yield from groups(config)
    yield from node_pools(config)
    yield from teams(config)
    yield from _access(config)
    yield from _regions(config)
    yield from _kubernetes(config)
    yield from _addons(config)
    yield from charts(config)
    yield from pods(config)
    yield from _network(config)
    yield from _reach(config)
    yield from _unchangeable(config)
    yield from storage(config)
    yield from monitoring(config)
    yield from mig(config)


def _name(config: Config) -> Iterator[Finding]:
    """The bucket's name contains the cluster's name, account and region (S3 bucket naming)."""
    name, region = config.name, config.region
    if region_fault(region):
        return
    if f"{name}-".lower().startswith("sg-"):  # CreateSecurityGroup, GroupName
        text = 'is "sg" or begins with "sg-" (EC2 takes no such name of a security group)'
        yield Finding(("name",), f"{model.show(name)} {text}; choose another")
    why = f"the lifecycle bucket will be sagemaker-{name}-<account>-{region}"
    room = 63 - len(f"sagemaker--111122223333-{region}")
    if len(name) > room:
        text = f"has {len(name)} characters ({why}, and S3 takes 63); use at most {room}"
    elif name != name.lower():
        text = f'has capitals ({why}, and S3 takes lowercase letters only); use "{name.lower()}"'
    else:
        return
    yield Finding(("name",), f"{model.show(name)} {text}")


def _pods(config: Config) -> Iterator[Finding]:
    """Nodes with room for fewer pods cannot run CoreDNS, the CNI, the agents and the operators."""
    total = versions.room_for_pods(
        (group.instance_type or "", group.instance_count) for group in config.instance_groups
    )
    if total is not None and total < versions.PODS_LEAST and not config.restricted_instance_groups:
        text = (
            f"run at most {total} pods in total (HyperPod attaches one network interface per node;"
            f" system pods need at least {versions.PODS_LEAST}); use more or larger nodes"
        )
        yield Finding(("instance_groups",), text, True)


def _elsewhere(zone: str, region: str) -> str:
    """Return the region of a zone id if it is another region with HyperPod, else ""."""
    known = {versions.zone_prefix(each): each for each in versions.HYPERPOD_REGIONS}
    place = known.get(zone.partition("-")[0], "")
    return place if region in versions.HYPERPOD_REGIONS and place != region else ""


def _zones(config: Config) -> Iterator[Finding]:
    cidr, zones = config.network.cidr, config.network.availability_zone_ids
    loc = ("network", "availability_zone_ids")
    if not zones:
        return
    if not 2 <= len(zones) <= 6:
        count = "one zone" if len(zones) == 1 else f"{len(zones)} zones"
        yield Finding(loc, f"names {count} (EKS needs two or more); choose 2 to 6, or none")
        return
    for index, zone in enumerate(zones):
        if zone in zones[:index]:
            text = f"{model.show(zone)} is listed already (each zone has its own subnets)"
            yield Finding((*loc, index), f"{text}; keep one")
        place = _elsewhere(zone, config.region)
        if place:
            text = f"{model.show(zone)} is a zone of {place}, not of {config.region}"
            yield Finding((*loc, index), f"{text}; choose zones of {config.region}")
    if not cidr_fault(cidr):
        try:
            subnets(cidr, zones)
        except ValueError as error:
            yield Finding(("network", "cidr"), str(error))


def _access(config: Config) -> Iterator[Finding]:
    """A principal has one entry; an entry without a policy has groups and no namespaces."""
    seen = set()
    for index, entry in enumerate(config.eks.access):
        loc = ("eks", "access", index)
        if entry.principal_arn in seen:
            text = f"{model.show(entry.principal_arn)} has an entry already; keep one"
            yield Finding((*loc, "principal_arn"), text)
        seen.add(entry.principal_arn)
        if entry.policy is None and entry.namespaces:
            text = "is null beside namespaces (they say where a policy counts)"
            yield Finding((*loc, "policy"), f"{text}; set the policy, or omit the namespaces")
        if entry.policy is None and not entry.kubernetes_groups:
            text = "is null without kubernetes_groups (the entry would allow nothing)"
            yield Finding((*loc, "policy"), f"{text}; set one of them")


def _regions(config: Config) -> Iterator[Finding]:
    """Keys and training plans must be in the cluster's region."""
    found: list[tuple[Loc, str | None]] = [
        ((section, index, "training_plan_arn"), group.training_plan_arn)
        for section, groups in (
            ("instance_groups", config.instance_groups),
            ("restricted_instance_groups", config.restricted_instance_groups),
        )
        for index, group in enumerate(groups)
    ]
    found += [(("encryption", name), key) for name, key in config.encryption]
    found += [
        (("storage", "fsx_lustre", name, "kms_key"), one.kms_key)
        for name, one in config.storage.fsx_lustre.items()
    ]
    for loc, arn in found:
        home = (arn or "").split(":")[3:4]
        if home and config.region and home != [config.region]:
            yield Finding(loc, f"{model.show(arn)} is not in {config.region}; choose one that is")


def _network(config: Config) -> Iterator[Finding]:
    zones, more = config.network.availability_zone_ids, config.network.secondary_cidrs
    if more and all(zones) and 0 < len(zones) != len(more):
        yield Finding(
            ("network", "secondary_cidrs"),
            f"has {len(more)} blocks for {len(zones)} zones (one for each); set {len(zones)}",
        )
    if more and not zones:
        text = "needs network.availability_zone_ids (one block for each zone, in order)"
        yield Finding(("network", "secondary_cidrs"), f"{text}; set them")
    yield from _blocks(config.network.cidr, more)
    existing = config.existing
    inside = {
        "private_subnets": existing.private_subnets,
        "nat_gateways": existing.nat_gateways,
        "route_tables": existing.route_tables,
        "s3_endpoint": existing.s3_endpoint,
        "security_group": existing.security_group,
    }
    for name, given in inside.items():
        if given and existing.vpc is None and existing.eks_cluster is None:
            text = "is given without existing.vpc (they belong together); set existing.vpc too"
            yield Finding(("existing", name), text)


def _reach(config: Config) -> Iterator[Finding]:
    """Nodes must reach AWS, and users must reach the Kubernetes API."""
    network, eks = config.network, config.eks
    if network.nat == "none" and network.interface_endpoints == ():
        text = '"none" leaves the nodes no way to AWS without interface_endpoints'
        yield Finding(("network", "nat"), f"{text}; omit those for the full set")
    if not eks.endpoint_public_access and not eks.endpoint_private_access:
        text = "is false beside endpoint_public_access (nobody would reach the API)"
        yield Finding(("eks", "endpoint_private_access"), f"{text}; set one of them to true")
    if not eks.public_access_cidrs and eks.endpoint_public_access:
        text = "is empty (EKS then opens the API to all, 0.0.0.0/0)"
        fix = "list blocks, or set endpoint_public_access: false"
        yield Finding(("eks", "public_access_cidrs"), f"{text}; {fix}")


def _blocks(cidr: str, more: tuple[str, ...]) -> Iterator[Finding]:
    """A block of the VPC is /16 to /28 and overlaps no other one (AssociateVpcCidrBlock)."""
    taken = [cidr] if not block_fault(cidr) else []
    for index, each in enumerate(more):
        if block_fault(each):
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


def _unchangeable(config: Config) -> Iterator[Finding]:
    """Existing resources are never changed: settings that would change them are refused."""
    network, existing = config.network, config.existing
    subnets = {"secondary_cidrs": network.secondary_cidrs, "subnet_tags": network.subnet_tags}
    groups = {
        "security_groups": network.security_groups == "strict",
        "storage_ports": network.storage_ports,
    }
    for name, given, settings in (
        ("private_subnets", existing.private_subnets != (), subnets),
        ("security_group", existing.security_group is not None, groups),
    ):
        for setting, used in settings.items() if given or existing.eks_cluster is not None else ():
            if used:
                yield _theirs("network", setting, name if given else "eks_cluster")


def _theirs(section: str, setting: str, given: str) -> Finding:
    text = f"cannot be set together with existing.{given} (existing resources are never changed)"
    return Finding((section, setting), f"{text}; remove one of them", True)


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
"""By the setting of ``existing``: the settings of each section that have no effect beside it."""


def idle(config: Config) -> Iterator[Finding]:
    """Yield settings without effect, because they are about an existing resource."""
    for given, section, names in _IDLE:
        here = getattr(config, section)
        for name in names if getattr(config.existing, given) else ():
            if getattr(here, name) != type(here).model_fields[name].default:
                yield _theirs(section, name, given)
    existing = config.existing
    if existing.nat_gateways and config.network.nat == "none" and not existing.private_subnets:
        text = '"none" leaves no use for existing.nat_gateways'
        yield Finding(("network", "nat"), f"{text}; omit one of them")


def _kubernetes(config: Config) -> Iterator[Finding]:
    """Refuse versions that HyperPod never supported; newer ones than we know are allowed."""
    version, oldest = config.eks.version, versions.OLDEST_KUBERNETES
    if version is None or not re.fullmatch(r"1\.[0-9]{2}", version):
        return
    if versions.order(version) < versions.order(oldest) and not config.eks.allow_untested_version:
        yield Finding(
            ("eks", "version"),
            f"{model.show(version)} is too old (HyperPod needs Kubernetes {oldest} or newer);"
            " choose a newer one, or omit it",
        )


def _addons(config: Config) -> Iterator[Finding]:
    """Refuse versions of add-ons that do not work on HyperPod, and settings of other add-ons."""
    for name, addon in config.addons.items():
        if addon.buckets and name != S3_DRIVER:
            text = f"is a setting of {S3_DRIVER} only; remove it"
            yield Finding(("addons", name, "buckets"), text, True)
        if addon.buckets and addon.pod_identity_associations is not None:
            text = "has no effect beside pod_identity_associations (it is for a role that is"
            yield Finding(("addons", name, "buckets"), f"{text} created); keep one", True)
        version, loc = addon.version or "", ("addons", name, "version")
        if why := versions.broken(name, version):
            text = f"{model.show(version)} {why}; choose another one, or omit it"
            yield Finding(loc, text)
        found = versions.numbers(version)[:3] if name == "vpc-cni" else ()
        if len(found) == 3 and found < versions.OLDEST_VPC_CNI:
            oldest = ".".join(map(str, versions.OLDEST_VPC_CNI))
            yield Finding(
                loc,
                f"{model.show(version)} is too old (HyperPod needs Amazon VPC CNI {oldest} or"
                " newer); choose a newer one, or omit it for EKS's default",
            )
