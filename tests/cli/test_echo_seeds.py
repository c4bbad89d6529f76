"""Examples work although answers have more, fewer and other members than requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpod_eks.local.aws.echo import Echo
from hyperpod_eks.local.aws.echo_members import MEMBERS, UNALTERED
from hyperpod_eks.local.aws.sim import is_read
from tests.cli import test_prepare as prepared
from tests.conftest import Said, User

user = prepared.user
COUNT = len(prepared.EXAMPLES)
SEEDS = 12 * COUNT
"""Two for each example, change, and way of being odd."""
QUICK = (4 * COUNT + 2,)
"""Seeds in `make test`: their oddities vary from answer to answer.  Seeds with one oddity for all
answers or for each command are in the long proof; those of HyperPod are in change/test_echo."""


class Life:
    """One example from create to delete, with odd answers."""

    def __init__(self, user: User, example: Path, seed: int) -> None:
        self.user, self.seed, self.commands = user, seed, 0
        (user.folder / example.name).write_text(example.read_text())
        self.create, self.account = prepared.begun(user, example)
        self.config: dict[str, Any] = yaml.safe_load(example.read_text())
        default = {"name": "worker-group", "instance_type": "ml.m5.2xlarge", "instance_count": 2}
        self.config.setdefault("instance_groups", [default])

    def types(self, *words: str) -> Said:
        """Run a command, which must succeed and call only operations that the tables have."""
        stack = self.user.stack
        self.commands += 1
        stack.sim.echo = (
            Echo(self.seed),
            Echo(1000 * self.seed + self.commands, truthful=True),
            Echo(self.seed, truthful=True, varies=True),
        )[self.seed // (2 * COUNT) % 3]
        stack.calls.clear()
        said = self.user.types(*words)
        if said.code:
            told = f"{said.out}{said.err}"
            pytest.fail(f"seed {self.seed}: {words} ended with {said.code}: {told}")
        reads = {(c.service, c.operation) for c in stack.calls if is_read(c.operation)}
        assert reads - MEMBERS.keys() - UNALTERED.keys() == set()
        stack.sim.echo = None
        return said

    def updates(self) -> list[str]:
        """Return the update calls; other mutations can be part of a create."""
        return [each for each in self.user.mutations() if ".Update" in each]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=[] if number in QUICK else [pytest.mark.prove])
        for number in range(SEEDS)
    ],
)
def test_a_life_under_odd_answers(user: User, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("hyperpod_eks.engine.apply.GRACE", 0.3)  # the clock is real
    monkeypatch.setattr("os.fsync", lambda _: None)  # no power cuts here
    example = prepared.EXAMPLES[number % COUNT]
    life = Life(user, example, number)
    life.types(*life.create)
    assert life.updates() == []
    life.types("plan", *life.create[1:], "--detailed-exitcode")
    life.types("status", life.config["name"], "--region", life.config["region"])
    assert user.mutations() == []
    group = life.config["instance_groups"][0]
    changes = ["change"] if "auto_scaling" in life.config else ["scale", "change"]
    if changes[number // COUNT % len(changes)] == "scale":  # else Karpenter scales
        group["instance_count"] += 1
        life.types(
            "scale",
            life.config["name"],
            f"{group['name']}={group['instance_count']}",
            "--region",
            life.config["region"],
        )
    else:
        group.setdefault("kubernetes_config", {}).setdefault("labels", {})["seed"] = str(number)
        (user.folder / example.name).write_text(json.dumps(life.config))
        life.types(*life.create)
    assert life.updates() == ["sagemaker.UpdateCluster"]
    life.types("delete", *life.create[1:], "--yes", "--delete-data")
    assert prepared.inventory(user) == life.account
