"""``hyperpod-eks status``: everything about a cluster in one document."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import as_json, called, head
from hyperpod_eks.cli.options import Cluster, flag
from hyperpod_eks.errors import NotFound
from hyperpod_eks.events import steps_of
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.opening import Opened
    from hyperpod_eks.cli.schemas import views
    from hyperpod_eks.cli.schemas.base import Pair
    from hyperpod_eks.cli.schemas.views import Difference, Node, Operation, State, StatusRow
    from hyperpod_eks.events import Report
    from hyperpod_eks.resources.base import Differs, Resource
    from hyperpod_eks.resources.compare import Observation
    from hyperpod_eks.state.manifest import Manifest


@frozen
class Options(Cluster):
    """Whether AWS is called."""

    offline: bool = flag("--offline", help="Show what the manifest has.  Does not call AWS.")


def status(options: Options, report: Report) -> views.Status:
    """Show cluster NAME: resources, health, nodes, drift."""
    if options.offline:
        from hyperpod_eks.cli.remembered import remembered

        return _offline(remembered(options))
    from hyperpod_eks import engine
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.resources.compare import Status
    from hyperpod_eks.session import STATUS

    with opened(STATUS, options, report, write=False, files=False) as at:
        snapshot = at.context.first_snapshot or Snapshot(at.context.aws)
        wants = at.wants if at.declared else [_any_groups(want) for want in at.wants]
        observations = engine.status(wants, at.context)
        if not at.declared:
            observations = [_undeclared(s) for s in observations if s.live or s.want.is_awaited]
        if all(s.status is Status.ABSENT or not s.want.recorded for s in observations):
            raise NotFound(
                f"cluster {at.resolved.name} does not exist in {at.resolved.region} of account "
                f"{at.resolved.identity.account}",
                f"Create it: hyperpod-eks create {called(at.resolved.name, options)}",
            )
        warnings = []
        if not at.declared:
            warnings.append(
                f"the config of {at.resolved.name} was not found, so drift was not checked; "
                "pass it with -f FILE"
            )
        warnings += [line for s in observations if s.live for line in s.live.warnings]
        for warning in warnings:
            current_console().warn(warning)
        return _document(at, observations, snapshot, warnings)


def _any_groups(want: Resource) -> Resource:
    """Without the cluster's config the groups are those that AWS has."""
    from hyperpod_eks.resources.hyperpod import cluster as hyperpod_cluster
    from hyperpod_eks.resources.hyperpod import nodes as hyperpod_nodes

    if isinstance(want, hyperpod_cluster.Cluster):
        return replace(want, groups=())
    if isinstance(want, hyperpod_nodes.Nodes):
        return replace(want, cluster=replace(want.cluster, groups=()))
    return want


def _undeclared(observation: Observation) -> Observation:
    """Without the cluster's config there is nothing to differ from."""
    from hyperpod_eks.resources.compare import Status

    if observation.status is not Status.DRIFTED:
        return observation
    return replace(observation, status=Status.MATCHES, differs={})


def _document(
    at: Opened, observations: list[Observation], snapshot: Snapshot, warnings: list[str]
) -> views.Seen:
    """Everything in one document: hyperpod-eks/status/v1."""
    from hyperpod_eks.resources.compare import Status
    from hyperpod_eks.resources.hyperpod import api as hyperpod_api

    states: dict[Status, State] = {
        Status.ABSENT: "missing",
        Status.FOREIGN: "foreign",
        Status.DUPLICATES: "drifted",
        Status.BUSY: "waiting",
        Status.FAILED: "failed",
        Status.DRIFTED: "drifted",
        Status.MATCHES: "ready",
    }
    by_key = {s.want.key: s for s in observations}

    def about(key: str) -> Mapping[str, Any]:
        observation = by_key.get(key)
        return observation.live.attributes if observation and observation.live else {}

    differences: list[Difference] = [
        {"key": s.want.key, "field": name, "is": as_json(a), "declared": as_json(b)}
        for s in observations
        for name, (a, b) in s.differs.items()
    ]
    records = at.manifest.records
    differences += [
        {"key": key, "field": "id", "is": None, "declared": record.id}
        for key, record in records.items()
        if record.state == "ready" and key in by_key and by_key[key].status is Status.ABSENT
    ]
    nodes = hyperpod_api.node_rows(
        snapshot, at.resolved.name, about("hyperpod/nodes").get("nodes", [])
    )
    cluster, control = about("hyperpod/cluster"), about("eks/cluster")
    cluster_sight = by_key.get("hyperpod/cluster")
    return {
        **head("status"),
        "cluster": {
            "name": at.resolved.name,
            "arn": cluster_sight.live.arn if cluster_sight and cluster_sight.live else "",
            "status": cluster.get("status", "absent"),
            "failure": cluster.get("failure", ""),
            "ready": cluster_sight is not None
            and all(s.status is Status.MATCHES for s in observations),
        },
        "account": at.resolved.identity.account,
        "region": at.resolved.region,
        "eks": {
            "name": at.resolved.name,
            "version": control.get("version", ""),
            "status": control.get("status", "absent"),
            "health": control.get("issues", []),
            "endpoint": control.get("endpoint", ""),
        },
        "addons": [
            {
                "name": s.want.label,
                "version": about(s.want.key).get("version", ""),
                "status": about(s.want.key).get("status", "absent"),
                "issues": about(s.want.key).get("issues", []),
            }
            for s in observations
            if s.want.step == "addons"
        ],
        "helm": dict(about("helm/release")),
        "instance_groups": cluster.get("groups", []),
        "warnings": warnings,
        "compared": at.declared,
        "operations": cast("list[Operation]", hyperpod_api.operations(snapshot, at.resolved.name)),
        "nodes": cast("list[Node]", nodes),
        "steps": [
            {
                "name": step,
                "resources": [
                    {
                        "name": s.want.label,
                        "id": s.live.id if s.live else "",
                        "arn": s.live.arn if s.live else "",
                        "state": states[s.status],
                        "why": s.live.why if s.live else "",
                        "differs": _pairs(s.differs),
                        "unproven": _pairs(s.unproven),
                        "unknown": list(s.unknown),
                    }
                    for s in observations
                    if s.want.step == step
                ],
            }
            for step in steps_of(s.want.key for s in observations)
        ],
        "differences": differences,
    }


def _pairs(differs: Differs) -> dict[str, Pair]:
    return {name: [as_json(is_), as_json(declared)] for name, (is_, declared) in differs.items()}


# The states of the journal in the words of ``status``.
_STATES: dict[str, State] = {
    "intent": "waiting",
    "created": "waiting",
    "ready": "ready",
    "deleting": "waiting",
    "deleted": "missing",
}


def _offline(manifest: Manifest) -> views.Remembered:
    """Return ``hyperpod-eks/status/v1`` from the manifest: the state when it was written."""
    steps: dict[str, list[StatusRow]] = {}
    for key, record in manifest.records.items():
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
        steps.setdefault(step, []).append(row)
    cluster = manifest.records.get("hyperpod/cluster")
    ready = bool(manifest.records) and all(r.state == "ready" for r in manifest.records.values())
    return {
        **head("status"),
        "source": "manifest",
        "cluster": {
            "name": manifest.cluster,
            "arn": cluster.arn if cluster else "",
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
        "steps": [
            {"name": name, "resources": steps[name]}
            for name in steps_of(manifest.records)
            if name in steps
        ],
        "differences": [],
    }


def text(document: views.Status) -> str:
    """Write the document for people."""
    import shutil

    from hyperpod_eks.terminal import progress
    from hyperpod_eks.terminal.text import speaks_utf8

    return progress.render_status(
        document,
        shutil.get_terminal_size((100, 24)).columns,
        progress.wants_colour(sys.stdout, os.environ),
        utf8=speaks_utf8(sys.stdout),
    )


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
    log=lambda options: Log.NONE if options.offline else Log.IF_IT_FAILS,
)
