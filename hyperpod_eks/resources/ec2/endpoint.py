"""VPC endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from hyperpod_eks.aws import prices
from hyperpod_eks.aws.answers import policy as policy_of
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import VPC_ENDPOINTS
from hyperpod_eks.aws.failures import raise_first
from hyperpod_eks.aws.prices import Item
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import (
    Differs,
    Fact,
    Identity,
    Live,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.ec2.permissions import network
from hyperpod_eks.resources.ec2.route_table import RouteTable
from hyperpod_eks.resources.ec2.security_group import SecurityGroup
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.permissions import Statement, Statements, actions, look
from hyperpod_eks.resources.tagged import Tagged

ALLOW_ALL = {
    "Version": "2008-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}],
}
"""AWS's default policy of an endpoint."""


@frozen
class VpcEndpoint(Resource):
    """A VPC endpoint of a service: a gateway on route tables, or interfaces in subnets.

    With S3's gateway endpoint, nodes read lifecycle scripts without the NAT gateway.
    """

    vpc: Vpc
    service: str
    route_tables: tuple[RouteTable, ...] = ()
    """Only of a gateway endpoint."""
    subnets: tuple[Subnet, ...] = ()
    """Only of an interface endpoint."""
    security_groups: tuple[SecurityGroup, ...] = ()
    policy: str = ""
    """JSON; empty for AWS's default, which allows everything."""

    kind = "network/Endpoint"
    step = "network"
    tag_type = "vpc-endpoint"
    keep_group = "network"
    identity = Identity.REFUSED_TWICE
    facts = answers = ("vpc", "service", "route_tables", "subnets", "security_groups", "policy")
    attached = ("route_tables", "subnets", "security_groups")

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    def create_names(self) -> Iterator[Resource]:
        """Route tables and security groups, whatever their routes and rules."""
        yield from (*self.route_tables, *self.security_groups)

    @property
    def deleted_at_once(self) -> bool:  # type: ignore[override]  # a property, not a constant
        """True for a gateway, which is only a route; the deletion of interfaces takes time."""
        return not self.subnets

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """EC2 actions, limited to resources with the cluster's tag."""
        yield look("ec2", "DescribeVpcEndpoints")
        yield from network(
            cls,
            resolved,
            declared,
            create="CreateVpcEndpoint",
            change=["ModifyVpcEndpoint"],
            delete=["DeleteVpcEndpoints"],
        )
        if any(isinstance(one, cls) and one.subnets for one in declared):
            zones = (f"arn:{resolved.identity.partition}:route53:::hostedzone/*",)
            named = ("route53:AssociateVPCWithHostedZone",)  # CreateVpcEndpoint with private DNS
            yield Statement("EndpointNames", named, zones)
            yield Statement("EndpointsLook", actions("ec2", "DescribeVpcEndpointServices"))

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> VpcEndpoint:
        """Declare it with the fields that a delete needs."""
        return VpcEndpoint(found.label, vpc=vpc, service="")

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by our tags."""
        return [
            self._live(item)
            for item in snapshot.ec2(VPC_ENDPOINTS, self.label)
            if item["State"].lower() != "deleted"
        ]

    def _live(self, item: JsonMapping) -> Live:
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

    def expected(self, name: str, references: References) -> Fact:
        """Route tables, subnets and groups are sets."""
        value = super().expected(name, references)
        return frozenset(value) if isinstance(value, tuple) else value

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; idempotent by client token."""
        kind: JsonObject = {
            "VpcEndpointType": "Gateway",
            "RouteTableIds": sorted(self.expected("route_tables", references)),
        }
        if self.subnets:
            kind = {
                "VpcEndpointType": "Interface",
                "PrivateDnsEnabled": True,
                "SubnetIds": sorted(self.expected("subnets", references)),
                "SecurityGroupIds": sorted(self.expected("security_groups", references)),
            }
        if self.policy:
            kind["PolicyDocument"] = self.policy
        return self._live(
            aws.ec2.create_vpc_endpoint(
                ClientToken=token,
                VpcId=references(self.vpc).id,
                ServiceName=self.service,
                TagSpecifications=aws.born_with(self.label, "vpc-endpoint"),
                **kind,
            )["VpcEndpoint"]
        )

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Add and remove route tables, subnets and groups, and set the policy."""
        change: JsonObject = {}
        for name, member in (
            ("route_tables", "RouteTableIds"),
            ("subnets", "SubnetIds"),
            ("security_groups", "SecurityGroupIds"),
        ):
            wanted = self.expected(name, references)
            change[f"Add{member}"] = sorted(wanted - live.facts[name])
            change[f"Remove{member}"] = sorted(live.facts[name] - wanted)
        if live.facts["policy"] != self.policy:
            change["PolicyDocument"] = self.policy or json.dumps(ALLOW_ALL)
        aws.ec2.modify_vpc_endpoint(VpcEndpointId=live.id, **{k: v for k, v in change.items() if v})

    def prices(self, *, extended: bool) -> Iterator[Item]:
        """An interface endpoint per zone; gateways are free."""
        yield Item("interface endpoint in a zone", len(self.subnets), prices.INTERFACE_ENDPOINT)

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it and its routes; raise the errors that the call lists with status 200."""
        answer = aws.ec2.delete_vpc_endpoints(VpcEndpointIds=[live.id])
        refused = [each["Error"] for each in answer.get("Unsuccessful", ())]
        raise_first("ec2", "DeleteVpcEndpoints", refused)


def _policy(document: str | None) -> str:
    """Return a policy in a canonical form; "" for AWS's default."""
    found = policy_of(document or "{}")
    # an interface's default has no version (PrivateLink guide, "Default endpoint policy")
    default = found.get("Statement", ALLOW_ALL["Statement"]) == ALLOW_ALL["Statement"]
    return "" if default else json.dumps(found, sort_keys=True)
