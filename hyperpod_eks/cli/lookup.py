"""Look up a cluster and its nodes in AWS by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from hyperpod_eks.aws.ec2 import ROUTE_TABLES, SECURITY_GROUPS, VPCS
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.cli.documents import called
from hyperpod_eks.cli.options import Place
from hyperpod_eks.cli.settings import entered, settings
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import Exit, HyperpodError, NotFound, Usage
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.resources.iam import describe_role
from hyperpod_eks.workers import gather


@contextmanager
def cluster(place: Place, *, write: bool = False) -> Iterator[tuple[Snapshot, str]]:
    """Open a cluster by its name: declare nothing, and do not write the manifest."""
    with settings(place, write=False, files=False) as (config, manifest):
        aws = entered(config, place.profile, write=write)
        aws.adopted = manifest.adopted
        yield Snapshot(aws), config.name


def described(snapshot: Snapshot, name: str, place: Place) -> JsonMapping:
    """Describe the HyperPod cluster.  Raises NotFound if it does not exist."""
    found = hyperpod_api.describe(snapshot, name)
    if found is None:
        where = snapshot.aws.region
        raise NotFound(
            f"HyperPod cluster {name} does not exist in {where}",
            f"Create it: hyperpod-eks create {called(name, place)}",
        )
    return found


def described_node(snapshot: Snapshot, name: str, id_: str, place: Place) -> JsonMapping:
    """Describe one node.  Raises NotFound if it does not exist."""
    with absent("ResourceNotFound", "ValidationException"):
        found = snapshot.aws.sagemaker.describe_cluster_node(ClusterName=name, NodeId=id_)
        return found["NodeDetails"]
    raise NotFound(
        f"the cluster {name} has no node {id_}",
        f"To list them: hyperpod-eks nodes {called(name, place)}",
    )


def exit_of(done: Sequence[str], failed: Sequence[Mapping[str, object]]) -> Exit:
    """Return the exit code of an action on nodes: NOT_FOUND if the cluster has none of them."""
    if not done and failed and all(each["code"] in NO_SUCH_NODE for each in failed):
        return Exit.NOT_FOUND
    return Exit.FAILED if failed else Exit.OK


NO_SUCH_NODE = ("InstanceIdNotFound", "NodeIdNotFound")
"""Codes of BatchRebootClusterNodes and BatchReplaceClusterNodes, and of BatchDeleteClusterNodes."""


def instance(text: str) -> str:
    """Return a node's instance id, given that id or its Kubernetes name.  Raises Usage for others.

    >>> instance("hyperpod-i-0123456789abcdef0")
    'i-0123456789abcdef0'
    """
    id_ = text.removeprefix("hyperpod-")
    if not re.fullmatch(r"i-[0-9a-f]{8,17}", id_):
        raise Usage(
            f"invalid node {text!r}",
            "Pass its instance id (i-…) or its Kubernetes node name (hyperpod-i-…).",
        )
    return id_


def refuse_to_guess(
    snapshot: Snapshot, resolved: ResolvedConfig, place: Place, unread: HyperpodError | None = None
) -> None:
    """Raise Usage if the cluster, or a part of it, exists: the minimal config would change it.

    ``unread`` is why its config could not be read; it is raised instead.
    """
    if exists(snapshot, resolved):
        what = f"cluster {resolved.name} already"
    elif part := _part(snapshot, resolved):  # its bucket may be an adopted one, which nothing names
        what = f"{part} of the cluster {resolved.name}"
    else:
        return
    if unread:
        raise unread
    raise Usage(
        f"{what} exists in {resolved.region} of account {resolved.identity.account}, "
        "but its config was not found",
        "Pass it with -f FILE, or its manifest with --manifest PATH.\n"
        f"To see the cluster: hyperpod-eks status {called(resolved.name, place)}",
    )


_NETWORK = (("VPC", VPCS), ("security group", SECURITY_GROUPS), ("route table", ROUTE_TABLES))
"""What the first look asks for anyway."""


def _part(snapshot: Snapshot, resolved: ResolvedConfig) -> str:
    """Name a resource that a create makes before EKS; "" without one of this lineage."""
    lineage = snapshot.aws.lineage
    for words, listing in _NETWORK:
        for item in snapshot.signed(listing):
            if owner(item.get("Tags", ())) == lineage:
                return f"{words} {item[listing.id]}"
    keys = {"eks": "iam/cluster-role", "hyperpod": "iam/execution-role"}
    names = [resolved.iam_name(*each) for each in keys.items()]
    roles = gather(*(partial(describe_role, snapshot, name) for name in names))
    for name, role in zip(names, roles, strict=True):
        if role and owner(role.get("Tags", ())) == lineage:
            return f"role {name}"
    return ""


def exists(snapshot: Snapshot, resolved: ResolvedConfig) -> bool:
    """Whether EKS or HyperPod has a cluster of this lineage that is not being deleted."""
    lineage, control = snapshot.aws.lineage, eks.describe(snapshot, resolved.eks_name)
    if any(owner(x.get("tags") or {}) == lineage and x["status"] != "DELETING" for x in control):
        return True
    found = hyperpod_api.describe(snapshot, resolved.name)
    if not found or found["ClusterStatus"] == "Deleting":
        return False
    arn = found["ClusterArn"]
    return (
        owner(snapshot.all(snapshot.aws.sagemaker, "list_tags", "Tags", ResourceArn=arn)) == lineage
    )
