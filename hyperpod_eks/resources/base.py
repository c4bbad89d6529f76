"""The base of all kinds: `Resource` (what is declared), `Live` (what AWS describes), facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import KnownCause
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.aws.prices import Item
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.kube.contents import Contents
    from hyperpod_eks.resolve.resolved import ResolvedConfig
    from hyperpod_eks.resources.ec2.vpc import Vpc
    from hyperpod_eks.resources.permissions import Statements
    from hyperpod_eks.resources.tagged import Candidate, Tagged

MINUTE = 60.0
Fact = Any
"""A value that is declared and compared: a string, a set or a document; each kind decides."""
Facts = Mapping[str, Fact]
Differs = Mapping[str, tuple[Fact, Fact]]
"""The actual and the declared value of each field that differs; None is no value."""
Guard = Callable[[Fact, Fact], str]
"""Takes a field's actual and declared value; returns what the change exposes or unprotects, or
an empty string."""


class State(StrEnum):
    """The condition of a described resource."""

    READY = "ready"
    BUSY = "busy"
    GROWING = "growing"  # busy, but accepts changes: it may wait for capacity forever
    STUCK = "stuck"  # as GROWING, but only a change can make it ready
    LEAVING = "leaving"  # being deleted, by anyone
    FAILED = "failed"


class Lifecycle(StrEnum):
    """Who creates and who deletes a kind of resource."""

    OWNED = "owned"  # created and deleted by us
    SHARED = "shared"  # one per account for all clusters: created if missing, never deleted
    AWAITED = "awaited"  # created and deleted by AWS with other resources; we wait for it
    LEFTOVER = "leftover"  # created by AWS and not deleted by it; we only delete it


class Identity(StrEnum):
    """How a create is kept from producing duplicates when its response is lost."""

    NAME = "name"  # unique in the account or region: one that is not owned stops the run
    REFUSED_TWICE = "refused twice"  # a client token, or parameters that AWS accepts only once
    NONE = "none"  # neither: duplicates are possible, and each look checks for them


@frozen
class Live:
    """A resource as AWS describes it at one moment.

    ``owner`` is the lineage in its tags, None if there is none.  ``why`` is AWS's own message about
    the state.  ``facts`` are compared with the declaration, under its field names; AWS does not
    describe a fact that is left out.  ``attributes`` (an endpoint, a version) are for resources
    that depend on it and for ``status``.
    """

    id: str
    arn: str = ""
    owner: str | None = None
    state: State = State.READY
    why: str = ""
    facts: Facts = field(default_factory=dict)
    attributes: JsonMapping = field(default_factory=dict)
    shown: frozenset[str] | None = None
    """The facts that AWS has described; the others are as we sent them.  None for all."""
    mark: object = None
    """Its progress while it is busy: a different mark at the next look counts as progress."""
    wants_nodes: bool = False
    """Whether it is busy for lack of nodes: it is waited for only once nodes have joined."""
    lags: bool = False
    """Whether it works although AWS does not report so yet."""
    holds_nothing: bool = False
    """Whether its creation has failed, so that it is deleted and created again without a word."""
    premature: bool = False
    """Whether it failed, still empty, because its role had not propagated everywhere."""
    warnings: tuple[str, ...] = ()
    """Problems that stop nothing, a line each."""
    cause: KnownCause | None = None
    """The known cause of its state, for the error in which waiting for it ends."""
    holds_data: bool = False
    """Whether its own delete deletes the user's data, although its kind is none with ``data``."""
    held_by: frozenset[str] | None = None
    """The ids of the resources that it is in, and that stay while it does; None for all that it
    needs."""


class Blocker(NamedTuple):
    """Something that prevents a deletion, in words with the command that removes it."""

    words: str
    cause: KnownCause | None = None


class Absent:
    """The type of `ABSENT`: a fact that AWS does not describe, or that is not declared."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT = Absent()


class Proof(StrEnum):
    """The state of a fact that a request of ours has set."""

    SENT = "sent"  # AWS accepted it, and has not described it since
    SHOWN = "shown"  # AWS has described it as sent
    UNSURE = "unsure"  # an update, whose answer was lost, may have set it for the first time
    REPLACED = "replaced"  # it was so, and an update, whose answer was lost, may have replaced it
    WITHDRAWN = "withdrawn"  # AWS accepted its reset, since it is no longer declared


@frozen
class Sent:
    """A fact that an accepted request of ours has set, or may have set, as JSON."""

    value: Json
    proof: Proof = Proof.SENT


@frozen
class CountedQuota:
    """A quota of the account for the number of existing resources.

    ``check`` is the id of the preflight's finding, ``service`` and ``name`` are those of Service
    Quotas, and ``count`` returns the number in the region.
    """

    check: str
    service: str
    name: str
    count: Callable[[Snapshot], int]


class NotReady(KeyError):
    """A resource that a declaration depends on does not exist yet."""


class References:
    """The live resources of a stack, by declaration: ``references(want)``."""

    def __init__(self, lives: Mapping[str, Live]) -> None:
        self._lives = lives

    def __call__(self, want: Resource | None) -> Live:
        """Return the live resource of a declaration; raise NotReady if there is none.

        ``want`` is None for a reference of a manifest to a resource that it does not contain.
        """
        if want is None or want.key not in self._lives:
            raise NotReady(want.key if want else "")
        return self._lives[want.key]

    def __contains__(self, want: Resource) -> bool:
        return want.key in self._lives


@frozen
class Resource(ABC):
    """A declared resource: its fields are the desired values, its verbs call AWS.

    Fields that are resources (or tuples of them) are its dependencies; ``after`` adds resources
    that matter only for the order.  ``find`` uses our own names and tags, never another
    resource's id, so that all resources can be read concurrently.  ``create`` is exactly one call,
    with our tags if the API accepts them.  ``update`` and ``delete`` may be repeated.  Waiting,
    retries, ownership and the manifest are the engine's.
    """

    label: str
    after: tuple[Resource, ...] = field(default=(), kw_only=True)

    kind: ClassVar[str]
    """Name in manifests (``network/Vpc``); it never changes, even if the class moves."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Names that earlier versions wrote for ``kind``."""
    schema: ClassVar[int] = 1
    """The version of manifests from which on the kind is known."""
    digested: ClassVar[tuple[str, ...]] = ()
    """Texts that a manifest keeps as digests, since only create and update need them."""
    step: ClassVar[str]
    patience: ClassVar[float] = 5 * MINUTE
    typical_change: ClassVar[float] = 1.0
    """Seconds that a change usually takes until the resource is ready again."""
    lifecycle: ClassVar[Lifecycle] = Lifecycle.OWNED
    identity: ClassVar[Identity] = Identity.NAME
    signed: ClassVar[bool] = True
    """Whether it has our tags from its creation; False if they come later, or AWS re-creates it."""
    deleted_at_once: ClassVar[bool] = False
    """Whether it is gone once AWS answers the delete call; otherwise deletion only starts then."""
    written_on: ClassVar[bool] = False
    """Whether another resource may re-create it by writing data after its deletion."""
    facts: ClassVar[tuple[str, ...]] = ()
    """The fields that are compared with what AWS describes."""
    later: ClassVar[tuple[str, ...]] = ()
    """Facts that the first ``update`` sets, not ``create``."""
    answers: ClassVar[tuple[str, ...]] = ()
    """Facts that AWS describes in its answer to the request that first sets them."""
    attached: ClassVar[tuple[str, ...]] = ()
    """Facts that name what is attached by ids or ARNs, in the form in which they are sent.

    What is missing from them was detached, also before AWS has described it once.  ``update`` may
    be repeated for them, since a description may be older than the last one.
    """
    immutable: ClassVar[Mapping[str, str]] = {}
    """Fields that AWS cannot change in place, with the reasons."""
    absence: ClassVar[Facts] = {}
    """Facts whose absence in AWS's answer means a value, with that value; others are unknown."""
    asks: ClassVar[tuple[str, ...]] = ()
    """Facts that are set back only with consent if somebody else has changed them."""
    initial: ClassVar[Facts] = {}
    """The values that facts have at first, if a create does not set them."""
    guards: ClassVar[Mapping[str, Guard]] = {}
    """A `Guard` for each protective field, by the last part of the field's name."""
    data: ClassVar[bool] = False
    """Whether it holds the user's data: it is deleted only if its id was consented to."""
    inhabited: ClassVar[bool] = False
    """Whether people work in it: once it was ready, it is never replaced because it has failed."""
    cannot_delete: ClassVar[str] = ""
    """Why it cannot be deleted while the cluster exists; empty if it can."""

    elective: ClassVar[str] = ""
    """Its service, if most clusters do not use that: what lists all kinds goes on without it."""
    tag_type: ClassVar[str] = ""
    """Its name in lists of tagged resources; for EC2's kinds, EC2's resource type."""
    gone_before: ClassVar[tuple[type[Resource], ...]] = ()
    """Kinds, beside those of its fields, that can be deleted only after this one."""
    keep_group: ClassVar[str] = ""
    """The value of ``delete --keep`` that keeps it."""
    quota: ClassVar[CountedQuota | None] = None
    """The account's quota for this kind."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" not in vars(cls):
            raise TypeError(f"{cls.__name__}: its name in manifests is missing: kind = ...")
        KINDS.update(dict.fromkeys((cls.kind, *vars(cls).get("aliases", ())), cls))

    @classmethod
    def unpacked(cls, name: str, value: Json) -> Json:
        """Convert a field's JSON from a manifest; for fields that are not JSON or resources."""
        return value

    @property
    def key(self) -> str:
        """The key in manifests: step and label, as in ``network/vpc``."""
        return f"{self.step}/{self.label}"

    @property
    def recorded(self) -> bool:
        """Whether this cluster owns it, so that the manifest records it."""
        return self.lifecycle is Lifecycle.OWNED

    @classmethod
    def is_used(cls) -> bool:
        """Whether it is in use once it is ready: it holds data, or people work in it."""
        return cls.data or cls.inhabited

    @property
    def is_awaited(self) -> bool:
        """Whether AWS creates it and we only wait for it."""
        return self.lifecycle is Lifecycle.AWAITED

    @property
    def is_leftover(self) -> bool:
        """Whether AWS leaves it behind and we only delete it."""
        return self.lifecycle is Lifecycle.LEFTOVER

    @property
    def deleted_with(self) -> Resource | None:
        """The resource with which AWS deletes this one."""
        return None

    @property
    def unmarked(self) -> bool:
        """Whether nothing of it shows its owner: then it is whose `deleted_with` is."""
        return False

    @property
    def part_of(self) -> Resource | None:
        """The resource with which it is kept: a delete that keeps that one keeps this one."""
        return None

    @property
    def deleted_first(self) -> bool:
        """Whether its own deletion begins before that of `deleted_with`, unless it is hidden."""
        return False

    def let_go(self, live: Live) -> tuple[Resource, Resource] | None:
        """Return what changes only after this one no longer names its parts, and this one so.

        None if it names no part that goes.
        """
        return None

    @property
    def place(self) -> Resource | None:
        """The VPC that contains it; one with our label in another VPC belongs to another run."""
        return None

    @property
    def reason(self) -> str:
        """What it is created for, in words for people; empty if its key says it."""
        return ""

    @property
    def takes_along(self) -> str:
        """What of others its delete deletes, in words: create asks before it deletes such a one."""
        return ""

    @property
    def leaves(self) -> str:
        """What is left in AWS of its `contents`, in words with {} for these, if there are any."""
        return ""

    def contents(self, snapshot: Snapshot) -> Contents | None:
        """Return what is in the namespace that goes with it, or what it leaves; None for nothing.

        Raises HyperpodError if that cannot be read.
        """
        return None

    @property
    def usual(self) -> str:
        """How long a create usually takes, in words for people."""
        return ""

    @property
    def typical(self) -> float:
        """Seconds that a create takes until it is ready: the median of public create logs."""
        return 1.0

    @property
    def longest_wait(self) -> float:
        """Seconds without any progress in the run after which waiting for it ends."""
        return self.patience

    @property
    def source(self) -> str:
        """For a leftover, or a resource that AWS re-creates: key of the resource that causes it."""
        return ""

    def needs(self) -> Iterator[Resource]:
        """Yield every resource that must be ready before this one can be ready."""
        for each in fields(self):
            value = getattr(self, each.name)
            yield from (
                v for v in (value if isinstance(value, tuple) else (value,)) if is_resource(v)
            )

    def create_requires(self) -> Iterator[Resource]:
        """Yield those of `needs` that must be ready before ``create``; ``update`` has them all."""
        others = {need.key for need in self.create_names()}
        yield from (need for need in self.needs() if need.key not in others)

    def create_names(self) -> Iterator[Resource]:
        """Yield those of `needs` whose ids ``create`` sends; their updates may still run then."""
        yield from ()

    def create_after(self) -> Iterator[Resource]:
        """Yield those of `needs` that must exist before ``create``, but need not be ready."""
        yield from ()

    def expected(self, name: str, references: References) -> Fact:
        """Return the declared value of a fact, with ids for resources; may raise NotReady."""
        value = getattr(self, name)
        if isinstance(value, tuple):
            return tuple(references(v).id if is_resource(v) else v for v in value)
        return references(value).id if is_resource(value) else value

    def names(self, live: Live | None = None) -> Iterable[str]:
        """Return the names of the declared facts; ``live`` is the live resource, if known."""
        return self.facts

    def declared(self, references: References, live: Live | None = None) -> dict[str, Fact]:
        """Return the declared facts, without those that refer to a missing resource."""
        found = {}
        for name in self.names(live):
            with suppress(NotReady):
                found[name] = self.expected(name, references)
        return found

    def authoritative(self, name: str) -> bool:
        """Whether AWS's description always counts: the fact is existence, not a setting."""
        return False

    def reverts(self, name: str) -> bool:
        """Whether a fact that is no longer declared is reset; otherwise it is left to AWS."""
        return False

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Return the IAM statements that creating and deleting this kind requires, and no others.

        ``declared`` are the resources of the network, adopted ones included.
        """
        return ()

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Resource | None:
        """Declare a tagged resource with the fields that a delete needs; None to leave it out.

        ``vpc`` is the VPC of the cluster's network.
        """
        return None

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """Yield resources that may have our tags, of one cluster or, for "", of all clusters.

        Empty for EC2's kinds: one DescribeTags call covers them all.
        """
        yield from ()

    @abstractmethod
    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Describe every resource of this name or label, of any owner; empty if there is none."""

    def review(self, snapshot: Snapshot, live: Live, names: frozenset[str]) -> Sequence[Live]:
        """Describe it again: AWS has not described the facts ``names`` since they were sent."""
        return self.find(snapshot)

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it with exactly one call; ``token`` is the same for all retries of one create."""
        raise NotImplementedError(f"{self.kind} is not created by us")

    def first(self, differs: Differs) -> Differs:
        """Return the differences that the next ``update`` changes; others follow later."""
        return differs

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live | None:
        """Change what differs; return the result if AWS's answers prove it, None to look again.

        ``differs`` is the result of ``first``.
        """
        raise NotImplementedError(f"{self.kind} is not changed by us")

    def nudge(self, aws: Aws, live: Live) -> None:
        """Make AWS update its status of a resource that ``lags``."""
        raise NotImplementedError(f"{self.kind} does not lag")

    def immutable_reason(self, name: str, differs: Differs) -> str:
        """Return why ``update`` cannot change a field of ``differs``; empty if it can."""
        return self.immutable.get(name, "")

    def in_words(self, live: Live, differs: Differs) -> str:
        """Say what differs where the facts are digests; empty if they say it themselves."""
        return ""

    def disruption(self, live: Live, differs: Differs) -> list[str]:
        """Return the nodes or data that an update would remove, a line each."""
        return []

    @property
    def may_hold_data(self) -> bool:
        """Whether some of its kind hold data."""
        return self.data

    def holds(self, live: Live) -> str:
        """Return what it holds, in words; only for what holds data, as the next four."""
        return ""

    def lost_with(self, live: Live) -> str:
        """Return what its delete loses, in words."""
        return self.holds(live)

    def sign(self, aws: Aws, lives: Sequence[Live]) -> None:
        """Tag leftovers that are kept as ours; may be repeated."""
        raise NotImplementedError(f"{self.kind} is not tagged by us")

    def backups(self, aws: Aws, live: Live) -> list[str]:
        """Return the ids of backups that stay after its delete."""
        return []

    def usd_per_month(self, live: Live) -> float | None:
        """Return what it costs, None if unknown."""
        return None

    def takes(self, live: Live | None, lives: Mapping[str, Live]) -> Iterable[str]:
        """Return the nodes or data beside it that its create or change removes, a line each.

        ``live`` is the resource itself, if it exists, and ``lives`` are all others by key.
        """
        return ()

    def prices(self, *, extended: bool) -> Iterable[Item]:
        """Return what is paid for it.

        ``extended`` says whether the cluster's Kubernetes version is in extended support.
        """
        return ()

    @abstractmethod
    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it, or start its deletion; may be repeated."""

    def used_by(self, snapshot: Snapshot, live: Live) -> list[str]:
        """Return what uses it or is in it; asked only of duplicates, to find the one in use.

        An unused one may be deleted; a kind that cannot know returns a placeholder, so it is kept.
        """
        return ["whatever uses it"]

    def blockers(self, snapshot: Snapshot, live: Live) -> list[Blocker]:
        """Return what prevents its deletion."""
        return []


KINDS: dict[str, type[Resource]] = {}
"""Every imported kind, by its names in manifests."""


def disruptions(want: Resource, live: Live, differs: Differs) -> list[str]:
    """Return what an update removes, exposes or unprotects, a line each."""
    lines = want.disruption(live, differs)
    for name, values in differs.items():
        guard = want.guards.get(name.rpartition(".")[2])
        if guard and (words := guard(*values)):
            lines = [*lines, f"{want.key}: {words}"]
    return lines


def is_resource(value: object) -> bool:
    """Whether a field's value is another resource."""
    return isinstance(value, Resource)


def plain(value: Fact) -> Json:
    """Convert a fact to JSON; sets become sorted lists.

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
