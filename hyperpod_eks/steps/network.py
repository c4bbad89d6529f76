"""A VPC: private subnets for EKS and the nodes, public ones only to hold the NAT gateways."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Any, ClassVar

from hyperpod_eks.aws.answers import policy as policy_of
from hyperpod_eks.aws.client import Aws, Look, absent, owner, raise_first, tag
from hyperpod_eks.config import model as configs
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.site import CLOSED, NODE_SUBNET, PRIVATE_SUBNET, PUBLIC_SUBNET, Site
from hyperpod_eks.resources.base import MINUTE, Differs, Known, Live, Resource, State
from hyperpod_eks.steps import holders
from hyperpod_eks.workers import together

ANYWHERE = "0.0.0.0/0"


STORAGE_PORTS = ("tcp 988 self", "tcp 1018-1023 self")
"""FSx for Lustre User Guide, "Limiting access with Amazon VPC"."""
HTTPS = "tcp 443"
ALLOW_ALL = {
    "Version": "2008-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}],
}
"""The policy that AWS gives an endpoint."""


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
    opening: tuple[Opening, ...]
    """What lets the control plane in among the nodes, where its group is another."""
    egress: tuple[Resource, ...]
    """What must be ready before a node can reach AWS."""


def step(site: Site) -> Network:
    """Declare the network.

    Private subnets that are somebody's have routes of their own; nothing is made around them but
    what the configuration asks for.
    """
    config, theirs = site.config.network, site.adopted
    vpc = Vpc("vpc", cidr=config.cidr)
    private, nodes, blocks = _private(site, vpc)
    routes: tuple[RouteTable, ...] = ()
    internet: tuple[Resource, ...] = ()
    if not site.private_is_theirs and config.nat != "none":
        routes, internet = _internet(site, vpc, private, nodes)
    elif not site.private_is_theirs:
        routes = (_table("private-routes", vpc, None, (*private.values(), *nodes.values())),)
    given = [key for key in theirs if key.startswith("network/route-table-")]
    routes += tuple(
        RouteTable(key.partition("/")[2], vpc=vpc, target=None, subnets=()) for key in given
    )
    policy = json.dumps(config.endpoint_policy, sort_keys=True) if config.endpoint_policy else ""
    endpoints: tuple[Resource, ...] = ()
    if routes or "network/s3-endpoint" in theirs:
        service = f"com.amazonaws.{site.region}.s3"
        endpoints = (
            Endpoint("s3-endpoint", vpc=vpc, service=service, route_tables=routes, policy=policy),
        )
    group, control = _groups(site, vpc)
    opening: tuple[Opening, ...] = ()
    if control is not group:
        opening = (Opening("control-plane-opening", group=group, peer=control),)
    wanted = {
        name: homes
        for name in interface_endpoints(config, theirs_alone=site.private_is_theirs)
        if (homes := _homes(site, name, private))
    }
    if wanted:
        blocks_in = tuple(f"{HTTPS} {block}" for block in (config.cidr, *config.secondary_cidrs))
        door = SecurityGroup(
            "endpoint-security-group",
            vpc=vpc,
            name=f"{site.name}-endpoints-hyperpod-eks",
            ingress=(group,) if "network/vpc" in theirs else blocks_in,  # whose blocks are theirs
            egress=(),
        )
        endpoints += tuple(
            Endpoint(
                f"endpoint-{name}",
                vpc=vpc,
                service=f"com.amazonaws.{site.region}.{name}",
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


def _homes(site: Site, name: str, private: Mapping[str, Subnet]) -> tuple[Subnet, ...]:
    """Choose the private subnets in whose zones AWS offers a service; nodes elsewhere reach it."""
    if site.endpoint_zones is None:
        return tuple(private.values())
    if name not in site.endpoint_zones:
        return ()
    zones = site.endpoint_zones[name] or private.keys()  # AWS need not say
    return tuple(subnet for zone, subnet in private.items() if zone in zones)


def _private(
    site: Site, vpc: Vpc
) -> tuple[dict[str, Subnet], dict[str, Subnet], tuple[Resource, ...]]:
    """Declare a private subnet in each zone, and one more for the nodes in a block of its own."""
    config = site.config.network
    private, nodes, opened = {}, {}, []
    for index, planned in enumerate(site.plan):
        zone, tags = planned.zone, config.subnet_tags
        label = f"{PRIVATE_SUBNET}{zone}"
        private[zone] = Subnet(label, vpc=vpc, cidr=planned.private, zone=zone, tags=tags)
        nodes[zone] = private[zone]
        if config.secondary_cidrs and not site.private_is_theirs:
            block = config.secondary_cidrs[index]
            cidr = VpcCidr(f"cidr-{block.replace('/', '-')}", vpc=vpc, cidr=block)
            opened.append(cidr)
            nodes[zone] = Subnet(
                f"{NODE_SUBNET}{zone}", vpc=vpc, cidr=block, zone=zone, tags=tags, after=(cidr,)
            )
    return private, nodes, tuple(opened)


def _internet(
    site: Site, vpc: Vpc, private: Mapping[str, Subnet], nodes: Mapping[str, Subnet]
) -> tuple[tuple[RouteTable, ...], tuple[Resource, ...]]:
    """Declare the way out: NAT gateways, of ours or somebody's, and the routes to them."""
    given = [key.rpartition("nat-gateway-")[2] for key in site.adopted if "/nat-gateway-" in key]
    nats: dict[str, NatGateway] = {}
    public: dict[str, Subnet] = {}
    gateway = InternetGateway("internet-gateway", vpc=vpc)
    for zone in site.plan:
        if given:
            if zone.zone in given:
                nats[zone.zone] = NatGateway(f"nat-gateway-{zone.zone}", subnet=None, address=None)
            continue
        if site.config.network.nat == "single" and nats:
            continue
        label = f"{PUBLIC_SUBNET}{zone.zone}"
        public[zone.zone] = Subnet(label, vpc=vpc, cidr=zone.public, zone=zone.zone)
        # an address cannot be released, nor a gateway detached, while the NAT gateway holds them
        address = Address(f"address-{zone.zone}")
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


def _groups(site: Site, vpc: Vpc) -> tuple[SecurityGroup, SecurityGroup]:
    """Declare the security groups of nodes and control plane: one that is open to itself, or two.

    EFA needs both rules that name the group itself (EC2 User Guide, "Elastic Fabric Adapter").
    """
    config = site.config.network
    storage = STORAGE_PORTS if config.storage_ports else ()
    name = f"{site.name}-hyperpod-eks"
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
        name=f"{site.name}-control-plane-hyperpod-eks",
        ingress=(nodes,),
        egress=(nodes,),
    )
    return nodes, control


@frozen
class Vpc(Resource):
    """A VPC with DNS support and hostnames, which EKS private endpoints need."""

    cidr: str
    dns: tuple[bool, bool] = (True, True)
    """Whether DNS support and DNS hostnames are on."""

    kind = "network/Vpc"
    step = "network"
    goes_at_once = True
    named = False
    nameless = True
    facts = ("cidr", "dns")
    answers = ("cidr",)
    later = ("dns",)
    fixed: ClassVar[Mapping[str, str]] = {
        "cidr": "a VPC keeps its first block (network.secondary_cidrs adds others)"
    }

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags; the DNS settings take a call each."""
        lives = []
        for vpc in look.ec2("describe_vpcs", "Vpcs", self.label):
            if look.bare:
                lives.append(self._live(vpc, self.dns))
            else:
                lives.append(self._live(vpc, self._dns(look.aws, vpc["VpcId"])))
        return lives

    def review(self, look: Look, live: Live, names: frozenset[str]) -> Sequence[Live]:
        """Ask for the DNS settings alone."""
        if names != {"dns"}:
            return self.find(look)
        facts = {**live.facts, "dns": self._dns(look.aws, live.id)}
        return [replace(live, facts=facts, told=names)]

    def _dns(self, aws: Aws, vpc: str) -> tuple[Any, Any]:
        ask = partial(aws.ec2.describe_vpc_attribute, VpcId=vpc)
        support, hostnames = together(
            partial(ask, Attribute="enableDnsSupport"),
            partial(ask, Attribute="enableDnsHostnames"),
        )
        return (
            support.get("EnableDnsSupport", {}).get("Value"),
            hostnames.get("EnableDnsHostnames", {}).get("Value"),
        )

    def _live(self, vpc: Mapping[str, Any], dns: tuple[bool, bool]) -> Live:
        return Live(
            vpc["VpcId"],
            owner=owner(vpc.get("Tags", ())),
            state=State.READY if vpc["State"] == "available" else State.BUSY,
            why=vpc["State"],
            facts={"cidr": vpc["CidrBlock"], "dns": dns},
        )

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """CreateVpc has neither token nor name: one attempt only."""
        vpc = aws.ec2_once.create_vpc(
            CidrBlock=self.cidr, TagSpecifications=aws.born_with(self.label, "vpc")
        )["Vpc"]
        return self._live(vpc, (True, False))

    def settle(self, aws: Aws, known: Known, live: Live, differs: Differs) -> Live:
        """One attribute a call; hostnames need support."""
        support, hostnames = live.facts.get("dns", (False, False))
        if not support:
            aws.ec2.modify_vpc_attribute(VpcId=live.id, EnableDnsSupport={"Value": True})
        if not hostnames:
            aws.ec2.modify_vpc_attribute(VpcId=live.id, EnableDnsHostnames={"Value": True})
        return replace(live, facts={**live.facts, "dns": self.dns})

    def tenants(self, look: Look, live: Live) -> list[str]:
        """What would keep AWS from deleting it."""
        return self.holders(look, live)

    def delete(self, aws: Aws, live: Live) -> None:
        """Default security group, network ACL and main route table go with it."""
        aws.ec2.delete_vpc(VpcId=live.id)

    def holders(self, look: Look, live: Live) -> list[str]:
        """Whatever else is in it."""
        return [*_interfaces(look, "vpc-id", live.id), *holders.of_vpc(look, live.id)]


@frozen
class VpcCidr(Resource):
    """A further address block of the VPC; in somebody's VPC, one that we have put there."""

    vpc: Vpc
    cidr: str

    kind = "network/VpcCidr"
    step = "network"
    signed = False  # it has no tags

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    def find(self, look: Look) -> Sequence[Live]:
        """In the VPC's own description; that a subnet of ours is in it says whose it is."""
        ours = any(
            each["CidrBlock"] == self.cidr and owner(each["Tags"]) == look.aws.lineage
            for each in look.signed("describe_subnets", "Subnets")
        )
        return [
            Live(
                each["AssociationId"],
                owner=look.aws.lineage if ours else owner(vpc.get("Tags", ())),
                state=State.LEAVING
                if each["CidrBlockState"]["State"] == "disassociating"
                else State.READY
                if each["CidrBlockState"]["State"] == "associated"
                else State.BUSY,
                why=each["CidrBlockState"]["State"],
                attributes={"vpc": vpc["VpcId"]},
            )
            for vpc in look.ec2("describe_vpcs", "Vpcs", self.vpc.label)
            for each in vpc.get("CidrBlockAssociationSet", ())
            if each["CidrBlock"] == self.cidr
            and each["CidrBlockState"]["State"] not in ("disassociated", "failed")
        ]

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """A block can be associated once."""
        found = aws.ec2.associate_vpc_cidr_block(VpcId=known(self.vpc).id, CidrBlock=self.cidr)
        made = found["CidrBlockAssociation"]
        return Live(made["AssociationId"], owner=aws.lineage, state=State.BUSY, why="associating")

    def settle(self, aws: Aws, known: Known, live: Live, differs: Differs) -> Live:
        """It has no tags; the journal knows whose it is until a subnet of ours is in it."""
        return replace(live, owner=aws.lineage)

    def delete(self, aws: Aws, live: Live) -> None:
        """Refused while a subnet is in it."""
        aws.ec2.disassociate_vpc_cidr_block(AssociationId=live.id)


@frozen
class InternetGateway(Resource):
    """The VPC's way to the internet; ready once it is attached (a route needs that)."""

    vpc: Vpc

    kind = "network/InternetGateway"
    step = "network"
    goes_at_once = True
    named = False
    nameless = True
    facts = later = ("vpc",)

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    def seeds(self) -> Iterator[Resource]:
        """None: it is attached later."""
        yield from ()

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags."""
        items = look.ec2("describe_internet_gateways", "InternetGateways", self.label)
        return [self._live(item) for item in items]

    def _live(self, item: Mapping[str, Any]) -> Live:
        attached = [a["VpcId"] for a in item.get("Attachments", ()) if a["State"] != "detached"]
        return Live(
            item["InternetGatewayId"],
            owner=owner(item.get("Tags", ())),
            facts={"vpc": attached[0] if attached else None},
        )

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """CreateInternetGateway has neither token nor name: one attempt only."""
        return self._live(
            aws.ec2_once.create_internet_gateway(
                TagSpecifications=aws.born_with(self.label, "internet-gateway")
            )["InternetGateway"]
        )

    def settle(self, aws: Aws, known: Known, live: Live, differs: Differs) -> Live:
        """Attach it."""
        vpc = known(self.vpc).id
        aws.ec2.attach_internet_gateway(InternetGatewayId=live.id, VpcId=vpc)
        return replace(live, facts={"vpc": vpc})

    def tenants(self, look: Look, live: Live) -> list[str]:
        """The VPC that it is attached to."""
        return [live.facts["vpc"]] if live.facts["vpc"] else []

    def delete(self, aws: Aws, live: Live) -> None:
        """Detach and delete; refused while a public address is mapped."""
        if live.facts["vpc"]:
            aws.ec2.detach_internet_gateway(InternetGatewayId=live.id, VpcId=live.facts["vpc"])
        aws.ec2.delete_internet_gateway(InternetGatewayId=live.id)


@frozen
class Subnet(Resource):
    """A subnet in one zone; private or public is a matter of its route table."""

    vpc: Vpc
    cidr: str
    zone: str
    """Availability zone id: names are shuffled per account, ids are not."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Further tags of the user's."""

    kind = "network/Subnet"
    step = "network"
    goes_at_once = True
    named = False
    facts = answers = ("vpc", "cidr", "zone", "tags")
    fixed: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("cidr", "zone"), "AWS moves no subnet; give it its block back"
    )

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    @property
    def lasts(self) -> str:  # type: ignore[override]  # a property in place of a constant
        """The control plane keeps its subnets."""
        if self.label.startswith(PRIVATE_SUBNET):
            return (
                "zones are not taken away, for EKS keeps those that it was made with; name the "
                "zone again"
            )
        return ""

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags."""
        return [self._live(x) for x in look.ec2("describe_subnets", "Subnets", self.label)]

    def _live(self, item: Mapping[str, Any]) -> Live:
        return Live(
            item["SubnetId"],
            item.get("SubnetArn", ""),
            owner=owner(item.get("Tags", ())),
            state=State.READY if item["State"] == "available" else State.BUSY,
            why=item["State"],
            facts={
                "vpc": item["VpcId"],
                "cidr": item["CidrBlock"],
                "zone": item["AvailabilityZoneId"],
                "tags": {
                    key: value
                    for key in self.tags
                    if (value := tag(item.get("Tags", ()), key)) is not None
                },
            },
            attributes={"free_addresses": item.get("AvailableIpAddressCount")},
        )

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """The CIDR is unique in the VPC, so that a second one is refused."""
        return self._live(
            aws.ec2.create_subnet(
                VpcId=known(self.vpc).id,
                CidrBlock=self.cidr,
                AvailabilityZoneId=self.zone,
                TagSpecifications=aws.born_with(self.label, "subnet", self.tags),
            )["Subnet"]
        )

    def settle(self, aws: Aws, known: Known, live: Live, differs: Differs) -> None:
        """Put the tags on; tags that are no longer asked for stay."""
        tags: Any = [{"Key": key, "Value": value} for key, value in self.tags.items()]
        aws.ec2.create_tags(Resources=[live.id], Tags=tags)

    def delete(self, aws: Aws, live: Live) -> None:
        """Refused while an interface is in it."""
        aws.ec2.delete_subnet(SubnetId=live.id)

    def holders(self, look: Look, live: Live) -> list[str]:
        """The interfaces in it."""
        return _interfaces(look, "subnet-id", live.id)


@frozen
class Address(Resource):
    """An Elastic IP address for a NAT gateway."""

    kind = "network/Address"
    step = "network"
    goes_at_once = True
    named = False
    nameless = True

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags; of several, the VPCs of the NAT gateways tell which is the cluster's."""
        found = look.ec2("describe_addresses", "Addresses", self.label)
        nats = look.signed("describe_nat_gateways", "NatGateways") if len(found) > 1 else ()
        vpcs = {
            each.get("AllocationId"): nat.get("VpcId")
            for nat in nats
            for each in nat.get("NatGatewayAddresses", ())
        }
        return [
            Live(
                item["AllocationId"],
                owner=owner(item.get("Tags", ())),
                why=item["PublicIp"],
                attributes={
                    "used_by": item.get("NetworkInterfaceId") or item.get("AssociationId"),
                    "vpc": vpcs.get(item["AllocationId"]),
                },
            )
            for item in found
        ]

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """AllocateAddress has neither token nor name: one attempt only."""
        item = aws.ec2_once.allocate_address(
            Domain="vpc", TagSpecifications=aws.born_with(self.label, "elastic-ip")
        )
        return Live(item["AllocationId"], owner=aws.lineage, why=item["PublicIp"])

    def tenants(self, look: Look, live: Live) -> list[str]:
        """The interface of the NAT gateway that it is mapped to."""
        return [live.attributes["used_by"]] if live.attributes["used_by"] else []

    def delete(self, aws: Aws, live: Live) -> None:
        """Refused while a NAT gateway holds it."""
        aws.ec2.release_address(AllocationId=live.id)


@frozen
class NatGateway(Resource):
    """The private subnets' way out."""

    subnet: Subnet | None
    address: Address | None
    """None for one that is somebody's."""

    kind = "network/NatGateway"
    step = "network"
    named = False
    patience = 15 * MINUTE
    usual = "2 min"
    typical = 105.0
    facts = answers = ("subnet",)
    fixed: ClassVar[Mapping[str, str]] = {"subnet": "a NAT gateway keeps its subnet"}

    @property
    def place(self) -> Vpc | None:
        """The VPC of its subnet."""
        return self.subnet.vpc if self.subnet else None

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags; deleted ones stay visible for an hour and do not count."""
        return [
            self._live(item)
            for item in look.ec2("describe_nat_gateways", "NatGateways", self.label)
            if item["State"] != "deleted"
        ]

    def _live(self, item: Mapping[str, Any]) -> Live:
        states = {"pending": State.BUSY, "deleting": State.LEAVING, "failed": State.FAILED}
        return Live(
            item["NatGatewayId"],
            owner=owner(item.get("Tags", ())),
            state=states.get(item["State"], State.READY),
            why=item.get("FailureMessage") or item["State"],
            facts={"subnet": item["SubnetId"]},
            attributes={"vpc": item.get("VpcId")},
        )

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """Idempotent by its token."""
        assert self.subnet, "somebody's is never made"
        assert self.address
        return self._live(
            aws.ec2.create_nat_gateway(
                ClientToken=token,
                SubnetId=known(self.subnet).id,
                AllocationId=known(self.address).id,
                TagSpecifications=aws.born_with(self.label, "natgateway"),
            )["NatGateway"]
        )

    def tenants(self, look: Look, live: Live) -> list[str]:
        """The route tables that lead to it; whoever has just made it is about to add them."""
        if live.state is not State.READY:
            return [] if live.state is State.FAILED else [live.why]
        through: Any = [{"Name": "route.nat-gateway-id", "Values": [live.id]}]
        tables = look.all(look.aws.ec2, "describe_route_tables", "RouteTables", Filters=through)
        return [f"route table {each['RouteTableId']}" for each in tables]

    def delete(self, aws: Aws, live: Live) -> None:
        """Takes about a minute; the address is free after it."""
        aws.ec2.delete_nat_gateway(NatGatewayId=live.id)


@frozen
class RouteTable(Resource):
    """A default route through a gateway, and the subnets that use it."""

    vpc: Vpc
    target: InternetGateway | NatGateway | None
    subnets: tuple[Subnet, ...]

    kind = "network/RouteTable"
    step = "network"
    goes_at_once = True
    named = False
    facts = ("vpc", "target", "subnets")
    answers = ("vpc",)
    later = ("target", "subnets")

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    def seeds(self) -> Iterator[Resource]:
        """Its VPC; the route and the subnets come later."""
        yield self.vpc

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags."""
        items = look.ec2("describe_route_tables", "RouteTables", self.label)
        return [self._live(item) for item in items]

    def _live(self, item: Mapping[str, Any]) -> Live:
        ways = [
            route.get("GatewayId") or route.get("NatGatewayId")
            for route in item.get("Routes", ())
            if route.get("DestinationCidrBlock") == ANYWHERE
        ]
        users = {
            a["SubnetId"]: a["RouteTableAssociationId"]
            for a in item.get("Associations", ())
            if "SubnetId" in a
            and a.get("AssociationState", {}).get("State", "associated")
            in ("associated", "associating")
        }
        order = {subnet: i for i, subnet in enumerate(users)}
        return Live(
            item["RouteTableId"],
            owner=owner(item.get("Tags", ())),
            facts={
                "vpc": item["VpcId"],
                "target": next(iter(ways), None),
                "subnets": frozenset(order),
            },
            attributes={"associations": users},
        )

    def expected(self, name: str, known: Known) -> Any:
        """Subnets have no order."""
        value = super().expected(name, known)
        return frozenset(value) if name == "subnets" else value

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """Idempotent by its token."""
        return self._live(
            aws.ec2.create_route_table(
                ClientToken=token,
                VpcId=known(self.vpc).id,
                TagSpecifications=aws.born_with(self.label, "route-table"),
            )["RouteTable"]
        )

    def settle(self, aws: Aws, known: Known, live: Live, differs: Differs) -> Live:
        """Point the default route at the target and associate the subnets.

        A subnet that another table has is moved by one call, so that it is never without a way.
        """
        ec2, there = aws.ec2, live.facts["target"]
        target = known(self.target).id if self.target else None
        route: Any = {"RouteTableId": live.id, "DestinationCidrBlock": ANYWHERE}
        over = "GatewayId" if isinstance(self.target, InternetGateway) else "NatGatewayId"
        way: Any = route | {over: target}
        calls: list[Callable[[], Any]] = []
        if target is None and there is not None:
            calls.append(partial(ec2.delete_route, **route))
        elif target is not None and there is None:
            calls.append(partial(ec2.create_route, **way))
        elif there != target:
            calls.append(partial(ec2.replace_route, **way))
        wanted = self.expected("subnets", known)
        new = sorted(wanted - live.facts["subnets"])
        calls += [partial(_associate, aws, live.id, subnet) for subnet in new]
        together(*calls)
        return replace(live, facts={**live.facts, "target": target, "subnets": wanted})

    def tenants(self, look: Look, live: Live) -> list[str]:
        """The subnets that use it."""
        return sorted(live.attributes["associations"])

    def delete(self, aws: Aws, live: Live) -> None:
        """Associations first: a table in use is not deleted."""
        off = aws.ec2.disassociate_route_table
        together(*(partial(off, AssociationId=x) for x in live.attributes["associations"].values()))
        aws.ec2.delete_route_table(RouteTableId=live.id)


def _associate(aws: Aws, table: str, subnet: str) -> None:
    """Give a subnet to a route table, or take it from another one that has it."""
    with absent("Resource.AlreadyAssociated"):
        aws.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
        return
    there: Any = [{"Name": "association.subnet-id", "Values": [subnet]}]
    for other in aws.ec2.describe_route_tables(Filters=there)["RouteTables"]:
        for each in other["Associations"]:
            if each.get("SubnetId") == subnet and other["RouteTableId"] != table:
                aws.ec2.replace_route_table_association(
                    AssociationId=each["RouteTableAssociationId"], RouteTableId=table
                )


@frozen
class Endpoint(Resource):
    """An endpoint of a service inside the VPC: a gateway on route tables, or interfaces.

    The gateway endpoint of S3 lets lifecycle scripts be read without the NAT gateway.
    """

    vpc: Vpc
    service: str
    route_tables: tuple[RouteTable, ...] = ()
    """Of a gateway endpoint."""
    subnets: tuple[Subnet, ...] = ()
    """Of an interface endpoint."""
    security_groups: tuple[SecurityGroup, ...] = ()
    policy: str = ""
    """JSON; empty for AWS's, which allows everything."""

    kind = "network/Endpoint"
    step = "network"
    named = False
    facts = answers = ("vpc", "service", "route_tables", "subnets", "security_groups", "policy")

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    @property
    def goes_at_once(self) -> bool:  # type: ignore[override]  # a property in place of a constant
        """A gateway is but a route; interfaces take their time."""
        return not self.subnets

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags."""
        return [
            self._live(item)
            for item in look.ec2("describe_vpc_endpoints", "VpcEndpoints", self.label)
            if item["State"].lower() != "deleted"
        ]

    def _live(self, item: Mapping[str, Any]) -> Live:
        states = {"pending": State.BUSY, "deleting": State.LEAVING, "failed": State.FAILED}
        return Live(
            item["VpcEndpointId"],
            owner=owner(item.get("Tags", ())),
            state=states.get(item["State"].lower(), State.READY),
            why=item["State"],
            facts={
                "vpc": item["VpcId"],
                "service": item["ServiceName"],
                "route_tables": frozenset(item.get("RouteTableIds", ())),
                "subnets": frozenset(item.get("SubnetIds", ())),
                "security_groups": frozenset(g["GroupId"] for g in item.get("Groups", ())),
                "policy": _policy(item.get("PolicyDocument")),
            },
        )

    def expected(self, name: str, known: Known) -> Any:
        """Route tables, subnets and groups have no order."""
        value = super().expected(name, known)
        return frozenset(value) if isinstance(value, tuple) else value

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """Idempotent by its token."""
        kind: dict[str, Any] = {
            "VpcEndpointType": "Gateway",
            "RouteTableIds": sorted(self.expected("route_tables", known)),
        }
        if self.subnets:
            kind = {
                "VpcEndpointType": "Interface",
                "PrivateDnsEnabled": True,
                "SubnetIds": sorted(self.expected("subnets", known)),
                "SecurityGroupIds": sorted(self.expected("security_groups", known)),
            }
        if self.policy:
            kind["PolicyDocument"] = self.policy
        return self._live(
            aws.ec2.create_vpc_endpoint(
                ClientToken=token,
                VpcId=known(self.vpc).id,
                ServiceName=self.service,
                TagSpecifications=aws.born_with(self.label, "vpc-endpoint"),
                **kind,
            )["VpcEndpoint"]
        )

    def settle(self, aws: Aws, known: Known, live: Live, differs: Differs) -> None:
        """Add and remove what it stands on, and give it its policy."""
        change: dict[str, Any] = {}
        for name, member in (
            ("route_tables", "RouteTableIds"),
            ("subnets", "SubnetIds"),
            ("security_groups", "SecurityGroupIds"),
        ):
            wanted = self.expected(name, known)
            change[f"Add{member}"] = sorted(wanted - live.facts[name])
            change[f"Remove{member}"] = sorted(live.facts[name] - wanted)
        if live.facts["policy"] != self.policy:
            change["PolicyDocument"] = self.policy or json.dumps(ALLOW_ALL)
        aws.ec2.modify_vpc_endpoint(VpcEndpointId=live.id, **{k: v for k, v in change.items() if v})

    def delete(self, aws: Aws, live: Live) -> None:
        """Its routes go with it.  The call answers 200 and names what it could not delete."""
        answer = aws.ec2.delete_vpc_endpoints(VpcEndpointIds=[live.id])
        refused = [each["Error"] for each in answer.get("Unsuccessful", ())]
        raise_first("ec2", "DeleteVpcEndpoints", refused)


def _policy(document: str | None) -> str:
    """Spell a policy so that it can be compared; "" for the one that AWS gives."""
    found = policy_of(document or "{}")
    # an interface's has no version (PrivateLink guide, "Default endpoint policy")
    default = found.get("Statement", ALLOW_ALL["Statement"]) == ALLOW_ALL["Statement"]
    return "" if default else json.dumps(found, sort_keys=True)


@frozen
class SecurityGroup(Resource):
    """All traffic among its members, and out.

    The control plane reaches kubelets and webhooks, pods reach CoreDNS and each other, and EFA
    works: it demands rules to *and* from the group itself, 0.0.0.0/0 outward is not enough
    (SageMaker developer guide, HyperPod prerequisites: "EFA health checks did not run").
    """

    vpc: Vpc
    name: str
    ingress: tuple[str | SecurityGroup, ...] = ("self",)
    egress: tuple[str | SecurityGroup, ...] = ("self", ANYWHERE)
    """Peers that all traffic is let through for: itself, another group or a block; or protocol,
    port and peer (``tcp 443 0.0.0.0/0``)."""

    kind = "network/SecurityGroup"
    step = "network"
    goes_at_once = True
    named = False
    facts = ("vpc", "ingress", "egress")
    later = ("ingress", "egress")

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags."""
        items = look.ec2("describe_security_groups", "SecurityGroups", self.label)
        return [
            Live(
                item["GroupId"],
                owner=owner(item.get("Tags", ())),
                facts={
                    "vpc": item["VpcId"],
                    # rules that somebody added are no drift: only what we may declare is a fact
                    "ingress": _rules(item["IpPermissions"], item["GroupId"]).intersection(
                        {*STORAGE_PORTS, *_ids(look, self.ingress)}
                    ),
                    "egress": _rules(item["IpPermissionsEgress"], item["GroupId"]).intersection(
                        {ANYWHERE, f"{HTTPS} {ANYWHERE}", *_ids(look, self.egress)}
                    ),
                },
            )
            for item in items
        ]

    def expected(self, name: str, known: Known) -> Any:
        """Rules have no order."""
        value = super().expected(name, known)
        return frozenset(value) if name in ("ingress", "egress") else value

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """The name is unique in the VPC; AWS adds the rule 0.0.0.0/0 outward by itself."""
        vpc = known(self.vpc).id
        group = aws.ec2.create_security_group(
            GroupName=self.name,
            Description="HyperPod nodes and EKS control plane of one cluster",
            VpcId=vpc,
            TagSpecifications=aws.born_with(self.label, "security-group"),
        )["GroupId"]
        return Live(
            group,
            owner=aws.lineage,
            facts={"vpc": vpc, "ingress": frozenset(), "egress": frozenset({ANYWHERE})},
        )

    def settle(self, aws: Aws, known: Known, live: Live, differs: Differs) -> Live:
        """Add the rules that are missing; rules that somebody added stay."""
        ec2 = aws.ec2
        calls: list[Callable[[], Any]] = []
        for name, allow, revoke in (
            (
                "ingress",
                ec2.authorize_security_group_ingress,
                ec2.revoke_security_group_ingress,
            ),
            ("egress", ec2.authorize_security_group_egress, ec2.revoke_security_group_egress),
        ):
            wanted, there = self.expected(name, known), live.facts[name]
            for call, rules in ((allow, wanted - there), (revoke, there - wanted)):
                if rules:
                    permissions = [_permission(rule, live.id) for rule in sorted(rules)]
                    calls.append(partial(call, GroupId=live.id, IpPermissions=permissions))
        together(*calls)
        rules = {name: self.expected(name, known) for name in ("ingress", "egress")}
        return replace(live, facts={**live.facts, **rules})

    def delete(self, aws: Aws, live: Live) -> None:
        """Refused while an interface or another group's rule uses it."""
        aws.ec2.delete_security_group(GroupId=live.id)

    def holders(self, look: Look, live: Live) -> list[str]:
        """Interfaces in the group, and groups whose rules name it."""
        naming: list[Any] = []
        for way in ("ip-permission.group-id", "egress.ip-permission.group-id"):
            there: Any = [{"Name": way, "Values": [live.id]}]
            naming += look.all(
                look.aws.ec2, "describe_security_groups", "SecurityGroups", Filters=there
            )
        return [
            *_interfaces(look, "group-id", live.id),
            *(
                f"a rule of security group {g['GroupId']} ({g['GroupName']}): remove the rule"
                for g in naming
                if g["GroupId"] != live.id
            ),
        ]


def _ids(look: Look, peers: tuple[str | SecurityGroup, ...]) -> list[str]:
    """Spell declared peers as rules; groups by the ids that they have now."""
    return [
        rule
        for peer in peers
        for rule in (
            [peer]
            if isinstance(peer, str)
            else [
                each["GroupId"]
                for each in look.ec2("describe_security_groups", "SecurityGroups", peer.label)
            ]
        )
    ]


def _rules(permissions: Sequence[Mapping[str, Any]], group: str) -> set[str]:
    """Spell described rules as we declare them: ``self``, ``sg-1``, ``tcp 443 10.0.0.0/16``."""
    found = set()
    for each in permissions:
        ports = ""
        if each["IpProtocol"] != "-1":
            first, last = each.get("FromPort"), each.get("ToPort")
            ports = f"{each['IpProtocol']} {first}{'' if first == last else f'-{last}'} "
        peers = [
            "self" if pair.get("GroupId") == group else pair.get("GroupId", "")
            for pair in each.get("UserIdGroupPairs", ())
        ]
        peers += [block["CidrIp"] for block in each.get("IpRanges", ())]
        found |= {ports + peer for peer in peers}
    return found


def _permission(rule: str, group: str) -> Any:
    """Spell a rule of ours as EC2's IpPermission."""
    *ports, peer = rule.split()
    found: dict[str, Any] = {"IpProtocol": "-1"}
    if ports:
        first, _, last = ports[1].partition("-")
        found = {"IpProtocol": ports[0], "FromPort": int(first), "ToPort": int(last or first)}
    if peer == "self" or peer.startswith("sg-"):
        found["UserIdGroupPairs"] = [{"GroupId": group if peer == "self" else peer}]
    else:
        found["IpRanges"] = [{"CidrIp": peer}]
    return found


@frozen
class Opening(Resource):
    """A rule that lets all traffic of one group into another, where each names the other.

    A rule of its own, for two groups cannot both be made first, nor be deleted first.
    """

    group: SecurityGroup
    peer: SecurityGroup

    kind = "network/Opening"
    step = "network"
    goes_at_once = True
    named = False

    @property
    def place(self) -> Vpc:
        """The groups'."""
        return self.group.vpc

    def find(self, look: Look) -> Sequence[Live]:
        """In the group's own description."""
        peers = look.ec2("describe_security_groups", "SecurityGroups", self.peer.label)
        return [
            Live(
                f"{group['GroupId']}/{peer['GroupId']}",
                owner=owner(group.get("Tags", ())),
                attributes={
                    "group": group["GroupId"],
                    "peer": peer["GroupId"],
                    "vpc": group.get("VpcId"),
                },
            )
            for group in look.ec2("describe_security_groups", "SecurityGroups", self.group.label)
            for peer in peers
            if peer["GroupId"] in _rules(group["IpPermissions"], group["GroupId"])
        ]

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """A rule that is there already is refused."""
        group, peer = known(self.group).id, known(self.peer).id
        rule = _permission(peer, group)
        aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        return Live(f"{group}/{peer}", owner=aws.lineage, attributes={"group": group, "peer": peer})

    def delete(self, aws: Aws, live: Live) -> None:
        """Take the rule away."""
        group, peer = live.attributes["group"], live.attributes["peer"]
        rule = _permission(peer, group)
        aws.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])


def _interfaces(look: Look, by: str, value: str) -> list[str]:
    """Describe the interfaces that hold something, and how each is freed."""
    there: Any = [{"Name": by, "Values": [value]}]
    found = look.all(
        look.aws.ec2, "describe_network_interfaces", "NetworkInterfaces", Filters=there
    )
    return [
        f"interface {i['NetworkInterfaceId']} ({i.get('Description') or 'no description'}, "
        f"{i['Status']}, of {i.get('RequesterId') or i.get('OwnerId', 'this account')}): "
        f"aws ec2 delete-network-interface --network-interface-id {i['NetworkInterfaceId']}"
        f" --region {look.aws.session.region_name}"
        for i in found
    ]
