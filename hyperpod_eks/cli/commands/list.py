"""``hyperpod-eks list``: every HyperPod cluster of an account and region, whoever made it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hyperpod_eks.aws.client import Aws, Identity, read_only
from hyperpod_eks.aws.published import HYPERPOD_REGIONS
from hyperpod_eks.cli.commands.local import use_local
from hyperpod_eks.cli.console import current_console
from hyperpod_eks.cli.documents import Document, head
from hyperpod_eks.cli.login import log_in
from hyperpod_eks.engine import words_of
from hyperpod_eks.errors import Usage
from hyperpod_eks.events import Report
from hyperpod_eks.inventory.clusters import Row, in_region
from hyperpod_eks.state.manifest import read
from hyperpod_eks.terminal.formats import table
from hyperpod_eks.workers import gather

ENABLED = ("opt-in-not-required", "opted-in")
"""What DescribeRegions calls a region that can be used (EC2 API, Region, OptInStatus)."""


def list_clusters(
    tell: Report, local: bool, all_regions: bool, manifests: tuple[Path, ...], **given: Any
) -> Document:
    """List the clusters; a region that does not answer is a warning, unless none does."""
    if local:
        use_local()
    aws = Aws(log_in(given["region"], given["profile"]), "", {})
    read_only(aws.session)
    who = aws.identity
    warnings: list[str] = []
    regions = _regions(aws, warnings) if all_regions else [who.region]
    answers = gather(*(partial(_answer, aws, each) for each in regions))
    rows: list[Row] = []
    failed: list[Exception] = []
    for region, answer in zip(regions, answers, strict=True):
        if isinstance(answer, Exception):
            failed.append(answer)
            warnings.append(f"{region}: {words_of(answer)}")
        else:
            rows += answer
    if failed and len(failed) == len(regions):
        raise failed[0]
    known = _manifests(manifests, warnings)
    for warning in warnings:
        current_console().warn(warning)
    return head("list") | {
        "account": who.account,
        "regions": regions,
        "clusters": [
            {
                **{k: v for k, v in row.items() if k != "lineage"},
                "manifest": known.get(row["lineage"]),
            }
            for row in rows
        ],
        "warnings": warnings,
    }


def _regions(aws: Aws, warnings: list[str]) -> list[str]:
    """Return the enabled regions that have HyperPod; warn of those that are not enabled."""
    regions = aws.ec2.describe_regions(AllRegions=True)["Regions"]
    enabled = {each["RegionName"]: each.get("OptInStatus") in ENABLED for each in regions}
    mine = aws.identity.region
    offered = [name for name in enabled if name in HYPERPOD_REGIONS or name == mine]
    warnings += [f"{name} is not enabled in this account" for name in offered if not enabled[name]]
    return sorted(name for name in offered if enabled[name])


def _answer(aws: Aws, region: str) -> list[Row] | Exception:
    who = aws.identity
    try:
        here = Identity(who.arn, who.account, who.partition, region)
        return in_region(aws.elsewhere(region), here)
    except Exception as error:  # noqa: BLE001  the other regions may answer
        return error


def _manifests(paths: tuple[Path, ...], warnings: list[str]) -> Mapping[str, str]:
    """Return where the manifests are, by lineage: those named, else those of this folder."""
    found = {}
    for path in paths or sorted(Path().glob("*.hyperpod-eks.json")):
        try:
            if known := read(path).lineage:
                found[known] = str(path)
        except Usage as error:
            warnings.append(str(error))
    return found


def text(document: Document) -> str:
    """Write the document for people: a line for each cluster."""
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
                if row["manifest"] == f"{row['name']}.hyperpod-eks.json"
                else row["manifest"] or "-",
            }
            for row in rows
        ]
    )
