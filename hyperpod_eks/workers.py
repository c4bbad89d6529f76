"""Worker threads for concurrent calls, and a pool with one queue of results."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Job = Any
"""Identifies a result; its type is known to the submitter."""
Value = Any
"""The value that a call returned; its type depends on the job."""


class Result(NamedTuple):
    """The result of one job: ``value``, or ``error`` if it raised."""

    job: Job
    value: Value
    error: BaseException | None


def start(call: Callable[[], T]) -> Future[T]:
    """Start a call in a new thread and return its future.

    The thread is a daemon, so it cannot delay our exit; Python's own pools would wait for AWS's
    answer.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  the future raises it
            future.set_exception(error)

    threading.Thread(target=work, daemon=True, name="hyperpod-eks").start()
    return future


class Shared:
    """Answers to questions, each asked once: all threads share an answer.

    Those that wait for an answer share its error too.  Whoever asks later asks again.
    """

    def __init__(self) -> None:
        self._answers: dict[Hashable, Future[Value]] = {}
        self._lock = threading.Lock()
        self._ended = False

    def once(self, question: Hashable, ask: Callable[[], T]) -> T:
        """Return the answer to a question; call ``ask`` if there is none.

        Raises RuntimeError for a new question after `end`.
        """
        with self._lock:
            found = self._answers.get(question)
            known = found and not (found.done() and found.exception())
            if self._ended and not known:
                raise RuntimeError(f"{question} was asked after the end")
            answer: Future[T] = found if found and known else Future()
            self._answers[question] = answer
        if not known:
            try:
                answer.set_result(ask())
            except BaseException as error:  # noqa: BLE001  the future raises it
                answer.set_exception(error)
        return answer.result()

    def end(self) -> None:
        """Refuse further questions: threads may be about to ask some that nobody needs now."""
        with self._lock:
            self._ended = True

    def peek(self, question: Hashable) -> Value:
        """Return the answer to a question that was already asked; else None."""
        with self._lock:
            answer = self._answers.get(question)
        return None if answer is None or answer.exception() else answer.result()


def gather(*calls: Callable[[], Value]) -> list[Value]:
    """Make independent calls concurrently, and return their values in order.

    All calls are completed even if one raises; then the first error, in their order, is raised.
    """
    futures = [start(call) for call in calls]
    wait(futures)
    return [each.result() for each in futures]


def for_each(call: Callable[[T], object], items: Sequence[T], most: int) -> None:
    """Make a call for every item, at most ``most`` concurrently.  Raises as `gather`."""
    todo = iter(items)  # threads may share the iterator of a list or tuple

    def work() -> None:
        for item in todo:
            call(item)

    gather(*([work] * min(most, len(items))))


class Clock:
    """Wall time, and waits of limited time."""

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def wait(
        self, results: queue.SimpleQueue[Result], seconds: float, at_work: int
    ) -> Result | None:
        """Return the next result within ``seconds``, or None; ``at_work`` jobs are running."""
        try:
            return results.get(timeout=max(seconds, 0))
        except queue.Empty:
            return None


Todo = queue.SimpleQueue[tuple[Job, Callable[[], Value]] | None]


class WorkerPool:
    """A pool of ``size`` daemon threads, so that our exit never waits for an answer of AWS.

    The threads end once the pool is garbage-collected and its submitted calls are done.
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
        queues = self._todo, self._done  # a reference to the pool would keep it alive
        for _ in range(self._size):
            threading.Thread(target=_work, args=queues, daemon=True, name="hyperpod-eks").start()

    @contextmanager
    def doubled(self) -> Iterator[None]:
        """Double the number of workers: in a look many wait for another worker's answer."""
        self._hire()
        try:
            yield
        finally:
            _dismiss(self._todo, self._size)

    def submit(self, job: Job, call: Callable[[], Value]) -> None:
        """Queue ``call`` for a worker; `wait` returns its result with ``job``."""
        self.at_work += 1
        self._todo.put((job, call))

    def wait(self, seconds: float) -> Result | None:
        """Return the next result within ``seconds``, else None."""
        result = self.clock.wait(self._done, seconds, self.at_work)
        if result is not None and result.job is not None:
            self.at_work -= 1
        return result

    def arrived(self) -> Iterator[Result]:
        """Take the results that have arrived meanwhile, without waiting."""
        while True:
            try:
                result = self._done.get_nowait()
            except queue.Empty:
                return
            self.at_work -= result.job is not None
            yield result

    def interrupt(self, error: BaseException) -> None:
        """Make ``wait`` return ``error`` now.  Safe in a signal handler, as SimpleQueue.put is."""
        self._done.put(Result(None, None, error))


def _dismiss(todo: Todo, number: int) -> None:
    """End ``number`` workers, after all queued calls."""
    for _ in range(number):
        todo.put(None)


def _work(todo: Todo, done: queue.SimpleQueue[Result]) -> None:
    while (task := todo.get()) is not None:
        job, call = task
        try:
            done.put(Result(job, call(), None))
        except BaseException as error:  # noqa: BLE001  the receiver handles it
            done.put(Result(job, None, error))
        del task, job, call  # an idle worker keeps no references


def start_all(calls: Sequence[Callable[[], object]]) -> None:
    """Start calls without waiting for them; they store their answers in a shared Snapshot."""
    pool = WorkerPool(len(calls), Clock())
    for call in calls:
        pool.submit(None, call)
