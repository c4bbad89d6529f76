"""Events about resources, as values; their display is up to the receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

from hyperpod_eks.frozen import frozen


class EventType(StrEnum):
    """The types of events about a resource; the values are shown to users."""

    PENDING = "pending"  # declared, waiting for its dependencies
    CREATING = "creating"
    UPDATING = "updating"
    WAITING = "waiting"  # AWS is working, or not ready for our call
    READY = "ready"
    DELETING = "deleting"
    GONE = "gone"
    KEPT = "kept"  # a delete keeps it; `why` is the reason
    FAILED = "failed"


@frozen
class Event:
    """One event about one resource.

    ``key`` is ``step/name`` (``network/vpc``); ``id`` is AWS's id once known; ``why`` is AWS's
    own message or the reason for a wait; ``changed`` is whether this run created or changed a
    ready resource, rather than only found it.
    """

    key: str
    what: EventType
    id: str = ""
    why: str = ""
    changed: bool = False


_STEPS = ("iam", "network", "s3", "storage", "monitoring", "eks", "addons", "helm", "hyperpod")
_OPTIONAL = frozenset({"storage", "monitoring"})
"""Steps that are shown only if they have resources."""


def steps_of(keys: Iterable[str]) -> list[str]:
    """Return the steps in display order, followed by further steps of ``keys``.

    >>> steps_of(["fsx/file-system", "network/vpc"])
    ['iam', 'network', 's3', 'eks', 'addons', 'helm', 'hyperpod', 'fsx']
    """
    found = dict.fromkeys(key.partition("/")[0] for key in keys)
    return list(dict.fromkeys([*(s for s in _STEPS if s in found or s not in _OPTIONAL), *found]))


Report = Callable[[Event], None]
