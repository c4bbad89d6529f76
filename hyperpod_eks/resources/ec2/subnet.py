"""Subnets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import SUBNETS
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner, tag
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.names import PRIVATE_SUBNET
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Differs, Facts, Identity, Live, References, Resource, State
from hyperpod_eks.resources.ec2.permissions import network
from hyperpod_eks.resources.ec2.vpc import Vpc, interfaces
from hyperpod_eks.resources.permissions import Statements, look
from hyperpod_eks.resources.tagged import Tagged


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
    tag_type = "subnet"
    keep_group = "network"
    absence: ClassVar[Facts] = {
        "tags": {},  # Subnet.tagSet: any tags assigned to it
    }
    deleted_at_once = True
    identity = Identity.REFUSED_TWICE
    facts = answers = ("vpc", "cidr", "zone", "tags")
    immutable: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("cidr", "zone"), "AWS moves no subnet; give it its block back"
    )

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    @property
    def cannot_delete(self) -> str:  # type: ignore[override]  # a property in place of a constant
        """The control plane keeps its subnets."""
        if self.label.startswith(PRIVATE_SUBNET):
            return (
                "a zone cannot be removed, for EKS keeps those that it was created with; name "
                "it again"
            )
        return ""

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """What the cluster's tag marks."""
        yield look("ec2", "DescribeAvailabilityZones", "DescribeSubnets")
        yield from network(cls, resolved, declared, create="CreateSubnet", delete=["DeleteSubnet"])

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Subnet:
        """What a delete must know."""
        return Subnet(found.label, vpc=vpc, cidr="", zone="")

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """By our tags."""
        return [self._live(x) for x in snapshot.ec2(SUBNETS, self.label)]

    def _live(self, item: JsonMapping) -> Live:
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

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """The CIDR is unique in the VPC, so that a second one is refused."""
        return self._live(
            aws.ec2.create_subnet(
                VpcId=references(self.vpc).id,
                CidrBlock=self.cidr,
                AvailabilityZoneId=self.zone,
                TagSpecifications=aws.born_with(self.label, "subnet", self.tags),
            )["Subnet"]
        )

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Put the tags on; tags that are no longer asked for stay."""
        tags: Json = [{"Key": key, "Value": value} for key, value in self.tags.items()]
        aws.ec2.create_tags(Resources=[live.id], Tags=tags)

    def delete(self, aws: Aws, live: Live) -> None:
        """Refused while an interface is in it."""
        aws.ec2.delete_subnet(SubnetId=live.id)

    def blockers(self, snapshot: Snapshot, live: Live) -> list[str]:
        """The interfaces in it."""
        return interfaces(snapshot, "subnet-id", live.id)
