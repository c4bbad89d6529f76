"""What create would do: the same observations and decisions, without changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hyperpod_eks.aws import prices
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.price_list import look_up
from hyperpod_eks.aws.prices import Listed, Rate
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.engine import Apply, Context, Destroy, observe_all, prunable
from hyperpod_eks.engine.apply import taken
from hyperpod_eks.engine.decide import CHANGING, HOLDS_DATA, Action, Circumstances, Decision, decide
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources import access_entry, eks
from hyperpod_eks.resources.base import (
    Identity,
    Live,
    NotReady,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.compare import Observation, Status


@frozen
class Planned:
    """What create would do with one resource."""

    key: str
    id: str
    decision: Decision


def plan(wants: Sequence[Resource], context: Context) -> tuple[list[Planned], list[Observation]]:
    """Observe everything and return what ``engine.create`` would do, in the order of the stack.

    Changes nothing and writes nothing.  Also returns the observations.
    """
    reconciler = Apply(wants, context)
    observations = observe_all(reconciler)
    lives: dict[str, Live] = {}
    rows, actions, removed = [], dict[str, Action](), taken(observations)
    for each in observations:
        key, live = each.want.key, each.live
        given = _circumstances(reconciler, each, References(lives), actions)
        decision = decide(each, given)
        if lines := removed.get(key):
            decision = replace(decision, why="; ".join(filter(None, (decision.why, *lines))))
        rows.append(Planned(key, (live.id if live else "") or given.adopted, decision))
        actions[key] = decision.action
        if live and decision.action not in (Action.CREATE, Action.REPLACE, Action.REFUSE):
            lives[key] = live
    if line := new_administrator(observations, context):
        caller = f"eks/{access_entry.CALLER}"
        rows = [
            replace(row, decision=replace(row.decision, why=line)) if row.key == caller else row
            for row in rows
        ]
    return [*rows, *_surplus(wants, context)], observations


def new_administrator(observations: Sequence[Observation], context: Context) -> str:
    """Return the warning that create would add its caller to a cluster's administrators.

    Empty if it would not: the caller has an entry already or is listed under ``eks.access``, or
    the cluster has no administrator yet, since its creation is unfinished.
    """
    seen = {observation.want.key: observation for observation in observations}
    entry, control = seen.get(f"eks/{access_entry.CALLER}"), seen.get("eks/cluster")
    if entry is None or entry.status is not Status.ABSENT or control is None:
        return ""
    if control.live is None or control.live.state is not State.READY:
        return ""
    snapshot = Snapshot(context.aws)
    me, name = access_entry.caller(snapshot), control.live.id
    listed = [
        s.want.principal for s in observations if isinstance(s.want, access_entry.AccessEntry)
    ]
    others = [] if me in listed else access_entry.administrators(snapshot, name)
    if not others:
        return ""
    return (
        f"{me} becomes an administrator of the Kubernetes cluster {name}, as {', '.join(others)} "
        "is; to allow it without --yes, list it under eks.access"
    )


def _circumstances(
    reconciler: Apply,
    observation: Observation,
    references: References,
    actions: Mapping[str, Action],
) -> Circumstances:
    """Return the circumstances of a decision, as far as they can be predicted."""
    want, live = observation.want, observation.live
    record = reconciler.manifest.records.get(want.key)
    unseen = ""
    if not (live and live.id) and not want.is_awaited and not (record and record.id):
        unseen = next((n.key for n in want.needs() if actions.get(n.key) in CHANGING), "")
    return Circumstances(
        adopted=reconciler.manifest.adopted.get(want.key, ""),
        hidden=reconciler.hidden(reconciler.tasks[want.key], doubts=want.identity is Identity.NONE),
        unseen_before=unseen,
        replaceable=bool(live and live.state is State.FAILED)
        and (reconciler.context.replace_failed or bool(live and live.holds_nothing)),
        recorded=reconciler.recorded_data(want),
        may_hold_data=reconciler.may_hold_data(want, live),
        may_be_in_use=reconciler.may_be_in_use(want, live),
        unresolved=_unresolved(want, live, references) if live else {},
    )


def critical_path(
    wants: Sequence[Resource], rows: Sequence[Planned], measured: Mapping[str, float]
) -> list[tuple[str, float]]:
    """Return the slowest chain of creates and changes: keys, and the seconds of each.

    ``measured`` has the durations of an earlier create by key; without one, typical durations
    count.  Everything else runs in parallel, and takes no longer.
    """
    actions = {row.key: row.decision.action for row in rows}
    paths: dict[str, list[tuple[str, float]]] = {}

    def longest(of: Iterable[Resource]) -> list[tuple[str, float]]:
        return max((paths[want.key] for want in of), key=_seconds, default=[])

    for want in wants:
        required = (*want.create_requires(), *want.create_names())
        path, action = longest(required), actions.get(want.key)
        if action is Action.CHANGE:
            path = [*path, (want.key, want.typical_change)]
        elif action in (Action.CREATE, Action.REPLACE, Action.WAIT) and not want.is_awaited:
            path = [*path, (want.key, measured.get(want.key, want.typical))]
        paths[want.key] = max(path, longest(want.needs()), key=_seconds)
    return longest(wants)


def _seconds(path: Iterable[tuple[str, float]]) -> float:
    return sum(seconds for _, seconds in path)


def _unresolved(want: Resource, live: Live, references: References) -> dict[str, tuple[Any, Any]]:
    """Return the facts that will differ since they name a resource that create creates."""
    found = {}
    for name in want.names(live):
        try:
            want.expected(name, references)
        except NotReady as missing:
            found[name] = (live.facts.get(name), f"known once {missing.args[0]} exists")
    return found


def _surplus(wants: Sequence[Resource], context: Context) -> Iterator[Planned]:
    """Yield the resources that only an earlier config declared: create deletes them at the end."""
    gone = prunable({want.key for want in wants}, context.manifest)
    reconciler = Destroy(gone, context)
    observations = observe_all(reconciler)
    reconciler.keep_data(observations)
    for observation in observations:
        want, id_ = observation.want, observation.live.id if observation.live else ""
        if want.cannot_delete:
            yield Planned(want.key, id_, Decision(Action.REFUSE, want.cannot_delete))
        elif id_ and reconciler.decision(observation).action is Action.DELETE:
            why = ", ".join(filter(None, ("no longer declared", want.takes_along)))
            yield Planned(want.key, id_, Decision(Action.DELETE, why))
        elif id_ and reconciler.decision(observation).why == HOLDS_DATA:
            why = "no longer declared; it is kept, because it holds data"
            yield Planned(want.key, id_, Decision(Action.KEEP, why))


def listed(wants: Iterable[Resource], aws: Aws) -> dict[Rate, Listed]:
    """Look up the prices of what is declared."""
    rates = {item.rate for want in wants for item in want.prices(extended=True)}
    return look_up(aws, aws.identity, rates)


def cost(
    wants: Iterable[Resource], found: Mapping[Rate, Listed], region: str, *, extended: bool
) -> prices.Cost:
    """Return the cost of what is declared.

    ``extended`` says whether the Kubernetes version is in extended support.
    """
    items = (item for want in wants for item in want.prices(extended=extended))
    return prices.estimate(items, found, region)


def version_of(observations: Sequence[Observation], declared: str) -> str:
    """Return the cluster's Kubernetes version if it exists, else the declared one."""
    for observation in observations:
        if isinstance(observation.want, eks.Cluster) and observation.live:
            return str(observation.live.attributes.get("version") or declared)
    return declared
