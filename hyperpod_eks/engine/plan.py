"""What create would do, told before it does it: the same looks, the same judgement, no calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from hyperpod_eks.aws import prices
from hyperpod_eks.aws.client import Snapshot
from hyperpod_eks.aws.prices import Item
from hyperpod_eks.engine import Apply, Context, Destroy, observe_all, prunable, stranger
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources import access_entry, eks
from hyperpod_eks.resources.base import (
    Live,
    NotReady,
    References,
    Resource,
    State,
    disruptions,
)
from hyperpod_eks.resources.compare import Observation, Status
from hyperpod_eks.resources.ec2.endpoint import VpcEndpoint
from hyperpod_eks.resources.ec2.gateways import ElasticIp, NatGateway
from hyperpod_eks.resources.hyperpod import cluster as hyperpod_cluster

CHANGING = ("create", "change", "replace", "delete")
"""The actions for which create makes calls that change something."""


@frozen
class Deed:
    """What create would do with one resource.

    ``action`` is create, change, replace (a failed one, with --replace-failed), keep, adopt (use
    an existing one as it is), wait (AWS is at work on it), delete (no longer declared) or refuse
    (create would stop there).
    ``differs`` holds, by field, what it is and what it shall be; for what depends on something
    that has no id yet, the latter says so in words.
    """

    key: str
    action: str
    id: str = ""
    why: str = ""
    differs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


def plan(wants: Sequence[Resource], context: Context) -> tuple[list[Deed], list[Observation]]:
    """Look at everything and say what ``engine.create`` would do, in the order of the stack.

    Changes nothing and writes nothing.  Returns the sights too, for those who count.
    """
    reconciler = Apply(wants, context)
    observations = observe_all(reconciler)
    lives: dict[str, Live] = {}
    deeds = []
    actions: dict[str, str] = {}
    for observation in observations:
        deed = _deed(reconciler, observation, References(lives), actions)
        deeds.append(deed)
        actions[deed.key] = deed.action
        if observation.live and deed.action not in ("create", "replace", "refuse"):
            lives[observation.want.key] = observation.live
    if line := newcomer(observations, context):
        deeds = [
            replace(d, why=line) if d.key == f"eks/{access_entry.CALLER}" else d for d in deeds
        ]
    return [*deeds, *_surplus(wants, context)], observations


def newcomer(observations: Sequence[Observation], context: Context) -> str:
    """Say that a create would make its caller an administrator of a cluster that another created.

    Empty where it would not: the caller has an entry already or is listed under ``eks.access``, or
    nobody administers the cluster yet, which is then half-made.
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


def _deed(
    reconciler: Apply, observation: Observation, references: References, actions: Mapping[str, str]
) -> Deed:
    """Decide as ``Apply.decide`` does, for one resource whose needs have been decided."""
    want, live, task = observation.want, observation.live, reconciler.tasks[observation.want.key]
    key, id_ = want.key, live.id if live else ""
    adopted = reconciler.manifest.adopted.get(key)
    match observation.status:
        case Status.FOREIGN:
            return Deed(key, "refuse", id_, f"belongs to {stranger(observation)}")
        case Status.ABSENT if adopted:
            return Deed(key, "refuse", adopted, "it was adopted and is gone")
        case Status.ABSENT if want.is_awaited:
            return Deed(key, "wait", "", "it comes by itself")
        case Status.ABSENT if reconciler.hidden(task, doubts=False):
            return Deed(key, "wait", "", "made a moment ago; AWS does not show it yet")
        case Status.ABSENT:
            return Deed(key, "create", "", f"usually {want.usual}" if want.usual else "")
        case Status.BUSY if not (id_ or want.is_awaited or _made_before(reconciler, key)):
            unseen = next((n.key for n in want.needs() if actions.get(n.key) in CHANGING), "")
            return Deed(key, "create", "", f"cannot be seen before {unseen} is as declared")
        case Status.BUSY:
            return Deed(key, "wait", id_, live.why if live else "")
        case Status.FAILED if adopted:
            why = f"it was adopted and has failed: {live.why if live else ''}"
            return Deed(key, "refuse", id_, why)
        case Status.FAILED if live and live.state is State.STUCK:
            return Deed(key, "refuse", id_, live.why)
        case Status.FAILED if reconciler.context.replace_failed:
            return Deed(key, "replace", id_, live.why if live else "")
        case Status.FAILED:
            why = f"it has failed; --replace-failed makes it anew: {live.why if live else ''}"
            return Deed(key, "refuse", id_, why)
        case Status.DUPLICATES:
            extra = ", ".join(duplicate.id for duplicate in observation.duplicates)
            return Deed(key, "change", id_, f"{extra} is deleted: an unused duplicate")
    assert live
    if adopted:
        return Deed(key, "adopt", id_, "used as it is")
    differs = {**observation.differs, **_unborn(want, live, references)}
    if not differs:
        return Deed(key, "keep", id_)
    if barred := _barred(want, differs):
        return Deed(key, "refuse", id_, barred, differs)
    lost = [line.removeprefix(f"{key}: ") for line in disruptions(want, live, observation.differs)]
    return Deed(key, "change", id_, "; ".join(lost), differs)


def critical_path(
    wants: Sequence[Resource], deeds: Sequence[Deed], measured: Mapping[str, float]
) -> list[tuple[str, float]]:
    """Find the chain of births and changes that create waits for longest: keys, seconds of each.

    ``measured`` are the durations of an earlier create; without one, what AWS commonly takes.
    Nothing that create does beside this chain makes it longer.
    """
    actions = {deed.key: deed.action for deed in deeds}
    paths: dict[str, list[tuple[str, float]]] = {}

    def longest(of: Iterable[Resource]) -> list[tuple[str, float]]:
        return max((paths[want.key] for want in of), key=_seconds, default=[])

    for want in wants:
        path, action = longest(want.create_requires()), actions.get(want.key)
        if action == "change":
            path = [*path, (want.key, want.typical_change)]
        elif action in ("create", "replace", "wait") and not want.is_awaited:
            path = [*path, (want.key, measured.get(want.key, want.typical))]
        paths[want.key] = max(path, longest(want.needs()), key=_seconds)
    return longest(wants)


def _seconds(path: Iterable[tuple[str, float]]) -> float:
    return sum(seconds for _, seconds in path)


def _made_before(reconciler: Apply, key: str) -> bool:
    record = reconciler.manifest.records.get(key)
    return record is not None and bool(record.id)


def _unborn(want: Resource, live: Live, references: References) -> dict[str, tuple[Any, Any]]:
    """Find the facts that will differ because they name something that is made anew."""
    found = {}
    for name in want.names(live):
        try:
            want.expected(name, references)
        except NotReady as missing:
            found[name] = (live.facts.get(name), f"known once {missing.args[0]} is made")
    return found


def _barred(want: Resource, differs: Mapping[str, tuple[Any, Any]]) -> str:
    """Say why AWS does not change it; empty where it does.  No ``update``: nothing is changed."""
    reasons = [reason for name in differs if (reason := want.immutable_reason(name, differs))]
    if not reasons and type(want).update is Resource.update:
        reasons = ["AWS does not change this in place"]
    return "; ".join(reasons)


def _surplus(wants: Sequence[Resource], context: Context) -> Iterator[Deed]:
    """What an earlier config declared and this one does not: create takes it away at the end."""
    gone = prunable({want.key for want in wants}, context.manifest)
    reconciler = Destroy(gone, context, frozenset())
    for observation in observe_all(reconciler):
        live, fate = observation.live, reconciler.fate(observation)
        if observation.want.cannot_delete:
            yield Deed(
                observation.want.key,
                "refuse",
                live.id if live else "",
                observation.want.cannot_delete,
            )
        elif live and fate.verb == "delete":
            yield Deed(observation.want.key, "delete", live.id, "no longer declared")


def costs(wants: Sequence[Resource], support: str) -> dict[str, Any]:
    """Price what is declared, per hour; ``support`` is that of the Kubernetes version."""

    def items() -> Iterator[Item]:
        yield Item(f"EKS control plane, {support}", 1, prices.EKS[support])
        counts = Counter(type(want) for want in wants)
        yield Item("NAT gateway", counts[NatGateway], prices.NAT_GATEWAY)
        yield Item("public IPv4 address", counts[ElasticIp], prices.PUBLIC_IPV4)
        endpoints = [want for want in wants if isinstance(want, VpcEndpoint)]
        zones = sum(len(each.subnets) for each in endpoints)
        yield Item("interface endpoint in a zone", zones, prices.INTERFACE_ENDPOINT)
        for want in wants:
            for group in want.groups if isinstance(want, hyperpod_cluster.Cluster) else ():
                kind, count = group.instance_type, group.instance_count
                spec = group.members
                spot = "Spot" in (spec.get("CapacityRequirements") or {})
                prepaid = bool(spec.get("TrainingPlanArn"))
                yield prices.nodes(kind, count, prepaid=prepaid, spot=spot)
                if "FSxLustreConfig" in (spec.get("EnvironmentConfig") or {}):
                    yield Item("FSx for Lustre file system", 1, None)
                if size := group.ebs_volume_size_in_gb:
                    yield Item(f"EBS, {size} GB", count, size * prices.EBS / prices.HOURS)

    return prices.estimate(item for item in items() if item.count)


def support_of(aws: Any, version: str) -> str:
    """Ask EKS which support a Kubernetes version is in."""
    found = aws.eks.describe_cluster_versions(clusterVersions=[version])["clusterVersions"]
    status = str(found[0].get("versionStatus", "")) if found else ""
    return "extended support" if status == "EXTENDED_SUPPORT" else "standard support"


def version_of(observations: Sequence[Observation], declared: str) -> str:
    """Return the Kubernetes version that runs, else the one that will."""
    for observation in observations:
        if isinstance(observation.want, eks.Cluster) and observation.live:
            return str(observation.live.attributes.get("version") or declared)
    return declared
