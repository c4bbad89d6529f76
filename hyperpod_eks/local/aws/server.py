"""The AWS endpoint: moto's WSGI application behind one lock, with faults and a call log."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qs, unquote, unquote_plus
from xml.sax.saxutils import escape

from botocore.exceptions import ClientError, DataNotFoundError
from flask import Response
from moto.core.request import Request
from moto.core.routing import get_service_router
from moto.core.utils import get_service_model
from moto.moto_server.werkzeug_app import (
    BackendRequest,
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.exceptions import HTTPException
from werkzeug.serving import make_server

from hyperpod_eks.local.aws import guard, pricing
from hyperpod_eks.local.aws.plugin import OPERATIONS
from hyperpod_eks.local.aws.sim import Call, Fault, Sim, is_read

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

#: Seconds that a client may take for its next word: a connection that is left open is closed.
IDLE = 60.0

#: Bytes of a request; S3 takes no more in one PUT.
LARGEST = 5 << 30

#: Characters of a request that the call log keeps, and calls that it keeps.
LONGEST, MOST = 16_384, 10_000
LARGE = 10 << 20
"""Bytes of a body from which on its memory is given back at once."""

#: Services whose name in a signature is not their name in boto3.
_SIGNED_AS = {
    "aps": "amp",
    "elasticfilesystem": "efs",
    "servicequotas": "service-quotas",
    "elasticloadbalancing": "elbv2",
}
#: What answers a JSON request (operation, body) to a service that moto does not have.
_WITHOUT_MOTO = {"pricing": pricing.answer}
#: The API version of classic load balancers, which sign as those after them do.
_CLASSIC = "2012-06-01"

_XML_ERRORS = {
    "ec2": "<Response><Errors><Error>{error}</Error></Errors>"
    "<RequestID>local</RequestID></Response>",
    "query": "<ErrorResponse><Error><Type>Sender</Type>{error}</Error>"
    "<RequestId>local</RequestId></ErrorResponse>",
    "rest-xml": "<Error>{error}<RequestId>local</RequestId></Error>",
}


class Aws:
    """The WSGI application: every call is logged, may go wrong as ordered, and is moto's then."""

    def __init__(self, sim: Sim) -> None:
        self._sim = sim
        self._moto: WSGIApplication = _Dispatcher(_create_app)
        self._simulated: dict[Hashable, _Answer] = {}

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request of an AWS client (PEP 3333)."""
        sim = self._sim
        service, operation, dry = identify(environ)

        mutating = not (dry or is_read(operation))
        request = _text(environ) if mutating else ""

        def record(status: int) -> None:
            now = sim.clock.elapsed()
            sim.calls.append(Call(service, operation, status, mutating, now, request))
            if len(sim.calls) > MOST:
                del sim.calls[: MOST // 10]

        with sim.clock.lock:
            fault = sim.fault(service, operation)
        if fault is not None and fault.kind == "delay":
            time.sleep(fault.seconds)
        if fault is not None and fault.kind == "reset":
            record(0)
            _hang_up(environ)
        if (fault is None or fault.kind != "error") and sim.enforce:
            with sim.clock.lock:
                fault = guard.refusal(environ, service, operation) or fault
        if fault is not None and fault.kind == "error":
            answer = error(environ, service, fault)
        else:
            simulates = operation == "SimulatePrincipalPolicy" and not sim.enforce
            with sim.clock.lock:
                answer = (self._simulate if simulates else self._forward)(
                    environ, service, operation
                )
            if sim.echo and answer.status == 200 and sim.echo.alters(service, operation):
                answer = answer.saying(sim.echo.altered(service, operation, answer.body))
        record(answer.status)
        _forget_body(environ)
        if fault is not None and fault.kind == "lost":
            _hang_up(environ)
        start(answer.reason, answer.headers)
        return [answer.body]

    def _simulate(self, environ: WSGIEnvironment, service: str, operation: str) -> _Answer:
        """Answer as before what only depends on the request, which a create sends forty times.

        Policies are not evaluated then (`iam.Response.simulate_principal_policy`).
        """
        body = environ["wsgi.input"]
        if not isinstance(body, io.BytesIO):
            return self._forward(environ, service, operation)
        asked = environ["QUERY_STRING"], body.getvalue()
        about = asked, frozenset(self._sim.denied), frozenset(self._sim.apart)
        if (known := self._simulated.get(about)) is not None:
            return known.again()
        answer = self._forward(environ, service, operation)
        if answer.status == 200 and len(self._simulated) < MOST:
            self._simulated[about] = answer
        return answer

    def _forward(self, environ: WSGIEnvironment, service: str, operation: str) -> _Answer:
        begun: list[Any] = []

        def begin(status: str, headers: list[tuple[str, str]], exc: Any = None) -> Any:
            begun[:] = [status, headers]

        try:
            if own := _WITHOUT_MOTO.get(service):
                return _written(environ, service, own(operation, environ["wsgi.input"].read()))
            body = b"".join(self._moto(environ, begin))
        except (NotImplementedError, ModuleNotFoundError) as problem:  # or a package is missing
            # a status that clients do not retry: waiting would not help
            text = f"the embedded stack does not do {service}:{operation} ({problem})"
            return error(environ, service, Fault(service, "", "NotImplemented", 501, text))
        except Exception as problem:
            log.exception("%s:%s failed inside the embedded stack", service, operation)
            text = f"the embedded stack failed at {service}:{operation} ({problem!r})"
            return error(environ, service, Fault(service, "", "InternalFailure", 500, text))
        return _Answer(begun[0], begun[1], body)


def _written(environ: WSGIEnvironment, service: str, answer: bytes | Fault) -> _Answer:
    if isinstance(answer, Fault):
        return error(environ, service, answer)
    kind = ("Content-Type", "application/x-amz-json-1.1")
    length = ("Content-Length", str(len(answer)))
    return _Answer("200 OK", [kind, length, ("x-amzn-RequestId", str(uuid.uuid4()))], answer)


def _text(environ: WSGIEnvironment) -> str:
    """Return path and body of a request, not more than is kept; the body stays readable."""
    if environ.get("wsgi.input_terminated"):  # in chunks, as boto3 sends objects through TLS
        body = environ["wsgi.input"].read()
        environ["CONTENT_LENGTH"] = str(len(body))
        del environ["wsgi.input_terminated"], environ["HTTP_TRANSFER_ENCODING"]
    else:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return unquote_plus(f"{environ['PATH_INFO']}?{body[:LONGEST].decode(errors='replace')}")


def _forget_body(environ: WSGIEnvironment) -> None:
    """Free a request's body: its connection, which may be idle for long, keeps the environment."""
    environ.pop("werkzeug.request", None)
    if isinstance(body := environ["wsgi.input"], io.BytesIO):
        body.close()
    if int(environ.get("CONTENT_LENGTH") or 0) > LARGE:
        gc.collect()  # moto's objects hold it in circles, which may stay for long


def refusal(environ: WSGIEnvironment) -> str:
    """Return the status line for what no AWS client on this machine sends; empty for all else.

    A web page that the user has open may send requests here, but not without an Origin (Fetch
    Standard, "Origin header"); under a host name of its own it could read the answers, too (DNS
    rebinding).
    """
    host = environ.get("HTTP_HOST", "").rpartition("@")[2].lower()
    name = re.sub(r":[0-9]*$", "", host)
    if "HTTP_ORIGIN" in environ or not re.fullmatch(
        r"(127\.0\.0\.1|\[::1\]|(.+\.)?localhost|)", name
    ):
        return "403 Forbidden"
    length = environ.get("CONTENT_LENGTH") or "0"
    if not re.fullmatch("[0-9]{1,18}", length):
        return "400 Bad Request"
    return "413 Content Too Large" if int(length) > LARGEST else ""


class _Dispatcher(DomainDispatcherApplication):
    """moto's, which lists its own folder for every request, with a memory."""

    def __init__(self, create_app: Any) -> None:
        super().__init__(create_app)
        self._backends: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        """Return the name of the service that a host name stands for."""
        if host not in self._backends:
            self._backends[host] = super().get_backend_for_host(host)
        return self._backends[host]


def _create_app(service: Any) -> Any:
    if service is None:
        raise NotImplementedError("there is no such service here")
    app: Any = create_backend_app(service)
    if service == "moto_api":  # its pages are templates of Flask
        return app
    return _Service(app.url_map, {name: view.callback for name, view in app.view_functions.items()})


class _Service:
    """The WSGI application of a service: what answers each route of moto's.

    Flask is left out, whose contexts, sessions and signals moto's services do not use, and which
    took a tenth of the time of a request.  No page of another origin gets here (`refusal`).
    """

    def __init__(self, routes: Any, answers: dict[str, Callable[..., Any]]) -> None:
        self._routes, self._answers = routes, answers

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        try:
            name, _ = self._routes.bind_to_environ(environ).match()
            request = BackendRequest(environ)
            answer = self._answers[name](request, request.raw_url, dict(request.headers))
        except HTTPException as refused:  # moto's own errors are such exceptions
            return refused(environ, start)
        except ClientError as refused:
            answer = 400, {}, refused.response["Error"]["Message"]
        status, headers, content = answer if len(answer) == 3 else (200, {}, answer)
        response = Response(content, status, headers)
        if request.method == "HEAD" and "content-length" in headers:  # of what GET would answer
            response.headers["Content-Length"] = headers["content-length"]
        return response(environ, start)


class _Answer:
    def __init__(self, reason: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.reason, self.headers, self.body = reason, headers, body
        self.status = int(reason[:3])

    def saying(self, body: bytes) -> _Answer:
        """Return the same answer with another body."""
        others = [each for each in self.headers if each[0].lower() != "content-length"]
        return _Answer(self.reason, [*others, ("Content-Length", str(len(body)))], body)

    def again(self) -> _Answer:
        """Return the same answer with request ids of its own."""
        new = str(uuid.uuid4())
        headers = [
            (name, new if name.lower() == "x-amzn-requestid" else value)
            for name, value in self.headers
        ]
        found = re.sub(b"(?<=<RequestId>)[^<]*", new.encode(), self.body)
        return _Answer(self.reason, headers, found)


def identify(environ: WSGIEnvironment) -> tuple[str, str, bool]:
    """Return the request's service (boto3's name), operation, and whether it is an EC2 dry run.

    An unknown service or operation is an empty string. The request body stays readable.
    """
    authorization = environ.get("HTTP_AUTHORIZATION", "") or unquote(environ["QUERY_STRING"])
    scope = re.search(r"Credential=[^/]+/\d+/[^/]*/([^/]+)/", authorization)
    service = _SIGNED_AS.get(scope[1], scope[1]) if scope else ""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return service, target.split(".")[-1], False
    query = environ["QUERY_STRING"]
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        query = body.decode()
    form = parse_qs(query)
    if form.get("Version") == [_CLASSIC]:
        service = "elb"
    if "Action" in form:
        return service, form["Action"][0], form.get("DryRun") == ["true"]
    service = service or "s3"  # alone takes requests signed by version 2, by a form or not at all
    environ[OPERATIONS] = {}  # what is found for the copy is known for the request
    try:
        operation, _ = get_service_router(service).match(Request(dict(environ)))
    except (DataNotFoundError, HTTPException, LookupError, ValueError):
        return service, "", False
    return service, operation.name, False


def error(environ: WSGIEnvironment, service: str, fault: Fault) -> _Answer:
    """Write an error as the service itself would, by its protocol in botocore's model."""
    try:
        protocol = str(get_service_model(service).protocol)
    except Exception:  # noqa: BLE001  whatever botocore says of a service that does not exist
        protocol = "json"
    headers = [("x-amzn-RequestId", "local")]
    if protocol in _XML_ERRORS:
        inner = f"<Code>{escape(fault.code)}</Code><Message>{escape(fault.message)}</Message>"
        text = _XML_ERRORS[protocol].format(error=inner)
        headers.append(("Content-Type", "text/xml"))
    else:
        text = json.dumps({"__type": fault.code, "message": fault.message})
        headers.append(("Content-Type", f"application/x-amz-{protocol}-1.1"))
        headers.append(("x-amzn-ErrorType", fault.code))
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else text.encode()
    headers.append(("Content-Length", str(len(body))))
    return _Answer(f"{fault.status} Error", headers, body)


def _hang_up(environ: WSGIEnvironment) -> NoReturn:
    """Close the connection without an answer; werkzeug takes the exception as a lost client."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


class _Handler(MotoRequestHandler):
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"
    timeout = IDLE

    def log(self, *_: Any) -> None:
        """Stay silent: the call log says it all."""

    def setup(self) -> None:
        """Begin a connection, which the server's end closes too."""
        super().setup()
        self.server.connections.add(self.connection)  # type: ignore[attr-defined]

    def finish(self) -> None:
        """End a connection."""
        self.server.connections.discard(self.connection)  # type: ignore[attr-defined]
        super().finish()

    def run_wsgi(self) -> None:
        """Answer a request and wait for the next on this connection, as AWS's endpoints do.

        werkzeug closes it each time, since it does not know what of a body was read.  Here bodies
        are read first; those that are large, do not come or come in chunks that nobody reads close
        it too.
        """
        environ: Any = self.make_environ()
        length = environ.get("CONTENT_LENGTH") or "0"
        chunked = "wsgi.input_terminated" in environ
        known = re.fullmatch("[0-9]{1,7}", length) and not chunked
        try:
            if known:
                environ["wsgi.input"] = io.BytesIO(self.rfile.read(int(length)))
        except TimeoutError:  # the application's next try says so
            known = None
        begun: list[Any] = []

        def begin(status: str, headers: list[tuple[str, str]], exc: Any = None) -> Any:
            begun[:] = [status, headers]

        try:
            content = b"".join(self.server.app(environ, begin))
            read = chunked and "wsgi.input_terminated" not in environ
            self.close_connection |= not (known or read)
            status, reason = begun[0].split(" ", 1)
            self.send_response(int(status), reason)
            names = {name.lower() for name, _ in begun[1]}
            for name, value in begun[1]:
                self.send_header(name, value)
            if "content-length" not in names and status not in ("204", "304"):
                self.send_header("Content-Length", str(len(content)))
            if self.close_connection and "connection" not in names:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:  # the client is gone, or a fault that was asked for
            self.close_connection = True


class Server:
    """A WSGI application on a loopback port, served by a thread per connection.

    Port 0 takes a free one; OSError when the port is taken.
    """

    def __init__(self, app: WSGIApplication, port: int = 0) -> None:
        # bound here, because werkzeug exits the process when it cannot bind
        with socket.create_server(("127.0.0.1", port)) as bound:
            self._httpd = make_server(
                "127.0.0.1",
                bound.getsockname()[1],
                app,
                threaded=True,
                request_handler=_Handler,
                fd=bound.fileno(),
            )
        self._httpd.connections = set()  # type: ignore[attr-defined]  # ours, for `stop`
        self.url = f"http://127.0.0.1:{self._httpd.port}"
        self._thread = threading.Thread(
            target=self._httpd.serve_forever, args=(0.05,), daemon=True, name="local-aws"
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port and its connections, and wait for the listening thread."""
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()
        for connection in list(self._httpd.connections):  # type: ignore[attr-defined]
            with contextlib.suppress(OSError):  # it has just ended
                connection.shutdown(socket.SHUT_RDWR)
