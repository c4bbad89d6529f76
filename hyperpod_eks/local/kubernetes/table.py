"""The tables that `kubectl get` shows: the server, not kubectl, decides on columns and cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
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
    return _period(now - datetime.fromisoformat(obj["metadata"]["creationTimestamp"]))


def _period(period: timedelta) -> str:
    seconds = int(period.total_seconds())
    for limit, unit, length in ((120, "s", 1), (7200, "m", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds // length}{unit}"
    return f"{seconds // 86400}d"


def _names(cells: Iterable[Any]) -> str:
    return ",".join(str(cell) for cell in cells) or "<none>"


def _containers(workload: Obj) -> list[Any]:
    spec = workload["spec"]
    found = dig(spec, "template", "spec", "containers") or []
    return [
        _names(c["name"] for c in found),
        _names(c.get("image", "") for c in found),
        _selector(spec.get("selector")),
    ]


def _selector(selector: Obj | None) -> str:
    wanted = (selector or {}).get("matchLabels", selector or {})
    return _names(f"{k}={v}" for k, v in sorted(wanted.items()))


def _of_node(node: Obj) -> list[Any]:
    addresses = {a["type"]: a["address"] for a in dig(node, "status", "addresses") or []}
    about = dig(node, "status", "nodeInfo") or {}
    told = ("osImage", "kernelVersion", "containerRuntimeVersion")
    where = (addresses.get(kind, "<none>") for kind in ("InternalIP", "ExternalIP"))
    return [*where, *(about.get(name) or "<unknown>" for name in told)]


def _of_pod(pod: Obj) -> list[Any]:
    names = ("status.podIP", "spec.nodeName", "status.nominatedNodeName")
    found = [dig(pod, *name.split(".")) or "<none>" for name in names]
    gates = dig(pod, "spec", "readinessGates") or []
    return [*found, f"0/{len(gates)}" if gates else "<none>"]


def _replica_set(replica_set: Obj) -> list[Any]:
    status = replica_set.get("status") or {}
    counts = [status.get(name, 0) for name in ("replicas", "readyReplicas")]
    return [replica_set["spec"].get("replicas", 1), *counts, _age]


def _stateful_set(stateful_set: Obj) -> list[Any]:
    ready = dig(stateful_set, "status", "readyReplicas") or 0
    return [f"{ready}/{stateful_set['spec'].get('replicas', 1)}", _age]


def _service(service: Obj) -> list[Any]:
    spec = service["spec"]
    ports = _names(f"{p['port']}/{p.get('protocol', 'TCP')}" for p in spec.get("ports") or ())
    return [spec.get("type"), spec.get("clusterIP", "<none>"), "<none>", ports, _age]


def _job(job: Obj) -> list[Any]:
    status = job.get("status") or {}
    ended = {c["type"] for c in status.get("conditions") or []} & {"Complete", "Failed"}
    done = f"{status.get('succeeded', 0)}/{job['spec'].get('completions', 1)}"
    start, end = status.get("startTime"), status.get("completionTime")
    took = ""
    if start and end:
        took = _period(datetime.fromisoformat(end) - datetime.fromisoformat(start))
    return [next(iter(ended), "Running"), done, took, _age]


def _policy(policy: Obj) -> list[Any]:
    kind = policy["spec"].get("paramKind")
    named = f"{kind.get('apiVersion')}/{kind.get('kind')}" if kind else "<unset>"
    return [len(policy["spec"].get("validations") or ()), named, _age]


def _policy_binding(binding: Obj) -> list[Any]:
    ref, named = binding["spec"].get("paramRef") or {}, "<unset>"
    if ref.get("name"):
        named = f"{ref.get('namespace') or '*'}/{ref['name']}"
    elif ref:
        named = _selector(ref.get("selector"))
    return [binding["spec"].get("policyName"), named, _age]


# Columns that only `-o wide` shows, by kind: their priority is 1.
_WORKLOAD = ("Containers", "Images", "Selector")
_WIDE: dict[str, tuple[tuple[str, ...], Cells]] = {
    "DaemonSet": (_WORKLOAD, _containers),
    "Deployment": (_WORKLOAD, _containers),
    "Job": (_WORKLOAD, _containers),
    "Node": (
        ("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"),
        _of_node,
    ),
    "Pod": (("IP", "Node", "Nominated Node", "Readiness Gates"), _of_pod),
    "ReplicaSet": (_WORKLOAD, _containers),
    "Service": (("Selector",), lambda o: [_selector(o["spec"].get("selector"))]),
    "StatefulSet": (_WORKLOAD[:2], lambda o: _containers(o)[:2]),
}
_COLUMNS: dict[str, tuple[tuple[str, ...], Cells]] = {
    "Node": (("Status", "Roles", "Age", "Version"), _node),
    "Pod": (("Ready", "Status", "Restarts", "Age"), _pod),
    "Deployment": (("Ready", "Up-to-date", "Available", "Age"), _deployment),
    "DaemonSet": (
        ("Desired", "Current", "Ready", "Up-to-date", "Available", "Age"),
        _daemon_set,
    ),
    "ReplicaSet": (("Desired", "Current", "Ready", "Age"), _replica_set),
    "StatefulSet": (("Ready", "Age"), _stateful_set),
    "Service": (("Type", "Cluster-IP", "External-IP", "Port(s)", "Age"), _service),
    "Job": (("Status", "Completions", "Duration", "Age"), _job),
    "ValidatingAdmissionPolicy": (("Validations", "ParamKind", "Age"), _policy),
    "ValidatingAdmissionPolicyBinding": (("PolicyName", "ParamRef", "Age"), _policy_binding),
    "Namespace": (("Status", "Age"), lambda o: [dig(o, "status", "phase"), _age]),
    "Secret": (("Type", "Data", "Age"), lambda o: [o["type"], len(o.get("data") or {}), _age]),
    "ConfigMap": (("Data", "Age"), lambda o: [len(o.get("data") or {}), _age]),
}


def render(
    resource: Resource, objects: list[Obj], now: datetime, version: str, more: Obj | None = None
) -> Obj:
    """A meta.k8s.io/v1 Table of objects: NAME and AGE, and more for the kinds people look at."""
    columns, cells = _COLUMNS.get(resource.kind, (("Age",), lambda _: [_age]))
    wide, wide_cells = _WIDE.get(resource.kind, ((), lambda _: []))
    definitions = [
        {
            "name": name,
            "type": "string",
            "format": "name" if name == "Name" else "",
            "description": "",
            "priority": int(name in wide),
        }
        for name in ("Name", *columns, *wide)
    ]
    rows = []
    for obj in objects:
        values = [_age(obj, now) if cell is _age else cell for cell in cells(obj)] + wide_cells(obj)
        partial = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": obj["metadata"],
        }
        rows.append({"cells": [obj["metadata"]["name"], *values], "object": partial})
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version, **(more or {})},
        "columnDefinitions": definitions,
        "rows": rows,
    }
