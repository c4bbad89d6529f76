"""Just enough Kubernetes protobuf to read what helm sends: release Secrets, DeleteOptions."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from .objects import Obj

OPENAPI_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

# Message layouts: field number -> (JSON name, type). A type is a scalar, a layout (a message), or
# one of both in a list (repeated). "map" and "bytes map" have string keys. The numbers are those
# of the generated.proto files of k8s.io/api and k8s.io/apimachinery.
Layout = dict[int, tuple[str, Any]]
_OWNER: Layout = {
    1: ("kind", "string"),
    3: ("name", "string"),
    4: ("uid", "string"),
    5: ("apiVersion", "string"),
    6: ("controller", "bool"),
    7: ("blockOwnerDeletion", "bool"),
}
_METADATA: Layout = {
    1: ("name", "string"),
    2: ("generateName", "string"),
    3: ("namespace", "string"),
    5: ("uid", "string"),
    6: ("resourceVersion", "string"),
    7: ("generation", "int"),
    8: ("creationTimestamp", "time"),
    11: ("labels", "map"),
    12: ("annotations", "map"),
    13: ("ownerReferences", [_OWNER]),
    14: ("finalizers", ["string"]),
}
_ATTRIBUTES: Layout = {
    1: ("namespace", "string"),
    2: ("verb", "string"),
    3: ("group", "string"),
    5: ("resource", "string"),
    7: ("name", "string"),
}
_OPTIONS: Layout = {
    1: ("gracePeriodSeconds", "int"),
    2: ("preconditions", {1: ("uid", "string"), 2: ("resourceVersion", "string")}),
    4: ("propagationPolicy", "string"),
    5: ("dryRun", ["string"]),
}
_NON_RESOURCE: Layout = {1: ("path", "string"), 2: ("verb", "string")}
_BOUND: Layout = {
    1: ("kind", "string"),
    2: ("apiVersion", "string"),
    3: ("name", "string"),
    4: ("uid", "string"),
}
_KINDS: dict[str, Layout] = {
    "Secret": {
        1: ("metadata", _METADATA),
        2: ("data", "bytes map"),
        3: ("type", "string"),
        4: ("stringData", "map"),
        5: ("immutable", "bool"),
    },
    "ConfigMap": {
        1: ("metadata", _METADATA),
        2: ("data", "map"),
        3: ("binaryData", "bytes map"),
        4: ("immutable", "bool"),
    },
    "Namespace": {1: ("metadata", _METADATA)},
    "ServiceAccount": {1: ("metadata", _METADATA)},
    "SelfSubjectReview": {1: ("metadata", _METADATA)},
    "SelfSubjectAccessReview": {
        1: ("metadata", _METADATA),
        2: (
            "spec",
            {1: ("resourceAttributes", _ATTRIBUTES), 2: ("nonResourceAttributes", _NON_RESOURCE)},
        ),
    },
    "SelfSubjectRulesReview": {
        1: ("metadata", _METADATA),
        2: ("spec", {1: ("namespace", "string")}),
    },
    "TokenReview": {1: ("metadata", _METADATA), 2: ("spec", {1: ("token", "string")})},
    "TokenRequest": {
        1: ("metadata", _METADATA),
        2: (
            "spec",
            {
                1: ("audiences", ["string"]),
                3: ("boundObjectRef", _BOUND),
                4: ("expirationSeconds", "int"),
            },
        ),
    },
    "Eviction": {1: ("metadata", _METADATA), 2: ("deleteOptions", _OPTIONS)},
    "DeleteOptions": _OPTIONS,
}


def decode(body: bytes) -> Obj:
    """Read an object in its `runtime.Unknown` envelope.

    Raises ValueError for another envelope, a broken message or a kind without a layout.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("not a Kubernetes protobuf envelope")
    envelope = dict(_fields(body[len(_MAGIC) :]))
    type_meta = dict(_fields(envelope.get(1, b"")))
    kind = type_meta.get(2, b"").decode()
    if kind not in _KINDS:
        raise ValueError(f"kind {kind!r} is read as JSON only")
    message = _message(envelope.get(2, b""), _KINDS[kind])
    return {"apiVersion": type_meta.get(1, b"").decode(), "kind": kind, **message}


def _message(data: bytes, layout: Layout) -> Obj:
    found: Obj = {}
    for number, raw in _fields(data):
        if number not in layout:
            continue
        name, kind = layout[number]
        if isinstance(kind, list):
            found.setdefault(name, []).append(_value(raw, kind[0]))
        elif kind in ("map", "bytes map"):
            entry = dict(_fields(raw))
            value = entry.get(2, b"")
            text = base64.b64encode(value) if kind == "bytes map" else value
            found.setdefault(name, {})[entry.get(1, b"").decode()] = text.decode()
        else:
            value = _value(raw, kind)
            # Go writes every field of a message; an empty one means absent.
            if value not in ("", None, {}):
                found[name] = value
    return found


def _value(raw: Any, kind: Any) -> Any:
    match kind:
        case dict():
            return _message(raw, kind)
        case "string":
            return raw.decode()
        case "bool":
            return bool(raw)
        case "time":
            seconds = dict(_fields(raw)).get(1)
            return seconds and datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return raw


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message in order: (number, int for wire type 0, bytes for wire type 2)."""
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
            case 2:
                length = varint()
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
