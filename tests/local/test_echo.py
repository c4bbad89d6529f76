"""The echo switch: members of answers that it alters, in every protocol, and those it keeps."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.aws.models import loader
from hyperpod_eks.local.aws.echo import PAGES, Echo
from hyperpod_eks.local.aws.echo_members import MEMBERS
from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients
from tests.local.ground import eks_cluster, lay

OWN = Path(__file__).parent / "data" / "echo_own.json"


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
        assert aws.ec2.describe_vpcs()["Vpcs"] == [vpc]  # the same oddity again
    assert seen > before.keys()


def changed(one: Any, other: Any, path: str = "") -> list[str]:
    """Return the paths of different values, ignoring case of enumerations, and order."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = sorted(one.keys() & other.keys())
        return [found for key in both for found in changed(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list) and isinstance(other, list):
        same = len(one) == len(other)
        return [] if same and all(any(not changed(a, b) for b in other) for a in one) else [path]
    if isinstance(one, str) and isinstance(other, str):
        return [] if other == "" or one.lower() == other.lower() else [path]
    return [] if one == other or one is None or other is None else [path]


def test_a_truthful_answer_says_no_other_value_and_varies(stack: Stack, aws: Clients) -> None:
    aws.eks.create_cluster(**eks_cluster(lay(aws)))
    before = aws.eks.describe_cluster(name="demo")["cluster"]
    stack.sim.echo = Echo(3, "eks", truthful=True, varies=True)
    seen = [aws.eks.describe_cluster(name="demo")["cluster"] for _ in range(12)]
    assert [changed(before, each) for each in seen] == [[]] * 12
    assert len({json.dumps(each, default=str) for each in seen}) > 6
    stack.sim.echo = Echo(3, "eks")
    said = [aws.eks.describe_cluster(name="demo")["cluster"] for _ in range(2)]
    assert said[0] == said[1]


def test_the_switch_is_on_http_too(stack: Stack, aws: Clients) -> None:
    aws.logs.create_log_group(logGroupName="a")
    body = json.dumps({"service": "logs", "says": {"logGroups[].storedBytes": 7}}).encode()
    for sent, size in ((body, 7), (b"null", 0)):
        with urllib.request.urlopen(f"{stack.endpoint}/_stack/echo", data=sent) as answer:
            assert answer.status == 200
        (group,) = aws.logs.describe_log_groups()["logGroups"]
        assert group["storedBytes"] == size


def test_answers_of_s3_and_of_both_load_balancers_have_further_members(
    stack: Stack, aws: Clients
) -> None:
    ground = lay(aws)
    classic: Any = aws.elb
    classic.create_load_balancer(
        LoadBalancerName="old",
        Listeners=[{"Protocol": "TCP", "LoadBalancerPort": 80, "InstancePort": 80}],
        Subnets=ground.subnets,
    )
    aws.elbv2.create_load_balancer(Name="new", Type="network", Subnets=ground.subnets)
    looks: dict[str, tuple[Callable[[], Any], str, str]] = {
        "s3": (
            lambda: aws.s3.list_objects_v2(Bucket="sagemaker-demo"), "Contents", "Key",
        ),
        "elb": (
            classic.describe_load_balancers, "LoadBalancerDescriptions", "LoadBalancerName",
        ),
        "elbv2": (
            aws.elbv2.describe_load_balancers, "LoadBalancers", "LoadBalancerArn",
        ),
    }  # fmt: skip
    for service_, (look, results, name) in looks.items():
        (before,) = look()[results]
        told: set[str] = set()
        for seed in range(8):
            stack.sim.echo = Echo(seed, service_)
            (after,) = look()[results]
            assert after[name] == before[name]
            told |= after.keys()
        stack.sim.echo = None
        assert told > before.keys()


def whole(service: str) -> Any:
    """Return botocore's model of a service."""
    return loader(whole=True).load_service_model(service, "service-2")


def unsorted(call: tuple[str, str]) -> list[str]:
    """Return the members of an answer in no class: neither kept nor echo, nor below such a one."""
    name, operation = call
    shapes, members = whole(name)["shapes"], MEMBERS[call]
    named = {*members.reasons, *members.requests}

    def below(shape: Any, path: str) -> list[str]:
        found: list[str] = []
        for each, about in shape.get("members", {}).items():
            here, inner = f"{path}.{each}".lstrip("."), shapes[about["shape"]]
            if inner["type"] == "list":
                inner, start = shapes[inner["member"]["shape"]], f"{here}[]"
            else:
                start = here
            if any(other.startswith(f"{start}.") for other in named):
                found += below(inner, start)
            if here not in named and here not in PAGES:
                found.append(here)
        return found

    output = whole(name)["operations"][operation].get("output")
    return sorted(below(shapes[output["shape"]], "")) if output else []


def test_a_member_in_no_class_is_noticed() -> None:
    """The third class are members that AWS fills in by itself: a reviewed list.

    Classify new members of a new botocore: a member of a request is an echo; a member whose absence
    the tool reads, or that identifies the resource, is kept; others belong in this list.
    """
    own = {" ".join(call): unsorted(call) for call in sorted(MEMBERS)}
    if os.environ.get("WRITE_ECHO_OWN"):
        OWN.write_text(json.dumps(own, indent=1) + "\n")
    assert own == json.loads(OWN.read_text())


@pytest.mark.parametrize("call", MEMBERS)
def test_the_tables_name_members_that_exist(call: tuple[str, str]) -> None:
    name, operation = call
    shapes = whole(name)["shapes"]
    output = whole(name)["operations"][operation]["output"]["shape"]
    members = MEMBERS[call]
    for path in (*members.reasons, *members.requests, *members.unordered, *members.ordered):
        here: Any = shapes[output]
        for part in path.split("."):
            here = shapes[here["members"][part.removesuffix("[]")]["shape"]]
            if part.endswith("[]"):
                here = shapes[here["member"]["shape"]]
    assert not members.reasons.keys() & members.requests.keys()
