"""Take everything away that is ours, and prove it: delete."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from typing import Any

from hyperpod_eks.aws.client import Look, meaning
from hyperpod_eks.aws.errors import Class
from hyperpod_eks.engine.loop import (
    FRESH,
    GRACE,
    LONGEST,
    SHORTEST,
    Run,
    Turn,
    World,
    find_all,
    look_at_all,
)
from hyperpod_eks.engine.wording import stranger
from hyperpod_eks.errors import (
    Remains,
    Unfinished,
)
from hyperpod_eks.events import What
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources.base import Resource, State
from hyperpod_eks.resources.compare import Sight, Verdict

WRITES_ON = 60.0
"""Seconds for which what has gone may yet make anew what it leaves."""


@frozen
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
        self.echoes: dict[str, float] = {}  # until when what has gone may write on
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
                self._gone_for_good(turn)
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
        live = turn.sight.live if turn.sight else None
        if live and "stays" in live.attributes:
            self.kept[turn.want.key] = live.attributes["stays"]
        if turn.want.goes_at_once and not (turn.sight and turn.sight.twins):
            self._gone_for_good(turn)
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

    def _gone_for_good(self, turn: Turn) -> None:
        """Look again later at what its source may yet make anew; meanwhile the rest goes."""
        until = self.echoes.get(turn.want.source, 0.0) if turn.want.made else 0.0
        if until > self.now:
            turn.seen, turn.due = -math.inf, until
        else:
            self._gone(turn)

    def _gone(self, turn: Turn, why: str = "") -> None:
        took = self.now - (turn.acted or turn.since)
        if turn.changed and took > SHORTEST:  # what went in a moment has no more to write
            self.echoes[turn.want.key] = min(self.now + min(took, WRITES_ON), self.world.deadline)
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
        if verb == "delete" and meaning(error) in (Class.DEPENDENCY, Class.BUSY) and turn.sight:
            live = turn.sight.live
            assert live
            self.submit(turn, "holders", partial(turn.want.holders, Look(self.aws), live))


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
        found, unseen = find_all(run, run.turns.values())
        left = {key: sight.live.why for key, sight in unseen.items() if sight.live}
        for key, lives in found.items():
            ours = [x for x in lives if x.owner in (world.aws.lineage, None)]
            if ours and not (run.turns[key].want.made and all(x.owner is None for x in ours)):
                left[key] = ", ".join(x.id for x in ours)
        over = world.clock.now() > min(since + GRACE, world.deadline)
        if over or not any(key in removed for key in left):
            return left
        world.crew.wait(LONGEST)
