"""Requests of this process to the embedded stack without a socket.

A quarter of the time of commands and tests went into HTTP between two threads of one process.
Real processes use HTTP, as do tests with the fixture `over_http`.
"""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from botocore.auth import SIGV4_TIMESTAMP, S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import get_current_datetime
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session
from urllib3 import HTTPResponse
from werkzeug.http import http_date

from hyperpod_eks.local.stack import Stack


class _Socket:
    """The server's end of a connection that does not exist; a fault may close it."""

    def shutdown(self, _how: int) -> None: ...


_send = URLLib3Session.send
_sign = SigV4Auth.add_auth


def shorten(stack: Stack, patch: pytest.MonkeyPatch) -> None:
    """Call the stack's WSGI application where a request would go to its port.

    A request goes through HTTP if a proxy or a fault is between, and if it is chunked.
    """

    def short(self: Any, request: AWSPreparedRequest) -> AWSResponse:
        url, headers = request.url, request.headers
        if (
            stack.faults
            or not url.startswith(f"{stack.endpoint}/")
            or self._proxy_config.proxy_url_for(url)
            or self._chunked(headers)
            or any("_" in name for name in headers)
        ):
            return _send(self, request)
        answer = answered(stack._server._httpd.app, request)
        if not request.stream_output:
            _ = answer.content
        return answer

    patch.setattr(URLLib3Session, "send", short)
    patch.setattr(SigV4Auth, "add_auth", signed)


def lengthen(patch: pytest.MonkeyPatch) -> None:
    """Undo `shorten`: send signed requests to the stack's port."""
    patch.setattr(URLLib3Session, "send", _send)
    patch.setattr(SigV4Auth, "add_auth", _sign)


def answered(app: Any, request: AWSPreparedRequest) -> AWSResponse:
    """Let a WSGI application answer a request.  Raises ConnectionClosedError."""
    begun: list[Any] = []
    try:
        content = b"".join(app(_environ(request), lambda *them: begun.extend(them)))
    except ConnectionError as error:
        raise ConnectionClosedError(
            error=error, request=request, endpoint_url=request.url
        ) from error
    status, described = begun[:2]
    raw = HTTPResponse(
        body=io.BytesIO(content),
        headers={"Date": http_date(), **_whole(described, status, content)},
        status=int(status[:3]),
        preload_content=False,
        decode_content=False,
        request_method=request.method,
    )
    return AWSResponse(request.url, raw.status, raw.headers, raw)  # type: ignore[arg-type]  # as botocore does


def signed(self: Any, request: Any) -> None:
    """Name the credentials as signature version 4 does; the stack checks no signature."""
    if self.credentials is None or type(self) not in (SigV4Auth, S3SigV4Auth):
        _sign(self, request)  # that of a token or URL is part of an address
        return
    request.context["timestamp"] = get_current_datetime().strftime(SIGV4_TIMESTAMP)
    self._modify_request_before_signing(request)
    scope = f"AWS4-HMAC-SHA256 Credential={self.scope(request)}"
    request.headers["Authorization"] = f"{scope}, SignedHeaders=host, Signature={'0' * 64}"


def _whole(headers: list[tuple[str, str]], status: str, content: bytes) -> dict[str, str]:
    """Return an answer's headers with its length, as the server adds it."""
    known = status[:3] in {"204", "304"} or any(n.lower() == "content-length" for n, _ in headers)
    return dict(headers) if known else {**dict(headers), "Content-Length": str(len(content))}


def _environ(request: AWSPreparedRequest) -> dict[str, Any]:
    """Return what werkzeug's server makes of a request (PEP 3333)."""
    parts = urlsplit(request.url)
    body: Any = request.body or b""
    if hasattr(body, "read"):
        body = body.read()
    elif isinstance(body, str):
        body = body.encode()
    target = f"{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}"
    environ: dict[str, Any] = {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "werkzeug.socket": _Socket(),
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "SERVER_NAME": parts.hostname or "",
        "SERVER_PORT": str(parts.port),
        "PATH_INFO": unquote(parts.path or "/").encode().decode("latin1"),
        "QUERY_STRING": parts.query,
        "REQUEST_URI": target,
        "RAW_URI": target,
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": parts.netloc,
    }
    values: Any = request.headers
    for name, value in values.items():
        key = name.upper().replace("-", "_")
        key = key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
        environ[key] = value.decode() if isinstance(value, bytes) else str(value)
    environ["CONTENT_LENGTH"] = str(len(body))
    return environ
