"""AWS Price List: GetProducts, in its documented shape, with the prices of the tool's dated table.

moto has no such service.  Products have the attributes by which they are told apart, and are beside
the look-alikes that the real list has (AWS Billing User Guide, "Finding services and products using
the AWS Price List Query API"; Price List API Reference, GetProducts).  Prices are the same in every
region.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from hyperpod_eks.aws import prices
from hyperpod_eks.aws.prices import Rate
from hyperpod_eks.local.aws.sim import Fault

_MOST = 100
_LOOK_ALIKES = (
    ("AmazonEKS", "AmazonEKS-Local-Outposts-Hours:perCluster", {"productFamily": "Compute"}, 0.1),
    ("AmazonEC2", "RegionalNatGateway-Hours", {"group": "NGW:NatGateway"}, 0.045),
    ("AmazonEC2", "NatGateway-Bytes", {"group": "NGW:NatGateway"}, 0.045),
    ("AmazonVPC", "PublicIPv4:IdleAddress", {"group": "VPCPublicIPv4Address"}, 0.005),
    ("AmazonVPC", "VpcEndpoint-Bytes", {"productFamily": "VpcEndpoint"}, 0.01),
)
"""Service, usage type, attributes and price of products beside those of the table."""


def answer(operation: str, body: bytes) -> bytes | Fault:
    """Answer a request of the service; its other operations are not imitated."""
    if operation != "GetProducts":
        raise NotImplementedError("GetProducts alone")
    request = json.loads(body or b"{}")
    wanted = {each["Field"]: each["Value"] for each in request.get("Filters") or ()}
    if any(each["Type"] != "TERM_MATCH" for each in request.get("Filters") or ()):
        raise NotImplementedError("filters of the type TERM_MATCH alone")
    code, region = request.get("ServiceCode", ""), wanted.get("regionCode", "us-east-1")
    rows = _products(code, region)
    if not rows:
        text = "The requested resource can't be found."
        return Fault("pricing", operation, "NotFoundException", 400, text)
    found = [text for attributes, text in rows if wanted.items() <= attributes.items()]
    first, most = int(request.get("NextToken") or 0), int(request.get("MaxResults") or _MOST)
    page: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": found[first : first + most]}
    if first + most < len(found):
        page["NextToken"] = str(first + most)
    return json.dumps(page).encode()


@cache
def _products(service: str, region: str) -> list[tuple[Mapping[str, str], str]]:
    """Return the attributes of each product of a service, and the product as a JSON text."""
    return [
        (attributes, json.dumps(_product(service, attributes, unit, usd)))
        for attributes, unit, usd in _rows(service, region)
    ]


def _rows(service: str, region: str) -> Iterator[tuple[dict[str, str], str, float]]:
    short = "".join(part[:1] if part.isalpha() else part for part in region.split("-")).upper()
    for rate in _rates():
        if rate.service == service and rate.usd is not None:
            usage, unit = f"{short}-{rate.usage}", "GB-Mo" if rate.monthly else "Hrs"
            yield {"regionCode": region, "usagetype": usage, **dict(rate.filters)}, unit, rate.usd
            if rate.usage.startswith("Cluster:ml."):
                other = f"{short}-Reserved{rate.usage}"
                yield {"regionCode": region, "usagetype": other, **dict(rate.filters)}, unit, 1.0
    for code, usage, more, usd in _LOOK_ALIKES:
        if code == service:
            yield {"regionCode": region, "usagetype": f"{short}-{usage}", **more}, "Hrs", usd
            yield {"regionCode": region, "usagetype": f"{short}-{usage}", **more}, "Hrs", 0.0


def _rates() -> list[Rate]:
    values = list(vars(prices).values())
    several = [*prices.LUSTRE.values(), *map(prices.node, prices.NODES)]
    return list(dict.fromkeys(each for each in (*values, *several) if isinstance(each, Rate)))


def _product(service: str, attributes: Mapping[str, str], unit: str, usd: float) -> dict[str, Any]:
    sku = hashlib.sha256(repr((service, attributes, usd)).encode()).hexdigest()[:16].upper()
    dimension = {
        "unit": unit,
        "beginRange": "0",
        "endRange": "Inf",
        "pricePerUnit": {"USD": f"{usd:.10f}"},
    }
    offer = f"{sku}.JRTCKXETXF"
    return {
        "product": {"sku": sku, "attributes": {"servicecode": service, **attributes}},
        "serviceCode": service,
        "terms": {
            "OnDemand": {
                offer: {
                    "sku": sku,
                    "priceDimensions": {f"{offer}.6YS6EN2CT7": dimension},
                    "termAttributes": {},
                }
            }
        },
        "publicationDate": f"{prices.READ.isoformat()}T00:00:00Z",
    }
