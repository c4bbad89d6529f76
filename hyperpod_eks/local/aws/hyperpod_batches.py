"""What is done to HyperPod's nodes one by one: BatchAdd, Delete, Reboot, Replace, health checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hyperpod_eks.local.aws import hyperpod_checks, instance_types
from hyperpod_eks.local.aws.hyperpod_checks import invalid
from hyperpod_eks.local.aws.hyperpod_clusters import Backend
from hyperpod_eks.local.aws.hyperpod_model import Cluster, Document, Node
from hyperpod_eks.local.aws.sim import current

_MOST_NODES = 50  # of all groups together (SageMaker API BatchAddClusterNodes, NodesToAdd)
_MOST_DELETED = 99  # SageMaker API BatchDeleteClusterNodes, NodeIds: beyond that, Support helps
_TOKEN_LIFE = 8 * 3600.0  # the same page, ClientToken


def add(backend: Backend, request: Document) -> Document:
    """Raise targets and launch the nodes (SageMaker API BatchAddClusterNodes)."""
    cluster = backend.find(request["ClusterName"])
    if not cluster.continuous:
        raise invalid("BatchAddClusterNodes needs NodeProvisioningMode Continuous")
    token = request.get("ClientToken")
    now = current().clock.elapsed()
    if token in cluster.answered:
        when, nodes, refused = cluster.answered[token]
        if now - when < _TOKEN_LIFE:
            return _added(nodes, refused)
    if sum(asked["IncrementTargetCountBy"] for asked in request["NodesToAdd"]) > _MOST_NODES:
        raise invalid(f"At most {_MOST_NODES} nodes can be added in a request")
    accepted, failed = [], []
    for asked in request["NodesToAdd"]:
        problem = _addable(backend, cluster, asked)
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
    extra: Counter[str] = Counter()
    for asked in accepted:
        extra[asked["InstanceGroupName"]] += asked["IncrementTargetCountBy"]
    specs = [
        {**group.spec, "InstanceCount": group.target + extra[name]}
        for name, group in cluster.groups.items()
    ]
    hyperpod_checks.check_quotas(backend.hyperpod.values(), cluster.name, specs)
    before = {name: cluster.groups[name].scale for name in extra}
    added: list[Node] = []
    for name, count in extra.items():
        cluster.groups[name].target += count
    cluster.begin_scaling(before, extra)
    for asked in accepted:
        group = cluster.groups[asked["InstanceGroupName"]]
        zones = asked.get("AvailabilityZones") or ()
        added += backend.fleet.launch(group, asked["IncrementTargetCountBy"], zones)
    if token:
        cluster.answered[token] = now, added, failed
    return _added(added, failed)


def _added(nodes: list[Node], failed: list[Document]) -> Document:
    return {
        "Successful": [
            {
                "NodeLogicalId": node.logical_id,
                "InstanceGroupName": node.group.name,
                "Status": node.status,
            }
            for node in nodes
        ],
        "Failed": failed,
    }


def _addable(backend: Backend, cluster: Cluster, asked: Document) -> str:
    group = cluster.groups.get(asked["InstanceGroupName"])
    if group is None:
        return "InstanceGroupNotFound"
    if group.leaving or cluster.status not in ("InService", "Updating"):
        return "InvalidInstanceGroupStatus"
    if not set(asked.get("InstanceTypes") or group.instance_types) & set(group.instance_types):
        return "IncompatibleInstanceTypes"
    subnets = group.vpc_config["Subnets"]
    here = {backend.fleet.zone_of(subnet) for subnet in subnets}
    if not set(asked.get("AvailabilityZones") or here) & here:
        return "IncompatibleAvailabilityZones"
    return ""


def remove(backend: Backend, request: Document) -> Document:
    """Lower targets and terminate the nodes (SageMaker API BatchDeleteClusterNodes, NodeIds)."""
    cluster = backend.find(request["ClusterName"])
    if len(request.get("NodeIds") or ()) > _MOST_DELETED:
        raise invalid(f"At most {_MOST_DELETED} nodes can be deleted in a request")
    before = {name: group.scale for name, group in cluster.groups.items()}
    leaving: dict[str, Node] = {}

    def act(node: Node) -> str:
        if node.status == "ShuttingDown" or node.id in leaving:
            return "InvalidNodeStatus"
        leaving[node.id] = node
        return ""

    answer = _each_node(cluster, request, act, "NodeIdNotFound", "Code")
    touched = Counter(node.group.name for node in leaving.values())
    for name, count in touched.items():
        cluster.groups[name].target = max(0, cluster.groups[name].target - count)
    cluster.begin_scaling({name: before[name] for name in touched}, touched)
    backend.fleet.terminate(cluster, leaving.values())
    return answer


def reboot(backend: Backend, request: Document) -> Document:
    """Restart nodes (SageMaker API BatchRebootClusterNodes)."""
    cluster = backend.find(request["ClusterName"])

    def act(node: Node) -> str:
        if node.status != "Running":
            return "InvalidInstanceStatus"
        backend.fleet.reboot(node)
        return ""

    return _each_node(cluster, request, act, "InstanceIdNotFound", "ErrorCode")


def replace(backend: Backend, request: Document) -> Document:
    """Terminate nodes and launch others (SageMaker API BatchReplaceClusterNodes)."""
    cluster = backend.find(request["ClusterName"])

    def act(node: Node) -> str:
        if node.status not in ("Running", "Failure"):
            return "InvalidInstanceStatus"
        backend.fleet.terminate(cluster, [node])
        backend.fleet.launch(node.group, 1)
        return ""

    return _each_node(cluster, request, act, "InstanceIdNotFound", "ErrorCode")


def check_health(backend: Backend, request: Document) -> Cluster:
    """Begin deep health checks (SageMaker API StartClusterHealthCheck).

    All of them test accelerators or EFA (SageMaker developer guide, "Deep health checks", instance
    type compatibility).
    """
    cluster = backend.find(request["ClusterName"])
    batches = []
    for config in request["DeepHealthCheckConfigurations"]:
        group = cluster.groups.get(config["InstanceGroupName"])
        if group is None:
            raise invalid(f"Instance group {config['InstanceGroupName']} does not exist")
        if not all(map(instance_types.accelerators, group.instance_types)):
            raise invalid("deep health checks need instances with accelerators")
        wanted = config.get("InstanceIds") or list(group.nodes)
        if unknown := [each for each in wanted if each not in group.nodes]:
            raise invalid(f"Instances are not in group {group.name}: {unknown}")
        nodes = [group.nodes[each] for each in wanted if group.nodes[each].status == "Running"]
        batches.append((group, nodes))
    details = request["DeepHealthCheckConfigurations"]
    cluster.begin("DeepHealthCheck", DeepHealthCheckDetails=details)
    for group, nodes in batches:
        backend.fleet.check(group, nodes)
    return cluster


def _each_node(
    cluster: Cluster, request: Document, act: Callable[[Node], str], unknown: str, code: str
) -> Document:
    """Do something with every node that a batch request names, and answer for each.

    ``act`` returns an error code, or nothing; ``unknown`` is the code for no such node.
    """
    answer: Document = {}
    by_logical: dict[str, Node] = {}
    if request.get("NodeLogicalIds"):
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
