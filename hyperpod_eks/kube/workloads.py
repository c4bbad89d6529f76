"""Deployments, DaemonSets and StatefulSets with their replicas, and what their pods wait for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.kube.access import Access
from hyperpod_eks.kube.client import _list, _words, part, parts, text

PLURALS = ("deployments", "daemonsets", "statefulsets")


class Workload(NamedTuple):
    """A workload: the number of replicas that it wants, and of those that are Ready."""

    kind: str
    namespace: str
    name: str
    wanted: int
    ready: int
    selector: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


def workloads(access: Access, namespaces: Collection[str]) -> list[Workload]:
    """List the workloads in some namespaces.  Raises as `list_nodes`."""
    with _words(access):
        return [
            _workload(plural[:-1], each)
            for plural in PLURALS
            for each in _list(access, f"/apis/apps/v1/{plural}")
            if text(each, "metadata", "namespace") in namespaces
        ]


def _workload(kind: str, document: JsonMapping) -> Workload:
    status, about = part(document, "status"), part(document, "metadata")
    if kind == "daemonset":
        wanted, ready = status.get("desiredNumberScheduled"), status.get("numberReady")
    else:
        replicas = part(document, "spec").get("replicas")
        wanted, ready = 1 if replicas is None else replicas, status.get("readyReplicas")
    labels = part(document, "spec", "selector", "matchLabels")
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    place = text(about, "namespace"), text(about, "name")
    return Workload(kind, *place, int(wanted or 0), int(ready or 0), selector)


def troubles(access: Access, of: Workload) -> list[str]:
    """Return why pods of a workload are not Ready, each reason once.  Raises as `list_nodes`."""
    with _words(access):
        path = f"/api/v1/namespaces/{of.namespace}/pods"
        found = list(_list(access, path, labelSelector=of.selector))
    return list(dict.fromkeys(why for each in found for why in reasons(each)))


def reasons(pod: JsonMapping) -> Iterator[str]:
    """Yield why a pod does not run or is not Ready, as the scheduler and the kubelet say it."""
    for each in parts(pod, "status", "conditions"):
        if text(each, "type") == "PodScheduled" and text(each, "status") == "False":
            yield _said(each)
    for each in (
        *parts(pod, "status", "initContainerStatuses"),
        *parts(pod, "status", "containerStatuses"),
    ):
        waiting, last = part(each, "state", "waiting"), part(each, "lastState", "terminated")
        if text(waiting, "reason") not in ("", "ContainerCreating", "PodInitializing"):
            ended = f" (exit code {last['exitCode']})" if last.get("exitCode") else ""
            yield _said(waiting) + ended


def _said(of: JsonMapping) -> str:
    return ": ".join(filter(None, (text(of, "reason"), text(of, "message"))))
