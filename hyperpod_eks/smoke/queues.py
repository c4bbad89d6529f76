"""The queues of task governance: which one a job uses, and what it waits for there.

Kueue documentation, "Cluster Queue", "Resource Flavor", "Workload": a LocalQueue belongs to a
ClusterQueue, whose quotas are for flavors, and a flavor is the nodes with some labels.  Those of
HyperPod task governance have the instance type (docs/task-governance.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.kube import jobs, objects
from hyperpod_eks.kube.client import part, parts, text
from hyperpod_eks.kube.nodes import INSTANCE_TYPE
from hyperpod_eks.resources.hyperpod.devices import GPU, NEURON
from hyperpod_eks.smoke.inputs import Facts

VERSIONS = ("kueue.x-k8s.io/v1beta2", "kueue.x-k8s.io/v1beta1")


class Place(NamedTuple):
    """Where a job runs: its namespace, and the queue there; no queue without task governance."""

    namespace: str
    queue: str = ""
    covers: frozenset[str] = frozenset()
    """The resources that the queue has quotas for: a job that asks for another one waits forever
    (Kueue documentation, "Cluster Queue", "Resources")."""
    owner: str = ""
    """The ClusterQueue that the queue belongs to."""


class Quota(NamedTuple):
    """What a queue has of an instance type, "" for any: accelerators, or vCPUs without them."""

    place: Place
    instance_type: str
    amount: float
    most: Mapping[str, float]
    """By resource, what the queue can use of it at most, borrowed quota included."""


def place(facts: Facts, group: str) -> Place:
    """Return the place for jobs on a group: the queue with the largest quota for its nodes.

    Nodes that no queue has a quota for are used without one, and so are all if the caller may not
    list queues: see `unread`.
    """
    return places(facts, group)[0]


def places(facts: Facts, group: str) -> list[Place]:
    """Return the places for jobs on a group, at least one, that of `place` first."""
    return _ranked(facts, group, _quotas(facts)[0]) or [Place(objects.DEFAULT)]


def within(facts: Facts, namespace: str, group: str) -> Place | None:
    """Return the place for jobs on a group in a namespace; None if its queues have no such node."""
    mine = [one for one in _quotas(facts)[0] if one.place.namespace == namespace]
    return next(iter(_ranked(facts, group, mine)), None) if mine else Place(namespace)


def _ranked(facts: Facts, group: str, quotas: list[Quota]) -> list[Place]:
    """Return the places with a quota for the nodes of a group, the largest quota first."""
    found = sorted(_fitting(facts, group, quotas), key=lambda one: (-one.amount, *one.place[:2]))
    return list(dict.fromkeys(one.place for one in found))


def _fitting(facts: Facts, group: str, quotas: list[Quota]) -> list[Quota]:
    kinds = {"", *(node.instance_type for node in facts.of_group(group))}
    return [one for one in quotas if one.instance_type in kinds]


def never_admits(
    facts: Facts, there: Place, group: str, asked: Mapping[str, str], pods: int
) -> str:
    """Return why a queue can never admit pods on a group; "" if it can once its quota is free.

    ``asked`` has quantities of each pod.
    """
    quotas = [one for one in _fitting(facts, group, _quotas(facts)[0]) if one.place == there]
    for resource, each in asked.items() if there.queue else ():
        need = pods * quantity(each)
        most = max((one.most.get(resource, 0.0) for one in quotas), default=0.0)
        if need > most:
            return (
                f"the queue {there.queue} can use at most {most:g} {resource}, what it may borrow"
                f" included, and the job needs {need:g}"
            )
    return ""


def _kinds(facts: Facts) -> tuple[str, Mapping[str, objects.Kind]]:
    """Return the newest version of Kueue that is served, and its kinds; none without Kueue."""

    def ask() -> tuple[str, Mapping[str, objects.Kind]]:
        for version in VERSIONS:
            kinds = objects.served(facts.access, version)
            if "LocalQueue" in kinds:
                return version, kinds
        return "", {}

    return facts.snapshot.once("kinds of Kueue of the test", ask)


def unread(facts: Facts) -> str:
    """Return why the caller may not list queues; "" if it may: a job may take a team's nodes."""
    return _quotas(facts)[1]


def _quotas(facts: Facts) -> tuple[list[Quota], str]:
    """Return the quotas of all queues; none, and why, if the caller may not list them."""

    def ask() -> tuple[list[Quota], str]:
        try:
            return list(_read(facts)), ""
        except HyperpodError as error:
            if error.cause is None or error.cause.id != "no-access-entry":
                raise
            return [], str(error)

    return facts.snapshot.once("quotas of the test", ask)


def _read(facts: Facts) -> Iterator[Quota]:
    version, kinds = _kinds(facts)
    if not kinds:
        return
    local = objects.every(facts.access, version, kinds["LocalQueue"])
    clusters = _cluster_queues(facts)
    active = {_name(x): x for x in clusters if text(x, "spec", "stopPolicy") in ("", "None")}
    for each in local:
        owner = text(each, "spec", "clusterQueue")
        groups = parts(active.get(owner), "spec", "resourceGroups")
        named = [name for group in groups for name in group.get("coveredResources") or ()]
        space = text(each, "metadata", "namespace")
        where = Place(space, _name(each), frozenset(named), owner)
        for flavor in (flavor for group in groups for flavor in parts(group, "flavors")):
            kind = _types(facts).get(text(flavor, "name"), "")
            most = _most(flavor, alone=not _cohort(active[owner]))
            yield Quota(where, kind, _amount(flavor), most)
        if not groups:  # nothing can run in this namespace
            yield Quota(where, "none", 0.0, {})


def _cluster_queues(facts: Facts) -> list[JsonMapping]:
    version, kinds = _kinds(facts)
    return objects.every(facts.access, version, kinds["ClusterQueue"])


def _types(facts: Facts) -> dict[str, str]:
    """Return the instance types by flavor."""
    version, kinds = _kinds(facts)

    def ask() -> dict[str, str]:
        found = objects.every(facts.access, version, kinds["ResourceFlavor"])
        return {_name(x): text(x, "spec", "nodeLabels", INSTANCE_TYPE) for x in found}

    return facts.snapshot.once("flavors of the test", ask)


def _name(document: JsonMapping) -> str:
    return text(document, "metadata", "name")


def _amount(flavor: JsonMapping) -> float:
    """Return the quota of a flavor's accelerators, else of its vCPUs."""
    given = {text(x, "name"): x.get("nominalQuota") for x in parts(flavor, "resources")}
    return next((quantity(given[name]) for name in (GPU, NEURON, "cpu") if name in given), 0.0)


def _most(flavor: JsonMapping, *, alone: bool) -> dict[str, float]:
    """Return what a queue can use of a flavor at most, by resource.

    That is its quota and what it may borrow: nothing if it is ``alone``, in no cohort.  Without a
    borrowingLimit it is infinite: what a cohort can lend, which quotas of its own and parents add
    to, is not looked up (Kueue documentation, "Cluster Queue", "borrowingLimit"; "Cohort").
    """
    found: dict[str, float] = {}
    for each in parts(flavor, "resources"):
        limit = each.get("borrowingLimit")
        borrows = 0.0 if alone else math.inf if limit is None else quantity(limit)
        found[text(each, "name")] = quantity(each.get("nominalQuota")) + borrows
    return found


_SCALES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3} | {
    f"{letter}{binary}": float((1024 if binary else 1000) ** power)
    for power, letter in enumerate("KMGTPE", 1)
    for binary in ("", "i")
}


def quantity(value: object) -> float:
    """Return the value of a quantity of Kubernetes; 0 for anything else.

    >>> quantity("50m"), quantity("64Mi"), quantity(2), quantity(None)
    (0.05, 67108864.0, 2.0, 0.0)
    """
    found = re.fullmatch(r"(\d+\.?\d*(?:[eE][+-]?\d+)?)([numkKMGTPE]?i?)", str(value))
    return float(found[1]) * _SCALES.get(found[2], 0.0) if found else 0.0


def would_stop(facts: Facts, there: Place, group: str, asked: Mapping[str, str], pods: int) -> str:
    """Return why no job is created: Kueue would stop tasks of others for it; "" if it would not.

    A task within its queue's quota may stop those of other queues in the cohort that borrow what
    it needs (Kueue documentation, "Preemption", reclaimWithinCohort), and a test is worth no task.
    """
    queues = {_name(x): x for x in _cluster_queues(facts)} if there.queue else {}
    mine = queues.get(there.owner)
    if not (mine and (cohort := _cohort(mine))):
        return ""
    kinds = {"", *(node.instance_type for node in facts.of_group(group))}
    usage = {name: _usage(x) for name, x in queues.items() if _cohort(x) == cohort}
    for (flavor, resource), own in usage[there.owner].items():
        need = pods * quantity(asked.get(resource))
        every = {n: u[flavor, resource] for n, u in usage.items() if (flavor, resource) in u}
        borrow = [name for name, one in every.items() if one.used > one.quota]
        free = max(0.0, own.kept - own.used) + sum(one.left for one in every.values())
        fits = need > 0 and own.used + need <= own.quota
        if _types(facts).get(flavor, "") in kinds and borrow and fits and need > free:
            return (
                f"no job was created: in the queue {there.queue} it would stop tasks of"
                f" {', '.join(sorted(borrow))}, which borrow its quota for {resource} of {flavor}"
            )
    return ""


class _Use(NamedTuple):
    """What a queue has and uses of a resource; ``kept`` is what it does not lend."""

    quota: float
    kept: float
    used: float

    @property
    def left(self) -> float:
        """What it lends and nobody uses; below 0 what it borrows."""
        return self.quota - self.kept - max(0.0, self.used - self.kept)


def _cohort(queue: JsonMapping) -> str:
    """Return the cohort of a ClusterQueue (v1beta2 and v1beta1 have other names for it)."""
    return text(queue, "spec", "cohortName") or text(queue, "spec", "cohort")


def _usage(queue: JsonMapping) -> dict[tuple[str, str], _Use]:
    """Return what a ClusterQueue has and uses, by flavor and resource."""
    used = {
        (text(flavor, "name"), text(each, "name")): quantity(each.get("total"))
        for flavor in parts(queue, "status", "flavorsUsage")
        for each in parts(flavor, "resources")
    }
    found: dict[tuple[str, str], _Use] = {}
    for group in parts(queue, "spec", "resourceGroups"):
        for flavor in parts(group, "flavors"):
            for each in parts(flavor, "resources"):
                key, quota = (text(flavor, "name"), text(each, "name")), each.get("nominalQuota")
                lends = each.get("lendingLimit")
                kept = 0.0 if lends is None else max(0.0, quantity(quota) - quantity(lends))
                found[key] = _Use(quantity(quota), kept, used.get(key, 0.0))
    return found


def why_queued(facts: Facts, job: JsonMapping) -> str:
    """Return why Kueue does not let a job run, as its Workload says it."""
    said = ""
    for version in VERSIONS:
        with suppress(HyperpodError):  # the caller may not read them
            if kind := objects.served(facts.access, version).get("Workload"):
                space, uid = text(job, "metadata", "namespace"), text(job, "metadata", "uid")
                for each in objects.every(facts.access, version, kind, namespace=space):
                    if any(
                        text(x, "uid") == uid for x in parts(each, "metadata", "ownerReferences")
                    ):
                        said = said or "; ".join(_waits(each))
    queue = text(job, "metadata", "labels", jobs.QUEUE)
    return f"the queue {queue} has not admitted it: {said or 'Kueue gives no reason'}"


def _waits(workload: JsonMapping) -> Iterator[str]:
    for each in parts(workload, "status", "conditions"):
        if text(each, "status") == "False" and text(each, "type") in ("QuotaReserved", "Admitted"):
            yield text(each, "message")


def is_suspended(job: JsonMapping) -> bool:
    """Whether a Job or an MPIJob waits: Kueue suspends those that it has not admitted."""
    spec = part(job, "spec")
    return spec.get("suspend") is True or part(spec, "runPolicy").get("suspend") is True
