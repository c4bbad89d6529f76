"""Choose and check the zones of subnets and instance groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import SUBNETS
from hyperpod_eks.aws.published import ZONES_WITHOUT_EKS
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import LABEL, tag
from hyperpod_eks.config.addressing import subnets
from hyperpod_eks.config.model import Config
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import Usage
from hyperpod_eks.resolve.names import PRIVATE_SUBNET, PUBLIC_SUBNET
from hyperpod_eks.resolve.training_plans import planned_zones


def available_zones(aws: Aws) -> list[str]:
    """Return the region's zone ids, without Local and Wavelength Zones, which need opt-in."""
    found = aws.ec2.describe_availability_zones(
        Filters=[
            {"Name": "state", "Values": ["available"]},
            {"Name": "zone-type", "Values": ["availability-zone"]},
        ]
    )["AvailabilityZones"]
    zones = {zone["ZoneId"] for zone in found}
    if "eks/cluster" not in aws.adopted:  # EKS uses the nodes' subnets
        zones -= ZONES_WITHOUT_EKS
    return sorted(zones)


def offerings(aws: Aws, types: list[str]) -> dict[str, frozenset[str]]:
    """Return which of the types each zone offers, by zone id (DescribeInstanceTypeOfferings)."""
    pages = aws.ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone-id", Filters=[{"Name": "instance-type", "Values": types}]
    )
    offered: dict[str, set[str]] = {}
    for page in pages:
        for each in page["InstanceTypeOfferings"]:
            offered.setdefault(each["Location"], set()).add(each["InstanceType"])
    return {zone: frozenset(kinds) for zone, kinds in offered.items()}


def taken_zones(snapshot: Snapshot) -> dict[str, str]:
    """Return the CIDR block of our subnet in each zone, by zone id, ordered by block."""
    found = snapshot.signed(SUBNETS)
    blocks = {tag(each["Tags"], LABEL) or "": str(each["CidrBlock"]) for each in found}
    return {
        label.removeprefix(kind): blocks[label]
        for kind in (PUBLIC_SUBNET, PRIVATE_SUBNET)
        for label in sorted(blocks, key=lambda label: IPv4Network(blocks[label]))
        if label.startswith(kind)
    }


def _in_place(zones: tuple[str, ...], taken: Mapping[str, str], cidr: str) -> tuple[str, ...]:
    """Order zones so that each existing subnet keeps its block, even if an earlier one is gone."""
    places = {
        block: place
        for place, each in enumerate(subnets(cidr, zones))
        for block in (each.private, each.public)
    }
    kept = {places[taken[zone]]: zone for zone in zones if taken.get(zone) in places}
    others = iter([zone for zone in zones if zone not in kept.values()])
    return tuple(kept.get(place) or next(others) for place in range(len(zones)))


def adopted_zones(aws: Aws, config: Config) -> tuple[str, ...]:
    """Return the zones of adopted private subnets, in the order of the config."""
    prefix = f"network/{PRIVATE_SUBNET}"
    zones = {id_: key[len(prefix) :] for key, id_ in aws.adopted.items() if key.startswith(prefix)}
    order = config.existing.private_subnets
    if len(zones) < 2 and "eks/cluster" not in aws.adopted:  # a single one joins ours
        return ()
    return tuple(
        zones[each] for each in sorted(zones, key=lambda x: order.index(x) if x in order else 0)
    )


def choose_zones(
    config: Config,
    available: list[str],
    offered: dict[str, frozenset[str]],
    taken: Mapping[str, str],
    plans: Mapping[str, JsonMapping],
    region: str,
    theirs: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Return at least two zones, which EKS requires; raise Usage if they do not fit the groups.

    They are the zones of adopted subnets, else the declared ones, else as many as the groups need:
    first those with existing subnets of ours, then those of groups, then those of training plans.
    """
    wanted = theirs or config.network.availability_zone_ids
    named = dict.fromkeys(zone for g in config.groups for zone in g.availability_zone_ids)
    _check_known("network.availability_zone_ids", wanted, available, region)
    _check_known("instance_groups.availability_zone_ids", named, available, region)
    if theirs:
        _check_subnets(named, theirs)
    _check_types(config, offered, wanted, available, region)
    if wanted:
        return wanted
    planned = [zone for group in config.groups for zone in planned_zones(plans, group)[:1]]
    first = dict.fromkeys(z for z in (*taken, *named, *planned) if z in available)
    zones = _enough(first, _types(config), available, offered)
    return _in_place(zones, taken, config.network.cidr)


def _enough(
    chosen: dict[str, None],
    types: Iterable[str],
    available: list[str],
    offered: Mapping[str, frozenset[str]],
) -> tuple[str, ...]:
    """Add zones until every type is offered in one of them, and there are at least two."""
    fitting = sorted(available, key=lambda zone: (-len(offered.get(zone, ())), zone))
    for kind in types:
        if not any(kind in offered.get(zone, ()) for zone in chosen):
            chosen[next(zone for zone in fitting if kind in offered.get(zone, ()))] = None
    return tuple(dict.fromkeys((*chosen, *fitting)))[: max(2, len(chosen))]


def _check_known(setting: str, zones: Iterable[str], available: list[str], region: str) -> None:
    """Raise Usage for zones that EKS does not support."""
    if unknown := [zone for zone in zones if zone not in available]:
        raise Usage(
            f"{setting}: {', '.join(unknown)} is not a zone of {region} "
            f"that EKS works in; it has {', '.join(available)}",
            "Zone ids (usw2-az1) are not zone names (us-west-2a); see DescribeAvailabilityZones.",
            setting=setting,
        )


def _check_subnets(named: Iterable[str], theirs: tuple[str, ...]) -> None:
    """Raise Usage for groups' zones without an adopted subnet."""
    if bare := ", ".join(zone for zone in named if zone not in theirs):
        raise Usage(
            f"instance_groups: existing.private_subnets has no subnet in {bare}; its"
            f" subnets are in {', '.join(theirs)}",
            f"Add a subnet in {bare}, or choose another zone.",
            setting="instance_groups.availability_zone_ids",
        )


def _types(config: Config) -> dict[str, None]:
    """Return the EC2 instance types of all groups, in order."""
    return dict.fromkeys(
        each.removeprefix("ml.") for group in config.groups for each in group.instance_types
    )


def _check_types(
    config: Config,
    offered: Mapping[str, frozenset[str]],
    wanted: tuple[str, ...],
    available: list[str],
    region: str,
) -> None:
    """Raise Usage for an instance type that no zone of its group offers."""
    for group, each in [(one, each) for one in config.groups for each in one.instance_types]:
        kind = each.removeprefix("ml.")
        if any(
            kind in offered.get(zone, ())
            for zone in group.availability_zone_ids or wanted or available
        ):
            continue
        elsewhere = ", ".join(sorted(zone for zone, kinds in offered.items() if kind in kinds))
        where = ", ".join(group.availability_zone_ids or wanted) or region
        raise Usage(
            f"instance_groups: {each} of {group.name} is not offered in {where}"
            + (f"; {elsewhere} have it" if elsewhere else ""),
            "Choose another zone, instance type or region.",
            setting="instance_groups.instance_type",
        )
