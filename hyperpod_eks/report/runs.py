"""When the resources of a cluster were created, run by run, as its manifest has it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypedDict

from hyperpod_eks.state.manifest import Manifest

PAUSE = 120.0
"""Seconds without anything in progress, after which another run has begun."""
SHOWN = 5
"""The newest runs that are shown."""


class Bar(TypedDict):
    """A resource in a run."""

    key: str
    after: Annotated[float, "seconds from the begin of the run to that of its create"]
    seconds: Annotated[float, "that its last create or change took"]


class Run(TypedDict):
    """A run that created resources which still exist."""

    began: Annotated[str, "UTC", {"format": "date-time"}]
    seconds: float
    resources: Annotated[list[Bar], "in the order in which their creates began"]


def runs(manifest: Manifest) -> list[Run]:
    """Return the runs in which recorded resources were created, the newest first.

    In a run something is always in progress, so that a pause ends one.
    """
    durations = manifest.durations
    bars = sorted(
        (record.since, durations[key], key)
        for key, record in manifest.records.items()
        if key in durations and not record.deletes
    )
    found: list[Run] = []
    began = end = 0.0
    for since, seconds, key in bars:
        if not found or since > end + PAUSE:
            began = end = since
            when = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            found.append({"began": when, "seconds": 0.0, "resources": []})
        end = max(end, since + seconds)
        found[-1]["seconds"] = round(end - began, 1)
        after = round(since - began, 1)
        found[-1]["resources"].append({"key": key, "after": after, "seconds": seconds})
    return found[: -SHOWN - 1 : -1]
