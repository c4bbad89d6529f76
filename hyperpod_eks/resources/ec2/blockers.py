"""Resources that prevent the deletion of a VPC, with the commands that remove them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from hyperpod_eks.aws.ec2 import (
    EGRESS_ONLY_GATEWAYS,
    INSTANCE_CONNECT_ENDPOINTS,
    INTERNET_GATEWAYS,
    NETWORK_ACLS,
    PEERINGS,
    ROUTE_TABLES,
    SECURITY_GROUPS,
    SUBNETS,
    TRANSIT_GATEWAY_ATTACHMENTS,
    VPC_ENDPOINTS,
    VPN_GATEWAYS,
    Listing,
)
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.frozen import frozen
from hyperpod_eks.workers import gather

GONE = ("deleted", "deleting", "rejected", "failed", "expired")


@frozen
class Kind:
    """One listing: ``command`` may contain {id} and {vpc}; ``counts``: whether an item blocks."""

    words: str
    listing: Listing
    command: str
    filter: str = ""
    """The filter, if not the listing's own; if neither exists, ``counts`` selects by VPC."""
    counts: Callable[[JsonMapping, str], bool] = lambda item, vpc: True


KINDS = (
    Kind(
        "security group",
        SECURITY_GROUPS,
        "delete-security-group --group-id {id}",
        counts=lambda item, vpc: item["GroupName"] != "default",
    ),
    Kind("subnet", SUBNETS, "delete-subnet --subnet-id {id}"),
    Kind(
        "route table",
        ROUTE_TABLES,
        "delete-route-table --route-table-id {id}",
        counts=lambda item, vpc: not any(a.get("Main") for a in item.get("Associations", ())),
    ),
    Kind(
        "network ACL",
        NETWORK_ACLS,
        "delete-network-acl --network-acl-id {id}",
        counts=lambda item, vpc: not item.get("IsDefault"),
    ),
    Kind(
        "internet gateway",
        INTERNET_GATEWAYS,
        "detach-internet-gateway --internet-gateway-id {id} --vpc-id {vpc}",
    ),
    Kind(
        "egress-only internet gateway",
        EGRESS_ONLY_GATEWAYS,
        "delete-egress-only-internet-gateway --egress-only-internet-gateway-id {id}",
        counts=lambda item, vpc: any(a.get("VpcId") == vpc for a in item.get("Attachments", ())),
    ),
    Kind(
        "VPN gateway",
        VPN_GATEWAYS,
        "detach-vpn-gateway --vpn-gateway-id {id} --vpc-id {vpc}",
        counts=lambda item, vpc: any(
            a.get("VpcId") == vpc and a.get("State") != "detached"
            for a in item.get("VpcAttachments", ())
        ),
    ),
    *(
        Kind(
            "VPC peering connection",
            PEERINGS,
            "delete-vpc-peering-connection --vpc-peering-connection-id {id}",
            filter=f"{side}-vpc-info.vpc-id",
            counts=lambda item, vpc: item.get("Status", {}).get("Code") not in GONE,
        )
        for side in ("requester", "accepter")
    ),
    Kind(
        "transit gateway attachment",
        TRANSIT_GATEWAY_ATTACHMENTS,
        "delete-transit-gateway-vpc-attachment --transit-gateway-attachment-id {id}",
        counts=lambda item, vpc: item.get("State") not in GONE,
    ),
    Kind(
        "instance connect endpoint",
        INSTANCE_CONNECT_ENDPOINTS,
        "delete-instance-connect-endpoint --instance-connect-endpoint-id {id}",
        counts=lambda item, vpc: not str(item.get("State", "")).startswith("delete-"),
    ),
    Kind(
        "endpoint",
        VPC_ENDPOINTS,
        "delete-vpc-endpoints --vpc-endpoint-ids {id}",
        counts=lambda item, vpc: str(item.get("State", "")).lower() not in GONE,
    ),
)
"""Kinds that block the delete (VPC User Guide, "Delete your VPC"; EC2 API reference, DeleteVpc)."""


def of_vpc(snapshot: Snapshot, vpc: str) -> list[str]:
    """Describe a VPC's contents except interfaces; kinds that cannot be listed are left out."""

    def ask(kind: Kind) -> Iterator[str]:
        by = kind.filter or kind.listing.in_vpc
        for item in snapshot.region(kind.listing, {by: [vpc]} if by else None):
            if kind.counts(item, vpc):
                name = f" ({item['GroupName']})" if "GroupName" in item else ""
                id_, region = item[kind.listing.id], snapshot.aws.region
                command = kind.command.format(id=id_, vpc=vpc)
                yield f"{kind.words} {id_}{name}: aws ec2 {command} --region {region}"

    def held(kind: Kind) -> list[str]:
        with suppress(Exception):  # best effort: a missing permission hides one kind only
            return list(ask(kind))
        return []

    return [line for lines in gather(*(partial(held, kind) for kind in KINDS)) for line in lines]
