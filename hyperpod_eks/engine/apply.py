"""Create: reconcile every resource with its declaration."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from hyperpod_eks.aws.errors import ErrorKind
from hyperpod_eks.aws.failures import absent, classify
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.engine.context import Context, OutOfDate
from hyperpod_eks.engine.decide import (
    HOLDS_DATA,
    Action,
    Circumstances,
    adopted_is_gone,
    decide,
)
from hyperpod_eks.engine.destroy import Destroy, delete_all, taken_along
from hyperpod_eks.engine.loop import BUCKET, GRACE, Reconciler, Task, is_there, observe
from hyperpod_eks.engine.observe import observe_all
from hyperpod_eks.engine.wording import impossible, kept_duplicates, not_owned, unproven
from hyperpod_eks.errors import (
    Locked,
    Usage,
)
from hyperpod_eks.events import EventType
from hyperpod_eks.kube.contents import Contents
from hyperpod_eks.resources.base import (
    Identity,
    Lifecycle,
    Live,
    Proof,
    Resource,
    State,
    disruptions,
)
from hyperpod_eks.resources.compare import Observation, Status, doubted, is_elsewhere, overwritten
from hyperpod_eks.state.manifest import Manifest

NUDGE = 300.0
"""Seconds after which AWS is made to check a working resource that it does not report as ready."""

ROLE_SPREADS = 600.0
"""Seconds after the creation of a role in which AWS services may not see it yet."""

CHANGES = frozenset({Action.CREATE, Action.CHANGE, Action.REPLACE})
"""The actions that change something."""

DEVICES = 120.0
"""Seconds that device plugins have to start on Ready nodes."""


class Apply(Reconciler):
    """Create and update every resource as declared."""

    def __init__(self, wants: Iterable[Resource], context: Context) -> None:
        super().__init__(wants, context)
        self.consented: set[str] = set()
        self.holding = [
            task for task in self.tasks.values() if type(task.want).let_go is not Resource.let_go
        ]
        """The tasks of kinds that name parts of others; looked at before every other change."""

    def run(self) -> None:
        """Observe everything, raise before the first change if any is impossible, then act."""
        for task in self.tasks.values():
            if not task.want.is_leftover:
                self.say(task, EventType.PENDING)
            else:
                self.end(task)
        observations = observe_all(self)
        strangers = [s for s in observations if s.status is Status.FOREIGN]
        if strangers:
            raise not_owned(strangers)
        adopted = self.manifest.adopted
        absent_ones = [s.want.key for s in observations if s.status is Status.ABSENT]
        if gone := {key: adopted[key] for key in absent_ones if key in adopted}:
            raise adopted_is_gone(gone)
        drifted = [s for s in observations if s.status is Status.DRIFTED]
        if reasons := impossible(drifted, prunable(self.tasks, self.manifest)):
            raise Usage(
                "\n".join(reasons),
                "AWS cannot change this in place. Set it back in the config, or create another"
                " cluster.",
            )
        lost = [line for s in drifted if s.live for line in disruptions(s.want, s.live, s.differs)]
        lost += [line for s in drifted for line in overwritten(s)]
        lost += [line for lines in taken(observations).values() for line in lines]
        for want in prunable(self.tasks, self.manifest):
            if (want.takes_along or want.leaves) and (words := taken_along(want, self.context)):
                lost.append(f"{want.key}: it is deleted {words}")
        self._consent(lost)
        if any(s.status is Status.ABSENT and s.want.recorded for s in observations):
            self.context.preflight(observations)
        for observation in observations:
            if observation.duplicates and observation.status is not Status.DUPLICATES:
                self.context.warn(kept_duplicates(observation))
        self._prune_first()
        super().run()
        self._review()
        super().run()

    def _prune_first(self) -> None:
        """Delete what is no longer declared and has to go before something else changes.

        What cannot be read yet is left to the end of the run.
        """
        gone = [x for x in prunable(self.tasks, self.manifest) if x.deleted_first]
        if gone and self.has_bucket():
            prune = Destroy(gone, self.context)
            seen = {each.want.key for each in observe_all(prune) if each.live and each.live.id}
            Destroy([want for want in gone if want.key in seen], self.context).run()

    def _advance(self) -> None:
        """Review what was sent while all remaining resources only need waiting.

        The last create is one of them: the reviews are under way when it is answered.
        """
        super()._advance()
        if all(self._begun(task) for task in self.open.values()) and self._review():
            super()._advance()

    def _begun(self, task: Task) -> bool:
        return is_there(task) or task.at_work == "create" or task.want.is_awaited

    def _review(self) -> bool:
        """Open the resources with facts that AWS has accepted but not described yet, if any.

        Changes by others can be detected only in facts that AWS has once described as sent.
        No resource waits for a review; all are reviewed together, since they share list calls.
        """
        opened = False
        for key, live in self.lives.items():
            task = self.tasks[key]
            if key not in self.open and live.shown is not None and self._undescribed(task):
                task.observation, task.seen, task.due, task.looks = None, -math.inf, self.now, 0
                self.open[key] = task
                opened = True
        return opened

    def _undescribed(self, task: Task) -> frozenset[str]:
        """Return the names of the facts that were sent and that AWS has not described since."""
        record = self.manifest.records.get(task.want.key)
        sent = record.sent if record and record.sent else {}
        return frozenset(name for name, each in sent.items() if each.proof is Proof.SENT)

    def looking(self, task: Task, snapshot: Snapshot) -> Callable[[], Sequence[Live]]:
        """Return the call that observes a resource, or reviews one that was ready."""
        live, names = self.lives.get(task.want.key), self._undescribed(task)
        if live is None or live.shown is None or not names:
            return super().looking(task, snapshot)
        return partial(reviewed, task.want, snapshot, live, names)

    def _is_awaited(self, want: Resource) -> bool:
        """Whether a resource is not ready yet; one that is open for a review was."""
        return want.key in self.open and want.key not in self.lives

    def _consent(self, lost: Iterable[str]) -> None:
        """Ask once for consent to each disruption: before the first change, if known by then."""
        if lines := [line for line in lost if line not in self.consented]:
            self.context.consent(lines)
            self.consented.update(lines)

    def can_start(self, task: Task) -> bool:
        """Whether the dependencies of its create, or of its update if it exists, are ready.

        The cluster can be claimed once its bucket exists, so everything else waits for that.
        """
        if self.context.claim and task.want.key != BUCKET and not self.has_bucket():
            return False
        if is_there(task):
            needs = [*task.want.needs(), *self._holders(task.want)]
            if less := self._less(task):
                needs = [*less.needs()]
            return not any(map(self._is_awaited, needs))
        return (
            not any(map(self._is_awaited, task.want.create_requires()))
            and all(map(self._has_id, task.want.create_names()))
            and all(is_there(self.tasks[each.key]) for each in task.want.create_after())
        )

    def _has_id(self, want: Resource) -> bool:
        """Whether its id may be named: it is ready, or lacks nothing but an update."""
        task = self.tasks[want.key]
        if not self._is_awaited(want):
            return True
        if (seen := task.observation) is None:
            return False
        return seen.status in (Status.MATCHES, Status.DRIFTED) and self.is_current(task, seen)

    def _less(self, task: Task) -> Resource | None:
        """Return the resource without parts that it names and that go, if it names such."""
        found = self._let_go(task)
        return found[1] if found else None

    def _holders(self, want: Resource) -> Iterator[Resource]:
        """Yield what names parts of a resource that go with its change."""
        for task in self.holding:
            if (found := self._let_go(task)) and found[0].key == want.key:
                yield task.want

    def _let_go(self, task: Task) -> tuple[Resource, Resource] | None:
        seen = task.observation
        if seen is None or seen.live is None or seen.status is not Status.DRIFTED:
            return None
        return task.want.let_go(seen.live)

    def is_current(self, task: Task, observation: Observation) -> bool:
        """Whether an observation is still valid; certain absence always is (see FRESH)."""
        want, record = task.want, self.manifest.records.get(task.want.key)
        lasts = (
            observation.status is Status.ABSENT
            and want.signed
            and not want.is_leftover
            and not want.is_awaited
            and (record is None or record.state == "deleted")
            and task.seen > -math.inf
        )
        return lasts or (super().is_current(task, observation) and not task.partly)

    def decide(self, task: Task, observation: Observation) -> None:
        """Decide on an observation, and carry the decision out."""
        if observation.live and observation.status in (Status.MATCHES, Status.DRIFTED):
            # it may have been compared before the ids of what it needs were known
            observation = task.observation = self.compare(task, [observation.live])
        live = observation.live
        if live and is_elsewhere(task.want, live, self.references):
            raise self._lost_race(task.want, live)
        decision = decide(observation, self._circumstances(task, observation))
        if decision.error:
            if observation.status is Status.FAILED:
                self.say(task, EventType.FAILED, live.why if live else "")
            raise decision.error
        if decision.action in CHANGES:
            self.claim()
        if decision.action is Action.CREATE:
            self._create(task)
        elif decision.action is Action.WAIT and not (live and live.lags):
            self.wait(task, decision.why)
        else:
            assert live
            self._go_on(task, live, observation, decision.action)

    def _go_on(self, task: Task, live: Live, observation: Observation, action: Action) -> None:
        """Carry out the action on a resource that exists."""
        match action:
            case Action.CHANGE if observation.status is Status.DUPLICATES:
                self._delete_duplicate(task, observation)
            case Action.CHANGE if less := self._less(task):
                self._send_less(task, less, live, observation)
            case Action.CHANGE:
                self._update(task, live, observation)
            case Action.REPLACE:
                self._replace(task, live)
            case Action.WAIT:
                self._lag(task, live)
            case _:
                if (there := self.recorded_data(task.want)) not in ("", live.id):
                    self.context.warn(f"{task.want.key}: {live.id} has taken the place of {there}")
                self._ready(task, live, observation)

    def _circumstances(self, task: Task, observation: Observation) -> Circumstances:
        want, live = task.want, observation.live
        return Circumstances(
            adopted=self.manifest.adopted.get(want.key, ""),
            hidden=self.hidden(task, doubts=want.identity is Identity.NONE),
            said_to_exist=self._said_to_exist(task),
            replaceable=live is not None and not task.replaced and self._may_replace(task, live),
            recorded=self.recorded_data(want),
            may_hold_data=self.may_hold_data(want, live),
            may_be_in_use=self.may_be_in_use(want, live),
            updated=task.updated,
            just_updated=task.acted is not None and self.now - task.acted < GRACE,
            may_lag=bool(live and live.lags) and self._has_time(task),
            warnings_may_go=bool(live and live.warnings) and self._may_come(task),
        )

    def _may_replace(self, task: Task, live: Live) -> bool:
        """Whether the user allows it, or it failed because this run has just created its role."""
        if self.context.replace_failed or live.holds_nothing:
            return live.state is State.FAILED
        create_requires = [
            seed.key for seed in task.want.create_requires() if seed.step == "iam" and seed.recorded
        ]
        born = [self.manifest.records[key].since for key in create_requires if self.tasks[key].born]
        recent = any(self.now - since < ROLE_SPREADS for since in born)
        return live.premature and task.born and recent

    def _replace(self, task: Task, live: Live) -> None:
        """Delete a failed resource; once it is gone, it is created like any absent one."""
        want = task.want
        task.replaced = task.changed = True
        if not (self.context.replace_failed or live.holds_nothing):
            self.context.warn(f"{want.key} is deleted and created once more: {live.why}")
        self.say(task, EventType.DELETING, live.why)
        self.manifest.mark(want.key, "deleted")
        agreed = Contents() if want.takes_along or want.leaves else None
        self.submit(task, "delete", partial(delete_all, want, self.aws, [live], agreed))

    def longest_wait(self, task: Task) -> float:
        """Return the seconds to wait; if it needs nodes, at least as long as for them."""
        own, live = super().longest_wait(task), task.observation.live if task.observation else None
        if not (live and (live.wants_nodes or live.lags)):
            return own
        nodes = [other.want for other in self.tasks.values() if other.want.is_awaited]
        if any(map(self._is_awaited, nodes)):
            return math.inf
        return max([own, *(want.longest_wait for want in nodes)])

    def _has_time(self, task: Task) -> bool:
        """Whether the run waits for nodes anyway, and no other resource waits for this one."""
        others = [
            other.want
            for other in self.open.values()
            if other is not task and self._is_awaited(other.want)
        ]
        return any(want.is_awaited for want in others) and not any(
            task.want in want.needs() for want in others
        )

    def _lag(self, task: Task, live: Live) -> None:
        """Wait until AWS reports a working resource as ready; nudge it if this run created it."""
        task.works = task.works or self.now
        if task.born and not task.nudged and self.now - task.works >= NUDGE:
            task.nudged = True
            self.submit(task, "settle", lambda: task.want.nudge(self.aws, live))
        else:
            self.wait(task, live.why)

    def _may_come(self, task: Task) -> bool:
        """Whether devices that nodes lack may still appear: their plugins start after the nodes."""
        task.works = task.works or self.now
        changed = any(other.changed for other in self.tasks.values())
        return changed and self.now - task.works < DEVICES

    def _said_to_exist(self, task: Task) -> bool:
        """Whether AWS just refused its create because it exists, and may not show it yet."""
        first = task.refused.get(("create", ErrorKind.EXISTS))
        return first is not None and self.now - first < GRACE

    def _create(self, task: Task) -> None:
        want = task.want
        record = self.manifest.records.get(want.key)
        task.fresh = not (record and record.unsure)
        task.changed = True
        if ("create", ErrorKind.EXISTS) in task.refused:  # not visible by now: use a new token
            self.manifest.forget(want.key)
        for each in want.create_names():
            if (seen := self.tasks[each.key].observation) and seen.live:
                self.named[each.key] = seen.live
        required = [
            self.references(seed)
            for seed in (*want.create_requires(), *want.create_names())
            if seed in self.references
        ]
        named = [f"{live.id} {live.attributes.get('born', '')}" for live in required]
        shared = want.lifecycle is Lifecycle.SHARED
        token = "" if shared else self.manifest.intend(want, self.now, named)
        if not any(verb == "create" for verb, _ in task.refused):
            self.say(task, EventType.CREATING, f"usually {want.usual}" if want.usual else "")
        self.submit(task, "create", lambda: want.create(self.aws, self.references, token))

    def _update(self, task: Task, live: Live, observation: Observation) -> None:
        want = task.want
        lost = disruptions(want, live, observation.differs)
        self._consent([*lost, *overwritten(observation)])
        differs = want.first(observation.differs)
        task.changed, task.acted, task.updated = True, self.now, differs
        self.note_change(task, live, doubted(observation, differs))
        self.say(task, EventType.UPDATING, ", ".join(differs))
        before = replace(live, shown=None)
        self.submit(task, "settle", lambda: want.update(self.aws, self.references, before, differs))

    def _send_less(self, task: Task, less: Resource, live: Live, observation: Observation) -> None:
        """Remove what goes; the rest of its change follows once what it needs is ready."""
        self._consent(disruptions(task.want, live, observation.differs))
        task.changed = True
        differs = observation.differs
        self.note_change(task, live, doubted(observation, differs))
        self.say(task, EventType.UPDATING)
        self.submit(task, "settle", lambda: less.update(self.aws, self.references, live, differs))

    def acted(self, task: Task, verb: str, value: Live | None) -> None:
        """Record a create before anything else, then compare the answer or observe again."""
        task.accepted(verb)
        self.note(task, verb, value)
        if verb == "create" and value is not None:
            task.looks, task.born = 0, True
            for line in value.warnings if value.state is not State.READY else ():
                self.context.warn(line)
            # a create whose answer was lost may have left one
            duplicate = task.want.identity is Identity.NONE and not task.fresh
            if duplicate or value.state is State.FAILED:  # or another run created it first
                task.again(self.now)
                task.due = self.now
                return
        task.observation, task.seen = None, self.now
        if value is not None:
            shown = answered(task.want, verb, task.updated) if value.shown is None else value.shown
            task.observation = self.compare(task, [replace(value, shown=shown)])

    def _ready(self, task: Task, live: Live, observation: Observation) -> None:
        again = task.want.key in self.lives
        for line in live.warnings if not again else ():
            self.context.warn(line)
        self.lives[task.want.key] = replace(live, shown=None) if again else live
        self._record(task.want, live, "ready", observation.sent)
        for line in unproven(observation):
            self.context.warn(line)
        if again:  # a review: it was ready before
            self.end(task)
            return
        if task.born and task.want.recorded:
            since = self.manifest.records[task.want.key].since
            self.manifest.durations[task.want.key] = round(self.now - since, 1)
        if task.want.is_awaited:  # nodes have joined: observe what waits for them at once
            for other in self.open.values():
                other.due = min(other.due, self.now)
        self.say(task, EventType.READY, live.why)
        self.end(task)

    def _delete_duplicate(self, task: Task, observation: Observation) -> None:
        """Try once to delete an unused duplicate, left by a create whose answer was lost."""
        assert observation.live
        keep, extra = observation.live, observation.duplicates[0]
        self._record(task.want, keep, self.amid(task.want, keep))
        self.spared.add(extra.id)
        self.say(task, EventType.DELETING, f"{extra.id}, a duplicate of {keep.id}")
        self.submit(task, "delete", lambda: task.want.delete(self.aws, extra))

    def _lost_race(self, want: Resource, live: Live) -> Locked:
        """Return the error for a cluster that another run created first under the same name."""
        assert want.place
        here, there = (
            self.references(want.place).id,
            live.facts.get("vpc") or live.attributes["vpc"],
        )
        return Locked(
            f"another run created {want.key} in {there} while this run was creating {here}",
            "The other run's resources were not changed. When it finishes, run the same command"
            f" again: it continues with {there} and lists what is left in {here}.",
        )

    def _failed(self, task: Task, verb: str, error: Exception) -> None:
        if verb == "settle":
            self._undoubt(task, error)
            task.acted, task.updated = None, {}
        if verb == "delete" and classify(error) is ErrorKind.DEPENDENCY and task.observation:
            task.again(self.now)  # a duplicate that is used after all is kept
            return
        super()._failed(task, verb, error)


def taken(observations: Sequence[Observation]) -> dict[str, list[str]]:
    """Return what creates and changes remove beside the resources themselves, by key."""
    lives = {s.want.key: s.live for s in observations if s.live}
    return {
        s.want.key: list(s.want.takes(s.live, lives))
        for s in observations
        if s.status in (Status.ABSENT, Status.DRIFTED, Status.BUSY)
    }


def answered(want: Resource, verb: str, updated: Iterable[str]) -> frozenset[str]:
    """Return the facts that AWS describes in its answer to a create or to an update."""
    first = set(want.answers) - set(want.later)
    return frozenset(first if verb == "create" else set(want.answers).intersection(updated) - first)


def reviewed(
    want: Resource, snapshot: Snapshot, live: Live, names: frozenset[str]
) -> Sequence[Live]:
    """Review a resource; if part of it no longer exists, observe it instead."""
    with absent(r".*NoSuch.*", r".*NotFound.*"):
        return want.review(snapshot, live, names)
    return observe(want, snapshot)


def create(wants: Sequence[Resource], context: Context) -> dict[str, Live]:
    """Create and update everything as declared, and return what exists, by key.

    ``wants`` are sorted: each resource follows those that it needs.  Resources that only an
    earlier config declared are deleted at the end.

    Raises Foreign before the first change if a resource is not owned; Unfinished, Denied,
    Capacity or HyperpodError if it cannot finish.  The manifest then has everything that was
    created, and the same call continues.
    """
    reconciler = Apply(wants, context)
    try:
        reconciler.run()
        if gone := prunable(reconciler.tasks, context.manifest):
            prune = Destroy(gone, context)
            observations = observe_all(prune)
            prune.keep_data(observations)
            prune.run()
            for each in observations:
                if each.live and prune.kept.get(each.want.key) == HOLDS_DATA:
                    context.warn(
                        f"{each.want.key} ({each.live.id}) is no longer declared; it is kept,"
                        " because it holds data"
                    )
    except OutOfDate:
        context.drain()
        context.manifest.distrust()
        return create(wants, context)  # now with the claim held
    if any(task.changed for task in reconciler.tasks.values()):
        reconciler.manifest.save()  # the durations
    return reconciler.lives


def prunable(declared: Container[str], manifest: Manifest) -> list[Resource]:
    """Return the resources that create has created and the config no longer declares."""
    return [
        want
        for key, want in manifest.remembered().items()
        if key not in declared and manifest.records[key].origin == "created"
    ]
