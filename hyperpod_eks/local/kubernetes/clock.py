"""The time that a cluster lives by, and how long its own doings take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Simulated time."""

    def now(self) -> datetime:
        """The time of day, UTC."""

    def after(self, delay: float, action: Callable[[], object], /) -> None:
        """Run `action` in `delay` simulated seconds, or here and now if that is 0."""


@dataclass(frozen=True)
class Delays:
    """Simulated seconds that Kubernetes itself takes; a node is ready when the caller says so."""

    pod_start: float = 10.0
    """From the assignment of a pod to a ready node until it runs."""
    controller: float = 0.5
    """Until a controller reacts to a change."""
    namespace: float = 5.0
    """From the deletion of a namespace until its content goes."""
    pod_run: float = 30.0
    """From the start of a pod that ends by itself, such as a Job's, until it has ended."""


REALISTIC = Delays()
INSTANT = Delays(0, 0, 0, 0)


def timestamp(clock: Clock) -> str:
    """The time as Kubernetes writes it, e.g. 2026-01-31T12:00:00Z."""
    return clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
