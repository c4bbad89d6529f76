"""``hyperpod-eks events``: the events that HyperPod keeps of a cluster."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.commands.logs import require, stamp
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import option
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.terminal.text import clean

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.views import ClusterEvent, Events
    from hyperpod_eks.documents import JsonObject
    from hyperpod_eks.events import Report


@frozen
class Options(shared.Cluster):
    """Which events."""

    group: str | None = option(
        "--group", metavar="GROUP", help="Only events of this instance group."
    )
    node: str | None = option("--node", metavar="NODE", help="Only events of this node.")
    since: str | None = option(
        "--since", metavar="DURATION", help="Only events newer than this: 30m, 2h, 1d."
    )
    tail: int = shared.tail()


def events(options: Options, report: Report) -> Events:
    """Show the HyperPod events of cluster NAME.

    Prints the newest event last.
    """
    from hyperpod_eks.cli.opening import cluster, described, instance
    from hyperpod_eks.resources.hyperpod import api as hyperpod_api

    group, node, tail = options.group, options.node, options.tail
    asked: JsonObject = {}
    if group:
        asked["InstanceGroupName"] = group
    if node:
        asked["NodeId"] = instance(node)
    if options.since:
        try:
            asked["EventTimeAfter"] = datetime.now(UTC) - _duration(options.since)
        except OverflowError as error:
            raise Usage(
                f"--since: {options.since} is before the first year", "Examples: 90m, 2h, 1d."
            ) from error
    with cluster(options) as (snapshot, name):
        continuous = hyperpod_api.keeps_events(described(snapshot, name, options))
        found = list(hyperpod_api.events(snapshot.aws, name, tail, **asked)) if continuous else []
        if not found:
            require(options, snapshot, name, group, node)
        why = {}
        if current_console().verbose:  # a call for each
            bad = [each for each in found[:tail] if hyperpod_api.is_bad(each)]
            why = {
                each["EventId"]: hyperpod_api.failure(snapshot.aws, name, each) for each in bad[:20]
            }
        if not continuous:
            current_console().warn(
                "HyperPod keeps events only for clusters with continuous provisioning"
            )
    rows: list[ClusterEvent] = [
        {
            "time": stamp(each["EventTime"]),
            "level": each.get("EventLevel", ""),
            "instance_group": each.get("InstanceGroupName", ""),
            "instance_id": each.get("InstanceId", ""),
            "message": why.get(each.get("EventId", "")) or each.get("Description", ""),
        }
        for each in reversed(found[:tail])
    ]
    return {**head("events"), "cluster": {"name": name}, "events": rows}


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


def text(document: Events) -> str:
    """Write the events for people."""
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


command = define(
    "events",
    Options,
    events,
    text,
    """
    hyperpod-eks events demo
    hyperpod-eks events demo --since 2h -o table
    """,
    log=Log.IF_IT_FAILS,
)
