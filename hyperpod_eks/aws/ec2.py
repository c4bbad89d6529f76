"""The catalogue of EC2's list operations, one per kind (EC2 API reference, Describe*)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hyperpod_eks.documents import JsonObject
from hyperpod_eks.frozen import frozen


@frozen
class Listing:
    """One list operation.

    ``method`` is boto3's method, ``member`` the list in its answer, ``id`` the member of an item
    that identifies it, ``ids`` the argument for ids.  ``tag_type`` is the kind's ResourceType in
    TagSpecifications.  ``in_vpc`` is the filter for one VPC, empty if the API has none.
    """

    method: str
    member: str
    id: str
    ids: str = ""
    tag_type: str = ""
    in_vpc: str = "vpc-id"
    filter: str = "Filters"
    """The name of the argument for filters."""
    pages: bool = True
    counted: bool = False
    """Whether the preflight counts all items of the region against a quota."""

    @property
    def id_filter(self) -> str:
        """The filter for ids: it ignores unknown ids, for which ``ids`` raises.

        >>> NAT_GATEWAYS.id_filter
        'nat-gateway-id'
        """
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", self.id).lower()

    def arguments(
        self, ids: Sequence[str] = (), filters: Mapping[str, Sequence[str]] | None = None
    ) -> JsonObject:
        """Return the arguments of a call that lists these ids, or the items that match the filters.

        >>> NAT_GATEWAYS.arguments(filters={"vpc-id": ["vpc-1"]})
        {'Filter': [{'Name': 'vpc-id', 'Values': ['vpc-1']}]}
        """
        found: JsonObject = {self.ids: list(ids)} if ids else {}
        if filters:
            found[self.filter] = [
                {"Name": name, "Values": list(values)} for name, values in filters.items()
            ]
        return found


VPCS = Listing("describe_vpcs", "Vpcs", "VpcId", "VpcIds", "vpc", counted=True)
SUBNETS = Listing("describe_subnets", "Subnets", "SubnetId", "SubnetIds", "subnet", counted=True)
INTERNET_GATEWAYS = Listing(
    "describe_internet_gateways",
    "InternetGateways",
    "InternetGatewayId",
    "InternetGatewayIds",
    "internet-gateway",
    in_vpc="attachment.vpc-id",
    counted=True,
)
ADDRESSES = Listing(
    "describe_addresses",
    "Addresses",
    "AllocationId",
    "AllocationIds",
    "elastic-ip",
    in_vpc="",
    pages=False,
    counted=True,
)
NAT_GATEWAYS = Listing(
    "describe_nat_gateways",
    "NatGateways",
    "NatGatewayId",
    "NatGatewayIds",
    "natgateway",
    filter="Filter",
    counted=True,
)
ROUTE_TABLES = Listing(
    "describe_route_tables", "RouteTables", "RouteTableId", "RouteTableIds", "route-table"
)
SECURITY_GROUPS = Listing(
    "describe_security_groups", "SecurityGroups", "GroupId", "GroupIds", "security-group"
)
VPC_ENDPOINTS = Listing(
    "describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId", "VpcEndpointIds", "vpc-endpoint"
)
NETWORK_INTERFACES = Listing(
    "describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"
)
VOLUMES = Listing("describe_volumes", "Volumes", "VolumeId", in_vpc="")
INSTANCE_TYPES = Listing(
    "describe_instance_types", "InstanceTypes", "InstanceType", "InstanceTypes", in_vpc=""
)
VPC_ENDPOINT_SERVICES = Listing(
    "describe_vpc_endpoint_services", "ServiceDetails", "ServiceId", in_vpc=""
)
NETWORK_ACLS = Listing("describe_network_acls", "NetworkAcls", "NetworkAclId")
EGRESS_ONLY_GATEWAYS = Listing(
    "describe_egress_only_internet_gateways",
    "EgressOnlyInternetGateways",
    "EgressOnlyInternetGatewayId",
    in_vpc="",
)
VPN_GATEWAYS = Listing(
    "describe_vpn_gateways",
    "VpnGateways",
    "VpnGatewayId",
    in_vpc="attachment.vpc-id",
    pages=False,
)
PEERINGS = Listing(
    "describe_vpc_peering_connections", "VpcPeeringConnections", "VpcPeeringConnectionId", in_vpc=""
)
TRANSIT_GATEWAY_ATTACHMENTS = Listing(
    "describe_transit_gateway_vpc_attachments",
    "TransitGatewayVpcAttachments",
    "TransitGatewayAttachmentId",
)
INSTANCE_CONNECT_ENDPOINTS = Listing(
    "describe_instance_connect_endpoints", "InstanceConnectEndpoints", "InstanceConnectEndpointId"
)
