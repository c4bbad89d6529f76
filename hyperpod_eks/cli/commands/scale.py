"""``hyperpod-eks scale``: change the number of nodes."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.commands import create
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import once
from hyperpod_eks.cli.options import Change, Place, argument
from hyperpod_eks.errors import HyperpodError, NotFound, Usage
from hyperpod_eks.events import Event, EventType
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.opening import Opened
    from hyperpod_eks.cli.schemas.runs import Scaled
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.config.yaml import Loc
    from hyperpod_eks.documents import JsonMapping, JsonObject
    from hyperpod_eks.events import Report

CHANGING = (EventType.CREATING, EventType.UPDATING)
"""Events of the cluster after which its counts may have changed in AWS."""


@frozen
class Options(Change):
    """Options of scale."""

    counts: tuple[str, ...] = argument(nargs=-1, metavar="GROUP=COUNT...")


def scale(options: Options, report: Report) -> Scaled:
    """Change the number of nodes in instance groups.

    GROUP=COUNT names a group of cluster NAME and can be repeated.  With -f, scale writes the count
    to the file and changes nothing else in it; without -f, to the config that the cluster has.  The
    old counts are restored if AWS rejects the change or you do not confirm it.
    """
    name, counts = options.name, options.counts
    if name and "=" in name:  # the file names the cluster
        options, counts = replace(options, name=None), (name, *counts)
    wanted = once("scale", map(_count, counts))
    if not wanted:
        raise Usage("scale: GROUP=COUNT is required", "Example: hyperpod-eks scale demo workers=4")
    before: dict[str, int] = {}
    requested = False

    def look(at: Opened) -> None:
        before.update(dict.fromkeys(wanted, 0) | _targets(at))

    def watching(event: Event) -> None:
        nonlocal requested
        requested = requested or (event.key == "hyperpod/cluster" and event.what in CHANGING)
        report(event)

    def undone(error: BaseException) -> bool:
        """Whether the run failed before a request to change the cluster."""
        return isinstance(error, Usage) or not requested

    if options.file:
        file = counts_in_file(options, wanted, "scale")
        file.write(file.after)
        try:
            made = create.apply(options, watching, undone=undone, look=look)
        except BaseException as error:
            if undone(error):
                _put_back(file)
            raise
    else:
        edit = partial(set_counts, "scale", wanted)
        made = create.apply(options, watching, edit, undone, look)
    scaled = {group: [before[group], count] for group, count in wanted.items()}
    return {**made, "command": "scale", "scaled": scaled}


def _targets(at: Opened) -> dict[str, int]:
    """Return the number of nodes that each group of the cluster is to have, as AWS knows it."""
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.resources.hyperpod import api as hyperpod_api

    snapshot = at.context.first_snapshot or Snapshot(at.aws)
    found = hyperpod_api.describe(snapshot, at.resolved.name) or {}
    groups = hyperpod_api.every_group(found)
    return {group["InstanceGroupName"]: group.get("TargetCount", 0) for group in groups}


def _put_back(file: InFile) -> None:
    """Restore the counts, unless the file has changed since; a failure is only a warning."""
    try:
        if _of_file(str(file.path), file.path) == file.after:
            file.write(file.before)
    except HyperpodError as problem:
        current_console().warn(f"the counts could not be restored: {problem}")


def _count(text: str) -> tuple[str, int]:
    group, _, count = text.partition("=")
    if not (group and re.fullmatch(r"[0-9]{1,9}", count)):
        raise Usage(
            f"scale: {text!r} is not GROUP=COUNT", "Example: hyperpod-eks scale demo workers=4"
        )
    return group, int(count)


class InFile(NamedTuple):
    """New counts for a config file, which are not written yet."""

    path: Path
    before: bytes
    after: bytes

    def write(self, content: bytes) -> None:
        """Replace the file's content.  Raises Usage."""
        from hyperpod_eks import files

        try:
            files.replace(self.path, content)
        except OSError as error:
            raise Usage(f"cannot write the count to {self.path}: {error.strerror}") from error


def counts_in_file(place: Place, wanted: dict[str, int], verb: str) -> InFile:
    """Replace the counts in the config file, and change no other byte; write nothing yet.

    Raises NotFound for an unknown group, Usage for a count that cannot be changed alone, and if
    Karpenter sets the counts.
    """
    from hyperpod_eks.config import yaml as config_yaml
    from hyperpod_eks.config.load import load

    assert place.file  # the caller has checked it
    name, path = place.file, Path(place.file)
    if name == "-":
        raise Usage(f"{verb}: cannot write the count to standard input", "Pass -f FILE.")
    overrides = {"name": place.name, "region": place.region}
    before = _of_file(name, path)
    config = load(name, overrides, os.environ, files=False)
    _refuse_scaled(config, wanted, verb)
    document = config_yaml.parse(name, before).value
    places = _places(document)
    require_groups(config.name, wanted, places)
    numbers = {places[group]: count for group, count in wanted.items()}
    return InFile(path, before, config_yaml.with_numbers(name, before, numbers))


def _of_file(name: str, path: Path) -> bytes:
    from hyperpod_eks import files

    try:
        return files.read(path)
    except OSError as error:
        raise Usage(f"{name}: cannot be read: {error.strerror}") from error


def _places(document: JsonMapping) -> dict[str, Loc]:
    """Return the location of each instance group's count, by group."""
    return {
        group["name"]: (section, index, "instance_count")
        for section in ("instance_groups", "restricted_instance_groups")
        for index, group in enumerate(document.get(section) or ())
    }


def set_counts(verb: str, wanted: dict[str, int], config: JsonObject) -> None:
    """Replace the counts in the config that the cluster has.

    Raises NotFound for an unknown group, and Usage if Karpenter sets the counts.
    """
    from hyperpod_eks.config.load import load

    _refuse_scaled(load(config, {}, os.environ, files=False), wanted, verb)
    places = _places(config)
    require_groups(config["name"], wanted, places)
    for group, count in wanted.items():
        section, index, setting = places[group]
        config[str(section)][index][setting] = count


def require_groups(
    cluster: str,
    wanted: Collection[str],
    there: Collection[str],
    error: type[HyperpodError] = NotFound,
) -> None:
    """Raise ``error`` for an instance group that the config of the cluster does not have."""
    if unknown := sorted(set(wanted) - set(there)):
        raise error(
            f"the config of {cluster} has no instance group {', '.join(unknown)}",
            f"It has {', '.join(there) or 'none'}.",
        )


def _refuse_scaled(config: Config, wanted: Collection[str], verb: str) -> None:
    """Raise Usage for groups whose number of nodes Karpenter decides, whatever the config says."""
    from hyperpod_eks.config.scaling import pooled

    if not config.scales_itself:
        return
    pools = pooled(config.auto_scaling, config.objects)
    if not pools:
        raise Usage(
            f"{verb}: auto_scaling is enabled and the config names no node pools, so Karpenter may"
            " scale any group",
            "List its pools under auto_scaling.node_pools, or set mode: Disable, and run create"
            " first.",
        )
    if scaled := sorted(pools.intersection(wanted)):
        raise Usage(
            f"{verb}: Karpenter decides how many nodes {', '.join(scaled)} has, for a node pool"
            " names it",
            "Set limits in the pool's spec, or remove the group from it, and run create.",
        )


def text(document: Scaled) -> str:
    """Return the text of the document: old and new counts, then the cluster's outputs."""
    rows = [f"{group}: {a} -> {b} nodes" for group, (a, b) in document["scaled"].items()]
    return "\n".join([*rows, create.summary(document)])


command = define(
    "scale",
    Options,
    scale,
    text,
    """
    hyperpod-eks scale demo worker-group=4
    hyperpod-eks scale -f cluster.yaml worker-group=0
    """,
    then=create.then,
    log=Log.KEPT,
)
