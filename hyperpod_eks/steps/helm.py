"""AWS's HyperPod Helm chart: installed before the nodes exist, and so never waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hyperpod_eks.aws import Aws, Look
from hyperpod_eks.resource import MINUTE, Live, Resource
from hyperpod_eks.site import Site
from hyperpod_eks.steps import eks


def step(site: Site, control: eks.Control, binary: str | None) -> Release:
    """Declare the release."""
    return Release("release", cluster=control.cluster, binary=binary or "", after=control.access)


@dataclass(frozen=True)
class Release(Resource):
    """The release in the cluster."""

    cluster: eks.Cluster
    binary: str

    step = "helm"
    patience = 15 * MINUTE

    @property
    def within(self) -> Resource | None:
        """What is installed in the cluster goes with it."""
        return self.cluster

    def find(self, look: Look) -> Sequence[Live]:
        """In the cluster."""
        return []

    def delete(self, aws: Aws, live: Live) -> None:
        """Uninstall."""
