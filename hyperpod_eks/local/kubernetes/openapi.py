"""The OpenAPI v3 description of what is served, which `kubectl explain` shows.

The names and the form are those of k8s.io/kube-openapi: a document for each group version, with a
component for each type (https://kubernetes.io/docs/concepts/overview/kubernetes-api/, "OpenAPI
V3").  Built-in kinds come from types.json, which has no descriptions; custom resources from their
definitions.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache, lru_cache
from typing import Any

from .objects import Obj
from .resources import Registry, Resource
from .schema import ById, fields, required, type_names, type_of

# Without these query parameters in the document, helm and kubectl validate themselves.
_PATCH_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")
_PREFIXES = {
    "meta": "io.k8s.apimachinery.pkg.apis.",
    "apiextensions": "io.k8s.apiextensions-apiserver.pkg.apis.",
    "apiregistration": "io.k8s.kube-aggregator.pkg.apis.",
}
_METADATA = "meta.v1.ObjectMeta"
_SCALARS: dict[str, Obj] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "double": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "any": {"type": "object"},
}
# Scalars that have a component of their own.
_NAMED: dict[str, tuple[str, Obj]] = {
    "time": (
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
        {"type": "string", "format": "date-time"},
    ),
    "quantity": (
        "io.k8s.apimachinery.pkg.api.resource.Quantity",
        {"oneOf": [{"type": "string"}, {"type": "number"}]},
    ),
    "int-or-string": (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    ),
}


def index(registry: Registry) -> Obj:
    """/openapi/v3: where each group version is described."""
    paths = {}
    for group, versions in registry.versions().items():
        for version in versions:
            path = f"apis/{group}/{version}" if group else f"api/{version}"
            # The hash lets clients keep the document; it changes with what is in it.
            marks = [
                r.plural + (_digest(ById(r.schema)) if r.definition else "")
                for r in registry.of(group, version)
            ]
            marker = hashlib.sha256(" ".join(marks).encode()).hexdigest()[:32].upper()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={marker}"}
    return {"paths": paths}


def document(resources: list[Resource], version: str) -> Obj:
    """/openapi/v3/apis/GROUP/VERSION: the kinds of one group version, and every type in them."""
    query = {"in": "query", "schema": {"type": "string", "uniqueItems": True}}
    parameters = [{"name": name, **query} for name in _PATCH_PARAMETERS]
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for r in resources:
        gvk = {"group": r.group, "version": r.version, "kind": r.kind}
        base = "/apis/" + r.group_version if r.group else "/api/" + r.version
        path = (
            f"{base}/namespaces/{{namespace}}/{r.plural}" if r.namespaced else f"{base}/{r.plural}"
        )
        common = {
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-group-version-kind": gvk,
        }

        def operation(
            verb: str, kind: str = r.kind, common: Obj = common, **more: Any
        ) -> dict[str, Any]:
            return {"operationId": verb + kind, **common, "x-kubernetes-action": verb, **more}

        if "list" in r.verbs:
            paths[path] = {"get": operation("list")}
            paths[f"{path}/{{name}}"] = {
                "get": operation("get"),
                "patch": operation("patch", parameters=parameters),
            }
        else:
            paths[path] = {"post": operation("post")}
        name, schema = _kind(r)
        schemas[name] = {**schema, "x-kubernetes-group-version-kind": [gvk]}
    _close(schemas)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _kind(resource: Resource) -> tuple[str, Obj]:
    """The component of a kind: its name and its schema."""
    if not resource.definition:
        name = type_of(resource.group_version, resource.kind)
        return _full(name), _component(name)
    own = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        **(resource.schema.get("properties") or {}),
        "metadata": _expressed(_METADATA),
    }
    reverse = ".".join(resource.group.split(".")[::-1])
    return f"{reverse}.{resource.version}.{resource.kind}", {**resource.schema, "properties": own}


def _full(name: str) -> str:
    """core.v1.Container is io.k8s.api.core.v1.Container."""
    return _PREFIXES.get(name.partition(".")[0], "io.k8s.api.") + name


@cache
def _component(name: str) -> Obj:
    """The schema of a built-in type."""
    properties = {field: _expressed(below) for field, below in fields(name).items()}
    needed = list(required(name))
    return {
        "type": "object",
        "properties": properties,
        **({"required": needed} if needed else {}),
    }


def _expressed(kind: str) -> Obj:
    """The schema of what types.json notes of a field."""
    if kind[0] == "[":
        return {"type": "array", "items": _expressed(kind[1:-1])}
    if kind[0] == "{":
        return {"type": "object", "additionalProperties": _expressed(kind[1:-1])}
    if kind in _SCALARS:
        return _SCALARS[kind]
    name = _NAMED[kind][0] if kind in _NAMED else _full(kind)
    return {"allOf": [{"$ref": f"#/components/schemas/{name}"}]}


def _close(schemas: dict[str, Any]) -> None:
    """Add the types that those in `schemas` name, and the ones that these name."""
    everything = _everything()
    waiting = set().union(*map(_named_in, schemas.values()))
    while waiting:
        name = waiting.pop()
        if name not in schemas and name in everything:
            schemas[name] = everything[name]
            waiting |= _named_by(name)


@cache
def _named_by(name: str) -> set[str]:
    return _named_in(_everything()[name])


def _named_in(schema: Obj) -> set[str]:
    """The components that a schema names at its own fields."""
    found, waiting = set(), [schema]
    while waiting:
        each = waiting.pop()
        waiting += [v for v in (each.get("properties") or {}).values() if isinstance(v, dict)]
        below = (each.get("items"), each.get("additionalProperties"), *(each.get("allOf") or ()))
        waiting += [v for v in below if isinstance(v, dict)]
        if reference := each.get("$ref"):
            found.add(str(reference).rpartition("/")[2])
    return found


@cache
def _everything() -> dict[str, Obj]:
    """Every built-in component by its full name."""
    return {**{_full(name): _component(name) for name in type_names()}, **dict(_NAMED.values())}


@lru_cache(maxsize=64)
def _digest(schema: ById) -> str:
    return hashlib.sha256(json.dumps(schema.value, sort_keys=True).encode()).hexdigest()
