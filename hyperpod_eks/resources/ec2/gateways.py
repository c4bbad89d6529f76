"""The gateways of a VPC: internet gateway, NAT gateway and its address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from hyperpod_eks.aws import prices
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import ADDRESSES, INTERNET_GATEWAYS, NAT_GATEWAYS, ROUTE_TABLES
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.prices import Item
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import LINEAGE, owner
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import (
    MINUTE,
    CountedQuota,
    Differs,
    Facts,
    Identity,
    Live,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.ec2.permissions import network
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.permissions import Statements, look
from hyperpod_eks.resources.tagged import Candidate, Tagged


@frozen
class InternetGateway(Resource):
    """The VPC's internet gateway; ready once it is attached, as routes require."""

    vpc: Vpc

    kind = "network/InternetGateway"
    step = "network"
    tag_type = "internet-gateway"
    quota = CountedQuota(
        "quota-internet-gateways",
        "vpc",
        "Internet gateways per Region",
        lambda snapshot: len(snapshot.region(INTERNET_GATEWAYS)),
    )
    keep_group = "network"
    absence: ClassVar[Facts] = {
        "vpc": None,  # InternetGateway.attachmentSet: all attachments
    }
    deleted_at_once = True
    identity = Identity.NONE
    facts = later = ("vpc",)
    attached = facts

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    def create_requires(self) -> Iterator[Resource]:
        """None: ``update`` attaches it."""
        yield from ()

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """EC2 actions, limited to resources with the cluster's tag."""
        yield look("ec2", "DescribeInternetGateways")
        yield from network(
            cls,
            resolved,
            declared,
            create="CreateInternetGateway",
            change=["AttachInternetGateway"],
            delete=["DeleteInternetGateway", "DetachInternetGateway"],
        )

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> InternetGateway:
        """Declare it with the fields that a delete needs."""
        return InternetGateway(found.label, vpc=vpc)

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by our tags."""
        items = snapshot.ec2(INTERNET_GATEWAYS, self.label)
        return [self._live(item) for item in items]

    def _live(self, item: JsonMapping) -> Live:
        attached = [a["VpcId"] for a in item.get("Attachments", ()) if a["State"] != "detached"]
        return Live(
            item["InternetGatewayId"],
            owner=owner(item.get("Tags", ())),
            facts={"vpc": attached[0] if attached else None},
        )

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it in a single attempt: CreateInternetGateway has neither token nor name."""
        return self._live(
            aws.ec2_once.create_internet_gateway(
                TagSpecifications=aws.born_with(self.label, "internet-gateway")
            )["InternetGateway"]
        )

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live | None:
        """Attach it to the VPC."""
        vpc = references(self.vpc).id
        with absent("Resource.AlreadyAssociated"):
            aws.ec2.attach_internet_gateway(InternetGatewayId=live.id, VpcId=vpc)
            return replace(live, facts={"vpc": vpc})
        return None  # the next look says to which VPC: another run's, or ours

    def used_by(self, snapshot: Snapshot, live: Live) -> list[str]:
        """The VPC that it is attached to."""
        return [live.facts["vpc"]] if live.facts["vpc"] else []

    def delete(self, aws: Aws, live: Live) -> None:
        """Detach and delete it; EC2 refuses while a public address is mapped."""
        if live.facts["vpc"]:
            aws.ec2.detach_internet_gateway(InternetGatewayId=live.id, VpcId=live.facts["vpc"])
        aws.ec2.delete_internet_gateway(InternetGatewayId=live.id)


@frozen
class ElasticIp(Resource):
    """An Elastic IP address for a NAT gateway."""

    kind = "network/Address"
    step = "network"
    tag_type = "elastic-ip"
    gone_before = (InternetGateway,)  # DetachInternetGateway: DependencyViolation
    quota = CountedQuota(
        "quota-addresses",
        "ec2",
        "EC2-VPC Elastic IPs",
        lambda snapshot: len(snapshot.region(ADDRESSES)),
    )
    keep_group = "network"
    deleted_at_once = True
    identity = Identity.NONE

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """EC2 actions, limited to resources with the cluster's tag."""
        yield look("ec2", "DescribeAddresses")
        yield from network(
            cls, resolved, declared, create="AllocateAddress", delete=["ReleaseAddress"]
        )

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> ElasticIp:
        """Declare it with the fields that a delete needs."""
        return ElasticIp(found.label)

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by our tags; with several, also the VPC of the NAT gateway of each."""
        found = snapshot.ec2(ADDRESSES, self.label)
        nats = snapshot.signed(NAT_GATEWAYS) if len(found) > 1 else ()
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

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it in a single attempt: AllocateAddress has neither token nor name."""
        item = aws.ec2_once.allocate_address(
            Domain="vpc", TagSpecifications=aws.born_with(self.label, "elastic-ip")
        )
        return Live(item["AllocationId"], owner=aws.lineage, why=item["PublicIp"])

    def used_by(self, snapshot: Snapshot, live: Live) -> list[str]:
        """The interface of the NAT gateway that it is mapped to."""
        return [live.attributes["used_by"]] if live.attributes["used_by"] else []

    def prices(self, *, extended: bool) -> Iterator[Item]:
        """Its price per hour, used or not."""
        yield Item("public IPv4 address", 1, prices.PUBLIC_IPV4)

    def delete(self, aws: Aws, live: Live) -> None:
        """Release it; EC2 refuses while a NAT gateway uses it."""
        aws.ec2.release_address(AllocationId=live.id)


@frozen
class NatGateway(Resource):
    """The NAT gateway of the private subnets."""

    subnet: Subnet | None
    address: ElasticIp | None
    """None for a gateway that is not owned."""

    kind = "network/NatGateway"
    step = "network"
    tag_type = "natgateway"
    keep_group = "network"
    identity = Identity.REFUSED_TWICE
    patience = 15 * MINUTE
    usual = "2 min"
    typical = 105.0
    facts = answers = ("subnet",)
    immutable: ClassVar[Mapping[str, str]] = {"subnet": "a NAT gateway keeps its subnet"}

    @property
    def place(self) -> Vpc | None:
        """The VPC of its subnet."""
        return self.subnet.vpc if self.subnet else None

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """EC2 actions, limited to resources with the cluster's tag."""
        yield look("ec2", "DescribeNatGateways")
        yield from network(
            cls, resolved, declared, create="CreateNatGateway", delete=["DeleteNatGateway"]
        )

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> NatGateway:
        """Declare it with the fields that a delete needs."""
        return NatGateway(found.label, subnet=None, address=None)

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """NAT gateways with our tags that are not deleted: EC2 lists deleted ones for an hour."""
        ours = {"Name": "tag-key", "Values": [LINEAGE]}
        left = {"Name": "state", "Values": ["pending", "failed", "available", "deleting"]}
        alive: Json = {"Filter": [ours, left]}
        for page in aws.ec2.get_paginator("describe_nat_gateways").paginate(**alive):
            for nat in page["NatGateways"]:
                yield "natgateway", nat["NatGatewayId"], partial(list, nat["Tags"])

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by our tags, without deleted ones, which EC2 lists for an hour."""
        return [
            self._live(item)
            for item in snapshot.ec2(NAT_GATEWAYS, self.label)
            if item["State"] != "deleted"
        ]

    def _live(self, item: JsonMapping) -> Live:
        states = {"pending": State.BUSY, "deleting": State.LEAVING, "failed": State.FAILED}
        return Live(
            item["NatGatewayId"],
            owner=owner(item.get("Tags", ())),
            state=states.get(item["State"], State.READY),
            why=item.get("FailureMessage") or item["State"],
            facts={"subnet": item["SubnetId"]},
            attributes={"vpc": item.get("VpcId")},
        )

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; idempotent by client token."""
        assert self.subnet, "somebody's is never created"
        assert self.address
        return self._live(
            aws.ec2.create_nat_gateway(
                ClientToken=token,
                SubnetId=references(self.subnet).id,
                AllocationId=references(self.address).id,
                TagSpecifications=aws.born_with(self.label, "natgateway"),
            )["NatGateway"]
        )

    def used_by(self, snapshot: Snapshot, live: Live) -> list[str]:
        """The route tables that use it; a pending one counts as used: its run adds them later."""
        if live.state is not State.READY:
            return [] if live.state is State.FAILED else [live.why]
        tables = snapshot.region(ROUTE_TABLES, {"route.nat-gateway-id": [live.id]})
        return [f"route table {each['RouteTableId']}" for each in tables]

    def prices(self, *, extended: bool) -> Iterator[Item]:
        """Its price per hour, used or not."""
        yield Item("NAT gateway", 1, prices.NAT_GATEWAY)

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it, which takes about a minute and then frees its address."""
        aws.ec2.delete_nat_gateway(NatGatewayId=live.id)
