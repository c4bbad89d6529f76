"""EC2 route tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import ROUTE_TABLES
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Differs, Fact, Facts, Identity, Live, References, Resource
from hyperpod_eks.resources.ec2.gateways import InternetGateway, NatGateway
from hyperpod_eks.resources.ec2.permissions import network
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import ANYWHERE, Vpc
from hyperpod_eks.resources.permissions import Statements, look
from hyperpod_eks.resources.tagged import Tagged
from hyperpod_eks.workers import gather

ROUTES = (
    "AssociateRouteTable",
    "CreateRoute",
    "DeleteRoute",
    "DisassociateRouteTable",
    "ReplaceRoute",
    "ReplaceRouteTableAssociation",
)
"""Actions that change a route table."""


@frozen
class RouteTable(Resource):
    """A route table with a default route through a gateway, and the subnets that use it."""

    vpc: Vpc
    target: InternetGateway | NatGateway | None
    subnets: tuple[Subnet, ...]

    kind = "network/RouteTable"
    step = "network"
    tag_type = "route-table"
    keep_group = "network"
    absence: ClassVar[Facts] = {
        "target": None,  # RouteTable.routeSet: all routes of the table
        "subnets": frozenset(),  # RouteTable.associationSet
    }
    deleted_at_once = True
    identity = Identity.REFUSED_TWICE
    facts = ("vpc", "target", "subnets")
    answers = ("vpc",)
    later = ("target", "subnets")
    attached = later

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    def create_requires(self) -> Iterator[Resource]:
        """None: ``update`` sets route and subnets."""
        yield from ()

    def create_names(self) -> Iterator[Resource]:
        """Its VPC, whatever its DNS settings."""
        yield self.vpc

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """EC2 actions, limited to resources with the cluster's tag."""
        yield look("ec2", "DescribeRouteTables")
        yield from network(
            cls,
            resolved,
            declared,
            create="CreateRouteTable",
            change=ROUTES,
            delete=["DeleteRouteTable"],
        )

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> RouteTable:
        """Declare it with the fields that a delete needs."""
        return RouteTable(found.label, vpc=vpc, target=None, subnets=())

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by our tags."""
        items = snapshot.ec2(ROUTE_TABLES, self.label)
        return [self._live(item) for item in items]

    def _live(self, item: JsonMapping) -> Live:
        ways = [
            route.get("GatewayId") or route.get("NatGatewayId") for route in _default_routes(item)
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

    def expected(self, name: str, references: References) -> Fact:
        """Subnets are a set."""
        value = super().expected(name, references)
        return frozenset(value) if name == "subnets" else value

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; idempotent by client token."""
        return self._live(
            aws.ec2.create_route_table(
                ClientToken=token,
                VpcId=references(self.vpc).id,
                TagSpecifications=aws.born_with(self.label, "route-table"),
            )["RouteTable"]
        )

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Set the default route and associate the subnets.

        A subnet of another table is moved by one call, so that it always has a route table.
        """
        ec2, there = aws.ec2, live.facts["target"]
        target = references(self.target).id if self.target else None
        route: JsonObject = {"RouteTableId": live.id, "DestinationCidrBlock": ANYWHERE}
        over = "GatewayId" if isinstance(self.target, InternetGateway) else "NatGatewayId"
        way = route | {over: target}
        calls: list[Callable[[], object]] = []
        if target is None and there is not None:
            calls.append(partial(_delete_route, aws, route))
        elif target is not None and there is None:
            calls.append(partial(_create_route, aws, way, target))
        elif there != target:
            calls.append(partial(ec2.replace_route, **way))
        wanted = self.expected("subnets", references)
        new = sorted(wanted - live.facts["subnets"])
        calls += [partial(_associate, aws, live.id, subnet) for subnet in new]
        gather(*calls)
        return replace(live, facts={**live.facts, "target": target, "subnets": wanted})

    def used_by(self, snapshot: Snapshot, live: Live) -> list[str]:
        """The subnets that use it."""
        return sorted(live.attributes["associations"])

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it after its associations, since EC2 refuses a table in use."""
        off = aws.ec2.disassociate_route_table
        gather(*(partial(off, AssociationId=x) for x in live.attributes["associations"].values()))
        aws.ec2.delete_route_table(RouteTableId=live.id)


def _create_route(aws: Aws, way: JsonObject, target: str) -> None:
    """Create the default route, unless EC2 already has it and had not described it before.

    Raises ClientError, as CreateRoute does, for a default route to something else.
    """
    from hyperpod_eks.aws.exceptions import ClientError  # noqa: PLC0415

    try:
        aws.ec2.create_route(**way)
    except ClientError as error:
        if error.response["Error"]["Code"] != "RouteAlreadyExists":
            raise
        (table,) = aws.ec2.describe_route_tables(RouteTableIds=[way["RouteTableId"]])["RouteTables"]
        if not any(target in each.values() for each in _default_routes(table)):
            raise


def _default_routes(table: JsonMapping) -> list[JsonMapping]:
    """Return the default routes that somebody has created: a virtual gateway propagates others.

    A table can have one of each (Amazon VPC User Guide, "Route priority").
    """
    return [
        each
        for each in table.get("Routes", ())
        if each.get("DestinationCidrBlock") == ANYWHERE
        and each.get("Origin") != "EnableVgwRoutePropagation"
    ]


def _delete_route(aws: Aws, route: JsonObject) -> None:
    with absent("InvalidRoute.NotFound"):
        aws.ec2.delete_route(**route)


def _associate(aws: Aws, table: str, subnet: str) -> None:
    """Associate a subnet with a route table, or move it from another one."""
    with absent("Resource.AlreadyAssociated"):
        aws.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
        return
    there: Json = [{"Name": "association.subnet-id", "Values": [subnet]}]
    for other in aws.ec2.describe_route_tables(Filters=there)["RouteTables"]:
        for each in other["Associations"]:
            if each.get("SubnetId") == subnet and other["RouteTableId"] != table:
                aws.ec2.replace_route_table_association(
                    AssociationId=each["RouteTableAssociationId"], RouteTableId=table
                )
