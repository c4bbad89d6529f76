"""Networks of companies: without NAT, with strict security groups, with several blocks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hyperpod_eks.aws.errors import PATIENCE, ErrorKind
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.resolve.endpoints import CLOSED
from hyperpod_eks.resources.ec2.route_table import RouteTable
from hyperpod_eks.resources.ec2.vpc import Vpc

from .conftest import Owner

HEAD = "name: demo\nregion: us-west-2\n"


def ours(owner: Owner, method: str, key: str) -> list[Any]:
    tagged = [{"Name": "tag:hyperpod-eks:cluster", "Values": ["demo"]}]
    found: list[Any] = getattr(owner.aws.ec2, method)(Filters=tagged)[key]
    return found


def test_a_closed_network_has_no_way_out_and_every_endpoint(owner: Owner) -> None:
    text = owner.example("closed-network")
    iam: Any = owner.aws.iam
    somebody = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [somebody]})
    iam.create_role(RoleName="reader", Path="/team/", AssumeRolePolicyDocument=trust)
    before = owner.account()
    made = owner.declares(text)
    assert not {"CreateNatGateway", "CreateInternetGateway", "AllocateAddress"} & set(made)
    assert owner.declares(text) == []

    endpoints = ours(owner, "describe_vpc_endpoints", "VpcEndpoints")
    services = {each["ServiceName"].removeprefix("com.amazonaws.us-west-2.") for each in endpoints}
    assert services == {"s3", *CLOSED}
    private = {s["SubnetId"] for s in ours(owner, "describe_subnets", "Subnets")}
    for each in endpoints:
        assert "aws:PrincipalAccount" in each["PolicyDocument"]
        if each["VpcEndpointType"] == "Interface":
            assert set(each["SubnetIds"]) == private
            assert each["PrivateDnsEnabled"]
    groups = {g["GroupName"]: g for g in ours(owner, "describe_security_groups", "SecurityGroups")}
    door = groups["demo-endpoints-hyperpod-eks"]
    (rule,) = door["IpPermissions"]
    assert (rule["FromPort"], rule["IpRanges"][0]["CidrIp"]) == (443, "10.0.0.0/16")
    assert door["IpPermissionsEgress"] == []

    # strict: nodes may only call out by HTTPS, and admit only each other and the control plane
    nodes, control = groups["demo-hyperpod-eks"], groups["demo-control-plane-hyperpod-eks"]
    inward = {p["GroupId"] for r in nodes["IpPermissions"] for p in r["UserIdGroupPairs"]}
    assert inward == {nodes["GroupId"], control["GroupId"]}
    outward = [r for r in nodes["IpPermissionsEgress"] if r["IpRanges"]]
    assert [(r["IpProtocol"], r["FromPort"]) for r in outward] == [("tcp", 443)]
    config = owner.eks()["resourcesVpcConfig"]
    assert config["securityGroupIds"] == [control["GroupId"]]
    assert config["publicAccessCidrs"] == ["203.0.113.0/24"]
    assert owner.cluster()["VpcConfig"]["SecurityGroupIds"] == [nodes["GroupId"]]

    the_guards_are_up(owner)

    # one group for both, and back: the control plane's interfaces have the declared groups
    shared = text.replace("security_groups: strict", "")
    owner.declares(shared)
    assert owner.declares(shared) == []
    assert owner.eks()["resourcesVpcConfig"]["securityGroupIds"] == [nodes["GroupId"]]
    names = {g["GroupName"] for g in ours(owner, "describe_security_groups", "SecurityGroups")}
    assert "demo-control-plane-hyperpod-eks" not in names
    owner.declares(text)
    assert owner.declares(text) == []
    (again,) = owner.eks()["resourcesVpcConfig"]["securityGroupIds"]
    assert again not in (nodes["GroupId"], control["GroupId"])

    # the allowed addresses change and the endpoint policy is removed
    changed = text.replace("203.0.113.0/24", "198.51.100.0/24")
    a, b = changed.index("  endpoint_policy:"), changed.index("  subnet_tags:")
    owner.declares(changed[:a] + changed[b:], yes=True)  # exposes it to other addresses
    assert owner.declares(changed[:a] + changed[b:]) == []
    assert owner.eks()["resourcesVpcConfig"]["publicAccessCidrs"] == ["198.51.100.0/24"]
    for each in ours(owner, "describe_vpc_endpoints", "VpcEndpoints"):
        assert "Condition" not in json.loads(each["PolicyDocument"])["Statement"][0]
    assert owner.deletes(text) == []
    assert owner.account() == before


def the_guards_are_up(owner: Owner) -> None:
    """Check access policies, permissions boundaries and endpoint policies."""
    iam: Any = owner.aws.iam
    (reader,) = [
        arn
        for arn in owner.aws.eks.list_access_entries(clusterName="demo")["accessEntries"]
        if arn.endswith("/reader")
    ]
    (policy,) = owner.aws.eks.list_associated_access_policies(
        clusterName="demo", principalArn=reader
    )["associatedAccessPolicies"]
    assert policy["accessScope"] == {"type": "namespace", "namespaces": ["default"]}
    roles = [r for r in iam.list_roles(PathPrefix="/team/")["Roles"] if "demo" in r["RoleName"]]
    assert len(roles) == 2
    for role in roles:
        about = iam.get_role(RoleName=role["RoleName"])["Role"]
        assert about["PermissionsBoundary"]["PermissionsBoundaryArn"].endswith("PowerUserAccess")
    subnet = ours(owner, "describe_subnets", "Subnets")[0]
    assert {"Key": "kubernetes.io/role/internal-elb", "Value": "1"} in subnet["Tags"]


@pytest.mark.prove
def test_nat_gateways_come_and_go_with_their_addresses_and_routes(owner: Owner) -> None:
    one = HEAD + "network: {nat: single}\n"
    owner.declares(one)
    owner.declares(one.replace("single", "per-az"))
    assert owner.declares(one.replace("single", "per-az")) == []
    assert len(ours(owner, "describe_addresses", "Addresses")) == 2
    ways = {
        a["SubnetId"]: route["NatGatewayId"]
        for table in ours(owner, "describe_route_tables", "RouteTables")
        for route in table["Routes"]
        if route.get("NatGatewayId")
        for a in table["Associations"]
    }
    assert len(set(ways.values())) == len(ways) == 2
    owner.declares(one)
    assert owner.declares(one) == []
    assert len(ours(owner, "describe_addresses", "Addresses")) == 1
    owner.declares(one.replace("single", "none"))
    assert owner.declares(one.replace("single", "none")) == []
    assert ours(owner, "describe_internet_gateways", "InternetGateways") == []
    assert owner.deletes(one) == []
    assert owner.account() == owner.before


def test_a_default_route_to_a_transit_gateway_is_kept(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PATIENCE, ErrorKind.EXISTS, 1.0)
    owner.declares(HEAD)
    ec2: Any = owner.aws.ec2
    gateway = ec2.create_transit_gateway()["TransitGateway"]["TransitGatewayId"]
    (table,) = [
        each["RouteTableId"]
        for each in ours(owner, "describe_route_tables", "RouteTables")
        if any(route.get("NatGatewayId") for route in each["Routes"])
    ]
    way = {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"}
    ec2.replace_route(**way, TransitGatewayId=gateway)

    with pytest.raises(HyperpodError, match="RouteAlreadyExists"):
        owner.declares(HEAD)
    (found,) = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"]
    assert gateway in [route.get("TransitGatewayId") for route in found["Routes"]]


def test_a_default_route_that_is_propagated_does_not_hide_ours() -> None:
    routes = [
        {"GatewayId": "vgw-1", "Origin": "EnableVgwRoutePropagation"},
        {"NatGatewayId": "nat-1", "Origin": "CreateRoute"},
    ]
    described: Any = {
        "RouteTableId": "rtb-1",
        "VpcId": "vpc-1",
        "Routes": [{"DestinationCidrBlock": "0.0.0.0/0", **route} for route in routes],
    }
    table = RouteTable("private", vpc=Vpc("vpc", cidr="10.0.0.0/16"), target=None, subnets=())
    assert table._live(described).facts["target"] == "nat-1"


@pytest.mark.prove
def test_storage_ports_open_and_close(owner: Owner) -> None:
    owner.declares(HEAD + "network: {storage_ports: true}\n")

    def ports() -> set[int]:
        (group,) = ours(owner, "describe_security_groups", "SecurityGroups")
        return {r["FromPort"] for r in group["IpPermissions"] if r["IpProtocol"] == "tcp"}

    assert ports() == {988, 1018}
    owner.declares(HEAD)
    assert ports() == set()


def test_subnets_may_have_a_tag_of_their_own_value(owner: Owner) -> None:
    """EC2 refuses duplicate tag keys (CreateSubnet, "Duplicate tag key").

    An endpoint keeps AWS's default policy if none is declared.
    """
    sent: list[dict[str, Any]] = []

    def hear(params: dict[str, Any], **_: object) -> None:
        sent.append(params)

    owner.aws.session.get_component("event_emitter").register(
        "provide-client-params.ec2.CreateSubnet", hear
    )
    text = HEAD + "tags: {team: a, tier: b}\n"
    text += "network: {subnet_tags: {team: c}, interface_endpoints: [sts]}\n"
    assert "ModifyVpcEndpoint" not in owner.declares(text)
    keys = [tag["Key"] for tag in sent[0]["TagSpecifications"][0]["Tags"]]
    assert sorted(set(keys)) == sorted(keys)
    assert owner.declares(text) == []
    there = ours(owner, "describe_subnets", "Subnets")
    assert sum({"Key": "team", "Value": "c"} in each["Tags"] for each in there) == 2


@pytest.mark.prove
def test_a_create_after_half_a_delete_gives_each_subnet_its_block_again(owner: Owner) -> None:
    ec2: Any = owner.aws.ec2
    owner.declares(HEAD)
    (vpc,) = ours(owner, "describe_vpcs", "Vpcs")
    blocks = {s["CidrBlock"]: s for s in ours(owner, "describe_subnets", "Subnets")}
    second = blocks["10.0.64.0/18"]
    assert owner.deletes(HEAD) == []

    def tagged(kind: str, tags: list[Any]) -> list[Any]:
        return [{"ResourceType": kind, "Tags": tags}]

    # the delete was killed when only these two existed
    again = ec2.create_vpc(
        CidrBlock=vpc["CidrBlock"], TagSpecifications=tagged("vpc", vpc["Tags"])
    )["Vpc"]["VpcId"]
    ec2.create_subnet(
        VpcId=again,
        CidrBlock=second["CidrBlock"],
        AvailabilityZoneId=second["AvailabilityZoneId"],
        TagSpecifications=tagged("subnet", second["Tags"]),
    )
    owner.declares(HEAD)
    assert owner.declares(HEAD) == []
    now = {s["CidrBlock"]: s for s in ours(owner, "describe_subnets", "Subnets")}
    assert {c: s["AvailabilityZoneId"] for c, s in now.items()} == {
        c: s["AvailabilityZoneId"] for c, s in blocks.items()
    }
    assert owner.deletes(HEAD) == []
