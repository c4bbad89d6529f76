"""The echo switch: what is altered, in every protocol, and what never is."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from hyperpod_eks.local.aws.echo import Echo
from hyperpod_eks.local.aws.echo_members import MEMBERS
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.model import service
from tests.conftest import Clients


def test_an_xml_description_has_further_members_and_keeps_who_it_is(
    stack: Stack, aws: Clients
) -> None:
    (before,) = aws.ec2.describe_vpcs()["Vpcs"]
    seen: set[str] = set()
    for seed in range(8):
        stack.sim.echo = Echo(seed, "ec2")
        (vpc,) = aws.ec2.describe_vpcs()["Vpcs"]
        seen |= vpc.keys()
        assert {k: vpc.get(k) for k in ("VpcId", "State", "CidrBlock")} == {
            k: before[k] for k in ("VpcId", "State", "CidrBlock")
        }
        assert aws.ec2.describe_vpcs()["Vpcs"] == [vpc]  # odd in the same way again
    assert seen > before.keys()


def test_the_switch_is_on_http_too(stack: Stack, aws: Clients) -> None:
    aws.logs.create_log_group(logGroupName="a")
    body = json.dumps({"service": "logs", "says": {"logGroups[].storedBytes": 7}}).encode()
    for sent, size in ((body, 7), (b"null", 0)):
        with urllib.request.urlopen(f"{stack.endpoint}/_stack/echo", data=sent) as answer:
            assert answer.status == 200
        (group,) = aws.logs.describe_log_groups()["logGroups"]
        assert group["storedBytes"] == size


@pytest.mark.parametrize("call", MEMBERS)
def test_the_tables_name_members_that_exist(call: tuple[str, str]) -> None:
    name, operation = call
    shapes = service(name)["shapes"]
    output = service(name)["operations"][operation]["output"]["shape"]
    members = MEMBERS[call]
    for path in (*members.reasons, *members.requests, *members.unordered):
        here: Any = shapes[output]
        for part in path.split("."):
            here = shapes[here["members"][part.removesuffix("[]")]["shape"]]
            if part.endswith("[]"):
                here = shapes[here["member"]["shape"]]
    assert not members.reasons.keys() & members.requests.keys()
