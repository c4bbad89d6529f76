"""Look, judge, act, look again: the one loop behind create, status and delete.

Every resource has its turn as soon as what it depends on is ready (or, in a delete, as soon as
what depends on it is gone).  Workers make the calls; this thread alone decides, writes the journal
and tells the story.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from hyperpod_eks.aws import Aws, Look, meaning, refused
from hyperpod_eks.crew import Clock, Crew, Result
from hyperpod_eks.errors import (
    Capacity,
    Denied,
    Foreign,
    HyperpodError,
    NotFound,
    Remains,
    Unfinished,
    Usage,
)
from hyperpod_eks.manifest import Manifest, Unwritable
from hyperpod_eks.report import Event, Report, What
from hyperpod_eks.resource import Immovable, Known, Live, Resource, Sight, State, Verdict, judge
from hyperpod_eks.retry import PATIENCE, Class, lacks_room

SHORTEST, LONGEST, SHARE = 0.3, 5.0, 1 / 50
"""A pause between two looks at the same thing is a share of the time that we have waited for it,
in seconds: what takes a moment is seen soon, what takes an hour is not asked for a thousand times.
Nothing that may take an hour, as its patience says, is asked for at once again."""
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
    deadline: float = math.inf
    """When to stop waiting, in seconds since the epoch."""
    begun: Look | None = None
    """A look that others have begun a moment ago; the first look at everything goes on with it."""
    crew: Crew = field(init=False)

    def __post_init__(self) -> None:
        self.crew = Crew(self.parallelism, self.clock)
        self.running = False

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
    sight: Sight | None = None
    seen: float = 0.0  # when the sight was taken
    at_work: str = ""  # the verb that a worker is carrying out
    due: float = 0.0
    looks: int = 0
    waits: float = 0.0  # since when, while looks are repeated
    since: float = 0.0
    partly: bool = False  # not all of what the first look saw could be compared
    acted: float | None = None
    settled: Mapping[str, Any] = field(default_factory=dict)  # what the last settle was to change
    changed: bool = False
    fresh: bool = False  # this run wrote the intent
    replaced: bool = False
    refused: dict[tuple[str, Class], float] = field(default_factory=dict)
    """Since when a verb is being refused for a reason that time heals."""

    def accepted(self, verb: str) -> None:
        """Forget the refusals of a verb that has worked."""
        self.refused = {key: since for key, since in self.refused.items() if key[0] != verb}

    def again(self, now: float) -> None:
        """Look again after a pause that grows, a little apart from everybody else."""
        if not self.looks:
            self.waits, pause = now, 0.0
        else:
            least = max(SHORTEST, self.want.patience / 4000)
            pause = min(max((now - self.waits) * SHARE, least), LONGEST)
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
                self.submit(turn, "look", partial(turn.want.find, look))

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
        else:
            self.acted(turn, verb, result.value)

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
            if result.error is None and result.job.at_work == "create":
                try:
                    self._record(result.job.want, result.value, "created")
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
            verdict = Verdict.MATCHES if live.state is State.READY else Verdict.BUSY
            return Sight(want, verdict, live)
        ours = self._unsigned_ours(want)
        return judge(want, lives, known, self.aws.lineage, unsigned_ours=ours)

    def _unsigned_ours(self, want: Resource) -> bool:
        record = self.manifest.records.get(want.key)
        if want.made:
            return not want.signed and record is not None and record.state != "deleted"
        return self.is_ours(want.source)

    def is_ours(self, key: str) -> bool:
        """Whether the journal or this run's looks say that it is, or was, this cluster's."""
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
        patience_ends = max(turn.since, self.progress) + turn.want.patience
        if self.now > min(patience_ends, self.world.deadline):
            self.say(turn, What.FAILED, why)
            raise Unfinished(f"{turn.want.key}: still waiting ({why or 'no reason given'})")
        turn.again(self.now)

    def end(self, turn: Turn) -> None:
        """Its part is done."""
        self.progress = self.now
        self.open.pop(turn.want.key, None)

    def _record(self, want: Resource, live: Live, state: str) -> None:
        if want.recorded:
            try:
                self.manifest.record(want, live, state, self.now)
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


def words_of(error: Exception) -> str:
    """AWS's message without botocore's frame around it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and response.get("Error", {}).get("Message"):
        return f"{response['Error']['Message']} ({response['Error'].get('Code', '')})"
    return str(error)


def explained(
    want: Resource, verb: str, error: Exception, kind: Class | None, words: str
) -> Exception:
    """Turn a failed call into the error that the command ends with."""
    doing = {"look": "looking at", "create": "creating", "settle": "updating", "delete": "deleting"}
    message = f"{doing[verb]} {want.key}: {words}"
    again = "Nothing is lost: run the same command again."
    match kind:
        case Class.EXPIRED:
            return Denied(message)
        case Class.DENIED:
            return Denied(message, f"Allow the action for your identity. {again}")
        case Class.CAPACITY:
            return Capacity(message, f"Ask for more under Service Quotas, or make room. {again}")
        case Class.DEPENDENCY:
            return Remains(message)
        case None if isinstance(error, HyperpodError):
            return error
        case None if not hasattr(error, "response"):
            error.add_note(f"while {doing[verb]} {want.key}")
            return error
    return HyperpodError(message, again)


class Provide(Run):
    """Make everything as declared."""

    def __init__(self, wants: Iterable[Resource], world: World) -> None:
        super().__init__(wants, world)
        self.consented: set[str] = set()

    def run(self) -> None:
        """Look at everything at once, refuse strangers before the first change, then make it."""
        for turn in self.turns.values():
            if turn.want.made:
                self.say(turn, What.PENDING)
            else:
                self.end(turn)
        sights = look_at_all(self)
        strangers = [s for s in sights if s.verdict is Verdict.FOREIGN]
        if strangers:
            raise foreign(strangers)
        drifted = [s for s in sights if s.verdict is Verdict.DRIFTED]
        if reasons := impossible(drifted, undeclared(self.turns, self.manifest)):
            raise Usage("\n".join(reasons), "Declare it as it is, or make another cluster.")
        self._consent(line for s in drifted if s.live for line in s.want.loses(s.live, s.differs))
        if any(s.verdict is Verdict.ABSENT and s.want.recorded for s in sights):
            self.world.preflight(sights)
        super().run()

    def _consent(self, lost: Iterable[str]) -> None:
        """Ask, once, about what goes: all of it before the first change, as far as it shows."""
        if lines := [line for line in lost if line not in self.consented]:
            self.world.consent(lines)
            self.consented.update(lines)

    def may_begin(self, turn: Turn) -> bool:
        """Once everything is ready that its create names, or, if it is there, all that it needs."""
        if is_there(turn):
            return all(need.key not in self.open for need in turn.want.needs())
        return all(seed.key not in self.open for seed in turn.want.seeds()) and all(
            is_there(self.turns[each.key]) for each in turn.want.forerunners()
        )

    def believed(self, turn: Turn, sight: Sight) -> bool:
        """Absence lasts, unless the journal or the missing signature leaves doubts; see FRESH."""
        want, record = turn.want, self.manifest.records.get(turn.want.key)
        lasts = (
            sight.verdict is Verdict.ABSENT
            and want.signed
            and want.made
            and not want.awaited
            and (record is None or record.state == "deleted")
            and turn.seen > -math.inf
        )
        return lasts or (super().believed(turn, sight) and not turn.partly)

    def decide(self, turn: Turn, sight: Sight) -> None:
        """Create what is absent, settle what differs, wait for what is busy."""
        if sight.live and sight.verdict in (Verdict.MATCHES, Verdict.DRIFTED):
            # judged before what it needs was made, perhaps: its ids were not known then
            sight = turn.sight = self.judge(turn, [sight.live])
        want, live = turn.want, sight.live
        match sight.verdict:
            case Verdict.FOREIGN:
                raise foreign([sight])
            case Verdict.ABSENT if self.hidden(turn, doubts=want.nameless):
                self.wait(turn, "AWS does not show it yet")
            case Verdict.ABSENT if want.key in self.manifest.adopted:
                raise NotFound(
                    f"{want.key}: {self.manifest.adopted[want.key]} was adopted and is gone",
                    "Adopt another one in its place.",
                )
            case Verdict.ABSENT if want.awaited:
                self.wait(turn, "not there yet")
            case Verdict.ABSENT:
                self._create(turn)
            case Verdict.BUSY:
                self.wait(turn, live.why if live else "")
            case Verdict.FAILED if live and self.world.replace_failed and not turn.replaced:
                turn.replaced = turn.changed = True
                self.say(turn, What.DELETING, live.why)
                self.manifest.mark(want.key, "deleted")
                self.submit(turn, "delete", lambda: want.delete(self.aws, live))
            case Verdict.FAILED:
                why = live.why if live else ""
                self.say(turn, What.FAILED, why)
                raise (Capacity if lacks_room(why) else HyperpodError)(
                    f"{want.key} has failed: {why}",
                    "Remove the cause, then run the same command with --replace-failed.",
                )
            case Verdict.TWINS:
                self._part_twins(turn, sight)
            case Verdict.DRIFTED if live and (turn.acted is None or sight.differs != turn.settled):
                self._settle(turn, live, sight)
            case Verdict.DRIFTED if turn.acted is not None and self.now - turn.acted < GRACE:
                self.wait(turn, "the change is not visible yet")
            case Verdict.DRIFTED:
                raise unchanged(sight)
            case _:
                assert live
                self._ready(turn, live)

    def _create(self, turn: Turn) -> None:
        want = turn.want
        record = self.manifest.records.get(want.key)
        turn.fresh = not (record and record.unsure)
        turn.changed = True
        token = "" if want.shared else self.manifest.intend(want, self.now)
        if not any(verb == "create" for verb, _ in turn.refused):
            self.say(turn, What.CREATING, f"usually {want.usual}" if want.usual else "")
        self.submit(turn, "create", lambda: want.create(self.aws, self.known, token))

    def _settle(self, turn: Turn, live: Live, sight: Sight) -> None:
        want = turn.want
        self._consent(want.loses(live, sight.differs))
        turn.changed, turn.acted, turn.settled = True, self.now, sight.differs
        self._record(want, live, "created")
        self.say(turn, What.UPDATING, ", ".join(sight.differs))
        self.submit(turn, "settle", lambda: want.settle(self.aws, self.known, live))

    def acted(self, turn: Turn, verb: str, value: Live | None) -> None:
        """Record a birth before anything else, then judge what the answer shows or look again."""
        turn.accepted(verb)
        if verb == "create" and value is not None:
            self._record(turn.want, value, "created")
            turn.looks = 0
            if turn.want.nameless and not turn.fresh:  # a lost answer may have left a twin
                turn.again(self.now)
                turn.due = self.now
                return
        turn.sight, turn.seen = None, self.now
        if value is not None:
            turn.sight = self.judge(turn, [value])

    def _ready(self, turn: Turn, live: Live) -> None:
        self.lives[turn.want.key] = live
        self._record(turn.want, live, "ready")
        if turn.changed:
            self.manifest.durations[turn.want.key] = round(self.now - turn.since, 1)
        if turn.want.awaited:  # nodes have come: what waits for them need not wait for its turn
            for other in self.open.values():
                other.due = min(other.due, self.now)
        self.say(turn, What.READY, live.why)
        self.end(turn)

    def _part_twins(self, turn: Turn, sight: Sight) -> None:
        """Two of one: a lost answer was repeated.  Keep the one in the journal, else the first."""
        record = self.manifest.records.get(turn.want.key)
        keep = next((t for t in sight.twins if record and t.id == record.id), sight.twins[0])
        extra = next(t for t in sight.twins if t.id != keep.id)
        self._record(turn.want, keep, "created")
        self.say(turn, What.DELETING, f"{extra.id}, a twin of {keep.id}")
        self.submit(turn, "delete", lambda: turn.want.delete(self.aws, extra))

    def _failed(self, turn: Turn, verb: str, error: Exception) -> None:
        if isinstance(error, Immovable) and turn.sight:
            raise unchanged(turn.sight) from error
        if verb == "settle":
            turn.acted = None
        super()._failed(turn, verb, error)


@dataclass(frozen=True)
class Fate:
    """What a delete does with a resource: ``delete`` it, ``keep`` it, or it ``goes`` by itself."""

    verb: str
    why: str = ""


class Remove(Run):
    """Take away everything that is ours, what was made last first."""

    bare = True

    def __init__(self, wants: Iterable[Resource], world: World, keep: frozenset[str]) -> None:
        super().__init__(wants, world)
        self.keep = set(keep)
        self.kept: dict[str, str] = {}
        self.removed: list[str] = []
        self.held: dict[str, list[str]] = {}
        self.upset: set[str] = set()  # since they were asked for, something went that needed them
        self.users: dict[str, set[str]] = {key: set() for key in self.turns}
        for want in [t.want for t in self.turns.values()]:
            for need in want.needs():
                self.users.setdefault(need.key, set()).add(want.key)

    def may_begin(self, turn: Turn) -> bool:
        """Once everything that needs it is gone."""
        return not any(user in self.open for user in self.users[turn.want.key])

    def believed(self, turn: Turn, sight: Sight) -> bool:
        """What services leave may change with everything that goes."""
        upset = not turn.want.made and turn.want.key in self.upset
        return super().believed(turn, sight) and not upset

    def submit(self, turn: Turn, verb: str, call: Callable[[], Any]) -> None:
        """A look that begins now sees what has gone until now."""
        if verb == "look":
            self.upset.discard(turn.want.key)
        super().submit(turn, verb, call)

    def may_look(self, turn: Turn) -> bool:
        """What services leave is looked at together, as soon as all that we made is gone."""
        ahead = not turn.want.made and turn.sight is None
        return self.may_begin(turn) or (ahead and not self._in_use(turn.want.key))

    def _in_use(self, key: str) -> bool:
        """Whether something that we made and that is not gone needs it, if only by others."""
        users = [user for user in self.users[key] if user in self.open]
        return any(self.turns[user].want.made or self._in_use(user) for user in users)

    def fate(self, sight: Sight) -> Fate:
        """Decide what becomes of a resource that is there."""
        want = sight.want
        if sight.verdict is Verdict.FOREIGN:
            return Fate("keep", f"belongs to {stranger(sight)}")
        if want.shared:
            return Fate("keep", "shared by every cluster of the account")
        if want.key in self.manifest.adopted:
            return Fate("keep", "adopted, never ours to delete")
        if want.key in self.keep:
            return Fate("keep", "asked to keep it")
        user = next((user for user in self.users[want.key] if user in self.keep), None)
        if user and want.made:
            self.keep.add(want.key)
            return Fate("keep", f"{user} needs it")
        if want.within is not None and self._goes(want.within):
            return Fate("goes", f"goes with {want.within.key}")
        return Fate("delete")

    def decide(self, turn: Turn, sight: Sight) -> None:
        """Delete what is there and ours, and believe its absence only when that is safe."""
        want, live = turn.want, sight.live
        if live is None:
            if self.hidden(turn, doubts=True):
                self.wait(turn, "it may only be hidden yet")
            else:
                self._gone(turn)
            return
        fate = self.fate(sight)
        if fate.verb == "keep":
            self.kept[want.key] = fate.why
            self.say(turn, What.KEPT, fate.why)
            self.end(turn)
        elif fate.verb == "goes":
            self._gone(turn, fate.why)
        elif live.state is State.LEAVING or (turn.acted and self.now - turn.acted < FRESH):
            self.wait(turn, live.why)
        else:
            target = sight.twins[0] if sight.twins else live
            turn.acted, turn.changed = self.now, True
            if want.key in self.manifest.records:
                self.manifest.mark(want.key, "deleting")
            else:  # found by name or tag: what it leaves behind is ours as well
                self._record(want, live, "deleting")
            self.say(turn, What.DELETING)
            self.submit(turn, "delete", partial(want.delete, self.aws, target))

    def acted(self, turn: Turn, verb: str, value: Any) -> None:
        """Look until it is gone; who holds it is told while we wait."""
        if verb == "holders":
            self.held[turn.want.key] = value
            self.wait(turn, f"held by {'; '.join(value)}" if value else str(Class.DEPENDENCY))
            return
        turn.accepted(verb)
        if turn.want.goes_at_once and not (turn.sight and turn.sight.twins):
            self._gone(turn)
            return
        turn.looks = 0
        turn.again(self.now)

    def wait(self, turn: Turn, why: str) -> None:
        """Wait as every run does, but end with what remains and who holds it."""
        try:
            super().wait(turn, why)
        except Unfinished as error:
            raise Remains(str(error)) from error

    def _goes(self, holder: Resource) -> bool:
        """Whether the thing that it lives in is ours and about to be deleted."""
        turn = self.turns.get(holder.key)
        return (
            turn is not None
            and turn.sight is not None
            and turn.sight.verdict not in (Verdict.ABSENT, Verdict.FOREIGN)
            and self.fate(turn.sight).verb != "keep"
        )

    def _gone(self, turn: Turn, why: str = "") -> None:
        self.manifest.mark(turn.want.key, "deleted")
        if turn.changed:
            self.upset.update(need.key for need in turn.want.needs())
        if turn.changed or why:
            self.removed.append(turn.want.key)
            self.say(turn, What.GONE, why)
        self.end(turn)

    def _failed(self, turn: Turn, verb: str, error: Exception) -> None:
        within = turn.want.within
        if verb == "look" and within is not None and self._goes(within):
            self._gone(turn, f"goes with {within.key}")  # whether it can be seen or not
            return
        if verb == "holders":  # a courtesy: without it the wait goes on all the same
            turn.again(self.now)
            return
        if verb == "delete":
            turn.acted = None
        try:
            super()._failed(turn, verb, error)
        except Remains as remains:
            for holder in self.held.get(turn.want.key, ()):
                remains.add_note(f"held by {holder}")
            raise
        if verb == "delete" and meaning(error) is Class.DEPENDENCY and turn.sight:
            live = turn.sight.live
            assert live
            self.submit(turn, "holders", partial(turn.want.holders, Look(self.aws), live))


def look_at_all(run: Run) -> list[Sight]:
    """One concurrent look at everything; each resource is judged once what it needs is judged.

    What cannot be seen yet counts as busy and is looked at again in its turn: helm's release, for
    one, is behind an access entry that may not have been made.
    """
    return judge_all(run, *_look(run, [t for t in run.turns.values() if t.want.made]))


def _look(run: Run, turns: Iterable[Turn]) -> tuple[dict[str, Sequence[Live]], dict[str, Sight]]:
    """Find what there is of each, at once; and by key, what cannot be seen now."""
    look, run.world.begun = run.world.begun or Look(run.aws, bare=run.bare), None
    found: dict[str, Sequence[Live]] = {}
    unseen: dict[str, Sight] = {}
    looking = {turn.want.key: turn for turn in turns}
    with run.world.crew.doubled():
        while looking:
            for turn in looking.values():
                if not turn.at_work and turn.due <= run.now:
                    run.submit(turn, "look", partial(turn.want.find, look))
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


def create(wants: Sequence[Resource], world: World) -> dict[str, Live]:
    """Make everything as declared and return what is live, by key.

    What an earlier config declared and this one does not goes at the end.

    ``wants`` stand in an order in which everything comes after what it needs.  Raises Foreign
    before the first change if a name is taken; Unfinished, Denied, Capacity or HyperpodError
    when it has to stop.  Whatever was made is in the journal, and the same call continues.
    """
    run = Provide(wants, world)
    run.run()
    if gone := undeclared(run.turns, world.manifest):
        prune = Remove(gone, world, frozenset())
        look_at_all(prune)
        prune.run()
    if any(turn.changed for turn in run.turns.values()):
        run.manifest.save()  # the durations
    return run.lives


def undeclared(declared: Container[str], manifest: Manifest) -> list[Resource]:
    """Everything that create made once and that the config no longer asks for."""
    return [
        want
        for key, want in manifest.remembered().items()
        if key not in declared and manifest.records[key].origin == "created"
    ]


def impossible(drifted: Sequence[Sight], gone: Sequence[Resource]) -> list[str]:
    """Say what AWS will not change, with the reason; nothing has been changed by then."""
    reasons = [
        f"{s.want.key}: {name} is {is_!r}, declared {declared!r}: {reason}"
        for s in drifted
        for name, (is_, declared) in s.differs.items()
        if (reason := s.want.bars(name, s.differs))
    ]
    return reasons + [
        f"{want.key} is no longer declared: {want.lasts}" for want in gone if want.lasts
    ]


def rebuild(wants: Sequence[Resource], world: World) -> list[Sight]:
    """Write everything into the journal that names and tags say is ours; change nothing."""
    run = Run(wants, world)
    found = []
    for sight in look_at_all(run):
        if sight.verdict is Verdict.FOREIGN or not sight.want.recorded:
            continue
        if sight.live and sight.live.id:
            state = "ready" if sight.verdict is Verdict.MATCHES else "created"
            run._record(sight.want, sight.live, state)
            found.append(sight)
    return found


def status(wants: Sequence[Resource], world: World) -> list[Sight]:
    """Look at everything, change nothing."""
    return look_at_all(Run(wants, world))


def delete(
    wants: Sequence[Resource], world: World, keep: frozenset[str] = frozenset()
) -> tuple[list[str], dict[str, str]]:
    """Take away what is ours of all that is declared or remembered.

    Returns the keys of what went and, by key, why something stays.  Raises Remains when AWS
    refuses to let go of something.
    """
    every = {want.key: want for want in world.manifest.remembered().values()}
    every |= {want.key: want for want in wants if not want.awaited}
    run = Remove(every.values(), world, keep)
    for sight in look_at_all(run):
        if sight.verdict is not Verdict.ABSENT:
            run.say(run.turns[sight.want.key], What.PENDING)
    run.run()
    return run.removed, run.kept


def doomed(
    wants: Sequence[Resource], world: World, keep: frozenset[str] = frozenset()
) -> list[tuple[Sight, Fate]]:
    """Tell what ``delete`` would do with what it finds, changing nothing."""
    every = {want.key: want for want in world.manifest.remembered().values()}
    every |= {want.key: want for want in wants if not want.awaited}
    run = Remove(every.values(), world, keep)
    sights = [s for s in look_at_all(run) if s.verdict is not Verdict.ABSENT]
    return [(sight, run.fate(sight)) for sight in reversed(sights)]


def remaining(
    wants: Sequence[Resource],
    world: World,
    kept: frozenset[str],
    removed: Container[str] = (),
) -> dict[str, str]:
    """Ask AWS again what is left of us; by key, its id.  Empty is the proof of a delete.

    What is in ``removed`` may be seen for GRACE seconds yet.
    """
    stays = kept | world.manifest.adopted.keys()
    chosen = [w for w in wants if not (w.awaited or w.shared or w.key in stays)]
    since = world.clock.now()
    while True:
        run = Run(chosen, world)
        world.begun = Look(world.aws, bare=True)
        found, unseen = _look(run, run.turns.values())
        left = {key: sight.live.why for key, sight in unseen.items() if sight.live}
        for key, lives in found.items():
            ours = [x for x in lives if x.owner in (world.aws.lineage, None)]
            if ours and not (run.turns[key].want.made and all(x.owner is None for x in ours)):
                left[key] = ", ".join(x.id for x in ours)
        over = world.clock.now() > min(since + GRACE, world.deadline)
        if over or not any(key in removed for key in left):
            return left
        world.crew.wait(LONGEST)


def stranger(sight: Sight) -> str:
    """Say whose a foreign thing seems to be."""
    owner = sight.live.owner if sight.live else None
    return f"another cluster of hyperpod-eks (lineage {owner})" if owner else "somebody else"


def foreign(sights: Sequence[Sight]) -> Foreign:
    """Name everything that stands under our names and is not ours."""
    lines = [
        f"{s.want.key}: {s.live.arn or s.live.id} exists and belongs to {stranger(s)}"
        for s in sights
        if s.live
    ]
    return Foreign("\n".join(lines))


def unchanged(sight: Sight) -> HyperpodError:
    """Say what AWS will not change."""
    differs = "; ".join(f"{k} is {a!r}, declared {b!r}" for k, (a, b) in sight.differs.items())
    return HyperpodError(
        f"{sight.want.key}: {differs}",
        "AWS does not change this in place: declare it as it is, or delete it and create again.",
    )
