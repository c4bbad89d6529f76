"""EKS's own hand in a cluster: its add-on manager applies workloads through the Kubernetes API."""

from __future__ import annotations

import http.client
import json
import ssl
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from hyperpod_eks.local.aws.eks_data import Definition
from hyperpod_eks.local.aws.eks_model import Cluster
from hyperpod_eks.local.aws.sim import current
from hyperpod_eks.local.kubernetes import ADDON_MANAGER
from hyperpod_eks.local.kubernetes import Cluster as Endpoint

_DEFINITION = "CustomResourceDefinition"
_GROUPS = {
    _DEFINITION: "apis/apiextensions.k8s.io/v1",
    "Deployment": "apis/apps/v1",
    "DaemonSet": "apis/apps/v1",
    "Namespace": "api/v1",
}


def endpoint(cluster: Cluster) -> Endpoint | None:
    """Return the cluster's Kubernetes endpoint, if it is up."""
    return current().clusters.get(cluster.arn)


def apply_workload(
    cluster: Cluster,
    workload: tuple[str, str, str],
    image: str,
    *,
    manager: str,
    force: bool,
    tolerations: list[dict[str, Any]] | None = None,
) -> str:
    """Apply a workload of one container; returns the API server's refusal, empty when it is in.

    Args:
        cluster: an ACTIVE cluster.
        workload: kind (Deployment or DaemonSet), namespace and name.
        image: the container's image.
        manager: the field manager, whose fields conflict with those of others.
        force: whether to take over others' fields.
        tolerations: those of the pods.
    """
    kind, namespace, name = workload
    endpoint_ = endpoint(cluster)
    if endpoint_ is not None and not endpoint_.has("Namespace", namespace):
        _apply(cluster, "Namespace", "", namespace, {}, manager, force=True)
    labels = {"k8s-app": name, "app.kubernetes.io/managed-by": "EKS"}
    pod: dict[str, Any] = {"containers": [{"name": name, "image": image}]}
    if kind == "DaemonSet":
        pod["tolerations"] = [{"operator": "Exists"}]
    elif tolerations:
        pod["tolerations"] = tolerations
    spec = {
        "selector": {"matchLabels": {"k8s-app": name}},
        "template": {"metadata": {"labels": labels}, "spec": pod},
        **({"replicas": 2} if kind == "Deployment" else {}),
    }
    return _apply(cluster, kind, namespace, name, {"spec": spec}, manager, force=force)


def delete_workload(cluster: Cluster, workload: tuple[str, str, str]) -> None:
    """Delete a workload, if it is there."""
    _call(cluster, "DELETE", _path(*workload))


def define(cluster: Cluster, one: Definition) -> str:
    """Define a kind whose spec takes every field; returns the API server's refusal."""
    singular = one.kind.lower()
    spec = {"type": "object", "required": [*one.required]}
    shape = {
        "type": "object",
        "properties": {
            "spec": {**spec, "x-kubernetes-preserve-unknown-fields": True},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    version = {
        "name": one.version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": shape},
    }
    names = {"kind": one.kind, "plural": f"{singular}s", "singular": singular}
    about = {"group": one.group, "scope": "Namespaced", "names": names, "versions": [version]}
    name = f"{singular}s.{one.group}"
    return _apply(cluster, _DEFINITION, "", name, {"spec": about}, "eks", force=True)


def exists(cluster: Cluster, workload: str) -> bool:
    """Say whether a workload exists; ``workload`` is kind, namespace and name, with slashes."""
    kind, namespace, name = workload.split("/")
    kubernetes = endpoint(cluster)
    return kubernetes is not None and kubernetes.has(kind, name, namespace)


def is_healthy(cluster: Cluster, workload: tuple[str, str, str]) -> bool:
    """Say whether a workload has the replicas it wants; a DaemonSet wants none without nodes."""
    kind, namespace, name = workload
    kubernetes = endpoint(cluster)
    if kubernetes is None or kind != "Deployment":
        return True
    return kubernetes.deployment_ready(namespace, name)


def _apply(
    cluster: Cluster,
    kind: str,
    namespace: str,
    name: str,
    body: dict[str, Any],
    manager: str,
    *,
    force: bool,
) -> str:
    version = _GROUPS[kind].removeprefix("apis/").removeprefix("api/")
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    document = {"apiVersion": version, "kind": kind, "metadata": metadata, **body}
    query = f"?fieldManager={manager}&force={str(force).lower()}"
    status, answer = _call(cluster, "PATCH", _path(kind, namespace, name) + query, document)
    return "" if status < 400 else str(answer["message"])


def _path(kind: str, namespace: str, name: str) -> str:
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"/{_GROUPS[kind]}{within}/{kind.lower()}s/{name}"


def _call(
    cluster: Cluster, method: str, path: str, body: dict[str, Any] | None = None
) -> tuple[int, Any]:
    kubernetes = endpoint(cluster)
    if kubernetes is None:
        return 503, {"message": "the cluster is unreachable"}
    where = urlsplit(kubernetes.url)
    connection = http.client.HTTPSConnection(
        where.hostname or "", where.port, timeout=30, context=_trusting(kubernetes.ca_pem)
    )
    headers = {
        "Authorization": f"Bearer {cluster.manager_token}",
        "User-Agent": ADDON_MANAGER,
        "Content-Type": "application/apply-patch+yaml" if body else "application/json",
    }
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read() or b"{}")
    finally:
        connection.close()
    kubernetes.catch_up()
    return found


@lru_cache(1)
def _trusting(ca_pem: bytes) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca_pem.decode())
