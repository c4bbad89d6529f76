"""Simulated time: events fire on a scaled wall clock, or by hand with ``advance``."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

log = logging.getLogger(__name__)

Action = Callable[[], object]


class Clock:
    """A clock that runs ``speed`` simulated seconds per real one; 0 stands still until ``advance``.

    Every event runs while holding ``lock``, so whoever holds it sees no state change underneath
    (the AWS endpoint answers one request at a time under the same lock).
    """

    def __init__(self, speed: float = 0.0) -> None:
        self.speed = speed
        self.lock = threading.RLock()
        self._origin = datetime.now(UTC)
        self._started = time.monotonic()
        self._jumped = 0.0
        self._events: list[tuple[float, int, Action]] = []
        self._sequence = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        if speed:
            threading.Thread(target=self._run, daemon=True, name="local-clock").start()

    def elapsed(self) -> float:
        """Return the simulated seconds since the clock was made."""
        return self._jumped + (time.monotonic() - self._started) * self.speed

    def now(self) -> datetime:
        """Return the simulated time of day, in UTC."""
        return self._origin + timedelta(seconds=self.elapsed())

    def after(self, delay: float, action: Action) -> None:
        """Run ``action`` in ``delay`` simulated seconds; a delay of 0 runs it here and now."""
        if delay <= 0:
            action()
            return
        with self._changed:
            heapq.heappush(self._events, (self.elapsed() + delay, next(self._sequence), action))
            self._changed.notify()

    def advance(self, seconds: float) -> None:
        """Move time forward, running what falls due on the way, each event at its own time.

        An exception of an event ends the advance: a broken transition must be seen.
        """
        with self.lock:
            target = self.elapsed() + seconds
            while (event := self._pop(target)) is not None:
                self._jump(event[0])
                event[2]()
            self._jump(target)

    def due(self, seconds: float) -> bool:
        """Whether an event falls due within ``seconds`` from now."""
        with self._changed:
            return bool(self._events) and self._events[0][0] <= self.elapsed() + seconds

    def restart(self) -> None:
        """Forget every event that has not fired, and begin again at the real time of day."""
        with self._changed:
            self._events.clear()
            self._origin, self._started, self._jumped = datetime.now(UTC), time.monotonic(), 0.0

    def stop(self) -> None:
        """Forget every event and end the clock's thread."""
        with self._changed:
            self._events.clear()
            self._stopped = True
            self._changed.notify()

    def _pop(self, until: float) -> tuple[float, int, Action] | None:
        with self._changed:
            if self._events and self._events[0][0] <= until:
                return heapq.heappop(self._events)
        return None

    def _jump(self, to: float) -> None:
        with self._changed:
            self._jumped += max(0.0, to - self.elapsed())
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and not self.due(0.0):
                    self._changed.wait(self._wait())
                if self._stopped:
                    return
            with self.lock:
                # popped under the lock: an event that clear() took away meanwhile never runs
                event = self._pop(self.elapsed())
                if event is None:
                    continue
                try:
                    event[2]()
                except Exception:  # one broken transition must not stop time
                    log.exception("an event of the local clock failed")

    def _wait(self) -> float | None:
        if not self._events:
            return None
        return max(0.001, (self._events[0][0] - self.elapsed()) / self.speed)
