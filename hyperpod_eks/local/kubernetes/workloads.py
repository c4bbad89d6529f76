"""Deployments and DaemonSets as far as a user sees them: pods on nodes, and the counts of those."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from .clock import timestamp
from .errors import ApiError
from .objects import Obj, deleting, dig, labels, owner_uids, with_metadata
from .resources import Resource
from .selection import expressions
from .store import Store

MANY = 1000
"""Of more nodes than these the pods of DaemonSets are only counted: nobody looks at 60,000."""
KINDS = ("Deployment", "ReplicaSet", "DaemonSet", "Pod", "Node")
_REVISION = "deployment.kubernetes.io/revision"
# The taints of troubled nodes, which the DaemonSet controller makes its pods tolerate.
_DAEMONS_TOLERATE = frozenset(
    f"node.kubernetes.io/{trouble}"
    for trouble in ("not-ready", "unreachable", "unschedulable", "disk-pressure")
) | {"node.kubernetes.io/memory-pressure", "node.kubernetes.io/pid-pressure"}


def is_ready(node: Obj) -> bool:
    """Whether a node's Ready condition is True."""
    conditions = dig(node, "status", "conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_available(deployment: Obj) -> bool:
    """Whether a Deployment has all the replicas that it wants, of its newest template."""
    status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    current: bool = status.get("observedGeneration") == deployment["metadata"].get("generation")
    available: int = status.get("availableReplicas", 0)
    return current and available >= wanted


class Workloads:
    """The controllers of workloads, the scheduler and the node life cycle, as one reconciler."""

    def __init__(self, store: Store, start: Callable[[str, str, str], None]) -> None:
        """`start` is told the namespace, name and uid of each pod that its node should start."""
        self._store = store
        self._start = start
        self._starting: set[str] = set()
        builtin = store.registry.builtin
        self._pods, self._nodes = builtin("Pod"), builtin("Node")
        self._deployments, self._replica_sets = builtin("Deployment"), builtin("ReplicaSet")
        self._daemon_sets = builtin("DaemonSet")

    def reconcile(self) -> None:
        """Look at everything and do what is missing, once; changes made here wake it again."""
        nodes = {node["metadata"]["name"]: node for node in self._store.objects(self._nodes)}
        for node in nodes.values():
            self._taint(node)
        owned = self._owned_pods(nodes)
        for daemon_set in self._store.objects(self._daemon_sets):
            self._daemon_set(daemon_set, nodes, owned.get(daemon_set["metadata"]["uid"], []))
        replica_sets: dict[str, list[Obj]] = {}
        for replica_set in self._store.objects(self._replica_sets):
            for uid in owner_uids(replica_set):
                replica_sets.setdefault(uid, []).append(replica_set)
            self._replica_set(replica_set, owned.get(replica_set["metadata"]["uid"], []))
        for deployment in self._store.objects(self._deployments):
            self._deployment(deployment, replica_sets.get(deployment["metadata"]["uid"], []))
        for pod in self._store.objects(self._pods):
            self._pod(pod, nodes)

    def run(self, namespace: str, name: str, uid: str) -> None:
        """The pod's containers are up, if it still exists."""
        self._starting.discard(uid)
        pod = self._store.find(self._pods, namespace, name)
        if pod is None or pod["metadata"]["uid"] != uid:
            return
        now = timestamp(self._store.clock)
        containers = [
            {
                "name": container["name"],
                "ready": True,
                "started": True,
                "restartCount": 0,
                "image": container.get("image", ""),
                "imageID": "",
                "state": {"running": {"startedAt": now}},
            }
            for container in pod["spec"].get("containers", ())
        ]
        types = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        status = {
            "phase": "Running",
            "startTime": now,
            "conditions": [{"type": t, "status": "True"} for t in types],
            "containerStatuses": containers,
        }
        self._store.set_status(self._pods, pod, status)

    # --- nodes and scheduling --------------------------------------------------------------------

    def _taint(self, node: Obj) -> None:
        """A node has the not-ready taint exactly as long as it reports that it is not ready."""
        key = "node.kubernetes.io/not-ready"
        taints = dig(node, "spec", "taints") or []
        others = [taint for taint in taints if taint["key"] != key]
        conditions = dig(node, "status", "conditions") or []
        reported = any(c["type"] == "Ready" for c in conditions)
        troubled = reported and not is_ready(node)
        wanted = [*others, {"key": key, "effect": "NoSchedule"}] if troubled else others
        if (len(wanted) == len(others)) != (len(taints) == len(others)):
            spec = {k: v for k, v in (node.get("spec") or {}).items() if k != "taints"}
            spec |= {"taints": wanted} if wanted else {}
            self._store.modify(self._nodes, node, {**node, "spec": spec})

    def _owned_pods(self, nodes: dict[str, Obj]) -> dict[str, list[Obj]]:
        """The pods of every owner, by its uid. Pods of vanished nodes are deleted on the way."""
        owned: dict[str, list[Obj]] = {}
        for pod in self._store.objects(self._pods):
            host = pod["spec"].get("nodeName")
            if host is not None and host not in nodes:
                self._delete_pod(pod)
                continue
            for uid in owner_uids(pod):
                owned.setdefault(uid, []).append(pod)
        return owned

    def _pod(self, pod: Obj, nodes: dict[str, Obj]) -> None:
        """Bind a pod that waits for a node, start one that is bound, watch one that runs."""
        name, phase = pod["spec"].get("nodeName"), dig(pod, "status", "phase")
        if name is None:
            fitting = (n for n in nodes.values() if is_ready(n) and fits(pod["spec"], n))
            host = next(fitting, None)
            if host is None:
                self._unschedulable(pod, len(nodes))
                return
            name = host["metadata"]["name"]
            spec = {**pod["spec"], "nodeName": name}
            bound = {**pod, "spec": spec, "status": {"phase": "Pending"}}
            pod = self._store.modify(self._pods, pod, bound)
        ready, uid = is_ready(nodes[name]), pod["metadata"]["uid"]
        if phase == "Running":
            self._set_ready(pod, ready=ready)
        elif phase == "Pending" and ready and uid not in self._starting:
            self._starting.add(uid)
            self._start(pod["metadata"]["namespace"], pod["metadata"]["name"], uid)

    def _unschedulable(self, pod: Obj, nodes: int) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": f"0/{nodes} nodes are available",
        }
        self._store.set_status(self._pods, pod, {"phase": "Pending", "conditions": [condition]})

    def _set_ready(self, pod: Obj, *, ready: bool) -> None:
        """Pods on a node that is lost still count as running, but not as ready."""
        wanted = "True" if ready else "False"
        conditions = [
            {**c, "status": wanted} if c["type"] == "Ready" else c
            for c in dig(pod, "status", "conditions") or []
        ]
        self._store.set_status(self._pods, pod, {**pod["status"], "conditions": conditions})

    # --- DaemonSets ------------------------------------------------------------------------------

    def _daemon_set(self, daemon_set: Obj, nodes: dict[str, Obj], pods: list[Obj]) -> None:
        template = daemon_set["spec"]["template"]
        wanted = {n for n, node in nodes.items() if fits(template["spec"], node, daemon=True)}
        generation = str(daemon_set["metadata"]["generation"])
        on = {}
        if len(wanted) > MANY:
            self._count(daemon_set, len(wanted), sum(is_ready(nodes[name]) for name in wanted))
            return
        for pod in pods:
            current = labels(pod).get("pod-template-generation") == generation
            if current and pod["spec"].get("nodeName") in wanted and not deleting(pod):
                on[pod["spec"]["nodeName"]] = pod
            else:
                self._delete_pod(pod)
        if not deleting(daemon_set):
            for node in sorted(wanted - set(on)):
                name = f"{daemon_set['metadata']['name']}-{_digest(node, generation)[:8]}"
                extra = {"pod-template-generation": generation}
                self._create_pod(daemon_set, template, name, extra, node)
        ready = sum(_is_running(pod) for pod in on.values())
        self._count(daemon_set, len(wanted), ready, len(on))

    def _count(self, daemon_set: Obj, wanted: int, ready: int, on: int | None = None) -> None:
        placed = wanted if on is None else on
        status = {
            "currentNumberScheduled": placed,
            "desiredNumberScheduled": wanted,
            "numberAvailable": ready,
            "numberMisscheduled": 0,
            "numberReady": ready,
            "numberUnavailable": wanted - ready,
            "observedGeneration": daemon_set["metadata"]["generation"],
            "updatedNumberScheduled": placed,
        }
        self._store.set_status(self._daemon_sets, daemon_set, status)

    # --- Deployments -----------------------------------------------------------------------------

    def _deployment(self, deployment: Obj, replica_sets: list[Obj]) -> None:
        """One ReplicaSet for the newest template; the others go, and their pods with them."""
        metadata, spec = deployment["metadata"], deployment["spec"]
        if deleting(deployment):
            return
        digest = _digest(spec["template"])[:10]
        current = next((r for r in replica_sets if labels(r)["pod-template-hash"] == digest), None)
        for replica_set in replica_sets:
            if replica_set is not current:
                self._delete(self._replica_sets, replica_set)
        if current is None:
            self._create_replica_set(deployment, digest)
            return
        replicas = spec.get("replicas", 1)
        if current["spec"]["replicas"] != replicas:
            changed = {**current, "spec": {**current["spec"], "replicas": replicas}}
            changed = with_metadata(changed, generation=current["metadata"]["generation"] + 1)
            current = self._store.modify(self._replica_sets, current, changed)
        have, ready = (
            dig(current, "status", count) or 0 for count in ("replicas", "readyReplicas")
        )
        conditions = self._conditions(deployment, available=ready >= replicas)
        status = {
            "availableReplicas": ready,
            "conditions": conditions,
            "observedGeneration": metadata["generation"],
            "readyReplicas": ready,
            "replicas": have,
            "unavailableReplicas": max(0, replicas - ready),
            "updatedReplicas": have,
        }
        self._store.set_status(self._deployments, deployment, status)

    def _create_replica_set(self, deployment: Obj, digest: str) -> None:
        metadata, spec = deployment["metadata"], deployment["spec"]
        annotations = metadata.get("annotations") or {}
        revision = str(int(annotations.get(_REVISION, 0)) + 1)
        template = _labelled(spec["template"], {"pod-template-hash": digest})
        replica_set = {
            "metadata": {
                "name": f"{metadata['name']}-{digest}",
                "labels": template["metadata"]["labels"],
                "annotations": {_REVISION: revision},
                "ownerReferences": [_owner(deployment)],
            },
            "spec": {
                "replicas": spec.get("replicas", 1),
                "selector": {"matchLabels": template["metadata"]["labels"]},
                "template": template,
            },
        }
        if self._try_create(self._replica_sets, metadata["namespace"], replica_set):
            annotated = with_metadata(deployment, annotations={**annotations, _REVISION: revision})
            self._store.modify(self._deployments, deployment, annotated)

    def _replica_set(self, replica_set: Obj, pods: list[Obj]) -> None:
        spec, name = replica_set["spec"], replica_set["metadata"]["name"]
        wanted = 0 if deleting(replica_set) else spec.get("replicas", 1)
        for pod in pods[wanted:]:
            self._delete_pod(pod)
        taken = {pod["metadata"]["name"] for pod in pods}
        free = (f"{name}-{_digest(name, n)[:8]}" for n in range(wanted + len(pods)))
        names = [pod_name for pod_name in free if pod_name not in taken]
        for pod_name in names[: max(0, wanted - len(pods))]:
            self._create_pod(replica_set, spec["template"], pod_name, {}, None)
        ready = sum(_is_running(pod) for pod in pods[:wanted])
        status = {
            "availableReplicas": ready,
            "observedGeneration": replica_set["metadata"]["generation"],
            "readyReplicas": ready,
            "replicas": min(wanted, len(pods)),
        }
        self._store.set_status(self._replica_sets, replica_set, status)

    def _conditions(self, deployment: Obj, *, available: bool) -> list[Obj]:
        before = {c["type"]: c for c in dig(deployment, "status", "conditions") or []}
        now = timestamp(self._store.clock)
        found = []
        for type_, good, reasons in (
            ("Available", available, ("MinimumReplicasAvailable", "MinimumReplicasUnavailable")),
            ("Progressing", True, ("NewReplicaSetAvailable", "ReplicaSetUpdated")),
        ):
            condition = {
                "type": type_,
                "status": "True" if good else "False",
                "reason": reasons[0] if available else reasons[1],
                "lastUpdateTime": now,
                "lastTransitionTime": now,
            }
            old = before.get(type_, {})
            found.append({**condition, **(old if old.get("reason") == condition["reason"] else {})})
        return found

    # --- pods of either --------------------------------------------------------------------------

    def _create_pod(
        self, owner: Obj, template: Obj, name: str, extra: dict[str, str], node: str | None
    ) -> None:
        template = _labelled(template, extra)
        metadata = {**template["metadata"], "name": name, "ownerReferences": [_owner(owner)]}
        spec = {**template["spec"], **({"nodeName": node} if node else {})}
        pod = {"metadata": metadata, "spec": spec}
        self._try_create(self._pods, owner["metadata"]["namespace"], pod)

    def _try_create(self, resource: Resource, namespace: str, obj: Obj) -> bool:
        try:
            self._store.create(resource, namespace, obj)
        except ApiError as error:
            # The namespace is ending (403, 404), or a pod of that name is (409).
            if error.code not in (403, 404, 409):
                raise
            return False
        return True

    def _delete_pod(self, pod: Obj) -> None:
        self._delete(self._pods, pod)

    def _delete(self, resource: Resource, obj: Obj) -> None:
        metadata = obj["metadata"]
        if self._store.find(resource, metadata["namespace"], metadata["name"]):
            self._store.delete(resource, metadata["namespace"], metadata["name"])


def fits(pod: Obj, node: Obj, *, daemon: bool = False) -> bool:
    """Whether a pod of this specification may run on a node, resources apart."""
    found = labels(node)
    if any(found.get(k) != v for k, v in (pod.get("nodeSelector") or {}).items()):
        return False
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    affinity = dig(pod, "affinity", "nodeAffinity", required)
    if affinity and not any(
        all(r.met(found) for r in expressions(term.get("matchExpressions")))
        for term in affinity["nodeSelectorTerms"]
    ):
        return False
    if dig(node, "spec", "unschedulable") and not daemon:
        return False
    return all(
        taint["effect"] == "PreferNoSchedule"
        or (daemon and taint["key"] in _DAEMONS_TOLERATE)
        or any(_tolerates(toleration, taint) for toleration in pod.get("tolerations") or [])
        for taint in dig(node, "spec", "taints") or []
    )


def _tolerates(toleration: Obj, taint: Obj) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    key = toleration.get("key", "")
    if toleration.get("operator") == "Exists":
        return key in ("", taint["key"])
    return (key, toleration.get("value", "")) == (taint["key"], taint.get("value", ""))


def _is_running(pod: Obj) -> bool:
    conditions = dig(pod, "status", "conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _labelled(template: Obj, extra: dict[str, str]) -> Obj:
    metadata = template.get("metadata") or {}
    return {**template, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), **extra}}}


def _owner(obj: Obj) -> Obj:
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _digest(*values: Any) -> str:
    """Lower-case letters and digits that depend on the values alone: the same in every run."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
