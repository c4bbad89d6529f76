"""A proxy that requires a password, and connects every host name to a port of this machine."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

REFUSAL = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)


class Proxy:
    """Supports only CONNECT (RFC 9110, 9.3.6); ``lead`` returns the port for a host.

    With ``tls`` it speaks TLS itself.
    """

    def __init__(
        self, user: str, lead: Callable[[str], int], tls: ssl.SSLContext | None = None
    ) -> None:
        self._tls = tls
        self._wanted = "Basic " + base64.b64encode(user.encode()).decode()
        self._lead = lead
        self.asked: list[tuple[str, bool]] = []
        """Every requested host, and whether user and password were right."""
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        with suppress(OSError):  # wakes the accepting thread
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._tls:
            client = self._tls.wrap_socket(client, server_side=True)
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (got := client.recv(65536)):
                    return
                head += got
            first, *lines = head.decode("latin-1").split("\r\n")
            pairs = [line.partition(":") for line in lines]
            given = {name.lower(): value.strip() for name, _, value in pairs}
            host = first.split()[1].rpartition(":")[0]
            right = given.get("proxy-authorization") == self._wanted
            self.asked.append((host, right))
            if not right:
                client.sendall(REFUSAL)
                return
            with socket.create_connection(("127.0.0.1", self._lead(host))) as server:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def proxy(
    user: str, lead: Callable[[str], int], tls: ssl.SSLContext | None = None
) -> Iterator[Proxy]:
    """Run a proxy while the context is open."""
    one = Proxy(user, lead, tls)
    try:
        yield one
    finally:
        one.stop()
