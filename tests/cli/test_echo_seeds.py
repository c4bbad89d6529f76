"""Examples that live under answers which say more, less and otherwise than what was sent."""

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
SEEDS = 14
OPEN: dict[int, str] = {}
"""Seeds that show a defect which is not fixed yet."""
QUICK = 2
"""Seeds in `make test`, beside those of tests/change/test_echo.py; the others are long."""


class Life:
    """One example from create to delete; what AWS makes odd it makes odd in every answer."""

    def __init__(self, user: User, example: Path, seed: int) -> None:
        self.user, self.seed = user, seed
        (user.folder / example.name).write_text(example.read_text())
        *before, self.create = prepared.commands(example)
        for words in before:
            said = user.types(*words)
            assert said.code == 0, said.err
        self.config: dict[str, Any] = yaml.safe_load(example.read_text())
        default = {"name": "worker-group", "instance_type": "ml.m5.2xlarge", "instance_count": 2}
        self.config.setdefault("instance_groups", [default])

    def types(self, *words: str) -> Said:
        """Type a command; it must end well, and read nothing that the tables do not know."""
        stack = self.user.stack
        stack.sim.echo = Echo(self.seed)
        stack.calls.clear()
        said = self.user.types(*words)
        if said.code:
            told = f"{said.out}{said.err}"
            pytest.fail(f"seed {self.seed}: {words} ended with {said.code}: {told}")
        reads = {(c.service, c.operation) for c in stack.calls if is_read(c.operation)}
        known = {call for call in reads if call in MEMBERS or call[0] in UNALTERED}
        assert reads - known - {("iam", "SimulatePrincipalPolicy")} == set()
        stack.sim.echo = None
        return said

    def updates(self) -> list[str]:
        """What changed something that was there; configs and tags of a new thing do not count."""
        return [each for each in self.user.mutations() if ".Update" in each]


def marks(seed: int) -> list[pytest.MarkDecorator]:
    """What a seed is: quick, or long, and known to fail."""
    long = [pytest.mark.prove] if seed >= QUICK else []
    return [*long, *([pytest.mark.xfail(reason=OPEN[seed], strict=True)] if seed in OPEN else [])]


@pytest.mark.parametrize(
    "number",
    [pytest.param(number, marks=marks(number)) for number in range(SEEDS)],
)
def test_a_life_under_odd_answers(user: User, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("hyperpod_eks.engine.provide.GRACE", 0.3)  # the clock is a real one
    examples = prepared.EXAMPLES
    life = Life(user, examples[number % len(examples)], number)
    account = prepared.inventory(user)
    life.types(*life.create)
    assert life.updates() == []
    life.types("plan", *life.create[1:], "--detailed-exitcode")
    life.types("status", life.config["name"], "--region", life.config["region"])
    assert user.mutations() == []
    group = life.config["instance_groups"][0]
    if "auto_scaling" not in life.config:  # there Karpenter scales
        group["instance_count"] += 1
        life.types(
            "scale",
            life.config["name"],
            f"{group['name']}={group['instance_count']}",
            "--region",
            life.config["region"],
        )
        assert life.updates() == ["sagemaker.UpdateCluster"]
    group.setdefault("kubernetes_config", {}).setdefault("labels", {})["seed"] = str(number)
    (user.folder / "changed.yaml").write_text(json.dumps(life.config))
    life.types("create", "-f", "changed.yaml", "--local")
    assert life.updates() == ["sagemaker.UpdateCluster"]
    life.types("delete", "-f", "changed.yaml", "--local", "--yes")
    assert prepared.inventory(user) == account
