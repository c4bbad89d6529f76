"""A rough estimate of a cluster's cost, for the decision to create it.

On-demand prices without discounts, data transfer and taxes: those of the AWS Price List where
`price_list` found them, else those of the table below.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Literal, TypedDict

from hyperpod_eks.frozen import frozen

READ = date(2026, 10, 4)
"""When the prices below were read."""
REGION = "us-east-1"
"""The region of these prices; others cost up to a third more."""
HOURS = 730
"""Hours per month, as AWS counts them."""


@frozen
class Rate:
    """A price: USD per hour, or per GB and month, as the table has it; None if unknown.

    The rest is its place in the Price List: ``service`` (empty if it is not there), the values of
    attributes that limit the search (``filters``), and ``usage``, how the attribute ``usagetype``
    ends; it begins with an irregular abbreviation of the region.
    """

    usd: float | None
    service: str = ""
    usage: str = ""
    filters: tuple[tuple[str, str], ...] = ()
    monthly: bool = False


def gigabytes(usd: float | None, service: str, usage: str, *filters: tuple[str, str]) -> Rate:
    """Return the rate of a GB for a month."""
    return Rate(usd, service, usage, filters, monthly=True)


FREE = Rate(0.0)
UNKNOWN = Rate(None)

# Amazon EKS pricing page.  The second one is added in extended support.
CONTROL_PLANE = Rate(0.10, "AmazonEKS", "AmazonEKS-Hours:perCluster")
EXTENDED_SUPPORT = Rate(0.50, "AmazonEKS", "AmazonEKS-Hours:extendedSupport")
# Amazon VPC pricing page: a NAT gateway (without its 0.045 per GB) and a public IPv4 address.
NAT_GATEWAY = Rate(0.045, "AmazonEC2", "NatGateway-Hours", (("group", "NGW:NatGateway"),))
PUBLIC_IPV4 = Rate(
    0.005, "AmazonVPC", "PublicIPv4:InUseAddress", (("group", "VPCPublicIPv4Address"),)
)
# AWS PrivateLink pricing page: an interface endpoint in one zone (without its 0.01 per GB).
INTERFACE_ENDPOINT = Rate(
    0.01, "AmazonVPC", "VpcEndpoint-Hours", (("productFamily", "VpcEndpoint"),)
)
# The nodes' EBS volumes, which are billed under SageMaker.
EBS = gigabytes(0.14, "AmazonSageMaker", "Cluster:VolumeUsage.gp2", ("component", "Cluster"))
# Amazon EBS pricing page: USD per GB and month of volumes of claims.  Types whose IOPS are most of
# the price are reported as unknown.
VOLUMES = {"gp3": 0.08, "gp2": 0.1, "st1": 0.045, "sc1": 0.015}
# FSx for Lustre pricing page, as public cost estimators quote it: SSD storage, by deployment type
# and throughput per TiB.  Other storage is reported as unknown.
_LUSTRE = {
    ("SCRATCH_1", None): (0.14, "Storage"),
    ("SCRATCH_2", None): (0.14, "Storage"),
    ("PERSISTENT_1", 50): (0.14, "Storage.SSD.50"),
    ("PERSISTENT_1", 100): (0.19, "Storage.SSD.100"),
    ("PERSISTENT_1", 200): (0.29, "Storage.SSD.200"),
    ("PERSISTENT_2", 125): (0.145, "Storage.SSD.125"),
    ("PERSISTENT_2", 250): (0.21, "Storage.SSD.250"),
    ("PERSISTENT_2", 500): (0.34, "Storage.SSD.500"),
    ("PERSISTENT_2", 1000): (0.6, "Storage.SSD.1000"),
}
LUSTRE = {
    kind: gigabytes(usd, "AmazonFSx", usage, ("fileSystemType", "Lustre"))
    for kind, (usd, usage) in _LUSTRE.items()
}
# Price List API, service AmazonSageMaker, component Cluster; ml.m5.2xlarge is derived from its EC2
# price.
NODES = {
    "ml.m5.2xlarge": 0.461,
    "ml.g5.8xlarge": 3.06,
    "ml.g6e.48xlarge": 37.66,
    "ml.p4d.24xlarge": 25.91,
    "ml.p5.48xlarge": 66.048,
    "ml.p5en.48xlarge": 75.955,
}


def node(kind: str) -> Rate:
    """Return the rate of a node of an instance type; of several types, it is unknown."""
    if not re.fullmatch(r"ml\.[\w.-]+", kind):
        return UNKNOWN
    usage = f"Cluster:{kind}"
    return Rate(NODES.get(kind), "AmazonSageMaker", usage, (("instanceType", f"{kind}-Cluster"),))


def nodes(kind: str, count: int, *, prepaid: bool, spot: bool, group: str = "") -> Item:
    """Price nodes: training plans are paid in advance, so cost 0; Spot prices vary: unknown."""
    if prepaid:
        return Item(f"{kind}, prepaid (training plan)", count, FREE, group=group)
    if spot:
        return Item(f"{kind}, Spot", count, UNKNOWN, group=group)
    return Item(kind, count, node(kind), group=group)


@frozen
class Item:
    """A number of equal resources, each with an ``amount`` (GB, or 1) at a rate.

    ``group`` names the instance group that they belong to.
    """

    what: str
    count: int
    rate: Rate
    amount: float = 1.0
    group: str = ""


@frozen
class Listed:
    """A price of the AWS Price List, None if it has none, and when it was read."""

    usd: float | None
    read: date


class CostItem(TypedDict):
    """The cost of equal resources, in USD per hour."""

    what: str
    count: int
    usd_per_hour: float | None
    source: Annotated[
        Literal["price-list", "table"] | None, "of the price; null if it is unknown or 0"
    ]


class GroupCost(TypedDict):
    """The cost of an instance group, with its volumes, in USD."""

    usd_per_hour: float
    usd_per_month: float
    complete: bool


class Cost(TypedDict):
    """The estimated cost of a cluster, with its items."""

    usd_per_hour: float
    usd_per_month: Annotated[float, "730 hours"]
    complete: bool
    approximate: Literal[True]
    as_of: Annotated[str, {"format": "date"}]
    region: Annotated[str, "whose prices they are; us-east-1 if any is from the table"]
    groups: dict[str, GroupCost]
    items: list[CostItem]
    unknown: Annotated[list[str], "what the sum leaves out"]


def estimate(items: Iterable[Item], listed: Mapping[Rate, Listed], region: str) -> Cost:
    """Add up the cost of all items with a known price; equal ones are one row, dearest first.

    ``listed`` has the prices of the Price List for ``region``.  Returns the ``cost`` of
    ``hyperpod-eks/plan/v1``.

    >>> estimate([Item("EKS", 1, CONTROL_PLANE), Item("new", 2, UNKNOWN)], {}, "")["usd_per_hour"]
    0.1
    """
    every = [item for item in items if item.count]
    rows: dict[tuple[str, float | None], CostItem] = {}
    for item in every:
        each, source = usd_per_hour(item, listed), _source(item.rate, listed)
        row = rows.setdefault(
            (item.what, each),
            {"what": item.what, "count": 0, "usd_per_hour": None, "source": source},
        )
        row["count"] += item.count
        row["usd_per_hour"] = None if each is None else round(row["count"] * each, 4)
    unknown = sorted({what for what, each in rows if each is None})
    hourly = _sum(every, listed)
    found = {item.rate for item in every if _source(item.rate, listed) == "price-list"}
    tabled = any(row["source"] == "table" for row in rows.values()) or not found
    return {
        "usd_per_hour": round(hourly, 2),
        "usd_per_month": round(hourly * HOURS, 2),
        "complete": not unknown,
        "approximate": True,
        "as_of": (READ if tabled else min(listed[rate].read for rate in found)).isoformat(),
        "region": REGION if tabled else region,
        "groups": _groups(every, listed),
        "items": sorted(rows.values(), key=lambda row: -(row["usd_per_hour"] or 0.0)),
        "unknown": unknown,
    }


def usd_per_hour(item: Item, listed: Mapping[Rate, Listed]) -> float | None:
    """Return the price of one of an item's resources."""
    there = listed.get(item.rate)
    usd = item.rate.usd if there is None or there.usd is None else there.usd
    if usd is None:
        return None
    return usd * item.amount / (HOURS if item.rate.monthly else 1)


def _source(rate: Rate, listed: Mapping[Rate, Listed]) -> Literal["price-list", "table"] | None:
    if rate in listed and listed[rate].usd is not None:
        return "price-list"
    return "table" if rate.usd else None


def _sum(items: Iterable[Item], listed: Mapping[Rate, Listed]) -> float:
    return sum(((usd_per_hour(item, listed) or 0.0) * item.count for item in items), 0.0)


def _groups(items: Iterable[Item], listed: Mapping[Rate, Listed]) -> dict[str, GroupCost]:
    by_group = defaultdict[str, list[Item]](list)
    for item in items:
        if item.group:
            by_group[item.group].append(item)
    return {
        group: {
            "usd_per_hour": round(hourly := _sum(mine, listed), 2),
            "usd_per_month": round(hourly * HOURS, 2),
            "complete": all(usd_per_hour(item, listed) is not None for item in mine),
        }
        for group, mine in by_group.items()
    }
