"""Manifests of earlier versions, with the ids of the current account, still work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.config.lifecycle import packaged_lifecycle
from hyperpod_eks.config.load import load
from hyperpod_eks.local import CHART
from hyperpod_eks.local.stack import Stack
from tests.conftest import User, at_work

AGES = sorted((Path(__file__).parents[1] / "manifests").glob("*.json"))
"""The first is tried by `make test`, the others by the long proof."""
NAME = "demo.hyperpod-eks.json"


@pytest.fixture(
    params=[
        pytest.param(age, id=age.stem, marks=[] if age == AGES[0] else [pytest.mark.prove])
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


def test_a_manifest_of_the_first_schema_has_no_setting_that_0_1_0_does_not_know(
    one_stack: Stack, tmp_path: Path
) -> None:
    """0.1.0 refuses unknown names in a config; it reads ``want`` by its own fields."""
    with at_work(one_stack, tmp_path) as somebody:
        somebody.has("demo")
        found = json.loads((somebody.folder / NAME).read_text())
    assert found["schema"] == "hyperpod-eks/manifest/v1"
    assert _newer(found["config"], json.loads(AGES[-1].read_text())["config"]) == []
    document = {"charts": {"near": {"chart": "./near"}}, "addons": {"cert-manager": None}}
    config = load({"name": "demo", "region": "us-west-2", **document}, {}, {}, files=False)
    kept = config.document()
    assert kept["charts"]["near"]["chart"]
    assert "buckets" not in kept["addons"]["cert-manager"]
    assert load(kept, {}, {}, files=False) == config


def _newer(found: Any, known: Any, path: str = "") -> list[str]:
    """Return the names that only a document has, which the other does not."""
    if not (isinstance(found, dict) and isinstance(known, dict)):
        return []
    names = [f"{path}{name}" for name in found if name not in known]
    both = [name for name in found if name in known]
    return [*names, *(x for n in both for x in _newer(found[n], known[n], f"{path}{n}."))]
