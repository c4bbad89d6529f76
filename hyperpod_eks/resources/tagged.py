"""Types and functions for finding resources with our tags, of any cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hyperpod_eks.aws.failures import absent
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws


@frozen
class Tagged:
    """A resource with our tags; ``kind`` is the `Resource.tag_type` of its kind."""

    cluster: str
    lineage: str
    label: str
    kind: str
    id: str


Candidate = tuple[str, str, Callable[[], Json]]
"""Tag type, id, and a call that reads the tags."""
Source = Callable[["Aws", str], Iterator[Candidate]]
"""Takes a cluster's name, and leaves out resources whose names cannot be of that cluster."""

LARGE_PAGES: JsonObject = {"PaginationConfig": {"PageSize": 1000}}


def tags_of(call: Callable[..., JsonMapping], *path: str, **arguments: str) -> Json:
    """Return the tags at ``path`` of a call's answer; empty if none, gone or not allowed."""
    with absent("NoSuch.*", "ResourceNotFound.*", "AccessDenied", "PermanentRedirect"):
        found: Json = call(**arguments)
        for name in path:
            found = found[name]
        return found
    return ()
