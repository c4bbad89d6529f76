"""A toy cloud with delays, and a toy kind of resource for each class of AWS API."""

from __future__ import annotations

import queue
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources.base import (
    Differs,
    Fact,
    Identity,
    Live,
    References,
    Resource,
    State,
)
from hyperpod_eks.workers import Clock, Result

OURS = "ours"


class Killed(BaseException):
    """SIGKILL: the process is killed at this call."""


def taken() -> Exception:
    """Return the error for a duplicate name, as an AWS service returns it."""
    return refusal("EntityAlreadyExists", 409, "that name is taken")


def refusal(code: str, status: int = 400, says: str = "so it is") -> Exception:
    """Return an error of IAM."""
    about: Any = {
        "Error": {"Code": code, "Message": says},
        "ResponseMetadata": {"HTTPStatusCode": status, "Service": "iam"},
    }
    return ClientError(about, "CreateToy")


class FakeClock(Clock):
    """A clock that advances only while no worker is busy."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def wait(
        self, results: queue.SimpleQueue[Result], seconds: float, at_work: int
    ) -> Result | None:
        try:
            return results.get(timeout=5.0 if at_work else 0.0)
        except queue.Empty:
            assert not at_work, "a job hangs"
            self.time += max(seconds, 0.01)
            return None


@dataclass
class Thing:
    """A resource that exists in the toy cloud."""

    id: str
    name: str
    owner: str | None
    token: str
    shape: str
    visible_at: float = 0.0
    leaving: bool = False


@dataclass
class Cloud:
    """A cloud whose things become visible after ``lag`` seconds; the ``fuse``-th call kills."""

    clock: FakeClock
    lag: float = 0.0
    things: list[Thing] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    fuse: int | None = None
    after: bool = False
    dead: bool = False
    count: int = 0
    lineage: str = OURS
    process: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    late: float = 0.0
    """Seconds for which the first update of an `Attachment` is not described."""
    old: dict[str, tuple[str, float]] = field(default_factory=dict)
    """The shape before that update, and when it was, by id."""

    def call(self, aws: Any, what: str, effect: Callable[[], Any]) -> Any:
        """Make a mutating call; the ``fuse``-th kills the process before or after its effect."""
        if self.dead or aws.process != self.process:
            raise Killed  # threads of a killed process make no calls
        self.calls.append(what)
        mine = self.fuse is not None and len(self.calls) == self.fuse
        if mine and not self.after:
            self.dead = True
            raise Killed
        result = effect()
        if mine:
            self.dead = True
            raise Killed
        return result

    def restart(self) -> None:
        """Start a new process."""
        self.dead, self.fuse, self.calls = False, None, []
        self.process += 1

    def add(self, name: str, owner: str | None, token: str, shape: str) -> Thing:
        self.count += 1
        thing = Thing(f"id-{self.count}", name, owner, token, shape, self.clock.now() + self.lag)
        self.things.append(thing)
        return thing

    def seen(self, aws: Any, name: str) -> list[Thing]:
        if self.dead or aws.process != self.process:
            raise Killed
        now = self.clock.now()
        return [t for t in self.things if t.name == name and t.visible_at <= now]

    def described(self, id_: str, shape: str) -> str:
        """Return the shape that an `Attachment` is described with."""
        old, since = self.old.get(id_, (shape, 0.0))
        return old if self.clock.now() < since + self.late else shape

    def inventory(self) -> list[tuple[str, str | None, str]]:
        return sorted((t.name, t.owner, t.shape) for t in self.things)


@frozen
class Toy(Resource):
    """A kind with unique names."""

    shape: str = "round"
    needs_: tuple[Resource, ...] = ()

    kind = "toys/Toy"
    step = "toys"
    facts = ("shape",)
    cloud: ClassVar[Cloud]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.kind = f"toys/{cls.__qualname__}"
        super().__init_subclass__(**kwargs)

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        return [self._live(t) for t in self.cloud.seen(snapshot.aws, self.label)]

    def _live(self, thing: Thing) -> Live:
        state = State.LEAVING if thing.leaving else State.READY
        return Live(thing.id, owner=thing.owner, state=state, facts={"shape": thing.shape})

    def create(self, aws: Aws, references: References, token: str) -> Live:
        def effect() -> Thing:
            if any(t.name == self.label for t in self.cloud.things):
                raise taken()
            return self.cloud.add(self.label, self.cloud.lineage, token, self.shape)

        return self._live(self.cloud.call(aws, f"create {self.label}", effect))

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        def effect() -> None:
            for thing in self.cloud.things:
                if thing.id == live.id:
                    thing.shape, thing.owner = self.shape, self.cloud.lineage

        self.cloud.call(aws, f"settle {self.label}", effect)
        return replace(live, owner=self.cloud.lineage, facts={"shape": self.shape})

    def delete(self, aws: Aws, live: Live) -> None:
        def effect() -> None:
            self.cloud.things = [t for t in self.cloud.things if t.id != live.id]

        self.cloud.call(aws, f"delete {self.label}", effect)


@frozen
class Nameless(Toy):
    """A kind whose create can leave duplicates: it has neither a unique name nor a token."""

    identity = Identity.NONE
    answers = ("shape",)  # like EC2, create describes the new resource

    def used_by(self, snapshot: Snapshot, live: Live) -> list[str]:
        return []

    def create(self, aws: Aws, references: References, token: str) -> Live:
        return self._live(
            self.cloud.call(
                aws,
                f"create {self.label}",
                lambda: self.cloud.add(self.label, self.cloud.lineage, token, self.shape),
            )
        )


@frozen
class Unsigned(Toy):
    """A kind whose create accepts no tags; they are added afterwards."""

    signed = False

    def create(self, aws: Aws, references: References, token: str) -> Live:
        def effect() -> Thing:
            if any(t.name == self.label for t in self.cloud.things):
                raise taken()
            return self.cloud.add(self.label, None, token, self.shape)

        return self._live(self.cloud.call(aws, f"create {self.label}", effect))


@frozen
class Attachment(Toy):
    """A kind whose shapes, a set, an update attaches; they are described as sent, perhaps late."""

    later = attached = ("shape",)

    def expected(self, name: str, references: References) -> Fact:
        return frozenset(self.shape.split())

    def _live(self, thing: Thing) -> Live:
        shape = self.cloud.described(thing.id, thing.shape)
        return replace(super()._live(thing), facts={"shape": frozenset(shape.split())})

    def create(self, aws: Aws, references: References, token: str) -> Live:
        return Toy.create(replace(self, shape=""), aws, references, token)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        (old,) = (thing.shape for thing in self.cloud.things if thing.id == live.id)
        self.cloud.old.setdefault(live.id, (old, self.cloud.clock.now()))
        done = super().update(aws, references, live, differs)
        return replace(done, facts={"shape": frozenset(self.shape.split())})


class ToyAws:
    """The attributes of `Aws` that the engine uses."""

    def __init__(self, cloud: Cloud) -> None:
        self.lineage = cloud.lineage
        self.process = cloud.process
        self.adopted: dict[str, str] = {}
        self.cluster = "toy"
