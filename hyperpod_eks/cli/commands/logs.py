"""``hyperpod-eks logs``: show the logs of nodes or of the control plane."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import Place, flag, option
from hyperpod_eks.errors import Exit, NotFound, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.terminal.text import clean

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.schemas.views import Line, Logs
    from hyperpod_eks.documents import Json, JsonMapping, JsonObject
    from hyperpod_eks.events import Report

STREAMS = 20
"""Maximum streams to read, the newest ones: a cluster may have ten thousand."""
LISTED = 1000
"""Maximum streams of a group to list when looking for the newest."""
PAUSE = 2.0
"""Seconds between two calls with --follow."""
LATE = 60_000
"""Milliseconds by which --follow reads back, for lines that CloudWatch receives out of order."""


@frozen
class Options(shared.Cluster):
    """Options of logs."""

    group: str | None = option(
        "--group", metavar="GROUP", help="Only the nodes of this instance group."
    )
    node: str | None = option(
        "--node", metavar="NODE", help="Only this node: i-... or hyperpod-i-...."
    )
    control_plane: bool = flag(
        "--control-plane", help="Show the logs of the EKS control plane instead."
    )
    tail: int = shared.tail()
    follow: bool = flag("--follow", help="Print new lines until Ctrl-C.")


def logs(options: Options, report: Report) -> Logs:
    """Show the lifecycle logs of the nodes.

    Prints the newest line last.  Reads at most 20 nodes, those with the most recent logs.
    """
    from hyperpod_eks.cli.lookup import cluster

    group, node, control_plane = options.group, options.node, options.control_plane
    if control_plane and (group or node):
        raise Usage("--control-plane cannot be combined with --group or --node")
    with cluster(options) as (snapshot, name):
        place, prefix = _where(snapshot, name, options)
        streams = _newest(snapshot, place, prefix, node) if place else []
        if not streams and not control_plane:
            require(options, snapshot, name, group, node)
        lines = _lines(snapshot.aws, place, streams, options.tail)
        if options.follow and place:
            try:
                _follow(snapshot.aws, place, prefix, lines)
            except KeyboardInterrupt:  # Ctrl-C ends --follow
                raise click.exceptions.Exit(Exit.INTERRUPTED) from None
        return {**head("logs"), "cluster": {"name": name}, "log_group": place, "lines": lines}


def _where(snapshot: Snapshot, name: str, options: Options) -> tuple[str, str]:
    """Return the log group, and the name prefix of the requested streams."""
    from hyperpod_eks.diagnosis.diagnose import log_group

    if options.control_plane:
        eks_name = snapshot.aws.adopted.get("eks/cluster") or name
        return f"/aws/eks/{eks_name}/cluster", ""
    return log_group(snapshot, name), _prefix(snapshot, name, options.group, options.node)


def _lines(aws: Aws, place: str, streams: Sequence[str], tail: int) -> list[Line]:
    """Return the newest ``tail`` lines of all streams together, oldest first."""
    from hyperpod_eks.workers import gather

    parts = gather(*(partial(_tail, aws, place, stream, tail) for stream in streams))
    return sorted((x for part in parts for x in part), key=lambda x: x["time"])[-tail:]


def require(
    place: Place, snapshot: Snapshot, name: str, group: str | None, node: str | None
) -> None:
    """Raise NotFound if the cluster, the group or the node does not exist."""
    from hyperpod_eks.cli.lookup import described, described_node, instance
    from hyperpod_eks.resources.hyperpod import api as hyperpod_api

    found = described(snapshot, name, place)
    groups = [each["InstanceGroupName"] for each in hyperpod_api.every_group(found)]
    if group and group not in groups:
        raise NotFound(
            f"the cluster {name} has no instance group {group}", f"It has {', '.join(groups)}."
        )
    if node:
        described_node(snapshot, name, instance(node), place)


def _prefix(snapshot: Snapshot, name: str, group: str | None, node: str | None) -> str:
    """Return the name prefix of the requested streams."""
    from hyperpod_eks.aws.failures import absent
    from hyperpod_eks.cli.lookup import instance
    from hyperpod_eks.diagnosis.diagnose import SCRIPTS

    if node and not group:
        with absent("ResourceNotFound", "ValidationException"):
            found = snapshot.aws.sagemaker.describe_cluster_node(
                ClusterName=name, NodeId=instance(node)
            )
            group = found["NodeDetails"]["InstanceGroupName"]
    if not group:
        return SCRIPTS
    return f"{SCRIPTS}{group}/{instance(node) if node else ''}"


def _newest(snapshot: Snapshot, place: str, prefix: str, node: str | None) -> list[str]:
    """Return the names of the streams with the newest events, newest first.

    CloudWatch sorts by time or filters by prefix, not both (API DescribeLogStreams).
    """
    from hyperpod_eks.aws.failures import absent
    from hyperpod_eks.cli.lookup import instance
    from hyperpod_eks.diagnosis.diagnose import SCRIPTS

    narrow = prefix not in ("", SCRIPTS) or node is not None
    asked: JsonObject = (
        {"logStreamNamePrefix": prefix}
        if narrow
        else {"orderBy": "LastEventTime", "descending": True}
    )
    found: list[Json] = []
    with absent("ResourceNotFoundException"):
        found = snapshot.all(
            snapshot.aws.logs,
            "describe_log_streams",
            "logStreams",
            logGroupName=place,
            PaginationConfig={"MaxItems": LISTED if narrow else 5 * STREAMS},
            **asked,
        )
    newest_first = sorted(found, key=lambda x: x.get("lastEventTimestamp", 0), reverse=True)
    names = [each["logStreamName"] for each in newest_first]
    end = instance(node) if node else ""
    return [name for name in names if name.startswith(prefix) and name.endswith(end)][:STREAMS]


def _tail(aws: Aws, place: str, stream: str, most: int) -> list[Line]:
    found = aws.logs.get_log_events(
        logGroupName=place, logStreamName=stream, limit=min(most, 10_000), startFromHead=False
    )
    return [_line(stream, each) for each in found["events"]]


def _line(stream: str, event: JsonMapping) -> Line:
    from hyperpod_eks.diagnosis.diagnose import SCRIPTS

    return {
        "time": stamp(datetime.fromtimestamp(event["timestamp"] / 1000, UTC), "milliseconds"),
        "stream": stream.removeprefix(SCRIPTS),
        "message": event["message"].rstrip("\n"),
    }


def stamp(moment: datetime, precision: str = "seconds") -> str:
    """Return a time in UTC, in ISO 8601 format.

    >>> stamp(datetime(2026, 3, 1, 12, tzinfo=UTC))
    '2026-03-01T12:00:00Z'
    """
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _follow(aws: Aws, place: str, prefix: str, lines: list[Line]) -> None:
    """Print new lines until interrupted: one request every `PAUSE` seconds for all nodes."""
    from hyperpod_eks.aws.failures import absent

    seen, shown = dict[str, int](), [*lines]
    newest = datetime.fromisoformat(lines[-1]["time"]).timestamp() if lines else time.time() - 1
    start = round(newest * 1000)

    for line in lines:
        _show(line)
    lines.clear()
    asked: JsonObject = {"logStreamNamePrefix": prefix} if prefix else {}
    while True:
        with absent("ResourceNotFoundException"):  # nothing is logged yet
            pages = aws.logs.get_paginator("filter_log_events").paginate(
                logGroupName=place, startTime=start, **asked
            )
            for page in pages:
                for event in page["events"]:
                    line = _line(event["logStreamName"], event)
                    if event["eventId"] not in seen and line not in shown:
                        _show(line)
                    seen[event["eventId"]] = event["timestamp"]
        start = max(start, max(seen.values(), default=0) - LATE)
        seen = {id_: at for id_, at in seen.items() if at >= start}
        time.sleep(PAUSE)


def _show(line: Line) -> None:
    click.echo(json.dumps(line) if current_console().form == "json" else said(line))


def said(line: Line) -> str:
    """Return one log line as text."""
    return f"{line['time']} {clean(line['stream'])} {clean(line['message'])}"


def text(document: Logs) -> str:
    """Return the log lines as text."""
    if not document["lines"]:
        if document["log_group"].startswith("/aws/eks/"):
            return "no log lines yet: the control plane writes once it runs"
        return "no log lines yet: lifecycle scripts write when the first nodes start"
    return "\n".join(said(line) for line in document["lines"])


command = define(
    "logs",
    Options,
    logs,
    text,
    """
    hyperpod-eks logs demo
    hyperpod-eks logs demo --group worker-group --follow
    hyperpod-eks logs demo --control-plane --tail 20
    """,
    log=Log.IF_IT_FAILS,
)
