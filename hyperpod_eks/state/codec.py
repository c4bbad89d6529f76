"""Declarations to JSON and back, and the validation of a manifest."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from inspect import get_annotations
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hyperpod_eks.documents import digest
from hyperpod_eks.resources.base import KINDS, Resource, is_resource
from hyperpod_eks.state.record import Record, RecordState


class Spelled(str):
    """Text that is JSON already."""

    __slots__ = ()


def spelled(document: Mapping[str, Any]) -> str:
    """Return a document as JSON with a line for each entry of the first two levels.

    Ten times as fast as indented JSON: json indents in Python, not in C.
    """
    rows = []
    for key, value in document.items():
        if isinstance(value, dict):
            text = braced([f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()])
        else:
            text = value if isinstance(value, Spelled) else json.dumps(value)
        rows.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(rows) + "\n}\n"


def braced(rows: Sequence[str]) -> str:
    """Return the lines of an object's members in braces, one level down."""
    return "{\n" + ",\n".join(rows) + "\n }"


def pack(want: Resource) -> dict[str, Any]:
    """Return a declaration as JSON; other resources in it become references to their keys."""

    def plain(value: object) -> object:
        if is_resource(value):
            return {"$resource": value.key}  # type: ignore[attr-defined]
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        if isinstance(value, Mapping):
            return {key: plain(each) for key, each in value.items()}
        if is_dataclass(value) and not isinstance(value, type):
            return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
        return str(value) if isinstance(value, Path) else value

    found = {each.name: plain(getattr(want, each.name)) for each in fields(want)}
    return found | {name: digest(getattr(want, name)) for name in want.digested}


_DOCUMENT = {
    "cluster": str, "account": str, "region": str, "lineage": str, "serial": int, "resources": dict,
}  # fmt: skip
_OPTIONAL = {
    "durations": dict, "config": dict, "run": str, "tool_version": str, "claim": str,
    "config_version": str,
}  # fmt: skip
_RECORD = {
    "kind": str, "want": dict, "state": str, "since": (int, float), "token": str,
}  # fmt: skip
_STATES = frozenset(get_args(RecordState))
_LATEST = 253402300800
"""The year 10000 in seconds since the epoch: no calendar of Python has it."""


def check_document(document: Mapping[str, Any]) -> None:
    """Check the types in a manifest.  Raises TypeError, KeyError or ValueError."""
    _typed("", document, _DOCUMENT)
    _typed("", document, {k: t for k, t in _OPTIONAL.items() if k in document})
    for name, seconds in document.get("durations", {}).items():
        _typed("durations.", {name: seconds}, {name: (int, float)})
        if not 0 <= seconds < _LATEST:
            raise ValueError(f"durations.{name} is out of range")
    for key, record in document["resources"].items():
        if not isinstance(record, dict):
            raise TypeError(f"resources.{key} is no object")
        texts = {name: str for name in ("id", "arn", "origin", "past") if name in record}
        _typed(f"resources.{key}.", record, _RECORD | texts)
        if record["state"] not in _STATES:
            raise ValueError(f"resources.{key}.state is {record['state']!r}")
        if not 0 <= record["since"] < _LATEST:
            raise ValueError(f"resources.{key}.since is {record['since']!r}")
        if kind := KINDS.get(record["kind"]):
            for name, value in record["want"].items():
                if not _fits(value, _hint(kind, name)):
                    raise TypeError(f"resources.{key}.want.{name} is of another type")
    done: set[str] = set()
    for key in document["resources"]:
        _refuse_circle(key, document["resources"], (), done)


def _typed(where: str, values: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    for name, kind in types.items():
        value = values[name]
        finite = not isinstance(value, float) or math.isfinite(value)
        if isinstance(value, bool) or not isinstance(value, kind) or not finite:
            raise TypeError(f"{where}{name} is of another type")


def _refuse_circle(
    key: str, resources: Mapping[str, Any], above: tuple[str, ...], done: set[str]
) -> None:
    """Raise ValueError for a circular reference; ``done`` are the keys already checked."""
    if key in done:
        return
    if key in above:
        raise ValueError(f"resources.{key} refers to itself")
    todo: list[Any] = [resources[key]["want"]] if key in resources else []
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if "$resource" in value:
                if not isinstance(value["$resource"], str):
                    raise TypeError(f"resources.{key}: a reference is no text")
                _refuse_circle(value["$resource"], resources, (*above, key), done)
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    done.add(key)


@cache
def _hint(kind: type[Resource], name: str) -> Any:
    """Return the type of a declaration's field; Any for an unknown one."""
    for each in kind.__mro__:
        if text := get_annotations(each).get(name):
            return _type(text, each.__module__)
    return Any


@cache
def _type(text: str, module: str) -> Any:
    """Evaluate an annotation of a module.

    `get_type_hints` of a class would compile the annotations of all its class variables too.
    """
    alone = SimpleNamespace(__annotations__={"it": text})
    return get_type_hints(alone, vars(sys.modules[module]))["it"]


def _fits(value: Any, hint: Any) -> bool:
    """Whether `pack` can have written this JSON value for a field of this type."""
    if hint is Any:
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is tuple:
        if not isinstance(value, list):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits(each, inner[0]) for each in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(_fits(each, inner[1]) for each in value.values())
    if origin is Literal:
        return value in inner
    if hint in (str, int, float, bool, type(None)):
        number = hint is float and isinstance(value, int)
        return type(value) is hint or (number and not isinstance(value, bool))
    if isinstance(hint, type) and issubclass(hint, Resource):
        return isinstance(value, dict) and "$resource" in value
    return isinstance(value, dict | list | str)  # another class of this package, or a path


def _has_default(one: Field[Any]) -> bool:
    return one.default is not MISSING or one.default_factory is not MISSING


def unpack(key: str, records: Mapping[str, Record], built: dict[str, Resource]) -> Resource | None:
    """Rebuild a declaration and those that it refers to; None for an unknown kind or key."""
    if key in built:
        return built[key]
    record = records.get(key)
    if record is None or record.kind not in KINDS:
        return None

    def rich(value: Any) -> Any:
        if isinstance(value, Mapping) and "$resource" in value:
            return unpack(value["$resource"], records, built)
        if isinstance(value, list):
            items = [rich(each) for each in value]
            return tuple(
                x for x, raw in zip(items, value, strict=True) if x is not None or raw is None
            )
        return value

    kind = KINDS[record.kind]
    # records of older versions may lack a field; None is enough to find and delete the resource
    built[key] = kind(
        **{
            each.name: kind.unpacked(each.name, rich(record.want.get(each.name)))
            for each in fields(kind)
            if each.name in record.want or not _has_default(each)
        }
    )
    return built[key]
