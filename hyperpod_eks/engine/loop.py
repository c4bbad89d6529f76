"""The loop: look, judge, act, look again.

Every resource has its turn as soon as what it depends on is ready (or, in a delete, as soon as
what depends on it is gone).  Workers make the calls; this thread alone decides, writes the journal
and tells the story.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from hyperpod_eks.aws.client import Aws, Look, meaning, refused
from hyperpod_eks.aws.errors import PATIENCE, Class
from hyperpod_eks.engine.wording import explained, words_of
from hyperpod_eks.errors import HyperpodError, Unfinished
from hyperpod_eks.events import Event, Report, What
from hyperpod_eks.resources.base import Differs, Known, Live, Proof, Resource, Sent, State
from hyperpod_eks.resources.compare import Bearings, Sight, Verdict, accepted, born, judge
from hyperpod_eks.state.manifest import Manifest, Unwritable
from hyperpod_eks.workers import Clock, Crew, Result

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
class World:
    """What every command holds: AWS, the journal, and who is listening."""

    aws: Aws
    manifest: Manifest
    report: Report
    clock: Clock = field(default_factory=Clock)
    parallelism: int = 8
    replace_failed: bool = False
    consent: Callable[[list[str]], None] = lambda lost: None
    """Asked before the first change with what it would take away; raises to refuse."""
    preflight: Callable[[list[Sight]], None] = lambda sights: None
    """Asked before the first change, with the first look, when something is to be created."""
    warn: Callable[[str], None] = lambda text: None
    """Told what does not stop us."""
    deadline: float = math.inf
    """When to stop waiting, in seconds since the epoch."""
    begun: Look | None = None
    """A look that others have begun a moment ago; the first look at everything goes on with it."""
    crew: Crew = field(init=False)

    def __post_init__(self) -> None:
        self.crew = Crew(self.parallelism, self.clock)
        self.running = False
        self.aws.recorded = {arn for x in self.manifest.records.values() for arn in x.arns}
        now = self.clock.now()  # a clock that was fast lets nothing be hidden until it catches up
        for key, record in self.manifest.records.items():
            if record.since > now:
                self.manifest.records[key] = replace(record, since=now)

    def stop(self, error: BaseException) -> None:
        """Stop in good order, from a signal handler: the loop ends, or else this very line."""
        if self.running:
            self.crew.interrupt(error)
        else:
            raise error


@dataclass
class Turn:
    """Where one resource stands in a run."""

    want: Resource
    mark: object = None  # how far it had come at the last look
    sight: Sight | None = None
    seen: float = 0.0  # when the sight was taken
    at_work: str = ""  # the verb that a worker is carrying out
    due: float = 0.0
    looks: int = 0
    waits: float = 0.0  # since when, while looks are repeated
    since: float = 0.0
    partly: bool = False  # not all of what the first look saw could be compared
    acted: float | None = None
    settled: Differs = field(default_factory=dict)  # what the last settle was to change
    changed: bool = False
    fresh: bool = False  # this run wrote the intent
    born: bool = False  # this run made it
    works: float = 0.0  # since when it works and AWS does not say so
    nudged: bool = False
    replaced: bool = False
    refused: dict[tuple[str, Class], float] = field(default_factory=dict)
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


def is_there(turn: Turn) -> bool:
    """Whether the last look, or the answer to its birth, shows it."""
    return turn.sight is not None and turn.sight.live is not None


class Run:
    """The loop that create and delete share."""

    bare: ClassVar[bool] = False
    """Whether it does not matter what things are like."""

    def __init__(self, wants: Iterable[Resource], world: World) -> None:
        self.world = world
        self.aws, self.manifest = world.aws, world.manifest
        self.turns = {want.key: Turn(want) for want in wants}
        self.open = dict(self.turns)
        self.lives: dict[str, Live] = {}
        self.known = Known(self.lives)
        self.homes: frozenset[str] = frozenset()
        """VPCs in which there is something of ours that has a unique name."""
        self.spared: set[str] = set()  # twins that AWS did not let us delete
        self.progress = world.clock.now()

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.world.clock.now()

    # --- the loop

    def run(self) -> None:
        """Bring every turn to its end; a failure stops new work, and what is under way is kept."""
        self.world.running = True
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
            self.world.running = False

    def _advance(self) -> None:
        look = Look(self.aws, bare=self.bare)  # shared by all that look in this moment
        for turn in list(self.open.values()):
            if turn.at_work:
                continue
            if turn.sight is not None and self.believed(turn, turn.sight):
                if self.may_begin(turn):
                    self.decide(turn, turn.sight)
            elif turn.due <= self.now and self.may_look(turn):
                self.submit(turn, "look", self.looking(turn, look))

    def looking(self, turn: Turn, look: Look) -> Callable[[], Sequence[Live]]:
        """Return the call that looks at it."""
        return partial(observe, turn.want, look)

    def _pause(self) -> float:
        """Seconds until something is due; ten at most, for the clock may be changed."""
        due = [t.due for t in self.open.values() if not t.at_work and self.may_begin(t)]
        if not due and not self.world.crew.at_work:
            raise AssertionError(f"nothing to do, yet not done: {sorted(self.open)}")
        return min(max(min(due, default=10.0 + self.now) - self.now, 0.0), 10.0)

    def _receive(self, seconds: float) -> None:
        result = self.world.crew.wait(seconds)
        if result is None:
            return
        if result.job is None:
            raise result.error or AssertionError("an empty interruption")
        self._take(result)

    def _take(self, result: Result) -> None:
        turn, verb = result.job, result.job.at_work
        turn.at_work = ""
        if isinstance(result.error, Exception):
            self._failed(turn, verb, result.error)
        elif result.error is not None:
            raise result.error
        elif verb == "look":
            turn.accepted(verb)
            turn.sight, turn.seen = self.judge(turn, result.value), self.now
            self._gets_on(turn, turn.sight.live)
        else:
            self.acted(turn, verb, result.value)

    def _gets_on(self, turn: Turn, live: Live | None) -> None:
        """Count it as progress when a look shows it further than the one before."""
        if live and live.mark is not None and live.mark != turn.mark:
            turn.mark, self.progress = live.mark, self.now

    def _last_words(self, seconds: float, error: BaseException) -> None:
        """Wait a moment for the changes under way, so that the journal knows what came of them.

        What cannot be written down is added to the error that we end with.
        """
        deadline = self.now + seconds
        while self.now < deadline and any(
            t.at_work not in ("", "look", "holders") for t in self.turns.values()
        ):
            result = self.world.crew.wait(deadline - self.now)
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

    def may_begin(self, turn: Turn) -> bool:
        """Whether everything that must come first is done."""
        raise NotImplementedError

    def may_look(self, turn: Turn) -> bool:
        """Whether it is time to look at it."""
        return self.may_begin(turn)

    def believed(self, turn: Turn, sight: Sight) -> bool:
        """Whether a look still tells how things are."""
        return self.now - turn.seen <= FRESH

    def decide(self, turn: Turn, sight: Sight) -> None:
        """Do what follows from a look."""
        raise NotImplementedError

    def acted(self, turn: Turn, verb: str, value: Any) -> None:
        """Go on after a change that AWS accepted."""
        raise NotImplementedError

    def submit(self, turn: Turn, verb: str, call: Callable[[], Any]) -> None:
        """Have a call made; one at a time for each resource."""
        turn.at_work = verb
        turn.since = turn.since or self.now
        if verb == "look":
            turn.partly = False
        self.world.crew.submit(turn, call)

    def judge(self, turn: Turn, lives: Sequence[Live]) -> Sight:
        """Say what a look means."""
        return self.judged(turn.want, lives, self.known)

    def judged(self, want: Resource, lives: Sequence[Live], known: Known) -> Sight:
        """Judge; what was adopted is as it is."""
        if want.key in self.manifest.adopted:
            if not lives:
                return Sight(want, Verdict.ABSENT)
            live = replace(lives[0], owner=self.aws.lineage)
            verdicts = {State.READY: Verdict.MATCHES, State.FAILED: Verdict.FAILED}
            return Sight(want, verdicts.get(live.state, Verdict.BUSY), live)
        record = self.manifest.records.get(want.key)
        bearings = Bearings(record.id if record else "", self.homes, self.bare)
        lives = [
            replace(x, attributes={**x.attributes, "tenants": ["what AWS does not name"]})
            if x.id in self.spared
            else x
            for x in lives
        ]
        ours = self._unsigned_ours(want)
        sent = self.sent(want, known)
        return judge(
            want, lives, known, self.aws.lineage, unsigned_ours=ours, bearings=bearings, sent=sent
        )

    def sent(self, want: Resource, known: Known) -> Mapping[str, Sent] | None:
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
            return born(old, known)
        return {
            name: replace(each, proof=Proof.SHOWN)
            for name, each in born(old, known, later=True).items()
        }

    def note(self, turn: Turn, verb: str, live: Live | None) -> None:
        """Write down what came of a call that AWS accepted."""
        want = turn.want
        if verb == "create" and live is not None:
            self._record(want, live, "created", born(want, self.known))
        elif verb == "settle" and turn.sight and turn.sight.live:
            sent = accepted(turn.sight, turn.sight.sent, turn.settled)
            self._record(want, turn.sight.live, "created", sent)

    def _unsigned_ours(self, want: Resource) -> bool:
        record = self.manifest.records.get(want.key)
        if want.made:
            return not want.signed and record is not None and record.state != "deleted"
        return self.is_ours(want.source)

    def is_ours(self, key: str) -> bool:
        """Whether the journal or this run's looks say that it is, or was, this cluster's.

        What comes of something adopted is its owner's, as it is itself.
        """
        if key in self.manifest.adopted:
            return False
        record, turn = self.manifest.records.get(key), self.turns.get(key)
        seen = turn.sight if turn else None
        return (record is not None and bool(record.id)) or (
            seen is not None and seen.verdict not in (Verdict.ABSENT, Verdict.FOREIGN)
        )

    def hidden(self, turn: Turn, *, doubts: bool) -> bool:
        """Whether an absent thing may only be invisible yet; ``doubts``: an intent is enough."""
        record = self.manifest.records.get(turn.want.key)
        if record is None or record.state.startswith("delet") or (record.unsure and not doubts):
            return False
        return turn.seen - record.since < GRACE

    def say(self, turn: Turn, what: What, why: str = "") -> None:
        """Tell whoever listens."""
        live = self.lives.get(turn.want.key) or (turn.sight.live if turn.sight else None)
        self.world.report(
            Event(turn.want.key, what, live.id if live else "", why, changed=turn.changed)
        )

    def wait(self, turn: Turn, why: str) -> None:
        """Look again soon, unless patience is out: nothing anywhere has moved for too long."""
        self.say(turn, What.WAITING, why)
        since, longest = max(turn.since, self.progress), self.longest_wait(turn)
        if self.now > min(since + longest, self.world.deadline):
            self.say(turn, What.FAILED, why)
            raise Unfinished(f"{turn.want.key}: still waiting ({why or 'no reason given'})")
        turn.again(self.now, longest)

    def longest_wait(self, turn: Turn) -> float:
        """Seconds without progress after which patience with it ends."""
        return turn.want.longest_wait

    def end(self, turn: Turn) -> None:
        """Its part is done."""
        self.progress = self.now
        self.open.pop(turn.want.key, None)

    def _record(
        self, want: Resource, live: Live, state: str, sent: Mapping[str, Sent] | None = None
    ) -> None:
        if want.recorded:
            try:
                self.manifest.record(want, live, state, self.now, sent)
            except Unwritable as error:
                error.add_note(
                    f"made, but not recorded: {want.key} is {live.id} {live.arn}".rstrip()
                )
                raise

    def _failed(self, turn: Turn, verb: str, error: Exception) -> None:
        """A call raised: wait it out if time heals it, else stop the run with its words."""
        key, kind = turn.want.key, meaning(error)
        # "exists" may answer a request that botocore had to repeat: then the thing is ours
        if verb == "create" and turn.fresh and kind is not Class.EXISTS and refused(error):
            self.manifest.forget(key)
        patience = PATIENCE.get(kind) if kind else None
        words = words_of(error)
        if patience is not None:
            assert kind
            first = turn.refused.setdefault((verb, kind), self.now)
            if self.now <= min(first + patience, self.world.deadline):
                self.say(turn, What.WAITING, f"{kind}: {words}")
                turn.again(self.now)
                return
        self.say(turn, What.FAILED, words)
        raise explained(turn.want, verb, error, kind, words) from error


def observe(want: Resource, look: Look) -> Sequence[Live]:
    """Find it; where there are several, with what uses each, which a delete need not know."""
    lives = want.find(look)
    ours = [x for x in lives if x.owner == look.aws.lineage and x.state is not State.LEAVING]
    if want.named or look.bare or len(ours) < 2:
        return lives
    return [
        replace(x, attributes={**x.attributes, "tenants": want.tenants(look, x)})
        if x in ours
        else x
        for x in lives
    ]


def look_at_all(run: Run) -> list[Sight]:
    """One concurrent look at everything; each resource is judged once what it needs is judged.

    What cannot be seen yet counts as busy and is looked at again in its turn: helm's release, for
    one, is behind an access entry that may not have been made.
    """
    return judge_all(run, *find_all(run, [t for t in run.turns.values() if t.want.made]))


def find_all(run: Run, turns: Iterable[Turn]) -> tuple[dict[str, Sequence[Live]], dict[str, Sight]]:
    """Find what there is of each, at once; and by key, what cannot be seen now."""
    look, run.world.begun = run.world.begun or Look(run.aws, bare=run.bare), None
    found: dict[str, Sequence[Live]] = {}
    unseen: dict[str, Sight] = {}
    looking = {turn.want.key: turn for turn in turns}
    with run.world.crew.doubled():
        while looking:
            for turn in looking.values():
                if not turn.at_work and turn.due <= run.now:
                    run.submit(turn, "look", partial(observe, turn.want, look))
            due = min((t.due for t in looking.values() if not t.at_work), default=run.now + 10)
            result = run.world.crew.wait(max(due - run.now, 0.0))
            if result is None:
                continue
            if result.job is None:
                raise result.error or AssertionError("an empty interruption")
            turn, key = result.job, result.job.want.key
            turn.at_work = ""
            if not isinstance(result.error, Exception | None):
                raise result.error
            if result.error is None:
                found[key] = result.value
            elif meaning(result.error) is Class.PROPAGATION:
                nothing = Live("", state=State.BUSY, why=words_of(result.error))
                unseen[key] = Sight(turn.want, Verdict.BUSY, nothing)
            else:
                run._failed(turn, "look", result.error)
                continue
            del looking[key]
    return found, unseen


def judge_all(
    run: Run, found: Mapping[str, Sequence[Live]], unseen: Mapping[str, Sight]
) -> list[Sight]:
    """Judge in the order of dependence, so that ids can be compared."""
    seen: dict[str, Live] = {}
    known, sights = Known(seen), []
    run.homes = frozenset(
        live.attributes["vpc"]
        for key, lives in found.items()
        for live in lives
        if run.turns[key].want.named and live.owner == run.aws.lineage and "vpc" in live.attributes
    )
    for turn in run.turns.values():
        key = turn.want.key
        if key in unseen:
            sights.append(unseen[key])
        if key not in found:
            continue
        sight = run.judged(turn.want, found[key], known)
        turn.sight, turn.seen = sight, run.now
        if sight.live and not all(need in known for need in turn.want.needs() if need.made):
            turn.partly = True  # facts about what is not there yet were not compared
        if sight.live and sight.verdict not in (Verdict.FOREIGN, Verdict.TWINS):
            seen[key] = sight.live
        sights.append(sight)
    return sights


def rebuild(wants: Sequence[Resource], world: World) -> list[Sight]:
    """Write everything into the journal that names and tags say is ours; change nothing."""
    run = Run(wants, world)
    found = []
    for sight in look_at_all(run):
        if sight.verdict is Verdict.FOREIGN or not sight.want.recorded:
            continue
        if sight.live and sight.live.id:
            state = "ready" if sight.verdict is Verdict.MATCHES else "created"
            run._record(sight.want, sight.live, state, sight.sent or {})
            found.append(sight)
    return found


def status(wants: Sequence[Resource], world: World) -> list[Sight]:
    """Look at everything, change nothing."""
    return look_at_all(Run(wants, world))
