"""AWS's varying times and orders are drawn from a seed, and repeat for the same calls."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from hyperpod_eks.local.aws.sim import Delays
from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients
from tests.local.ground import (
    CLUSTER_POLICY,
    NAME,
    Ground,
    hyperpod_cluster,
    nodes,
    orchestrated,
    refusal,
    role,
    workers,
)

MINUTE = 60.0
REAL = replace(Delays.real(), iam=0, unseen=0)
MANY = 6
CONTINUOUS = {"NodeProvisioningMode": "Continuous"}


@pytest.fixture
def ground(stack: Stack, aws: Clients) -> Ground:
    """Prerequisites that were created before delays vary."""
    return orchestrated(aws)


def arrivals(stack: Stack, aws: Clients, ground: Ground) -> list[int]:
    """Create a cluster; return the minutes after which each of its nodes is Ready."""
    group = workers(ground, InstanceCount=MANY)
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, group, **CONTINUOUS))
    found: list[int] = []
    for minute in range(1, 35):
        stack.clock.advance(MINUTE)
        ready = sum(node["ready"] for node in nodes(aws).values())
        found += [minute] * (ready - len(found))
    return found


def test_nodes_come_one_by_one_within_half_an_hour(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = REAL
    found = arrivals(stack, aws, ground)
    assert len(found) == MANY
    assert 15 <= found[0] < found[-1] <= 31
    assert len(set(found)) > MANY / 2


def test_a_classic_cluster_comes_whole(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.delays = REAL
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    stack.clock.advance(15 * MINUTE)
    assert [node["ready"] for node in nodes(aws).values()] == [True, True]


def test_a_seed_decides_whatever_else_happens_in_the_account(stack: Stack) -> None:
    def drawn(seed: int, *others: str) -> list[float]:
        stack.reset()
        stack.sim.seed = seed
        for other in others:
            stack.sim.draw(other)
        return [stack.sim.draw("node") for _ in range(3)]

    assert len(set(drawn(1))) == 3
    assert drawn(1) == drawn(1, "eni", "log") != drawn(2)
    request = urllib.request.Request(f"{stack.endpoint}/_stack/seed", json.dumps(1).encode())
    stack.reset()
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    assert [stack.sim.draw("node") for _ in range(3)] == drawn(1)


def created(aws: Clients, kind: str) -> Iterator[tuple[Any, dict[str, Any], str]]:
    """Create twelve resources; yield for each a change that names it, and its NotFound code."""
    ec2, iam = aws.ec2, aws.iam
    for number in range(12):
        if kind == "vpc":
            vpc = ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")["Vpc"]["VpcId"]
            asked = {"VpcId": vpc, "CidrBlock": f"10.{number}.0.0/24"}
            yield ec2.create_subnet, asked, "InvalidVpcID.NotFound"
        elif kind == "internet gateway":
            gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
            asked = {"Resources": [gateway], "Tags": [{"Key": "a", "Value": "b"}]}
            yield ec2.create_tags, asked, "InvalidInternetGatewayID.NotFound"
        else:
            role(aws, f"r{number}", "eks.amazonaws.com")
            asked = {"RoleName": f"r{number}", "PolicyArn": CLUSTER_POLICY}
            yield iam.attach_role_policy, asked, "NoSuchEntity"


@pytest.mark.parametrize("kind", ["vpc", "internet gateway", "role"])
def test_a_change_may_not_know_what_was_created_a_moment_ago(
    stack: Stack, aws: Clients, kind: str
) -> None:
    stack.sim.delays = Delays(unseen=5)
    for name in ("VPCs per Region", "Internet gateways per Region"):
        stack.sim.set_quota("vpc", name, 99)
    refused = []
    for change, asked, code in created(aws, kind):
        try:
            change(**asked)
        except ClientError as error:
            refused.append((change, asked, error.response["Error"]["Code"] == code))
    assert all(in_its_words for *_, in_its_words in refused)
    assert 2 <= len(refused) <= 10  # about half are known at once
    stack.clock.advance(5)
    for change, asked, _ in refused:
        change(**asked)


def test_what_a_change_is_refused_for_describes_do_not_show(stack: Stack, aws: Clients) -> None:
    stack.sim.delays = Delays(unseen=5)
    stack.sim.set_quota("vpc", "Internet gateways per Region", 99)
    ids = [
        aws.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"] for _ in range(9)
    ]
    shown = {
        each["InternetGatewayId"]
        for each in aws.ec2.describe_internet_gateways()["InternetGateways"]
    }
    hidden = [id_ for id_ in ids if id_ not in shown]
    assert hidden
    for id_ in hidden:
        code, _ = refusal(aws.ec2.delete_internet_gateway, InternetGatewayId=id_)
        assert code == "InvalidInternetGatewayID.NotFound"


def test_some_interfaces_of_hyperpod_stay_for_anybody_to_delete(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = Delays(eni_linger=60, eni_left=0.5)
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, workers(ground, InstanceCount=8)))
    aws.sagemaker.delete_cluster(ClusterName=NAME)

    def interfaces() -> list[dict[str, Any]]:
        every: Any = aws.ec2.describe_network_interfaces()["NetworkInterfaces"]
        return [each for each in every if "HyperPod" in each["Description"]]

    assert {(each["Status"], each["RequesterManaged"]) for each in interfaces()} == {
        ("in-use", True)
    }
    stack.clock.advance(60)
    left = interfaces()
    assert 0 < len(left) < 8
    assert {(each["Status"], each["RequesterManaged"]) for each in left} == {("available", False)}
    for each in left:
        aws.ec2.delete_network_interface(NetworkInterfaceId=each["NetworkInterfaceId"])
    assert interfaces() == []


def test_logs_come_late_and_make_their_group_anew(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = Delays(logs=45)
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))

    def groups() -> list[str]:
        found = aws.logs.describe_log_groups(logGroupNamePrefix="/aws/")["logGroups"]
        return [each["logGroupName"] for each in found]

    assert groups() == []
    stack.clock.advance(45)
    (name,) = groups()
    assert name.startswith(f"/aws/sagemaker/Clusters/{NAME}/")
    aws.sagemaker.delete_cluster(ClusterName=NAME)
    aws.logs.delete_log_group(logGroupName=name)
    stack.clock.advance(45)
    assert groups() == [name]
    streams = aws.logs.describe_log_streams(logGroupName=name)["logStreams"]
    assert {each["logStreamName"].partition("/")[0] for each in streams} == {
        "SagemakerHealthMonitoringAgent"
    }
