"""What you already have, named in the configuration, written into the manifest as adopted."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from hyperpod_eks.aws import Aws, Look, absent, owner
from hyperpod_eks.config import Config, Existing
from hyperpod_eks.errors import Foreign, NotFound, Usage
from hyperpod_eks.manifest import Manifest, Record
from hyperpod_eks.site import PRIVATE_SUBNET
from hyperpod_eks.steps.eks import access_label, caller

CALLER = "eks/access-caller"


def adopt(
    aws: Aws, config: Config, manifest: Manifest, now: float, *, write: bool = True
) -> dict[str, str]:
    """Adopt what ``existing`` names; return everything adopted, ids by key.

    Without ``write`` the manifest on disk stays as it is.

    Nothing is changed in AWS.  Raises NotFound for what is not there, Usage for what HyperPod
    cannot use, Foreign where create has made a resource of its own in that place.
    """
    if config.existing == Existing():
        return manifest.adopted
    wanted = resolve(aws, config)
    known = manifest.records.get(CALLER)
    if config.existing.eks_cluster and known and known.id not in ("", caller(Look(aws))):
        # of whoever ran this before; if create made it, its tags tell
        del manifest.records[CALLER]
    for key, id_ in wanted.items():
        known = manifest.records.get(key)
        if known and known.origin == "created" and known.state != "deleted":
            raise Foreign(
                f"existing: {key} is {known.id}, which create made; {id_} cannot take its place",
                "Delete the cluster first, or leave the setting out.",
            )
        if manifest.adopted.get(key) == id_:
            continue
        if write:
            manifest.adopt(key, id_, now)
        else:
            manifest.records[key] = Record("", {}, "ready", now, "", id_, origin="adopted")
    return manifest.adopted


def resolve(aws: Aws, config: Config) -> dict[str, str]:
    """Turn the settings into ids by key; an EKS cluster brings its network and its content."""
    theirs = config.existing
    found = {
        key: id_
        for key, id_ in (
            ("network/vpc", theirs.vpc),
            ("network/security-group", theirs.security_group),
            ("network/s3-endpoint", theirs.s3_endpoint),
            ("iam/cluster-role", theirs.cluster_role),
            ("iam/execution-role", theirs.execution_role),
            ("s3/bucket", theirs.bucket),
            ("eks/cluster", theirs.eks_cluster),
            ("helm/release", theirs.helm_release),
        )
        if id_
    }
    subnets = list(theirs.private_subnets)
    if theirs.eks_cluster:
        found |= _control_plane(aws, config, theirs.eks_cluster)
        subnets = subnets or _private_subnets(aws, theirs.eks_cluster)
    found |= _subnets(aws, subnets)
    if theirs.vpc and not subnets:
        _room(aws, theirs.vpc, config.network.cidr)
    found |= {f"network/route-table-{i}": id_ for i, id_ in enumerate(theirs.route_tables)}
    found |= _nat_gateways(aws, theirs.nat_gateways)
    return found


def _control_plane(aws: Aws, config: Config, name: str) -> dict[str, str]:
    """Describe the EKS cluster and what is in it; HyperPod needs access entries."""
    cluster: Any = None
    with absent("ResourceNotFoundException"):
        cluster = aws.eks.describe_cluster(name=name)["cluster"]
    if cluster is None:
        raise NotFound(f"existing.eks_cluster: there is no EKS cluster {name}", "Check the name.")
    if cluster["accessConfig"]["authenticationMode"] == "CONFIG_MAP":
        raise Usage(
            f"existing.eks_cluster: {name} has the authentication mode CONFIG_MAP (HyperPod needs "
            "access entries)",
            f"aws eks update-cluster-config --name {name} --access-config "
            "authenticationMode=API_AND_CONFIG_MAP",
        )
    vpc = cluster["resourcesVpcConfig"]["vpcId"]
    if config.existing.vpc not in (None, vpc):
        raise Usage(
            f"existing.vpc: {config.existing.vpc} is not {vpc}, the VPC of the EKS cluster {name}",
            "HyperPod and EKS share one VPC: name that one, or leave it out.",
        )
    found = {"network/vpc": vpc}
    if not config.existing.security_group:
        # open to itself, and the control plane's own: what nodes join with
        found["network/security-group"] = cluster["resourcesVpcConfig"]["clusterSecurityGroupId"]
    if not config.existing.cluster_role:
        found["iam/cluster-role"] = cluster["roleArn"].rpartition("/")[2]
    for page in aws.eks.get_paginator("list_addons").paginate(clusterName=name):
        for each in config.every_addon().keys() & set(page["addons"]):
            addon = aws.eks.describe_addon(clusterName=name, addonName=each)["addon"]
            if owner(addon.get("tags", {})) is None:
                found[f"addons/{each}"] = each
    principals = {"access-caller": caller(Look(aws))}
    everybody = [entry.principal_arn for entry in config.eks.access]
    principals |= {access_label(arn, everybody): arn for arn in everybody}
    for label, arn in principals.items():
        with absent("ResourceNotFoundException"):
            entry = aws.eks.describe_access_entry(clusterName=name, principalArn=arn)
            if owner(entry["accessEntry"].get("tags", {})) is None:
                found[f"eks/{label}"] = arn
    return found


def _private_subnets(aws: Aws, name: str) -> list[str]:
    """Choose those of the cluster's subnets that do not lead straight to the internet."""
    config = aws.eks.describe_cluster(name=name)["cluster"]["resourcesVpcConfig"]
    here: Any = [{"Name": "vpc-id", "Values": [config["vpcId"]]}]
    pages = aws.ec2.get_paginator("describe_route_tables").paginate(Filters=here)
    tables = [table for page in pages for table in page["RouteTables"]]
    open_, explicit, main_is_open = set(), set(), False
    for table in tables:
        leads_out = any(r.get("GatewayId", "").startswith("igw-") for r in table["Routes"])
        for each in table["Associations"]:
            explicit.add(each.get("SubnetId", ""))
            if leads_out and each.get("Main"):
                main_is_open = True
            elif leads_out:
                open_.add(each.get("SubnetId", ""))
    return [
        each
        for each in config["subnetIds"]
        if each not in open_ and (each in explicit or not main_is_open)
    ]


def _subnets(aws: Aws, ids: list[str]) -> dict[str, str]:
    """Find the zones of subnets.  EKS needs two, and the nodes' are told apart by their zone."""
    if not ids:
        return {}
    there = {each["SubnetId"]: each for each in _all(aws, "describe_subnets", "Subnets", ids)}
    _missing("existing.private_subnets", ids, there)
    zones = [there[each]["AvailabilityZoneId"] for each in ids]
    if len(set(zones)) < 2 or len(set(zones)) < len(zones):
        raise Usage(
            f"existing.private_subnets: {', '.join(ids)} are in {', '.join(zones)}",
            "Name one subnet in each of two zones or more.",
        )
    return {f"network/{PRIVATE_SUBNET}{zone}": id_ for zone, id_ in zip(zones, ids, strict=True)}


def _room(aws: Aws, vpc: str, cidr: str) -> None:
    """New subnets lie in the VPC's own blocks (CreateSubnet: InvalidSubnet.Range)."""
    (there,) = _all(aws, "describe_vpcs", "Vpcs", [vpc]) or [None]
    if there is None:
        raise NotFound(f"existing.vpc: there is no {vpc} in this region")
    blocks = [each["CidrBlock"] for each in there["CidrBlockAssociationSet"]]
    wanted = ipaddress.IPv4Network(cidr)
    if not any(wanted.subnet_of(ipaddress.IPv4Network(block)) for block in blocks):
        raise Usage(
            f"network.cidr: {cidr} is not in {vpc}, which has {', '.join(blocks)}",
            "Give a part of it in which nothing is yet, or name its existing.private_subnets.",
        )


def _nat_gateways(aws: Aws, ids: tuple[str, ...]) -> dict[str, str]:
    """NAT gateways serve the zone of their subnet first."""
    if not ids:
        return {}
    there = {g["NatGatewayId"]: g for g in _all(aws, "describe_nat_gateways", "NatGateways", ids)}
    _missing("existing.nat_gateways", ids, there)
    homes = [there[each]["SubnetId"] for each in ids]
    zones = {
        each["SubnetId"]: each["AvailabilityZoneId"]
        for each in _all(aws, "describe_subnets", "Subnets", homes)
    }
    return {f"network/nat-gateway-{zones[home]}": id_ for home, id_ in zip(homes, ids, strict=True)}


def _all(aws: Aws, method: str, key: str, ids: list[str] | tuple[str, ...]) -> list[Any]:
    """Describe ids; those that are not there are left out."""
    name = {
        "describe_subnets": "subnet-id",
        "describe_nat_gateways": "nat-gateway-id",
        "describe_vpcs": "vpc-id",
    }[method]
    filters = [{"Name": name, "Values": sorted(set(ids))}]
    argument = "Filter" if method == "describe_nat_gateways" else "Filters"
    pages = aws.ec2.get_paginator(method).paginate(**{argument: filters})  # type: ignore[call-overload]  # the name is data
    return [each for page in pages for each in page[key]]


def _missing(setting: str, ids: list[str] | tuple[str, ...], there: Mapping[str, Any]) -> None:
    if gone := [each for each in ids if each not in there]:
        raise NotFound(f"{setting}: there is no {', '.join(gone)} in this region")
