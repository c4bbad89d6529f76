"""Rules across the settings of instance groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config.rules import Finding, get
from hyperpod_eks.documents import JsonMapping

if TYPE_CHECKING:
    from hyperpod_eks.config.groups import Group, InstanceGroup, RestrictedInstanceGroup
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.config.yaml import Loc

    Faults = Iterator[tuple[str, str]]  # settings of a group, with their faults

MAX_STORAGES = 4
_CRON = re.compile(r"cron\(\S+(?: +\S+){5}\)")
ACCELERATED = re.compile(r"ml\.(p|g|gr|trn|inf)[0-9]")
"""Instance types with accelerators, which alone take deep health checks."""
# Types that are used with EFA, which works within one zone only.
_EFA = re.compile(r"ml\.(p4|p5|p6|trn)")


def groups(config: Config) -> Iterator[Finding]:
    """The rules of the API reference (CreateCluster) across members of a group."""
    least, most = model.bounds("sagemaker", "CreateCluster.InstanceGroups")
    sections = {
        "instance_groups": config.instance_groups,
        "restricted_instance_groups": config.restricted_instance_groups,
    }
    for section, listed in sections.items():
        if len(listed) > (most or 0) or (section == "instance_groups" and not config.groups):
            rule, member = f"{least} to {most}", section.title().replace("_", "")
            text = f"has {len(listed)} groups (CreateCluster {member} has {rule}); declare {rule}"
            yield Finding((section,), text)
    checked: list[tuple[Loc, Group, Faults]] = [
        (("instance_groups", index), group, _flexible(config, group))
        for index, group in enumerate(config.instance_groups)
    ]
    checked += [
        (("restricted_instance_groups", index), group, _restricted(config, group))
        for index, group in enumerate(config.restricted_instance_groups)
    ]
    names: set[str] = set()
    for loc, group, faults in checked:
        if group.name in names:
            text = f"{model.show(group.name)} is the name of an earlier group; choose another"
            yield Finding((*loc, "name"), text)
        names.add(group.name)
        for key, text in faults:
            at_key = isinstance(getattr(group, key), Mapping | tuple)
            yield Finding((*loc, key), text, at_key)
    yield from _of_the_cluster(config)


def _of_the_cluster(config: Config) -> Iterator[Finding]:
    """The rules across all groups of a cluster."""
    if config.scales_itself and not _is_continuous(config):
        text = "needs node_provisioning_mode: Continuous (CreateCluster AutoScaling)"
        yield Finding(("auto_scaling",), f"{text}; omit the mode for its default")
    share = get(config.tiered_storage_config, "instance_memory_allocation_percentage")
    if isinstance(share, int) and not 20 <= share <= 100:
        yield Finding(
            ("tiered_storage_config", "instance_memory_allocation_percentage"),
            f"{share} is not a usable share (20 to 100 % of the memory); set 20 to 100",
        )
    shared = get(config.restricted_instance_groups_config, "shared_environment_config")
    for text in _file_system(get(shared, "fsx_lustre_config")):
        yield Finding(("restricted_instance_groups_config",), text)


def _is_continuous(config: Config) -> bool:
    return config.node_provisioning_mode == "Continuous"


def _flexible(config: Config, group: InstanceGroup) -> Faults:
    one, several = group.instance_type, group.instance_requirements
    if one is None and several is None:
        yield "instance_type", "is missing (each has one, or instance_requirements); write it"
    if one is not None and several is not None:
        text = "cannot be set together with instance_type (CreateCluster takes one of them)"
        yield "instance_requirements", f"{text}; remove one"
    yield from _counts(config, group)
    listed = get(several, "instance_types")
    types = [one, *(listed if isinstance(listed, list) else ())]
    yield from _any_group(config, group, [each for each in types if isinstance(each, str) and each])
    if group.on_start_deep_health_checks and get(group.kubernetes_config, "taints"):
        text = "cannot be combined with taints in kubernetes_config (HyperPod sets the taints)"
        yield "on_start_deep_health_checks", f"{text}; remove one of them"
    if group.training_plan_arn and several is not None:
        text = (
            "cannot be set together with instance_requirements (a training plan has one instance"
            " type)"
        )
        yield "training_plan_arn", f"{text}; set that type as instance_type"
    if group.training_plan_arn and _is_spot(group):
        text = "cannot be set together with Spot capacity (a training plan is prepaid)"
        yield "training_plan_arn", f"{text}; remove one"
    if group.capacity_requirements is not None and len(group.capacity_requirements) != 1:
        text = "is neither spot nor on_demand alone (CreateCluster CapacityRequirements)"
        yield "capacity_requirements", f"{text}; set one of them"


def _restricted(config: Config, group: RestrictedInstanceGroup) -> Faults:
    yield from _any_group(config, group, list(filter(None, [group.instance_type])))
    for text in _file_system(get(group.environment_config, "fsx_lustre_config")):
        yield "environment_config", text


def _any_group(config: Config, group: Group, types: Sequence[str]) -> Faults:
    yield from _volumes(config, group)
    if group.instance_count == 0 and not _is_continuous(config):
        text = "0 nodes needs node_provisioning_mode: Continuous (CreateCluster)"
        yield "instance_count", f"{text}; set that, or change it"
    plain = [each for each in types if not ACCELERATED.match(each)]
    if group.on_start_deep_health_checks and plain:
        text = f"are not supported on {plain[0]} (they test accelerators)"
        yield "on_start_deep_health_checks", f"{text}; remove them from this group"
    yield from _zones(config, group, types)
    cron = get(group.scheduled_update_config, "schedule_expression")
    if isinstance(cron, str) and not _CRON.fullmatch(cron):
        text = f"{model.show(cron)} is not a cron expression of six fields"
        rule = "CreateCluster ScheduleExpression"
        yield "scheduled_update_config", f"{text} ({rule}); choose one like cron(0 3 ? * SUN *)"


def _counts(config: Config, group: InstanceGroup) -> Faults:
    """The minimum number of nodes, and what only Continuous allows."""
    least, count = group.min_instance_count, group.instance_count
    if least is not None and least > count:
        text = f"{least} is more than instance_count, {count} (CreateCluster MinInstanceCount)"
        yield "min_instance_count", f"{text}; set at most {count}"
    if not _is_continuous(config):
        for key, used in (
            ("instance_requirements", group.instance_requirements is not None),
            ("min_instance_count", least is not None),
            ("capacity_requirements", _is_spot(group)),
        ):
            if used:
                text = "this needs node_provisioning_mode: Continuous (CreateCluster)"
                yield key, f"{text}; set that, or change it"


def _is_spot(group: InstanceGroup) -> bool:
    return isinstance(get(group.capacity_requirements, "spot"), dict)


def _file_system(lustre: object) -> Iterator[str]:
    size, speed = (get(lustre, name) for name in ("size_in_gib", "per_unit_storage_throughput"))
    if isinstance(size, int) and size >= 1200 and size != 1200 and size % 2400:
        text = f"has {size} GiB (FSx for Lustre has 1200, 2400 and multiples of 2400)"
        yield f"{text}; set {size // 2400 * 2400 + 2400}"
    if isinstance(speed, int) and speed not in (125, 250, 500, 1000):
        text = f"has a throughput of {speed} (FSx for Lustre has 125, 250, 500 and 1000)"
        yield f"{text}; set one of them"


def _volumes(config: Config, group: Group) -> Faults:
    """The declared volumes, with the extra one that each node has by default."""
    name, storages = "instance_storage_configs", group.instance_storage_configs
    found = [get(one, "ebs_volume_config") for one in storages if len(one) == 1]
    volumes = [volume for volume in found if isinstance(volume, dict)]
    roots = [volume for volume in volumes if volume.get("root_volume") is True]
    for text in _root_volumes(roots, config.encryption.volumes):
        yield name, text
    if any(not ({"volume_size_in_gb", "root_volume"} & volume.keys()) for volume in volumes):
        text = "has an EBS volume without a size (volume_size_in_gb is 1 to 16384)"
        yield name, f"{text}; set it, or root_volume: true"
    extra = group.ebs_volume_size_in_gb and len(roots) == len(volumes)
    if len(storages) == MAX_STORAGES and extra:
        text = (
            f"use all {MAX_STORAGES} volume slots, and each node needs one for its default extra"
            " volume"
        )
        rule = "CreateCluster InstanceStorageConfigs"
        yield name, f"{text} ({rule}); remove one, or set ebs_volume_size_in_gb: null"


def _root_volumes(roots: Sequence[JsonMapping], key: str | None) -> Iterator[str]:
    """A node has one root volume; only its encryption key can be set."""
    for volume in roots:
        keyed = volume.get("volume_kms_key_id") or key is not None
        if "volume_size_in_gb" in volume or not keyed:
            text = "has a root volume with a size or without volume_kms_key_id"
            rule = "the root volume can be encrypted with your key, and nothing else"
            yield f"{text} ({rule}); set the key alone"
    if len(roots) > 1:
        yield f"has {len(roots)} root volumes (a node has one); keep one"


def _zones(config: Config, group: Group, types: Sequence[str]) -> Faults:
    zones, known = group.availability_zone_ids, config.network.availability_zone_ids
    outside = [zone for zone in zones if zone and zone not in known]
    if outside and known and all(known):
        text = f"{outside[0]} is not in network.availability_zone_ids (it has no subnet)"
        yield "availability_zone_ids", f"{text}; add it there, or choose {known[0]}"
    if twice := [zone for index, zone in enumerate(zones) if zone and zone in zones[:index]]:
        yield "availability_zone_ids", f"lists {twice[0]} twice; keep one"
    elif len(zones) > 1 and any(map(_EFA.match, types)):
        text = f"names {len(zones)} zones (EFA works within one zone)"
        yield "availability_zone_ids", f"{text}; declare a group for each"
