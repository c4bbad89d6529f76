"""How what carries our tags is found, whichever cluster it belongs to."""

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
"""Kind, id, and how to ask for the tags."""
Source = Callable[["Aws", str], Iterator[Candidate]]
"""Given a cluster's name, a source leaves out what cannot be that cluster's, as its name tells."""

LARGE_PAGES: JsonObject = {"PaginationConfig": {"PageSize": 1000}}


def tags_of(call: Callable[..., JsonMapping], *path: str, **arguments: str) -> Json:
    """Make a call and return what ``path`` leads to; nothing for what has no tags or is gone."""
    with absent("NoSuch.*", "ResourceNotFound.*", "AccessDenied", "PermanentRedirect"):
        found: Json = call(**arguments)
        for name in path:
            found = found[name]
        return found
    return ()
