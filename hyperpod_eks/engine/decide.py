"""Decide what a command does with a resource: pure functions, and the only place.

``plan`` prints a decision; ``apply`` and ``destroy`` carry it out.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import field
from enum import StrEnum

from hyperpod_eks.aws.errors import lacks_room
from hyperpod_eks.engine.wording import not_owned, owner_of, unchanged
from hyperpod_eks.errors import FAILED, Capacity, HyperpodError, KnownCause, NotFound
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources.base import Differs, Lifecycle, Live, Resource, State, disruptions
from hyperpod_eks.resources.compare import Observation, Status, overwritten


class Action(StrEnum):
    """What a command does with a resource.  The values are part of `plan`'s documents."""

    CREATE = "create"
    CHANGE = "change"
    REPLACE = "replace"  # delete a failed one and create it again
    KEEP = "keep"
    ADOPT = "adopt"  # use an existing one as it is
    WAIT = "wait"  # AWS is still working on it
    DELETE = "delete"
    GOES = "goes"  # AWS deletes it with another resource
    REFUSE = "refuse"  # the command stops there


CHANGING = (Action.CREATE, Action.CHANGE, Action.REPLACE, Action.DELETE)
"""The actions with which ``create`` changes something in AWS."""


@frozen
class Decision:
    """One action, its reason, and what it changes.

    ``differs`` has, by field, the current and the declared value; if the latter depends on a
    resource without an id yet, it is a text that says so.  ``error`` is raised by a command that
    acts, if the action is REFUSE.
    """

    action: Action
    why: str = ""
    differs: Differs = field(default_factory=dict)
    error: HyperpodError | None = None


@frozen
class Circumstances:
    """What a decision depends on besides the observation."""

    adopted: str = ""
    """The id of the adopted resource; empty for none."""
    hidden: bool = False
    """It was created a moment ago: AWS may not show it yet."""
    said_to_exist: bool = False
    """AWS refused its create a moment ago because it exists."""
    unseen_before: str = ""
    """The key of a resource that must change before it can be observed; set by ``plan`` only."""
    replaceable: bool = False
    """If it has failed, it may be deleted and created again."""
    recorded: str = ""
    """The id of one with data that was ready before; empty for none."""
    may_hold_data: bool = False
    """It holds data unless it has never been ready, so it is never replaced."""
    may_be_in_use: bool = False
    """People work in it unless it has never been ready, so it is never replaced."""
    unresolved: Differs = field(default_factory=dict)
    """Facts that will differ, since they name a resource without an id; set by ``plan`` only."""
    updated: Differs = field(default_factory=dict)
    """The differences that the last update of this run sent."""
    just_updated: bool = False
    """That update was a moment ago: AWS may not show it yet."""
    may_lag: bool = False
    """The run has time to wait until AWS reports a working resource as ready."""
    warnings_may_go: bool = False
    """Devices that nodes of this run lack may still appear."""


def decide(observation: Observation, given: Circumstances) -> Decision:
    """Decide what ``create`` does with a resource, after those that it needs.

    >>> from hyperpod_eks.resources.ec2.gateways import ElasticIp
    >>> decide(Observation(ElasticIp("a"), Status.ABSENT), Circumstances()).action.value
    'create'
    """
    live = observation.live
    match observation.status:
        case Status.FOREIGN:
            why = f"belongs to {owner_of(observation)}"
            return Decision(Action.REFUSE, why, error=not_owned([observation]))
        case Status.ABSENT:
            return _decide_absent(observation.want, given)
        case Status.BUSY if given.unseen_before:
            return Decision(
                Action.CREATE, f"cannot be checked until {given.unseen_before} is updated"
            )
        case Status.BUSY:
            return Decision(Action.WAIT, live.why if live else "")
        case Status.DUPLICATES:
            extra = ", ".join(each.id for each in observation.duplicates)
            return Decision(Action.CHANGE, f"{extra} is deleted: an unused duplicate")
    assert live
    if observation.status is Status.FAILED:
        return _decide_failed(observation.want, live, given)
    return _decide_present(observation, live, given)


def _decide_absent(want: Resource, given: Circumstances) -> Decision:
    if given.adopted:
        error = adopted_is_gone({want.key: given.adopted})
        return Decision(Action.REFUSE, "the adopted resource no longer exists", error=error)
    if given.hidden:
        return Decision(Action.WAIT, "created a moment ago; AWS does not show it yet")
    if given.said_to_exist:
        return Decision(Action.WAIT, "AWS reports that it exists, but does not show it yet")
    if want.is_awaited:
        return Decision(Action.WAIT, "AWS creates it automatically")
    if given.recorded:
        return Decision(Action.CREATE, f"{given.recorded} no longer exists; the new one is empty")
    return Decision(Action.CREATE, want.reason or (f"usually {want.usual}" if want.usual else ""))


FINAL = {
    "eks/cluster": KnownCause("eks-failed"),
    "hyperpod/cluster": KnownCause("failed-is-final"),
}
"""The known causes of failures that AWS never repairs, by key."""
FAILED_IN_USE = KnownCause("failed-in-use")
IN_USE = (
    "It was ready before and may be in use, so it is never replaced: ask AWS Support to repair it,"
    " or delete it by hand if nothing in it is needed, then run the same command again."
)
"""What to do about a failed cluster in which people may work."""
MAY_HOLD_DATA = (
    "It may hold data, so it is never replaced: delete it by hand if it holds none, then run the"
    " same command again."
)
"""What to do about a failed resource of a kind that holds data."""


def _decide_failed(want: Resource, live: Live, given: Circumstances) -> Decision:
    key, why = want.key, live.why
    if given.adopted:
        error = HyperpodError(
            f"{key} was adopted and has failed: {why}",
            "Adopted resources are never replaced: repair it, then run the command again.",
        )
        return Decision(Action.REFUSE, f"it was adopted and has failed: {why}", error=error)
    if given.may_hold_data:
        error = HyperpodError(
            f"{key} ({live.id}) has failed: {why}",
            MAY_HOLD_DATA,
        )
        return Decision(Action.REFUSE, f"it has failed, and may hold data: {why}", error=error)
    if given.may_be_in_use and live.state is State.FAILED:
        error = HyperpodError(
            f"{key} ({live.id}) has failed: {why}",
            IN_USE,
            cause=FAILED_IN_USE,
        )
        return Decision(Action.REFUSE, f"it has failed, and may be in use: {why}", error=error)
    if given.replaceable:
        return Decision(Action.REPLACE, why)
    anew = live.state is State.FAILED  # another state may recover after a change
    option = "with --replace-failed" if anew else "again"
    error = (Capacity if lacks_room(why) else HyperpodError)(
        f"{key} has failed: {why}",
        f"Remove the cause, then run the same command {option}.",
        reason=FAILED if anew else "",
        cause=FINAL.get(key),
    )
    return Decision(
        Action.REFUSE,
        f"it has failed; --replace-failed creates it again: {why}" if anew else why,
        error=error,
    )


def _decide_present(observation: Observation, live: Live, given: Circumstances) -> Decision:
    want, differs = observation.want, {**observation.differs, **given.unresolved}
    if given.adopted:
        return Decision(Action.ADOPT, "used as it is")
    # a change that this run has begun was checked as a whole
    if not given.updated and (barred := immutable(want, differs)):
        return Decision(Action.REFUSE, barred, differs, unchanged(observation))
    # detached by somebody since, or described late: sending it again harms nothing
    again = not given.just_updated and differs.keys() <= {*want.attached}
    if differs and (not given.updated or again or want.first(differs) != given.updated):
        lines = [*disruptions(want, live, observation.differs), *overwritten(observation)]
        lost = [line.removeprefix(f"{want.key}: ") for line in lines]
        said = want.in_words(live, differs)
        return Decision(Action.CHANGE, "; ".join([*lost, *([said] if said else [])]), differs)
    if given.just_updated and given.updated.keys() & {*differs, *observation.unproven}:
        return Decision(Action.WAIT, "the change is not visible yet")
    if differs:
        return Decision(Action.REFUSE, "AWS does not change it", differs, unchanged(observation))
    if live.lags and given.may_lag:
        return Decision(Action.WAIT, live.why)
    if live.warnings and want.is_awaited and given.warnings_may_go:
        return Decision(Action.WAIT, live.warnings[0])
    if given.recorded not in ("", live.id):
        return Decision(Action.KEEP, f"{live.id} has taken the place of {given.recorded}")
    return Decision(Action.KEEP)


def immutable(want: Resource, differs: Differs) -> str:
    """Return why AWS cannot change it in place; empty if it can."""
    reasons = [reason for name in differs if (reason := want.immutable_reason(name, differs))]
    if differs and not reasons and type(want).update is Resource.update:
        reasons = ["AWS does not change this in place"]
    return "; ".join(reasons)


def adopted_is_gone(adopted: Mapping[str, str]) -> NotFound:
    """Return the error for adopted resources, ids by key, that no longer exist."""
    lines = [f"{key}: the adopted resource {id_} no longer exists" for key, id_ in adopted.items()]
    options = " ".join(f"--resource {key}=ID" for key in adopted)
    return NotFound("\n".join(lines), then=("Adopt a replacement", f"adopt {options}"))


def decide_delete(
    observation: Observation,
    *,
    adopted: bool,
    asked: bool,
    needed_by: str,
    deleted_with: str,
    consented: Container[str] = (),
    unused: bool = False,
) -> Decision:
    """Decide what ``delete`` does with a resource that exists.

    ``asked``: the user asked to keep it.  ``needed_by`` is the key of a kept resource that needs
    it, ``deleted_with`` of one with which AWS deletes it; each is empty for none.  ``consented``
    are the ids of resources with data that the user agreed to delete.  ``unused``: it has never
    been ready, so that it holds nothing if it has failed.
    """
    want = observation.want
    if observation.status is Status.FOREIGN:
        return Decision(Action.KEEP, f"belongs to {owner_of(observation)}")
    if want.lifecycle is Lifecycle.SHARED:
        return Decision(Action.KEEP, "shared by every cluster of the account")
    if adopted:
        return Decision(Action.KEEP, "adopted; never deleted")
    empty = unused and observation.status is Status.FAILED
    held = [] if empty else _ids_with_data(observation)
    refused = [each for each in held if each not in consented]
    in_it = observation.live and observation.live.holds_data and not deleted_with
    part = want.is_leftover and len(refused) < len(held)
    if (want.data or in_it) and refused and not part:
        return Decision(Action.KEEP, HOLDS_DATA)
    if asked:
        return Decision(Action.KEEP, "asked to keep it")
    if needed_by:
        return Decision(Action.KEEP, f"{needed_by}{NEEDS_IT}")
    if deleted_with:
        return Decision(Action.GOES, f"deleted with {deleted_with}")
    return Decision(Action.DELETE, want.takes_along)


HOLDS_DATA = "it holds data; delete --delete-data deletes it"
NEEDS_IT = " needs it"


def keeps_data(kept: Iterable[str]) -> bool:
    """Whether one of the reasons is data: ours, or an adopted one that is in something of ours.

    It is for deletes that keep nothing else; the manifest stays then.
    """
    return any(why == HOLDS_DATA or why.endswith(NEEDS_IT) for why in kept)


def _ids_with_data(observation: Observation) -> list[str]:
    """Return the ids of a resource and its duplicates, but for those that are being deleted."""
    every = {x.id: x for x in (observation.live, *observation.duplicates) if x}
    return [each.id for each in every.values() if each.state is not State.LEAVING]
