"""``hyperpod-eks scale`` and ``update-software``: the short ways to change a running cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hyperpod_eks import config as configs
from hyperpod_eks import config_yaml, engine
from hyperpod_eks.aws import Aws, Look, meaning
from hyperpod_eks.cli.consent import consenting
from hyperpod_eks.cli.create import create
from hyperpod_eks.cli.create import text as created
from hyperpod_eks.cli.documents import Document
from hyperpod_eks.cli.opening import opened
from hyperpod_eks.cli.story import Story, result
from hyperpod_eks.errors import NotFound, Usage
from hyperpod_eks.manifest import locked, read, write_durably
from hyperpod_eks.report import Event, Report, What
from hyperpod_eks.retry import Class
from hyperpod_eks.steps import hyperpod

MAKING = (What.CREATING, What.UPDATING)
"""What is said of a cluster right before AWS is asked to change it."""


def scale(
    tell: Report, counts: tuple[str, ...], yes: bool, skip: tuple[str, ...], **given: Any
) -> Document:
    """Write the counts where the configuration is, then create.

    They are taken back where AWS was not told of them: by a refusal, or somebody's no.
    """
    if given["name"] and "=" in given["name"]:  # the name comes from the file
        given, counts = given | {"name": None}, (given["name"], *counts)
    wanted = dict(_count(each) for each in counts)
    if not wanted:
        raise Usage("scale: nothing to scale", "Give GROUP=COUNT.")
    change = _in_file if given["file"] else _in_manifest
    before, told = change(given, wanted), False

    def watching(event: Event) -> None:
        nonlocal told
        told = told or (event.key == "hyperpod/cluster" and event.what in MAKING)
        tell(event)

    try:
        made = create(watching, None, replace_failed=False, skip=skip, yes=yes, **given)
    except BaseException as error:
        if isinstance(error, Usage) or not told:
            change(given, before)
        raise
    return made | {"command": "scale"}


def _count(text: str) -> tuple[str, int]:
    group, _, count = text.partition("=")
    if not (group and count.isdecimal()):
        raise Usage(f"scale: {text!r} is not GROUP=COUNT", "Like: scale demo workers=4")
    return group, int(count)


def _in_file(given: dict[str, Any], wanted: dict[str, int]) -> dict[str, int]:
    """Replace the numbers in the file, and nothing else of it; return what stood there."""
    path = Path(given["file"])
    if given["file"] == "-":
        raise Usage("scale: standard input cannot be written back", "Give -f FILE.")
    overrides = {"name": given["name"], "region": given["region"]}
    _refuse_karpenter(configs.load(given["file"], overrides, os.environ, files=False))
    document = config_yaml.read(given["file"])
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    before = {}
    for section in ("instance_groups", "restricted_instance_groups"):
        for index, group in enumerate(document.value.get(section) or ()):
            if (name := group["name"]) not in wanted:
                continue
            mark = document.values[section, index, "instance_count"]
            before[name] = int(group["instance_count"])
            line = lines[mark.line - 1]
            start, end = mark.column - 1, mark.column - 1 + len(mark.text)
            lines[mark.line - 1] = f"{line[:start]}{wanted[name]}{line[end:]}"
    _refuse_unknown(wanted, before)
    mode = path.stat().st_mode
    write_durably(path, "".join(lines))
    path.chmod(mode)
    return before


def _in_manifest(given: dict[str, Any], wanted: dict[str, int]) -> dict[str, int]:
    """Replace the numbers in the manifest's configuration; return what stood there."""
    path = given["manifest"] or Path(f"{given['name']}.hyperpod-eks.json")
    with locked(path, given["lock_timeout"]):
        manifest = read(path, given["name"] or "")
        if not manifest.config:
            raise NotFound(f"{path}: there is no cluster {given['name'] or ''}", "Give -f FILE.")
        _refuse_karpenter(configs.load(manifest.config, {}, os.environ, files=False))
        before = {}
        for section in ("instance_groups", "restricted_instance_groups"):
            for group in manifest.config.get(section, ()):
                if group["name"] in wanted:
                    before[group["name"]] = group["instance_count"]
                    group["instance_count"] = wanted[group["name"]]
        _refuse_unknown(wanted, before)
        manifest.save()
    return before


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
        raise Usage(f"--release: {release!r} is no release of HyperPod's AMI", "Like: 1.1.0")
    story = Story(tell)
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
        there = hyperpod.describe(Look(at.world.aws), at.site.name)
        if there is None:
            raise NotFound(f"there is no cluster {at.site.name} in {at.site.region}")
        counts = {g["InstanceGroupName"]: g["CurrentCount"] for g in hyperpod.every_group(there)}
        consent = consenting(at.site.name, yes=yes)
        consent([hyperpod.renewal(name, counts.get(name, 0)) for name in names])
        _renew(at.world.aws, at.site.name, request)
        at.world.begun = None
        at.world.consent = consenting(at.site.name, yes=False)
        found = engine.create(at.wants, at.world)
        return result("update-software", at, story) | {
            "changed": True,
            "instance_groups": found["hyperpod/cluster"].attributes["groups"],
        }


def _renew(aws: Aws, name: str, request: dict[str, Any]) -> None:
    """Begin the update; where the answer is lost and botocore asks again, it is under way."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    try:
        aws.sagemaker.update_cluster_software(ClusterName=name, **request)
    except ClientError as error:
        again = error.response["ResponseMetadata"].get("RetryAttempts")
        if not again or meaning(error) is not Class.BUSY:
            raise


def text(document: Document) -> str:
    """Write a document for people."""
    if document["command"] != "update-software":
        return created(document)
    rows = [
        f"{g['name']}: {g['current']} nodes, {g['status']}" for g in document["instance_groups"]
    ]
    return "\n".join([f"cluster {document['cluster']['name']} runs the new software", *rows])
