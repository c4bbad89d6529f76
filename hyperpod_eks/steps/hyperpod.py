"""The HyperPod cluster: instance groups whose nodes join the EKS cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from typing import Any, ClassVar

from hyperpod_eks import config as configs
from hyperpod_eks import kube
from hyperpod_eks.aws import Aws, Look, absent, owner
from hyperpod_eks.config import GROUP, RESTRICTED, request
from hyperpod_eks.crew import together
from hyperpod_eks.errors import Remains
from hyperpod_eks.frozen import frozen
from hyperpod_eks.model import shape, snake
from hyperpod_eks.resource import MINUTE, Guard, Known, Live, Resource, State
from hyperpod_eks.site import Site
from hyperpod_eks.steps import devices, eks
from hyperpod_eks.steps.iam import Role, Roles
from hyperpod_eks.steps.network import Network, SecurityGroup, Subnet
from hyperpod_eks.steps.s3 import Scripts

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
"""Members of CreateCluster that UpdateCluster takes too, apart from the groups."""
KEPT = {
    "InstanceType": "its type",
    "InstanceRequirements": "its types",
    "OverrideVpcConfig": "its zones",
    "CapacityRequirements": "its kind of capacity",
}
"""Members of a group that it keeps for life (UpdateCluster refuses others): it is made anew."""
PLACE = snake("OverrideVpcConfig")
IMAGE = ("ImageId", "ImageReleaseVersion")
"""Members that UpdateClusterSoftware changes."""
DEFAULTS: dict[str, Any] = {
    "CapacityRequirements": {"OnDemand": {}},
    "DrainTimeoutInSeconds": 3600,
    "IdleWaitWindowInSeconds": 86400,
    "ImageId": "default",
    "OnDrainTimeout": "Skip",
}
"""What AWS describes where a request is silent: no difference."""
DEEP_CHECKS = 240 * MINUTE
"""Seconds that deep health checks may take besides: "60 to 90 minutes" or longer, by the number of
nodes (SageMaker developer guide, pages on deep health checks and on autoscaling)."""
OURS_TO_SKIP = ("ImageReleaseVersion", "S3OutputPath", "Status", "FailureMessage", "AutoScalerType")
"""What AWS decides where a request is silent."""


DENIED = "does not have permission to perform"
GOVERNANCE = (
    (
        "compute quota",
        "list_compute_quotas",
        "ComputeQuotaSummaries",
        "ComputeQuotaId",
        "delete-compute-quota --compute-quota-id",
    ),
    (
        "scheduler policy",
        "list_cluster_scheduler_configs",
        "ClusterSchedulerConfigSummaries",
        "ClusterSchedulerConfigId",
        "delete-cluster-scheduler-config --cluster-scheduler-config-id",
    ),
)
"""What task governance puts on a cluster, and how it is listed and deleted."""


def step(
    site: Site,
    roles: Roles,
    net: Network,
    scripts: Scripts,
    control: eks.Cluster,
    ready: tuple[Resource, ...],
) -> Nodes:
    """Declare the cluster; ``ready`` is what its nodes cannot start without."""
    config = site.config
    logs = LogGroup("log-group", prefix=f"/aws/sagemaker/Clusters/{site.name}/")
    settings = request(config, "CreateCluster.")
    cluster = Cluster(
        "cluster",
        name=site.name,
        control=control,
        role=roles.execution,
        scaler=roles.scaler,
        security_group=net.security_group,
        groups=tuple(_declared(site, group, scripts) for group in config.groups),
        zones=tuple(net.nodes.items()),
        settings={member: settings.get(member) for member in SETTINGS},
        scales_itself=config.scales_itself,
        after=(roles.service_linked, *net.egress, scripts, *ready, logs),
    )
    return Nodes("nodes", cluster=cluster, control=control)


def _declared(
    site: Site, group: configs.InstanceGroup | configs.RestrictedInstanceGroup, scripts: Scripts
) -> InstanceGroup:
    """Spell a group of the configuration as AWS's request has it."""
    restricted = isinstance(group, configs.RestrictedInstanceGroup)
    members = request(group, RESTRICTED if restricted else GROUP)
    volumes = [
        volume
        for each in members.get("InstanceStorageConfigs", ())
        if (volume := each.get("EbsVolumeConfig"))
    ]
    if group.ebs_volume_size_in_gb and not any("VolumeSizeInGB" in each for each in volumes):
        volumes.append({"VolumeSizeInGB": group.ebs_volume_size_in_gb})
        last: Any = {"EbsVolumeConfig": volumes[-1]}
        members["InstanceStorageConfigs"] = [*members.get("InstanceStorageConfigs", ()), last]
    for volume in volumes if site.config.encryption.volumes else ():
        volume.setdefault("VolumeKmsKeyId", site.config.encryption.volumes)
    if not restricted:
        default = {"OnCreate": site.config.lifecycle.on_create}
        own = members.pop("LifeCycleConfig", default)
        if own:
            members["LifeCycleConfig"] = {"SourceS3Uri": scripts.uri, **own}
    return InstanceGroup(
        group.name, restricted, members, site.homes(group), bool(group.availability_zone_ids)
    )


@frozen
class InstanceGroup:
    """One group of like instances (CreateCluster, ClusterInstanceGroupSpecification)."""

    name: str
    restricted: bool
    members: Mapping[str, Any]
    """What the configuration says, in AWS's words; ids of other resources are added when known."""
    zones: tuple[str, ...]
    placed: bool
    """Whether the configuration names the zones; a group that exists else stays where it is."""

    @property
    def instance_type(self) -> str:
        """The type, or the preferred one of several."""
        several = self.members.get("InstanceRequirements", {}).get("InstanceTypes", ())
        return str(self.members.get("InstanceType") or next(iter(several), ""))

    @property
    def instance_count(self) -> int:
        """How many nodes are wanted."""
        return int(self.members["InstanceCount"])

    @property
    def ebs_volume_size_in_gb(self) -> int:
        """The size of the extra volumes, 0 for none."""
        return sum(
            each.get("EbsVolumeConfig", {}).get("VolumeSizeInGB", 0)
            for each in self.members.get("InstanceStorageConfigs", ())
        )


@frozen
class Cluster(Resource):
    """The HyperPod cluster.

    Continuous provisioning makes it InService before any node exists; ready means what users
    mean: every group at its count (at its least count, where it has one).

    Facts are called after group and member: ``workers.instance_count``.
    """

    name: str
    control: eks.Cluster
    role: Role
    scaler: Role | None
    """What Karpenter works with."""
    security_group: SecurityGroup
    groups: tuple[InstanceGroup, ...]
    zones: tuple[tuple[str, Subnet], ...]
    """The nodes' subnets by availability zone id."""
    settings: Mapping[str, Any]
    """Members of the request that are about the whole cluster (``SETTINGS``)."""
    scales_itself: bool
    """Whether Karpenter says how many nodes there are."""

    step = "hyperpod"
    patience = 90 * MINUTE
    usual = "10 to 25 min"
    typical = 720.0
    typical_change = 480.0  # of a scale-up, the commonest
    guards: ClassVar[Mapping[str, Guard]] = {
        "instance_storage_configs": lambda is_, volumes: (
            f"volumes of new nodes are not encrypted with {', '.join(sorted(lost))} any more"
            if (lost := _volume_keys(is_)) and not _volume_keys(volumes)
            else ""
        ),
    }

    @property
    def longest_wait(self) -> float:
        """Deep health checks take hours, and a node counts as running when it has passed them."""
        return self.patience + (DEEP_CHECKS if _checked(self.groups) else 0.0)

    def needs(self) -> Iterator[Resource]:
        """Subnets are named with their zones."""
        yield from super().needs()
        yield from (subnet for _, subnet in self.zones)

    def seeds(self) -> Iterator[Resource]:
        """All but the VPC CNI, which no node asks for in the first minutes."""
        yield from (need for need in self.needs() if need.step != "addons")

    def forerunners(self) -> Iterator[Resource]:
        """The VPC CNI: HyperPod looks at its version."""
        yield from (need for need in self.needs() if need.step == "addons")

    def find(self, look: Look) -> Sequence[Live]:
        """By name."""
        found = describe(look, self.name)
        if found is None:
            return []
        labels = self._labels(look)
        arn, signed = found["ClusterArn"], look.aws.signatures
        if arn not in signed:
            tags = look.all(look.aws.sagemaker, "list_tags", "Tags", ResourceArn=arn)
            if owner(tags) is None:  # it may be signed yet
                return [self._live(found, None, labels)]
            signed[arn] = owner(tags)
        if signed[arn] == look.aws.lineage:
            look.aws.recorded.add(arn)
        live = self._live(found, signed[arn], labels)
        if live.state is State.BUSY and (event := newest_event(look.aws, found)):
            live = replace(live, why=f"{live.why}; {event}", mark=(live.mark, event))
        if live.state is State.LEAVING and live.owner == look.aws.lineage:
            live = self._leaving(look, live)
        return [live]

    def _leaving(self, look: Look, live: Live) -> Live:
        """Add what its nodes say, once a minute.  Raises Remains for what no waiting heals.

        HyperPod takes the nodes' interfaces down with the rights of the execution role; without
        them the cluster stays ``Deleting`` for ever, and only a node's message says so.
        """
        said: list[str] = []
        if look.aws.seldom(("leaving", live.arn), MINUTE):
            with suppress(Exception):  # a courtesy, but for what it says
                rows = instances(look, self.name)
                said = [text for each in rows if (text := each["InstanceStatus"].get("Message"))]
        for text in said:
            if DENIED in text:
                raise Remains(
                    f"hyperpod/cluster: HyperPod cannot delete its nodes: {text}",
                    "The nodes' role needs that permission to the end of the cluster. Put its "
                    "policy back (create does, or add the action); AWS then goes on by itself.",
                )
        return replace(live, why=f"{live.why}; {said[0]}") if said else live

    def holders(self, look: Look, live: Live) -> list[str]:
        """Quotas and policies of task governance (SageMaker developer guide, "Troubleshoot").

        This tool creates none.
        """
        sagemaker, region = look.aws.sagemaker, look.aws.session.region_name
        return [
            f"{words} {each.get('Name')} ({each[member]}): aws sagemaker {command} "
            f"{each[member]} --region {region}"
            for words, method, key, member, command in GOVERNANCE
            for each in look.all(sagemaker, method, key, ClusterArn=live.arn)
            if each.get("Status") not in ("Deleting", "Deleted")
        ]

    def _labels(self, look: Look) -> dict[str, str]:
        """Call the nodes' subnets by label: one that comes tells where a group shall go."""
        if not any(group.placed for group in self.groups):
            return {}
        return {
            each["SubnetId"]: subnet.label
            for _, subnet in self.zones
            for each in look.ec2("describe_subnets", "Subnets", subnet.label)
        }

    def _live(
        self, found: Mapping[str, Any], signed: str | None, labels: Mapping[str, str]
    ) -> Live:
        groups = every_group(found)
        running = sum(group.get("CurrentCount", 0) for group in groups)
        target = sum(group.get("TargetCount", 0) for group in groups)
        why = f"{found['ClusterStatus']}, {running} of {target} nodes running"
        if found.get("FailureMessage"):
            why = f"{found['FailureMessage']} ({found['ClusterStatus']})"
        facts: dict[str, Any] = {}
        for member in SETTINGS:
            facts[snake(member)] = _seen(self.settings.get(member), _setting(found, member))
        declared = {group.name: group for group in self.groups}
        there = {g["InstanceGroupName"]: g for g in groups if g.get("Status") != "Deleting"}
        for name in {**declared, **there}:
            facts[name] = "there" if name in there else "absent"
            if name in declared and name in there:
                facts |= self._facts(declared[name], there[name])
            if name in declared and declared[name].placed and name in there:
                vpc = there[name].get("OverrideVpcConfig", {})
                facts[f"{name}.{PLACE}"] = {
                    "SecurityGroupIds": sorted(vpc.get("SecurityGroupIds", ())),
                    "Subnets": sorted(labels.get(id_, id_) for id_ in vpc.get("Subnets", ())),
                }
        state = STATES.get(found["ClusterStatus"], State.BUSY)
        if state is State.READY and not all(map(is_settled, groups)) and not self._outdated(facts):
            state = State.BUSY
        return Live(
            self.name,
            found["ClusterArn"],
            owner=signed,
            state=state,
            why=why,
            facts=facts,
            mark=tuple((g["InstanceGroupName"], g.get("CurrentCount", 0)) for g in groups),
            attributes={
                "status": found["ClusterStatus"],
                "failure": found.get("FailureMessage", ""),
                "described": there,
                "groups": [
                    {
                        "name": group["InstanceGroupName"],
                        "instance_type": instance_types(group),
                        "status": group.get("Status", ""),
                        "current": group.get("CurrentCount", 0),
                        "target": group.get("TargetCount", 0),
                    }
                    for group in groups
                ],
            },
        )

    def _facts(self, group: InstanceGroup, there: Mapping[str, Any]) -> dict[str, Any]:
        """What a described group has of what its declaration says, or AWS would not by default."""
        seen, facts = described(there), {}
        declared = {
            **group.members,
            "ExecutionRole": group.members.get("ExecutionRole", ""),
        }
        for member in {**declared, **seen}:
            if member == "InstanceGroupName" or (member == "InstanceCount" and self.scales_itself):
                continue
            if member in declared or (member not in OURS_TO_SKIP and member != "OverrideVpcConfig"):
                value = _seen(declared.get(member), seen.get(member), member)
                if member in declared or value not in (None, {}):  # else AWS filled all of it in
                    facts[f"{group.name}.{snake(member)}"] = value
        return facts

    def _outdated(self, facts: Mapping[str, Any]) -> bool:
        """Whether the groups that come up are not the declared ones, as far as no id tells."""
        return any(
            value != self._expected(name)
            for name, value in facts.items()
            if not name.endswith((".execution_role", f".{PLACE}"))
        )

    def _expected(self, name: str, known: Known | None = None) -> Any:
        for member in SETTINGS:
            if name == snake(member):
                return self.settings.get(member)
        name, _, setting = name.partition(".")
        group = next((group for group in self.groups if group.name == name), None)
        if not setting:
            return "there" if group else "absent"
        assert group
        if known and setting == PLACE:
            vpc, subnets = self._vpc((), known), dict(self.zones)
            return {**vpc, "Subnets": sorted(subnets[zone].label for zone in group.zones)}
        if known and setting == "execution_role":
            return group.members.get("ExecutionRole") or known(self.role).arn
        return next((v for member, v in group.members.items() if snake(member) == setting), None)

    def expected(self, name: str, known: Known) -> Any:
        """Look the member up in the request that would be sent."""
        return self._expected(name, known)

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """The name is unique in the region; there is no token."""
        request: dict[str, Any] = {
            "ClusterName": self.name,
            "Orchestrator": {"Eks": {"ClusterArn": known(self.control).arn}},
            **self._settings(known),
            **self._groups([(group, self._group(group, known)) for group in self.groups]),
            "VpcConfig": self._vpc(tuple(zone for zone, _ in self.zones), known),
            # managed add-on policies ask for this tag
            "Tags": aws.pairs(self.label, {"SageMaker": "true"}),
        }
        arn = aws.sagemaker.create_cluster(**request)["ClusterArn"]
        aws.signatures[arn] = aws.lineage
        return Live(self.name, arn, owner=aws.lineage, state=State.BUSY, why="Creating")

    def _settings(self, known: Known) -> dict[str, Any]:
        found = {member: value for member, value in self.settings.items() if value}
        if self.scaler:
            found["ClusterRole"] = known(self.scaler).arn
        return found

    @staticmethod
    def _groups(specs: Sequence[tuple[InstanceGroup, Any]]) -> dict[str, Any]:
        """Restricted groups have a list of their own."""
        lists = {
            "InstanceGroups": [spec for group, spec in specs if not group.restricted],
            "RestrictedInstanceGroups": [spec for group, spec in specs if group.restricted],
        }
        return {member: specs for member, specs in lists.items() if specs}

    def _vpc(self, zones: tuple[str, ...], known: Known) -> dict[str, Any]:
        subnets = dict(self.zones)
        return {
            "SecurityGroupIds": [known(self.security_group).id],
            "Subnets": sorted(known(subnets[zone]).id for zone in zones),
        }

    def _group(self, group: InstanceGroup, known: Known) -> dict[str, Any]:
        """Spell a group whole: what an update leaves out is reset.

        Each has subnets of its own, so that a group that comes later moves no other.
        """
        return {
            "ExecutionRole": known(self.role).arn,
            **group.members,
            "OverrideVpcConfig": self._vpc(group.zones, known),
        }

    def bars(self, name: str, differs: Mapping[str, tuple[Any, Any]]) -> str:
        """A group cannot be made anew while it is the only one, nor the mode taken back."""
        setting = name.partition(".")[2]
        anew = self._replaced(differs)
        if name == "node_provisioning_mode" and self.settings.get("NodeProvisioningMode") is None:
            return "HyperPod does not go back from Continuous"
        if setting in map(snake, KEPT) and all(g.name in anew for g in self.groups):
            return (
                "UpdateCluster does not change it, and HyperPod keeps at least one group: declare "
                "a group of another name in its place"
            )
        return ""

    def _replaced(self, differs: Mapping[str, tuple[Any, Any]]) -> list[str]:
        """Name the groups that have to be made anew."""
        kept = tuple(map(snake, KEPT))
        return list(
            dict.fromkeys(
                name.partition(".")[0] for name in differs if name.partition(".")[2] in kept
            )
        )

    def loses(self, live: Live, differs: Mapping[str, tuple[Any, Any]]) -> list[str]:
        """Nodes that go, with all that is on them."""
        there = live.attributes["described"]
        lines = []
        anew = self._replaced(differs)
        for name in anew:
            count = there[name].get("CurrentCount", 0)
            why = " and ".join(KEPT[m] for m in KEPT if f"{name}.{snake(m)}" in differs)
            lines.append(f"instance group {name}: {_its(count, 'replaced')}, to change {why}")
        for name, (is_, declared) in differs.items():
            group, _, setting = name.partition(".")
            if setting == "instance_count" and declared < is_ and group not in anew:
                lines.append(f"instance group {group}: {is_ - declared} of its {is_} nodes go")
            elif not setting and (is_, declared) == ("there", "absent"):
                count = there[group].get("CurrentCount", 0)
                lines.append(f"instance group {group}: it goes, with {_its(count)}")
        renewed = [name.partition(".")[0] for name in differs if _is_image(name)]
        return lines + [
            renewal(name, there[name].get("CurrentCount", 0))
            for name in dict.fromkeys(renewed)
            if name not in anew
        ]

    def settle(self, aws: Aws, known: Known, live: Live) -> None:
        """One update at a time; the next look asks for the next."""
        if live.owner is None:
            aws.sagemaker.add_tags(ResourceArn=live.arn, Tags=aws.pairs(self.label))
            return
        there = live.attributes["described"]
        differs = {
            name: (value, shall)
            for name, value in live.facts.items()
            if value != (shall := self._expected(name, known))
        }
        images = {name: shall for name, (_, shall) in differs.items() if _is_image(name)}
        if images and len(images) == len(differs):
            self._renew(aws, images)
            return
        anew = self._replaced(differs)
        specs = []
        for group in self.groups:
            if group.name in anew:
                continue
            spec = self._group(group, known)
            if group.name in there:
                if self.scales_itself:
                    spec["InstanceCount"] = there[group.name]["TargetCount"]
                if not group.placed:
                    spec["OverrideVpcConfig"] = there[group.name].get("OverrideVpcConfig")
            specs.append((group, {k: v for k, v in spec.items() if v is not None}))
        declared = {group.name for group in self.groups}
        request: dict[str, Any] = {**self._settings(known), **self._groups(specs)}
        if goers := sorted({*anew, *(there.keys() - declared)}):
            request["InstanceGroupsToDelete"] = goers
        for member in ("TieredStorageConfig", "AutoScaling"):
            if live.facts[snake(member)] and not self.settings.get(member):
                request[member] = {"Mode": "Disable"}
        aws.sagemaker.update_cluster(ClusterName=self.name, **request)

    def _renew(self, aws: Aws, images: Mapping[str, Any]) -> None:
        """Give one image to the groups that shall have it."""
        image = next((v for name, v in images.items() if name.endswith(".image_id")), None)
        groups: list[Any] = []
        for name in dict.fromkeys(each.partition(".")[0] for each in images):
            if image is not None and images.get(f"{name}.image_id") != image:
                continue
            release = images.get(f"{name}.image_release_version")
            groups.append(
                {"InstanceGroupName": name, **({"ImageReleaseVersion": release} if release else {})}
            )
        update: dict[str, Any] = {"ImageId": image} if image else {}
        aws.sagemaker.update_cluster_software(
            ClusterName=self.name, InstanceGroups=groups, **update
        )

    def delete(self, aws: Aws, live: Live) -> None:
        """Role, network, EKS cluster and bucket must outlive it."""
        aws.sagemaker.delete_cluster(ClusterName=self.name)


def _checked(groups: Sequence[object]) -> list[str]:
    """Name the groups whose nodes pass deep health checks before they take pods."""
    return [
        group.name
        for group in groups or ()
        if isinstance(group, InstanceGroup) and group.members.get("OnStartDeepHealthChecks")
    ]


def renewal(group: str, count: int) -> str:
    """Say what a group's nodes lose with UpdateClusterSoftware, which drains nothing."""
    return (
        f"instance group {group}: {_its(count)} get{'s' * (count == 1)} a new image; pods are not"
        " drained, and root volumes are replaced"
    )


def _its(count: int, done: str = "") -> str:
    """Speak of a group's nodes, and of what is done to them.

    >>> _its(2), _its(1, "replaced")
    ('its 2 nodes', 'its one node is replaced')
    """
    if count == 1:
        return "its one node" + (f" is {done}" if done else "")
    return f"its {count} nodes" + (f" are {done}" if done else "")


def _is_image(name: str) -> bool:
    return name.partition(".")[2] in map(snake, IMAGE)


def every_group(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List the groups that DescribeCluster shows, the restricted ones last."""
    return [*found.get("InstanceGroups", ()), *found.get("RestrictedInstanceGroups", ())]


def enough(group: Mapping[str, Any]) -> int:
    """Say how many nodes make a described group ready."""
    least = group.get("MinCount")
    return int(group.get("TargetCount", 0) if least is None else least)


def is_settled(group: Mapping[str, Any]) -> bool:
    """Whether a described group has its nodes and neither makes nor loses any."""
    if group.get("Status") in ("Deleting", "SystemUpdating"):
        return False
    return enough(group) <= int(group.get("CurrentCount", 0)) <= int(group.get("TargetCount", 0))


def instance_types(group: Mapping[str, Any]) -> str:
    """Name the type of a described group, or its types."""
    several = group.get("InstanceRequirements", {}).get("CurrentInstanceTypes", ())
    return str(group.get("InstanceType") or ", ".join(several))


def _volume_keys(volumes: Iterable[Mapping[str, Any]] | None) -> set[str]:
    """Return the KMS keys of a group's extra volumes (ClusterEbsVolumeConfig)."""
    found = ((each or {}).get("EbsVolumeConfig") or {} for each in volumes or ())
    return {key for each in found if (key := each.get("VolumeKmsKeyId"))}


def described(group: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a described group into the words of the request (ClusterInstanceGroupSpecification)."""
    shapes = "ClusterInstanceGroupSpecification", "ClusterRestrictedInstanceGroupSpecification"
    members = {m for name in shapes for m in shape("sagemaker", name)["members"]}
    found = {k: v for k, v in group.items() if k in members}
    found["InstanceCount"] = group.get("TargetCount")
    found["MinInstanceCount"] = group.get("MinCount")
    for member in IMAGE:
        found[member] = group.get(f"Desired{member}", group.get(f"Current{member}"))
    for member in ("InstanceRequirements", "KubernetesConfig", "AutoPatchConfig"):
        if member in found:
            found[member] = _desired(found[member])
    return {k: v for k, v in found.items() if v not in (None, {}, [])}


def _desired(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of ``CurrentX`` and ``DesiredX``, take the latter as ``X``."""
    return {
        key.removeprefix("Desired"): value
        for key, value in config.items()
        if not key.startswith("Current") and value not in ([], {})
    }


def _setting(found: Mapping[str, Any], member: str) -> Any:
    """Read a member of the whole cluster; what is switched off counts as not there."""
    value = found.get(member)
    if isinstance(value, Mapping):
        if value.get("Mode") == "Disable":
            return None
        if shared := value.get("SharedEnvironmentConfig"):
            return {"SharedEnvironmentConfig": _desired(shared)}
    return value


def _seen(declared: Any, there: Any, member: str = "") -> Any:
    """Reduce what AWS describes to what can differ from a declaration.

    What the declaration leaves out and AWS fills in is dropped; lists of subnets have no order.
    """
    if declared is None and there == DEFAULTS.get(member, ...):
        return None
    if isinstance(there, Mapping) and member != "Labels":
        mine = declared if isinstance(declared, Mapping) else {}
        return {
            key: _seen(mine.get(key), value, key)
            for key, value in there.items()
            if key in mine or (key not in OURS_TO_SKIP and value != DEFAULTS.get(key, ...))
        }
    if isinstance(there, list):
        if member in ("Subnets", "SecurityGroupIds"):
            return sorted(there)
        asked = declared if isinstance(declared, list) else []
        return [_seen(wanted, each) for wanted, each in zip_longest(asked[: len(there)], there)]
    if isinstance(there, datetime) and isinstance(declared, str):
        return declared if _moment(declared) == there else there.isoformat()
    return there


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def describe(look: Look, name: str) -> dict[str, Any] | None:
    """Describe a HyperPod cluster, once for all who ask in this look; None when there is none."""

    def ask() -> dict[str, Any] | None:
        # the model says ResourceNotFound; emulators answer with ValidationException
        with (
            absent("ResourceNotFound"),
            absent("ValidationException", says="Could not find cluster"),
        ):
            return dict(look.aws.sagemaker.describe_cluster(ClusterName=name))
        return None

    return look.once(("hyperpod", name), ask)


def events(aws: Aws, name: str, most: int, **asked: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a cluster's newest events, newest first, page by page.

    AWS keeps events of clusters with continuous provisioning only; for others there are none.
    ``asked`` are further members of ListClusterEvents.
    """
    from botocore.exceptions import ClientError  # noqa: PLC0415

    request: dict[str, Any] = {"ClusterName": name, "SortOrder": "Descending", **asked}
    try:
        while most > 0:
            answer = aws.sagemaker.list_cluster_events(**request, MaxResults=min(most, 100))
            yield from answer["Events"]
            most -= len(answer["Events"])
            if not (following := answer.get("NextToken")):
                return
            request["NextToken"] = following
    except ClientError as error:
        if error.response["Error"].get("Code") != "ValidationException":
            raise


def newest_event(aws: Aws, found: Mapping[str, Any]) -> str:
    """Return what happened last in a described cluster; a courtesy, so that nothing may fail."""
    if found.get("NodeProvisioningMode") != "Continuous":
        return ""
    with suppress(Exception):
        for event in events(aws, found["ClusterName"], 1):
            return str(event["Description"])
    return ""


def instances(look: Look, name: str) -> list[Any]:
    """List a cluster's instances, once for all who ask in this look."""
    return look.all(
        look.aws.sagemaker,
        "list_cluster_nodes",
        "ClusterNodeSummaries",
        ClusterName=name,
        PaginationConfig={"PageSize": 100},
    )


def node_rows(look: Look, name: str, registered: Sequence[kube.Node]) -> list[dict[str, Any]]:
    """Join what HyperPod and Kubernetes say of each node, one row an instance."""
    with absent("ResourceNotFound"):
        found = instances(look, name)
        seen = {node.instance_id: node for node in registered}
        rows = []
        for each in found:
            node = seen.get(each["InstanceId"])
            rows.append(
                {
                    "name": node.name if node else "",
                    "instance_id": each["InstanceId"],
                    "instance_group": each["InstanceGroupName"],
                    "instance_type": each["InstanceType"],
                    "status": each["InstanceStatus"]["Status"],
                    "ready": bool(node and node.ready),
                    "health": node.health if node else "",
                    "why": each["InstanceStatus"].get("Message") or (node.why if node else ""),
                }
            )
        return rows
    return []


@frozen
class Nodes(Resource):
    """The nodes as Kubernetes sees them: registered and Ready.

    Nothing that we make or delete: HyperPod registers them and takes them away.
    """

    cluster: Cluster
    control: eks.Cluster

    step = "hyperpod"
    awaited = True
    patience = 30 * MINUTE

    @property
    def longest_wait(self) -> float:
        """As the cluster: deep health checks take hours."""
        return self.patience + (DEEP_CHECKS if _checked(self.cluster.groups) else 0.0)

    def find(self, look: Look) -> Sequence[Live]:
        """Through the Kubernetes API."""
        found, access = together(
            partial(describe, look, self.cluster.name), partial(eks.access, look, self.control.name)
        )
        if found is None or access is None:
            return []
        wanted = sum(map(enough, every_group(found)))
        try:
            nodes = look.once("nodes", lambda: kube.nodes(access, self.cluster.name))
        except kube.KubeNotReady as error:
            return [Live("", state=State.BUSY, why=str(error))]
        checked = _checked(self.cluster.groups)
        checking = [node for node in nodes if node.checking and node.instance_group in checked]
        ready = sum(node.ready for node in nodes if node not in checking)
        why = f"{ready} of {wanted} nodes Ready in Kubernetes"
        if checking:
            why += f"; {len(checking)} under deep health checks, which take 1 to 2 hours or longer"
        kubelets = sorted({node.kubelet.rpartition(".")[0] for node in nodes if node.kubelet})
        behind = [v for v in kubelets if v != eks.describe(look, self.control.name)[0]["version"]]
        if behind:
            why += f"; kubelet {', '.join(behind)} until `hyperpod-eks update-software`"
        enough_ready = ready >= wanted
        return [
            Live(
                "",
                state=State.READY if enough_ready else State.BUSY,
                warnings=devices.lacking(look, nodes) if enough_ready else (),
                why=why,
                mark=(len(nodes), len(checking), ready),
                attributes={"nodes": nodes},
            )
        ]

    def delete(self, aws: Aws, live: Live) -> None:
        """HyperPod does."""


@frozen
class LogGroup(Resource):
    """HyperPod's log groups, which the service makes and nobody removes.

    Each is called after the id of its cluster, the end of its ARN (SageMaker developer guide,
    "HyperPod lifecycle scripts": ``/aws/sagemaker/Clusters/NAME/ID``).  Ours are those of the ids
    that the journal has, or that were seen to be ours; others had the name before or after us.
    """

    prefix: str

    step = "hyperpod"
    made = False

    def find(self, look: Look) -> Sequence[Live]:
        """By prefix: one group for each cluster that had this name."""
        groups = look.all(
            look.aws.logs, "describe_log_groups", "logGroups", logGroupNamePrefix=self.prefix
        )
        names = [group["logGroupName"] for group in groups]
        ids = {arn.rpartition("/")[2] for arn in look.aws.recorded}
        ours = [name for name in names if name.removeprefix(self.prefix) in ids]
        others = [name for name in names if name not in ours]
        lives = []
        if ours:
            lives.append(Live(", ".join(ours), owner=look.aws.lineage, attributes={"names": ours}))
        if others:
            whose = {"whose": f"another cluster of that name: {', '.join(others)}"}
            lives.append(Live(", ".join(others), owner="unknown", attributes=whose))
        return lives

    def delete(self, aws: Aws, live: Live) -> None:
        """After the cluster: it writes until the end."""
        for name in live.attributes["names"]:
            aws.logs.delete_log_group(logGroupName=name)
