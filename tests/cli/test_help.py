"""The help can be trusted: every example is one that the command line understands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import click
import pytest

from hyperpod_eks.cli import main
from hyperpod_eks.cli.console import Console
from hyperpod_eks.cli.examples import EXAMPLES
from hyperpod_eks.errors import Exit
from hyperpod_eks.preflight.run import known
from tests.conftest import User

ROOT = Path(__file__).parents[2]


def commands(text: str) -> list[list[str]]:
    """Every call of ours in lines that somebody types; what explains them stands behind spaces."""
    typed = [re.split(r"\s{2,}", line.strip())[0] for line in text.strip().splitlines()]
    parts = [part for line in typed for part in re.findall(r"hyperpod-eks ([a-z][^)|>&]*)", line)]
    return [shlex.split(part) for part in parts]


CALLS = [(name, call) for name, text in EXAMPLES.items() for call in commands(text)]


@pytest.mark.parametrize(("name", "call"), CALLS, ids=str)
def test_an_example_is_understood(name: str, call: list[str]) -> None:
    command = main.commands[call[0]]
    command.make_context(call[0], call[1:], obj=Console(call)).close()
    assert call[0] in (name, "validate")
    known(word for option, word in pairwise(call) if option == "--skip")


def test_every_command_has_a_word_and_examples() -> None:
    for name, command in main.commands.items():
        assert command.help, name
        if name != "local":
            assert isinstance(command.epilog, str), name


def test_the_list_of_commands_is_read_at_80_columns() -> None:
    context = click.Context(main, info_name="hyperpod-eks", terminal_width=80)
    _, *lines = main.get_help(context).splitlines()
    cut = [line for line in lines if line.endswith("...")]
    assert cut == []


@pytest.mark.parametrize("words", [[], ["local"]])
def test_no_word_at_all_shows_the_help_once(user: User, words: list[str]) -> None:
    said = user.types(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Usage: hyperpod-eks")
    assert said.err.count("Usage:") == 1


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_fits_a_terminal(name: str) -> None:
    context = click.Context(main.commands[name], info_name=name, terminal_width=100)
    text = main.commands[name].get_help(context)
    assert max(map(len, text.splitlines())) <= 100
    assert "Examples:" in text


def test_every_command_and_exit_code_is_in_the_contract() -> None:
    contract = (ROOT / "docs/pipelines.md").read_text()
    codes = (ROOT / "docs/exit-codes.md").read_text()
    missing = [name for name in EXAMPLES if f"`{name}" not in contract]
    assert missing == []
    assert re.findall(r"^## Exit (\d+)$", codes, re.MULTILINE) == [str(int(code)) for code in Exit]
    assert all(f"exit-codes.md#exit-{int(code)})" in contract for code in Exit)


@pytest.mark.parametrize("words", [[], ["create"], ["local", "start"]], ids=str)
def test_help_costs_little_more_than_click(words: list[str]) -> None:
    program = """
import sys, click
before = set(sys.modules)
from hyperpod_eks.cli import run
run(sys.argv[1:])
added = set(sys.modules) - before
ours = {m for m in added if m.partition(".")[0] not in sys.stdlib_module_names}
print(*ours, file=sys.stderr)
print(*added & {"asyncio", "logging", "subprocess", "socket", "ssl"}, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Usage: hyperpod-eks")
    ours, costly = done.stderr.splitlines()
    cli = ("", ".console", ".examples", ".options", ".signals")
    others = (".aws", ".aws.redaction", ".errors", ".terminal", ".terminal.text")
    parts = ("", *(f".cli{part}" for part in cli), *others)
    assert set(ours.split()) - {"click._textwrap"} == {f"hyperpod_eks{part}" for part in parts}
    assert costly == ""
