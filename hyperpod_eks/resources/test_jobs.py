"""The jobs of `hyperpod-eks test`, which a test that was killed has left in the cluster."""

from __future__ import annotations

from collections.abc import Sequence

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import jobs
from hyperpod_eks.kube.client import KubeNotReady
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import Live, Resource, State

LABEL = "hyperpod-eks/test"
"""The label of everything that a test creates; its value is the HyperPod cluster's name."""


@frozen
class JobsOfTest(Resource):
    """All jobs of tests of a cluster: a test records them before it creates the first one.

    No config declares them, so that ``create`` deletes those that are recorded, as ``delete`` does.
    """

    control: str
    """The name of the EKS cluster."""
    hyperpod: str
    """The name of the HyperPod cluster."""
    cluster: Resource | None = None
    """The EKS cluster, if it is ours."""

    kind = "kubernetes/JobsOfTest"
    step = "kubernetes"
    schema = 2

    @property
    def deleted_with(self) -> Resource | None:
        """The cluster, whose deletion deletes everything in it."""
        return self.cluster

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find them by their label."""
        access, ours = eks.access(snapshot, self.control), snapshot.aws.lineage
        if access is None:
            return []
        try:
            found = jobs.labelled(access, f"{LABEL}={self.hyperpod}")
        except KubeNotReady as error:  # create restores a lost access entry
            return [Live("", owner=ours, state=State.BUSY, why=str(error), cause=error.cause)]
        if not found:
            return []
        named = ", ".join(f"{each.namespace}/{each.name}" for each in found)
        return [Live(named, owner=ours, attributes={"jobs": found})]

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete them; Kubernetes deletes their pods."""
        access = eks.access(Snapshot(aws), self.control)
        for job in live.attributes.get("jobs", ()):
            if access is not None:
                jobs.delete(access, job)
