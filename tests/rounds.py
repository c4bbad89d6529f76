"""Counts the rounds of a command: how often it cannot go on without an answer of AWS.

A call is held until every thread of this process sleeps; then all that are held are answered at
once, which is one round.  So the count does not depend on how fast or how busy the machine is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hyperpod_eks.local.control import PREFIX
from hyperpod_eks.local.stack import Stack

TASKS = Path("/proc/self/task")


class Rounds:
    """Stands before the stack's application (PEP 3333)."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.calls: list[int] = []
        """How many calls each round had."""
        self._held = 0
        self._turn = threading.Condition()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith(PREFIX):
            with self._turn:
                self._held += 1
                now = len(self.calls)
                self._turn.wait_for(lambda: len(self.calls) > now)
        answer: Iterable[bytes] = self.application(environ, start)
        return answer

    def conduct(self, over: threading.Event) -> None:
        """Begin a round whenever nothing moves any more."""
        still = 0
        while not over.is_set():
            time.sleep(0.002)
            still = still + 1 if self._held and asleep() else 0
            if still == 3:
                with self._turn:
                    self.calls.append(self._held)
                    self._held = still = 0
                    self._turn.notify_all()


def asleep() -> bool:
    """Whether all threads but this one wait for something."""
    mine = str(threading.get_native_id())
    for task in TASKS.iterdir():
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has just ended
            return False
        if task.name != mine and state != "S":
            return False
    return True


@contextmanager
def rounds(stack: Stack) -> Iterator[list[int]]:
    """Lend the list of the rounds, each as the number of its calls."""
    server = stack._server._httpd
    before, over = server.app, threading.Event()
    server.app = counted = Rounds(before)
    conductor = threading.Thread(target=counted.conduct, args=(over,), daemon=True)
    conductor.start()
    try:
        yield counted.calls
    finally:
        over.set()
        conductor.join()
        server.app = before
