"""Write Terraform's language as ``terraform fmt`` does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from hyperpod_eks.documents import Json

WIDTH = 80
ESCAPES = {"b": r"\u0008", "f": r"\u000c"}
"""Escapes of JSON that HCL does not have."""


class Raw(str):
    """An expression that is HCL already."""

    __slots__ = ()


class Nested(dict[str, Json]):
    """The arguments of a nested block."""


def block(heading: str, body: Mapping[str, Json]) -> str:
    """Return a block: its arguments, and after them its nested blocks.

    >>> print(block('resource "aws_vpc" "vpc"', {"cidr_block": "10.0.0.0/16", "tags": None}))
    resource "aws_vpc" "vpc" {
      cidr_block = "10.0.0.0/16"
    }
    """
    return "\n".join([f"{heading} {{", *_indented(_body(body)), "}"])


def _body(body: Mapping[str, Json]) -> Iterator[str]:
    given = {name: value for name, value in body.items() if value is not None}
    nested = {name: _several(value) for name, value in given.items() if _is_nested(value)}
    plain = {name: value for name, value in given.items() if name not in nested}
    yield from _aligned({name: _expression(value) for name, value in plain.items()})
    for name, several in nested.items():
        for each in several:
            if plain or name != next(iter(nested)) or each is not several[0]:
                yield ""
            yield from block(name, each).split("\n")


def _is_nested(value: Json) -> bool:
    return bool(_several(value)) and all(isinstance(each, Nested) for each in _several(value))


def _several(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list) else [value]


def _aligned(rows: Mapping[str, str]) -> Iterator[str]:
    """Yield ``name = value`` with the signs of neighbours below each other, as fmt does.

    A value of several lines is the last of its neighbours.
    """
    run: dict[str, str] = {}
    for name, value in rows.items():
        if "\n" in value:
            yield from _neighbours(run)
            run = {}
            yield from f"{name} = {value}".split("\n")
        else:
            run[name] = value
    yield from _neighbours(run)


def _neighbours(rows: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, rows), default=0)
    yield from (f"{name:<{width}} = {value}" for name, value in rows.items())


def _expression(value: Json) -> str:
    """Return a value as an expression.

    >>> _expression({"a": [1, True], "b:c": "${x}"}).split("\\n")
    ['{', '  a     = [1, true]', '  "b:c" = "$${x}"', '}']
    """
    if isinstance(value, Raw):
        return value
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return braced({_name(key): _expression(each) for key, each in value.items()})
    if isinstance(value, list | tuple):
        return _list([_expression(each) for each in value])
    return json.dumps(value)


def braced(rows: Mapping[str, str]) -> str:
    """Return an object of expressions."""
    return "\n".join(["{", *_indented(_aligned(rows)), "}"]) if rows else "{}"


def _list(items: Sequence[str]) -> str:
    flat = f"[{', '.join(items)}]"
    if len(flat) <= WIDTH and "\n" not in flat:
        return flat
    lines = (line for each in items for line in f"{each},".split("\n"))
    return "\n".join(["[", *_indented(lines), "]"])


def _name(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", key) else quoted(key)


def _indented(lines: Iterator[str]) -> list[str]:
    return [f"  {line}" if line else "" for line in lines]


def quoted(text: str) -> str:
    """Return a string literal; ``${`` and ``%{`` begin no template in it.

    >>> print(quoted('a "b" ${c} %{d}'))
    "a \\"b\\" $${c} %%{d}"
    """
    escaped = re.sub(r"([$%])\{", r"\1\1{", json.dumps(text, ensure_ascii=False))
    return re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[0]), escaped)


def call(function: str, *arguments: Json) -> Raw:
    """Return the call of a function."""
    return Raw(f"{function}({', '.join(map(_expression, arguments))})")
