"""Look prices up in the AWS Price List, and remember them for a week.

Prices are never worth a failure or a wait: a call that is denied, fails or is not answered within
`PATIENCE` leaves the price to the table of `prices`.

Sources: AWS Billing User Guide, "Finding services and products using the AWS Price List Query API"
(its endpoints, GetProducts); botocore's model of ``pricing`` (each product is a JSON text).
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hyperpod_eks import files, folders
from hyperpod_eks.aws.prices import Listed, Rate
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.workers import start

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws, Identity

PATIENCE = 3.0
"""Seconds to wait for all answers."""
FRESH = timedelta(days=7)
"""How long a price is used before it is asked for again."""
PAUSE = 3600.0
"""Seconds without a question after a call without an answer."""
_UNITS = {False: "hrs hours hour", True: "gb-mo"}
"""Units of a rate, by whether it is monthly."""
_ENDPOINTS = (("eu-|me-|af-|il-", "eu-central-1"), ("ap-", "ap-south-1"), ("", "us-east-1"))
"""The endpoint for a region of the partition ``aws``, by how its name begins."""
Query = tuple[str, tuple[tuple[str, str], ...]]
"""A service, and the values of attributes."""

log = logging.getLogger(__name__)


def look_up(aws: Aws, who: Identity, rates: Iterable[Rate]) -> dict[Rate, Listed]:
    """Return the prices of the caller's region, as far as the list has them and answers in time."""
    wanted = {_key(rate): rate for rate in rates if rate.service}
    path = folders.cache() / f"prices-{who.region}.json"
    host = urlsplit(aws.sagemaker.meta.endpoint_url).netloc
    known, failed = _read(path, host)
    queries = defaultdict[Query, dict[str, Rate]](dict)
    for key, rate in wanted.items():
        if key not in known:
            queries[rate.service, rate.filters][key] = rate
    now = time.time()
    if queries and not abs(now - failed) < PAUSE and (endpoint := _endpoint(who)):
        found = _ask(aws.elsewhere(endpoint), who.region, queries)
        known |= found
        complete = all(key in found for keys in queries.values() for key in keys)
        _write(path, host, known, 0.0 if complete else now)
    return {rate: known[key] for key, rate in wanted.items() if key in known}


def _endpoint(who: Identity) -> str:
    """Return the region whose endpoint has the caller's prices in USD; "" for none.

    AWS China's list is in CNY, and GovCloud has no endpoint.
    """
    if who.partition != "aws":
        return ""
    return next(there for begins, there in _ENDPOINTS if re.match(begins, who.region))


def _ask(aws: Aws, region: str, queries: Mapping[Query, Mapping[str, Rate]]) -> dict[str, Listed]:
    """Ask all queries at once; return the prices of those that are answered within `PATIENCE`."""
    asked = [start(partial(_products, aws, region, *query)) for query in queries]
    wait(asked, PATIENCE)
    found: dict[str, Listed] = {}
    today = datetime.now(UTC).date()
    for each, rates in zip(asked, queries.values(), strict=True):
        if not each.done():
            log.info("pricing:GetProducts did not answer in time")
        elif error := each.exception():
            log.info("pricing:GetProducts: %s", error)
        else:
            products = each.result()
            found |= {key: Listed(_usd(products, rate), today) for key, rate in rates.items()}
    return found


def _products(
    aws: Aws, region: str, service: str, filters: Iterable[tuple[str, str]]
) -> list[JsonMapping]:
    every = [("regionCode", region), *filters]
    pages = aws.pricing.get_paginator("get_products").paginate(
        ServiceCode=service,
        Filters=[{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in every],
        FormatVersion="aws_v1",
    )
    found = [json.loads(text) for page in pages for text in page.get("PriceList") or ()]
    return [each for each in found if isinstance(each, dict)]


def _usd(products: Iterable[JsonMapping], rate: Rate) -> float | None:
    """Return the one price above 0 of the products of a rate; None for none, or for several.

    >>> product = {"product": {"attributes": {"usagetype": "USE1-NatGateway-Hours"}}, "terms": {
    ...     "OnDemand": {"a": {"priceDimensions": {"b": {
    ...         "unit": "Hrs", "beginRange": "0", "pricePerUnit": {"USD": "0.0450000000"}}}}}}}
    >>> _usd([product], Rate(None, "AmazonEC2", "NatGateway-Hours"))
    0.045
    """
    ends = re.compile(rf"(.*-)?{re.escape(rate.usage)}")
    prices: set[float] = set()
    for each in products:
        with suppress(AttributeError, KeyError, TypeError, ValueError):  # of another shape
            if ends.fullmatch(each["product"]["attributes"]["usagetype"]):
                prices.update(_on_demand(each, _UNITS[rate.monthly]))
    return prices.pop() if len(prices) == 1 else None


def _on_demand(product: JsonMapping, units: str) -> Iterator[float]:
    """Yield a product's prices above 0 in USD; of tiers, the first one's."""
    for term in product["terms"]["OnDemand"].values():
        for one in term["priceDimensions"].values():
            usd = float(one["pricePerUnit"]["USD"])
            if one["unit"].lower() in units.split() and one.get("beginRange") == "0" and usd > 0:
                yield usd


def _key(rate: Rate) -> str:
    """Name a rate in the file; a rate that is asked for in another way is another one."""
    return json.dumps([rate.service, rate.usage, rate.filters])


def _read(path: Path, host: str) -> tuple[dict[str, Listed], float]:
    """Read the fresh prices that this AWS gave, whose SageMaker is at ``host``; {} for none.

    The second is the time of the last call without an answer, 0 for none.  Prices of another
    endpoint may be the embedded stack's.
    """
    today = datetime.now(UTC).date()
    with suppress(Exception):  # the file may be none of ours; all that costs is another question
        kept = json.loads(files.read(path))
        found = {str(key): _listed(row) for key, row in kept["prices"].items()}
        failed = float(kept["failed"])
        if kept["of"] == host:
            fresh = {key: x for key, x in found.items() if today - FRESH < x.read <= today}
            return fresh, failed
    return {}, 0.0


def _listed(row: Json) -> Listed:
    """Return a remembered price.  Raises any error for what `_write` does not write."""
    usd, read = row["usd"], date.fromisoformat(row["read"])
    if usd is not None and not (isinstance(usd, float) and 0 < usd < math.inf):
        raise ValueError(usd)
    return Listed(usd, read)


def _write(path: Path, host: str, known: Mapping[str, Listed], failed: float) -> None:
    """Remember prices; without a cache, the next command asks again."""
    rows = {key: {"usd": each.usd, "read": each.read.isoformat()} for key, each in known.items()}
    kept = {"of": host, "failed": failed, "prices": rows}
    with suppress(OSError, HyperpodError):
        files.make_folder(path.parent)
        files.replace(path, json.dumps(kept, indent=1).encode())
