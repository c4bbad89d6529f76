"""Every HyperPod cluster of an account and region, whoever made it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hyperpod_eks.aws import prices
from hyperpod_eks.aws.client import Aws, Identity
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.tags import owner, tag
from hyperpod_eks.engine.plan import support_of
from hyperpod_eks.resolve.names import lineage
from hyperpod_eks.resources.hyperpod.api import every_group, instance_types
from hyperpod_eks.workers import gather

Row = dict[str, Any]
MARKS: tuple[tuple[str, str, str], ...] = (
    # a stack of `hyp create` (aws/sagemaker-hyperpod-cli, hp_cluster_stack.py), nested ones too
    ("aws:cloudformation:stack-name", "HyperpodClusterStack-.*", "hyp"),
    # the console deploys a stack as well (aws/sagemaker-hyperpod-cluster-setup)
    ("aws:cloudformation:stack-name", ".*", "cloudformation"),
    ("(?i)(managed|created|provisioned)[-_ ]?(by|with)|iac|tool", "(?i).*terraform.*", "terraform"),
    ("(?i)terraform", ".*", "terraform"),
)
"""By patterns of a tag's key and value, who made it; Terraform itself leaves no mark."""


def in_region(aws: Aws, who: Identity) -> list[Row]:
    """Describe the HyperPod clusters, and the EKS clusters that we made and that have none yet.

    Rows have the members of a cluster in ``hyperpod-eks/list/v1``, but for ``manifest``, and
    ``lineage`` ("" where it is not ours).  Nothing is changed.
    """
    names, others = gather(
        partial(_listed, aws.sagemaker, "ClusterSummaries"), partial(_listed, aws.eks, "clusters")
    )
    found = gather(
        *(partial(_hyperpod, aws, each["ClusterName"]) for each in names),
        *(partial(_eks, aws, name) for name in others),
    )
    hyperpods = [each for each in found[: len(names)] if each]
    controls = {each["arn"]: each for each in found[len(names) :] if each}
    rows = [_row(aws, who, cluster, tags, controls) for cluster, tags in hyperpods]
    used = {row["eks_cluster"] for row in rows}
    for control in controls.values():
        ours = owner(control.get("tags") or {}) == lineage(who, control["name"])
        if ours and control["name"] not in used:
            rows.append(_alone(aws, who, control))
    return sorted(rows, key=lambda row: str(row["name"]))


def _listed(client: Any, key: str) -> list[Any]:
    pages = client.get_paginator("list_clusters").paginate()
    return [each for page in pages for each in page.get(key) or ()]


def _hyperpod(aws: Aws, name: str) -> tuple[Mapping[str, Any], Sequence[Any]] | None:
    with absent("ResourceNotFound", "ValidationException"):  # it has gone since
        found = aws.sagemaker.describe_cluster(ClusterName=name)
        return found, _tags(aws, found["ClusterArn"])
    return None


def _tags(aws: Aws, arn: str) -> Sequence[Any]:
    """Return a cluster's tags; nothing where they may not be read."""
    with absent("AccessDenied.*", "ResourceNotFound", "ValidationException"):
        pages = aws.sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
        return [each for page in pages for each in page.get("Tags") or ()]
    return ()


def _eks(aws: Aws, name: str) -> Mapping[str, Any] | None:
    with absent("ResourceNotFoundException"):
        return aws.eks.describe_cluster(name=name)["cluster"]
    return None


def _row(
    aws: Aws,
    who: Identity,
    cluster: Mapping[str, Any],
    tags: Sequence[Any],
    controls: Mapping[str, Mapping[str, Any]],
) -> Row:
    arn = ((cluster.get("Orchestrator") or {}).get("Eks") or {}).get("ClusterArn", "")
    control, groups = controls.get(arn, {}), every_group(cluster)
    name = cluster["ClusterName"]
    ours = owner(tags) == lineage(who, name)
    return {
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
        "lineage": owner(tags) if ours else "",
        **_cost(aws, groups, control),
    }


def _alone(aws: Aws, who: Identity, control: Mapping[str, Any]) -> Row:
    """An EKS cluster whose HyperPod cluster is not there: half-made, or half deleted."""
    return {
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
        "lineage": owner(control.get("tags") or {}),
        **_cost(aws, (), control),
    }


def _creator(tags: Sequence[Any]) -> str:
    pairs = [(str(each["Key"]), str(tag(tags, each["Key"]))) for each in tags]
    for key, value, creator in MARKS:
        if any(re.fullmatch(key, k) and re.fullmatch(value, v) for k, v in pairs):
            return creator
    return "unknown"


def _cost(aws: Aws, groups: Sequence[Mapping[str, Any]], control: Mapping[str, Any]) -> Row:
    """Price the nodes that run and the control plane; null where one of them is not known."""

    def items() -> Iterator[prices.Item]:
        if version := control.get("version"):
            yield prices.Item("EKS control plane", 1, prices.EKS[support_of(aws, version)])
        for group in groups:
            kind, count = instance_types(group), group.get("CurrentCount") or 0
            each = prices.NODES.get(kind)
            if group.get("TrainingPlanArn"):
                each = 0.0  # paid for in advance
            elif "Spot" in (group.get("CapacityRequirements") or {}):
                kind, each = f"{kind} (Spot)", None
            if count:
                yield prices.Item(kind, count, each)

    cost = prices.estimate(items())
    known = None if cost["unknown"] else cost["usd_per_hour"]
    return {"usd_per_hour": known, "unpriced": cost["unknown"]}
