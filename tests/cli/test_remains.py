"""A delete that proves itself: what carries our tags is seen, whoever has forgotten it."""

from __future__ import annotations

from hyperpod_eks.aws import CLUSTER, LABEL, LINEAGE, Identity
from hyperpod_eks.site import lineage
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
