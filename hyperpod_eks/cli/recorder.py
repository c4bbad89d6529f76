"""Record the events of a run for its document, ``hyperpod-eks/result/v1``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.opening import Opened
from hyperpod_eks.events import Event, EventType, Report, steps_of

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.runs import ResultRow, ResultStep, Run


@dataclass
class Recorder:
    """A `Report` that keeps the last event of each resource and passes all events on."""

    tell: Report
    last: dict[str, Event] = field(default_factory=dict)
    once: tuple[str, EventType, Callable[[], None]] | None = None
    """Key, event type, and a function to start in a thread at the first such event."""

    def __call__(self, event: Event) -> None:
        """Keep the event and pass it on."""
        self.last[event.key] = event
        if self.once and self.once[:2] == (event.key, event.what):
            threading.Thread(target=self.once[2], daemon=True, name="hyperpod-eks").start()
            self.once = None
        self.tell(event)


def _row(event: Event) -> ResultRow:
    return {
        "key": event.key,
        "id": event.id,
        "state": event.what.value,
        "changed": event.changed,
    }


def result(command: str, at: Opened, recorder: Recorder) -> Run:
    """Return the document of a successful run."""
    steps: list[ResultStep] = []
    for step in steps_of(recorder.last):
        rows = [_row(each) for each in recorder.last.values() if each.key.startswith(f"{step}/")]
        if rows:
            steps.append({"name": step, "resources": rows})
    changed = any(event.changed for event in recorder.last.values())
    return {
        **head(command, kind="result"),
        "changed": changed,
        "cluster": {"name": at.resolved.name},
        "account": at.resolved.identity.account,
        "region": at.resolved.region,
        "partition": at.resolved.identity.partition,
        "steps": steps,
        "error": None,
    }
