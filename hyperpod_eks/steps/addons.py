"""The EKS add-ons that a HyperPod cluster cannot do without, and others that are asked for."""

from __future__ import annotations

import json

from hyperpod_eks.config.model import NEEDED_ADDONS
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.addon import Addon, PodIdentity
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.eks import Cluster


def step(resolved: ResolvedConfig, cluster: Cluster) -> tuple[Addon, ...]:
    """Declare the add-ons; vpc-cni first, for the nodes wait for it.

    Those that HyperPod needs come at once, others one after the other: some need one before them
    (the training operator needs cert-manager).
    """
    found: list[Addon] = []
    nodeless = not any(group.instance_count for group in resolved.config.groups)
    for name, addon in resolved.config.every_addon().items():
        # of somebody's cluster, only what is there or asked for
        if resolved.eks_is_theirs and not (
            f"addons/{name}" in resolved.adopted or name in resolved.config.addons
        ):
            continue
        others = [each for each in found if each.label not in NEEDED_ADDONS]
        roles = tuple(
            sorted(
                (str(each["service_account"]), str(each["role_arn"]))
                for each in addon.pod_identity_associations
            )
        )
        before: tuple[Resource, ...] = ()
        if namespace := resolved.standalone.get(name):
            before = tuple(
                PodIdentity(f"{name}-{account}", cluster, namespace, account, role)
                for account, role in roles
            )
        found.append(
            Addon(
                name,
                cluster=cluster,
                version=addon.version or "",
                configuration=json.dumps(dict(addon.configuration_values), sort_keys=True),
                roles=() if before else roles,
                nodeless=nodeless,
                after=(*others[-1:], *before),
            )
        )
    return tuple(found)
