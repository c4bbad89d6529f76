"""Make everything as declared: create."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from functools import partial

from hyperpod_eks.aws.errors import ErrorKind
from hyperpod_eks.aws.failures import absent, classify
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.engine.decide import Action, Circumstances, adopted_is_gone, decide
from hyperpod_eks.engine.destroy import Destroy
from hyperpod_eks.engine.loop import GRACE, Context, Reconciler, Task, is_there, observe
from hyperpod_eks.engine.observe import observe_all
from hyperpod_eks.engine.wording import not_owned, unproven
from hyperpod_eks.errors import (
    Locked,
    Usage,
)
from hyperpod_eks.events import EventType
from hyperpod_eks.resources.base import (
    Identity,
    Lifecycle,
    Live,
    Proof,
    Resource,
    State,
    disruptions,
)
from hyperpod_eks.resources.compare import Observation, Status, is_elsewhere
from hyperpod_eks.state.manifest import Manifest

NUDGE = 300.0
"""Seconds after which AWS is asked to look again at what works and is not called so."""

ROLE_SPREADS = 600.0
"""Seconds after the birth of a role in which a service of AWS may not know it yet."""

DEVICES = 120.0
"""Seconds that device plugins are given to start on nodes that are Ready."""


class Apply(Reconciler):
    """Make everything as declared."""

    def __init__(self, wants: Iterable[Resource], context: Context) -> None:
        super().__init__(wants, context)
        self.consented: set[str] = set()

    def run(self) -> None:
        """Observe everything, stop before the first change if a resource is not owned, then act."""
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
        lost = (disruptions(s.want, s.live, s.differs) for s in drifted if s.live)
        self._consent(line for lines in lost for line in lines)
        if any(s.status is Status.ABSENT and s.want.recorded for s in observations):
            self.context.preflight(observations)
        for observation in observations:
            if observation.duplicates and observation.status is not Status.DUPLICATES:
                self.context.warn(_others(observation))
        super().run()
        self._review()
        super().run()

    def _advance(self) -> None:
        """Once nothing is left but to wait, review meanwhile what was sent."""
        if all(self._begun(task) for task in self.open.values()):
            self._review()
        super()._advance()

    def _begun(self, task: Task) -> bool:
        return is_there(task) or task.at_work == "create" or task.want.is_awaited

    def _review(self) -> None:
        """Look at what this run has sent and AWS has accepted, not described.

        Only what AWS has once described as sent can be seen to be changed by somebody later.
        Nothing waits for it, and it is done together, for lists are shared.
        """
        for key, live in self.lives.items():
            task = self.tasks[key]
            if key not in self.open and live.shown is not None and self._undescribed(task):
                task.observation, task.seen, task.due, task.looks = None, -math.inf, self.now, 0
                self.open[key] = task

    def _undescribed(self, task: Task) -> frozenset[str]:
        """Name the facts that were sent, and that AWS has not described since."""
        record = self.manifest.records.get(task.want.key)
        sent = record.sent if record and record.sent else {}
        return frozenset(name for name, each in sent.items() if each.proof is Proof.SENT)

    def looking(self, task: Task, snapshot: Snapshot) -> Callable[[], Sequence[Live]]:
        """Look at what was ready before for the sake of what was not described."""
        live, names = self.lives.get(task.want.key), self._undescribed(task)
        if live is None or live.shown is None or not names:
            return super().looking(task, snapshot)
        return partial(reviewed, task.want, snapshot, live, names)

    def _is_awaited(self, want: Resource) -> bool:
        """Whether it has yet to be ready; what is open for a review has been."""
        return want.key in self.open and want.key not in self.lives

    def _consent(self, lost: Iterable[str]) -> None:
        """Ask, once, about what goes: all of it before the first change, as far as it shows."""
        if lines := [line for line in lost if line not in self.consented]:
            self.context.consent(lines)
            self.consented.update(lines)

    def can_start(self, task: Task) -> bool:
        """Once everything is ready that its create names, or, if it is there, all that it needs."""
        if is_there(task):
            return not any(map(self._is_awaited, task.want.needs()))
        return not any(map(self._is_awaited, task.want.create_requires())) and all(
            is_there(self.tasks[each.key]) for each in task.want.create_after()
        )

    def is_current(self, task: Task, observation: Observation) -> bool:
        """Absence lasts, unless the journal or the missing signature leaves doubts; see FRESH."""
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
        """Carry out what `decide` says."""
        if observation.live and observation.status in (Status.MATCHES, Status.DRIFTED):
            # compared before what it needs was created, perhaps: its ids were not known then
            observation = task.observation = self.compare(task, [observation.live])
        live = observation.live
        if live and is_elsewhere(task.want, live, self.references):
            raise self._lost_race(task.want, live)
        decision = decide(observation, self._circumstances(task, observation))
        if decision.error:
            if observation.status is Status.FAILED:
                self.say(task, EventType.FAILED, live.why if live else "")
            raise decision.error
        if decision.action is Action.CREATE:
            self._create(task)
        elif decision.action is Action.WAIT and not (live and live.lags):
            self.wait(task, decision.why)
        else:
            assert live
            self._go_on(task, live, observation, decision.action)

    def _go_on(self, task: Task, live: Live, observation: Observation, action: Action) -> None:
        """Carry out what is to be done with something that exists."""
        match action:
            case Action.CHANGE if observation.status is Status.DUPLICATES:
                self._delete_duplicate(task, observation)
            case Action.CHANGE:
                self._update(task, live, observation)
            case Action.REPLACE:
                self._replace(task, live)
            case Action.WAIT:
                self._lag(task, live)
            case _:
                self._ready(task, live, observation)

    def _circumstances(self, task: Task, observation: Observation) -> Circumstances:
        want, live = task.want, observation.live
        return Circumstances(
            adopted=self.manifest.adopted.get(want.key, ""),
            hidden=self.hidden(task, doubts=want.identity is Identity.NONE),
            said_to_exist=self._said_to_exist(task),
            replaceable=live is not None and not task.replaced and self._may_replace(task, live),
            updated=task.updated,
            just_updated=task.acted is not None and self.now - task.acted < GRACE,
            may_lag=bool(live and live.lags) and self._has_time(task),
            warnings_may_go=bool(live and live.warnings) and self._may_come(task),
        )

    def _may_replace(self, task: Task, live: Live) -> bool:
        """Whether the user said so, or this run made it and its role a moment ago."""
        if self.context.replace_failed:
            return live.state is State.FAILED
        create_requires = [
            seed.key for seed in task.want.create_requires() if seed.step == "iam" and seed.recorded
        ]
        born = [self.manifest.records[key].since for key in create_requires if self.tasks[key].born]
        recent = any(self.now - since < ROLE_SPREADS for since in born)
        return live.premature and task.born and recent

    def _replace(self, task: Task, live: Live) -> None:
        """Delete it; once it is gone, it is created like anything that is absent."""
        want = task.want
        task.replaced = task.changed = True
        if not self.context.replace_failed:
            self.context.warn(f"{want.key} is deleted and created once more: {live.why}")
        self.say(task, EventType.DELETING, live.why)
        self.manifest.mark(want.key, "deleted")
        self.submit(task, "delete", lambda: want.delete(self.aws, live))

    def longest_wait(self, task: Task) -> float:
        """What needs nodes, to start or to be called ready, is waited for as long as they are."""
        own, live = super().longest_wait(task), task.observation.live if task.observation else None
        if not (live and (live.wants_nodes or live.lags)):
            return own
        nodes = [other.want for other in self.tasks.values() if other.want.is_awaited]
        if any(map(self._is_awaited, nodes)):
            return math.inf
        return max([own, *(want.longest_wait for want in nodes)])

    def _has_time(self, task: Task) -> bool:
        """Whether nodes are waited for anyway, and nobody waits for this one."""
        others = [
            other.want
            for other in self.open.values()
            if other is not task and self._is_awaited(other.want)
        ]
        return any(want.is_awaited for want in others) and not any(
            task.want in want.needs() for want in others
        )

    def _lag(self, task: Task, live: Live) -> None:
        """Look on while AWS does not say that it works; have what this run made looked at again."""
        task.works = task.works or self.now
        if task.born and not task.nudged and self.now - task.works >= NUDGE:
            task.nudged = True
            self.submit(task, "settle", lambda: task.want.nudge(self.aws, live))
        else:
            self.wait(task, live.why)

    def _may_come(self, task: Task) -> bool:
        """Whether what nodes of this run lack may still come: device plugins start after them."""
        task.works = task.works or self.now
        changed = any(other.changed for other in self.tasks.values())
        return changed and self.now - task.works < DEVICES

    def _said_to_exist(self, task: Task) -> bool:
        """Whether its create was refused a moment ago for something that may only be hidden yet."""
        first = task.refused.get(("create", ErrorKind.EXISTS))
        return first is not None and self.now - first < GRACE

    def _create(self, task: Task) -> None:
        want = task.want
        record = self.manifest.records.get(want.key)
        task.fresh = not (record and record.unsure)
        task.changed = True
        if ("create", ErrorKind.EXISTS) in task.refused:  # by now it would show: the token is spent
            self.manifest.forget(want.key)
        create_requires = [
            self.references(seed) for seed in want.create_requires() if seed in self.references
        ]
        named = [f"{live.id} {live.attributes.get('born', '')}" for live in create_requires]
        shared = want.lifecycle is Lifecycle.SHARED
        token = "" if shared else self.manifest.intend(want, self.now, named)
        if not any(verb == "create" for verb, _ in task.refused):
            self.say(task, EventType.CREATING, f"usually {want.usual}" if want.usual else "")
        self.submit(task, "create", lambda: want.create(self.aws, self.references, token))

    def _update(self, task: Task, live: Live, observation: Observation) -> None:
        want = task.want
        self._consent(disruptions(want, live, observation.differs))
        differs = want.first(observation.differs)
        task.changed, task.acted, task.updated = True, self.now, differs
        self._record(want, live, "created", observation.sent)
        self.say(task, EventType.UPDATING, ", ".join(differs))
        before = replace(live, shown=None)
        self.submit(task, "settle", lambda: want.update(self.aws, self.references, before, differs))

    def acted(self, task: Task, verb: str, value: Live | None) -> None:
        """Record a birth before anything else, then judge what the answer shows or look again."""
        task.accepted(verb)
        self.note(task, verb, value)
        if verb == "create" and value is not None:
            task.looks, task.born = 0, True
            for line in value.warnings if value.state is not State.READY else ():
                self.context.warn(line)
            # a lost answer may have left one
            duplicate = task.want.identity is Identity.NONE and not task.fresh
            if duplicate or value.state is State.FAILED:  # or another run was first
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
        if again:  # it was ready before, and is proven now
            self.end(task)
            return
        if task.changed:
            self.manifest.durations[task.want.key] = round(self.now - task.since, 1)
        if task.want.is_awaited:  # nodes have come: what waits for them need not wait for its turn
            for other in self.open.values():
                other.due = min(other.due, self.now)
        self.say(task, EventType.READY, live.why)
        self.end(task)

    def _delete_duplicate(self, task: Task, observation: Observation) -> None:
        """Two of one, for a lost answer was repeated: delete one that nothing uses, trying once."""
        assert observation.live
        keep, extra = observation.live, observation.duplicates[0]
        self._record(task.want, keep, "created")
        self.spared.add(extra.id)
        self.say(task, EventType.DELETING, f"{extra.id}, a duplicate of {keep.id}")
        self.submit(task, "delete", lambda: task.want.delete(self.aws, extra))

    def _lost_race(self, want: Resource, live: Live) -> Locked:
        """Two runs made a cluster of one name, and AWS took the other one's."""
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
            task.acted, task.updated = None, {}
        if verb == "delete" and classify(error) is ErrorKind.DEPENDENCY and task.observation:
            task.again(self.now)  # a twin that is used after all stays
            return
        super()._failed(task, verb, error)


def answered(want: Resource, verb: str, updated: Iterable[str]) -> frozenset[str]:
    """Name the facts that AWS describes in its answer to a create, or to a change of others."""
    first = set(want.answers) - set(want.later)
    return frozenset(first if verb == "create" else set(want.answers).intersection(updated) - first)


def reviewed(
    want: Resource, snapshot: Snapshot, live: Live, names: frozenset[str]
) -> Sequence[Live]:
    """Review it; if something of it is not there any more, find out what is."""
    with absent(r".*NoSuch.*", r".*NotFound.*"):
        return want.review(snapshot, live, names)
    return observe(want, snapshot)


def _others(observation: Observation) -> str:
    """Name the twins that stay, and what is in them."""
    assert observation.live
    rows = []
    for duplicate in observation.duplicates:
        used_by = [each.partition(":")[0] for each in duplicate.attributes.get("tenants", ())]
        more = f" and {len(used_by) - 3} more" if len(used_by) > 3 else ""
        rows.append(f"{duplicate.id} ({', '.join(used_by[:3])}{more})" if used_by else duplicate.id)
    return (
        f"{observation.want.key}: {'; '.join(rows)} was created by another run, and the cluster "
        f"uses {observation.live.id}. It is kept, and AWS bills it: delete it by hand when no "
        "other run is active; `delete` of this cluster deletes both"
    )


def create(wants: Sequence[Resource], context: Context) -> dict[str, Live]:
    """Make everything as declared and return what is live, by key.

    Resources that only an earlier config declared are deleted at the end.

    ``wants`` stand in an order in which everything comes after what it needs.  Raises Foreign
    before the first change if a name is taken; Unfinished, Denied, Capacity or HyperpodError
    when it has to stop.  Whatever was made is in the journal, and the same call continues.
    """
    reconciler = Apply(wants, context)
    reconciler.run()
    if gone := prunable(reconciler.tasks, context.manifest):
        prune = Destroy(gone, context, frozenset())
        observe_all(prune)
        prune.run()
    if any(task.changed for task in reconciler.tasks.values()):
        reconciler.manifest.save()  # the durations
    return reconciler.lives


def prunable(declared: Container[str], manifest: Manifest) -> list[Resource]:
    """Everything that create made once and that the config no longer asks for."""
    return [
        want
        for key, want in manifest.remembered().items()
        if key not in declared and manifest.records[key].origin == "created"
    ]


def impossible(drifted: Sequence[Observation], gone: Sequence[Resource]) -> list[str]:
    """Say what AWS will not change, with the reason; nothing has been changed by then."""
    reasons = [
        f"{s.want.key}: {name} is {is_!r}, declared {declared!r}: {reason}"
        for s in drifted
        for name, (is_, declared) in s.differs.items()
        if (reason := s.want.immutable_reason(name, s.differs))
    ]
    return reasons + [
        f"{want.key} is no longer declared: {want.cannot_delete}"
        for want in gone
        if want.cannot_delete
    ]
