"""Jobs of Kubernetes and their pods: create, list, logs, commands in them, delete."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlencode

from hyperpod_eks.aws import transport
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.kube.access import Access, _package
from hyperpod_eks.kube.client import JSON, Content, _ask, _list, _send, _words, text

if TYPE_CHECKING:
    from websocket import WebSocket

JOB, MPI_JOB = "batch/v1/jobs", "kubeflow.org/v2beta1/mpijobs"
"""Group, version and plural of the kinds."""
QUEUE = "kueue.x-k8s.io/queue-name"
"""The label of a job, and of its pods, that names its queue (Kueue documentation, "Run A Job")."""
LINES = 4000
"""Maximum lines of a log that are read."""
_STDOUT, _STDERR, _ERROR = 1, 2, 3


class Reference(NamedTuple):
    """A job: its kind as `JOB` or `MPI_JOB`, its namespace and its name."""

    kind: str
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """Its path in the API."""
        return f"/apis/{_within(self.kind, self.namespace)}/{quote(self.name)}"


def _within(kind: str, namespace: str) -> str:
    group, _, plural = kind.rpartition("/")
    return f"{group}/namespaces/{quote(namespace)}/{plural}"


def create(access: Access, kind: str, namespace: str, document: JsonMapping) -> Reference:
    """Create a job.  Raises KubeNotReady if a retry may succeed, HyperpodError for a refusal."""
    content = Content(JSON, json.dumps(document).encode())
    with _words(access):
        made = _ask(access, f"/apis/{_within(kind, namespace)}", "POST", content=content)
    return Reference(kind, namespace, text(made, "metadata", "name"))


def find(access: Access, job: Reference) -> JsonObject:
    """Return a job; {} if it does not exist.  Raises as `create`."""
    with _words(access):
        try:
            return _ask(access, job.path)
        except _package().ApiException as error:
            if error.status == 404:
                return {}
            raise


def labelled(access: Access, selector: str) -> list[Reference]:
    """List the jobs of all namespaces with a label, of the kinds that are served."""
    with _words(access):
        return [each for kind in (JOB, MPI_JOB) for each in _labelled(access, kind, selector)]


def _labelled(access: Access, kind: str, selector: str) -> Iterator[Reference]:
    try:
        for each in _list(access, f"/apis/{kind}", labelSelector=selector):
            about = text(each, "metadata", "namespace"), text(each, "metadata", "name")
            yield Reference(kind, *about)
    except _package().ApiException as error:
        if error.status != 404:  # nobody has defined it
            raise


def delete(access: Access, job: Reference) -> None:
    """Delete a job; the garbage collector deletes its pods.  It may be gone already."""
    content = Content(JSON, json.dumps({"propagationPolicy": "Background"}).encode())
    with _words(access):
        try:
            _ask(access, job.path, "DELETE", content=content)
        except _package().ApiException as error:
            if error.status != 404:
                raise


def pods(access: Access, selector: str, namespace: str = "") -> list[JsonMapping]:
    """List pods with a label, in a namespace or in all.  Raises as `create`."""
    within = f"/namespaces/{quote(namespace)}" if namespace else ""
    with _words(access):
        return list(_list(access, f"/api/v1{within}/pods", labelSelector=selector))


def events(access: Access, namespace: str, pod: str) -> list[str]:
    """Return the warnings about a pod, as kubelet and controllers word them, oldest first."""
    selector = f"involvedObject.name={pod},type=Warning"
    with _words(access):
        path = f"/api/v1/namespaces/{quote(namespace)}/events"
        found = list(_list(access, path, fieldSelector=selector))
    return [f"{text(each, 'reason')}: {text(each, 'message')}" for each in found]


def log(access: Access, namespace: str, pod: str) -> str:
    """Return the end of a pod's log, through the API server's connection to the kubelet."""
    path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/log"
    with _words(access):
        query = {"tailLines": str(LINES)}
        answer, found = _send(access, "GET", path, "*/*", query, None)
        if not 200 <= answer.status < 300:
            refusal = _package().ApiException(status=answer.status, reason=answer.reason)
            refusal.body = found
            raise refusal
    return found.decode(errors="replace")


def execute(access: Access, namespace: str, pod: str, command: list[str]) -> str:
    """Run a command in a pod, on a WebSocket as `kubectl exec` does; return its output.

    Raises HyperpodError if it cannot be run or fails (Kubernetes KEP-4006, channel protocol v4).
    """
    import websocket  # noqa: PLC0415  for this only

    asked = [("command", word) for word in command] + [("stdout", "true"), ("stderr", "true")]
    path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/exec?{urlencode(asked)}"
    context = ssl.create_default_context(cadata=access.authorities)
    try:
        connection = websocket.create_connection(
            access.endpoint.replace("https://", "wss://", 1) + path,
            timeout=transport.READ,
            header=[f"Authorization: Bearer {access.token()}"],
            subprotocols=["v4.channel.k8s.io"],
            sslopt={"context": context},
            **_proxy(access.endpoint),
        )
        try:
            return _output(connection)
        finally:
            connection.close()
    except (websocket.WebSocketException, OSError) as error:
        raise HyperpodError(f"exec in {namespace}/{pod}: {error}") from error


def _proxy(endpoint: str) -> JsonObject:
    """Return the proxy that the other requests use; the library would choose another."""
    found = transport.proxy_for(endpoint)
    if not found:
        return {"http_no_proxy": ["*"]}
    from urllib3.util import parse_url  # noqa: PLC0415

    at = parse_url(found.url)
    user, _, password = (at.auth or "").partition(":")
    return {
        "http_proxy_host": at.host,
        "http_proxy_port": at.port,
        "proxy_type": "http",
        **({"http_proxy_auth": (user, password)} if user else {}),
    }


def _output(connection: WebSocket) -> str:
    """Read what a command writes, until it ends."""
    found = b""
    while message := connection.recv():
        data = message if isinstance(message, bytes) else message.encode()
        channel, content = data[0], data[1:]
        if channel in (_STDOUT, _STDERR):
            found += content
        elif channel == _ERROR:
            status = json.loads(content or b"{}")
            if text(status, "status") != "Success":
                raise HyperpodError(text(status, "message") or "the command failed")
            break
    return found.decode(errors="replace")
