"""Helm releases: that of AWS's HyperPod chart, and those of further charts."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.transport import ca_bundle
from hyperpod_eks.config import variables
from hyperpod_eks.config.lifecycle import check_folder, is_elsewhere
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.helm import chart
from hyperpod_eks.helm import release as helm
from hyperpod_eks.helm.program import Helm, find_helm
from hyperpod_eks.helm.remote import Remote
from hyperpod_eks.kube import client as kube
from hyperpod_eks.kube import objects
from hyperpod_eks.kube.access import Access
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

DECLARED = "declared"
"""What a release is said to be installed from, if that is the declared chart."""
MOST = 6
"""Keys of values to name."""


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
    images: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    """Pairs of an image that the templates name as it is, and what takes its place."""

    kind = "helm/Release"
    step = "helm"
    deleted_at_once = True
    facts: ClassVar[tuple[str, ...]] = ("fingerprint",)
    patience = 15 * MINUTE
    usual = "1 min"
    typical = 15.0

    @property
    def deleted_with(self) -> Resource | None:
        """The cluster, whose deletion deletes everything installed in it."""
        return self.cluster

    @property
    def unmarked(self) -> bool:
        """AWS's chart has one name for everybody's release."""
        return True

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it in helm's release records, under our name or another one."""
        access = eks.access(snapshot, self.cluster.name)
        if access is None:
            return []
        try:
            releases = helm.releases(access)
        except kube.KubeNotReady as error:
            return [_unreachable(error, snapshot)]
        lives = []
        for found in releases:
            ours = (found.name, found.namespace) == (helm.NAME, helm.NAMESPACE)
            if snapshot.adopted.get(self.key, f"{found.namespace}/{found.name}") != (
                f"{found.namespace}/{found.name}"
            ):
                continue
            live = _live(found, snapshot.aws.lineage if ours else "another release of the chart")
            lives.append(live if snapshot.bare else self._identified(live, found))
        return lives

    def names(self, live: Live | None = None) -> Iterable[str]:
        """Return no fact of a release whose chart is on another machine: it stays as it is."""
        return () if live and is_elsewhere(self.chart) else self.facts

    def expected(self, name: str, references: References) -> Fact:
        """Compute the fingerprint from the current chart and variables."""
        if name == "fingerprint":
            try:
                return self._fingerprint(self._values())
            except Usage as error:  # a command that sends nothing needs no value
                raise NotReady(str(error)) from error
        return super().expected(name, references)

    @property
    def setting(self) -> str:
        """The section of the config that declares it."""
        return "chart"

    def _values(self) -> JsonObject:
        values: JsonObject = variables.resolved(json.loads(self.values), f"{self.setting}.values")
        return values

    def _fingerprint(self, values: JsonMapping, content: str = "") -> str:
        names = (name for both in self.images for name in both)
        return chart.fingerprint(" ".join([content or self._content, *names]), values)

    def _identified(self, live: Live, found: helm.Release) -> Live:
        """Add what is known of its chart and values, for `in_words`: values only as digests."""
        content = {pin.digest: pin.commit for pin in (chart.PINNED, *chart.EARLIER)}
        with suppress(HyperpodError):  # a folder on another machine, or one that is gone
            content[self._content] = DECLARED
        known = (
            name
            for each, name in content.items()
            if self._fingerprint(found.values, each) == found.fingerprint
        )
        about = {"installed": next(known, ""), "values": _leaves(found.values)}
        return replace(live, attributes={**live.attributes, **about})

    def in_words(self, live: Live, differs: Differs) -> str:
        """Say what of chart and values differs from the release."""
        if "fingerprint" not in differs or "values" not in live.attributes:
            return ""
        if live.facts["fingerprint"] == live.why:
            return "its last change failed, or is somebody else's"
        try:
            now = _leaves(self._values())
        except Usage:  # a variable without a value
            return ""
        then = live.attributes["values"]
        changed = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
        parts = [self._chart_in_words(live, sure=not changed)]
        if changed:
            more = f" and {len(changed) - MOST} more" if len(changed) > MOST else ""
            parts.append(f"values changed: {', '.join(changed[:MOST])}{more}")
        return "; ".join(filter(None, parts))

    def _chart_in_words(self, live: Live, *, sure: bool) -> str:
        """Say how the chart differs; empty if it does not, or if nothing says that it does.

        ``sure`` is whether nothing else differs.
        """
        was = str(live.attributes["installed"])
        if was == DECLARED:
            return ""
        new = self.chart or f"commit {chart.PINNED.commit}"
        if was:
            return f"chart: commit {was} → {new}"
        return f"the content of the chart or its images changed: now {new}" if sure else ""

    @cached_property
    def _content(self) -> str:
        """What identifies the chart; a folder is read once in a run."""
        return chart.content(Path(self.chart) if self.chart else None)

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
        fingerprint = self._fingerprint(values)
        with self.staged(program, values) as staged:
            done = self._installed(access, program, staged, values, fingerprint, aws.lineage)
        return replace(_live(done, aws.lineage), shown=frozenset(self.facts))  # from helm

    @contextmanager
    def staged(self, program: Helm, values: JsonMapping) -> Iterator[Path]:
        """Yield a copy of the chart that helm can install with these values."""
        with tempfile.TemporaryDirectory(prefix="hyperpod-eks-") as folder:
            source = self._source(Path(folder), program)
            staged = chart.stage(source, Path(folder), values, program)
            from hyperpod_eks.helm.images import replace_fixed  # noqa: PLC0415  only to install

            replace_fixed(staged, dict(self.images))
            yield staged

    def _source(self, folder: Path, program: Helm) -> Path | None:
        """Return the chart as `chart.stage` takes it; a download is put in ``folder``."""
        return Path(self.chart) if self.chart else None

    def _installed(
        self,
        access: Access,
        program: Helm,
        staged: Path,
        values: JsonMapping,
        fingerprint: str,
        lineage: str,
    ) -> helm.Release:
        return helm.install(access, program, staged, values, fingerprint)

    def delete(self, aws: Aws, live: Live) -> None:
        """Uninstall it from a cluster that stays; helm keeps CRDs."""
        access = eks.access(Snapshot(aws), self.cluster.name)
        if access is not None:
            program = find_helm(self.binary or None, ca_bundle(aws.session))
            helm.uninstall(access, program, helm.release(access))


@frozen
class ChartRelease(Release):
    """The release of a further chart: its label is its name.

    It is ours if its records have our lineage as the label `kube.LINEAGE`.  A chart in a folder is
    known by its content, any other one by its address and version.
    """

    repository: str
    """URL of the repository that has ``chart``; empty for a folder or an OCI reference."""
    version: str
    """Version of a chart that is downloaded; empty for a folder."""
    namespace: str

    kind = "helm/ChartRelease"
    step = "charts"
    schema: ClassVar[int] = 2
    facts = ("namespace", "fingerprint")
    immutable: ClassVar = {
        "namespace": "helm cannot move a release; remove it from charts, run create, and declare it"
        " in the other namespace then"
    }

    @property
    def takes_along(self) -> str:
        """What its templates created, which helm deletes with what others have put there."""
        return "with what its templates created, also claims with their data, and kinds"

    @property
    def setting(self) -> str:
        """The section of the config that declares it."""
        return f"charts.{self.label}"

    @property
    def unmarked(self) -> bool:
        """Its records have a label of ours."""
        return False

    @property
    def may_hold_data(self) -> bool:
        """Whether its delete may delete the data of claims in its templates."""
        return True

    def holds(self, live: Live) -> str:
        """Return whose data it holds."""
        return "the volumes of the claims in its templates, which Kubernetes deletes with it"

    @property
    def remote(self) -> Remote | None:
        """The chart that is downloaded; None for one in a folder."""
        return Remote(self.chart, self.repository, self.version) if self.version else None

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it in helm's release records: ours in any namespace, or another one in its own."""
        access = eks.access(snapshot, self.cluster.name)
        if access is None:
            return []
        try:
            found = helm.release(access, self.label, self.namespace, snapshot.aws.lineage)
            claims = helm.claims(found) if found and snapshot.bare else set()
            held = bool(claims and claims & objects.deletable_claims(access))
        except kube.KubeNotReady as error:
            return [_unreachable(error, snapshot)]
        if found is None:
            return []
        live = _live(found, found.owner)
        if held:
            live = replace(live, holds_data=True, held_by=frozenset())
        facts = {**live.facts, "namespace": found.namespace}
        others = {} if found.owner else {"whose": "whoever installed it with helm"}
        live = replace(live, facts=facts, attributes={**live.attributes, **others})
        return [live if snapshot.bare else self._identified(live, found)]

    @cached_property
    def _content(self) -> str:
        """The address of a chart that is downloaded, the content of one in a folder."""
        if remote := self.remote:
            return str(remote)
        if fault := check_folder(Path(self.chart)):
            where = f"{self.setting}.chart"
            raise Usage(f"{where}: {fault}", f"Correct {where} in the config.", setting=where)
        return chart.digest(Path(self.chart))

    def _chart_in_words(self, live: Live, *, sure: bool) -> str:
        """Say which version follows which, if it is downloaded."""
        was = str(live.attributes["chart_version"])
        if self.remote and was != self.version:
            return f"version {was} → {self.version}"
        return super()._chart_in_words(live, sure=sure)

    def _source(self, folder: Path, program: Helm) -> Path | None:
        remote = self.remote
        where = f"{self.setting}.chart"
        return remote.pull(program, folder / "pulled", where) if remote else Path(self.chart)

    def check_download(self, program: Helm) -> None:
        """Download the chart and drop it.  Raises HyperpodError as `Remote.pull`."""
        with tempfile.TemporaryDirectory(prefix="hyperpod-eks-") as folder:
            self._source(Path(folder), program)

    def _installed(
        self,
        access: Access,
        program: Helm,
        staged: Path,
        values: JsonMapping,
        fingerprint: str,
        lineage: str,
    ) -> helm.Release:
        return helm.install(
            access,
            program,
            staged,
            values,
            fingerprint,
            name=self.label,
            namespace=self.namespace,
            owner=lineage,
        )

    def delete(self, aws: Aws, live: Live) -> None:
        """Uninstall it from a cluster that stays; helm keeps CRDs, and the namespace stays."""
        access = eks.access(Snapshot(aws), self.cluster.name)
        if access is not None:
            found = helm.release(access, self.label, self.namespace, aws.lineage)
            if found and found.owner == aws.lineage:
                program = find_helm(self.binary or None, ca_bundle(aws.session))
                helm.uninstall(access, program, found)


def _leaves(values: object, path: str = "") -> dict[str, str]:
    """Return digests of the values by dotted key; what is null is left to the chart.

    >>> list(_leaves({"a": {"b": 1, "c": None}, "d": []}))
    ['a.b', 'd']
    """
    if isinstance(values, Mapping) and (values or not path):
        under = [(f"{path}.{key}" if path else str(key), value) for key, value in values.items()]
        return {key: each for name, value in under for key, each in _leaves(value, name).items()}
    words = json.dumps(values, sort_keys=True)
    return {} if values is None else {path: hashlib.sha256(words.encode()).hexdigest()}


def _unreachable(error: kube.KubeNotReady, snapshot: Snapshot) -> Live:
    """Return a release for a cluster that does not answer: create restores a lost access entry."""
    who = snapshot.aws.lineage
    return Live("", owner=who, state=State.BUSY, why=str(error), cause=error.cause)


def _live(found: helm.Release, owner: str) -> Live:
    state = f"{found.status}, revision {found.revision}"
    return Live(
        f"{found.namespace}/{found.name}",
        owner=owner,
        why=state,
        # without a fingerprint, others have changed it: that is known, and differs from ours
        facts={"fingerprint": found.fingerprint or state},
        attributes={
            "release": found.name,
            "namespace": found.namespace,
            "status": found.status,
            "revision": found.revision,
            "chart": f"{found.chart}-{found.chart_version}",
            "chart_version": found.chart_version,
        },
    )
