"""Rules for the source that no other tool checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from hyperpod_eks.errors import Exit
from tests.commands import EVERY
from tests.prove.mutant import Mutant
from tests.prove.mutants import MUTANTS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
DOCS = README + "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
SOURCES = [
    path
    for folder in ("hyperpod_eks", "tests", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != Path(__file__)
]


def test_nothing_of_ours_is_replaced_in_tests() -> None:
    ours = (
        r"mock\.patch|MagicMock"
        r"|setattr\(\"hyperpod_eks[.\w]*\.[a-z]\w*\""  # a function; constants are in capitals
        r"|setattr\((?!ssl\.|threading\.)\w+\.[A-Z]"  # a class of a module
    )
    patched = [path for path in SOURCES if re.search(ours, path.read_text())]
    assert patched == []


@pytest.mark.parametrize("fault", MUTANTS, ids=lambda each: each.name)
def test_every_deliberate_fault_fits_its_source(fault: Mutant) -> None:
    """The long proof puts it in; a change of the source is to change it, too."""
    assert fault.old in (ROOT / "hyperpod_eks" / fault.file).read_text()
    assert (ROOT / fault.by.partition("::")[0]).exists()


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
    names = [words.split()[0] for words, command in EVERY.items() if not command.hidden]
    assert [name for name in names if f"`{name}`" not in README] == []
    for words in ("start", "status", "stop", "env"):
        assert f"`{words}`" in README


def test_the_readme_names_every_exit_code() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \|", README, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(",")} == set(map(int, Exit))


def test_every_option_is_documented_outside_help() -> None:
    options = {
        max(parameter.opts, key=len)
        for _, command in EVERY.items()
        if not command.hidden
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
    }
    told = set(re.findall(r"--[a-z][a-z-]+", DOCS))
    assert options - told == set()


def test_the_readme_shows_pictures() -> None:
    links = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert {f"docs/images/{name}.svg" for name in ("create", "status", "plan", "diagram")} <= set(
        links
    )


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub derives them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def test_every_page_is_in_the_contents_of_the_site() -> None:
    """Else `make site` ends with a warning of Sphinx."""
    tree = ast.parse((ROOT / "docs/conf.py").read_text())
    values = {
        target.id: each.value
        for each in tree.body
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    listed = ast.literal_eval(values["CONTENTS"])
    pages = [
        (ROOT / "docs" / f"{name}.md").resolve() for names in listed.values() for name in names
    ]
    assert sorted([*pages, ROOT / "README.md"]) == sorted([*PAGES, ROOT / "examples/README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_section_is_empty(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "code", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"^(#+) (.+)\n", text, flags=re.MULTILINE)[1:]
    sections = list(zip(parts[::3], parts[1::3], parts[2::3], strict=True))
    for (level, title, body), below in zip(sections, [*sections[1:], ("", "", "")], strict=True):
        assert body.strip() or len(below[0]) > len(level), title


@pytest.mark.parametrize("page", ["comparison", "change"])
def test_every_test_that_a_page_calls_is_there(page: str) -> None:
    text = (ROOT / f"docs/{page}.md").read_text()
    calls = set(re.findall(r"`((?:\w+/)?test_\w+)(?:::(test_\w+))?`", text))
    assert len(calls) > 5
    for module, name in calls:
        files = [ROOT / f"tests/{module}.py", ROOT / f"tests/change/{module}.py"]
        assert any(f.exists() and f"def {name}" in f.read_text() for f in files), (module, name)


PRIVATE = re.compile(
    r"\b(shall|mend(s|ed)?|tells?|told|tak(e|es|en|ing) (it |them |this )?away|stands?|standing"
    r"|carr(y|ies|ied)|twins?|settled?|strays?|doomed|anew|deeds?|crew|made|makes?|making)\b",
    re.IGNORECASE,
)
"""Words for which the field has others: create, delete, exist, update, report, duplicate."""


def messages(tree: ast.AST) -> Iterator[str]:
    """Yield every string in a module that is not a docstring and has more than one word."""
    documentation = {
        id(each.value)
        for each in ast.walk(tree)
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
    }
    for each in ast.walk(tree):
        text = each.value if isinstance(each, ast.Constant) else None
        if isinstance(text, str) and " " in text and id(each) not in documentation:
            yield text


@cache
def said() -> list[str]:
    """Return every message of the package, after its file."""
    package = [
        path for path in SOURCES if "hyperpod_eks" in path.parts and "local" not in path.parts
    ]
    return [
        f"{path.relative_to(ROOT)}: {text}"
        for path in package
        for text in messages(ast.parse(path.read_text()))
    ]


def test_messages_are_in_the_words_of_the_field() -> None:
    assert [text for text in said() if PRIVATE.search(text.partition(": ")[2])] == []


def test_messages_name_no_file_that_a_wheel_does_not_have() -> None:
    """They name `hyperpod-eks explain`; `docs` of errors is a part of the contract."""
    files = re.compile(r"(?<![\w./])(docs|scripts|examples)/\w")
    named = [text for text in said() if files.search(text.partition(": ")[2])]
    assert [text for text in named if "/schemas/" not in text.partition(": ")[0]] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name
)
def test_pages_are_in_the_words_of_the_field(page: Path) -> None:
    words = page.read_text()
    assert [
        found[0] for found in PRIVATE.finditer(words) if not found[0].lower().startswith("ma")
    ] == []
