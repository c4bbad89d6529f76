"""HyperPod clusters: how they come to be, change, roll back and go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from moto.iam.models import iam_backends
from moto.sagemaker.models import SageMakerModelBackend, sagemaker_backends

from hyperpod_eks.local.aws import eks_access, hyperpod_checks, plugin
from hyperpod_eks.local.aws.eks_data import HYPERPOD_POLICY
from hyperpod_eks.local.aws.eks_model import Cluster as EksCluster
from hyperpod_eks.local.aws.hyperpod_checks import invalid
from hyperpod_eks.local.aws.hyperpod_governance import Governance
from hyperpod_eks.local.aws.hyperpod_model import (
    FIRST_RELEASE,
    NEXT_RELEASE,
    PRESENT,
    Cluster,
    Document,
    Group,
)
from hyperpod_eks.local.aws.hyperpod_nodes import Fleet
from hyperpod_eks.local.aws.sim import ACCOUNT, current
from hyperpod_eks.local.aws.training_plans import TrainingPlans
from hyperpod_eks.local.aws.wire import Refused

_SERVICE = "hyperpod.sagemaker.amazonaws.com"
_LINKED_ROLE = f"role/aws-service-role/{_SERVICE}/AWSServiceRoleForSageMakerHyperPod"
_BUSY = ("Creating", "Updating", "SystemUpdating", "RollingBack")
_PATIENCE = 3 * 3600.0  # simulated seconds that a group has to reach its MinInstanceCount
_WEDGED = 60.0  # simulated seconds between two tries of a deletion that cannot go on

#: Members of CreateCluster that DescribeCluster answers again.
_MEMBERS = (
    "VpcConfig",
    "Orchestrator",
    "TieredStorageConfig",
    "NodeRecovery",
    "NodeProvisioningMode",
    "ClusterRole",
    "AutoScaling",
    "RestrictedInstanceGroupsConfig",
)


class Backend(SageMakerModelBackend):
    """moto's SageMaker with HyperPod clusters and training plans of our own."""

    _url_module = plugin.url_module("sagemaker")

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.hyperpod: dict[str, Cluster] = {}
        """By name."""
        self.training_plans = TrainingPlans(region_name, self._in_use)
        self.fleet = Fleet(region_name, self.training_plans, self.settle, self.fail)
        self._ids: dict[str, str] = {}
        """Cluster names by ARN."""
        self.governance = Governance(region_name, self.find)

    def _in_use(self, training_plan_arn: str) -> int:
        return sum(
            group.current
            for cluster in self.hyperpod.values()
            for group in cluster.groups.values()
            if group.spec.get("TrainingPlanArn") == training_plan_arn
        )

    def find(self, name_or_arn: str) -> Cluster:
        """Return a cluster; ResourceNotFound without."""
        cluster = self.hyperpod.get(self._ids.get(name_or_arn, name_or_arn))
        if cluster is None:
            raise Refused("ResourceNotFound", f"Cluster with name {name_or_arn} not found.")
        return cluster

    def idle(self, name_or_arn: str, what: str) -> Cluster:
        """Return a cluster that nothing is being done to; ConflictException otherwise."""
        cluster = self.find(name_or_arn)
        if cluster.status in (*_BUSY, "Deleting"):
            text = f"Cluster {cluster.name} cannot be {what} while it is {cluster.status}."
            raise Refused("ConflictException", text)
        return cluster

    # -- creation --------------------------------------------------------------------------------

    def create(self, request: Document) -> Cluster:
        """Begin a cluster (SageMaker API CreateCluster)."""
        sim, name = current(), request["ClusterName"]
        if name in self.hyperpod:
            raise Refused("ResourceInUse", f"Cluster with name {name} already exists.")
        continuous = request.get("NodeProvisioningMode") == "Continuous"
        specs = _specs(request)
        if not specs:
            raise invalid("At least one of InstanceGroups and RestrictedInstanceGroups is required")
        if "Eks" not in (request.get("Orchestrator") or {}):
            raise invalid("The embedded stack knows clusters with Orchestrator.Eks only")
        if not request.get("VpcConfig"):
            raise invalid("VpcConfig is required for clusters orchestrated by EKS")
        hyperpod_checks.check_groups(specs, continuous=continuous)
        hyperpod_checks.check_settings(request, continuous=continuous)
        arn = request["Orchestrator"]["Eks"]["ClusterArn"]
        if any(cluster.eks_arn == arn for cluster in self.hyperpod.values()):
            raise invalid(f"The EKS cluster {arn} already orchestrates another HyperPod cluster")
        eks = hyperpod_checks.check_eks(self.region_name, arn)
        self._check_against(eks, [request["VpcConfig"]], specs)
        hyperpod_checks.check_quotas(self.hyperpod.values(), name, specs)

        cluster_id = _cluster_id()
        cluster = Cluster(
            name,
            cluster_id,
            f"arn:aws:sagemaker:{self.region_name}:{self.account_id}:cluster/{cluster_id}",
            sim.clock.now(),
            {
                "NodeRecovery": "Automatic",
                **{member: request[member] for member in _MEMBERS if request.get(member)},
            },
            {tag["Key"]: tag["Value"] for tag in request.get("Tags") or []},
        )
        self.hyperpod[name], self._ids[cluster.arn] = cluster, name
        for spec in specs:
            self._set_group(cluster, spec)
        self._grant(eks, cluster)
        sim.clock.after(sim.delays.hyperpod_create, lambda: self._created(cluster))
        return cluster

    def _check_against(
        self, eks: EksCluster, configs: list[Document], specs: list[Document]
    ) -> None:
        vpc_id = eks.document["resourcesVpcConfig"]["vpcId"]
        own = [spec["OverrideVpcConfig"] for spec in specs if spec.get("OverrideVpcConfig")]
        for config in (*configs, *own):
            hyperpod_checks.check_network(self.region_name, config, vpc_id)
        for role in sorted({spec["ExecutionRole"] for spec in specs}):
            hyperpod_checks.check_role(self.region_name, role)
        for spec in specs:
            hyperpod_checks.check_plan(self.training_plans, spec)

    def _set_group(self, cluster: Cluster, spec: Document) -> Group:
        name, restricted = spec["InstanceGroupName"], "EnvironmentConfig" in spec
        if restricted:
            bucket = f"s3://sagemaker-{self.region_name}-{self.account_id}/{cluster.id}/"
            spec = {
                **spec,
                "EnvironmentConfig": {**spec["EnvironmentConfig"], "S3OutputPath": bucket},
            }
        group = cluster.groups.get(name)
        if group is None:
            group = cluster.groups[name] = Group(cluster, spec, restricted)
            group.release = spec.get("ImageReleaseVersion") or FIRST_RELEASE
        before = None if group.spec is spec else group.spec
        group.spec = spec
        if cluster.continuous and group.minimum:
            self._await_minimum(group, spec, before)
        return group

    def _await_minimum(self, group: Group, spec: Document, before: Document | None) -> None:
        """Roll a group back that has too few nodes in time: to none, or to what it was before.

        SageMaker API ClusterInstanceGroupSpecification, MinInstanceCount.
        """

        def judge() -> None:
            there = group.cluster.groups.get(group.name) is group and group.spec is spec
            if there and group.current < (group.minimum or 0):
                group.cluster.event(
                    "The instance group did not reach its MinInstanceCount and was rolled back.",
                    level="Error",
                    group=group.name,
                )
                group.target = 0
                if before is not None:
                    group.spec = before
                self.fleet.scale(group)

        current().clock.after(_PATIENCE, judge)

    def _grant(self, eks: EksCluster, cluster: Cluster) -> None:
        """Give the service and the nodes their access entries, as HyperPod does by itself."""
        linked = f"arn:aws:iam::{self.account_id}:{_LINKED_ROLE}"
        iam = iam_backends[self.account_id]["aws"]
        if all(role.arn != linked for role in iam.roles.values()):
            iam.create_service_linked_role(_SERVICE, "", "")
        entry = eks_access.add_entry(eks, linked, "STANDARD")
        eks_access.grant(entry, HYPERPOD_POLICY, {"type": "cluster"})
        new = [role for role in cluster.roles() if role not in eks.entries]
        for role in new:
            eks_access.add_entry(eks, role, "HYPERPOD_LINUX")
        if new:
            metadata = {"EksRoleAccessEntries": new, "SlrAccessEntry": linked}
            cluster.event("Access entries were created in the EKS cluster.", metadata=metadata)

    def _created(self, cluster: Cluster) -> None:
        """Cluster-level resources are there; now the nodes.

        What CreateCluster has not seen to be missing turns the cluster Failed (DescribeCluster,
        FailureMessage).
        """
        if self.hyperpod.get(cluster.name) is not cluster or cluster.status != "Creating":
            return
        if text := current().failure("hyperpod", cluster.name):
            cluster.status, cluster.failure_message = "Failed", text
            cluster.event(text, level="Error", metadata={"FailureMessage": text})
            return
        if cluster.continuous:
            cluster.status = "InService"
            cluster.event("The cluster is InService.")
        self._scale(cluster, list(cluster.groups.values()))
        self._let_karpenter_look(cluster)

    def _let_karpenter_look(self, cluster: Cluster) -> None:
        """Let Karpenter scale the cluster as long as AutoScaling says so."""
        from hyperpod_eks.local.aws.hyperpod_karpenter import (  # noqa: PLC0415  it imports this
            Provider,
        )

        kubernetes = current().clusters.get(cluster.eks_arn)
        enabled = (cluster.members.get("AutoScaling") or {}).get("Mode") == "Enable"
        if kubernetes is not None:
            scales = enabled and cluster.status != "Deleting"
            kubernetes.scale(Provider(self, cluster) if scales else None)

    # -- how it goes on --------------------------------------------------------------------------

    def _scale(self, cluster: Cluster, groups: Iterable[Group]) -> None:
        with self.fleet.at_once(cluster):
            for group in groups:
                if cluster.status in ("Failed", "RollingBack", "Deleting"):
                    return
                if group.leaving:
                    self.fleet.terminate(cluster, list(group.nodes.values()))
                else:
                    self.fleet.scale(group)
        self.settle(cluster)

    def settle(self, cluster: Cluster) -> None:
        """Look whether the nodes are as wanted, and what that means for the cluster."""
        for name, group in list(cluster.groups.items()):
            if group.leaving and not group.nodes:
                del cluster.groups[name]
            elif group.is_settled:
                group.reached = True
        if cluster.status == "RollingBack":
            self._rolled_back(cluster)
            return
        if not all(group.is_settled and not group.leaving for group in cluster.groups.values()):
            return
        updating = any(group.update_status == "InProgress" for group in cluster.groups.values())
        if cluster.status in ("Creating", "Updating") or (
            cluster.status == "SystemUpdating" and not updating
        ):
            cluster.status, cluster.before = "InService", None
            cluster.event("The cluster is InService.")
        cluster.end_operations()

    def fail(self, cluster: Cluster, text: str) -> None:
        """Roll a classic cluster back: all its nodes, or those of the update."""
        if cluster.status not in ("Creating", "Updating"):
            return
        cluster.failure_message = text
        cluster.event(text, level="Error", metadata={"FailureMessage": text})
        creating, before = cluster.status == "Creating", cluster.before or {}
        cluster.status = "RollingBack"
        doomed = []
        for name, group in cluster.groups.items():
            present = [node for node in group.nodes.values() if node.status in PRESENT]
            if name in before:
                group.spec, group.leaving = before[name], False
                group.target = min(group.target, len(present))
                present = present[: group.target]
            else:
                group.leaving = not creating
                present = []
            doomed += [node for node in group.nodes.values() if node not in present]
        self.fleet.terminate(cluster, doomed)
        self.settle(cluster)

    def _rolled_back(self, cluster: Cluster) -> None:
        if all(node.status in PRESENT for node in cluster.nodes.values()):
            cluster.status = "Failed" if cluster.before is None else "InService"
            cluster.before = None

    # -- updates ---------------------------------------------------------------------------------

    def update(self, request: Document) -> Cluster:
        """Begin to change settings and groups (SageMaker API UpdateCluster).

        Groups are taken as the request gives them: what it leaves out of a group is reset, and a
        group that it leaves out of InstanceGroups goes. (What AWS does with those is disputed;
        this is the reading under which clients must be careful.)
        """
        cluster = self.idle(request["ClusterName"], "updated")
        if cluster.status == "Failed":
            raise invalid(f"Cluster {cluster.name} is Failed. Delete it and create it again.")
        members = {m: request[m] for m in _MEMBERS if request.get(m) and m != "VpcConfig"}
        continuous = cluster.continuous or members.get("NodeProvisioningMode") == "Continuous"
        orchestrator = members.get("Orchestrator")
        if orchestrator and orchestrator != cluster.members["Orchestrator"]:
            raise invalid("The orchestrator of a cluster cannot be changed")
        specs, goers = _specs(request), set(request.get("InstanceGroupsToDelete") or [])
        if unknown := sorted(goers - set(cluster.groups)):
            raise invalid(f"Instance groups to delete do not exist: {unknown}")
        names = {spec["InstanceGroupName"] for spec in specs}
        if both := sorted(names & goers):
            raise invalid(f"Instance groups cannot be updated and deleted at once: {both}")
        if specs:
            goers |= set(cluster.groups) - names
        stayers = [g.spec for n, g in cluster.groups.items() if n not in goers | names]
        if not [*specs, *stayers]:
            raise invalid("At least one instance group must remain")
        hyperpod_checks.check_groups(specs, continuous=continuous)
        hyperpod_checks.check_settings({**cluster.members, **members}, continuous=continuous)
        for spec in specs:
            if (group := cluster.groups.get(spec["InstanceGroupName"])) is not None:
                hyperpod_checks.check_fixed(group.spec, spec)
        eks = hyperpod_checks.check_eks(self.region_name, cluster.eks_arn)
        self._check_against(eks, [], specs)
        hyperpod_checks.check_quotas(self.hyperpod.values(), cluster.name, [*specs, *stayers])

        if not continuous:
            cluster.status = "Updating"
            cluster.before = {name: group.spec for name, group in cluster.groups.items()}
        cluster.failure_message = None
        cluster.members.update(members)
        touched = {*names, *goers}
        before = {n: cluster.groups[n].scale for n in touched if n in cluster.groups}
        for spec in specs:
            self._set_group(cluster, spec)
        for name in goers:
            cluster.groups[name].leaving = True
            cluster.groups[name].target = 0
        self._grant(eks, cluster)
        cluster.begin_scaling(before, names)
        self._scale(cluster, list(cluster.groups.values()))
        self._let_karpenter_look(cluster)
        return cluster

    def update_software(self, request: Document) -> Cluster:
        """Begin to give the nodes a new image, batch after batch."""
        cluster = self.idle(request["ClusterName"], "updated")
        if cluster.status != "InService":
            raise invalid(f"Cluster {cluster.name} must be InService, but is {cluster.status}")
        asked = {g["InstanceGroupName"]: g for g in request.get("InstanceGroups") or []}
        if unknown := sorted(set(asked) - set(cluster.groups)):
            raise invalid(f"Instance groups do not exist: {unknown}")
        groups = [group for name, group in cluster.groups.items() if not asked or name in asked]
        cluster.status = "SystemUpdating"
        for group in groups:
            group.update_status = "InProgress"
        for group in groups:
            if request.get("ImageId"):
                group.spec = {**group.spec, "ImageId": request["ImageId"]}
            release = asked.get(group.name, {}).get("ImageReleaseVersion") or NEXT_RELEASE
            nodes = [node for node in group.nodes.values() if node.status == "Running"]
            batch = _batch(request.get("DeploymentConfig"), len(nodes))
            self.fleet.update(group, nodes, release, batch)
        return cluster

    # -- deletion --------------------------------------------------------------------------------

    def delete(self, name_or_arn: str) -> Cluster:
        """Begin the deletion, which needs the execution roles until its end."""
        cluster, sim = self.find(name_or_arn), current()
        if cluster.status == "Deleting":
            return cluster
        self.idle(name_or_arn, "deleted")
        self.governance.refuse_deletion(cluster)
        cluster.status = "Deleting"
        self._let_karpenter_look(cluster)
        for node in cluster.nodes.values():
            node.become("ShuttingDown")
        sim.clock.after(sim.delays.hyperpod_delete, lambda: self._finish_deletion(cluster))
        return cluster

    def _finish_deletion(self, cluster: Cluster) -> None:
        if cluster.nodes and (denied := self._denied(cluster)):
            for node in cluster.nodes.values():
                node.message = denied
            current().clock.after(_WEDGED, lambda: self._finish_deletion(cluster))
            return
        self.fleet.drop(cluster, list(cluster.nodes.values()))
        if self.hyperpod.get(cluster.name) is cluster:
            del self.hyperpod[cluster.name], self._ids[cluster.arn]

    def _denied(self, cluster: Cluster) -> str:
        for role in cluster.roles():
            if missing := hyperpod_checks.missing_permission(self.region_name, role):
                return f"{role} does not have permission to perform {missing}"
        return ""


def _cluster_id() -> str:
    return "".join(current().ids.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=12))


def _specs(request: Document) -> list[Document]:
    restricted = [
        {"EnvironmentConfig": {}, **spec} for spec in request.get("RestrictedInstanceGroups") or []
    ]
    return [*(request.get("InstanceGroups") or []), *restricted]


def _batch(deployment: Document | None, nodes: int) -> int:
    """Return how many nodes are updated at a time: all, unless a rolling policy says less."""
    size = ((deployment or {}).get("RollingUpdatePolicy") or {}).get("MaximumBatchSize")
    if not size:
        return max(1, nodes)
    if size["Type"] == "INSTANCE_COUNT":
        return int(size["Value"])
    return max(1, nodes * int(size["Value"]) // 100)


def of_region(region: str) -> Backend:
    """Return the account's SageMaker in a region."""
    return cast("Backend", sagemaker_backends[ACCOUNT][region])
