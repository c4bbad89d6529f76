"""``hyperpod-eks status``: everything about a cluster in one document."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hyperpod_eks import engine
from hyperpod_eks.aws.client import Look
from hyperpod_eks.cli.console import speech
from hyperpod_eks.cli.documents import Document, as_json, called, head
from hyperpod_eks.cli.opening import Opened, opened
from hyperpod_eks.errors import NotFound
from hyperpod_eks.events import Report, steps_of
from hyperpod_eks.resources.base import Differs, Resource
from hyperpod_eks.resources.compare import Sight, Verdict
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.resources.hyperpod import cluster as hyperpod_cluster
from hyperpod_eks.resources.hyperpod import nodes as hyperpod_nodes
from hyperpod_eks.terminal import progress
from hyperpod_eks.terminal.text import speaks_utf8


def status(tell: Report, **given: Any) -> Document:
    """Look at everything.  Raises NotFound when there is no such cluster."""
    with opened("status", given, tell, write=False, files=False) as at:
        look = at.world.begun or Look(at.world.aws)
        wants = at.wants if at.declared else [_any_groups(want) for want in at.wants]
        sights = engine.status(wants, at.world)
        if not at.declared:
            sights = [_undeclared(s) for s in sights if s.live or s.want.awaited]
        if all(s.verdict is Verdict.ABSENT or not s.want.recorded for s in sights):
            raise NotFound(
                f"there is no cluster {at.site.name} in {at.site.region} of account "
                f"{at.site.identity.account}",
                f"Create it: hyperpod-eks create {called(at.site.name, given)}",
            )
        warnings = []
        if not at.declared:
            warnings.append(
                f"the config of {at.site.name} is not here, so nothing was compared; "
                "pass it with -f FILE to see drift"
            )
        warnings += [line for s in sights if s.live for line in s.live.warnings]
        for warning in warnings:
            speech().warn(warning)
        return _document(at, sights, look) | {"warnings": warnings}


def _any_groups(want: Resource) -> Resource:
    """Without the cluster's config the groups are those that AWS has."""
    if isinstance(want, hyperpod_cluster.Cluster):
        return replace(want, groups=())
    if isinstance(want, hyperpod_nodes.Nodes):
        return replace(want, cluster=replace(want.cluster, groups=()))
    return want


def _undeclared(sight: Sight) -> Sight:
    """Without the cluster's config there is nothing to differ from."""
    if sight.verdict is not Verdict.DRIFTED:
        return sight
    return replace(sight, verdict=Verdict.MATCHES, differs={})


def _document(at: Opened, sights: list[Sight], look: Look) -> Document:
    """Everything in one document: hyperpod-eks/status/v1."""
    states = {
        Verdict.ABSENT: "missing",
        Verdict.FOREIGN: "foreign",
        Verdict.TWINS: "drifted",
        Verdict.BUSY: "waiting",
        Verdict.FAILED: "failed",
        Verdict.DRIFTED: "drifted",
        Verdict.MATCHES: "ready",
    }
    by_key = {s.want.key: s for s in sights}

    def about(key: str) -> Mapping[str, Any]:
        sight = by_key.get(key)
        return sight.live.attributes if sight and sight.live else {}

    differences = [
        {"key": s.want.key, "field": name, "is": as_json(a), "declared": as_json(b)}
        for s in sights
        for name, (a, b) in s.differs.items()
    ]
    records = at.manifest.records
    differences += [
        {"key": key, "field": "id", "is": None, "declared": record.id}
        for key, record in records.items()
        if record.state == "ready" and key in by_key and by_key[key].verdict is Verdict.ABSENT
    ]
    cluster, control = about("hyperpod/cluster"), about("eks/cluster")
    cluster_sight = by_key.get("hyperpod/cluster")
    return head("status") | {
        "cluster": {
            "name": at.site.name,
            "arn": cluster_sight.live.arn if cluster_sight and cluster_sight.live else "",
            "status": cluster.get("status", "absent"),
            "failure": cluster.get("failure", ""),
            "ready": cluster_sight is not None
            and all(s.verdict is Verdict.MATCHES for s in sights),
        },
        "account": at.site.identity.account,
        "region": at.site.region,
        "eks": {
            "name": at.site.name,
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
            for s in sights
            if s.want.step == "addons"
        ],
        "helm": dict(about("helm/release")),
        "instance_groups": cluster.get("groups", []),
        "compared": at.declared,
        "operations": hyperpod_api.operations(look, at.site.name),
        "nodes": hyperpod_api.node_rows(
            look, at.site.name, about("hyperpod/nodes").get("nodes", [])
        ),
        "steps": [
            {
                "name": step,
                "resources": [
                    {
                        "name": s.want.label,
                        "id": s.live.id if s.live else "",
                        "arn": s.live.arn if s.live else "",
                        "state": states[s.verdict],
                        "why": s.live.why if s.live else "",
                        "differs": _pairs(s.differs),
                        "unproven": _pairs(s.unproven),
                        "unknown": list(s.unknown),
                    }
                    for s in sights
                    if s.want.step == step
                ],
            }
            for step in steps_of(s.want.key for s in sights)
        ],
        "differences": differences,
    }


def _pairs(differs: Differs) -> dict[str, list[Any]]:
    return {name: [as_json(is_), as_json(declared)] for name, (is_, declared) in differs.items()}


def text(document: Document) -> str:
    """Write the document for people."""
    return progress.render_status(
        document,
        shutil.get_terminal_size((100, 24)).columns,
        progress.wants_colour(sys.stdout, os.environ),
        utf8=speaks_utf8(sys.stdout),
    )
