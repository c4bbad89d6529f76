"""What a shell completes: files, and words that are known without AWS.

A shell asks for it at every tab, so it writes nothing, and an error is an empty answer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from hyperpod_eks.documents import JsonObject

ENDING = ".hyperpod-eks.json"


def completions(
    context: click.Context, parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Complete the value of a parameter without a click type."""
    if parameter.metavar in ("FILE", "PATH", "FOLDER"):
        return [CompletionItem(begun, type="dir" if parameter.metavar == "FOLDER" else "file")]
    before, comma, last = begun.rpartition(",")
    words: list[str] = []
    with suppress(Exception):  # a broken manifest is no matter for a prompt
        words = sorted(_words(context, parameter))
    return [CompletionItem(f"{before}{comma}{word}") for word in words if word.startswith(last)]


def _words(context: click.Context, parameter: click.Parameter) -> Iterable[str]:
    metavar = (parameter.metavar or "").strip("[].")
    if metavar == "GROUP":
        return (str(each["name"]) for each in _groups(context))
    if metavar == "GROUP=COUNT":  # with the count to be changed
        if "=" in (context.params.get(str(parameter.name)) or ()):
            return ()  # bash splits words there
        return (f"{each['name']}={each['instance_count']}" for each in _groups(context))
    if metavar == "TOPIC":
        from hyperpod_eks.cli.commands.explain import topics  # noqa: PLC0415  as all here

        return topics()
    if parameter.name == "name":
        names = [path.name.removesuffix(ENDING) for path in Path(_folder()).glob(f"*{ENDING}")]
        _, *after = [each for each in context.command.params if isinstance(each, click.Argument)]
        if context.params.get("file") and after:  # it names the cluster
            return [*names, *_words(context, after[0])]
        return names
    if parameter.name == "region":
        from hyperpod_eks.aws.service_model import regions  # noqa: PLC0415

        return regions()
    if parameter.name == "keep":
        from hyperpod_eks.stack import kinds  # noqa: PLC0415

        return {kind.keep_group for kind in kinds()} - {""}
    return ()


def _folder() -> str:
    """Return where manifests are by default; what is in S3 is not asked for."""
    return os.environ.get("HYPERPOD_EKS_STATE", "")


def _groups(context: click.Context) -> list[JsonObject]:
    """Return the instance groups of the config file or manifest that the command line names."""
    given = context.params
    if given.get("file"):
        import yaml  # noqa: PLC0415

        found: JsonObject = yaml.safe_load(Path(given["file"]).read_text("utf-8"))
    else:
        # click leaves arguments alone where the last option has no value yet
        name = given.get("name") or context.args[0]
        manifest = given.get("manifest") or Path(_folder()) / f"{name}{ENDING}"
        found = json.loads(Path(manifest).read_text("utf-8"))["config"]
    groups: list[JsonObject] = found["instance_groups"]
    return groups
