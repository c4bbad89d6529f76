"""EC2 as strict as AWS: what is in use cannot be deleted, and gateways take their time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import moto.ec2.urls
from moto.core.responses import ActionResult
from moto.ec2.exceptions import DependencyViolationError, DryRunClientError, EC2ClientError
from moto.ec2.models import (
    EC2Backend,
    ec2_backends,
    nat_gateways,
    route_tables,
    security_groups,
    subnets,
    vpcs,
)
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.nat_gateways import NatGateway
from moto.ec2.models.route_tables import RouteTable
from moto.ec2.models.subnets import Subnet
from moto.ec2.models.vpcs import (
    AWS_ENDPOINT_SERVICES,
    COVERED_ENDPOINT_SERVICES,
    VPC,
    VPCEndPoint,
)
from moto.ec2.responses import EC2Response
from moto.ec2.utils import generic_filter

from hyperpod_eks.local.aws import plugin
from hyperpod_eks.local.aws.lag import Lagging
from hyperpod_eks.local.aws.sim import current

#: AWS shows a deleted NAT gateway for about an hour (VPC guide, "Delete a NAT gateway").
_NAT_AFTERLIFE = 3600.0


_KINDS = {"nat-gateway": "natgateway", "vpc-elastic-ip": "elastic-ip"}
"""Kinds in moto's words, as DescribeTags of AWS spells them."""


_offers: dict[tuple[str, str | None, str], list[Any]] = {}
"""What is offered where, by what was asked: it never changes."""


class Backend(EC2Backend):
    """moto's EC2 with AWS's dependency rules, limits and life cycles."""

    _url_module = plugin.url_module("ec2")

    def __init__(self, region_name: str, account_id: str) -> None:
        self.answered: dict[tuple[str, str], tuple[dict[str, Any], Any]] = {}
        super().__init__(region_name, account_id)

    def _load_amis(self) -> None:
        """Leave moto's 1,300 images out: nobody here starts an instance."""

    def describe_instance_type_offerings(
        self, location_type: str | None = None, filters: dict[str, Any] | None = None
    ) -> list[Any]:
        """Answer as moto does, which looks through thousands of offers each time, with a memory."""
        asked = self.region_name, location_type, repr(filters)
        if asked not in _offers:
            _offers[asked] = super().describe_instance_type_offerings(location_type, filters)
        return _offers[asked]

    # -- limits ----------------------------------------------------------------------------------

    def create_vpc(self, *args: Any, **kw: Any) -> VPC:
        """Refuse one VPC more than the quota; the default VPC counts."""
        if not kw.get("is_default"):
            _limit(len(self.vpcs), "vpc", "VPCs per Region", "VpcLimitExceeded", "VPCs")
        return super().create_vpc(*args, **kw)

    def allocate_address(self, *args: Any, **kw: Any) -> Any:
        """Refuse one Elastic IP more than the quota."""
        quota, code = "EC2-VPC Elastic IPs", "AddressLimitExceeded"
        _limit(len(self.addresses), "ec2", quota, code, "addresses")
        return super().allocate_address(*args, **kw)

    def create_internet_gateway(self, *args: Any, **kw: Any) -> Any:
        """Refuse one internet gateway more than the quota."""
        quota, code = "Internet gateways per Region", "InternetGatewayLimitExceeded"
        _limit(len(self.internet_gateways), "vpc", quota, code, "internet gateways")
        return super().create_internet_gateway(*args, **kw)

    # -- network interfaces ----------------------------------------------------------------------

    def add_service_eni(
        self, subnet_id: str, security_group_ids: list[str], description: str, owner: str
    ) -> NetworkInterface:
        """Create the interface that a service keeps in a subnet of ours.

        ``owner`` is the service's name as RequesterId shows it (``amazon-eks``). A subnet or
        security group that does not exist raises moto's NotFound error.
        """
        for group_id in security_group_ids:
            self._security_group(group_id)
        subnet = self.get_subnet(subnet_id)
        eni = self.create_network_interface(
            subnet, [], group_ids=security_group_ids, description=description
        )
        eni.requester_managed, eni.requester_id, eni.status = True, owner, "in-use"
        return eni

    def wear(self, eni_id: str, security_group_ids: list[str]) -> None:
        """Put other security groups on a service's interface."""
        self.get_network_interface(eni_id)._group_set = [
            self._security_group(group_id) for group_id in security_group_ids
        ]

    def remove_service_eni(self, eni_id: str, *, left: bool = False) -> None:
        """Take a service's interface away, ``Delays.eni_linger`` from now.

        One that is ``left`` stays: from then on it is free, and whoever finds it may delete it.
        """
        sim, go = current(), self._leave_eni if left else self._drop_eni
        sim.clock.after(sim.delays.eni_linger, partial(go, eni_id))

    def delete_network_interface(self, eni_id: str) -> None:
        """Refuse to delete what a service manages or something uses."""
        eni = self.get_network_interface(eni_id)
        if eni.requester_managed:
            text = "You are not allowed to manage network interfaces of an AWS service"
            raise EC2ClientError("OperationNotPermitted", f"{text}: {eni_id}.")
        if eni.status == "in-use":
            text = f"Network interface '{eni_id}' is currently in use."
            raise EC2ClientError("InvalidParameterValue", text)
        super().delete_network_interface(eni_id)

    def _leave_eni(self, eni_id: str) -> None:
        eni = self.enis[eni_id]
        eni.requester_managed, eni.status = False, "available"

    def _drop_eni(self, eni_id: str) -> None:
        self.enis.pop(eni_id, None)
        self.tags.pop(eni_id, None)

    def _enis(self, *, subnet: str = "", group: str = "") -> list[NetworkInterface]:
        return [
            eni
            for eni in self.enis.values()
            if (not subnet or eni.subnet.id == subnet)
            and (not group or any(g.id == group for g in eni.group_set))
        ]

    # -- subnets, groups, VPCs -------------------------------------------------------------------

    def create_subnet(
        self,
        vpc_id: str,
        cidr_block: str,
        ipv6_cidr_block: str | None = None,
        availability_zone: str | None = None,
        availability_zone_id: str | None = None,
        *args: Any,
        **kw: Any,
    ) -> Subnet:
        """Take zones of this region only, by name or id; public only in the default VPC."""
        zones = {z.name: z.zone_id for z in RegionsAndZonesBackend.zones[self.region_name]}
        names = {zone_id: name for name, zone_id in zones.items()}
        zone = availability_zone or names.get(availability_zone_id or next(iter(names)))
        if zone not in zones:
            wrong = availability_zone or availability_zone_id
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Value ({wrong}) for parameter availabilityZone is invalid. Subnets can "
                f"currently only be created in the following availability zones: "
                f"{', '.join(sorted(zones))}.",
            )
        subnet = super().create_subnet(vpc_id, cidr_block, ipv6_cidr_block, zone, None, *args, **kw)
        # The first of a zone in the default VPC is moto's own; users create none that is default.
        others = (s for s in self.subnets[zone].values() if s is not subnet)
        taken = any(s.default_for_az and s.vpc_id == vpc_id for s in others)
        default = self.vpcs[vpc_id].is_default and not taken
        subnet.default_for_az = subnet.map_public_ip_on_launch = default
        return subnet

    def delete_subnet(self, subnet_id: str) -> Subnet:
        """Refuse while an interface is in it; its associations go with it."""
        self.get_subnet(subnet_id)
        if self._enis(subnet=subnet_id):
            text = f"The subnet '{subnet_id}' has dependencies and cannot be deleted."
            raise DependencyViolationError(text)
        for table in self.route_tables.values():
            for key, target in list(table._associations.items()):
                if target == subnet_id:
                    del table._associations[key]
        for acl in self.network_acls.values():
            for key, association in list(acl._associations.items()):
                if association.subnet_id == subnet_id:
                    del acl._associations[key]
        return super().delete_subnet(subnet_id)

    def create_security_group(self, name: str, *args: Any, **kw: Any) -> Any:
        """Refuse a name that looks like an id, in AWS's words (CreateSecurityGroup, GroupName)."""
        if name.lower().startswith("sg-"):
            text = (
                f"Value ({name}) for parameter GroupName is invalid. Group names may not be in the "
                f"format sg-*."
            )
            raise EC2ClientError("InvalidParameterValue", text)
        return super().create_security_group(name, *args, **kw)

    def delete_security_group(self, name: str | None = None, group_id: str | None = None) -> None:
        """Refuse while an interface wears it or another group's rule names it; never a default."""
        group = self.get_security_group_by_name_or_id(group_id or name or "")
        if group is not None:
            if group.is_default:
                text = (
                    f'the specified group: "{group.id}" name: "default" cannot be deleted by a user'
                )
                raise EC2ClientError("CannotDelete", text)
            if self._enis(group=group.id) or self._referred(group.id):
                raise DependencyViolationError(f"resource {group.id} has a dependent object")
        super().delete_security_group(name, group_id)

    def _referred(self, group_id: str) -> bool:
        return any(
            (rule.source_group or {}).get("GroupId") == group_id
            for groups in self.groups.values()
            for group in groups.values()
            if group.id != group_id
            for rule in (*group.ingress_rules, *group.egress_rules)
        )

    def _security_group(self, group_id: str) -> Any:
        (group,) = self.describe_security_groups(group_ids=[group_id])
        return group

    def delete_vpc(self, vpc_id: str) -> VPC:
        """Refuse while anything but its default group, main route table and default ACL exists."""
        vpc = self.get_vpc(vpc_id)
        groups = self.groups[vpc_id]
        acls = [acl for acl in self.network_acls.values() if acl.vpc_id == vpc_id]
        tables = [table for table in self.route_tables.values() if table.vpc_id == vpc_id]
        if (
            any(subnet.vpc_id == vpc_id for subnet in self.describe_subnets())
            or any(not group.is_default for group in groups.values())
            or any(table.main_association_id is None for table in tables)
            or any(not acl.default for acl in acls)
            or any(endpoint.vpc_id == vpc_id for endpoint in self.vpc_end_points.values())
            or any(_vpc_of(igw) == vpc_id for igw in self.internet_gateways.values())
        ):
            text = f"The vpc '{vpc_id}' has dependencies and cannot be deleted."
            raise DependencyViolationError(text)
        for table in tables:
            del self.route_tables[table.id]
        for acl in acls:
            del self.network_acls[acl.id]
        del self.groups[vpc_id]
        del self.vpcs[vpc_id]
        return vpc

    # -- routes and gateways ---------------------------------------------------------------------

    def create_route(
        self,
        route_table_id: str,
        *args: Any,
        gateway_id: str | None = None,
        nat_gateway_id: str | None = None,
        **kw: Any,
    ) -> Any:
        """Refuse routes to a NAT gateway that is not there or an internet gateway elsewhere."""
        table = self.get_route_table(route_table_id)
        if nat_gateway_id and not self._nats(nat_gateway_id=nat_gateway_id):
            text = f"The natGateway ID '{nat_gateway_id}' does not exist"
            raise EC2ClientError("InvalidNatGatewayID.NotFound", text)
        if gateway_id and gateway_id.startswith("igw-"):
            igw = self.get_internet_gateway(gateway_id)
            if _vpc_of(igw) != table.vpc_id:
                text = (
                    f"route table {route_table_id} and network gateway {gateway_id} "
                    f"belong to different networks"
                )
                raise EC2ClientError("InvalidParameterValue", text)
        kw |= {"gateway_id": gateway_id, "nat_gateway_id": nat_gateway_id}
        return super().create_route(route_table_id, *args, **kw)

    def associate_route_table(
        self, route_table_id: str, gateway_id: str | None = None, subnet_id: str | None = None
    ) -> str:
        """Refuse a subnet that another route table has."""
        for table in self.route_tables.values():
            for association, subnet in table._associations.items():
                if subnet_id and subnet == subnet_id and table.id != route_table_id:
                    text = (
                        f"the specified association for route table {route_table_id} conflicts"
                        f" with an existing association: {association}"
                    )
                    raise EC2ClientError("Resource.AlreadyAssociated", text)
        return super().associate_route_table(route_table_id, gateway_id, subnet_id)

    def delete_route_table(self, route_table_id: str) -> None:
        """Refuse the main route table, which goes with its VPC."""
        if self.get_route_table(route_table_id).main_association_id is not None:
            text = f"The routeTable '{route_table_id}' has dependencies and cannot be deleted."
            raise DependencyViolationError(text)
        super().delete_route_table(route_table_id)

    def detach_internet_gateway(self, internet_gateway_id: str, vpc_id: str) -> None:
        """Refuse while a public address is in use inside the VPC."""
        addresses: list[Any] = self.addresses
        if any(a.eni and a.eni.subnet.vpc_id == vpc_id for a in addresses) or self._nats(
            vpc_id=vpc_id
        ):
            raise DependencyViolationError(
                f"Network {vpc_id} has some mapped public address(es). Please unmap those "
                f"public address(es) before detaching the gateway."
            )
        super().detach_internet_gateway(internet_gateway_id, vpc_id)

    def release_address(self, address: str | None = None, allocation_id: str | None = None) -> None:
        """Refuse while the address is mapped; a NAT gateway's answers as if it were foreign.

        In the default VPC it is disassociated first (EC2 API ReleaseAddress).
        """
        for eip in self.addresses:
            if not eip.eni or (eip.public_ip != address and eip.allocation_id != allocation_id):
                continue
            if eip.eni.requester_managed:
                text = "You do not have permission to access the specified resource."
                raise EC2ClientError("AuthFailure", text)
            if eip.eni.subnet.vpc_id in self.vpcs and self.vpcs[eip.eni.subnet.vpc_id].is_default:
                self.disassociate_address(address=eip.public_ip)
                break
            raise EC2ClientError("InvalidIPAddress.InUse", f"Address {eip.public_ip} is in use.")
        super().release_address(address, allocation_id)

    # -- NAT gateways ----------------------------------------------------------------------------

    def describe_tags(self, filters: dict[str, list[str]] | None = None) -> list[dict[str, str]]:
        """Call the kinds what AWS calls them: moto has words of its own for two."""
        kinds = set((filters or {}).get("resource-type", []))
        rest = {name: values for name, values in (filters or {}).items() if name != "resource-type"}
        found = super().describe_tags(rest or None)
        for each in found:
            each["resource_type"] = _KINDS.get(each["resource_type"], each["resource_type"])
        return [each for each in found if not kinds or each["resource_type"] in kinds]

    def _nats(self, **attributes: str) -> list[NatGateway]:
        """NAT gateways that exist: a deleted or failed one is only still shown."""
        return [
            nat
            for nat in self.nat_gateways.values()
            if nat.state in ("pending", "available", "deleting")
            and all(
                value == (nat.id if name == "nat_gateway_id" else getattr(nat, name))
                for name, value in attributes.items()
            )
        ]

    def create_nat_gateway(
        self,
        subnet_id: str,
        allocation_id: str,
        tags: dict[str, str] | None = None,
        connectivity_type: str | None = "public",
    ) -> NatGateway:
        """Begin a gateway that is ``pending`` for ``Delays.nat_create``, then available or failed.

        A gateway fails as in AWS: an address in use, no internet gateway in the VPC.
        """
        sim, public = current(), connectivity_type != "private"
        subnet = self.get_subnet(subnet_id)
        zone = [
            n
            for n in self._nats()
            if self.get_subnet(n.subnet_id).availability_zone == subnet.availability_zone
        ]
        quota, code = "NAT gateways per Availability Zone", "NatGatewayLimitExceeded"
        _limit(len(zone), "vpc", quota, code, "NAT gateways")
        failure = None
        if public:
            (eip,) = self.address_by_allocation([allocation_id])
            if eip.association_id is not None:
                text = f"Elastic IP address [{allocation_id}] is already associated"
                failure = ("Resource.AlreadyAssociated", text)
            elif subnet.vpc_id not in map(_vpc_of, self.internet_gateways.values()):
                text = f"Network {subnet.vpc_id} has no Internet gateway attached"
                failure = ("Gateway.NotAttached", text)
        nat = super().create_nat_gateway(
            subnet_id,
            allocation_id if public and failure is None else "",
            tags,
            connectivity_type or "public",
        )
        eni: Any = nat._eni
        eni.description = f"Interface for NAT Gateway {nat.id}"
        eni.requester_managed, eni.requester_id, eni.status = True, "amazon-vpc", "in-use"
        eni.interface_type = "nat_gateway"
        nat.state = "pending"

        def settle() -> None:
            if nat.state != "pending":
                return
            nat.state = "available"
            if failure is not None:
                nat.state = "failed"
                vars(nat).update(failure_code=failure[0], failure_message=failure[1])
                self._bury(nat)

        sim.clock.after(sim.delays.nat_create, settle)
        return nat

    def delete_nat_gateway(self, nat_gateway_id: str) -> NatGateway:
        """Begin the deletion: ``deleting`` for ``Delays.nat_delete``, then its address is free."""
        nat, sim = self._nat(nat_gateway_id), current()
        if nat.state in ("deleting", "deleted"):
            return nat
        nat.state = "deleting"

        def gone() -> None:
            nat.state = "deleted"
            self._bury(nat)

        sim.clock.after(sim.delays.nat_delete, gone)
        return nat

    def _bury(self, nat: NatGateway) -> None:
        """Free what the gateway used; it stays visible for a while."""
        for eip in self.addresses:
            if eip.eni is nat._eni:
                self.disassociate_address(address=eip.public_ip)
        self._drop_eni(nat._eni.id)
        current().clock.after(_NAT_AFTERLIFE, partial(self._forget, nat.id))

    def _forget(self, nat_gateway_id: str) -> None:
        self.nat_gateways.pop(nat_gateway_id, None)
        self.tags.pop(nat_gateway_id, None)

    def _nat(self, nat_gateway_id: str) -> NatGateway:
        if nat_gateway_id not in self.nat_gateways:
            text = f"The Nat Gateway {nat_gateway_id} was not found"
            raise EC2ClientError("NatGatewayNotFound", text)
        return self.nat_gateways[nat_gateway_id]

    def describe_nat_gateways(
        self, filters: Any, nat_gateway_ids: list[str] | None
    ) -> list[NatGateway]:
        """Filter by tags too, and refuse unknown ids."""
        found = [self._nat(n) for n in nat_gateway_ids or self.nat_gateways]
        by_tag = {name: values for name, values in (filters or {}).items() if name[:3] == "tag"}
        rest = {name: values for name, values in (filters or {}).items() if name not in by_tag}
        kept = super().describe_nat_gateways(rest, None)
        return [nat for nat in generic_filter(by_tag, found) if nat in kept]

    # -- VPC endpoints ---------------------------------------------------------------------------

    def create_vpc_endpoint(self, *args: Any, **kw: Any) -> VPCEndPoint:
        """Check the service's name and every id before anything is made."""
        service_name = kw["service_name"]
        self.get_vpc(kw["vpc_id"])
        offered = self._endpoint_services()
        if service_name not in offered:
            text = f"The Vpc Endpoint Service '{service_name}' does not exist"
            raise EC2ClientError("InvalidServiceName", text)
        for subnet_id in kw.get("subnet_ids") or []:
            if self.get_subnet(subnet_id).availability_zone not in offered[service_name]:
                text = (
                    f"The VPC endpoint service {service_name} does not support the availability "
                    f"zone of the subnet: {subnet_id}."
                )
                raise EC2ClientError("InvalidParameter", text)
        for group_id in kw.get("security_group_ids") or []:
            self._security_group(group_id)
        for table_id in kw.get("route_table_ids") or []:
            self._check_endpoint_route(self.get_route_table(table_id).id, service_name)
        kw["endpoint_type"] = kw.get("endpoint_type") or "Gateway"
        endpoint = super().create_vpc_endpoint(*args, **kw)
        if not kw.get("policy_document") and kw["endpoint_type"] == "Interface":
            # its default has no version (PrivateLink guide, "Default endpoint policy")
            statement = endpoint.DEFAULT_POLICY["Statement"]
            endpoint.policy_document = json.dumps({"Statement": statement})
        for eni_id in endpoint.network_interface_ids:
            eni = self.enis[eni_id]
            eni.description = f"VPC Endpoint Interface {endpoint.id}"
            eni.requester_managed, eni.requester_id, eni.status = True, "amazon-vpc", "in-use"
            eni.interface_type = "vpc_endpoint"
            eni._group_set = [self._security_group(g) for g in endpoint.security_group_ids]
        endpoint.state = "pending"

        def settle() -> None:
            if endpoint.state == "pending":
                endpoint.state = "available"

        current().clock.after(current().delays.endpoint_create, settle)
        return endpoint

    def _endpoint_services(self) -> dict[str, tuple[str, ...]]:
        """Return the zones of each AWS service by name."""
        zones = tuple(zone.name for zone in self.zones[self.region_name])
        offered = current().endpoint_zones
        names = sorted({*AWS_ENDPOINT_SERVICES, *COVERED_ENDPOINT_SERVICES})
        return {
            f"com.amazonaws.{self.region_name}.{name}": offered.get(name, zones)
            for name in names
            if offered.get(name, zones)
        }

    def describe_vpc_endpoint_services(
        self, service_names: list[str], filters: Any, *_: Any, **__: Any
    ) -> dict[str, Any]:
        """Name AWS's services with their zones (EC2 API, ServiceDetail); S3 has a gateway too."""
        offered = self._endpoint_services()
        for name in service_names:
            if name not in offered:
                text = f"The Vpc Endpoint Service '{name}' does not exist"
                raise EC2ClientError("InvalidServiceName", text)
        wanted = {f["Name"]: {*f.get("Value", ()), *f.get("Values", ())} for f in filters or []}
        ids = {zone.name: zone.zone_id for zone in self.zones[self.region_name]}
        details = [
            {
                "ServiceName": name,
                "ServiceType": [{"ServiceType": kind}],
                "AvailabilityZones": list(zones),
                "AvailabilityZoneIds": [ids[zone] for zone in zones],
                "Owner": "amazon",
            }
            for name, zones in offered.items()
            for kind in ("Interface", *(["Gateway"] if name.endswith((".s3", ".dynamodb")) else []))
            if (not service_names or name in service_names)
            and name in wanted.get("service-name", {name})
            and kind in wanted.get("service-type", {kind})
        ]
        names = sorted({str(each["ServiceName"]) for each in details})
        return {"servicesDetails": details, "serviceNames": names, "nextToken": None}

    def modify_vpc_endpoint(self, *args: Any, **kw: Any) -> None:
        """Route from the tables that are added, and no longer from those removed."""
        (endpoint,) = self.describe_vpc_endpoints([kw["vpc_id"]])
        added = set(kw.get("add_route_tables") or []) - set(endpoint.route_table_ids)
        removed = set(kw.get("remove_route_tables") or []) & set(endpoint.route_table_ids)
        for table_id in added:
            self._check_endpoint_route(self.get_route_table(table_id).id, endpoint.service_name)
        super().modify_vpc_endpoint(*args, **kw)
        prefix = endpoint.destination_prefix_list_id
        for table_id in added:
            self.create_route(
                table_id, None, gateway_id=endpoint.id, destination_prefix_list_id=prefix
            )
        for table_id in removed:
            self._drop_routes(self.route_tables[table_id], endpoint)

    def _drop_routes(self, table: RouteTable, endpoint: VPCEndPoint) -> None:
        for key, route in list(table._routes.items()):
            if getattr(route.gateway, "id", "") == endpoint.id:
                del table._routes[key]

    def _check_endpoint_route(self, route_table_id: str, service_name: str) -> None:
        for other in self.vpc_end_points.values():
            there = route_table_id in other.route_table_ids and other.state != "deleting"
            if there and other.service_name == service_name:
                text = (
                    f"route table {route_table_id} already has a route with "
                    f"destination-prefix-list-id {other.destination_prefix_list_id}"
                )
                raise EC2ClientError("RouteAlreadyExists", text)

    def delete_vpc_endpoints(self, vpce_ids: list[str] | None = None) -> None:
        """Begin the deletion; routes go at once, endpoint and interfaces after a while."""
        sim = current()
        for endpoint_id in vpce_ids or []:
            endpoint = self.vpc_end_points[endpoint_id]
            if endpoint.state == "deleting":
                continue
            endpoint.state = "deleting"
            for table in self.route_tables.values():
                self._drop_routes(table, endpoint)

            def gone(endpoint: VPCEndPoint = endpoint) -> None:
                for eni_id in endpoint.network_interface_ids:
                    self._drop_eni(eni_id)
                self.vpc_end_points.pop(endpoint.id, None)
                self.tags.pop(endpoint.id, None)

            sim.clock.after(sim.delays.endpoint_delete, gone)


def _vpc_of(internet_gateway: Any) -> str | None:
    return internet_gateway.vpc.id if internet_gateway.vpc else None


def _limit(count: int, service: str, quota: str, code: str, what: str) -> None:
    if count >= current().quota(service, quota):
        raise EC2ClientError(code, f"The maximum number of {what} has been reached.")


#: What EC2 answers to an id that it does not know, by moto's name of the store.
_UNKNOWN = {
    "vpcs": ("InvalidVpcID.NotFound", "vpc ID"),
    "subnets": ("InvalidSubnetID.NotFound", "subnet ID"),
    "groups": ("InvalidGroup.NotFound", "security group"),
    "internet_gateways": ("InvalidInternetGatewayID.NotFound", "internetGateway ID"),
    "nat_gateways": ("InvalidNatGatewayID.NotFound", "natGateway ID"),
    "route_tables": ("InvalidRouteTableID.NotFound", "routeTable ID"),
    "addresses": ("InvalidAllocationID.NotFound", "allocation ID"),
    "vpc_end_points": ("InvalidVpcEndpointId.NotFound", "Vpc Endpoint Id"),
    "enis": ("InvalidNetworkInterfaceID.NotFound", "networkInterface ID"),
    "network_acls": ("InvalidNetworkAclID.NotFound", "networkAcl ID"),
    "volumes": ("InvalidVolume.NotFound", "volume"),
    "snapshots": ("InvalidSnapshot.NotFound", "snapshot"),
}


class Response(Lagging, EC2Response):
    """moto's EC2 answers, with dry runs, client tokens and lag for every operation."""

    lag_service = "ec2"
    stores: Mapping[str, str] = {
        "vpcs": "DescribeVpcs|DescribeVpcAttribute",
        "subnets": "DescribeSubnets",
        "groups": "DescribeSecurityGroups|DescribeSecurityGroupRules",
        "internet_gateways": "DescribeInternetGateways",
        "nat_gateways": "DescribeNatGateways",
        "route_tables": "DescribeRouteTables",
        "addresses": "DescribeAddresses",
        "vpc_end_points": "DescribeVpcEndpoints",
        "enis": "DescribeNetworkInterfaces",
        "network_acls": "DescribeNetworkAcls",
        "volumes": "DescribeVolumes",
        "snapshots": "DescribeSnapshots",
    }

    def lagging_backend(self) -> Backend:
        """Return the backend of the request's region."""
        backend: Backend = self.ec2_backend
        return backend

    def not_found(self, store: str, name: str) -> EC2ClientError:
        """Say that an id does not exist (EC2 API, "Error codes")."""
        code, what = _UNKNOWN[store]
        return EC2ClientError(code, f"The {what} '{name}' does not exist")

    def call_action(self) -> Any:
        """Honour DryRun and ClientToken, which moto leaves out."""
        if str(self._get_param("DryRun", "")).lower() == "true":
            return self.refused(DryRunClientError())
        operation, token = str(self._get_action()), self._get_param("ClientToken")
        if not token:
            return self._act(operation)
        answered = self.ec2_backend.answered
        if (operation, token) in answered:
            asked, answer = answered[operation, token]
            if asked != self.params:
                text = "The client token has been used before, with different parameters."
                return self.refused(EC2ClientError("IdempotentParameterMismatch", text))
            return answer
        answer = self._act(operation)
        if answer[0] < 400:
            answered[operation, token] = (self.params, answer)
        return answer

    def _act(self, operation: str) -> Any:
        if not operation.startswith(("Delete", "Release")):
            return super().call_action()
        before = set(self._keys())
        answer = super().call_action()
        for _, gone in before - set(self._keys()):
            self.ec2_backend.tags.pop(gone, None)  # moto would show them in DescribeTags
        return answer

    def delete_vpc_endpoints(self) -> ActionResult:
        """Answer unknown endpoints one by one, as the API does."""
        known = set(self.ec2_backend.vpc_end_points)  # as it was before
        ids = self._get_param("VpcEndpointIds", [])
        self.ec2_backend.delete_vpc_endpoints(vpce_ids=[i for i in ids if i in known])
        missing = [
            {
                "ResourceId": i,
                "Error": {
                    "Code": "InvalidVpcEndpointId.NotFound",
                    "Message": f"The Vpc Endpoint Id '{i}' does not exist",
                },
            }
            for i in ids
            if i not in known
        ]
        return ActionResult({"Unsuccessful": missing})


_DRAWN_IN = {
    "vpc": (vpcs, "random_vpc_id"),
    "subnet": (subnets, "random_subnet_id"),
    "rtb": (route_tables, "random_route_table_id"),
    "sg": (security_groups, "random_security_group_id"),
    "nat": (nat_gateways, "random_nat_gateway_id"),
}


def _draw_ids() -> None:
    """Let ``Sim.next_ids`` choose ids, one each; a VPC's own group and table keep theirs."""

    def chosen(kind: str, draw: Callable[[], str]) -> Callable[[], str]:
        return lambda: current().next_ids.pop(kind, "") or draw()

    for kind, (module, name) in _DRAWN_IN.items():
        setattr(module, name, chosen(kind, getattr(module, name)))


def install() -> None:
    """Swap moto's EC2 classes for ours."""
    _draw_ids()
    plugin.backend(ec2_backends, Backend)
    moto.ec2.urls.url_paths["{0}/"] = Response.dispatch


# -- inventory -----------------------------------------------------------------------------------


def inventory(account: str, region: str) -> dict[str, Any]:
    """Return every EC2 resource that exists: by kind, then by id, with tags."""
    ec2 = ec2_backends[account][region]

    def tagged(thing: Any, **facts: Any) -> dict[str, Any]:
        return {**facts, "Tags": dict(sorted(ec2.tags.get(thing.id, {}).items()))}

    groups = [group for by_id in ec2.groups.values() for group in by_id.values()]
    return {
        "Vpcs": {
            v.id: tagged(
                v,
                CidrBlock=v.cidr_block,
                IsDefault=v.is_default,
                EnableDnsSupport=v.enable_dns_support,
                EnableDnsHostnames=v.enable_dns_hostnames,
            )
            for v in ec2.vpcs.values()
        },
        "Subnets": {
            s.id: tagged(
                s,
                VpcId=s.vpc_id,
                CidrBlock=s.cidr_block,
                AvailabilityZoneId=s.availability_zone_id,
                MapPublicIpOnLaunch=s.map_public_ip_on_launch,
            )
            for s in ec2.describe_subnets()
        },
        "InternetGateways": {
            i.id: tagged(i, VpcId=_vpc_of(i)) for i in ec2.internet_gateways.values()
        },
        "RouteTables": {
            t.id: tagged(
                t,
                VpcId=t.vpc_id,
                Associations=sorted(t._associations.values()),
                Main=t.main_association_id is not None,
                Routes=dict(sorted(_route(route) for route in t.routes)),
            )
            for t in ec2.route_tables.values()
        },
        "NatGateways": {
            n.id: tagged(n, SubnetId=n.subnet_id, State=n.state)
            for n in ec2.nat_gateways.values()
            if n.state != "deleted"
        },
        "Addresses": {
            a.allocation_id: tagged(a, NetworkInterfaceId=a.network_interface_id)
            for a in ec2.addresses
        },
        "SecurityGroups": {
            g.id: tagged(
                g,
                VpcId=g.vpc_id,
                GroupName=g.name,
                Ingress=sorted(map(_rule, g.ingress_rules)),
                Egress=sorted(map(_rule, g.egress_rules)),
            )
            for g in groups
        },
        "NetworkInterfaces": {
            e.id: tagged(
                e,
                SubnetId=e.subnet.id,
                Groups=sorted(g.id for g in e.group_set),
                Description=e.description,
                RequesterId=e.requester_id if e.requester_managed else None,
            )
            for e in ec2.enis.values()
        },
        "VpcEndpoints": {
            e.id: tagged(
                e,
                VpcId=e.vpc_id,
                ServiceName=e.service_name,
                State=e.state,
                RouteTableIds=sorted(e.route_table_ids),
            )
            for e in ec2.vpc_end_points.values()
        },
        "NetworkAcls": {a.id: tagged(a, VpcId=a.vpc_id) for a in ec2.network_acls.values()},
        "Instances": {
            i.id: tagged(i, State=i.state)
            for reservation in ec2.reservations.values()
            for i in reservation.instances
        },
        "Volumes": {v.id: tagged(v, State=v.status) for v in ec2.volumes.values()},
        "Snapshots": {
            s.id: tagged(s, State=s.status, VolumeId=s.volume_id)
            for s in ec2.snapshots.values()
            if not s.from_ami
        },
        "KeyPairs": {name: {} for name in ec2.key_pairs},
        "FlowLogs": {f.id: tagged(f, ResourceId=f.resource_id) for f in ec2.flow_logs.values()},
        "LaunchTemplates": {
            t.id: tagged(t, LaunchTemplateName=t.name) for t in ec2.launch_templates.values()
        },
    }


def _route(route: Any) -> tuple[str, str]:
    destination = route.destination_cidr_block or route.destination_ipv6_cidr_block
    if route.destination_prefix_list is not None:
        destination = route.destination_prefix_list.id
    target = route.gateway or route.nat_gateway or route.interface
    return str(destination), "local" if route.local else str(target and target.id)


def _rule(rule: Any) -> str:
    peer = rule.cidr_ipv4 or rule.cidr_ipv6 or rule.prefix_list_id
    peer = peer or (rule.source_group or {}).get("GroupId")
    return f"{rule.ip_protocol} {rule.from_port}-{rule.to_port} {peer}"
