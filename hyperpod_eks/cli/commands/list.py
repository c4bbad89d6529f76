"""``hyperpod-eks list``: list the HyperPod clusters of an account by region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import Account, Output, flag, option
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.cli.schemas.views import List, Listed
    from hyperpod_eks.events import Report
    from hyperpod_eks.inventory.clusters import Owned

ENABLED = ("opt-in-not-required", "opted-in")
"""Values of OptInStatus for a usable region (EC2 API, Region)."""


@frozen
class Options(Account, Output):
    """Options of list."""

    all_regions: bool = flag(
        "--all-regions", help="List the clusters of every enabled region that has HyperPod."
    )
    manifests: tuple[str, ...] = option(
        "--manifest",
        multiple=True,
        type=click.Path(),
        metavar="PATH",
        help="Manifest of a known cluster; can be repeated.  "
        "[default: *.hyperpod-eks.json in $HYPERPOD_EKS_STATE or this folder]",
    )


def list_clusters(options: Options, report: Report) -> List:
    """List all HyperPod clusters in the region.

    Shows status, running and desired nodes, Kubernetes version, creator from tags (hyperpod-eks,
    hyp, cloudformation (also the console), terraform or unknown), USD per hour of nodes and control
    plane, and the path of its manifest, if that is known.
    """
    from hyperpod_eks.cli.login import reading

    aws = reading(options)
    account, warnings = aws.identity.account, list[str]()
    regions = _regions(aws, warnings) if options.all_regions else [aws.identity.region]
    found = _everywhere(aws, regions, warnings)
    known = _manifests(options, warnings)
    for warning in warnings:
        current_console().warn(warning)
    clusters: list[Listed] = [{**each.row, "manifest": known.get(each.lineage)} for each in found]
    return {
        **head("list"),
        "account": account,
        "regions": regions,
        "clusters": clusters,
        "warnings": warnings,
    }


def _everywhere(aws: Aws, regions: Sequence[str], warnings: list[str]) -> list[Owned]:
    """Return the clusters of the regions; add a warning for each region that fails.

    Raises the first region's error if all fail.
    """
    from hyperpod_eks.engine import words_of
    from hyperpod_eks.workers import gather

    answers = gather(*(partial(_answer, aws, each) for each in regions))
    failed = {
        region: answer
        for region, answer in zip(regions, answers, strict=True)
        if isinstance(answer, Exception)
    }
    if failed and len(failed) == len(regions):
        raise failed[regions[0]]
    warnings += [f"{region}: {words_of(error)}" for region, error in failed.items()]
    return [each for answer in answers if not isinstance(answer, Exception) for each in answer]


def _regions(aws: Aws, warnings: list[str]) -> list[str]:
    """Return the enabled regions with HyperPod; add a warning for each that is not enabled."""
    from hyperpod_eks.aws.published import HYPERPOD_REGIONS

    regions = aws.ec2.describe_regions(AllRegions=True)["Regions"]
    enabled = {each["RegionName"]: each.get("OptInStatus") in ENABLED for each in regions}
    mine = aws.identity.region
    offered = [name for name in enabled if name in HYPERPOD_REGIONS or name == mine]
    warnings += [f"{name} is not enabled in this account" for name in offered if not enabled[name]]
    return sorted(name for name in offered if enabled[name])


def _answer(aws: Aws, region: str) -> list[Owned] | Exception:
    from hyperpod_eks.aws.client import Identity
    from hyperpod_eks.inventory.clusters import in_region

    who = aws.identity
    try:
        here = Identity(who.arn, who.account, who.partition, region)
        return in_region(aws.elsewhere(region), here)
    except Exception as error:  # noqa: BLE001  the other regions may answer
        return error


def _manifests(options: Options, warnings: list[str]) -> Mapping[str, str]:
    """Return the places of the given manifests, else of all known ones, by lineage."""
    from hyperpod_eks.cli.remembered import known_stores
    from hyperpod_eks.state.manifest import read

    found = {}
    for store in known_stores(options.manifests, options):
        try:
            if known := read(store).lineage:
                found[known] = str(store)
        except Usage as error:
            warnings.append(str(error))
    return found


def text(document: List) -> str:
    """Return the text of the document: one line for each cluster."""
    from hyperpod_eks.cli.remembered import default_state
    from hyperpod_eks.state.location import place_of
    from hyperpod_eks.terminal.formats import table

    rows = document["clusters"]
    if not rows:
        where = ", ".join(document["regions"])
        return f"no HyperPod clusters in {where} of account {document['account']}"
    return table(
        [
            {
                "name": row["name"],
                "region": row["region"],
                "status": row["status"],
                "nodes": f"{row['nodes']}/{row['target_nodes']}",
                "kubernetes": row["kubernetes_version"] or row["orchestrator"],
                "created by": row["created_by"],
                "usd/hour": "-" if row["usd_per_hour"] is None else f"{row['usd_per_hour']:.2f}",
                "manifest": "here"
                if row["manifest"] == place_of(row["name"], default_state())
                else row["manifest"] or "-",
            }
            for row in rows
        ]
    )


def then(options: Options, document: List) -> Iterator[str]:
    """Yield what the prices leave out."""
    if any(row["usd_per_hour"] is not None for row in document["clusters"]):
        yield "USD/HOUR is nodes and control plane, without disks, NAT gateways and the rest"


command = define(
    "list",
    Options,
    list_clusters,
    text,
    """
    hyperpod-eks list
    hyperpod-eks list --all-regions
    hyperpod-eks list --query "clusters[?created_by!='hyperpod-eks'].name"
    """,
    then=then,
    log=Log.IF_IT_FAILS,
)
