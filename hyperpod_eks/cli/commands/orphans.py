"""``hyperpod-eks orphans``: list resources with our tags that belong to no cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import called, head
from hyperpod_eks.cli.options import Account, Output, Place, option
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.cli.schemas.views import Elsewhere, Orphans
    from hyperpod_eks.events import Report
    from hyperpod_eks.resources.tagged import Tagged

CLUSTERS = ("eks-cluster", "hyperpod-cluster")
"""Kinds of clusters: while one exists, the other resources of its lineage are in use."""


@frozen
class Options(Account, Output):
    """Options of orphans."""

    manifests: tuple[str, ...] = option(
        "--manifest",
        multiple=True,
        type=click.Path(),
        metavar="PATH",
        help="Manifest of a known cluster; can be repeated.  "
        "[default: *.hyperpod-eks.json in $HYPERPOD_EKS_STATE or this folder]",
    )


def orphans(options: Options, report: Report) -> Orphans:
    """List this tool's resources that belong to no existing cluster.

    Changes nothing.  Resources of an existing cluster are never listed, even if its manifest is
    missing.
    """
    from hyperpod_eks.cli.login import reading
    from hyperpod_eks.inventory.untracked import not_listed

    aws = reading(options)
    identity = aws.identity  # first: without credentials no other call is made
    unknown = _unknown(aws, options)
    living = {each.lineage: each.cluster for each in unknown if each.kind in CLUSTERS}
    left = [each for each in unknown if each.lineage not in living]
    place = Place(local=options.local, region=identity.region, profile=options.profile)
    missed = not_listed(aws)
    for line in missed:
        current_console().warn(line)
    return {
        **head("orphans"),
        "account": identity.account,
        "region": identity.region,
        "orphans": [
            {"cluster": each.cluster, "kind": each.kind, "id": each.id, "lineage": each.lineage}
            for each in left
        ],
        "clusters": _clusters(living, place),
        "not_listed": missed,
        "next": [
            f"hyperpod-eks delete {called(name, place)}"
            for name in sorted({each.cluster for each in left})
        ],
    }


def _clusters(living: Mapping[str, str], place: Place) -> list[Elsewhere]:
    """Return existing clusters by name, each with the command that rebuilds its manifest."""
    return [
        {
            "cluster": name,
            "lineage": owner,
            "next": f"hyperpod-eks adopt {called(name, place)} --rebuild",
        }
        for owner, name in sorted(living.items(), key=lambda each: each[1])
    ]


def _unknown(aws: Aws, options: Options) -> list[Tagged]:
    """Return tagged resources that belong to none of the clusters with a known manifest."""
    from hyperpod_eks.cli.remembered import known_stores
    from hyperpod_eks.inventory.untracked import signed
    from hyperpod_eks.resolve.names import lineage
    from hyperpod_eks.state.manifest import read

    # a lineage is of one region
    known = {read(store).lineage for store in known_stores(options.manifests, options)}
    return [
        each
        for each in signed(aws)
        if each.lineage not in known
        if each.lineage == lineage(aws.identity, each.cluster)  # IAM lists all regions
    ]


def text(document: Orphans) -> str:
    """Return the text of the document: the resources, and how to delete them."""
    lines = [
        f"cluster {each['cluster']} exists, but its manifest was not found\n"
        "If it is elsewhere (in S3, in another folder), pass it with --manifest.\n"
        f"To rebuild a lost manifest: {each['next']}"
        for each in document["clusters"]
    ]
    rows = document["orphans"]
    if not rows:
        nothing = f"no orphans in {document['region']} of account {document['account']}"
        return "\n".join([nothing, *lines])
    lines += [f"{row['cluster']}  {row['kind']}  {row['id']}" for row in rows]
    lines.append(
        "A create that just started on another machine looks the same. "
        "Check that none is running before you delete."
    )
    lines += [f"To delete them: {command}" for command in document["next"]]
    kept = ("file-system", "volume", "workspace")
    if any(row["kind"] in kept for row in rows):
        words = "file systems, volumes and Prometheus workspaces"
        lines.append(f"`delete` keeps {words}; --delete-data deletes them.")
    return "\n".join(lines)


command = define(
    "orphans",
    Options,
    orphans,
    text,
    """
    hyperpod-eks orphans
    hyperpod-eks orphans --region eu-west-1 -o table
    """,
    log=Log.IF_IT_FAILS,
)
