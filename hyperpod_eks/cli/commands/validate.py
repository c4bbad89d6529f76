"""Commands that need no AWS: validate, schema, version, completion."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from hyperpod_eks import __version__
from hyperpod_eks.cli.documents import Document, head
from hyperpod_eks.errors import Usage
from hyperpod_eks.events import Report

PACKAGES = ("boto3", "botocore", "click", "kubernetes", "pydantic", "pyhelm3", "rich")
"""What we stand on, for bug reports."""


def validate(tell: Report, file: str, **overrides: Any) -> Document:
    """Check a config file, and the folders that it names; neither AWS nor the network is asked.

    Raises Usage with every mistake.
    """
    from hyperpod_eks.config.cross_checks import warnings  # noqa: PLC0415  pydantic and botocore's model
    from hyperpod_eks.config.load import load  # noqa: PLC0415  pydantic and botocore's model
    from hyperpod_eks.helm import chart  # noqa: PLC0415  pydantic and botocore's model

    settings = {
        "name": overrides["name"],
        "region": overrides["region"],
        "eks.version": overrides["kubernetes_version"],
        "chart.path": overrides["chart"],
        "lifecycle.path": overrides["lifecycle"],
    }
    found = load(file, settings, os.environ)
    if problems := chart.check_values(found.region, found.chart.values):
        raise Usage("\n".join(f"chart.values: {problem}" for problem in problems))
    return head("validate") | {
        "file": file,
        "warnings": list(warnings(found)),
        "config": found.model_dump(mode="json", by_alias=True),
    }


def schemas() -> dict[str, Path]:
    """Return the files of the published schemas, by the name of the document."""
    here = Path(__file__).parents[2]
    docs = here.parent / "docs"
    packaged = here / "_schemas"
    folder = packaged if packaged.is_dir() else docs / "schemas"
    own = {} if packaged.is_dir() else {"config": docs / "config.schema.json"}
    return own | {path.stem: path for path in sorted(folder.glob("*.json"))}


def schema(tell: Report, kind: str) -> Document:
    """Return the JSON Schema of the config or of a document."""
    known = schemas()
    if kind not in known:
        raise Usage(f"--document: there is no {kind!r}", f"There are {', '.join(known)}.")
    found: Document = json.loads(known[kind].read_text(encoding="utf-8"))
    return found


def version(tell: Report) -> Document:
    """Return our version and those of what we stand on."""
    return head("version") | {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def completion(shell: str, command: click.Command) -> str:
    """Return the script that completes our words in a shell."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    chosen = get_completion_class(shell)
    assert chosen, "the choices are those that click has"
    return chosen(command, {}, "hyperpod-eks", "_HYPERPOD_EKS_COMPLETE").source()


def _types(group: Mapping[str, Any]) -> str:
    """Name a group's instance type, or those that it may have (InstanceRequirements)."""
    several = (group.get("instance_requirements") or {}).get("instance_types") or ()
    return str(group["instance_type"] or " or ".join(several))


def text(document: Document) -> str:
    """Write such a document for people; a schema is JSON."""
    match document.get("schema"):
        case "hyperpod-eks/validate/v1":
            config = document["config"]
            groups = ", ".join(
                f"{group['instance_count']} {_types(group)}" for group in config["instance_groups"]
            )
            lines = [f"warning: {each}" for each in document["warnings"]]
            what = f"{config['name']} in {config['region']}: {groups}"
            return "\n".join([*lines, f"{document['file']} is valid: {what}"])
        case "hyperpod-eks/version/v1":
            lines = [f"hyperpod-eks {document['version']}", f"Python {document['python']}"]
            lines += [f"{name} {number}" for name, number in document["packages"].items()]
            return "\n".join([*lines, document["platform"]])
    return json.dumps(document, indent=2)
