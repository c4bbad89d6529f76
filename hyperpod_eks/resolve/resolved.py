"""The config resolved in an account: the caller, zones, versions and derived names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import field
from functools import partial
from typing import NamedTuple

from hyperpod_eks.aws.client import Aws, Identity
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.config.addressing import ZoneSubnets, subnets
from hyperpod_eks.config.groups import InstanceGroup, RestrictedInstanceGroup
from hyperpod_eks.config.model import Access, Config
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.endpoints import check_endpoints, endpoint_zones
from hyperpod_eks.resolve.file_systems import file_system_zones
from hyperpod_eks.resolve.names import PRIVATE_SUBNET, iam_name, lineage
from hyperpod_eks.resolve.pod_roles import AddonAnswer
from hyperpod_eks.resolve.training_plans import described_plans, planned_zones
from hyperpod_eks.resolve.versions import Kubernetes, kubernetes_version
from hyperpod_eks.resolve.zones import (
    adopted_zones,
    available_zones,
    choose_zones,
    offerings,
    taken_zones,
)
from hyperpod_eks.workers import start, start_all


@frozen
class ResolvedConfig:
    """The config in its account: everything from which steps derive their declarations.

    ``zones`` are availability zone ids; ``offered`` has, by zone, the EC2 instance types that the
    zone offers, among those of the instance groups.
    """

    config: Config
    identity: Identity
    zones: tuple[str, ...]
    offered: dict[str, frozenset[str]]
    kubernetes_version: str
    warnings: tuple[str, ...] = ()
    plans: Mapping[str, JsonMapping] = field(default_factory=dict)
    """The groups' training plans by ARN: status, places (type, zone id), total, free instances."""
    endpoint_zones: Mapping[str, frozenset[str]] | None = None
    """Zone ids in which each service has interface endpoints; None if unknown."""
    addons: Mapping[str, AddonAnswer] = field(default_factory=dict)
    """What EKS answers about the add-ons of the config, by name; not about all of them."""
    extended_support: frozenset[str] = frozenset()
    """The Kubernetes versions in extended support."""
    adopted: Mapping[str, str] = field(default_factory=dict)
    """Ids of adopted resources, which replace ours, by key."""
    file_system_zones: Mapping[str, str] = field(default_factory=dict)
    """Zone ids of the declared file systems that exist, by name."""

    @property
    def name(self) -> str:
        """Name of the HyperPod cluster and of our EKS cluster, and prefix of all other names."""
        return self.config.name

    @property
    def region(self) -> str:
        """The AWS region."""
        return self.identity.region

    @property
    def unknown_roles(self) -> dict[str, str]:
        """A sentence about each add-on whose roles are ours to create and not known, by name."""
        return {
            name: f"addons.{name}: no role is created for its pods: {answer.unknown}; set"
            f" addons.{name}.pod_identity_associations (roles of its service accounts, or [] for"
            " none)"
            for name, answer in self.addons.items()
            if answer.unknown and f"addons/{name}" not in self.adopted
        }

    @property
    def bucket(self) -> str:
        """Name of the lifecycle bucket; AWS's managed policy allows reads of ``sagemaker-*``."""
        return self.adopted.get("s3/bucket") or self.config.bucket(self.identity.account)

    @property
    def eks_name(self) -> str:
        """Name of the EKS cluster: ours, or the adopted one."""
        return self.adopted.get("eks/cluster") or self.name

    @property
    def private_is_theirs(self) -> bool:
        """Whether every private subnet is adopted; then its routes are not ours either."""
        return all(f"network/{PRIVATE_SUBNET}{zone}" in self.adopted for zone in self.zones)

    @property
    def eks_is_theirs(self) -> bool:
        """Whether the EKS cluster is adopted."""
        return "eks/cluster" in self.adopted

    @property
    def plan(self) -> tuple[ZoneSubnets, ...]:
        """The VPC's address blocks for each zone."""
        return subnets(self.config.network.cidr, self.zones)

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of one of our resources, in the caller's partition."""
        region = "" if service in ("iam", "s3") else self.region
        account = "" if service == "s3" else self.identity.account
        return f"arn:{self.identity.partition}:{service}:{region}:{account}:{resource}"

    def managed_policy(self, name: str) -> str:
        """Return the ARN of an AWS managed policy."""
        return f"arn:{self.identity.partition}:iam::aws:policy/{name}"

    def iam_name(self, purpose: str, key: str = "") -> str:
        """Return the name of a role or policy: the adopted one's, or ours."""
        return self.adopted.get(key) or iam_name(self.name, purpose, self.region)

    def access_policy(self, name: str) -> str:
        """Return the ARN of an EKS access policy."""
        return f"arn:{self.identity.partition}:eks::aws:cluster-access-policy/{name}"

    def homes(self, group: InstanceGroup | RestrictedInstanceGroup) -> tuple[str, ...]:
        """Return a group's zones: declared ones, its training plan's, or one with its type."""
        if group.availability_zone_ids:
            return group.availability_zone_ids
        planned = [zone for zone in planned_zones(self.plans, group) if zone in self.zones]
        if planned:
            return (planned[0],)
        return (self.zone_for(group.instance_types[0]),)

    def file_system_zone(self, name: str) -> str:
        """Return a file system's zone: the declared one, where it is, or that of nodes.

        The nodes are those of the first group that mounts it, else of the first group.  Raises
        Usage for a zone without a subnet.
        """
        one, groups = self.config.storage.fsx_lustre[name], self.config.groups
        group = next((each for each in groups if each.name in one.mount_on), groups[0])
        there = one.availability_zone_id or self.file_system_zones.get(name)
        zone = there or self.homes(group)[0]
        if zone not in self.zones:
            setting = f"storage.fsx_lustre.{name}.availability_zone_id"
            raise Usage(
                f"{setting}: the cluster has no subnet in {zone}; its zones are"
                f" {', '.join(self.zones)}",
                "Choose one of them, or add the zone to network.availability_zone_ids.",
                setting=setting,
            )
        return zone

    def zone_for(self, instance_type: str) -> str:
        """Return the first zone that offers an instance type, else the first zone."""
        kind = instance_type.removeprefix("ml.")
        return next((z for z in self.zones if kind in self.offered.get(z, ())), self.zones[0])


def resolve(
    aws: Aws,
    config: Config,
    snapshot: Snapshot | None = None,
    beside: Sequence[Callable[[Snapshot], object]] = (),
    kubernetes: str = "",
) -> ResolvedConfig:
    """Resolve the config with concurrent calls to AWS; set the lineage of ``aws``.

    Zones that already have this cluster's private subnets are preferred to a new choice.
    ``beside`` are further reads, started at the same time, whose answers ``snapshot`` keeps for
    later; their errors are ignored here.  ``kubernetes`` is the version that an earlier run has
    chosen, if there was one.  Raises Usage if the account, the zones or the versions
    do not fit the config.
    """
    view = snapshot or Snapshot(aws)
    aws.warm("ec2")  # most calls, and the slowest client to create
    asked = _ask(aws, config, view, kubernetes)
    aws.warm("sts", "eks")  # nothing more can be asked until these answer
    start_all([partial(question, view) for question in beside])
    aws.warm("s3", "iam", "sagemaker", "logs")
    who = asked.identity.result()
    aws.lineage = lineage(who, config.name)
    _check_account(config, who)
    _check_access(config, who)
    chosen = choose_zones(
        config,
        asked.zones.result(),
        asked.offered.result(),
        asked.taken.result(),
        asked.plans.result(),
        who.region,
        adopted_zones(aws, config),
    )
    chosen_version = asked.version.result()
    _check_pod_identity(config, chosen_version.addons)
    found = asked.endpoints.result()
    return ResolvedConfig(
        config,
        who,
        chosen,
        asked.offered.result(),
        chosen_version.version,
        (*chosen_version.warnings, *check_endpoints(config, found, chosen)),
        plans=asked.plans.result(),
        endpoint_zones=found,
        addons=chosen_version.addons,
        extended_support=chosen_version.extended,
        adopted=aws.adopted,
        file_system_zones=asked.files.result(),
    )


class _Asked(NamedTuple):
    """The answers of concurrent calls."""

    identity: Future[Identity]
    zones: Future[list[str]]
    offered: Future[dict[str, frozenset[str]]]
    taken: Future[dict[str, str]]
    version: Future[Kubernetes]
    plans: Future[dict[str, JsonObject]]
    endpoints: Future[dict[str, frozenset[str]] | None]
    files: Future[dict[str, str]]


def _ask(aws: Aws, config: Config, view: Snapshot, likely: str) -> _Asked:
    types = sorted({t.removeprefix("ml.") for g in config.groups for t in g.instance_types})
    return _Asked(
        identity=start(lambda: aws.identity),
        zones=start(partial(available_zones, aws)),
        offered=start(partial(offerings, aws, types)),
        taken=start(partial(taken_zones, view)),
        version=start(partial(kubernetes_version, aws, config, likely)),
        plans=start(partial(described_plans, aws, config)),
        endpoints=start(partial(endpoint_zones, view, config)),
        files=start(partial(file_system_zones, view, config)),
    )


def _check_account(config: Config, who: Identity) -> None:
    if config.account and config.account != who.account:
        raise Usage(
            f"account: the config says {config.account}, but these credentials belong to "
            f"{who.account}",
            "Use the right profile (--profile), or correct the config.",
            setting="account",
        )


def _check_pod_identity(config: Config, addons: Mapping[str, AddonAnswer]) -> None:
    """Raise Usage for a service account of an add-on, which has a role already (EKS takes one)."""
    theirs = {
        (answer.namespace or "kube-system", account): name
        for name, answer in addons.items()
        for account in (
            *(one.account for one in answer.roles),
            *(
                str(each["service_account"])
                for each in config.asked_addons()[name].pod_identity_associations or ()
            ),
        )
    }
    for index, each in enumerate(config.pod_identity):
        if addon := theirs.get((each.namespace, each.service_account)):
            raise Usage(
                f"pod_identity[{index}].service_account: {each.service_account} in"
                f" {each.namespace} is the add-on {addon}'s, and has a role already",
                f"Remove the entry, or set addons.{addon}.pod_identity_associations: [].",
                setting="pod_identity",
            )


def _check_access(config: Config, who: Identity) -> None:
    """Raise Usage for a different access entry of the caller, who already gets an administrator's.

    The ARN of a session lacks the path of its role, but role names are unique in an account.
    """
    kind, *names = who.arn.rpartition(":")[2].split("/")
    kind, name = ("role", names[0]) if kind == "assumed-role" else (kind, "".join(names[-1:]))
    for entry in config.eks.access:
        start = f"arn:{who.partition}:iam::{who.account}:{kind}/"
        you = entry.principal_arn.startswith(start) and entry.principal_arn.endswith(f"/{name}")
        if you and entry != Access(principal_arn=entry.principal_arn):
            raise Usage(
                f"eks.access: {entry.principal_arn} is your own identity, and whoever runs create"
                " is already a cluster administrator",
                "Remove the entry, or run create as another identity.",
                setting="eks.access",
            )


def _running(resolved: ResolvedConfig, aws: Aws) -> dict[tuple[str, str], int]:
    """Count the running nodes by group and training plan."""
    running: dict[tuple[str, str], int] = {}
    with absent("ResourceNotFound"):
        found: Json = aws.sagemaker.describe_cluster(ClusterName=resolved.name)
        declared = {group.name: group.training_plan_arn or "" for group in resolved.config.groups}
        for member in ("InstanceGroups", "RestrictedInstanceGroups"):
            for each in found.get(member) or ():
                name, arn = each["InstanceGroupName"], each.get("TrainingPlanArn") or ""
                # described without its plan: a group never changes its plan, so it is the declared
                if not arn or arn.lower() == declared.get(name, "").lower():
                    arn = declared.get(name, "")
                running[name, arn] = each.get("CurrentCount", 0)
    return running


def _misfit(
    resolved: ResolvedConfig, group: InstanceGroup | RestrictedInstanceGroup, running: int
) -> str:
    """Return the reason why a training plan does not fit its group; "" if it does."""
    plan = resolved.plans.get(group.training_plan_arn or "")
    if plan is None:
        return f"does not exist in {resolved.region}"
    if plan["status"] != "Active" and not running:
        return f"is {plan['status']}, not Active"
    if group.instance_types[0] not in (types := dict(plan["places"])):
        return f"is for {', '.join(types)}, not for {group.instance_types[0]}"
    homes, there = resolved.homes(group), planned_zones(resolved.plans, group)
    if there and not set(homes) <= set(there):
        return f"is in {', '.join(dict.fromkeys(there))}, the group in {', '.join(homes)}"
    return ""


def check_plans(resolved: ResolvedConfig, aws: Aws) -> None:
    """Raise Usage for training plans that do not fit their groups or lack capacity for them.

    The free capacity of a plan does not include running nodes.
    """
    if not any(group.training_plan_arn for group in resolved.config.groups):
        return
    running = _running(resolved, aws)
    wrong = []
    sharing: dict[str, list[InstanceGroup | RestrictedInstanceGroup]] = {}
    for group in resolved.config.groups:
        if arn := group.training_plan_arn:
            if misfit := _misfit(resolved, group, running.get((group.name, arn), 0)):
                name = arn.rpartition("/")[2]
                wrong.append(f"{group.name}: training plan {name} {misfit}")
            else:
                sharing.setdefault(arn, []).append(group)
    for arn, groups in sharing.items():
        theirs = sum(running.get((group.name, arn), 0) for group in groups)
        wrong += _shortage(arn, resolved.plans[arn], groups, theirs)
    if wrong:
        hint = "Correct the group, or buy another plan."
        raise Usage("\n".join(wrong), hint, setting="instance_groups.training_plan_arn")


def _shortage(
    arn: str,
    plan: JsonMapping,
    groups: Sequence[InstanceGroup | RestrictedInstanceGroup],
    running: int,
) -> list[str]:
    """Return an error if a plan lacks instances for all its groups together, else []."""
    asked = sum(group.instance_count for group in groups)
    if asked <= plan["free"] + running:
        return []
    names, name = ", ".join(group.name for group in groups), arn.rpartition("/")[2]
    free = f"{plan['free']} of {plan['total']} instances free"
    return [f"{names}: training plan {name} has {free}; {asked} are asked for"]
