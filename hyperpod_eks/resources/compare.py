"""Compares what is declared, what AWS describes and what was sent; pure functions."""

from __future__ import annotations

import json
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
    disruptions,
    plain,
)


class Status(StrEnum):
    """The result of comparing a resource with its declaration."""

    ABSENT = "absent"
    FOREIGN = "foreign"
    DUPLICATES = "twins"
    BUSY = "busy"
    FAILED = "failed"
    DRIFTED = "drifted"
    MATCHES = "matches"


@frozen
class Observation:
    """A resource compared with its declaration.

    ``live`` is the resource that counts.  ``duplicates`` are others of the same label: with status
    DUPLICATES the unused ones; otherwise those in use, which belong to another run and stay.
    """

    want: Resource
    status: Status
    live: Live | None = None
    duplicates: tuple[Live, ...] = ()
    differs: Differs = field(default_factory=dict)
    """The facts to change."""
    details: Differs = field(default_factory=dict)
    """Parts (``workers.instance_count``) of a fact that is created or deleted as a whole."""
    unproven: Differs = field(default_factory=dict)
    """Facts that AWS has always described differently from what it accepted: left unchanged."""
    unknown: tuple[str, ...] = ()
    """Names of facts that are declared and were sent, and that AWS does not describe."""
    sent: Mapping[str, Sent] | None = None
    """The new ``sent`` of the manifest's record; None to keep the old one."""


@frozen
class Placement:
    """Selects one of several resources of a label: by the manifest's id and the cluster's VPC."""

    recorded: str = ""
    """The id in the manifest."""
    homes: frozenset[str] = frozenset()
    """Ids of the VPCs of owned resources with unique names, such as the cluster."""
    everywhere: bool = False
    """Whether all of them count, as in a delete."""

    def order(self, live: Live) -> tuple[bool, bool, bool, str]:
        """Return a sort key; the resource that counts sorts first."""
        return (
            not {live.id, live.attributes.get("vpc")} & self.homes,
            not live.attributes.get("tenants"),
            live.id != self.recorded,
            live.id,
        )


def as_declared(described: Json, declared: Json) -> Json:
    """Return the declared text of an enumeration that AWS describes in another case.

    >>> as_declared("lend", "Lend"), as_declared("DontLend", "Lend"), as_declared(3, None)
    ('Lend', 'DontLend', 3)
    """
    both = isinstance(described, str) and isinstance(declared, str)
    return declared if both and described.lower() == declared.lower() else described


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
    """Compare a declaration with the described resources; a pure function.

    ``unsigned_ours``: a resource without our tags counts as owned, since the manifest records its
    create (which may have ended before it was tagged), or since it is a leftover of an owned
    resource.  ``sent``: the facts that accepted requests have set; None if unknown.
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
    # the cluster's VPC decides, whatever the manifest of one machine says
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
    """Compare a resource that accepts changes; until it is ready, only facts that we sent count."""
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
    """Whether a resource is known to be in another VPC than the declared one."""
    vpc = live.facts.get("vpc") or live.attributes.get("vpc")
    return bool(
        vpc and want.place and want.place in references and vpc != references(want.place).id
    )


def compare_facts(
    want: Resource, live: Live, references: References, sent: Mapping[str, Sent] | None = None
) -> Observation:
    """Compare each fact: what is declared, what was sent, and what AWS describes.

    A fact that is neither declared nor sent is AWS's own.  A fact that AWS does not describe is
    unknown, unless its absence means a value (``absence``).  A difference is changed if the
    declaration differs from what was sent, or if AWS has described it as sent before, or if
    something that is attached is missing: then somebody has changed it.  Otherwise AWS describes it
    in a form of its own, and sending it again would not help.  A fact that is no longer declared is
    reset.
    """
    before = sent or {}
    differs: dict[str, tuple[Fact, Fact]] = {}
    unproven: dict[str, tuple[Fact, Fact]] = {}
    unknown, after = [], {}
    names = set(want.names(live))
    for name, declared in want.declared(references, live).items():
        is_, past, value = described(want, live, name), before.get(name), plain(declared)
        as_sent = past is not None and _stands(past) and past.value == value
        if past:
            after[name] = past
        if plain(is_) == value or (is_ is ABSENT and value in NOTHING and (as_sent or not past)):
            if live.shown is None or name in live.shown:
                after[name] = Sent(value, Proof.SHOWN)
        elif is_ is ABSENT and (as_sent or sent is None):
            unknown.append(name)
            after.setdefault(name, Sent(value))
        elif (
            past
            and as_sent
            and past.proof is Proof.SENT
            and not want.authoritative(name)
            and not (name in want.attached and _lacks(is_, declared))
        ):
            unproven[name] = (is_, declared)
        else:
            never = past is None or past.proof in (Proof.UNSURE, Proof.WITHDRAWN)
            last = _like(declared, past.value) if past and not never else None
            differs[name] = (last if is_ is ABSENT else is_, declared)
    for name, past in before.items():
        if name in names:
            after.setdefault(name, past)  # its declared value is not known yet
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


def _lacks(described: Fact, declared: Fact) -> bool:
    """Whether something that was attached is missing; what others have added does not count."""
    if isinstance(declared, frozenset):
        return not declared <= frozenset(described or ())
    return described in NOTHING


def overwritten(observation: Observation) -> list[str]:
    """Return what somebody else has set and an update would set back, a line each."""
    want, sent = observation.want, observation.sent or {}
    lines = []
    for name, (is_, declared) in observation.differs.items():
        past = sent.get(name, Sent(plain(want.initial.get(name))))
        if name in want.asks and not _in_doubt(past) and plain(is_) != past.value:
            wanted = want.initial.get(name) if declared is None else declared
            lines.append(
                f"{want.key}: somebody else has set {name} to {_shown(is_)}; it becomes"
                f" {_shown(wanted)}"
            )
    return lines


def _shown(value: Fact) -> str:
    return json.dumps(plain(value), sort_keys=True)


def _no_longer_declared(
    want: Resource, live: Live, name: str, past: Sent
) -> tuple[Fact, None] | None:
    """Return what remains of a fact that was sent and is no longer declared; None if nothing."""
    is_ = described(want, live, name)
    if withdrawn(past):
        return (is_, None) if plain(is_) == past.value else None
    if past.value in NOTHING or not want.reverts(name):
        return None
    if is_ is not ABSENT:
        return None if _was_never(past, is_) else (is_, None)
    both = past.value, None
    gone = past.proof is Proof.SHOWN
    if _in_doubt(past):  # what may not be so is no reason to refuse or to disrupt anything
        alone = {name: both}
        gone = bool(want.immutable_reason(name, alone) or disruptions(want, live, alone))
    return None if gone else both


def _like(declared: Fact, value: Json) -> Fact:
    """Convert a fact from JSON to the type of the declared value."""
    kind = type(declared)
    return kind(value) if kind in (frozenset, tuple) and isinstance(value, list) else value


def _whole(name: str) -> str:
    """Return the whole that a fact is a part of: ``workers`` for ``workers.instance_count``."""
    return name.partition(".")[0] if "." in name else ""


NOTHING: tuple[object, ...] = (None, "", "{}", [])
"""Declared values that mean "none": they match a fact that AWS does not describe."""


def described(want: Resource, live: Live, name: str) -> Fact:
    """Return AWS's description of a fact, or the value that its absence means, or ABSENT."""
    found = live.facts.get(name, ABSENT)
    if found is ABSENT or found == "":
        return want.absence.get(name, ABSENT)
    return found


def withdrawn(past: Sent) -> bool:
    """Whether a reset of the fact was sent."""
    return past.proof is Proof.WITHDRAWN


def _stands(past: Sent) -> bool:
    """Whether an accepted request has set the fact, and none may have changed it since."""
    return past.proof in (Proof.SENT, Proof.SHOWN)


def _in_doubt(past: Sent) -> bool:
    """Whether an update, whose answer was lost, may have changed the fact."""
    return past.proof in (Proof.UNSURE, Proof.REPLACED)


def doubted(observation: Observation, differs: Differs) -> dict[str, Sent] | None:
    """Return ``sent`` before an update of ``differs``, whose answer may be lost.

    After it, what AWS describes instead of a former value is no longer AWS's form of that.  What
    it does not describe is sent again, and what the update sets is reset if it is no longer
    declared.  What others may have attached stays so.
    """
    if observation.sent is None:
        return None
    want, live, after = observation.want, observation.live, dict(observation.sent)
    for name, (_, declared) in _with_parts(observation, differs).items():
        if name in want.attached:
            continue
        past, is_ = after.get(name), described(want, live, name) if live else ABSENT
        unset = past is None or withdrawn(past) or past.value in NOTHING
        if past and not unset and not _was_never(past, is_):
            after[name] = replace(past, proof=Proof.REPLACED)
        else:
            after[name] = Sent(plain(declared), Proof.UNSURE)
    return after


def _was_never(past: Sent, is_: Fact) -> bool:
    """Whether an earlier update, whose answer was lost, has not set the fact."""
    return past.proof is Proof.UNSURE and is_ is not ABSENT and plain(is_) != past.value


def accepted(
    observation: Observation, before: Mapping[str, Sent] | None, differs: Differs
) -> dict[str, Sent]:
    """Return the new ``sent`` after AWS has accepted an update of ``differs``."""
    names, after = set(observation.want.names(observation.live)), dict(before or {})
    for name, (_, declared) in _with_parts(observation, differs).items():
        if name in names:
            after[name] = Sent(plain(declared))
        elif name in after:
            after[name] = replace(after[name], proof=Proof.WITHDRAWN)
    return after


def _with_parts(observation: Observation, differs: Differs) -> Differs:
    parts = {name: both for name, both in observation.details.items() if _whole(name) in differs}
    return {**differs, **parts}


def born(want: Resource, references: References, *, later: bool = False) -> dict[str, Sent]:
    """Return ``sent`` after an accepted create; ``later``: including facts that update sets."""
    facts = want.declared(references)
    return {
        name: Sent(plain(value)) for name, value in facts.items() if later or name not in want.later
    }
