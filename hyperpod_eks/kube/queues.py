"""Kueue's queues: how much of its quota each uses and borrows, and what waits in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, TypedDict

from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.kube.access import Access, _package
from hyperpod_eks.kube.client import _ask, _list, _words, part, parts, text

GROUP = "/apis/kueue.x-k8s.io"
NEWEST = "v1beta2"
"""The version that is asked for first; Kueue before 0.15 has v1beta1 alone."""


class Share(TypedDict):
    """A resource of a quota, in quantities of Kubernetes."""

    instance_type: str
    resource: str
    quota: str
    used: Annotated[str, "by tasks that run; `borrowed` is a part of it"]
    borrowed: str


class Queue(TypedDict):
    """A ClusterQueue: what a team has and uses."""

    resources: list[Share]
    running: Annotated[int, "workloads that are admitted"]
    waiting: Annotated[int, "workloads that wait for quota"]
    problem: Annotated[str, "why nothing is admitted; empty if it is"]


def queues(access: Access) -> dict[str, Queue]:
    """Return the ClusterQueues by name.

    The members are the same in v1beta1 and v1beta2 (Kueue's API reference, ClusterQueueStatus).
    One request, and two more if the cluster does not serve the newest version.  Raises
    KubeNotReady if a retry may succeed, HyperpodError for other failures.
    """
    with _words(access):
        try:
            found = [*_list(access, f"{GROUP}/{NEWEST}/clusterqueues")]
        except _package().ApiException as error:
            if error.status != 404:
                raise
            found = _served(access)
    return {text(each, "metadata", "name"): _queue(each) for each in found}


def _served(access: Access) -> list[JsonMapping]:
    """List them in the version that the cluster prefers."""
    try:
        about = _ask(access, GROUP)
    except _package().ApiException as error:
        if error.status != 404:
            raise
        raise HyperpodError(
            f"Kubernetes API of {access.cluster}: Kueue is not installed",
            "It comes with the add-on amazon-sagemaker-hyperpod-taskgovernance.",
        ) from None
    version = text(about, "preferredVersion", "version")
    return [*_list(access, f"{GROUP}/{version}/clusterqueues")]


def _queue(document: JsonMapping) -> Queue:
    spec, status = part(document, "spec"), part(document, "status")
    problems = [
        text(each, "message") or text(each, "reason") or "inactive"
        for each in parts(status, "conditions")
        if text(each, "type") == "Active" and text(each, "status") != "True"
    ]
    return {
        "resources": list(_shares(spec, status)),
        "running": _count(status, "admittedWorkloads"),
        "waiting": _count(status, "pendingWorkloads"),
        "problem": "; ".join(problems),
    }


def _shares(spec: JsonMapping, status: JsonMapping) -> Iterator[Share]:
    used = {
        (text(flavor, "name"), text(each, "name")): each
        for flavor in parts(status, "flavorsUsage")
        for each in parts(flavor, "resources")
    }
    for group in parts(spec, "resourceGroups"):
        for flavor in parts(group, "flavors"):
            for each in parts(flavor, "resources"):
                type_, resource = text(flavor, "name"), text(each, "name")
                use = used.get((type_, resource), {})
                yield {
                    "instance_type": type_,
                    "resource": resource,
                    "quota": str(each.get("nominalQuota") or 0),
                    "used": str(use.get("total") or 0),
                    "borrowed": str(use.get("borrowed") or 0),
                }


def _count(status: JsonMapping, member: str) -> int:
    found = status.get(member)
    return found if isinstance(found, int) else 0
