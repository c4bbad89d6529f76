"""SageMaker HyperPod for EKS: clusters whose nodes come, join Kubernetes, fail and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import moto.sagemaker.urls
from moto.core.responses import ActionResult, EmptyResult
from moto.iam.models import iam_backends
from moto.sagemaker.models import SageMakerModelBackend, sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse

from hyperpod_eks.local.aws import eks_access, hyperpod_checks, plugin, wire
from hyperpod_eks.local.aws.eks_data import HYPERPOD_POLICY
from hyperpod_eks.local.aws.eks_model import Cluster as EksCluster
from hyperpod_eks.local.aws.hyperpod_checks import invalid
from hyperpod_eks.local.aws.hyperpod_model import (
    FIRST_RELEASE,
    NEXT_RELEASE,
    Cluster,
    Document,
    Group,
    Node,
)
from hyperpod_eks.local.aws.hyperpod_nodes import Fleet
from hyperpod_eks.local.aws.sim import current
from hyperpod_eks.local.aws.training_plans import TrainingPlans
from hyperpod_eks.local.aws.wire import Refused, in_order, new_uuid, page

_SERVICE = "hyperpod.sagemaker.amazonaws.com"
_LINKED_ROLE = f"role/aws-service-role/{_SERVICE}/AWSServiceRoleForSageMakerHyperPod"
_BUSY = ("Creating", "Updating", "SystemUpdating", "RollingBack")
_PATIENCE = 3 * 3600.0  # simulated seconds that a group has to reach its MinInstanceCount
_WEDGED = 60.0  # simulated seconds between two tries of a deletion that cannot go on
_LIMIT = 10  # rows of a page when MaxResults is left out

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
        self.training_plans = TrainingPlans(region_name)
        self.fleet = Fleet(account_id, region_name, self.settle, self.fail)
        self._ids: dict[str, str] = {}
        """Cluster names by ARN."""

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
            raise invalid("The local stack knows clusters with Orchestrator.Eks only")
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
            hyperpod_checks.check_role(role)
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
        group.spec = spec
        if cluster.continuous and group.minimum:
            self._await_minimum(group, spec)
        return group

    def _await_minimum(self, group: Group, spec: Document) -> None:
        def judge() -> None:
            there = group.cluster.groups.get(group.name) is group and group.spec is spec
            if there and group.current < (group.minimum or 0):
                group.cluster.event(
                    "The instance group did not reach its MinInstanceCount and was rolled back.",
                    level="Error",
                    group=group.name,
                )
                group.target = 0
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
        roles = cluster.roles()
        for role in roles:
            eks_access.add_entry(eks, role, "HYPERPOD_LINUX")
        metadata = {"EksRoleAccessEntries": roles, "SlrAccessEntry": linked}
        cluster.event("Access entries were created in the EKS cluster.", metadata=metadata)

    def _created(self, cluster: Cluster) -> None:
        """Cluster-level resources are there; now the nodes."""
        if self.hyperpod.get(cluster.name) is not cluster or cluster.status != "Creating":
            return
        if cluster.continuous:
            cluster.status = "InService"
            cluster.event("The cluster is InService.")
        self._scale(cluster, list(cluster.groups.values()))

    # -- how it goes on --------------------------------------------------------------------------

    def _scale(self, cluster: Cluster, groups: Iterable[Group]) -> None:
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
        for operation in cluster.operations.values():
            if operation["Status"] == "InProgress" and not _checking(cluster, operation):
                operation["Status"] = "Done"
                for detail in operation.get("ScalingDetails") or []:
                    detail["Status"] = "Done"

    def fail(self, cluster: Cluster, text: str) -> None:
        """Roll a classic cluster back: all its nodes, or those of the update."""
        if cluster.status not in ("Creating", "Updating"):
            return
        cluster.failure_message = text
        cluster.event(text, level="Error", metadata={"FailureMessage": text})
        creating = cluster.status == "Creating"
        cluster.status = "RollingBack"
        for name, group in list(cluster.groups.items()):
            old = (cluster.before or {}).get(name)
            nodes = list(group.nodes.values())
            if old is not None:
                group.spec, group.leaving = old, False
                surplus = [n for n in nodes if n.status in ("Pending", "Failure")]
                self.fleet.terminate(cluster, [*surplus])
            else:
                group.leaving = not creating
                self.fleet.terminate(cluster, nodes)
        self.settle(cluster)

    def _rolled_back(self, cluster: Cluster) -> None:
        if any(n.status in ("Pending", "Failure", "ShuttingDown") for n in cluster.nodes.values()):
            return
        if cluster.before is None:
            cluster.status = "Failed"
            return
        cluster.status, cluster.before = "Updating", None
        message = cluster.failure_message
        self._scale(cluster, list(cluster.groups.values()))
        cluster.failure_message = message

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

        cluster.before = {name: group.spec for name, group in cluster.groups.items()}
        if not continuous:
            cluster.status = "Updating"
        cluster.failure_message = None
        cluster.members.update(members)
        touched = {*names, *goers}
        before = {n: _counts(cluster.groups[n]) for n in touched if n in cluster.groups}
        for spec in specs:
            self._set_group(cluster, spec)
        for name in goers:
            cluster.groups[name].leaving = True
            cluster.groups[name].target = 0
        self._grant(eks, cluster)
        self._note_scaling(cluster, before, names)
        self._scale(cluster, list(cluster.groups.values()))
        return cluster

    def _note_scaling(
        self, cluster: Cluster, before: dict[str, Document], names: Iterable[str]
    ) -> str | None:
        """Begin the operation that a Continuous cluster shows; it supersedes the one before."""
        if not cluster.continuous:
            return None
        changed = [
            {
                "InstanceGroupName": name,
                "Status": "InProgress",
                "Original": before.get(name) or {"CurrentCount": 0, "TargetCount": 0},
                "Desired": _counts(cluster.groups[name]),
            }
            for name in sorted({*before, *names})
        ]
        for operation in cluster.operations.values():
            if operation["Type"] == "Scaling" and operation["Status"] == "InProgress":
                operation["Status"] = "Superseded"
                for detail in operation["ScalingDetails"]:
                    detail["Status"] = "Superseded"
        return self._note(cluster, "Scaling", ScalingDetails=changed)

    def _note(self, cluster: Cluster, kind: str, **details: Any) -> str:
        sim = current()
        operation_id = new_uuid(sim.ids)
        cluster.operations[operation_id] = {
            "OperationId": operation_id,
            "ClusterArn": cluster.arn,
            "Type": kind,
            "Status": "InProgress",
            "CreationTime": sim.clock.now(),
            **details,
        }
        return operation_id

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

    # -- nodes one by one ------------------------------------------------------------------------

    def add_nodes(self, request: Document) -> Document:
        """Raise targets and launch the nodes (SageMaker API BatchAddClusterNodes)."""
        cluster = self.find(request["ClusterName"])
        if not cluster.continuous:
            raise invalid("BatchAddClusterNodes needs NodeProvisioningMode Continuous")
        token = request.get("ClientToken")
        if token and token in cluster.answered:
            answered: Document = cluster.answered[token]
            return answered
        accepted, failed = [], []
        for asked in request["NodesToAdd"]:
            problem = self._addable(cluster, asked)
            if problem:
                failed.append(
                    {
                        "InstanceGroupName": asked["InstanceGroupName"],
                        "ErrorCode": problem,
                        "FailedCount": asked["IncrementTargetCountBy"],
                    }
                )
            else:
                accepted.append(asked)
        extra = {a["InstanceGroupName"]: a["IncrementTargetCountBy"] for a in accepted}
        specs = [
            {**group.spec, "InstanceCount": group.target + extra.get(name, 0)}
            for name, group in cluster.groups.items()
        ]
        hyperpod_checks.check_quotas(self.hyperpod.values(), cluster.name, specs)
        before = {name: _counts(cluster.groups[name]) for name in extra}
        added = []
        for name, count in extra.items():
            cluster.groups[name].target += count
        self._note_scaling(cluster, before, extra)
        for asked in accepted:
            group = cluster.groups[asked["InstanceGroupName"]]
            zones = asked.get("AvailabilityZones") or ()
            added += self.fleet.launch(group, asked["IncrementTargetCountBy"], zones)
        answer = {
            "Successful": [
                {
                    "NodeLogicalId": node.logical_id,
                    "InstanceGroupName": node.group.name,
                    "Status": node.status,
                }
                for node in added
            ],
            "Failed": failed,
        }
        if token:
            cluster.answered[token] = answer
        return answer

    def _addable(self, cluster: Cluster, asked: Document) -> str:
        group = cluster.groups.get(asked["InstanceGroupName"])
        if group is None:
            return "InstanceGroupNotFound"
        if group.leaving or cluster.status not in ("InService", "Updating"):
            return "InvalidInstanceGroupStatus"
        if not set(asked.get("InstanceTypes") or group.instance_types) & set(group.instance_types):
            return "IncompatibleInstanceTypes"
        subnets = group.vpc_config["Subnets"]
        here = {self.fleet.zone_of(subnet) for subnet in subnets}
        if not set(asked.get("AvailabilityZones") or here) & here:
            return "IncompatibleAvailabilityZones"
        return ""

    def remove_nodes(self, request: Document) -> Document:
        """Lower targets and terminate the nodes (SageMaker API BatchDeleteClusterNodes)."""
        cluster = self.find(request["ClusterName"])
        before = {name: _counts(group) for name, group in cluster.groups.items()}
        touched: set[str] = set()
        leaving: list[Node] = []

        def remove(node: Node) -> str:
            if node.status == "ShuttingDown" or cluster.status == "Deleting":
                return "InvalidNodeStatus"
            node.group.target = max(0, node.group.target - 1)
            touched.add(node.group.name)
            leaving.append(node)
            return ""

        answer = _each_node(cluster, request, remove, "NodeIdNotFound", "Code")
        self._note_scaling(cluster, {name: before[name] for name in touched}, touched)
        self.fleet.terminate(cluster, leaving)
        return answer

    def reboot_nodes(self, request: Document) -> Document:
        """Restart nodes (SageMaker API BatchRebootClusterNodes)."""
        cluster = self.find(request["ClusterName"])

        def reboot(node: Node) -> str:
            if node.status != "Running":
                return "InvalidInstanceStatus"
            self.fleet.reboot(node)
            return ""

        return _each_node(cluster, request, reboot, "InstanceIdNotFound", "ErrorCode")

    def replace_nodes(self, request: Document) -> Document:
        """Terminate nodes and launch others (SageMaker API BatchReplaceClusterNodes)."""
        cluster = self.find(request["ClusterName"])

        def replace(node: Node) -> str:
            if node.status not in ("Running", "Failure"):
                return "InvalidInstanceStatus"
            self.fleet.terminate(cluster, [node])
            self.fleet.launch(node.group, 1)
            return ""

        return _each_node(cluster, request, replace, "InstanceIdNotFound", "ErrorCode")

    def check_health(self, request: Document) -> Cluster:
        """Begin deep health checks (SageMaker API StartClusterHealthCheck)."""
        cluster = self.find(request["ClusterName"])
        batches = []
        for config in request["DeepHealthCheckConfigurations"]:
            group = cluster.groups.get(config["InstanceGroupName"])
            if group is None:
                raise invalid(f"Instance group {config['InstanceGroupName']} does not exist")
            wanted = config.get("InstanceIds") or list(group.nodes)
            if unknown := [each for each in wanted if each not in group.nodes]:
                raise invalid(f"Instances are not in group {group.name}: {unknown}")
            nodes = [group.nodes[each] for each in wanted if group.nodes[each].status == "Running"]
            batches.append((group, nodes))
        details = request["DeepHealthCheckConfigurations"]
        self._note(cluster, "DeepHealthCheck", DeepHealthCheckDetails=details)
        for group, nodes in batches:
            self.fleet.check(group, nodes)
        return cluster

    # -- deletion --------------------------------------------------------------------------------

    def delete(self, name_or_arn: str) -> Cluster:
        """Begin the deletion, which needs the execution roles until its end."""
        cluster, sim = self.find(name_or_arn), current()
        if cluster.status == "Deleting":
            return cluster
        self.idle(name_or_arn, "deleted")
        cluster.status = "Deleting"
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
            if missing := hyperpod_checks.missing_permission(role):
                return f"{role} does not have permission to perform {missing}"
        return ""


def _cluster_id() -> str:
    return "".join(current().ids.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=12))


def _specs(request: Document) -> list[Document]:
    restricted = [
        {"EnvironmentConfig": {}, **spec} for spec in request.get("RestrictedInstanceGroups") or []
    ]
    return [*(request.get("InstanceGroups") or []), *restricted]


def _counts(group: Group) -> Document:
    return {
        "CurrentCount": group.current,
        "TargetCount": group.target,
        "MinCount": group.minimum,
    }


def _checking(cluster: Cluster, operation: Document) -> bool:
    """Say whether an operation is a health check that still runs."""
    return operation["Type"] == "DeepHealthCheck" and any(
        cluster.groups[each["InstanceGroupName"]].counts["DeepHealthCheckInProgress"]
        for each in operation["DeepHealthCheckDetails"]
        if each["InstanceGroupName"] in cluster.groups
    )


def _batch(deployment: Document | None, nodes: int) -> int:
    """Return how many nodes are updated at a time: all, unless a rolling policy says less."""
    size = ((deployment or {}).get("RollingUpdatePolicy") or {}).get("MaximumBatchSize")
    if not size:
        return max(1, nodes)
    if size["Type"] == "INSTANCE_COUNT":
        return int(size["Value"])
    return max(1, nodes * int(size["Value"]) // 100)


def _each_node(
    cluster: Cluster, request: Document, act: Callable[[Node], str], unknown: str, code: str
) -> Document:
    """Do something with every node that a batch request names, and answer for each.

    ``act`` returns an error code, or nothing; ``unknown`` is the code for no such node.
    """
    answer: Document = {}
    by_logical = {node.logical_id: node for node in cluster.nodes.values()}
    for ids, nodes, done, failed, member in (
        (request.get("NodeIds"), cluster.nodes, "Successful", "Failed", "NodeId"),
        (
            request.get("NodeLogicalIds"),
            by_logical,
            "SuccessfulNodeLogicalIds",
            "FailedNodeLogicalIds",
            "NodeLogicalId",
        ),
    ):
        for each in ids or []:
            problem = act(nodes[each]) if each in nodes else unknown
            if problem:
                text = f"Node {each} of cluster {cluster.name}: {problem}"
                row = {code: problem, "Message": text, member: each}
                answer.setdefault(failed, []).append(row)
            else:
                answer.setdefault(done, []).append(each)
    return answer


class Response(wire.Response, SageMakerResponse):
    """SageMaker's answers: HyperPod and training plans here, the rest moto's."""

    def __init__(self) -> None:
        SageMakerResponse.__init__(self)
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> Backend:
        """SageMaker of the request's region."""
        backend: Backend = sagemaker_backends[self.current_account][self.region]
        return backend

    # -- clusters --------------------------------------------------------------------------------

    def create_cluster(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult({"ClusterArn": self.backend.create(self.request()).arn})

    def describe_cluster(self) -> ActionResult:
        """Answer the cluster and its groups."""
        return ActionResult(self.backend.find(self.request()["ClusterName"]).describe())

    def list_clusters(self) -> ActionResult:
        """Answer summaries, filtered and sorted as asked."""
        request = self.request()
        plan = request.get("TrainingPlanArn")
        found = [
            summary
            for cluster in self.backend.hyperpod.values()
            if (request.get("NameContains") or "") in cluster.name
            and _between(request, cluster.created, "CreationTime")
            and plan in (None, *(summary := cluster.summary())["TrainingPlanArns"])
        ]
        keys = {
            "NAME": lambda row: row["ClusterName"],
            "CREATION_TIME": lambda row: row["CreationTime"],
        }
        rows, token = page(in_order(found, request, keys, "CREATION_TIME"), request, limit=_LIMIT)
        return ActionResult({"ClusterSummaries": rows, "NextToken": token})

    def update_cluster(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult({"ClusterArn": self.backend.update(self.request()).arn})

    def update_cluster_software(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult({"ClusterArn": self.backend.update_software(self.request()).arn})

    def delete_cluster(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult({"ClusterArn": self.backend.delete(self.request()["ClusterName"]).arn})

    # -- nodes -----------------------------------------------------------------------------------

    def list_cluster_nodes(self) -> ActionResult:
        """Answer summaries, oldest first unless asked otherwise."""
        request = self.request()
        nodes: Iterable[Node] = self.backend.find(request["ClusterName"]).nodes.values()
        part = request.get("InstanceGroupNameContains")
        if part or {"CreationTimeAfter", "CreationTimeBefore"} & set(request):
            nodes = [
                node
                for node in nodes
                if (part or "") in node.group.name
                and _between(request, node.launched, "CreationTime")
            ]
        if {"SortBy", "SortOrder"} & set(request):
            keys = {"NAME": lambda n: n.group.name, "CREATION_TIME": lambda n: n.launched}
            nodes = in_order(list(nodes), request, keys, "CREATION_TIME")
        found, token = page(nodes, request, limit=_LIMIT)
        logical = bool(request.get("IncludeNodeLogicalIds"))
        rows = [node.summary(logical=logical) for node in found]
        return ActionResult({"ClusterNodeSummaries": rows, "NextToken": token})

    def describe_cluster_node(self) -> ActionResult:
        """Answer a node, named by its id or its logical id."""
        request = self.request()
        nodes = self.backend.find(request["ClusterName"]).nodes
        wanted = request.get("NodeId") or request.get("NodeLogicalId")
        node = nodes.get(wanted) or next(
            (n for n in nodes.values() if n.logical_id == wanted), None
        )
        if node is None:
            raise Refused("ResourceNotFound", f"Instance with id {wanted} not found.")
        return ActionResult({"NodeDetails": node.details()})

    def batch_add_cluster_nodes(self) -> ActionResult:
        """Answer for each node."""
        return ActionResult(self.backend.add_nodes(self.request()))

    def batch_delete_cluster_nodes(self) -> ActionResult:
        """Answer for each node."""
        return ActionResult(self.backend.remove_nodes(self.request()))

    def batch_reboot_cluster_nodes(self) -> ActionResult:
        """Answer for each node."""
        return ActionResult(self.backend.reboot_nodes(self.request()))

    def batch_replace_cluster_nodes(self) -> ActionResult:
        """Answer for each node."""
        return ActionResult(self.backend.replace_nodes(self.request()))

    def start_cluster_health_check(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult({"ClusterArn": self.backend.check_health(self.request()).arn})

    # -- events and operations -------------------------------------------------------------------

    def _continuous(self) -> tuple[Cluster, Document]:
        request = self.request()
        cluster = self.backend.find(request["ClusterName"])
        if not cluster.continuous:
            raise invalid("Events and operations need NodeProvisioningMode Continuous")
        return cluster, request

    def list_cluster_events(self) -> ActionResult:
        """Answer events, newest first unless asked otherwise."""
        cluster, request = self._continuous()
        asked = {
            "InstanceGroupName": request.get("InstanceGroupName"),
            "InstanceId": request.get("NodeId"),
            "ResourceType": request.get("ResourceType"),
            "OperationId": request.get("OperationId"),
        }
        asked = {member: value for member, value in asked.items() if value is not None}
        ordered = (
            cluster.events if request.get("SortOrder") == "Ascending" else reversed(cluster.events)
        )
        found = (
            event
            for event in ordered
            if all(event.get(member) == value for member, value in asked.items())
            and _between(request, event["EventTime"], "EventTime")
        )
        rows, token = page(found, request, limit=_LIMIT)
        return ActionResult({"Events": rows, "NextToken": token})

    def describe_cluster_event(self) -> ActionResult:
        """Answer one event."""
        cluster, request = self._continuous()
        for event in cluster.events:
            if event["EventId"] == request["EventId"]:
                return ActionResult({"EventDetails": event})
        raise Refused("ResourceNotFound", f"Event {request['EventId']} not found.")

    def list_cluster_operations(self) -> ActionResult:
        """Answer operations, newest first unless asked otherwise."""
        cluster, request = self._continuous()
        found = [
            operation
            for operation in cluster.operations.values()
            if request.get("Status") in (None, operation["Status"])
            and request.get("Type") in (None, operation["Type"])
            and _between(request, operation["CreationTime"], "CreationTime")
        ]
        if request.get("SortOrder") != "Ascending":
            found.reverse()
        rows, token = page(found, request, limit=_LIMIT)
        return ActionResult({"ClusterOperationSummaries": rows, "NextToken": token})

    def describe_cluster_operation(self) -> ActionResult:
        """Answer one operation."""
        cluster, request = self._continuous()
        operation = cluster.operations.get(request["OperationId"])
        if operation is None:
            raise Refused("ResourceNotFound", f"Operation {request['OperationId']} not found.")
        return ActionResult(operation)

    # -- training plans --------------------------------------------------------------------------

    def search_training_plan_offerings(self) -> ActionResult:
        """Answer offerings of capacity."""
        return ActionResult(self.backend.training_plans.search(self.request()))

    def create_training_plan(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult(self.backend.training_plans.create(self.request()))

    def describe_training_plan(self) -> ActionResult:
        """Answer the plan as it stands now."""
        plan = self.request()["TrainingPlanName"]
        return ActionResult(self.backend.training_plans.describe(plan))

    def list_training_plans(self) -> ActionResult:
        """Answer summaries."""
        return ActionResult(self.backend.training_plans.summaries(self.request()))

    # -- tags ------------------------------------------------------------------------------------

    def _tags(self, arn: str) -> dict[str, str] | None:
        """Return the tags, to be changed, of a resource of ours; None if it is moto's."""
        kind = arn.split(":")[5].split("/")[0]
        if kind == "cluster":
            return self.backend.find(arn).tags
        if kind == "training-plan":
            tags: dict[str, str] = self.backend.training_plans.find(arn)["Tags"]
            return tags
        return None

    def list_tags(self) -> ActionResult:
        """Answer a page of tags."""
        request = self.request()
        tags = self._tags(request["ResourceArn"])
        if tags is None:
            return super().list_tags()  # type: ignore[no-any-return]  # moto's
        rows, token = page([{"Key": k, "Value": v} for k, v in tags.items()], request)
        return ActionResult({"Tags": rows, "NextToken": token})

    def add_tags(self) -> ActionResult:
        """Answer the tags after the change; there may be 50."""
        request = self.request()
        tags = self._tags(request["ResourceArn"])
        if tags is None:
            return super().add_tags()  # type: ignore[no-any-return]  # moto's
        added = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        if len({*tags, *added}) > 50:
            raise Refused("ResourceLimitExceeded", "A resource can have at most 50 tags.")
        tags.update(added)
        return ActionResult({"Tags": [{"Key": k, "Value": v} for k, v in tags.items()]})

    def delete_tags(self) -> ActionResult:
        """Answer nothing."""
        request = self.request()
        tags = self._tags(request["ResourceArn"])
        if tags is None:
            return super().delete_tags()  # type: ignore[no-any-return]  # moto's
        for key in request["TagKeys"]:
            tags.pop(key, None)
        return EmptyResult()


def _between(request: Document, moment: Any, member: str) -> bool:
    after, before = request.get(f"{member}After"), request.get(f"{member}Before")
    return (after is None or moment >= after) and (before is None or moment <= before)


def install() -> None:
    """Swap moto's SageMaker classes for ours."""
    plugin.backend(sagemaker_backends, Backend)
    moto.sagemaker.urls.url_paths["{0}/$"] = Response.dispatch


def inventory(account: str, region: str) -> dict[str, Any]:
    """Return every cluster with its groups and nodes, and every training plan."""
    backend: Backend = sagemaker_backends[account][region]
    return {
        "Clusters": {
            name: {
                "Id": cluster.id,
                "Status": cluster.status,
                **cluster.members,
                "Groups": {each: group.spec for each, group in cluster.groups.items()},
                "Nodes": {
                    node.id: {"Group": node.group.name, "Status": node.status}
                    for node in cluster.nodes.values()
                },
                "Tags": cluster.tags,
            }
            for name, cluster in backend.hyperpod.items()
        },
        "TrainingPlans": sorted(backend.training_plans.plans),
    }
