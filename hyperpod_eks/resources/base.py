"""The vocabulary: what a resource is, what AWS says of it, and what follows from comparing them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.aws.prices import Item
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.resolve.resolved import ResolvedConfig
    from hyperpod_eks.resources.ec2.vpc import Vpc
    from hyperpod_eks.resources.permissions import Statements
    from hyperpod_eks.resources.tagged import Candidate, Tagged

MINUTE = 60.0
Fact = Any
"""What a kind declares and compares: a string, a set, a document, as the kind itself decides."""
Facts = Mapping[str, Fact]
Differs = Mapping[str, tuple[Fact, Fact]]
"""By field, what it is and what it shall be; None is nothing."""
Guard = Callable[[Fact, Fact], str]
"""Given what a field is and what it is declared as, says what the change opens or unprotects;
empty where it does not."""


class State(StrEnum):
    """What a description says of a thing's condition."""

    READY = "ready"
    BUSY = "busy"
    GROWING = "growing"  # busy, yet it takes changes: one that waits for capacity may wait for ever
    STUCK = "stuck"  # as GROWING, but without a change nothing will come of it
    LEAVING = "leaving"  # being deleted, by us or anybody else
    FAILED = "failed"


class Lifecycle(StrEnum):
    """Who creates and who deletes it."""

    OWNED = "owned"  # we do both
    SHARED = "shared"  # the account has one for all clusters: created if missing, never deleted
    AWAITED = "awaited"  # it comes and goes with others by itself
    LEFTOVER = "leftover"  # AWS leaves it behind; we only delete it


class Identity(StrEnum):
    """How a create is kept from producing duplicates when its response is lost."""

    NAME = "name"  # unique in the account or region: what has it and is not ours stops us
    REFUSED_TWICE = "refused twice"  # a client token, or parameters that AWS takes once only
    NONE = "none"  # nothing: duplicates are possible, and are looked for


@frozen
class Live:
    """A resource as AWS describes it at one moment.

    ``owner`` is the lineage that its tags name, None where it carries none of ours.  ``why`` holds
    AWS's own words for the state.  ``facts`` are what is compared with the declaration, under the
    declaration's field names; a fact left out is one that AWS does not describe.  ``attributes``
    are for those that depend on it (an endpoint, a version) and for ``status``.
    """

    id: str
    arn: str = ""
    owner: str | None = None
    state: State = State.READY
    why: str = ""
    facts: Facts = field(default_factory=dict)
    attributes: JsonMapping = field(default_factory=dict)
    shown: frozenset[str] | None = None
    """The facts that AWS has described, where the rest is what we sent; None for all."""
    mark: object = None
    """How far it has come, while it is busy: another mark at the next look is progress."""
    wants_nodes: bool = False
    """It is busy because there are no nodes: it is waited for only once they have come."""
    lags: bool = False
    """It works, which AWS does not say yet."""
    premature: bool = False
    """It failed, and held nothing yet, because its role was not known everywhere."""
    warnings: tuple[str, ...] = ()
    """What is amiss with it and stops nothing."""


class Absent:
    """What AWS does not describe, and what a declaration does not say."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT = Absent()


class Proof(StrEnum):
    """What has become of a fact that a request of ours has set."""

    SENT = "sent"  # AWS accepted it, and has not shown it since
    SHOWN = "shown"  # AWS has described it so
    WITHDRAWN = "withdrawn"  # it is no longer declared, and AWS accepted that


@frozen
class Sent:
    """A fact that an accepted request of ours has set, as JSON."""

    value: Json
    proof: Proof = Proof.SENT


@frozen
class CountedQuota:
    """A quota of the account that is counted by the things that exist.

    ``check`` is the id of the preflight's finding, ``service`` and ``name`` are those of Service
    Quotas, and ``count`` counts what the region has.
    """

    check: str
    service: str
    name: str
    count: Callable[[Snapshot], int]


class NotReady(KeyError):
    """What a declaration depends on is not there yet."""


class References:
    """The live resources that a declaration depends on."""

    def __init__(self, lives: Mapping[str, Live]) -> None:
        self._lives = lives

    def __call__(self, want: Resource | None) -> Live:
        """Return what is live of a declaration; NotReady if nothing is.

        None is what a manifest refers to and does not have.
        """
        if want is None or want.key not in self._lives:
            raise NotReady(want.key if want else "")
        return self._lives[want.key]

    def __contains__(self, want: Resource) -> bool:
        return want.key in self._lives


@frozen
class Resource(ABC):
    """A thing we declare: its fields are what we want, its verbs talk to AWS.

    Fields that are resources (or tuples of them) are what it depends on; ``after`` adds those
    that matter only for the order.  ``find`` looks by our own names and tags, never by another
    resource's id, so that everything can be looked for at once.  ``create`` is the one call that
    brings it into being, signed with our tags where the API takes them.  ``update`` and ``delete``
    are calls that may be repeated.  Waiting, retrying, ownership and bookkeeping belong to the
    engine.
    """

    label: str
    after: tuple[Resource, ...] = field(default=(), kw_only=True)

    kind: ClassVar[str]
    """Its name in manifests, which stays when the class moves: ``network/Vpc``."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """What earlier versions wrote for ``kind``."""
    step: ClassVar[str]
    patience: ClassVar[float] = 5 * MINUTE
    typical_change: ClassVar[float] = 1.0
    """Seconds from a change of it until it is ready again."""
    lifecycle: ClassVar[Lifecycle] = Lifecycle.OWNED
    identity: ClassVar[Identity] = Identity.NAME
    signed: ClassVar[bool] = True
    """It carries our tags from birth; False where they come later, or AWS makes it anew."""
    deleted_at_once: ClassVar[bool] = False
    """True if it is gone when AWS answers the delete call; False if deletion only starts then."""
    written_on: ClassVar[bool] = False
    """True if another resource can re-create it with data written after its own deletion."""
    facts: ClassVar[tuple[str, ...]] = ()
    """The fields that are compared with what AWS describes."""
    later: ClassVar[tuple[str, ...]] = ()
    """Facts that ``create`` does not set; the first ``update`` does."""
    answers: ClassVar[tuple[str, ...]] = ()
    """Facts that AWS describes in its answer to the request of ours that sets them first."""
    immutable: ClassVar[Mapping[str, str]] = {}
    """Fields that AWS does not change in place, each with the reason."""
    absence: ClassVar[Facts] = {}
    """Facts whose absence in AWS's answer is an answer, and what it says; else it is unknown."""
    guards: ClassVar[Mapping[str, Guard]] = {}
    """Fields that protect, by the last part of their name; see `Guard`."""
    cannot_delete: ClassVar[str] = ""
    """Why it cannot go while the cluster stays; empty where it can."""

    tag_type: ClassVar[str] = ""
    """What it is called where tagged things are listed; EC2's word, where EC2 has it."""
    gone_before: ClassVar[tuple[type[Resource], ...]] = ()
    """Kinds to which no field refers, and that can be deleted only when it is gone."""
    keep_group: ClassVar[str] = ""
    """The word of ``delete --keep`` that keeps it."""
    quota: ClassVar[CountedQuota | None] = None
    """What the account may have of it."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" not in vars(cls):
            raise TypeError(f"{cls.__name__}: its name in manifests is missing: kind = ...")
        KINDS.update(dict.fromkeys((cls.kind, *vars(cls).get("aliases", ())), cls))

    @classmethod
    def unpacked(cls, name: str, value: Json) -> Json:
        """Restore a field from a manifest, where it is more than JSON and other resources."""
        return value

    @property
    def key(self) -> str:
        """The logical id: ``network/vpc``."""
        return f"{self.step}/{self.label}"

    @property
    def recorded(self) -> bool:
        """Whether it is this cluster's own, and so in the journal."""
        return self.lifecycle is Lifecycle.OWNED

    @property
    def is_awaited(self) -> bool:
        """Whether it comes by itself, and is waited for."""
        return self.lifecycle is Lifecycle.AWAITED

    @property
    def is_leftover(self) -> bool:
        """Whether AWS leaves it behind, and we only delete it."""
        return self.lifecycle is Lifecycle.LEFTOVER

    @property
    def deleted_with(self) -> Resource | None:
        """The resource with which AWS takes this one away."""
        return None

    @property
    def place(self) -> Resource | None:
        """The VPC that it is in: what carries our label in another VPC is another run's."""
        return None

    @property
    def usual(self) -> str:
        """How long AWS usually takes, in words for people."""
        return ""

    @property
    def typical(self) -> float:
        """Seconds from its create until it is ready: the median of public create logs."""
        return 1.0

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

    def create_requires(self) -> Iterator[Resource]:
        """Those of its needs without which ``create`` cannot be called; ``update`` has them all."""
        yield from self.needs()

    def create_after(self) -> Iterator[Resource]:
        """Those of its needs that must have been made before ``create``, but need not be ready."""
        yield from ()

    def expected(self, name: str, references: References) -> Fact:
        """The declared value of a fact: the field, with resources replaced by their ids."""
        value = getattr(self, name)
        if isinstance(value, tuple):
            return tuple(references(v).id if is_resource(v) else v for v in value)
        return references(value).id if is_resource(value) else value

    def names(self, live: Live | None = None) -> Iterable[str]:
        """Name the facts that it declares, given what there is."""
        return self.facts

    def declared(self, references: References, live: Live | None = None) -> dict[str, Fact]:
        """Return the declared facts, without those that name what is not there yet."""
        found = {}
        for name in self.names(live):
            with suppress(NotReady):
                found[name] = self.expected(name, references)
        return found

    def authoritative(self, name: str) -> bool:
        """Whether AWS's description of a fact always counts: it says what is there, not how."""
        return False

    def reverts(self, name: str) -> bool:
        """Whether a fact that is no longer declared is taken back; else it is AWS's from then."""
        return False

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """What whoever creates and deletes it must be allowed to do, and nothing else.

        ``declared`` is the network, what was adopted included.
        """
        return ()

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Resource | None:
        """Declare what carries our tags as far as a delete must know it; None if it need not.

        ``vpc`` is the one that the cluster's network is in.
        """
        return None

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """List what may carry our tags, of one cluster or, without a name, of all.

        Nothing for EC2's kinds, whose tags are asked for at once.
        """
        yield from ()

    @abstractmethod
    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Describe every candidate, ours or not; empty when there is none."""

    def review(self, snapshot: Snapshot, live: Live, names: frozenset[str]) -> Sequence[Live]:
        """Describe it again, for what it is like in ``names`` was sent and is not described yet."""
        return self.find(snapshot)

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Make it with exactly one call; ``token`` is stable across retries of this birth."""
        raise NotImplementedError(f"{self.kind} is not created by us")

    def first(self, differs: Differs) -> Differs:
        """Of all differences, those that one ``update`` changes; the next look brings the rest."""
        return differs

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live | None:
        """Change what differs; return it if the answers prove that it is so, None to look again.

        ``differs`` are those of ``first``.
        """
        raise NotImplementedError(f"{self.kind} is not changed by us")

    def nudge(self, aws: Aws, live: Live) -> None:
        """Have AWS look again at what ``lags``."""
        raise NotImplementedError(f"{self.kind} does not lag")

    def immutable_reason(self, name: str, differs: Differs) -> str:
        """Say why ``update`` cannot change a field, of all that differ; empty where it can."""
        return self.immutable.get(name, "")

    def disruption(self, live: Live, differs: Differs) -> list[str]:
        """Say what nodes or data making it as declared would take away, a line each."""
        return []

    def prices(self, support: str) -> Iterable[Item]:
        """What it costs by the hour while it exists; ``support`` is that of its Kubernetes."""
        return ()

    @abstractmethod
    def delete(self, aws: Aws, live: Live) -> None:
        """Take it away, or begin to."""

    def used_by(self, snapshot: Snapshot, live: Live) -> list[str]:
        """Name what uses it or is in it, to tell which of several is needed; asked of twins only.

        One that nothing uses may be deleted.  Where that cannot be seen, assume that it is used.
        """
        return ["whatever uses it"]

    def blockers(self, snapshot: Snapshot, live: Live) -> list[str]:
        """Name what keeps AWS from deleting it, each with the command that frees it."""
        return []


KINDS: dict[str, type[Resource]] = {}
"""Every kind that has been imported, by its names in manifests."""


def disruptions(want: Resource, live: Live, differs: Differs) -> list[str]:
    """Say what making it as declared takes away, opens or unprotects, a line each."""
    lines = want.disruption(live, differs)
    for name, values in differs.items():
        guard = want.guards.get(name.rpartition(".")[2])
        if guard and (words := guard(*values)):
            lines = [*lines, f"{want.key}: {words}"]
    return lines


def is_resource(value: object) -> bool:
    """Whether a field's value is another declaration."""
    return isinstance(value, Resource)


def plain(value: Fact) -> Json:
    """Spell a fact as JSON, sets in order.

    >>> plain({"zones": frozenset({"b", "a"}), "dns": (True, False)})
    {'zones': ['a', 'b'], 'dns': [True, False]}
    """
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(map(plain, value))
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return value
