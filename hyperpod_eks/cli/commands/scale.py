"""``hyperpod-eks scale``: change the number of nodes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.commands import create
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import called, once
from hyperpod_eks.cli.options import Change, argument
from hyperpod_eks.errors import HyperpodError, NotFound, Usage
from hyperpod_eks.events import Event, EventType
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.runs import Created, Scaled
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.config.yaml import Loc
    from hyperpod_eks.documents import Json, JsonMapping
    from hyperpod_eks.events import Report
    from hyperpod_eks.state.store import Store

CHANGING = (EventType.CREATING, EventType.UPDATING)
"""Events of the cluster after which its counts may have changed in AWS."""


@frozen
class Options(Change):
    """Options of scale."""

    counts: tuple[str, ...] = argument(nargs=-1, metavar="GROUP=COUNT...")


def scale(options: Options, report: Report) -> Scaled:
    """Change the number of nodes in instance groups.

    GROUP=COUNT names a group of cluster NAME and can be repeated.  With -f, scale writes the count
    to the file and changes nothing else in it; without -f, to the config in the manifest.  The old
    counts are restored if AWS rejects the change or you do not confirm it.
    """
    name, counts = options.name, options.counts
    if name and "=" in name:  # the file names the cluster
        options, counts = replace(options, name=None), (name, *counts)
    wanted = once("scale", map(_count, counts))
    if not wanted:
        raise Usage("scale: GROUP=COUNT is required", "Example: hyperpod-eks scale demo workers=4")
    if not options.file:
        options = replace(options, name=options.name or os.environ.get("HYPERPOD_EKS_NAME"))
        _require_config(report, options)
    with (_in_file if options.file else _in_manifest)(options, wanted) as (before, restore, held):
        made = _applied(options, report, restore, held)
    scaled = {group: [before[group], count] for group, count in wanted.items()}
    return {**made, "command": "scale", "scaled": scaled}


def _applied(
    options: Options, report: Report, restore: Callable[[], None], held: Store | None
) -> Created:
    """Run create; restore the counts if it fails before a request to change the cluster."""
    told = False

    def watching(event: Event) -> None:
        nonlocal told
        told = told or (event.key == "hyperpod/cluster" and event.what in CHANGING)
        report(event)

    try:
        return create.apply(options, watching, held)
    except BaseException as error:
        if isinstance(error, Usage) or not told:
            try:
                restore()
            except HyperpodError as problem:
                current_console().warn(f"the counts could not be restored: {problem}")
        raise


def _count(text: str) -> tuple[str, int]:
    group, _, count = text.partition("=")
    if not (group and re.fullmatch(r"[0-9]{1,9}", count)):
        raise Usage(
            f"scale: {text!r} is not GROUP=COUNT", "Example: hyperpod-eks scale demo workers=4"
        )
    return group, int(count)


def _require_config(report: Report, options: Options) -> None:
    """Raise Usage if the cluster exists but its config was not found, NotFound without a cluster.

    Calls AWS only when the manifest has no config.
    """
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.cli.remembered import store_for
    from hyperpod_eks.session import CHANGE
    from hyperpod_eks.state.manifest import read

    if read(store_for(options, options.name or ""), options.name or "").config:
        return
    with opened(CHANGE, options, report, write=False, files=False) as at:
        raise NotFound(
            f"cluster {at.resolved.name} does not exist in {at.resolved.region} of account "
            f"{at.resolved.identity.account}",
            f"Create it: hyperpod-eks create {called(at.resolved.name, options)}",
        )


Changed = tuple[dict[str, int], Callable[[], None], "Store | None"]
"""The previous counts by group, a function that restores them, and the store that is locked."""


@contextmanager
def _in_file(options: Options, wanted: dict[str, int]) -> Iterator[Changed]:
    """Replace the counts in the config file, and change no other byte."""
    from hyperpod_eks.config import yaml as config_yaml
    from hyperpod_eks.config.load import load

    assert options.file  # the caller has checked it
    name, path = options.file, Path(options.file)
    if name == "-":
        raise Usage("scale: cannot write the count to standard input", "Pass -f FILE.")
    overrides = {"name": options.name, "region": options.region}
    before = _of_file(name, path)
    _refuse_karpenter(load(name, overrides, os.environ, files=False))
    document = config_yaml.parse(name, before).value
    places = _places(document)
    refuse_unknown(wanted, places)
    counts = {group: _declared(document, places[group])["instance_count"] for group in wanted}
    numbers = {places[group]: count for group, count in wanted.items()}
    after = config_yaml.with_numbers(name, before, numbers)
    _write(path, after)

    def restore() -> None:
        if _of_file(name, path) == after:  # not if the file has changed since
            _write(path, before)

    yield counts, restore, None


def _of_file(name: str, path: Path) -> bytes:
    from hyperpod_eks import files

    try:
        return files.read(path)
    except OSError as error:
        raise Usage(f"{name}: cannot be read: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    from hyperpod_eks import files

    try:
        files.replace(path, content)
    except OSError as error:
        raise Usage(f"scale: cannot write {path}: {error.strerror}") from error


def _places(document: JsonMapping) -> dict[str, Loc]:
    """Return the location of each instance group's count, by group."""
    return {
        group["name"]: (section, index, "instance_count")
        for section in ("instance_groups", "restricted_instance_groups")
        for index, group in enumerate(document.get(section) or ())
    }


def _declared(document: JsonMapping, place: Loc) -> Json:
    """Return the instance group whose count is at this location."""
    section, index, _ = place
    return document[str(section)][index]


@contextmanager
def _in_manifest(options: Options, wanted: dict[str, int]) -> Iterator[Changed]:
    """Replace the counts in the manifest's config, and keep its lock for the whole command."""
    from hyperpod_eks.cli.remembered import store_for
    from hyperpod_eks.config.load import load
    from hyperpod_eks.state.manifest import read

    store = store_for(options, options.name or "")

    def put(counts: Mapping[str, int]) -> dict[str, int]:
        manifest = read(store, options.name or "")
        _refuse_karpenter(load(manifest.config, {}, os.environ, files=False))
        places, before = _places(manifest.config), {}
        refuse_unknown(counts, places)
        for group, count in counts.items():
            declared = _declared(manifest.config, places[group])
            before[group] = declared["instance_count"]
            declared["instance_count"] = count
        manifest.save()
        return before

    with store.locked(options.lock_timeout):
        before = put(wanted)

        def restore() -> None:
            put(before)

        yield before, restore, store


def refuse_unknown(wanted: Collection[str], there: Collection[str], verb: str = "scale") -> None:
    """Raise Usage for an instance group that the config does not have."""
    if unknown := sorted(set(wanted) - set(there)):
        raise Usage(f"{verb}: the config has no instance group {', '.join(unknown)}")


def _refuse_karpenter(config: Config) -> None:
    if config.scales_itself:
        raise Usage(
            "scale: auto_scaling is enabled, so Karpenter sets the node count",
            "Set auto_scaling: {mode: Disable} and run create first.",
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
    log=Log.KEPT,
)
