"""The EKS step: the control plane, its log group and its access entries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.access_entry import (
    CALLER,
    AccessEntry,
    AccessPolicy,
    CallersEntries,
    NodesEntry,
)
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.eks import Cluster
from hyperpod_eks.resources.iam import Role
from hyperpod_eks.resources.logs import LogGroup
from hyperpod_eks.steps.network import Network


@frozen
class Control:
    """The step's resources, for the other steps."""

    cluster: Cluster
    access: tuple[AccessEntry, ...]
    policies: tuple[AccessPolicy, ...] = ()
    """Of the teams' people."""
    left: tuple[NodesEntry, ...] = ()
    """Leftovers of HyperPod in an EKS cluster that is not owned."""


def step(resolved: ResolvedConfig, role: Role, net: Network, left: tuple[Resource, ...]) -> Control:
    """Declare log group, cluster and access entries, the caller's own entry first."""
    cluster = _cluster(resolved, role, net, left)
    access = _access(resolved, cluster)
    policies = tuple(_policies(resolved, access))
    if not resolved.eks_is_theirs:
        return Control(cluster, access, policies)
    node_role = resolved.iam_name("hyperpod", "iam/execution-role")
    left = (NodesEntry("nodes-entry", cluster=cluster, role=node_role),)
    return Control(cluster, access, policies, left)


def _cluster(
    resolved: ResolvedConfig, role: Role, net: Network, left: tuple[Resource, ...]
) -> Cluster:
    eks, keys = resolved.config.eks, resolved.config.encryption
    logs = LogGroup(
        "log-group",
        name=f"/aws/eks/{resolved.eks_name}/cluster",
        arn=resolved.arn("logs", f"log-group:/aws/eks/{resolved.eks_name}/cluster"),
        retention=eks.log_retention_days,
        key_arn=keys.logs or "",
    )
    return Cluster(
        "cluster",
        name=resolved.eks_name,
        version=resolved.kubernetes_version,
        pinned=eks.version is not None,
        role=role,
        subnets=tuple(net.private.values()),
        security_group=net.control_group,
        secrets_key=keys.eks_secrets or "",
        endpoint_access=(eks.endpoint_public_access, eks.endpoint_private_access),
        public_access_cidrs=eks.public_access_cidrs,
        log_types=tuple(eks.log_types),
        support_type=eks.support_type,
        deletion_protection=resolved.config.deletion_protection,
        # the nodes must allow a new group of the control plane before it is set
        after=left if resolved.eks_is_theirs else (logs, *left, *net.opening),
    )


def _access(resolved: ResolvedConfig, cluster: Cluster) -> tuple[AccessEntry, ...]:
    asked, members = resolved.config.eks.access, resolved.config.people
    everybody = list(dict.fromkeys([*(each.principal_arn for each in asked), *members]))
    admin = resolved.access_policy("AmazonEKSClusterAdminPolicy")
    callers = (
        (CallersEntries("callers-entries", cluster=cluster),) if resolved.eks_is_theirs else ()
    )
    entries = [AccessEntry(CALLER, cluster=cluster, principal="", policy=admin, after=callers)]
    entries += [
        AccessEntry(
            access_label(entry.principal_arn, everybody),
            cluster=cluster,
            principal=entry.principal_arn,
            policy=resolved.access_policy(entry.policy) if entry.policy else "",
            namespaces=entry.namespaces,
            groups=entry.kubernetes_groups,
            policies_apart=not entry.policy and entry.principal_arn in members,
        )
        for entry in asked
    ]
    listed = [each.principal_arn for each in asked]
    entries += [
        AccessEntry(
            access_label(arn, everybody),
            cluster=cluster,
            principal=arn,
            policy="",
            policies_apart=True,
        )
        for arn in members
        if arn not in listed
    ]
    return tuple(entries)


def _policies(resolved: ResolvedConfig, access: tuple[AccessEntry, ...]) -> Iterator[AccessPolicy]:
    """Yield the access policies of the teams' people, each after its principal's entry."""
    entries = {each.principal: each for each in access}
    for arn, policies in resolved.config.people.items():
        entry = entries[arn]
        for name, namespaces in policies.items():
            yield AccessPolicy(
                f"{entry.label}-{name}",
                entry=entry,
                policy=resolved.access_policy(name),
                namespaces=tuple(sorted(namespaces)),
            )


def access_label(principal: str, everybody: Sequence[str]) -> str:
    """Return an entry's label: its principal's name, with a hash if two paths share the name.

    >>> access_label("arn:aws:iam::1:role/a/dev", ["arn:aws:iam::1:role/a/dev"])
    'access-dev'
    """
    name = principal.rpartition("/")[2]
    if sum(each.rpartition("/")[2] == name for each in everybody) > 1:
        name += f"-{hashlib.sha256(principal.encode()).hexdigest()[:6]}"
    return f"access-{name}"
