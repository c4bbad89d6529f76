"""``hyperpod-eks events``: HyperPod's events of a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    from hyperpod_eks.documents import JsonMapping, JsonObject
    from hyperpod_eks.events import Report


@frozen
class Options(shared.Cluster):
    """Options of events."""

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
    from hyperpod_eks.cli.lookup import cluster, described
    from hyperpod_eks.resources.hyperpod import api as hyperpod_api

    tail, asked = options.tail, _filters(options)
    with cluster(options) as (snapshot, name):
        continuous = hyperpod_api.keeps_events(described(snapshot, name, options))
        found = list(hyperpod_api.events(snapshot.aws, name, tail, **asked)) if continuous else []
        if not found:
            require(options, snapshot, name, options.group, options.node)
        bad = [x for x in found[:tail] if hyperpod_api.is_bad(x)]
        unclear = bad[:20] if current_console().verbose else []  # one call for each event
        why = {x["EventId"]: hyperpod_api.failure(snapshot.aws, name, x) for x in unclear}
        if not continuous:
            current_console().warn(
                "HyperPod keeps events only for clusters with continuous provisioning"
            )
    rows = [_row(each, why) for each in reversed(found[:tail])]
    return {**head("events"), "cluster": {"name": name}, "events": rows}


def _filters(options: Options) -> JsonObject:
    """Return the parameters of ListClusterEvents."""
    from hyperpod_eks.cli.lookup import instance

    found: JsonObject = {}
    if options.group:
        found["InstanceGroupName"] = options.group
    if options.node:
        found["NodeId"] = instance(options.node)
    if options.since:
        try:
            found["EventTimeAfter"] = datetime.now(UTC) - _duration(options.since)
        except OverflowError as error:
            raise Usage(
                f"--since: {options.since} is before the first year", "Examples: 90m, 2h, 1d."
            ) from error
    return found


def _row(event: JsonMapping, why: Mapping[str, str]) -> ClusterEvent:
    return {
        "time": stamp(event["EventTime"]),
        "level": event.get("EventLevel", ""),
        "instance_group": event.get("InstanceGroupName", ""),
        "instance_id": event.get("InstanceId", ""),
        "message": why.get(event.get("EventId", "")) or event.get("Description", ""),
    }


def _duration(text: str) -> timedelta:
    """Parse a duration.  Raises Usage for anything else.

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
    """Return the text of the events."""
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
