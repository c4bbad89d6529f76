"""The tables that `kubectl get` shows: the server, not kubectl, decides on columns and cells."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from .objects import Obj, deleting, dig
from .resources import Resource
from .workloads import is_ready

Cells = Callable[[Obj], list[Any]]
_DAEMON_SET_COUNTS = (
    "desiredNumberScheduled",
    "currentNumberScheduled",
    "numberReady",
    "updatedNumberScheduled",
    "numberAvailable",
)


def _node(node: Obj) -> list[Any]:
    status = "Ready" if is_ready(node) else "NotReady"
    if dig(node, "spec", "unschedulable"):
        status += ",SchedulingDisabled"
    return [status, "<none>", _age, dig(node, "status", "nodeInfo", "kubeletVersion")]


def _pod(pod: Obj) -> list[Any]:
    containers = dig(pod, "spec", "containers") or []
    running = dig(pod, "status", "containerStatuses") or []
    ready = f"{sum(c['ready'] for c in running)}/{len(containers)}"
    return [ready, "Terminating" if deleting(pod) else dig(pod, "status", "phase"), 0, _age]


def _deployment(deployment: Obj) -> list[Any]:
    status = deployment.get("status") or {}
    ready = f"{status.get('readyReplicas', 0)}/{deployment['spec'].get('replicas', 1)}"
    return [ready, status.get("updatedReplicas", 0), status.get("availableReplicas", 0), _age]


def _daemon_set(daemon_set: Obj) -> list[Any]:
    status = daemon_set.get("status") or {}
    return [*(status.get(name, 0) for name in _DAEMON_SET_COUNTS), _age]


def _age(obj: Obj, now: datetime) -> str:
    seconds = int(
        (now - datetime.fromisoformat(obj["metadata"]["creationTimestamp"])).total_seconds()
    )
    for limit, unit, length in ((120, "s", 1), (7200, "m", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds // length}{unit}"
    return f"{seconds // 86400}d"


_COLUMNS: dict[str, tuple[tuple[str, ...], Cells]] = {
    "Node": (("Status", "Roles", "Age", "Version"), _node),
    "Pod": (("Ready", "Status", "Restarts", "Age"), _pod),
    "Deployment": (("Ready", "Up-to-date", "Available", "Age"), _deployment),
    "DaemonSet": (
        ("Desired", "Current", "Ready", "Up-to-date", "Available", "Age"),
        _daemon_set,
    ),
    "Namespace": (("Status", "Age"), lambda o: [dig(o, "status", "phase"), _age]),
    "Secret": (("Type", "Data", "Age"), lambda o: [o["type"], len(o.get("data") or {}), _age]),
    "ConfigMap": (("Data", "Age"), lambda o: [len(o.get("data") or {}), _age]),
}


def render(resource: Resource, objects: list[Obj], now: datetime, version: str) -> Obj:
    """A meta.k8s.io/v1 Table of objects: NAME and AGE, and more for the kinds people look at."""
    columns, cells = _COLUMNS.get(resource.kind, (("Age",), lambda _: [_age]))
    definitions = [
        {
            "name": name,
            "type": "string",
            "format": "name" if name == "Name" else "",
            "description": "",
            "priority": 0,
        }
        for name in ("Name", *columns)
    ]
    rows = []
    for obj in objects:
        values = [_age(obj, now) if cell is _age else cell for cell in cells(obj)]
        partial = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": obj["metadata"],
        }
        rows.append({"cells": [obj["metadata"]["name"], *values], "object": partial})
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": definitions,
        "rows": rows,
    }
