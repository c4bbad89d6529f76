"""EC2 subnets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from hyperpod_eks.resources.base import (
    Blocker,
    Differs,
    Facts,
    Identity,
    Live,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.ec2.permissions import network
from hyperpod_eks.resources.ec2.vpc import Vpc, interfaces
from hyperpod_eks.resources.permissions import Statements, look
from hyperpod_eks.resources.tagged import Tagged


@frozen
class Subnet(Resource):
    """A subnet in one zone; its route table makes it private or public."""

    vpc: Vpc
    cidr: str
    zone: str
    """Availability zone id; zone names differ between accounts, ids do not."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Further tags, from the user."""

    kind = "network/Subnet"
    step = "network"
    tag_type = "subnet"
    keep_group = "network"
    absence: ClassVar[Facts] = {
        "tags": {},  # Subnet.tagSet: all tags of the subnet
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

    def create_names(self) -> Iterator[Resource]:
        """Its VPC, whatever its DNS settings."""
        yield self.vpc

    @property
    def cannot_delete(self) -> str:  # type: ignore[override]  # a property, not a constant
        """For private subnets the reason: EKS keeps the subnets of its control plane."""
        if self.label.startswith(PRIVATE_SUBNET):
            return (
                "a zone cannot be removed, for EKS keeps those that it was created with; name "
                "it again"
            )
        return ""

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """EC2 actions, limited to resources with the cluster's tag."""
        yield look("ec2", "DescribeAvailabilityZones", "DescribeSubnets")
        yield from network(cls, resolved, declared, create="CreateSubnet", delete=["DeleteSubnet"])

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Subnet:
        """Declare it with the fields that a delete needs."""
        return Subnet(found.label, vpc=vpc, cidr="", zone="")

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by our tags."""
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
        """Create it; EC2 refuses a second one with the same CIDR block in the VPC."""
        return self._live(
            aws.ec2.create_subnet(
                VpcId=references(self.vpc).id,
                CidrBlock=self.cidr,
                AvailabilityZoneId=self.zone,
                TagSpecifications=aws.born_with(self.label, "subnet", self.tags),
            )["Subnet"]
        )

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Set the user's tags; tags that are no longer declared stay."""
        tags: Json = [{"Key": key, "Value": value} for key, value in self.tags.items()]
        aws.ec2.create_tags(Resources=[live.id], Tags=tags)

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it; EC2 refuses while an interface is in it."""
        aws.ec2.delete_subnet(SubnetId=live.id)

    def blockers(self, snapshot: Snapshot, live: Live) -> list[Blocker]:
        """The interfaces in it."""
        return interfaces(snapshot, "subnet-id", live.id)
