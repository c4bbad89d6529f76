"""The tags that mark a resource as ours, and functions that read tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CLUSTER = "hyperpod-eks:cluster"
LINEAGE = "hyperpod-eks:lineage"
LABEL = "hyperpod-eks:label"


def tag(tags: Iterable[Mapping[str, object]] | Mapping[str, str], key: str) -> str | None:
    """Return the value of one tag, from Key/Value pairs or from a mapping; None if absent.

    >>> tag([{"Key": "Name", "Value": "demo"}], "Name")
    'demo'
    >>> tag({"Name": "demo"}, LINEAGE)
    """
    if not isinstance(tags, Mapping):
        tags = {str(each["Key"]): str(each["Value"]) for each in tags}
    return tags.get(key)


def owner(tags: Iterable[Mapping[str, object]] | Mapping[str, str]) -> str | None:
    """Return the lineage in these tags; None if there is none."""
    return tag(tags, LINEAGE)
