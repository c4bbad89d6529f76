"""The loop: observe, compare, decide, act, observe again.

Each resource is processed as soon as its dependencies are ready (or, in a delete, as soon as the
resources that depend on it are gone).  Workers make the calls; this thread alone decides, writes
the manifest and reports events.
"""

from __future__ import annotations

import math
import random
from collections import ChainMap, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar

from hyperpod_eks.aws.errors import PATIENCE, ErrorKind
from hyperpod_eks.aws.failures import classify, surely_not_applied
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.engine.context import Context, OutOfDate
from hyperpod_eks.engine.wording import explained, words_of
from hyperpod_eks.errors import HyperpodError, Unfinished
from hyperpod_eks.events import Event, EventType
from hyperpod_eks.resources.base import (
    Differs,
    Identity,
    Live,
    Proof,
    References,
    Resource,
    Sent,
    State,
)
from hyperpod_eks.resources.compare import Observation, Placement, Status, accepted, born, compare
from hyperpod_eks.state.record import RecordState
from hyperpod_eks.workers import Result

SHORTEST, LONGEST, SHARE = 0.3, 5.0, 1 / 100
"""The pause between two observations of a resource is a SHARE of the time waited so far, between
SHORTEST and LONGEST seconds.  Both limits grow with its maximum wait, so that a resource that
takes hours is not polled a thousand times."""
HOURS = 8 * 3600.0
"""Longer maximum waits, in seconds, count as this one: pauses are half a minute at most."""
GRACE = 60.0
"""Seconds that AWS may take to show a new resource; absence is accepted only after them."""
FRESH = 2.0
"""Seconds for which an observation of an existing resource is valid; an older one is repeated
before any change.  The absence of a resource without a record stays valid: only this tool creates
resources with our names and tags, and if another run was first, AWS refuses the name and the next
observation shows the owner."""
BUCKET = "s3/bucket"
"""The key of the bucket, which contains the claim on the cluster."""
READS = frozenset({"look", "holders"})
"""The verbs that change nothing."""
LAST_WORDS = 3.0
"""Seconds that calls under way have to answer after an interruption."""


@dataclass(eq=False, repr=False)
class Task:
    """The progress of one resource in a run."""

    want: Resource
    mark: object = None  # its `Live.mark` at the last observation
    observation: Observation | None = None
    seen: float = 0.0  # when it was last observed
    at_work: str = ""  # the verb that a worker is carrying out
    due: float = 0.0
    looks: int = 0
    waits: float = 0.0  # since when observations are repeated
    since: float = 0.0
    partly: bool = False  # the first observation was compared only in part
    acted: float | None = None
    updated: Differs = field(default_factory=dict)  # the differences that the last update sent
    changed: bool = False
    before: RecordState = "created"  # what the manifest had before the last update
    fresh: bool = False  # this run wrote the intent
    born: bool = False  # this run created it
    works: float = 0.0  # since when it works but AWS does not report it as ready
    nudged: bool = False
    replaced: bool = False
    refused: dict[tuple[str, ErrorKind], float] = field(default_factory=dict)
    """Since when a verb has failed with a transient error, by verb and kind of error."""

    def accepted(self, verb: str) -> None:
        """Forget the errors of a verb that has succeeded."""
        self.refused = {key: since for key, since in self.refused.items() if key[0] != verb}

    def again(self, now: float, longest: float = 0.0) -> None:
        """Schedule the next observation after a growing pause, with jitter.

        ``longest`` is the maximum wait in seconds, if it is not that of the kind.
        """
        if not self.looks:
            self.waits, pause = now, 0.0
        else:
            longest = min(longest or self.want.longest_wait, HOURS)
            least = max(SHORTEST, longest / 4000)
            pause = min(max((now - self.waits) * SHARE, least), max(LONGEST, longest / 1000))
        self.looks += 1
        self.seen = -math.inf
        self.due = now + pause * random.uniform(0.9, 1.0)  # noqa: S311


def is_there(task: Task) -> bool:
    """Whether the last observation, or the answer to its create, shows it."""
    return task.observation is not None and task.observation.live is not None


class Reconciler:
    """The loop that create and delete share."""

    bare: ClassVar[bool] = False
    """Whether only the existence of resources is observed, not their facts."""

    def __init__(self, wants: Iterable[Resource], context: Context) -> None:
        self.context = context
        self.aws, self.manifest = context.aws, context.manifest
        self.tasks = {want.key: Task(want) for want in wants}
        self.open = dict(self.tasks)
        self.lives: dict[str, Live] = {}
        self.named: dict[str, Live] = {}
        """Resources that exist and that a create has named before they were ready."""
        self.references = References(ChainMap(self.lives, self.named))
        self.staged: deque[tuple[Task, Callable[[], Any]]] = deque()
        """Changing calls, submitted once the manifest that has their intents is saved."""
        self.homes: frozenset[str] = frozenset()
        """The VPCs that contain owned resources with unique names."""
        self.spared: set[str] = set()  # ids of duplicates not to be deleted again
        self.progress = context.clock.now()

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.context.clock.now()

    # --- the loop

    def run(self) -> None:
        """Finish every task; after a failure, start no calls and record those under way."""
        self.context.running = True
        try:
            while self.open:
                self._advance()
                if self.open:
                    self._receive(self._pause())
            self._commit()
        except HyperpodError as error:
            self._last_words(LAST_WORDS * 10, error)
            raise
        except BaseException as error:
            self._last_words(LAST_WORDS, error)
            raise
        finally:
            self.context.running = False

    def _advance(self) -> None:
        snapshot = Snapshot(self.aws, bare=self.bare)  # shared by all observations that begin now
        for task in list(self.open.values()):
            if task.at_work:
                continue
            if task.observation is not None and self.is_current(task, task.observation):
                if self.can_start(task):
                    self.decide(task, task.observation)
            elif task.due <= self.now and self.can_observe(task):
                self.submit(task, "look", self.looking(task, snapshot))
        self._commit()

    def _commit(self) -> None:
        """Save the manifest once for all results and decisions, then submit the staged calls."""
        self.manifest.commit()
        while self.staged:
            task, call = self.staged.popleft()
            self.context.pool.submit(task, partial(self._change, call))

    def claim(self) -> None:
        """Claim the cluster before its first change, if its bucket exists.

        Raises Locked, and OutOfDate if another run may have changed what was read before.
        """
        claim = self.context.claim
        if claim is None or claim.held or not self.has_bucket():
            return
        self.context.running = False  # a signal must not wait for the other run
        try:
            if self.context.stopped:
                raise self.context.stopped
            bucket = self.tasks.get(BUCKET)
            known = claim.take(new=bucket is not None and bucket.born)
        finally:
            self.context.running = True
        self.context.declare()
        if not known:
            raise OutOfDate

    def has_bucket(self) -> bool:
        """Whether the cluster's bucket exists, as far as this run knows."""
        task = self.tasks.get(BUCKET)
        return task is None or BUCKET in self.lives or is_there(task)

    def _change(self, call: Callable[[], Any]) -> Any:
        self.context.check()
        return call()

    def looking(self, task: Task, snapshot: Snapshot) -> Callable[[], Sequence[Live]]:
        """Return the call that observes a resource."""
        return partial(observe, task.want, snapshot)

    def _pause(self) -> float:
        """Return the seconds until a task is due; ten at most, since the clock may be changed."""
        due = [t.due for t in self.open.values() if not t.at_work and self.can_start(t)]
        if not due and not self.context.pool.at_work:
            raise AssertionError(f"nothing to do, yet not done: {sorted(self.open)}")
        return min(max(min(due, default=10.0 + self.now) - self.now, 0.0), 10.0)

    def _receive(self, seconds: float) -> None:
        if first := self.context.pool.wait(seconds):
            for result in chain([first], self.context.pool.arrived()):
                self._take(result)

    def _take(self, result: Result) -> None:
        if result.job is None:
            raise result.error or AssertionError("an empty interruption")
        task, verb = result.job, result.job.at_work
        task.at_work = ""
        if isinstance(result.error, Exception):
            self._failed(task, verb, result.error)
        elif result.error is not None:
            raise result.error
        elif verb == "look":
            task.accepted(verb)
            task.observation, task.seen = self.compare(task, result.value), self.now
            self._gets_on(task, task.observation.live)
        else:
            self.acted(task, verb, result.value)

    def _gets_on(self, task: Task, live: Live | None) -> None:
        """Count it as progress if the resource has another mark than at the last observation."""
        if live and live.mark is not None and live.mark != task.mark:
            task.mark, self.progress = live.mark, self.now

    def _last_words(self, seconds: float, error: BaseException) -> None:
        """Wait for the changes under way, and record their results in the manifest.

        Results that cannot be recorded are added to ``error``, with which the run ends.
        """
        self._unstage()
        deadline = self.now + seconds
        while self.now < deadline and any(
            t.at_work and t.at_work not in READS for t in self.tasks.values()
        ):
            result = self.context.pool.wait(deadline - self.now)
            if result is None or result.job is None:
                break  # out of time, or interrupted again
            task, verb, problem = result.job, result.job.at_work, result.error
            if problem is None and verb in ("create", "settle"):
                self.note(task, verb, result.value)
            elif verb == "settle" and isinstance(problem, Exception):
                self._undoubt(task, problem)
            task.at_work = ""
            self._note_down(error)
        self._note_down(error)

    def _unstage(self) -> None:
        """Drop the calls that were staged and not submitted, with their intents and doubts."""
        while self.staged:
            task, _ = self.staged.pop()
            if task.at_work == "settle":
                self._undoubt(task)
            if task.at_work == "create" and task.fresh:
                self.manifest.forget(task.want.key)
            task.at_work = ""

    def _note_down(self, error: BaseException) -> None:
        """Save the manifest; if that fails, add its notes to the error with which the run ends."""
        try:
            self.manifest.commit()
        except HyperpodError as problem:
            known = getattr(error, "__notes__", ())
            for note in getattr(problem, "__notes__", ()):
                if note not in known:
                    error.add_note(note)

    # --- the parts of a run

    def can_start(self, task: Task) -> bool:
        """Whether everything that must be done before is done."""
        raise NotImplementedError

    def can_observe(self, task: Task) -> bool:
        """Whether it is time to observe it."""
        return self.can_start(task)

    def is_current(self, task: Task, observation: Observation) -> bool:
        """Whether an observation is still valid."""
        return self.now - task.seen <= FRESH

    def decide(self, task: Task, observation: Observation) -> None:
        """Decide on an observation, and carry the decision out."""
        raise NotImplementedError

    def acted(self, task: Task, verb: str, value: Any) -> None:
        """Continue after a call, other than an observation, that succeeded."""
        raise NotImplementedError

    def submit(self, task: Task, verb: str, call: Callable[[], Any]) -> None:
        """Let a worker make a call, one at a time for each resource; changes wait for `_commit`."""
        task.at_work = verb
        task.since = task.since or self.now
        if verb == "look":
            task.partly = False
        if verb in READS:
            self.context.pool.submit(task, call)
        else:
            self.staged.append((task, call))

    def compare(self, task: Task, lives: Sequence[Live]) -> Observation:
        """Compare what was found with the declaration."""
        return self.compare_with(task.want, lives, self.references)

    def compare_with(
        self, want: Resource, lives: Sequence[Live], references: References
    ) -> Observation:
        """Compare what was found with a declaration; an adopted resource is used as it is."""
        if want.key in self.manifest.adopted:
            if not lives:
                return Observation(want, Status.ABSENT)
            live = replace(lives[0], owner=self.aws.lineage)
            verdicts = {State.READY: Status.MATCHES, State.FAILED: Status.FAILED}
            return Observation(want, verdicts.get(live.state, Status.BUSY), live)
        record = self.manifest.records.get(want.key)
        placement = Placement(record.id if record else "", self.homes, self.bare)
        lives = [
            replace(x, attributes={**x.attributes, "tenants": ["what AWS does not name"]})
            if x.id in self.spared
            else x
            for x in lives
        ]
        ours = self._unsigned_ours(want)
        sent = self.sent(want, references)
        return compare(
            want,
            lives,
            references,
            self.aws.lineage,
            unsigned_ours=ours,
            placement=placement,
            sent=sent,
        )

    def sent(self, want: Resource, references: References) -> Mapping[str, Sent] | None:
        """Return the facts that accepted requests have set; None if the manifest does not say.

        For an intent whose answer was lost, the facts that its create sets; in a manifest of 0.1.0,
        those that were declared.
        """
        record = self.manifest.records.get(want.key)
        if record is None or record.state == "deleted" or record.sent is not None:
            return record.sent if record and record.state != "deleted" else None
        old = self.manifest.declared(want.key)
        if old is None:
            return None
        if record.unsure:
            return born(old, references)
        return {
            name: replace(each, proof=Proof.SHOWN)
            for name, each in born(old, references, later=True).items()
        }

    def note(self, task: Task, verb: str, live: Live | None) -> None:
        """Record the result of a create or an update."""
        want = task.want
        if verb == "create" and live is not None:
            self._record(want, live, "created", born(want, self.references))
        elif verb == "settle" and (seen := task.observation) and seen.live:
            sent = accepted(seen, seen.sent, task.updated) if task.updated else None
            self._record(want, seen.live, self.amid(want, seen.live), sent)

    def amid(self, want: Resource, live: Live) -> RecordState:
        """Return the state during a change: ``updating``, unless it was certainly never ready."""
        known = self.manifest.records.get(want.key)
        if known and known.state in ("intent", "created") and known.id in ("", live.id):
            return "created"
        return "updating"

    def note_change(self, task: Task, live: Live, sent: Mapping[str, Sent] | None) -> None:
        """Record what an update is about to set; `_undoubt` takes it back."""
        known, amid = self.manifest.records.get(task.want.key), self.amid(task.want, live)
        task.before = known.state if known and known.state not in ("intent", "deleted") else amid
        self._record(task.want, live, amid, sent)

    def _undoubt(self, task: Task, error: Exception | None = None) -> None:
        """Take back the doubt about an update that was not sent, or certainly not applied."""
        seen = task.observation
        if seen and seen.live and (error is None or surely_not_applied(error)):
            self._record(task.want, seen.live, task.before, seen.sent)

    def _unsigned_ours(self, want: Resource) -> bool:
        record = self.manifest.records.get(want.key)
        if not want.is_leftover:
            return not want.signed and record is not None and record.state != "deleted"
        return self.is_ours(want.source)

    def is_ours(self, key: str) -> bool:
        """Whether the manifest or this run's observation shows that it is, or was, owned.

        An adopted resource is not, and so neither are its leftovers.  Nor is one of others that
        has the name of a recorded one, which is gone.
        """
        record, task = self.manifest.records.get(key), self.tasks.get(key)
        seen = task.observation if task else None
        if key in self.manifest.adopted or (seen and seen.status is Status.FOREIGN):
            return False
        return (record is not None and bool(record.id)) or (
            seen is not None and seen.status is not Status.ABSENT
        )

    def may_hold_data(self, want: Resource, live: Live | None) -> bool:
        """Whether it may hold data: it is of such a kind, and may have been ready before."""
        return want.data and not self._was_never_ready(want, live)

    def may_be_in_use(self, want: Resource, live: Live | None) -> bool:
        """Whether people may work in it: it is of such a kind, and may have been ready before."""
        return want.inhabited and not self._was_never_ready(want, live)

    def _was_never_ready(self, want: Resource, live: Live | None) -> bool:
        return live is not None and self.manifest.was_never_ready(want.key, live.id)

    def recorded_data(self, want: Resource) -> str:
        """Return the id of what the manifest records as data that was ready, "" for none."""
        record = self.manifest.records.get(want.key)
        return record.id if record and want.data and record.was_ready else ""

    def hidden(self, task: Task, *, doubts: bool) -> bool:
        """Whether an absent resource may exist unseen; with ``doubts``, an intent is enough."""
        record = self.manifest.records.get(task.want.key)
        if record is None or record.deletes or (record.unsure and not doubts):
            return False
        return task.seen - record.since < GRACE

    def say(self, task: Task, what: EventType, why: str = "") -> None:
        """Report an event."""
        live = self.lives.get(task.want.key) or (
            task.observation.live if task.observation else None
        )
        self.context.report(
            Event(task.want.key, what, live.id if live else "", why, changed=task.changed)
        )

    def wait(self, task: Task, why: str) -> None:
        """Observe again soon.  Raises Unfinished at the deadline, or too long without progress."""
        self.say(task, EventType.WAITING, why)
        since, longest = max(task.since, self.progress), self.longest_wait(task)
        if self.now > min(since + longest, self.context.deadline):
            self.say(task, EventType.FAILED, why)
            live = task.observation.live if task.observation else None
            raise Unfinished(
                f"{task.want.key}: timed out ({why or 'AWS gives no reason'})",
                cause=live.cause if live else None,
            )
        task.again(self.now, longest)

    def longest_wait(self, task: Task) -> float:
        """Return the seconds without progress after which waiting for it ends."""
        return task.want.longest_wait

    def end(self, task: Task) -> None:
        """Close the task."""
        self.progress = self.now
        self.open.pop(task.want.key, None)

    def _record(
        self, want: Resource, live: Live, state: RecordState, sent: Mapping[str, Sent] | None = None
    ) -> None:
        if want.recorded:
            self.manifest.record(want, live, state, self.now, sent)

    def _failed(self, task: Task, verb: str, error: Exception) -> None:
        """Handle a failed call: retry after a transient error, else stop the run."""
        key, kind = task.want.key, classify(error)
        # "exists" may be the answer to botocore's repetition of a request that succeeded
        nothing_made = kind is not ErrorKind.EXISTS and surely_not_applied(error)
        if verb == "create" and task.fresh and nothing_made:
            self.manifest.forget(key)
        patience = PATIENCE.get(kind) if kind else None
        words = words_of(error)
        if patience is not None:
            assert kind
            first = task.refused.setdefault((verb, kind), self.now)
            if self.now <= min(first + patience, self.context.deadline):
                self.say(task, EventType.WAITING, f"{kind}: {words}")
                task.again(self.now)
                return
        self.say(task, EventType.FAILED, words)
        raise explained(task.want, verb, error, kind, words) from error


def observe(want: Resource, snapshot: Snapshot) -> Sequence[Live]:
    """Find a resource; for duplicates, also what uses each, unless it is for a delete."""
    lives = want.find(snapshot)
    ours = [x for x in lives if x.owner == snapshot.aws.lineage and x.state is not State.LEAVING]
    if want.identity is Identity.NAME or snapshot.bare or len(ours) < 2:
        return lives
    return [
        replace(x, attributes={**x.attributes, "tenants": want.used_by(snapshot, x)})
        if x in ours
        else x
        for x in lives
    ]
