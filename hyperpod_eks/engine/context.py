"""What a run shares: AWS, the manifest, the claim on the cluster, and listeners."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.errors import Unfinished, Usage
from hyperpod_eks.events import Report
from hyperpod_eks.kube.contents import Contents
from hyperpod_eks.resources.base import Live, Resource
from hyperpod_eks.resources.compare import Observation
from hyperpod_eks.state.claim import Claim
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.workers import Clock, WorkerPool


def refuse(lost: list[str]) -> None:
    """Raise Usage: nobody has agreed to lose anything."""
    lines = "\n".join(f"  {line}" for line in lost)
    raise Usage(
        f"this change removes or exposes something:\n{lines}",
        "To agree, call create(consent=print), or pass a function that is called with these lines"
        " and raises to refuse.",
    )


LONGEST_AGE = 30.0
"""Seconds after which a look that a session has begun is repeated: a program may have waited."""


class OutOfDate(Exception):
    """Another run has changed the cluster since this one read it."""


@dataclass(eq=False, repr=False)
class Context:
    """What a run holds from its start to its end; `close` ends it."""

    aws: Aws
    manifest: Manifest
    report: Report
    clock: Clock = field(default_factory=Clock)
    parallelism: int = 10
    replace_failed: bool = False
    consent: Callable[[list[str]], None] = refuse
    """Called with disruptions before the change that causes them; raises to refuse."""
    preflight: Callable[[list[Observation]], None] = lambda observations: None
    """Called with the first observations, before the first change, if anything is to be created."""
    warn: Callable[[str], None] = lambda text: None
    """Called with warnings: problems that do not stop the run."""
    agreed: dict[str, Contents] = field(default_factory=dict)
    """What was in the namespaces that go with resources, by key, when the user was asked."""
    claim: Claim | None = None
    """The claim on the cluster, taken before the first change."""
    declare: Callable[[], None] = lambda: None
    """Called before the first change, once the cluster is claimed."""
    deadline: float = math.inf
    """When to stop waiting, in seconds since the epoch."""
    first_snapshot: Snapshot | None = None
    """A snapshot that was just begun elsewhere; the first read of all resources uses it."""
    kept_data: dict[str, tuple[Resource, Live]] = field(default_factory=dict)
    """What the last delete has kept because it holds data, with its declaration, by id."""
    pool: WorkerPool = field(init=False)

    def __post_init__(self) -> None:
        self.pool = WorkerPool(self.parallelism, self.clock)
        self.running = self.closed = False
        self.stopped: BaseException | None = None
        self.aws.adopted = self.manifest.adopted
        self.aws.before_change = self.check
        self.aws.end_claim = self.end_claim
        self.aws.recorded = {arn for x in self.manifest.records.values() for arn in x.arns}
        now, past = self.clock.now(), self._behind()
        for key, record in self.manifest.records.items():
            since = record.since if record.deletes else record.since + past
            if past or since > now:  # a fast clock would keep resources `hidden`
                self.manifest.records[key] = replace(record, since=min(since, now))

    def _behind(self) -> float:
        """Return what to add to the times in a manifest that another machine may have written.

        Its clock may be slow, and what its run has just created would count as old: absence would
        be believed too early.  After a run that did not finish, its last act counts as just now.
        How long a delete has taken is counted from its own time: too long does no harm there.
        """
        records = self.manifest.records.values()
        if self.manifest.complete or not records or not self.manifest.store.lease():
            return 0.0
        return self.clock.now() - max(record.since for record in records)

    def recent(self) -> Snapshot:
        """Return the look that the session has begun, or a new one if that is old."""
        begun = self.first_snapshot
        return begun if begun and begun.age <= LONGEST_AGE else Snapshot(self.aws)

    def check(self) -> None:
        """Make sure, before a change, that no other run has taken over.  Raises Locked.

        Raises Unfinished after `close`, which may not have waited for the run.
        """
        if self.closed:
            raise Unfinished("the session was closed during this call")
        self.manifest.store.check()
        if self.claim:
            self.claim.check()

    def end_claim(self) -> None:
        """Delete the claim: its bucket goes next.  Raises Locked if another run has it."""
        if self.claim:
            self.claim.delete()

    def close(self) -> None:
        """Let other runs have the cluster."""
        try:
            if self.claim:
                self.claim.release()
        finally:
            self.closed = True

    def drain(self) -> None:
        """Wait for the calls under way, and drop their results."""
        while self.pool.at_work:
            result = self.pool.wait(5.0)
            if result and result.job is None:
                raise result.error or AssertionError("an empty interruption")

    def renew(self) -> None:
        """Forget the calls under way, and what they answer: the run that made them has ended."""
        self.stopped = None
        self.pool = WorkerPool(self.parallelism, self.clock)

    def stop(self, error: BaseException) -> None:
        """Stop from a signal handler: interrupt the loop, or raise here if it is not running."""
        if self.running:
            self.interrupt(error)
        else:
            self.stopped = error
            raise error

    def interrupt(self, error: BaseException) -> None:
        """Make the loop raise an error, now or when it runs."""
        self.stopped = error
        self.pool.interrupt(error)
