"""Settings of task governance as the members of AWS's requests and descriptions."""

from __future__ import annotations

from collections.abc import Iterable

from hyperpod_eks.documents import Json, JsonMapping, JsonObject

SHARES = {"fair_share": "FairShare", "idle_resource_sharing": "IdleResourceSharing"}
"""Settings of a policy that are one word each, and their members."""
STRATEGY = "LendAndBorrow"
"""The ResourceSharingConfig.Strategy of a quota that has none."""


def policy_members(settings: JsonMapping) -> JsonObject:
    """Return the settings of a policy as CreateClusterSchedulerConfig has them."""
    config = _members(settings, **{member: name for name, member in SHARES.items()})
    if classes := settings.get("priority_classes"):
        config["PriorityClasses"] = classes
    return {"SchedulerConfig": config}


def quota_members(team: str, settings: JsonMapping) -> JsonObject:
    """Return the settings of a team's quota as CreateComputeQuota has them."""
    sharing = _members(
        settings,
        Strategy="strategy",
        BorrowLimit="borrow_limit",
        AbsoluteBorrowLimits="absolute_borrow_limits",
    )
    config = _members(
        settings, ComputeQuotaResources="quota", PreemptTeamTasks="preempt_team_tasks"
    )
    if sharing:
        strategy = {"Strategy": STRATEGY}
        config["ResourceSharingConfig"] = {**strategy, **sharing}
    weight = _members(settings, FairShareWeight="fair_share_weight")
    return {
        "ComputeQuotaConfig": config,
        "ComputeQuotaTarget": {"TeamName": team, **weight},
        **_members(settings, ActivationState="activation_state"),
    }


def _members(settings: JsonMapping, **names: str) -> JsonObject:
    """Return the declared settings among ``names`` under the names of the API."""
    return {member: settings[name] for member, name in names.items() if name in settings}


def in_order(rows: Iterable[JsonMapping]) -> list[Json]:
    """Return rows sorted by what identifies them: AWS may describe them in another order."""
    return sorted((dict(each) for each in rows), key=_identity)


def _identity(row: JsonMapping) -> tuple[str, str, str]:
    """What identifies a row: a class's name, or a type with its kind of partition."""
    partition = row.get("AcceleratorPartition") or {}
    return str(row.get("Name")), str(row.get("InstanceType")), str(partition.get("Type"))


def aligned(rows: Iterable[JsonMapping], declared: Iterable[JsonMapping]) -> list[Json]:
    """Return described amounts without what AWS may have added to those that are declared."""
    wanted = {_identity(each): each.keys() for each in declared}

    def asked(row: JsonMapping) -> JsonMapping:
        names = set(wanted.get(_identity(row), ()))
        return {n: row[n] for n in names} if names and names <= row.keys() else row

    return in_order(map(asked, rows))
