"""Fixtures of the embedded stack's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import INSTANT, Cluster, Delays
from hyperpod_eks.local.tls import Pki

from .test_kubernetes import USERS, Client, Start


@pytest.fixture
def start(pki: Pki) -> Iterator[Start]:
    """A function that starts clusters, each with a client; they are stopped after the test."""
    stops: list[Callable[[], None]] = []

    def start(clock: Clock | None = None, delays: Delays = INSTANT) -> tuple[Cluster, Client]:
        cluster = Cluster(clock or Clock(), USERS.get, "1.33", pki, delays=delays)
        client = Client(cluster)
        stops.extend((client.close, cluster.stop))
        return cluster, client

    yield start
    for stop in stops:
        stop()


@pytest.fixture(scope="module")
def cluster(pki: Pki) -> Iterator[Cluster]:
    """A Kubernetes cluster that the tests of a module share."""
    cluster = Cluster(Clock(), USERS.get, "1.33", pki, delays=INSTANT)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[Client]:
    """A client of that cluster."""
    client = Client(cluster)
    yield client
    client.close()
