"""``hyperpod-eks logs`` and ``events``: what nodes, control plane and HyperPod say."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import click

from hyperpod_eks.aws.client import Aws, Snapshot, absent
from hyperpod_eks.cli.console import current_console
from hyperpod_eks.cli.documents import Document, head
from hyperpod_eks.cli.opening import cluster, described, described_node, instance
from hyperpod_eks.diagnosis.diagnose import SCRIPTS, log_group
from hyperpod_eks.errors import Exit, NotFound, Usage
from hyperpod_eks.events import Report
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.terminal.text import clean
from hyperpod_eks.workers import gather

STREAMS = 20
"""Streams that are read at once, the newest ones: a cluster may have ten thousand."""
LISTED = 1000
"""Streams of one group that are looked through for the newest."""
PAUSE = 2.0
"""Seconds between two looks with --follow."""
LATE = 60_000
"""Milliseconds that a line may come later than a newer one and still be seen with --follow."""


def logs(
    tell: Report,
    group: str | None,
    node: str | None,
    control_plane: bool,
    tail: int,
    follow: bool,
    **given: Any,
) -> Document:
    """Read the end of the newest streams; with ``follow``, print what comes until told to stop."""
    if control_plane and (group or node):
        raise Usage("--control-plane goes without --group and --node")
    with cluster(given) as (snapshot, name):
        if control_plane:
            place, prefix = (
                f"/aws/eks/{snapshot.aws.adopted.get('eks/cluster') or name}/cluster",
                "",
            )
        else:
            place = log_group(snapshot, name)
            prefix = _prefix(snapshot, name, group, node)
        streams = _newest(snapshot, place, prefix, node) if place else []
        if not streams and not control_plane:
            _must_be_there(snapshot, name, group, node, given)
        parts = gather(*(partial(_tail, snapshot.aws, place, stream, tail) for stream in streams))
        lines = sorted((x for part in parts for x in part), key=lambda x: x["time"])[-tail:]
        if follow and place:
            try:
                _follow(snapshot.aws, place, prefix, lines)
            except KeyboardInterrupt:  # the way out of it
                raise click.exceptions.Exit(Exit.INTERRUPTED) from None
        return head("logs") | {
            "cluster": {"name": name},
            "log_group": place,
            "lines": lines,
        }


def _must_be_there(
    snapshot: Snapshot, name: str, group: str | None, node: str | None, given: Mapping[str, Any]
) -> None:
    """Raise NotFound where the cluster, the group or the node does not exist."""
    found = described(snapshot, name, given)
    groups = [each["InstanceGroupName"] for each in hyperpod_api.every_group(found)]
    if group and group not in groups:
        raise NotFound(
            f"the cluster {name} has no instance group {group}", f"It has {', '.join(groups)}."
        )
    if node:
        described_node(snapshot, name, instance(node), given)


def _prefix(snapshot: Snapshot, name: str, group: str | None, node: str | None) -> str:
    """Say how the streams begin that were asked for."""
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
    """Name the streams that were written to last.

    CloudWatch sorts by time or filters by prefix, never both (API DescribeLogStreams).
    """
    narrow = prefix not in ("", SCRIPTS) or node is not None
    asked: dict[str, Any] = (
        {"logStreamNamePrefix": prefix}
        if narrow
        else {"orderBy": "LastEventTime", "descending": True}
    )
    found: list[Any] = []
    with absent("ResourceNotFoundException"):
        found = snapshot.all(
            snapshot.aws.logs,
            "describe_log_streams",
            "logStreams",
            logGroupName=place,
            PaginationConfig={"MaxItems": LISTED if narrow else 5 * STREAMS},
            **asked,
        )
    fitting = [
        each
        for each in found
        if each["logStreamName"].startswith(prefix)
        and (not node or each["logStreamName"].endswith(instance(node)))
    ]
    fitting.sort(key=lambda each: each.get("lastEventTimestamp", 0), reverse=True)
    return [each["logStreamName"] for each in fitting[:STREAMS]]


def _tail(aws: Aws, place: str, stream: str, most: int) -> list[dict[str, str]]:
    found = aws.logs.get_log_events(
        logGroupName=place, logStreamName=stream, limit=min(most, 10_000), startFromHead=False
    )
    return [_line(stream, each) for each in found["events"]]


def _line(stream: str, event: Mapping[str, Any]) -> dict[str, str]:
    return {
        "time": _stamp(datetime.fromtimestamp(event["timestamp"] / 1000, UTC), "milliseconds"),
        "stream": stream.removeprefix(SCRIPTS),
        "message": event["message"].rstrip("\n"),
    }


def _stamp(moment: datetime, precision: str = "seconds") -> str:
    """Write a moment in UTC.

    >>> _stamp(datetime(2026, 3, 1, 12, tzinfo=UTC))
    '2026-03-01T12:00:00Z'
    """
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _follow(aws: Aws, place: str, prefix: str, lines: list[dict[str, str]]) -> None:
    """Print lines as they come, for ever: one call every two seconds, however many nodes."""
    console, seen = current_console(), dict[str, int]()
    shown = [*lines]
    newest = datetime.fromisoformat(lines[-1]["time"]).timestamp() if lines else time.time() - 1
    start = round(newest * 1000)

    def show(line: dict[str, str]) -> None:
        click.echo(json.dumps(line) if console.form == "json" else said(line))

    for line in lines:
        show(line)
    lines.clear()
    asked: dict[str, Any] = {"logStreamNamePrefix": prefix} if prefix else {}
    while True:
        with absent("ResourceNotFoundException"):  # nobody has written yet
            pages = aws.logs.get_paginator("filter_log_events").paginate(
                logGroupName=place, startTime=start, **asked
            )
            for page in pages:
                for event in page["events"]:
                    line = _line(event["logStreamName"], event)
                    if event["eventId"] not in seen and line not in shown:
                        show(line)
                    seen[event["eventId"]] = event["timestamp"]
        start = max(start, max(seen.values(), default=0) - LATE)
        seen = {id_: at for id_, at in seen.items() if at >= start}
        time.sleep(PAUSE)


def said(line: Mapping[str, str]) -> str:
    """Write one line for people."""
    return f"{line['time']} {clean(line['stream'])} {clean(line['message'])}"


# --- events


def events(
    tell: Report, group: str | None, node: str | None, since: str | None, tail: int, **given: Any
) -> Document:
    """Read HyperPod's events of the cluster, newest last."""
    asked: dict[str, Any] = {}
    if group:
        asked["InstanceGroupName"] = group
    if node:
        asked["NodeId"] = instance(node)
    if since:
        try:
            asked["EventTimeAfter"] = datetime.now(UTC) - _duration(since)
        except OverflowError as error:
            raise Usage(
                f"--since: {since} is before the first year", "Examples: 90m, 2h, 1d."
            ) from error
    with cluster(given) as (snapshot, name):
        continuous = hyperpod_api.keeps_events(described(snapshot, name, given))
        found = list(hyperpod_api.events(snapshot.aws, name, tail, **asked)) if continuous else []
        if not found:
            _must_be_there(snapshot, name, group, node, given)
        why = {}
        if current_console().verbose:  # a call for each
            bad = [each for each in found[:tail] if hyperpod_api.is_bad(each)]
            why = {
                each["EventId"]: hyperpod_api.failure(snapshot.aws, name, each) for each in bad[:20]
            }
        if not continuous:
            current_console().warn(
                "HyperPod keeps events of clusters with continuous provisioning only"
            )
    rows = [
        {
            "time": _stamp(each["EventTime"]),
            "level": each.get("EventLevel", ""),
            "instance_group": each.get("InstanceGroupName", ""),
            "instance_id": each.get("InstanceId", ""),
            "message": why.get(each.get("EventId"), each.get("Description", "")),
        }
        for each in reversed(found[:tail])
    ]
    return head("events") | {"cluster": {"name": name}, "events": rows}


def _duration(text: str) -> timedelta:
    """Read a duration.  Raises Usage for anything else.

    >>> _duration("90m")
    datetime.timedelta(seconds=5400)
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not match:
        raise Usage(
            f"--since: invalid duration {text!r}", "Use a number with s, m, h or d, such as 90m."
        )
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    return timedelta(**{units[match[2]]: int(match[1])})


def text(document: Document) -> str:
    """Write lines, or events, for people."""
    if document["command"] == "logs":
        if not document["lines"]:
            if document["log_group"].startswith("/aws/eks/"):
                return "no log lines yet: the control plane writes once it runs"
            return "no log lines yet: scripts write when the first nodes come up"
        return "\n".join(said(line) for line in document["lines"])
    if not document["events"]:
        return "no events"
    return "\n".join(
        " ".join(
            filter(
                None,
                [
                    each["time"],
                    each["level"],
                    "/".join(filter(None, [each["instance_group"], each["instance_id"]])),
                    clean(each["message"]),
                ],
            )
        )
        for each in document["events"]
    )
