"""Manifests of earlier versions, with the ids of the current account, still work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyperpod_eks.config.lifecycle import packaged_lifecycle
from hyperpod_eks.local import CHART
from tests.conftest import User

AGES = sorted((Path(__file__).parents[1] / "manifests").glob("*.json"))
ENDS = AGES[0], AGES[-1]
"""The manifests between these are only in the long proof."""
NAME = "demo.hyperpod-eks.json"


@pytest.fixture(
    params=[
        pytest.param(age, id=age.stem, marks=[] if age in ENDS else [pytest.mark.prove])
        for age in AGES
    ]
)
def user(request: pytest.FixtureRequest, user: User) -> User:
    """A user whose cluster was created by an earlier version."""
    user.has("demo")
    path = user.folder / NAME
    now = json.loads(path.read_text())["resources"]
    text = request.param.read_text()
    for name, folder in (("@CHART@", CHART), ("@LIFECYCLE@", packaged_lifecycle())):
        text = text.replace(name, str(folder))
    golden = json.loads(text)
    for key, record in golden["resources"].items():
        record |= {"id": now[key]["id"], "arn": now[key]["arn"]}
    path.write_text(json.dumps(golden))
    user.stack.calls.clear()
    return user


def test_it_is_read_planned_and_created_without_a_change_and_deleted(user: User) -> None:
    before = (user.folder / NAME).read_text()
    status = user.types("status", "demo", "-o", "json")
    assert status.document["cluster"]["ready"], status.err
    assert status.document["differences"] == []
    plan = user.types("plan", "demo", "--detailed-exitcode")
    assert plan.code == 0, plan.out
    assert (user.folder / NAME).read_text() == before

    assert user.types("create", "demo").code == 0
    assert user.mutations() == []
    (user.folder / NAME).write_text(before)  # delete before any record changes

    said = user.types("delete", "demo", "--yes")

    assert said.code == 0, said.err
    assert "nothing remains" in said.out
