"""``hyperpod-eks report``: write a cluster as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyperpod_eks import __version__
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.commands import status
from hyperpod_eks.cli.documents import called, head
from hyperpod_eks.cli.options import Cluster, option
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.opening import Opened
    from hyperpod_eks.cli.schemas.base import Group
    from hyperpod_eks.cli.schemas.report import Report as Document
    from hyperpod_eks.cli.schemas.report import ReportFinding
    from hyperpod_eks.cli.schemas.views import Seen, StatusRow
    from hyperpod_eks.events import Report
    from hyperpod_eks.picture import Picture

FEW = 20
"""Maximum lines of what shows a finding."""


@frozen
class Options(Cluster):
    """Options of report."""

    html: str | None = option(
        "--html",
        metavar="FILE",
        help="File to write; - is stdout.  [default: ./NAME-report.html]",
    )


def report(options: Options, tell: Report) -> Document:
    """Write cluster NAME as an HTML page.

    One file without network access and JavaScript: findings with what to do, a picture, instance
    groups, nodes, cost, resources by step, and when they were created.  With -f of a cluster that
    does not exist it shows what create would create.  Changes nothing.  Needs the extra `report`.
    """
    from hyperpod_eks import picture
    from hyperpod_eks.aws.redaction import without_values
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.report.page import each_text, page, template
    from hyperpod_eks.session import STATUS

    made = template()
    picture.program()
    if options.html != "-" and (options.html or options.name):  # else the config has the name
        _refuse_others(Path(options.html or f"{options.name}-report.html"))
    with opened(STATUS, options, tell, write=False, files=False) as at:
        snapshot = at.context.first_snapshot or Snapshot(at.context.aws)
        document = _document(at, options, snapshot)
        drawing = _picture(at, exists=document["exists"])
    wide = picture.drawn(drawing.text(), "wide")
    narrow = picture.drawn(drawing.text(columns=1), "narrow")
    document["html"] = page(made, each_text(document, without_values), wide, narrow)
    if options.html != "-":
        path = Path(options.html or f"{document['cluster']['name']}-report.html")
        _write(path, document["html"])
        document["file"] = str(path)
    return document


def _refuse_others(path: Path) -> None:
    """Raise Usage for a file that cannot be written, or is not a report: that one is kept."""
    from hyperpod_eks import files
    from hyperpod_eks.report.page import MARK

    folder = path.absolute().parent
    if not folder.is_dir():
        raise Usage(f"--html: folder {folder} does not exist", "Create it first.")
    try:
        known = files.read(path)[:1000] if path.exists() else MARK.encode()
    except OSError as error:
        raise Usage(f"--html: cannot read {path}: {error.strerror}") from error
    if MARK.encode() not in known:
        raise Usage(
            f"{path} exists and is not a report of hyperpod-eks; nothing was written",
            "Choose another file with --html, or delete it.",
        )


def _write(path: Path, text: str) -> None:
    from hyperpod_eks import files

    _refuse_others(path)  # time has passed
    try:
        files.replace(path, text.encode())
    except OSError as error:
        raise Usage(f"--html: cannot write {path}: {error.strerror}") from error


def _document(at: Opened, options: Options, snapshot: Snapshot) -> Document:
    """Return the document without its page.  Raises NotFound without a cluster and a config."""
    from hyperpod_eks.engine import plan as plans
    from hyperpod_eks.report.runs import runs
    from hyperpod_eks.workers import start

    listed = start(partial(plans.listed, at.wants, at.context.aws))
    observations = status.observed(at)
    exists = status.exists(observations)
    if not (exists or at.declared):
        raise status.absent(at, options)
    paid = [each.want for each in observations if each.live] if exists else at.wants
    seen = status.seen(at, observations, snapshot, status.kept_data(at, observations))
    version = plans.version_of(observations, at.resolved.kubernetes_version)
    extended = version in at.resolved.extended_support
    if not exists:
        seen["instance_groups"] = [*_planned(at)]
    return {
        **seen,
        **head("report"),
        "exists": exists,
        "written_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tool_version": __version__,
        "kubernetes_version": version,
        "cost": plans.cost(paid, listed.result(), at.resolved.region, extended=extended),
        "findings": [*_findings(at, options, seen)] if exists else [*_notes(seen)],
        "runs": runs(at.manifest),
        "file": None,
        "html": "",
    }


def _planned(at: Opened) -> Iterator[Group]:
    """Yield the declared instance groups."""
    for group in at.resolved.config.instance_groups:
        yield {
            "name": group.name,
            "instance_type": group.instance_type or "several",
            "status": "to create",
            "current": 0,
            "target": group.instance_count,
        }


def _picture(at: Opened, *, exists: bool) -> Picture:
    """Draw what the manifest has; without one, or a cluster, what is declared."""
    from hyperpod_eks import picture

    recorded = picture.recorded(at.manifest) if exists else []
    parts = recorded or picture.declared(at.wants, at.resolved.adopted)
    return picture.Picture(parts, at.resolved.name, at.resolved.region)


# What each state of resources means, and the command to run next, the worst first.
_STATES = {
    "foreign": ("Resources that belong to somebody else", ""),
    "failed": ("Resources that failed", "create"),
    "missing": ("Resources that do not exist", "create"),
    "drifted": ("Resources that differ from the config", "plan"),
    "waiting": ("Resources that are still changing", "status"),
    "deleted": ("Resources that were deleted", "create"),
}


def _findings(at: Opened, options: Options, document: Seen) -> Iterator[ReportFinding]:
    """Yield known causes of trouble, states of resources that are not ready, and warnings."""
    from hyperpod_eks.diagnosis.diagnose import collect, diagnose

    name, it = at.resolved.name, called(at.resolved.name, options)
    control = at.aws.adopted.get("eks/cluster") or name
    names = {"cluster": it, "name": name, "again": f"hyperpod-eks create {it}"}
    names |= {"eks": control, "region": at.resolved.region}
    for each in diagnose(collect(at.aws, name, control), names):
        seen = [str(piece) for piece in each.evidence]
        yield {"id": each.id, "what": each.cause, "seen": seen, "next": each.next, "note": False}
    records = at.manifest.records  # nodes are in none: they are the cluster's
    lines_of: dict[str, list[str]] = {state: [] for state in (*_STATES, "ready")}
    for step in document["steps"]:
        for row in step["resources"]:
            record = records.get(f"{step['name']}/{row['name']}", records.get("hyperpod/cluster"))
            deleted = row["state"] == "missing" and record and record.deletes
            lines_of["deleted" if deleted else row["state"]].append(_line(step["name"], row))
    for state, (what, command) in _STATES.items():
        lines = lines_of[state]
        if lines:
            yield {
                "id": state,
                "what": f"{what}: {len(lines)}",
                "seen": [*lines[:FEW], *([f"{len(lines) - FEW} more"] if lines[FEW:] else [])],
                "next": f"hyperpod-eks {command} {it}" if command else "",
                "note": state in ("waiting", "deleted"),
            }
    yield from _notes(document)


def _notes(document: Seen) -> Iterator[ReportFinding]:
    """Yield the warnings."""
    for text in document["warnings"]:
        yield {"id": "warning", "what": text, "seen": [], "next": "", "note": True}


def _line(step: str, row: StatusRow) -> str:
    """Return what is wrong with a resource."""
    from hyperpod_eks.terminal.status import why_of

    return ": ".join([f"{step}/{row['name']}", "; ".join(why_of(row))]).removesuffix(": ")


def text(document: Document) -> str:
    """Return the page, or where it was written."""
    return f"wrote {document['file']}" if document["file"] else document["html"]


command = define(
    "report",
    Options,
    report,
    text,
    """
    hyperpod-eks report demo
    hyperpod-eks report demo --html - > demo.html
    hyperpod-eks report -f cluster.yaml            before the cluster exists
    """,
)
