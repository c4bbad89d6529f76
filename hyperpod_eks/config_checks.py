"""Rules that need more than a pattern: single values, values together, and what is worth a word."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hyperpod_eks import model, versions
from hyperpod_eks.config_files import check_lifecycle
from hyperpod_eks.config_network import ADDRESSES, cidr_fault, subnets
from hyperpod_eks.config_rules import Finding

if TYPE_CHECKING:
    from hyperpod_eks.config import Config
    from hyperpod_eks.config_yaml import Loc

__all__ = [
    "across", "cidr_fault", "get", "principal_fault", "region_fault", "retention_fault",
    "tag_fault", "warnings",
]  # fmt: skip

_PRINCIPAL = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[\w+=,.@/-]{1,512}", re.ASCII)


def principal_fault(arn: str) -> str:
    """Refuse what EKS does not take for a principal. The source is CreateAccessEntry."""
    fix = "give arn:aws:iam::<account>:role/<path><name>, as `aws iam get-role` prints it"
    if ":assumed-role/" in arn:
        return f"is a session, not a principal (EKS takes the role behind it); {fix}"
    if not _PRINCIPAL.fullmatch(arn):
        return f"is not the ARN of an IAM role or user (CreateAccessEntry principalArn); {fix}"
    return ""


def region_fault(region: str) -> str:
    """Refuse a region that botocore has never heard of."""
    known = model.regions()
    if region in known:
        return ""
    if region[:-1] in known:
        return f"is an availability zone, not a region; use {region[:-1]}"
    near = model.nearest(region, known)
    fix = f"did you mean {near[0]}?" if near else "give one like us-west-2"
    return f"is not an AWS region that botocore knows; {fix}"


def retention_fault(days: int) -> str:
    """Refuse a retention that CloudWatch Logs does not offer."""
    if days in versions.LOG_RETENTION_DAYS:
        return ""
    near = sorted(versions.LOG_RETENTION_DAYS, key=lambda offered: abs(offered - days))[:2]
    return (
        "is not a period that CloudWatch Logs offers (PutRetentionPolicy retentionInDays);"
        f" give {min(near)} or {max(near)}"
    )


def tag_fault(key: str) -> str:
    """Refuse tag keys that belong to AWS or to the tool."""
    for prefix, owner in (("aws:", "AWS"), ("hyperpod-eks:", "this tool")):
        if key.lower().startswith(prefix):
            return f"begins with {prefix} (reserved for {owner}); choose another key"
    return ""


def across(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what several values do wrong together; each of them may be wrong by itself."""
    yield from _name(data)
    yield from _zones(data)
    yield from _groups(data)
    yield from _twice(data, ("instance_groups",), "name", "is the name of an earlier group")
    yield from _twice(data, ("eks", "access"), "principal_arn", "has an entry already")
    yield from _cni(data)


def warnings(config: Config) -> list[str]:
    """Return what is allowed but probably not meant, one sentence each."""
    found = []
    if config.region not in versions.HYPERPOD_REGIONS:
        found.append(
            f"region: {config.region} is not among the regions that AWS listed for HyperPod in"
            f" {versions.REGIONS_READ:%B %Y}"
        )
    zones = config.network.availability_zone_ids or ("first", "second")
    block = ipaddress.IPv4Network(subnets(config.network.cidr, zones)[0].private)
    room = block.num_addresses - 5  # AWS keeps five in every subnet
    for group in config.instance_groups:
        each = next((n for part, n in ADDRESSES if group.instance_type.startswith(part)), 0)
        if group.instance_count * each > room:
            found.append(
                f"network.cidr: {group.instance_count} {group.instance_type} of {group.name} take"
                f" about {group.instance_count * each} addresses ({each} each), and a private"
                f" subnet of {config.network.cidr} has {room}"
            )
    return found + check_lifecycle(config.lifecycle.path, config.lifecycle.on_create)[1]


def get(data: object, *keys: str) -> Any:
    """Return what is at `keys` in nested mappings, None where there is nothing or no mapping."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _name(data: Mapping[str, Any]) -> Iterator[Finding]:
    """The bucket's name holds the cluster's, the account's and the region's (S3 bucket naming)."""
    name, region = data.get("name"), data.get("region")
    if not isinstance(name, str) or not isinstance(region, str) or region_fault(region):
        return
    why = f"the lifecycle bucket will be sagemaker-{name}-<account>-{region}"
    room = 63 - len(f"sagemaker--111122223333-{region}")
    if len(name) > room:
        text = f"has {len(name)} characters ({why}, and S3 takes 63); give at most {room}"
    elif name != name.lower():
        text = f'has capitals ({why}, and S3 takes small letters only); use "{name.lower()}"'
    else:
        return
    yield Finding(("name",), f"{model.show(name)} {text}")


def _zones(data: Mapping[str, Any]) -> Iterator[Finding]:
    cidr, zones = get(data, "network", "cidr"), get(data, "network", "availability_zone_ids")
    loc = ("network", "availability_zone_ids")
    if not isinstance(zones, list) or not zones:
        return
    if not 2 <= len(zones) <= 6:
        count = "one zone" if len(zones) == 1 else f"{len(zones)} zones"
        yield Finding(loc, f"names {count} (EKS needs two or more); give 2 to 6, or none")
        return
    for index, zone in enumerate(zones):
        if zone in zones[:index]:
            text = f"{model.show(zone)} is named already (each zone has its own subnets)"
            yield Finding((*loc, index), f"{text}; name it once")
    if cidr is None or (isinstance(cidr, str) and not cidr_fault(cidr)):
        try:
            subnets(cidr or "10.0.0.0/16", tuple(map(str, zones)))
        except ValueError as error:
            yield Finding(("network", "cidr"), str(error))


def _groups(data: Mapping[str, Any]) -> Iterator[Finding]:
    groups = data.get("instance_groups")
    if isinstance(groups, list) and len(groups) != 1:
        least, most = model.bounds("sagemaker", "CreateCluster.InstanceGroups")
        if not (least or 0) <= len(groups) <= (most or len(groups)):
            rule = f"{least} to {most}"
            yield Finding(
                ("instance_groups",),
                f"has {len(groups)} groups (CreateCluster InstanceGroups has {rule}); give {rule}",
            )


def _twice(data: Mapping[str, Any], loc: Loc, key: str, says: str) -> Iterator[Finding]:
    entries, seen = get(data, *map(str, loc)), set()
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        value = get(entry, key)
        if isinstance(value, str) and value in seen:
            yield Finding((*loc, index, key), f"{model.show(value)} {says}; give each once")
        if isinstance(value, str):
            seen.add(value)


def _cni(data: Mapping[str, Any]) -> Iterator[Finding]:
    version = get(data, "addons", "vpc-cni", "version")
    numbers = re.match(
        r"v([0-9]+)\.([0-9]+)\.([0-9]+)", version if isinstance(version, str) else ""
    )
    if numbers and tuple(map(int, numbers.groups())) < versions.OLDEST_VPC_CNI:
        oldest = ".".join(map(str, versions.OLDEST_VPC_CNI))
        yield Finding(
            ("addons", "vpc-cni", "version"),
            f"{model.show(version)} is too old (HyperPod needs Amazon VPC CNI {oldest} or newer);"
            " give a newer one, or leave it out for EKS's default",
        )
