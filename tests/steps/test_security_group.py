"""Rules of a security group, of which EC2 may have one already."""

from __future__ import annotations

from dataclasses import replace

from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resources.base import Live, References
from hyperpod_eks.resources.ec2.security_group import SecurityGroup
from hyperpod_eks.resources.ec2.vpc import Vpc
from tests.conftest import Clients, new_aws


def test_a_rule_that_exists_does_not_stop_the_others(stack: Stack, aws: Clients) -> None:
    """EC2 refuses all rules of a call for one that exists, and describes that one late."""
    assert stack.inventory()
    ours, vpc = new_aws(), Vpc("vpc", cidr="10.0.0.0/16")
    ours.lineage = "0123456789abcdef"
    group = SecurityGroup("security-group", vpc=vpc, name="demo")
    references = References({vpc.key: Live(aws.ec2.create_vpc(CidrBlock=vpc.cidr)["Vpc"]["VpcId"])})
    found = group.create(ours, references, "")
    late = replace(found, facts={**found.facts, "egress": frozenset()})

    group.update(ours, references, late, {})

    (live,) = group.find(Snapshot(ours))
    assert (live.facts["ingress"], live.facts["egress"]) == ({"self"}, {"self", "0.0.0.0/0"})
