"""What the jobs of all levels share: labels, tolerations, queue, waiting, and their removal."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, Unfinished
from hyperpod_eks.kube import jobs
from hyperpod_eks.kube.client import KubeNotReady, NotServed
from hyperpod_eks.kube.jobs import Reference
from hyperpod_eks.kube.nodes import GROUP_NAME
from hyperpod_eks.resources.access_entry import AccessEntry, AccessPolicy
from hyperpod_eks.resources.test_jobs import LABEL, JobsOfTest
from hyperpod_eks.smoke.inputs import Facts
from hyperpod_eks.workers import gather

PROBE = "hyperpod-eks"
WAIT = 60.0
"""Seconds after which Kubernetes removes a finished job if nobody else does."""
PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0)

T = TypeVar("T")


class Refused(HyperpodError):
    """The API server did not accept a job."""


def labels(facts: Facts, queue: str = "") -> dict[str, str]:
    """Return the labels of a job of a test and of its pods.

    Pods have the label of the queue as well: the admission policy of task governance refuses
    those without it (docs/task-governance.md).
    """
    return {LABEL: facts.name, **({jobs.QUEUE: queue} if queue else {})}


def template(facts: Facts, group: str, container: JsonMapping) -> JsonObject:
    """Return the specification of a pod on nodes of a group, whose taints it tolerates."""
    (found,) = (each for each in facts.groups if each["InstanceGroupName"] == group)
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "nodeSelector": {GROUP_NAME: group},
        "tolerations": [
            {"key": taint.partition("=")[0], "operator": "Exists"} for taint in facts.taints(found)
        ],
        "containers": [container],
    }


def run_job(
    facts: Facts,
    kind: str,
    namespace: str,
    document: JsonMapping,
    look: Callable[[Reference, float, bool], T | None],
    most: float,
) -> T:
    """Create a job, call ``look`` as `wait_until` does until it returns, and delete the job.

    Raises Refused if the API server does not accept it, or a webhook does not answer.
    """
    with facts.gate.entered():
        try:
            job = jobs.create(facts.access, kind, namespace, document)
        except HyperpodError as error:
            if isinstance(error, KubeNotReady) and not isinstance(error, NotServed):
                raise
            raise Refused(str(error)) from error
    try:
        return wait_until(facts, partial(look, job), most)
    finally:
        with suppress(HyperpodError):  # `end` deletes what is left, or says why it cannot
            jobs.delete(facts.access, job)


def once(facts: Facts, question: str, ask: Callable[[], T]) -> T:
    """Call ``ask`` once per test: all checks share its answer, and its error."""

    def attempt() -> tuple[T | None, HyperpodError | None]:
        try:
            return ask(), None
        except HyperpodError as error:
            return None, error

    answer, error = facts.snapshot.once(question, attempt)
    if error:
        raise error
    assert answer is not None
    return answer


def wait_until(facts: Facts, look: Callable[[float, bool], T | None], most: float) -> T:
    """Call ``look`` with the seconds waited and whether it is the last time, until it returns.

    Raises Unfinished at the deadline of the command, and once the test is stopped.
    """
    began, number = time.monotonic(), 0
    while True:
        waited = time.monotonic() - began
        if time.monotonic() >= facts.deadline:
            raise Unfinished("the test took longer than --timeout; what it created is removed")
        answer = look(waited, waited >= most)
        if answer is not None:
            return answer
        facts.gate.wait(PAUSES[min(number, len(PAUSES) - 1)])
        number += 1


def read_job(facts: Facts, job: Reference) -> JsonObject:
    """Return a job of this test.  Raises HyperpodError if somebody else has deleted it."""
    if not (document := jobs.find(facts.access, job)):
        raise HyperpodError(
            f"the job {job.namespace}/{job.name} of the test was deleted by somebody else",
            "Another test of this cluster may be running: run the same command again once it has"
            " ended.",
        )
    return document


def begin(facts: Facts) -> None:
    """Record that jobs may exist from now on, and delete those of a test that was killed."""
    if facts.manifest and facts.manifest.exists:
        facts.manifest.intend(declared(facts), time.time())
        facts.manifest.commit()
    remove(facts)


def end(facts: Facts) -> None:
    """Create no more jobs, delete all, and record that none exists."""
    facts.gate.close()
    try:
        remove(facts)
    except HyperpodError as error:
        error.add_note("jobs of the test may be left: the next test, create or delete deletes them")
        raise
    if facts.manifest and facts.manifest.exists:
        facts.manifest.forget(declared(facts).key)
        facts.manifest.commit()


def declared(facts: Facts) -> JobsOfTest:
    """Return the resource as which the jobs of a test are recorded."""
    manifest, access = facts.manifest, (AccessEntry.kind, AccessPolicy.kind)
    records = manifest.records.items() if manifest else ()
    keys = [k for k, one in records if one.kind in access and one.state != "deleted"]
    cluster, *entries = (manifest.declared(k) if manifest else None for k in ("eks/cluster", *keys))
    return JobsOfTest(
        "test-jobs",
        control=facts.eks_name,
        hyperpod=facts.name,
        cluster=cluster,
        after=tuple(each for each in entries if each),  # a delete needs them
    )


def remove(facts: Facts) -> None:
    """Delete every job of a test of this cluster, also those of a run that was killed."""
    there = jobs.labelled(facts.access, f"{LABEL}={facts.name}")
    gather(*(partial(jobs.delete, facts.access, each) for each in there))
