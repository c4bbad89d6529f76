"""``hyperpod-eks update-software``: update the software of the nodes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.commands.scale import require_groups
from hyperpod_eks.cli.console import Log
from hyperpod_eks.cli.options import option
from hyperpod_eks.errors import NotFound, Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.cli.opening import Opened
    from hyperpod_eks.cli.schemas.runs import Updated
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.documents import JsonObject
    from hyperpod_eks.events import Report


@frozen
class Options(shared.Wait, shared.Progress, shared.Cluster):
    """Options of update-software."""

    groups: tuple[str, ...] = option(
        "--group", multiple=True, metavar="GROUP", help="Only this group; can be repeated."
    )
    release: str | None = option(
        "--release", metavar="X.Y.Z", help="Release of the HyperPod AMI.  [default: newest]"
    )
    batch: str | None = option(
        "--batch",
        metavar="N|N%",
        help="Maximum number or percentage of a group's nodes to update at a time.",
    )
    yes: bool = shared.yes()


def update_software(options: Options, report: Report) -> Updated:
    """Update the software of the nodes.

    The update includes the kubelet.  Pods are not drained first, and root volumes are replaced.
    """
    from hyperpod_eks import engine
    from hyperpod_eks.cli.confirm import consenting
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.cli.recorder import Recorder, result
    from hyperpod_eks.session import CHANGE

    _check_release(options.release)
    size = _size(options.batch)
    recorder = Recorder(report)
    with opened(CHANGE, options, recorder, files=False) as at:
        names = _groups(at.config, options.groups)
        _confirm(at, names, yes=options.yes)
        _renew(at.context.aws, at.resolved.name, _request(names, options.release, size))
        at.context.first_snapshot = None
        at.context.consent = consenting(at.resolved.name, yes=False)
        found = engine.create(at.wants, at.context)
        return {
            **result("update-software", at, recorder),
            "changed": True,
            "instance_groups": found["hyperpod/cluster"].attributes["groups"],
        }


def _check_release(release: str | None) -> None:
    if release and not re.fullmatch(r"\d+\.\d+\.\d+", release):
        raise Usage(f"--release: invalid release of HyperPod's AMI {release!r}", "Example: 1.1.0")


def _size(batch: str | None) -> JsonObject | None:
    """Return the batch as a CapacitySizeConfig of the API; None for AWS's own choice."""
    if batch is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,8})(%?)", batch)
    if not match or (match[2] and int(match[1]) > 100):
        raise Usage(
            f"--batch: {batch!r} is neither a number of nodes nor a percentage from 1% to 100%",
            "Example: --batch 2, or --batch 25%",
        )
    return {"Type": "CAPACITY_PERCENTAGE" if match[2] else "INSTANCE_COUNT", "Value": int(match[1])}


def _groups(config: Config, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Return the groups to update.

    Raises NotFound for an unknown group, Usage for a pinned release.
    """
    known = tuple(group.name for group in config.groups)
    names = chosen or known
    require_groups(config.name, names, known)
    pinned = {group.name for group in config.instance_groups if group.image_release_version}
    if stuck := sorted(pinned.intersection(names)):
        raise Usage(
            f"update-software: the config pins image_release_version of {', '.join(stuck)}",
            "Change it there, and run create.",
        )
    return names


def _request(
    names: Sequence[str], release: str | None, size: JsonObject | None
) -> dict[str, object]:
    """Return the parameters of UpdateClusterSoftware, without the cluster's name."""
    version = {"ImageReleaseVersion": release} if release else {}
    found: dict[str, object] = {
        "InstanceGroups": [{"InstanceGroupName": name, **version} for name in names]
    }
    if size:
        found["DeploymentConfig"] = {"RollingUpdatePolicy": {"MaximumBatchSize": size}}
    return found


def _confirm(at: Opened, names: Sequence[str], *, yes: bool) -> None:
    """Ask before root volumes are replaced.  Raises NotFound without a cluster."""
    from hyperpod_eks import engine
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.confirm import consenting
    from hyperpod_eks.engine.plan import new_administrator
    from hyperpod_eks.resources.hyperpod import api as hyperpod_api
    from hyperpod_eks.resources.hyperpod.groups import renewal

    there = hyperpod_api.describe(Snapshot(at.context.aws), at.resolved.name)
    if there is None:
        raise NotFound(f"cluster {at.resolved.name} does not exist in {at.resolved.region}")
    counts = {g["InstanceGroupName"]: g["CurrentCount"] for g in hyperpod_api.every_group(there)}
    renewals = [renewal(name, counts.get(name, 0)) for name in names]
    line = new_administrator(engine.status(at.wants, at.context), at.context)
    consenting(at.resolved.name, yes=yes)([*renewals, *([line] if line else [])])


def _renew(aws: Aws, name: str, request: JsonObject) -> None:
    """Start the update; accept "busy" after a retry: the first request, unanswered, started it."""
    from hyperpod_eks.aws.errors import ErrorKind
    from hyperpod_eks.aws.exceptions import ClientError
    from hyperpod_eks.aws.failures import classify

    try:
        aws.sagemaker.update_cluster_software(ClusterName=name, **request)
    except ClientError as error:
        again = error.response["ResponseMetadata"].get("RetryAttempts")
        if not again or classify(error) is not ErrorKind.BUSY:
            raise


def text(document: Updated) -> str:
    """Return the text of the document: the groups and their nodes."""
    rows = [
        f"{g['name']}: {g['current']} nodes, {g['status']}" for g in document["instance_groups"]
    ]
    return "\n".join([f"cluster {document['cluster']['name']} runs the new software", *rows])


command = define(
    "update-software",
    Options,
    update_software,
    text,
    """
    hyperpod-eks update-software demo --batch 1
    hyperpod-eks update-software demo --batch 25% --yes
    hyperpod-eks update-software demo --group worker-group --yes
    """,
    log=Log.KEPT,
)
