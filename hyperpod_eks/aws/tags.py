"""The tags that make a resource ours, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CLUSTER = "hyperpod-eks:cluster"
LINEAGE = "hyperpod-eks:lineage"
LABEL = "hyperpod-eks:label"


def tag(tags: Iterable[Mapping[str, object]] | Mapping[str, str], key: str) -> str | None:
    """
    Read one tag, whichever way the service spells them.

    >>> tag([{"Key": "Name", "Value": "demo"}], "Name")
    'demo'
    >>> tag({"Name": "demo"}, LINEAGE)
    """
    if not isinstance(tags, Mapping):
        tags = {str(each["Key"]): str(each["Value"]) for each in tags}
    return tags.get(key)


def owner(tags: Iterable[Mapping[str, object]] | Mapping[str, str]) -> str | None:
    """Return the lineage that signed these tags, None where we did not."""
    return tag(tags, LINEAGE)
