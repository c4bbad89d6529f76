"""What a namespace holds, before it is deleted with everything in it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.kube.client import Access, Content, _ask, _list, _package, _words, part, text

MERGE = "application/merge-patch+json"
EMPTY = "it is empty"
_MOST = 8
"""As many names of one kind are shown."""
_JOBS = (
    "/apis/batch/v1/namespaces/{}/jobs",
    "/apis/kubeflow.org/v1/namespaces/{}/pytorchjobs",
    "/apis/kubeflow.org/v2beta1/namespaces/{}/mpijobs",
    "/apis/sagemaker.amazonaws.com/v1/namespaces/{}/hyperpodpytorchjobs",
    "/apis/ray.io/v1/namespaces/{}/rayclusters",
)


def contents(access: Access, namespace: str) -> str:
    """Return what users have put into a namespace: jobs, other pods and claims, in words.

    Raises KubeNotReady if a retry may succeed, HyperpodError for other failures.
    """
    with _words(access):
        jobs = [name for path in _JOBS for name in _names(access, path.format(namespace))]
        pods = len(list(_names(access, f"/api/v1/namespaces/{namespace}/pods")))
        claims = list(_names(access, f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"))
    found = [
        f"{word}{'s' * (len(names) > 1)} {', '.join(names[:_MOST])}"
        + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
        for word, names in (("job", jobs), ("claim", claims))
        if names
    ]
    if pods:
        found.append(f"{pods} pod{'s' * (pods > 1)}")
    return "; ".join(found) or EMPTY


def retain_volumes(access: Access, namespace: str) -> None:
    """Keep the volumes of a namespace's claims without the claims.  Raises as `contents`."""
    with _words(access):
        for each in _list(access._client, "/api/v1/persistentvolumes"):
            spec = part(each, "spec")
            mine = text(spec, "claimRef", "namespace") == namespace
            if mine and text(spec, "persistentVolumeReclaimPolicy") != "Retain":
                _retain(access, each)


def _retain(access: Access, volume: JsonMapping) -> None:
    name = text(volume, "metadata", "name")
    patch = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    content = Content(MERGE, json.dumps(patch).encode())
    try:
        _ask(access._client, f"/api/v1/persistentvolumes/{name}", "PATCH", content=content)
    except _package().ApiException as error:
        if error.status != 404:
            raise


def _names(access: Access, path: str) -> Iterator[str]:
    """Yield the names of a kind's objects; none if the kind is not served."""
    try:
        yield from (text(each, "metadata", "name") for each in _list(access._client, path))
    except _package().ApiException as error:
        if error.status != 404:
            raise
