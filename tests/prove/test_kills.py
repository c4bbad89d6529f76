"""Kills in most steps, before, during and after their changes: a sample of the long proof."""

from __future__ import annotations

from typing import Any

import pytest

from .host import Boundary
from .prover import TWO_NODES, Case, Prover


def case(scenario: str, kind: str, what: str, ending: str, nth: int = 1) -> Case:
    return Case(scenario, Boundary(kind, what, nth), ending)


SAMPLE = {
    "network": [
        case("create", "after", "ec2:CreateVpc", "resume"),
    ],
    "s3": [
        case("create", "after", "s3:PutObject", "delete"),
    ],
    "eks": [
        case("delete", "after", "eks:DeleteCluster", "resume"),
    ],
    "helm": [
        case("a chart more", "helm", "end", "resume"),
    ],
    "hyperpod": [
        case("scale", "after", "sagemaker:UpdateCluster", "resume"),
        case("delete", "after", "sagemaker:DeleteCluster", "killed again"),
    ],
    "the journal": [
        case("create", "file", "fsync", "resume", 9),
    ],
    "storage": [
        case("delete with its data", "after", "fsx:DeleteFileSystem", "resume"),
    ],
    "teams": [
        case("delete with teams", "after", "sagemaker:DeleteClusterSchedulerConfig", "flooded"),
    ],
    "test": [
        case("test", "after", "POST mpijobs", "create"),
    ],
    "state in S3": [
        case("create, state in S3", "after", "iam:AttachRolePolicy", "suspended", 2),
    ],
}
MORE = {
    "iam": [
        case("create", "after", "iam:CreateRole", "flooded"),
    ],
    "network": [
        case("delete", "after", "ec2:DeleteNatGateway", "flooded"),
    ],
    "roles for pods": [
        case("roles for pods", "after", "iam:CreateRole", "resume"),
        case("roles for pods", "after", "eks:CreatePodIdentityAssociation", "flooded"),
    ],
    "metrics and logs": [
        case("logs instead of metrics", "after", "eks:DeleteAddon", "flooded"),
        case("delete with logs", "after", "cloudwatch-logs:DeleteLogGroup", "killed again"),
        case("metrics", "after", "amp:CreateWorkspace", "resume"),
    ],
    "node pools": [
        case("a node pool", "after", "sagemaker:UpdateCluster", "resume"),
        case("delete with a node pool", "after", "sagemaker:DeleteCluster", "flooded"),
    ],
    "teams": [
        case("teams", "after", "sagemaker:CreateComputeQuota", "resume"),
        case("teams", "after", "sagemaker:CreateClusterSchedulerConfig", "flooded"),
        case("a team less", "after", "sagemaker:DeleteComputeQuota", "resume"),
    ],
    "waits": [
        case("create", "wait", "tick", "resume", 12),
    ],
    "addons": [
        case("create", "after", "eks:CreateAddon", "delete"),
    ],
    "helm": [
        case("create", "helm", "start upgrade", "resume"),
    ],
    "storage": [
        case("create with a file system", "after", "fsx:CreateFileSystem", "resume"),
        case("delete with a file system", "after", "eks:DeleteCluster", "resume"),
        case("delete with its data", "after", "ec2:CreateSnapshot", "resume"),
    ],
    "operators": [
        case("spaces", "after", "eks:CreateAddon", "resume"),
        case("inference", "after", "iam:CreateOpenIDConnectProvider", "flooded"),
        case("inference", "after", "iam:CreateRole", "killed again", 3),
        case("inference", "before", "s3:CreateBucket", "resume"),
        case("delete with certificates", "after", "s3:DeleteObjects", "resume"),
        case("inference less", "after", "iam:DeleteOpenIDConnectProvider", "flooded"),
    ],
    "the claim": [
        case("create", "after", "s3:PutObject", "resume"),
        case("create in a VPC of others", "before", "s3:CreateBucket", "suspended"),
    ],
    "state in S3": [
        case("create, state in S3", "after", "s3:PutObject", "elsewhere", 9),
    ],
}
"""Cases that only the mutants of `mutants` run: the long proof has all cases of its own."""


def named(cases: dict[str, list[Case]], *marks: pytest.MarkDecorator) -> list[Any]:
    return [
        pytest.param(one, id=f"{step}: {one}", marks=marks)
        for step, them in cases.items()
        for one in them
    ]


@pytest.mark.parametrize("one", named(SAMPLE) + named(MORE, pytest.mark.prove))
def test_a_kill_loses_doubles_and_leaves_nothing(prover: Prover, one: Case) -> None:
    prover.prove(one)


def test_hyperpod_goes_first_and_the_roles_go_last(prover: Prover) -> None:
    prover.created()
    prover.host.stack.calls.clear()
    prover.finish("delete", TWO_NODES)
    order = [f"{c.service}:{c.operation}" for c in prover.host.stack.calls if c.mutating]
    milestones = ["sagemaker:DeleteCluster", "eks:DeleteCluster", "ec2:DeleteVpc"]
    assert [x for x in order if x in milestones] == milestones
    assert order.index("sagemaker:DeleteCluster") < order.index("iam:DeleteRole")
    assert order.index("eks:DeleteCluster") < order.index("iam:DeleteRole")
