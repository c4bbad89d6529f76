"""Three ways to describe a change: JSON patch, merge patch and strategic merge patch."""

from __future__ import annotations

from typing import Any

from .objects import Obj, clone

# Lists whose items have an identity: field -> its merge keys, the first that all items have wins
# (containers' and Services' `ports` differ). The sources are `patchMergeKey` and `listMapKey` in
# the Kubernetes API types. Server-side apply asks custom resources' own schemas.
MERGE_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "addresses": (("type",),),
    "conditions": (("type",),),
    "containers": (("name",),),
    "env": (("name",),),
    "ephemeralContainers": (("name",),),
    "hostAliases": (("ip",),),
    "imagePullSecrets": (("name",),),
    "initContainers": (("name",),),
    "ownerReferences": (("uid",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "resourceClaims": (("name",),),
    "secrets": (("name",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "volumeDevices": (("devicePath",),),
    "volumeMounts": (("mountPath",),),
    "volumes": (("name",),),
    "webhooks": (("name",),),
}
_KEY_DEFAULTS = {"protocol": "TCP"}
Key = tuple[tuple[str, Any], ...]


def merge_keys(field: str, *lists: Any) -> tuple[str, ...] | None:
    """The keys that identify the items of these lists at `field`; None if it is replaced whole."""
    items = [item for values in lists if isinstance(values, list) for item in values]
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    for keys in MERGE_KEYS.get(field, ()):
        if all(k in item or k in _KEY_DEFAULTS for item in items for k in keys):
            return keys
    return None


def identity(item: Any, keys: tuple[str, ...]) -> Key:
    """The values of an item's merge keys; the item itself if the only key is "" (a set)."""
    if keys == ("",):
        return (("", item),)
    return tuple((k, item.get(k, _KEY_DEFAULTS.get(k))) for k in keys)


def json_patch(document: Any, operations: list[Obj]) -> Any:
    """RFC 6902. Raises KeyError, IndexError, TypeError or ValueError if an operation fails."""
    root = {"": clone(document)}  # so that the path "" has a parent, too
    for operation in operations:
        verb, path = operation["op"], operation["path"]
        if verb in ("copy", "move"):
            value = clone(_at(root, operation["from"]))
            if verb == "move":
                _edit(root, "remove", operation["from"], None)
            verb = "add"
        else:
            value = clone(operation.get("value"))
        _edit(root, verb, path, value)
    return root[""]


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")]


def _at(root: Any, pointer: str) -> Any:
    for step in _steps(pointer):
        root = root[int(step) if isinstance(root, list) else step]
    return root


def _edit(root: Any, verb: str, pointer: str, value: Any) -> None:
    *parents, last = _steps(pointer)
    parent = root
    for step in parents:
        parent = parent[int(step) if isinstance(parent, list) else step]
    key: Any = last
    if isinstance(parent, list):
        key = len(parent) if last == "-" else int(last)
    match verb:
        case "add" if isinstance(parent, list):
            parent.insert(key, value)
        case "add":
            parent[key] = value
        case "replace":
            parent[key]  # it must exist
            parent[key] = value
        case "remove":
            del parent[key]
        case "test":
            if parent[key] != value:
                raise ValueError(f"test of {pointer} failed")
        case _:
            raise ValueError(f"unknown operation {verb!r}")


def merge_patch(document: Any, patch: Any) -> Any:
    """RFC 7386: mappings merge, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def strategic_merge(document: Any, patch: Any, field: str = "") -> Any:
    """Kubernetes' merge patch, which knows that some lists are keyed and obeys $-directives."""
    if isinstance(patch, dict):
        return _strategic_mapping(document if isinstance(document, dict) else {}, patch)
    if isinstance(patch, list):
        return _strategic_list(document if isinstance(document, list) else [], patch, field)
    return patch


def _strategic_mapping(document: Obj, patch: Obj) -> Obj:
    if patch.get("$patch") == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    merged = dict(document)
    if "$retainKeys" in patch:
        merged = {k: v for k, v in merged.items() if k in patch["$retainKeys"]}
    orders = {}
    for name, value in patch.items():
        directive, _, target = name.partition("/")
        if directive == "$setElementOrder":
            orders[target] = value
        elif directive == "$deleteFromPrimitiveList":
            merged[target] = [v for v in merged.get(target) or [] if v not in value]
        elif value is None:
            merged.pop(name, None)
        elif name != "$retainKeys":
            merged[name] = strategic_merge(merged.get(name), value, name)
    for target, order in orders.items():
        merged[target] = _in_order(merged.get(target) or [], order, target)
    return merged


def _strategic_list(document: list[Any], patch: list[Any], field: str) -> list[Any]:
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if item.get("$patch") != "replace"]
    if field == "finalizers":
        return document + [item for item in patch if item not in document]
    keys = merge_keys(field, document, patch)
    if keys is None:
        return patch
    merged = {identity(item, keys): item for item in document}
    for item in patch:
        key = identity(item, keys)
        if item.get("$patch") == "delete":
            merged.pop(key, None)
        else:
            merged[key] = strategic_merge(merged.get(key), item)
    return list(merged.values())


def _in_order(items: list[Any], order: list[Any], field: str) -> list[Any]:
    """Items in the order of $setElementOrder; those it does not name come last."""
    keys = merge_keys(field, items)
    if keys is None:
        return items

    def rank(item: Obj) -> int:
        mine = set(identity(item, keys))
        return next((n for n, named in enumerate(order) if set(named.items()) <= mine), len(order))

    return sorted(items, key=rank)
