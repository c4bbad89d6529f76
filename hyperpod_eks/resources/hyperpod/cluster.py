"""The HyperPod cluster and its instance groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, fields, replace
from functools import cached_property, partial
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import SUBNETS
from hyperpod_eks.aws.prices import Item
from hyperpod_eks.aws.service_model import to_config
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import (
    MINUTE,
    Blocker,
    Differs,
    Guard,
    Live,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.ec2.security_group import SecurityGroup
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.hyperpod.api import describe, every_group, group_row, newest_event
from hyperpod_eks.resources.hyperpod.diff import (
    MISSING,
    PLACE,
    THERE,
    align,
    described,
    is_image,
    leaves,
    member_of,
    setting_of,
)
from hyperpod_eks.resources.hyperpod.groups import (
    DEEP_CHECKS,
    KEPT,
    LUSTRE,
    GroupSpecification,
    Mounts,
    by_list,
    deeply_checked,
    lost_nodes,
    mounted,
    mounting,
    renew,
)
from hyperpod_eks.resources.hyperpod.permissions import permissions
from hyperpod_eks.resources.hyperpod.trouble import governance, is_premature, leaving
from hyperpod_eks.resources.iam import Role
from hyperpod_eks.resources.permissions import Statements
from hyperpod_eks.resources.tagged import Candidate, tags_of

STATES = {
    "InService": State.READY,
    "Creating": State.BUSY,
    "Updating": State.BUSY,
    "SystemUpdating": State.BUSY,
    "RollingBack": State.BUSY,
    "Deleting": State.LEAVING,
    "Failed": State.FAILED,
}
SETTINGS = (
    "NodeRecovery",
    "NodeProvisioningMode",
    "TieredStorageConfig",
    "AutoScaling",
    "RestrictedInstanceGroupsConfig",
)
"""Members, except groups, that both CreateCluster and UpdateCluster have."""
CHECKS_TYPICAL, CHECKS_USUAL = 75 * MINUTE, "60 to 90 min of deep health checks"


@frozen
class Cluster(Resource):
    """The HyperPod cluster.

    With continuous provisioning it is InService before any node exists.  Here it is ready once
    every group has its count of nodes (or its minimum count, if it has one).

    Facts are named after group and member: ``workers.instance_count``.
    """

    name: str
    control: eks.Cluster
    role: Role
    scaler: Role | None
    """Karpenter's role; None without it."""
    security_group: SecurityGroup
    groups: tuple[GroupSpecification, ...]
    """Empty without a config: AWS's own target counts apply then."""
    zones: tuple[tuple[str, Subnet], ...]
    """Pairs of an availability zone id and its subnet for nodes."""
    settings: JsonMapping
    """The request's members in ``SETTINGS``."""
    scales_itself: bool
    """Whether Karpenter sets the number of nodes."""
    mounts: Mounts = field(default=(), kw_only=True)
    """The file systems that nodes mount."""
    pooled: tuple[str, ...] = field(default=(), kw_only=True)
    """The groups of the config's node pools; the others' counts are the config's then."""

    kind = "hyperpod/Cluster"
    step = "hyperpod"
    tag_type = "hyperpod-cluster"
    patience = 90 * MINUTE
    inhabited = True
    typical_change = 480.0  # of a scale-up, the most common change
    guards: ClassVar[Mapping[str, Guard]] = {
        "volume_kms_key_id": lambda is_, key: (
            f"volumes of new nodes are not encrypted with {is_} any more" if is_ and not key else ""
        ),
    }

    @property
    def usual(self) -> str:
        """Usual duration of a create; deep health checks add to it."""
        return "10 to 25 min" + (f", and {CHECKS_USUAL}" if deeply_checked(self.groups) else "")

    @property
    def typical(self) -> float:
        """Usual seconds of a create; deep health checks add to them."""
        return 720.0 + (CHECKS_TYPICAL if deeply_checked(self.groups) else 0.0)

    @property
    def longest_wait(self) -> float:
        """As in the base class; deep health checks add hours, as nodes run only after them."""
        return self.patience + (DEEP_CHECKS if deeply_checked(self.groups) else 0.0)

    def needs(self) -> Iterator[Resource]:
        """Those of the fields, and those in ``zones`` and ``mounts``."""
        yield from super().needs()
        yield from (need for _, need in (*self.zones, *self.mounts))

    def create_requires(self) -> Iterator[Resource]:
        """All but the VPC CNI, which nodes do not need in their first minutes, and file systems
        that only pods mount."""
        yield from (need for need in self.needs() if need.step not in ("addons", "storage"))
        yield from (file_system for _, file_system in self.mounts)

    def create_after(self) -> Iterator[Resource]:
        """The VPC CNI, whose version CreateCluster checks."""
        yield from (need for need in self.needs() if need.step == "addons")

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Return the statements of `permissions`."""
        return permissions(resolved)

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """All HyperPod clusters of the region."""
        ask = aws.sagemaker.list_tags
        for page in aws.sagemaker.get_paginator("list_clusters").paginate():
            for each in page["ClusterSummaries"]:
                name, arn = each["ClusterName"], each["ClusterArn"]
                yield "hyperpod-cluster", name, partial(tags_of, ask, "Tags", ResourceArn=arn)

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by name."""
        found = describe(snapshot, self.name)
        if found is None:
            return []
        labels = self._labels(snapshot)
        arn, signed = found["ClusterArn"], snapshot.aws.signatures
        if arn not in signed:
            tags = snapshot.all(snapshot.aws.sagemaker, "list_tags", "Tags", ResourceArn=arn)
            if owner(tags) is None:  # it may be tagged later
                return [self._live(found, None, labels)]
            signed[arn] = owner(tags)
        if signed[arn] == snapshot.aws.lineage:
            snapshot.aws.recorded.add(arn)
        live = self._live(found, signed[arn], labels)
        comes = live.state in (State.BUSY, State.GROWING)
        if comes and (event := newest_event(snapshot.aws, found)):
            live = replace(live, why=f"{live.why}; {event}", mark=(live.mark, event))
        if live.state is State.FAILED and live.owner == snapshot.aws.lineage:
            live = replace(live, premature=is_premature(snapshot, self.name, live))
        if live.state is State.LEAVING and live.owner == snapshot.aws.lineage:
            live = leaving(snapshot, self.name, live)
        return [live]

    def blockers(self, snapshot: Snapshot, live: Live) -> list[Blocker]:
        """Compute quotas and scheduler policies of task governance."""
        return list(map(Blocker, governance(snapshot, live)))

    def _labels(self, snapshot: Snapshot) -> dict[str, str]:
        """Return the labels of the nodes' subnets by id: labels also name subnets to be created."""
        if not any(group.placed for group in self.groups):
            return {}
        return {
            each["SubnetId"]: subnet.label
            for _, subnet in self.zones
            for each in snapshot.ec2(SUBNETS, subnet.label)
        }

    def _live(self, found: JsonMapping, signed: str | None, labels: Mapping[str, str]) -> Live:
        groups = every_group(found)
        running = sum(group.get("CurrentCount", 0) for group in groups)
        target = sum(group.get("TargetCount", 0) for group in groups)
        there = {g["InstanceGroupName"]: g for g in groups if g.get("Status") != "Deleting"}
        state, scaling = self._state(found)
        words = f"{found['ClusterStatus']}, {running} of {target} nodes running"
        if failure := found.get("FailureMessage"):
            words = f"{failure} ({found['ClusterStatus']})"
        return Live(
            self.name,
            found["ClusterArn"],
            owner=signed,
            state=state,
            why=scaling or words,
            facts=dict(self._described(found, there, labels)),
            mark=tuple((g["InstanceGroupName"], g.get("CurrentCount", 0)) for g in groups),
            attributes={
                "status": found["ClusterStatus"],
                "failure": found.get("FailureMessage", ""),
                "described": there,
                "groups": list(map(group_row, groups)),
            },
        )

    def _state(self, found: JsonMapping) -> tuple[State, str]:
        """Return the state, and Karpenter's status if that determines it, else ""."""
        state = STATES.get(found["ClusterStatus"], State.BUSY)
        if state is State.READY and not all(map(self._is_settled, every_group(found))):
            return State.GROWING, ""
        scaling = found.get("AutoScaling") or {}
        status = scaling.get("Status")
        if state is not State.READY or not self.scales_itself or status == "InService":
            return state, ""
        why = f"AutoScaling is {status}: {scaling.get('FailureMessage', '')}"
        return {"Creating": State.GROWING, "Failed": State.STUCK}.get(status or "", state), why

    def _is_settled(self, there: JsonMapping) -> bool:
        """Whether a group has its declared number of nodes and is neither growing nor shrinking.

        AWS brings ``TargetCount`` nodes: more declared ones come with a change, not with time.
        """
        if there.get("Status") in ("Deleting", "SystemUpdating"):
            return False
        group = self._group_of(there["InstanceGroupName"])
        current, target = there.get("CurrentCount"), there.get("TargetCount")
        if group is None or current is None:  # undeclared, or counted only in Kubernetes
            return True
        wanted = group.wanted(target, self.is_scaled(group))
        if target is None:
            return bool(current >= wanted)
        return bool(min(wanted, target) <= current <= target)

    def _described(
        self, found: JsonMapping, there: Mapping[str, JsonMapping], labels: Mapping[str, str]
    ) -> Iterator[tuple[str, Json]]:
        """Yield the facts of a description, with lists in the declared order."""
        for member in SETTINGS:
            declared = self.settings.get(member)
            yield from leaves(member, align(setting_of(found, member), declared, member))
        if found.get("ClusterRole"):
            yield "cluster_role", found["ClusterRole"]
        for name in {**{group.name: 0 for group in self.groups}, **there}:
            yield name, THERE if name in there else MISSING
        for name, described_ in there.items():
            group = self._group_of(name)
            members = group.members if group else {}
            for member, value in described(described_).items():
                if member != "OverrideVpcConfig":
                    yield from leaves(member, align(value, members.get(member), member), name)
            vpc = described_.get("OverrideVpcConfig") or {}
            # VpcConfig has at least one of each; otherwise it is not described
            if group and group.placed and vpc.get("SecurityGroupIds") and vpc.get("Subnets"):
                subnets = sorted(labels.get(id_, id_) for id_ in vpc["Subnets"])
                ids = sorted(vpc["SecurityGroupIds"])
                yield f"{name}.{PLACE}", {"SecurityGroupIds": ids, "Subnets": subnets}

    def is_scaled(self, group: GroupSpecification) -> bool:
        """Whether Karpenter sets a group's count.

        Without node pools in the config that is any group's, for others may have created pools.
        """
        return self.scales_itself and (not self.pooled or group.name in self.pooled)

    def _group_of(self, name: str) -> GroupSpecification | None:
        return next((group for group in self.groups if group.name == name), None)

    @cached_property
    def _facts(self) -> JsonMapping:
        return dict(self._spelled())

    def _spelled(self) -> Iterator[tuple[str, Json]]:
        """Yield the facts of the declaration, with None for facts that contain ids."""
        for member in SETTINGS:
            yield from leaves(member, self.settings.get(member))
        if self.scaler:
            yield "cluster_role", None
        for group in self.groups:
            yield group.name, THERE
            yield f"{group.name}.execution_role", None
            for member, value in group.members.items():
                if member not in ("InstanceGroupName", "ExecutionRole", "OverrideVpcConfig") and (
                    member != "InstanceCount" or not self.is_scaled(group)
                ):
                    yield from leaves(member, value, group.name)
            if group.placed:
                yield f"{group.name}.{PLACE}", None
        for prefix, _ in self.mounts:
            yield from ((f"{prefix}.{LUSTRE}.{each}", None) for each in ("dns_name", "mount_name"))

    def names(self, live: Live | None = None) -> Iterable[str]:
        """The declared facts, and the undeclared groups that exist."""
        there: Iterable[str] = live.attributes.get("described", ()) if live else ()
        return dict.fromkeys([*self._facts, *there])

    def authoritative(self, name: str) -> bool:
        """Only the existence of groups."""
        return "." not in name and name not in map(to_config, (*SETTINGS, "ClusterRole"))

    def reverts(self, name: str) -> bool:
        """Settings that UpdateCluster resets, of the cluster and of declared groups.

        Not reset: images, since UpdateClusterSoftware disrupts the nodes (see `renewal`); counts,
        which Karpenter then sets; and zones, since a group without declared zones keeps its own.
        """
        whole = name.partition(".")[0]
        if is_image(name) or member_of(name) in (to_config("InstanceCount"), PLACE):
            return False
        return whole in map(to_config, SETTINGS) or (
            "." in name and self._group_of(whole) is not None
        )

    def expected(self, name: str, references: References) -> Json:
        """Return the member's value in the request, with ids resolved."""
        whole, _, setting = name.partition(".")
        group = self._group_of(whole)
        if name == "cluster_role" and self.scaler:
            return references(self.scaler).arn
        if group and setting == PLACE:
            vpc, subnets = self._vpc((), references), dict(self.zones)
            return {**vpc, "Subnets": sorted(subnets[zone].label for zone in group.zones)}
        if group and setting == "execution_role":
            return group.members.get("ExecutionRole") or references(self.role).arn
        return mounted(self.mounts, name, references) or self._facts.get(name, MISSING)

    @classmethod
    def unpacked(cls, name: str, value: Json) -> Json:
        """Convert the groups to `GroupSpecification`."""
        if name != "groups":
            return value
        names = [each.name for each in fields(GroupSpecification)]
        return tuple(
            GroupSpecification(**{each: group.get(each) for each in names}) for group in value or ()
        )

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; its name is unique in the region.  CreateCluster has no client token."""
        request: JsonObject = {
            "ClusterName": self.name,
            "Orchestrator": {"Eks": {"ClusterArn": references(self.control).arn}},
            **self._settings(references),
            **by_list([(group, self._group(group, references)) for group in self.groups]),
            "VpcConfig": self._vpc(tuple(zone for zone, _ in self.zones), references),
            # managed policies of add-ons require this tag
            "Tags": aws.pairs(self.label, {"SageMaker": "true"}),
        }
        arn = aws.sagemaker.create_cluster(**request)["ClusterArn"]
        aws.signatures[arn] = aws.lineage
        return Live(self.name, arn, owner=aws.lineage, state=State.BUSY, why="Creating")

    def _settings(self, references: References) -> JsonObject:
        found = {member: value for member, value in self.settings.items() if value}
        if self.scaler:
            found["ClusterRole"] = references(self.scaler).arn
        return found

    def _vpc(self, zones: tuple[str, ...], references: References) -> JsonObject:
        subnets = dict(self.zones)
        return {
            "SecurityGroupIds": [references(self.security_group).id],
            "Subnets": sorted(references(subnets[zone]).id for zone in zones),
        }

    def _group(self, group: GroupSpecification, references: References) -> JsonObject:
        """Return a group with all its members: an update resets those that it leaves out.

        It has its own subnets, so that adding a group moves no other group.
        """
        return {
            "ExecutionRole": references(self.role).arn,
            **mounting(group, self.mounts, references),
            "OverrideVpcConfig": self._vpc(group.zones, references),
        }

    def immutable_reason(self, name: str, differs: Differs) -> str:
        """Not all groups can be replaced at once, and the provisioning mode cannot be reset."""
        anew = self._replaced(differs)
        if name == "node_provisioning_mode" and self.settings.get("NodeProvisioningMode") is None:
            return "HyperPod does not go back from Continuous"
        if member_of(name) in map(to_config, KEPT) and all(g.name in anew for g in self.groups):
            return (
                "UpdateCluster does not change it, and HyperPod keeps at least one group: declare "
                "a group of another name in its place"
            )
        return ""

    def _replaced(self, differs: Differs) -> list[str]:
        """Return the names of the groups that have to be replaced."""
        kept = tuple(map(to_config, KEPT))
        return list(
            dict.fromkeys(name.partition(".")[0] for name in differs if member_of(name) in kept)
        )

    def disruption(self, live: Live, differs: Differs) -> list[str]:
        """The nodes that would be deleted or replaced, with their data."""
        return lost_nodes(live.attributes["described"], self._replaced(differs), differs)

    def first(self, differs: Differs) -> Differs:
        """The next update: our tags, then everything for UpdateCluster, then images."""
        if "owner" in differs:
            return {"owner": differs["owner"]}
        others = {name: both for name, both in differs.items() if not is_image(name)}
        if others:
            return others
        # UpdateClusterSoftware sets one image for all groups of a request
        images = [both[1] for name, both in differs.items() if name.endswith(".image_id")]
        alike = {
            name.partition(".")[0]
            for name, (_, image) in differs.items()
            if not images or (name.endswith(".image_id") and image == images[0])
        }
        return {name: both for name, both in differs.items() if name.partition(".")[0] in alike}

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Send the update that `first` selected."""
        if "owner" in differs:
            aws.sagemaker.add_tags(ResourceArn=live.arn, Tags=aws.pairs(self.label))
            return
        if all(map(is_image, differs)):
            renew(aws, self.name, {name: declared for name, (_, declared) in differs.items()})
            return
        request = self._request(live.attributes["described"], references, differs)
        aws.sagemaker.update_cluster(ClusterName=self.name, **request)

    def _request(
        self, there: Mapping[str, JsonMapping], references: References, differs: Differs
    ) -> JsonObject:
        """Return the UpdateCluster request that changes exactly ``differs``."""
        anew = self._replaced(differs)
        specs = [
            (group, self._updated(group, there.get(group.name), references))
            for group in self.groups
            if group.name not in anew
        ]
        declared = {group.name for group in self.groups}
        changed = {name.partition(".")[0] for name in differs}
        # ClusterRole "cannot be updated while autoscaling is enabled" (UpdateCluster): AWS may
        # refuse an unchanged setting, so only changed ones are sent
        settings = {
            member: value
            for member, value in self._settings(references).items()
            if to_config(member) in changed
        }
        request: JsonObject = {**settings, **by_list(specs)}
        if goers := sorted({*anew, *(there.keys() - declared)}):
            request["InstanceGroupsToDelete"] = goers
        for member in ("TieredStorageConfig", "AutoScaling"):
            if to_config(member) in changed and not self.settings.get(member):
                request[member] = {"Mode": "Disable"}
        return request

    def _updated(
        self, group: GroupSpecification, now: JsonMapping | None, references: References
    ) -> JsonObject:
        """Return a group for an update; undeclared counts and zones keep their current values."""
        spec = self._group(group, references)
        if now is not None:
            if self.is_scaled(group):
                spec["InstanceCount"] = now.get("TargetCount", group.instance_count)
            home = now.get("OverrideVpcConfig") or {}
            if not group.placed and home.get("Subnets") and home.get("SecurityGroupIds"):
                spec["OverrideVpcConfig"] = home
        return spec

    def prices(self, *, extended: bool) -> Iterator[Item]:
        """Nodes, their extra volumes and their file systems."""
        for group in self.groups:
            yield from group.prices()

    def delete(self, aws: Aws, live: Live) -> None:
        """Start its deletion; role, network, EKS cluster and bucket must exist until it ends."""
        aws.sagemaker.delete_cluster(ClusterName=self.name)
