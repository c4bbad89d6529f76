"""The queues of task governance: which one a job uses, and what it waits for there.

Kueue documentation, "Cluster Queue", "Resource Flavor", "Workload": a LocalQueue belongs to a
ClusterQueue, whose quotas are for flavors, and a flavor is the nodes with some labels.  Those of
HyperPod task governance have the instance type (docs/task-governance.md).
"""

from __future__ import annotations

from collections.abc import Iterator
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


class Quota(NamedTuple):
    """What a queue has of an instance type, "" for any: accelerators, or vCPUs without them."""

    place: Place
    instance_type: str
    amount: float


def place(facts: Facts, group: str) -> Place:
    """Return the place for jobs on a group: the queue with the largest quota for its nodes.

    Nodes that no queue has a quota for are used without one.
    """
    return _best(facts, group, _quotas(facts)) or Place(objects.DEFAULT)


def within(facts: Facts, namespace: str, group: str) -> Place | None:
    """Return the place for jobs on a group in a namespace; None if its queues have no such node."""
    mine = [one for one in _quotas(facts) if one.place.namespace == namespace]
    return _best(facts, group, mine) if mine else Place(namespace)


def _best(facts: Facts, group: str, quotas: list[Quota]) -> Place | None:
    kinds = {"", *(node.instance_type for node in facts.of_group(group))}
    found = [one for one in quotas if one.instance_type in kinds]
    return min(found, key=lambda one: (-one.amount, *one.place[:2])).place if found else None


def _quotas(facts: Facts) -> list[Quota]:
    def ask() -> list[Quota]:
        for version in VERSIONS:
            kinds = objects.served(facts.access, version)
            if "LocalQueue" in kinds:
                return list(_read(facts, version, kinds))
        return []

    return facts.snapshot.once("quotas of the test", ask)


def _read(facts: Facts, version: str, kinds: dict[str, objects.Kind]) -> Iterator[Quota]:
    local, clusters, flavors = (
        objects.every(facts.access, version, kinds[kind])
        for kind in ("LocalQueue", "ClusterQueue", "ResourceFlavor")
    )
    types = {_name(x): text(x, "spec", "nodeLabels", INSTANCE_TYPE) for x in flavors}
    active = {_name(x): x for x in clusters if text(x, "spec", "stopPolicy") in ("", "None")}
    for each in local:
        queue = active.get(text(each, "spec", "clusterQueue"))
        groups = parts(queue, "spec", "resourceGroups")
        named = [name for group in groups for name in group.get("coveredResources") or ()]
        where = Place(text(each, "metadata", "namespace"), _name(each), frozenset(named))
        for flavor in (flavor for group in groups for flavor in parts(group, "flavors")):
            yield Quota(where, types.get(text(flavor, "name"), ""), _amount(flavor))
        if not groups:  # nothing can run in this namespace
            yield Quota(where, "none", 0.0)


def _name(document: JsonMapping) -> str:
    return text(document, "metadata", "name")


def _amount(flavor: JsonMapping) -> float:
    """Return the quota of a flavor's accelerators, else of its vCPUs; they may be thousandths."""
    given = {text(x, "name"): str(x.get("nominalQuota")) for x in parts(flavor, "resources")}
    for name in (GPU, NEURON, "cpu"):
        with suppress(ValueError):
            amount = given.get(name, "")
            return float(amount.removesuffix("m")) / (1000 if amount.endswith("m") else 1)
    return 0.0


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
