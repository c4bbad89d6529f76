"""One concurrent read of all resources, and their comparison with the declarations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from hyperpod_eks.aws.errors import ErrorKind
from hyperpod_eks.aws.failures import classify
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.engine.context import LONGEST_AGE, Context
from hyperpod_eks.engine.loop import Reconciler, Task, observe
from hyperpod_eks.engine.wording import words_of
from hyperpod_eks.resources.base import Identity, Live, References, Resource, State
from hyperpod_eks.resources.compare import Observation, Status
from hyperpod_eks.state.record import RecordState


def observe_all(
    reconciler: Reconciler, *, data: bool = False, leftovers: bool = False
) -> list[Observation]:
    """Read all resources concurrently and compare them, each after those that it needs.

    Leftovers are read with ``leftovers``, and with ``data`` those that hold data.

    A resource that cannot be read yet counts as busy and is observed again later: the Helm
    release, for one, needs an access entry that may not exist yet.
    """
    tasks = [
        task
        for task in reconciler.tasks.values()
        if not task.want.is_leftover or leftovers or (data and task.want.data)
    ]
    return compare_all(reconciler, *find_all(reconciler, tasks, _first_look(reconciler)))


def _first_look(reconciler: Reconciler) -> Snapshot:
    """Return the look that the session has begun, or another one if that is old or unfit.

    A delete looks for data, and everything else for settings.
    """
    begun, reconciler.context.first_snapshot = reconciler.context.first_snapshot, None
    if begun and begun.bare is reconciler.bare and begun.age <= LONGEST_AGE:
        return begun
    return Snapshot(reconciler.aws, bare=reconciler.bare)


def find_all(
    reconciler: Reconciler, tasks: Iterable[Task], snapshot: Snapshot
) -> tuple[dict[str, Sequence[Live]], dict[str, Observation]]:
    """Find all resources concurrently; also return, by key, those that cannot be read yet."""
    found: dict[str, Sequence[Live]] = {}
    unseen: dict[str, Observation] = {}
    looking = {task.want.key: task for task in tasks}
    with reconciler.context.pool.doubled():
        while looking:
            newer = Snapshot(reconciler.aws, bare=reconciler.bare)
            for task in looking.values():
                if not task.at_work and task.due <= reconciler.now:
                    # one that failed may have met answers from before and after a change
                    view = newer if task.refused else snapshot
                    reconciler.submit(task, "look", partial(observe, task.want, view))
            due = min(
                (t.due for t in looking.values() if not t.at_work), default=reconciler.now + 10
            )
            result = reconciler.context.pool.wait(max(due - reconciler.now, 0.0))
            if result is None:
                continue
            if result.job is None:
                raise result.error or AssertionError("an empty interruption")
            task, key = result.job, result.job.want.key
            task.at_work = ""
            if not isinstance(result.error, Exception | None):
                raise result.error
            if result.error is None:
                task.accepted("look")
                found[key] = result.value
            elif classify(result.error) is ErrorKind.PROPAGATION:
                nothing = Live("", state=State.BUSY, why=words_of(result.error))
                unseen[key] = Observation(task.want, Status.BUSY, nothing)
            else:
                reconciler._failed(task, "look", result.error)
                continue
            del looking[key]
    return found, unseen


def compare_all(
    reconciler: Reconciler, found: Mapping[str, Sequence[Live]], unseen: Mapping[str, Observation]
) -> list[Observation]:
    """Compare resources in the order of their dependencies, so that ids can be compared."""
    seen: dict[str, Live] = {}
    references, observations = References(seen), []
    reconciler.homes = frozenset(
        live.attributes["vpc"]
        for key, lives in found.items()
        for live in lives
        if reconciler.tasks[key].want.identity is Identity.NAME
        and live.owner == reconciler.aws.lineage
        and "vpc" in live.attributes
    )
    # a leftover is ours if its source is
    for task in sorted(reconciler.tasks.values(), key=lambda each: each.want.is_leftover):
        key = task.want.key
        if key in unseen:
            observations.append(unseen[key])
        if key not in found:
            continue
        observation = reconciler.compare_with(task.want, found[key], references)
        task.observation, task.seen = observation, reconciler.now
        if observation.live and not all(
            need in references for need in task.want.needs() if not need.is_leftover
        ):
            task.partly = True  # facts that name absent resources were not compared
        if observation.live and observation.status not in (Status.FOREIGN, Status.DUPLICATES):
            seen[key] = observation.live
        observations.append(observation)
    return observations


def rebuild(wants: Sequence[Resource], context: Context) -> list[Observation]:
    """Record in the manifest what is owned by name and tags; change nothing in AWS."""
    reconciler = Reconciler(wants, context)
    found = []
    for observation in observe_all(reconciler):
        if observation.status is Status.FOREIGN or not observation.want.recorded:
            continue
        if observation.live and observation.live.id:
            state: RecordState = "ready" if observation.status is Status.MATCHES else "updating"
            reconciler._record(observation.want, observation.live, state, observation.sent or {})
            found.append(observation)
    return found


def status(wants: Sequence[Resource], context: Context) -> list[Observation]:
    """Observe everything, change nothing."""
    return observe_all(Reconciler(wants, context))
