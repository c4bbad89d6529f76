"""The EKS add-ons that a HyperPod cluster requires, and others that the config declares."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import field
from functools import reduce

from hyperpod_eks.aws.addon_needs import ADDON_NEEDS, INFERENCE
from hyperpod_eks.config.addons import NEEDED_ADDONS
from hyperpod_eks.config.addons import Addon as DeclaredAddon
from hyperpod_eks.config.model import Config
from hyperpod_eks.config.operators import linked_addons
from hyperpod_eks.config.teams import GOVERNANCE
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.frozen import frozen
from hyperpod_eks.helm.chart import merge
from hyperpod_eks.resolve.pod_roles import PodRole, addon_roles, certificate_bucket
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.addon import Addon, PodIdentity
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.certificates import CertificateBucket
from hyperpod_eks.resources.eks import Cluster
from hyperpod_eks.resources.hyperpod.nodes import Nodes
from hyperpod_eks.resources.iam import Role
from hyperpod_eks.resources.linked_addon import link as link_to
from hyperpod_eks.resources.linked_addon import linked
from hyperpod_eks.steps.pod_identity import role


@frozen
class Link:
    """What an add-on is declared with beside its config."""

    after: tuple[Resource, ...] = ()
    """Resources that must be ready before it."""
    settings: JsonMapping = field(default_factory=dict)
    """Settings that its config may override."""
    sources: tuple[Resource, ...] = ()
    """Resources that the settings name."""


Links = Mapping[str, Link]
"""By add-on."""


def step(resolved: ResolvedConfig, cluster: Cluster, links: Links) -> tuple[Addon, ...]:
    """Declare the add-ons, vpc-cni first, since the nodes wait for it.

    The add-ons that HyperPod needs are created at the same time, others after those that they need,
    and those of ``addons`` also one after the other.
    """
    return _declared(resolved, cluster, links, (), later=False)


def later(
    resolved: ResolvedConfig, cluster: Cluster, links: Links, others: tuple[Addon, ...]
) -> tuple[Addon, ...]:
    """Declare the add-ons that come after the nodes."""
    return _declared(resolved, cluster, links, others, later=True)


def of_cluster(resolved: ResolvedConfig, nodes: Nodes) -> dict[str, Link]:
    """Return what the inference operator is declared with: the HyperPod cluster, and a bucket."""
    settings = {"hyperpodClusterArn": link_to(nodes.cluster, "arn")}
    if not (name := certificate_bucket(resolved)):
        return {INFERENCE: Link((nodes,), settings, (nodes.cluster,))}
    bucket = CertificateBucket(
        "certificates",
        name=name,
        region=resolved.region,
        arn=resolved.arn("s3", name),
        encryption=resolved.config.encryption.bucket or "AES256",
    )
    settings["tlsCertificateS3Bucket"] = name
    return {INFERENCE: Link((bucket, nodes), settings, (nodes.cluster,))}


def every_addon(config: Config, adopted: Container[str]) -> dict[str, DeclaredAddon]:
    """Return the add-ons by name that a cluster is to have; ``adopted`` has keys of resources.

    An EKS cluster that is adopted may run what HyperPod needs without EKS add-ons: there, only
    adopted add-ons count, and those that the config asks for.
    """
    asked, theirs = config.asked_addons(), "eks/cluster" in adopted
    return {
        name: addon
        for name, addon in config.every_addon().items()
        if not theirs or name in asked or f"addons/{name}" in adopted
    }


def _declared(
    resolved: ResolvedConfig,
    cluster: Cluster,
    links: Links,
    others: tuple[Addon, ...],
    *,
    later: bool,
) -> tuple[Addon, ...]:
    found: list[Addon] = []
    config = resolved.config
    nodeless = not any(group.instance_count for group in config.groups)
    for name, addon in every_addon(config, resolved.adopted).items():
        if (name in linked_addons(config)) is not later:
            continue
        link, before = links.get(name, Link()), (*others, *found)
        first = [each for each in before if each.label in _first(config, name, before)]
        ours = [*addon_roles(resolved, name)]
        roles = _roles(resolved, addon, [one for one in ours if not one.web])
        made = tuple(role(resolved, one, cluster) for one in ours)
        separate = tuple(_pod_identities(resolved, cluster, name, roles, made))
        settings = reduce(merge, _named(resolved, ours), link.settings)
        values = merge(settings, addon.configuration_values)
        declared = Addon(
            name,
            cluster=cluster,
            version=addon.version or "",
            configuration=json.dumps(values, sort_keys=True),
            roles=() if separate else roles,
            nodeless=nodeless,
            after=(*link.after, *first, *(separate or made)),
        )
        found.append(linked(declared, link.sources) if link.sources else declared)
    return tuple(found)


def _first(config: Config, name: str, found: Sequence[Addon]) -> set[str]:
    """Return the names of the add-ons that must be ready before an add-on is created."""
    listed = config.addons.keys() - {*NEEDED_ADDONS} if name in config.addons else ()
    before = [each.label for each in found if each.label in listed]
    # its webhook refuses Deployments while it starts: it is created after others, or before them
    webhook = {GOVERNANCE}
    if name == GOVERNANCE:
        webhook = {each.label for each in found} - {*NEEDED_ADDONS}
    return {*ADDON_NEEDS.get(name, ()), *before[-1:], *webhook}


def _named(resolved: ResolvedConfig, ours: Sequence[PodRole]) -> Iterator[JsonMapping]:
    """Yield the settings that name roles of ours, for an add-on that takes no pod identity."""
    for one in ours:
        if one.web:
            arn: Json = one.role_arn(resolved)
            yield one.web.beside
            yield reduce(lambda inner, name: {name: inner}, reversed(one.web.setting), arn)


def _roles(
    resolved: ResolvedConfig, addon: DeclaredAddon, ours: Sequence[PodRole]
) -> tuple[tuple[str, str], ...]:
    """Return sorted pairs of service account and role ARN: the config's, or roles of ours."""
    pairs = [
        (str(each["service_account"]), str(each["role_arn"]))
        for each in addon.pod_identity_associations or ()
    ]
    return tuple(sorted([*pairs, *((one.account, one.role_arn(resolved)) for one in ours)]))


def _pod_identities(
    resolved: ResolvedConfig,
    cluster: Cluster,
    addon: str,
    roles: Sequence[tuple[str, str]],
    after: tuple[Role, ...],
) -> Iterator[PodIdentity]:
    """Yield the associations that the add-on's version does not create itself."""
    answer = resolved.addons.get(addon)
    if answer and answer.standalone:
        namespace = answer.namespace or "kube-system"
        for account, arn in roles:
            yield PodIdentity(f"{addon}-{account}", cluster, namespace, account, arn, after=after)
