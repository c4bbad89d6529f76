"""VPCs and their secondary CIDR blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import NETWORK_INTERFACES, SUBNETS, VPCS
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import KnownCause
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import (
    Blocker,
    CountedQuota,
    Differs,
    Identity,
    Live,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.ec2 import blockers
from hyperpod_eks.resources.ec2.permissions import network
from hyperpod_eks.resources.permissions import Statement, Statements, actions, forgotten, look
from hyperpod_eks.resources.tagged import Tagged
from hyperpod_eks.workers import gather

ANYWHERE = "0.0.0.0/0"


BLOCKERS = actions(
    "ec2",
    "DescribeEgressOnlyInternetGateways",
    "DescribeInstanceConnectEndpoints",
    "DescribeNetworkAcls",
    "DescribeTransitGatewayVpcAttachments",
    "DescribeVpcPeeringConnections",
    "DescribeVpnGateways",
)


@frozen
class Vpc(Resource):
    """A VPC with DNS support and DNS hostnames, which private EKS endpoints require."""

    cidr: str
    dns: tuple[bool, bool] = (True, True)
    """Whether DNS support and DNS hostnames are on."""

    kind = "network/Vpc"
    step = "network"
    tag_type = "vpc"
    quota = CountedQuota(
        "quota-vpcs",
        "vpc",
        "VPCs per Region",
        lambda snapshot: len(snapshot.region(VPCS)),
    )
    keep_group = "network"
    deleted_at_once = True
    identity = Identity.NONE
    facts = ("cidr", "dns")
    answers = ("cidr",)
    later = ("dns",)
    immutable: ClassVar[Mapping[str, str]] = {
        "cidr": "a VPC keeps its first block (network.secondary_cidrs adds others)"
    }

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """EC2 actions, limited to resources with the cluster's tag."""
        yield look("ec2", "DescribeVpcAttribute", "DescribeVpcs")
        # lists the contents of a VPC that EC2 refuses to delete
        yield Statement("HoldersLook", BLOCKERS, command="delete")
        yield forgotten("ec2", "DescribeTags")
        yield from network(
            cls,
            resolved,
            declared,
            create="CreateVpc",
            change=["ModifyVpcAttribute"],
            delete=["DeleteVpc"],
        )

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Vpc:
        """Declare it with the fields that a delete needs."""
        return Vpc(found.label, cidr="")

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by our tags; each DNS setting takes a call."""
        lives = []
        for vpc in snapshot.ec2(VPCS, self.label):
            if snapshot.bare:
                lives.append(self._live(vpc, self.dns))
            else:
                lives.append(self._live(vpc, self._dns(snapshot.aws, vpc["VpcId"])))
        return lives

    def review(self, snapshot: Snapshot, live: Live, names: frozenset[str]) -> Sequence[Live]:
        """Read only the DNS settings."""
        if names != {"dns"}:
            return self.find(snapshot)
        facts = {**live.facts, "dns": self._dns(snapshot.aws, live.id)}
        return [replace(live, facts=facts, shown=names)]

    def _dns(self, aws: Aws, vpc: str) -> tuple[bool, bool]:
        ask = partial(aws.ec2.describe_vpc_attribute, VpcId=vpc)
        support, hostnames = gather(
            partial(ask, Attribute="enableDnsSupport"),
            partial(ask, Attribute="enableDnsHostnames"),
        )
        return (
            support.get("EnableDnsSupport", {}).get("Value"),
            hostnames.get("EnableDnsHostnames", {}).get("Value"),
        )

    def _live(self, vpc: JsonMapping, dns: tuple[bool, bool]) -> Live:
        return Live(
            vpc["VpcId"],
            owner=owner(vpc.get("Tags", ())),
            state=State.READY if vpc["State"] == "available" else State.BUSY,
            why=vpc["State"],
            facts={"cidr": vpc["CidrBlock"], "dns": dns},
        )

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it in a single attempt: CreateVpc has neither token nor name."""
        vpc = aws.ec2_once.create_vpc(
            CidrBlock=self.cidr, TagSpecifications=aws.born_with(self.label, "vpc")
        )["Vpc"]
        return self._live(vpc, (True, False))

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Set one attribute per call; DNS hostnames require DNS support."""
        support, hostnames = live.facts.get("dns", (False, False))
        if not support:
            aws.ec2.modify_vpc_attribute(VpcId=live.id, EnableDnsSupport={"Value": True})
        if not hostnames:
            aws.ec2.modify_vpc_attribute(VpcId=live.id, EnableDnsHostnames={"Value": True})
        return replace(live, facts={**live.facts, "dns": self.dns})

    def used_by(self, snapshot: Snapshot, live: Live) -> list[str]:
        """Its contents that would prevent its deletion."""
        return [each.words for each in self.blockers(snapshot, live)]

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it, with its default security group, network ACL and main route table."""
        aws.ec2.delete_vpc(VpcId=live.id)

    def blockers(self, snapshot: Snapshot, live: Live) -> list[Blocker]:
        """Everything that is in it."""
        others = blockers.of_vpc(snapshot, live.id)
        return [*interfaces(snapshot, "vpc-id", live.id), *map(Blocker, others)]


@frozen
class VpcCidr(Resource):
    """A secondary CIDR block that we add to the VPC, owned or not."""

    vpc: Vpc
    cidr: str

    kind = "network/VpcCidr"
    step = "network"
    keep_group = "network"
    signed = False  # a block has no tags

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """EC2 actions, limited to resources with the cluster's tag."""
        yield from network(
            cls, resolved, declared, change=["AssociateVpcCidrBlock", "DisassociateVpcCidrBlock"]
        )

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it in the VPC's description; it is owned if it contains a subnet of ours."""
        ours = any(
            each["CidrBlock"] == self.cidr and owner(each["Tags"]) == snapshot.aws.lineage
            for each in snapshot.signed(SUBNETS)
        )
        return [
            Live(
                each["AssociationId"],
                owner=snapshot.aws.lineage if ours else owner(vpc.get("Tags", ())),
                state=State.LEAVING
                if each["CidrBlockState"]["State"] == "disassociating"
                else State.READY
                if each["CidrBlockState"]["State"] == "associated"
                else State.BUSY,
                why=each["CidrBlockState"]["State"],
                attributes={"vpc": vpc["VpcId"]},
            )
            for vpc in snapshot.ec2(VPCS, self.vpc.label)
            for each in vpc.get("CidrBlockAssociationSet", ())
            if each["CidrBlock"] == self.cidr
            and each["CidrBlockState"]["State"] not in ("disassociated", "failed")
        ]

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Associate the block, which is possible once per VPC."""
        found = aws.ec2.associate_vpc_cidr_block(VpcId=references(self.vpc).id, CidrBlock=self.cidr)
        made = found["CidrBlockAssociation"]
        return Live(made["AssociationId"], owner=aws.lineage, state=State.BUSY, why="associating")

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Mark it as owned, without a call: until it has a subnet only the manifest knows."""
        return replace(live, owner=aws.lineage)

    def delete(self, aws: Aws, live: Live) -> None:
        """Disassociate it; EC2 refuses while a subnet is in it."""
        aws.ec2.disassociate_vpc_cidr_block(AssociationId=live.id)


def interfaces(snapshot: Snapshot, by: str, value: str) -> list[Blocker]:
    """Describe the interfaces of a VPC, subnet or group, with the commands to delete them."""
    found = snapshot.region(NETWORK_INTERFACES, {by: [value]})
    return [
        Blocker(
            f"interface {i['NetworkInterfaceId']} ({i.get('Description') or 'no description'}, "
            f"{i['Status']}, of {i.get('RequesterId') or i.get('OwnerId', 'this account')}): "
            f"aws ec2 delete-network-interface --network-interface-id {i['NetworkInterfaceId']}"
            f" --region {snapshot.aws.region}",
            KnownCause("held-by-interface", {"eni": i["NetworkInterfaceId"]}),
        )
        for i in found
    ]
