"""Roles for pods, and the associations of workloads (EKS Pod Identity)."""

from __future__ import annotations

import json

from hyperpod_eks.documents import JsonObject
from hyperpod_eks.resolve.pod_roles import PodRole, workload_roles
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.addon import PodIdentity
from hyperpod_eks.resources.eks import Cluster
from hyperpod_eks.resources.iam import Policy, Role
from hyperpod_eks.resources.irsa import OidcProvider, ServiceAccountRole
from hyperpod_eks.resources.trust import PODS_SERVICE


def step(resolved: ResolvedConfig, cluster: Cluster) -> tuple[PodIdentity, ...]:
    """Declare the associations of the config's service accounts, each after its role."""
    made = {(one.namespace, one.account): one for one in workload_roles(resolved)}
    found = []
    for each in resolved.config.pod_identity:
        one = made.get((each.namespace, each.service_account))
        found.append(
            PodIdentity(
                PodRole(each.namespace, each.service_account, ()).label,
                cluster,
                each.namespace,
                each.service_account,
                one.role_arn(resolved) if one else str(each.role_arn),
                after=(role(resolved, one, cluster),) if one else (),
            )
        )
    return tuple(found)


def role(resolved: ResolvedConfig, one: PodRole, cluster: Cluster) -> Role:
    """Declare a role for pods, and its policy if existing ones do not say everything."""
    iam, name = resolved.config.iam, one.name(resolved)
    own = Policy(
        f"{one.label}-policy",
        name=name,
        prefix=resolved.arn("iam", "policy"),
        path=iam.path,
        rows=(),
        statements=json.dumps([dict(each) for each in one.statements]),
    )
    common: JsonObject = {
        "label": f"{one.label}-role",
        "name": name,
        "managed": one.managed,
        "policies": (own,) if one.statements else (),
        "path": iam.path,
        "boundary": iam.permissions_boundary or "",
    }
    if one.web:
        return ServiceAccountRole(
            **common,
            trusts=f"system:serviceaccount:{one.namespace}:{one.account}",
            provider=OidcProvider("oidc-provider", cluster=cluster),
            services=one.web.services,
        )
    return Role(
        **common,
        trusts=PODS_SERVICE,
        caller=resolved.arn("eks", f"cluster/{resolved.eks_name}") if one.one_cluster else "",
    )
