"""Every command in README, docs and the headers of examples is one, and is run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.cli.console import Console
from hyperpod_eks.local import CHART, daemon
from tests.cli.test_help import CALLS
from tests.commands import EVERY, GROUPS
from tests.conftest import REGION, User

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.remove(ROOT / "docs/commands.md")  # written from help, whose examples are `CALLS`
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
BEFORE = r"(?:^|^\$ |^#   |\$\(|'|&& |\| |more:  )"
"""What stands before a command that is typed, and not mentioned."""

Words = tuple[str, ...]


def code(page: Path) -> str:
    """Return the blocks of code of a page, or the comments of an example."""
    text = page.read_text()
    if page.suffix == ".md":
        return "".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return "".join(re.findall(r"^#   .*\n", text, re.MULTILINE))


def typed(page: Path) -> Iterator[Words]:
    """Yield the commands of a page, without comments and without what a shell does with them."""
    for line in code(page).splitlines():
        for found in re.finditer(rf"{BEFORE}hyperpod-eks (?=[a-z])", line.strip()):
            rest = line.strip()[found.end() :]
            if found[0].startswith("'"):
                rest = rest.partition("'")[0]
            yield tuple(words(rest))


def words(text: str) -> Iterator[str]:
    """Yield the words of the first command in a line."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    while (word := lexer.get_token()) is not None and not set(word) <= set("();<>|&"):
        yield word


def name(call: Words) -> str:
    """Return the words of a call that name its command."""
    return " ".join(call[: 2 if call[0] in GROUPS else 1])


TYPED = {page: list(typed(page)) for page in [*PAGES, *EXAMPLES]}


@pytest.mark.parametrize(
    "page", [page for page in TYPED if TYPED[page]], ids=lambda page: page.name
)
def test_a_typed_command_is_understood(page: Path) -> None:
    for call in TYPED[page]:
        command, rest = EVERY[name(call)], list(call[len(name(call).split()) :])
        command.make_context(call[0], rest, obj=partial(Console, call)).close()


def test_a_mentioned_command_and_its_options_exist() -> None:
    """In inline code, and in what the tool prints."""
    mentions = 0
    for page in PAGES:
        inline = re.findall(r"`(hyperpod-eks [^`]+)`", page.read_text())
        for text in [*inline, *code(page).splitlines()]:
            for each in re.findall(r"hyperpod-eks ([a-z](?:(?!hyperpod-eks)[^,;\")…])*)", text):
                call = tuple(each.split())
                known = {option for param in EVERY[name(call)].params for option in param.opts}
                assert set(re.findall(r"--[a-z][a-z-]*", each)) <= known, (page.name, each)
                mentions += 1
    assert mentions > 100


# --- each is run

ELSEWHERE = {
    "init": "tests/cli/test_init.py",
    "local ": "tests/local/test_daemon.py",
    "mirror": "tests/cli/test_mirror.py",
    "capacity": "tests/cli/test_capacity.py",
    "adopt demo --resource": "tests/cli/test_plan.py",
    "logs demo --group worker-group --follow": "tests/cli/test_logs.py",
    "outputs demo --manifest s3:": "tests/cli/test_s3_state.py",
    "unlock demo --manifest s3:": "tests/cli/test_s3_state.py",
    "nodes demo check": "tests/cli/test_nodes_check.py",
    "ssm demo i-0ab12cd34ef56ab78 --run": "tests/cli/test_nodes.py",
}
"""What begins so needs more than a cluster, and is tested there."""
SHELL = {"$run": "7", "$CI_JOB_ID": "7", "~/.kube/config": "config"}
"""What a shell writes instead, and what must not be the user's own."""
NODE = "nodes[:1].instance_id"
FOR_AWS = {
    "plan": "every example is planned in tests/cli/test_prepare.py",
    "delete": "and deleted",
    "kubeconfig": "tests/cli/test_scaling.py",
    "nodes": "tests/cli/test_scaling.py",
    "scale -f platform.yaml": "tests/cli/test_headers.py",
    "status demo": "tests/cli/test_headers.py",
    "create -f ray.yaml": "tests/change/test_groups.py, with charts of folders",
}
"""What a header has for AWS alone, and the tests that run it."""
CONFIG = """
name: demo
region: us-west-2
instance_groups: [{name: worker-group, instance_type: ml.m5.2xlarge, instance_count: 2}]
"""


def cases() -> Iterator[Any]:
    """Yield what is run here, once each; `make test` runs what README has."""
    readme = TYPED[ROOT / "README.md"]
    others = [call for page in PAGES for call in TYPED[page]]
    for call in dict.fromkeys([*readme, *others, *(tuple(call) for _, call in CALLS)]):
        text = shlex.join(call)
        if not text.startswith(tuple(ELSEWHERE)):
            marks = () if call in readme else pytest.mark.prove
            yield pytest.param(call, id=text, marks=marks)


def test_what_is_tested_elsewhere_is_documented() -> None:
    texts = [shlex.join(call) for call in [*chain(*TYPED.values()), *(call for _, call in CALLS)]]
    for begun, file in ELSEWHERE.items():
        assert any(text.startswith(begun) for text in texts), begun
        assert (ROOT / file).exists(), file


@pytest.fixture
def owner(user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user with a cluster and its config, whose `--local` is the stack of this process."""
    running = daemon.Running(user.stack.endpoint, os.getpid(), 0.0, REGION)
    monkeypatch.setattr(daemon, "ensure", lambda *_, **__: running)
    monkeypatch.setenv("HYPERPOD_EKS_CHART", str(CHART))
    user.has("demo")
    for file in ("cluster.yaml", "demo.yaml"):
        (user.folder / file).write_text(CONFIG)
    return user


@pytest.mark.parametrize("call", list(cases()))
def test_a_documented_command_ends_well(owner: User, call: Words) -> None:
    typed = [SHELL.get(word, word) for word in call]
    if "i-0ab12cd34ef56ab78" in typed:
        (node,) = json.loads(owner.types("nodes", "demo", "-o", "json", "--query", NODE).out)
        typed = [node if word == "i-0ab12cd34ef56ab78" else word for word in typed]
    if any("--yes" in each.opts for each in EVERY[name(call)].params):
        typed.append("--yes")  # nobody is there to be asked
    said = owner.types(*typed, stdin=CONFIG)
    assert said.code == 0, said.err


@pytest.mark.parametrize(
    "example", [path for path in EXAMPLES if TYPED[path]], ids=lambda p: p.stem
)
def test_an_example_is_created_locally_or_elsewhere(example: Path) -> None:
    """tests/cli/test_prepare.py runs what has `--local`; the same without it is for AWS."""
    local = {call for call in TYPED[example] if "--local" in call or call[0] == "local"}
    for call in {*TYPED[example]} - local:
        text = shlex.join(call)
        assert (*call, "--local") in local or text.startswith(tuple(FOR_AWS)), text


def test_the_demo_writes_no_colour_into_a_file(tmp_path: Path) -> None:
    program = tmp_path / "hyperpod-eks"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TERM": "xterm-256color"}
    done = subprocess.run(
        [ROOT / "scripts/demo.sh"], env=environ, capture_output=True, text=True, check=True
    )
    assert "\n$ hyperpod-eks create demo --local\n" in done.stdout
    assert "\x1b" not in done.stdout
