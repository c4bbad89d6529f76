"""Helpers that build the documents of commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from hyperpod_eks.errors import Exit, Usage

if TYPE_CHECKING:
    from hyperpod_eks.cli.options import Place
    from hyperpod_eks.cli.schemas.base import Head, KeptData
    from hyperpod_eks.resources.base import Live, Resource

T = TypeVar("T")


def head(command: str, code: Exit = Exit.OK, kind: str = "") -> Head:
    """Return the members that every document begins with; ``kind`` is its schema, else ``command``.

    >>> head("plan", Exit.CHANGES)["schema"]
    'hyperpod-eks/plan/v1'
    """
    return {
        "schema": f"hyperpod-eks/{kind or command}/v1",
        "command": command,
        "ok": code in (Exit.OK, Exit.CHANGES),
        "exit_code": int(code),
    }


def called(name: str, place: Place, *, file: bool = True) -> str:
    """Return the cluster's name and location options as words of the command to run next.

    ``name`` may be empty if the file or the manifest identifies the cluster.

    >>> from hyperpod_eks.cli.options import Place
    >>> called("demo", Place(local=True, region="us-east-1"))
    'demo --local --region us-east-1'
    """
    words = [*([name] if name else []), *(["--local"] if place.local else [])]
    if file and place.file and place.file != "-":  # stdin has been read
        words += ["--file", place.file]
    for option, value in (
        ("--manifest", place.manifest),
        ("--region", place.region),
        ("--profile", place.profile),
    ):
        words += [option, str(value)] if value else []
    return shlex.join(words)


def columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each purpose and command, the commands in one column.

    >>> columns([("To see it", "hyperpod-eks status demo")])
    ['To see it: hyperpod-eks status demo']
    """
    pairs = [(f"{purpose}:", command) for purpose, command in rows]
    width = max((len(purpose) for purpose, _ in pairs), default=0)
    return [f"{purpose:<{width}} {command}" for purpose, command in pairs]


def kept_rows(data: Mapping[str, tuple[Resource, Live]]) -> list[KeptData]:
    """Return a row for each resource that holds data; ``data`` has them by id."""
    return [
        {
            "key": want.key,
            "id": id_,
            "holds": want.holds(live),
            "size_in_gib": live.attributes.get("capacity"),
            "usd_per_month": want.usd_per_month(live),
        }
        for id_, (want, live) in data.items()
    ]


def which_cluster() -> Usage:
    """Return the error for a command without a cluster."""
    return Usage(
        "no cluster given", "Pass a NAME, a config file (-f FILE) or a manifest (--manifest PATH)."
    )


def as_json(value: object) -> object:
    """Convert sets and tuples to lists; sets are sorted as text."""
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    return value


def once(what: str, pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Return KEY=VALUE pairs as a dictionary.  Raises Usage for a duplicate key.

    >>> once("scale", [("a", 1), ("b", 2)])
    {'a': 1, 'b': 2}
    """
    found: dict[str, T] = {}
    for key, value in pairs:
        if key in found:
            raise Usage(f"{what}: {key} is given twice, as {found[key]} and as {value}")
        found[key] = value
    return found
