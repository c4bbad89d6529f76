"""Rules that need more than a pattern: single values, values together, and what is worth a word."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from hyperpod_eks.aws import published as versions
from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config.addressing import ADDRESSES, cidr_fault, reserved, subnets
from hyperpod_eks.config.lifecycle import check_lifecycle
from hyperpod_eks.config.rules import Finding

if TYPE_CHECKING:
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.config.yaml import Loc

__all__ = [
    "across", "block_fault", "cidr_fault", "get", "idle", "kubernetes_group_fault", "locked_out",
    "principal_fault",
    "region_fault", "retention_fault", "tag_fault", "warnings",
]  # fmt: skip

_PRINCIPAL_CONDITION = re.compile("(?i)aws:(principal|resource(account|org)|userid|username)")


def region_fault(region: str) -> str:
    """Refuse what is no region, and regions of partitions in which AWS offers no HyperPod."""
    if fault := model.region_fault(region):
        return fault
    partition = model.partition(region)
    if partition in versions.HYPERPOD_PARTITIONS:
        return ""
    return (
        f"is in the partition {partition}, where AWS does not offer HyperPod"
        f" ({versions.REGIONS_READ:%B %Y}); give a region like us-west-2"
    )


_PRINCIPAL = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[\w+=,.@/-]{1,512}", re.ASCII)


def principal_fault(arn: str) -> str:
    """Refuse what EKS does not take for a principal. The source is CreateAccessEntry."""
    fix = "give arn:aws:iam::<account>:role/<path><name>, as `aws iam get-role` prints it"
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
        return "is not an IPv4 block (address/length); give one like 10.0.0.0/16"
    return "" if str(block) == cidr else f"is not where such a block begins; give {block}"


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
    yield from _pods(data)
    yield from _zones(data)
    yield from _groups(data)
    yield from _twice(data, ("eks", "access"), "principal_arn", "has an entry already")
    yield from _access(data)
    yield from _places(data)
    yield from _kubernetes(data)
    yield from _cni(data)
    yield from _network(data)
    yield from _theirs(data)


_MULTI_NODE = "MultiNodeTrainingValidation"


def warnings(config: Config) -> list[str]:
    """Return what is allowed but probably not meant, one sentence each."""
    found = []
    if config.region not in versions.HYPERPOD_REGIONS:
        found.append(
            f"region: {config.region} is not among the regions that AWS listed for HyperPod in"
            f" {versions.REGIONS_READ:%B %Y}"
        )
    newest = versions.SUPPORTED_KUBERNETES[-1]
    if (version := config.eks.version) and versions.order(version) > versions.order(newest):
        how = (
            "it was allowed nevertheless"
            if config.eks.allow_untested_version
            else "create refuses it without eks.allow_untested_version: true"
        )
        found.append(
            f"eks.version: {version} is newer than {newest}, the newest that AWS listed for"
            f" HyperPod in {versions.KUBERNETES_READ:%B %Y}; {how}"
        )
    zones = config.network.availability_zone_ids or ("first", "second")
    blocks = config.network.secondary_cidrs or (subnets(config.network.cidr, zones)[0].private,)
    block = ipaddress.IPv4Network(blocks[0])
    room = block.num_addresses - 5  # AWS keeps five in every subnet
    for group in config.groups if not config.existing.private_subnets else ():
        kind = next(iter(group.instance_types), "")
        each = next((n for part, n in ADDRESSES if kind.startswith(part)), 0)
        if group.instance_count * each > room:
            found.append(
                f"network.cidr: {group.instance_count} {kind} of {group.name} take"
                f" about {group.instance_count * each} addresses ({each} each), and a private"
                f" subnet of {config.network.cidr} has {room}"
            )
    with_nodes = [group for group in config.groups if group.instance_count]
    if with_nodes and all(_MULTI_NODE in group.on_start_deep_health_checks for group in with_nodes):
        found.append(
            f"instance_groups: every group with nodes has the deep health check {_MULTI_NODE}. Its"
            " operator has no node to run on while all nodes are checked, so the check may never"
            " start: add a group without it, or remove it"
        )
    if 0 < (pods := _room_for_pods(config.groups)) < versions.PODS_WANTED:
        found.append(
            f"instance_groups: the nodes have room for about {pods} pods in all (HyperPod gives a"
            f" node one network interface), and the chart and the add-ons alone run about"
            f" {versions.PODS_WANTED}: use more or larger nodes"
        )
    network = config.network
    if network.endpoint_policy is not None and (
        shut := locked_out(network.endpoint_policy, config.region)
    ):
        found.append(
            f"network.endpoint_policy: it denies nodes {', '.join(shut)}, which are requested by"
            " AWS's own accounts: add a statement for those buckets without a condition on the"
            " principal (examples/closed-network.yaml)"
        )
    if (
        network.nat == "none"
        and not config.existing.private_subnets
        and not _names_image(config.chart.values)
    ):
        found.append(
            "network.nat: without NAT nodes cannot pull the chart's public images (nvcr.io,"
            " docker.io, public.ecr.aws), and chart.values sets no others: mirror them to ECR and"
            " set them in chart.values, or their pods stay in ImagePullBackOff"
        )
    return found + check_lifecycle(config.lifecycle.path, config.lifecycle.on_create)[1]


def _inner(value: object) -> list[Any]:
    """Return the values of a mapping; none of anything else."""
    return list(value.values()) if isinstance(value, dict) else []


def locked_out(policy: Mapping[str, Any], region: str) -> list[str]:
    """Name what nodes need of AWS's own buckets and an endpoint policy does not let through.

    Image layers come by URLs that ECR has signed, packages by anonymous requests: a condition about
    the principal or the resource's account denies both (S3 and ECR User Guides, VPC endpoints).
    """
    statements = policy.get("Statement", [])
    through = [
        each
        for each in (statements if isinstance(statements, list) else [statements])
        if isinstance(each, dict)
        and each.get("Effect") == "Allow"
        and each.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
        and _fits("s3:GetObject", each.get("Action"))
        and not any(
            _PRINCIPAL_CONDITION.match(key)
            for comparisons in _inner(each.get("Condition"))
            for key in (comparisons if isinstance(comparisons, dict) else {})
        )
    ]
    return [
        what
        for what, bucket in versions.BUCKETS_OF_AWS
        if not any(
            _fits(f"arn:aws:s3:::{bucket.format(region=region)}/x", each.get("Resource"))
            for each in through
        )
    ]


def _fits(text: str, patterns: object) -> bool:
    listed = patterns if isinstance(patterns, list) else [patterns]
    return any(isinstance(p, str) and fnmatchcase(text, p.replace("[", "[[]")) for p in listed)


def _names_image(values: object) -> bool:
    """Whether chart values name an image or a registry anywhere."""
    if isinstance(values, list):
        return any(map(_names_image, values))
    return isinstance(values, dict) and any(
        re.search("(?i)image$|registry|repository", str(key)) or _names_image(value)
        for key, value in values.items()
    )


def _room_for_pods(groups: Iterable[Any]) -> int:
    """Add up how many pods fit on the nodes; 0 for no nodes, or types with room for many."""
    rooms = [
        (versions.pods(next(iter(group.instance_types), "")), group.instance_count)
        for group in groups
        if group.instance_count
    ]
    return sum((room or 0) * count for room, count in rooms) if all(r for r, _ in rooms) else 0


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
    if f"{name}-".lower().startswith("sg-"):  # CreateSecurityGroup, GroupName
        text = 'is "sg" or begins with "sg-" (EC2 takes no such name of a security group)'
        yield Finding(("name",), f"{model.show(name)} {text}; choose another")
    why = f"the lifecycle bucket will be sagemaker-{name}-<account>-{region}"
    room = 63 - len(f"sagemaker--111122223333-{region}")
    if len(name) > room:
        text = f"has {len(name)} characters ({why}, and S3 takes 63); give at most {room}"
    elif name != name.lower():
        text = f'has capitals ({why}, and S3 takes small letters only); use "{name.lower()}"'
    else:
        return
    yield Finding(("name",), f"{model.show(name)} {text}")


def _pods(data: Mapping[str, Any]) -> Iterator[Finding]:
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
            f"have room for {total} pods in all (one network interface per node; the cluster's own"
            f" pods need {versions.PODS_LEAST} or more); use more or larger nodes"
        )
        yield Finding(("instance_groups",), text, True)


def _elsewhere(zone: object, region: object) -> str:
    """Return the region of a zone id, if it is another of HyperPod's; else nothing."""
    known = {versions.zone_prefix(each): each for each in versions.HYPERPOD_REGIONS}
    place = known.get(str(zone).partition("-")[0], "")
    return place if region in versions.HYPERPOD_REGIONS and place != region else ""


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
        place = _elsewhere(zone, data.get("region"))
        if place:
            text = f"{model.show(zone)} is a zone of {place}, not of {data['region']}"
            yield Finding((*loc, index), f"{text}; name zones of {data['region']}")
    if cidr is None or (isinstance(cidr, str) and not cidr_fault(cidr)):
        try:
            subnets(cidr or "10.0.0.0/16", tuple(map(str, zones)))
        except ValueError as error:
            yield Finding(("network", "cidr"), str(error))


def _groups(data: Mapping[str, Any]) -> Iterator[Finding]:
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
            text = f"has {len(groups)} groups (CreateCluster {member} has {rule}); give {rule}"
            yield Finding((name,), text)
        for index, group in enumerate(groups):
            if not isinstance(group, dict):
                continue
            called = group.get("name")
            if isinstance(called, str) and called in names:
                text = f"{model.show(called)} is the name of an earlier group; give each once"
                yield Finding((name, index, "name"), text)
            names.append(called)
            for key, text in _group(data, group, flexible=name == "instance_groups"):
                at_key = isinstance(group.get(key), dict | list)
                yield Finding((name, index, key), text, at_key)
    if get(data, "auto_scaling", "mode") == "Enable" and not _continuous(data):
        text = "needs node_provisioning_mode: Continuous (CreateCluster AutoScaling)"
        yield Finding(("auto_scaling",), f"{text}; leave the mode as it is by default")
    share = get(data, "tiered_storage_config", "instance_memory_allocation_percentage")
    if isinstance(share, int) and not 20 <= share <= 100:
        yield Finding(
            ("tiered_storage_config", "instance_memory_allocation_percentage"),
            f"{share} is not a usable share (20 to 100 % of the memory); give 20 to 100",
        )
    shared = "restricted_instance_groups_config"
    for text in _file_system(get(data, shared, "shared_environment_config", "fsx_lustre_config")):
        yield Finding((shared,), text)


MAX_STORAGES = 4
_CRON = re.compile(r"cron\(\S+(?: +\S+){5}\)")
_ACCELERATED = re.compile(r"ml\.(p|g|gr|trn|inf)[0-9]")
# EFA works inside one zone only, and these types are bought for it.
_EFA = re.compile(r"ml\.(p4|p5|p6|trn)")


def _continuous(data: Mapping[str, Any]) -> bool:
    return str(data.get("node_provisioning_mode", "Continuous")) == "Continuous"


def _group(
    data: Mapping[str, Any], group: Mapping[str, Any], *, flexible: bool
) -> Iterator[tuple[str, str]]:
    """Yield the setting and the text of what a group's settings do wrong together."""
    one, several = group.get("instance_type"), group.get("instance_requirements")
    if flexible and one is None and several is None:
        yield "instance_type", "is missing (each has one, or instance_requirements); write it"
    if one is not None and several is not None:
        text = "is given beside instance_type (CreateCluster takes one of them)"
        yield "instance_requirements", f"{text}; remove one"
    least, count = group.get("min_instance_count"), group.get("instance_count")
    if isinstance(least, int) and isinstance(count, int) and least > count:
        text = f"{least} is more than instance_count, {count} (CreateCluster MinInstanceCount)"
        yield "min_instance_count", f"{text}; give at most {count}"
    spot = isinstance(get(group, "capacity_requirements", "spot"), dict)
    if not _continuous(data):
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
    yield from _volumes(data, group)
    listed = get(several, "instance_types")
    types = [one, *(listed if isinstance(listed, list) else ())]
    if group.get("on_start_deep_health_checks"):
        plain = [t for t in types if isinstance(t, str) and not _ACCELERATED.match(t)]
        if plain:
            text = f"do not fit {plain[0]} (they test accelerators)"
            yield "on_start_deep_health_checks", f"{text}; leave them out for this group"
        if get(group, "kubernetes_config", "taints"):
            text = "do not go with taints in kubernetes_config (HyperPod taints the nodes itself)"
            yield "on_start_deep_health_checks", f"{text}; leave one of them out"
    if group.get("training_plan_arn") and several is not None:
        text = "is given beside instance_requirements (a plan holds one type)"
        yield "training_plan_arn", f"{text}; name that as instance_type"
    if group.get("training_plan_arn") and spot:
        text = "is given beside Spot capacity (a plan is capacity already bought)"
        yield "training_plan_arn", f"{text}; remove one"
    yield from _group_zones(data, group, types)
    for text in _file_system(get(group, "environment_config", "fsx_lustre_config")):
        yield "environment_config", text
    kinds = group.get("capacity_requirements")
    if isinstance(kinds, dict) and len(kinds) != 1:
        text = "is neither spot nor on_demand alone (CreateCluster CapacityRequirements)"
        yield "capacity_requirements", f"{text}; give one of them"
    cron = get(group, "scheduled_update_config", "schedule_expression")
    if isinstance(cron, str) and not _CRON.fullmatch(cron):
        text = f"{model.show(cron)} is not a cron expression of six fields"
        rule = "CreateCluster ScheduleExpression"
        yield "scheduled_update_config", f"{text} ({rule}); give one like cron(0 3 ? * SUN *)"


def _file_system(lustre: object) -> Iterator[str]:
    size, speed = (get(lustre, name) for name in ("size_in_gib", "per_unit_storage_throughput"))
    if isinstance(size, int) and size >= 1200 and size != 1200 and size % 2400:
        text = f"has {size} GiB (FSx for Lustre has 1200, 2400 and multiples of 2400)"
        yield f"{text}; give {size // 2400 * 2400 + 2400}"
    if isinstance(speed, int) and speed not in (125, 250, 500, 1000):
        text = f"has a throughput of {speed} (FSx for Lustre has 125, 250, 500 and 1000)"
        yield f"{text}; give one of them"


def _volumes(data: Mapping[str, Any], group: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
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
    for volume in roots:
        if "volume_size_in_gb" in volume or not (volume.get("volume_kms_key_id") or key):
            text = "has a root volume with a size or without volume_kms_key_id"
            rule = "the root volume can be encrypted with your key, and nothing else"
            yield name, f"{text} ({rule}); give the key alone"
    if len(roots) > 1:
        yield name, f"has {len(roots)} root volumes (a node has one); name it once"
    if any(not ({"volume_size_in_gb", "root_volume"} & volume.keys()) for volume in volumes):
        text = "has an EBS volume without a size (volume_size_in_gb is 1 to 16384)"
        yield name, f"{text}; give it, or root_volume: true"
    extra = group.get("ebs_volume_size_in_gb", 500)
    if len(storages) == MAX_STORAGES and extra and len(roots) == len(volumes):
        text = f"fill all {MAX_STORAGES} places, and each node has an extra volume besides"
        rule = "CreateCluster InstanceStorageConfigs"
        yield name, f"{text} ({rule}); remove one, or say ebs_volume_size_in_gb: null"


def _group_zones(
    data: Mapping[str, Any], group: Mapping[str, Any], types: list[Any]
) -> Iterator[tuple[str, str]]:
    zones, known = group.get("availability_zone_ids"), get(data, "network", "availability_zone_ids")
    if not isinstance(zones, list) or not zones:
        return
    outside = [zone for zone in zones if isinstance(known, list) and known and zone not in known]
    if outside:
        text = f"{outside[0]} is not in network.availability_zone_ids (it has no subnet)"
        yield "availability_zone_ids", f"{text}; add it there, or choose {known[0]}"
    if twice := [zone for index, zone in enumerate(zones) if zone in zones[:index]]:
        yield "availability_zone_ids", f"names {twice[0]} twice; name it once"
    elif len(zones) > 1 and any(isinstance(t, str) and _EFA.match(t) for t in types):
        text = f"names {len(zones)} zones (EFA does not cross zones)"
        yield "availability_zone_ids", f"{text}; make a group for each"


def _twice(data: Mapping[str, Any], loc: Loc, key: str, says: str) -> Iterator[Finding]:
    entries, seen = get(data, *map(str, loc)), set()
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        value = get(entry, key)
        if isinstance(value, str) and value in seen:
            yield Finding((*loc, index, key), f"{model.show(value)} {says}; give each once")
        if isinstance(value, str):
            seen.add(value)


def _access(data: Mapping[str, Any]) -> Iterator[Finding]:
    """An entry without a policy works through its groups alone, which know no namespaces here."""
    entries = get(data, "eks", "access")
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, dict) or entry.get("policy", "") is not None:
            continue
        loc = ("eks", "access", index, "policy")
        if entry.get("namespaces"):
            text = "is null beside namespaces (they say where a policy counts)"
            yield Finding(loc, f"{text}; name the policy, or leave the namespaces out")
        if not entry.get("kubernetes_groups"):
            text = "is null without kubernetes_groups (the entry would allow nothing)"
            yield Finding(loc, f"{text}; name one of them")


def _places(data: Mapping[str, Any]) -> Iterator[Finding]:
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
            yield Finding(loc, f"{model.show(arn)} is not in {region}; name one that is")


def _network(data: Mapping[str, Any]) -> Iterator[Finding]:
    network, existing = get(data, "network"), get(data, "existing")
    zones, more = get(network, "availability_zone_ids"), get(network, "secondary_cidrs")
    if isinstance(more, list) and isinstance(zones, list) and more and len(more) != len(zones):
        yield Finding(
            ("network", "secondary_cidrs"),
            f"has {len(more)} blocks for {len(zones)} zones (one for each); give {len(zones)}",
        )
    if isinstance(more, list) and more and not zones:
        text = "needs network.availability_zone_ids (one block for each zone, in order)"
        yield Finding(("network", "secondary_cidrs"), f"{text}; name the zones")
    yield from _blocks(get(network, "cidr") or "10.0.0.0/16", more)
    if isinstance(network, dict) and network.get("nat") == "none" and not _closed(network):
        text = '"none" leaves the nodes no way to AWS without interface_endpoints'
        yield Finding(("network", "nat"), f"{text}; leave those out for the full set")
    eks = get(data, "eks")
    if (
        isinstance(eks, dict)
        and eks.get("endpoint_public_access") is False
        and (eks.get("endpoint_private_access") is False)
    ):
        text = "is false beside endpoint_public_access (nobody would reach the API)"
        yield Finding(("eks", "endpoint_private_access"), f"{text}; leave one of them true")
    if get(eks, "public_access_cidrs") == [] and get(eks, "endpoint_public_access") is not False:
        text = "is empty (EKS then opens the API to all, 0.0.0.0/0)"
        fix = "name blocks, or say endpoint_public_access: false"
        yield Finding(("eks", "public_access_cidrs"), f"{text}; {fix}")
    for key, needs in (
        ("private_subnets", "vpc"),
        ("nat_gateways", "vpc"),
        ("route_tables", "vpc"),
        ("s3_endpoint", "vpc"),
        ("security_group", "vpc"),
    ):
        if get(existing, key) and not get(existing, needs) and not get(existing, "eks_cluster"):
            text = "is given without existing.vpc (they belong together); name the VPC too"
            yield Finding(("existing", key), text)


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
            yield Finding(where, f"{model.show(each)} {text}; give one like 10.1.0.0/16")
        taken.append(each)


def _theirs(data: Mapping[str, Any]) -> Iterator[Finding]:
    """What is somebody's is not changed: settings that would have to are refused."""
    for given, names in (
        ("private_subnets", ("secondary_cidrs", "subnet_tags")),
        ("security_group", ("security_groups", "storage_ports")),
    ):
        keys = [key for key in (given, "eks_cluster") if get(data, "existing", key)]
        for name in names if keys else ():
            if get(data, "network", name) not in (None, False, [], {}, "shared"):
                text = f"is given beside existing.{keys[0]} (what you have stays as it is)"
                yield Finding(("network", name), f"{text}; leave one of them out", True)


def idle(config: Config) -> Iterator[Finding]:
    """Yield what is set and does nothing, because the thing that it is about is somebody's."""
    for given, section, names in (
        (
            "eks_cluster",
            "eks",
            (
                "version", "support_type", "log_types", "log_retention_days",
                "endpoint_public_access", "endpoint_private_access", "public_access_cidrs",
            ),
        ),
        ("eks_cluster", "encryption", ("eks_secrets", "logs")),
        ("eks_cluster", "network", ("availability_zone_ids", "nat")),
        ("eks_cluster", "existing", ("cluster_role", "nat_gateways")),
        ("private_subnets", "network", ("availability_zone_ids", "nat")),
        ("private_subnets", "existing", ("nat_gateways",)),
    ):  # fmt: skip
        here = getattr(config, section)
        for name in names if getattr(config.existing, given) else ():
            if getattr(here, name) != type(here).model_fields[name].default:
                text = f"is given beside existing.{given} (what you have stays as it is)"
                yield Finding((section, name), f"{text}; leave one of them out", True)
    theirs = config.existing
    if theirs.nat_gateways and config.network.nat == "none" and not theirs.private_subnets:
        text = '"none" leaves no use for existing.nat_gateways'
        yield Finding(("network", "nat"), f"{text}; leave one of them out")


def _closed(network: Mapping[str, Any]) -> bool:
    return network.get("interface_endpoints") != []


def _kubernetes(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Refuse what HyperPod never ran on; a version that is newer than our table may be right."""
    version, oldest = get(data, "eks", "version"), versions.OLDEST_KUBERNETES
    if not isinstance(version, str) or not re.fullmatch(r"1\.[0-9]{2}", version):
        return
    allowed = get(data, "eks", "allow_untested_version") is True
    if versions.order(version) < versions.order(oldest) and not allowed:
        yield Finding(
            ("eks", "version"),
            f"{model.show(version)} is too old (HyperPod needs Kubernetes {oldest} or newer);"
            " give a newer one, or leave it out",
        )


def _cni(data: Mapping[str, Any]) -> Iterator[Finding]:
    addons = get(data, "addons")
    for name in addons if isinstance(addons, dict) else ():
        version = get(addons, name, "version")
        if isinstance(version, str) and (why := versions.broken(str(name), version)):
            text = f"{model.show(version)} {why}; give another one, or leave it out"
            yield Finding(("addons", name, "version"), text)
    version = get(addons, "vpc-cni", "version")
    found = versions.numbers(version)[:3] if isinstance(version, str) else ()
    if len(found) == 3 and found < versions.OLDEST_VPC_CNI:
        oldest = ".".join(map(str, versions.OLDEST_VPC_CNI))
        yield Finding(
            ("addons", "vpc-cni", "version"),
            f"{model.show(version)} is too old (HyperPod needs Amazon VPC CNI {oldest} or newer);"
            " give a newer one, or leave it out for EKS's default",
        )
