"""Signals: the first one stops the run in an orderly way, the second one exits at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SOON = 0.01
"""Seconds after which a stop is repeated if Python ignored it."""
STOPPING = b"\nstopping; everything done so far is recorded; a second signal quits at once\n"


class Interrupted(BaseException):
    """A signal stopped the run; everything done so far is recorded."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = 128 + number


@contextmanager
def stoppable(stop: Callable[[BaseException], None]) -> Iterator[None]:
    """Turn HUP, INT and TERM into ``stop(Interrupted)``; exit at once at a second signal.

    Exiting at once loses nothing: every intent is on disk before its call.

    Python ignores an exception that a handler raises while an object is being finalised
    (``__del__``, callbacks of weak references), and passes it to ``sys.unraisablehook``: the hook
    then sets a timer that repeats the stop.
    """
    stopping: Interrupted | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + number)
        stopping = Interrupted(number)
        with suppress(OSError):  # after HUP the terminal may be gone
            os.write(sys.stderr.fileno(), STOPPING)
        stop(stopping)

    def handle_timer(number: int, frame: FrameType | None) -> None:
        if stopping:
            stop(stopping)

    def unraisable(ignored: sys.UnraisableHookArgs) -> None:
        if stopping and ignored.exc_value is stopping:
            signal.setitimer(signal.ITIMER_REAL, SOON)
        else:
            hook(ignored)

    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in numbers}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, handle_timer)
    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
