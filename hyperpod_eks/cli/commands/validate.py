"""``hyperpod-eks validate``: check a config file, without AWS or the network."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import Output, Settings, option
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.views import Validate
    from hyperpod_eks.documents import JsonMapping
    from hyperpod_eks.events import Report


@frozen
class Options(Settings, Output):
    """Options of validate."""

    file: str = option(
        "-f", "--file", required=True, metavar="FILE", help="Config file; - reads stdin."
    )
    name: str | None = option(
        "--name", metavar="NAME", help="Name of the cluster, instead of the file's."
    )
    region: str | None = option(
        "--region", metavar="REGION", help="AWS region, instead of the file's."
    )


def validate(options: Options, report: Report) -> Validate:
    """Check a config file and the folders that it names.

    Reports every mistake.  Uses neither AWS nor the network.
    """
    from hyperpod_eks.config.load import load
    from hyperpod_eks.config.warnings import warnings
    from hyperpod_eks.helm import chart

    flags = {"name": options.name, "region": options.region, **options.settings()}
    found = load(options.file, flags, os.environ)
    chart.require_valid(found.region, found.chart.values)
    return {
        **head("validate"),
        "file": options.file,
        "warnings": list(warnings(found)),
        "config": found.model_dump(mode="json", by_alias=True),
    }


def _types(group: JsonMapping) -> str:
    """Return a group's instance type, or its possible ones (InstanceRequirements), as text."""
    several = (group.get("instance_requirements") or {}).get("instance_types") or ()
    return str(group["instance_type"] or " or ".join(several))


def text(document: Validate) -> str:
    """Return the text of the document: warnings, and what the config declares."""
    config = document["config"]
    groups = [f"{group['instance_count']} {_types(group)}" for group in config["instance_groups"]]
    if len(groups) > 1:
        names = [group["name"] for group in config["instance_groups"]]
        groups = [f"{group} ({name})" for name, group in zip(names, groups, strict=True)]
    lines = [f"warning: {each}" for each in document["warnings"]]
    what = f"{config['name']} in {config['region']}: {', '.join(groups)}"
    return "\n".join([*lines, f"{document['file']} is valid: {what}"])


command = define(
    "validate",
    Options,
    validate,
    text,
    """
    hyperpod-eks validate -f cluster.yaml
    hyperpod-eks validate -f cluster.yaml -o json --query warnings
    """,
)
