"""Hands for the engine: threads that make calls, and one place where their results arrive."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Job = Any
"""What a result is told apart by: whoever submits it knows its type."""
Value = Any
"""What a call returned: the job says which call."""


class Result(NamedTuple):
    """What came of one job: ``value``, or ``error`` if it raised."""

    job: Job
    value: Value
    error: BaseException | None


def start(call: Callable[[], T]) -> Future[T]:
    """Begin a call now; whoever wants its value waits for it.

    Its thread is a daemon: a pool of Python's would be waited for when we are stopped, however
    long AWS does not answer.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  whoever asks for the value gets it
            future.set_exception(error)

    threading.Thread(target=work, daemon=True, name="hyperpod-eks").start()
    return future


def gather(*calls: Callable[[], Value]) -> list[Value]:
    """Make calls that do not need each other at once, and return their values in order.

    All are made even if one raises; then the first that did, in their order, is raised.
    """
    futures = [start(call) for call in calls]
    wait(futures)
    return [each.result() for each in futures]


def for_each(call: Callable[[T], object], items: Sequence[T], most: int) -> None:
    """Make a call for every item, ``most`` of them at a time.  Raises as `gather`."""
    todo = iter(items)  # threads may share the iterator of a list or tuple

    def work() -> None:
        for item in todo:
            call(item)

    gather(*([work] * min(most, len(items))))


class Clock:
    """Wall time, and waiting in it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def wait(
        self, results: queue.SimpleQueue[Result], seconds: float, at_work: int
    ) -> Result | None:
        """Take the next result, waiting at most ``seconds``; ``at_work`` jobs are under way."""
        try:
            return results.get(timeout=max(seconds, 0))
        except queue.Empty:
            return None


Todo = queue.SimpleQueue[tuple[Job, Callable[[], Value]] | None]


class WorkerPool:
    """``size`` workers.  They are daemons: leaving never waits for an answer of AWS.

    They end when nobody has the crew any more, and what is under way is done.
    """

    def __init__(self, size: int, clock: Clock) -> None:
        self.clock = clock
        self.at_work = 0
        self._todo: Todo = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._size = size
        self._hire()
        weakref.finalize(self, _dismiss, self._todo, size).atexit = False

    def _hire(self) -> None:
        queues = self._todo, self._done  # not the crew: that would keep it
        for _ in range(self._size):
            threading.Thread(target=_work, args=queues, daemon=True, name="hyperpod-eks").start()

    @contextmanager
    def doubled(self) -> Iterator[None]:
        """Have twice as many workers: in a look, many wait for what another one is told."""
        self._hire()
        try:
            yield
        finally:
            _dismiss(self._todo, self._size)

    def submit(self, job: Job, call: Callable[[], Value]) -> None:
        """Have ``call`` made by a worker; its result arrives with ``job`` attached."""
        self.at_work += 1
        self._todo.put((job, call))

    def wait(self, seconds: float) -> Result | None:
        """Take the next result, waiting at most ``seconds``."""
        result = self.clock.wait(self._done, seconds, self.at_work)
        if result is not None and result.job is not None:
            self.at_work -= 1
        return result

    def interrupt(self, error: BaseException) -> None:
        """Make ``wait`` return now.  Safe to call from a signal handler (SimpleQueue.put is)."""
        self._done.put(Result(None, None, error))


def _dismiss(todo: Todo, number: int) -> None:
    """Let so many workers end, once nothing is left to do."""
    for _ in range(number):
        todo.put(None)


def _work(todo: Todo, done: queue.SimpleQueue[Result]) -> None:
    while (task := todo.get()) is not None:
        job, call = task
        try:
            done.put(Result(job, call(), None))
        except BaseException as error:  # noqa: BLE001  the engine decides what it means
            done.put(Result(job, None, error))
        del task, job, call  # who waits for the next one keeps nothing of the last


def start_all(calls: Sequence[Callable[[], object]]) -> None:
    """Make calls at once, and wait for none: what they learn is found in a Look that they share."""
    pool = WorkerPool(len(calls), Clock())
    for call in calls:
        pool.submit(None, call)
