"""``hyperpod-eks status``: show a cluster in one document."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import as_json, called, columns, head, kept_rows
from hyperpod_eks.cli.options import Cluster, flag
from hyperpod_eks.errors import HyperpodError, NotFound
from hyperpod_eks.events import steps_of
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.opening import Opened
    from hyperpod_eks.cli.schemas import views
    from hyperpod_eks.cli.schemas.base import KeptData, Pair
    from hyperpod_eks.cli.schemas.views import (
        Difference,
        State,
        StatusAddon,
        StatusCluster,
        StatusEks,
        StatusRow,
        StatusStep,
    )
    from hyperpod_eks.documents import JsonMapping
    from hyperpod_eks.events import Report
    from hyperpod_eks.resources.base import Differs, Resource
    from hyperpod_eks.resources.compare import Observation
    from hyperpod_eks.resources.team_use import TeamUse
    from hyperpod_eks.state.manifest import Manifest
    from hyperpod_eks.state.record import Record


CLUSTERS = ("eks/cluster", "hyperpod/cluster")
"""Keys of the clusters: beside one, storage is in use."""


@frozen
class Options(Cluster):
    """Options of status."""

    offline: bool = flag("--offline", help="Show what the manifest has.  Does not call AWS.")


def status(options: Options, report: Report) -> views.Status:
    """Show cluster NAME: resources, health, nodes, drift."""
    if options.offline:
        from hyperpod_eks.cli.remembered import remembered

        return _offline(remembered(options))
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.session import STATUS

    with opened(STATUS, options, report, write=False, files=False) as at:
        snapshot = at.context.first_snapshot or Snapshot(at.context.aws)
        observations = observed(at)
        kept = kept_data(at, observations)
        if not (kept or exists(observations)):
            raise absent(at, options)
        return seen(at, observations, snapshot, kept)


def observed(at: Opened) -> list[Observation]:
    """Observe every resource."""
    from hyperpod_eks import engine

    wants = at.wants if at.declared else [_any_groups(want) for want in at.wants]
    observations = engine.status(wants, at.context)
    if at.declared:
        return observations
    there = {s.want.key for s in observations if s.live}
    return [
        _undeclared(s)
        for s in observations
        if s.live or (s.want.is_awaited and "hyperpod/cluster" in there)
    ]


def kept_data(at: Opened, observations: Sequence[Observation]) -> list[KeptData]:
    """Return what holds data and costs money although no cluster uses it; nothing beside one."""
    from hyperpod_eks import engine
    from hyperpod_eks.aws.exceptions import BotoCoreError, ClientError
    from hyperpod_eks.engine.wording import words_of
    from hyperpod_eks.inventory.untracked import untracked

    if any(s.live and s.want.key in CLUSTERS for s in observations):
        return []
    try:
        wants = untracked(at.context.aws, at.resolved, at.wants)
        return kept_rows(engine.find_data(wants, at.context))
    except (HyperpodError, BotoCoreError, ClientError) as error:
        current_console().warn(f"what is kept with its data could not be listed: {words_of(error)}")
        return []


def exists(observations: Sequence[Observation]) -> bool:
    """Whether any resource of the cluster exists."""
    from hyperpod_eks.resources.compare import Status

    return any(s.status is not Status.ABSENT and s.want.recorded for s in observations)


def absent(at: Opened, options: Cluster) -> NotFound:
    """Return the error for a cluster without any resource."""
    return NotFound(
        f"cluster {at.resolved.name} does not exist in {at.resolved.region} of account "
        f"{at.resolved.identity.account}",
        f"Create it: hyperpod-eks create {called(at.resolved.name, options)}",
    )


def _teams(
    at: Opened, observations: Sequence[Observation], snapshot: Snapshot
) -> list[TeamUse] | str:
    """Return the use of the teams' quotas, or a warning; without teams nothing is asked."""
    from hyperpod_eks.resources.governance import ComputeQuota
    from hyperpod_eks.resources.team_use import queues_of, use_of

    quotas = [s.want for s in observations if isinstance(s.want, ComputeQuota) and s.live]
    if not quotas:
        return []
    found = queues_of(snapshot, at.resolved.eks_name)
    if isinstance(found, str):
        return f"the use of the teams' quotas is not known: {found}"
    return use_of(quotas, found)


def _warnings(at: Opened, observations: Sequence[Observation]) -> list[str]:
    from hyperpod_eks.config.warnings import elsewhere
    from hyperpod_eks.resources.test_jobs import JobsOfTest

    found = [line for s in observations if s.live for line in s.live.warnings]
    records = at.manifest.records.values()
    if any(x.kind == JobsOfTest.kind and x.state != "deleted" for x in records):
        found.append(
            "a test is running, or one was killed and left jobs: the next test or create deletes"
            " them"
        )
    if at.declared:
        return [*elsewhere(at.config), *found]
    if at.unread:  # it was printed
        return [str(at.unread), *found]
    missing = (
        f"the config of {at.resolved.name} was not found, so drift was not checked; "
        "pass it with -f FILE"
    )
    return [missing, *found]


def _any_groups(want: Resource) -> Resource:
    """Remove the declared groups: without the cluster's config, those in AWS are shown."""
    from hyperpod_eks.resources.hyperpod import cluster as hyperpod_cluster
    from hyperpod_eks.resources.hyperpod import nodes as hyperpod_nodes

    if isinstance(want, hyperpod_cluster.Cluster):
        return replace(want, groups=())
    if isinstance(want, hyperpod_nodes.Nodes):
        return replace(want, cluster=replace(want.cluster, groups=()))
    return want


def _undeclared(observation: Observation) -> Observation:
    """Remove the drift: without the cluster's config there is nothing to compare with."""
    from hyperpod_eks.resources.compare import Status

    if observation.status is not Status.DRIFTED:
        return observation
    return replace(observation, status=Status.MATCHES, differs={})


def seen(
    at: Opened,
    observations: list[Observation],
    snapshot: Snapshot,
    kept: list[KeptData],
) -> views.Seen:
    """Return the document, hyperpod-eks/status/v1; print its warnings."""
    from hyperpod_eks.resources.addon import Addon
    from hyperpod_eks.resources.hyperpod import api as hyperpod_api

    teams = _teams(at, observations, snapshot)
    warnings = [*_warnings(at, observations), *([teams] if isinstance(teams, str) else [])]
    for warning in warnings:
        if warning != str(at.unread):  # it was printed
            current_console().warn(warning)
    by_key = {s.want.key: s for s in observations}
    registered = _about(by_key, "hyperpod/nodes").get("nodes", [])
    return {
        **head("status"),
        "cluster": _cluster(at.resolved.name, by_key),
        "account": at.resolved.identity.account,
        "region": at.resolved.region,
        "eks": _control_plane(at.resolved.name, _about(by_key, "eks/cluster")),
        "addons": [_addon(s) for s in observations if isinstance(s.want, Addon)],
        "helm": {
            name: value
            for name, value in _about(by_key, "helm/release").items()
            if name in ("release", "namespace", "status", "revision", "chart")
        },
        "instance_groups": _about(by_key, "hyperpod/cluster").get("groups", []),
        "warnings": warnings,
        "compared": at.declared,
        "operations": hyperpod_api.operations(snapshot, at.resolved.name),
        "teams": [] if isinstance(teams, str) else teams,
        "nodes": hyperpod_api.node_rows(snapshot, at.resolved.name, registered),
        "steps": [
            {"name": step, "resources": [_row(s) for s in observations if s.want.step == step]}
            for step in steps_of(by_key)
        ],
        "differences": _differences(by_key, at.manifest),
        "kept_data": kept,
    }


def _about(by_key: Mapping[str, Observation], key: str) -> JsonMapping:
    """Return the attributes of a resource; {} if it does not exist."""
    observation = by_key.get(key)
    return observation.live.attributes if observation and observation.live else {}


def _cluster(name: str, by_key: Mapping[str, Observation]) -> StatusCluster:
    from hyperpod_eks.resources.compare import Status

    cluster, about = by_key.get("hyperpod/cluster"), _about(by_key, "hyperpod/cluster")
    return {
        "name": name,
        "arn": cluster.live.arn if cluster and cluster.live else "",
        "status": about.get("status", "absent"),
        "failure": about.get("failure", ""),
        "ready": cluster is not None and all(s.status is Status.MATCHES for s in by_key.values()),
    }


def _control_plane(name: str, about: JsonMapping) -> StatusEks:
    return {
        "name": name,
        "version": about.get("version", ""),
        "status": about.get("status", "absent"),
        "health": about.get("issues", []),
        "endpoint": about.get("endpoint", ""),
    }


def _addon(observation: Observation) -> StatusAddon:
    about = observation.live.attributes if observation.live else {}
    return {
        "name": observation.want.label,
        "version": about.get("version", ""),
        "status": about.get("status", "absent"),
        "issues": about.get("issues", []),
    }


# The state in the document, by status of an observation.
_OBSERVED: dict[str, State] = {
    "ABSENT": "missing",
    "FOREIGN": "foreign",
    "DUPLICATES": "drifted",
    "BUSY": "waiting",
    "FAILED": "failed",
    "DRIFTED": "drifted",
    "MATCHES": "ready",
}


def _row(observation: Observation) -> StatusRow:
    live = observation.live
    words = [live.why, observation.want.in_words(live, observation.differs)] if live else []
    return {
        "name": observation.want.label,
        "id": live.id if live else "",
        "arn": live.arn if live else "",
        "state": _OBSERVED[observation.status.name],
        "why": "; ".join(filter(None, words)),
        "differs": _pairs(observation.differs),
        "unproven": _pairs(observation.unproven),
        "unknown": list(observation.unknown),
    }


def _differences(by_key: Mapping[str, Observation], manifest: Manifest) -> list[Difference]:
    """List fields that differ from the config, and recorded resources that AWS does not have."""
    from hyperpod_eks.resources.compare import Status

    differing: list[Difference] = [
        {"key": key, "field": name, "is": as_json(is_), "declared": as_json(declared)}
        for key, observation in by_key.items()
        for name, (is_, declared) in observation.differs.items()
    ]
    missing: list[Difference] = [
        {"key": key, "field": "id", "is": None, "declared": record.id}
        for key, record in manifest.records.items()
        if record.was_ready and key in by_key and by_key[key].status is Status.ABSENT
    ]
    return differing + missing


def _pairs(differs: Differs) -> dict[str, Pair]:
    return {name: [as_json(is_), as_json(declared)] for name, (is_, declared) in differs.items()}


# The state in the document, by state in the manifest.
_STATES: dict[str, State] = {
    "intent": "waiting",
    "created": "waiting",
    "ready": "ready",
    "updating": "waiting",
    "deleting": "waiting",
    "deleted": "missing",
}


def _offline(manifest: Manifest) -> views.Remembered:
    """Return ``hyperpod-eks/status/v1`` from the manifest, without a call to AWS."""
    cluster = manifest.records.get("hyperpod/cluster")
    ready = bool(manifest.records) and all(r.state == "ready" for r in manifest.records.values())
    return {
        **head("status"),
        "source": "manifest",
        "cluster": {
            "name": manifest.cluster,
            "arn": cluster.arn if cluster and cluster.state != "deleted" else "",
            "status": f"{cluster.state if cluster else 'absent'} in the manifest",
            "failure": "",
            "ready": ready,
        },
        "account": manifest.account,
        "region": manifest.region,
        "eks": {},
        "addons": [],
        "helm": {},
        "instance_groups": [],
        "nodes": [],
        "steps": _recorded_steps(manifest.records),
        "differences": [],
    }


def _recorded_steps(records: Mapping[str, Record]) -> list[StatusStep]:
    rows: dict[str, list[StatusRow]] = {}
    for key, record in records.items():
        step, _, label = key.partition("/")
        why = "" if record.state in ("ready", "deleted") else f"{record.state}, says the manifest"
        row: StatusRow = {
            "name": label,
            "id": record.id,
            "arn": record.arn,
            "state": _STATES.get(record.state, "waiting"),
            "why": why,
            "differs": {},
        }
        rows.setdefault(step, []).append(row)
    return [{"name": step, "resources": rows[step]} for step in steps_of(records) if step in rows]


def text(document: views.Status) -> str:
    """Return the text of the document."""
    import shutil

    from hyperpod_eks.terminal import progress
    from hyperpod_eks.terminal.text import speaks_utf8

    return progress.render_status(
        document,
        shutil.get_terminal_size((1000, 24)).columns,  # nothing is broken in a pipe
        progress.wants_colour(sys.stdout, os.environ),
        utf8=speaks_utf8(sys.stdout),
    )


def then(options: Options, document: views.Status) -> Iterator[str]:
    """Yield the command that uses the cluster, or those that say what it lacks."""
    cluster = document["cluster"]
    it, used = (called(cluster["name"], options, file=file) for file in (True, False))
    compared, kept = document.get("compared", True), document.get("kept_data")
    if cluster["ready"] and not document["differences"]:
        yield from columns([("To use it with kubectl", f"hyperpod-eks kubeconfig {used}")])
        return
    rows = []
    if document["differences"] and compared:
        rows.append(("To see what create would change", f"hyperpod-eks plan {it}"))
    else:
        if cluster["arn"]:
            rows.append(("To see what HyperPod does", f"hyperpod-eks events {it}"))
        file = "" if compared else " -f FILE"
        rows.append(("To create what is missing", f"hyperpod-eks create {it}{file}"))
    if kept:
        rows.append(("To delete what was kept", f"hyperpod-eks delete {used} --delete-data"))
    yield from columns(rows)


command = define(
    "status",
    Options,
    status,
    text,
    """
    hyperpod-eks status demo
    hyperpod-eks status demo --offline             what the manifest has, at once
    hyperpod-eks status demo --query cluster.status
    hyperpod-eks status demo -o json --query differences
    """,
    then=then,
    log=lambda options: Log.NONE if options.offline else Log.IF_IT_FAILS,
)
