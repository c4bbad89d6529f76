"""The worker threads of a run end with the run."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable

from hyperpod_eks.workers import Clock, WorkerPool
from tests.conftest import until


class Held:
    """An object that a job refers to, like a client or a whole run."""

    def job(self) -> Callable[[], str]:
        return lambda: f"{type(self).__name__} is done"


def test_workers_end_when_nobody_has_the_crew_any_more_and_hold_nothing_before() -> None:
    before = set(threading.enumerate())
    pool = WorkerPool(3, Clock())
    held = Held()
    pool.submit("job", held.job())
    result = pool.wait(60)
    assert result is not None
    assert result.value == "Held is done"
    workers = {t for t in threading.enumerate() if t.name == "hyperpod-eks"} - before
    assert len(workers) == 3
    watched = weakref.ref(held)
    del held, result
    until(lambda: gc.collect() >= 0 and watched() is None)

    del pool

    until(lambda: not any(worker.is_alive() for worker in workers))
