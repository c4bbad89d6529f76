"""The vocabulary: what a resource is, what AWS says of it, and what follows from comparing them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws import Aws, Look

MINUTE = 60.0

Guard = Callable[[Any, Any], str]
"""Given what a field is and what it is declared as, says what the change opens or unprotects;
empty where it does not."""


class State(StrEnum):
    """What a description says of a thing's condition."""

    READY = "ready"
    BUSY = "busy"
    LEAVING = "leaving"  # being deleted, by us or anybody else
    FAILED = "failed"


@frozen
class Live:
    """A resource as AWS describes it at one moment.

    ``owner`` is the lineage that its tags name, None where it carries none of ours.  ``why`` holds
    AWS's own words for the state.  ``facts`` are what is compared with the declaration, under the
    declaration's field names; a fact left out is one that we do not care about.  ``attributes``
    are for those that depend on it (an endpoint, a version) and for ``status``.
    """

    id: str
    arn: str = ""
    owner: str | None = None
    state: State = State.READY
    why: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    mark: object = None
    """How far it has come, while it is busy: another mark at the next look is progress."""
    wants_nodes: bool = False
    """It is busy because there are no nodes: it is waited for only once they have come."""
    lags: bool = False
    """It works, which AWS does not say yet."""
    warnings: tuple[str, ...] = ()
    """What is amiss with it and stops nothing."""


class NotReady(KeyError):
    """What a declaration depends on is not there yet."""


class Known:
    """The live resources that a declaration depends on."""

    def __init__(self, lives: Mapping[str, Live]) -> None:
        self._lives = lives

    def __call__(self, want: Resource) -> Live:
        """Return what is live of a declaration; NotReady if nothing is."""
        if want.key not in self._lives:
            raise NotReady(want.key)
        return self._lives[want.key]

    def __contains__(self, want: Resource) -> bool:
        return want.key in self._lives


@frozen
class Resource(ABC):
    """A thing we declare: its fields are what we want, its verbs talk to AWS.

    Fields that are resources (or tuples of them) are what it depends on; ``after`` adds those
    that matter only for the order.  ``find`` looks by our own names and tags, never by another
    resource's id, so that everything can be looked for at once.  ``create`` is the one call that
    brings it into being, signed with our tags where the API takes them.  ``settle`` and ``delete``
    are calls that may be repeated.  Waiting, retrying, ownership and bookkeeping belong to the
    engine.
    """

    label: str
    after: tuple[Resource, ...] = field(default=(), kw_only=True)

    step: ClassVar[str]
    patience: ClassVar[float] = 5 * MINUTE
    usual: ClassVar[str] = ""
    """How long AWS usually takes, in words for people."""
    typical: ClassVar[float] = 1.0
    """Seconds from its create until it is ready: the median of public create logs."""
    typical_change: ClassVar[float] = 1.0
    """Seconds from a change of it until it is ready again."""
    named: ClassVar[bool] = True
    """The name is unique in the account or region: a stranger under it stops us."""
    nameless: ClassVar[bool] = False
    """Its create has neither token nor name, so that a lost answer can make a twin."""
    signed: ClassVar[bool] = True
    """It carries our tags from birth; False where they come later, or AWS makes it anew."""
    made: ClassVar[bool] = True
    """We create it; False for what AWS leaves behind and we only take away."""
    shared: ClassVar[bool] = False
    """The account has one for all clusters: never ours, never deleted."""
    awaited: ClassVar[bool] = False
    """It comes and goes with others by itself; we only wait for it."""
    goes_at_once: ClassVar[bool] = False
    """When AWS has answered its delete it is gone; False for what only begins to go."""
    fixed: ClassVar[Mapping[str, str]] = {}
    """Fields that AWS does not change in place, each with the reason."""
    guards: ClassVar[Mapping[str, Guard]] = {}
    """Fields that protect, by the last part of their name; see `Guard`."""
    lasts: ClassVar[str] = ""
    """Why it cannot go while the cluster stays; empty where it can."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        KINDS[cls.kind()] = cls

    @classmethod
    def kind(cls) -> str:
        """Name the kind in the manifest: ``network/Vpc``."""
        return f"{cls.__module__.rpartition('.')[2]}/{cls.__name__}"

    @property
    def key(self) -> str:
        """The logical id: ``network/vpc``."""
        return f"{self.step}/{self.label}"

    @property
    def recorded(self) -> bool:
        """Whether it is this cluster's own, and so in the journal."""
        return self.made and not self.shared and not self.awaited

    @property
    def within(self) -> Resource | None:
        """The resource with which AWS takes this one away."""
        return None

    @property
    def place(self) -> Resource | None:
        """The VPC that it is in: what carries our label in another VPC is another run's."""
        return None

    @property
    def longest_wait(self) -> float:
        """Seconds without progress of anything after which it is waited for no longer."""
        return self.patience

    @property
    def source(self) -> str:
        """For what AWS leaves behind, or makes anew: the key of the resource that it is left by."""
        return ""

    def needs(self) -> Iterator[Resource]:
        """Every resource that must be ready before this one can be."""
        for each in fields(self):
            value = getattr(self, each.name)
            yield from (
                v for v in (value if isinstance(value, tuple) else (value,)) if is_resource(v)
            )

    def seeds(self) -> Iterator[Resource]:
        """Those of its needs without which ``create`` cannot be called; ``settle`` has them all."""
        yield from self.needs()

    def forerunners(self) -> Iterator[Resource]:
        """Those of its needs that must have been made before ``create``, but need not be ready."""
        yield from ()

    def expected(self, name: str, known: Known) -> Any:
        """The declared value of a fact: the field, with resources replaced by their ids."""
        value = getattr(self, name)
        if isinstance(value, tuple):
            return tuple(known(v).id if is_resource(v) else v for v in value)
        return known(value).id if is_resource(value) else value

    @abstractmethod
    def find(self, look: Look) -> Sequence[Live]:
        """Describe every candidate, ours or not; empty when there is none."""

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """Make it with exactly one call; ``token`` is stable across retries of this birth."""
        raise NotImplementedError(f"{self.kind()} is not made by us")

    def settle(self, aws: Aws, known: Known, live: Live) -> Live | None:
        """Make it as declared; return it if the answers prove that it is, None to look again."""
        raise Immovable(self)

    def nudge(self, aws: Aws, live: Live) -> None:
        """Have AWS look again at what ``lags``."""
        raise NotImplementedError(f"{self.kind()} does not lag")

    def bars(self, name: str, differs: Mapping[str, tuple[Any, Any]]) -> str:
        """Say why ``settle`` cannot change a field, of all that differ; empty where it can."""
        return self.fixed.get(name, "")

    def loses(self, live: Live, differs: Mapping[str, tuple[Any, Any]]) -> list[str]:
        """Say what nodes or data making it as declared would take away, a line each."""
        return []

    @abstractmethod
    def delete(self, aws: Aws, live: Live) -> None:
        """Take it away, or begin to."""

    def tenants(self, look: Look, live: Live) -> list[str]:
        """Name what uses it or is in it, to tell which of several is needed; asked of twins only.

        One that nothing uses may be deleted.  Where that cannot be seen, assume that it is used.
        """
        return ["whatever uses it"]

    def holders(self, look: Look, live: Live) -> list[str]:
        """Name what keeps AWS from deleting it, each with the command that frees it."""
        return []


KINDS: dict[str, type[Resource]] = {}


def disruption(want: Resource, live: Live, differs: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Say what making it as declared takes away, opens or unprotects, a line each."""
    lines = want.loses(live, differs)
    for name, values in differs.items():
        guard = want.guards.get(name.rpartition(".")[2])
        if guard and (words := guard(*values)):
            lines = [*lines, f"{want.key}: {words}"]
    return lines


def is_resource(value: object) -> bool:
    """Whether a field's value is another declaration."""
    return isinstance(value, Resource)


class Immovable(Exception):
    """AWS has no call that changes this in place."""


class Verdict(StrEnum):
    """What a look at a resource means."""

    ABSENT = "absent"
    FOREIGN = "foreign"
    TWINS = "twins"
    BUSY = "busy"
    FAILED = "failed"
    DRIFTED = "drifted"
    MATCHES = "matches"


@frozen
class Sight:
    """One look at one resource, judged.

    ``live`` is the one that counts.  ``twins`` are the others: with the verdict TWINS those that
    nothing uses, else those that something uses, which are another run's and stay.
    """

    want: Resource
    verdict: Verdict
    live: Live | None = None
    twins: tuple[Live, ...] = ()
    differs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


@frozen
class Bearings:
    """What tells several of one label apart: what the journal says, and where the cluster is."""

    recorded: str = ""
    """The id in the journal."""
    homes: frozenset[str] = frozenset()
    """Ids of the VPCs in which there is something with a unique name."""
    everywhere: bool = False
    """Whether all of them count, as for a delete."""


def judge(
    want: Resource,
    lives: Sequence[Live],
    known: Known,
    lineage: str,
    *,
    unsigned_ours: bool,
    bearings: Bearings = Bearings(),  # noqa: B008  frozen
) -> Sight:
    """Compare the declared with the described.  Pure: this is all the planning there is.

    ``unsigned_ours``: an unsigned thing counts as ours, because we set out to make it (and may
    have died before signing it), or because it is what AWS leaves behind of something of ours.
    """
    if want.shared or want.awaited:
        ours = list(lives)
    else:
        ours = [x for x in lives if x.owner == lineage or (x.owner is None and unsigned_ours)]
    if not bearings.everywhere and not want.named:
        ours = [x for x in ours if not is_elsewhere(want, x, known)]
        lives = ours
    if not ours:
        foreign = lives[0] if lives and want.named else None
        return Sight(want, Verdict.FOREIGN if foreign else Verdict.ABSENT, foreign)
    ours = [x for x in ours if x.state is not State.LEAVING] or ours
    if bearings.everywhere and len(ours) > 1:
        every = tuple(sorted(ours, key=lambda x: x.id))
        return Sight(want, Verdict.TWINS, every[0], every)
    # where the cluster is, there it stays, whatever one machine's journal says
    live, *others = sorted(
        ours,
        key=lambda x: (
            not {x.id, x.attributes.get("vpc")} & bearings.homes,
            not x.attributes.get("tenants"),
            x.id != bearings.recorded,
            x.id,
        ),
    )
    unused = tuple(x for x in others if not x.attributes.get("tenants"))
    if unused and any(x.id == bearings.recorded for x in ours):
        return Sight(want, Verdict.TWINS, live, twins=unused)
    twins = tuple(others)
    if live.state is not State.READY:
        busy = Verdict.FAILED if live.state is State.FAILED else Verdict.BUSY
        return Sight(want, busy, live, twins)
    differs = drift(want, live, known)
    if live.owner is None and want.recorded:
        differs["owner"] = (None, lineage)
    verdict = Verdict.DRIFTED if differs else Verdict.MATCHES
    return Sight(want, verdict, live, twins, differs)


def is_elsewhere(want: Resource, live: Live, known: Known) -> bool:
    """Whether it is in another VPC than the one that counts, as far as both are known."""
    vpc = live.facts.get("vpc") or live.attributes.get("vpc")
    return bool(vpc and want.place and want.place in known and vpc != known(want.place).id)


def drift(want: Resource, live: Live, known: Known) -> dict[str, tuple[Any, Any]]:
    """Where the described is not the declared, as ``{field: (is, should be)}``.

    A fact about a dependency that is not there itself cannot be compared and is left out.
    """
    found = {}
    for name, value in live.facts.items():
        with suppress(NotReady):
            if value != (expected := want.expected(name, known)):
                found[name] = (value, expected)
    return found
