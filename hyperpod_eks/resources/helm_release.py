"""The Helm release of AWS's HyperPod chart."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.transport import ca_bundle
from hyperpod_eks.config import variables
from hyperpod_eks.config.lifecycle import is_elsewhere
from hyperpod_eks.documents import JsonObject
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.helm import chart
from hyperpod_eks.helm import release as helm
from hyperpod_eks.helm.program import find_helm
from hyperpod_eks.kube import client as kube
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import (
    MINUTE,
    Differs,
    Fact,
    Live,
    NotReady,
    References,
    Resource,
    State,
)


@frozen
class Release(Resource):
    """The release ``hyperpod-dependencies`` in ``kube-system``.

    It matches if its fingerprint is that of the chart and the values: AWS changes the chart without
    a new version number.
    """

    cluster: eks.Cluster
    chart: str
    """Path of the chart; empty for AWS's chart at the pinned commit."""
    values: str
    """JSON, with references to variables (``${env:NAME}``) unresolved."""
    binary: str
    """Path of the helm program; empty to search for it."""

    kind = "helm/Release"
    step = "helm"
    deleted_at_once = True
    facts = ("fingerprint",)
    patience = 15 * MINUTE
    usual = "1 min"
    typical = 15.0

    @property
    def deleted_with(self) -> Resource | None:
        """The cluster, whose deletion deletes everything installed in it."""
        return self.cluster

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it in helm's release records, under our name or another one."""
        access = eks.access(snapshot, self.cluster.name)
        if access is None:
            return []
        try:
            releases = helm.releases(access)
        except kube.KubeNotReady as error:  # create restores a lost access entry
            who, why = snapshot.aws.lineage, str(error)
            return [Live("", owner=who, state=State.BUSY, why=why, cause=error.cause)]
        lives = []
        for found in releases:
            ours = (found.name, found.namespace) == (helm.NAME, helm.NAMESPACE)
            if snapshot.adopted.get(self.key, f"{found.namespace}/{found.name}") != (
                f"{found.namespace}/{found.name}"
            ):
                continue
            lives.append(
                _live(found, snapshot.aws.lineage if ours else "another release of the chart")
            )
        return lives

    def names(self, live: Live | None = None) -> Iterable[str]:
        """Return no fact of a release whose chart is on another machine: it stays as it is."""
        return () if live and is_elsewhere(self.chart) else self.facts

    def expected(self, name: str, references: References) -> Fact:
        """Compute the fingerprint from the current chart and variables."""
        if name == "fingerprint":
            try:
                return _fingerprint(self.chart, json.dumps(self._values(), sort_keys=True))
            except Usage as error:  # a command that sends nothing needs no value
                raise NotReady(str(error)) from error
        return super().expected(name, references)

    def _values(self) -> JsonObject:
        values: JsonObject = variables.resolved(json.loads(self.values), "chart.values")
        return values

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Install it; ``helm upgrade --install`` may be repeated."""
        return self._install(aws, references)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Upgrade it, or repair a release that a killed helm left unfinished."""
        return self._install(aws, references)

    def _install(self, aws: Aws, references: References) -> Live:
        access = eks.kube_access(aws, self.cluster.name, references(self.cluster).attributes)
        program = find_helm(self.binary or None, ca_bundle(aws.session))
        values = self._values()
        fingerprint = _fingerprint(self.chart, json.dumps(values, sort_keys=True))
        with tempfile.TemporaryDirectory(prefix="hyperpod-eks-") as folder:
            source = Path(self.chart) if self.chart else None
            staged = chart.stage(source, Path(folder), values, program)
            done = helm.install(access, program, staged, values, fingerprint)
        return replace(_live(done, aws.lineage), shown=frozenset({"fingerprint"}))  # from helm

    def delete(self, aws: Aws, live: Live) -> None:
        """Uninstall it from a cluster that stays; helm keeps CRDs."""
        access = eks.access(Snapshot(aws), self.cluster.name)
        if access is not None:
            program = find_helm(self.binary or None, ca_bundle(aws.session))
            helm.uninstall(access, program, helm.release(access))


def _live(found: helm.Release, owner: str) -> Live:
    return Live(
        f"{found.namespace}/{found.name}",
        owner=owner,
        why=f"{found.status}, revision {found.revision}",
        facts={"fingerprint": found.fingerprint},
        attributes={
            "release": found.name,
            "namespace": found.namespace,
            "status": found.status,
            "revision": found.revision,
            "chart": f"{found.chart}-{found.chart_version}",
        },
    )


@cache
def _fingerprint(path: str, values: str) -> str:
    return chart.fingerprint(Path(path) if path else None, json.loads(values))
