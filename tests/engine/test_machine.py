"""Random sequences of commands and faults end without losses, duplicates and leftovers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hyperpod_eks.errors import Locked
from hyperpod_eks.resources.base import Proof, Resource
from hyperpod_eks.state.file_store import FileStore, locked
from hyperpod_eks.state.manifest import read

from .conftest import Rig
from .toys import Attachment, Cloud, FakeClock, Nameless, Thing, Toy, Unsigned

SHAPES = st.sampled_from(["round", "square"])
CALLS = st.integers(1, 14)
THEIRS = [Thing("theirs-1", "vpc", "others", "", "theirs"), Thing("theirs-2", "x", None, "", "-")]


def declared(shape: str, more: bool) -> list[Resource]:
    vpc, bucket = Nameless("vpc"), Unsigned("bucket")
    subnet = Toy("subnet", shape=shape, needs_=(vpc,))
    address = Nameless("address", needs_=(vpc,))
    policy = Attachment("policy", shape=shape)
    nodes = Toy("nodes", shape=shape, needs_=(subnet, address, policy), after=(bucket,))
    extra = [Toy("extra", needs_=(vpc,))] if more else []
    return [vpc, bucket, subnet, address, policy, nodes, *extra]


class Life(RuleBasedStateMachine):
    """A state machine: one account, one manifest, one user, and random events."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.cloud = Toy.cloud = Cloud(FakeClock())
        self.cloud.things += [Thing(**vars(thing)) for thing in THEIRS]
        self.rig = Rig(self.cloud, Path(self.folder.name) / "toy.json")
        self.wants = declared("round", False)
        self.serial = 0
        self.forgotten = False

    def teardown(self) -> None:
        self.cloud.lag = 0.0
        self._delete()
        self.folder.cleanup()

    @property
    def ours(self) -> list[Thing]:
        return [t for t in self.cloud.things if not t.id.startswith("theirs")]

    def _create(self) -> None:
        with locked(self.rig.path):
            self.rig.create(self.wants)
        made = sorted(t.name for t in self.ours)
        declared_now = {want.label for want in self.wants}
        assert len(made) == len(set(made)), made
        assert declared_now <= set(made)
        shapes = {want.label: want.shape for want in self.wants if isinstance(want, Toy)}
        assert {t.name: t.shape for t in self.ours if t.name in shapes} == shapes
        records = read(FileStore(self.rig.path), "toy").records
        assert {t.id for t in self.ours} <= {record.id for record in records.values()}
        self.forgotten = False

    def _delete(self) -> None:
        with locked(self.rig.path):
            self.rig.delete(self.wants)
        assert self.ours == []
        assert not self.rig.path.exists()
        self.serial = 0

    @rule(shape=SHAPES, more=st.booleans())
    def create(self, shape: str, more: bool) -> None:
        # resources neither declared nor recorded are for `orphans` to find
        self.wants = declared(shape, more or self.forgotten)
        self._create()

    @rule()
    def create_again(self) -> None:
        self._create()
        with locked(self.rig.path):
            self.rig.create(self.wants)
        assert self.cloud.calls == []

    @rule()
    def delete(self) -> None:
        self._delete()

    @rule(call=CALLS, after=st.booleans(), shape=SHAPES)
    def create_is_killed(self, call: int, after: bool, shape: str) -> None:
        self.wants = declared(shape, True)
        self.rig.killed_in(lambda: self.rig.create(self.wants), call, after=after)

    @rule(call=CALLS, after=st.booleans())
    def delete_is_killed(self, call: int, after: bool) -> None:
        if not self.rig.killed_in(lambda: self.rig.delete(self.wants), call, after=after):
            self.serial = 0

    @rule(data=st.data(), shape=st.sampled_from(["bent", "broken"]))
    def somebody_bends_something(self, data: Any, shape: str) -> None:
        # a change of a field that the cloud has never described as sent looks like a cloud that
        # describes it otherwise
        records = read(FileStore(self.rig.path), "toy").records.values()
        silent = {
            record.id or record.token
            for record in records
            if record.unsure
            or (
                record.kind != Attachment.kind  # whose description is always believed
                and any(each.proof is Proof.SENT for each in (record.sent or {}).values())
            )
        }
        if shown := [thing for thing in self.ours if not {thing.id, thing.token} & silent]:
            data.draw(st.sampled_from(shown)).shape = shape

    @rule(data=st.data())
    def somebody_deletes_something(self, data: Any) -> None:
        if self.ours:
            self.cloud.things.remove(data.draw(st.sampled_from(self.ours)))

    @rule(seconds=st.sampled_from([1.0, 30.0, 90.0, 86400.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.cloud.clock.time += seconds

    @rule(lag=st.sampled_from([0.0, 5.0, 40.0]))
    def the_cloud_becomes_slow(self, lag: float) -> None:
        self.cloud.lag = lag

    @rule()
    def the_manifest_is_lost(self) -> None:
        # resources that are invisible and not recorded can only be waited for
        self.cloud.clock.time += 60
        self.rig.path.unlink(missing_ok=True)
        self.forgotten, self.wants = True, declared("round", True)
        self.serial = 0
        # without tags and a record it looks like another owner's
        self.cloud.things = [t for t in self.cloud.things if t.owner or t not in self.ours]

    @rule()
    def a_contender_comes(self) -> None:
        with (
            locked(self.rig.path),
            pytest.raises(Locked, match="is working on"),
            locked(self.rig.path),
        ):
            pass

    @invariant()
    def what_is_theirs_is_untouched(self) -> None:
        assert [t for t in self.cloud.things if t.id.startswith("theirs")] == THEIRS

    @invariant()
    def the_journal_can_be_read_and_its_serial_never_falls(self) -> None:
        if self.rig.path.exists():
            serial = read(FileStore(self.rig.path), "toy").serial
            assert serial >= self.serial
            self.serial = serial


Life.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_any_life = Life.TestCase
