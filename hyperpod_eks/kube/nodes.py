"""Nodes and pending pods, from the Kubernetes API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube.access import Access
from hyperpod_eks.kube.client import _list, _words, part, parts, text

CLUSTER_NAME = "sagemaker.amazonaws.com/cluster-name"
GROUP_NAME = "sagemaker.amazonaws.com/instance-group-name"
HEALTH_STATUS = "sagemaker.amazonaws.com/node-health-status"
DEEP_CHECK = "sagemaker.amazonaws.com/deep-health-check-status"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"


@frozen
class Node:
    """A HyperPod node in Kubernetes.

    ``health`` is HyperPod's health status (Schedulable, Unschedulable,
    UnschedulablePendingReplacement, UnschedulablePendingReboot), empty before the first one;
    ``why`` is kubelet's message while the node is not ready; ``kubelet`` is kubelet's version;
    ``checking`` is whether a deep health check is running, during which the node accepts no pods;
    ``devices`` are the numbers of devices for pods by resource name ({"nvidia.com/gpu": 8});
    ``taints`` are those that keep pods away, as ``key=value:effect``; ``deep_check`` is the
    state of the last deep health check (InProgress, Passed, Failed).
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
    taints: tuple[str, ...] = ()
    deep_check: str = ""

    @property
    def instance_id(self) -> str:
        """The EC2 instance's id: HyperPod names its nodes ``hyperpod-<instance id>``."""
        return self.name.removeprefix("hyperpod-")


def list_nodes(access: Access, cluster_name: str = "") -> list[Node]:
    """Return the nodes of a HyperPod cluster, or all nodes, ordered by name.

    Raises KubeNotReady if a retry may succeed, HyperpodError for other failures.
    """
    selector = {"labelSelector": f"{CLUSTER_NAME}={cluster_name}"} if cluster_name else {}
    with _words(access):
        found = _list(access, "/api/v1/nodes", **selector)
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
        taints=tuple(_taints(document)),
        deep_check=text(labels, DEEP_CHECK),
    )


def _taints(document: JsonMapping) -> Iterator[str]:
    for each in parts(document, "spec", "taints"):
        if (effect := text(each, "effect")) != "PreferNoSchedule":
            yield f"{text(each, 'key')}={text(each, 'value')}:{effect}"


def _devices(allocatable: JsonMapping) -> dict[str, int]:
    """Return the allocatable resources with a vendor prefix, whose quantities are integers."""
    amounts = {name: text(allocatable, name) for name in allocatable if "/" in name}
    return {name: int(amount) for name, amount in amounts.items() if amount.isdecimal()}


@frozen
class Pod:
    """A pending pod; ``why`` is the scheduler's or kubelet's message."""

    namespace: str
    name: str
    why: str


def pending(access: Access) -> list[Pod]:
    """Return the pods that are Pending, with the reason.  Raises as `list_nodes`."""
    with _words(access):
        found = _list(access, "/api/v1/pods", fieldSelector="status.phase=Pending")
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
