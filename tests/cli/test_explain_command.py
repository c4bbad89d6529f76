"""`explain` prints sections of the documentation as plain text."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from hyperpod_eks.cli.commands.explain import PAGES, WHOLE, topics
from hyperpod_eks.diagnosis.causes import CAUSES
from hyperpod_eks.errors import Exit
from tests.commands import EVERY
from tests.conftest import User

ROOT = Path(__file__).parents[2]


def test_every_exit_code_and_every_cause_is_explained(user: User) -> None:
    said = user.types("explain")
    assert said.code == 0
    # the others continue a line that is wider than the terminal
    listed = [line.split()[0] for line in said.out.splitlines() if not line.startswith(" ")]
    causes = {cause.id for cause in CAUSES}
    assert {str(int(code)) for code in Exit} | causes | {*WHOLE} == set(listed)
    assert causes & {*WHOLE} == set()


def test_help_names_no_file_that_a_wheel_does_not_have() -> None:
    known = topics()
    for words, command in EVERY.items():
        text = command.get_help(click.Context(command, info_name=words))
        assert "docs/" not in text, words
        named = re.findall(r"hyperpod-eks\s+explain\s+([a-z-]+)", text)
        assert {*named} <= {*known}, words
    pages = {f"{page}.md" for page in WHOLE} | {*PAGES}
    shipped = set(re.findall(r"hyperpod_eks/_docs/(\S+)\"", (ROOT / "pyproject.toml").read_text()))
    assert pages == shipped


@pytest.mark.parametrize("topic", ["10", "exit-10", "certificate"])
def test_a_topic_is_plain_text(user: User, topic: str) -> None:
    said = user.types("explain", topic, "-o", "json")
    assert said.code == 0, said.err
    assert said.document["topic"] == topic.removeprefix("exit-")
    assert len(said.document["text"]) > 80
    assert not {"`", "](", "#"} & set(said.document["text"])
    assert user.stack.calls == []


def test_an_unknown_topic_is_refused(user: User) -> None:
    said = user.types("explain", "gremlins")
    assert said.code == 2
    assert "unknown topic 'gremlins'" in said.err


@pytest.mark.parametrize("topic", [(), ("no-way-out",), ("teams",)])
def test_lines_fit_the_terminal(
    user: User, monkeypatch: pytest.MonkeyPatch, topic: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    prose = [
        line
        for line in user.types("explain", *topic).out.splitlines()
        if not line.startswith(("|", "    ")) or not topic
    ]
    assert max(map(len, prose)) <= 60
    assert sum(len(line) > 45 for line in prose) > len(prose) / 4  # and use its width
