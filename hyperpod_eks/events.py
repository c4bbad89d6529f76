"""What happens, told as values; how it looks is for whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

from hyperpod_eks.frozen import frozen


class EventType(StrEnum):
    """The things that can be said of a resource, in the user's words."""

    PENDING = "pending"  # declared, waiting for what it depends on
    CREATING = "creating"
    UPDATING = "updating"
    WAITING = "waiting"  # AWS is at work, or not ready for us
    READY = "ready"
    DELETING = "deleting"
    GONE = "gone"
    KEPT = "kept"  # a delete leaves it alone; `why` says the reason
    FAILED = "failed"


@frozen
class Event:
    """One thing that happened to one resource.

    ``key`` is ``step/name`` (``network/vpc``); ``id`` is AWS's id once known; ``why`` is the
    provider's own words or the reason for a wait; ``changed`` tells a ready thing that this run
    made or changed from one that it only found.
    """

    key: str
    what: EventType
    id: str = ""
    why: str = ""
    changed: bool = False


_STEPS = ("iam", "network", "s3", "eks", "addons", "helm", "hyperpod")


def steps_of(keys: Iterable[str]) -> list[str]:
    """Return the steps in the order in which they are shown; further ones, of ``keys``, come last.

    >>> steps_of(["fsx/file-system", "network/vpc"])
    ['iam', 'network', 's3', 'eks', 'addons', 'helm', 'hyperpod', 'fsx']
    """
    return list(dict.fromkeys([*_STEPS, *(key.partition("/")[0] for key in keys)]))


Report = Callable[[Event], None]
