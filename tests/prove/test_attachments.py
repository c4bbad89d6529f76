"""What somebody detaches after a kill, before AWS has described it, is attached again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hyperpod_eks.aws.client import Identity
from hyperpod_eks.aws.tags import LINEAGE
from hyperpod_eks.local.aws.sim import ACCOUNT
from hyperpod_eks.resolve.names import lineage
from hyperpod_eks.resources.base import KINDS, Facts, Live, Resource
from hyperpod_eks.resources.ec2.gateways import InternetGateway
from hyperpod_eks.resources.ec2.route_table import RouteTable
from hyperpod_eks.resources.ec2.security_group import SecurityGroup
from hyperpod_eks.resources.ec2.vpc import ANYWHERE
from hyperpod_eks.resources.iam import Role

from . import oracles
from .host import NAME, REGION, Boundary, Host
from .prover import TWO_NODES, Prover

OURS: Any = [
    {
        "Name": f"tag:{LINEAGE}",
        "Values": [lineage(Identity("", ACCOUNT, "aws", REGION), NAME)],
    }
]


def policies(host: Host) -> None:
    iam = host.session.somebody("iam")
    for name in (f"{NAME}-eks-{REGION}", f"{NAME}-hyperpod-{REGION}"):
        for each in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=name, PolicyArn=each["PolicyArn"])


def gateway(host: Host) -> None:
    ec2 = host.session.somebody("ec2")
    (found,) = ec2.describe_internet_gateways(Filters=OURS)["InternetGateways"]
    ec2.detach_internet_gateway(
        InternetGatewayId=found["InternetGatewayId"], VpcId=found["Attachments"][0]["VpcId"]
    )


def routes(host: Host) -> None:
    ec2 = host.session.somebody("ec2")
    for table in ec2.describe_route_tables(Filters=OURS)["RouteTables"]:
        ec2.delete_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock=ANYWHERE)
        for each in table["Associations"]:
            ec2.disassociate_route_table(AssociationId=each["RouteTableAssociationId"])


def rules(host: Host) -> None:
    ec2 = host.session.somebody("ec2")
    for group in ec2.describe_security_groups(Filters=OURS)["SecurityGroups"]:
        its = {"GroupId": group["GroupId"]}
        ec2.revoke_security_group_ingress(**its, IpPermissions=group["IpPermissions"])
        ec2.revoke_security_group_egress(**its, IpPermissions=group["IpPermissionsEgress"])


def one_of_two_rules(host: Host) -> None:
    ec2 = host.session.somebody("ec2")
    (group,) = ec2.describe_security_groups(Filters=OURS)["SecurityGroups"]
    inside: Any = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group["GroupId"]}]}
    ec2.revoke_security_group_egress(GroupId=group["GroupId"], IpPermissions=[inside])


@pytest.mark.parametrize(
    ("before", "meddlers"),
    [
        # while a NAT gateway has an address, EC2 refuses to detach the internet gateway
        ("ec2:CreateNatGateway", (gateway,)),
        ("eks:CreateCluster", (policies, rules)),
        ("sagemaker:CreateCluster", (policies, routes)),
    ],
)
def test_what_is_detached_before_it_was_described_is_attached_again(
    prover: Prover, before: str, meddlers: Any
) -> None:
    host = prover.host
    prover.begin()
    assert host.run("create", fuse=Boundary("before", before), config=TWO_NODES).dead
    for meddle in meddlers:
        meddle(host)
    prover.finish("create", TWO_NODES)
    oracles.same_shape(host, prover.made)
    prover.quiet(TWO_NODES)


NEW: Mapping[type[Resource], Facts] = {
    Role: {"policies": frozenset()},
    InternetGateway: {"vpc": None},
    RouteTable: {"target": None, "subnets": frozenset()},
    SecurityGroup: {"ingress": frozenset(), "egress": frozenset()},
}
"""The facts as if nothing had been attached yet."""


def late(patch: pytest.MonkeyPatch, host: Host, seconds: float) -> None:
    """Describe nothing as attached for some seconds."""
    now = host.stack.clock.now
    until = now() + timedelta(seconds=seconds)

    def old(kind: type[Resource], real: Callable[..., list[Live]]) -> Callable[..., list[Live]]:
        def described(*about: Any) -> list[Live]:
            lives = real(*about)
            if now() >= until:
                return lives
            return [replace(x, facts={**x.facts, **NEW[kind]}) if x.facts else x for x in lives]

        return described

    for kind in NEW:
        for way in ("find", "review"):
            patch.setattr(kind, way, old(kind, getattr(kind, way)))


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("seconds", [20, 150])
def test_what_is_attached_and_described_late_is_no_error(
    prover: Prover, monkeypatch: pytest.MonkeyPatch, seconds: float, *, killed: bool
) -> None:
    host = prover.host
    prover.begin()
    if killed:
        host.run("create", fuse=Boundary("before", "sagemaker:CreateCluster"), config=TWO_NODES)
        one_of_two_rules(host)
    late(monkeypatch, host, seconds)
    prover.finish("create", TWO_NODES)
    monkeypatch.undo()
    oracles.same_shape(host, prover.made)
    prover.finish("create", TWO_NODES)
    prover.quiet(TWO_NODES)


def test_what_is_sent_again_asks_for_no_consent_and_is_no_refusal() -> None:
    """A description that is older than the last update would ask or refuse without a cause."""
    kinds = [kind for kind in {*KINDS.values()} if kind.attached]
    assert {*NEW} <= {*kinds}
    for kind in kinds:
        assert {*kind.attached} <= {*kind.facts}, kind
        assert not {*kind.attached} & {*kind.guards, *kind.asks, *kind.immutable}, kind


def test_what_somebody_attaches_while_a_create_runs_stays(prover: Prover) -> None:
    host = prover.host
    prover.begin()
    assert host.run(
        "create", fuse=Boundary("before", "sagemaker:CreateCluster"), config=TWO_NODES
    ).dead
    iam, ec2 = host.session.somebody("iam"), host.session.somebody("ec2")
    role, extra = f"{NAME}-eks-{REGION}", "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
    iam.attach_role_policy(RoleName=role, PolicyArn=extra)
    (table, *_) = ec2.describe_route_tables(Filters=OURS)["RouteTables"]
    subnet = ec2.create_subnet(VpcId=table["VpcId"], CidrBlock="10.0.255.0/28")["Subnet"][
        "SubnetId"
    ]
    ec2.associate_route_table(RouteTableId=table["RouteTableId"], SubnetId=subnet)

    for _ in range(2):
        prover.finish("create", TWO_NODES)
        attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        assert extra in [each["PolicyArn"] for each in attached]
        (table,) = ec2.describe_route_tables(RouteTableIds=[table["RouteTableId"]])["RouteTables"]
        assert subnet in [each.get("SubnetId") for each in table["Associations"]]
