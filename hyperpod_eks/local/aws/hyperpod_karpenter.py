"""What HyperPod does for its Karpenter: groups, and nodes that come and go one by one.

Karpenter calls BatchAddClusterNodes and BatchDeleteClusterNodes with the cluster's role (SageMaker
developer guide, "Create an IAM role for HyperPod autoscaling with Karpenter").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperpod_eks.local.aws import hyperpod_batches, instance_types, roles
from hyperpod_eks.local.aws.hyperpod_clusters import Backend
from hyperpod_eks.local.aws.hyperpod_model import Cluster, Group, is_spot
from hyperpod_eks.local.aws.hyperpod_nodes import group_labels, taints
from hyperpod_eks.local.aws.sim import current
from hyperpod_eks.local.aws.wire import Refused
from hyperpod_eks.local.kubernetes.karpenter import CAPACITY_TYPE, InstanceGroup


class Provider:
    """The nodes of a cluster."""

    def __init__(self, backend: Backend, cluster: Cluster) -> None:
        self.lock = current().clock.lock
        self._backend, self._cluster = backend, cluster

    def groups(self) -> Mapping[str, InstanceGroup]:
        """Return the groups that stay, without restricted ones."""
        return {
            name: self._mapped(group)
            for name, group in self._cluster.groups.items()
            if not (group.leaving or group.restricted)
        }

    def _mapped(self, group: Group) -> InstanceGroup:
        subnets = [self._backend.fleet.subnet(each) for each in group.vpc_config["Subnets"]]
        declared = (group.spec.get("KubernetesConfig") or {}).get("Labels") or {}
        kind = group.instance_types[0]
        labels = {
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            CAPACITY_TYPE: "spot" if is_spot(group.spec) else "on-demand",
            **group_labels(group, kind, subnets[0]),
        }
        return InstanceGroup(
            tuple(group.instance_types),
            tuple(
                {"id": s.id, "zone": s.availability_zone, "zoneId": s.availability_zone_id}
                for s in subnets
            ),
            declared,
            labels,
            tuple(taints(group.spec)),
            instance_types.capacity(kind),
            tuple(n.provider_id for n in group.nodes.values() if n.status != "ShuttingDown"),
        )

    def add(self, group: str) -> str:
        """Launch a node, unless the role may not, or a quota is reached."""
        asked = [{"InstanceGroupName": group, "IncrementTargetCountBy": 1}]
        found = self._call("BatchAddClusterNodes", hyperpod_batches.add, {"NodesToAdd": asked})
        logical = {each["NodeLogicalId"] for each in found.get("Successful") or ()}
        nodes = self._cluster.nodes.values()
        return next((node.provider_id for node in nodes if node.logical_id in logical), "")

    def remove(self, provider_id: str) -> None:
        """Terminate a node, unless the role may not."""
        ids = [n.id for n in self._cluster.nodes.values() if n.provider_id == provider_id]
        self._call("BatchDeleteClusterNodes", hyperpod_batches.remove, {"NodeIds": ids})

    def _call(self, operation: str, call: Any, members: dict[str, Any]) -> dict[str, Any]:
        role = roles.find(self._cluster.members.get("ClusterRole") or "")
        action = f"sagemaker:{operation}"
        if role is None or not roles.allows(role, action, self._cluster.arn):
            return {}
        try:
            answer: dict[str, Any] = call(
                self._backend, {"ClusterName": self._cluster.name, **members}
            )
        except Refused:
            return {}
        return answer
