"""The nodes of a cluster in Kubernetes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import KnownCause
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import client as kube
from hyperpod_eks.kube.nodes import Node, list_nodes
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import MINUTE, Lifecycle, Live, Resource, State
from hyperpod_eks.resources.hyperpod import devices
from hyperpod_eks.resources.hyperpod.api import describe, every_group
from hyperpod_eks.resources.hyperpod.cluster import Cluster
from hyperpod_eks.resources.hyperpod.groups import DEEP_CHECKS, deeply_checked
from hyperpod_eks.workers import gather


@frozen
class Nodes(Resource):
    """The nodes in Kubernetes: registered and Ready.

    We only wait for them: HyperPod registers and removes them.
    """

    cluster: Cluster
    control: eks.Cluster

    kind = "hyperpod/Nodes"
    step = "hyperpod"
    lifecycle = Lifecycle.AWAITED
    patience = 30 * MINUTE

    @property
    def longest_wait(self) -> float:
        """As for the cluster: deep health checks take hours."""
        return self.patience + (DEEP_CHECKS if deeply_checked(self.cluster.groups) else 0.0)

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Read the nodes from the Kubernetes API; one live resource represents all."""
        found, access = gather(
            partial(describe, snapshot, self.cluster.name),
            partial(eks.access, snapshot, self.control.name),
        )
        if found is None or access is None:
            return []
        try:
            nodes = snapshot.once("nodes", lambda: list_nodes(access, self.cluster.name))
        except kube.KubeNotReady as error:
            return [Live("", state=State.BUSY, why=str(error), cause=error.cause)]
        version = eks.describe(snapshot, self.control.name)[0]["version"]
        live = self._live(self._wanted(found), nodes, version)
        if live.state is State.READY:
            live = replace(live, warnings=devices.lacking(snapshot, nodes))
        return [live]

    def _wanted(self, found: JsonMapping) -> dict[str, int]:
        """Return the number of nodes that each group must have to be ready."""
        targets = {g["InstanceGroupName"]: g.get("TargetCount") for g in every_group(found)}
        return {
            group.name: group.wanted(targets.get(group.name), self.cluster.is_scaled(group))
            for group in self.cluster.groups
        } or {name: target or 0 for name, target in targets.items()}

    def _live(self, wanted: Mapping[str, int], nodes: Sequence[Node], version: str) -> Live:
        total, checked = sum(wanted.values()), deeply_checked(self.cluster.groups)
        checking = [node for node in nodes if node.checking and node.instance_group in checked]
        ready = Counter(
            node.instance_group for node in nodes if node.ready and node not in checking
        )
        # a node without the group's label counts for any group
        enough = ready[""] + sum(min(ready[name], count) for name, count in wanted.items()) >= total
        why = f"{ready.total()} of {total} nodes Ready in Kubernetes"
        if checking:
            why += f"; {len(checking)} under deep health checks, which take 1 to 2 hours or longer"
        kubelets = sorted({node.kubelet.rpartition(".")[0] for node in nodes if node.kubelet})
        if behind := [each for each in kubelets if each != version]:
            why += f"; kubelet {', '.join(behind)} until `hyperpod-eks update-software`"
        return Live(
            "",
            state=State.READY if enough else State.BUSY,
            why=why,
            mark=(len(nodes), len(checking), ready),
            attributes={"nodes": nodes},
            cause=None if enough else KnownCause("not-ready"),
        )

    def delete(self, aws: Aws, live: Live) -> None:
        """Do nothing: HyperPod removes its nodes."""
