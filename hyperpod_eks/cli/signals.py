"""Signals: the first one stops in good order, the second one at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

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
    """
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told:
            os._exit(128 + number)
        told = True
        with suppress(OSError):  # the terminal may be gone: that is what HUP says
            os.write(sys.stderr.fileno(), STOPPING)
        stop(Interrupted(number))

    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
