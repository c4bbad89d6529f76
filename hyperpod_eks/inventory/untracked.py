"""List resources in an account that have this tool's tags."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from functools import partial
from graphlib import TopologicalSorter
from typing import ClassVar, get_args, get_origin, get_type_hints

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import cannot_ask, why_not_asked
from hyperpod_eks.aws.tags import CLUSTER, LABEL, LINEAGE, tag
from hyperpod_eks.documents import Json
from hyperpod_eks.resolve.names import image_prefix
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Identity, Resource
from hyperpod_eks.resources.ec2.security_group import SecurityGroup, SecurityGroupRule
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.tagged import Candidate, Source, Tagged
from hyperpod_eks.stack import kinds
from hyperpod_eks.workers import gather


def signed(aws: Aws) -> list[Tagged]:
    """List the resources in the region (and IAM) with the tags of any cluster of this tool.

    One list covers all kinds of EC2 but one; other services have their own lists.  Read-only.
    The tagging API is not used: it is delayed, and does not cover EKS and SageMaker well.
    """
    return _ask(_listing_kinds(), aws, "", ())


def untracked(aws: Aws, resolved: ResolvedConfig, named: Sequence[Resource]) -> list[Resource]:
    """Return declarations of untracked resources of this cluster, followed by ``named``.

    Untracked resources have this cluster's tags but are not in ``named``: a changed config or a
    lost manifest leaves them.  A delete deletes them after the clusters and their interfaces, and
    those that need a cluster before it, in the order of `delete_order`; the returned dependencies
    contain that order.  EKS and HyperPod are not listed: both clusters have the cluster's name, so
    that they are always declared.
    """
    found = _found(aws, resolved, named)
    if not found:
        return list(named)
    groups = {x.label: x for x in (*named, *found) if isinstance(x, SecurityGroup)}
    control = groups.get("control-plane-security-group")
    if control in found and "security-group" in groups:  # rules have no tags
        rule = SecurityGroupRule(
            "control-plane-opening", group=groups["security-group"], peer=control
        )
        found.append(rule)
    ordered = _ordered(found, named)
    behind = [want for want in ordered if not _is_in_cluster(want)]
    users = (
        replace(want, after=(*want.after, *behind)) if want.key in USERS else want for want in named
    )
    return [*ordered, *users]


def _found(aws: Aws, resolved: ResolvedConfig, named: Sequence[Resource]) -> list[Resource]:
    """Return declarations of resources with this cluster's lineage that are not in ``named``."""
    keys = {want.key for want in named}
    # names and ARNs of declared resources, whose tags need no call
    known = {
        (want.tag_type, str(getattr(want, name, ""))) for want in named for name in ("name", "arn")
    }
    vpc = next((want for want in named if isinstance(want, Vpc)), Vpc("vpc", cidr=""))
    by_type = {kind.tag_type: kind for kind in kinds() if _is_declared_bare(kind)}
    own = [kind for kind in _listing_kinds() if _is_declared_bare(kind)]
    used = {want.elective for want in named} | {arn.split(":")[2] for arn in aws.recorded}
    values = [resolved.config.chart.values, *(x.values for x in resolved.config.charts.values())]
    if re.search(rf"\.dkr\.ecr\.[^/]+/{re.escape(image_prefix(resolved.name))}/", repr(values)):
        used.add("ecr")  # no config declares the repositories of mirrored images
    found: list[Resource] = []
    for one in _ask(own, aws, resolved.name, known, used):
        if one.lineage != aws.lineage or one.kind not in by_type:
            continue
        want = by_type[one.kind].bare(one, resolved, vpc)
        # not the declared one, although it has its key
        if want and want.key in keys and want.identity is Identity.NAME:
            want = replace(want, label=one.id)
        if want and want.key not in keys:
            keys.add(want.key)
            found.append(want)
    return found


def _ordered(found: list[Resource], named: Sequence[Resource]) -> list[Resource]:
    """Make each resource depend on those that may use it, which are deleted first."""
    order = [
        kind for kind in delete_order() if _is_declared_bare(kind) or kind is SecurityGroupRule
    ]
    rank = {kind: place for place, kind in enumerate(order)}
    ordered: list[Resource] = []
    for want in sorted(found, key=lambda each: rank[type(each)], reverse=True):
        behind = rank[type(want)]
        needed = _needed_kinds(type(want)) if _is_in_cluster(want) else ()
        later = [
            x
            for x in (*named, *ordered)
            if rank.get(type(x), -1) > behind or isinstance(x, tuple(needed))
        ]
        ordered.append(replace(want, after=tuple(later)))
    return ordered


def _is_in_cluster(want: Resource) -> bool:
    """Whether it is deleted before the clusters, as it needs one."""
    return any(need.key in USERS for need in want.needs())


USERS = ("hyperpod/cluster", "eks/cluster", "network/interfaces")
"""Resources that may use any untracked one, and must be deleted first."""


def _ask(
    listing: Sequence[type[Resource]],
    aws: Aws,
    cluster: str,
    known: Container[tuple[str, str]],
    used: Container[str] = (),
) -> list[Tagged]:
    """Read all lists concurrently; read tags only of resources whose type and id are not ``known``.

    ``used`` are the services that the cluster uses: it cannot be listed without them.
    """

    def ask_kind(kind: type[Resource]) -> list[Tagged]:
        service = kind.elective
        if service in aws.not_listed:
            return []
        try:
            return ask(kind.list_tagged)
        except Exception as error:
            if not service or not (why := why_not_asked(error)):
                raise
            if service in used:
                raise cannot_ask(service, why, error) from error
            aws.not_listed[service] = why
            return []

    def ask(source: Source) -> list[Tagged]:
        return [
            Tagged(tag(tags, CLUSTER) or "", lineage, tag(tags, LABEL) or "", kind, id_)
            for kind, id_, read in source(aws, cluster)
            if (kind, id_) not in known
            for tags in [read()]
            if (lineage := tag(tags, LINEAGE)) is not None
        ]

    every = gather(partial(ask, _ec2), *(partial(ask_kind, kind) for kind in listing))
    found = [each for some in every for each in some]
    return sorted(found, key=lambda x: (x.cluster, x.kind, x.id))


def not_listed(aws: Aws) -> list[str]:
    """Return a line for each service that was not asked."""
    return [
        f"{service} was not asked for resources that only their tags show: {why}"
        for service, why in aws.not_listed.items()
    ]


def _ec2(aws: Aws, cluster: str) -> Iterator[Candidate]:
    """Yield tagged resources of EC2, except for kinds with their own ``list_tagged``."""
    by_themselves = {kind.tag_type for kind in _listing_kinds()}
    by_themselves.add("snapshot")  # a final one stays, as the user was told
    tags: dict[tuple[str, str], dict[str, str]] = {}
    filters: Json = [{"Name": "key", "Values": [CLUSTER, LINEAGE, LABEL]}]
    for page in aws.ec2.get_paginator("describe_tags").paginate(Filters=filters):
        for each in page["Tags"]:
            found = tags.setdefault((each["ResourceType"], each["ResourceId"]), {})
            found[each["Key"]] = each["Value"]
    for (kind, id_), found in tags.items():
        if kind not in by_themselves:
            yield kind, id_, partial(dict, found)


def _listing_kinds() -> list[type[Resource]]:
    return [kind for kind in kinds() if "list_tagged" in vars(kind)]


def _is_declared_bare(kind: type[Resource]) -> bool:
    return "bare" in vars(kind)


def delete_order() -> list[type[Resource]]:
    """Order the kinds so that each comes before the kinds that its fields refer to."""
    uses = {kind: _needed_kinds(kind) for kind in kinds()}
    return [*TopologicalSorter(uses).static_order()][::-1]


def _needed_kinds(kind: type[Resource]) -> set[type[Resource]]:
    """Return the kinds that a kind refers to."""
    found = set(kind.gone_before)
    for hint in get_type_hints(kind).values():
        found |= {each for each in _types(hint) if each not in (kind, Resource)}
    return found


def _types(hint: object) -> Iterator[type[Resource]]:
    """Yield the kinds in the type of a field."""
    if isinstance(hint, type) and issubclass(hint, Resource):
        yield hint
    elif get_origin(hint) is not ClassVar:
        for part in get_args(hint):
            yield from _types(part)
