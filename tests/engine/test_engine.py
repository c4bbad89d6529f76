"""What the engine promises, on toys: microseconds instead of minutes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.engine.loop import GRACE
from hyperpod_eks.errors import Foreign, HyperpodError, Unfinished
from hyperpod_eks.events import EventType
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources.base import Live, Resource, State
from hyperpod_eks.resources.compare import Status

from .conftest import User
from .toys import Cloud, Nameless, Thing, Toy


def test_everything_is_made_after_what_it_needs(
    user: User, cloud: Cloud, wants: list[Resource]
) -> None:
    lives = user.create(wants)
    assert set(lives) == {want.key for want in wants}
    order = [call for call in cloud.calls if call.startswith("create")]
    assert order.index("create vpc") < order.index("create subnet") < order.index("create cluster")
    assert order.index("create bucket") < order.index("create cluster")


def test_a_second_create_changes_nothing(user: User, cloud: Cloud, wants: list[Resource]) -> None:
    user.create(wants)
    before = user.path.read_text()
    user.create(wants)
    assert cloud.calls == []
    assert user.path.read_text() == before
    assert not any(event.changed for event in user.events[-len(wants) :])


def test_delete_takes_everything_away_users_first(
    user: User, cloud: Cloud, wants: list[Resource]
) -> None:
    user.create(wants)
    user.delete(wants)
    assert cloud.things == []
    order = cloud.calls
    assert order.index("delete cluster") < order.index("delete subnet") < order.index("delete vpc")
    assert not user.path.exists()


def test_delete_of_nothing_is_fine(user: User, cloud: Cloud, wants: list[Resource]) -> None:
    user.delete(wants)
    assert cloud.calls == []


def test_create_finds_everything_again_without_the_manifest(
    user: User, cloud: Cloud, wants: list[Resource]
) -> None:
    user.create(wants)
    user.path.unlink()
    user.create(wants)
    assert cloud.calls == []
    assert set(json.loads(user.path.read_text())["resources"]) == {want.key for want in wants}


def test_delete_finds_everything_again_without_the_manifest(
    user: User, cloud: Cloud, wants: list[Resource]
) -> None:
    user.create(wants)
    user.path.unlink()
    user.delete(wants)
    assert cloud.things == []


def test_what_is_no_longer_declared_is_still_deleted(
    user: User, cloud: Cloud, wants: list[Resource]
) -> None:
    user.create(wants)
    user.delete(wants[:1])
    assert cloud.things == []


@pytest.mark.parametrize("owner", [None, "another lineage"])
def test_a_stranger_under_our_name_stops_us_before_the_first_change(
    user: User, cloud: Cloud, wants: list[Resource], owner: str | None
) -> None:
    cloud.things.append(Thing("theirs", "role", owner, "", "square"))
    with pytest.raises(Foreign, match="toys/role: theirs exists"):
        user.create(wants)
    assert cloud.calls == []


def test_a_stranger_is_left_alone_by_delete(
    user: User, cloud: Cloud, wants: list[Resource]
) -> None:
    cloud.things.append(Thing("theirs", "role", "another lineage", "", "square"))
    user.delete(wants)
    assert [t.id for t in cloud.things] == ["theirs"]


def test_somebody_elses_nameless_thing_is_no_obstacle(user: User, cloud: Cloud) -> None:
    cloud.things.append(Thing("theirs", "vpc", "another lineage", "", "square"))
    user.create([Nameless("vpc")])
    assert sorted(t.id for t in cloud.things) == ["id-1", "theirs"]
    user.delete([Nameless("vpc")])
    assert [t.id for t in cloud.things] == ["theirs"]


def test_drift_is_put_right(user: User, cloud: Cloud) -> None:
    user.create([Toy("role")])
    cloud.things[0].shape = "square"
    (observation,) = user.status([Toy("role")])
    assert (observation.status, dict(observation.differs)) == (
        Status.DRIFTED,
        {"shape": ("square", "round")},
    )
    user.create([Toy("role")])
    assert cloud.things[0].shape == "round"


@frozen
class Stubborn(Toy):
    """A thing that is described in the cloud's own way, whatever it accepts."""

    def update(self, *_: object) -> None:  # type: ignore[override]
        self.cloud.calls.append(f"settle {self.label}")


def test_what_the_cloud_accepts_and_never_shows_is_sent_once(user: User, cloud: Cloud) -> None:
    user.create([Stubborn("role")])
    shown: list[str] = []
    for shape, sent in (("square", True), ("square", False), ("flat", True), ("flat", False)):
        shown.clear()
        user.create([Stubborn("role", shape=shape)], warn=shown.append)
        assert cloud.calls == ["settle role"] * sent
        (line,) = shown
        assert line.startswith(f"toys/role: AWS accepted shape {shape!r} but returns 'round'")
        (observation,) = user.status([Stubborn("role", shape=shape)])
        assert (observation.status, dict(observation.differs)) == (Status.MATCHES, {})
        assert dict(observation.unproven) == {"shape": ("round", shape)}


@frozen
class Silent(Toy):
    """A thing whose description is silent about its shape."""

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        return [replace(live, facts={}) for live in super().find(snapshot)]


def test_what_the_cloud_does_not_describe_is_unknown_until_the_file_changes(
    user: User, cloud: Cloud
) -> None:
    user.create([Silent("role")])
    (observation,) = user.status([Silent("role")])
    assert (observation.status, observation.unknown) == (Status.MATCHES, ("shape",))
    for sent in (True, False):
        user.create([Silent("role", shape="square")])
        assert cloud.calls == ["settle role"] * sent
    assert cloud.things[0].shape == "square"


def test_drift_against_a_manifest_of_the_first_version_is_put_right(
    user: User, cloud: Cloud
) -> None:
    user.create([Toy("role")])
    manifest = json.loads(user.path.read_text())
    del manifest["resources"]["toys/role"]["sent"]
    user.path.write_text(json.dumps(manifest))
    user.create([Toy("role")])
    assert cloud.calls == []
    user.path.write_text(json.dumps(manifest))
    cloud.things[0].shape = "square"
    user.create([Toy("role")])
    assert cloud.calls == ["settle role"]


def test_a_lost_manifest_costs_one_correction(user: User, cloud: Cloud) -> None:
    user.create([Stubborn("role")])
    user.path.unlink()
    cloud.things[0].shape = "square"
    user.create([Stubborn("role")])
    assert cloud.calls == ["settle role"]
    user.create([Stubborn("role")])
    assert cloud.calls == []


def test_late_visibility_makes_no_twin(user: User, cloud: Cloud, wants: list[Resource]) -> None:
    cloud.lag = 20
    user.create(wants)
    assert len(cloud.things) == len(wants)
    user.delete(wants)
    assert cloud.things == []


def test_a_twin_of_ours_is_removed(user: User, cloud: Cloud) -> None:
    user.create([Nameless("vpc")])
    cloud.add("vpc", cloud.lineage, "", "round")
    user.create([Nameless("vpc")])
    assert [t.id for t in cloud.things] == ["id-1"]


def test_a_thing_that_was_deleted_by_hand_is_made_again(user: User, cloud: Cloud) -> None:
    user.create([Toy("role")])
    cloud.things.clear()
    cloud.clock.time += 3600
    user.create([Toy("role")])
    assert [t.id for t in cloud.things] == ["id-2"]


def test_a_failed_thing_stops_the_run_and_is_replaced_on_demand(user: User, cloud: Cloud) -> None:
    class Failing(Toy):
        def find(self, snapshot):  # type: ignore[no-untyped-def]
            return [
                replace(live, state=State.FAILED, why="no capacity") if live.id == "id-1" else live
                for live in super().find(snapshot)
            ]

    user.create([Toy("role")])
    with pytest.raises(HyperpodError, match="toys/role has failed: no capacity"):
        user.create([Failing("role")])
    user.create([Failing("role")], replace_failed=True)
    assert [t.id for t in cloud.things] == ["id-2"]


def test_every_resource_is_told_from_pending_to_ready(
    user: User, cloud: Cloud, wants: list[Resource]
) -> None:
    user.create(wants)
    for want in wants:
        shown = [event.what for event in user.events if event.key == want.key]
        assert (shown[0], shown[-1]) == (EventType.PENDING, EventType.READY)
        assert EventType.CREATING in shown


def test_status_changes_nothing_on_an_empty_account(
    user: User, cloud: Cloud, wants: list[Resource]
) -> None:
    observations = user.status(wants)
    assert {observation.status for observation in observations} == {Status.ABSENT}
    assert cloud.calls == []
    assert not user.path.exists()


# --- crashes: killed at every change, before and after it


def _calls_of_a_create(user: User, cloud: Cloud, wants: list[Resource]) -> int:
    user.create(wants)
    calls = len(cloud.calls)
    cloud.things.clear()
    user.path.unlink()
    return calls


@pytest.mark.parametrize("lag", [0.0, 20.0])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("resumed", ["create", "delete", "create without the manifest"])
def test_a_kill_at_any_change_of_create_loses_and_doubles_nothing(
    user: User, cloud: Cloud, wants: list[Resource], lag: float, after: bool, resumed: str
) -> None:
    calls = _calls_of_a_create(user, cloud, wants)
    cloud.lag = lag
    for call in range(1, calls + 1):
        assert user.killed_in(lambda: user.create(wants), call, after=after)
        if resumed == "create without the manifest":
            cloud.clock.time += lag  # nothing remembers what is not to be seen yet
            user.path.unlink(missing_ok=True)
            # what is neither signed nor remembered cannot be told from a stranger's
            cloud.things = [t for t in cloud.things if t.owner]
        if resumed != "delete":
            user.create(wants)
            assert len(cloud.things) == len(wants), call
            assert {t.shape for t in cloud.things} == {"round"}
            user.create(wants)
            assert cloud.calls == [], call
        user.delete(wants)
        assert cloud.things == [], call


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_change_of_delete_leaves_nothing_in_the_end(
    user: User, cloud: Cloud, wants: list[Resource], after: bool
) -> None:
    for call in range(1, len(wants) + 1):
        user.create(wants)
        assert user.killed_in(lambda: user.delete(wants), call, after=after)
        user.delete(wants)
        assert cloud.things == [], call
        assert not user.path.exists()


def test_grace_is_longer_than_the_lag_that_the_crash_tests_use() -> None:
    assert GRACE > 20


@frozen
class Growing(Toy):
    """A thing that never gets as large as it is to be."""

    patience = 10.0

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        return [replace(live, state=State.GROWING) for live in super().find(snapshot)]


def test_what_comes_up_is_changed_only_if_the_file_is(user: User, cloud: Cloud) -> None:
    def create(shape: str) -> None:
        with pytest.raises(Unfinished):
            user.create([Growing("role", shape=shape)])

    create("round")
    cloud.things[0].shape = "square"  # as a cloud that describes it in its own way
    create("round")
    assert cloud.calls == []
    user.path.unlink()
    create("round")
    assert cloud.calls == []
    user.create([Toy("role", shape="square")])
    create("flat")
    assert cloud.calls == ["settle role"]
    assert cloud.things[0].shape == "flat"
