"""Rules across the settings of instance groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config.rules import Finding, get
from hyperpod_eks.documents import Json, JsonMapping

if TYPE_CHECKING:
    from hyperpod_eks.config.yaml import Loc


def groups(data: JsonMapping) -> Iterator[Finding]:
    """What the API reference of CreateCluster says of a group's members together."""
    least, most = model.bounds("sagemaker", "CreateCluster.InstanceGroups")
    names: list[object] = []
    lists = {name: data.get(name) for name in ("instance_groups", "restricted_instance_groups")}
    for name, groups in lists.items():
        if not isinstance(groups, list):
            continue
        others = any(isinstance(each, list) and each for each in lists.values())
        if len(groups) > (most or 0) or (not groups and not others):
            rule = f"{least} to {most}"
            member = name.title().replace("_", "")
            text = f"has {len(groups)} groups (CreateCluster {member} has {rule}); declare {rule}"
            yield Finding((name,), text)
        flexible = name == "instance_groups"
        for index, group in enumerate(groups):
            if isinstance(group, dict):
                yield from _named(group, name, index, names)
                for key, text in _group(data, group, flexible=flexible):
                    at_key = isinstance(group.get(key), dict | list)
                    yield Finding((name, index, key), text, at_key)
    yield from _of_the_cluster(data)


def _named(group: JsonMapping, section: str, index: int, names: list[object]) -> Iterator[Finding]:
    """Names are unique, in both lists together."""
    called = group.get("name")
    if isinstance(called, str) and called in names:
        text = f"{model.show(called)} is the name of an earlier group; choose another"
        yield Finding((section, index, "name"), text)
    names.append(called)


def _of_the_cluster(data: JsonMapping) -> Iterator[Finding]:
    """What holds for the groups of a cluster together."""
    if get(data, "auto_scaling", "mode") == "Enable" and not continuous(data):
        text = "needs node_provisioning_mode: Continuous (CreateCluster AutoScaling)"
        yield Finding(("auto_scaling",), f"{text}; omit the mode for its default")
    share = get(data, "tiered_storage_config", "instance_memory_allocation_percentage")
    if isinstance(share, int) and not 20 <= share <= 100:
        yield Finding(
            ("tiered_storage_config", "instance_memory_allocation_percentage"),
            f"{share} is not a usable share (20 to 100 % of the memory); set 20 to 100",
        )
    shared = "restricted_instance_groups_config"
    for text in _file_system(get(data, shared, "shared_environment_config", "fsx_lustre_config")):
        yield Finding((shared,), text)


MAX_STORAGES = 4
_CRON = re.compile(r"cron\(\S+(?: +\S+){5}\)")
_ACCELERATED = re.compile(r"ml\.(p|g|gr|trn|inf)[0-9]")
# EFA works inside one zone only, and these types are bought for it.
_EFA = re.compile(r"ml\.(p4|p5|p6|trn)")


def continuous(data: JsonMapping) -> bool:
    """Whether nodes come one by one, as they do unless the config says otherwise."""
    return str(data.get("node_provisioning_mode", "Continuous")) == "Continuous"


def _group(data: JsonMapping, group: JsonMapping, *, flexible: bool) -> Iterator[tuple[str, str]]:
    """Yield the setting and the text of what a group's settings do wrong together."""
    one, several = group.get("instance_type"), group.get("instance_requirements")
    if flexible and one is None and several is None:
        yield "instance_type", "is missing (each has one, or instance_requirements); write it"
    if one is not None and several is not None:
        text = "cannot be set together with instance_type (CreateCluster takes one of them)"
        yield "instance_requirements", f"{text}; remove one"
    yield from _counts(data, group)
    yield from _volumes(data, group)
    listed = get(several, "instance_types")
    types = [one, *(listed if isinstance(listed, list) else ())]
    yield from _deep_checks(group, types)
    yield from _plan(group)
    yield from _group_zones(data, group, types)
    for text in _file_system(get(group, "environment_config", "fsx_lustre_config")):
        yield "environment_config", text
    yield from _capacity_and_schedule(group)


def _capacity_and_schedule(group: JsonMapping) -> Iterator[tuple[str, str]]:
    kinds = group.get("capacity_requirements")
    if isinstance(kinds, dict) and len(kinds) != 1:
        text = "is neither spot nor on_demand alone (CreateCluster CapacityRequirements)"
        yield "capacity_requirements", f"{text}; set one of them"
    cron = get(group, "scheduled_update_config", "schedule_expression")
    if isinstance(cron, str) and not _CRON.fullmatch(cron):
        text = f"{model.show(cron)} is not a cron expression of six fields"
        rule = "CreateCluster ScheduleExpression"
        yield "scheduled_update_config", f"{text} ({rule}); choose one like cron(0 3 ? * SUN *)"


def _counts(data: JsonMapping, group: JsonMapping) -> Iterator[tuple[str, str]]:
    """How many nodes there are, and what only Continuous allows."""
    several, spot = group.get("instance_requirements"), _is_spot(group)
    least, count = group.get("min_instance_count"), group.get("instance_count")
    if isinstance(least, int) and isinstance(count, int) and least > count:
        text = f"{least} is more than instance_count, {count} (CreateCluster MinInstanceCount)"
        yield "min_instance_count", f"{text}; set at most {count}"
    if not continuous(data):
        for key, used in (
            ("instance_requirements", several is not None),
            ("min_instance_count", least is not None),
            ("capacity_requirements", spot),
            ("instance_count", count == 0),
        ):
            if used:
                value = "0 nodes" if key == "instance_count" else "this"
                text = f"{value} needs node_provisioning_mode: Continuous (CreateCluster)"
                yield key, f"{text}; set that, or change it"


def _is_spot(group: JsonMapping) -> bool:
    return isinstance(get(group, "capacity_requirements", "spot"), dict)


def _deep_checks(group: JsonMapping, types: Sequence[object]) -> Iterator[tuple[str, str]]:
    """They test accelerators, and taint nodes themselves."""
    if group.get("on_start_deep_health_checks"):
        plain = [t for t in types if isinstance(t, str) and not _ACCELERATED.match(t)]
        if plain:
            text = f"are not supported on {plain[0]} (they test accelerators)"
            yield "on_start_deep_health_checks", f"{text}; remove them from this group"
        if get(group, "kubernetes_config", "taints"):
            text = "cannot be combined with taints in kubernetes_config (HyperPod sets the taints)"
            yield "on_start_deep_health_checks", f"{text}; remove one of them"


def _plan(group: JsonMapping) -> Iterator[tuple[str, str]]:
    """A training plan is capacity of one type, already bought."""
    several, spot = group.get("instance_requirements"), _is_spot(group)
    if group.get("training_plan_arn") and several is not None:
        text = (
            "cannot be set together with instance_requirements (a training plan has one instance"
            " type)"
        )
        yield "training_plan_arn", f"{text}; set that type as instance_type"
    if group.get("training_plan_arn") and spot:
        text = "cannot be set together with Spot capacity (a training plan is prepaid)"
        yield "training_plan_arn", f"{text}; remove one"


def _file_system(lustre: object) -> Iterator[str]:
    size, speed = (get(lustre, name) for name in ("size_in_gib", "per_unit_storage_throughput"))
    if isinstance(size, int) and size >= 1200 and size != 1200 and size % 2400:
        text = f"has {size} GiB (FSx for Lustre has 1200, 2400 and multiples of 2400)"
        yield f"{text}; set {size // 2400 * 2400 + 2400}"
    if isinstance(speed, int) and speed not in (125, 250, 500, 1000):
        text = f"has a throughput of {speed} (FSx for Lustre has 125, 250, 500 and 1000)"
        yield f"{text}; set one of them"


def _volumes(data: JsonMapping, group: JsonMapping) -> Iterator[tuple[str, str]]:
    """What is written of volumes, with the extra one that each node gets by default."""
    storages = group.get("instance_storage_configs")
    if not isinstance(storages, list):
        return
    name, key = "instance_storage_configs", get(data, "encryption", "volumes")
    volumes = [
        get(one, "ebs_volume_config") for one in storages if isinstance(one, dict) and len(one) == 1
    ]
    volumes = [volume for volume in volumes if isinstance(volume, dict)]
    roots = [volume for volume in volumes if volume.get("root_volume") is True]
    for text in _root_volumes(roots, key):
        yield name, text
    if any(not ({"volume_size_in_gb", "root_volume"} & volume.keys()) for volume in volumes):
        text = "has an EBS volume without a size (volume_size_in_gb is 1 to 16384)"
        yield name, f"{text}; set it, or root_volume: true"
    extra = group.get("ebs_volume_size_in_gb", 500)
    if len(storages) == MAX_STORAGES and extra and len(roots) == len(volumes):
        text = (
            f"use all {MAX_STORAGES} volume slots, and each node needs one for its default extra"
            " volume"
        )
        rule = "CreateCluster InstanceStorageConfigs"
        yield name, f"{text} ({rule}); remove one, or set ebs_volume_size_in_gb: null"


def _root_volumes(roots: Sequence[JsonMapping], key: object) -> Iterator[str]:
    """A node has one root volume, which can be encrypted with a key, and nothing else."""
    for volume in roots:
        if "volume_size_in_gb" in volume or not (volume.get("volume_kms_key_id") or key):
            text = "has a root volume with a size or without volume_kms_key_id"
            rule = "the root volume can be encrypted with your key, and nothing else"
            yield f"{text} ({rule}); set the key alone"
    if len(roots) > 1:
        yield f"has {len(roots)} root volumes (a node has one); keep one"


def _group_zones(
    data: JsonMapping, group: JsonMapping, types: list[Json]
) -> Iterator[tuple[str, str]]:
    zones, known = group.get("availability_zone_ids"), get(data, "network", "availability_zone_ids")
    if not isinstance(zones, list) or not zones:
        return
    outside = [zone for zone in zones if isinstance(known, list) and known and zone not in known]
    if outside:
        text = f"{outside[0]} is not in network.availability_zone_ids (it has no subnet)"
        yield "availability_zone_ids", f"{text}; add it there, or choose {known[0]}"
    if twice := [zone for index, zone in enumerate(zones) if zone in zones[:index]]:
        yield "availability_zone_ids", f"lists {twice[0]} twice; keep one"
    elif len(zones) > 1 and any(isinstance(t, str) and _EFA.match(t) for t in types):
        text = f"names {len(zones)} zones (EFA works within one zone)"
        yield "availability_zone_ids", f"{text}; declare a group for each"


def twice(data: JsonMapping, loc: Loc, key: str, says: str) -> Iterator[Finding]:
    """Find entries of a list that have the same value of a key."""
    entries, seen = get(data, *map(str, loc)), set()
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        value = get(entry, key)
        if isinstance(value, str) and value in seen:
            yield Finding((*loc, index, key), f"{model.show(value)} {says}; keep one")
        if isinstance(value, str):
            seen.add(value)
