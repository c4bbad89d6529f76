"""Kubernetes protobuf, as helm sends its Secrets and kubectl what it creates.

The field numbers are in protobuf.json, which `scripts/kubernetes_protobuf.py` writes from the tags
of Kubernetes' Go types; what is in a field is said by types.json.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from . import schema
from .objects import Obj

OPENAPI_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_EMPTY: tuple[Any, ...] = ("", None, {}, [], 0)  # 0 is False, too


@cache
def _layouts() -> Any:
    return json.loads((Path(__file__).parent / "protobuf.json").read_text())


def decode(body: bytes) -> Obj:
    """Read an object in its `runtime.Unknown` envelope.

    Raises ValueError for another envelope, a broken message or a kind without a layout.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("not a Kubernetes protobuf envelope")
    envelope = dict(_fields(body[len(_MAGIC) :]))
    type_meta = dict(_fields(envelope.get(1, b"")))
    version, kind = (type_meta.get(number, b"").decode() for number in (1, 2))
    # Every group has DeleteOptions, and all are the same.
    known = "meta.v1.DeleteOptions" if kind == "DeleteOptions" else schema.type_of(version, kind)
    if known not in _layouts():
        raise ValueError(f"kind {kind!r} is read as JSON only")
    return {"apiVersion": version, "kind": kind, **_message(envelope.get(2, b""), known, known)}


def _message(data: bytes, layout: str, kind: str) -> Obj:
    """The fields of a message of type `layout`, which are fields of the JSON object `kind`.

    Go writes a field that is no pointer even if it is empty, and JSON leaves it out.
    """
    fields, types, found = _layouts()[layout], schema.fields(kind), Obj()
    for number, raw in _fields(data):
        name = fields.get(str(number), "")
        if name.startswith("+"):
            found |= _message(raw, name[1:], kind)
            continue
        pointer, name = name.startswith("*"), name.lstrip("*")
        below = types.get(name, "")
        if below.startswith("["):
            found.setdefault(name, []).append(_value(raw, below[1:-1]))
        elif below.startswith("{"):
            entry = dict(_fields(raw))
            value = _value(entry.get(2, b""), below[1:-1])
            found.setdefault(name, {})[entry.get(1, b"").decode()] = value
        elif below:
            value = _value(raw, below)
            if value is not None and (pointer or value not in _EMPTY):
                found[name] = value
    return found


def _value(raw: Any, kind: str) -> Any:
    if kind in _layouts():
        return _message(raw, kind, kind)
    match kind:
        case "string":
            return raw.decode()
        case "bool":
            return bool(raw)
        case "int32" | "int64":
            return raw - (1 << 64) if raw >> 63 else raw
        case "double":
            return struct.unpack("<d", raw)[0]
        case "bytes":
            return base64.b64encode(raw).decode()
        case "time":
            seconds = dict(_fields(raw)).get(1)
            return seconds and datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case "quantity":
            return dict(_fields(raw)).get(1, b"").decode()
        case "int-or-string":
            parts = dict(_fields(raw))
            return parts.get(3, b"").decode() if parts.get(1) else _value(parts.get(2, 0), "int32")
        case "any":  # RawExtension, FieldsV1, JSON: text in a message of one field
            text = dict(_fields(raw)).get(1, b"")
            return json.loads(text) if text else None
    # Go's map[string][]string has a message for each list
    return [_value(item, kind[1:-1]) for _, item in _fields(raw)]


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message in order: (number, int for wire type 0, bytes for the others)."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data):
                raise ValueError("the message ends within a number")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        match tag & 7:
            case 0:
                yield tag >> 3, varint()
            case 1 | 2 as wire_type:
                length = 8 if wire_type == 1 else varint()
                if at + length > len(data):
                    raise ValueError("the message ends within a field")
                yield tag >> 3, data[at : at + length]
                at += length
            case wire_type:
                raise ValueError(f"wire type {wire_type} is not used by Kubernetes")


def openapi(title: str, version: str) -> bytes:
    """An openapi_v2.Document (github.com/google/gnostic-models) that describes nothing."""

    def text(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    info = text(1, title.encode()) + text(2, version.encode())
    return text(1, b"2.0") + text(2, info) + text(8, b"")
