"""What every part agrees on: objects are JSON data that nobody changes in place."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]


def clone(value: Any) -> Any:
    """A deep copy of JSON data without the nulls in mappings, which Kubernetes reads as absent."""
    if isinstance(value, dict):
        return {k: clone(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [clone(v) for v in value]
    return value


def dig(value: Any, *path: str) -> Any:
    """What is at `path` inside nested mappings, or None.

    >>> dig({"spec": {"replicas": 2}}, "spec", "replicas")
    2
    """
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def with_metadata(obj: Obj, **changes: Any) -> Obj:
    """`obj` with other metadata fields; None takes a field away."""
    merged = {**obj["metadata"], **changes}
    return {**obj, "metadata": {k: v for k, v in merged.items() if v is not None}}


def labels(obj: Obj) -> dict[str, str]:
    """The labels of an object, or an empty mapping."""
    return obj["metadata"].get("labels") or {}


def owner_uids(obj: Obj) -> list[str]:
    """The uids of the objects that own this one."""
    owners = obj["metadata"].get("ownerReferences") or []
    return [owner["uid"] for owner in owners if "uid" in owner]


def deleting(obj: Obj) -> bool:
    """Whether the object was deleted and waits for its finalizers."""
    return "deletionTimestamp" in obj["metadata"]
