"""``hyperpod-eks capacity``: search training plan offerings, and write a plan to a config file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import Account, Output, argument, option
from hyperpod_eks.errors import NotFound, Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.views import Capacity, CapacityWritten, Offering
    from hyperpod_eks.config.yaml import Loc
    from hyperpod_eks.events import Report

SEARCH = "SearchTrainingPlanOfferings"


@frozen
class Options(Account, Output):
    """Options of capacity."""

    instance_type: str | None = argument(metavar="[TYPE]")
    count: int = option(
        "--count", type=click.IntRange(1, 256), default=1, metavar="N", help="Number of instances."
    )
    hours: int = option(
        "--hours", type=click.IntRange(1, 87_600), default=24, metavar="N", help="Duration."
    )
    after: str | None = option("--after", metavar="DATE", help="It starts after this date (UTC).")
    before: str | None = option("--before", metavar="DATE", help="It ends before this date (UTC).")
    write: str | None = option(
        "--write",
        metavar="GROUP=ARN",
        help="Write the ARN of a plan to this instance group of the file (-f).",
    )
    file: str | None = option(
        "-f", "--file", metavar="FILE", help="Config file to which --write writes."
    )


def capacity(options: Options, report: Report) -> Capacity | CapacityWritten:
    """Search training plans: capacity that is paid in advance.

    Lists the offerings of instance TYPE for HyperPod with dates and price, and the AWS CLI command
    that buys one.  capacity itself buys nothing.  The AWS CLI prints the ARN of the bought plan:
    --write GROUP=ARN writes it to the config file, and changes nothing else in it.
    """
    if options.write:
        if options.instance_type:
            raise Usage("capacity: --write does not search", "Leave out the instance type.")
        return _written(options.write, options.file)
    if options.file:
        raise Usage("capacity: -f needs --write GROUP=ARN")
    return _found(options)


def _found(options: Options) -> Capacity:
    from hyperpod_eks.aws import service_model
    from hyperpod_eks.cli.login import reading

    known = service_model.enum("sagemaker", f"{SEARCH}.InstanceType")
    kind = options.instance_type
    if kind is None:
        raise Usage("capacity: an instance type is required", f"One of: {', '.join(known)}.")
    if kind not in known:
        raise Usage(f"capacity: no training plan has {kind!r}", f"One of: {', '.join(known)}.")
    after, before = _date("--after", options.after), _date("--before", options.before)
    if after and before and after >= before:
        raise Usage("capacity: --after is not before --before")
    aws = reading(options)
    request: dict[str, Any] = {
        "InstanceType": kind,
        "InstanceCount": options.count,
        "DurationHours": options.hours,
        "TargetResources": ["hyperpod-cluster"],
    }
    request |= {"StartTimeAfter": after} if after else {}
    request |= {"EndTimeBefore": before} if before else {}
    answer = aws.sagemaker.search_training_plan_offerings(**request)
    region = aws.region
    rows = [_row(each, region, options.profile) for each in answer["TrainingPlanOfferings"]]
    rows.sort(key=lambda row: (row["start"] or "", row["availability_zones"], row["id"]))
    return {**head("capacity"), "region": region, "offerings": rows}


def _date(name: str, text: str | None) -> datetime | None:
    """Return a date, in UTC unless it has another offset.  Raises Usage for no date."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Usage(
            f"{name}: invalid date {text!r}", "Examples: 2027-01-11, 2027-01-11T08:00:00."
        ) from error


def _row(offering: Mapping[str, Any], region: str, profile: str | None) -> Offering:
    """Return an offering; its capacity may come in several parts, one after the other."""
    parts = offering.get("ReservedCapacityOfferings") or []
    starts = [part["StartTime"] for part in parts if part.get("StartTime")]
    ends = [part["EndTime"] for part in parts if part.get("EndTime")]
    kind = parts[0]["InstanceType"] if parts else ""
    hours, minutes = offering.get("DurationHours"), offering.get("DurationMinutes") or 0
    day = min(starts).astimezone(UTC).strftime("-%Y%m%d") if starts else ""
    name = (kind.removeprefix("ml.").replace(".", "-") or "plan") + day
    words = ["aws", "sagemaker", "create-training-plan", "--training-plan-name", name]
    words += ["--training-plan-offering-id", offering["TrainingPlanOfferingId"]]
    words += ["--region", region, *(["--profile", profile] if profile else [])]
    return {
        "id": offering["TrainingPlanOfferingId"],
        "instance_type": kind,
        "instance_count": max((part["InstanceCount"] for part in parts), default=0),
        "availability_zones": sorted(
            {part["AvailabilityZone"] for part in parts if part.get("AvailabilityZone")}
        ),
        "start": _moment(min(starts)) if starts else None,
        "end": _moment(max(ends)) if ends else None,
        "hours": None if hours is None else hours + minutes / 60,
        "upfront_fee": offering.get("UpfrontFee"),
        "currency": offering.get("CurrencyCode"),
        "buy": shlex.join(words),
    }


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _written(pair: str, file: str | None) -> CapacityWritten:
    """Write a plan to a group of the config file, if the config is valid with it."""
    from hyperpod_eks import files
    from hyperpod_eks.config import yaml
    from hyperpod_eks.config.load import load

    group, _, arn = pair.partition("=")
    if not (group and arn):
        raise Usage(f"capacity: --write {pair!r} is not GROUP=ARN")
    if file in (None, "-"):
        raise Usage("capacity: --write needs a config file", "Pass -f FILE.")
    path = Path(file)
    load(file, {}, os.environ, files=False)
    try:
        before = files.read(path)
        place = _place(yaml.parse(file, before).value, group)
        after = yaml.with_member(file, before, place, "training_plan_arn", arn)
        load(yaml.parse(file, after).value, {}, os.environ, files=False)
        files.replace(path, after)
    except OSError as error:
        raise Usage(f"capacity: cannot write {file}: {error.strerror}") from error
    return {
        **head("capacity"),
        "file": file,
        "instance_group": group,
        "training_plan_arn": arn,
    }


def _place(document: Mapping[str, Any], group: str) -> Loc:
    """Return the location of a group's name.  Raises NotFound for an unknown group."""
    sections = ("instance_groups", "restricted_instance_groups")
    places: dict[str, Loc] = {
        each["name"]: (section, index, "name")
        for section in sections
        for index, each in enumerate(document.get(section) or ())
    }
    if group not in places:
        names = ", ".join(places) or "none"
        raise NotFound(f"the config has no instance group {group}", f"It has {names}.")
    return places[group]


def text(document: Capacity | CapacityWritten) -> str:
    """Return the text of the document: the offerings and how to buy one, or what was written."""
    from hyperpod_eks.terminal.formats import table

    if "file" in document:
        group, arn = document["instance_group"], document["training_plan_arn"]
        file = shlex.quote(document["file"])
        return f"{group}: training_plan_arn: {arn}\nTo use it: hyperpod-eks create -f {file}"
    if not (rows := document["offerings"]):
        return f"no offerings in {document['region']}; try other dates, or another duration"
    heads, *lines = table([_cells(row, document["region"]) for row in rows]).splitlines()
    # an id has up to 256 characters, those of AWS's examples a SHA-256: it needs a line of its own
    pairs = [f"{line}\n  {row['id']}" for line, row in zip(lines, rows, strict=True)]
    types = ", ".join(sorted({row["instance_type"] for row in rows}))
    return (
        f"offerings of {types} in {document['region']}, times in UTC\n\n"
        + "\n".join([heads, *pairs])
        + f"\n\nTo buy the first one, which is paid in advance:\n  {rows[0]['buy']}\n"
        "To use the plan whose ARN that prints:\n"
        "  hyperpod-eks capacity -f FILE --write GROUP=ARN"
    )


def _cells(row: Offering, region: str) -> dict[str, object]:
    """Return an offering for a table; zones are named as in the region, such as "a, b"."""
    return {
        "start": _short(row["start"]),
        "end": _short(row["end"]),
        "hours": None if row["hours"] is None else f"{row['hours']:g}",
        "count": row["instance_count"],
        "price": f"{row['upfront_fee'] or '?'} {row['currency'] or ''}".rstrip(),
        "zones": ", ".join(zone.removeprefix(region) for zone in row["availability_zones"]),
    }


def _short(moment: str | None) -> str | None:
    """Return a moment of the document, to the minute.

    >>> _short("2027-01-11T08:30:00Z")
    '2027-01-11 08:30'
    """
    return moment and moment[:16].replace("T", " ")


command = define(
    "capacity",
    Options,
    capacity,
    text,
    """
    hyperpod-eks capacity ml.p5.48xlarge --count 4 --hours 168 --after 2027-01-11
    hyperpod-eks capacity -f cluster.yaml --write train=arn:aws:sagemaker:…
    """,
)
