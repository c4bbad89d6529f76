"""EC2's resources have no names: what exists may be changed only if it has the cluster's tag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hyperpod_eks.resources.permissions import Conditions, Statement, Statements, actions, tagged

if TYPE_CHECKING:
    from hyperpod_eks.resolve.resolved import ResolvedConfig
    from hyperpod_eks.resources.base import Resource


def network(
    kind: type[Resource],
    resolved: ResolvedConfig,
    declared: Iterable[Resource],
    *,
    create: str = "",
    change: Sequence[str] = (),
    delete: Sequence[str] = (),
) -> Statements:
    """Allow one create, and what changes and deletes what it has signed.

    In a VPC of ours always, for a change of the config may bring any kind; in somebody's where
    one is declared that is ours.
    """
    ours = (type(one) for one in declared if one.key not in resolved.adopted)
    if "network/vpc" in resolved.adopted and kind not in ours:
        return
    ec2, signed = (resolved.arn("ec2", "*/*"),), tagged(resolved)
    if create:
        yield Statement("NetworkMake", actions("ec2", create), ec2)
        born: Conditions = {"StringEquals": {"ec2:CreateAction": [create]}}
        yield Statement("NetworkSign", ("ec2:CreateTags",), ec2, born)
    # what somebody has taken tags from gets them again
    yield Statement("NetworkChange", actions("ec2", *change, "CreateTags"), ec2, signed)
    if delete:
        yield Statement("NetworkDelete", actions("ec2", *delete), ec2, signed, "delete")
