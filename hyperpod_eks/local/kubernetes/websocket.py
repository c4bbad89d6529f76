"""The server's side of a WebSocket that carries a command's channels (RFC 6455).

Kubernetes sends a byte that names the channel before each message: 1 and 2 are the command's two
outputs, 3 is the Status in which it ends (k8s.io/apimachinery/pkg/util/remotecommand; KEP-4006).
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator

from .objects import Obj

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
"""Sub-protocols, the preferred one first."""
STDOUT, STDERR, ERROR = 1, 2, 3
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_BINARY, _CLOSE, _FINAL = 2, 8, 0x80
_NORMAL = 1000


def accepted(key: str) -> str:
    """Answer a client's Sec-WebSocket-Key.

    >>> accepted("dGhlIHNhbXBsZSBub25jZQ==")
    's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
    """
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()  # noqa: S324


def chosen(offered: str) -> str:
    """Return the sub-protocol of those that a client offers, or "".

    >>> chosen("base64.channel.k8s.io, v4.channel.k8s.io")
    'v4.channel.k8s.io'
    """
    names = [name.strip() for name in offered.split(",")]
    return next((name for name in PROTOCOLS if name in names), "")


def frames(channels: list[tuple[int, str]], code: int) -> Iterator[bytes]:
    """Yield what a command wrote, how it ended, and the end of the connection."""
    for channel, text in channels:
        if text:
            yield _frame(_BINARY, bytes([channel]) + text.encode())
    yield _frame(_BINARY, bytes([ERROR]) + json.dumps(_ended(code)).encode())
    yield _frame(_CLOSE, struct.pack(">H", _NORMAL))


def _frame(opcode: int, content: bytes) -> bytes:
    """Return one frame; a server's are not masked (RFC 6455, 5.1)."""
    size = len(content)
    if size < 126:
        return struct.pack(">BB", _FINAL | opcode, size) + content
    if size < 1 << 16:
        return struct.pack(">BBH", _FINAL | opcode, 126, size) + content
    return struct.pack(">BBQ", _FINAL | opcode, 127, size) + content


def _ended(code: int) -> Obj:
    """Return the Status of a command that ended (k8s.io/client-go/tools/remotecommand, v4)."""
    if not code:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
