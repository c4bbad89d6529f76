"""List the HyperPod clusters of an account and region, created by any tool."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypedDict

from hyperpod_eks.aws import prices
from hyperpod_eks.aws.client import Aws, Identity
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.price_list import look_up
from hyperpod_eks.aws.published import in_extended_support
from hyperpod_eks.aws.tags import owner, tag
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.resolve.names import lineage
from hyperpod_eks.resources.hyperpod.api import every_group, instance_types
from hyperpod_eks.workers import gather

Creator = Literal["hyperpod-eks", "hyp", "cloudformation", "terraform", "unknown"]


class Row(TypedDict):
    """A cluster, as in the document ``hyperpod-eks/list/v1``."""

    name: str
    region: str
    arn: str
    status: str
    nodes: int
    target_nodes: int
    orchestrator: Literal["eks", "slurm"]
    eks_cluster: str | None
    kubernetes_version: str | None
    created_by: Creator
    usd_per_hour: float | None
    unpriced: list[str]


class Owned(NamedTuple):
    """A cluster, and its lineage; "" if another tool created it."""

    row: Row
    lineage: str
    items: Sequence[prices.Item]
    """What is paid for."""


MARKS: tuple[tuple[str, str, Creator], ...] = (
    # a stack of `hyp create`, or nested in one (aws/sagemaker-hyperpod-cli, hp_cluster_stack.py)
    ("aws:cloudformation:stack-name", "HyperpodClusterStack-.*", "hyp"),
    # any other stack, also the console's (aws/sagemaker-hyperpod-cluster-setup)
    ("aws:cloudformation:stack-name", ".*", "cloudformation"),
    ("(?i)(managed|created|provisioned)[-_ ]?(by|with)|iac|tool", "(?i).*terraform.*", "terraform"),
    ("(?i)terraform", ".*", "terraform"),
)
"""Patterns of a tag's key and value, and the creator; Terraform itself adds no tag."""


def in_region(aws: Aws, who: Identity) -> list[Owned]:
    """Describe all HyperPod clusters, and EKS clusters of this tool without a HyperPod cluster.

    Read-only.
    """
    pages = (aws.sagemaker.get_paginator("list_clusters"), aws.eks.get_paginator("list_clusters"))
    names, others, extended = gather(
        partial(_listed, pages[0].paginate, "ClusterSummaries"),
        partial(_listed, pages[1].paginate, "clusters"),
        partial(_extended, aws),
    )
    found = gather(
        *(partial(_hyperpod, aws, each["ClusterName"]) for each in names),
        *(partial(_eks, aws, name) for name in others),
    )
    hyperpods = [each for each in found[: len(names)] if each]
    controls = {each["arn"]: each for each in found[len(names) :] if each}
    rows = [_row(who, cluster, tags, controls, extended) for cluster, tags in hyperpods]
    used = {each.row["eks_cluster"] for each in rows}
    for control in controls.values():
        ours = owner(control.get("tags") or {}) == lineage(who, control["name"])
        if ours and control["name"] not in used:
            rows.append(_alone(who, control, extended))
    _price(aws, who, rows)
    return sorted(rows, key=lambda each: each.row["name"])


def _listed(pages: Callable[[], Iterable[JsonMapping]], key: str) -> list[Json]:
    return [each for page in pages() for each in page.get(key) or ()]


def _extended(aws: Aws) -> frozenset[str]:
    """Return the Kubernetes versions in extended support, as far as the caller may ask."""
    with absent("AccessDenied.*"):
        pages = aws.eks.get_paginator("describe_cluster_versions").paginate()
        return in_extended_support(each for page in pages for each in page["clusterVersions"])
    return frozenset()


def _hyperpod(aws: Aws, name: str) -> tuple[JsonMapping, Sequence[Json]] | None:
    with absent("ResourceNotFound", "ValidationException"):  # deleted since the list
        found = aws.sagemaker.describe_cluster(ClusterName=name)
        return found, _tags(aws, found["ClusterArn"])
    return None


def _tags(aws: Aws, arn: str) -> Sequence[Json]:
    """Return a cluster's tags; () if the call is denied or the cluster is gone."""
    with absent("AccessDenied.*", "ResourceNotFound", "ValidationException"):
        pages = aws.sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
        return [each for page in pages for each in page.get("Tags") or ()]
    return ()


def _eks(aws: Aws, name: str) -> JsonMapping | None:
    with absent("ResourceNotFoundException"):
        return aws.eks.describe_cluster(name=name)["cluster"]
    return None


def _row(
    who: Identity,
    cluster: JsonMapping,
    tags: Sequence[Json],
    controls: Mapping[str, JsonMapping],
    extended: Collection[str],
) -> Owned:
    arn = ((cluster.get("Orchestrator") or {}).get("Eks") or {}).get("ClusterArn", "")
    control, groups = controls.get(arn, {}), every_group(cluster)
    name = cluster["ClusterName"]
    ours = owner(tags) == lineage(who, name)
    row: Row = {
        "name": name,
        "region": who.region,
        "arn": cluster["ClusterArn"],
        "status": cluster["ClusterStatus"],
        "nodes": sum(group.get("CurrentCount") or 0 for group in groups),
        "target_nodes": sum(group.get("TargetCount") or 0 for group in groups),
        "orchestrator": "eks" if arn else "slurm",
        "eks_cluster": arn.rpartition("/")[2] or None,
        "kubernetes_version": control.get("version"),
        "created_by": "hyperpod-eks" if ours else _creator(tags),
        "usd_per_hour": None,
        "unpriced": [],
    }
    items = list(_items(extended, groups, control))
    return Owned(row, (owner(tags) or "") if ours else "", items)


def _alone(who: Identity, control: JsonMapping, extended: Collection[str]) -> Owned:
    """Return the row of an EKS cluster without HyperPod cluster: partly created or deleted."""
    row: Row = {
        "name": control["name"],
        "region": who.region,
        "arn": "",
        "status": f"no HyperPod, EKS {control['status']}",
        "nodes": 0,
        "target_nodes": 0,
        "orchestrator": "eks",
        "eks_cluster": control["name"],
        "kubernetes_version": control.get("version"),
        "created_by": "hyperpod-eks",
        "usd_per_hour": None,
        "unpriced": [],
    }
    return Owned(row, owner(control.get("tags") or {}) or "", list(_items(extended, (), control)))


def _creator(tags: Sequence[Json]) -> Creator:
    pairs = [(str(each["Key"]), str(tag(tags, each["Key"]))) for each in tags]
    for key, value, creator in MARKS:
        if any(re.fullmatch(key, k) and re.fullmatch(value, v) for k, v in pairs):
            return creator
    return "unknown"


def _items(
    extended: Collection[str], groups: Sequence[JsonMapping], control: JsonMapping
) -> Iterator[prices.Item]:
    """Yield the control plane and the nodes."""
    if version := control.get("version"):
        yield prices.Item("EKS control plane", 1, prices.CONTROL_PLANE)
        if version in extended:
            yield prices.Item("EKS extended support", 1, prices.EXTENDED_SUPPORT)
    for group in groups:
        yield prices.nodes(
            instance_types(group),
            group.get("CurrentCount") or 0,
            prepaid=bool(group.get("TrainingPlanArn")),
            spot="Spot" in (group.get("CapacityRequirements") or {}),
        )


def _price(aws: Aws, who: Identity, rows: Sequence[Owned]) -> None:
    """Set USD per hour of nodes and control plane, None if a price is unknown; and those."""
    listed = look_up(aws, who, {item.rate for each in rows for item in each.items})
    for each in rows:
        cost = prices.estimate(each.items, listed, who.region)
        each.row["usd_per_hour"] = None if cost["unknown"] else cost["usd_per_hour"]
        each.row["unpriced"] = cost["unknown"]
