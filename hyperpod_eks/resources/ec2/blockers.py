"""What keeps AWS from deleting a VPC, each with the command that removes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from hyperpod_eks.aws.client import Snapshot
from hyperpod_eks.frozen import frozen
from hyperpod_eks.workers import gather

GONE = ("deleted", "deleting", "rejected", "failed", "expired")


@frozen
class Kind:
    """One list of EC2: ``command`` may hold {id} and {vpc}, ``counts`` tells what is a bar."""

    words: str
    method: str
    key: str
    id: str
    command: str
    filter: str = "vpc-id"
    """Empty where the API has no filter for the VPC; then ``counts`` chooses."""
    counts: Callable[[Mapping[str, Any], str], bool] = lambda item, vpc: True


KINDS = (
    Kind(
        "security group",
        "describe_security_groups",
        "SecurityGroups",
        "GroupId",
        "delete-security-group --group-id {id}",
        counts=lambda item, vpc: item["GroupName"] != "default",
    ),
    Kind("subnet", "describe_subnets", "Subnets", "SubnetId", "delete-subnet --subnet-id {id}"),
    Kind(
        "route table",
        "describe_route_tables",
        "RouteTables",
        "RouteTableId",
        "delete-route-table --route-table-id {id}",
        counts=lambda item, vpc: not any(a.get("Main") for a in item.get("Associations", ())),
    ),
    Kind(
        "network ACL",
        "describe_network_acls",
        "NetworkAcls",
        "NetworkAclId",
        "delete-network-acl --network-acl-id {id}",
        counts=lambda item, vpc: not item.get("IsDefault"),
    ),
    Kind(
        "internet gateway",
        "describe_internet_gateways",
        "InternetGateways",
        "InternetGatewayId",
        "detach-internet-gateway --internet-gateway-id {id} --vpc-id {vpc}",
        filter="attachment.vpc-id",
    ),
    Kind(
        "egress-only internet gateway",
        "describe_egress_only_internet_gateways",
        "EgressOnlyInternetGateways",
        "EgressOnlyInternetGatewayId",
        "delete-egress-only-internet-gateway --egress-only-internet-gateway-id {id}",
        filter="",
        counts=lambda item, vpc: any(a.get("VpcId") == vpc for a in item.get("Attachments", ())),
    ),
    Kind(
        "VPN gateway",
        "describe_vpn_gateways",
        "VpnGateways",
        "VpnGatewayId",
        "detach-vpn-gateway --vpn-gateway-id {id} --vpc-id {vpc}",
        filter="attachment.vpc-id",
        counts=lambda item, vpc: any(
            a.get("VpcId") == vpc and a.get("State") != "detached"
            for a in item.get("VpcAttachments", ())
        ),
    ),
    *(
        Kind(
            "VPC peering connection",
            "describe_vpc_peering_connections",
            "VpcPeeringConnections",
            "VpcPeeringConnectionId",
            "delete-vpc-peering-connection --vpc-peering-connection-id {id}",
            filter=f"{side}-vpc-info.vpc-id",
            counts=lambda item, vpc: item.get("Status", {}).get("Code") not in GONE,
        )
        for side in ("requester", "accepter")
    ),
    Kind(
        "transit gateway attachment",
        "describe_transit_gateway_vpc_attachments",
        "TransitGatewayVpcAttachments",
        "TransitGatewayAttachmentId",
        "delete-transit-gateway-vpc-attachment --transit-gateway-attachment-id {id}",
        counts=lambda item, vpc: item.get("State") not in GONE,
    ),
    Kind(
        "instance connect endpoint",
        "describe_instance_connect_endpoints",
        "InstanceConnectEndpoints",
        "InstanceConnectEndpointId",
        "delete-instance-connect-endpoint --instance-connect-endpoint-id {id}",
        counts=lambda item, vpc: not str(item.get("State", "")).startswith("delete-"),
    ),
    Kind(
        "endpoint",
        "describe_vpc_endpoints",
        "VpcEndpoints",
        "VpcEndpointId",
        "delete-vpc-endpoints --vpc-endpoint-ids {id}",
        counts=lambda item, vpc: str(item.get("State", "")).lower() not in GONE,
    ),
)
"""What must go before a VPC (VPC User Guide, "Delete your VPC"; EC2 API reference, DeleteVpc)."""


def of_vpc(snapshot: Snapshot, vpc: str) -> list[str]:
    """Name everything in a VPC that is no interface; what may not be listed is left out."""

    def ask(kind: Kind) -> Iterator[str]:
        about: Any = {"Filters": [{"Name": kind.filter, "Values": [vpc]}]} if kind.filter else {}
        for item in snapshot.region(kind.method, kind.key, **about):
            if kind.counts(item, vpc):
                name = f" ({item['GroupName']})" if "GroupName" in item else ""
                command = kind.command.format(id=item[kind.id], vpc=vpc)
                region = snapshot.aws.session.region_name
                yield f"{kind.words} {item[kind.id]}{name}: aws ec2 {command} --region {region}"

    def told(kind: Kind) -> list[str]:
        with suppress(Exception):  # a courtesy: a right that is missing hides one kind only
            return list(ask(kind))
        return []

    return [line for lines in gather(*(partial(told, kind) for kind in KINDS)) for line in lines]
