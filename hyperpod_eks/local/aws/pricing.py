"""AWS Price List: GetProducts, in its documented shape, with the prices of the tool's dated table.

moto has no such service.  Products have the attributes by which they are told apart, and are beside
the look-alikes that the real list has (AWS Billing User Guide, "Finding services and products using
the AWS Price List Query API"; Price List API Reference, GetProducts).  Prices are the same in every
region.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hyperpod_eks.local.aws.sim import Fault

_READ = "2026-10-04T00:00:00Z"
_MOST = 100
_NAT = {"productFamily": "NAT Gateway", "group": "NGW:NatGateway"}
_IPV4 = {"group": "VPCPublicIPv4Address"}
_ENDPOINT = {"productFamily": "VpcEndpoint"}
_EKS = {"productFamily": "Compute", "operation": "CreateOperation"}
_LUSTRE = {"fileSystemType": "Lustre", "operation": "CreateFileSystem:Lustre"}
_ROWS = (
    ("AmazonEKS", "AmazonEKS-Hours:perCluster", _EKS, "Hours", 0.1),
    ("AmazonEKS", "AmazonEKS-Hours:extendedSupport", _EKS, "Hours", 0.5),
    ("AmazonEKS", "AmazonEKS-Local-Outposts-Hours:perCluster", _EKS, "Hours", 0.1),
    ("AmazonEC2", "NatGateway-Hours", _NAT, "Hrs", 0.045),
    ("AmazonEC2", "NatGateway-Hours", _NAT, "Hrs", 0.0),
    ("AmazonEC2", "RegionalNatGateway-Hours", _NAT, "Hrs", 0.045),
    ("AmazonEC2", "NatGateway-Bytes", _NAT, "GB", 0.045),
    ("AmazonVPC", "PublicIPv4:InUseAddress", _IPV4, "Hrs", 0.005),
    ("AmazonVPC", "PublicIPv4:IdleAddress", _IPV4, "Hrs", 0.005),
    ("AmazonVPC", "VpcEndpoint-Hours", _ENDPOINT, "Hrs", 0.01),
    ("AmazonVPC", "VpcEndpoint-Bytes", _ENDPOINT, "GB", 0.01),
    ("AmazonSageMaker", "Cluster:VolumeUsage.gp2", {"component": "Cluster"}, "GB-Mo", 0.14),
    ("AmazonFSx", "Storage", _LUSTRE, "GB-Mo", 0.14),
    ("AmazonFSx", "Storage.SSD.50", _LUSTRE, "GB-Mo", 0.14),
    ("AmazonFSx", "Storage.SSD.100", _LUSTRE, "GB-Mo", 0.19),
    ("AmazonFSx", "Storage.SSD.200", _LUSTRE, "GB-Mo", 0.29),
    ("AmazonFSx", "Storage.SSD.125", _LUSTRE, "GB-Mo", 0.145),
    ("AmazonFSx", "Storage.SSD.250", _LUSTRE, "GB-Mo", 0.21),
    ("AmazonFSx", "Storage.SSD.500", _LUSTRE, "GB-Mo", 0.34),
    ("AmazonFSx", "Storage.SSD.1000", _LUSTRE, "GB-Mo", 0.6),
)
"""Service, end of the usage type, attributes, unit and USD."""
_NODES = {
    "ml.m5.2xlarge": 0.461,
    "ml.g5.8xlarge": 3.06,
    "ml.g6e.48xlarge": 37.66,
    "ml.p4d.24xlarge": 25.91,
    "ml.p5.48xlarge": 66.048,
    "ml.p5en.48xlarge": 75.955,
}


def answer(operation: str, body: bytes) -> bytes | Fault:
    """Answer a request of the service; its other operations are not imitated."""
    if operation != "GetProducts":
        raise NotImplementedError("GetProducts alone")
    request = json.loads(body or b"{}")
    filters = request.get("Filters") or ()
    if any(each["Type"] != "TERM_MATCH" for each in filters):
        raise NotImplementedError("filters of the type TERM_MATCH alone")
    wanted = {each["Field"]: each["Value"] for each in filters}
    rows = _products(request.get("ServiceCode", ""), wanted.get("regionCode", "us-east-1"))
    if not rows:
        text = "The requested resource can't be found."
        return Fault("pricing", operation, "NotFoundException", 400, text)
    found = [text for attributes, text in rows if wanted.items() <= attributes.items()]
    first, most = int(request.get("NextToken") or 0), int(request.get("MaxResults") or _MOST)
    page: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": found[first : first + most]}
    if first + most < len(found):
        page["NextToken"] = str(first + most)
    return json.dumps(page).encode()


def _products(service: str, region: str) -> Sequence[tuple[Mapping[str, str], str]]:
    """Return the attributes of each product of a service, and the product as a JSON text."""
    short = "".join(part[:1] if part.isalpha() else part for part in region.split("-")).upper()
    found = []
    for usage, more, unit, usd in _rows(service):
        attributes = {"regionCode": region, "usagetype": f"{short}-{usage}", **more}
        found.append((attributes, json.dumps(_product(service, attributes, unit, usd))))
    return found


def _rows(service: str) -> Iterator[tuple[str, Mapping[str, str], str, float]]:
    for code, usage, more, unit, usd in _ROWS:
        if code == service:
            yield usage, more, unit, usd
    if service == "AmazonSageMaker":
        for kind, usd in _NODES.items():
            for component, price in (("Cluster", usd), ("ReservedCluster", usd / 2)):
                more = {"instanceType": f"{kind}-Cluster", "component": component}
                yield f"{component}:{kind}", more, "Hrs", price


def _product(service: str, attributes: Mapping[str, str], unit: str, usd: float) -> dict[str, Any]:
    sku = hashlib.sha256(repr((service, attributes, usd)).encode()).hexdigest()[:16].upper()
    offer = f"{sku}.JRTCKXETXF"
    dimension = {
        "unit": unit,
        "beginRange": "0",
        "endRange": "Inf",
        "pricePerUnit": {"USD": f"{usd:.10f}"},
    }
    term = {
        "sku": sku,
        "priceDimensions": {f"{offer}.6YS6EN2CT7": dimension},
        "termAttributes": {},
    }
    return {
        "product": {"sku": sku, "attributes": {"servicecode": service, **attributes}},
        "serviceCode": service,
        "terms": {"OnDemand": {offer: term}},
        "publicationDate": _READ,
    }
