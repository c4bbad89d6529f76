"""HTTPS on the loopback interface: connections, bodies and streams."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from . import websocket
from .api import Answer, Api, Request
from .errors import ApiError

logger = logging.getLogger(__name__)
IDLE = 60.0  # seconds that a client may take for its next word
LARGEST = 64 << 20  # bytes of a request; etcd refuses far less
_PATIENCE = 1.0  # seconds that `stop` gives to connections


class Server(ThreadingHTTPServer):
    """Serves an API from its construction until `stop`: a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, api: Api, context: ssl.SSLContext, host: str) -> None:
        self.api = api
        self._context = context
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._guard = threading.Lock()
        super().__init__((host, 0), _Handler)
        self.url = f"https://{host}:{self.server_port}"
        self._acceptor = threading.Thread(
            target=self.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="kube-apiserver",
            daemon=True,
        )
        self._acceptor.start()

    def stop(self) -> None:
        """Accept nothing more, cut every connection and wait until their threads have ended.

        A thread that is stuck in somebody else's lock is waited for a second, no longer.
        """
        self.shutdown()
        self._acceptor.join()
        self.server_close()
        with self._guard:
            connections = dict(self._connections)
        for connection in connections.values():
            with contextlib.suppress(OSError):  # not the SSL socket's own, which drops its state
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        deadline = time.monotonic() + _PATIENCE
        for thread in connections:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Its own thread shakes hands, so that nobody waits for a slow one."""
        connection, address = super().get_request()
        wrapped = self._context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )
        return wrapped, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread of a connection, and remember both for `stop`."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        with self._guard:
            self._connections[thread] = request
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._guard:
                del self._connections[threading.current_thread()]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go at any time; only our own mistakes are worth a word."""
        if not isinstance(sys.exception(), OSError):
            logger.exception("connection from %s", client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    request: ssl.SSLSocket
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536
    timeout = IDLE

    def setup(self) -> None:
        self.request.settimeout(self.timeout)
        self.request.do_handshake()
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def _serve(self) -> None:
        if "Transfer-Encoding" in self.headers:  # no client that we know sends chunks
            self.send_error(411)
            self.close_connection = True
            return
        length = self.headers.get("Content-Length") or "0"
        if not re.fullmatch("[0-9]{1,18}", length) or int(length) > LARGEST:
            self.send_error(413 if length.isdigit() else 400)
            self.close_connection = True
            return
        body = self.rfile.read(int(length))
        request = Request(self.command, self.path, self.headers, body)
        try:
            answer = self.server.api.answer(request)
        except Exception as error:
            logger.exception("%s %s", self.command, self.path)
            answer = Answer(
                500, ApiError(500, "InternalError", f"Internal error: {error!r}").document()
            )
        if answer.frames is not None:
            self._upgrade(answer.frames)
        elif answer.stream is None:
            self._send(answer)
        else:
            self._stream(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - names of the base class

    def _send(self, answer: Answer) -> None:
        body = answer.encoded()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        for warning in answer.warnings:
            printable = warning.encode("ascii", "backslashreplace").decode()
            quoted = re.sub(r'(["\\])', r"\\\1", re.sub(r"[^ -~]", "?", printable))
            self.send_header("Warning", f'299 - "{quoted}"')
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _upgrade(self, frames: Iterator[bytes]) -> None:
        """Make the connection a WebSocket, write to it, and wait until the client closes it."""
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        key = self.headers.get("Sec-WebSocket-Key", "")
        self.send_header("Sec-WebSocket-Accept", websocket.accepted(key))
        offered = self.headers.get("Sec-WebSocket-Protocol", "")
        self.send_header("Sec-WebSocket-Protocol", websocket.chosen(offered))
        self.end_headers()
        self.wfile.writelines(frames)
        self.wfile.flush()
        self.close_connection = True
        self.request.settimeout(_PATIENCE)
        with contextlib.suppress(OSError):
            while self.rfile.read1(65536):
                pass

    def _stream(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        assert answer.stream is not None
        for document in answer.stream:
            if document is None:
                # A client has nothing to say during a watch: whatever can be read is its end.
                if select.select([self.connection], [], [], 0)[0]:
                    self.close_connection = True
                    return
            else:
                line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()
