"""Strict field validation, from the models that the `kubernetes` client package carries anyway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from .objects import Obj
from .resources import Resource

# list[X] and dict(str, X) up to client 36, List[X] and Dict[str, X] from 37
_CONTAINER = re.compile(r"(?:list\[|dict\(str, |dict\[str, )(?P<item>.*)[\])]", re.IGNORECASE)


def unknown_fields(resource: Resource, obj: Obj) -> list[str]:
    """What ?fieldValidation=Strict reports of a built-in kind: `unknown field "spec.bogus"`.

    Custom resources and kinds without a model are accepted as they are.
    """
    if resource.definition:
        return []
    version = resource.version[0].upper() + resource.version[1:]
    prefix = {"": "Core", "events.k8s.io": "Events"}.get(resource.group, "")
    model = _model(f"{version}{resource.kind}") or _model(f"{prefix}{version}{resource.kind}")
    return [] if model is None else [f'unknown field "{p}"' for p in _unknown(model, obj, "")]


@cache
def _model(name: str) -> Any:
    from kubernetes.client import models  # noqa: PLC0415 - half a second that only helm 4 needs

    return getattr(models, name, None)


@cache
def _fields(model: Any) -> dict[str, str]:
    return {json: model.openapi_types[name] for name, json in model.attribute_map.items()}


def _unknown(model: Any, value: Any, path: str) -> Iterator[str]:
    # JSONSchemaProps escapes the names that Python cannot have ($ref), and nests without end.
    if model.__name__ == "V1JSONSchemaProps" or not isinstance(value, dict):
        return
    known = _fields(model)
    for name, item in value.items():
        at = f"{path}.{name}" if path else name
        if name not in known:
            yield at
        else:
            yield from _unknown_below(known[name], item, at)


def _unknown_below(kind: str, value: Any, path: str) -> Iterator[str]:
    if container := _CONTAINER.fullmatch(kind):
        if isinstance(value, list):
            for n, item in enumerate(value):
                yield from _unknown_below(container["item"], item, f"{path}[{n}]")
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from _unknown_below(container["item"], item, f"{path}.{key}")
    elif hasattr(model := _model(kind), "openapi_types"):
        yield from _unknown(model, value, path)
