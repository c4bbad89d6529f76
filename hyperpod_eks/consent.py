"""What a delete takes only with consent: a protected cluster, and what is in one that stays."""

from __future__ import annotations

from collections.abc import Iterable

from hyperpod_eks import engine
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.engine import Context
from hyperpod_eks.errors import Usage
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.hyperpod.api import eks_name


def refuse_protected(context: Context, resolved: ResolvedConfig) -> None:
    """Raise Usage for a cluster that its config or EKS protects: the config may be lost.

    HyperPod has no protection: it would be deleted before EKS refuses.
    """
    snapshot = context.recent()
    theirs = resolved.eks_is_theirs
    if resolved.config.deletion_protection or any(
        each.get("deletionProtection") and owner(each.get("tags", {})) == context.aws.lineage
        for each in (() if theirs else eks.describe(snapshot, resolved.eks_name))
    ):
        raise Usage(
            f"deletion_protection: the cluster {resolved.name} is protected",
            "Set deletion_protection: false in the config, run create --yes, then delete.",
            setting="deletion_protection",
        )


def taken_from_others(
    wants: Iterable[Resource], context: Context, resolved: ResolvedConfig
) -> list[str]:
    """Return what goes with resources in an EKS cluster that stays, a line each.

    From now on that is agreed to, and nothing else: see `engine.taken_along`.  Of an EKS cluster
    that goes, everything goes anyway.
    """
    if not _eks_stays(context, resolved):
        return []
    full = (want for want in wants if want.takes_along)
    return [f"{want.key}, {engine.taken_along(want, context)}" for want in full]


def _eks_stays(context: Context, resolved: ResolvedConfig) -> bool:
    """Whether the EKS cluster is of somebody else: without manifest and config, its tags say so."""
    if "eks/cluster" in context.manifest.adopted:
        return True
    snapshot = context.recent()
    name = eks_name(snapshot, resolved.name)
    found = eks.describe(snapshot, name) if name else []
    return any(owner(each.get("tags", {})) != context.aws.lineage for each in found)
