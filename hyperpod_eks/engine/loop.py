"""The loop: observe, compare, act, observe again.

Each resource is processed as soon as its dependencies are ready (or, in a delete, as soon as the
resources that depend on it are gone).  Workers make the calls; this thread alone decides, writes
the journal and reports events.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.errors import PATIENCE, ErrorKind
from hyperpod_eks.aws.failures import classify, surely_not_applied
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.engine.wording import explained, words_of
from hyperpod_eks.errors import HyperpodError, Unfinished
from hyperpod_eks.events import Event, EventType, Report
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
from hyperpod_eks.state.file_store import Unwritable
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.workers import Clock, Result, WorkerPool

SHORTEST, LONGEST, SHARE = 0.3, 5.0, 1 / 50
"""A pause between two looks at the same thing is a share of the time that we have waited for it,
in seconds: what takes a moment is seen soon, what takes hours is not asked for a thousand times.
Nothing that may take an hour, as its patience says, is asked for at once again."""
HOURS = 8 * 3600.0
"""Of what is waited for longer, the pauses are those of what is waited for eight hours: half a
minute at most."""
GRACE = 60.0
"""Seconds that AWS may take to show what was made; absence is believed only after them."""
FRESH = 2.0
"""Seconds for which a look at something that is there is believed; an older one is repeated before
anything is done.  What the first look did not find, and the journal knows of no birth of, stays
absent: only we make what carries our name and signature from birth, and should somebody have come
first all the same, AWS refuses the name and the next look tells whose it is."""
LAST_WORDS = 3.0
"""Seconds that calls under way may still take to answer once we are told to stop."""


@dataclass
class Context:
    """What every command holds: AWS, the journal, and who is listening."""

    aws: Aws
    manifest: Manifest
    report: Report
    clock: Clock = field(default_factory=Clock)
    parallelism: int = 8
    replace_failed: bool = False
    consent: Callable[[list[str]], None] = lambda lost: None
    """Asked before the first change with what it would take away; raises to refuse."""
    preflight: Callable[[list[Observation]], None] = lambda observations: None
    """Asked before the first change, with the first look, when something is to be created."""
    warn: Callable[[str], None] = lambda text: None
    """Told what does not stop us."""
    deadline: float = math.inf
    """When to stop waiting, in seconds since the epoch."""
    first_snapshot: Snapshot | None = None
    """A look that others have begun a moment ago; the first look at everything goes on with it."""
    pool: WorkerPool = field(init=False)

    def __post_init__(self) -> None:
        self.pool = WorkerPool(self.parallelism, self.clock)
        self.running = False
        self.aws.adopted = self.manifest.adopted
        self.aws.recorded = {arn for x in self.manifest.records.values() for arn in x.arns}
        now = self.clock.now()  # a clock that was fast lets nothing be hidden until it catches up
        for key, record in self.manifest.records.items():
            if record.since > now:
                self.manifest.records[key] = replace(record, since=now)

    def stop(self, error: BaseException) -> None:
        """Stop in good order, from a signal handler: the loop ends, or else this very line."""
        if self.running:
            self.pool.interrupt(error)
        else:
            raise error


@dataclass
class Task:
    """Where one resource stands in a run."""

    want: Resource
    mark: object = None  # how far it had come at the last look
    observation: Observation | None = None
    seen: float = 0.0  # when the sight was taken
    at_work: str = ""  # the verb that a worker is carrying out
    due: float = 0.0
    looks: int = 0
    waits: float = 0.0  # since when, while looks are repeated
    since: float = 0.0
    partly: bool = False  # not all of what the first look saw could be compared
    acted: float | None = None
    updated: Differs = field(default_factory=dict)  # what the last settle was to change
    changed: bool = False
    fresh: bool = False  # this run wrote the intent
    born: bool = False  # this run made it
    works: float = 0.0  # since when it works and AWS does not say so
    nudged: bool = False
    replaced: bool = False
    refused: dict[tuple[str, ErrorKind], float] = field(default_factory=dict)
    """Since when a verb is being refused for a reason that time heals."""

    def accepted(self, verb: str) -> None:
        """Forget the refusals of a verb that has worked."""
        self.refused = {key: since for key, since in self.refused.items() if key[0] != verb}

    def again(self, now: float, longest: float = 0.0) -> None:
        """Look again after a pause that grows, a little apart from everybody else.

        ``longest`` is how long it is waited for, if not as long as its like.
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
    """Whether the last look, or the answer to its birth, shows it."""
    return task.observation is not None and task.observation.live is not None


class Reconciler:
    """The loop that create and delete share."""

    bare: ClassVar[bool] = False
    """Whether it does not matter what things are like."""

    def __init__(self, wants: Iterable[Resource], context: Context) -> None:
        self.context = context
        self.aws, self.manifest = context.aws, context.manifest
        self.tasks = {want.key: Task(want) for want in wants}
        self.open = dict(self.tasks)
        self.lives: dict[str, Live] = {}
        self.references = References(self.lives)
        self.homes: frozenset[str] = frozenset()
        """VPCs in which there is something of ours that has a unique name."""
        self.spared: set[str] = set()  # twins that AWS did not let us delete
        self.progress = context.clock.now()

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.context.clock.now()

    # --- the loop

    def run(self) -> None:
        """Bring every turn to its end; a failure stops new work, and what is under way is kept."""
        self.context.running = True
        try:
            while self.open:
                self._advance()
                if self.open:
                    self._receive(self._pause())
        except HyperpodError as error:
            self._last_words(LAST_WORDS * 10, error)
            raise
        except BaseException as error:
            self._last_words(LAST_WORDS, error)
            raise
        finally:
            self.context.running = False

    def _advance(self) -> None:
        snapshot = Snapshot(self.aws, bare=self.bare)  # shared by all that look in this moment
        for task in list(self.open.values()):
            if task.at_work:
                continue
            if task.observation is not None and self.is_current(task, task.observation):
                if self.can_start(task):
                    self.decide(task, task.observation)
            elif task.due <= self.now and self.can_observe(task):
                self.submit(task, "look", self.looking(task, snapshot))

    def looking(self, task: Task, snapshot: Snapshot) -> Callable[[], Sequence[Live]]:
        """Return the call that looks at it."""
        return partial(observe, task.want, snapshot)

    def _pause(self) -> float:
        """Seconds until something is due; ten at most, for the clock may be changed."""
        due = [t.due for t in self.open.values() if not t.at_work and self.can_start(t)]
        if not due and not self.context.pool.at_work:
            raise AssertionError(f"nothing to do, yet not done: {sorted(self.open)}")
        return min(max(min(due, default=10.0 + self.now) - self.now, 0.0), 10.0)

    def _receive(self, seconds: float) -> None:
        result = self.context.pool.wait(seconds)
        if result is None:
            return
        if result.job is None:
            raise result.error or AssertionError("an empty interruption")
        self._take(result)

    def _take(self, result: Result) -> None:
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
        """Count it as progress when a look shows it further than the one before."""
        if live and live.mark is not None and live.mark != task.mark:
            task.mark, self.progress = live.mark, self.now

    def _last_words(self, seconds: float, error: BaseException) -> None:
        """Wait a moment for the changes under way, so that the journal knows what came of them.

        What cannot be written down is added to the error that we end with.
        """
        deadline = self.now + seconds
        while self.now < deadline and any(
            t.at_work not in ("", "look", "holders") for t in self.tasks.values()
        ):
            result = self.context.pool.wait(deadline - self.now)
            if result is None or result.job is None:
                return  # time is up, or told a second time
            if result.error is None and result.job.at_work in ("create", "settle"):
                try:
                    self.note(result.job, result.job.at_work, result.value)
                except Unwritable as problem:
                    for note in problem.__notes__:
                        error.add_note(note)
            result.job.at_work = ""

    # --- what a run is made of

    def can_start(self, task: Task) -> bool:
        """Whether everything that must come first is done."""
        raise NotImplementedError

    def can_observe(self, task: Task) -> bool:
        """Whether it is time to look at it."""
        return self.can_start(task)

    def is_current(self, task: Task, observation: Observation) -> bool:
        """Whether a look still tells how things are."""
        return self.now - task.seen <= FRESH

    def decide(self, task: Task, observation: Observation) -> None:
        """Do what follows from a look."""
        raise NotImplementedError

    def acted(self, task: Task, verb: str, value: Any) -> None:
        """Go on after a change that AWS accepted."""
        raise NotImplementedError

    def submit(self, task: Task, verb: str, call: Callable[[], Any]) -> None:
        """Have a call made; one at a time for each resource."""
        task.at_work = verb
        task.since = task.since or self.now
        if verb == "look":
            task.partly = False
        self.context.pool.submit(task, call)

    def compare(self, task: Task, lives: Sequence[Live]) -> Observation:
        """Say what a look means."""
        return self.compare_with(task.want, lives, self.references)

    def compare_with(
        self, want: Resource, lives: Sequence[Live], references: References
    ) -> Observation:
        """Judge; what was adopted is as it is."""
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
        """Remember what accepted requests have set; None where the journal does not know.

        Of an intent whose answer was lost, what it was to set; in a manifest of 0.1.0, what was
        declared.
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
        """Write down what came of a call that AWS accepted."""
        want = task.want
        if verb == "create" and live is not None:
            self._record(want, live, "created", born(want, self.references))
        elif verb == "settle" and task.observation and task.observation.live:
            sent = accepted(task.observation, task.observation.sent, task.updated)
            self._record(want, task.observation.live, "created", sent)

    def _unsigned_ours(self, want: Resource) -> bool:
        record = self.manifest.records.get(want.key)
        if not want.is_leftover:
            return not want.signed and record is not None and record.state != "deleted"
        return self.is_ours(want.source)

    def is_ours(self, key: str) -> bool:
        """Whether the journal or this run's looks say that it is, or was, this cluster's.

        What comes of something adopted is its owner's, as it is itself.
        """
        if key in self.manifest.adopted:
            return False
        record, task = self.manifest.records.get(key), self.tasks.get(key)
        seen = task.observation if task else None
        return (record is not None and bool(record.id)) or (
            seen is not None and seen.status not in (Status.ABSENT, Status.FOREIGN)
        )

    def hidden(self, task: Task, *, doubts: bool) -> bool:
        """Whether an absent thing may only be invisible yet; ``doubts``: an intent is enough."""
        record = self.manifest.records.get(task.want.key)
        if record is None or record.state.startswith("delet") or (record.unsure and not doubts):
            return False
        return task.seen - record.since < GRACE

    def say(self, task: Task, what: EventType, why: str = "") -> None:
        """Tell whoever listens."""
        live = self.lives.get(task.want.key) or (
            task.observation.live if task.observation else None
        )
        self.context.report(
            Event(task.want.key, what, live.id if live else "", why, changed=task.changed)
        )

    def wait(self, task: Task, why: str) -> None:
        """Look again soon, unless patience is out: nothing anywhere has moved for too long."""
        self.say(task, EventType.WAITING, why)
        since, longest = max(task.since, self.progress), self.longest_wait(task)
        if self.now > min(since + longest, self.context.deadline):
            self.say(task, EventType.FAILED, why)
            raise Unfinished(f"{task.want.key}: timed out ({why or 'AWS gives no reason'})")
        task.again(self.now, longest)

    def longest_wait(self, task: Task) -> float:
        """Seconds without progress after which patience with it ends."""
        return task.want.longest_wait

    def end(self, task: Task) -> None:
        """Its part is done."""
        self.progress = self.now
        self.open.pop(task.want.key, None)

    def _record(
        self, want: Resource, live: Live, state: str, sent: Mapping[str, Sent] | None = None
    ) -> None:
        if want.recorded:
            try:
                self.manifest.record(want, live, state, self.now, sent)
            except Unwritable as error:
                error.add_note(
                    f"created, but not recorded: {want.key} is {live.id} {live.arn}".rstrip()
                )
                raise

    def _failed(self, task: Task, verb: str, error: Exception) -> None:
        """A call raised: wait it out if time heals it, else stop the run with its words."""
        key, kind = task.want.key, classify(error)
        # "exists" may answer a request that botocore had to repeat: then the thing is ours
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
    """Find it; where there are several, with what uses each, which a delete need not know."""
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
