"""Help is correct: the command line accepts every example."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest
from click.shell_completion import ShellComplete

from hyperpod_eks.cli import commands as package
from hyperpod_eks.cli import main
from hyperpod_eks.cli.app import COMMANDS as TABLE
from hyperpod_eks.cli.command import MORE, Command
from hyperpod_eks.cli.console import Console
from hyperpod_eks.errors import Exit
from hyperpod_eks.preflight.run import known
from tests.commands import EVERY, GROUPS
from tests.conftest import User

ROOT = Path(__file__).parents[2]
SHORT = {name: text for commands in TABLE.values() for name, text in commands.items()}
ALONE = sorted(EVERY.keys() - GROUPS)
"""The commands that are not groups."""


def typed(text: str) -> list[list[str]]:
    """Return the calls of hyperpod-eks in shell lines, without comments after several spaces."""
    lines = [re.split(r"\s{2,}", line.strip())[0] for line in text.strip().splitlines()]
    parts = [part for line in lines for part in re.findall(r"hyperpod-eks ([a-z][^)|>&]*)", line)]
    return [shlex.split(part) for part in parts]


CALLS = [
    (name, call) for name in ALONE for call in typed((EVERY[name].epilog or "").removesuffix(MORE))
]


@pytest.mark.parametrize(("name", "call"), CALLS, ids=str)
def test_an_example_is_understood(name: str, call: list[str]) -> None:
    words = 2 if call[0] in GROUPS else 1
    command = EVERY[" ".join(call[:words])]
    command.make_context(call[0], call[words:], obj=partial(Console, call)).close()
    assert " ".join(call[:words]) in (name, "validate")
    known(word for option, word in pairwise(call) if option == "--skip")


@pytest.mark.parametrize("width", [60, 80, 90])
def test_no_line_of_help_ends_inside_a_name(width: int) -> None:
    for name, command in EVERY.items():
        context = command.context_class(command, info_name=name, terminal_width=width)
        assert not re.findall(r"\S+\w-\n", command.get_help(context)), name


@pytest.mark.parametrize("name", ALONE)
def test_every_command_has_examples(name: str) -> None:
    assert name == "local env" or name in dict(CALLS)


def test_the_table_of_commands_says_what_their_help_says() -> None:
    files = {path.stem for path in Path(package.__path__[0]).glob("*.py")} - {"__init__"}
    assert {name.replace("-", "_") for name in SHORT} == files
    first = {name: (EVERY[name].help or "").partition("\n")[0] for name in SHORT}
    assert first == SHORT


def test_the_list_of_commands_is_read_at_80_columns() -> None:
    context = click.Context(main, info_name="hyperpod-eks", terminal_width=80)
    _, *lines = main.get_help(context).splitlines()
    assert [line for line in lines if len(line) > 80 or line.endswith("...")] == []
    titles = [line for line in lines if re.fullmatch(r"\w.*:", line)]
    assert titles == ["Cluster:", "Nodes:", "Config file:", "Embedded stack:", "Other:", "Options:"]
    for name, text in SHORT.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", "\n".join(lines), re.MULTILINE)


@pytest.mark.parametrize("words", [[], ["local"]], ids=str)
def test_no_word_at_all_shows_the_help(user: User, words: list[str]) -> None:
    said = user.types(*words)
    assert (said.code, said.err) == (0, "")
    assert said == user.types(*words, "--help")
    assert said.out.startswith("Usage: hyperpod-eks")


@pytest.mark.parametrize("name", ALONE)
def test_help_fits_a_terminal(name: str) -> None:
    context = click.Context(EVERY[name], info_name=name, terminal_width=100)
    text = EVERY[name].get_help(context)
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("--help ") == 1


def test_every_command_and_exit_code_is_in_the_contract() -> None:
    contract = (ROOT / "docs/pipelines.md").read_text()
    codes = (ROOT / "docs/exit-codes.md").read_text()
    missing = [name for name in SHORT if f"`{name}" not in contract]
    assert missing == []
    assert re.findall(r"^## Exit (\d+)$", codes, re.MULTILINE) == [str(int(code)) for code in Exit]
    assert all(f"exit-codes.md#exit-{int(code)})" in contract for code in Exit)


# --- every command takes the same options for its cluster

CLUSTER = {"file", "manifest", "region", "profile", "local"}
WITHOUT = {"init": "its NAME is that of a file to write, and no cluster's"}


def names(command: click.Command) -> set[str | None]:
    return {each.name for each in command.params}


@pytest.mark.parametrize("name", sorted(each for each in ALONE if each not in WITHOUT))
def test_what_takes_a_name_takes_all_that_says_where_the_cluster_is(name: str) -> None:
    arguments = {p.name for p in EVERY[name].params if isinstance(p, click.Argument)}
    if "name" not in arguments:
        assert not {"file", "manifest", "profile", "local"} <= names(EVERY[name])
        return
    assert names(EVERY[name]) >= CLUSTER
    place = ["demo", "-f", "c.yaml", "--manifest", "m", "--region", "r", "--profile", "p"]
    context = EVERY[name].make_context(name, [*place, "--local"], obj=partial(Console, []))
    found = {key: context.params[key] for key in ("name", *sorted(CLUSTER))}
    context.close()
    assert found == {
        "name": "demo",
        "file": "c.yaml",
        "local": True,
        "manifest": "m",
        "profile": "p",
        "region": "r",
    }


KINDS: list[tuple[type[click.ParamType[Any]], type]] = [
    (click.types.BoolParamType, bool),
    (click.IntRange, int),
    (click.FloatRange, float),
]


def kind(parameter: click.Parameter) -> object:
    """Return the type of the values that click passes for a parameter."""
    one: Any = str
    for each, found in KINDS:
        one = found if isinstance(parameter.type, each) else one
    if isinstance(parameter.type, click.Path):  # a manifest may also be in S3
        one = parameter.type.type or str
    if parameter.nargs == -1 or getattr(parameter, "multiple", False):
        return tuple[one, ...]
    never_none = parameter.required or isinstance(parameter.default, str | int | float)
    return one if never_none else one | None


@pytest.mark.parametrize("name", [each for each in ALONE if isinstance(EVERY[each], Command)])
def test_a_field_has_the_type_of_its_option(name: str) -> None:
    command = EVERY[name]
    assert isinstance(command, Command)
    hints = get_type_hints(command.options)
    found = {each.name: kind(each) for each in command.params}
    assert found == {each: hints[each] for each in found}
    assert found.keys() == {each.name for each in fields(command.options)}


def test_the_first_message_names_options_that_exist(user: User) -> None:
    for name in ALONE:
        if not {"name", "manifest"} <= names(EVERY[name]):
            continue
        more = {"scale": ["g=1"], "ssm": [], "nodes": []}.get(name, [])
        said = user.types(*name.split(), *more)
        assert said.code == 2, name
        told = set(re.findall(r"(?<!\w)--?[a-z][\w-]*", said.err))
        options = {flag for each in EVERY[name].params for flag in each.opts} | {"--help"}
        assert told <= options, name


# --- what help costs


def imported(program: str, *words: str) -> tuple[set[str], set[str]]:
    """Return the imports of a program outside of the standard library, and slow ones within it."""
    script = f"""
import sys, click
before = set(sys.modules)
{program}
added = set(sys.modules) - before
ours = {{m for m in added if m.partition(".")[0] not in sys.stdlib_module_names}}
print(*ours, file=sys.stderr)
print(*added & {{"asyncio", "logging", "subprocess", "socket", "ssl"}}, file=sys.stderr)
"""
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: hyperpod-eks")
    ours, costly = done.stderr.splitlines()
    return set(ours.split()) - {"click._textwrap"}, set(costly.split())


RUN = "from hyperpod_eks.cli import run; run([*sys.argv[1:], '--help'])"
LEAST = {"hyperpod_eks", *(f"hyperpod_eks.cli{part}" for part in ("", ".app", ".help", ".run"))}
"""The modules that the help of the program imports."""
CLI = ("command", "console", "documents", "options")
LIGHT = {
    *(*LEAST, "hyperpod_eks.frozen", *(f"hyperpod_eks.cli.{part}" for part in CLI)),
    *("hyperpod_eks.aws", "hyperpod_eks.aws.redaction", "hyperpod_eks.errors"),
    *("hyperpod_eks.terminal", "hyperpod_eks.terminal.text"),
}
"""The modules that the help of every command imports."""


def test_help_costs_little_more_than_click() -> None:
    assert imported(RUN) == (LEAST, set())


@pytest.mark.parametrize("words", [["local", "start"], ["validate"], ["token"]], ids=str)
def test_help_of_a_command_imports_its_file_alone(words: list[str]) -> None:
    commands = {"hyperpod_eks.cli.commands", f"hyperpod_eks.cli.commands.{words[0]}"}
    assert imported(RUN, *words) == (LIGHT | commands, set())


def test_help_of_all_commands_imports_nothing_else() -> None:
    program = f"{RUN}\nfor name in main.list_commands(None): main.get_command(None, name)"
    ours, costly = imported(program.replace("import run;", "import main, run;"))
    files = {f"hyperpod_eks.cli.commands.{name.replace('-', '_')}" for name in SHORT}
    assert ours == LIGHT | files | {"hyperpod_eks.cli.commands", "hyperpod_eks.events"}
    assert costly == set()


BOTO, OURS = ("boto3", "botocore"), ("hyperpod_eks.engine", "hyperpod_eks.resources")
NEVER = ("kubernetes", "moto", "pyhelm3")


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["validate", "-f", "c.yaml"], {"boto3", *OURS, *NEVER}),
        (["token", "demo"], {"yaml", "hyperpod_eks.state", "pydantic", *OURS, *NEVER}),
        (["completion", "bash"], {"logging", "hyperpod_eks.config", *BOTO, *OURS, *NEVER}),
        (["version"], {"hyperpod_eks.config", *BOTO, *OURS, *NEVER}),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",  # sets have no order
)
def test_a_command_that_is_called_often_imports_little(
    user: User, words: list[str], heavy: set[str]
) -> None:
    (user.folder / "c.yaml").write_text("name: demo\nregion: us-west-2\n")
    run = RUN.replace(", '--help'", "")
    program = f"{run}; print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", f"import sys; {program}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *said, modules = done.stderr.splitlines()
    assert (bool(done.stdout), said) == (True, [])
    assert heavy & set(modules.split()) == set()


# --- completion


def completed(*words: str) -> dict[str, str | None]:
    shell = ShellComplete(main, {}, "hyperpod-eks", "_HYPERPOD_EKS_COMPLETE")
    return {each.value: each.help for each in shell.get_completions([*words[:-1]], words[-1])}


def test_a_shell_completes_commands_and_options() -> None:
    assert completed("") == SHORT
    assert completed("up") == {"update-software": SHORT["update-software"]}
    assert completed("local", "st").keys() == {"start", "status", "stop"}
    assert completed("create", "--lo").keys() == {"--local", "--lock-timeout"}
    assert completed("status", "-o", "g").keys() == {"github"}
    assert completed("--ver").keys() == {"--version"}


# --- plain English

PRIVATE = re.compile(
    r"\b(mak(e|es|ing)|made|tak(e|es|ing)|taken|stand|stands|standing|carry|carries|carried"
    r"|tell|tells|told|mend|mends|mended|shall|may not|strays?|twins?|deeds?|crew|goes"
    r"|made anew|begin|begins|odd|whoever|nobody|our|ours)\b",
    re.IGNORECASE,
)
"""Words with better alternatives: create, delete, exist, update, fail, report."""


def test_settings_are_described_in_the_words_of_the_field() -> None:
    text = (ROOT / "docs/config.md").read_text()
    assert [found[0] for found in PRIVATE.finditer(text)] == []


def test_messages_are_in_the_words_of_the_field() -> None:
    found = []
    for path in sorted(Path(package.__path__[0]).parent.rglob("*.py")):
        every = list(ast.walk(ast.parse(path.read_text())))
        said = {id(each.value) for each in every if isinstance(each, ast.Expr)}  # docstrings
        found += [
            (path.name, each.value)
            for each in every
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
            if id(each) not in said and " " in each.value and PRIVATE.search(each.value)
        ]
    assert found == []


@pytest.mark.parametrize("name", ["", *EVERY])
def test_help_is_in_the_words_of_the_field(name: str) -> None:
    command = EVERY[name] if name else main
    text = command.get_help(click.Context(command, info_name=name))
    assert [found[0] for found in PRIVATE.finditer(text)] == []
    first = (command.help or "").partition("\n")[0]
    assert re.fullmatch(r"[A-Z][^.]+\.", first), "one sentence, without a dot inside"
