"""The whole stack on one page: the steps, and the dependencies between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from hyperpod_eks.aws.ec2 import (
    ADDRESSES,
    INTERNET_GATEWAYS,
    NAT_GATEWAYS,
    ROUTE_TABLES,
    SECURITY_GROUPS,
    VPC_ENDPOINTS,
    VPCS,
)
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.events import steps_of
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources import access_entry
from hyperpod_eks.resources import eks as kinds_of_eks
from hyperpod_eks.resources.base import KINDS, Resource
from hyperpod_eks.resources.ecr import Repository
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.resources.iam import describe_role
from hyperpod_eks.resources.test_jobs import JobsOfTest
from hyperpod_eks.steps import (
    addons,
    eks,
    helm,
    hyperpod,
    iam,
    kubernetes,
    leftovers,
    monitoring,
    network,
    pod_identity,
    s3,
    scaling,
    storage,
    teams,
)


def stack(resolved: ResolvedConfig, helm_binary: str | None = None) -> list[Resource]:
    """Declare all resources, each after its dependencies.

    The arguments are the dependency graph: resources that do not depend on each other are created
    at the same time.
    """
    net = network.step(resolved)
    subnets = tuple({s.key: s for s in (*net.private.values(), *net.nodes.values())}.values())
    roles = iam.step(resolved, net.vpc, subnets, net.security_group)
    scripts = s3.step(resolved)
    files = storage.step(resolved, net)
    left = leftovers.step(resolved, net, (roles.cluster, roles.execution))
    control = eks.step(resolved, roles.cluster, net, left)
    metrics = monitoring.step(resolved)
    extras = addons.step(resolved, control.cluster, monitoring.before(metrics))
    workloads = pod_identity.step(resolved, control.cluster)
    chart = helm.step(resolved, control, helm_binary)
    cni = tuple(addon for addon in extras if addon.label == "vpc-cni")
    nodes = hyperpod.step(
        resolved, roles, net, scripts, control.cluster, (chart, *cni, *files, *left, *control.left)
    )
    extras += addons.later(
        resolved,
        control.cluster,
        monitoring.after(resolved, metrics, nodes) | addons.of_cluster(resolved, nodes),
        extras,
    )
    spaces = kubernetes.namespaces(resolved, control.cluster, control.access)
    charts = helm.further(resolved, control, extras, (*workloads, *spaces), nodes, helm_binary)
    governed = teams.step(resolved, control, nodes, extras)
    ready = (chart, *extras, *workloads, nodes, *charts, *governed)
    pools = scaling.step(resolved, control.cluster, nodes)
    objects = kubernetes.step(resolved, control.cluster, ready, spaces)
    homes = {each.name: each for each in spaces} | teams.namespaces(governed)
    volumes = storage.volumes(resolved, control.cluster, files, control.access, homes)
    inside = (*spaces, *pools, *charts, *objects, *volumes)
    goals = [*metrics, *control.access, *control.policies, *governed, *extras, *workloads]
    goals += (nodes, *inside)
    goals += storage.links(resolved, files)
    return list(in_order(goals))


LISTS = (
    VPCS,
    INTERNET_GATEWAYS,
    ADDRESSES,
    NAT_GATEWAYS,
    ROUTE_TABLES,
    VPC_ENDPOINTS,
    SECURITY_GROUPS,
)


def ahead(control: str, name: str, roles: Sequence[str]) -> Sequence[Callable[[Snapshot], object]]:
    """Return reads of the first look that can start before the stack is declared.

    ``control`` names the EKS cluster, ``name`` the HyperPod cluster, ``roles`` the
    roles of both.
    """
    return [
        access_entry.caller,
        partial(kinds_of_eks.describe, name=control),
        partial(hyperpod_api.describe, name=name),
        *(partial(describe_role, name=each) for each in roles),
        *(partial(Snapshot.signed, listing=each) for each in LISTS),
    ]


def in_order(goals: list[Resource]) -> Iterator[Resource]:
    """Yield the goals and all their dependencies, each after its own dependencies."""
    seen: set[str] = set()

    def visit(want: Resource) -> Iterator[Resource]:
        if want.key not in seen:
            seen.add(want.key)
            for need in want.needs():
                yield from visit(need)
            yield want

    for goal in goals:
        yield from visit(goal)


UNDECLARED: tuple[type[Resource], ...] = (Repository, JobsOfTest)
"""Kinds that no step declares: `mirror` and `test` create them, and a delete finds them by their
tags, or in the manifest.
"""


def kinds() -> list[type[Resource]]:
    """Return every kind of resource, in the order of the steps, and by name in each."""
    every = list(dict.fromkeys([*KINDS.values(), *UNDECLARED]))
    steps = steps_of(kind.step for kind in every)
    return sorted(every, key=lambda kind: (steps.index(kind.step), kind.kind))
