"""Helm releases, HyperPod's and others: find, install, uninstall; their pods are not awaited.

Reads use helm's own records, the Secrets `sh.helm.release.v1.*`: one request for the labels of
all revisions in all namespaces and one for the newest record return state, chart, values and
manifest in some 10 ms.  `helm status` takes ten times as long, reads one name in one namespace,
and needs helm.  Changes go through pyhelm3 and the helm program.

The fingerprint of an installation (see `chart.fingerprint`) is in the release's description, which
`helm history` shows.  Helm writes it only after a successful install or upgrade, and every other
change of the release overwrites it, so a release that others have changed no longer matches.

The lineage of the cluster is a label of the records of every release but HyperPod's, from the first
moment of its installation.  Helm keeps such labels in upgrades and rollbacks of anyone.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

from hyperpod_eks.aws import transport
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import Foreign, HyperpodError, Unfinished
from hyperpod_eks.frozen import frozen
from hyperpod_eks.helm.program import Helm
from hyperpod_eks.helm.runner import (
    TIMEOUT,
    Client,
    TimedOut,
    client_with,
    finish,
    pyhelm3_package,
    with_client,
)
from hyperpod_eks.kube import client as kube
from hyperpod_eks.kube.access import Access
from hyperpod_eks.kube.client import KubeNotReady

NAME = "hyperpod-dependencies"
NAMESPACE = "kube-system"
OTHER_NAME = "dependencies"
"""The release's name in AWS's own CloudFormation templates."""
CHART = "hyperpod-helm-chart"
NAMESPACES = ("aws-hyperpod", "kubeflow", "mpi-operator")
"""The namespaces that the chart creates and an uninstall deletes."""
AGGREGATED = (f"{NAME}-mpi-operator-kubeflow-mpijobs-admin", "kubeflow-training-admin")
"""The chart's aggregated ClusterRoles, which may still exist after an uninstall."""
LARGEST = 32 << 20
"""The largest unpacked record in bytes; those of AWS's chart have one or two million."""
MARK = "hyperpod-eks "
"""The prefix of our descriptions, before the fingerprint."""


@frozen
class Release:
    """The newest revision of a release.

    `status` is helm's: deployed, failed, pending-install, pending-upgrade, pending-rollback,
    uninstalling, uninstalled, superseded, unknown.  `fingerprint` is that of `install`,
    empty if the last change was not ours or failed.
    """

    name: str
    namespace: str
    revision: int
    status: str
    chart: str
    chart_version: str
    fingerprint: str
    owner: str
    """The lineage in the record's label; empty without one."""
    description: str
    values: JsonMapping = field(repr=False)
    manifest: str = field(repr=False)
    hooks: Sequence[JsonMapping] = field(repr=False)


def releases(access: Access) -> list[Release]:
    """Return HyperPod's releases, under its two known names, in every namespace and state.

    A release named "dependencies" counts only if it is of HyperPod's chart.
    Raises KubeNotReady and HyperpodError as `list_nodes`.
    """
    found = _newest(access, f"owner=helm,name in ({NAME},{OTHER_NAME})")
    records = ((each, _record(access, each)) for each in found)
    read = [_read(each, record) for each, record in records if record is not None]
    return [each for each in read if each.name == NAME or each.chart == CHART]


def _newest(access: Access, selector: str) -> list[JsonMapping]:
    """Return the metadata of the newest record of every matching release."""
    newest: dict[tuple[str, str], JsonMapping] = {}
    for found in kube.secret_labels(access, selector):
        key = (kube.text(found, "namespace"), kube.text(found, "labels", "name"))
        if all(key) and (key not in newest or _revision(found) > _revision(newest[key])):
            newest[key] = found
    return [found for _, found in sorted(newest.items())]


def _record(access: Access, metadata: JsonMapping) -> dict[str, bytes] | None:
    return kube.secret(access, kube.text(metadata, "name"), kube.text(metadata, "namespace"))


def release(
    access: Access, name: str = NAME, namespace: str = NAMESPACE, owner: str = ""
) -> Release | None:
    """Return one release; None if it does not exist.  Raises as `releases`.

    With ``owner``, a release that has this lineage is returned from any namespace.
    """
    found = _newest(access, f"owner=helm,name={name}")
    ours = [each for each in found if owner and _owner(each) == owner]
    here = [each for each in found if kube.text(each, "namespace") == namespace]
    for each in [*(one for one in ours if one in here), *ours, *here]:
        record = _record(access, each)
        return None if record is None else _read(each, record)
    return None


def _owner(metadata: JsonMapping) -> str:
    return kube.text(metadata, "labels", kube.LINEAGE)


def _revision(metadata: JsonMapping) -> int:
    version = kube.text(metadata, "labels", "version")
    return int(version) if version.isdecimal() else 0


def _read(metadata: JsonMapping, record: Mapping[str, bytes]) -> Release:
    """Parse a record; its labels replace content that cannot be read."""
    document, info = (found := _document(record)), kube.part(found, "info")
    status = kube.text(info, "status") or kube.text(metadata, "labels", "status") or "unknown"
    description = kube.text(info, "description")
    ours = status == "deployed" and description.startswith(MARK)
    return Release(
        name=kube.text(metadata, "labels", "name"),
        namespace=kube.text(metadata, "namespace"),
        revision=_revision(metadata),
        status=status,
        chart=kube.text(document, "chart", "metadata", "name"),
        chart_version=kube.text(document, "chart", "metadata", "version"),
        fingerprint=description.removeprefix(MARK) if ours else "",
        owner=_owner(metadata),
        description=description,
        values=kube.part(document, "config"),
        manifest=kube.text(document, "manifest"),
        hooks=kube.parts(document, "hooks"),
    )


def _document(record: Mapping[str, bytes]) -> Json:
    """Decode a record: JSON in gzip in base64 (inside the base64 of every Secret).

    Returns an empty document for one that cannot be decoded, which helm itself ignores.
    """
    try:
        packed = base64.b64decode(record.get("release", b""))
        with gzip.open(io.BytesIO(packed)) as stream:
            return json.loads(stream.read(LARGEST))
    except (ValueError, OSError, EOFError, RecursionError, zlib.error):
        return {}


def install(
    access: Access,
    helm: Helm,
    chart: Path,
    values: JsonMapping,
    fingerprint: str,
    *,
    name: str = NAME,
    namespace: str = NAMESPACE,
    owner: str = "",
    timeout: str = TIMEOUT,
) -> Release:
    """Install or upgrade the release, and return it as helm recorded it.

    `chart` is a staged chart (see `chart.stage`), `timeout` is helm's for its hooks ("5m").
    It does not wait for workloads, since there are no nodes yet.  A release that an interrupted run
    left pending is rolled back, or uninstalled if there is no revision to roll back to.

    `owner` is empty for HyperPod's chart: of that, helm takes over the objects that an earlier
    release left.  The release of any other chart is labelled with the lineage `owner`, its
    namespace is created if it is missing, and helm refuses to take over objects of others.

    Raises KubeNotReady if a retry may succeed (no access yet, namespaces that are still being
    deleted, another helm running), Foreign for a release of others, HyperpodError with helm's
    message otherwise.
    """
    before = release(access, name, namespace)
    if before and owner and before.owner != owner:  # somebody was faster
        raise Foreign(f"the release {namespace}/{name} has just been installed by somebody else")
    if before and before.status not in ("deployed", "failed", "superseded", "uninstalled"):
        options = {"namespace": namespace, "timeout": timeout}
        with_client(access, helm, lambda client: client.get_proceedable_revision(name, **options))
    if ending := _terminating(access, {namespace} if owner else {*NAMESPACES, namespace}):
        raise KubeNotReady(
            f"namespaces of an earlier release are still being deleted: {', '.join(ending)}"
        )

    async def work(client: Client) -> None:
        # Helm 4 uses server-side apply by default, which conflicts with the aggregation
        # controller over the rules of aggregated ClusterRoles.  Helm 3 lacks the flag.
        extra = {"server_side": "false"} if helm.version >= (4,) else {}
        await client.install_or_upgrade_release(
            name,
            pyhelm3_package().Chart(client._command, ref=chart, metadata=_metadata(chart)),
            dict(values),
            namespace=namespace,
            create_namespace=bool(owner),
            description=MARK + fingerprint,
            take_ownership=not owner,
            reset_values=True,  # without any values, helm would keep those of the last revision
            wait=False,
            timeout=timeout,
            **extra,
        )

    try:
        with_client(access, helm, work, {kube.LINEAGE: owner} if owner else {})
    except TimedOut as error:
        raise _timed_out(error, release(access, name, namespace), timeout) from error
    after = release(access, name, namespace)
    if after is None:
        raise HyperpodError(f"helm reports that {name} is installed, but no release record exists")
    return after


def uninstall(
    access: Access,
    helm: Helm,
    what: Release | None,
    *,
    patience: float = 600.0,
    poll: float = 2.0,
) -> None:
    """Uninstall a release and delete ClusterRoles that remain; helm keeps CRDs.

    `what` is None if HyperPod's release is gone, but its objects perhaps are not.  Checks every
    `poll` seconds, for at most `patience` seconds, until none of its objects exists.  Helm's own
    wait is not used: it may wait forever for a ClusterRole that a controller has re-created.

    Raises Unfinished with the remaining objects, KubeNotReady and HyperpodError as `install`.
    """
    if what is not None:

        async def work(client: Client) -> None:
            await client.uninstall_release(what.name, namespace=what.namespace, timeout=TIMEOUT)

        with_client(access, helm, work)
    until = time.monotonic() + patience
    while remains := sweep(access, what):
        if time.monotonic() > until:
            raise Unfinished(f"helm uninstalled the chart, but {', '.join(remains)} still exist")
        time.sleep(poll)


def sweep(access: Access, what: Release | None) -> list[str]:
    """Delete remaining ClusterRoles of an uninstalled release; return its other objects by name.

    Raises as `list_nodes`.
    """
    hyperpods = what is None or what.name == NAME
    roles, named = set(AGGREGATED if hyperpods else ()), set(NAMESPACES if hyperpods else ())
    workloads: set[tuple[str, str, str]] = set()
    for each in _objects(what.manifest) if what else ():
        kind, name = kube.text(each, "kind"), kube.text(each, "metadata", "name")
        if kind == "ClusterRole" and "aggregationRule" in each:
            roles.add(name)
        elif kind == "Namespace":
            named.add(name)
        else:
            namespace = kube.text(each, "metadata", "namespace") or (what.namespace if what else "")
            workloads.add((kind, namespace, name))
    kube.delete_leftover_cluster_roles(access, sorted(roles))
    there = workloads & kube.workloads(access)
    # a namespace of that name that is not being deleted is not ours
    ending = [f"namespace {name}" for name in _terminating(access, named)]
    return ending + ["/".join(each) for each in sorted(there)]


def claims(what: Release) -> set[tuple[str, str]]:
    """Return namespace and name of the claims that helm deletes with a release.

    Those of StatefulSets stay, as does what has the policy ``keep`` (helm documentation, "Tell Helm
    Not To Uninstall a Resource").
    """
    return {
        (
            kube.text(each, "metadata", "namespace") or what.namespace,
            kube.text(each, "metadata", "name"),
        )
        for each in _objects(what.manifest)
        if kube.text(each, "kind") == "PersistentVolumeClaim"
        and kube.text(each, "metadata", "annotations", "helm.sh/resource-policy") != "keep"
    }


def _terminating(access: Access, names: set[str]) -> list[str]:
    phases = kube.namespaces(access)
    return sorted(name for name in names if phases.get(name) == "Terminating")


def update_dependencies(helm: Helm, chart: Path) -> None:
    """Let helm download the dependencies in Chart.yaml.  Raises HyperpodError."""
    with tempfile.TemporaryDirectory(prefix="hyperpod-eks-") as home:
        # pyhelm3 has no method for this command
        command = ["dependency", "update", str(chart)]
        network = transport.environment(helm.bundle)
        finish(client_with(helm, Path(home), None, network)._command.run(command))


def _metadata(chart: Path) -> Json:
    import yaml  # noqa: PLC0415

    return yaml.safe_load((chart / "Chart.yaml").read_bytes())


def _objects(manifest: str) -> list[JsonMapping]:
    import yaml  # noqa: PLC0415

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 0.07 s for AWS's chart, not 0.5
    try:
        return [each for each in yaml.load_all(manifest, loader) if isinstance(each, Mapping)]
    except yaml.YAMLError:  # a damaged record
        return []


def _timed_out(error: HyperpodError, what: Release | None, timeout: str) -> HyperpodError:
    """Return the error for a timeout of helm, with the hooks that it was waiting for."""
    waiting = [
        f"{kube.text(hook, 'kind')} {kube.text(hook, 'name')}"
        for hook in (what.hooks if what else ())
        if kube.text(hook, "last_run", "phase") in ("Running", "Unknown", "Failed")
    ]
    return HyperpodError(
        f"helm gave up after {timeout}, waiting for {', '.join(waiting) or 'the cluster'}: {error}",
        "A chart whose hooks need nodes cannot be installed before the nodes exist. Check:"
        " kubectl get jobs,pods --all-namespaces",
    )
