"""Deployments and DaemonSets as far as a user sees them: pods on nodes, and the counts of those."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from . import failures, programs
from .clock import timestamp
from .errors import ApiError, bad_request
from .objects import Obj, deleting, dig, labels, owner_uids, with_metadata
from .resources import Resource
from .selection import expressions
from .store import Store

MANY = 1000
"""Of more nodes than these the pods of DaemonSets are only counted: nobody looks at 60,000."""
KINDS = ("Deployment", "ReplicaSet", "DaemonSet", "Pod", "Node", "PersistentVolumeClaim")
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


def _exit_code(container: Obj) -> int:
    """What a container's command comes to: its last `exit N`, 1 for `false`, else 0."""
    words = " ".join([*(container.get("command") or ()), *(container.get("args") or ())]).strip()
    if words.rpartition("/")[2] == "false":
        return 1
    found = re.search(r"(?:^|[\s;&|])exit (\d{1,3})\W*$", words)
    return int(found[1]) if found else 0


def _never_ends(container: Obj) -> bool:
    """Whether a container waits for others: the workers of an MPIJob run an SSH server."""
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    served = re.search(r"\bsshd\b|\bsleep (inf|infinity)\b|tail -f", " ".join(words))
    return bool(served) or programs.waits(container)


def log(pod: Obj, query: dict[str, str], failing: failures.Failing = failures.nothing) -> str:
    """What `kubectl logs` shows: the words of a known program, those that the command echoes, or
    that nothing ran.

    Raises ApiError 400 as the kubelet does where there is no such container, or no log yet.
    """
    name = pod["metadata"]["name"]
    spec = pod["spec"]
    containers = {c["name"]: c for c in [*spec["containers"], *spec.get("initContainers", ())]}
    wanted = query.get("container") or ""
    if not wanted and len(spec["containers"]) > 1:
        names = " ".join(c["name"] for c in spec["containers"])
        told = f"a container name must be specified for pod {name}, choose one of: [{names}]"
        raise bad_request(told)
    wanted = wanted or spec["containers"][0]["name"]
    if wanted not in containers:
        raise bad_request(f"container {wanted} is not valid for pod {name}")
    if query.get("previous") == "true":
        raise bad_request(f'previous terminated container "{wanted}" in pod "{name}" not found')
    if dig(pod, "status", "phase") == "Pending":
        if not spec.get("nodeName"):
            return ""
        told = f'container "{wanted}" in pod "{name}" is waiting to start: ContainerCreating'
        raise bad_request(told)
    container = containers[wanted]
    words = "\n".join([*(container.get("command") or ()), *(container.get("args") or ())])
    lines = programs.written(container, failing) or _echoed(words) or [_nothing(pod)]
    tail = query.get("tailLines") or ""
    lines = lines[max(0, len(lines) - int(tail)) :] if tail.isdigit() else lines
    return "".join(f"{line}\n" for line in lines)


def _echoed(words: str) -> list[str]:
    found = re.findall(
        r"\becho\s+(?:\"([^\"]*)\"|'([^']*)'|([^;&|\n>]+))|\bprint\('([^'\\]*)'\)", words
    )
    return ["".join(each).strip() for each in found]


def _nothing(pod: Obj) -> str:
    return f"(no output: {pod['metadata']['namespace']}/{pod['metadata']['name']} is simulated)"


def execute(pod: Obj, container: str, command: list[str]) -> tuple[str, str, int]:
    """What a command in a running container writes to its two outputs, and its exit code.

    Nothing runs: what it echoes is written, and its exit code is what its words say, as a Job's.
    Raises ApiError as API server and kubelet do where there is no such container, or none yet.
    """
    name, spec = pod["metadata"]["name"], pod["spec"]
    wanted = container or spec["containers"][0]["name"]
    if not command:
        raise bad_request("you must specify at least 1 command for the container")
    if wanted not in [c["name"] for c in (*spec["containers"], *spec.get("initContainers", ()))]:
        raise bad_request(f"container {wanted} is not valid for pod {name}")
    if not spec.get("nodeName"):
        raise bad_request(f"pod {name} does not have a host assigned")
    if dig(pod, "status", "phase") != "Running":
        message = f'unable to upgrade connection: container not found ("{wanted}")'
        raise ApiError(500, "InternalError", message)
    lines = _echoed(" ".join(command))
    told = "".join(f"{line}\n" for line in lines)
    return told, "" if lines else f"{_nothing(pod)}\n", _exit_code({"command": command})


class Workloads:
    """The controllers of workloads, the scheduler and the node life cycle, as one reconciler."""

    def __init__(
        self,
        store: Store,
        start: Callable[[str, str, str], None],
        end: Callable[[str, str, str], None],
        obstacle: Callable[[Obj], str],
        failing: failures.Failing = failures.nothing,
    ) -> None:
        """`start` is told the namespace, name and uid of each pod that its node should start,
        `end` those of each that runs and will end by itself. `obstacle` says why a pod cannot be
        placed on any node yet.
        """
        self._store = store
        self._start = start
        self._end = end
        self._obstacle = obstacle
        self._failing = failing
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
            self._offer(node)
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
        used: dict[str, Counter[str]] = {}
        pods = self._store.objects(self._pods)
        for pod in pods:
            if (host := pod["spec"].get("nodeName")) and not is_over(pod):
                used.setdefault(host, Counter()).update(requests(pod["spec"]))
        for pod in pods:
            self._pod(pod, nodes, used)

    def run(self, namespace: str, name: str, uid: str) -> None:
        """The pod's containers are up, if it still exists."""
        self._starting.discard(uid)
        pod = self._store.find(self._pods, namespace, name)
        if pod is None or pod["metadata"]["uid"] != uid:
            return
        if trouble := failures.starting(pod, self._failing):
            self._trouble(pod, trouble)
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
        containers = pod["spec"]["containers"]
        if pod["spec"]["restartPolicy"] != "Always" and not any(map(_never_ends, containers)):
            self._end(namespace, name, uid)

    def _trouble(self, pod: Obj, trouble: failures.Trouble) -> None:
        """The kubelet cannot start a pod: it says so in its status, or in an event."""
        self._store.set_status(self._pods, pod, {**pod["status"], **trouble.status})
        resource = self._store.registry.builtin("Event")
        namespace, name = (
            pod["metadata"]["namespace"],
            f"{pod['metadata']['name']}.{trouble.reason}",
        )
        if not trouble.reason or self._store.find(resource, namespace, name.lower()):
            return
        about = {"kind": "Pod", "namespace": namespace, "name": pod["metadata"]["name"]}
        event = {
            "metadata": {"name": name.lower()},
            "involvedObject": {**about, "uid": pod["metadata"]["uid"]},
            "type": "Warning",
            "reason": trouble.reason,
            "message": trouble.message,
        }
        self._store.create(resource, namespace, event)

    def end(self, namespace: str, name: str, uid: str) -> None:
        """The pod's containers have ended, if it still runs."""
        pod = self._store.find(self._pods, namespace, name)
        if pod is None or pod["metadata"]["uid"] != uid or pod["status"]["phase"] != "Running":
            return
        codes = [
            int(programs.fails(container, self._failing)) or _exit_code(container)
            for container in pod["spec"]["containers"]
        ]
        now, states = timestamp(self._store.clock), []
        for code, before in zip(codes, pod["status"]["containerStatuses"], strict=True):
            started = before["state"]["running"]["startedAt"]
            ended = {"exitCode": code, "reason": "Error" if code else "Completed"}
            ended |= {"startedAt": started, "finishedAt": now}
            over = {"ready": False, "started": False, "state": {"terminated": ended}}
            states.append({**before, **over})
        conditions = [
            {**c, "status": "False", "reason": "PodCompleted"}
            if c["type"] in ("Ready", "ContainersReady")
            else c
            for c in pod["status"]["conditions"]
        ]
        status = {
            **pod["status"],
            "phase": "Failed" if any(codes) else "Succeeded",
            "containerStatuses": states,
            "conditions": conditions,
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

    def _offer(self, node: Obj) -> None:
        """A node offers what its device plugins report."""
        offered = failures.offered(node, self._failing)
        if any((dig(node, "status", "allocatable") or {}).get(n) != a for n, a in offered.items()):
            self._store.set_status(self._nodes, node, {**node["status"], "allocatable": offered})

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

    def _pod(self, pod: Obj, nodes: dict[str, Obj], used: dict[str, Counter[str]]) -> None:
        """Bind a pod that waits for a node, start one that is bound, watch one that runs.

        ``used`` are the devices that bound pods ask for, by node.
        """
        name, phase = pod["spec"].get("nodeName"), dig(pod, "status", "phase")
        if name is None:
            if obstacle := self._obstacle(pod):
                self._unschedulable(pod, len(nodes), f": {obstacle}")
                return
            host = next(
                (
                    n
                    for at, n in nodes.items()
                    if is_ready(n)
                    and fits(pod["spec"], n)
                    and fits_into(pod["spec"], n, used.get(at, Counter()))
                ),
                None,
            )
            if host is None:
                self._unschedulable(pod, len(nodes))
                return
            name = host["metadata"]["name"]
            used.setdefault(name, Counter()).update(requests(pod["spec"]))
            spec = {**pod["spec"], "nodeName": name}
            bound = {**pod, "spec": spec, "status": {"phase": "Pending"}}
            pod = self._store.modify(self._pods, pod, bound)
        ready, uid = is_ready(nodes[name]), pod["metadata"]["uid"]
        if phase == "Running" and failures.crashes(pod, self._failing):
            self._store.set_status(self._pods, pod, failures.crashed(pod))
        elif phase == "Running" and failures.is_crashed(pod):
            self.run(pod["metadata"]["namespace"], pod["metadata"]["name"], uid)
        elif phase == "Running":
            self._set_ready(pod, ready=ready)
        elif phase == "Pending" and ready and uid not in self._starting:
            self._starting.add(uid)
            self._start(pod["metadata"]["namespace"], pod["metadata"]["name"], uid)

    def _unschedulable(self, pod: Obj, nodes: int, why: str = "") -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": f"0/{nodes} nodes are available{why}",
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
        if not deleting(daemon_set):
            self._record(daemon_set)
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
                name = f"{daemon_set['metadata']['name']}-{digest(node, generation)[:8]}"
                extra = {"pod-template-generation": generation}
                self._create_pod(daemon_set, template, name, extra, node)
        ready = sum(_is_running(pod) for pod in on.values())
        self._count(daemon_set, len(wanted), ready, len(on))

    def _record(self, daemon_set: Obj) -> None:
        """Keep a ControllerRevision of each template, for `kubectl rollout history` and `undo`."""
        resource = self._store.registry.builtin("ControllerRevision")
        metadata, template = daemon_set["metadata"], daemon_set["spec"]["template"]
        kept = [
            revision
            for revision in self._store.objects(resource, metadata["namespace"])
            if metadata["uid"] in owner_uids(revision)
        ]
        kept.sort(key=lambda revision: revision["revision"])
        data = {"spec": {"template": {**template, "$patch": "replace"}}}
        if kept and kept[-1]["data"] == data:
            return
        number = kept[-1]["revision"] + 1 if kept else 1
        if known := next((revision for revision in kept if revision["data"] == data), None):
            self._store.modify(resource, known, {**known, "revision": number})
            return
        for revision in kept[: len(kept) - daemon_set["spec"].get("revisionHistoryLimit", 10)]:
            self._delete(resource, revision)
        template_hash = digest(template)[:10]
        revision = {
            "metadata": {
                "name": f"{metadata['name']}-{template_hash}",
                "labels": {
                    **(labels(template) if "metadata" in template else {}),
                    "controller-revision-hash": template_hash,
                },
                "ownerReferences": [owner_reference(daemon_set)],
            },
            "revision": number,
            "data": data,
        }
        self._try_create(resource, metadata["namespace"], revision)

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
        """One ReplicaSet for the newest template; `revisionHistoryLimit` older ones stay, empty."""
        metadata, spec = deployment["metadata"], deployment["spec"]
        if deleting(deployment):
            return
        template_hash = digest(spec["template"])[:10]
        fitting = (r for r in replica_sets if labels(r)["pod-template-hash"] == template_hash)
        current = next(fitting, None)
        older = sorted((r for r in replica_sets if r is not current), key=_revision)
        limit = spec.get("revisionHistoryLimit", 10)
        for n, replica_set in enumerate(older):
            if n < len(older) - limit:
                self._delete(self._replica_sets, replica_set)
            else:
                self._resize(replica_set, 0)
        if current is None:
            self._create_replica_set(
                deployment, template_hash, max(map(_revision, older), default=0)
            )
            return
        if older and _revision(current) <= _revision(older[-1]):  # a rollback is a new revision
            current = self._revise(current, _revision(older[-1]) + 1)
            self._annotate(deployment, str(_revision(current)))
            return
        replicas = spec.get("replicas", 1)
        current = self._resize(current, replicas)
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

    def _resize(self, replica_set: Obj, replicas: int) -> Obj:
        if replica_set["spec"]["replicas"] == replicas:
            return replica_set
        changed = {**replica_set, "spec": {**replica_set["spec"], "replicas": replicas}}
        generation = replica_set["metadata"]["generation"] + 1
        changed = with_metadata(changed, generation=generation)
        return self._store.modify(self._replica_sets, replica_set, changed)

    def _revise(self, replica_set: Obj, revision: int) -> Obj:
        annotations = replica_set["metadata"].get("annotations") or {}
        annotations = {**annotations, _REVISION: str(revision)}
        changed = with_metadata(replica_set, annotations=annotations)
        return self._store.modify(self._replica_sets, replica_set, changed)

    def _annotate(self, deployment: Obj, revision: str) -> None:
        annotations = {**(deployment["metadata"].get("annotations") or {}), _REVISION: revision}
        annotated = with_metadata(deployment, annotations=annotations)
        self._store.modify(self._deployments, deployment, annotated)

    def _create_replica_set(self, deployment: Obj, template_hash: str, newest: int) -> None:
        metadata, spec = deployment["metadata"], deployment["spec"]
        annotations = metadata.get("annotations") or {}
        revision = str(max(newest, int(annotations.get(_REVISION, 0))) + 1)
        cause = "kubernetes.io/change-cause"
        told = {cause: annotations[cause]} if cause in annotations else {}
        template = labelled(spec["template"], {"pod-template-hash": template_hash})
        replica_set = {
            "metadata": {
                "name": f"{metadata['name']}-{template_hash}",
                "labels": template["metadata"]["labels"],
                "annotations": {**told, _REVISION: revision},
                "ownerReferences": [owner_reference(deployment)],
            },
            "spec": {
                "replicas": spec.get("replicas", 1),
                "selector": {"matchLabels": template["metadata"]["labels"]},
                "template": template,
            },
        }
        if self._try_create(self._replica_sets, metadata["namespace"], replica_set):
            self._annotate(deployment, revision)

    def _replica_set(self, replica_set: Obj, pods: list[Obj]) -> None:
        spec, name = replica_set["spec"], replica_set["metadata"]["name"]
        wanted = 0 if deleting(replica_set) else spec.get("replicas", 1)
        for pod in pods[wanted:]:
            self._delete_pod(pod)
        taken = {pod["metadata"]["name"] for pod in pods}
        free = (f"{name}-{digest(name, n)[:8]}" for n in range(wanted + len(pods)))
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
        template = labelled(template, extra)
        metadata = {
            **template["metadata"],
            "name": name,
            "ownerReferences": [owner_reference(owner)],
        }
        spec = {**template["spec"], **({"nodeName": node} if node else {})}
        pod = {"metadata": metadata, "spec": spec}
        self._try_create(self._pods, owner["metadata"]["namespace"], pod)

    def _try_create(self, resource: Resource, namespace: str, obj: Obj) -> bool:
        try:
            self._store.create(resource, namespace, obj)
        except ApiError as error:
            # The namespace is ending (403, 404), or a pod of that name is (409); a policy (422).
            if error.code not in (403, 404, 409, 422):
                raise
            return False
        return True

    def _delete_pod(self, pod: Obj) -> None:
        self._delete(self._pods, pod)

    def _delete(self, resource: Resource, obj: Obj) -> None:
        metadata = obj["metadata"]
        if self._store.find(resource, metadata["namespace"], metadata["name"]):
            self._store.delete(resource, metadata["namespace"], metadata["name"])


def is_over(pod: Obj) -> bool:
    """Whether a pod has ended."""
    return dig(pod, "status", "phase") in ("Succeeded", "Failed")


def requests(pod: Obj) -> Counter[str]:
    """The devices that a pod of this specification asks for: its extended resources.

    Of these, requests equal limits (Kubernetes docs, "Schedule GPUs").
    """
    found: Counter[str] = Counter()
    for container in pod.get("containers") or ():
        asked = dig(container, "resources", "limits") or dig(container, "resources", "requests")
        for name, amount in (asked or {}).items():
            if "/" in name and str(amount).isdigit():
                found[name] += int(amount)
    return found


def fits_into(pod: Obj, node: Obj, used: Counter[str]) -> bool:
    """Whether a node has as many devices free as a pod asks for; ``used`` are taken.

    Of cpu and memory there is always enough.
    """
    there = dig(node, "status", "allocatable") or {}
    return all(
        used[name] + amount <= int(there.get(name, 0)) for name, amount in requests(pod).items()
    )


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


def labelled(template: Obj, extra: dict[str, str]) -> Obj:
    """A pod template with more labels."""
    metadata = template.get("metadata") or {}
    return {**template, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), **extra}}}


def owner_reference(obj: Obj) -> Obj:
    """The entry of `ownerReferences` that makes `obj` the controller of another."""
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _revision(replica_set: Obj) -> int:
    text = (replica_set["metadata"].get("annotations") or {}).get(_REVISION, "")
    return int(text) if text.isdigit() else 0


def digest(*values: Any) -> str:
    """Lower-case letters and digits that depend on the values alone: the same in every run."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
