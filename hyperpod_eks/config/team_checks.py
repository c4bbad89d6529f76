"""The rules of teams: amounts, namespaces, people, and what task governance needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config.rules import Finding, get
from hyperpod_eks.config.yaml import Loc

if TYPE_CHECKING:
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.config.teams import Team

_AMOUNTS = ("count", "accelerators", "v_cpu", "memory_in_gib", "accelerator_partition")
_PREFIX = "hyperpod-ns-"
_CREATED = "SageMaker creates it with the team's quota"


def teams(config: Config) -> Iterator[Finding]:
    """Teams need nodes, a Kueue that is the add-on's, and namespaces that nobody else creates."""
    if not config.teams:
        used = [name for name, value in config.scheduler_config if value]
        if used:
            loc = ("scheduler_config", used[0])
            yield Finding(loc, "has no effect without teams; declare teams, or remove it", True)
        return
    yield from _surroundings(config)
    for name, team in config.teams.items():
        yield from _quota(team, ("teams", name, "quota"))
        yield from _sharing(team, ("teams", name, "resource_sharing_config"))
        yield from _people(config, team, ("teams", name, "people"))


def _surroundings(config: Config) -> Iterator[Finding]:
    if not config.scales_itself and not any(each.instance_count for each in config.groups):
        text = "need a node (Kueue runs on one, and a policy that comes before it fails for good)"
        yield Finding(("teams",), f"{text}; declare an instance_count", True)
    for name, chart in config.charts.items():
        if "kueue" in (name, chart.chart.rstrip("/").rpartition("/")[2]):
            text = "installs a second Kueue (the add-on of teams has one, and AWS wants others"
            yield Finding(("charts", name), f"{text} removed); remove it, or teams", True)
    ours = {f"{_PREFIX}{name}" for name in config.teams}
    for index, each in enumerate(config.objects):
        name = str(get(dict(each), "metadata", "name"))
        if each.get("kind") == "Namespace" and name in ours:
            text = f"declares the namespace {name} ({_CREATED}); remove it"
            yield Finding(("objects", index), text)


def _quota(team: Team, loc: Loc) -> Iterator[Finding]:
    """Each amount is of another type, or of another kind of partition, and is an amount."""
    seen = []  # of any type: what is no name is refused as well
    for index, row in enumerate(team.quota):
        what = (row.get("instance_type"), get(dict(row), "accelerator_partition", "type"))
        if what in seen:
            text = f"{model.show(what[0])} is listed already; keep one"
            yield Finding((*loc, index), text)
        seen.append(what)
        if not any(name in row for name in _AMOUNTS):
            text = f"names no amount (of {', '.join(_AMOUNTS)}); set count"
            yield Finding((*loc, index), text)


def _sharing(team: Team, loc: Loc) -> Iterator[Finding]:
    sharing = team.resource_sharing_config or {}
    strategy = sharing.get("strategy")
    for name in ("borrow_limit", "absolute_borrow_limits"):
        if name in sharing and strategy in ("Lend", "DontLend"):
            text = f"has {name} with strategy {strategy} (a team that borrows has LendAndBorrow)"
            yield Finding(loc, f"{text}; set strategy: LendAndBorrow, or remove it", True)


def _people(config: Config, team: Team, loc: Loc) -> Iterator[Finding]:
    """A policy of a principal has one scope: that of eks.access, or that of its teams."""
    listed = {each.principal_arn: each.policy for each in config.eks.access}
    for index, arn in enumerate(team.people):
        if arn in team.people[:index]:
            yield Finding((*loc, index), f"{model.show(arn)} is listed already; keep one")
        policy = listed.get(arn)
        if policy and policy in config.people.get(arn, {}):
            text = f"{model.show(arn)} has {policy} by eks.access, too (EKS keeps one scope each)"
            yield Finding((*loc, index), f"{text}; remove it there, or the person here")


def unmet_quotas(config: Config) -> Iterator[str]:
    """Yield the types of which the teams are guaranteed more than the cluster has."""
    if config.scales_itself:
        return
    there = Counter[str]()
    for group in config.groups:
        for kind in group.instance_types:
            there[kind] += group.instance_count or 0
    wanted = Counter[str]()
    for team in config.teams.values():
        for row in team.quota:
            count = row.get("count")
            wanted[str(row.get("instance_type"))] += count if isinstance(count, int) else 0
    for kind, count in wanted.items():
        if count > there[kind]:
            yield (
                f"teams: {count} {kind} are guaranteed, and the instance groups have {there[kind]}:"
                " tasks within the quotas can wait for nodes"
            )
        elif kind not in there:
            yield f"teams: no instance group has {kind}, of which a team has a quota"
