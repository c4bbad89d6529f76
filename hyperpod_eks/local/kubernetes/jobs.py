"""Jobs that run to their end: batch/v1 Job, and those of operators where these run.

The conditions and labels are those of the Job controller, of mpi-operator (v2beta1) and of
training-operator (v1) of Kubeflow; a HyperPodPyTorchJob has pods and the conditions Created,
Running, Completed and Failed (its controller is not public). No container runs: one that is
commanded to `exit N`, or is `false`, fails, every other succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from .clock import timestamp
from .errors import ApiError
from .objects import Obj, deleting, dig, labels, owner_uids
from .resources import Resource
from .store import Store
from .workloads import digest, is_available, labelled, owner_reference

KINDS = ("Job", "MPIJob", "PyTorchJob", "HyperPodPyTorchJob", "Pod", "Deployment")
# The Deployment that makes a custom job's pods, by the end of its name.
_OPERATORS = {
    "MPIJob": ("mpi-operator",),
    "HyperPodPyTorchJob": ("hp-training-controller-manager",),
    "PyTorchJob": ("training-operator", "training-operators", "training-operator-kubeflow"),
}
_REPLICAS = {
    "MPIJob": ("mpiReplicaSpecs", ("Launcher", "Worker")),
    "PyTorchJob": ("pytorchReplicaSpecs", ("Master", "Worker")),
}
_BACKOFF_LIMIT = 6
_ENDS = ("Complete", "Completed", "Failed", "Succeeded")


class Jobs:
    """The controllers of jobs, as one reconciler."""

    def __init__(self, store: Store, later: Callable[[float, Callable[[], None]], None]) -> None:
        """`later` calls a function after some simulated seconds."""
        self._store = store
        self._later = later

    def reconcile(self) -> None:
        """Look at every job and do what is missing, once; changes made here wake it again."""
        registry = self._store.registry
        unfinished = [
            (resource, job)
            for resource in registry
            if resource.kind in ("Job", *_OPERATORS)
            for job in self._store.objects(resource)
            if not deleting(job) and not _finished(job)
        ]
        if not unfinished:
            return
        owned: dict[str, list[Obj]] = {}
        for pod in self._store.objects(registry.builtin("Pod")):
            for uid in owner_uids(pod):
                owned.setdefault(uid, []).append(pod)
        for resource, job in unfinished:
            mine = owned.get(job["metadata"]["uid"], [])
            if resource.kind == "Job":
                self._job(resource, job, mine)
            elif not self._operator_runs(resource.kind):
                continue
            elif resource.kind == "HyperPodPyTorchJob":
                self._hyperpod(resource, job, mine)
            else:
                self._replicated(resource, job, mine)

    # --- batch/v1 --------------------------------------------------------------------------------

    def _job(self, resource: Resource, job: Obj, pods: list[Obj]) -> None:
        spec, name = job["spec"], job["metadata"]["name"]
        phases = [dig(pod, "status", "phase") for pod in pods]
        active = [
            pod for pod in pods if dig(pod, "status", "phase") in (None, "Pending", "Running")
        ]
        failed, succeeded = phases.count("Failed"), phases.count("Succeeded")
        parallel = spec.get("parallelism", 1)
        completions = spec.get("completions") or (1 if parallel else 0)
        status = {
            "startTime": timestamp(self._store.clock),
            **(job.get("status") or {}),
            "active": len(active),
            "ready": sum(dig(pod, "status", "phase") == "Running" for pod in active),
            "succeeded": succeeded,
            "failed": failed,
        }
        if spec.get("suspend"):
            for pod in active:
                self._delete(pod)
            status = {**status, "active": 0, "ready": 0}
            conditions = self._with(job, "Suspended", "JobSuspended", "Job suspended")
        elif self._is_late(job, spec):
            for pod in active:
                self._delete(pod)
            message = "Job was active longer than specified deadline"
            conditions = self._with(job, "Failed", "DeadlineExceeded", message)
            status = {**status, "active": 0, "ready": 0}
        elif failed > spec.get("backoffLimit", _BACKOFF_LIMIT):
            for pod in active:
                self._delete(pod)
            message = "Job has reached the specified backoff limit"
            conditions = self._with(job, "Failed", "BackoffLimitExceeded", message)
            status = {**status, "active": 0, "ready": 0}
        elif succeeded >= completions > 0:
            message = "Reached expected number of succeeded pods"
            conditions = self._with(job, "Complete", "CompletionsReached", message)
            status["completionTime"] = timestamp(self._store.clock)
        else:
            conditions = dig(job, "status", "conditions") or []
            done = {_index(pod) for pod in pods if dig(pod, "status", "phase") != "Failed"}
            indexed = spec.get("completionMode") == "Indexed"
            free = [n for n in range(completions) if n not in done] if indexed else []
            missing = min(parallel, completions - succeeded) - len(active)
            for n in range(max(0, missing)):
                suffix = digest(job["metadata"]["uid"], len(pods) + n)[:5]
                extra: dict[str, str] = {}
                if indexed:
                    suffix = f"{free[n]}-{suffix}"
                    extra = {"batch.kubernetes.io/job-completion-index": str(free[n])}
                self._create(job, spec["template"], f"{name}-{suffix}", extra)
        self._store.set_status(resource, job, {**status, "conditions": conditions})
        self._expire_later(resource, job, conditions, spec)

    # --- deadlines, and the time to live after the end (Kubernetes docs, "Jobs") ------------------

    def _is_late(self, job: Obj, policy: Obj) -> bool:
        """Whether a job has been active longer than it may; the first look sets the alarm."""
        limit, started = policy.get("activeDeadlineSeconds"), dig(job, "status", "startTime")
        if limit is None:
            return False
        if started is None:
            self._later(limit, self.reconcile)
            return False
        lasted = self._store.clock.now() - datetime.fromisoformat(started)
        return lasted.total_seconds() >= float(limit)

    def _expire_later(
        self, resource: Resource, job: Obj, conditions: list[Obj], policy: Obj
    ) -> None:
        """Delete a job that has just ended after its time to live."""
        seconds = policy.get("ttlSecondsAfterFinished")
        if seconds is not None and _finished({"status": {"conditions": conditions}}):
            self._later(seconds, partial(self._expire, resource, job))

    def _expire(self, resource: Resource, job: Obj) -> None:
        metadata = job["metadata"]
        live = self._store.find(resource, metadata["namespace"], metadata["name"])
        if live and live["metadata"]["uid"] == metadata["uid"]:
            self._store.delete(resource, metadata["namespace"], metadata["name"])

    # --- Kubeflow --------------------------------------------------------------------------------

    def _operator_runs(self, kind: str) -> bool:
        deployments = self._store.objects(self._store.registry.builtin("Deployment"))
        return any(
            d["metadata"]["name"].endswith(_OPERATORS[kind]) and is_available(d)
            for d in deployments
        )

    def _replicated(self, resource: Resource, job: Obj, pods: list[Obj]) -> None:
        """Every replica is a pod; the first role decides how the job ends, and when.

        A PyTorchJob may have workers alone, as those in AWS's examples; then it is they who decide.
        """
        if dig(job, "spec", "runPolicy", "suspend"):
            for pod in pods:
                if dig(pod, "status", "phase") in (None, "Pending", "Running"):
                    self._delete(pod)
            return
        field, (leader, worker) = _REPLICAS[resource.kind]
        replicas = dig(job, "spec", field)
        if not isinstance(replicas, dict):
            return
        if leader == "Master" and not isinstance(replicas.get(leader), dict):
            leader = worker
        if not isinstance(replicas.get(leader), dict):
            return
        name, wanted = job["metadata"]["name"], {}
        for role in dict.fromkeys((leader, worker)):
            part = replicas.get(role) or {}
            for n in range(part.get("replicas", 1) if part.get("template") else 0):
                alone = role == "Launcher"
                pod_name = f"{name}-{role.lower()}" + ("" if alone else f"-{n}")
                wanted[pod_name] = role, part["template"], str(n)
        existing = {pod["metadata"]["name"]: pod for pod in pods}
        state: dict[str, dict[str, int]] = {role: {} for role in (leader, worker)}
        early = _leads_early(
            job, existing, [n for n, (role, *_) in wanted.items() if role == worker]
        )
        for pod_name, (role, template, index) in wanted.items():
            if pod_name not in existing and (role == worker or early):
                extra = {
                    "training.kubeflow.org/job-name": name,
                    "training.kubeflow.org/job-role": role.lower(),
                    "training.kubeflow.org/replica-index": index,
                }
                policy = {"restartPolicy": "Never", **template.get("spec", {})}
                if policy["restartPolicy"] == "Always":
                    policy["restartPolicy"] = "Never"
                if resource.kind == "MPIJob" and role == worker:
                    policy["containers"] = [*map(_serving, policy["containers"])]
                self._create(job, {**template, "spec": policy}, pod_name, extra)
            phase = dig(existing.get(pod_name, {}), "status", "phase") or "Pending"
            count = {"Succeeded": "succeeded", "Failed": "failed"}.get(phase, "active")
            state[role][count] = state[role].get(count, 0) + 1
        led = state[leader]
        conditions = self._with(job, "Created", f"{resource.kind}Created", f"{name} is created.")
        running = all(
            dig(existing.get(pod_name, {}), "status", "phase") in ("Running", "Succeeded")
            for pod_name in wanted
        )
        status = {"startTime": timestamp(self._store.clock), **(job.get("status") or {})}
        policy = dig(job, "spec", "runPolicy") or {}
        if led.get("failed") or self._is_late(job, policy):
            conditions = self._with(
                job, "Failed", f"{resource.kind}Failed", f"{name} has failed.", conditions
            )
        elif led.get("succeeded") == sum(role == leader for role, *_ in wanted.values()):
            message = f"{name} successfully completed."
            conditions = self._with(
                job, "Succeeded", f"{resource.kind}Succeeded", message, conditions
            )
            status["completionTime"] = timestamp(self._store.clock)
        elif running:
            conditions = self._with(
                job, "Running", f"{resource.kind}Running", f"{name} is running.", conditions
            )
        status |= {"conditions": conditions, "replicaStatuses": state}
        self._store.set_status(resource, job, status)
        self._expire_later(resource, job, conditions, policy)
        if any(c["type"] in ("Succeeded", "Failed") for c in conditions):
            self._clean(job, resource.kind, existing.values())

    def _clean(self, job: Obj, kind: str, pods: Any) -> None:
        """What `cleanPodPolicy` says: None keeps pods, which is training-operator's default."""
        run_policy = dig(job, "spec", "runPolicy", "cleanPodPolicy")
        policy = run_policy or dig(job, "spec", "cleanPodPolicy") or "None"
        for pod in pods:
            running = dig(pod, "status", "phase") in ("Pending", "Running")
            if policy == "All" or (running and (policy == "Running" or kind == "MPIJob")):
                self._delete(pod)

    # --- HyperPod --------------------------------------------------------------------------------

    def _hyperpod(self, resource: Resource, job: Obj, pods: list[Obj]) -> None:
        """Every replica of every list is a pod, and all must succeed."""
        name, there = job["metadata"]["name"], {pod["metadata"]["name"]: pod for pod in pods}
        wanted = {
            f"{name}-{each.get('name', 'pods')}-{n}": each.get("template") or {}
            for each in job["spec"]["replicaSpecs"]
            for n in range(each.get("replicas", 1))
        }
        if (job["spec"].get("runPolicy") or {}).get("suspend"):
            wanted = {}
        for pod_name, template in wanted.items():
            if pod_name not in there:
                spec = {"restartPolicy": "Never", **template.get("spec", {})}
                self._create(job, {**template, "spec": spec}, pod_name, {})
        phases = [dig(there.get(each, {}), "status", "phase") or "Pending" for each in wanted]
        conditions = self._with(job, "Created", "JobCreated", f"{name} is created.")
        if "Failed" in phases:
            conditions = self._with(job, "Failed", "JobFailed", f"{name} has failed.", conditions)
        elif wanted and all(each == "Succeeded" for each in phases):
            text = f"{name} has completed."
            conditions = self._with(job, "Completed", "JobCompleted", text, conditions)
        elif wanted and all(each in ("Running", "Succeeded") for each in phases):
            text = f"{name} is running."
            conditions = self._with(job, "Running", "JobRunning", text, conditions)
        self._store.set_status(resource, job, {"conditions": conditions})

    # --- either ----------------------------------------------------------------------------------

    def _with(
        self, job: Obj, kind: str, reason: str, message: str, before: list[Obj] | None = None
    ) -> list[Obj]:
        """The job's conditions and one more that is True; a job that ended runs no more."""
        found = before if before is not None else dig(job, "status", "conditions") or []
        if any(c["type"] == kind for c in found):
            return found
        now = timestamp(self._store.clock)
        ended = kind in _ENDS
        kept = [{**c, "status": "False"} if ended and c["type"] == "Running" else c for c in found]
        times = {"lastTransitionTime": now}
        times |= {"lastProbeTime": now} if job["kind"] == "Job" else {"lastUpdateTime": now}
        condition = {"type": kind, "status": "True", "reason": reason, "message": message, **times}
        return [*kept, condition]

    def _create(self, job: Obj, template: Obj, name: str, extra: dict[str, str]) -> None:
        template = labelled(template, extra)
        metadata = {**template["metadata"], "name": name, "ownerReferences": [owner_reference(job)]}
        pod, namespace = (
            {"metadata": metadata, "spec": template["spec"]},
            job["metadata"]["namespace"],
        )
        builtin, account = self._store.registry.builtin, template["spec"].get("serviceAccountName")
        if account and not self._store.find(builtin("ServiceAccount"), namespace, account):
            return  # Kubernetes, "Managing Service Accounts": "it rejects the pod"
        try:
            self._store.create(builtin("Pod"), namespace, pod)
        except ApiError as error:
            # the namespace is ending, the pod is there, or a policy refuses it
            if error.code not in (403, 404, 409, 422):
                raise

    def _delete(self, pod: Obj) -> None:
        pods, metadata = self._store.registry.builtin("Pod"), pod["metadata"]
        if self._store.find(pods, metadata["namespace"], metadata["name"]):
            self._store.delete(pods, metadata["namespace"], metadata["name"])


def _serving(container: Obj) -> Obj:
    """The container of an MPIJob's worker: one without a command runs an SSH server
    (github.com/kubeflow/mpi-operator, pkg/controller/mpi_job_controller.go).
    """
    if container.get("command") or container.get("args"):
        return container
    return {**container, "command": ["/usr/sbin/sshd"], "args": ["-De"]}


def _leads_early(job: Obj, existing: dict[str, Obj], workers: list[str]) -> bool:
    """Whether the launcher is created now: of an MPIJob it may wait for its workers
    (github.com/kubeflow/mpi-operator, pkg/apis/kubeflow/v2beta1, LauncherCreationPolicy).
    """
    phases = {dig(existing.get(name, {}), "status", "phase") for name in workers}
    waits = dig(job, "spec", "launcherCreationPolicy") == "WaitForWorkersReady"
    return not waits or phases == {"Running"}


def _finished(job: Obj) -> bool:
    conditions = dig(job, "status", "conditions") or []
    return any(c["type"] in _ENDS and c["status"] == "True" for c in conditions)


def _index(pod: Obj) -> int:
    return int(labels(pod).get("batch.kubernetes.io/job-completion-index", -1))
