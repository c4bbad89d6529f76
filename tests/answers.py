"""Variants of a server's answers: members that are null, absent or empty."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
HOWS = ("null", "absent", "empty")


def places(document: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the path of every member and element of a document, and of the document itself."""
    yield at
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*at, key))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from places(value, (*at, number))


def altered(document: Any, at: Path, how: str) -> Any:
    """Return a copy in which one member is null, absent, or the empty value of its type."""
    if not at:
        return {}
    document = copy.deepcopy(document)
    holder = document
    for key in at[:-1]:
        holder = holder[key]
    if how == "absent":
        del holder[at[-1]]
    else:
        holder[at[-1]] = None if how == "null" else type(holder[at[-1]])()
    return document


def partial(document: Any) -> Any:
    """Return the document with only the names of its objects, and a list with only its items."""
    if isinstance(document.get("items"), list):
        return {"items": [partial(each) for each in document["items"]]}
    return {"metadata": {"name": document.get("metadata", {}).get("name")}}
