"""Servers that answer in place of AWS: a proxy's page, a sign-in, a cut connection, an attacker."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

ESCAPES = b"\x1b[31mblocked by proxy\x1b]0;title\x07\xc2\x9b2J"
OK = b"HTTP/1.1 200 OK\r\n"


def said(body: bytes, kind: str = "text/xml", status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def who(arn: str) -> bytes:
    result = f"<GetCallerIdentityResult><Arn>{arn}</Arn></GetCallerIdentityResult>"
    return f"<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>".encode()


LAUGHS = b"".join(b'<!ENTITY %c "%s">' % (98 + n, (b"&%c;" % (97 + n)) * 10) for n in range(7))
"""Entities of XML that expand to 10^9 characters."""

ANSWERS: dict[str, bytes] = {
    "garbage": bytes(range(256)) * 12,
    "closed": b"",
    "redirect": said(b"", status="302 Found", more="Location: http://127.0.0.1:1/x\r\n"),
    "redirected in a circle": said(b"", status="301 Moved", more="Location: /again\r\n"),
    "a page": said(b"<html><body>Sign in to HotelWifi</body></html>", "text/html"),
    "a refusal": said(b"<html>" + ESCAPES + b"</html>", "text/html", "403 Forbidden"),
    "half of JSON": said(b'{"a":', "application/x-amz-json-1.1"),
    "empty JSON": said(b"{}", "application/json"),
    "empty XML": said(b"<a/>"),
    "nothing": said(b""),
    "laughs": said(b'<!DOCTYPE x [<!ENTITY a "a">' + LAUGHS + b"]>" + who("&h;")),
    "an error": said(b"", status="500 X"),
    "cut": OK + b"Content-Type: text/xml\r\nContent-Length: 1000\r\n\r\n<a>",
    "thousands of headers": OK + b"".join(b"X-%d: y\r\n" % n for n in range(3000)) + b"\r\n",
    "packed": said(gzip.compress(bytes(3 << 20)), more="Content-Encoding: gzip\r\n"),
    "no ARN": said(who("nonsense")),
    "an ARN with escapes": said(who("arn:aws:iam::1:\x1b")),
    "escapes": said(
        b"<ErrorResponse><Error><Code>Access\xc2\x9bDenied</Code><Message>" + ESCAPES[5:16]
        + b"&#xd800;</Message></Error></ErrorResponse>", status="400 Bad Request",
    ),
}  # fmt: skip


def never(_: socket.socket) -> None:
    threading.Event().wait(30)


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def endless(peer: socket.socket) -> None:
    peer.sendall(OK + b"Content-Type: text/xml\r\n\r\n")
    while True:
        peer.sendall(b" " * 65536)


def dripping(peer: socket.socket) -> None:
    peer.sendall(OK + b"Content-Type: text/xml\r\nContent-Length: 100000\r\n\r\n")
    while True:
        peer.sendall(b"<")
        threading.Event().wait(0.05)


WAYS: dict[str, Callable[[socket.socket], None]] = {
    "silent": never,
    "reset": reset,
    "endless": endless,
    "dripping": dripping,
}
"""Connections that do anything but return an answer."""


@contextmanager
def server(
    answer: Callable[[socket.socket], None], heard: list[bytes] | None = None
) -> Iterator[str]:
    """Run a server on loopback that answers every request this way; yield its URL.

    ``heard`` gets all requests.
    """
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)

    def serve(peer: socket.socket) -> None:
        with suppress(OSError, ValueError), peer:
            request = _request(peer)
            if heard is not None:
                heard.append(request)
            answer(peer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                peer, _ = listening.accept()
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def sending(content: bytes) -> Callable[[socket.socket], None]:
    """Return a function that sends these bytes and closes the connection."""

    def send(peer: socket.socket) -> None:
        peer.sendall(content)

    return send


def _request(peer: socket.socket) -> bytes:
    """Read a request to its end: closing the connection earlier causes another error."""
    got = b""
    while b"\r\n\r\n" not in got:
        part = peer.recv(65536)
        if not part:
            return got
        got += part
    head, _, body = got.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(lengths[0].split(b":")[1]) if lengths else 0
    while len(body) < length:
        body += peer.recv(65536)
    return head + b"\r\n\r\n" + body
