"""The network step: private subnets for EKS and nodes, public ones only for NAT gateways."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hyperpod_eks.config import model as configs
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.endpoints import closed
from hyperpod_eks.resolve.names import NODE_SUBNET, PRIVATE_SUBNET, PUBLIC_SUBNET
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.ec2.endpoint import VpcEndpoint
from hyperpod_eks.resources.ec2.gateways import ElasticIp, InternetGateway, NatGateway
from hyperpod_eks.resources.ec2.route_table import RouteTable
from hyperpod_eks.resources.ec2.security_group import (
    HTTPS,
    NFS,
    STORAGE_PORTS,
    SecurityGroup,
    SecurityGroupRule,
)
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import ANYWHERE, Vpc, VpcCidr


@frozen
class Network:
    """The step's resources, for the other steps."""

    vpc: Vpc
    private: Mapping[str, Subnet]
    """The control plane's private subnets by availability zone id."""
    nodes: Mapping[str, Subnet]
    """The nodes' subnets by zone id: the same ones, or in secondary CIDR blocks."""
    security_group: SecurityGroup
    """The nodes' group."""
    control_group: SecurityGroup
    """The control plane's group; the same one unless ``security_groups`` is strict."""
    opening: tuple[SecurityGroupRule, ...]
    """The rule that admits the control plane to the nodes, if their groups differ."""
    egress: tuple[Resource, ...]
    """Resources that must be ready before a node can reach AWS."""


def step(resolved: ResolvedConfig) -> Network:
    """Declare the network.

    Adopted private subnets have their own routes; for them only resources that the config asks for
    are created.
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
    """Return the private route tables, adopted ones last, and the public ones that they need."""
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
    """Declare S3's gateway endpoint, which is a route in route tables."""
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
    """Declare the interface endpoints, and the security group that admits the nodes."""
    config, vpc = resolved.config.network, nodes.vpc
    blocks = tuple(f"{HTTPS} {block}" for block in (config.cidr, *config.secondary_cidrs))
    door = SecurityGroup(
        "endpoint-security-group",
        vpc=vpc,
        name=f"{resolved.name}-endpoints-hyperpod-eks",
        ingress=(nodes,) if "network/vpc" in resolved.adopted else blocks,  # not our blocks
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
        for name in interface_endpoints(resolved.config, theirs_alone=resolved.private_is_theirs)
        if (homes := _homes(resolved, name, private))
    )


def _endpoint_policy(resolved: ResolvedConfig) -> str:
    policy = resolved.config.network.endpoint_policy
    return json.dumps(policy, sort_keys=True) if policy else ""


def interface_endpoints(config: configs.Config, *, theirs_alone: bool) -> tuple[str, ...]:
    """Return the services with interface endpoints; all in an owned closed network."""
    if (names := config.network.interface_endpoints) is not None:
        return names
    return closed(config) if config.network.nat == "none" and not theirs_alone else ()


def _homes(
    resolved: ResolvedConfig, name: str, private: Mapping[str, Subnet]
) -> tuple[Subnet, ...]:
    """Return the private subnets in zones where AWS offers a service; other zones reach it too."""
    if resolved.endpoint_zones is None:
        return tuple(private.values())
    if name not in resolved.endpoint_zones:
        return ()
    zones = resolved.endpoint_zones[name] or private.keys()  # AWS may omit the zones
    return tuple(subnet for zone, subnet in private.items() if zone in zones)


def _private(
    resolved: ResolvedConfig, vpc: Vpc
) -> tuple[dict[str, Subnet], dict[str, Subnet], tuple[Resource, ...]]:
    """Declare a private subnet per zone and, with secondary CIDR blocks, one more for its nodes."""
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
    """Declare NAT gateways, owned or adopted, and the route tables that use them."""
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
    """Declare NAT gateways by zone, and the public subnet of each."""
    nats, public = {}, []
    single = resolved.config.network.nat == "single"
    for planned in resolved.plan[:1] if single else resolved.plan:
        zone, label = planned.zone, f"{PUBLIC_SUBNET}{planned.zone}"
        subnet = Subnet(label, vpc=gateway.vpc, cidr=planned.public, zone=zone)
        public.append(subnet)
        # EC2 releases no address and detaches no gateway while a NAT gateway uses it
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
    """Declare a route table; duplicate subnets are dropped."""
    once = {subnet.key: subnet for subnet in subnets}
    return RouteTable(label, vpc=vpc, target=target, subnets=tuple(once.values()))


def _groups(resolved: ResolvedConfig, vpc: Vpc) -> tuple[SecurityGroup, SecurityGroup]:
    """Declare the groups of nodes and control plane: one open to itself, or two strict ones.

    EFA requires both rules to the group itself (EC2 User Guide, "Elastic Fabric Adapter").
    """
    config, name = resolved.config.network, f"{resolved.name}-hyperpod-eks"
    files = any(not one.file_system_id for one in resolved.config.storage.fsx_lustre.values())
    ingress = ("self", *(STORAGE_PORTS if config.storage_ports or files else ()))
    if config.security_groups == "shared":
        group = SecurityGroup("security-group", vpc=vpc, name=name, ingress=ingress)
        return group, group
    shares = resolved.config.storage.efs or resolved.config.storage.fsx_openzfs
    strict = ("self", f"{HTTPS} {ANYWHERE}", *([f"{NFS} {ANYWHERE}"] if shares else []))
    nodes = SecurityGroup("security-group", vpc=vpc, name=name, ingress=ingress, egress=strict)
    control = SecurityGroup(
        "control-plane-security-group",
        vpc=vpc,
        name=f"{resolved.name}-control-plane-hyperpod-eks",
        ingress=(nodes,),
        egress=(nodes,),
    )
    return nodes, control
