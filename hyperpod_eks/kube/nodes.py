"""Nodes and pods, as Kubernetes describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube.client import Access, _list, _words, part, parts, text

CLUSTER_NAME = "sagemaker.amazonaws.com/cluster-name"
GROUP_NAME = "sagemaker.amazonaws.com/instance-group-name"
HEALTH_STATUS = "sagemaker.amazonaws.com/node-health-status"
DEEP_CHECK = "sagemaker.amazonaws.com/deep-health-check-status"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"


@frozen
class Node:
    """A HyperPod node as Kubernetes sees it.

    ``health`` is HyperPod's own verdict (Schedulable, Unschedulable,
    UnschedulablePendingReplacement, UnschedulablePendingReboot), empty before the first one;
    ``why`` is what kubelet says while the node is not ready; ``kubelet`` is its version;
    ``checking`` is whether a deep health check is under way, during which it takes no pods;
    ``devices`` are what it offers to pods by resource name ({"nvidia.com/gpu": 8}).
    """

    name: str
    ready: bool
    health: str
    instance_group: str
    instance_type: str
    why: str = ""
    kubelet: str = ""
    checking: bool = False
    devices: Mapping[str, int] = field(default_factory=dict)

    @property
    def instance_id(self) -> str:
        """The EC2 instance: HyperPod names its nodes ``hyperpod-<instance id>``."""
        return self.name.removeprefix("hyperpod-")


def list_nodes(access: Access, cluster_name: str = "") -> list[Node]:
    """List the nodes of a HyperPod cluster, or every node, in the order of their names.

    Raises KubeNotReady while the API server does not answer us, HyperpodError otherwise.
    """
    selector = {"labelSelector": f"{CLUSTER_NAME}={cluster_name}"} if cluster_name else {}
    with _words(access):
        found = _list(access._client, "/api/v1/nodes", **selector)
        return [_node(each) for each in found]


def _node(document: JsonMapping) -> Node:
    labels, conditions = (
        part(document, "metadata", "labels"),
        parts(document, "status", "conditions"),
    )
    ready = next((each for each in conditions if text(each, "type") == "Ready"), {})
    good = text(ready, "status") == "True"
    return Node(
        name=text(document, "metadata", "name"),
        ready=good,
        health=text(labels, HEALTH_STATUS),
        instance_group=text(labels, GROUP_NAME),
        instance_type=text(labels, INSTANCE_TYPE),
        why="" if good else text(ready, "message") or "kubelet has not reported yet",
        kubelet=text(document, "status", "nodeInfo", "kubeletVersion").removeprefix("v"),
        checking=text(labels, DEEP_CHECK) == "InProgress",
        devices=_devices(part(document, "status", "allocatable")),
    )


def _devices(allocatable: JsonMapping) -> dict[str, int]:
    """Of what a node has for pods, take what has a vendor: quantities of these are whole."""
    amounts = {name: text(allocatable, name) for name in allocatable if "/" in name}
    return {name: int(amount) for name, amount in amounts.items() if amount.isdecimal()}


@frozen
class Pod:
    """A pod that does not run, with the words of the scheduler or kubelet."""

    namespace: str
    name: str
    why: str


def pending(access: Access) -> list[Pod]:
    """List the pods that are Pending, with the reason.  Raises as `nodes`."""
    with _words(access):
        found = _list(access._client, "/api/v1/pods", fieldSelector="status.phase=Pending")
        return [_pod(each) for each in found]


def _pod(document: JsonMapping) -> Pod:
    waiting = [
        part(each, "state", "waiting") for each in parts(document, "status", "containerStatuses")
    ]
    words = [
        f"{text(each, 'reason')}: {message}"
        for each in (*parts(document, "status", "conditions"), *waiting)
        if (message := text(each, "message"))
    ]
    about = part(document, "metadata")
    return Pod(text(about, "namespace"), text(about, "name"), "; ".join(words) or "Pending")
