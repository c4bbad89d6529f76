"""Checks of the account: the caller, the region and training plans."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial

from hyperpod_eks import workers
from hyperpod_eks.aws.errors import ErrorKind
from hyperpod_eks.aws.failures import classify
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.errors import Denied, KnownCause, Usage
from hyperpod_eks.preflight.inputs import Facts, Finding, quota_rows
from hyperpod_eks.preflight.permissions import permissions
from hyperpod_eks.resolve.resolved import check_plans
from hyperpod_eks.resources import access_entry


def ahead() -> list[Callable[[Snapshot], object]]:
    """Return the reads that need only a region: quotas, whose many pages make them the slowest."""
    return [partial(quota_rows, service=each) for each in ("sagemaker", "vpc", "ec2", "eks")]


def begin(facts: Facts, skip: Collection[str]) -> None:
    """Start the reads that do not depend on our own resources, while those are observed.

    The checks use their answers, and repeat the reads that failed.
    """
    questions: list[Callable[[], object]] = [facts.clusters, facts.control_planes]
    if "permissions" not in skip:
        questions.append(partial(list, permissions(facts)))
    workers.start_all(questions)


def identity(facts: Facts) -> Iterator[Finding]:
    """The caller must be a principal that an EKS access entry can name."""
    caller = facts.aws.identity.arn
    if ":federated-user/" in caller:
        yield Finding(
            "identity",
            "error",
            f"you are {caller}: EKS has no access entries for federated users",
            "Run this as a role or an IAM user.",
            {"arn": caller},
        )
        return
    try:
        access_entry.caller(facts.snapshot)
    except (Usage, Denied) as error:
        yield Finding("identity", "error", f"you are {caller}: {error}", error.hint)


def region(facts: Facts) -> Iterator[Finding]:
    """HyperPod must answer in the region: an endpoint of SageMaker alone is no proof."""
    try:
        facts.clusters()
    except Exception as error:
        if classify(error) in (ErrorKind.EXPIRED, ErrorKind.DENIED):
            raise
        here = facts.aws.identity.region
        yield Finding(
            "region",
            "error",
            f"HyperPod does not answer in {here}: {error}",
            "Choose a region that has it, for example --region us-west-2.",
            {"region": here},
            KnownCause("no-hyperpod-region"),
        )


def training_plans(facts: Facts) -> Iterator[Finding]:
    """A training plan must be active, of the group's type, in its zone, and large enough."""
    try:
        if facts.resolved is not None:
            check_plans(facts.resolved, facts.aws)
    except Usage as error:
        seen = {"setting": error.setting}
        for line in str(error).splitlines():  # one line for each plan
            yield Finding("training-plans", "error", line, error.hint, seen)
