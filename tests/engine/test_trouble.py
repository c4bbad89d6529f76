"""Refusals, failed reads, full disks and interruptions: the engine waits, or stops in order."""

from __future__ import annotations

import json
import resource as limits
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError, LoginRefreshRequired, SSLError
from botocore.parsers import ResponseParserError

from hyperpod_eks import engine
from hyperpod_eks.aws.errors import ErrorKind, match_error
from hyperpod_eks.aws.failures import classify, surely_not_applied
from hyperpod_eks.engine.plan import plan
from hyperpod_eks.errors import Capacity, Denied, Foreign, HyperpodError
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube.client import KubeNotReady
from hyperpod_eks.resources.base import Differs, Lifecycle, Live, References, Resource, State
from hyperpod_eks.resources.compare import Status, compare
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.manifest import read
from hyperpod_eks.state.store import Unwritable

from .conftest import Rig
from .toys import Cloud, Nameless, Thing, Toy, Unsigned, refusal, taken

DAY = 86400.0


def says(code: str, operation: str = "DescribeToy", status: int = 400, retried: int = 0) -> Any:
    about: Any = {
        "Error": {"Code": code, "Message": "so it is"},
        "ResponseMetadata": {
            "HTTPStatusCode": status,
            "Service": "iam",
            "RetryAttempts": retried,
        },
    }
    return ClientError(about, operation)


@frozen
class Slow(Toy):
    """A kind that takes an hour to create, and refuses every third read."""

    refusal: str = "Throttling"
    looks: ClassVar[Iterator[int]] = count()

    patience = DAY

    def create(self, aws: Any, references: References, token: str) -> Live:
        return replace(super().create(aws, references, token), state=State.BUSY)

    def find(self, snapshot: Any) -> Sequence[Live]:
        lives = super().find(snapshot)
        now = self.cloud.clock.now()
        if lives and next(self.looks) % 3 == 2:
            raise says(self.refusal)
        made = next((t.visible_at for t in self.cloud.things if t.name == self.label), now)
        return [replace(x, state=State.BUSY) for x in lives] if now - made < 3000 else lives


def test_refusals_now_and_then_do_not_add_up(rig: Rig, cloud: Cloud) -> None:
    assert set(rig.create([Slow("cluster")])) == {"toys/cluster"}


def test_credentials_that_expire_in_a_wait_stop_the_run_and_the_next_one_continues(
    rig: Rig, cloud: Cloud
) -> None:
    with pytest.raises(Denied) as caught:
        rig.create([Slow("cluster", refusal="ExpiredToken")])
    assert caught.value.exit == 3
    assert "run the same command again" in caught.value.hint
    record = read(FileStore(rig.path), "toy").records["toys/cluster"]
    assert (record.state, record.id) == ("created", "id-1")  # before the first wait
    cloud.clock.time += 3600
    rig.create([Toy("cluster")])
    assert len(cloud.things) == 1


def test_a_birth_that_is_tried_again_much_later_has_its_whole_grace(rig: Rig, cloud: Cloud) -> None:
    assert rig.killed_in(lambda: rig.create([Nameless("vpc")]), 1, after=False)
    cloud.clock.time += DAY
    cloud.lag = 20
    rig.create([Nameless("vpc")])
    assert cloud.calls == ["create vpc"]


def test_a_twin_that_a_lost_answer_left_is_found_in_the_same_run(rig: Rig, cloud: Cloud) -> None:
    @frozen
    class Doubled(Nameless):
        def create(self, aws: Any, references: References, token: str) -> Live:
            if not cloud.things:
                cloud.add(self.label, cloud.lineage, token, self.shape).visible_at += DAY
                raise says("InternalError", "CreateVpc", 500)
            cloud.things[0].visible_at = cloud.clock.now()
            return super().create(aws, references, token)

    rig.create([Doubled("vpc")])
    assert len(cloud.things) == 1


def test_a_birth_that_was_answered_at_the_first_try_needs_no_second_look(
    rig: Rig, cloud: Cloud
) -> None:
    asked: list[str] = []

    @frozen
    class Seen(Nameless):
        def find(self, snapshot: Any) -> Sequence[Live]:
            asked.append(self.label)
            return super().find(snapshot)

    rig.create([Seen("vpc")])
    assert asked == ["vpc"]


def test_what_was_not_there_at_first_is_not_looked_for_again_in_its_turn(
    rig: Rig, cloud: Cloud
) -> None:
    asked: list[str] = []

    @frozen
    class Seen(Toy):
        def find(self, snapshot: Any) -> Sequence[Live]:
            asked.append(self.label)
            return super().find(snapshot)

    @frozen
    class Slow(Toy):
        def create(self, aws: Any, references: References, token: str) -> Live:
            cloud.clock.time += DAY
            return super().create(aws, references, token)

    slow = Slow("control")
    rig.create([slow, Seen("addon", needs_=(slow,))])
    assert asked == ["addon", "addon"]  # the second verifies the end


def test_what_somebody_made_since_the_first_look_is_theirs(rig: Rig, cloud: Cloud) -> None:
    @frozen
    class Slow(Toy):
        def create(self, aws: Any, references: References, token: str) -> Live:
            cloud.add("role", "another lineage", "", "round")
            return super().create(aws, references, token)

    slow = Slow("control")
    with pytest.raises(Foreign, match="toys/role: id-1 already exists"):
        rig.create([slow, Toy("role", needs_=(slow,))])
    assert [t.owner for t in cloud.things] == ["another lineage", "ours"]


def test_a_birth_waits_only_for_what_its_create_names(rig: Rig, cloud: Cloud) -> None:
    @frozen
    class Table(Toy):
        """A kind whose create needs nothing, but whose update needs the gateway."""

        def create_requires(self) -> Iterator[Resource]:
            yield from ()

    gateway = Toy("gateway", needs_=(Toy("vpc"),))
    table = Table("table", needs_=(gateway,))
    after = Toy("after", needs_=(table,))
    rig.create([Toy("vpc"), gateway, table, after])
    order = [call for call in cloud.calls if call.startswith("create")]
    assert order.index("create table") < order.index("create gateway") < order.index("create after")


@frozen
class Net(Toy):
    """A kind that is there some time after its create, and then needs an update."""

    seconds: float = 0.0

    later = ("shape",)

    def _live(self, thing: Thing) -> Live:
        there = self.cloud.clock.now() >= thing.visible_at + self.seconds
        return replace(super()._live(thing), state=State.READY if there else State.BUSY)

    def create(self, aws: Any, references: References, token: str) -> Live:
        made = lambda: self.cloud.add(self.label, self.cloud.lineage, token, "bare")  # noqa: E731
        return self._live(self.cloud.call(aws, f"create {self.label}", made))


@frozen
class Part(Toy):
    """A kind whose create sends the id of a net."""

    def create_names(self) -> Iterator[Resource]:
        yield from self.needs_

    def create(self, aws: Any, references: References, token: str) -> Live:
        assert references(self.needs_[0]).id == "id-1"
        return super().create(aws, references, token)


def test_a_birth_runs_beside_the_update_of_what_it_names(rig: Rig, cloud: Cloud) -> None:
    begun = threading.Event()

    @frozen
    class Slow(Net):
        def update(self, aws: Any, references: References, live: Live, differs: Differs) -> Live:
            assert begun.wait(5), "the part was not created"
            return super().update(aws, references, live, differs)

    @frozen
    class First(Part):
        def create(self, aws: Any, references: References, token: str) -> Live:
            begun.set()
            return super().create(aws, references, token)

    net = Slow("net")
    rig.create([net, First("part", needs_=(net,))])
    assert [(t.name, t.shape) for t in cloud.things] == [("net", "round"), ("part", "round")]


def test_a_birth_waits_until_what_it_names_is_there(rig: Rig, cloud: Cloud) -> None:
    @frozen
    class Late(Part):
        def create(self, aws: Any, references: References, token: str) -> Live:
            waited.append(cloud.clock.now() - began)
            return super().create(aws, references, token)

    waited: list[float] = []
    began, net = cloud.clock.now(), Net("net", seconds=30.0)
    rig.create([net, Late("part", needs_=(net,))])
    assert waited[0] >= 30.0


def test_a_name_that_is_taken_by_something_unseen_ends_the_run(rig: Rig, cloud: Cloud) -> None:
    @frozen
    class Taken(Toy):
        def create(self, aws: Any, references: References, token: str) -> Live:
            raise taken()

    with pytest.raises(HyperpodError, match="that name is taken"):
        rig.create([Taken("role")])


def test_a_delete_of_what_is_said_to_be_gone_and_is_not_ends(rig: Rig, cloud: Cloud) -> None:
    @frozen
    class Undead(Toy):
        def delete(self, aws: Any, live: Live) -> None:
            raise says("NoSuchEntity", "DeleteToy")

    rig.create([Undead("role")])
    with pytest.raises(HyperpodError, match="deleting toys/role: so it is"):
        rig.delete([Undead("role")])


def test_what_goes_between_two_questions_of_a_look_is_looked_at_again(
    rig: Rig, cloud: Cloud
) -> None:
    asked: list[str] = []

    @frozen
    class Fleeting(Toy):
        def find(self, snapshot: Any) -> Sequence[Live]:
            asked.append(self.label)
            if len(asked) == 1:
                raise says("ResourceNotFoundException", "ListTags")
            return super().find(snapshot)

    rig.create([Fleeting("cluster")])
    assert len(asked) > 1


def test_the_first_look_is_repeated_with_new_answers(rig: Rig, cloud: Cloud) -> None:
    @frozen
    class Tagged(Toy):
        """It is described first, and then its tags are listed, as a HyperPod cluster is."""

        def find(self, snapshot: Any) -> Sequence[Live]:
            lives: Sequence[Live] = snapshot.once("describe", lambda: Toy.find(self, snapshot))
            if lives and ends:
                cloud.things.clear()  # its delete, which a killed run began, ends here
                raise says("ResourceNotFound", "ListTags")
            return lives

    want, ends = Tagged("cluster"), False
    rig.create([want])
    ends, began = True, cloud.clock.now()
    assert rig.status([want])[0].status is Status.ABSENT
    assert cloud.clock.now() - began < 5
    assert not cloud.things


def test_what_stands_behind_a_door_that_we_have_yet_to_make(rig: Rig, cloud: Cloud) -> None:
    door = Toy("door")
    cluster = Toy("cluster")

    @frozen
    class Behind(Toy):
        @property
        def deleted_with(self) -> Resource | None:
            return cluster

        def find(self, snapshot: Any) -> Sequence[Live]:
            if not self.cloud.seen(snapshot.aws, "door"):
                raise KubeNotReady("401")
            return super().find(snapshot)

    wants: list[Resource] = [cluster, door, Behind("release", after=(cluster, door))]
    rig.create([cluster])
    assert set(rig.create(wants)) == {want.key for want in wants}
    cloud.things = [thing for thing in cloud.things if thing.name != "door"]
    cloud.clock.time += DAY
    began = cloud.clock.time
    rig.context = rig._world()
    _removed(rig, wants)
    assert [t.name for t in cloud.things] == ["release"]  # AWS deletes it with its cluster
    assert cloud.clock.time - began < 60


def _removed(rig: Rig, wants: list[Resource]) -> None:
    engine.delete(wants, rig.context)


def test_what_works_is_waited_for_no_shorter_than_the_nodes(rig: Rig, cloud: Cloud) -> None:
    """Deep health checks take hours, during which EKS may report an add-on as DEGRADED."""

    @frozen
    class Lagging(Toy):
        def create(self, aws: Any, references: References, token: str) -> Live:
            return replace(super().create(aws, references, token), lags=True)

        def find(self, snapshot: Any) -> Sequence[Live]:
            return [replace(live, lags=True) for live in super().find(snapshot)]

        def nudge(self, aws: Any, live: Live) -> None:
            """Do nothing: the update has no effect."""

    class Nodes(Toy):
        lifecycle = Lifecycle.AWAITED
        patience = DAY

        def find(self, snapshot: Any) -> Sequence[Live]:
            return [Live("", state=State.READY if cloud.clock.time > ready else State.BUSY)]

    ready = cloud.clock.time + 7200
    wants: list[Resource] = [Lagging("add-on"), Nodes("nodes")]
    assert set(rig.create(wants)) == {want.key for want in wants}


def test_too_little_room_has_its_own_exit_code(rig: Rig, cloud: Cloud) -> None:
    @frozen
    class Failing(Toy):
        def find(self, snapshot: Any) -> Sequence[Live]:
            why = "Insufficient capacity for ml.p5.48xlarge"
            return [replace(x, state=State.FAILED, why=why) for x in super().find(snapshot)]

    rig.create([Toy("cluster")])
    with pytest.raises(Capacity) as caught:
        rig.create([Failing("cluster")])
    assert caught.value.exit == 10


def test_a_twin_that_is_leaving_is_none() -> None:
    gone, here = Live("id-1", owner="us", state=State.LEAVING), Live("id-2", owner="us")
    observation = compare(Nameless("vpc"), [gone, here], References({}), "us", unsigned_ours=False)
    assert (observation.status, observation.live) == (Status.MATCHES, here)


def test_only_an_answer_to_the_first_try_tells_that_nothing_was_made() -> None:
    assert surely_not_applied(says("Throttling", "CreateToy"))
    assert not surely_not_applied(says("Throttling", "CreateToy", retried=2))
    assert not surely_not_applied(says("InternalError", "CreateToy", status=500))
    assert not surely_not_applied(ResponseParserError("<html>"))
    assert not surely_not_applied(SSLError(endpoint_url="https://x", error=OSError("EOF occurred")))
    assert classify(ResponseParserError("<html>")) is ErrorKind.UNKNOWN


def test_an_unsigned_birth_whose_answer_was_lost_stays_ours(rig: Rig, cloud: Cloud) -> None:
    tries: list[str] = []

    @frozen
    class Unheard(Unsigned):
        def create(self, aws: Any, references: References, token: str) -> Live:
            tries.append(token)
            if len(tries) == 1:
                super().create(aws, references, token)
                raise says("Throttling", "CreateToy", retried=3)
            return super().create(aws, references, token)

    rig.create([Unheard("bucket")])
    assert [(t.name, t.owner) for t in cloud.things] == [("bucket", cloud.lineage)]


class Stop(BaseException):
    """A signal."""


def interrupting(rig: Rig) -> type[Toy]:
    @frozen
    class Interrupting(Toy):
        def create(self, aws: Any, references: References, token: str) -> Live:
            live = super().create(aws, references, token)
            rig.context.stop(Stop())
            return live

    return Interrupting


def test_an_interruption_records_what_was_under_way(rig: Rig, cloud: Cloud) -> None:
    with pytest.raises(Stop):
        rig.create([interrupting(rig)("role"), Toy("bucket")])
    records = json.loads(rig.path.read_text())["resources"]
    made = {t.name: t.id for t in cloud.things}
    assert {key.removeprefix("toys/"): r["id"] for key, r in records.items() if r["id"]} == made


@pytest.fixture
def full_disk() -> Any:
    """Limit the size of files for this process while the context is open."""
    before = limits.getrlimit(limits.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(size: int) -> None:
        limits.setrlimit(limits.RLIMIT_FSIZE, (size, before[1]))

    yield fill
    limits.setrlimit(limits.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_success_that_cannot_be_recorded_is_told_and_stops_the_run(
    rig: Rig, cloud: Cloud, full_disk: Callable[[int], None]
) -> None:
    @frozen
    class Filling(Toy):
        def create(self, aws: Any, references: References, token: str) -> Live:
            live = super().create(aws, references, token)
            full_disk(10)
            return live

    wants: list[Resource] = [Filling("role"), Toy("later", needs_=(Toy("bucket"),)), Toy("bucket")]
    with pytest.raises(Unwritable, match="File too large") as caught:
        rig.create(wants)
    made = {t.name: t.id for t in cloud.things}
    shown = "\n".join(caught.value.__notes__)
    on_disk = {key for key, record in read(FileStore(rig.path), "toy").records.items()}
    assert {f"toys/{name}" for name in made} <= on_disk  # their intents are older
    for name, id_ in made.items():
        assert f"toys/{name} is {id_}" in shown
    assert "later" not in made
    full_disk(limits.getrlimit(limits.RLIMIT_FSIZE)[1])
    rig.create([Toy("role"), Toy("bucket"), wants[1]])
    assert sorted(t.name for t in cloud.things) == ["bucket", "later", "role"]


def test_nothing_is_created_before_the_journal_is_written(
    rig: Rig, cloud: Cloud, full_disk: Callable[[int], None]
) -> None:
    full_disk(10)
    with pytest.raises(Unwritable):
        rig.create([Toy("role"), Toy("bucket")])
    assert cloud.calls == []


def test_the_journal_is_written_once_for_what_begins_together(rig: Rig, cloud: Cloud) -> None:
    known: list[set[str]] = []

    @frozen
    class Watched(Toy):
        def create(self, aws: Any, references: References, token: str) -> Live:
            known.append(set(read(FileStore(rig.path), "toy").records))
            return super().create(aws, references, token)

    rig.create([Watched("role"), Watched("bucket"), Watched("vpc")])
    assert known == [{"toys/role", "toys/bucket", "toys/vpc"}] * 3
    assert read(FileStore(rig.path), "toy").serial < 9  # intent, birth and readiness of each


def test_what_a_failure_stops_leaves_no_intent(rig: Rig, cloud: Cloud) -> None:
    """The calls of a moment are decided together, and the last one may be refused."""

    @frozen
    class Broken(Toy):
        def find(self, snapshot: Any) -> Sequence[Live]:
            return [Live("x", owner=cloud.lineage, state=State.FAILED, why="no reason")]

    with pytest.raises(HyperpodError, match="has failed: no reason"):
        rig.create([Toy("role"), Broken("bucket")])
    assert cloud.calls == []
    assert not rig.path.exists()


@pytest.mark.parametrize(
    ("service", "operation", "code", "expected"),
    [
        ("ec2", "AuthorizeSecurityGroupIngress", "RulesPerSecurityGroupLimitExceeded", "CAPACITY"),
        ("ec2", "CreateRoute", "RouteLimitExceeded", "CAPACITY"),
        ("ec2", "AssociateVpcCidrBlock", "CidrBlockLimitExceeded", "CAPACITY"),
        ("ec2", "CreateSubnet", "RequestLimitExceeded", "THROTTLE"),
        ("ec2", "AllocateAddress", "InsufficientAddressCapacity", "CAPACITY"),
        ("logs", "CreateLogGroup", "LimitExceededException", "CAPACITY"),
        ("eks", "CreateCluster", "UnsupportedAvailabilityZoneException", "CAPACITY"),
        ("ec2", "CreateNatGateway", "IdempotentParameterMismatch", "EXISTS"),
        ("", "AssumeRoleWithWebIdentity", "InvalidIdentityToken", "EXPIRED"),
    ],
)
def test_what_aws_says_has_a_meaning(
    service: str, operation: str, code: str, expected: str
) -> None:
    assert match_error(service, operation, code, "", 400) is ErrorKind[expected]


def test_an_expired_login_is_no_bug() -> None:
    """Credentials of `aws login` last for hours, and botocore cannot renew them forever."""
    assert classify(LoginRefreshRequired(msg="run aws login")) is ErrorKind.EXPIRED


def test_a_clock_that_was_an_hour_fast_hides_nothing_for_an_hour(rig: Rig, cloud: Cloud) -> None:
    rig.create([Nameless("vpc")])
    cloud.clock.time -= 3600
    cloud.things.clear()  # deleted by hand
    began = cloud.clock.time
    rig.create([Nameless("vpc")])
    assert len(cloud.things) == 1
    assert 60 <= cloud.clock.time - began < 120  # exactly the grace period


@frozen
class Town(Toy):
    """A kind in which people work, and which fails when it is square."""

    inhabited = True

    def find(self, snapshot: Any) -> Sequence[Live]:
        return [
            replace(x, state=State.FAILED) if x.facts["shape"] == "square" else x
            for x in super().find(snapshot)
        ]

    def update(self, *about: Any) -> None:  # type: ignore[override]
        super().update(*about)


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_in_use_and_fails_in_a_change_is_not_replaced(
    rig: Rig, cloud: Cloud, killed: bool
) -> None:
    rig.create([Town("town")])
    square = [Town("town", shape="square")]
    if killed:
        assert rig.killed_in(lambda: rig.create(square), 1, after=True)
    for _ in range(2):
        with pytest.raises(HyperpodError, match=r"town \(id-1\) has failed"):
            rig.create(square, replace_failed=True)
    assert [each.id for each in cloud.things] == ["id-1"]


@frozen
class Store(Town):
    """A kind that holds data, and which fails when it is square."""

    inhabited, data = False, True


@frozen
class Bench(Toy):
    """A kind whose updates are refused."""

    inhabited = True

    def update(self, *about: Any) -> None:  # type: ignore[override]
        raise refusal("ValidationException")


def recorded(rig: Rig, key: str) -> str:
    return read(FileStore(rig.path), "toy").records[key].state


@pytest.mark.parametrize("kind", [Town, Store])
def test_what_was_ready_is_not_replaced_after_a_delete_that_was_cut_short(
    rig: Rig, cloud: Cloud, kind: type[Toy]
) -> None:
    rig.create([kind("it")])
    agreed = frozenset({"id-1"})
    assert rig.killed_in(
        lambda: engine.delete([kind("it")], rig._world(), consented=agreed), 1, after=False
    )
    assert recorded(rig, "toys/it") == "deleting"
    square = [kind("it", shape="square")]
    for _ in range(2):
        with pytest.raises(HyperpodError, match=r"it \(id-1\) has failed"):
            rig.create(square, replace_failed=True)
    if kind.data:
        rig.delete(square)
    assert [each.id for each in cloud.things] == ["id-1"]


def test_a_change_that_is_refused_leaves_the_state_as_it_was(rig: Rig) -> None:
    rig.create([Bench("bench")])
    with pytest.raises(HyperpodError, match="ValidationException"):
        rig.create([Bench("bench", shape="square")])
    assert recorded(rig, "toys/bench") == "ready"


def test_what_is_amid_a_change_is_so_after_a_rebuild_too(rig: Rig) -> None:
    rig.create([Town("town")])
    square = [Town("town", shape="square")]
    assert rig.killed_in(lambda: rig.create(square), 1, after=True)
    context = rig._world()
    assert context.manifest.records["toys/town"].state == "updating"
    assert context.manifest.complete  # its creates are: the times in it are not those of now
    engine.rebuild(square, context)
    assert context.manifest.records["toys/town"].state == "updating"


def test_data_that_is_lost_amid_a_change_is_missed(rig: Rig, cloud: Cloud) -> None:
    rig.create([Store("store")])
    square = [Store("store", shape="square")]
    assert rig.killed_in(lambda: rig.create(square), 1, after=True)
    cloud.things.clear()  # by hand
    cloud.clock.time += 3600
    [planned] = plan(square, rig._world())[0]
    assert planned.decision.why == "id-1 no longer exists; the new one is empty"


@pytest.mark.parametrize("known", [False, True])
def test_what_has_failed_and_another_run_may_have_seen_in_use_is_not_replaced(
    rig: Rig, cloud: Cloud, known: bool
) -> None:
    square = [Town("town", shape="square")]
    assert rig.killed_in(lambda: rig.create([*square, Toy("role")]), 2, after=False)
    if not known:
        rig.path.unlink()
    context = rig._world()
    assert context.manifest.was_never_ready("toys/town", "id-1") is known
    if known:
        context.manifest.distrust()
    else:
        engine.rebuild(square, context)
    context.manifest.save()
    with pytest.raises(HyperpodError, match=r"town \(id-1\) has failed"):
        rig.create(square, replace_failed=True)
    assert [each.id for each in cloud.things] == ["id-1"]


def test_what_was_adopted_and_has_failed_ends_the_run_at_once(rig: Rig, cloud: Cloud) -> None:
    """It is neither waited for nor replaced."""

    @frozen
    class Failed(Toy):
        def find(self, snapshot: Any) -> Sequence[Live]:
            return [replace(x, state=State.FAILED, why="no reason") for x in super().find(snapshot)]

    cloud.add("addon", None, "", "round")
    manifest = rig.context.manifest
    manifest.adopt("toys/addon", "id-1", cloud.clock.now())
    manifest.commit()
    start = cloud.clock.now()
    with pytest.raises(HyperpodError, match="was adopted and has failed: no reason"):
        rig.create([Failed("addon")], replace_failed=True)
    assert (cloud.calls, cloud.clock.now() - start < 1) == ([], True)
