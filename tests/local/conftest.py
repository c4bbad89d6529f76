"""One stack for all tests of a process, emptied between them; its clock stands still."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.config import Config

from hyperpod_eks.local.aws.sim import Delays
from hyperpod_eks.local.stack import Stack

REGION = "us-west-2"


def apply(monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str | None]) -> None:
    """Set and unset variables as a stack's ``environ`` says."""
    for name, value in environ.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def one_stack() -> Iterator[Stack]:
    stack = Stack(region=REGION)
    yield stack
    stack.stop()


@pytest.fixture
def stack(one_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """An empty account where nothing takes time; clients made now talk to it."""
    one_stack.reset()
    one_stack.sim.delays = Delays.instant()
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    apply(monkeypatch, one_stack.environ({}))
    return one_stack


@pytest.fixture(scope="session")
def session() -> boto3.Session:
    # one for all tests: loading botocore's models is what takes the time
    return boto3.Session()


class Clients:
    """Clients by attribute: ``aws.ec2.describe_vpcs()``; they do not retry."""

    def __init__(self, session: boto3.Session, endpoint: str, attempts: int = 1) -> None:
        self._session, self._endpoint, self._attempts = session, endpoint, attempts

    def __getattr__(self, service: str) -> Any:
        client = self._session.client(
            service.replace("_", "-"),  # type: ignore[call-overload]  # the name is not a literal
            endpoint_url=self._endpoint,
            region_name=REGION,
            aws_access_key_id="ASIALOCALSTACK000000",
            aws_secret_access_key="local",
            config=Config(retries={"total_max_attempts": self._attempts, "mode": "standard"}),
        )
        setattr(self, service, client)
        return client


@pytest.fixture
def aws(stack: Stack, session: boto3.Session) -> Clients:
    return Clients(session, stack.endpoint)


@pytest.fixture
def patient(stack: Stack, session: boto3.Session) -> Clients:
    """Clients that retry as boto3 does by default."""
    return Clients(session, stack.endpoint, attempts=3)
