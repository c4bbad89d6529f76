"""Render a document in the requested format: text, JSON, YAML, a table or variables."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from hyperpod_eks.errors import Usage
from hyperpod_eks.terminal.text import cells, clean, shortened

FORMS = ("text", "json", "yaml", "table", "env", "dotenv", "github")

D = TypeVar("D", bound=Mapping[str, object])
Ask = Callable[[object], object]
"""A compiled query: a function from a document to a part of it."""

_TABLES = {
    "result": "(resources || plan || steps[].resources[]) || @",
    "plan": "resources[].{action: action, key: key, id: id, why: why}",
    "status": "steps[].resources[].{name: name, state: state, id: id, why: why}",
    "outputs": "outputs",
    "orphans": "orphans",
    "list": "clusters",
    "preflight": "findings[].{severity: severity, id: id, says: says, fix: fix}",
    "policy": "policies[].{name: name, characters: characters}",
    "logs": "lines",
    "events": "events",
    "nodes": "nodes || {action: action, done: done, failed: failed}",
    "local": "stack || {stopped: stopped}",
    "version": "merge({version: version, python: python, platform: platform}, packages)",
}
"""JMESPath of the part of a document that a table shows, by schema."""
_VARIABLES = {"result": "outputs || @", "outputs": "outputs"}
"""JMESPath of the part of a document that becomes variables, by schema."""


def ask(expression: str) -> Ask:
    """Compile a JMESPath expression.  Raises Usage if it is invalid."""
    import jmespath  # noqa: PLC0415  few runs have a query
    from jmespath.exceptions import JMESPathError  # noqa: PLC0415

    try:
        query = jmespath.compile(expression)
    except (JMESPathError, RecursionError, ValueError) as error:
        written = shortened(expression, 200)
        raise Usage(
            f"--query: invalid JMESPath expression {written!r}: {_reason(error)}",
            "See https://jmespath.org; an example: --query 'cluster.name'.",
        ) from error

    def answer(document: object) -> object:
        try:
            found = query.search(document)
            json.dumps(found, allow_nan=False)  # a literal like 1e400 is not JSON
            return found
        except (JMESPathError, RecursionError, ValueError) as error:  # or a wrong type
            raise Usage(f"--query: {shortened(expression, 200)!r}: {error}") from error

    return answer


def _reason(error: Exception) -> str:
    """Return the first line of an error, without jmespath's drawing of the expression."""
    return str(error).splitlines()[0].partition(", for expression:")[0].removesuffix(":")


def render(document: D, form: str, text: Callable[[D], str], query: Ask | None = None) -> str:
    """Return a document in a format of `FORMS`, without the last newline.

    ``text`` renders the whole document for people.  With a ``query``, the text format suits a
    shell: a single value without quotes, a list with one element in each line.
    """
    part = query(document) if query else document
    if form == "json":
        return json.dumps(part, indent=2)  # ASCII: valid in every locale
    if form == "yaml":
        import yaml  # noqa: PLC0415

        words = str(yaml.safe_dump(part, sort_keys=False))
        return words.removesuffix("...\n").rstrip("\n")  # YAML's end of a scalar document
    if form in _SPELL:
        return "\n".join(variables(part if query else _part(document, _VARIABLES), form))
    if form == "table":
        return table(part if query else _part(document, _TABLES))
    return _bare(part) if query else text(document).rstrip("\n")


def _part(document: Mapping[str, object], parts: Mapping[str, str]) -> object:
    kind = str(document.get("schema", "//")).split("/")[1]
    return ask(parts.get(kind, "@"))(document)


def _bare(value: object) -> str:
    if isinstance(value, list) and not any(isinstance(each, list | dict) for each in value):
        return "\n".join(map(_word, value))
    return table(value) if isinstance(value, list | dict) else _word(value)


def _word(value: object) -> str:
    """Return one value as text: None is empty, a string is itself, anything else is JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value)


def table(value: object) -> str:
    """Format a list of objects, or one object, in columns.

    >>> print(table([{"name": "a", "nodes": 2}, {"name": "bcd", "nodes": None}]))
    NAME  NODES
    a     2
    bcd
    """
    if isinstance(value, Mapping):
        rows = [[str(key), clean(_word(each))] for key, each in value.items()]
    elif isinstance(value, list):
        heads = list(dict.fromkeys(k for each in value if isinstance(each, Mapping) for k in each))
        rows = [[head.upper() for head in heads]] if heads else []
        for each in value:
            parts = [each.get(h) for h in heads] if isinstance(each, Mapping) else [each]
            rows.append([clean(_word(part)) for part in parts])
    else:
        rows = [[clean(_word(value))]]
    sizes = [max(map(cells, column)) for column in zip(*rows, strict=True)] if rows else []
    lines = [
        "  ".join(word + " " * (size - cells(word)) for word, size in zip(row, sizes, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


INPUTS = frozenset(
    {"NAME", "REGION", "KUBERNETES_VERSION", "CHART", "LIFECYCLE"}  # settings
    | {"HELM", "OUTPUT", "EVENTS", "RUN"}  # options
)
"""The variables ``HYPERPOD_EKS_*`` that the command line reads: outputs get other names."""


def _for_eval(name: str, word: str) -> str:
    quoted = word.replace("'", "'\\''")
    return f"{name}='{quoted}'"


def _for_dotenv(name: str, word: str) -> str:
    """Return an assignment without quotes: docker (``--env-file``) and GitLab would keep them."""
    if len(word.splitlines()) > 1:
        raise Usage(
            f"-o dotenv: {name} has several lines, and a dotenv file has one for each value",
            "Choose -o env or -o github, or leave it out with --query.",
        )
    return f"{name}={word}"


def _for_github(name: str, word: str) -> str:
    """Return an assignment for ``$GITHUB_ENV`` or ``$GITHUB_OUTPUT`` (GitHub workflow commands)."""
    if len(word.splitlines()) < 2:
        return f"{name}={word}"
    end = f"end-{hashlib.sha256(word.encode()).hexdigest()[:16]}"
    return f"{name}<<{end}\n{word}\n{end}"


_SPELL: Mapping[str, Callable[[str, str], str]] = {
    "env": _for_eval,
    "dotenv": _for_dotenv,
    "github": _for_github,
}


def variables(value: object, form: str = "env") -> Iterator[str]:
    """Yield a value as assignments of variables; the format ``env`` is quoted for a safe eval.

    Raises Usage for a value that the format cannot represent.

    >>> print(*variables({"vpc_id": "vpc-1", "zones": ["a", "it's"]}), sep="\\n")
    HYPERPOD_EKS_VPC_ID='vpc-1'
    HYPERPOD_EKS_ZONES_0='a'
    HYPERPOD_EKS_ZONES_1='it'\\''s'
    """
    for path, each in _leaves((), value):
        name = re.sub("[^A-Z0-9]", "_", "_".join(path or ("value",)).upper())
        if name in INPUTS:
            name = f"CLUSTER_{name}"
        yield _SPELL[form](f"HYPERPOD_EKS_{name}", _word(each))


def _leaves(path: tuple[str, ...], value: object) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, each in value.items():
        yield from _leaves((*path, str(key)), each)
