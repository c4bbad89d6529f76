"""A rough estimate of a cluster's cost per hour, for the decision to create it.

On-demand list prices without discounts, data transfer and taxes.  The Price List API has the
exact ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Annotated, Literal, TypedDict

from hyperpod_eks.aws.published import EXTENDED_SUPPORT_USD, STANDARD_SUPPORT_USD
from hyperpod_eks.frozen import frozen

READ = date(2026, 10, 4)
"""When the prices below were read."""
REGION = "us-east-1"
"""The region of these prices; others cost up to a third more."""
HOURS = 730
"""Hours per month, as AWS counts them."""

# USD per hour.
EKS = {"standard support": STANDARD_SUPPORT_USD, "extended support": EXTENDED_SUPPORT_USD}
# Amazon VPC pricing page: a NAT gateway (without its 0.045 per GB) and a public IPv4 address.
NAT_GATEWAY = 0.045
PUBLIC_IPV4 = 0.005
# AWS PrivateLink pricing page: an interface endpoint in one zone (without its 0.01 per GB).
INTERFACE_ENDPOINT = 0.01
# USD per GB and month of the nodes' EBS volumes, which are billed under SageMaker.
EBS = 0.14
# FSx for Lustre pricing page, as public cost estimators quote it: USD per GB and month of SSD
# storage, by deployment type and throughput per TiB.  Other storage is reported as unknown.
LUSTRE = {
    ("SCRATCH_1", None): 0.14,
    ("SCRATCH_2", None): 0.14,
    ("PERSISTENT_1", 50): 0.14,
    ("PERSISTENT_1", 100): 0.19,
    ("PERSISTENT_1", 200): 0.29,
    ("PERSISTENT_2", 125): 0.145,
    ("PERSISTENT_2", 250): 0.21,
    ("PERSISTENT_2", 500): 0.34,
    ("PERSISTENT_2", 1000): 0.6,
}
# Nodes: Price List API, service AmazonSageMaker, component Cluster.  Other types are reported as
# unknown; ml.m5.2xlarge is derived from its EC2 price.
NODES = {
    "ml.m5.2xlarge": 0.461,
    "ml.g5.8xlarge": 3.06,
    "ml.g6e.48xlarge": 37.66,
    "ml.p4d.24xlarge": 25.91,
    "ml.p5.48xlarge": 66.048,
    "ml.p5en.48xlarge": 75.955,
}


def nodes(kind: str, count: int, *, prepaid: bool, spot: bool) -> Item:
    """Price nodes: training plans are paid in advance, so cost 0; Spot prices vary, so None."""
    if prepaid:
        return Item(f"{kind}, prepaid (training plan)", count, 0.0)
    if spot:
        return Item(f"{kind}, Spot", count, None)
    return Item(kind, count, NODES.get(kind))


@frozen
class Item:
    """A number of equal resources; ``each`` is USD per hour for one, None if unknown."""

    what: str
    count: int
    each: float | None


class CostItem(TypedDict):
    """The cost of equal resources, in USD per hour."""

    what: str
    count: int
    usd_per_hour: float | None


class Cost(TypedDict):
    """The estimated cost of a cluster, with its items."""

    usd_per_hour: float
    complete: bool
    approximate: Literal[True]
    as_of: Annotated[str, {"format": "date"}]
    region: str
    items: list[CostItem]
    unknown: Annotated[list[str], "what the sum leaves out"]


def estimate(items: Iterable[Item]) -> Cost:
    """Add up the cost of all items with a known price; equal ones are one row, dearest first.

    Returns the ``cost`` of ``hyperpod-eks/plan/v1``: the items with USD per hour, their sum, the
    names of items without a known price, which the sum leaves out, and whether it is complete.

    >>> estimate([Item("EKS", 1, 0.1), Item("ml.new.large", 2, None)])["usd_per_hour"]
    0.1
    """
    counts = Counter[tuple[str, float | None]]()
    for item in items:
        counts[item.what, item.each] += item.count
    costs = {
        what: (count, None if each is None else round(count * each, 4))
        for (what, each), count in counts.items()
        if count
    }
    unknown = sorted(what for what, (_, usd) in costs.items() if usd is None)
    dearest_first = sorted(costs.items(), key=lambda row: -(row[1][1] or 0.0))
    return {
        "usd_per_hour": round(sum(usd or 0.0 for _, usd in costs.values()), 2),
        "complete": not unknown,
        "approximate": True,
        "as_of": READ.isoformat(),
        "region": REGION,
        "items": [
            {"what": what, "count": count, "usd_per_hour": usd}
            for what, (count, usd) in dearest_first
        ],
        "unknown": unknown,
    }
