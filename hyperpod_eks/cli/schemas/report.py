"""The document of report."""

from __future__ import annotations

from typing import Annotated, TypedDict

from hyperpod_eks.aws.prices import Cost
from hyperpod_eks.cli.schemas.base import Moment
from hyperpod_eks.cli.schemas.views import Seen
from hyperpod_eks.report.runs import Run


class ReportFinding(TypedDict):
    """Something to know about a cluster."""

    id: Annotated[str, "of a known cause (explain ID), a state of resources, or warning"]
    what: str
    seen: Annotated[list[str], "what shows it"]
    next: Annotated[str, "what to do; empty if there is nothing"]
    note: Annotated[bool, "whether the cluster may work nevertheless"]


class Report(Seen):
    """A cluster, its cost, history and findings, and a page with all of it; printed by report."""

    exists: Annotated[bool, "false: what the config declares, and does not exist yet"]
    written_at: Moment
    tool_version: str
    kubernetes_version: str
    cost: Cost
    findings: Annotated[list[ReportFinding], "the worst first"]
    runs: Annotated[list[Run], "that created what exists, the newest first"]
    file: Annotated[str | None, "the page that was written; null: to stdout"]
    html: Annotated[str, "the page"]
