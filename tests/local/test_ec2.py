from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.ec2.models import ec2_backends

from hyperpod_eks.local.aws.ec2 import Backend
from hyperpod_eks.local.aws.sim import ACCOUNT, Fault
from hyperpod_eks.local.stack import Stack
from tests.conftest import REGION, Clients


@contextmanager
def refused(code: str, text: str = "") -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code
    assert text in error["Message"]


class Net:
    """A VPC with a public subnet, in which a NAT gateway can be created."""

    def __init__(self, ec2: Any) -> None:
        self.ec2 = ec2
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.add_subnet("10.0.0.0/24")
        self.igw = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=self.igw, VpcId=self.vpc)
        self.eip = ec2.allocate_address(Domain="vpc")["AllocationId"]

    def add_subnet(self, cidr: str) -> str:
        zone = f"{REGION}a"  # else any
        subnet = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=cidr, AvailabilityZone=zone)[
            "Subnet"
        ]
        return str(subnet["SubnetId"])

    def add_nat(self, **parameters: Any) -> str:
        asked = {"SubnetId": self.subnet, "AllocationId": self.eip, **parameters}
        return str(self.ec2.create_nat_gateway(**asked)["NatGateway"]["NatGatewayId"])

    def add_group(self, name: str) -> str:
        asked = {"VpcId": self.vpc, "GroupName": name, "Description": "d"}
        return str(self.ec2.create_security_group(**asked)["GroupId"])

    def nat(self, nat_id: str) -> Any:
        (nat,) = self.ec2.describe_nat_gateways(NatGatewayIds=[nat_id])["NatGateways"]
        return nat


@pytest.fixture
def net(aws: Clients) -> Net:
    return Net(aws.ec2)


@pytest.fixture
def backend(stack: Stack) -> Backend:
    found = ec2_backends[ACCOUNT][REGION]
    assert isinstance(found, Backend)
    return found


# -- what is in use stays ------------------------------------------------------------------------


def test_a_nat_gateway_holds_its_network(net: Net) -> None:
    ec2, nat = net.ec2, net.add_nat()
    with refused("DependencyViolation", f"The subnet '{net.subnet}' has dependencies"):
        ec2.delete_subnet(SubnetId=net.subnet)
    with refused("AuthFailure", "You do not have permission"):
        ec2.release_address(AllocationId=net.eip)
    with refused("DependencyViolation", "mapped public address(es)"):
        ec2.detach_internet_gateway(InternetGatewayId=net.igw, VpcId=net.vpc)
    ec2.delete_nat_gateway(NatGatewayId=nat)
    ec2.release_address(AllocationId=net.eip)
    ec2.detach_internet_gateway(InternetGatewayId=net.igw, VpcId=net.vpc)
    ec2.delete_subnet(SubnetId=net.subnet)


def test_a_group_stays_while_another_names_it_or_an_interface_wears_it(
    net: Net, backend: Backend
) -> None:
    ec2, one, two = net.ec2, net.add_group("one"), net.add_group("two")
    rule = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": one}]}]
    ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=rule)  # blocks nothing
    ec2.authorize_security_group_ingress(GroupId=two, IpPermissions=rule)
    with refused("DependencyViolation", f"resource {one} has a dependent object"):
        ec2.delete_security_group(GroupId=one)
    ec2.revoke_security_group_ingress(GroupId=two, IpPermissions=rule)
    eni = backend.add_service_eni(net.subnet, [one], "Amazon EKS c", "amazon-eks")
    with refused("DependencyViolation", f"resource {one} has a dependent object"):
        ec2.delete_security_group(GroupId=one)
    backend.remove_service_eni(eni.id)
    ec2.delete_security_group(GroupId=one)


def test_defaults_are_not_for_the_user_to_delete(net: Net) -> None:
    ec2, mine = net.ec2, [{"Name": "vpc-id", "Values": [net.vpc]}]
    (group,) = ec2.describe_security_groups(Filters=mine)["SecurityGroups"]
    (table,) = ec2.describe_route_tables(Filters=mine)["RouteTables"]
    with refused("CannotDelete"):
        ec2.delete_security_group(GroupId=group["GroupId"])
    with refused("DependencyViolation"):
        ec2.delete_route_table(RouteTableId=table["RouteTableId"])


def test_a_vpc_stays_while_anything_is_in_it(aws: Clients) -> None:
    ec2 = aws.ec2
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]

    def group() -> Callable[[], Any]:
        made = ec2.create_security_group(VpcId=vpc, GroupName="g", Description="d")["GroupId"]
        return lambda: ec2.delete_security_group(GroupId=made)

    def igw() -> Callable[[], Any]:
        made = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=made, VpcId=vpc)
        return lambda: ec2.detach_internet_gateway(InternetGatewayId=made, VpcId=vpc)

    def endpoint() -> Callable[[], Any]:
        service = f"com.amazonaws.{REGION}.s3"
        made = ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=service)["VpcEndpoint"]
        return lambda: ec2.delete_vpc_endpoints(VpcEndpointIds=[made["VpcEndpointId"]])

    def table() -> Callable[[], Any]:
        made = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        return lambda: ec2.delete_route_table(RouteTableId=made)

    def subnet() -> Callable[[], Any]:
        made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        return lambda: ec2.delete_subnet(SubnetId=made)

    for make in (group, igw, endpoint, table, subnet):
        remove = make()
        with refused("DependencyViolation", f"The vpc '{vpc}' has dependencies"):
            ec2.delete_vpc(VpcId=vpc)
        remove()
    ec2.delete_vpc(VpcId=vpc)
    with refused("InvalidVpcID.NotFound"):
        ec2.delete_vpc(VpcId=vpc)


def test_deleting_a_subnet_ends_its_associations(net: Net) -> None:
    ec2, table = net.ec2, net.ec2.create_route_table(VpcId=net.vpc)["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=net.subnet)
    with refused("DependencyViolation"):
        ec2.delete_route_table(RouteTableId=table)
    ec2.delete_subnet(SubnetId=net.subnet)
    ec2.delete_route_table(RouteTableId=table)


def test_tags_go_with_what_they_were_on(net: Net) -> None:
    ec2 = net.ec2
    ec2.create_tags(Resources=[net.subnet, net.vpc], Tags=[{"Key": "a", "Value": "b"}])
    ec2.delete_subnet(SubnetId=net.subnet)
    assert [tag["ResourceId"] for tag in ec2.describe_tags()["Tags"]] == [net.vpc]


# -- interfaces of services ----------------------------------------------------------------------


def test_the_interface_of_a_service_is_its_own_and_lingers(
    stack: Stack, net: Net, backend: Backend
) -> None:
    stack.sim.delays = replace(stack.sim.delays, eni_linger=60)
    group = net.add_group("g")
    eni = backend.add_service_eni(net.subnet, [group], "Amazon EKS c", "amazon-eks").id
    (seen,) = net.ec2.describe_network_interfaces(
        Filters=[{"Name": "subnet-id", "Values": [net.subnet]}]
    )["NetworkInterfaces"]
    assert (seen["Description"], seen["RequesterManaged"]) == ("Amazon EKS c", True)
    assert (seen["Status"], seen["Groups"][0]["GroupId"]) == ("in-use", group)
    with refused("OperationNotPermitted"):
        net.ec2.delete_network_interface(NetworkInterfaceId=eni)
    backend.remove_service_eni(eni)
    stack.clock.advance(59)
    with refused("DependencyViolation"):
        net.ec2.delete_subnet(SubnetId=net.subnet)
    stack.clock.advance(1)
    net.ec2.delete_subnet(SubnetId=net.subnet)


# -- NAT gateways --------------------------------------------------------------------------------


def test_a_nat_gateway_takes_its_time(stack: Stack, net: Net) -> None:
    stack.sim.delays = replace(stack.sim.delays, nat_create=105, nat_delete=58)
    nat = net.add_nat()
    assert net.nat(nat)["State"] == "pending"
    stack.clock.advance(105)
    assert net.nat(nat)["State"] == "available"
    net.ec2.delete_nat_gateway(NatGatewayId=nat)
    stack.clock.advance(57)
    assert net.nat(nat)["State"] == "deleting"
    with refused("AuthFailure"):
        net.ec2.release_address(AllocationId=net.eip)
    stack.clock.advance(1)
    assert net.nat(nat)["State"] == "deleted"
    net.ec2.release_address(AllocationId=net.eip)
    stack.clock.advance(3600)
    with refused("NatGatewayNotFound"):
        net.nat(nat)


def test_a_nat_gateway_deleted_while_pending_stays_deleted(stack: Stack, net: Net) -> None:
    stack.sim.delays = replace(stack.sim.delays, nat_create=105, nat_delete=58)
    nat = net.add_nat()
    net.ec2.delete_nat_gateway(NatGatewayId=nat)
    stack.clock.advance(200)
    assert net.nat(nat)["State"] == "deleted"


def test_a_nat_gateway_fails_with_its_reason(net: Net) -> None:
    first, second = net.add_nat(), net.add_nat()
    failed = net.nat(second)
    assert (failed["State"], failed["FailureCode"]) == ("failed", "Resource.AlreadyAssociated")
    net.ec2.delete_nat_gateway(NatGatewayId=first)
    net.ec2.detach_internet_gateway(InternetGatewayId=net.igw, VpcId=net.vpc)
    assert net.nat(net.add_nat())["FailureCode"] == "Gateway.NotAttached"
    net.ec2.delete_subnet(SubnetId=net.subnet)  # a failed one blocks nothing


def test_nat_gateways_are_found_by_tag(net: Net) -> None:
    tags = [{"ResourceType": "natgateway", "Tags": [{"Key": "cluster", "Value": "a"}]}]
    nat = net.add_nat(TagSpecifications=tags)

    def found(name: str, value: str) -> list[str]:
        asked = [{"Name": name, "Values": [value]}]
        gateways = net.ec2.describe_nat_gateways(Filters=asked)["NatGateways"]
        return [gateway["NatGatewayId"] for gateway in gateways]

    assert found("tag:cluster", "a") == found("tag-key", "cluster") == [nat]
    assert found("state", "available") == found("vpc-id", net.vpc) == [nat]
    assert found("tag:cluster", "b") == []
    by_type = [{"Name": "resource-type", "Values": ["natgateway"]}]
    for told in (net.ec2.describe_tags(), net.ec2.describe_tags(Filters=by_type)):
        (tag,) = told["Tags"]
        assert (tag["ResourceType"], tag["ResourceId"]) == ("natgateway", nat)


@pytest.mark.parametrize(
    ("kind", "create", "describe", "answer"),
    [
        ("vpc", "create_vpc", "describe_vpcs", "Vpcs"),
        ("subnet", "create_subnet", "describe_subnets", "Subnets"),
        ("security-group", "create_security_group", "describe_security_groups", "SecurityGroups"),
        ("route-table", "create_route_table", "describe_route_tables", "RouteTables"),
        ("elastic-ip", "allocate_address", "describe_addresses", "Addresses"),
        (
            "internet-gateway",
            "create_internet_gateway",
            "describe_internet_gateways",
            "InternetGateways",
        ),
        ("vpc-endpoint", "create_vpc_endpoint", "describe_vpc_endpoints", "VpcEndpoints"),
        (
            "network-interface",
            "create_network_interface",
            "describe_network_interfaces",
            "NetworkInterfaces",
        ),
    ],
)
def test_every_kind_is_born_with_tags_and_found_by_them(
    net: Net, kind: str, create: str, describe: str, answer: str
) -> None:
    parameters: dict[str, dict[str, Any]] = {
        "vpc": {"CidrBlock": "10.9.0.0/16"},
        "subnet": {"VpcId": net.vpc, "CidrBlock": "10.0.7.0/24"},
        "security-group": {"VpcId": net.vpc, "GroupName": "g", "Description": "d"},
        "route-table": {"VpcId": net.vpc},
        "vpc-endpoint": {"VpcId": net.vpc, "ServiceName": f"com.amazonaws.{REGION}.s3"},
        "network-interface": {"SubnetId": net.subnet},
    }
    tags = [{"Key": "cluster", "Value": "a"}, {"Key": "lineage", "Value": "1"}]
    specification = [{"ResourceType": kind, "Tags": tags}]
    getattr(net.ec2, create)(**parameters.get(kind, {}), TagSpecifications=specification)

    def found(**filters: str) -> int:
        names = {"tag_key": "tag-key", "cluster": "tag:cluster", "lineage": "tag:lineage"}
        asked = [{"Name": names[name], "Values": [value]} for name, value in filters.items()]
        return len(getattr(net.ec2, describe)(Filters=asked)[answer])

    assert {tag["ResourceType"] for tag in net.ec2.describe_tags()["Tags"]} == {kind}
    by_type = [{"Name": "resource-type", "Values": [kind]}]
    assert len(net.ec2.describe_tags(Filters=by_type)["Tags"]) == 2
    assert found(cluster="a", lineage="1") == found(tag_key="lineage") == 1
    assert found(cluster="a", lineage="2") == found(cluster="b") == found(tag_key="other") == 0


# -- asking twice --------------------------------------------------------------------------------


def test_a_client_token_makes_a_call_happen_once(net: Net) -> None:
    assert net.add_nat(ClientToken="t") == net.add_nat(ClientToken="t")
    with refused("IdempotentParameterMismatch"):
        net.add_nat(ClientToken="t", SubnetId=net.add_subnet("10.0.1.0/24"))
    asked = {"VpcId": net.vpc, "ClientToken": "t"}
    tables = [net.ec2.create_route_table(**asked)["RouteTable"] for _ in range(2)]
    assert tables[0]["RouteTableId"] == tables[1]["RouteTableId"]


def test_a_lost_answer_with_a_client_token_leaves_one_gateway(
    stack: Stack, net: Net, patient: Clients
) -> None:
    stack.faults.append(Fault("ec2", "CreateNatGateway", kind="lost"))
    patient.ec2.create_nat_gateway(SubnetId=net.subnet, AllocationId=net.eip)
    assert len(net.ec2.describe_nat_gateways()["NatGateways"]) == 1


def test_a_refused_call_leaves_its_token_unused(net: Net) -> None:
    with refused("InvalidSubnetID.NotFound"):
        net.add_nat(ClientToken="t", SubnetId="subnet-0123456789abcdef0")
    assert net.nat(net.add_nat(ClientToken="t"))["State"] == "available"


def test_a_dry_run_does_nothing(stack: Stack, net: Net) -> None:
    before = stack.inventory()
    with refused("DryRunOperation", "Request would have succeeded"):
        net.ec2.create_vpc(CidrBlock="10.1.0.0/16", DryRun=True)
    with refused("DryRunOperation"):
        net.ec2.delete_vpc(VpcId=net.vpc, DryRun=True)
    assert stack.inventory() == before


# -- limits and wrong input ----------------------------------------------------------------------


def test_limits_are_the_quotas(stack: Stack, aws: Clients) -> None:
    for _ in range(4):  # the default VPC is the fifth
        aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")
    with refused("VpcLimitExceeded", "The maximum number of VPCs has been reached"):
        aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")
    stack.sim.set_quota("ec2", "EC2-VPC Elastic IPs", 1)
    aws.ec2.allocate_address(Domain="vpc")
    with refused("AddressLimitExceeded"):
        aws.ec2.allocate_address(Domain="vpc")
    stack.sim.set_quota("vpc", "Internet gateways per Region", 0)
    with refused("InternetGatewayLimitExceeded"):
        aws.ec2.create_internet_gateway()


def test_the_nat_limit_counts_per_zone(stack: Stack, net: Net) -> None:
    stack.sim.set_quota("vpc", "NAT gateways per Availability Zone", 1)
    net.add_nat()
    with refused("NatGatewayLimitExceeded"):
        net.add_nat()
    home = net.ec2.describe_subnets(SubnetIds=[net.subnet])["Subnets"][0]["AvailabilityZone"]
    zone = "us-west-2b" if home == "us-west-2a" else "us-west-2a"
    elsewhere = net.ec2.create_subnet(
        VpcId=net.vpc, CidrBlock="10.0.1.0/24", AvailabilityZone=zone
    )["Subnet"]["SubnetId"]
    eip = net.ec2.allocate_address(Domain="vpc")["AllocationId"]
    assert net.nat(net.add_nat(SubnetId=elsewhere, AllocationId=eip))["State"] == "available"


def test_subnets_are_in_this_regions_zones_and_private(net: Net) -> None:
    zones = net.ec2.describe_availability_zones()["AvailabilityZones"]
    names = {zone["ZoneId"]: zone["ZoneName"] for zone in zones}
    assert set(names.values()) == {f"{REGION}{letter}" for letter in "abcd"}
    for number, (zone_id, name) in enumerate(names.items(), start=1):
        subnet = net.ec2.create_subnet(
            VpcId=net.vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZoneId=zone_id
        )["Subnet"]
        assert (subnet["AvailabilityZone"], subnet["AvailabilityZoneId"]) == (name, zone_id)
        assert not subnet["MapPublicIpOnLaunch"]
    (home,) = net.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    own = net.ec2.create_subnet(VpcId=home["VpcId"], CidrBlock="172.31.128.0/24")["Subnet"]
    assert (own["DefaultForAz"], own["MapPublicIpOnLaunch"]) == (False, False)
    every = net.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [home["VpcId"]]}])
    public = [each["MapPublicIpOnLaunch"] for each in every["Subnets"]]
    assert (public.count(True), public.count(False)) == (4, 1)
    with refused("InvalidParameterValue", "us-east-1a"):
        net.ec2.create_subnet(VpcId=net.vpc, CidrBlock="10.0.9.0/24", AvailabilityZone="us-east-1a")


def test_routes_lead_to_what_is_there(net: Net) -> None:
    ec2, table = net.ec2, net.ec2.create_route_table(VpcId=net.vpc)["RouteTable"]["RouteTableId"]
    route = {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"}
    with refused("InvalidNatGatewayID.NotFound"):
        ec2.create_route(**route, NatGatewayId="nat-0123456789abcdef0")
    other = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    with refused("InvalidParameterValue", "belong to different networks"):
        ec2.create_route(**route, GatewayId=other)
    ec2.create_route(**route, NatGatewayId=net.add_nat())


@pytest.mark.parametrize("kind", ["p5.48xlarge", "g6.12xlarge", "g5.12xlarge", "trn1.32xlarge"])
def test_accelerated_types_are_offered_by_zone_id(aws: Clients, kind: str) -> None:
    offered = aws.ec2.describe_instance_type_offerings(
        LocationType="availability-zone-id",
        Filters=[{"Name": "instance-type", "Values": [kind]}],
    )["InstanceTypeOfferings"]
    assert offered
    assert all(offer["Location"].startswith("usw2-az") for offer in offered)


# -- VPC endpoints -------------------------------------------------------------------------------


def test_an_endpoint_routes_its_tables_while_it_lives(stack: Stack, net: Net) -> None:
    stack.sim.delays = replace(stack.sim.delays, endpoint_create=6, endpoint_delete=6)
    ec2, tables = net.ec2, [net.ec2.create_route_table(VpcId=net.vpc) for _ in range(2)]
    one, two = [table["RouteTable"]["RouteTableId"] for table in tables]
    service = f"com.amazonaws.{REGION}.s3"

    def routed() -> list[str]:
        found = ec2.describe_route_tables(RouteTableIds=[one, two])["RouteTables"]
        return [
            table["RouteTableId"]
            for table in found
            if any("DestinationPrefixListId" in route for route in table["Routes"])
        ]

    asked = {"VpcId": net.vpc, "ServiceName": service, "RouteTableIds": [one]}
    endpoint = ec2.create_vpc_endpoint(**asked)["VpcEndpoint"]["VpcEndpointId"]

    def state() -> str:
        (seen,) = ec2.describe_vpc_endpoints(VpcEndpointIds=[endpoint])["VpcEndpoints"]
        return str(seen["State"])

    assert (state(), routed()) == ("pending", [one])
    stack.clock.advance(6)
    assert state() == "available"
    with refused("RouteAlreadyExists"):
        ec2.create_vpc_endpoint(**asked)
    ec2.modify_vpc_endpoint(
        VpcEndpointId=endpoint, AddRouteTableIds=[two], RemoveRouteTableIds=[one]
    )
    assert routed() == [two]
    ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint])
    assert (state(), routed()) == ("deleting", [])
    stack.clock.advance(6)
    with refused("InvalidVpcEndpointId.NotFound"):
        state()
    (gone,) = ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint])["Unsuccessful"]
    assert gone["Error"]["Code"] == "InvalidVpcEndpointId.NotFound"


def test_an_endpoint_with_a_wrong_name_is_not_made(net: Net) -> None:
    for wrong in ("com.amazonaws.us-west-2.s33", "com.amazonaws.us-east-1.s3"):
        with refused("InvalidServiceName", wrong):
            net.ec2.create_vpc_endpoint(VpcId=net.vpc, ServiceName=wrong)
    with refused("InvalidRouteTableID.NotFound"):
        net.ec2.create_vpc_endpoint(
            VpcId=net.vpc, ServiceName="com.amazonaws.us-west-2.s3", RouteTableIds=["rtb-1"]
        )
    assert net.ec2.describe_vpc_endpoints()["VpcEndpoints"] == []


def test_an_interface_endpoint_holds_its_subnet_and_group(net: Net) -> None:
    group = net.add_group("g")
    endpoint = net.ec2.create_vpc_endpoint(
        VpcId=net.vpc,
        VpcEndpointType="Interface",
        ServiceName="com.amazonaws.us-west-2.ecr.api",
        SubnetIds=[net.subnet],
        SecurityGroupIds=[group],
    )["VpcEndpoint"]["VpcEndpointId"]
    with refused("DependencyViolation"):
        net.ec2.delete_subnet(SubnetId=net.subnet)
    with refused("DependencyViolation"):
        net.ec2.delete_security_group(GroupId=group)
    net.ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint])
    net.ec2.delete_security_group(GroupId=group)
    net.ec2.delete_subnet(SubnetId=net.subnet)


# -- eventual consistency ------------------------------------------------------------------------


def test_what_was_just_made_may_not_be_seen_yet(stack: Stack, aws: Clients) -> None:
    stack.faults.append(Fault("ec2", "CreateVpc", kind="lag", reads=2))
    vpc = aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    with refused("InvalidVpcID.NotFound"):
        aws.ec2.describe_vpcs(VpcIds=[vpc])
    aws.ec2.describe_subnets()  # another operation
    assert len(aws.ec2.describe_vpcs()["Vpcs"]) == 1
    assert len(aws.ec2.describe_vpcs()["Vpcs"]) == 2


@pytest.mark.parametrize(
    ("create", "describe", "answer"),
    [
        ("create_subnet", "describe_subnets", "Subnets"),
        ("create_security_group", "describe_security_groups", "SecurityGroups"),
        ("allocate_address", "describe_addresses", "Addresses"),
        ("create_internet_gateway", "describe_internet_gateways", "InternetGateways"),
        ("create_route_table", "describe_route_tables", "RouteTables"),
    ],
)
def test_the_lag_of_every_kind_ends_with_time(
    stack: Stack, net: Net, create: str, describe: str, answer: str
) -> None:
    parameters: dict[str, dict[str, Any]] = {
        "create_subnet": {"VpcId": net.vpc, "CidrBlock": "10.0.7.0/24"},
        "create_security_group": {"VpcId": net.vpc, "GroupName": "g", "Description": "d"},
        "create_route_table": {"VpcId": net.vpc},
    }
    snapshot = getattr(net.ec2, describe)
    before = len(snapshot()[answer])
    stack.faults.append(Fault("ec2", kind="lag", seconds=10))
    getattr(net.ec2, create)(**parameters.get(create, {}))
    assert len(snapshot()[answer]) == before
    stack.clock.advance(10)
    assert len(snapshot()[answer]) == before + 1


def test_a_group_is_not_called_like_an_id(aws: Clients) -> None:
    asked = {
        "Description": "d",
        "VpcId": aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"],
    }
    for name in ("sg-nodes", "SG-nodes"):
        text = f"Value ({name}) for parameter GroupName is invalid. Group names may not be in the"
        with refused("InvalidParameterValue", text):
            aws.ec2.create_security_group(GroupName=name, **asked)
    aws.ec2.create_security_group(GroupName="nodes-sg-1", **asked)


def test_an_endpoint_is_refused_where_its_service_is_not_offered(
    stack: Stack, aws: Clients
) -> None:
    net = Net(aws.ec2)
    stack.sim.endpoint_zones |= {"ec2messages": (), "eks": (f"{REGION}c",)}
    asked: Any = {"VpcId": net.vpc, "VpcEndpointType": "Interface", "SubnetIds": [net.subnet]}
    name = f"com.amazonaws.{REGION}."
    with refused("InvalidServiceName", f"The Vpc Endpoint Service '{name}ec2messages' does not"):
        aws.ec2.create_vpc_endpoint(ServiceName=f"{name}ec2messages", **asked)
    with refused(
        "InvalidParameter", f"does not support the availability zone of the subnet: {net.subnet}"
    ):
        aws.ec2.create_vpc_endpoint(ServiceName=f"{name}eks", **asked)
    about = aws.ec2.describe_vpc_endpoint_services(
        Filters=[{"Name": "service-name", "Values": [f"{name}ec2messages", f"{name}eks"]}]
    )
    assert about["ServiceNames"] == [f"{name}eks"]
    assert [each["AvailabilityZones"] for each in about["ServiceDetails"]] == [[f"{REGION}c"]]


@pytest.mark.parametrize("default", [True, False])
def test_an_address_in_use_is_released_in_the_default_vpc_alone(
    aws: Clients, net: Net, default: bool
) -> None:
    ec2: Any = aws.ec2
    home = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])
    subnet = home["Subnets"][0]["SubnetId"] if default else net.subnet
    eni = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    ec2.associate_address(AllocationId=address, NetworkInterfaceId=eni)
    if default:
        ec2.release_address(AllocationId=address)
    else:
        with refused("InvalidIPAddress.InUse"):
            ec2.release_address(AllocationId=address)
