"""Every row of the decision table: observation, circumstances and the resulting action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from hyperpod_eks.engine.decide import Action, Circumstances, decide, decide_delete
from hyperpod_eks.errors import Capacity, Foreign, HyperpodError, NotFound
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources.base import Differs, Lifecycle, Live, State
from hyperpod_eks.resources.compare import Observation, Status

from .toys import Attachment, Toy

SQUARE: Differs = {"shape": ("round", "square")}
OURS = Live("id-1", owner="us")


@frozen
class Rigid(Toy):
    """A kind that AWS cannot change in place."""

    immutable: ClassVar[Mapping[str, str]] = {"shape": "it is hard"}


@frozen
class Staged(Toy):
    """A kind that is changed in several steps."""

    def first(self, differs: Differs) -> Differs:
        return dict([next(iter(differs.items()))])


@frozen
class Coming(Toy):
    """A kind that AWS creates by itself."""

    lifecycle = Lifecycle.AWAITED


@frozen
class Shared(Toy):
    """A kind that all clusters of the account share."""

    lifecycle = Lifecycle.SHARED


TOY, RIGID, STAGED, COMING = Toy("a"), Rigid("a"), Staged("a"), Coming("a")
EXACT = Attachment("a")
ABSENT = Observation(TOY, Status.ABSENT)
BUSY = Observation(TOY, Status.BUSY, replace(OURS, state=State.BUSY, why="CREATING"))
FAILED = Observation(TOY, Status.FAILED, replace(OURS, state=State.FAILED, why="bad script"))
STUCK = Observation(TOY, Status.FAILED, replace(OURS, state=State.STUCK, why="no capacity"))
MATCHES = Observation(TOY, Status.MATCHES, OURS)
DRIFTED = Observation(TOY, Status.DRIFTED, OURS, differs=SQUARE)
LAGGING = Observation(TOY, Status.MATCHES, replace(OURS, lags=True, why="DEGRADED"))
WARNED = Observation(COMING, Status.MATCHES, replace(OURS, warnings=("no EFA",)))
BOTH: Differs = {"colour": ("red", "blue"), **SQUARE}

ROWS: list[tuple[Observation, dict[str, Any], Action, str]] = [
    (
        Observation(TOY, Status.FOREIGN, Live("x")),
        {},
        Action.REFUSE,
        "belongs to an unknown owner (no hyperpod-eks tags)",
    ),
    (ABSENT, {}, Action.CREATE, ""),
    (ABSENT, {"hidden": True}, Action.WAIT, "does not show it yet"),
    (ABSENT, {"said_to_exist": True}, Action.WAIT, "reports that it exists"),
    (ABSENT, {"adopted": "id-7"}, Action.REFUSE, "the adopted resource no longer exists"),
    (Observation(COMING, Status.ABSENT), {}, Action.WAIT, "AWS creates it automatically"),
    (BUSY, {}, Action.WAIT, "CREATING"),
    (BUSY, {"unseen_before": "eks/caller"}, Action.CREATE, "cannot be checked until eks/caller"),
    (FAILED, {}, Action.REFUSE, "--replace-failed creates it again: bad script"),
    (FAILED, {"replaceable": True}, Action.REPLACE, "bad script"),
    (FAILED, {"adopted": "id-1", "replaceable": True}, Action.REFUSE, "adopted and has failed"),
    (FAILED, {"may_be_in_use": True, "replaceable": True}, Action.REFUSE, "may be in use"),
    (STUCK, {}, Action.REFUSE, "no capacity"),
    (
        Observation(TOY, Status.DUPLICATES, OURS, (Live("id-2"),)),
        {},
        Action.CHANGE,
        "id-2 is deleted: an unused duplicate",
    ),
    (MATCHES, {}, Action.KEEP, ""),
    (MATCHES, {"adopted": "id-1"}, Action.ADOPT, "used as it is"),
    (MATCHES, {"unresolved": {"vpc": ("v", "known later")}}, Action.CHANGE, ""),
    (DRIFTED, {}, Action.CHANGE, ""),
    (replace(DRIFTED, want=RIGID), {}, Action.REFUSE, "it is hard"),
    (DRIFTED, {"updated": SQUARE, "just_updated": True}, Action.WAIT, "is not visible yet"),
    (DRIFTED, {"updated": SQUARE}, Action.REFUSE, "AWS does not change it"),
    (replace(DRIFTED, want=STAGED, differs=BOTH), {"updated": SQUARE}, Action.CHANGE, ""),
    (
        replace(DRIFTED, want=EXACT),
        {"updated": SQUARE, "just_updated": True},
        Action.WAIT,
        "is not visible yet",
    ),
    (replace(DRIFTED, want=EXACT), {"updated": SQUARE}, Action.CHANGE, ""),
    (
        replace(DRIFTED, want=EXACT, differs=BOTH),
        {"updated": BOTH},
        Action.REFUSE,
        "AWS does not change it",
    ),
    (
        replace(MATCHES, unproven=SQUARE),
        {"updated": SQUARE, "just_updated": True},
        Action.WAIT,
        "is not visible yet",
    ),
    (LAGGING, {"may_lag": True}, Action.WAIT, "DEGRADED"),
    (LAGGING, {}, Action.KEEP, ""),
    (WARNED, {"warnings_may_go": True}, Action.WAIT, "no EFA"),
    (WARNED, {}, Action.KEEP, ""),
]


@pytest.mark.parametrize(("observation", "given", "action", "why"), ROWS)
def test_create(observation: Observation, given: dict[str, Any], action: Action, why: str) -> None:
    decision = decide(observation, Circumstances(**given))

    assert (decision.action, why in decision.why) == (action, True), decision
    assert (decision.error is not None) == (action is Action.REFUSE)


@pytest.mark.parametrize(
    ("observation", "given", "error"),
    [
        (ROWS[0][0], {}, Foreign),
        (ABSENT, {"adopted": "id-7"}, NotFound),
        (FAILED, {}, HyperpodError),
        (STUCK, {}, Capacity),
    ],
)
def test_a_refusal_is_the_error_that_create_ends_with(
    observation: Observation, given: dict[str, Any], error: type[HyperpodError]
) -> None:
    assert type(decide(observation, Circumstances(**given)).error) is error


@frozen
class Disk(Toy):
    """A kind that holds data."""

    data = True


DATA = Observation(Disk("a"), Status.MATCHES, Live("id"))
TWO = Observation(Disk("a"), Status.DUPLICATES, Live("id"), (Live("id"), Live("id-2")))
LEAVING = Observation(Disk("a"), Status.BUSY, Live("id", state=State.LEAVING))
NOTHING = {"adopted": False, "asked": False, "needed_by": "", "deleted_with": ""}


@pytest.mark.parametrize(
    ("observation", "given", "action", "why"),
    [
        (MATCHES, {}, Action.DELETE, ""),
        (ROWS[0][0], {}, Action.KEEP, "belongs to an unknown owner (no hyperpod-eks tags)"),
        (replace(MATCHES, want=Shared("a")), {}, Action.KEEP, "shared by every cluster"),
        (MATCHES, {"adopted": True}, Action.KEEP, "adopted"),
        (MATCHES, {"asked": True}, Action.KEEP, "asked to keep it"),
        (MATCHES, {"needed_by": "toys/b"}, Action.KEEP, "toys/b needs it"),
        (MATCHES, {"deleted_with": "toys/b"}, Action.GOES, "deleted with toys/b"),
        (MATCHES, {"asked": True, "deleted_with": "toys/b"}, Action.KEEP, "asked"),
        (DATA, {}, Action.KEEP, "it holds data"),
        (DATA, {"deleted_with": "toys/b"}, Action.KEEP, "it holds data"),
        (DATA, {"consented": {"other"}}, Action.KEEP, "it holds data"),
        (DATA, {"consented": {"id"}}, Action.DELETE, ""),
        (TWO, {"consented": {"id"}}, Action.KEEP, "it holds data"),
        (TWO, {"consented": {"id", "id-2"}}, Action.DELETE, ""),
        (LEAVING, {}, Action.DELETE, ""),
    ],
)
def test_delete(observation: Observation, given: dict[str, Any], action: Action, why: str) -> None:
    decision = decide_delete(observation, **{**NOTHING, **given})

    assert (decision.action, why in decision.why) == (action, True), decision
