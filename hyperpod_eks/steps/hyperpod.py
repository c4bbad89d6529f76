"""The HyperPod cluster: instance groups whose nodes join the EKS cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperpod_eks import kube
from hyperpod_eks.aws import Aws, Look, absent, owner
from hyperpod_eks.resource import MINUTE, Known, Live, Resource, State
from hyperpod_eks.site import Site
from hyperpod_eks.steps import eks
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
    groups = tuple(
        InstanceGroup(
            name=group.name,
            instance_type=group.instance_type,
            instance_count=group.instance_count,
            threads_per_core=group.threads_per_core,
            ebs_volume_size_in_gb=group.ebs_volume_size_in_gb,
            zone=site.zone_for(group.instance_type),
        )
        for group in config.instance_groups
    )
    home = groups[0].zone
    cluster = Cluster(
        "cluster",
        name=site.name,
        control=control,
        role=roles.execution,
        subnet=net.private[home],
        security_group=net.security_group,
        groups=groups,
        zones=tuple((zone, subnet) for zone, subnet in net.private.items()),
        scripts=scripts,
        on_create=config.lifecycle.on_create,
        node_recovery=config.node_recovery,
        node_provisioning_mode=config.node_provisioning_mode or "",
        after=(roles.service_linked, *net.egress, *net.private.values(), *ready, logs),
    )
    return Nodes("nodes", cluster=cluster, control=control)


@dataclass(frozen=True)
class InstanceGroup:
    """One group of like instances (CreateCluster, ClusterInstanceGroupSpecification)."""

    name: str
    instance_type: str
    instance_count: int
    threads_per_core: int
    ebs_volume_size_in_gb: int | None
    zone: str


@dataclass(frozen=True)
class Cluster(Resource):
    """The HyperPod cluster.

    Continuous provisioning makes it InService before any node exists; ready means what users
    mean: every group at its count.
    """

    name: str
    control: eks.Cluster
    role: Role
    subnet: Subnet
    security_group: SecurityGroup
    groups: tuple[InstanceGroup, ...]
    zones: tuple[tuple[str, Subnet], ...]
    scripts: Scripts
    on_create: str
    node_recovery: str
    node_provisioning_mode: str

    step = "hyperpod"
    patience = 90 * MINUTE
    usual = "10 to 25 min"

    def find(self, look: Look) -> Sequence[Live]:
        """By name."""
        found = describe(look, self.name)
        if found is None:
            return []
        tags = look.all(look.aws.sagemaker, "list_tags", "Tags", ResourceArn=found["ClusterArn"])
        return [self._live(found, owner(tags))]

    def _live(self, found: Mapping[str, Any], signed: str | None) -> Live:
        state = STATES.get(found["ClusterStatus"], State.BUSY)
        groups = found.get("InstanceGroups", ())
        running = sum(group.get("CurrentCount", 0) for group in groups)
        target = sum(group.get("TargetCount", 0) for group in groups)
        why = f"{found['ClusterStatus']}, {running} of {target} nodes running"
        if found.get("FailureMessage"):
            why = f"{found['FailureMessage']} ({found['ClusterStatus']})"
        if state is State.READY and running < target:
            state = State.BUSY
        return Live(
            self.name,
            found["ClusterArn"],
            owner=signed,
            state=state,
            why=why,
            facts={
                "node_recovery": found.get("NodeRecovery", self.node_recovery),
                "groups": {g["InstanceGroupName"]: group_facts(g) for g in groups},
            },
            attributes={
                "status": found["ClusterStatus"],
                "failure": found.get("FailureMessage", ""),
                "groups": [
                    {
                        "name": group["InstanceGroupName"],
                        "instance_type": group.get("InstanceType", ""),
                        "status": group.get("Status", ""),
                        "current": group.get("CurrentCount", 0),
                        "target": group.get("TargetCount", 0),
                    }
                    for group in groups
                ],
            },
        )

    def expected(self, name: str, known: Known) -> Any:
        """Groups are compared by name."""
        if name == "groups":
            return {
                group.name: (
                    group.instance_type,
                    group.instance_count,
                    group.threads_per_core,
                    group.ebs_volume_size_in_gb,
                )
                for group in self.groups
            }
        return super().expected(name, known)

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """The name is unique in the region; there is no token."""
        request: dict[str, Any] = {
            "ClusterName": self.name,
            "Orchestrator": {"Eks": {"ClusterArn": known(self.control).arn}},
            "NodeRecovery": self.node_recovery,
            "InstanceGroups": [self._group(group, known) for group in self.groups],
            "VpcConfig": self._vpc(self.subnet, known),
            # managed add-on policies ask for this tag
            "Tags": [*aws.pairs(self.label), {"Key": "SageMaker", "Value": "true"}],
        }
        if self.node_provisioning_mode:
            request["NodeProvisioningMode"] = self.node_provisioning_mode
        arn = aws.sagemaker.create_cluster(**request)["ClusterArn"]
        return Live(self.name, arn, owner=aws.lineage, state=State.BUSY, why="Creating")

    def _vpc(self, subnet: Subnet, known: Known) -> dict[str, Any]:
        return {
            "SecurityGroupIds": [known(self.security_group).id],
            "Subnets": [known(subnet).id],
        }

    def _group(self, group: InstanceGroup, known: Known) -> Any:
        """ThreadsPerCore is always sent: an update that leaves it out resets it."""
        request: dict[str, Any] = {
            "InstanceGroupName": group.name,
            "InstanceType": group.instance_type,
            "InstanceCount": group.instance_count,
            "ThreadsPerCore": group.threads_per_core,
            "ExecutionRole": known(self.role).arn,
            "LifeCycleConfig": {"SourceS3Uri": self.scripts.uri, "OnCreate": self.on_create},
        }
        if group.ebs_volume_size_in_gb:
            request["InstanceStorageConfigs"] = [
                {"EbsVolumeConfig": {"VolumeSizeInGB": group.ebs_volume_size_in_gb}}
            ]
        home = dict(self.zones)[group.zone]
        if home.key != self.subnet.key:
            request["OverrideVpcConfig"] = self._vpc(home, known)
        return request

    def settle(self, aws: Aws, known: Known, live: Live) -> None:
        """Send every group whole: what an update leaves out is reset."""
        if live.owner is None:
            aws.sagemaker.add_tags(ResourceArn=live.arn, Tags=aws.pairs(self.label))
            return
        aws.sagemaker.update_cluster(
            ClusterName=self.name,
            NodeRecovery=self.node_recovery,  # type: ignore[arg-type]  # checked with the config
            InstanceGroups=[self._group(group, known) for group in self.groups],
        )

    def delete(self, aws: Aws, live: Live) -> None:
        """Role, network, EKS cluster and bucket must outlive it."""
        aws.sagemaker.delete_cluster(ClusterName=self.name)


def group_facts(group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Reduce a described group to what the config declares."""
    volumes = [
        config["EbsVolumeConfig"]["VolumeSizeInGB"]
        for config in group.get("InstanceStorageConfigs", ())
        if config.get("EbsVolumeConfig", {}).get("VolumeSizeInGB")
    ]
    return (
        group.get("InstanceType"),
        group.get("TargetCount"),
        group.get("ThreadsPerCore"),
        volumes[0] if volumes else None,
    )


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


def node_rows(look: Look, name: str, registered: Sequence[kube.Node]) -> list[dict[str, Any]]:
    """Join what HyperPod and Kubernetes say of each node, one row an instance."""
    with absent("ResourceNotFound"):
        found = look.all(
            look.aws.sagemaker,
            "list_cluster_nodes",
            "ClusterNodeSummaries",
            ClusterName=name,
            PaginationConfig={"PageSize": 100},
        )
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


@dataclass(frozen=True)
class Nodes(Resource):
    """The nodes as Kubernetes sees them: registered and Ready.

    Nothing that we make or delete: HyperPod registers them and takes them away.
    """

    cluster: Cluster
    control: eks.Cluster

    step = "hyperpod"
    awaited = True
    patience = 30 * MINUTE

    def find(self, look: Look) -> Sequence[Live]:
        """Through the Kubernetes API."""
        found = describe(look, self.cluster.name)
        access = eks.access(look, self.control.name)
        if found is None or access is None:
            return []
        wanted = sum(group.get("TargetCount", 0) for group in found["InstanceGroups"])
        nodes = look.once("nodes", lambda: kube.nodes(access, self.cluster.name))
        ready = sum(node.ready for node in nodes)
        return [
            Live(
                "",
                state=State.READY if ready >= wanted else State.BUSY,
                why=f"{ready} of {wanted} nodes Ready in Kubernetes",
                attributes={"nodes": nodes},
            )
        ]

    def delete(self, aws: Aws, live: Live) -> None:
        """HyperPod does."""


@dataclass(frozen=True)
class LogGroup(Resource):
    """HyperPod's log group, which the service makes and nobody removes."""

    prefix: str

    step = "hyperpod"
    made = False

    @property
    def source(self) -> str:
        """Ours if the cluster was."""
        return "hyperpod/cluster"

    def find(self, look: Look) -> Sequence[Live]:
        """By prefix: one group for each cluster that had this name."""
        groups = look.all(
            look.aws.logs, "describe_log_groups", "logGroups", logGroupNamePrefix=self.prefix
        )
        names = [group["logGroupName"] for group in groups]
        return [Live(", ".join(names), attributes={"names": names})] if names else []

    def delete(self, aws: Aws, live: Live) -> None:
        """After the cluster: it writes until the end."""
        for name in live.attributes["names"]:
            aws.logs.delete_log_group(logGroupName=name)
