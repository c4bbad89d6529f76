"""Make everything as declared: create."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from functools import partial

from hyperpod_eks.aws.client import Look, absent, meaning
from hyperpod_eks.aws.errors import Class, lacks_room
from hyperpod_eks.engine.destroy import Remove
from hyperpod_eks.engine.loop import GRACE, Run, Turn, World, is_there, look_at_all, observe
from hyperpod_eks.engine.wording import foreign, unchanged, unproven
from hyperpod_eks.errors import (
    Capacity,
    HyperpodError,
    Locked,
    NotFound,
    Usage,
)
from hyperpod_eks.events import What
from hyperpod_eks.resources.base import Immovable, Live, Proof, Resource, State, disruption
from hyperpod_eks.resources.compare import Sight, Verdict, is_elsewhere
from hyperpod_eks.state.manifest import Manifest

NUDGE = 300.0
"""Seconds after which AWS is asked to look again at what works and is not called so."""

ROLE_SPREADS = 600.0
"""Seconds after the birth of a role in which a service of AWS may not know it yet."""

DEVICES = 120.0
"""Seconds that device plugins are given to start on nodes that are Ready."""


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
        if gone := [s.want for s in sights if self._is_gone(s)]:
            raise self._gone(gone)
        drifted = [s for s in sights if s.verdict is Verdict.DRIFTED]
        if reasons := impossible(drifted, undeclared(self.turns, self.manifest)):
            raise Usage("\n".join(reasons), "Declare it as it is, or make another cluster.")
        lost = (disruption(s.want, s.live, s.differs) for s in drifted if s.live)
        self._consent(line for lines in lost for line in lines)
        if any(s.verdict is Verdict.ABSENT and s.want.recorded for s in sights):
            self.world.preflight(sights)
        for sight in sights:
            if sight.twins and sight.verdict is not Verdict.TWINS:
                self.world.warn(_others(sight))
        super().run()
        self._review()
        super().run()

    def _advance(self) -> None:
        """Once nothing is left but to wait, review meanwhile what was sent."""
        if all(self._begun(turn) for turn in self.open.values()):
            self._review()
        super()._advance()

    def _begun(self, turn: Turn) -> bool:
        return is_there(turn) or turn.at_work == "create" or turn.want.awaited

    def _review(self) -> None:
        """Look at what this run has sent and AWS has accepted, not described.

        Only what AWS has once described as sent can be seen to be changed by somebody later.
        Nothing waits for it, and it is done together, for lists are shared.
        """
        for key, live in self.lives.items():
            turn = self.turns[key]
            if key not in self.open and live.told is not None and self._undescribed(turn):
                turn.sight, turn.seen, turn.due, turn.looks = None, -math.inf, self.now, 0
                self.open[key] = turn

    def _undescribed(self, turn: Turn) -> frozenset[str]:
        """Name the facts that were sent, and that AWS has not described since."""
        record = self.manifest.records.get(turn.want.key)
        sent = record.sent if record and record.sent else {}
        return frozenset(name for name, each in sent.items() if each.proof is Proof.SENT)

    def looking(self, turn: Turn, look: Look) -> Callable[[], Sequence[Live]]:
        """Look at what was ready before for the sake of what was not described."""
        live, names = self.lives.get(turn.want.key), self._undescribed(turn)
        if live is None or live.told is None or not names:
            return super().looking(turn, look)
        return partial(reviewed, turn.want, look, live, names)

    def _is_awaited(self, want: Resource) -> bool:
        """Whether it has yet to be ready; what is open for a review has been."""
        return want.key in self.open and want.key not in self.lives

    def _consent(self, lost: Iterable[str]) -> None:
        """Ask, once, about what goes: all of it before the first change, as far as it shows."""
        if lines := [line for line in lost if line not in self.consented]:
            self.world.consent(lines)
            self.consented.update(lines)

    def may_begin(self, turn: Turn) -> bool:
        """Once everything is ready that its create names, or, if it is there, all that it needs."""
        if is_there(turn):
            return not any(map(self._is_awaited, turn.want.needs()))
        return not any(map(self._is_awaited, turn.want.seeds())) and all(
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
        if live and is_elsewhere(want, live, self.known):
            raise self._lost_race(want, live)
        match sight.verdict:
            case Verdict.FOREIGN:
                raise foreign([sight])
            case Verdict.ABSENT if self.hidden(turn, doubts=want.nameless):
                self.wait(turn, "AWS does not show it yet")
            case Verdict.ABSENT if self._said_to_exist(turn):
                self.wait(turn, "AWS reports that it exists, but does not show it yet")
            case Verdict.ABSENT if self._is_gone(sight):
                raise self._gone([want])
            case Verdict.ABSENT if want.awaited:
                self.wait(turn, "not there yet")
            case Verdict.ABSENT:
                self._create(turn)
            case Verdict.BUSY:
                self.wait(turn, live.why if live else "")
            case Verdict.FAILED if live and want.key in self.manifest.adopted:
                self.say(turn, What.FAILED, live.why)
                raise HyperpodError(
                    f"{want.key} was adopted and has failed: {live.why}",
                    "Adopted resources are never replaced: repair it, then run the command again.",
                )
            case Verdict.FAILED if live and self._may_replace(turn, live) and not turn.replaced:
                self._replace(turn, live)
            case Verdict.FAILED:
                why = live.why if live else ""
                self.say(turn, What.FAILED, why)
                anew = " with --replace-failed" if live and live.state is State.FAILED else ""
                raise (Capacity if lacks_room(why) else HyperpodError)(
                    f"{want.key} has failed: {why}",
                    f"Remove the cause, then run the same command{anew or ' again'}.",
                )
            case Verdict.TWINS:
                self._part_twins(turn, sight)
            case Verdict.DRIFTED if live and want.first(sight.differs) != turn.settled:
                self._settle(turn, live, sight)
            case Verdict.DRIFTED | Verdict.MATCHES if self._unseen(turn, sight):
                self.wait(turn, "the change is not visible yet")
            case Verdict.DRIFTED:
                raise unchanged(sight)
            case _ if live and live.lags and self._has_time(turn):
                self._lag(turn, live)
            case _ if live and live.warnings and want.awaited and self._may_come(turn):
                self.wait(turn, live.warnings[0])
            case _:
                assert live
                self._ready(turn, live, sight)

    def _unseen(self, turn: Turn, sight: Sight) -> bool:
        """Whether what was changed a moment ago may only be invisible yet."""
        unseen = turn.settled.keys() & {*sight.differs, *sight.unproven}
        return bool(unseen) and turn.acted is not None and self.now - turn.acted < GRACE

    def _may_replace(self, turn: Turn, live: Live) -> bool:
        """Whether the user said so, or this run made it and its role a moment ago."""
        if self.world.replace_failed:
            return live.state is State.FAILED
        seeds = [seed.key for seed in turn.want.seeds() if seed.step == "iam" and seed.recorded]
        born = [self.manifest.records[key].since for key in seeds if self.turns[key].born]
        recent = any(self.now - since < ROLE_SPREADS for since in born)
        return live.premature and turn.born and recent

    def _replace(self, turn: Turn, live: Live) -> None:
        """Delete it; once it is gone, it is created like anything that is absent."""
        want = turn.want
        turn.replaced = turn.changed = True
        if not self.world.replace_failed:
            self.world.warn(f"{want.key} is deleted and created once more: {live.why}")
        self.say(turn, What.DELETING, live.why)
        self.manifest.mark(want.key, "deleted")
        self.submit(turn, "delete", lambda: want.delete(self.aws, live))

    def longest_wait(self, turn: Turn) -> float:
        """What needs nodes, to start or to be called ready, is waited for as long as they are."""
        own, live = super().longest_wait(turn), turn.sight.live if turn.sight else None
        if not (live and (live.wants_nodes or live.lags)):
            return own
        nodes = [other.want for other in self.turns.values() if other.want.awaited]
        if any(map(self._is_awaited, nodes)):
            return math.inf
        return max([own, *(want.longest_wait for want in nodes)])

    def _has_time(self, turn: Turn) -> bool:
        """Whether nodes are waited for anyway, and nobody waits for this one."""
        others = [
            other.want
            for other in self.open.values()
            if other is not turn and self._is_awaited(other.want)
        ]
        return any(want.awaited for want in others) and not any(
            turn.want in want.needs() for want in others
        )

    def _lag(self, turn: Turn, live: Live) -> None:
        """Look on while AWS does not say that it works; have what this run made looked at again."""
        turn.works = turn.works or self.now
        if turn.born and not turn.nudged and self.now - turn.works >= NUDGE:
            turn.nudged = True
            self.submit(turn, "settle", lambda: turn.want.nudge(self.aws, live))
        else:
            self.wait(turn, live.why)

    def _may_come(self, turn: Turn) -> bool:
        """Whether what nodes of this run lack may still come: device plugins start after them."""
        turn.works = turn.works or self.now
        changed = any(other.changed for other in self.turns.values())
        return changed and self.now - turn.works < DEVICES

    def _said_to_exist(self, turn: Turn) -> bool:
        """Whether its create was refused a moment ago for something that may only be hidden yet."""
        first = turn.refused.get(("create", Class.EXISTS))
        return first is not None and self.now - first < GRACE

    def _is_gone(self, sight: Sight) -> bool:
        return sight.verdict is Verdict.ABSENT and sight.want.key in self.manifest.adopted

    def _gone(self, wants: Iterable[Resource]) -> NotFound:
        adopted = self.manifest.adopted
        lines = [f"{want.key}: {adopted[want.key]} was adopted and is gone" for want in wants]
        return NotFound("\n".join(lines), "Adopt another one in its place.")

    def _create(self, turn: Turn) -> None:
        want = turn.want
        record = self.manifest.records.get(want.key)
        turn.fresh = not (record and record.unsure)
        turn.changed = True
        if ("create", Class.EXISTS) in turn.refused:  # by now it would show: the token is spent
            self.manifest.forget(want.key)
        seeds = [self.known(seed) for seed in want.seeds() if seed in self.known]
        named = [f"{live.id} {live.attributes.get('born', '')}" for live in seeds]
        token = "" if want.shared else self.manifest.intend(want, self.now, named)
        if not any(verb == "create" for verb, _ in turn.refused):
            self.say(turn, What.CREATING, f"usually {want.usual}" if want.usual else "")
        self.submit(turn, "create", lambda: want.create(self.aws, self.known, token))

    def _settle(self, turn: Turn, live: Live, sight: Sight) -> None:
        want = turn.want
        self._consent(disruption(want, live, sight.differs))
        differs = want.first(sight.differs)
        turn.changed, turn.acted, turn.settled = True, self.now, differs
        self._record(want, live, "created", sight.sent)
        self.say(turn, What.UPDATING, ", ".join(differs))
        before = replace(live, told=None)
        self.submit(turn, "settle", lambda: want.settle(self.aws, self.known, before, differs))

    def acted(self, turn: Turn, verb: str, value: Live | None) -> None:
        """Record a birth before anything else, then judge what the answer shows or look again."""
        turn.accepted(verb)
        self.note(turn, verb, value)
        if verb == "create" and value is not None:
            turn.looks, turn.born = 0, True
            for line in value.warnings if value.state is not State.READY else ():
                self.world.warn(line)
            twin = turn.want.nameless and not turn.fresh  # a lost answer may have left one
            if twin or value.state is State.FAILED:  # or another run was first
                turn.again(self.now)
                turn.due = self.now
                return
        turn.sight, turn.seen = None, self.now
        if value is not None:
            told = answered(turn.want, verb, turn.settled) if value.told is None else value.told
            turn.sight = self.judge(turn, [replace(value, told=told)])

    def _ready(self, turn: Turn, live: Live, sight: Sight) -> None:
        again = turn.want.key in self.lives
        for line in live.warnings if not again else ():
            self.world.warn(line)
        self.lives[turn.want.key] = replace(live, told=None) if again else live
        self._record(turn.want, live, "ready", sight.sent)
        for line in unproven(sight):
            self.world.warn(line)
        if again:  # it was ready before, and is proven now
            self.end(turn)
            return
        if turn.changed:
            self.manifest.durations[turn.want.key] = round(self.now - turn.since, 1)
        if turn.want.awaited:  # nodes have come: what waits for them need not wait for its turn
            for other in self.open.values():
                other.due = min(other.due, self.now)
        self.say(turn, What.READY, live.why)
        self.end(turn)

    def _part_twins(self, turn: Turn, sight: Sight) -> None:
        """Two of one, for a lost answer was repeated: delete one that nothing uses, trying once."""
        assert sight.live
        keep, extra = sight.live, sight.twins[0]
        self._record(turn.want, keep, "created")
        self.spared.add(extra.id)
        self.say(turn, What.DELETING, f"{extra.id}, a twin of {keep.id}")
        self.submit(turn, "delete", lambda: turn.want.delete(self.aws, extra))

    def _lost_race(self, want: Resource, live: Live) -> Locked:
        """Two runs made a cluster of one name, and AWS took the other one's."""
        assert want.place
        here, there = self.known(want.place).id, live.facts.get("vpc") or live.attributes["vpc"]
        return Locked(
            f"another run created {want.key} in {there}, while this one created {here}",
            "Nothing of the other run was changed. When it has ended, run the same command again: "
            f"it continues with {there}, and names what this run leaves in {here}.",
        )

    def _failed(self, turn: Turn, verb: str, error: Exception) -> None:
        if isinstance(error, Immovable) and turn.sight:
            raise unchanged(turn.sight) from error
        if verb == "settle":
            turn.acted, turn.settled = None, {}
        if verb == "delete" and meaning(error) is Class.DEPENDENCY and turn.sight:
            turn.again(self.now)  # a twin that is used after all stays
            return
        super()._failed(turn, verb, error)


def answered(want: Resource, verb: str, settled: Iterable[str]) -> frozenset[str]:
    """Name the facts that AWS describes in its answer to a create, or to a change of others."""
    first = set(want.answers) - set(want.later)
    return frozenset(first if verb == "create" else set(want.answers).intersection(settled) - first)


def reviewed(want: Resource, look: Look, live: Live, names: frozenset[str]) -> Sequence[Live]:
    """Review it; if something of it is not there any more, find out what is."""
    with absent(r".*NoSuch.*", r".*NotFound.*"):
        return want.review(look, live, names)
    return observe(want, look)


def _others(sight: Sight) -> str:
    """Name the twins that stay, and what is in them."""
    assert sight.live
    rows = []
    for twin in sight.twins:
        tenants = [each.partition(":")[0] for each in twin.attributes.get("tenants", ())]
        more = f" and {len(tenants) - 3} more" if len(tenants) > 3 else ""
        rows.append(f"{twin.id} ({', '.join(tenants[:3])}{more})" if tenants else twin.id)
    return (
        f"{sight.want.key}: {'; '.join(rows)} was created by another run, and the cluster uses "
        f"{sight.live.id}. It is kept, and AWS bills it: delete it by hand when no other "
        "run is active; `delete` of this cluster deletes both"
    )


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
