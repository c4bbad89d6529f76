"""Types that several documents share."""

from __future__ import annotations

from typing import Annotated, TypedDict

from hyperpod_eks.documents import JsonObject

Json = JsonObject
"""An object whose members another schema defines: a config, a JSON Schema, a kubeconfig."""
ExitCode = Annotated[int, "The exit code of the command; docs/exit-codes.md."]
Moment = Annotated[str, "UTC", {"format": "date-time"}]


class Head(TypedDict):
    """The first members of every document."""

    schema: str
    command: str
    ok: bool
    exit_code: ExitCode


class Named(TypedDict):
    """A cluster, identified by name."""

    name: str


class Group(TypedDict):
    """An instance group."""

    name: str
    instance_type: str
    status: str
    current: int
    target: int


class KeptData(TypedDict):
    """A resource that was kept because it holds data."""

    key: str
    id: str
    holds: Annotated[str, "what it holds, in words: size, claim"]
    size_in_gib: Annotated[int | None, "null if unknown"]
    usd_per_month: Annotated[float | None, "what it costs, about; null if unknown"]


Pair = Annotated[list[object], "actual value, declared value", {"minItems": 2, "maxItems": 2}]
Value = str | list[str] | None
Outputs = Annotated[dict[str, Value], "Values for scripts; null until they exist."]
