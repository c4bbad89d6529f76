"""What the documents of commands have in common."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from hyperpod_eks.errors import Exit, Usage

Document = dict[str, Any]
T = TypeVar("T")


def head(command: str, code: Exit = Exit.OK, kind: str = "") -> Document:
    """Return how every document of ours begins; ``kind`` is that of its schema, else the command's.

    >>> head("plan", Exit.CHANGES)["schema"]
    'hyperpod-eks/plan/v1'
    """
    return {
        "schema": f"hyperpod-eks/{kind or command}/v1",
        "command": command,
        "ok": code in (Exit.OK, Exit.CHANGES),
        "exit_code": int(code),
    }


def called(name: str, given: Mapping[str, Any]) -> str:
    """Spell a cluster with the options that say where it is, for the command to run next.

    Without a ``name`` the file or the manifest says which it is.

    >>> called("demo", {"file": None, "manifest": None, "local": True, "region": "us-east-1"})
    'demo --local --region us-east-1'
    """
    words = [*([name] if name else []), *(["--local"] if given.get("local") else [])]
    for option in ("file", "manifest", "region", "profile"):
        if (value := given.get(option)) and value != "-":  # what stood on stdin is read
            words += [f"--{option}", str(value)]
    return shlex.join(words)


def as_json(value: object) -> Any:
    """Sets and tuples as JSON."""
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    return value


def once(what: str, pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Return what was typed as KEY=VALUE.  Raises Usage for a key that was given twice.

    >>> once("scale", [("a", 1), ("b", 2)])
    {'a': 1, 'b': 2}
    """
    found: dict[str, T] = {}
    for key, value in pairs:
        if key in found:
            raise Usage(f"{what}: {key} is given twice, as {found[key]} and as {value}")
        found[key] = value
    return found
