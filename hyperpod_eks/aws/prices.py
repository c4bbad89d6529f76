"""What a cluster costs by the hour, about: enough to decide whether to press enter.

On-demand list prices without discounts, data transfer and taxes.  The Price List API is the
authority; this table is for the moment before the first call that costs something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

from hyperpod_eks.aws.published import EXTENDED_SUPPORT_USD, STANDARD_SUPPORT_USD
from hyperpod_eks.frozen import frozen

READ = date(2026, 10, 4)
"""When the prices below were read."""
REGION = "us-east-1"
"""Where they hold; other regions are up to a third dearer."""
HOURS = 730
"""Hours of a month, as AWS counts them."""

# USD per hour.
EKS = {"standard support": STANDARD_SUPPORT_USD, "extended support": EXTENDED_SUPPORT_USD}
# Amazon VPC pricing page: a NAT gateway (without its 0.045 per GB) and a public IPv4 address.
NAT_GATEWAY = 0.045
PUBLIC_IPV4 = 0.005
# AWS PrivateLink pricing page: an interface endpoint in one zone (without its 0.01 per GB).
INTERFACE_ENDPOINT = 0.01
# USD per GB and month of the nodes' EBS volumes, which are billed under SageMaker.
EBS = 0.14
# Nodes: Price List API, service AmazonSageMaker, component Cluster.  Types that are not here are
# reported as unknown; ml.m5.2xlarge is derived from its EC2 price.
NODES = {
    "ml.m5.2xlarge": 0.461,
    "ml.g5.8xlarge": 3.06,
    "ml.g6e.48xlarge": 37.66,
    "ml.p4d.24xlarge": 25.91,
    "ml.p5.48xlarge": 66.048,
    "ml.p5en.48xlarge": 75.955,
}


def nodes(kind: str, count: int, *, prepaid: bool, spot: bool) -> Item:
    """Price nodes: those of a training plan are paid in advance, and Spot prices move."""
    if prepaid:
        return Item(f"{kind}, prepaid (training plan)", count, 0.0)
    if spot:
        return Item(f"{kind}, Spot", count, None)
    return Item(kind, count, NODES.get(kind))


@frozen
class Item:
    """Some equal things; ``each`` is USD per hour for one, None where it is not known."""

    what: str
    count: int
    each: float | None


def estimate(
    items: Iterable[Item],
) -> dict[str, object]:
    """Add up what the known items cost.

    Returns the ``cost`` of ``hyperpod-eks/plan/v1``: the items with USD per hour, their sum, the
    names of what the table does not know, which the sum leaves out, and whether it is complete.

    >>> estimate([Item("EKS", 1, 0.1), Item("ml.new.large", 2, None)])["usd_per_hour"]
    0.1
    """
    rows: list[Mapping[str, object]] = []
    total, unknown = 0.0, []
    for item in items:
        cost = None if item.each is None else round(item.count * item.each, 4)
        if cost is None:
            unknown.append(item.what)
        total += cost or 0.0
        rows.append({"what": item.what, "count": item.count, "usd_per_hour": cost})
    return {
        "usd_per_hour": round(total, 2),
        "complete": not unknown,
        "approximate": True,
        "as_of": READ.isoformat(),
        "region": REGION,
        "items": rows,
        "unknown": sorted(set(unknown)),
    }
