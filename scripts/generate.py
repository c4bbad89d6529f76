#!/usr/bin/env python3
"""Write what is derived from the code: references of config and commands, and the JSON Schema.

``scripts/generate.py`` rewrites docs/config.md, docs/config.schema.json, docs/commands.md,
docs/change.md, docs/schemas and examples/README.md; ``--check`` only tells, with exit code 1,
whether they are stale.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.cli import main as cli
from hyperpod_eks.cli import schemas
from hyperpod_eks.cli.commands import init
from hyperpod_eks.config.model import Config
from hyperpod_eks.config.rules import LISTED, Aws, Check, Pattern, fields, find
from hyperpod_eks.config.section import GROUP, SETTINGS

DOCS = Path(__file__).resolve().parent.parent / "docs"

INTRODUCTION = """\
# The configuration file

<!-- Written by scripts/generate.py from hyperpod_eks/config/model.py: change it there. -->

A cluster is described by one YAML file (`hyperpod-eks create -f cluster.yaml`; `-f -` reads
standard input). Two settings are needed, [`examples/minimal.yaml`](../examples/minimal.yaml); the
rest has defaults. [`config.schema.json`](config.schema.json) lets an editor check and complete the
file: put `# yaml-language-server: $schema=<path or URL of the schema>` on its first line.

Every mistake is reported at once, with its place:

```
cluster.yaml:12:21: instance_groups[0].instance_count: {mistake}
```

Unknown and repeated keys are mistakes. What AWS enumerates or bounds (instance types, counts,
patterns) is asked of the installed boto3, so upgrading it brings new instance types.

A flag wins over its variable, the variable over the file, the file over the default:

"""


def reference() -> str:
    """Return docs/config.md."""
    rows = [
        [f"`{key}`", f"`{flag}`", f"`{variable}`"] for key, (flag, variable) in SETTINGS.items()
    ]
    region = (
        "\nWhen nothing above names the region, `AWS_REGION` does, and then whatever boto3 reads:\n"
        "`AWS_DEFAULT_REGION`, or the profile in AWS's config or credentials file. Profile and\n"
        "credentials are boto3's choice too; where it and the AWS CLI differ, boto3 counts.\n"
    )
    mistake = model.faults("sagemaker", GROUP + "InstanceCount", -1)[0]
    introduction = INTRODUCTION.format(mistake=mistake)
    parts = [introduction + _table(["Setting", "Flag", "Variable"], rows) + region]
    return "\n".join([*parts, *_sections("", Config)])


def schema() -> str:
    """Return docs/config.schema.json."""
    found = Config.model_json_schema()
    del found["required"]  # name and region may come from flags and variables
    optional = {f"#/$defs/{name}" for name, one in found["$defs"].items() if "required" not in one}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps({**head, **_tidy(found, optional)}, indent=2) + "\n"


def document(name: str) -> str:
    """Return docs/schemas/NAME.json."""
    about = schemas.DOCUMENTS[name]
    found = _merged([_shape(each) for each in about.documents])
    members = found["properties"]
    title = f"hyperpod-eks {name}"
    if "schema" in members:  # not in the lines of --events
        title = f"hyperpod-eks/{name}/v1"
        members["schema"] = {"const": title}
        if several := (name,) if about.commands is None else about.commands:
            members["command"] = _one_of(several)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": about.description,
    }
    return json.dumps({**head, **found, **schemas.CONDITIONS.get(name, {})}, indent=2) + "\n"


def _merged(shapes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what several documents of one schema have together."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for shape in shapes:
        for name, member in shape["properties"].items():
            known = kinds.setdefault(name, [])
            known += [member] if member not in known else []
    members = {
        name: several[0] if len(several) == 1 else {"anyOf": several}
        for name, several in kinds.items()
    }
    required = [name for name in members if all(name in each["required"] for each in shapes)]
    return {"type": "object", "required": required, "properties": members}


def _shape(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type; texts beside it are its description."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        return {
            "type": "object",
            "required": [
                name
                for name, hint in hints.items()
                if kind.__total__ and get_origin(hint) is not NotRequired
            ],
            "properties": {name: _shape(hint) for name, hint in hints.items()},
        }
    if origin is Annotated:
        found = _shape(inner[0])
        for about in inner[1:]:
            found |= {"description": about} if isinstance(about, str) else about
        return found
    if origin is NotRequired:
        return _shape(inner[0])
    if origin is Literal:
        return _one_of(inner)
    if origin in (Union, UnionType):
        return {"anyOf": [_shape(each) for each in inner]}
    if origin is list:
        return {"type": "array"} | ({} if inner[0] is object else {"items": _shape(inner[0])})
    if origin is dict:
        return {"type": "object"} | (
            {} if inner[1] is Any else {"additionalProperties": _shape(inner[1])}
        )
    if kind is object:
        return {}
    names = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
    return {"type": names[kind]}


def _one_of(values: Sequence[object]) -> dict[str, Any]:
    return {"const": values[0]} if len(values) == 1 else {"enum": list(values)}


def change() -> str:
    """Return docs/change.md."""
    sys.path.insert(0, str(DOCS.parent))
    from tests.change.rows import page  # noqa: PLC0415  found by the line above

    return page()


def _tidy(node: Any, optional: set[str]) -> Any:
    """Drop pydantic's titles; let a section be empty (``coredns:``) if nothing in it is needed."""
    if isinstance(node, list):
        return [_tidy(one, optional) for one in node]
    if not isinstance(node, dict):
        return node
    if node.get("$ref") in optional - {"#/$defs/JsonValue"}:
        about = {"description": node["description"]} if "description" in node else {}
        return {"anyOf": [{"$ref": node["$ref"]}, {"type": "null"}], **about}
    return {k: _tidy(v, optional) for k, v in node.items() if k != "title" or isinstance(v, dict)}


def _sections(prefix: str, section: type[BaseModel]) -> Iterator[str]:
    """Yield one section with a table for `section`, and one for each model below it."""
    title = f"`{prefix.removesuffix('.').removesuffix('[]')}`" if prefix else "Top level"
    introduction = (section.__doc__ or "").strip().partition("\n")[0]
    rows, below = [], []
    for name, field in fields(section).items():
        inner, _ = find(field.annotation, ())
        item, suffix = inner, "."
        if get_origin(inner) is tuple:
            item, suffix = find(inner, (0,))[0], "[]."
        elif get_origin(inner) is Mapping:
            item, suffix = find(inner, ("<name>",))[0], ".<name>."
        if isinstance(item, type) and issubclass(item, BaseModel):
            below.append((f"{prefix}{name}{suffix}", item))
        kind = _values(section, name) or _type(inner)
        about = f"{field.description} {_rule(section, name)}".strip()
        rows.append([f"`{name}`", kind, _default(field), about, _member(section, name)])
    table = _table(["Setting", "Type", "Default", "Meaning and rule", "AWS"], rows)
    yield f"## {title}\n\n{introduction}\n\n{table}"
    for path, item in below:
        yield from _sections(path, item)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in lines)


def _cell(text: str) -> str:
    """Spell a cell: outside of code Markdown takes <name> for HTML and shows nothing."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if i % 2 else part.replace("<", "\\<") for i, part in enumerate(parts))


def _type(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is tuple:
        return f"list of {_type(find(inner[0], ())[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "mapping"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    assert origin is not Union
    return {"str": "text", "Path": "path", "int": "number", "bool": "true or false"}[kind.__name__]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    value = field.default
    if field.default_factory or isinstance(value, BaseModel) or value in (None, "", {}):
        return ""
    if isinstance(value, tuple):
        if value and isinstance(value[0], BaseModel):
            return "one group, see the minimal example"
        return ", ".join(f"`{one}`" for one in value)
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`"


def _rules(section: type[BaseModel], name: str) -> list[Any]:
    inner, rules = find(section, (name,))
    if get_origin(inner) is tuple:
        rules = (*rules, *find(inner, (0,))[1])
    return [rule for rule in rules if isinstance(rule, Aws | Pattern | Check)]


def _rule(section: type[BaseModel], name: str) -> str:
    texts = []
    for rule in _rules(section, name):
        text = rule.rule if isinstance(rule, Pattern | Check) else _aws(rule)
        if text in ("", "text"):  # the type says that
            continue
        text = re.sub("^[a-z]+-(?= )", r"`\g<0>`", text)  # what an id begins with
        if re.match("[a-z]+[ ,]", text):
            text = f"{text[0].upper()}{text[1:]}"
        texts.append(f"{text.removesuffix('.')}.")
    return " ".join(filter(None, texts))


def _aws(rule: Aws) -> str:
    return "" if model.enum(rule.service, rule.path) else rule.rule


def _values(section: type[BaseModel], name: str) -> str:
    """Return the type of a setting that takes a few values of AWS's."""
    values = [
        value
        for rule in _rules(section, name)
        if isinstance(rule, Aws) and len(model.enum(rule.service, rule.path)) <= LISTED
        for value in model.enum(rule.service, rule.path)
    ]
    several = get_origin(find(section, (name,))[0]) is tuple
    return ("list of " if several and values else "") + (", " if several else " or ").join(
        f"`{v}`" for v in values
    )


def _member(section: type[BaseModel], name: str) -> str:
    return ", ".join(rule.member for rule in _rules(section, name) if isinstance(rule, Aws))


def commands() -> str:
    """Return docs/commands.md: what ``--help`` says, of every command."""
    parts = ["# Commands\n\n<!-- Written by scripts/generate.py from hyperpod_eks/cli. -->\n"]

    def tell(command: click.Command, parent: click.Context | None, name: str) -> None:
        context = command.context_class(
            command, parent, name, terminal_width=90, help_option_names=["--help"]
        )
        parts.append(f"\n## {context.command_path}\n\n```")
        parts.append(command.get_help(context).rstrip() + "\n```\n")
        if isinstance(command, click.Group):
            tell_all(command, context)

    def tell_all(group: click.Group, context: click.Context) -> None:
        for name in group.list_commands(context):
            if each := group.get_command(context, name):
                tell(each, context, name)

    tell_all(cli, click.Context(cli, info_name="hyperpod-eks"))
    return "\n".join(parts).replace("\n\n\n", "\n\n")


EXAMPLES = """\
# Examples

<!-- Written by scripts/generate.py from the comments of the files. -->

`hyperpod-eks init NAME --example EXAMPLE` starts a config from one of these: {init}.
Copy the others.
"""
KINDS = {
    "Configs": "*.yaml",
    "Jobs and objects for these clusters": "*/*.yaml",
    "For pipelines": "ci/*.yml",
}


def examples() -> str:
    """Return examples/README.md: what the first paragraph of each file says."""
    folder = DOCS.parent / "examples"
    parts = [EXAMPLES.format(init=", ".join(init.EXAMPLES))]
    for heading, pattern in KINDS.items():
        parts.append(f"\n## {heading}\n\n")
        for file in sorted(folder.glob(pattern)):
            first = re.split(r"^(?!# )", file.read_text("utf-8"), maxsplit=1, flags=re.MULTILINE)[0]
            about = " ".join(line.removeprefix("# ") for line in first.splitlines())
            path = file.relative_to(folder)
            parts.append(f"- [{path}]({path}): {about}\n")
    return "".join(parts)


def main() -> int:
    """Write the files, or with ``--check`` compare them."""
    stale = 0
    pages: dict[str, Callable[[], str]] = {
        "config.md": reference,
        "config.schema.json": schema,
        "commands.md": commands,
        "change.md": change,
        "../examples/README.md": examples,
    }
    pages |= {f"schemas/{name}.json": partial(document, name) for name in schemas.DOCUMENTS}
    for name, page in pages.items():
        text = page()
        file = DOCS / name
        if "--check" in sys.argv[1:]:
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                print(
                    f"{file.resolve().relative_to(DOCS.parent)} is stale: run scripts/generate.py",
                    file=sys.stderr,
                )
                stale = 1
        else:
            file.write_text(text, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
