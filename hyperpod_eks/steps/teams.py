"""Task governance: the scheduler policy and the teams' quotas, once the add-on runs on nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyperpod_eks.config.request import request
from hyperpod_eks.config.teams import GOVERNANCE, QUOTA, Team, team_namespace
from hyperpod_eks.documents import Json, JsonObject
from hyperpod_eks.resolve.names import fit
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.addon import Addon
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.governance import ComputeQuota, Governed, SchedulerPolicy
from hyperpod_eks.resources.governance_members import in_order
from hyperpod_eks.resources.hyperpod.nodes import Nodes
from hyperpod_eks.steps.eks import Control


def step(
    resolved: ResolvedConfig, control: Control, nodes: Nodes, addons: Sequence[Addon]
) -> tuple[Governed, ...]:
    """Declare the policy after the add-on and the nodes, and then the quotas.

    A policy that comes before the add-on runs fails for good.  All are deleted before the cluster,
    which SageMaker does not delete with them, and before the access to Kubernetes.
    """
    if not resolved.config.teams:
        return ()
    governance = [each for each in addons if each.label == GOVERNANCE]
    policy = SchedulerPolicy(
        "policy",
        cluster=nodes.cluster,
        control=control.cluster,
        name=resolved.name,
        settings=_policy(resolved),
        after=(*governance, nodes, *control.access),
    )
    quotas = (
        ComputeQuota(
            f"quota-{name}",
            cluster=nodes.cluster,
            control=control.cluster,
            name=fit(f"{resolved.name}-{name}", 63),
            settings=dict(_quota(team)),
            team=name,
            policy=policy,
        )
        for name, team in resolved.config.teams.items()
    )
    return (policy, *quotas)


def namespaces(governed: Sequence[Governed]) -> dict[str, Resource]:
    """Return the quotas by the namespaces that they come with."""
    return {team_namespace(each.team): each for each in governed if isinstance(each, ComputeQuota)}


def _policy(resolved: ResolvedConfig) -> JsonObject:
    config = resolved.config.scheduler_config
    found: JsonObject = {
        name: value
        for name in ("fair_share", "idle_resource_sharing")
        if (value := getattr(config, name)) is not None
    }
    if classes := config.priority_classes:
        rows = [{"Name": name, "Weight": weight} for name, weight in classes.items()]
        found["priority_classes"] = in_order(rows)
    return found


def _quota(team: Team) -> Iterator[tuple[str, Json]]:
    """Yield the declared settings, amounts in the names of the API."""
    members = request(team, QUOTA)
    if rows := members.get("ComputeQuotaResources"):
        yield "quota", in_order(rows)
    sharing = members.get("ResourceSharingConfig") or {}
    for name, member in (("strategy", "Strategy"), ("borrow_limit", "BorrowLimit")):
        if member in sharing:
            yield name, sharing[member]
    if rows := sharing.get("AbsoluteBorrowLimits"):
        yield "absolute_borrow_limits", in_order(rows)
    for name in ("preempt_team_tasks", "fair_share_weight", "activation_state"):
        if (value := getattr(team, name)) is not None:
            yield name, value
