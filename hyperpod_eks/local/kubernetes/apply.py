"""Server-side apply: several managers write one object, and each keeps what is its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import ApiError, Cause
from .objects import Obj, clone
from .patch import identity, merge_keys

# A way into an object: field names, merge keys of list items, and at the end "." for an item as
# such. ("spec", "containers", (("name", "a"),), "image")
Path = tuple[Any, ...]
# The merge keys of the list at a path, seen in these lists: ("",) for a set, None for atomic ones.
Keys = Callable[..., tuple[str, ...] | None]
_NOT_OWNED = {
    *("name", "namespace", "uid", "resourceVersion", "generation", "managedFields"),
    *("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
}


@dataclass(frozen=True)
class Manager:
    """One entry of `metadata.managedFields`."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""
    time: str = ""
    paths: frozenset[Path] = field(default=frozenset())

    def same(self, other: Manager) -> bool:
        """Whether both entries are of one manager, writing in one way."""
        mine = (self.name, self.operation, self.subresource)
        return mine == (other.name, other.operation, other.subresource)

    def __str__(self) -> str:
        told = f'"{self.name}"'
        if self.subresource:
            told += f' with subresource "{self.subresource}"'
        if self.operation == "Update":
            told += f" using {self.api_version}"
        return told


def by_name(path: Path, *lists: Any) -> tuple[str, ...] | None:
    """The merge keys of a built-in kind's list, by the name of its field."""
    if path == ("metadata", "finalizers"):
        return ("",)
    return merge_keys(path[-1] if path and isinstance(path[-1], str) else "", *lists)


def owned_paths(obj: Obj, keys: Keys = by_name) -> frozenset[Path]:
    """The paths of all fields that a manager owns who wrote exactly this object."""
    metadata = {k: v for k, v in obj.get("metadata", {}).items() if k not in _NOT_OWNED}
    content = {k: v for k, v in obj.items() if k not in ("apiVersion", "kind", "metadata")}
    if metadata:
        content["metadata"] = metadata
    return frozenset(_leaves(content, keys)) - {()}


def track_update(live: Obj | None, new: Obj, manager: Manager, keys: Keys = by_name) -> Obj:
    """`new`, which `manager` writes in place of `live`, with the fields it changed now its own.

    Nobody owns a field any more that it removed (structured-merge-diff, merge/update.go).
    """
    in_status = manager.subresource == "status"
    changed = frozenset(
        path
        for path in owned_paths(new, keys)
        if (path[0] == "status") == in_status
        and (live is None or _get(live, path) != _get(new, path))
    )
    others, mine = _split(new, manager)
    others = [replace(m, paths=_present(new, m.paths - changed, in_status)) for m in others]
    if not changed:
        return _with_managers(new, [*others, *([mine] if mine else [])])
    kept = _present(new, mine.paths, in_status) if mine else frozenset()
    return _with_managers(new, [*others, replace(manager, paths=kept | changed)])


def _present(obj: Obj, paths: frozenset[Path], in_status: bool) -> frozenset[Path]:
    return frozenset(
        p for p in paths if (p[0] == "status") != in_status or _get(obj, p) is not None
    )


def apply(
    live: Obj | None, applied: Obj, manager: Manager, *, force: bool, keys: Keys = by_name
) -> Obj:
    """What `live` becomes when `manager` applies `applied`: all of its wishes and no others.

    Fields that the manager applied before and nobody else owns go away.

    Raises ApiError 409 Conflict if others own fields with other values, unless `force`.
    """
    applied = clone(applied)
    applied.get("metadata", {}).pop("managedFields", None)
    wanted = owned_paths(applied, keys)
    manager = replace(manager, paths=wanted)
    if live is None:
        return _with_managers(applied, [manager])
    others, mine = _split(live, manager)
    conflicts = [(m, p) for m in others for p in _clashes(m, live, applied, wanted)]
    if conflicts and not force:
        raise _conflict(conflicts)
    lost = {path for _, path in conflicts}
    others = [replace(m, paths=m.paths - lost) for m in others]
    new = _overlay(live, applied, keys)
    dropped = (mine.paths if mine else frozenset()) - wanted
    foreign = frozenset[Path]().union(*(m.paths for m in others))
    # Whole list items first ("." sorts before fields), then what is left of their fields.
    for path in sorted(dropped - foreign, key=lambda p: (p[-1] != ".", len(p))):
        within = path[:-1] if path[-1] == "." else path
        if not any(p[: len(within)] == within for p in wanted | foreign):
            new = _without(new, within)
    return _with_managers(new, [*others, manager])


def _clashes(m: Manager, live: Obj, applied: Obj, wanted: frozenset[Path]) -> Iterator[Path]:
    for path in sorted(m.paths & wanted, key=str):
        if _get(live, path) != _get(applied, path):
            yield path


def _conflict(conflicts: list[tuple[Manager, Path]]) -> ApiError:
    if len(conflicts) == 1:
        told = f"Apply failed with 1 conflict: conflict with {conflicts[0][0]}: "
        told += _dotted(conflicts[0][1])
    else:
        lines = []
        for name in sorted({str(m) for m, _ in conflicts}):
            lines.append(f"conflicts with {name}:")
            lines += [f"- {_dotted(p)}" for m, p in conflicts if str(m) == name]
        told = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    causes = [Cause(_dotted(p), f"conflict with {m}", "FieldManagerConflict") for m, p in conflicts]
    return ApiError(409, "Conflict", told, {"causes": [cause.document() for cause in causes]})


# --- paths ---------------------------------------------------------------------------------------


def _leaves(value: Any, keys: Keys, path: Path = ()) -> Iterator[Path]:
    known = keys(path, value) if isinstance(value, list) else None
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, keys, (*path, key))
    elif known and value:
        for item in value:
            at = (*path, identity(item, known))
            if known == ("",):
                yield at
            else:
                yield (*at, ".")
                yield from _leaves(item, keys, at)
    else:
        yield path


def _item(items: Any, key: Path) -> Any:
    keys = tuple(k for k, _ in key)
    if not isinstance(items, list):
        return None
    keyed = (i for i in items if isinstance(i, dict) or keys == ("",))
    return next((i for i in keyed if identity(i, keys) == key), None)


def _get(value: Any, path: Path) -> Any:
    """What is at the path, True for an item as such, None if there is nothing."""
    for step in path:
        if value is None or step == ".":
            break
        if isinstance(step, tuple):
            value = _item(value, step)
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value is not None or None if path and path[-1] == "." else value


def _without(value: Any, path: Path) -> Any:
    """`value` without what is at the path, and without the mappings and lists emptied by that."""
    step, rest = path[0], path[1:]
    if isinstance(step, tuple):
        item = _item(value, step)
        if item is None:
            return value
        left = _without(item, rest) if rest else None
        changed = [left if i is item else i for i in value]
        return [i for i in changed if i is not None]
    if not isinstance(value, dict) or step not in value:
        return value
    left = _without(value[step], rest) if rest else None
    gone = left is None or (left != value[step] and left in ({}, []))
    return {k: (left if k == step else v) for k, v in value.items() if k != step or not gone}


def _overlay(live: Any, applied: Any, keys: Keys, path: Path = ()) -> Any:
    """`live` with every field of `applied` set."""
    if isinstance(applied, dict) and isinstance(live, dict):
        below = {k: _overlay(live.get(k), v, keys, (*path, k)) for k, v in applied.items()}
        return {**live, **below}
    known = keys(path, live, applied) if isinstance(live, list) else None
    if isinstance(applied, list) and known:
        merged = {identity(i, known): i for i in applied}
        for item in live:
            key = identity(item, known)
            found = merged.get(key, item)
            merged[key] = _overlay(item, found, keys, (*path, key)) if key in merged else item
        return list(merged.values())
    return applied


def _dotted(path: Path) -> str:
    told = ""
    for step in path:
        if isinstance(step, tuple):
            parts = (f"{k}={json.dumps(v)}" if k else f"={json.dumps(v)}" for k, v in step)
            told += f"[{','.join(parts)}]"
        elif step != ".":
            told += f".{step}"
    return told


# --- metadata.managedFields ----------------------------------------------------------------------


def _split(obj: Obj, manager: Manager) -> tuple[list[Manager], Manager | None]:
    """The other managers of an object, and this one's own entry."""
    entries = [_parse(entry) for entry in obj["metadata"].get("managedFields") or [] if entry]
    mine = next((m for m in entries if m.same(manager)), None)
    return [m for m in entries if m is not mine], mine


def _with_managers(obj: Obj, managers: list[Manager]) -> Obj:
    fields = [_format(m) for m in managers if m.paths]
    return {**obj, "metadata": {**obj.get("metadata", {}), "managedFields": fields}}


def _parse(entry: Obj) -> Manager:
    return Manager(
        entry["manager"],
        entry["operation"],
        entry["apiVersion"],
        entry.get("subresource", ""),
        entry.get("time", ""),
        frozenset(_from_fields(entry.get("fieldsV1") or {})),
    )


def _format(manager: Manager) -> Obj:
    fields: Obj = {}
    for path in sorted(manager.paths, key=str):
        node = fields
        for step in path:
            node = node.setdefault(_field_key(step), {})
    subresource = {"subresource": manager.subresource} if manager.subresource else {}
    return {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": manager.api_version,
        "time": manager.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
        **subresource,
    }


def _field_key(step: Any) -> str:
    if step == ".":
        return "."
    if isinstance(step, tuple) and step[0][0] == "":
        return "v:" + json.dumps(step[0][1], separators=(",", ":"))
    if isinstance(step, tuple):
        return "k:" + json.dumps(dict(step), separators=(",", ":"), sort_keys=True)
    return f"f:{step}"


def _from_fields(node: Obj, path: Path = ()) -> Iterator[Path]:
    for key, below in node.items():
        kind, _, rest = key.partition(":")
        step: Any = "." if key == "." else rest
        if kind in ("k", "v"):
            found = json.loads(rest)
            step = tuple(found.items()) if kind == "k" else (("", found),)
        if below:
            yield from _from_fields(below, (*path, step))
        else:
            yield (*path, step)
