"""A VPC: private subnets for EKS and the nodes, public ones only to hold the NAT gateways."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hyperpod_eks.config import model as configs
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.endpoints import CLOSED
from hyperpod_eks.resolve.names import NODE_SUBNET, PRIVATE_SUBNET, PUBLIC_SUBNET
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.ec2.endpoint import VpcEndpoint
from hyperpod_eks.resources.ec2.gateways import ElasticIp, InternetGateway, NatGateway
from hyperpod_eks.resources.ec2.route_table import RouteTable
from hyperpod_eks.resources.ec2.security_group import (
    HTTPS,
    STORAGE_PORTS,
    SecurityGroup,
    SecurityGroupRule,
)
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import ANYWHERE, Vpc, VpcCidr


@frozen
class Network:
    """What the other steps build on."""

    vpc: Vpc
    private: Mapping[str, Subnet]
    """Private subnets by availability zone id: the control plane's."""
    nodes: Mapping[str, Subnet]
    """The nodes' subnets, the same or in blocks of their own."""
    security_group: SecurityGroup
    """The nodes'."""
    control_group: SecurityGroup
    """The control plane's, the same unless they are strict."""
    opening: tuple[SecurityGroupRule, ...]
    """What lets the control plane in among the nodes, where its group is another."""
    egress: tuple[Resource, ...]
    """What must be ready before a node can reach AWS."""


def step(resolved: ResolvedConfig) -> Network:
    """Declare the network.

    Private subnets that are somebody's have routes of their own; nothing is made around them but
    what the configuration asks for.
    """
    vpc = Vpc("vpc", cidr=resolved.config.network.cidr)
    private, nodes, blocks = _private(resolved, vpc)
    routes, internet = _routes(resolved, vpc, private, nodes)
    group, control = _groups(resolved, vpc)
    opening: tuple[SecurityGroupRule, ...] = ()
    if control is not group:
        opening = (SecurityGroupRule("control-plane-opening", group=group, peer=control),)
    gateway = _s3_endpoint(resolved, vpc, routes)
    interfaces = _interface_endpoints(resolved, group, private)
    egress = (*internet, *routes, *gateway, *interfaces, *blocks)
    return Network(vpc, private, nodes, group, control, opening, egress)


def _routes(
    resolved: ResolvedConfig, vpc: Vpc, private: Mapping[str, Subnet], nodes: Mapping[str, Subnet]
) -> tuple[tuple[RouteTable, ...], tuple[Resource, ...]]:
    """Declare the private route tables, those that are somebody's last, and what they need."""
    routes: tuple[RouteTable, ...] = ()
    internet: tuple[Resource, ...] = ()
    if not resolved.private_is_theirs and resolved.config.network.nat != "none":
        routes, internet = _internet(resolved, vpc, private, nodes)
    elif not resolved.private_is_theirs:
        routes = (_table("private-routes", vpc, None, (*private.values(), *nodes.values())),)
    given = [key for key in resolved.adopted if key.startswith("network/route-table-")]
    routes += tuple(
        RouteTable(key.partition("/")[2], vpc=vpc, target=None, subnets=()) for key in given
    )
    return routes, internet


def _s3_endpoint(
    resolved: ResolvedConfig, vpc: Vpc, routes: tuple[RouteTable, ...]
) -> tuple[VpcEndpoint, ...]:
    """Declare the endpoint of S3, which is in route tables."""
    if not routes and "network/s3-endpoint" not in resolved.adopted:
        return ()
    service = f"com.amazonaws.{resolved.region}.s3"
    policy = _endpoint_policy(resolved)
    return (
        VpcEndpoint("s3-endpoint", vpc=vpc, service=service, route_tables=routes, policy=policy),
    )


def _interface_endpoints(
    resolved: ResolvedConfig, nodes: SecurityGroup, private: Mapping[str, Subnet]
) -> tuple[VpcEndpoint, ...]:
    """Declare the endpoints that are in subnets, and the security group that lets the nodes in."""
    config, vpc = resolved.config.network, nodes.vpc
    blocks = tuple(f"{HTTPS} {block}" for block in (config.cidr, *config.secondary_cidrs))
    door = SecurityGroup(
        "endpoint-security-group",
        vpc=vpc,
        name=f"{resolved.name}-endpoints-hyperpod-eks",
        ingress=(nodes,) if "network/vpc" in resolved.adopted else blocks,  # whose are theirs
        egress=(),
    )
    return tuple(
        VpcEndpoint(
            f"endpoint-{name}",
            vpc=vpc,
            service=f"com.amazonaws.{resolved.region}.{name}",
            subnets=homes,
            security_groups=(door,),
            policy=_endpoint_policy(resolved),
        )
        for name in interface_endpoints(config, theirs_alone=resolved.private_is_theirs)
        if (homes := _homes(resolved, name, private))
    )


def _endpoint_policy(resolved: ResolvedConfig) -> str:
    policy = resolved.config.network.endpoint_policy
    return json.dumps(policy, sort_keys=True) if policy else ""


def interface_endpoints(config: configs.Network, *, theirs_alone: bool) -> tuple[str, ...]:
    """Name the services that are reached inside the VPC: in a closed network of ours, all."""
    if config.interface_endpoints is not None:
        return config.interface_endpoints
    return CLOSED if config.nat == "none" and not theirs_alone else ()


def _homes(
    resolved: ResolvedConfig, name: str, private: Mapping[str, Subnet]
) -> tuple[Subnet, ...]:
    """Choose the private subnets in whose zones AWS offers a service; nodes elsewhere reach it."""
    if resolved.endpoint_zones is None:
        return tuple(private.values())
    if name not in resolved.endpoint_zones:
        return ()
    zones = resolved.endpoint_zones[name] or private.keys()  # AWS need not say
    return tuple(subnet for zone, subnet in private.items() if zone in zones)


def _private(
    resolved: ResolvedConfig, vpc: Vpc
) -> tuple[dict[str, Subnet], dict[str, Subnet], tuple[Resource, ...]]:
    """Declare a private subnet in each zone, and one more for the nodes in a block of its own."""
    config = resolved.config.network
    private, nodes, opened = {}, {}, []
    for index, planned in enumerate(resolved.plan):
        zone, tags = planned.zone, config.subnet_tags
        label = f"{PRIVATE_SUBNET}{zone}"
        private[zone] = Subnet(label, vpc=vpc, cidr=planned.private, zone=zone, tags=tags)
        nodes[zone] = private[zone]
        if config.secondary_cidrs and not resolved.private_is_theirs:
            block = config.secondary_cidrs[index]
            cidr = VpcCidr(f"cidr-{block.replace('/', '-')}", vpc=vpc, cidr=block)
            opened.append(cidr)
            nodes[zone] = Subnet(
                f"{NODE_SUBNET}{zone}", vpc=vpc, cidr=block, zone=zone, tags=tags, after=(cidr,)
            )
    return private, nodes, tuple(opened)


def _internet(
    resolved: ResolvedConfig, vpc: Vpc, private: Mapping[str, Subnet], nodes: Mapping[str, Subnet]
) -> tuple[tuple[RouteTable, ...], tuple[Resource, ...]]:
    """Declare the way out: NAT gateways, of ours or somebody's, and the routes to them."""
    given = [
        key.rpartition("nat-gateway-")[2] for key in resolved.adopted if "/nat-gateway-" in key
    ]
    internet: tuple[Resource, ...] = ()
    if given:
        nats = {
            each.zone: NatGateway(f"nat-gateway-{each.zone}", subnet=None, address=None)
            for each in resolved.plan
            if each.zone in given
        }
    else:
        gateway = InternetGateway("internet-gateway", vpc=vpc)
        nats, public = _nat_gateways(resolved, gateway)
        internet = (_table("public-routes", vpc, gateway, public),)
    first = next(iter(nats))
    routes = tuple(
        _table(
            f"private-routes-{zone}",
            vpc,
            nat,
            tuple(
                subnet
                for home in private
                if home == zone or (home not in nats and zone == first)
                for subnet in (private[home], nodes[home])
            ),
        )
        for zone, nat in nats.items()
    )
    return routes, internet


def _nat_gateways(
    resolved: ResolvedConfig, gateway: InternetGateway
) -> tuple[dict[str, NatGateway], tuple[Subnet, ...]]:
    """Declare NAT gateways by their zones, each in a public subnet."""
    nats, public = {}, []
    single = resolved.config.network.nat == "single"
    for planned in resolved.plan[:1] if single else resolved.plan:
        zone, label = planned.zone, f"{PUBLIC_SUBNET}{planned.zone}"
        subnet = Subnet(label, vpc=gateway.vpc, cidr=planned.public, zone=zone)
        public.append(subnet)
        # an address cannot be released, nor a gateway detached, while the NAT gateway holds them
        address = ElasticIp(f"address-{zone}")
        nats[zone] = NatGateway(
            f"nat-gateway-{zone}", subnet=subnet, address=address, after=(gateway,)
        )
    return nats, tuple(public)


def _table(
    label: str,
    vpc: Vpc,
    target: InternetGateway | NatGateway | None,
    subnets: tuple[Subnet, ...],
) -> RouteTable:
    """Declare a route table; a subnet that is named twice counts once."""
    once = {subnet.key: subnet for subnet in subnets}
    return RouteTable(label, vpc=vpc, target=target, subnets=tuple(once.values()))


def _groups(resolved: ResolvedConfig, vpc: Vpc) -> tuple[SecurityGroup, SecurityGroup]:
    """Declare the security groups of nodes and control plane: one that is open to itself, or two.

    EFA needs both rules that name the group itself (EC2 User Guide, "Elastic Fabric Adapter").
    """
    config, name = resolved.config.network, f"{resolved.name}-hyperpod-eks"
    ingress = ("self", *(STORAGE_PORTS if config.storage_ports else ()))
    if config.security_groups == "shared":
        group = SecurityGroup("security-group", vpc=vpc, name=name, ingress=ingress)
        return group, group
    strict = ("self", f"{HTTPS} {ANYWHERE}")
    nodes = SecurityGroup("security-group", vpc=vpc, name=name, ingress=ingress, egress=strict)
    control = SecurityGroup(
        "control-plane-security-group",
        vpc=vpc,
        name=f"{resolved.name}-control-plane-hyperpod-eks",
        ingress=(nodes,),
        egress=(nodes,),
    )
    return nodes, control
