"""The rules of the house that no other tool checks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from hyperpod_eks.cli import main
from hyperpod_eks.errors import Exit

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = README + "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
SOURCES = [
    path
    for folder in ("hyperpod_eks", "tests", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != Path(__file__)
]


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its words: ``local start``."""
    for name, command in group.commands.items():
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")


def test_nothing_of_ours_is_replaced_in_tests() -> None:
    patched = [path for path in SOURCES if re.search(r"mock\.patch|MagicMock", path.read_text())]
    assert patched == []


def test_every_ignored_type_names_its_error() -> None:
    bare = re.compile(r"#\s*type:\s*ignore(?!\[)")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert found == []


def test_the_readme_names_every_command() -> None:
    names = [words.split()[0] for words, command in commands(main) if not command.hidden]
    assert [name for name in names if f"`{name}`" not in README] == []
    for words in ("start", "status", "stop", "env"):
        assert f"`{words}`" in README


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \|", README, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(",")} == set(map(int, Exit))
    for code in Exit:
        assert re.search(rf"\b{int(code)}\b", (ROOT / "docs/exit-codes.md").read_text())


def test_every_option_is_documented_outside_help() -> None:
    options = {
        max(parameter.opts, key=len)
        for _, command in commands(main)
        if not command.hidden
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
    }
    told = set(re.findall(r"--[a-z][a-z-]+", DOCS))
    assert options - told == set()


def test_the_pictures_of_the_readme_are_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert {"docs/images/create.svg", "docs/images/status.svg"} <= set(links)
    assert [link for link in links if not (ROOT / link).exists()] == []
