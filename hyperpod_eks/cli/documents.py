"""What the documents of commands have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperpod_eks.errors import Exit

Document = dict[str, Any]


def head(command: str, cluster: str, code: Exit = Exit.OK) -> Document:
    """Return how the document of a command about a cluster begins."""
    return {
        "schema": f"hyperpod-eks/{command}/v1",
        "command": command,
        "ok": code is Exit.OK,
        "exit_code": int(code),
        "cluster": {"name": cluster},
    }


def as_json(value: object) -> Any:
    """Sets and tuples as JSON."""
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    return value
