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
    config, theirs = resolved.config.network, resolved.adopted
    vpc = Vpc("vpc", cidr=config.cidr)
    private, nodes, blocks = _private(resolved, vpc)
    routes: tuple[RouteTable, ...] = ()
    internet: tuple[Resource, ...] = ()
    if not resolved.private_is_theirs and config.nat != "none":
        routes, internet = _internet(resolved, vpc, private, nodes)
    elif not resolved.private_is_theirs:
        routes = (_table("private-routes", vpc, None, (*private.values(), *nodes.values())),)
    given = [key for key in theirs if key.startswith("network/route-table-")]
    routes += tuple(
        RouteTable(key.partition("/")[2], vpc=vpc, target=None, subnets=()) for key in given
    )
    policy = json.dumps(config.endpoint_policy, sort_keys=True) if config.endpoint_policy else ""
    endpoints: tuple[Resource, ...] = ()
    if routes or "network/s3-endpoint" in theirs:
        service = f"com.amazonaws.{resolved.region}.s3"
        endpoints = (
            VpcEndpoint(
                "s3-endpoint", vpc=vpc, service=service, route_tables=routes, policy=policy
            ),
        )
    group, control = _groups(resolved, vpc)
    opening: tuple[SecurityGroupRule, ...] = ()
    if control is not group:
        opening = (SecurityGroupRule("control-plane-opening", group=group, peer=control),)
    wanted = {
        name: homes
        for name in interface_endpoints(config, theirs_alone=resolved.private_is_theirs)
        if (homes := _homes(resolved, name, private))
    }
    if wanted:
        blocks_in = tuple(f"{HTTPS} {block}" for block in (config.cidr, *config.secondary_cidrs))
        door = SecurityGroup(
            "endpoint-security-group",
            vpc=vpc,
            name=f"{resolved.name}-endpoints-hyperpod-eks",
            ingress=(group,) if "network/vpc" in theirs else blocks_in,  # whose blocks are theirs
            egress=(),
        )
        endpoints += tuple(
            VpcEndpoint(
                f"endpoint-{name}",
                vpc=vpc,
                service=f"com.amazonaws.{resolved.region}.{name}",
                subnets=homes,
                security_groups=(door,),
                policy=policy,
            )
            for name, homes in wanted.items()
        )
    egress = (*internet, *routes, *endpoints, *blocks)
    return Network(vpc, private, nodes, group, control, opening, egress)


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
    nats: dict[str, NatGateway] = {}
    public: dict[str, Subnet] = {}
    gateway = InternetGateway("internet-gateway", vpc=vpc)
    for zone in resolved.plan:
        if given:
            if zone.zone in given:
                nats[zone.zone] = NatGateway(f"nat-gateway-{zone.zone}", subnet=None, address=None)
            continue
        if resolved.config.network.nat == "single" and nats:
            continue
        label = f"{PUBLIC_SUBNET}{zone.zone}"
        public[zone.zone] = Subnet(label, vpc=vpc, cidr=zone.public, zone=zone.zone)
        # an address cannot be released, nor a gateway detached, while the NAT gateway holds them
        address = ElasticIp(f"address-{zone.zone}")
        nats[zone.zone] = NatGateway(
            f"nat-gateway-{zone.zone}", subnet=public[zone.zone], address=address, after=(gateway,)
        )
    internet: tuple[Resource, ...] = ()
    if public:
        internet = (_table("public-routes", vpc, gateway, tuple(public.values())),)
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
    config = resolved.config.network
    storage = STORAGE_PORTS if config.storage_ports else ()
    name = f"{resolved.name}-hyperpod-eks"
    if config.security_groups == "shared":
        group = SecurityGroup("security-group", vpc=vpc, name=name, ingress=("self", *storage))
        return group, group
    nodes = SecurityGroup(
        "security-group",
        vpc=vpc,
        name=name,
        ingress=("self", *storage),
        egress=("self", f"{HTTPS} {ANYWHERE}"),
    )
    control = SecurityGroup(
        "control-plane-security-group",
        vpc=vpc,
        name=f"{resolved.name}-control-plane-hyperpod-eks",
        ingress=(nodes,),
        egress=(nodes,),
    )
    return nodes, control
