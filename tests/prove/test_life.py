"""Random sequences of commands and faults on a cluster, with the real steps, stack and helm.

tests/engine/test_machine.py runs thousands of them on toy resources; here each takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hyperpod_eks.aws.client import Identity
from hyperpod_eks.aws.tags import LINEAGE
from hyperpod_eks.engine.loop import GRACE
from hyperpod_eks.errors import Locked, Usage
from hyperpod_eks.local.aws.sim import ACCOUNT
from hyperpod_eks.resolve.names import lineage
from hyperpod_eks.state.file_store import locked

from . import oracles
from .host import NAME, REGION, Boundary, Host
from .prover import THREE_NODES, TWO_NODES, Prover

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "two nodes": TWO_NODES,
    "three nodes": THREE_NODES,
    "a NAT gateway per zone": TWO_NODES | {"network": {"nat": "per-az"}},
    "a closed door more": TWO_NODES | {"network": {"interface_endpoints": ["sts"]}},
}


class Life(RuleBasedStateMachine):
    """A state machine: one account with resources of others, one manifest, and random events."""

    prover: ClassVar[Prover]
    paths: ClassVar[Mapping[str, list[Boundary]]]

    @initialize()
    def an_account(self) -> None:
        self.prover.begin()
        self.host: Host = self.prover.host
        self.config: Mapping[str, Any] = TWO_NODES
        self.forgotten = False  # nothing records the resources of an earlier config
        self.grown = False  # a third node existed, whose log stays

    def teardown(self) -> None:
        if hasattr(self, "host"):
            self.delete()

    def declare(self, name: str) -> None:
        self.config = CONFIGS[name]
        self.grown = self.grown or name == "three nodes"

    def snapshot(self) -> None:
        oracles.others_untouched(self.host, self.prover.before)

    @rule(name=st.sampled_from(sorted(CONFIGS)))
    def create(self, name: str) -> None:
        self.declare(name)
        self.prover.finish("create", self.config)
        self.snapshot()
        if not self.forgotten:
            oracles.journal_knows(self.host)
        if name == "two nodes" and not (self.forgotten or self.grown):
            oracles.same_shape(self.host, self.prover.made)
        self.prover.quiet(self.config)

    @rule()
    def delete(self) -> None:
        self.prover.finish("delete", self.config)
        oracles.nothing_left(self.host, self.prover.before)
        self.host.forget()
        self.forgotten = self.grown = False

    @rule(data=st.data(), name=st.sampled_from(sorted(CONFIGS)), flood=st.booleans())
    def a_create_is_killed(self, data: Any, name: str, flood: bool) -> None:
        self.declare(name)
        fuse = data.draw(st.sampled_from(self.paths["create"]))
        self.host.run("create", fuse=fuse, flood=flood, config=self.config)
        self.snapshot()

    @rule(data=st.data(), flood=st.booleans())
    def a_delete_is_killed(self, data: Any, flood: bool) -> None:
        fuse = data.draw(st.sampled_from(self.paths["delete"]))
        self.host.run("delete", fuse=fuse, flood=flood, config=self.config)
        if not self.host.path.exists():  # the run ended before the fuse
            self.host.forget()
            self.forgotten = self.grown = False
        self.snapshot()

    @rule(
        what=st.sampled_from(["nat gateway", "rules", "policy", "retention", "scripts", "address"])
    )
    def somebody_meddles(self, what: str) -> None:
        with suppress(ClientError, IndexError):
            meddle(self.host, what)

    @rule(seconds=st.sampled_from([1.0, 30.0, 90.0, 7200.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.host.stack.clock.advance(seconds)

    @precondition(lambda self: self.host.path.exists())
    @rule(broken=st.booleans())
    def the_manifest_is_lost(self, broken: bool) -> None:
        if broken:
            self.host.path.write_text(self.host.path.read_text()[:500])
            with pytest.raises(Usage, match="is broken"):
                self.prover.finish("create", self.config)
        self.host.path.unlink()
        self.host.stack.clock.advance(GRACE)  # see docs/crash-safety.md, "Limits"
        self.host.unlock()  # nobody knows any more that the run in the claim has ended
        self.host.forget()
        self.forgotten = True

    @rule()
    def a_contender_comes(self) -> None:
        with locked(self.host.path), pytest.raises(Locked, match="is working on"):
            self.prover.finish("create", self.config)


def meddle(host: Host, what: str) -> None:
    """Change a resource by hand, if it exists; create must correct it."""
    client = host.session.somebody
    seal = lineage(Identity("", ACCOUNT, "aws", REGION), NAME)
    ours: Any = [{"Name": f"tag:{LINEAGE}", "Values": [seal]}]
    ec2 = client("ec2")
    match what:
        case "nat gateway":
            gateways = ec2.describe_nat_gateways(Filter=ours)["NatGateways"]
            ec2.delete_nat_gateway(NatGatewayId=gateways[0]["NatGatewayId"])
        case "address":
            address = ec2.describe_addresses(Filters=ours)["Addresses"][0]
            ec2.release_address(AllocationId=address["AllocationId"])
        case "rules":
            group = ec2.describe_security_groups(Filters=ours)["SecurityGroups"][0]
            ec2.revoke_security_group_ingress(
                GroupId=group["GroupId"], IpPermissions=group["IpPermissions"]
            )
        case "policy":
            client("iam").detach_role_policy(
                RoleName=f"{NAME}-eks-{REGION}",
                PolicyArn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy",
            )
        case "retention":
            client("logs").put_retention_policy(
                logGroupName=f"/aws/eks/{NAME}/cluster", retentionInDays=1
            )
        case _:
            client("s3").put_object(
                Bucket=f"sagemaker-{NAME}-{ACCOUNT}-{REGION}", Key="lifecycle/more.sh", Body=b"x"
            )


@pytest.mark.prove
def test_any_life_of_a_real_cluster(prover: Prover) -> None:
    Life.prover = prover
    Life.paths = {
        verb: [boundary for boundary, _ in prover.undisturbed(verb).path]
        for verb in ("create", "delete")
    }
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=25,
            stateful_step_count=8,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
