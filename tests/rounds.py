"""Count the rounds of a command: how often it must wait for answers of AWS.

Calls are held until every thread of this process sleeps; then all of them are answered together,
which is one round.  The count does not depend on the machine's speed or load.
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
    """A WSGI application (PEP 3333) that holds the calls to the stack's."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.calls: list[int] = []
        """The number of calls in each round."""
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
        """Start a round whenever all threads wait."""
        still = 0
        while not over.is_set():
            time.sleep(0.002)
            still = still + 1 if self._held and asleep() else 0
            if still == 5:
                with self._turn:
                    self.calls.append(self._held)
                    self._held = still = 0
                    self._turn.notify_all()


def asleep() -> bool:
    """Whether all other threads sleep."""
    mine = str(threading.get_native_id())
    for task in TASKS.iterdir():
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # the thread has just ended
            return False
        if task.name != mine and state != "S":
            return False
    return True


@contextmanager
def rounds(stack: Stack) -> Iterator[list[int]]:
    """Yield the list of rounds, each as its number of calls."""
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
