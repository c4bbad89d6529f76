"""Preflight and create report the same errors, word for word, about existing resources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients, User, at_work
from tests.local import ground


@dataclass
class Account:
    """An account with networks, control planes, roles and buckets of all kinds."""

    user: User
    ids: dict[str, str]


def subnet(aws: Clients, vpc: str, cidr: str, zone: str) -> str:
    made = aws.ec2.create_subnet(VpcId=vpc, CidrBlock=cidr, AvailabilityZone=f"us-west-2{zone}")
    return str(made["Subnet"]["SubnetId"])


def to_the_internet(aws: Clients, vpc: str) -> None:
    here = [{"Name": "vpc-id", "Values": [vpc]}]
    (table,) = aws.ec2.describe_route_tables(Filters=here)["RouteTables"]
    gateway = aws.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    aws.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    aws.ec2.create_route(
        RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
    )


def craft(aws: Clients) -> dict[str, str]:
    laid = ground.lay(aws)
    for name in ("EnableDnsSupport", "EnableDnsHostnames"):
        aws.ec2.modify_vpc_attribute(VpcId=laid.vpc, **{name: {"Value": True}})
    ids = {"vpc": laid.vpc, "one": laid.subnets[0], "two": laid.subnets[1], "group": laid.group}
    here = [{"Name": "vpc-id", "Values": [laid.vpc]}]
    (main,) = aws.ec2.describe_route_tables(Filters=here)["RouteTables"]
    ids["table"] = main["RouteTableId"]
    endpoint = {"VpcId": laid.vpc, "ServiceName": "com.amazonaws.us-west-2.s3"}
    aws.ec2.create_vpc_endpoint(**endpoint, RouteTableIds=[ids["table"]])
    ids["again"] = subnet(aws, laid.vpc, "10.0.96.0/24", "a")
    ids["small-one"] = subnet(aws, laid.vpc, "10.0.97.0/28", "a")
    ids["small-two"] = subnet(aws, laid.vpc, "10.0.97.16/28", "b")
    ids["open"] = aws.ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    to_the_internet(aws, ids["open"])
    aws.ec2.modify_vpc_attribute(VpcId=ids["open"], EnableDnsHostnames={"Value": True})
    ids["public-one"] = subnet(aws, ids["open"], "10.1.0.0/24", "a")
    ids["public-two"] = subnet(aws, ids["open"], "10.1.1.0/24", "b")
    ids["dark"] = aws.ec2.create_vpc(CidrBlock="10.2.0.0/16")["Vpc"]["VpcId"]
    ids["dark-one"] = subnet(aws, ids["dark"], "10.2.0.0/24", "a")
    ids["dark-two"] = subnet(aws, ids["dark"], "10.2.1.0/24", "b")
    for name, mode in (("old", "CONFIG_MAP"), ("new", "API")):
        aws.eks.create_cluster(
            name=name,
            roleArn=laid.eks_role,
            resourcesVpcConfig={"subnetIds": laid.subnets, "securityGroupIds": [laid.group]},
            accessConfig={"authenticationMode": mode},
        )
    aws.eks.create_addon(clusterName="new", addonName="vpc-cni", addonVersion="v1.18.2-eksbuild.1")
    ground.role(aws, "wrong", "ec2.amazonaws.com")
    shut = {"VpcId": laid.vpc, "GroupName": "shut", "Description": "shut"}
    ids["shut"] = aws.ec2.create_security_group(**shut)["GroupId"]
    return ids


@pytest.fixture(scope="module")
def account(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with at_work(one_stack, tmp_path_factory.mktemp("account")) as user:
        yield Account(user, craft(Clients(boto3.Session(), one_stack.endpoint)))


GROUPS = "instance_groups: [{name: g, instance_type: %s}]"
M5 = "ml.m5.2xlarge, instance_count: 1"
SMALL = "{vpc: $vpc, private_subnets: [$small-one, $small-two]}"
PRIVATE = "existing: {vpc: $vpc, private_subnets: [$one, $two]"
CASES = {
    "no such VPC": ("existing: {vpc: vpc-0123456789abcdef0}", "existing.vpc"),
    "no such subnet": (
        "existing: {vpc: $vpc, private_subnets: [$one, subnet-0123456789abcdef0]}",
        "existing.private_subnets",
    ),
    "subnets of another VPC": (
        "existing: {vpc: $vpc, private_subnets: [$dark-one, $dark-two]}",
        "existing.private_subnets",
    ),
    "two subnets in a zone": (
        "existing: {vpc: $vpc, private_subnets: [$one, $again]}",
        "existing.private_subnets",
    ),
    "no such group": (PRIVATE + ", security_group: sg-0123456789abcdef0}", "security_group"),
    "a group of another VPC": (
        "existing: {vpc: $dark, private_subnets: [$dark-one, $dark-two], security_group: $group}",
        "existing.security_group",
    ),
    "no such role": (PRIVATE + ", execution_role: nobody}", "existing.execution_role"),
    "a role for others": (PRIVATE + ", execution_role: wrong}", "roles:"),
    "a role of the control plane for others": (PRIVATE + ", cluster_role: wrong}", "roles:"),
    "no such bucket": (PRIVATE + ", bucket: sagemaker-nowhere}", "existing.bucket"),
    "no room": ("existing: {vpc: $vpc}", "network.cidr"),
    "another block": ("existing: {vpc: $vpc}\nnetwork: {cidr: 10.9.0.0/16}", "network.cidr"),
    "a route to S3 already": (
        PRIVATE + ", route_tables: [$table]}",
        "existing.route_tables",
    ),
    "no such control plane": ("existing: {eks_cluster: nowhere}", "existing.eks_cluster"),
    "a control plane without access entries": (
        "existing: {eks_cluster: old}",
        "existing.eks_cluster",
    ),
    "a control plane with an old CNI": ("existing: {eks_cluster: new}", "vpc-cni:"),
    "public subnets": (
        "existing: {vpc: $open, private_subnets: [$public-one, $public-two]}",
        "routes:",
    ),
    "dark subnets": ("existing: {vpc: $dark, private_subnets: [$dark-one, $dark-two]}", "routes:"),
    "a VPC without names": (
        "existing: {vpc: $dark, private_subnets: [$dark-one, $dark-two]}",
        "vpc-dns:",
    ),
    "small subnets": (
        f"existing: {SMALL}\n{GROUPS % 'ml.m5.2xlarge, instance_count: 9'}",
        "subnet-addresses:",
    ),
    "a closed group and EFA": (
        PRIVATE + ", security_group: $shut}\n" + GROUPS % "ml.p4d.24xlarge, instance_count: 1",
        "security-group:",
    ),
    "a zone without a subnet of theirs": (
        PRIVATE + "}\n" + GROUPS % f"{M5}, availability_zone_ids: [usw2-az3]",
        "instance_groups",
    ),
    "a zone that is none": (
        GROUPS % f"{M5}, availability_zone_ids: [use1-az1]",
        "instance_groups.availability_zone_ids",
    ),
    "no such type there": (GROUPS % "ml.trn2.48xlarge, instance_count: 1", "ml.trn2"),
}  # fmt: skip


LONG = (
    "no such subnet", "subnets of another VPC", "no such group", "a role for others",
    "dark subnets", "small subnets", "a closed group and EFA", "a zone without a subnet of theirs",
)  # fmt: skip
"""Others of the same kinds are tried by `make test`."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(one, marks=[pytest.mark.prove] if one in LONG else []) for one in CASES],
)
def test_preflight_finds_what_create_finds(account: Account, case: str) -> None:
    user, (text, words) = account.user, CASES[case]
    for name in sorted(account.ids, key=len, reverse=True):
        text = text.replace(f"${name}", account.ids[name])
    Path("cluster.yaml").write_text(f"name: demo\nregion: us-west-2\n{text}\n")
    Path("demo.hyperpod-eks.json").unlink(missing_ok=True)  # of the last case, with its adoptions
    # the check of permissions, forty calls to IAM, finds nothing in any case
    given = ("-f", "cluster.yaml", "--chart", str(CHART), "--skip", "permissions")
    user.stack.calls.clear()

    looked = user.types("preflight", *given, "-o", "json")
    assert looked.code == 3, looked.err  # else create would create a cluster that later cases see
    made = user.types("create", *given, "--yes")

    assert user.mutations() == []
    assert made.code != 0
    found: list[dict[str, Any]] = looked.document["findings"]
    errors = [one for one in found if one["severity"] == "error"]
    assert words in made.err
    for one in errors:
        for part in (*one["says"].splitlines(), *one["fix"].splitlines()):
            assert part in made.err, (one, made.err)
    told = [one for one in found if one["severity"] == "warning"]
    ended_early = "preflight found" not in made.err
    assert [one for one in told if not ended_early and one["says"] not in made.err] == []
    said = {line.strip() for one in found for line in f"{one['id']}: {one['says']}".splitlines()}
    blocking = made.err.partition("preflight found problems that would stop create:\n")[2]
    heads = [line for line in blocking.splitlines() if ": " in line and not line.startswith(" ")]
    assert [line for line in heads[: len(errors)] if line.strip() not in said] == []
