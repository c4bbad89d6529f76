"""A copied cluster equals the created one: in AWS, in Kubernetes and for its user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.stack import Stack
from tests.conftest import User, at_work

RUN = ("at", "since", "age_seconds", "started_at", "finished_at", "seconds", "log", "endpoint")
"""Members that differ from run to run; a copy has its own Kubernetes endpoint."""


def steady(value: Any) -> Any:
    """Remove members that differ between two runs of one command."""
    if isinstance(value, dict):
        return {k: steady(v) for k, v in value.items() if k not in RUN}
    return [steady(each) for each in value] if isinstance(value, list) else value


def answers(user: User) -> dict[str, Any]:
    """Return the inventory, the documents of commands, and the calls that they made."""
    user.stack.calls.clear()
    found: dict[str, Any] = {"inventory": user.stack.inventory()}
    for verb in ("status", "plan", "nodes", "outputs"):
        said = user.types(verb, "demo", "-o", "json")
        found[verb] = said.code, steady(said.document)
    found["calls"] = sorted(f"{call.service}.{call.operation}" for call in user.stack.calls)
    return found


def test_a_copy_is_what_was_created(one_stack: Stack, tmp_path: Path) -> None:
    said, left = [], []
    for name in ("created", "copied"):
        (tmp_path / name).mkdir()
        with at_work(one_stack, tmp_path / name) as user:
            left.append(user.stack.inventory())
            document = user.has("demo", "--timeout", "601")  # not used by another test
            calls = [(call.service, call.operation, call.status) for call in user.stack.calls]
            said.append({"create": document, "its calls": calls, **answers(user)})
            assert said[-1]["plan"][0] == 0, "a plan of what is there changes nothing"
            assert user.types("delete", "demo", "--yes").code == 0
            left.append(user.stack.inventory())
            assert not (user.folder / "demo.hyperpod-eks.json").exists()
    for account in left:
        del account["iam"]["Roles"]  # the service-linked role stays
    empty, after_the_created, _, after_the_copied = left
    assert empty == after_the_created == after_the_copied
    assert said[0] == said[1]


def test_a_copy_is_changed_without_the_others(one_stack: Stack, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with at_work(one_stack, tmp_path / name) as user:
            user.has("demo")
            (cluster,) = user.stack.sim.clusters.values()
            assert not cluster.has("Namespace", "mine")
            cluster._create("Namespace", {"metadata": {"name": "mine"}})
            user.stack.clock.advance(120)
            assert user.types("status", "demo").code == 0


def test_only_an_empty_account_is_copied_to(user: User) -> None:
    user.stack.faults.append(Fault("ec2"))
    with pytest.raises(AssertionError, match="the account is not as"):
        user.has("demo")
