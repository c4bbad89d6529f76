"""The only door to a cluster's Kubernetes API: access, nodes, and what helm leaves behind."""

from __future__ import annotations

import base64
import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hyperpod_eks.aws import transport
from hyperpod_eks.aws.session import new_client
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from types import ModuleType

    import boto3
    from botocore.awsrequest import AWSRequest
    from kubernetes.client import ApiClient, Configuration
    from urllib3 import BaseHTTPResponse

log = logging.getLogger(__name__)
TOKEN_LIFE = 600.0
"""Seconds that a token is used; EKS accepts it for 15 minutes."""
SILENCE, READING = 10.0, 120.0
"""Seconds without an answer after which the user is told; seconds to read one."""
LARGEST = 64 << 20
"""Bytes of an answer that are read."""
PAGE = 500
"""Objects asked for at once."""
TIMEOUT = (transport.CONNECT, transport.READ)
"""Seconds to connect, and to wait for an answer to go on."""
JSON = "application/json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


class KubeNotReady(HyperpodError):
    """The API server does not let us in yet, or is busy with something that time ends."""

    transient = True
    hint = (
        "A new cluster or access entry takes a minute to work: run the same command again."
        " If it stays so, see who you are with `aws sts get-caller-identity`, and whether the"
        " cluster's endpoint and its access entries let you in."
    )


def token(session: boto3.Session, cluster: str, region: str) -> str:
    """Return a bearer token for an EKS cluster, good for 15 minutes; no network call is made.

    It is a presigned ``sts:GetCallerIdentity`` with the cluster's name in a signed header, as
    `aws eks get-token` makes it.  ``AWS_ENDPOINT_URL`` and its kin choose the host.
    """
    header = "x-k8s-aws-id"

    def take(params: JsonObject, context: JsonObject, **_: object) -> None:
        context[header] = params.pop(header)

    def sign(request: AWSRequest, **_: object) -> None:
        request.headers[header] = request.context[header]

    sts = new_client(session, "sts", region)
    sts.meta.events.register("provide-client-params.sts.GetCallerIdentity", take)
    sts.meta.events.register("before-sign.sts.GetCallerIdentity", sign)
    url = sts.generate_presigned_url(
        "get_caller_identity", Params={header: cluster}, ExpiresIn=60, HttpMethod="GET"
    )
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


@frozen
class Access:
    """How to reach one cluster: ``eks:DescribeCluster``'s name, endpoint and CA (base64), and a
    function that makes a fresh token.

    >>> Access("demo", "https://example.invalid", "", lambda: "secret")
    Access(cluster='demo', endpoint='https://example.invalid')
    """

    cluster: str
    endpoint: str
    ca: str
    token: Callable[[], str]

    def __repr__(self) -> str:
        return f"Access(cluster={self.cluster!r}, endpoint={self.endpoint!r})"

    @cached_property
    def _client(self) -> ApiClient:
        """A `kubernetes` client that knows nothing of the user's kubeconfig."""
        package = _package()
        configuration = package.Configuration()
        configuration.host = self.endpoint
        proxy = transport.proxy_for(self.endpoint)  # the client's own idea of it is another
        configuration.proxy = proxy.url if proxy else None
        configuration.proxy_headers = dict(proxy.headers) if proxy else None
        configuration.no_proxy = None
        configuration.retries = False  # who asks again is the caller's decision
        expires = 0.0

        def refresh(of: Configuration) -> None:
            nonlocal expires
            if time.monotonic() > expires:
                of.api_key = {"authorization": f"Bearer {self.token()}"}
                expires = time.monotonic() + TOKEN_LIFE

        refresh(configuration)  # the hook is only asked where there is a key
        configuration.refresh_api_key_hook = refresh
        client: ApiClient = package.ApiClient(configuration)
        # the one spelling of "these bytes are the CA" that all supported versions share
        pool = client.rest_client.pool_manager.connection_pool_kw
        pool["ca_cert_data"] = base64.b64decode(self.ca).decode()
        return client


_LOADING = threading.Lock()


@cache
def _package() -> ModuleType:
    """Import `kubernetes.client` alone, in half the time.

    Its parents import configuration files, watches, streams, OAuth and YAML: 235 modules that
    nobody here asks for.  Empty modules take their place meanwhile; whoever imports them later
    gets the real ones.

    It loads its parts when they are asked for, which ends in a deadlock of import locks when two
    threads ask at the same time.
    """
    with _LOADING, _empty("kubernetes", "kubernetes.utils"):
        import kubernetes.client as package  # noqa: PLC0415

        for part in ("Configuration", "ApiClient", "ApiException"):
            getattr(package, part)
    return package


@contextmanager
def _empty(*names: str) -> Iterator[None]:
    """Have empty packages where these are not imported yet, and none of them afterwards."""
    added = []
    try:
        for name in names:
            if name not in sys.modules and (spec := find_spec(name)):
                sys.modules[name] = module_from_spec(spec)
                added.append(name)
        yield
    finally:
        for name in added:
            del sys.modules[name]


@contextmanager
def _words(access: Access) -> Iterator[None]:
    """Tell errors in our terms: what time may heal is KubeNotReady."""
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    where = f"Kubernetes API of {access.cluster}"
    try:
        yield
    except _package().ApiException as error:
        if error.status == 0:  # how the client spells an SSLError
            raise HyperpodError(
                f"{where}: the TLS certificate of {access.endpoint} could not be verified:"
                f" {error.reason}",
                "The cluster's CA did not sign it; a proxy may intercept the connection. Add the"
                " endpoint to NO_PROXY.",
            ) from error
        says = f"{where}: {error.status} {error.reason}: {_message(error.body)}"
        if error.status in (401, 403, 410, 429) or error.status >= 500:
            raise KubeNotReady(says) from None
        raise HyperpodError(says) from error
    except HTTPError as error:
        if final := transport.in_the_way(error, access.endpoint):
            raise final from None
        raise KubeNotReady(f"{where}: no answer from {access.endpoint}: {error}") from None


def _message(body: str | bytes | None) -> str:
    """Return the message of a Status document, or whatever came instead of one."""
    try:
        if message := text(json.loads(body or ""), "message"):
            return message
    except ValueError:
        pass
    return str(body or "no details")[:200]


def _ask(
    client: ApiClient, path: str, method: str = "GET", accept: str = JSON, **query: str
) -> JsonObject:
    """Ask over the client's connection, and read the JSON ourselves.

    Its generated classes (CoreV1Api) take 0.6 s and 50 MB to import, and its models 0.9 s
    (version 37) to 3 s (version 35) for 1000 nodes; json takes 0.3 s.
    """
    host = client.configuration.host
    answer, content = _send(client, method, path, accept, query)
    if not 200 <= answer.status < 300:
        refusal = _package().ApiException(status=answer.status, reason=answer.reason)
        refusal.body = content
        raise refusal
    return _document(content, f"{method} {host}{path}")


def _send(
    client: ApiClient, method: str, path: str, accept: str, query: Mapping[str, str]
) -> tuple[BaseHTTPResponse, bytes]:
    """Send a request; return what answers, which is read, and its content."""
    from urllib3 import Timeout  # noqa: PLC0415
    from urllib3.exceptions import SSLError  # noqa: PLC0415

    of = client.configuration
    headers = {
        **client.default_headers,
        "Accept": accept,
        "Authorization": of.get_api_key_with_prefix("authorization"),
    }
    with _announced(of.host):
        try:
            answer = client.rest_client.pool_manager.request(
                *(method, of.host + path),
                fields=query or None,
                headers=headers,
                timeout=Timeout(*TIMEOUT),
                preload_content=False,
            )
            return answer, _read(answer, of.host)
        except SSLError as error:
            raise _package().ApiException(status=0, reason=str(error)) from error


@contextmanager
def _announced(host: str) -> Iterator[None]:
    """Say that an endpoint is silent: without a word it would be taken for a tool that hangs."""
    told = threading.Timer(
        SILENCE, log.warning, ["%s has not answered for %.0f s; still trying", host, SILENCE]
    )
    told.daemon = True
    told.start()
    try:
        yield
    finally:
        told.cancel()


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
    """Read an answer up to a length and a time: a time-out begins anew with each byte."""
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


def _list(client: ApiClient, path: str, accept: str = JSON, **query: str) -> Iterator[JsonMapping]:
    """Every item of a list that has a name, page by page: one page at a time is in memory."""
    while True:
        page = _ask(client, path, accept=accept, limit=str(PAGE), **query)
        yield from (each for each in parts(page, "items") if text(each, "metadata", "name"))
        if not (following := text(page, "metadata", "continue")):
            return
        query["continue"] = following


#
# Servers leave out what is empty (Go's omitempty), and write null for a list that was never filled
# (an empty PartialObjectMetadataList has `"items": null`) or a map that somebody emptied.  Readers
# of Kubernetes treat all of them alike, so do these: nothing, as any other type is.


def part(of: object, *path: str) -> JsonMapping:
    """Return the object at a path of member names; an empty one where there is none.

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
    """Return the string at a path; an empty one where there is none.

    >>> text({"metadata": {"name": "demo"}}, "metadata", "name"), text(None, "kind")
    ('demo', '')
    """
    found = _at(of, path)
    return found if isinstance(found, str) else ""


def _at(of: object, path: Iterable[str]) -> object:
    for name in path:
        of = of.get(name) if isinstance(of, Mapping) else None
    return of


@contextmanager
def kubeconfig(access: Access) -> Iterator[Path]:
    """Lend a kubeconfig with a fresh token, in a folder that only we can read.

    Other files may be put beside it.  All of it is gone afterwards, also when the interpreter
    ends in the middle.
    """
    name, proxy = access.cluster, transport.proxy_for(access.endpoint)
    cluster = {"server": access.endpoint, "certificate-authority-data": access.ca}
    cluster |= {"proxy-url": proxy.url} if proxy else {}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": {"token": access.token()}}],
    }
    with tempfile.TemporaryDirectory(prefix="hyperpod-eks-") as folder:  # mode 0700
        path = Path(folder) / "kubeconfig"
        path.touch(0o600)
        path.write_text(json.dumps(document))  # JSON is YAML
        yield path


def namespaces(access: Access) -> dict[str, str]:
    """Return the phase (Active, Terminating) of every namespace.  Raises as `nodes`."""
    with _words(access):
        return {
            text(each, "metadata", "name"): text(each, "status", "phase") or "Active"
            for each in _list(access._client, "/api/v1/namespaces")
        }


def secret_labels(access: Access, selector: str) -> list[JsonMapping]:
    """Return the metadata of matching Secrets in all namespaces, not their content."""
    with _words(access):
        found = _list(
            access._client, "/api/v1/secrets", accept=METADATA_ONLY, labelSelector=selector
        )
        return [part(each, "metadata") for each in found]


def secret(access: Access, name: str, namespace: str) -> dict[str, bytes] | None:
    """Read a Secret; None if it is gone.  What is no base64 is left out."""
    with _words(access):
        try:
            found = _ask(access._client, f"/api/v1/namespaces/{namespace}/secrets/{name}")
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
            for each in _list(access._client, f"/apis/apps/v1/{kind.lower()}s")
        }


def available(access: Access, deployments: Iterable[tuple[str, str]]) -> bool:
    """Whether Deployments, each by namespace and name, exist and are Available.  Raises as `nodes`.

    One whose newest specification the Deployment controller has not looked at yet is not.
    """
    with _words(access):
        try:
            return all(
                _available(
                    _ask(access._client, f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
                )
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
    """Delete those of these ClusterRoles that no helm release owns; return what was deleted.

    The aggregation controller can write a role's rules just after helm has deleted the role, and
    thereby makes it again without helm's marks; helm then refuses to install over it.
    """
    deleted = []
    with _words(access):
        for name in names:
            path = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}"
            try:
                found = _ask(access._client, path)
                owned = "meta.helm.sh/release-name" in part(found, "metadata", "annotations")
                if owned or text(found, "metadata", "name") != name:
                    continue
                _ask(access._client, path, "DELETE")
                deleted.append(name)
            except _package().ApiException as error:
                if error.status != 404:
                    raise
    return deleted
