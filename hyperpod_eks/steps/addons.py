"""The EKS add-ons that a HyperPod cluster requires, and others that the config declares."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from hyperpod_eks.config import model as configs
from hyperpod_eks.config.model import NEEDED_ADDONS
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.addon import Addon, PodIdentity
from hyperpod_eks.resources.eks import Cluster


def step(resolved: ResolvedConfig, cluster: Cluster) -> tuple[Addon, ...]:
    """Declare the add-ons, vpc-cni first, since the nodes wait for it.

    Required add-ons are created at the same time, others one after the other, in the config's
    order: some require an earlier one (the training operator requires cert-manager).
    """
    found: list[Addon] = []
    config = resolved.config
    nodeless = not any(group.instance_count for group in config.groups)
    for name, addon in config.every_addon().items():
        # in a cluster that is not owned, only adopted or declared add-ons
        asked = f"addons/{name}" in resolved.adopted or name in config.addons
        if resolved.eks_is_theirs and not asked:
            continue
        others = [each for each in found if each.label not in NEEDED_ADDONS]
        roles = _roles(addon)
        before = tuple(_pod_identities(resolved, cluster, name, roles))
        declared = Addon(
            name,
            cluster=cluster,
            version=addon.version or "",
            configuration=json.dumps(dict(addon.configuration_values), sort_keys=True),
            roles=() if before else roles,
            nodeless=nodeless,
            after=(*others[-1:], *before),
        )
        found.append(declared)
    return tuple(found)


def _roles(addon: configs.Addon) -> tuple[tuple[str, str], ...]:
    """Return sorted pairs of service account and role ARN."""
    pairs = addon.pod_identity_associations
    return tuple(sorted((str(each["service_account"]), str(each["role_arn"])) for each in pairs))


def _pod_identities(
    resolved: ResolvedConfig, cluster: Cluster, addon: str, roles: Sequence[tuple[str, str]]
) -> Iterator[PodIdentity]:
    """Yield the associations that the add-on's version does not create itself."""
    if namespace := resolved.standalone.get(addon):
        for account, role in roles:
            yield PodIdentity(f"{addon}-{account}", cluster, namespace, account, role)
