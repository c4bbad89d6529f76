"""A delete that proves itself: what carries our tags is seen, whoever has forgotten it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from hyperpod_eks import engine
from hyperpod_eks.aws import CLUSTER, LABEL, LINEAGE, Identity, Look
from hyperpod_eks.resource import Live
from hyperpod_eks.site import lineage
from hyperpod_eks.steps import network
from tests.conftest import Clients, User

HERE = Identity("", "123456789012", "aws", "us-west-2")


def test_a_signed_thing_that_nobody_remembers_is_named(user: User, aws: Clients) -> None:
    """As after a zone was dropped from the config and the manifest was lost."""
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0
    assert "already gone" in said.out
    tags = [
        {"Key": CLUSTER, "Value": "demo"},
        {"Key": LINEAGE, "Value": lineage(HERE, "demo")},
        {"Key": LABEL, "Value": "address-usw2-az9"},
    ]
    address = aws.ec2.allocate_address(
        Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": tags}]
    )["AllocationId"]
    said = user.types("delete", "demo", "--yes")
    assert said.code == 9
    assert f"network/address-usw2-az9: {address}" in said.err


def test_what_others_put_into_our_roles_and_policies_goes_with_them(
    user: User, aws: Clients
) -> None:
    user.makes("demo")
    statement = {"Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = "demo-hyperpod-us-west-2"
    aws.iam.put_role_policy(RoleName=role, PolicyName="theirs", PolicyDocument=text)
    arn = f"arn:aws:iam::123456789012:policy/{role}"
    aws.iam.create_policy_version(PolicyArn=arn, PolicyDocument=text)

    said = user.types("delete", "demo", "--yes")

    assert said.code == 0, said.err
    assert "nothing remains" in said.out


def test_what_a_delete_leaves_visible_for_a_moment_is_waited_for(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.makes("demo")
    monkeypatch.setattr(engine, "LONGEST", 0.01)
    shown: list[str] = []
    seen = network.SecurityGroup.find

    def late(self: network.SecurityGroup, look: Look) -> Sequence[Live]:
        gone = not seen(self, look)
        shown.append("gone" if gone else "there")
        if gone and shown.count("gone") < 3:
            return [Live("sg-1", owner=look.aws.lineage)]
        return seen(self, look)

    monkeypatch.setattr(network.SecurityGroup, "find", late)

    assert user.types("delete", "demo", "--yes").code == 0
    assert shown.count("gone") == 3
