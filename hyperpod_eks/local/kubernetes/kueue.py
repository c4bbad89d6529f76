"""Kueue, as the add-on for HyperPod task governance installs it: jobs wait for their quota.

A job with the label of a queue is suspended when it is created (Kueue's webhook), gets a Workload,
and runs once its ClusterQueue has unused quota, its own or what its cohort lends
(https://kueue.sigs.k8s.io/docs/concepts/, "Cluster Queue", "Workload", "Cohort").  Others give
way to it as `kueue_quota` says.  Not imitated: topologies, and the other kinds of jobs, such as
pods and Deployments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from .clock import timestamp
from .errors import ApiError, details
from .kueue_kinds import (
    GROUP,
    MANAGED,
    NO_QUEUE,
    POLICY,
    POLICY_KIND,
    QUEUE,
    RULES,
    definitions,
    policy,
)
from .kueue_quota import Quotas, asked_by, flavors
from .objects import Obj, deleting, dig, labels, owner_uids
from .resources import Resource
from .store import Store
from .workloads import digest, is_available, owner_reference

PRIORITY = f"{GROUP}/priority-class"
MANAGER = ("kueue-system", "kueue-controller-manager")
JOBS = ("Job", "MPIJob", "PyTorchJob")
KINDS = (*JOBS, "ClusterQueue", "LocalQueue", "Deployment")
_REPLICAS = {"MPIJob": "mpiReplicaSpecs", "PyTorchJob": "pytorchReplicaSpecs"}


class Kueue:
    """The webhook and the controllers of Kueue, as one reconciler."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.installed = False

    def install(self, *, old: bool) -> None:
        """Define the kinds, and the policy that refuses what names no queue."""
        self.installed = True
        for kind, body in (
            *(("CustomResourceDefinition", each) for each in definitions(old=old)),
            *policy(),
        ):
            resource = self._store.registry.builtin(kind)
            if not self._store.find(resource, "", body["metadata"]["name"]):
                self._store.create(resource, "", body)

    def remove(self) -> None:
        """Delete the kinds, with every object of them, and the policy; namespaces stay."""
        self.installed = False
        for kind, body in (
            *policy(),
            *(("CustomResourceDefinition", each) for each in definitions()),
        ):
            resource, name = self._store.registry.builtin(kind), body["metadata"]["name"]
            if self._store.find(resource, "", name):
                self._store.delete(resource, "", name)

    def webhook(self, resource: Resource, obj: Obj) -> Obj:
        """Suspend a new job that names a queue; refuse what the policy refuses."""
        if self.installed and any(
            kind == resource.plural for _, _, kinds in RULES for kind in kinds
        ):
            self._ask_policy(resource, obj)
        if resource.kind not in JOBS or QUEUE not in labels(obj) or not self._runs():
            return obj
        return _suspended(resource.kind, obj, suspend=True)

    def _ask_policy(self, resource: Resource, obj: Obj) -> None:
        """Refuse what has no queue in a managed namespace, as the policy's expressions say.

        They are not evaluated: the package for that is optional, and controllers are held to the
        policy here, which is how a job comes to have no pods.
        """
        registry, metadata = self._store.registry, obj["metadata"]
        home = self._store.find(registry.builtin("Namespace"), "", metadata.get("namespace", ""))
        if home is None or not MANAGED.items() <= labels(home).items():
            return
        if labels(obj).get(QUEUE) or any(
            owner["kind"] == "HyperPodPyTorchJob" for owner in metadata.get("ownerReferences") or ()
        ):
            return
        if all(
            self._store.find(registry.builtin(kind), "", body["metadata"]["name"])
            for kind, body in policy()
        ):
            binding = f"'{POLICY}' with binding '{POLICY}-binding'"
            told = f"{POLICY_KIND} {binding} denied request: {NO_QUEUE}"
            name = metadata.get("name", "")
            message = f'{resource.qualified} "{name}" is forbidden: {told}'
            about = {**details(resource, name), "causes": [{"message": told}]}
            raise ApiError(422, "Invalid", message, about)

    def reconcile(self) -> None:
        """Look at every job and do what is missing, once; changes made here wake it again."""
        if not self._runs():
            return
        workloads = {uid: w for w in self._objects("Workload") for uid in owner_uids(w)}
        waiting = []
        for kind in JOBS:
            for job in self._objects(kind):
                if QUEUE not in labels(job) or deleting(job):
                    continue
                workload = workloads.get(job["metadata"]["uid"]) or self._workload(kind, job)
                if workload and _finished(job):
                    self._condition(workload, "Finished", True, "Succeeded", "Job finished")
                elif workload and not _is(workload, "Admitted"):
                    waiting.append((kind, job, workload))
        for kind, job, workload in self._in_turn(waiting):
            self._admit(kind, job, workload)
        self._count()

    def _runs(self) -> bool:
        deployment = self._store.find(self._store.registry.builtin("Deployment"), *MANAGER)
        return self.installed and deployment is not None and is_available(deployment)

    def _objects(self, kind: str, namespace: str = "") -> list[Obj]:
        resource = self._store.registry.kind(kind)
        return self._store.objects(resource, namespace) if resource else []

    def _kind(self, kind: str) -> Resource:
        found = self._store.registry.kind(kind)
        assert found
        return found

    def _workload(self, kind: str, job: Obj) -> Obj | None:
        """Create the Workload of a job; jobframework.GetWorkloadNameForOwnerWithGVK names it."""
        metadata = job["metadata"]
        name = f"{kind.lower()}-{metadata['name']}-{digest(metadata['uid'])[:5]}"
        class_, priority = labels(job).get(PRIORITY), 0
        if class_:
            found = [
                each["value"]
                for each in self._objects("WorkloadPriorityClass")
                if each["metadata"]["name"] == class_
            ]
            if not found:
                return None  # Kueue retries until the class exists
            priority = found[0]
        sets = [{"name": n, "count": c, "template": t} for n, c, t in _pod_sets(kind, job)]
        body = {
            "metadata": {"name": name, "ownerReferences": [owner_reference(job)]},
            "spec": {"queueName": labels(job)[QUEUE], "podSets": sets, "priority": priority},
        }
        try:
            return self._store.create(self._kind("Workload"), metadata["namespace"], body)
        except ApiError as error:
            if error.code not in (403, 409):  # the namespace is ending
                raise
            return None

    # --- quotas ----------------------------------------------------------------------------------

    def _in_turn(self, waiting: list[tuple[str, Obj, Obj]]) -> Iterator[tuple[str, Obj, Obj]]:
        """Yield the jobs that wait: first those that need not borrow, then those of the queue with
        the smallest share, then by priority and age ("Cluster Queue", "Cohort"; "Preemption", "Fair
        Sharing")."""

        quotas = self._quotas()

        def turn(one: tuple[str, Obj, Obj]) -> tuple[bool, int, tuple[int, str, str]]:
            name = self._queue_of(one[2])[0]
            asked, priority = asked_by(one[2]), _order(one[2])
            if name not in quotas.queues:
                return True, 0, priority
            own = [each["name"] for each in flavors(quotas.queues[name])]
            borrows = all(quotas.borrows(name, each, asked) for each in own)
            fair = dig(quotas.queues[name], "spec", "fairSharing") is not None
            return borrows, quotas.share(name) if fair and borrows else 0, priority

        while waiting:
            first = min(waiting, key=turn)
            waiting.remove(first)
            yield first
            quotas = self._quotas()

    def _quotas(self) -> Quotas:
        return Quotas(self._objects("ClusterQueue"), self._objects("Workload"))

    def _queue_of(self, workload: Obj) -> tuple[str, str]:
        """Return the ClusterQueue of a Workload; without one, why not."""
        namespace, name = workload["metadata"]["namespace"], workload["spec"]["queueName"]
        local = [q for q in self._objects("LocalQueue", namespace) if q["metadata"]["name"] == name]
        if not local:
            return "", f"LocalQueue {name} doesn't exist"
        wanted = dig(local[0], "spec", "clusterQueue")
        for queue in self._objects("ClusterQueue"):
            stopped = dig(queue, "spec", "stopPolicy") not in (None, "None")
            if queue["metadata"]["name"] == wanted and not stopped:
                return wanted, ""
        return "", f"ClusterQueue of LocalQueue {name} is inactive"

    def _admit(self, kind: str, job: Obj, workload: Obj) -> None:
        """Start a job if its queue has room, or others give way; else say what it waits for."""
        name, why = self._queue_of(workload)
        if not name:
            self._condition(workload, "QuotaReserved", False, "Inadmissible", why)
            return
        quotas, asked, problem = self._quotas(), asked_by(workload), "no flavor"
        own = [each["name"] for each in flavors(quotas.queues[name])]
        for flavor in own:
            problem = quotas.lack(name, flavor, asked)
            if not problem:
                self._start(kind, job, workload, name, flavor)
                return
        for flavor in own:
            targets = quotas.targets(name, workload["spec"]["priority"], flavor, asked)
            for uid, reason in targets.items():
                self._evict(uid, workload, reason)
            if targets:
                self._start(kind, job, workload, name, flavor)
                return
        told = f"couldn't assign flavors to pod set main: {problem}"
        self._condition(workload, "QuotaReserved", False, "Pending", told)

    def _evict(self, uid: str, by: Obj, reason: tuple[str, str]) -> None:
        """Suspend the job of a Workload, which waits again ("Preemption")."""
        (workload,) = (x for x in self._objects("Workload") if x["metadata"]["uid"] == uid)
        (owner,) = owner_uids(by)
        told = (
            f"Preempted to accommodate a workload (UID: {by['metadata']['uid']}, JobUID: {owner})"
            f" due to {reason[1]}"
        )
        status = {k: v for k, v in workload["status"].items() if k != "admission"}
        self._store.set_status(self._kind("Workload"), workload, status)
        for type_, good, why in (
            ("Evicted", True, "Preempted"),
            ("Preempted", True, reason[0]),
            ("QuotaReserved", False, "Pending"),
            ("Admitted", False, "NoReservation"),
        ):
            live = self._store.get(self._kind("Workload"), *_place(workload))
            text = told if why != "NoReservation" else "The workload has no reservation"
            self._condition(live, type_, good, why, text)
        for kind in JOBS:
            for job in self._objects(kind, workload["metadata"]["namespace"]):
                if job["metadata"]["uid"] in owner_uids(workload):
                    before = _as_asked(kind, job, workload)
                    suspended = _suspended(kind, before, suspend=True)
                    self._store.modify(self._kind(kind), job, suspended)

    def _start(self, kind: str, job: Obj, workload: Obj, name: str, flavor: str) -> None:
        """Reserve the quota, and let the job run on nodes of its flavor."""
        asked = asked_by(workload)
        count = sum(each["count"] for each in workload["spec"]["podSets"])
        assignment = {
            "name": "main",
            "count": count,
            "flavors": dict.fromkeys(asked, flavor),
            "resourceUsage": {k: f"{v:f}" for k, v in asked.items()},
        }
        status = {
            **(workload.get("status") or {}),
            "admission": {"clusterQueue": name, "podSetAssignments": [assignment]},
        }
        self._store.set_status(self._kind("Workload"), workload, status)
        told = f"Quota reserved in ClusterQueue {name}"
        news = [("QuotaReserved", True, told), ("Admitted", True, "The workload is admitted")]
        news += [(type_, False, told) for type_ in ("Evicted", "Preempted") if _is(workload, type_)]
        for type_, good, text in news:
            live = self._store.get(self._kind("Workload"), *_place(workload))
            self._condition(live, type_, good, type_ if good else "QuotaReserved", text)
        flavors = {f["metadata"]["name"]: f for f in self._objects("ResourceFlavor")}
        chosen = dig(flavors.get(flavor, {}), "spec", "nodeLabels") or {}
        started = _suspended(kind, _on_nodes(kind, job, chosen), suspend=False)
        self._store.modify(self._kind(kind), job, started)

    # --- what is told ----------------------------------------------------------------------------

    def _condition(self, workload: Obj, type_: str, good: bool, reason: str, text: str) -> None:
        before = dig(workload, "status", "conditions") or []
        told = {"type": type_, "status": str(good), "reason": reason, "message": text}
        for each in before:
            if {k: each.get(k) for k in told} == told:
                return
        told["lastTransitionTime"] = timestamp(self._store.clock)
        others = [each for each in before if each["type"] != type_]
        status = {**(workload.get("status") or {}), "conditions": [*others, told]}
        self._store.set_status(self._kind("Workload"), workload, status)

    def _count(self) -> None:
        """Write the numbers of jobs that wait and run into the queues' statuses."""
        pending, admitted = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for each in self._objects("Workload"):
            at = each["metadata"]["namespace"], each["spec"]["queueName"]
            if not _is(each, "Finished"):
                (admitted if _is(each, "Admitted") else pending)[at] += 1
        of: dict[str, list[tuple[str, str]]] = {}
        for local in self._objects("LocalQueue"):
            at = local["metadata"]["namespace"], local["metadata"]["name"]
            of.setdefault(dig(local, "spec", "clusterQueue"), []).append(at)
            self._told("LocalQueue", local, pending[at], admitted[at])
        quotas = self._quotas()
        for queue in self._objects("ClusterQueue"):
            name = queue["metadata"]["name"]
            ats = of.get(name, ())
            counts = sum(pending[a] for a in ats), sum(admitted[a] for a in ats)
            self._told("ClusterQueue", queue, *counts, **_use(quotas, name))

    def _told(self, kind: str, queue: Obj, pending: int, admitted: int, **more: Any) -> None:
        status = queue.get("status") or {}
        since = dig([*(status.get("conditions") or ()), {}][0], "lastTransitionTime")
        active = {
            "type": "Active",
            "status": "True",
            "reason": "Ready",
            "message": "Can admit new workloads",
            "lastTransitionTime": since or timestamp(self._store.clock),
        }
        counts = {"pendingWorkloads": pending, "admittedWorkloads": admitted}
        counts["reservingWorkloads"] = admitted  # without checks all that have quota are admitted
        told = {"conditions": [active], **counts, **more}
        self._store.set_status(self._kind(kind), queue, {**status, **told})


def _place(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _order(workload: Obj) -> tuple[int, str, str]:
    metadata = workload["metadata"]
    return -workload["spec"]["priority"], metadata["creationTimestamp"], metadata["name"]


def _is(workload: Obj, type_: str) -> bool:
    conditions = dig(workload, "status", "conditions") or []
    return any(c["type"] == type_ and c["status"] == "True" for c in conditions)


def _finished(job: Obj) -> bool:
    conditions = dig(job, "status", "conditions") or []
    ends = ("Complete", "Failed", "Succeeded")
    return any(c["type"] in ends and c["status"] == "True" for c in conditions)


def _suspended(kind: str, job: Obj, *, suspend: bool) -> Obj:
    spec = job["spec"]
    if kind == "Job":
        return {**job, "spec": {**spec, "suspend": suspend}}
    policy_ = {**(spec.get("runPolicy") or {}), "suspend": suspend}
    return {**job, "spec": {**spec, "runPolicy": policy_}}


def _on_nodes(kind: str, job: Obj, chosen: Obj) -> Obj:
    """Return a job whose pods select the nodes of a flavor."""

    def placed(template: Obj) -> Obj:
        spec = template.get("spec") or {}
        wanted = {**(spec.get("nodeSelector") or {}), **chosen}
        return {**template, "spec": {**spec, "nodeSelector": wanted}} if wanted else template

    spec = job["spec"]
    if kind == "Job":
        return {**job, "spec": {**spec, "template": placed(spec["template"])}}
    field = _REPLICAS[kind]
    parts = {
        role: {**part, "template": placed(part.get("template") or {})}
        for role, part in (spec.get(field) or {}).items()
    }
    return {**job, "spec": {**spec, field: parts}}


def _as_asked(kind: str, job: Obj, workload: Obj) -> Obj:
    """Return a job with the templates that it had before it started."""
    templates = {each["name"]: each["template"] for each in workload["spec"]["podSets"]}
    spec = job["spec"]
    if kind == "Job":
        return {**job, "spec": {**spec, "template": templates["main"]}}
    field = _REPLICAS[kind]
    parts = {
        role: {**part, "template": templates[role.lower()]}
        for role, part in (spec.get(field) or {}).items()
    }
    return {**job, "spec": {**spec, field: parts}}


def _pod_sets(kind: str, job: Obj) -> Iterator[tuple[str, int, Obj]]:
    spec = job["spec"]
    if kind == "Job":
        yield "main", spec.get("parallelism") or 1, spec["template"]
        return
    for role, part in (spec.get(_REPLICAS[kind]) or {}).items():
        yield role.lower(), part.get("replicas", 1), part.get("template") or {}


def _use(quotas: Quotas, queue: str) -> Obj:
    """Return what a ClusterQueue's status says of its quota."""
    used, borrowed = quotas.used(queue), quotas.borrowed(queue)
    rows = [
        {
            "name": flavor["name"],
            "resources": [
                {
                    "name": each["name"],
                    "total": f"{used[flavor['name'], each['name']]:f}",
                    "borrowed": f"{borrowed[flavor['name'], each['name']]:f}",
                }
                for each in flavor["resources"]
            ],
        }
        for flavor in flavors(quotas.queues[queue])
    ]
    found: Obj = {"flavorsReservation": rows, "flavorsUsage": rows}
    if dig(quotas.queues[queue], "spec", "fairSharing") is not None:
        found["fairSharing"] = {"weightedShare": quotas.share(queue)}
    return found
