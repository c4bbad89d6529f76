from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest

from hyperpod_eks.local.aws.sim import ADMIN_ARN, Delays, Fault, delays_from, principal_of
from hyperpod_eks.local.stack import Stack, client_environ
from tests.conftest import Clients, apply

pytestmark = pytest.mark.usefixtures("over_http")
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "eks.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)


def build(aws: Clients) -> dict[str, str]:
    """Create a VPC with resources of each kind, a role, a bucket and a log group."""
    vpc = aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = aws.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    igw = aws.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    aws.ec2.attach_internet_gateway(InternetGatewayId=igw, VpcId=vpc)
    table = aws.ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    aws.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=igw)
    group = aws.ec2.create_security_group(VpcId=vpc, GroupName="g", Description="g")["GroupId"]
    eip = aws.ec2.allocate_address(Domain="vpc")["AllocationId"]
    nat = aws.ec2.create_nat_gateway(SubnetId=subnet, AllocationId=eip)["NatGateway"]
    endpoint = aws.ec2.create_vpc_endpoint(
        VpcId=vpc, ServiceName="com.amazonaws.us-west-2.s3", RouteTableIds=[table]
    )["VpcEndpoint"]["VpcEndpointId"]
    aws.iam.create_role(RoleName="r", AssumeRolePolicyDocument=TRUST)
    aws.iam.attach_role_policy(
        RoleName="r", PolicyArn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
    )
    aws.s3.create_bucket(
        Bucket="b-1", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    aws.s3.put_object(Bucket="b-1", Key="a/b", Body=b"x")
    aws.logs.create_log_group(logGroupName="/aws/eks/x/cluster")
    return {
        "vpc": vpc,
        "subnet": subnet,
        "igw": igw,
        "table": table,
        "group": group,
        "eip": eip,
        "nat": nat["NatGatewayId"],
        "endpoint": endpoint,
    }


def tear_down(aws: Clients, ids: dict[str, str]) -> None:
    aws.logs.delete_log_group(logGroupName="/aws/eks/x/cluster")
    aws.s3.delete_object(Bucket="b-1", Key="a/b")
    aws.s3.delete_bucket(Bucket="b-1")
    aws.ec2.delete_nat_gateway(NatGatewayId=ids["nat"])
    aws.ec2.release_address(AllocationId=ids["eip"])
    aws.ec2.delete_vpc_endpoints(VpcEndpointIds=[ids["endpoint"]])
    aws.ec2.delete_security_group(GroupId=ids["group"])
    aws.ec2.delete_route_table(RouteTableId=ids["table"])
    aws.ec2.detach_internet_gateway(InternetGatewayId=ids["igw"], VpcId=ids["vpc"])
    aws.ec2.delete_internet_gateway(InternetGatewayId=ids["igw"])
    aws.ec2.delete_subnet(SubnetId=ids["subnet"])
    aws.ec2.delete_vpc(VpcId=ids["vpc"])
    aws.iam.detach_role_policy(
        RoleName="r", PolicyArn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
    )
    aws.iam.delete_role(RoleName="r")


def test_the_inventory_is_the_same_after_everything_was_deleted(stack: Stack, aws: Clients) -> None:
    before = json.dumps(stack.inventory())
    ids = build(aws)
    during = stack.inventory()
    assert json.dumps(during) != before
    ec2 = during["us-west-2"]["ec2"]
    assert ec2["RouteTables"][ids["table"]]["Routes"]["0.0.0.0/0"] == ids["igw"]
    assert ec2["NatGateways"][ids["nat"]]["State"] == "available"
    assert during["s3"]["b-1"]["Objects"].keys() == {"a/b"}
    assert "/aws/eks/x/cluster" in during["us-west-2"]["logs"]
    tear_down(aws, ids)
    assert json.dumps(stack.inventory()) == before


def test_the_inventory_shows_each_thing_that_was_left(stack: Stack, aws: Clients) -> None:
    before = stack.inventory()
    build(aws)
    kinds = {
        kind
        for kind, things in stack.inventory()["us-west-2"]["ec2"].items()
        if things != before["us-west-2"]["ec2"][kind]
    }
    assert kinds == {
        "Vpcs", "Subnets", "InternetGateways", "RouteTables", "SecurityGroups", "Addresses",
        "NatGateways", "NetworkInterfaces", "VpcEndpoints", "NetworkAcls",
    }  # fmt: skip


def test_another_region_shows_once_something_is_in_it(
    stack: Stack, aws: Clients, session: boto3.Session
) -> None:
    before = stack.inventory()
    ec2 = session.client("ec2", region_name="eu-west-1", endpoint_url=stack.endpoint)
    ec2.describe_vpcs()
    assert stack.inventory() == before
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    assert vpc in stack.inventory()["eu-west-1"]["ec2"]["Vpcs"]


def test_a_reset_empties_the_account(stack: Stack, aws: Clients) -> None:
    build(aws)
    stack.faults.append(Fault("ec2"))
    stack.sim.set_quota("vpc", "VPCs per Region", 1)
    stack.reset()
    assert (stack.calls, stack.faults) == ([], [])
    assert stack.sim.quota("vpc", "VPCs per Region") == 5
    assert aws.s3.list_buckets()["Buckets"] == []
    assert [vpc["IsDefault"] for vpc in aws.ec2.describe_vpcs()["Vpcs"]] == [True]


def test_a_reset_forgets_what_was_still_to_happen(stack: Stack, aws: Clients) -> None:
    stack.sim.delays = delays_from({"nat_create": 100}, Delays.instant())
    build(aws)
    stack.reset()
    stack.clock.advance(1000)  # would use deleted resources
    assert aws.ec2.describe_nat_gateways()["NatGateways"] == []


def test_there_is_one_stack_per_process(stack: Stack) -> None:
    with pytest.raises(RuntimeError, match="has an embedded stack already"):
        Stack()


def test_unknown_delays_are_named() -> None:
    with pytest.raises(ValueError, match="no such delay: eks_craete"):
        delays_from({"eks_craete": 1}, Delays())


# -- endpoints of clients ------------------------------------------------------------------------

HOSTILE = {
    "AWS_PROFILE": "production",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEXAMPLE",
    "AWS_ACCESS_KEY_ID": "AKIAREALLOOKING00000",
    "AWS_SECRET_ACCESS_KEY": "real",
    "AWS_ENDPOINT_URL_EC2": "http://203.0.113.1:1",
    "AWS_ENDPOINT_URL_S3": "http://203.0.113.1:1",
    "AWS_ENDPOINT_URL": "http://203.0.113.1:1",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_USE_DUALSTACK_ENDPOINT": "true",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere",
    "AWS_ROLE_ARN": "arn:aws:iam::999999999999:role/real",
    "HTTP_PROXY": "http://203.0.113.1:1",
    "http_proxy": "http://203.0.113.1:1",
    "NO_PROXY": "example.com",
}


def test_no_setting_of_the_user_leads_elsewhere(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile production]\nregion = eu-central-1\nservices = s\n"
        "[services s]\nec2 =\n  endpoint_url = http://203.0.113.1:1\n"
    )
    hostile = {**HOSTILE, "AWS_CONFIG_FILE": str(config)}
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    apply(monkeypatch, stack.environ())
    session: Any = botocore.session.get_session()
    for service in ("sts", "ec2", "s3", "eks", "iam", "sagemaker", "logs", "service-quotas"):
        client = session.create_client(service)
        assert client.meta.endpoint_url == stack.endpoint
    answer = session.create_client("sts").get_caller_identity()
    assert answer["Arn"] == "arn:aws:sts::123456789012:assumed-role/Admin/local"
    assert session.create_client("s3").list_buckets()["Buckets"] == []


def test_the_region_of_the_user_stays() -> None:
    assert client_environ("http://x", base={})["AWS_REGION"] == "us-west-2"
    chosen = client_environ("http://x", base={"AWS_DEFAULT_REGION": "eu-west-1"})
    assert (chosen["AWS_REGION"], chosen["AWS_DEFAULT_REGION"]) == ("eu-west-1", "eu-west-1")
    bypass = client_environ("http://x", base={"NO_PROXY": "example.com"})
    assert bypass["no_proxy"] == bypass["NO_PROXY"] == "example.com,127.0.0.1"


# -- identities of clients -----------------------------------------------------------------------


def test_the_caller_is_a_session_of_a_role_with_a_path(stack: Stack, aws: Clients) -> None:
    caller = aws.sts.get_caller_identity()
    assert caller["Arn"] == "arn:aws:sts::123456789012:assumed-role/Admin/local"
    role = aws.iam.get_role(RoleName="Admin")["Role"]
    assert role["Arn"] == ADMIN_ARN == "arn:aws:iam::123456789012:role/team/Admin"
    assert caller["UserId"] == f"{role['RoleId']}:local"
    assert principal_of("ASIALOCALSTACK000000") == ADMIN_ARN


def test_other_keys_are_who_they_were_given_to(
    stack: Stack, aws: Clients, session: boto3.Session
) -> None:
    aws.iam.create_role(RoleName="dev", Path="/a/b/", AssumeRolePolicyDocument=TRUST)
    arn = "arn:aws:iam::123456789012:role/a/b/dev"
    keys = aws.sts.assume_role(RoleArn=arn, RoleSessionName="me")["Credentials"]
    assert principal_of(keys["AccessKeyId"]) == arn
    sts = session.client(
        "sts",
        endpoint_url=stack.endpoint,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )
    assert sts.get_caller_identity()["Arn"] == "arn:aws:sts::123456789012:assumed-role/dev/me"
    aws.iam.create_user(UserName="kim")
    key = aws.iam.create_access_key(UserName="kim")["AccessKey"]["AccessKeyId"]
    assert principal_of(key) == "arn:aws:iam::123456789012:user/kim"
    assert principal_of("AKIANOBODY") == ADMIN_ARN


# -- starting ------------------------------------------------------------------------------------


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name[:4] != "AWS_"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**plain, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_missing_extra_is_named_with_the_command_that_installs_it() -> None:
    code = """
import sys
sys.modules["moto"] = None
from hyperpod_eks.errors import Usage
from hyperpod_eks.local.stack import Stack
try:
    Stack()
except Usage as problem:
    print(problem, problem.hint)
"""
    result = run(code)
    assert "pip install '.[local]'" in result.stdout
    assert "moto" in result.stdout


def test_stacks_may_follow_each_other_and_take_a_port_that_is_free() -> None:
    code = """
import os, socket, threading
from hyperpod_eks.errors import Usage
from hyperpod_eks.local.aws.sim import Delays
from hyperpod_eks.local.stack import Stack
import boto3
def vpcs(stack):
    ec2 = boto3.client("ec2", endpoint_url=stack.endpoint, region_name="us-west-2",
        aws_access_key_id="a", aws_secret_access_key="b")
    ec2.create_vpc(CidrBlock="10.0.0.0/16")
    return len(ec2.describe_vpcs()["Vpcs"])
with socket.create_server(("127.0.0.1", 0)) as taken:
    try:
        Stack(port=taken.getsockname()[1])
    except Usage as problem:
        print(problem)
first = Stack(speed=10, delays=Delays.instant())
del os.environ["AWS_PROFILE"]  # which nobody may read until here
print(vpcs(first))
first.stop(); first.stop()
second = Stack()
print(vpcs(second))
second.stop()
print([t.name for t in threading.enumerate() if t.name.startswith("local")])
"""
    result = run(code, AWS_PROFILE="of-nobody")
    assert result.stderr == ""
    refused, *rest = result.stdout.splitlines()
    assert "cannot listen on port" in refused
    assert rest == ["2", "2", "[]"]


def test_tags_of_a_log_group_that_does_not_exist_are_refused(aws: Clients) -> None:
    arn = "arn:aws:logs:us-west-2:123456789012:log-group:/aws/eks/demo/cluster"
    with pytest.raises(aws.logs.exceptions.ResourceNotFoundException):
        aws.logs.list_tags_for_resource(resourceArn=arn)
    aws.logs.create_log_group(logGroupName="/aws/eks/demo/cluster", tags={"a": "b"})
    assert aws.logs.list_tags_for_resource(resourceArn=arn)["tags"] == {"a": "b"}
