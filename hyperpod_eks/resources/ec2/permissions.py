"""Statements for EC2: its ids are not known in advance, so changes require the cluster's tag."""

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
    """Allow one create action, and changes and deletes of resources with the cluster's tag.

    In an owned VPC always, since a change of the config may add any kind; in another VPC only if
    an owned resource of the kind is declared.
    """
    ours = (type(one) for one in declared if one.key not in resolved.adopted)
    if "network/vpc" in resolved.adopted and kind not in ours:
        return
    ec2, signed = (resolved.arn("ec2", "*/*"),), tagged(resolved)
    if create:
        yield Statement("NetworkMake", actions("ec2", create), ec2)
        born: Conditions = {"StringEquals": {"ec2:CreateAction": [create]}}
        yield Statement("NetworkSign", ("ec2:CreateTags",), ec2, born)
    # tags that others removed are restored
    yield Statement("NetworkChange", actions("ec2", *change, "CreateTags"), ec2, signed)
    if delete:
        yield Statement("NetworkDelete", actions("ec2", *delete), ec2, signed, "delete")
