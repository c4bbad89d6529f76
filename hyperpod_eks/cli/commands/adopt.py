"""``hyperpod-eks adopt``: add existing resources to the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import called, once
from hyperpod_eks.cli.options import Cluster, Lock, flag, option
from hyperpod_eks.errors import Foreign, NotFound, Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.opening import Opened
    from hyperpod_eks.cli.schemas.runs import Adopted, ResultRow
    from hyperpod_eks.events import Report
    from hyperpod_eks.resources.compare import Observation
    from hyperpod_eks.state.manifest import Manifest

ADOPTABLE = (
    "network/vpc",
    "network/internet-gateway",
    "network/security-group",
    "network/private-subnet-*",
    "network/public-subnet-*",
    "iam/cluster-role",
    "iam/execution-role",
    "s3/bucket",
    "eks/cluster",
)


@frozen
class Options(Lock, Cluster):
    """Options of adopt."""

    resources: tuple[str, ...] = option(
        "--resource",
        multiple=True,
        metavar="KEY=ID",
        help="Use this existing resource instead of creating one; can be repeated.",
    )
    rebuild: bool = flag("--rebuild", help="Rebuild a lost or broken manifest.")


def adopt(options: Options, report: Report) -> Adopted:
    """Add existing resources to the manifest.

    Resources that are adopted by id are never changed or deleted.  Keys: network/vpc,
    network/internet-gateway, network/security-group, network/private-subnet-ZONEID,
    network/public-subnet-ZONEID, iam/cluster-role, iam/execution-role, s3/bucket, eks/cluster.

    --rebuild finds the cluster's resources by name and tags, and writes a new manifest; the broken
    manifest is kept next to it.  The config comes from -f, else from the cluster's bucket, else
    from the newest backup of the manifest.
    """
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.cli.recorder import Recorder, result
    from hyperpod_eks.session import ADOPT

    wanted = once("--resource", map(_key_and_id, options.resources))
    if not wanted and not options.rebuild:
        raise Usage(
            "adopt: --resource or --rebuild is required", "Pass --resource KEY=ID, or --rebuild."
        )
    with opened(ADOPT, options, report, files=False, broken=options.rebuild) as at:
        found = _adopted(at, wanted)
        if options.rebuild and not found:
            raise _no_cluster(at, options)
        if options.file and options.rebuild:
            at.manifest.config = at.config.document()
        at.manifest.save()
        return {
            **result("adopt", at, Recorder(report)),
            "resources": [_row(observation, at.manifest) for observation in found],
            "config": bool(at.manifest.config),
            "warnings": _warn_of_lost_config(at) if options.rebuild else [],
        }


def _adopted(at: Opened, wanted: Mapping[str, str]) -> list[Observation]:
    """Add the resources to the manifest, and find the cluster's other resources.

    Raises Foreign for a resource that the tool created, and NotFound for one that does not exist;
    the stored manifest is then unchanged.
    """
    from hyperpod_eks import engine
    from hyperpod_eks.stack import stack

    for key, id_ in wanted.items():
        known = at.manifest.records.get(key)
        if known and known.origin == "created" and known.state != "deleted":
            raise Foreign(
                f"{key}: {known.id} was created by this tool", "Delete the cluster first."
            )
        at.manifest.adopt(key, id_, at.context.clock.now())
    wants = stack(at.resolved)
    found = engine.rebuild(wants, at.context)
    if missing := wanted.keys() - {observation.want.key for observation in found}:
        lines = [f"{key}: {id_} does not exist" for key, id_ in wanted.items() if key in missing]
        raise NotFound("\n".join(lines))
    return found


def _no_cluster(at: Opened, place: Cluster) -> NotFound:
    return NotFound(
        f"no resources of a cluster {at.resolved.name} exist in {at.resolved.region} of "
        f"account {at.resolved.identity.account}",
        f"Create it: hyperpod-eks create {called(at.resolved.name, place)}",
    )


def _row(observation: Observation, manifest: Manifest) -> ResultRow:
    key, live = observation.want.key, observation.live
    return {"key": key, "id": live.id if live else "", "origin": manifest.records[key].origin}


def _warn_of_lost_config(at: Opened) -> list[str]:
    if at.manifest.config:
        return []
    warning = (
        f"the config of {at.resolved.name} could not be restored: no backup has it; "
        "pass it to the next command with -f FILE"
    )
    current_console().warn(warning)
    return [warning]


def _key_and_id(text: str) -> tuple[str, str]:
    key, separator, id_ = text.partition("=")
    if not (separator and id_ and any(fnmatch(key, pattern) for pattern in ADOPTABLE)):
        raise Usage(f"--resource: {text!r} is not KEY=ID with a KEY of {', '.join(ADOPTABLE)}")
    return key, id_


def text(document: Adopted) -> str:
    """Return the text of the document: the resources that are now in the manifest."""
    rows = document["resources"]
    width = max((len(row["key"]) for row in rows), default=0)
    words = {"created": "found"}  # by an earlier run: this command creates nothing
    lines = [
        f"{words.get(row['origin'], row['origin']):<8} {row['key']:<{width}} {row['id']}"
        for row in rows
    ]
    config = " and the config" if document["config"] else ""
    return "\n".join([*lines, f"{len(rows)} resources{config} are in the manifest"])


command = define(
    "adopt",
    Options,
    adopt,
    text,
    """
    hyperpod-eks adopt demo --resource network/vpc=vpc-0ab12cd34ef56ab78
    hyperpod-eks adopt demo --rebuild              if the manifest is lost
    """,
    log=Log.KEPT,
)
