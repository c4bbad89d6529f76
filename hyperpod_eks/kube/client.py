"""The only access to a cluster's Kubernetes API: requests, answers, and reads of objects."""

from __future__ import annotations

import base64
import json
import logging
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import field
from functools import cache, cached_property
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from hyperpod_eks.aws import transport
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, KnownCause
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from types import ModuleType

    from botocore.awsrequest import AWSRequest
    from kubernetes.client import ApiClient, Configuration
    from mypy_boto3_sts import STSClient
    from urllib3 import BaseHTTPResponse, PoolManager

log = logging.getLogger(__name__)
TOKEN_LIFE = 600.0
"""Seconds for which a token is used; EKS accepts it for 15 minutes."""
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


def token(sts: STSClient, cluster: str) -> str:
    """Return a bearer token for an EKS cluster, valid for 15 minutes, without a network call.

    It is a presigned ``sts:GetCallerIdentity`` with the cluster's name in a signed header, as
    in `aws eks get-token`.  ``AWS_ENDPOINT_URL`` and ``AWS_ENDPOINT_URL_STS`` set the host.
    """
    header = "x-k8s-aws-id"

    def take(params: JsonObject, context: JsonObject, **_: object) -> None:
        if header in params:
            context[header] = params.pop(header)

    def sign(request: AWSRequest, **_: object) -> None:
        if header in request.context:
            request.headers[header] = request.context[header]

    events = sts.meta.events
    events.register("provide-client-params.sts.GetCallerIdentity", take, unique_id="cluster")
    events.register("before-sign.sts.GetCallerIdentity", sign, unique_id="header")
    named: Any = {header: cluster}  # not a parameter of the operation
    url = sts.generate_presigned_url(
        "get_caller_identity", Params=named, ExpiresIn=60, HttpMethod="GET"
    )
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


@frozen
class Access:
    """Access to one cluster: name, endpoint and CA (base64) of ``eks:DescribeCluster``, a function
    that returns a new token, and a bundle of further authorities.

    >>> Access("demo", "https://example.invalid", "", lambda: "secret")
    Access(cluster='demo', endpoint='https://example.invalid')
    """

    cluster: str
    endpoint: str
    ca: str
    token: Callable[[], str]
    bundle: str | None = None
    alone: threading.Event = field(default_factory=threading.Event, compare=False)
    """Set if the CA alone has verified the endpoint's certificate (see `_try_alone`)."""

    def __repr__(self) -> str:
        return f"Access(cluster={self.cluster!r}, endpoint={self.endpoint!r})"

    @property
    def authorities(self) -> str:
        """The CA and the bundle, as PEM."""
        return f"{self._own}\n{transport.certificates(self.bundle)}"

    @property
    def needed_authorities(self) -> str:
        """The CA, and the bundle unless the CA was enough, as PEM."""
        return self._own if self.alone.is_set() else self.authorities

    @property
    def _own(self) -> str:
        return base64.b64decode(self.ca).decode()

    @cached_property
    def _client(self) -> ApiClient:
        """A `kubernetes` client, independent of the user's kubeconfig."""
        package = _package()
        configuration = package.Configuration()
        configuration.host = self.endpoint
        proxy = transport.proxy_for(self.endpoint)  # the client would choose another
        configuration.proxy = proxy.url if proxy else None
        configuration.proxy_headers = dict(proxy.headers) if proxy else None
        configuration.no_proxy = None
        configuration.retries = False  # callers decide about retries
        expires = 0.0

        def refresh(of: Configuration) -> None:
            nonlocal expires
            if time.monotonic() > expires:
                of.api_key = {"authorization": f"Bearer {self.token()}"}
                expires = time.monotonic() + TOKEN_LIFE

        refresh(configuration)  # the hook is called only if a key exists
        configuration.refresh_api_key_hook = refresh
        client: ApiClient = package.ApiClient(configuration)
        manager = client.rest_client.pool_manager
        if self.bundle and not (proxy and proxy.url.startswith("https:")):
            _try_alone(manager, self)
            return client
        # the only way to pass the CA as bytes that all supported versions share
        pool = manager.connection_pool_kw
        context = transport.trusting(self.bundle, self._own)
        pool["ssl_context"] = context
        if proxy:
            pool["_proxy_config"] = pool["_proxy_config"]._replace(ssl_context=context)
        return client


def _try_alone(manager: PoolManager, access: Access) -> None:
    """Let connections trust the cluster's CA alone, and the bundle too once that does not verify.

    The cluster's CA signs the endpoint's certificate (Amazon EKS API reference, "Cluster",
    certificateAuthority), so the bundle is needed only where a proxy intercepts TLS.  `kubeconfig`
    gives helm what was needed (Kubernetes' reference, "kubeconfig (v1)",
    certificate-authority-data), as helm parses it a dozen times: 0.2 s for all public authorities.
    If a proxy begins to intercept after our last connection, helm refuses its certificate.

    Not for a proxy that speaks TLS itself, whose certificate Go verifies with the same authorities.
    """
    from urllib3.exceptions import SSLError  # noqa: PLC0415

    options, send, lock = manager.connection_pool_kw, manager.request, threading.Lock()
    alone = options["ssl_context"] = transport.trusting(None, access._own)

    def request(*what: Any, **how: Any) -> BaseHTTPResponse:
        if options["ssl_context"] is not alone:
            return send(*what, **how)
        try:
            answer = send(*what, **how)
        except SSLError as error:
            if not isinstance(error.args[0], ssl.SSLCertVerificationError):
                raise
        else:
            with lock:
                if options["ssl_context"] is alone:
                    access.alone.set()
            return answer
        # nothing was sent; connections with another context are others
        both = transport.trusting(access.bundle, access._own)
        with lock:
            options["ssl_context"] = both
            access.alone.clear()
        return send(*what, **how)

    vars(manager)["request"] = request


_LOADING = threading.Lock()


@cache
def _package() -> ModuleType:
    """Import `kubernetes.client` without its parent packages, in half the time.

    The parents import configuration files, watches, streams, OAuth and YAML: 235 unneeded modules.
    Empty modules replace them during the import; later imports get the real ones.

    The package loads its parts lazily, which deadlocks on import locks if two threads do so at the
    same time; hence the lock and the loop.
    """
    with _LOADING, _empty("kubernetes", "kubernetes.utils"):
        import kubernetes.client as package  # noqa: PLC0415

        for part in ("Configuration", "ApiClient", "ApiException"):
            getattr(package, part)
    return package


def warm() -> None:
    """Import what the first request needs."""
    _package()


def import_whole() -> None:
    """Import the package with its parents, for a program that may import it at the same time."""
    with _LOADING:
        import kubernetes  # noqa: F401, PLC0415


@contextmanager
def _empty(*names: str) -> Iterator[None]:
    """Add empty packages for names that are not imported yet, and remove them afterwards."""
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
    client: ApiClient,
    path: str,
    method: str = "GET",
    accept: str = JSON,
    content: Content | None = None,
    **query: str,
) -> JsonObject:
    """Send a request over the client's connection, and parse the JSON ourselves.

    The client's generated classes (CoreV1Api) take 0.6 s and 50 MB to import, and its models 0.9 s
    (version 37) to 3 s (version 35) for 1000 nodes; json takes 0.3 s.
    """
    host = client.configuration.host
    answer, found = _send(client, method, path, accept, query, content)
    if not 200 <= answer.status < 300:
        refusal = _package().ApiException(status=answer.status, reason=answer.reason)
        refusal.body = found
        raise refusal
    return _document(found, f"{method} {host}{path}")


def _send(
    client: ApiClient,
    method: str,
    path: str,
    accept: str,
    query: Mapping[str, str],
    content: Content | None,
) -> tuple[BaseHTTPResponse, bytes]:
    """Send a request; return the answer, which is read completely, and its content."""
    from urllib3 import Timeout  # noqa: PLC0415
    from urllib3.exceptions import SSLError  # noqa: PLC0415

    of = client.configuration
    headers = {
        **client.default_headers,
        "Accept": accept,
        "Authorization": of.get_api_key_with_prefix("authorization"),
    }
    if content:
        headers["Content-Type"] = content.type
    with _announced(of.host):
        try:
            answer = client.rest_client.pool_manager.request(
                *(method, of.host + path + ("?" + urlencode(query) if query else "")),
                body=content.bytes if content else None,
                headers=headers,
                timeout=Timeout(*TIMEOUT),
                preload_content=False,
            )
            return answer, _read(answer, of.host)
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


def _list(client: ApiClient, path: str, accept: str = JSON, **query: str) -> Iterator[JsonMapping]:
    """Yield the named items of a list, with one page at a time in memory."""
    while True:
        page = _ask(client, path, accept=accept, content=None, limit=str(PAGE), **query)
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


@contextmanager
def kubeconfig(access: Access) -> Iterator[Path]:
    """Yield the path of a kubeconfig with a new token, in a folder that only we can read.

    Other files may be placed beside it.  The folder is deleted afterwards, also if the interpreter
    exits before.
    """
    name, proxy = access.cluster, transport.proxy_for(access.endpoint)
    authorities = base64.b64encode(access.needed_authorities.encode()).decode()
    cluster = {"server": access.endpoint, "certificate-authority-data": authorities}
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
    """Return the phase (Active, Terminating) of every namespace.  Raises as `list_nodes`."""
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
    """Return a Secret's data, decoded, without invalid base64; None if it does not exist."""
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
    """Whether Deployments (namespace, name) exist and are Available.  Raises as `list_nodes`.

    One whose newest generation the Deployment controller has not observed counts as not Available.
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
    """Delete ClusterRoles of these names that no helm release owns; return the deleted names.

    The aggregation controller may write a role's rules just after helm has deleted the role, which
    re-creates it without helm's annotations; helm then refuses to install over it.
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
