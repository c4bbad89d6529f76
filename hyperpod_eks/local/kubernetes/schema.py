"""What an object may hold: the types of built-in kinds, and each custom resource's own schema.

The fields of built-in kinds are those of types.json, which `scripts/kubernetes_types.py` writes
from Kubernetes' OpenAPI description. One version serves for all: fields hardly ever go. A custom
resource is read by the structural schema of its CustomResourceDefinition, with its defaults:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/.
`format` is not evaluated; rules in CEL are in `cel`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .errors import Cause
from .objects import Obj, clone
from .resources import Resource

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

QUANTITY = re.compile(r"([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)")
_INDEX = re.compile(r"\[[^\]]*\]")  # which Go's decoder does not name
_QUANTITY_RULE = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
# Required by the description, but Go's zero value passes the server's validation.
_ZERO_WILL_DO = {
    *("podSelector", "value", "serviceName", "endpoints", "revision", "rules", "metadata"),
    *("insecureSkipTLSVerify", "groupPriorityMinimum", "versionPriority"),
}
_GO_NAMES = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
_GO_KINDS = {"double": "float64", "time": "string", "bytes": "[]uint8"}


class Mistyped(NamedTuple):
    """A value of the wrong type: where, what it should be, and the decoder's words."""

    path: str
    message: str


class Reading(NamedTuple):
    """An object as its kind's types know it."""

    obj: Obj
    """Without unknown fields; custom resources with their defaults."""
    unknown: list[str]
    """The paths of the fields that were dropped: `spec.template.spec.containers[0].bogus`."""
    mistyped: Mistyped | None
    """The first value of another type, if any."""


def read(resource: Resource, obj: Obj, *, defaults: bool = True) -> Reading:
    """Read an object that a client sent. Nothing is asked of it but its types."""
    reader = _Reader()
    if resource.definition:
        found = {**obj, "metadata": reader.value("meta.v1.ObjectMeta", obj["metadata"], "metadata")}
        schema = {"x-kubernetes-embedded-resource": True, **resource.schema}
        return Reading(reader.custom(schema, found, "", defaults), reader.unknown, reader.mistyped)
    kind = type_of(resource.group_version, resource.kind)
    if not kind:
        return Reading(obj, [], None)
    return Reading(reader.value(kind, obj, ""), reader.unknown, reader.mistyped)


def causes(resource: Resource, obj: Obj) -> Iterator[Cause]:
    """What the schema of its kind finds wrong with a whole object, types apart."""
    if resource.definition:
        yield from _custom_causes(resource, obj)
    elif kind := type_of(resource.group_version, resource.kind):
        content = {k: v for k, v in obj.items() if k not in ("status", "metadata")}
        if "spec" in fields(kind):
            content.setdefault("spec", {})
        yield from _missing(kind, content, "")


def merge_keys(schema: Obj, path: tuple[Any, ...]) -> tuple[str, ...] | None:
    """The keys of a custom resource's list at `path`: ("",) for a set, None for an atomic list.

    A step of the path is a field's name, or a tuple for an item of a list.
    """
    for step in path:
        if isinstance(step, tuple):
            schema = schema.get("items") or {}
        else:
            more = schema.get("additionalProperties")
            known = (schema.get("properties") or {}).get(step)
            schema = known or (more if isinstance(more, dict) else {})
    match schema.get("x-kubernetes-list-type"):
        case "map":
            return tuple(schema.get("x-kubernetes-list-map-keys") or ())
        case "set":
            return ("",)
    return None


# --- types ---------------------------------------------------------------------------------------


@cache
def _types() -> Any:
    return json.loads((Path(__file__).parent / "types.json").read_text())


def type_of(group_version: str, kind: str) -> str:
    """The name of a built-in kind's type, or ""."""
    return str(_types()["kinds"].get(f"{group_version}/{kind}", ""))


@cache
def fields(kind: str) -> dict[str, str]:
    """What may be at each field of a type; see `scripts/kubernetes_types.py` for the notation."""
    return {name.rstrip("!"): below for name, below in _types()["types"][kind].items()}


def type_names() -> tuple[str, ...]:
    """The names of all built-in types."""
    return tuple(_types()["types"])


def required(kind: str) -> tuple[str, ...]:
    """The fields that a type's description requires."""
    return tuple(name[:-1] for name in _types()["types"][kind] if name.endswith("!"))


@cache
def _required(kind: str) -> tuple[str, ...]:
    """Those of them without which the server refuses an object."""
    return tuple(name for name in required(kind) if name not in _ZERO_WILL_DO)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class _Reader:
    """Copies data without what its types do not know, and remembers what that was."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.mistyped: Mistyped | None = None

    def value(self, kind: str, value: Any, path: str, struct: str = "") -> Any:
        """A value of a built-in type."""
        if value is None or kind == "any":
            return value
        if kind[0] == "[":
            if isinstance(value, list):
                return [
                    self.value(kind[1:-1], item, f"{path}[{n}]", struct)
                    for n, item in enumerate(value)
                ]
        elif kind[0] == "{":
            if isinstance(value, dict):
                return {
                    k: self.value(kind[1:-1], v, f"{path}[{k}]", struct) for k, v in value.items()
                }
        elif kind in _types()["types"]:
            if isinstance(value, dict):
                known, found = fields(kind), {}
                for name, item in value.items():
                    if name in known:
                        at = _joined(path, name)
                        found[name] = self.value(known[name], item, at, kind.rpartition(".")[2])
                    else:
                        self.unknown.append(_joined(path, name))
                return found
        elif _is_a(kind, value):
            return value
        self._refuse(kind, value, path, struct)
        return value

    def _refuse(self, kind: str, value: Any, path: str, struct: str) -> None:
        if self.mistyped:
            return
        found = _GO_NAMES.get(type(value), "object")
        where = f"{struct}.{_INDEX.sub('', path)}" if struct else "value"
        wanted = _go_kind(kind)
        if found == "number" and wanted.startswith(("int", "float")):
            found = f"number {value}"
        if kind == "quantity" and isinstance(value, str):
            message = _QUANTITY_RULE
        elif kind == "bytes" and isinstance(value, str):
            message = "illegal base64 data at input byte 0"
        elif kind == "time" and isinstance(value, str):
            message = f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse it'
        else:
            message = (
                f"json: cannot unmarshal {found} into Go struct field {where} of type {wanted}"
            )
        self.mistyped = Mistyped(path, message)

    def custom(self, schema: Obj, value: Any, path: str, defaults: bool) -> Any:
        """A value of a custom resource."""
        if isinstance(value, list) and isinstance(items := schema.get("items"), dict):
            return [
                self.custom(items, item, f"{path}[{n}]", defaults) for n, item in enumerate(value)
            ]
        if not isinstance(value, dict):
            return value
        known = schema.get("properties") or {}
        more = schema.get("additionalProperties")
        keep = schema.get("x-kubernetes-preserve-unknown-fields") or more is True
        embedded = schema.get("x-kubernetes-embedded-resource")
        found: Obj = {}
        for name, item in value.items():
            at = _joined(path, name)
            if name in known and not (path == "" and name == "metadata"):
                found[name] = self.custom(known[name], item, at, defaults)
            elif isinstance(more, dict):
                found[name] = self.custom(more, item, at, defaults)
            elif keep or (embedded and name in ("apiVersion", "kind", "metadata")):
                found[name] = item
            else:
                self.unknown.append(at)
        for name, below in known.items() if defaults else ():
            if (
                "default" in below
                and found.get(name) is None
                and not (below.get("nullable") and name in found)
            ):
                found[name] = self.custom(below, clone(below["default"]), name, defaults)
        return found


def _is_a(kind: str, value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    match kind:
        case "string":
            return isinstance(value, str)
        case "bool":
            return isinstance(value, bool)
        case "int32" | "int64":
            whole = number and value == int(value)
            return whole and abs(value) < 2 ** (31 if kind == "int32" else 63)
        case "double":
            return number
        case "quantity":
            return number or (isinstance(value, str) and bool(QUANTITY.fullmatch(value)))
        case "int-or-string":
            return isinstance(value, str) or (number and value == int(value))
        case "bytes":
            return isinstance(value, str) and _is_base64(value)
        case "time":
            return isinstance(value, str) and bool(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", value))
    return False


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _go_kind(kind: str) -> str:
    if kind[0] == "[":
        return f"[]{_go_kind(kind[1:-1])}"
    if kind[0] == "{":
        return f"map[string]{_go_kind(kind[1:-1])}"
    if kind.count(".") > 1:
        return ".".join(kind.rsplit(".", 2)[1:])
    return _GO_KINDS.get(kind, kind)


def _missing(kind: str, value: Any, path: str) -> Iterator[Cause]:
    if kind[0] == "[":
        for n, item in enumerate(value or ()):
            yield from _missing(kind[1:-1], item, f"{path}[{n}]")
    elif kind[0] == "{":
        for name, item in (value or {}).items():
            yield from _missing(kind[1:-1], item, f"{path}[{name}]")
    elif kind in _types()["types"]:
        value = value or {}
        for name in _required(kind):
            if value.get(name) in (None, "", [], {}) and not (
                value.get(name) == {} and fields(kind)[name] in _types()["types"]
            ):
                yield Cause(_joined(path, name), "Required value", "FieldValueRequired")
        for name, below in fields(kind).items():
            if (name in value and below[0] in "[{") or ("." in below and value.get(name)):
                yield from _missing(below, value[name], _joined(path, name))


# --- schemas of custom resources -----------------------------------------------------------------

_BODY = {
    "minimum": "should be greater than or equal to {0}",
    "maximum": "should be less than or equal to {0}",
    "minLength": "should be at least {0} chars long",
    "maxLength": "should be at most {0} chars long",
    "minItems": "should have at least {0} items",
    "maxItems": "should have at most {0} items",
    "minProperties": "should have at least {0} properties",
    "maxProperties": "should have at most {0} properties",
    "multipleOf": "should be a multiple of {0}",
    "pattern": "should match '{0}'",
    "type": 'must be of type {0}: "{1}"',
    "oneOf": "must validate one and only one schema (oneOf)",
    "anyOf": "must validate at least one schema (anyOf)",
    "not": "must not validate the schema (not)",
}


def _custom_causes(resource: Resource, obj: Obj) -> Iterator[Cause]:
    for error in _validator(resource.schema).iter_errors(obj):
        path = ""
        for step in error.absolute_path:
            path += f"[{step}]" if isinstance(step, int) else f"{'.' if path else ''}{step}"
        found: Any = error.instance
        rule, limit = str(error.validator), cast("Any", error.validator_value)
        match rule:
            case "required":
                name = error.message  # that of `required` below
                yield Cause(_joined(path, name), "Required value", "FieldValueRequired")
            case "enum":
                told = ", ".join(json.dumps(v) for v in limit)
                message = f"Unsupported value: {json.dumps(found)}: supported values: {told}"
                yield Cause(path, message, "FieldValueNotSupported")
            case "x-kubernetes-list-type":
                yield Cause(path, f"Duplicate value: {error.message}", "FieldValueDuplicate")
            case _:
                body = _BODY.get(rule, error.message).format(limit, _json_type(found))
                message = f"Invalid value: {json.dumps(found)}: {path} in body {body}"
                yield Cause(
                    path,
                    message,
                    "FieldValueTypeInvalid" if rule == "type" else "FieldValueInvalid",
                )


class ById:
    """A schema as the key of a cache, which keeps it alive, so that no other has its id."""

    def __init__(self, value: Obj) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and other.value is self.value


@cache
def _class() -> Any:
    from jsonschema import Draft4Validator, ValidationError, validators  # noqa: PLC0415 - 0.1 s

    def type_(validator: Any, kind: str, value: Any, schema: Obj) -> Iterator[ValidationError]:
        nullable = value is None and schema.get("nullable")
        if not nullable and not validator.is_type(value, kind):
            yield ValidationError(f"is not {kind}")

    def int_or_string(_: Any, wanted: bool, value: Any, __: Obj) -> Iterator[ValidationError]:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if wanted and not whole and not isinstance(value, str):
            yield ValidationError("must be of type integer or string")

    def pattern(_: Any, wanted: str, value: Any, __: Obj) -> Iterator[ValidationError]:
        expression = _expression(wanted)
        if isinstance(value, str) and expression and not expression.search(value):
            yield ValidationError("does not match")

    def required(_: Any, names: list[str], value: Any, __: Obj) -> Iterator[ValidationError]:
        for name in names if isinstance(value, dict) else ():
            if name not in value:
                yield ValidationError(name)

    def unique(_: Any, kind: str, value: Any, schema: Obj) -> Iterator[ValidationError]:
        keys = schema.get("x-kubernetes-list-map-keys") or ()
        seen: list[Any] = []
        for item in value if isinstance(value, list) and kind in ("map", "set") else ():
            key = {k: item.get(k) for k in keys} if kind == "map" else item
            if key in seen:
                yield ValidationError(json.dumps(key))
            seen.append(key)

    own = {
        "type": type_,
        "x-kubernetes-int-or-string": int_or_string,
        "pattern": pattern,
        "required": required,
        "x-kubernetes-list-type": unique,
    }
    return validators.extend(Draft4Validator, own)  # type: ignore[no-untyped-call]


@cache
def _expression(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error:  # Go's dialect has a little that Python's has not
        return None


@lru_cache(maxsize=64)
def _compiled(schema: ById) -> Validator:
    validator: Validator = _class()(schema.value)
    return validator


def _validator(schema: Obj) -> Validator:
    return _compiled(ById(schema))


def _json_type(value: Any) -> str:
    names = {**_GO_NAMES, bool: "boolean", int: "integer", dict: "object", type(None): "null"}
    return names.get(type(value), "object")
