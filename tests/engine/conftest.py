"""Fixtures for tests of the engine: a toy account, and commands that run in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks import engine
from hyperpod_eks.engine import Context
from hyperpod_eks.events import Event
from hyperpod_eks.resources.base import Live, Resource
from hyperpod_eks.resources.compare import Observation
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.manifest import read

from .toys import Cloud, FakeClock, Killed, Nameless, Toy, ToyAws, Unsigned


class Rig:
    """Runs create, status and delete against one toy account, each as a new process."""

    def __init__(self, cloud: Cloud, path: Path) -> None:
        self.cloud, self.path = cloud, path
        self.events: list[Event] = []
        self.context = self._world()

    def _world(self) -> Context:
        self.cloud.restart()
        aws: Any = ToyAws(self.cloud)
        manifest = read(FileStore(self.path), "toy")
        manifest.lineage = self.cloud.lineage
        return Context(aws, manifest, self.events.append, clock=self.cloud.clock, parallelism=2)

    def create(self, wants: Sequence[Resource], **context: Any) -> dict[str, Live]:
        self.context = self._world()
        for name, value in context.items():
            setattr(self.context, name, value)
        return engine.create(wants, self.context)

    def status(self, wants: Sequence[Resource]) -> list[Observation]:
        self.context = self._world()
        return engine.status(wants, self.context)

    def delete(self, wants: Sequence[Resource]) -> None:
        self.context = self._world()
        _, kept = engine.delete(wants, self.context)
        assert not engine.verify_deleted(wants, self.context, frozenset(kept))
        self.context.manifest.retire()

    def killed_in(self, command: Callable[[], object], call: int, *, after: bool) -> bool:
        """Run a command, killed before or after its ``call``-th change; False if it has fewer."""
        original = self._world

        def fused() -> Context:
            context = original()
            self.cloud.fuse, self.cloud.after = call, after
            return context

        self._world = fused  # type: ignore[method-assign]  # the next process gets a fuse
        try:
            command()
        except Killed:
            return True
        finally:
            self._world = original  # type: ignore[method-assign]
        return False


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud(FakeClock())
    Toy.cloud = cloud
    return cloud


@pytest.fixture
def rig(cloud: Cloud, tmp_path: Path) -> Rig:
    return Rig(cloud, tmp_path / "toy.json")


@pytest.fixture
def wants() -> list[Resource]:
    """A small graph with every kind of toy resource."""
    vpc = Nameless("vpc")
    role = Toy("role")
    bucket = Unsigned("bucket")
    subnet = Toy("subnet", needs_=(vpc,))
    cluster = Toy("cluster", needs_=(subnet, role), after=(bucket,))
    return [vpc, role, bucket, subnet, cluster]
