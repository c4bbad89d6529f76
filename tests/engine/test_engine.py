"""The engine's guarantees, on toy resources: microseconds instead of minutes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.engine.loop import GRACE
from hyperpod_eks.errors import Foreign, HyperpodError, Unfinished
from hyperpod_eks.events import EventType
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources.base import Differs, Live, Resource, State
from hyperpod_eks.resources.compare import Status

from .conftest import Rig
from .toys import Attachment, Cloud, Nameless, Thing, Toy, refusal


def test_everything_is_made_after_what_it_needs(
    rig: Rig, cloud: Cloud, wants: list[Resource]
) -> None:
    lives = rig.create(wants)
    assert set(lives) == {want.key for want in wants}
    order = [call for call in cloud.calls if call.startswith("create")]
    assert order.index("create vpc") < order.index("create subnet") < order.index("create cluster")
    assert order.index("create bucket") < order.index("create cluster")


def test_a_second_create_changes_nothing(rig: Rig, cloud: Cloud, wants: list[Resource]) -> None:
    rig.create(wants)
    before = rig.path.read_text()
    rig.create(wants)
    assert cloud.calls == []
    assert rig.path.read_text() == before
    assert not any(event.changed for event in rig.events[-len(wants) :])


def test_delete_takes_everything_away_users_first(
    rig: Rig, cloud: Cloud, wants: list[Resource]
) -> None:
    rig.create(wants)
    rig.delete(wants)
    assert cloud.things == []
    order = cloud.calls
    assert order.index("delete cluster") < order.index("delete subnet") < order.index("delete vpc")
    assert not rig.path.exists()


def test_delete_of_nothing_is_fine(rig: Rig, cloud: Cloud, wants: list[Resource]) -> None:
    rig.delete(wants)
    assert cloud.calls == []


def test_create_finds_everything_again_without_the_manifest(
    rig: Rig, cloud: Cloud, wants: list[Resource]
) -> None:
    rig.create(wants)
    rig.path.unlink()
    rig.create(wants)
    assert cloud.calls == []
    assert set(json.loads(rig.path.read_text())["resources"]) == {want.key for want in wants}


def test_delete_finds_everything_again_without_the_manifest(
    rig: Rig, cloud: Cloud, wants: list[Resource]
) -> None:
    rig.create(wants)
    rig.path.unlink()
    rig.delete(wants)
    assert cloud.things == []


def test_what_is_no_longer_declared_is_still_deleted(
    rig: Rig, cloud: Cloud, wants: list[Resource]
) -> None:
    rig.create(wants)
    rig.delete(wants[:1])
    assert cloud.things == []


@pytest.mark.parametrize("owner", [None, "another lineage"])
@pytest.mark.parametrize("label", ["role", "cluster"])  # the first and the last one
def test_a_stranger_under_our_name_stops_us_before_the_first_change(
    rig: Rig, cloud: Cloud, wants: list[Resource], label: str, owner: str | None
) -> None:
    cloud.things.append(Thing("theirs", label, owner, "", "square"))
    with pytest.raises(Foreign, match=f"toys/{label}: theirs already exists"):
        rig.create(wants)
    assert cloud.calls == []


def test_a_stranger_is_left_alone_by_delete(rig: Rig, cloud: Cloud, wants: list[Resource]) -> None:
    cloud.things.append(Thing("theirs", "role", "another lineage", "", "square"))
    rig.delete(wants)
    assert [t.id for t in cloud.things] == ["theirs"]


def test_somebody_elses_nameless_thing_is_no_obstacle(rig: Rig, cloud: Cloud) -> None:
    cloud.things.append(Thing("theirs", "vpc", "another lineage", "", "square"))
    rig.create([Nameless("vpc")])
    assert sorted(t.id for t in cloud.things) == ["id-1", "theirs"]
    rig.delete([Nameless("vpc")])
    assert [t.id for t in cloud.things] == ["theirs"]


def test_drift_is_put_right(rig: Rig, cloud: Cloud) -> None:
    rig.create([Toy("role")])
    cloud.things[0].shape = "square"
    (observation,) = rig.status([Toy("role")])
    assert (observation.status, dict(observation.differs)) == (
        Status.DRIFTED,
        {"shape": ("square", "round")},
    )
    rig.create([Toy("role")])
    assert cloud.things[0].shape == "round"


@frozen
class Stubborn(Toy):
    """A kind whose description always differs from what it accepted."""

    def update(self, *_: object) -> None:  # type: ignore[override]
        self.cloud.calls.append(f"settle {self.label}")


def test_what_the_cloud_accepts_and_never_shows_is_sent_once(rig: Rig, cloud: Cloud) -> None:
    rig.create([Stubborn("role")])
    shown: list[str] = []
    for shape, sent in (("square", True), ("square", False), ("flat", True), ("flat", False)):
        shown.clear()
        rig.create([Stubborn("role", shape=shape)], warn=shown.append)
        assert cloud.calls == ["settle role"] * sent
        (line,) = shown
        assert line.startswith(f"toys/role: AWS accepted shape {shape!r} but returns 'round'")
        (observation,) = rig.status([Stubborn("role", shape=shape)])
        assert (observation.status, dict(observation.differs)) == (Status.MATCHES, {})
        assert dict(observation.unproven) == {"shape": ("round", shape)}


@frozen
class Leisurely(Toy):
    """A kind whose creates take ten seconds, and whose updates take thirty."""

    def create(self, *about: Any) -> Live:
        self.cloud.clock.time += 10
        return super().create(*about)

    def update(self, *about: Any) -> Live:
        self.cloud.clock.time += 30
        return super().update(*about)


def test_a_duration_is_that_of_the_create_alone(rig: Rig) -> None:
    one, other = Leisurely("one"), Leisurely("one", shape="square")
    for first in (one, other):
        rig.create([first, Leisurely("two", needs_=(first,))])
        durations = rig.context.manifest.durations.items()
        assert {key: round(each) for key, each in durations} == {"toys/one": 10, "toys/two": 10}


@pytest.mark.parametrize("form", ["flat", "round"])
def test_what_a_killed_change_has_replaced_is_sent_again(rig: Rig, cloud: Cloud, form: str) -> None:
    """Nobody has read the former value, or the cloud describes it as round."""
    with pytest.MonkeyPatch.context() as patch:  # a kill before the review
        patch.setattr("hyperpod_eks.engine.apply.Apply._review", lambda _: False)
        rig.create([Toy("role", shape="flat")])
    cloud.things[0].shape = form
    assert rig.killed_in(lambda: rig.create([Toy("role", shape="square")]), 1, after=True)
    assert cloud.things[0].shape == "square"
    rig.create([Toy("role", shape="flat")])
    assert (cloud.things[0].shape, cloud.calls) == ("flat", ["settle role"])


@frozen
class Settable(Toy):
    """A kind whose shape is set only if it is declared, and reset if it no longer is."""

    def names(self, live: Live | None = None) -> Sequence[str]:
        return ("shape",) if self.shape else ()

    def reverts(self, name: str) -> bool:
        return True


@frozen
class Mute(Settable):
    """A kind whose shape nobody describes."""

    def _live(self, thing: Thing) -> Live:
        return replace(super()._live(thing), facts={})

    def update(self, *about: Any) -> Live:
        return replace(super().update(*about), facts={})


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("shape", ["flat", "square", ""])
def test_what_a_killed_change_may_have_replaced_unseen_is_sent_again(
    rig: Rig, cloud: Cloud, shape: str, applied: bool
) -> None:
    rig.create([Mute("role", shape="flat")])
    assert rig.killed_in(lambda: rig.create([Mute("role", shape="square")]), 1, after=applied)
    rig.create([Mute("role", shape=shape)])
    assert (cloud.things[0].shape, cloud.calls) == (shape, ["settle role"])
    rig.create([Mute("role", shape=shape)])
    assert cloud.calls == []


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("kind", [Settable, Mute])
def test_what_a_killed_change_may_have_set_for_the_first_time_is_reset(
    rig: Rig, cloud: Cloud, kind: type[Settable], applied: bool
) -> None:
    rig.create([kind("role", shape="")])
    assert rig.killed_in(lambda: rig.create([kind("role", shape="square")]), 1, after=applied)
    rig.create([kind("role", shape="")])
    assert (cloud.things[0].shape, cloud.calls) == ("", ["settle role"])
    rig.create([kind("role", shape="")])
    assert cloud.calls == []


@frozen
class Sparse(Settable):
    """A kind that describes a shape only if it is set, and with consent sets it back."""

    asks = ("shape",)

    def _live(self, thing: Thing) -> Live:
        return replace(super()._live(thing), facts={"shape": thing.shape} if thing.shape else {})

    def update(self, *about: Any) -> None:  # type: ignore[override]
        super().update(*about)


@pytest.mark.parametrize("applied", [*product([True, False], repeat=2)])
@pytest.mark.parametrize("last", ["", "flat", "square", "bent"])
@pytest.mark.parametrize("killed", [["square"], [""], ["square", "bent"], ["", "square"]])
@pytest.mark.parametrize("first", ["", "flat"])
def test_what_killed_changes_have_set_is_nobody_elses(
    rig: Rig, cloud: Cloud, first: str, killed: list[str], last: str, applied: tuple[bool, bool]
) -> None:
    said: list[Any] = []
    for _ in range(2):
        rig.create([Sparse("role", shape=first)])
    for shape, after in zip(killed, applied, strict=False):
        change = [Sparse("role", shape=shape)]
        rig.killed_in(lambda: rig.create(change), 1, after=after)  # noqa: B023
    for _ in range(2):
        rig.create([Sparse("role", shape=last)], consent=said.extend, warn=said.append)
        assert cloud.things[0].shape == last
    assert (cloud.calls, said) == ([], [])


def test_what_a_killed_change_has_replaced_is_sent_again_after_the_first_version(
    rig: Rig, cloud: Cloud
) -> None:
    """Its manifests do not say whether the cloud describes it."""
    rig.create([Mute("role", shape="flat")])
    manifest = json.loads(rig.path.read_text())
    del manifest["resources"]["toys/role"]["sent"]
    rig.path.write_text(json.dumps(manifest))
    assert rig.killed_in(lambda: rig.create([Mute("role", shape="square")]), 1, after=True)
    rig.create([Mute("role", shape="flat")])
    assert cloud.things[0].shape == "flat"


@frozen
class Lasting(Sparse):
    """Such a kind that never loses its shape, as an EKS cluster its key."""

    def immutable_reason(self, name: str, differs: Differs) -> str:
        return "" if self.shape else "the cloud keeps it"


def test_what_a_killed_change_has_not_set_need_not_be_removed(rig: Rig, cloud: Cloud) -> None:
    rig.create([Lasting("role", shape="")])
    for applied in (False, True):
        change = [Lasting("role", shape="square")]
        assert rig.killed_in(lambda: rig.create(change), 1, after=applied)  # noqa: B023
        if not applied:
            rig.create([Lasting("role", shape="")])
            assert cloud.calls == []
    with pytest.raises(HyperpodError, match="the cloud keeps it"):
        rig.create([Lasting("role", shape="")])


@frozen
class Refused(Settable):
    """A kind whose updates are refused."""

    def update(self, *_: object) -> Live:
        raise refusal("InvalidParameterValue")


def test_a_refused_change_leaves_the_former_value_alone(rig: Rig, cloud: Cloud) -> None:
    """The cloud describes it in a form of its own, before and after."""
    rig.create([Stubborn("role")])
    rig.create([Stubborn("role", shape="flat")])
    with pytest.raises(HyperpodError):
        rig.create([Refused("role", shape="square")])
    rig.create([Stubborn("role", shape="flat")])
    assert (cloud.things[0].shape, cloud.calls) == ("round", [])


@pytest.mark.parametrize("sent", [True, False])
def test_changes_that_were_refused_or_not_sent_leave_no_doubt(
    rig: Rig, cloud: Cloud, sent: bool
) -> None:
    """The second refusal is in the last words; what is not sent is staged beside a failure."""
    rig.create([Settable("one", shape=""), Settable("two", shape="")])
    cloud.things[1].leaving = not sent
    with pytest.raises(HyperpodError):
        rig.create(
            [Refused("one", shape="square"), Refused("two", shape="square")],
            deadline=1e9 if sent else 0.0,
        )
    assert (cloud.calls, '"unsure"' in rig.path.read_text()) == ([], False)


def test_what_somebody_detaches_before_it_was_described_is_attached_again(
    rig: Rig, cloud: Cloud
) -> None:
    assert rig.killed_in(lambda: rig.create([Attachment("role")]), 2, after=False)
    assert cloud.things[0].shape == ""
    rig.create([Attachment("role")])
    with pytest.MonkeyPatch.context() as patch:  # a kill before the review
        patch.setattr("hyperpod_eks.engine.apply.Apply._review", lambda _: False)
        rig.create([Attachment("role", shape="square")])
    cloud.things[0].shape = "bent"
    (observation,) = rig.status([Attachment("role", shape="square")])
    assert dict(observation.differs) == {"shape": (frozenset({"bent"}), frozenset({"square"}))}
    rig.create([Attachment("role", shape="square")])
    assert (cloud.things[0].shape, cloud.calls) == ("square", ["settle role"])


def test_what_somebody_attaches_before_it_was_described_stays(rig: Rig, cloud: Cloud) -> None:
    with pytest.MonkeyPatch.context() as patch:  # a kill before the review
        patch.setattr("hyperpod_eks.engine.apply.Apply._review", lambda _: False)
        rig.create([Attachment("role")])
    cloud.things[0].shape = "round bent"
    for _ in range(2):
        warnings: list[str] = []
        rig.create([Attachment("role")], warn=warnings.append)
        assert (cloud.things[0].shape, cloud.calls) == ("round bent", [])
        assert "bent" in warnings[0]


@pytest.mark.parametrize(("late", "repeated"), [(GRACE / 4, 0), (GRACE * 1.5, 1), (GRACE * 90, 1)])
def test_what_is_attached_and_described_late_is_at_worst_attached_twice(
    rig: Rig, cloud: Cloud, late: float, repeated: int
) -> None:
    cloud.late = late
    warnings: list[str] = []
    rig.create([Attachment("role")], warn=warnings.append)
    assert cloud.calls == ["create role", *["settle role"] * (1 + repeated)]
    rig.create([Attachment("role")], warn=warnings.append)  # the next run may read old answers too
    assert set(cloud.calls) <= {"settle role"}
    cloud.clock.time += late
    rig.create([Attachment("role")], warn=warnings.append)
    assert (cloud.things[0].shape, cloud.calls, warnings) == ("round", [], [])


@frozen
class Unanswered(Attachment):
    """Such a kind whose update is looked at, and not answered."""

    def update(self, *about: Any) -> None:  # type: ignore[override]
        super().update(*about)


def test_an_attachment_that_is_never_described_is_not_waited_for_forever(
    rig: Rig, cloud: Cloud
) -> None:
    cloud.late = 1e9
    with pytest.raises(Unfinished, match="the change is not visible yet"):
        rig.create([Unanswered("role")])
    assert 2 < cloud.calls.count("settle role") <= 1 + Unanswered.patience / GRACE


@frozen
class Silent(Toy):
    """A kind whose description omits its shape."""

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        return [replace(live, facts={}) for live in super().find(snapshot)]


def test_what_the_cloud_does_not_describe_is_unknown_until_the_file_changes(
    rig: Rig, cloud: Cloud
) -> None:
    rig.create([Silent("role")])
    (observation,) = rig.status([Silent("role")])
    assert (observation.status, observation.unknown) == (Status.MATCHES, ("shape",))
    for sent in (True, False):
        rig.create([Silent("role", shape="square")])
        assert cloud.calls == ["settle role"] * sent
    assert cloud.things[0].shape == "square"


def test_drift_against_a_manifest_of_the_first_version_is_put_right(rig: Rig, cloud: Cloud) -> None:
    rig.create([Toy("role")])
    manifest = json.loads(rig.path.read_text())
    del manifest["resources"]["toys/role"]["sent"]
    rig.path.write_text(json.dumps(manifest))
    rig.create([Toy("role")])
    assert cloud.calls == []
    rig.path.write_text(json.dumps(manifest))
    cloud.things[0].shape = "square"
    rig.create([Toy("role")])
    assert cloud.calls == ["settle role"]


def test_a_lost_manifest_costs_one_correction(rig: Rig, cloud: Cloud) -> None:
    rig.create([Stubborn("role")])
    rig.path.unlink()
    cloud.things[0].shape = "square"
    rig.create([Stubborn("role")])
    assert cloud.calls == ["settle role"]
    rig.create([Stubborn("role")])
    assert cloud.calls == []


def test_late_visibility_makes_no_twin(rig: Rig, cloud: Cloud, wants: list[Resource]) -> None:
    cloud.lag = 20
    rig.create(wants)
    assert len(cloud.things) == len(wants)
    rig.delete(wants)
    assert cloud.things == []


def test_a_twin_of_ours_is_removed(rig: Rig, cloud: Cloud) -> None:
    rig.create([Nameless("vpc")])
    cloud.add("vpc", cloud.lineage, "", "round")
    rig.create([Nameless("vpc")])
    assert [t.id for t in cloud.things] == ["id-1"]


def test_a_thing_that_was_deleted_by_hand_is_made_again(rig: Rig, cloud: Cloud) -> None:
    rig.create([Toy("role")])
    cloud.things.clear()
    cloud.clock.time += 3600
    rig.create([Toy("role")])
    assert [t.id for t in cloud.things] == ["id-2"]


def test_a_failed_thing_stops_the_run_and_is_replaced_on_demand(rig: Rig, cloud: Cloud) -> None:
    class Failing(Toy):
        def find(self, snapshot):  # type: ignore[no-untyped-def]
            return [
                replace(live, state=State.FAILED, why="no capacity") if live.id == "id-1" else live
                for live in super().find(snapshot)
            ]

    rig.create([Toy("role")])
    with pytest.raises(HyperpodError, match="toys/role has failed: no capacity"):
        rig.create([Failing("role")])
    rig.create([Failing("role")], replace_failed=True)
    assert [t.id for t in cloud.things] == ["id-2"]


def test_every_resource_is_told_from_pending_to_ready(
    rig: Rig, cloud: Cloud, wants: list[Resource]
) -> None:
    rig.create(wants)
    for want in wants:
        shown = [event.what for event in rig.events if event.key == want.key]
        assert (shown[0], shown[-1]) == (EventType.PENDING, EventType.READY)
        assert EventType.CREATING in shown


def test_status_changes_nothing_on_an_empty_account(
    rig: Rig, cloud: Cloud, wants: list[Resource]
) -> None:
    observations = rig.status(wants)
    assert {observation.status for observation in observations} == {Status.ABSENT}
    assert cloud.calls == []
    assert not rig.path.exists()


# --- crashes: kills before and after every change


def _calls_of_a_create(rig: Rig, cloud: Cloud, wants: list[Resource]) -> int:
    rig.create(wants)
    calls = len(cloud.calls)
    cloud.things.clear()
    rig.path.unlink()
    return calls


@pytest.mark.parametrize("lag", [0.0, 20.0])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("resumed", ["create", "delete", "create without the manifest"])
def test_a_kill_at_any_change_of_create_loses_and_doubles_nothing(
    rig: Rig, cloud: Cloud, wants: list[Resource], lag: float, after: bool, resumed: str
) -> None:
    calls = _calls_of_a_create(rig, cloud, wants)
    cloud.lag = lag
    for call in range(1, calls + 1):
        assert rig.killed_in(lambda: rig.create(wants), call, after=after)
        if resumed == "create without the manifest":
            cloud.clock.time += lag  # nothing records what is not visible yet
            rig.path.unlink(missing_ok=True)
            # without tags and a record it looks like another owner's
            cloud.things = [t for t in cloud.things if t.owner]
        if resumed != "delete":
            rig.create(wants)
            assert len(cloud.things) == len(wants), call
            assert {t.shape for t in cloud.things} == {"round"}
            rig.create(wants)
            assert cloud.calls == [], call
        rig.delete(wants)
        assert cloud.things == [], call


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_change_of_delete_leaves_nothing_in_the_end(
    rig: Rig, cloud: Cloud, wants: list[Resource], after: bool
) -> None:
    for call in range(1, len(wants) + 1):
        rig.create(wants)
        assert rig.killed_in(lambda: rig.delete(wants), call, after=after)
        rig.delete(wants)
        assert cloud.things == [], call
        assert not rig.path.exists()


def test_grace_is_longer_than_the_lag_that_the_crash_tests_use() -> None:
    assert GRACE > 20


@frozen
class Growing(Toy):
    """A kind that never reaches its declared size."""

    patience = 10.0

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        return [replace(live, state=State.GROWING) for live in super().find(snapshot)]


def test_what_comes_up_is_changed_only_if_the_file_is(rig: Rig, cloud: Cloud) -> None:
    def create(shape: str) -> None:
        with pytest.raises(Unfinished):
            rig.create([Growing("role", shape=shape)])

    create("round")
    cloud.things[0].shape = "square"  # like a cloud whose description differs
    create("round")
    assert cloud.calls == []
    rig.path.unlink()
    create("round")
    assert cloud.calls == []
    rig.create([Toy("role", shape="square")])
    create("flat")
    assert cloud.calls == ["settle role"]
    assert cloud.things[0].shape == "flat"
