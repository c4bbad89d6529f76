"""A VPC: private subnets for EKS and the nodes, public ones only to hold the NAT gateways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hyperpod_eks.aws import Aws, Look, owner
from hyperpod_eks.resource import MINUTE, Known, Live, Resource, State
from hyperpod_eks.site import PRIVATE_SUBNET, Site

ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class Network:
    """What the other steps build on."""

    vpc: Vpc
    private: Mapping[str, Subnet]
    """Private subnets by availability zone id."""
    security_group: SecurityGroup
    egress: tuple[Resource, ...]
    """What must be ready before a node can reach AWS."""


def step(site: Site) -> Network:
    """Declare the network; nodes and control plane share one security group."""
    vpc = Vpc("vpc", cidr=site.config.network.cidr)
    gateway = InternetGateway("internet-gateway", vpc=vpc)
    private: dict[str, Subnet] = {}
    public: dict[str, Subnet] = {}
    nats: dict[str, NatGateway] = {}
    for zone in site.plan:
        label = f"{PRIVATE_SUBNET}{zone.zone}"
        private[zone.zone] = Subnet(label, vpc=vpc, cidr=zone.private, zone=zone.zone)
        if site.config.network.nat == "single" and nats:
            continue
        label = f"public-subnet-{zone.zone}"
        public[zone.zone] = Subnet(label, vpc=vpc, cidr=zone.public, zone=zone.zone)
        # an address cannot be released, nor a gateway detached, while the NAT gateway holds them
        address = Address(f"address-{zone.zone}", after=(gateway,))
        nats[zone.zone] = NatGateway(
            f"nat-gateway-{zone.zone}", subnet=public[zone.zone], address=address, after=(gateway,)
        )
    to_internet = RouteTable(
        "public-routes", vpc=vpc, target=gateway, subnets=tuple(public.values())
    )
    first = next(iter(nats))
    routes = tuple(
        RouteTable(
            f"private-routes-{zone}",
            vpc=vpc,
            target=nat,
            subnets=tuple(
                subnet
                for home, subnet in private.items()
                if home == zone or (home not in nats and zone == first)
            ),
        )
        for zone, nat in nats.items()
    )
    endpoint = Endpoint(
        "s3-endpoint",
        vpc=vpc,
        service=f"com.amazonaws.{site.region}.s3",
        route_tables=routes,
    )
    group = SecurityGroup("security-group", vpc=vpc, name=f"{site.name}-hyperpod-eks")
    return Network(vpc, private, group, (to_internet, *routes, endpoint))


@dataclass(frozen=True)
class Vpc(Resource):
    """A VPC with DNS support and hostnames, which EKS private endpoints need."""

    cidr: str
    dns: tuple[bool, bool] = (True, True)
    """Whether DNS support and DNS hostnames are on."""

    step = "network"
    named = False
    nameless = True

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags; the DNS settings take a call each."""
        lives = []
        for vpc in look.ec2("describe_vpcs", "Vpcs", self.label):
            support = look.aws.ec2.describe_vpc_attribute(
                VpcId=vpc["VpcId"], Attribute="enableDnsSupport"
            )["EnableDnsSupport"]
            hostnames = look.aws.ec2.describe_vpc_attribute(
                VpcId=vpc["VpcId"], Attribute="enableDnsHostnames"
            )["EnableDnsHostnames"]
            dns = (support.get("Value", False), hostnames.get("Value", False))
            lives.append(self._live(vpc, dns))
        return lives

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

    def settle(self, aws: Aws, known: Known, live: Live) -> None:
        """One attribute a call; hostnames need support."""
        support, hostnames = live.facts["dns"]
        if not support:
            aws.ec2.modify_vpc_attribute(VpcId=live.id, EnableDnsSupport={"Value": True})
        if not hostnames:
            aws.ec2.modify_vpc_attribute(VpcId=live.id, EnableDnsHostnames={"Value": True})

    def delete(self, aws: Aws, live: Live) -> None:
        """Default security group, network ACL and main route table go with it."""
        aws.ec2.delete_vpc(VpcId=live.id)

    def holders(self, look: Look, live: Live) -> list[str]:
        """Whatever else is in it."""
        here: Any = [{"Name": "vpc-id", "Values": [live.id]}]
        ec2 = look.aws.ec2
        groups = look.all(ec2, "describe_security_groups", "SecurityGroups", Filters=here)
        subnets = look.all(ec2, "describe_subnets", "Subnets", Filters=here)
        return [
            *_interfaces(look, "vpc-id", live.id),
            *(
                f"security group {g['GroupId']} ({g['GroupName']}): "
                f"aws ec2 delete-security-group --group-id {g['GroupId']}"
                for g in groups
                if g["GroupName"] != "default"
            ),
            *(
                f"subnet {s['SubnetId']}: aws ec2 delete-subnet --subnet-id {s['SubnetId']}"
                for s in subnets
            ),
        ]


@dataclass(frozen=True)
class InternetGateway(Resource):
    """The VPC's way to the internet; ready once it is attached (a route needs that)."""

    vpc: Vpc

    step = "network"
    named = False
    nameless = True

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

    def settle(self, aws: Aws, known: Known, live: Live) -> Live:
        """Attach it."""
        vpc = known(self.vpc).id
        aws.ec2.attach_internet_gateway(InternetGatewayId=live.id, VpcId=vpc)
        return replace(live, facts={"vpc": vpc})

    def delete(self, aws: Aws, live: Live) -> None:
        """Detach and delete; refused while a public address is mapped."""
        if live.facts["vpc"]:
            aws.ec2.detach_internet_gateway(InternetGatewayId=live.id, VpcId=live.facts["vpc"])
        aws.ec2.delete_internet_gateway(InternetGatewayId=live.id)


@dataclass(frozen=True)
class Subnet(Resource):
    """A subnet in one zone; private or public is a matter of its route table."""

    vpc: Vpc
    cidr: str
    zone: str
    """Availability zone id: names are shuffled per account, ids are not."""

    step = "network"
    named = False

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
                TagSpecifications=aws.born_with(self.label, "subnet"),
            )["Subnet"]
        )

    def delete(self, aws: Aws, live: Live) -> None:
        """Refused while an interface is in it."""
        aws.ec2.delete_subnet(SubnetId=live.id)

    def holders(self, look: Look, live: Live) -> list[str]:
        """The interfaces in it."""
        return _interfaces(look, "subnet-id", live.id)


@dataclass(frozen=True)
class Address(Resource):
    """An Elastic IP address for a NAT gateway."""

    step = "network"
    named = False
    nameless = True

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags."""
        return [
            Live(item["AllocationId"], owner=owner(item.get("Tags", ())), why=item["PublicIp"])
            for item in look.ec2("describe_addresses", "Addresses", self.label)
        ]

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """AllocateAddress has neither token nor name: one attempt only."""
        item = aws.ec2_once.allocate_address(
            Domain="vpc", TagSpecifications=aws.born_with(self.label, "elastic-ip")
        )
        return Live(item["AllocationId"], owner=aws.lineage, why=item["PublicIp"])

    def delete(self, aws: Aws, live: Live) -> None:
        """Refused while a NAT gateway holds it."""
        aws.ec2.release_address(AllocationId=live.id)


@dataclass(frozen=True)
class NatGateway(Resource):
    """The private subnets' way out."""

    subnet: Subnet
    address: Address

    step = "network"
    named = False
    patience = 15 * MINUTE
    usual = "2 min"

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
        )

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """Idempotent by its token."""
        return self._live(
            aws.ec2.create_nat_gateway(
                ClientToken=token,
                SubnetId=known(self.subnet).id,
                AllocationId=known(self.address).id,
                TagSpecifications=aws.born_with(self.label, "natgateway"),
            )["NatGateway"]
        )

    def delete(self, aws: Aws, live: Live) -> None:
        """Takes about a minute; the address is free after it."""
        aws.ec2.delete_nat_gateway(NatGatewayId=live.id)


@dataclass(frozen=True)
class RouteTable(Resource):
    """A default route through a gateway, and the subnets that use it."""

    vpc: Vpc
    target: InternetGateway | NatGateway
    subnets: tuple[Subnet, ...]

    step = "network"
    named = False

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

    def settle(self, aws: Aws, known: Known, live: Live) -> Live:
        """Point the default route at the target and associate the subnets."""
        target = known(self.target).id
        way: Any = {
            "RouteTableId": live.id,
            "DestinationCidrBlock": ANYWHERE,
            "GatewayId" if isinstance(self.target, InternetGateway) else "NatGatewayId": target,
        }
        if live.facts["target"] is None:
            aws.ec2.create_route(**way)
        elif live.facts["target"] != target:
            aws.ec2.replace_route(**way)
        wanted = self.expected("subnets", known)
        for subnet in sorted(wanted - live.facts["subnets"]):
            aws.ec2.associate_route_table(RouteTableId=live.id, SubnetId=subnet)
        for subnet in live.facts["subnets"] - wanted:
            association = live.attributes["associations"][subnet]
            aws.ec2.disassociate_route_table(AssociationId=association)
        return replace(live, facts={**live.facts, "target": target, "subnets": wanted})

    def delete(self, aws: Aws, live: Live) -> None:
        """Associations first: a table in use is not deleted."""
        for association in live.attributes["associations"].values():
            aws.ec2.disassociate_route_table(AssociationId=association)
        aws.ec2.delete_route_table(RouteTableId=live.id)


@dataclass(frozen=True)
class Endpoint(Resource):
    """The gateway endpoint through which lifecycle scripts are read without the NAT gateway."""

    vpc: Vpc
    service: str
    route_tables: tuple[RouteTable, ...]

    step = "network"
    named = False

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
            },
        )

    def expected(self, name: str, known: Known) -> Any:
        """Route tables have no order."""
        value = super().expected(name, known)
        return frozenset(value) if name == "route_tables" else value

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """Idempotent by its token."""
        return self._live(
            aws.ec2.create_vpc_endpoint(
                ClientToken=token,
                VpcEndpointType="Gateway",
                VpcId=known(self.vpc).id,
                ServiceName=self.service,
                RouteTableIds=sorted(self.expected("route_tables", known)),
                TagSpecifications=aws.born_with(self.label, "vpc-endpoint"),
            )["VpcEndpoint"]
        )

    def settle(self, aws: Aws, known: Known, live: Live) -> None:
        """Add and remove route tables."""
        wanted = self.expected("route_tables", known)
        change: dict[str, Any] = {
            "AddRouteTableIds": sorted(wanted - live.facts["route_tables"]),
            "RemoveRouteTableIds": sorted(live.facts["route_tables"] - wanted),
        }
        aws.ec2.modify_vpc_endpoint(VpcEndpointId=live.id, **{k: v for k, v in change.items() if v})

    def delete(self, aws: Aws, live: Live) -> None:
        """Its routes go with it.  The call answers 200 and names what it could not delete."""
        answer = aws.ec2.delete_vpc_endpoints(VpcEndpointIds=[live.id])
        _raise_unsuccessful(answer.get("Unsuccessful", ()), "DeleteVpcEndpoints")


@dataclass(frozen=True)
class SecurityGroup(Resource):
    """All traffic among its members, and out.

    The control plane reaches kubelets and webhooks, pods reach CoreDNS and each other, and EFA
    works: it demands rules to *and* from the group itself, 0.0.0.0/0 outward is not enough
    (SageMaker developer guide, HyperPod prerequisites: "EFA health checks did not run").
    """

    vpc: Vpc
    name: str
    ingress: tuple[str, ...] = ("self",)
    egress: tuple[str, ...] = ("self", ANYWHERE)

    step = "network"
    named = False

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags."""
        items = look.ec2("describe_security_groups", "SecurityGroups", self.label)
        return [
            Live(
                item["GroupId"],
                owner=owner(item.get("Tags", ())),
                facts={
                    "vpc": item["VpcId"],
                    # rules that somebody added are no drift: only declared peers are facts
                    "ingress": _peers(item["IpPermissions"], item["GroupId"], self.ingress),
                    "egress": _peers(item["IpPermissionsEgress"], item["GroupId"], self.egress),
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

    def settle(self, aws: Aws, known: Known, live: Live) -> Live:
        """Add the rules that are missing; rules that somebody added stay."""
        for name, call in (
            ("ingress", aws.ec2.authorize_security_group_ingress),
            ("egress", aws.ec2.authorize_security_group_egress),
        ):
            for peer in sorted(self.expected(name, known) - live.facts[name]):
                rule: Any = {"IpProtocol": "-1"}
                if peer == "self":
                    rule["UserIdGroupPairs"] = [{"GroupId": live.id}]
                else:
                    rule["IpRanges"] = [{"CidrIp": peer}]
                call(GroupId=live.id, IpPermissions=[rule])
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


def _peers(
    rules: Sequence[Mapping[str, Any]], group: str, declared: tuple[str, ...]
) -> frozenset[str]:
    """Which declared peers the rules let through with all traffic; "self" is the group itself."""
    found = set()
    for rule in rules:
        if rule["IpProtocol"] == "-1":
            found |= {"self" for p in rule.get("UserIdGroupPairs", ()) if p.get("GroupId") == group}
            found |= {r["CidrIp"] for r in rule.get("IpRanges", ())}
    return frozenset(found.intersection(declared))


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
        for i in found
    ]


def _raise_unsuccessful(items: Sequence[Mapping[str, Any]], operation: str) -> None:
    from botocore.exceptions import ClientError  # noqa: PLC0415

    for item in items:
        about: Any = {
            "Error": item["Error"],
            "ResponseMetadata": {"HTTPStatusCode": 400, "Service": "ec2"},
        }
        raise ClientError(about, operation)
