"""Requests to a cluster's Kubernetes API, their answers, and reads of objects."""

from __future__ import annotations

import base64
import json
import logging
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from hyperpod_eks import __version__
from hyperpod_eks.aws import transport
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, KnownCause
from hyperpod_eks.kube.access import Access, _package

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

log = logging.getLogger(__name__)
SILENCE, READING = 10.0, 120.0
"""Seconds without an answer until a warning is logged; seconds to read an answer."""
LARGEST = 64 << 20
"""The largest answer in bytes."""
PAGE = 500
"""Objects per page of a list."""
TIMEOUT = (transport.CONNECT, transport.READ)
"""Seconds to connect, and to wait for the next bytes of an answer."""
LINEAGE = "hyperpod-eks/lineage"
"""The label of objects of ours, like the tag ``hyperpod-eks:lineage`` of AWS's resources."""
JSON = "application/json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


class Content(NamedTuple):
    """What a request sends."""

    type: str
    bytes: bytes


class KubeNotReady(HyperpodError):
    """The API server does not accept us yet, or is temporarily busy or unreachable."""

    transient = "PROPAGATION"
    hint = (
        "A new cluster or access entry takes a minute to work: run the same command again."
        " If it stays so, see who you are with `aws sts get-caller-identity`, and whether the"
        " cluster's endpoint and its access entries let you in."
    )


class NotServed(KubeNotReady):
    """The API server does not serve a kind yet, or its webhook does not answer: pods start late."""

    transient = "UNSERVED"
    hint = (
        "The kind, or a webhook that checks it, comes with an add-on or a chart, and works once its"
        " pods run: see `kubectl get pods -A`. Then run the same command again."
    )


@contextmanager
def _words(access: Access) -> Iterator[None]:
    """Convert errors to ours: KubeNotReady if a retry may succeed, else HyperpodError."""
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    where = f"Kubernetes API of {access.cluster}"
    try:
        yield
    except _package().ApiException as error:
        if error.status == 0:  # an SSLError in `_send`
            raise HyperpodError(
                f"{where}: the TLS certificate of {access.endpoint} could not be verified:"
                f" {error.reason}",
                "The cluster's CA did not sign it; a proxy may intercept the connection. Add the"
                " endpoint to NO_PROXY.",
            ) from error
        says = f"{where}: {error.status} {error.reason}: {_message(error.body)}"
        if error.status >= 500 and "failed calling webhook" in says:
            raise NotServed(says) from None
        if error.status in (401, 403, 410, 429) or error.status >= 500:
            ending = "because it is being terminated" in says  # a namespace, at a 403
            denied = error.status in (401, 403) and not ending
            cause = KnownCause("no-access-entry") if denied else None
            raise KubeNotReady(says, cause=cause) from None
        raise HyperpodError(says) from error
    except HTTPError as error:
        if final := transport.in_the_way(error, access.endpoint):
            raise final from None
        raise KubeNotReady(f"{where}: no answer from {access.endpoint}: {error}") from None


def _message(body: str | bytes | None) -> str:
    """Return the message of a Status document, or the beginning of any other body."""
    try:
        if message := text(json.loads(body or ""), "message"):
            return message
    except ValueError:
        pass
    return str(body or "no details")[:200]


def _ask(
    access: Access,
    path: str,
    method: str = "GET",
    accept: str = JSON,
    content: Content | None = None,
    **query: str,
) -> JsonObject:
    """Send a request over the REST client's connection, and parse the JSON ourselves.

    The client's generated classes (CoreV1Api) take 0.6 s and 50 MB to import, and its models 0.9 s
    (version 37) to 3 s (version 35) for 1000 nodes; json takes 0.3 s.
    """
    answer, found = _send(access, method, path, accept, query, content)
    if not 200 <= answer.status < 300:
        refusal = _package().ApiException(status=answer.status, reason=answer.reason)
        refusal.body = found
        raise refusal
    return _document(found, f"{method} {access.endpoint}{path}")


def _send(
    access: Access,
    method: str,
    path: str,
    accept: str,
    query: Mapping[str, str],
    content: Content | None,
) -> tuple[BaseHTTPResponse, bytes]:
    """Send a request; return the answer, which is read completely, and its content."""
    from urllib3 import Timeout  # noqa: PLC0415
    from urllib3.exceptions import SSLError  # noqa: PLC0415

    host = access.endpoint
    headers: dict[str, Any] = {
        "Accept": accept,
        "Authorization": access._configuration.get_api_key_with_prefix("authorization"),
        "User-Agent": f"hyperpod-eks/{__version__}",
    }
    if content:
        headers["Content-Type"] = content.type
    with _announced(host):
        try:
            answer = access._rest.pool_manager.request(
                *(method, host + path + ("?" + urlencode(query) if query else "")),
                body=content.bytes if content else None,
                headers=headers,
                timeout=Timeout(*TIMEOUT),
                preload_content=False,
            )
            return answer, _read(answer, host)
        except SSLError as error:
            if isinstance(error.args[0], ssl.SSLEOFError):  # hung up, as a cluster that is deleted
                raise
            raise _package().ApiException(status=0, reason=str(error)) from error


@contextmanager
def _announced(host: str) -> Iterator[None]:
    """Warn if an endpoint is silent, so that the tool does not seem to hang."""
    notice = threading.Timer(
        SILENCE, log.warning, ["%s has not answered for %.0f s; still trying", host, SILENCE]
    )
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()


def _document(content: bytes, what: str) -> JsonObject:
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise HyperpodError(
            f"{what}: the answer is not a JSON object: {content[:80]!r}",
            "A proxy may have answered instead of the cluster: add the endpoint to NO_PROXY.",
        )
    return document


def _read(answer: BaseHTTPResponse, host: str) -> bytes:
    """Read an answer within `LARGEST` and `READING`: urllib3's timeout restarts with each byte."""
    found, until = bytearray(), time.monotonic() + READING
    try:
        while part := answer.read1(2**16, decode_content=True):
            found += part
            if len(found) > LARGEST or time.monotonic() > until:
                raise KubeNotReady(
                    f"the answer from {host} does not end: {len(found)} bytes so far"
                )
    except BaseException:
        answer.close()
        raise
    answer.release_conn()
    return bytes(found)


def _list(access: Access, path: str, accept: str = JSON, **query: str) -> Iterator[JsonMapping]:
    """Yield the named items of a list, with one page at a time in memory."""
    while True:
        page = _ask(access, path, accept=accept, content=None, limit=str(PAGE), **query)
        yield from (each for each in parts(page, "items") if text(each, "metadata", "name"))
        if not (following := text(page, "metadata", "continue")):
            return
        query["continue"] = following


#
# Servers omit empty values (Go's omitempty), and write null for a list that was never filled (an
# empty PartialObjectMetadataList has `"items": null`) or a map that was emptied.  As in Kubernetes'
# own readers, a missing value, null and a value of another type are the same: empty.


def part(of: object, *path: str) -> JsonMapping:
    """Return the object at a path of member names; an empty one if there is none.

    >>> part({"metadata": {"labels": None}}, "metadata", "labels")
    {}
    """
    found = _at(of, path)
    return found if isinstance(found, Mapping) else {}


def parts(of: object, *path: str) -> list[JsonMapping]:
    """Return the objects of the list at a path.

    >>> parts({"items": None}, "items"), parts({"items": [None, {"kind": "Node"}]}, "items")
    ([], [{'kind': 'Node'}])
    """
    found = _at(of, path)
    return [e for e in found if isinstance(e, Mapping)] if isinstance(found, list) else []


def text(of: object, *path: str) -> str:
    """Return the string at a path; an empty one if there is none.

    >>> text({"metadata": {"name": "demo"}}, "metadata", "name"), text(None, "kind")
    ('demo', '')
    """
    found = _at(of, path)
    return found if isinstance(found, str) else ""


def _at(of: object, path: Iterable[str]) -> object:
    for name in path:
        of = of.get(name) if isinstance(of, Mapping) else None
    return of


def namespaces(access: Access) -> dict[str, str]:
    """Return the phase (Active, Terminating) of every namespace.  Raises as `list_nodes`."""
    with _words(access):
        return {
            text(each, "metadata", "name"): text(each, "status", "phase") or "Active"
            for each in _list(access, "/api/v1/namespaces")
        }


def secret_labels(access: Access, selector: str) -> list[JsonMapping]:
    """Return the metadata of matching Secrets in all namespaces, not their content."""
    with _words(access):
        found = _list(access, "/api/v1/secrets", accept=METADATA_ONLY, labelSelector=selector)
        return [part(each, "metadata") for each in found]


def secret(access: Access, name: str, namespace: str) -> dict[str, bytes] | None:
    """Return a Secret's data, decoded, without invalid base64; None if it does not exist."""
    with _words(access):
        try:
            found = _ask(access, f"/api/v1/namespaces/{namespace}/secrets/{name}")
        except _package().ApiException as error:
            if error.status == 404:
                return None
            raise
    content = {}
    for key in part(found, "data"):
        with suppress(ValueError):
            content[key] = base64.b64decode(text(found, "data", key))
    return content


def workloads(access: Access) -> set[tuple[str, str, str]]:
    """Return kind, namespace and name of every Deployment, DaemonSet and StatefulSet."""
    with _words(access):
        return {
            (kind, text(each, "metadata", "namespace"), text(each, "metadata", "name"))
            for kind in ("Deployment", "DaemonSet", "StatefulSet")
            for each in _list(access, f"/apis/apps/v1/{kind.lower()}s")
        }


def available(access: Access, deployments: Iterable[tuple[str, str]]) -> bool:
    """Whether Deployments (namespace, name) exist and are Available.  Raises as `list_nodes`.

    One whose newest generation the Deployment controller has not observed counts as not Available.
    """
    with _words(access):
        try:
            return all(
                _available(_ask(access, f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"))
                for namespace, name in deployments
            )
        except _package().ApiException as error:
            if error.status == 404:
                return False
            raise


def _available(document: JsonMapping) -> bool:
    status, newest = part(document, "status"), part(document, "metadata").get("generation")
    return status.get("observedGeneration") == newest and any(
        (text(each, "type"), text(each, "status")) == ("Available", "True")
        for each in parts(status, "conditions")
    )


def delete_leftover_cluster_roles(access: Access, names: Iterable[str]) -> list[str]:
    """Delete ClusterRoles of these names that no helm release owns; return the deleted names.

    The aggregation controller may write a role's rules just after helm has deleted the role, which
    re-creates it without helm's annotations; helm then refuses to install over it.
    """
    deleted = []
    with _words(access):
        for name in names:
            path = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}"
            try:
                found = _ask(access, path)
                owned = "meta.helm.sh/release-name" in part(found, "metadata", "annotations")
                if owned or text(found, "metadata", "name") != name:
                    continue
                _ask(access, path, "DELETE")
                deleted.append(name)
            except _package().ApiException as error:
                if error.status != 404:
                    raise
    return deleted
