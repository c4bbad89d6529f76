"""Every example works on a new stack with only the commands in its header."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.local import daemon
from hyperpod_eks.local.aws.sim import Delays
from tests.change.test_existing import without_the_services_entry
from tests.conftest import REGION, User

EXAMPLES = [
    path
    for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    if path.name != "ray.yaml"  # its charts come from the internet
]
UNSEEN = Delays(unseen=Delays.real().unseen)
"""``local prepare`` runs on a stack that does not know everywhere at once what was created."""
QUICK = {"existing-eks.yaml"}
"""The others are in the long proof; test_echo_seeds runs all of them."""


@pytest.fixture
def user(user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user whose `--local` is the stack of this process."""
    running = daemon.Running(user.stack.endpoint, os.getpid(), 0.0, REGION)
    monkeypatch.setattr(daemon, "ensure", lambda *_, **__: running)
    return user


def commands(example: Path) -> list[list[str]]:
    """Return the commands for the embedded stack in the header of an example."""
    lines = re.findall(r"^#   hyperpod-eks (.*)", example.read_text(), re.MULTILINE)
    typed = [shlex.split(each, comments=True) for each in lines]
    return [each for each in typed if "--local" in each or each[0] == "local"]


def inventory(user: User) -> Any:
    found = user.stack.inventory()
    found[REGION]["fsx"]["Backups"] = {}  # the final ones stay
    content = json.dumps(found, sort_keys=True, indent=1).splitlines()
    return without_the_services_entry(content)  # SageMaker leaves it in the user's EKS cluster


def begun(user: User, example: Path) -> tuple[list[str], Any]:
    """Run the commands before an example's create; return that, and what its delete leaves."""
    *before, create = commands(example)
    account = inventory(user)
    for words in before:
        with pytest.MonkeyPatch.context() as patch:
            if words[:2] == ["local", "prepare"]:
                patch.setattr(user.stack.sim, "delays", UNSEEN)
            said = user.types(*words)
        assert said.code == 0, said.err
        if words[0] == "local":  # what others create is deleted with the cluster
            account = inventory(user)
    return create, account


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path, marks=() if path.name in QUICK else pytest.mark.prove, id=path.stem)
        for path in EXAMPLES
    ],
)
def test_an_example_lives_by_its_header(
    user: User, monkeypatch: pytest.MonkeyPatch, example: Path
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    (user.folder / example.name).write_text(example.read_text())
    create, account = begun(user, example)
    said = user.types(*create)
    assert said.code == 0, said.err
    user.mutations()
    said = user.types("plan", *create[1:], "--detailed-exitcode")
    assert said.code == 0, said.out
    assert user.types(*create).code == 0
    assert user.mutations() == []
    said = user.types("kubeconfig", *create[1:])
    assert (said.code, len([*user.folder.glob("*.kubeconfig")])) == (0, 1), said.err
    said = user.types("delete", *create[1:], "--yes", "--delete-data")
    assert said.code == 0, said.err
    assert inventory(user) == account
    assert [*user.folder.glob("*.kubeconfig")] == []  # it named the EKS cluster, ours or adopted


def test_what_is_there_is_not_created_again(user: User) -> None:
    example = Path(EXAMPLES[0]).with_name("existing-vpc.yaml")
    (user.folder / example.name).write_text(example.read_text())
    words = ["local", "prepare", "-f", example.name, "-o", "json"]
    user.stack.sim.delays = UNSEEN
    created = user.types(*words).document["created"]
    assert [each.partition(" ")[0] for each in created] == ["VPC", "private", "route", "security"]
    ids = re.findall(r"(?:vpc|subnet|rtb|sg)-[0-9a-f]{17}", example.read_text())
    assert sorted(set(ids)) == sorted(set(re.findall(r"\w+-[0-9a-f]{17}", " ".join(created))))
    user.mutations()
    assert user.types(*words).document["created"] == []
    assert user.mutations() == []


def test_an_existing_network_is_drawn_with_its_ids(user: User) -> None:
    """Nothing is claimed of it: what the config declares of a network of ours is not so."""
    example = Path(EXAMPLES[0]).with_name("existing-vpc.yaml")
    (user.folder / "c.yaml").write_text(example.read_text())
    assert user.types("local", "prepare", "-f", "c.yaml").code == 0
    planned = user.types("diagram", "-f", "c.yaml", "--local", "-o", "json").document["d2"]
    assert user.types("create", "-f", "c.yaml", "--local", "--yes").code == 0
    made = user.types("diagram", "demo", "-o", "json").document["d2"]
    ids = set(re.findall(r"(?:vpc|subnet)-[0-9a-f]{17}", example.read_text()))
    for text in (planned, made):
        assert ids <= set(re.findall(r"(?:vpc|subnet)-[0-9a-f]{17}", text))
        assert "10.0." not in text
        assert "2 x ml.m5.2xlarge" in text


def test_a_quota_that_is_too_small_is_raised(user: User) -> None:
    groups = "[{name: a, instance_type: ml.m5.2xlarge, instance_count: 42}]"
    (user.folder / "large.yaml").write_text(
        f"name: demo\nregion: us-west-2\ninstance_groups: {groups}\n"
    )
    said = user.types("local", "prepare", "-f", "large.yaml")
    assert said.out.count("created quota of 42: ") == 3
    said = user.types("preflight", "-f", "large.yaml", "--local", "-o", "json")
    assert not [f for f in said.document["findings"] if f["id"].startswith("quota")]
