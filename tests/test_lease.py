"""The lock that an object is: whoever holds it can tell in time that it may have been lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hyperpod_eks.local.stack import Stack
from hyperpod_eks.state import lease
from hyperpod_eks.state.lease import LASTS, TERM, Lease
from hyperpod_eks.state.objects import Objects
from tests.conftest import Clients, new_aws


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(lease, "clock", time)
    return time


@pytest.fixture
def held(stack: Stack, aws: Clients) -> Iterator[Lease]:
    where: Any = {"LocationConstraint": "us-west-2"}
    aws.s3.create_bucket(Bucket="team-state", CreateBucketConfiguration=where)
    held = Lease(Objects(new_aws(), "team-state"), "lock")
    held.look()
    yield held
    held.release()


class Away(Exception):
    """S3 does not answer."""


def test_a_holder_that_cannot_write_stops_before_anybody_may_take_over(
    held: Lease, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.hold()
    with monkeypatch.context() as patch:
        patch.setattr(held.objects, "put", lambda *_: raise_(Away()))
        time.now = LASTS - 1
        held.hold()
        time.now = TERM - 20  # a call that is sent now must arrive before
        with pytest.raises(Away):
            held.hold()
    held.hold()  # nobody has taken it


def raise_(error: Exception) -> None:
    raise error


def test_the_time_counts_from_the_request_and_not_from_its_answer(
    held: Lease, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = held.objects.put
    written = []

    def slow(*about: Any) -> Any:
        written.append(time.now)
        answer = put(*about)
        time.now += LASTS - 1
        return answer

    monkeypatch.setattr(held.objects, "put", slow)
    held.hold()
    time.now += 2
    held.hold()
    assert written == [0, LASTS + 1]
