"""``hyperpod-eks schema``: print the JSON Schemas of the config and the documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.options import Output, option
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.base import Json
    from hyperpod_eks.events import Report


@frozen
class Options(Output):
    """Options of schema."""

    document: str = option(
        "--document",
        metavar="KIND",
        default="config",
        help="Document: config, result, status, plan, outputs, ...",
    )


def schema(options: Options, report: Report) -> Json:
    """Print the JSON Schema of the config file or a document."""
    known = schemas()
    if options.document not in known:
        raise Usage(
            f"--document: unknown document {options.document!r}",
            f"Valid documents: {', '.join(known)}.",
        )
    found: Json = json.loads(known[options.document].read_text(encoding="utf-8"))
    return found


def schemas() -> dict[str, Path]:
    """Return the paths of the published schemas, by name of the document."""
    from hyperpod_eks.folders import packaged

    folder = packaged("_schemas", "docs/schemas")
    config = folder.parent / "config.schema.json"  # of a checkout; else in `folder`
    own = {"config": config} if config.is_file() else {}
    return own | {path.stem: path for path in sorted(folder.glob("*.json"))}


def text(document: Json) -> str:
    """Return the schema as JSON."""
    return json.dumps(document, indent=2)


command = define(
    "schema",
    Options,
    schema,
    text,
    """
    hyperpod-eks schema > config.schema.json
    hyperpod-eks schema --document result
    """,
)
