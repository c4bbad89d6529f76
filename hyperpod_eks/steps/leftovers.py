"""Leftovers of services in the VPC, which a delete removes because nothing else does."""

from __future__ import annotations

from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.leftovers import Interfaces, Leftovers, LoadBalancers
from hyperpod_eks.resources.volumes import Volumes
from hyperpod_eks.steps.network import Network


def step(
    resolved: ResolvedConfig, net: Network, roles: tuple[Resource, ...]
) -> tuple[Resource, ...]:
    """Declare the leftovers of Kubernetes, EKS, HyperPod and GuardDuty.

    A delete waits for the interfaces before it deletes a role, a subnet or the security group: the
    services need these to delete their interfaces (HyperPod stays ``Deleting`` forever if its
    execution role is deleted first).
    """
    places = (net.vpc, *net.private.values(), net.security_group)
    groups = Leftovers("leftovers", cluster=resolved.eks_name, after=places)
    interfaces = Interfaces("interfaces", after=(*places, groups, *roles))
    balancers = LoadBalancers("load-balancers", cluster=resolved.eks_name, after=(interfaces,))
    return interfaces, balancers, Volumes("volumes", cluster=resolved.eks_name)
