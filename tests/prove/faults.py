"""Faults of AWS, without a kill: every run must end successfully."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from hyperpod_eks.local.aws.sim import Fault

from . import oracles
from .host import DELAYS
from .oracles import Broken
from .prover import TWO_NODES, Prover

MANY, TWICE = 10**6, 2
IN_S3 = "create, state in S3"
UNREAD = "(Describe|List|Get|Head).*"
CHANGE = f"(?!{UNREAD}).*"


def _throttled(prover: Prover) -> None:
    """30 % of calls are throttled."""
    _storm(
        prover,
        Fault("ec2", code="RequestLimitExceeded", status=503, rate=0.3, count=MANY),
        Fault(".*", code="ThrottlingException", status=400, rate=0.3, count=MANY),
    )


def _shaken(prover: Prover) -> None:
    """10 % of calls return an internal error, with or without their effect."""
    _storm(prover, Fault(".*", code="InternalError", status=500, rate=0.1, count=MANY))


def _deaf(prover: Prover) -> None:
    """50 % of the answers to mutating calls are lost."""
    _storm(prover, Fault(".*", CHANGE, kind="lost", rate=0.5, count=MANY))


def _hidden(prover: Prover) -> None:
    """New resources are invisible for twenty seconds."""
    _storm(
        prover,
        Fault("ec2", "(Create|Allocate).*", kind="lag", seconds=20, count=MANY),
        Fault("iam", "Create.*", kind="lag", seconds=20, count=MANY),
    )


def _hidden_and_deaf(prover: Prover) -> None:
    """New resources are invisible for twenty seconds, and answers are lost."""
    _storm(
        prover,
        Fault("ec2", "(Create|Allocate).*", kind="lag", seconds=20, count=MANY),
        Fault("ec2", "(Create|Allocate).*", kind="lost", rate=0.4, count=MANY),
    )


def _deaf_in_s3(prover: Prover) -> None:
    """30 % of the answers are lost, those to writes of the manifest and of its lock too."""
    _storm(prover, Fault(".*", CHANGE, kind="lost", rate=0.3, count=MANY), scenario=IN_S3)


def _slow_identities(prover: Prover) -> None:
    """Other services accept a new role only after a minute."""
    prover.begin()
    prover.host.stack.sim.delays = replace(DELAYS, iam=60, access_entry=60)
    _whole_life(prover)


def _clinging(prover: Prover) -> None:
    """Deletes are refused for minutes because of dependencies."""
    prover.begin()
    prover.finish("create", TWO_NODES)
    for operation in ("DeleteSubnet", "DeleteSecurityGroup", "DeleteVpc", "DeleteInternetGateway"):
        prover.host.stack.faults.append(
            Fault("ec2", operation, "DependencyViolation", 400, "has dependencies", count=20)
        )
    prover.finish("delete", TWO_NODES)
    prover.host.stack.faults.clear()
    oracles.nothing_left(prover.host, prover.before)


def _storm(prover: Prover, *faults: Fault, scenario: str = "create") -> None:
    prover.begin(scenario)
    prover.host.stack.faults.extend(faults)
    _whole_life(prover, faults)


def _whole_life(prover: Prover, faults: tuple[Fault, ...] = ()) -> None:
    host = prover.host
    prover.finish("create", TWO_NODES)
    host.stack.faults.clear()
    host.stack.clock.advance(60)
    oracles.same_shape(host, prover.made)
    oracles.journal_knows(host)
    prover.quiet(TWO_NODES)
    host.stack.faults.extend(faults)
    prover.finish("delete", TWO_NODES)
    host.stack.faults.clear()
    oracles.nothing_left(host, prover.before)
    unused = [fault for fault in faults if fault.count in (MANY, TWICE)]
    if unused:
        raise Broken(f"never happened: {unused}")


def _lost_once(operation: str) -> Callable[[Prover], None]:
    def fault(prover: Prover) -> None:
        """The answers to the first two calls of the operation are lost."""
        service, _, name = operation.partition(":")
        _storm(prover, Fault(service, name, kind="lost", count=TWICE))

    return fault


CHANGES = (
    "ec2:CreateVpc", "ec2:CreateInternetGateway", "ec2:AllocateAddress", "ec2:CreateSubnet",
    "ec2:CreateNatGateway", "ec2:CreateRouteTable", "ec2:CreateRoute", "ec2:AssociateRouteTable",
    "ec2:CreateVpcEndpoint", "ec2:CreateSecurityGroup", "ec2:AuthorizeSecurityGroupIngress",
    "ec2:AuthorizeSecurityGroupEgress", "ec2:AttachInternetGateway", "ec2:ModifyVpcAttribute",
    "iam:CreateRole", "iam:CreatePolicy", "iam:AttachRolePolicy", "iam:CreateServiceLinkedRole",
    "s3:CreateBucket", "s3:PutObject", "s3:PutBucketPolicy",
    "logs:CreateLogGroup", "logs:PutRetentionPolicy", "eks:CreateCluster",
    "eks:CreateAccessEntry", "eks:AssociateAccessPolicy", "eks:CreateAddon",
    "sagemaker:CreateCluster", "ec2:DeleteVpc", "ec2:DeleteSubnet", "ec2:DeleteNatGateway",
    "ec2:ReleaseAddress", "ec2:DetachInternetGateway", "ec2:DeleteInternetGateway",
    "ec2:DeleteRouteTable", "ec2:DisassociateRouteTable", "ec2:DeleteVpcEndpoints",
    "ec2:DeleteSecurityGroup", "iam:DetachRolePolicy", "iam:DeleteRole", "iam:DeletePolicy",
    "s3:DeleteObjects", "s3:DeleteBucket", "logs:DeleteLogGroup", "eks:DeleteCluster",
    "sagemaker:DeleteCluster",
)  # fmt: skip

FAULTS: Mapping[str, Callable[[Prover], None]] = {
    "throttling 30 %": _throttled,
    "internal errors 10 %": _shaken,
    "lost answers 50 %": _deaf,
    "lost answers 30 %, state in S3": _deaf_in_s3,
    "seen after 20 s": _hidden,
    "seen after 20 s, answers lost": _hidden_and_deaf,
    "roles known after 60 s": _slow_identities,
    "refused deletes": _clinging,
} | {f"lost answer of {operation}": _lost_once(operation) for operation in CHANGES}

__all__ = ["FAULTS", "Broken"]
