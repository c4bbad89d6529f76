"""An answer of AWS that lacks a member is not reported as our bug."""

from __future__ import annotations

import pytest

from hyperpod_eks.local.aws.echo import Echo

from .conftest import User

MISSING = {
    "eks:DescribeCluster": ("eks", "DescribeCluster", "cluster.arn"),
    "eks:DescribeAddon": ("eks", "DescribeAddon", "addon.status"),
    "sagemaker:DescribeCluster": ("sagemaker", "DescribeCluster", "ClusterStatus"),
    "iam:GetRole": ("iam", "GetRole", "Role.Arn"),
}


def test_a_needed_member_that_is_missing_is_named(user: User) -> None:
    user.has("demo")
    for call, (service, operation, path) in MISSING.items():
        user.stack.sim.echo = Echo(service=service, operation=operation, omits=(path,))
        said = user.types("status", "demo")
        assert said.code == 1, (call, said.err)
        assert f"the answer to {call} has no {path.rpartition('.')[2]}" in said.err
    user.stack.sim.echo = None


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(2, 12))]
)
def test_odd_answers_are_no_bug_of_ours(user: User, seed: int) -> None:
    user.has("demo")
    user.stack.sim.echo = Echo(seed)
    for words in (("status", "demo"), ("nodes", "demo"), ("list",)):
        assert user.types(*words).code in (0, 1, 6), words
    user.stack.sim.echo = None
