"""Signals: the first one stops in good order, the second one at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SOON = 0.01
"""Seconds after which an ignored stop is repeated."""
STOPPING = b"\nstopping; everything done so far is recorded; a second signal quits at once\n"


class Interrupted(BaseException):
    """A signal asked us to stop; everything is recorded."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; everything is recorded")
        self.code = 128 + number


@contextmanager
def stoppable(stop: Callable[[BaseException], None]) -> Iterator[None]:
    """Turn HUP, INT and TERM into ``stop(Interrupted)``; a second one leaves at once.

    Leaving at once loses nothing: every intent is on disk before its call.

    Python ignores what a handler raises while an object is being finalised (``__del__``, callbacks
    of weak references), and reports it to ``sys.unraisablehook``: a timer then stops once more.
    """
    stopping: Interrupted | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + number)
        stopping = Interrupted(number)
        with suppress(OSError):  # the terminal may be gone: that is what HUP says
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
