"""What is declared beside what AWS describes and what was sent: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from enum import StrEnum

from hyperpod_eks.documents import Json
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources.base import (
    ABSENT,
    Differs,
    Fact,
    Identity,
    Lifecycle,
    Live,
    Proof,
    References,
    Resource,
    Sent,
    State,
    plain,
)


class Status(StrEnum):
    """What a look at a resource means."""

    ABSENT = "absent"
    FOREIGN = "foreign"
    DUPLICATES = "twins"
    BUSY = "busy"
    FAILED = "failed"
    DRIFTED = "drifted"
    MATCHES = "matches"


@frozen
class Observation:
    """What one resource is like, compared with its declaration.

    ``live`` is the one that counts.  ``duplicates`` are the others: with DUPLICATES those that
    nothing uses, else those that something uses, which are another run's and stay.
    """

    want: Resource
    status: Status
    live: Live | None = None
    duplicates: tuple[Live, ...] = ()
    differs: Differs = field(default_factory=dict)
    """What is to be changed."""
    details: Differs = field(default_factory=dict)
    """Of what is to come or to go as a whole, the parts (``workers.instance_count``)."""
    unproven: Differs = field(default_factory=dict)
    """What AWS describes otherwise than an accepted request has it, and always did: left alone."""
    unknown: tuple[str, ...] = ()
    """What is declared and was sent, and AWS does not describe."""
    sent: Mapping[str, Sent] | None = None
    """What the record shall say was sent, after this look; None to leave that as it is."""


@frozen
class Placement:
    """What tells several of one label apart: what the journal says, and where the cluster is."""

    recorded: str = ""
    """The id in the journal."""
    homes: frozenset[str] = frozenset()
    """Ids of the VPCs in which there is something with a unique name."""
    everywhere: bool = False
    """Whether all of them count, as for a delete."""

    def order(self, live: Live) -> tuple[bool, bool, bool, str]:
        """Sort the one that counts first."""
        return (
            not {live.id, live.attributes.get("vpc")} & self.homes,
            not live.attributes.get("tenants"),
            live.id != self.recorded,
            live.id,
        )


def compare(
    want: Resource,
    lives: Sequence[Live],
    references: References,
    lineage: str,
    *,
    unsigned_ours: bool,
    placement: Placement = Placement(),  # noqa: B008  frozen
    sent: Mapping[str, Sent] | None = None,
) -> Observation:
    """Compare the declared with the described.  Pure: this is all the planning there is.

    ``unsigned_ours``: an unsigned thing counts as ours, because we set out to make it (and may
    have died before signing it), or because it is what AWS leaves behind of something of ours.
    ``sent``: the facts that accepted requests of ours have set; None where nobody remembers.
    """
    if want.lifecycle is Lifecycle.SHARED or want.is_awaited:
        ours = list(lives)
    else:
        ours = [x for x in lives if x.owner == lineage or (x.owner is None and unsigned_ours)]
    if not placement.everywhere and want.identity is not Identity.NAME:
        ours = [x for x in ours if not is_elsewhere(want, x, references)]
        lives = ours
    if not ours:
        foreign = lives[0] if lives and want.identity is Identity.NAME else None
        return Observation(want, Status.FOREIGN if foreign else Status.ABSENT, foreign)
    ours = [x for x in ours if x.state is not State.LEAVING] or ours
    if placement.everywhere and len(ours) > 1:
        every = tuple(sorted(ours, key=lambda x: x.id))
        return Observation(want, Status.DUPLICATES, every[0], every)
    # where the cluster is, there it stays, whatever one machine's journal says
    live, *others = sorted(ours, key=placement.order)
    unused = tuple(x for x in others if not x.attributes.get("tenants"))
    if unused:
        return Observation(want, Status.DUPLICATES, live, duplicates=unused)
    if live.state not in (State.READY, State.GROWING, State.STUCK):
        busy = Status.FAILED if live.state is State.FAILED else Status.BUSY
        return Observation(want, busy, live, tuple(others))
    observation = _compare_one(want, live, references, lineage, sent)
    return replace(observation, duplicates=tuple(others))


def _compare_one(
    want: Resource,
    live: Live,
    references: References,
    lineage: str,
    sent: Mapping[str, Sent] | None,
) -> Observation:
    """Compare what exists and takes changes; what was not sent by us waits until it is ready."""
    observation = compare_facts(want, live, references, sent)
    if live.owner is None and want.recorded:
        observation = replace(
            observation, differs={**observation.differs, "owner": (None, lineage)}
        )
    remembered = sent is not None and any(
        want.authoritative(name) or name in sent for name in observation.differs
    )
    if live.state is not State.READY and not remembered:
        status = Status.FAILED if live.state is State.STUCK else Status.BUSY
        return replace(observation, status=status, differs={}, details={})
    return replace(observation, status=Status.DRIFTED if observation.differs else Status.MATCHES)


def is_elsewhere(want: Resource, live: Live, references: References) -> bool:
    """Whether it is in another VPC than the one that counts, as far as both are known."""
    vpc = live.facts.get("vpc") or live.attributes.get("vpc")
    return bool(
        vpc and want.place and want.place in references and vpc != references(want.place).id
    )


def compare_facts(
    want: Resource, live: Live, references: References, sent: Mapping[str, Sent] | None = None
) -> Observation:
    """Compare fact by fact what is declared, what was sent, and what AWS describes.

    What is neither declared nor sent is AWS's own.  What AWS does not describe is unknown, unless
    it says by its absence that there is none (``absence``).  What differs is changed if the
    declaration says something else than what was sent, or if AWS has shown it as sent before: then
    somebody has changed it.  Else AWS describes it in a way of its own, and sending it once more
    would not help.  What is no longer declared is taken back.
    """
    before = sent or {}
    differs: dict[str, tuple[Fact, Fact]] = {}
    unproven: dict[str, tuple[Fact, Fact]] = {}
    unknown, after = [], {}
    names = set(want.names(live))
    for name, declared in want.declared(references, live).items():
        is_, past, value = described(want, live, name), before.get(name), plain(declared)
        as_sent = past is not None and not withdrawn(past) and past.value == value
        if past:
            after[name] = past
        if plain(is_) == value or (is_ is ABSENT and value in NOTHING and (as_sent or not past)):
            if live.shown is None or name in live.shown:
                after[name] = Sent(value, Proof.SHOWN)
        elif is_ is ABSENT and (as_sent or sent is None):
            unknown.append(name)
            after.setdefault(name, Sent(value))
        elif past and as_sent and past.proof is Proof.SENT and not want.authoritative(name):
            unproven[name] = (is_, declared)
        else:
            last = _like(declared, past.value) if past and not withdrawn(past) else None
            differs[name] = (last if is_ is ABSENT else is_, declared)
    for name, past in before.items():
        if name in names:
            after.setdefault(name, past)  # its value is not known yet
        elif both := _no_longer_declared(want, live, name, past):
            after[name] = past
            (unproven if withdrawn(past) else differs)[name] = both
    details = {name: both for name, both in differs.items() if _whole(name) in differs}
    return Observation(
        want,
        Status.MATCHES,
        live,
        differs={name: both for name, both in differs.items() if name not in details},
        details=details,
        unproven=unproven,
        unknown=tuple(unknown),
        sent=after,
    )


def _no_longer_declared(
    want: Resource, live: Live, name: str, past: Sent
) -> tuple[Fact, None] | None:
    """Find what is left of a fact that was sent and is not declared any more."""
    is_ = described(want, live, name)
    if withdrawn(past):
        return (is_, None) if plain(is_) == past.value else None
    gone = is_ is ABSENT and past.proof is Proof.SHOWN
    if past.value in NOTHING or gone or not want.reverts(name):
        return None
    return (past.value if is_ is ABSENT else is_), None


def _like(declared: Fact, value: Json) -> Fact:
    """Give a fact from JSON the type that the declared one has."""
    kind = type(declared)
    return kind(value) if kind in (frozenset, tuple) and isinstance(value, list) else value


def _whole(name: str) -> str:
    """Of what a fact is a part: ``workers`` of ``workers.instance_count``."""
    return name.partition(".")[0] if "." in name else ""


NOTHING: tuple[object, ...] = (None, "", "{}", [])
"""Declarations that there is none: where AWS describes none either, it is as declared."""


def described(want: Resource, live: Live, name: str) -> Fact:
    """Return what AWS says of a fact; its absence may say something too."""
    found = live.facts.get(name, ABSENT)
    if found is ABSENT or found == "":
        return want.absence.get(name, ABSENT)
    return found


def withdrawn(past: Sent) -> bool:
    """Whether it was sent that there shall be none."""
    return past.proof is Proof.WITHDRAWN


def accepted(
    observation: Observation, before: Mapping[str, Sent] | None, differs: Differs
) -> dict[str, Sent]:
    """Return what was sent, after AWS has accepted a change of what differs."""
    names, after = set(observation.want.names(observation.live)), dict(before or {})
    parts = {name: both for name, both in observation.details.items() if _whole(name) in differs}
    for name, (_, declared) in {**differs, **parts}.items():
        if name in names:
            after[name] = Sent(plain(declared))
        elif name in after:
            after[name] = replace(after[name], proof=Proof.WITHDRAWN)
    return after


def born(want: Resource, references: References, *, later: bool = False) -> dict[str, Sent]:
    """Return what was sent, after AWS has accepted a create; ``later``: and settled it."""
    facts = want.declared(references)
    return {
        name: Sent(plain(value)) for name, value in facts.items() if later or name not in want.later
    }
