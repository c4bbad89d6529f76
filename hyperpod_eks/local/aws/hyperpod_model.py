"""A HyperPod cluster as the embedded stack keeps it, and as SageMaker describes it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hyperpod_eks.local.aws.sim import current
from hyperpod_eks.local.aws.wire import new_uuid

Document = dict[str, Any]

#: States of a node that is there: it counts in CurrentCount.
PRESENT = ("Running", "SystemUpdating", "DeepHealthCheckInProgress")
#: What the nodes run at first, and after UpdateClusterSoftware.
FIRST_RELEASE, NEXT_RELEASE = "1.0.0", "1.1.0"
_DEFAULT_IMAGE = "default"
#: Events of a cluster that are kept, the newest, in 12 MB. A Continuous cluster whose group cannot
#: have its nodes writes some every five minutes, for ever.
KEPT_EVENTS = 10_000


@dataclass(eq=False)
class Node:
    """One instance; its status changes through ``Node.become`` alone, which keeps the counts."""

    group: Group
    id: str
    logical_id: str
    instance_type: str
    threads_per_core: int
    launched: datetime
    subnet: Any
    """moto's Subnet."""
    release: str
    eni_id: str = ""
    private_ip: str = ""
    status: str = "Pending"
    message: str = ""
    updated: datetime | None = None
    joined: bool = False
    deep_check: str = ""
    """How its last deep health check ended: Passed or Failed."""

    def __post_init__(self) -> None:
        self.group.counts[self.status] += 1

    @property
    def kubernetes_name(self) -> str:
        """The name of its Kubernetes node."""
        return f"hyperpod-{self.id}"

    @property
    def provider_id(self) -> str:
        """The `spec.providerID` of its Kubernetes node."""
        place = f"aws:///{self.subnet.availability_zone_id}/sagemaker/cluster"
        return f"{place}/hyperpod-{self.group.cluster.id}-{self.id}"

    def become(self, status: str, message: str = "") -> None:
        """Change the status."""
        self.group.counts[self.status] -= 1
        self.group.counts[status] += 1
        self.status, self.message = status, message

    def summary(self, *, logical: bool) -> Document:
        """Return the ClusterNodeSummary."""
        return {
            "InstanceGroupName": self.group.name,
            "InstanceId": self.id,
            "NodeLogicalId": self.logical_id if logical else None,
            "InstanceType": self.instance_type,
            "LaunchTime": self.launched,
            "LastSoftwareUpdateTime": self.updated,
            "InstanceStatus": {"Status": self.status, "Message": self.message},
            "PrivateDnsHostname": self._hostname(),
            "CurrentImageReleaseVersion": self.release,
            "ImageVersionStatus": _image_status(self.release),
        }

    def details(self) -> Document:
        """Return the ClusterNodeDetails."""
        spec = self.group.spec
        return {
            **self.summary(logical=True),
            "LifeCycleConfig": spec.get("LifeCycleConfig"),
            "OverrideVpcConfig": spec.get("OverrideVpcConfig"),
            "ThreadsPerCore": self.threads_per_core,
            "InstanceStorageConfigs": spec.get("InstanceStorageConfigs"),
            "PrivatePrimaryIp": self.private_ip or None,
            "Placement": {
                "AvailabilityZone": self.subnet.availability_zone,
                "AvailabilityZoneId": self.subnet.availability_zone_id,
            },
            "CurrentImageId": spec.get("ImageId") or _DEFAULT_IMAGE,
            "DesiredImageId": spec.get("ImageId") or _DEFAULT_IMAGE,
            "DesiredImageReleaseVersion": self.group.release,
            "KubernetesConfig": _current_and_desired(spec.get("KubernetesConfig")),
            "CapacityType": "Spot" if is_spot(spec) else "OnDemand",
            "NetworkInterface": spec.get("NetworkInterface"),
        }

    def _hostname(self) -> str | None:
        name = f"ip-{self.private_ip.replace('.', '-')}"
        region = self.subnet.availability_zone[:-1]
        return f"{name}.{region}.compute.internal" if self.private_ip else None


@dataclass(eq=False)
class Group:
    """An instance group; ``spec`` is the ClusterInstanceGroupSpecification of the last request."""

    cluster: Cluster
    spec: Document
    restricted: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    """Nodes by status."""
    launched: int = 0
    """Nodes ever launched, which decides the subnet of the next one."""
    reached: bool = False
    """Whether the target was reached since the group was made."""
    release: str = FIRST_RELEASE
    update_status: str | None = None
    leaving: bool = False
    trouble: str = ""
    """Why nodes are missing, while HyperPod keeps trying."""

    @property
    def name(self) -> str:
        """The group's name."""
        return str(self.spec["InstanceGroupName"])

    @property
    def target(self) -> int:
        """How many nodes are wanted."""
        return int(self.spec["InstanceCount"])

    @target.setter
    def target(self, count: int) -> None:
        self.spec = {**self.spec, "InstanceCount": count}

    @property
    def minimum(self) -> int | None:
        """How many nodes make the group InService; None: all."""
        return self.spec.get("MinInstanceCount")

    @property
    def current(self) -> int:
        """How many nodes are there."""
        return sum(self.counts[status] for status in PRESENT)

    @property
    def is_settled(self) -> bool:
        """Whether there are as many nodes as wanted and none on its way in or out."""
        return self.current == self.target == len(self.nodes)

    @property
    def instance_types(self) -> list[str]:
        """The instance types, the preferred one first."""
        requirements = self.spec.get("InstanceRequirements") or {}
        return (
            [self.spec["InstanceType"]]
            if "InstanceType" in self.spec
            else list(requirements["InstanceTypes"])
        )

    @property
    def vpc_config(self) -> Document:
        """The subnets and security groups that its nodes are put into."""
        config: Document = self.spec.get("OverrideVpcConfig") or self.cluster.members["VpcConfig"]
        return config

    @property
    def status(self) -> str:
        """The InstanceGroupStatus."""
        if self.leaving or self.cluster.status == "Deleting":
            return "Deleting"
        if self.cluster.status == "Failed":
            return "Failed"
        if self.counts["SystemUpdating"] or self.update_status == "InProgress":
            return "SystemUpdating"
        enough = self.target if self.minimum is None else min(self.minimum, self.target)
        if self.current >= enough and (self.current <= self.target):
            return "InService"
        if self.trouble:
            return "Degraded"
        return "Updating" if self.reached else "Creating"

    @property
    def scale(self) -> Document:
        """The counts as operations show them."""
        return {"CurrentCount": self.current, "TargetCount": self.target, "MinCount": self.minimum}

    def details(self) -> Document:
        """Return the ClusterInstanceGroupDetails, or those of a restricted group."""
        spec, current_ = self.spec, self.current
        scaling = self.cluster.continuous and not self.is_settled
        return {
            **{k: v for k, v in spec.items() if k not in _RESHAPED},
            "CurrentCount": current_,
            "TargetCount": self.target,
            "MinCount": self.minimum,
            "TargetStateCount": self.counts["Running"],
            "Status": self.status,
            "ThreadsPerCore": spec.get("ThreadsPerCore") or 1,
            "InstanceRequirements": _types(spec.get("InstanceRequirements")),
            "InstanceTypeDetails": self._by_type() if "InstanceRequirements" in spec else None,
            "CurrentImageId": spec.get("ImageId") or _DEFAULT_IMAGE,
            "DesiredImageId": spec.get("ImageId") or _DEFAULT_IMAGE,
            "CurrentImageReleaseVersion": self.release,
            "DesiredImageReleaseVersion": self.release,
            "ImageVersionStatus": _image_status(self.release),
            "SoftwareUpdateStatus": self.update_status,
            "ActiveOperations": {"Scaling": 1} if scaling else None,
            "TrainingPlanStatus": "Active" if spec.get("TrainingPlanArn") else None,
            "KubernetesConfig": _current_and_desired(spec.get("KubernetesConfig")),
            "AutoPatchConfig": _patching(spec.get("AutoPatchConfig")),
            "EnvironmentConfig": spec.get("EnvironmentConfig"),
        }

    def _by_type(self) -> list[Document]:
        threads = self.spec.get("ThreadsPerCore") or 1
        present = Counter(n.instance_type for n in self.nodes.values() if n.status in PRESENT)
        return [
            {"InstanceType": kind, "CurrentCount": present[kind], "ThreadsPerCore": threads}
            for kind in self.instance_types
        ]


_RESHAPED = (
    "InstanceCount",
    "MinInstanceCount",
    "InstanceRequirements",
    "KubernetesConfig",
    "AutoPatchConfig",
    "ImageId",
    "ImageReleaseVersion",
)


@dataclass(eq=False)
class Cluster:
    """A cluster; ``members`` are those of CreateCluster that DescribeCluster answers again."""

    name: str
    id: str
    arn: str
    created: datetime
    members: Document
    tags: dict[str, str]
    status: str = "Creating"
    failure_message: str | None = None
    groups: dict[str, Group] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    """Every node by id, oldest first."""
    events: deque[Document] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    """ClusterEventDetail documents, oldest first."""
    operations: dict[str, Document] = field(default_factory=dict)
    """DescribeClusterOperation's answers by id, oldest first."""
    before: dict[str, Document] | None = None
    """During an update in the classic mode: the groups' specifications to roll back to."""
    answered: dict[str, tuple[float, list[Node], list[Document]]] = field(default_factory=dict)
    """By ClientToken of BatchAddClusterNodes: when, the nodes added, what failed."""

    @property
    def eks_arn(self) -> str:
        """The EKS cluster that orchestrates it."""
        return str(self.members["Orchestrator"]["Eks"]["ClusterArn"])

    @property
    def continuous(self) -> bool:
        """Whether nodes come and go each for itself (NodeProvisioningMode)."""
        return self.members.get("NodeProvisioningMode") == "Continuous"

    @property
    def log_group(self) -> str:
        """The CloudWatch log group that it writes to."""
        return f"/aws/sagemaker/Clusters/{self.name}/{self.id}"

    def roles(self) -> list[str]:
        """Return the ARNs of its execution roles."""
        return sorted({group.spec["ExecutionRole"] for group in self.groups.values()})

    def describe(self) -> Document:
        """Return DescribeCluster's answer."""
        groups = self.groups.values()
        return {
            **self.members,
            "ClusterArn": self.arn,
            "ClusterName": self.name,
            "ClusterStatus": self.status,
            "CreationTime": self.created,
            "FailureMessage": self.failure_message,
            "InstanceGroups": [group.details() for group in groups if not group.restricted],
            "RestrictedInstanceGroups": [g.details() for g in groups if g.restricted] or None,
            "RestrictedInstanceGroupsConfig": _shared(
                self.members.get("RestrictedInstanceGroupsConfig")
            ),
            "AutoScaling": self._auto_scaling(),
        }

    def _auto_scaling(self) -> Document | None:
        wanted = self.members.get("AutoScaling")
        state = "Creating" if self.status == "Creating" else "InService"
        return {"AutoScalerType": "Karpenter", **wanted, "Status": state} if wanted else None

    def summary(self) -> Document:
        """Return the ClusterSummary."""
        plans = {group.spec.get("TrainingPlanArn") for group in self.groups.values()}
        return {
            "ClusterArn": self.arn,
            "ClusterName": self.name,
            "CreationTime": self.created,
            "ClusterStatus": self.status,
            "TrainingPlanArns": sorted(filter(None, plans)),
        }

    def event(
        self,
        text: str,
        *,
        level: str = "Info",
        group: str | None = None,
        node: str | None = None,
        metadata: Document | None = None,
    ) -> None:
        """Note what happened to the cluster, to a group or to a node."""
        kind = "Instance" if node else "InstanceGroup" if group else "Cluster"
        sim = current()
        self.events.append(
            {
                "EventId": new_uuid(sim.ids),
                "ClusterArn": self.arn,
                "ClusterName": self.name,
                "InstanceGroupName": group,
                "InstanceId": node,
                "ResourceType": kind,
                "EventTime": sim.clock.now(),
                "Description": text,
                "EventLevel": level,
                "EventDetails": {"EventMetadata": {kind: metadata or {}}},
            }
        )

    # -- operations ------------------------------------------------------------------------------

    def begin(self, kind: str, **details: Any) -> None:
        """Begin an operation: Scaling or DeepHealthCheck, with the members that describe it."""
        sim = current()
        operation_id = new_uuid(sim.ids)
        self.operations[operation_id] = {
            "OperationId": operation_id,
            "ClusterArn": self.arn,
            "Type": kind,
            "Status": "InProgress",
            "CreationTime": sim.clock.now(),
            **details,
        }

    def begin_scaling(self, before: dict[str, Document], names: Iterable[str]) -> None:
        """Begin the scaling of groups, which supersedes the one before it; Continuous only.

        ``before`` has the counts of the groups as they were (``Group.scale``).
        """
        touched = sorted({*before, *names})
        if not touched or not self.continuous:
            return
        self._end_operations("Superseded", "Scaling")
        details = [
            {
                "InstanceGroupName": name,
                "Status": "InProgress",
                "Original": before.get(name) or {"CurrentCount": 0, "TargetCount": 0},
                "Desired": self.groups[name].scale,
            }
            for name in touched
        ]
        self.begin("Scaling", ScalingDetails=details)

    def end_operations(self) -> None:
        """Call every operation done, but for health checks that still run."""
        self._end_operations("Done", "Scaling")
        if not any(group.counts["DeepHealthCheckInProgress"] for group in self.groups.values()):
            self._end_operations("Done", "DeepHealthCheck")

    def _end_operations(self, status: str, kind: str) -> None:
        for operation in self.operations.values():
            if (operation["Type"], operation["Status"]) == (kind, "InProgress"):
                for one in (operation, *operation.get("ScalingDetails", ())):
                    one["Status"] = status


def is_spot(spec: Document) -> bool:
    """Say whether a group's instances are Spot instances."""
    return "Spot" in (spec.get("CapacityRequirements") or {})


def _image_status(release: str) -> str:
    return "UpToDate" if release == NEXT_RELEASE else "UpdateAvailable"


def _types(requirements: Document | None) -> Document | None:
    if not requirements:
        return None
    types = requirements["InstanceTypes"]
    return {"CurrentInstanceTypes": types, "DesiredInstanceTypes": types}


def _current_and_desired(config: Document | None) -> Document | None:
    if not config:
        return None
    return {f"{when}{k}": v for k, v in config.items() for when in ("Current", "Desired")}


def _patching(config: Document | None) -> Document | None:
    if not config:
        return None
    schedule = config.get("PatchSchedule")
    return {
        "IdleWaitWindowInSeconds": 86400,
        **{k: v for k, v in config.items() if k != "PatchSchedule"},
        "CurrentPatchSchedule": schedule,
        "DesiredPatchSchedule": schedule,
    }


def _shared(config: Document | None) -> Document | None:
    if not config:
        return None
    return {"SharedEnvironmentConfig": _current_and_desired(config["SharedEnvironmentConfig"])}
