"""Delete every resource of this cluster and verify that none is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.errors import ErrorKind
from hyperpod_eks.aws.exceptions import BotoCoreError, ClientError
from hyperpod_eks.aws.failures import classify
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.engine.context import Context, OutOfDate
from hyperpod_eks.engine.decide import HOLDS_DATA, Action, Decision, decide_delete
from hyperpod_eks.engine.loop import BUCKET, FRESH, GRACE, LONGEST, SHORTEST, Reconciler, Task
from hyperpod_eks.engine.observe import find_all, observe_all
from hyperpod_eks.engine.wording import words_of
from hyperpod_eks.errors import HyperpodError, KnownCause, Remains, Unfinished, Usage
from hyperpod_eks.events import EventType
from hyperpod_eks.kube.contents import Contents
from hyperpod_eks.resources.base import Blocker, Lifecycle, Live, Resource, State
from hyperpod_eks.resources.compare import Observation, Status
from hyperpod_eks.state.objects import NO_BUCKET

WRITES_ON = 60.0
"""Seconds for which a deleted resource may still re-create its leftovers."""


class Destroy(Reconciler):
    """Delete every resource of this cluster, dependents first."""

    bare = True

    def __init__(
        self,
        wants: Iterable[Resource],
        context: Context,
        keep: frozenset[str] = frozenset(),
        consented: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(wants, context)
        self.keep = set(keep)
        self.consented = consented
        """Ids of resources with data that the user agreed to delete; other data is kept."""
        self.kept: dict[str, str] = {}
        self.removed: list[str] = []
        self.held: dict[str, list[Blocker]] = {}
        self.echoes: dict[str, float] = {}  # until when a deleted resource may still write
        self.upset: set[str] = set()  # keys: a user was deleted since the last observation
        self.users: dict[str, set[str]] = {key: set() for key in self.tasks}
        for want in [t.want for t in self.tasks.values()]:
            for need in want.needs():
                self.users.setdefault(need.key, set()).add(want.key)

    def can_start(self, task: Task) -> bool:
        """Whether everything that needs it is gone; the bucket, with the claim, goes last."""
        if self.context.claim and task.want.key == BUCKET:
            return self.open.keys() <= {BUCKET}
        return not any(user in self.open for user in self.users[task.want.key])

    def is_current(self, task: Task, observation: Observation) -> bool:
        """Whether an observation is still valid; a leftover's expires with the delete of a user."""
        upset = task.want.is_leftover and task.want.key in self.upset
        return super().is_current(task, observation) and not upset

    def submit(self, task: Task, verb: str, call: Callable[[], Any]) -> None:
        """Let a worker make a call; an observation that begins now sees every delete so far."""
        if verb == "look":
            self.upset.discard(task.want.key)
        super().submit(task, verb, call)

    def can_observe(self, task: Task) -> bool:
        """Whether to observe it now; leftovers together, once their created users are gone."""
        ahead = task.want.is_leftover and task.observation is None
        return self.can_start(task) or (ahead and not self._in_use(task.want.key))

    def _in_use(self, key: str) -> bool:
        """Whether a created resource that is not gone needs it, if only through leftovers."""
        users = [user for user in self.users[key] if user in self.open]
        return any(not self.tasks[user].want.is_leftover or self._in_use(user) for user in users)

    def decision(self, observation: Observation) -> Decision:
        """Decide what to do with a resource that exists."""
        want = observation.want
        needed_by = "" if want.is_leftover else self._needed_by(observation)
        holder, live = want.deleted_with, observation.live
        # one that cannot be read goes with its holder, as does one whose deletion has begun
        first = want.deleted_first and live and live.id and live.state is not State.LEAVING
        goes = holder is not None and not first and self._goes(holder)
        if holder and want.unmarked and self._is_foreign(holder):
            return Decision(Action.KEEP, f"{holder.key} is not this cluster's")
        decision = decide_delete(
            observation,
            adopted=want.key in self.manifest.adopted,
            asked=want.key in self.keep,
            needed_by=needed_by,
            deleted_with=holder.key if holder and goes else "",
            consented=self.consented,
            unused=self._is_unused(want, live),
        )
        if decision.action is Action.KEEP and needed_by:
            self.keep.add(want.key)
        return decision

    def _is_unused(self, want: Resource, live: Live | None) -> bool:
        """Whether it was never ready, or its deletion has begun.

        Without the bucket nothing says whether another run has seen it ready.
        """
        unused = self.has_bucket() and not self.may_hold_data(want, live)
        return unused or self.tasks[want.key].changed

    def keep_data(self, observations: Iterable[Observation]) -> None:
        """Keep data that nobody agreed to delete, and what it is in, whatever is declared."""
        for observation in observations:
            if _has_data(observation) and self.decision(observation).action is Action.KEEP:
                self.keep.add(observation.want.key)

    def _needed_by(self, observation: Observation) -> str:
        """Return the key of a kept resource that needs this one, "" for none."""
        ids = {x.id for x in (observation.live, *observation.duplicates) if x}
        inside = (key for key in sorted(self.keep) if ids & (self._held_by(key) or set()))
        if user := next(inside, ""):
            return user
        whole = observation.want.part_of
        if whole and whole.key in self.keep:
            return whole.key
        kept = (user for user in self.users[observation.want.key] if user in self.keep)
        return next((user for user in kept if self._held_by(user) is None), "")

    def _held_by(self, key: str) -> set[str] | None:
        """Return the ids of what kept data is in; None if that may be all that it needs."""
        seen = self.tasks[key].observation if key in self.tasks else None
        if not (seen and seen.live and _has_data(seen)):
            return None
        ids: set[str] = set()
        for live in (seen.live, *seen.duplicates):
            if live.held_by is None:
                return None
            ids |= live.held_by
        return ids

    def decide(self, task: Task, observation: Observation) -> None:
        """Delete an owned resource that exists; accept absence only when that is safe."""
        want, live = task.want, observation.live
        if live is None:
            if self.hidden(task, doubts=True):
                self.wait(task, "it may only be hidden yet")
            else:
                self._gone_for_good(task, self.now)
            return
        decision, targets = self.decision(observation), self._targets(observation)
        if decision.action is Action.KEEP:
            self._keep(task, observation, decision.why)
        elif decision.action is Action.GOES:
            self._gone(task, decision.why)
        elif not targets or (task.acted and self.now - task.acted < FRESH):
            every = observation.duplicates or (live,)
            self.wait(task, next((each.why for each in every if each.why), ""))
        else:
            self.claim()
            task.acted, task.changed = self.now, True
            if want.key in self.manifest.records:
                self.manifest.mark(want.key, "deleting", self.now)
            else:  # found by name or tag: its leftovers are owned as well
                self._record(want, live, "deleting")
            self.say(task, EventType.DELETING)
            agreed = self.context.agreed.get(want.key)
            self.submit(task, "delete", partial(delete_all, want, self.aws, targets, agreed))

    def _targets(self, observation: Observation) -> list[Live]:
        """Return what to delete next: of leftovers all that can be, else one; empty to wait."""
        want, live = observation.want, observation.live
        every = observation.duplicates or ((live,) if live else ())
        if not want.is_leftover:
            return [] if live and live.state is State.LEAVING else [*every[:1]]
        return [
            each
            for each in every
            if each.state is State.READY and (not want.data or each.id in self.consented)
        ]

    def _keep(self, task: Task, observation: Observation, why: str) -> None:
        """Keep it; leftovers with data get our tags first."""
        unsigned = [
            each
            for each in (observation.live, *observation.duplicates)
            if each and each.owner is None and why == HOLDS_DATA and task.want.is_leftover
        ]
        if unsigned and not task.acted:
            self.claim()
            task.acted = self.now
            self.submit(task, "sign", partial(task.want.sign, self.aws, unsigned))
            return
        self.kept[task.want.key] = why
        self.context.kept_data |= with_data([observation], self.context)
        self.say(task, EventType.KEPT, why)
        self.end(task)

    def claim(self) -> None:
        """Claim the cluster, unless its bucket is gone, which contains the claims of all runs."""
        try:
            super().claim()
        except Usage as error:
            if error.reason != NO_BUCKET:
                raise
            self.context.claim = None

    def acted(self, task: Task, verb: str, value: Any) -> None:
        """Observe again until it is gone; report what blocks it meanwhile."""
        if verb == "holders":
            self.held[task.want.key] = value
            words = "; ".join(each.words for each in value)
            self.wait(task, f"held by {words}" if value else str(ErrorKind.DEPENDENCY))
            return
        task.accepted(verb)
        live = task.observation.live if task.observation else None
        if verb == "sign":
            assert task.observation
            self._keep(task, task.observation, HOLDS_DATA)
            return
        if live and "stays" in live.attributes:
            self.kept[task.want.key] = live.attributes["stays"]
        if task.want.deleted_at_once and not (task.observation and task.observation.duplicates):
            self._gone_for_good(task, task.acted or self.now)
            return
        task.looks = 0
        task.again(self.now)

    def wait(self, task: Task, why: str) -> None:
        """Wait as in the base class, but raise Remains in place of Unfinished."""
        try:
            super().wait(task, why)
        except Unfinished as error:
            cause = error.cause or self._cause(task)
            raise Remains(str(error), cause=cause) from error

    def _cause(self, task: Task) -> KnownCause | None:
        """Return the first known cause among the resource's blockers."""
        return next((b.cause for b in self.held.get(task.want.key, ()) if b.cause), None)

    def _holders(self, task: Task, *, refused: bool) -> list[Blocker]:
        """Return what holds a resource, asked for now if AWS has just refused its delete."""
        live = task.observation.live if task.observation else None
        if live and refused and task.want.key not in self.held:
            with suppress(HyperpodError, BotoCoreError, ClientError):
                return task.want.blockers(Snapshot(self.aws), live)
        return self.held.get(task.want.key, [])

    def _goes(self, holder: Resource) -> bool:
        """Whether ``holder`` exists, is owned and is to be deleted."""
        task = self.tasks.get(holder.key)
        return (
            task is not None
            and task.observation is not None
            and task.observation.status not in (Status.ABSENT, Status.FOREIGN)
            and self.decision(task.observation).action is not Action.KEEP
        )

    def _is_foreign(self, holder: Resource) -> bool:
        """Whether ``holder`` exists, and is neither owned nor adopted."""
        task = self.tasks.get(holder.key)
        seen = task.observation if task else None
        return bool(
            seen and seen.status is Status.FOREIGN and holder.key not in self.manifest.adopted
        )

    def _gone_for_good(self, task: Task, since: float) -> None:
        """Accept its absence; observe it again if its source may have re-created it ``since``."""
        until = self.echoes.get(task.want.source, 0.0) if task.want.written_on else 0.0
        if until > since:
            task.seen, task.due = -math.inf, max(until, self.now)
        else:
            self._gone(task)

    def _gone(self, task: Task, why: str = "") -> None:
        took = self._took(task)
        if took > SHORTEST:  # after a short delete nothing is written
            self.echoes[task.want.key] = min(self.now + min(took, WRITES_ON), self.context.deadline)
        self.manifest.mark(task.want.key, "deleted")
        if task.changed:
            self.upset.update(need.key for need in task.want.needs())
        if task.changed or why:
            self.removed.append(task.want.key)
            self.say(task, EventType.GONE, why)
        self.end(task)

    def _took(self, task: Task) -> float:
        """Return the seconds that its delete took, begun by this run or an interrupted one."""
        if task.changed:
            return self.now - (task.acted or task.since)
        record = self.manifest.records.get(task.want.key)
        return self.now - record.since if record and record.deletes else 0.0

    def _failed(self, task: Task, verb: str, error: Exception) -> None:
        deleted_with = task.want.deleted_with
        if verb == "look" and deleted_with is not None and self._goes(deleted_with):
            self._gone(task, f"deleted with {deleted_with.key}")  # even if it cannot be observed
            return
        if verb == "holders":  # they are only reported: continue without
            task.again(self.now)
            return
        if verb == "sign":
            self.context.warn(
                f"{task.want.key} is kept, but could not be tagged: {words_of(error)}; without the"
                " manifest, nothing finds it"
            )
            assert task.observation
            self._keep(task, task.observation, HOLDS_DATA)
            return
        if verb == "delete":
            task.acted = None
        refused = verb == "delete" and classify(error) in (ErrorKind.DEPENDENCY, ErrorKind.BUSY)
        try:
            super()._failed(task, verb, error)
        except HyperpodError as failure:
            holders = self._holders(task, refused=refused)
            if not (isinstance(failure, Remains) or (refused and holders)):
                raise
            # it is known what holds it, whatever AWS calls that
            remains = failure if isinstance(failure, Remains) else Remains(str(failure))
            for holder in holders:
                remains.add_note(f"held by {holder.words}")
            remains.cause = remains.cause or self._cause(task)
            raise remains from error
        if refused and task.observation:
            live = task.observation.live
            assert live
            self.submit(task, "holders", partial(task.want.blockers, Snapshot(self.aws), live))


def delete(
    wants: Sequence[Resource],
    context: Context,
    keep: frozenset[str] = frozenset(),
    consented: frozenset[str] = frozenset(),
) -> tuple[list[str], dict[str, str]]:
    """Delete all owned resources that are declared or recorded in the manifest.

    Resources that hold data are kept, with what they are in, unless their ids are ``consented``.
    Returns the keys of the deleted resources and, by key, why others are kept.  Raises Remains
    for a resource that AWS does not delete.
    """
    reconciler = Destroy(_known(wants, context), context, keep, consented)
    context.kept_data = {}
    observations = observe_all(reconciler)
    reconciler.keep_data(observations)
    for observation in observations:
        if observation.status is not Status.ABSENT:
            reconciler.say(reconciler.tasks[observation.want.key], EventType.PENDING)
    try:
        reconciler.run()
    except OutOfDate:
        context.drain()
        context.manifest.distrust()
        return delete(wants, context, keep, consented)  # now with the claim held
    return reconciler.removed, reconciler.kept


def plan_delete(
    wants: Sequence[Resource],
    context: Context,
    keep: frozenset[str] = frozenset(),
    consented: frozenset[str] = frozenset(),
) -> list[tuple[Observation, Decision]]:
    """Return what ``delete`` would do with each resource that exists; change nothing.

    Leftovers that are in use now are left out: AWS deletes them itself.
    """
    reconciler = Destroy(_known(wants, context), context, keep, consented)
    found = observe_all(reconciler, leftovers=True)
    observations = [each for each in found if each.status is not Status.ABSENT]
    reconciler.keep_data(observations)
    decided = [(each, reconciler.decision(each)) for each in reversed(observations)]
    return [
        (each, decision)
        for each, decision in decided
        if decision.action is not Action.DELETE
        or each.want.data
        or not each.want.is_leftover
        or reconciler._targets(each)
    ]


def find_data(wants: Sequence[Resource], context: Context) -> dict[str, tuple[Resource, Live]]:
    """Ask AWS what of the cluster holds data that a delete may delete; return it as `with_data`.

    Asks for nothing else, but for what shows whether leftovers are ours.
    """
    every = _known(wants, context)
    stays = "eks/cluster" in context.manifest.adopted
    chosen = [x for x in every if x.data or (x.may_hold_data and (stays or not x.deleted_with))]
    sources = {want.source for want in chosen}
    reconciler = Destroy([want for want in every if want in chosen or want.key in sources], context)
    return with_data(observe_all(reconciler, data=True), context)


def _known(wants: Iterable[Resource], context: Context) -> list[Resource]:
    """Return what is declared or recorded, without what AWS deletes."""
    every = {want.key: want for want in context.manifest.remembered().values()}
    return [*(every | {want.key: want for want in wants if not want.is_awaited}).values()]


def _has_data(observation: Observation) -> bool:
    return observation.want.data or bool(observation.live and observation.live.holds_data)


def taken_along(want: Resource, context: Context) -> str:
    """Return what goes with a resource or is left of it, with what that is just now.

    It is for the question, and empty if there is nothing to ask.  `delete_all` deletes nothing
    else that is in it.
    """
    now = want.contents(Snapshot(context.aws))
    if now is None:
        return want.takes_along
    context.agreed[want.key] = now
    if want.leaves:
        return want.leaves.format(now) if now else ""
    return f"{want.takes_along} ({now})"


def delete_all(
    want: Resource, aws: Aws, targets: Iterable[Live], agreed: Contents | None = None
) -> None:
    """Delete resources, unless something is in their namespace that was not in it when asked."""
    now = want.contents(Snapshot(aws)) if agreed is not None else None
    if agreed is not None and now and (new := now - agreed):
        raise HyperpodError(
            " ".join(filter(None, (f"{want.key} is not deleted", want.takes_along)))
            + f": since you were asked, this has come into it: {new}",
            "Run the same command again: it asks about what is there then.",
        )
    for target in targets:
        want.delete(aws, target)


def with_data(
    observations: Iterable[Observation], context: Context
) -> dict[str, tuple[Resource, Live]]:
    """Return the owned resources that hold data, with their declarations, by id."""
    return {
        live.id: (observation.want, live)
        for observation in observations
        if _has_data(observation)
        and observation.want.key not in context.manifest.adopted
        and observation.status is not Status.FOREIGN
        for live in (observation.live, *observation.duplicates)
        if live and live.state is not State.LEAVING
    }


def verify_deleted(
    wants: Sequence[Resource],
    context: Context,
    kept: frozenset[str],
    removed: Container[str] = (),
) -> dict[str, str]:
    """Ask AWS again what is left of the cluster; empty proves that the delete is complete.

    Returns the ids by key, or the reason why a resource cannot be observed.  Those in ``removed``
    may stay visible for GRACE seconds.
    """
    stays = kept | context.manifest.adopted.keys()
    chosen = [
        w for w in wants if not (w.is_awaited or w.lifecycle is Lifecycle.SHARED or w.key in stays)
    ]
    since = context.clock.now()
    while True:
        reconciler = Reconciler(chosen, context)
        snapshot = Snapshot(context.aws, bare=True)
        found, unseen = find_all(reconciler, reconciler.tasks.values(), snapshot)
        left = {
            key: observation.live.why for key, observation in unseen.items() if observation.live
        }
        for key, lives in found.items():
            ours = [x for x in lives if x.owner in (context.aws.lineage, None)]
            if ours and not (
                not reconciler.tasks[key].want.is_leftover and all(x.owner is None for x in ours)
            ):
                left[key] = ", ".join(x.id for x in ours)
        over = context.clock.now() > min(since + GRACE, context.deadline)
        if over or not any(key in removed for key in left):
            return left
        context.pool.wait(LONGEST)
