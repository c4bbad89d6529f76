"""What the configuration means in this account: who calls, in which zones, under which names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from ipaddress import IPv4Network
from typing import Any

from hyperpod_eks.aws.client import LABEL, Aws, Identity, Look, absent, tag
from hyperpod_eks.aws.published import ZONES_WITHOUT_EKS, choose_version, order
from hyperpod_eks.config import references
from hyperpod_eks.config.model import (
    NEEDED_ADDONS,
    Access,
    Addon,
    Config,
    InstanceGroup,
    RestrictedInstanceGroup,
    ZoneSubnets,
    subnets,
)
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve import addon_settings
from hyperpod_eks.workers import begin, begun

PRIVATE_SUBNET = "private-subnet-"
PUBLIC_SUBNET = "public-subnet-"
NODE_SUBNET = "node-subnet-"


@frozen
class Site:
    """The configuration, placed: everything that the steps derive their declarations from.

    ``zones`` are availability zone ids; ``offered`` tells for each which EC2 instance types it
    has, of those that the instance groups ask for.
    """

    config: Config
    identity: Identity
    zones: tuple[str, ...]
    offered: dict[str, frozenset[str]]
    kubernetes_version: str
    warnings: tuple[str, ...] = ()
    plans: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By ARN, what the training plans of the groups hold: status, places, total, free."""
    endpoint_zones: Mapping[str, frozenset[str]] | None = None
    """Zone ids in which each service of the interface endpoints is offered; None: not asked."""
    standalone: Mapping[str, str] = field(default_factory=dict)
    """Namespaces of add-ons whose version takes no pod identity itself, by add-on."""
    adopted: Mapping[str, str] = field(default_factory=dict)
    """Ids of existing resources that take the place of ours, by key."""

    @property
    def name(self) -> str:
        """Name of the cluster: HyperPod's, EKS's, and the prefix of everything else."""
        return self.config.name

    @property
    def region(self) -> str:
        """The AWS region."""
        return self.identity.region

    @property
    def bucket(self) -> str:
        """The lifecycle bucket; the prefix ``sagemaker-`` lets the managed policy read it."""
        return self.adopted.get("s3/bucket") or self.config.bucket(self.identity.account)

    @property
    def eks_name(self) -> str:
        """Name of the EKS cluster: the cluster's own, or that of an adopted one."""
        return self.adopted.get("eks/cluster") or self.name

    @property
    def private_is_theirs(self) -> bool:
        """Whether every private subnet is somebody's, with routes of its own."""
        return all(f"network/{PRIVATE_SUBNET}{zone}" in self.adopted for zone in self.zones)

    @property
    def eks_is_theirs(self) -> bool:
        """Whether the EKS cluster is somebody's."""
        return "eks/cluster" in self.adopted

    @property
    def plan(self) -> tuple[ZoneSubnets, ...]:
        """How the VPC's addresses are divided among the zones."""
        return subnets(self.config.network.cidr, self.zones)

    def arn(self, service: str, resource: str) -> str:
        """Spell the ARN of one of our resources, in the caller's partition."""
        region = "" if service in ("iam", "s3") else self.region
        account = "" if service == "s3" else self.identity.account
        return f"arn:{self.identity.partition}:{service}:{region}:{account}:{resource}"

    def managed_policy(self, name: str) -> str:
        """Spell the ARN of a policy that AWS manages."""
        return f"arn:{self.identity.partition}:iam::aws:policy/{name}"

    def iam_name(self, purpose: str, key: str = "") -> str:
        """Name a role or policy: IAM is global, so the region is part of it (64 characters)."""
        return self.adopted.get(key) or fit(f"{self.name}-{purpose}-{self.region}", 64)

    def access_policy(self, name: str) -> str:
        """Spell the ARN of an EKS access policy."""
        return f"arn:{self.identity.partition}:eks::aws:cluster-access-policy/{name}"

    def homes(self, group: InstanceGroup | RestrictedInstanceGroup) -> tuple[str, ...]:
        """Choose the zones of a group: its own, its training plan's, or one that has its types."""
        if group.availability_zone_ids:
            return group.availability_zone_ids
        planned = [zone for zone in _planned(self.plans, group) if zone in self.zones]
        if planned:
            return (planned[0],)
        return (self.zone_for(group.instance_types[0]),)

    def zone_for(self, instance_type: str) -> str:
        """Choose the zone of an instance group: the first that offers its type."""
        kind = instance_type.removeprefix("ml.")
        return next((z for z in self.zones if kind in self.offered.get(z, ())), self.zones[0])


def fit(name: str, length: int) -> str:
    """Shorten a name to ``length`` characters so that different names stay different.

    >>> fit("demo-eks", 64)
    'demo-eks'
    >>> fit("a" * 70, 64)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-6bd5e5'
    """
    if len(name) <= length:
        return name
    return f"{name[: length - 7]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def lineage(identity: Identity, cluster: str) -> str:
    """Derive the owner that all tags name: one account, region and cluster name, one lineage.

    EKS and HyperPod allow one cluster of a name in a region, so the name identifies it; being
    derived, the lineage survives the loss of the manifest.
    """
    seed = f"{identity.partition}:{identity.account}:{identity.region}:{cluster}"
    return hashlib.sha256(seed.encode()).hexdigest()[:16]


def survey(
    aws: Aws,
    config: Config,
    look: Look | None = None,
    beside: Sequence[Callable[[Look], object]] = (),
) -> Site:
    """Ask AWS, all at once, who we are and which zones fit the instance groups.

    Signs ``aws`` with the lineage.  Zones that already hold this cluster's private subnets win
    over a new choice.  ``beside`` are questions whose answers ``look`` shall have for whoever
    comes next; one that fails is left to them.  Raises Usage when the account or the zones are
    not what the config says.
    """
    view = look or Look(aws)
    aws.warm("ec2")  # has most questions, and takes longest to make
    types = sorted({t.removeprefix("ml.") for g in config.groups for t in g.instance_types})
    begin([partial(question, view) for question in beside])
    identity = begun(lambda: aws.identity)
    zones = begun(partial(_available_zones, aws))
    offered = begun(partial(_offerings, aws, types))
    taken = begun(partial(_taken_zones, view))
    version = begun(partial(_kubernetes_version, aws, config))
    plans = begun(partial(_training_plans, aws, config))
    endpoints = begun(partial(_endpoint_zones, view, config))
    aws.warm("sts", "eks", "sagemaker", "iam", "s3", "logs")  # while EC2 answers
    who = identity.result()
    aws.lineage = lineage(who, config.name)
    if config.account and config.account != who.account:
        raise Usage(
            f"account: the config says {config.account}, but these credentials belong to "
            f"{who.account}",
            "Use the right profile (--profile), or correct the config.",
            setting="account",
        )
    _check_access(config, who)
    chosen = _choose_zones(
        config,
        zones.result(),
        offered.result(),
        taken.result(),
        plans.result(),
        who.region,
        _adopted_zones(aws, config),
    )
    kubernetes, warnings, standalone = version.result()
    found = endpoints.result()
    return Site(
        config,
        who,
        chosen,
        offered.result(),
        kubernetes,
        (*warnings, *_check_endpoints(config, found, chosen)),
        plans=plans.result(),
        endpoint_zones=found,
        standalone=standalone,
        adopted=aws.adopted,
    )


CLOSED = (
    "ec2",
    "ec2messages",
    "ecr.api",
    "ecr.dkr",
    "eks",
    "eks-auth",
    "logs",
    "monitoring",
    "sagemaker.api",
    "ssm",
    "ssmmessages",
    "sts",
)
"""Services that nodes, add-ons and lifecycle scripts call: what a closed network needs of them
(SageMaker developer guide, HyperPod prerequisites; EKS User Guide, "private clusters")."""
NOT_EVERYWHERE = frozenset({"ec2messages"})
"""What regions launched in 2024 and later do without (Systems Manager User Guide, "Reference:
ec2messages, ssmmessages, and other API operations")."""


def _endpoint_zones(look: Look, config: Config) -> dict[str, frozenset[str]] | None:
    """Ask in which zones the services of the interface endpoints are offered, all in one call.

    None without such endpoints, and where the caller may not ask: then every zone is tried.
    """
    network = config.network
    names = network.interface_endpoints
    if names is None:
        theirs = any(key.startswith(f"network/{PRIVATE_SUBNET}") for key in look.adopted)
        names = CLOSED if network.nat == "none" and not theirs else ()
    if not names:
        return None
    prefix = f"com.amazonaws.{config.region}."
    wanted: Any = [
        {"Name": "service-name", "Values": [prefix + name for name in names]},
        {"Name": "service-type", "Values": ["Interface"]},
    ]
    with absent("UnauthorizedOperation"):
        found = look.region("describe_vpc_endpoint_services", "ServiceDetails", Filters=wanted)
        ids: dict[str, str] = {}
        if not all(
            each.get("AvailabilityZoneIds") for each in found
        ):  # names alone, as it once was
            every = look.aws.ec2.describe_availability_zones()["AvailabilityZones"]
            ids = {each["ZoneName"]: each["ZoneId"] for each in every}
        return {
            each["ServiceName"].removeprefix(prefix): frozenset(
                each.get("AvailabilityZoneIds")
                or [ids[name] for name in each.get("AvailabilityZones", ()) if name in ids]
            )
            for each in found
        }
    return None


def _check_endpoints(
    config: Config, found: Mapping[str, frozenset[str]] | None, zones: tuple[str, ...]
) -> list[str]:
    """Raise Usage for a named service that is not there; say which of the full set are not."""
    if found is None:
        return []
    missing, named = [], config.network.interface_endpoints
    for name in named or CLOSED:
        if found.get(name, frozenset()) & {*zones} or (name in found and not found[name]):
            continue
        where = f"in {', '.join(zones)}" if found.get(name) else f"in {config.region}"
        text = f"AWS has no interface endpoint of {name} {where}"
        if named is not None:
            hint = "Leave it out"
            if there := sorted(found.get(name, ())):
                hint += f", or choose zones among {', '.join(there)}"
            setting = "network.interface_endpoints"
            raise Usage(f"{setting}: {text}", f"{hint}.", setting=setting)
        if name not in NOT_EVERYWHERE:
            missing.append(f"network.nat: {text}; nodes cannot reach it without NAT")
    return missing


def _check_access(config: Config, who: Identity) -> None:
    """Whoever runs create has an entry as administrator; two for one principal cannot both be.

    A session's ARN has lost its role's path, and role names are unique in an account.
    """
    kind, *names = who.arn.rpartition(":")[2].split("/")
    kind, name = ("role", names[0]) if kind == "assumed-role" else (kind, "".join(names[-1:]))
    for entry in config.eks.access:
        start = f"arn:{who.partition}:iam::{who.account}:{kind}/"
        you = entry.principal_arn.startswith(start) and entry.principal_arn.endswith(f"/{name}")
        if you and entry != Access(principal_arn=entry.principal_arn):
            raise Usage(
                f"eks.access: {entry.principal_arn} is you, and whoever runs create administers "
                "the Kubernetes cluster",
                "Leave the entry out, or run this as somebody else.",
                setting="eks.access",
            )


def _training_plans(aws: Aws, config: Config) -> dict[str, dict[str, Any]]:
    """Describe the training plans that groups name; one that is not there has no entry."""
    found = {}
    for arn in sorted({g.training_plan_arn for g in config.groups if g.training_plan_arn}):
        with absent("ResourceNotFound"):
            plan: Any = aws.sagemaker.describe_training_plan(
                TrainingPlanName=arn.rpartition("/")[2]
            )
            found[arn] = {
                "status": plan["Status"],
                # a plan may hold several capacities: in several zones, one after the other
                "places": [
                    (each.get("InstanceType", ""), each.get("AvailabilityZoneId", ""))
                    for each in sorted(
                        plan.get("ReservedCapacitySummaries") or (),
                        key=lambda each: each.get("Status") != "Active",
                    )
                    if each.get("Status") not in ("Expired", "Failed")
                ],
                "total": plan.get("TotalInstanceCount", 0),
                "free": plan.get("AvailableInstanceCount", 0),
            }
    return found


def _planned(
    plans: Mapping[str, Mapping[str, Any]], group: InstanceGroup | RestrictedInstanceGroup
) -> list[str]:
    """Name the zones in which a group's training plan has its type, the active ones first."""
    places = plans.get(group.training_plan_arn or "", {}).get("places", ())
    return [zone for kind, zone in places if kind == group.instance_types[0] and zone]


def check_plans(site: Site, aws: Aws) -> None:
    """Raise Usage for training plans that cannot give what their groups ask for together.

    A plan's free capacity is beside the nodes that its groups have already.
    """
    if not any(group.training_plan_arn for group in site.config.groups):
        return
    running: dict[tuple[str, str], int] = {}
    with absent("ResourceNotFound"):
        found: Any = aws.sagemaker.describe_cluster(ClusterName=site.name)
        declared = {group.name: group.training_plan_arn or "" for group in site.config.groups}
        for member in ("InstanceGroups", "RestrictedInstanceGroups"):
            for each in found.get(member) or ():
                name, arn = each["InstanceGroupName"], each.get("TrainingPlanArn") or ""
                # a group that AWS describes without its plan keeps what it has: a plan is for life
                if not arn or arn.lower() == declared.get(name, "").lower():
                    arn = declared.get(name, "")
                running[name, arn] = each.get("CurrentCount", 0)
    wrong = []
    sharing: dict[str, list[InstanceGroup | RestrictedInstanceGroup]] = {}
    for group in site.config.groups:
        if not (arn := group.training_plan_arn):
            continue
        at, plan = f"{group.name}: training plan {arn.rpartition('/')[2]}", site.plans.get(arn)
        if plan is None:
            wrong.append(f"{at} does not exist in {site.region}")
        elif plan["status"] != "Active" and not running.get((group.name, arn)):
            wrong.append(f"{at} is {plan['status']}, not Active")
        elif group.instance_types[0] not in (types := dict(plan["places"])):
            wrong.append(f"{at} is for {', '.join(types)}, not for {group.instance_types[0]}")
        elif (there := _planned(site.plans, group)) and not set(site.homes(group)) <= set(there):
            zones = ", ".join(site.homes(group))
            wrong.append(f"{at} is in {', '.join(dict.fromkeys(there))}, the group in {zones}")
        else:
            sharing.setdefault(arn, []).append(group)
    for arn, groups in sharing.items():
        plan, asked = site.plans[arn], sum(group.instance_count for group in groups)
        if asked > plan["free"] + sum(running.get((group.name, arn), 0) for group in groups):
            names = ", ".join(group.name for group in groups)
            wrong.append(
                f"{names}: training plan {arn.rpartition('/')[2]} has {plan['free']} of "
                f"{plan['total']} instances free; {asked} are asked for"
            )
    if wrong:
        hint = "Correct the group, or buy another plan."
        raise Usage("\n".join(wrong), hint, setting="instance_groups.training_plan_arn")


def _kubernetes_version(aws: Aws, config: Config) -> tuple[str, tuple[str, ...], Mapping[str, str]]:
    """Choose the version.  A cluster that exists keeps its own where that one has had its time.

    Also checks add-ons, their pinned versions and their settings, so that what is wrong is told
    before anything is made.  Last comes `Site.standalone`.
    """
    pages = aws.eks.get_paginator("describe_cluster_versions").paginate()
    offered = [dict(version) for page in pages for version in page["clusterVersions"]]
    warnings: list[str] = []
    try:
        chosen, warnings = choose_version(
            offered, config.eks.version, config.eks.allow_untested_version
        )
    except Usage as error:
        with absent("ResourceNotFoundException"):
            name = aws.adopted.get("eks/cluster") or config.name
            own, wanted = (
                aws.eks.describe_cluster(name=name)["cluster"]["version"],
                config.eks.version,
            )
            if wanted is None or wanted == own:
                return own, (), {}
            if order(wanted) < order(own):  # EKS upgrades what is too old by itself
                return own, (f"{error}; {name} keeps its {own}",), {}
        raise
    standalone = {}
    for name, addon in config.addons.items():
        asked = addon.version or addon.configuration_values or addon.pod_identity_associations
        if (asked or name not in NEEDED_ADDONS) and (
            namespace := _check_addon(aws, name, addon, chosen)
        ):
            standalone[name] = namespace
    return chosen, tuple(warnings), standalone


def _check_addon(aws: Aws, name: str, addon: Addon, kubernetes: str) -> str:
    """Raise Usage for what EKS would refuse; return the namespace if it takes no pod identity."""
    version = addon.version
    answer = aws.eks.describe_addon_versions(addonName=name, kubernetesVersion=kubernetes)
    known = [v["addonVersion"] for addon in answer["addons"] for v in addon["addonVersions"]]
    if not known:
        raise Usage(
            f"addons.{name}: EKS has no such add-on for Kubernetes {kubernetes}",
            f"aws eks describe-addon-versions --kubernetes-version {kubernetes}"
            f" --region {aws.session.region_name}",
            setting=f"addons.{name}",
        )
    if version and version not in known:
        raise Usage(
            f"addons.{name}.version: {version} is not offered for Kubernetes {kubernetes}; "
            f"EKS offers {', '.join(known[:5])}",
            "Choose one of those, or leave the version out for AWS's default.",
            setting=f"addons.{name}.version",
        )
    about = answer["addons"][0]
    chosen = next(
        (
            each
            for each in about["addonVersions"]
            if (version == each["addonVersion"] if version else _is_default(each))
        ),
        about["addonVersions"][0],
    )
    if addon.configuration_values:
        _check_settings(aws, name, chosen["addonVersion"], addon.configuration_values)
    if addon.pod_identity_associations and chosen.get("requiresIamPermissions") is False:
        return str(about.get("defaultNamespace") or "kube-system")
    return ""


def _is_default(version: Mapping[str, Any]) -> bool:
    return any(each.get("defaultVersion") for each in version.get("compatibilities", ()))


def _check_settings(aws: Aws, name: str, version: str, settings: Mapping[str, Any]) -> None:
    try:
        values = references.resolved(settings, f"addons.{name}.configuration_values")
    except Usage:  # what is not known cannot be wrong; whoever sends it refuses it
        return
    with absent("AccessDenied.*", "ResourceNotFoundException"):
        found = aws.eks.describe_addon_configuration(addonName=name, addonVersion=version)
        if wrong := addon_settings.problems(values, found.get("configurationSchema") or ""):
            setting = f"addons.{name}.configuration_values"
            raise Usage(
                "\n".join(f"{setting}: {each}" for each in wrong[:5]),
                f"aws eks describe-addon-configuration --addon-name {name} --addon-version"
                f" {version} --region {aws.session.region_name} shows the schema.",
                setting=setting,
            )


def _available_zones(aws: Aws) -> list[str]:
    """Zones of the region itself; Local and Wavelength Zones need an opt-in and are left out."""
    found = aws.ec2.describe_availability_zones(
        Filters=[
            {"Name": "state", "Values": ["available"]},
            {"Name": "zone-type", "Values": ["availability-zone"]},
        ]
    )["AvailabilityZones"]
    zones = {zone["ZoneId"] for zone in found}
    if "eks/cluster" not in aws.adopted:  # the nodes' subnets are the control plane's too
        zones -= ZONES_WITHOUT_EKS
    return sorted(zones)


def _offerings(aws: Aws, types: list[str]) -> dict[str, frozenset[str]]:
    pages = aws.ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone-id", Filters=[{"Name": "instance-type", "Values": types}]
    )
    offered: dict[str, set[str]] = {}
    for page in pages:
        for each in page["InstanceTypeOfferings"]:
            offered.setdefault(each["Location"], set()).add(each["InstanceType"])
    return {zone: frozenset(kinds) for zone, kinds in offered.items()}


def _taken_zones(look: Look) -> dict[str, str]:
    """The block of a subnet of ours in each zone, in the order in which the VPC was divided."""
    found = look.signed("describe_subnets", "Subnets")
    blocks = {tag(each["Tags"], LABEL) or "": str(each["CidrBlock"]) for each in found}
    return {
        label.removeprefix(kind): blocks[label]
        for kind in (PUBLIC_SUBNET, PRIVATE_SUBNET)
        for label in sorted(blocks, key=lambda label: IPv4Network(blocks[label]))
        if label.startswith(kind)
    }


def _in_place(zones: tuple[str, ...], taken: Mapping[str, str], cidr: str) -> tuple[str, ...]:
    """Order zones so that each subnet keeps its block, though one before it may be gone."""
    places = {
        block: place
        for place, each in enumerate(subnets(cidr, zones))
        for block in (each.private, each.public)
    }
    kept = {places[taken[zone]]: zone for zone in zones if taken.get(zone) in places}
    others = iter([zone for zone in zones if zone not in kept.values()])
    return tuple(kept.get(place) or next(others) for place in range(len(zones)))


def _adopted_zones(aws: Aws, config: Config) -> tuple[str, ...]:
    """Zones of the private subnets that are somebody's, in the order of the configuration."""
    prefix = f"network/{PRIVATE_SUBNET}"
    zones = {id_: key[len(prefix) :] for key, id_ in aws.adopted.items() if key.startswith(prefix)}
    order = config.existing.private_subnets
    if len(zones) < 2 and "eks/cluster" not in aws.adopted:  # one alone takes its place among ours
        return ()
    return tuple(
        zones[each] for each in sorted(zones, key=lambda x: order.index(x) if x in order else 0)
    )


def _choose_zones(
    config: Config,
    available: list[str],
    offered: dict[str, frozenset[str]],
    taken: Mapping[str, str],
    plans: Mapping[str, Mapping[str, Any]],
    region: str,
    theirs: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Two zones or more, for EKS needs two; where none are named, enough for groups and types.

    Those that hold subnets of ours come first, then those that groups and plans name.
    """
    wanted = theirs or config.network.availability_zone_ids
    named = dict.fromkeys(zone for g in config.groups for zone in g.availability_zone_ids)
    for setting, zones in (
        ("network.availability_zone_ids", wanted),
        ("instance_groups.availability_zone_ids", named),
    ):
        if unknown := [zone for zone in zones if zone not in available]:
            raise Usage(
                f"{setting}: {', '.join(unknown)} is not a zone of {region} "
                f"that EKS works in; it has {', '.join(available)}",
                "Zone ids (usw2-az1) are not zone names (us-west-2a); see "
                "DescribeAvailabilityZones.",
                setting=setting,
            )
    if bare := [zone for zone in named if theirs and zone not in theirs]:
        raise Usage(
            f"instance_groups: {', '.join(bare)} has none of existing.private_subnets, which are "
            f"in {', '.join(theirs)}",
            "Name a subnet there, or another zone.",
            setting="instance_groups.availability_zone_ids",
        )
    types: dict[str, None] = {}
    for group in config.groups:
        for each in group.instance_types:  # of several types, too, each must be to be had
            types[kind := each.removeprefix("ml.")] = None
            places = group.availability_zone_ids or wanted or available
            if any(kind in offered.get(zone, ()) for zone in places):
                continue
            elsewhere = sorted(zone for zone, kinds in offered.items() if kind in kinds)
            where = ", ".join(group.availability_zone_ids or wanted) or region
            raise Usage(
                f"instance_groups: {each} of {group.name} is not offered in {where}"
                + (f"; {', '.join(elsewhere)} have it" if elsewhere else ""),
                "Choose another zone, instance type or region.",
                setting="instance_groups.instance_type",
            )
    if wanted:
        return wanted
    planned = [zone for group in config.groups for zone in _planned(plans, group)[:1]]
    chosen = dict.fromkeys(z for z in (*taken, *named, *planned) if z in available)
    fitting = sorted(available, key=lambda zone: (-len(offered.get(zone, ())), zone))
    for kind in types:
        if not any(kind in offered.get(zone, ()) for zone in chosen):
            chosen[next(zone for zone in fitting if kind in offered.get(zone, ()))] = None
    zones = tuple(dict.fromkeys((*chosen, *fitting)))[: max(2, len(chosen))]
    return _in_place(zones, taken, config.network.cidr)
