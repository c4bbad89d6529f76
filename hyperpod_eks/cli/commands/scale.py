"""``hyperpod-eks scale`` and ``update-software``: the short ways to change a running cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from hyperpod_eks import engine, files
from hyperpod_eks.aws.client import Aws, Snapshot, classify
from hyperpod_eks.aws.errors import ErrorKind
from hyperpod_eks.cli.commands.create import create
from hyperpod_eks.cli.commands.create import text as created
from hyperpod_eks.cli.confirm import consenting
from hyperpod_eks.cli.console import current_console
from hyperpod_eks.cli.documents import Document, called, once
from hyperpod_eks.cli.opening import opened
from hyperpod_eks.cli.recorder import Recorder, result
from hyperpod_eks.config import model as configs
from hyperpod_eks.config import yaml as config_yaml
from hyperpod_eks.config.load import load
from hyperpod_eks.engine.plan import new_administrator
from hyperpod_eks.errors import HyperpodError, NotFound, Usage
from hyperpod_eks.events import Event, EventType, Report
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.resources.hyperpod import cluster as hyperpod_cluster
from hyperpod_eks.state.manifest import locked, read

MAKING = (EventType.CREATING, EventType.UPDATING)
"""What is said of a cluster right before AWS is asked to change it."""


def scale(
    tell: Report, counts: tuple[str, ...], yes: bool, skip: tuple[str, ...], **given: Any
) -> Document:
    """Write the counts where the configuration is, then create.

    They are taken back where AWS was not told of them: by a refusal, or somebody's no.
    """
    if given["name"] and "=" in given["name"]:  # the name comes from the file
        given, counts = given | {"name": None}, (given["name"], *counts)
    wanted = once("scale", map(_count, counts))
    if not wanted:
        raise Usage("scale: nothing to scale", "Give GROUP=COUNT.")
    if not given["file"]:
        given = given | {"name": given["name"] or os.environ.get("HYPERPOD_EKS_NAME")}
        _require_config(tell, given)
    before, take_back = (_in_file if given["file"] else _in_manifest)(given, wanted)
    told = False

    def watching(event: Event) -> None:
        nonlocal told
        told = told or (event.key == "hyperpod/cluster" and event.what in MAKING)
        tell(event)

    try:
        made = create(watching, None, replace_failed=False, skip=skip, yes=yes, **given)
    except BaseException as error:
        if isinstance(error, Usage) or not told:
            try:
                take_back()
            except HyperpodError as problem:
                current_console().warn(f"the counts could not be restored: {problem}")
        raise
    scaled = {group: [before[group], count] for group, count in wanted.items()}
    return made | {"command": "scale", "scaled": scaled}


def _count(text: str) -> tuple[str, int]:
    group, _, count = text.partition("=")
    if not (group and re.fullmatch(r"[0-9]{1,9}", count)):
        raise Usage(f"scale: {text!r} is not GROUP=COUNT", "Like: scale demo workers=4")
    return group, int(count)


def _manifest_path(given: Mapping[str, Any]) -> Path:
    return given["manifest"] or Path(f"{given['name']}.hyperpod-eks.json")


def _require_config(tell: Report, given: Mapping[str, Any]) -> None:
    """Raise Usage when the cluster exists and its config is not here, NotFound without a cluster.

    AWS is asked only when the manifest has no config.
    """
    if read(_manifest_path(given), given["name"] or "").config:
        return
    with opened("scale", given, tell, write=False, files=False) as at:
        raise NotFound(
            f"there is no cluster {at.resolved.name} in {at.resolved.region} of account "
            f"{at.resolved.identity.account}",
            f"Create it: hyperpod-eks create {called(at.resolved.name, given)}",
        )


Changed = tuple[dict[str, int], Callable[[], None]]
"""The counts that stood there, by group, and what takes the change back."""


def _in_file(given: dict[str, Any], wanted: dict[str, int]) -> Changed:
    """Replace the numbers in the file, and no other byte of it."""
    name, path = given["file"], Path(given["file"])
    if name == "-":
        raise Usage("scale: standard input cannot be written back", "Give -f FILE.")
    overrides = {"name": given["name"], "region": given["region"]}
    before = _of_file(name, path)
    _refuse_karpenter(load(name, overrides, os.environ, files=False))
    document = config_yaml.parse(name, before).value
    places = _places(document)
    _refuse_unknown(wanted, places)
    counts = {group: _declared(document, places[group])["instance_count"] for group in wanted}
    numbers = {places[group]: count for group, count in wanted.items()}
    after = config_yaml.with_numbers(name, before, numbers)
    _write(path, after)

    def take_back() -> None:
        if _of_file(name, path) == after:  # else somebody has changed it since
            _write(path, before)

    return counts, take_back


def _of_file(name: str, path: Path) -> bytes:
    try:
        return files.read(path)
    except OSError as error:
        raise Usage(f"{name}: cannot be read: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    try:
        files.replace(path, content)
    except OSError as error:
        raise Usage(f"scale: cannot write {path}: {error.strerror}") from error


def _places(document: Mapping[str, Any]) -> dict[str, config_yaml.Loc]:
    """Find the count of each instance group."""
    return {
        group["name"]: (section, index, "instance_count")
        for section in ("instance_groups", "restricted_instance_groups")
        for index, group in enumerate(document.get(section) or ())
    }


def _declared(document: Mapping[str, Any], place: config_yaml.Loc) -> Any:
    """Return the instance group whose count has this place."""
    section, index, _ = place
    return document[str(section)][index]


def _in_manifest(given: dict[str, Any], wanted: dict[str, int]) -> Changed:
    """Replace the numbers in the manifest's configuration."""
    path = _manifest_path(given)
    with locked(path, given["lock_timeout"]):
        manifest = read(path, given["name"] or "")
        _refuse_karpenter(load(manifest.config, {}, os.environ, files=False))
        places, before = _places(manifest.config), {}
        _refuse_unknown(wanted, places)
        for group, count in wanted.items():
            declared = _declared(manifest.config, places[group])
            before[group] = declared["instance_count"]
            declared["instance_count"] = count
        manifest.save()

    def take_back() -> None:
        _in_manifest(given, before)

    return before, take_back


def _refuse_unknown(wanted: Collection[str], there: Collection[str], verb: str = "scale") -> None:
    if unknown := sorted(set(wanted) - set(there)):
        raise Usage(f"{verb}: the config has no instance group {', '.join(unknown)}")


def _refuse_karpenter(config: configs.Config) -> None:
    if config.scales_itself:
        raise Usage(
            "scale: auto_scaling is on, so Karpenter says how many nodes there are",
            "Set auto_scaling: {mode: Disable} first.",
        )


def update_software(
    tell: Report,
    groups: tuple[str, ...],
    release: str | None,
    batch: int | None,
    yes: bool,
    **given: Any,
) -> Document:
    """Ask HyperPod to renew the nodes, and wait until it has; what runs on them is not drained."""
    if release and not re.fullmatch(r"\d+\.\d+\.\d+", release):
        raise Usage(f"--release: invalid release of HyperPod's AMI {release!r}", "Example: 1.1.0")
    story = Recorder(tell)
    with opened("update-software", given, story, files=False) as at:
        pinned = {g.name for g in at.config.instance_groups if g.image_release_version}
        known = tuple(g.name for g in at.config.groups)
        names = groups or known
        _refuse_unknown(names, known, "update-software")
        if stuck := sorted(pinned.intersection(names)):
            raise Usage(
                f"update-software: the config pins image_release_version of {', '.join(stuck)}",
                "Change it there, and run create.",
            )
        request: dict[str, Any] = {
            "InstanceGroups": [
                {"InstanceGroupName": name, **({"ImageReleaseVersion": release} if release else {})}
                for name in names
            ]
        }
        if batch:
            size = {"Type": "INSTANCE_COUNT", "Value": batch}
            request["DeploymentConfig"] = {"RollingUpdatePolicy": {"MaximumBatchSize": size}}
        there = hyperpod_api.describe(Snapshot(at.context.aws), at.resolved.name)
        if there is None:
            raise NotFound(f"there is no cluster {at.resolved.name} in {at.resolved.region}")
        counts = {
            g["InstanceGroupName"]: g["CurrentCount"] for g in hyperpod_api.every_group(there)
        }
        consent = consenting(at.resolved.name, yes=yes)
        renewals = [hyperpod_cluster.renewal(name, counts.get(name, 0)) for name in names]
        line = new_administrator(engine.status(at.wants, at.context), at.context)
        consent([*renewals, *([line] if line else [])])
        _renew(at.context.aws, at.resolved.name, request)
        at.context.first_snapshot = None
        at.context.consent = consenting(at.resolved.name, yes=False)
        found = engine.create(at.wants, at.context)
        return result("update-software", at, story) | {
            "changed": True,
            "instance_groups": found["hyperpod/cluster"].attributes["groups"],
        }


def _renew(aws: Aws, name: str, request: dict[str, Any]) -> None:
    """Begin the update; where the answer is lost and botocore asks again, it is under way."""
    from hyperpod_eks.aws.exceptions import ClientError  # noqa: PLC0415

    try:
        aws.sagemaker.update_cluster_software(ClusterName=name, **request)
    except ClientError as error:
        again = error.response["ResponseMetadata"].get("RetryAttempts")
        if not again or classify(error) is not ErrorKind.BUSY:
            raise


def text(document: Document) -> str:
    """Write a document for people."""
    if "scaled" in document:
        rows = [f"{group}: {a} -> {b} nodes" for group, (a, b) in document["scaled"].items()]
        return "\n".join([*rows, created(document)])
    if document["command"] != "update-software":
        return created(document)
    rows = [
        f"{g['name']}: {g['current']} nodes, {g['status']}" for g in document["instance_groups"]
    ]
    return "\n".join([f"cluster {document['cluster']['name']} runs the new software", *rows])
