"""What the jobs of all levels share: labels, tolerations, queue, waiting, and their removal."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import Unfinished
from hyperpod_eks.kube import jobs, objects
from hyperpod_eks.kube.client import text
from hyperpod_eks.kube.nodes import GROUP_NAME
from hyperpod_eks.smoke.inputs import Facts
from hyperpod_eks.workers import gather

LABEL = "hyperpod-eks/test"
"""The label of everything that a test creates; its value is the cluster's name."""
PROBE = "hyperpod-eks"
WAIT = 60.0
"""Seconds after which Kubernetes removes a finished job if nobody else does."""
PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0)
QUEUE = "kueue.x-k8s.io/queue-name"
QUEUES = ("kueue.x-k8s.io/v1beta2", "kueue.x-k8s.io/v1beta1")

T = TypeVar("T")


def labels(facts: Facts) -> dict[str, str]:
    """Return the labels of what a test creates."""
    return {LABEL: facts.name}


def template(facts: Facts, group: str, container: JsonMapping) -> JsonObject:
    """Return the specification of a pod on nodes of a group, whose taints it tolerates."""
    (found,) = (each for each in facts.groups if each["InstanceGroupName"] == group)
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "nodeSelector": {GROUP_NAME: group},
        "tolerations": [
            {"key": taint.partition("=")[0], "operator": "Exists"} for taint in facts.taints(found)
        ],
        "containers": [container],
    }


def queue(facts: Facts) -> tuple[str, str]:
    """Return the namespace for pods, and the queue in it; no queue without task governance."""

    def ask() -> tuple[str, str]:
        for version in QUEUES:
            kind = objects.served(facts.access, version).get("LocalQueue")
            if kind:
                found = objects.every(facts.access, version, kind)
                places = [
                    (text(x, "metadata", "namespace"), text(x, "metadata", "name")) for x in found
                ]
                return min(places, default=("default", ""))
        return "default", ""

    return facts.snapshot.once("queue of the test", ask)


def wait_until(look: Callable[[float, bool], T | None], most: float, deadline: float) -> T:
    """Call ``look`` with the seconds waited and whether it is the last time, until it returns.

    Raises Unfinished at the deadline of the command.
    """
    began, number = time.monotonic(), 0
    while True:
        waited = time.monotonic() - began
        if time.monotonic() >= deadline:
            raise Unfinished("the test took longer than --timeout; what it created is removed")
        found = look(waited, waited >= most)
        if found is not None:
            return found
        time.sleep(PAUSES[min(number, len(PAUSES) - 1)])
        number += 1


def remove(facts: Facts) -> None:
    """Delete every job of a test of this cluster, also those of a run that was killed."""
    selector = f"{LABEL}={facts.name}"
    found = jobs.labelled(facts.access, selector)
    gather(*(partial(jobs.delete, facts.access, each) for each in found))
