"""An internet gateway that another run may attach at the same moment."""

from __future__ import annotations

from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resources.base import Live, References
from hyperpod_eks.resources.ec2.gateways import InternetGateway
from hyperpod_eks.resources.ec2.vpc import Vpc
from tests.conftest import Clients, new_aws


def test_one_that_is_attached_already_is_looked_at_again(stack: Stack, aws: Clients) -> None:
    assert stack.inventory()
    ours, vpc = new_aws(), Vpc("vpc", cidr="10.0.0.0/16")
    ours.lineage = "0123456789abcdef"
    gateway = InternetGateway("internet-gateway", vpc=vpc)
    mine, theirs = (aws.ec2.create_vpc(CidrBlock=vpc.cidr)["Vpc"]["VpcId"] for _ in range(2))
    references = References({vpc.key: Live(mine)})
    found = gateway.create(ours, references, "")
    aws.ec2.attach_internet_gateway(InternetGatewayId=found.id, VpcId=theirs)

    assert gateway.update(ours, references, found, {"vpc": (None, mine)}) is None

    (live,) = gateway.find(Snapshot(ours))
    assert live.facts["vpc"] == theirs
