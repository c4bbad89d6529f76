"""The input of the tests of a cluster, and their findings."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from functools import cached_property
from typing import NamedTuple

from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.config.model import Config
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import KnownCause, Unfinished
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube.access import Access
from hyperpod_eks.kube.nodes import Node, list_nodes
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.state.manifest import Manifest


class Finding(NamedTuple):
    """What does not work.

    ``about`` names the group, node, pod or add-on; ``says`` is a sentence with what AWS, Kubernetes
    or a pod said; ``cause`` is the known cause if it is not the one of the check.
    """

    about: str
    says: str
    cause: KnownCause | None = None


class Skipped(NamedTuple):
    """Why a check has nothing to look at in this cluster."""

    why: str


class Measured(NamedTuple):
    """A figure that a check has measured, for which no source names a limit."""

    about: str
    says: str


Outcome = Finding | Skipped | Measured


class Gate:
    """Keeps a test that ends from creating more jobs: an interrupted one has threads at work."""

    def __init__(self) -> None:
        self._lock, self._closed = threading.Lock(), threading.Event()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Create a job within this context.  Raises Unfinished once the gate is closed."""
        with self._lock:
            self.wait(0)
            yield

    def wait(self, seconds: float) -> None:
        """Wait some seconds.  Raises Unfinished once the gate is closed."""
        if self._closed.wait(seconds):
            raise Unfinished("the test was stopped")

    def close(self) -> None:
        """Let nobody in any more, and wait for those who are inside."""
        self._closed.set()
        with self._lock:
            pass


@frozen
class Facts:
    """A cluster as AWS and Kubernetes describe it; what takes calls is read when it is needed.

    ``config`` is the config that it was declared with, None if that is unknown; ``described`` is
    HyperPod's DescribeCluster.
    """

    snapshot: Snapshot
    name: str
    eks_name: str
    access: Access
    described: JsonMapping
    config: Config | None
    image: str = ""
    """The image of level 2."""
    accelerator_image: str = ""
    """The image of level 3; empty for the usual ones."""
    copy_of: Callable[[str], str] = str
    """Returns the cluster's own copy of an image, or the image itself."""
    deadline: float = math.inf
    """Seconds of the monotonic clock at which the command ends."""
    manifest: Manifest | None = None
    """Where jobs are recorded before they are created, if it exists."""
    gate: Gate = field(default_factory=Gate)

    @cached_property
    def groups(self) -> list[JsonMapping]:
        """The instance groups, as HyperPod describes them."""
        return hyperpod_api.every_group(self.described)

    @property
    def nodes(self) -> list[Node]:
        """The nodes in Kubernetes."""
        return self.snapshot.once("nodes", lambda: list_nodes(self.access, self.name))

    def of_group(self, name: str) -> list[Node]:
        """Return the nodes of an instance group."""
        return [node for node in self.nodes if node.instance_group == name]

    @staticmethod
    def taints(group: JsonMapping) -> set[str]:
        """Return the taints of a group, those that its nodes have and those that they will get."""
        config = group.get("KubernetesConfig") or {}
        return {
            f"{each['Key']}={each.get('Value') or ''}:{each['Effect']}"
            for member in ("CurrentTaints", "DesiredTaints")
            for each in config.get(member) or ()
        }

    def addons(self) -> list[JsonMapping]:
        """Describe the add-ons of the EKS cluster."""
        eks, name = self.snapshot.aws.eks, self.eks_name
        names = self.snapshot.all(eks, "list_addons", "addons", clusterName=name)
        return [eks.describe_addon(clusterName=name, addonName=each)["addon"] for each in names]


Run = Callable[[Facts], Iterable[Outcome]]


class Check(NamedTuple):
    """A check: what it looks at, and the cause of its findings unless they name another."""

    id: str
    level: int
    looks_at: str
    cause: str
    run: Run


LEVELS: Mapping[int, str] = {
    1: "nodes, devices, plugins, agents and add-ons, without a pod",
    2: "a pod per instance group: image, DNS, AWS, file systems, logs and exec",
    3: "accelerators: an all-reduce between two nodes of each group",
    4: "HyperPod's deep health checks",
}
