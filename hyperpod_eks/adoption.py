"""Adopt existing resources that the config names: record them in the manifest as adopted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import (
    INTERNET_GATEWAYS,
    NAT_GATEWAYS,
    ROUTE_TABLES,
    SECURITY_GROUPS,
    SUBNETS,
    VPC_ENDPOINTS,
    VPCS,
    Listing,
)
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import CLUSTER, owner, tag
from hyperpod_eks.config.existing import Existing
from hyperpod_eks.config.model import Config
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import Foreign, HyperpodError, NotFound, Usage
from hyperpod_eks.resolve.file_systems import file_systems
from hyperpod_eks.resolve.names import PRIVATE_SUBNET
from hyperpod_eks.resolve.pod_roles import creates_roles, published
from hyperpod_eks.resources.access_entry import caller
from hyperpod_eks.resources.eks import authentication_mode
from hyperpod_eks.resources.irsa import provider_arn
from hyperpod_eks.resources.trust import AUDIENCE
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.steps.eks import access_label
from hyperpod_eks.steps.network import interface_endpoints

CALLER = "eks/access-caller"
PROVIDER = "iam/oidc-provider"


def adopt(aws: Aws, config: Config, manifest: Manifest, now: float, *, used: bool) -> None:
    """Record the resources that ``existing`` names in the manifest in memory, in place of ours.

    ``used`` is whether they must be fit for use: a delete needs no provider that lets pods in.

    Raises NotFound for a resource that does not exist, Usage for one that HyperPod cannot use, and
    Foreign if create has already created a resource with the same key; the errors have a setting.
    """
    if not (config.existing != Existing() or file_system_ids(config) or needs_provider(config)):
        return
    try:
        wanted = resolve(aws, config, manifest, used=used)
    except (NotFound, Usage) as error:
        error.setting = error.setting or "existing"
        raise
    known = manifest.records.get(CALLER)
    if config.existing.eks_cluster and known and known.id not in ("", caller(Snapshot(aws))):
        # it is the entry of another caller; if create created it, its tags say so
        del manifest.records[CALLER]
    if PROVIDER in manifest.adopted and PROVIDER not in wanted:
        del manifest.records[PROVIDER]  # it is gone, or of an EKS cluster that is: ours replaces it
    _refuse_created(manifest, wanted)
    for key, id_ in wanted.items():
        if manifest.adopted.get(key) != id_:
            manifest.adopt(key, id_, now)


def _refuse_created(manifest: Manifest, wanted: Mapping[str, str]) -> None:
    """Raise Foreign if create has created a resource with one of the keys."""
    for key, id_ in wanted.items():
        if made := _made(manifest, key):
            raise Foreign(
                f"existing: cannot use {id_} as {key}: create already created {made}",
                "Delete the cluster first, or remove the setting.",
                setting="existing",
            )


def _made(manifest: Manifest, key: str) -> str:
    """Return the id of the resource that create created with this key, "" without one."""
    known = manifest.records.get(key)
    made = known and known.origin == "created" and known.state != "deleted"
    return known.id if known and made else ""


SETTINGS = {
    "network/vpc": "vpc",
    "network/security-group": "security_group",
    "network/s3-endpoint": "s3_endpoint",
    "iam/cluster-role": "cluster_role",
    "iam/execution-role": "execution_role",
    "s3/bucket": "bucket",
    "eks/cluster": "eks_cluster",
    "helm/release": "helm_release",
}
"""Settings of ``existing`` that name one resource, by the resource's key."""


def resolve(aws: Aws, config: Config, manifest: Manifest, *, used: bool) -> dict[str, str]:
    """Return the ids of existing resources by key; an EKS cluster adds its network and contents.

    Resources that the manifest has as adopted are not described again.
    """
    theirs = config.existing
    named = {key: (setting, getattr(theirs, setting)) for key, setting in SETTINGS.items()} | {
        f"network/route-table-{i}": ("route_tables", id_)
        for i, id_ in enumerate(theirs.route_tables)
    }
    found = {key: id_ for key, (_, id_) in named.items() if id_}
    subnets = list(theirs.private_subnets)
    if theirs.eks_cluster:
        found |= _control_plane(aws, config, theirs.eks_cluster)
        subnets = subnets or _private_subnets(aws, theirs.eks_cluster)
    vpc = found.get("network/vpc", "")
    for key, (setting, id_) in named.items():
        if id_ and manifest.adopted.get(key) != id_ and not _made(manifest, key):
            _check(aws, setting, id_, vpc)
    found |= _subnets(aws, subnets, vpc, least=1 if theirs.eks_cluster else 2)
    if vpc:
        found |= _beside(aws, config, vpc, theirs_alone=bool(subnets))
    if needs_provider(config) and not _made(manifest, PROVIDER):
        found |= _provider(aws, theirs.eks_cluster or config.name, used=used)
    return found | _nat_gateways(aws, theirs.nat_gateways) | _file_systems(aws, config)


def needs_provider(config: Config) -> bool:
    """Whether a role of an add-on needs the OIDC provider of the EKS cluster."""
    return any(
        role.web
        for name, addon in config.asked_addons().items()
        if creates_roles(name, addon)
        for role in published(name, addon)
    )


def _provider(aws: Aws, cluster: str, *, used: bool) -> dict[str, str]:
    """Return the OIDC provider that others have created for an EKS cluster, by key.

    An issuer has one; `eksctl utils associate-iam-oidc-provider` creates it, for example.
    """
    with absent("ResourceNotFoundException", "NoSuchEntity"):
        arn = provider_arn(aws.eks.describe_cluster(name=cluster)["cluster"])
        if not arn:
            return {}
        found = aws.iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
        if owner(found.get("Tags", ())) is not None:
            return {}
        if used and AUDIENCE not in found.get("ClientIDList", ()):
            raise Usage(
                f"operators: the OIDC provider {arn} of others does not let the audience {AUDIENCE}"
                " in, so that pods get no credentials",
                "aws iam add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn"
                f" {arn} --client-id {AUDIENCE}",
                setting="operators",
            )
        return {PROVIDER: arn}
    return {}


def file_system_ids(config: Config) -> dict[str, str]:
    """Return the ids of existing file systems by key."""
    named = config.storage.fsx_lustre.items()
    return {f"storage/{name}": one.file_system_id for name, one in named if one.file_system_id}


def _file_systems(aws: Aws, config: Config) -> dict[str, str]:
    """Return the existing file systems by key.  Raises NotFound for one that does not exist."""
    found = file_system_ids(config)
    there = {each["FileSystemId"] for each in file_systems(Snapshot(aws))} if found else set()
    for key, id_ in found.items():
        if id_ not in there:
            setting = f"storage.fsx_lustre.{key.partition('/')[2]}.file_system_id"
            text = f"{setting}: {id_} is not a Lustre file system in {config.region}"
            raise NotFound(text, "Correct the id.", setting=setting)
    return found


def _beside(aws: Aws, config: Config, vpc: str, *, theirs_alone: bool) -> dict[str, str]:
    """Return the VPC's resources that new subnets share: its internet gateway and endpoints."""
    found: dict[str, str] = {}
    if not theirs_alone:
        _room(aws, config, vpc)
        if config.network.nat != "none" and not config.existing.nat_gateways:
            found |= _internet_gateway(aws, config, vpc)
    return found | _endpoints(aws, config, vpc, theirs_alone=theirs_alone)


def named(config: Config) -> dict[str, str]:
    """Return the existing resources by key, as far as they are known without a call to AWS.

    Subnets get `UNKNOWN_ZONES`; for the network of an EKS cluster, the cluster's name is the id.
    """
    theirs = config.existing
    brought = theirs.eks_cluster or ""
    subnets = theirs.private_subnets or ((brought, brought) if brought else ())
    found = {
        "network/vpc": theirs.vpc or brought,
        "network/security-group": theirs.security_group or brought,
        "iam/cluster-role": theirs.cluster_role or brought,
        "iam/execution-role": theirs.execution_role or "",
        "s3/bucket": theirs.bucket or "",
        "eks/cluster": brought,
    } | {
        f"network/{PRIVATE_SUBNET}{zone}": each
        for zone, each in zip(UNKNOWN_ZONES, subnets, strict=False)
    }
    return {key: id_ for key, id_ in found.items() if id_} | file_system_ids(config)


UNKNOWN_ZONES = ("zone-1", "zone-2")
"""Placeholders for zones that are not known without a call to AWS."""
PLACES = {
    "vpc": VPCS,
    "security_group": SECURITY_GROUPS,
    "s3_endpoint": VPC_ENDPOINTS,
    "route_tables": ROUTE_TABLES,
}


def _check(aws: Aws, setting: str, id_: str, vpc: str) -> None:
    """Raise NotFound for a resource that does not exist, and Usage for one in another VPC."""
    there = setting in ("eks_cluster", "helm_release")  # other functions check these
    if setting in PLACES:
        with absent(r"Invalid\w+\.NotFound"):
            (found,) = Snapshot(aws).region(PLACES[setting], ids=[id_])
            there = True
            if found["VpcId"] != vpc:
                raise Usage(f"existing.{setting}: {id_} is in {found['VpcId']}, not in {vpc}")
    elif setting.endswith("_role"):
        with absent("NoSuchEntity"):
            there = bool(aws.iam.get_role(RoleName=id_))
    elif setting == "bucket":
        with absent("404|NoSuchBucket"):
            there = bool(aws.s3.head_bucket(Bucket=id_))
    if not there:
        text = f"existing.{setting}: {id_} does not exist"
        raise NotFound(text, "Correct the id or the name.", setting=f"existing.{setting}")


def _control_plane(aws: Aws, config: Config, name: str) -> dict[str, str]:
    """Return VPC, security group, role, add-ons and access entries of an EKS cluster by key."""
    cluster = _described(aws, name)
    vpc = cluster["resourcesVpcConfig"]["vpcId"]
    if config.existing.vpc not in (None, vpc):
        raise Usage(
            f"existing.vpc: {config.existing.vpc} is not {vpc}, the VPC of the EKS cluster {name}",
            "HyperPod and EKS share one VPC: set that one, or remove existing.vpc.",
            setting="existing.vpc",
        )
    found = {"network/vpc": vpc}
    if not config.existing.security_group:
        # it is open to itself and the control plane's own, so that nodes can join
        found["network/security-group"] = cluster["resourcesVpcConfig"]["clusterSecurityGroupId"]
    if not config.existing.cluster_role:
        found["iam/cluster-role"] = cluster["roleArn"].rpartition("/")[2]
    return found | _addons(aws, config, name) | _access_entries(aws, config, name)


def _described(aws: Aws, name: str) -> Json:
    """Describe an EKS cluster.  Raises NotFound, and Usage for one that HyperPod cannot use."""
    cluster: Json = None
    with absent("ResourceNotFoundException"):
        cluster = aws.eks.describe_cluster(name=name)["cluster"]
    if cluster is None:
        raise NotFound(
            f"existing.eks_cluster: EKS cluster {name} does not exist",
            "Check the name.",
            setting="existing.eks_cluster",
        )
    if authentication_mode(cluster) == "CONFIG_MAP":
        raise Usage(
            f"existing.eks_cluster: {name} has the authentication mode CONFIG_MAP (HyperPod needs "
            "access entries)",
            f"aws eks update-cluster-config --name {name} --access-config "
            "authenticationMode=API_AND_CONFIG_MAP",
            setting="existing.eks_cluster",
        )
    return cluster


def _addons(aws: Aws, config: Config, name: str) -> dict[str, str]:
    """Return a cluster's add-ons without this tool's tags, by key."""
    found = {}
    for page in aws.eks.get_paginator("list_addons").paginate(clusterName=name):
        for each in config.every_addon().keys() & set(page["addons"]):
            addon = aws.eks.describe_addon(clusterName=name, addonName=each)["addon"]
            if owner(addon.get("tags", {})) is None:
                found[f"addons/{each}"] = each
    return found


def _access_entries(aws: Aws, config: Config, name: str) -> dict[str, str]:
    """Return the needed access entries that exist without this tool's tags: principals by key."""
    principals = {"access-caller": caller(Snapshot(aws))}
    everybody = [entry.principal_arn for entry in config.eks.access]
    principals |= {access_label(arn, everybody): arn for arn in everybody}
    found = {}
    for label, arn in principals.items():
        with absent("ResourceNotFoundException"):
            entry = aws.eks.describe_access_entry(clusterName=name, principalArn=arn)
            if owner(entry["accessEntry"].get("tags", {})) is None:
                found[f"eks/{label}"] = arn
    return found


def _private_subnets(aws: Aws, name: str) -> list[str]:
    """Return the cluster's subnets without a route to an internet gateway.

    Every cluster has at least two subnets (EKS, CreateCluster, ``VpcConfigRequest.subnetIds``):
    an answer without any raises HyperpodError instead of leading to new ones.
    """
    config: Json = aws.eks.describe_cluster(name=name)["cluster"]["resourcesVpcConfig"]
    if not config["subnetIds"]:
        raise HyperpodError(
            f"eks:DescribeCluster names no subnets of {name}",
            "Set existing.private_subnets to those for the nodes, or run the command again later.",
            setting="existing.private_subnets",
        )
    here: Json = [{"Name": "vpc-id", "Values": [config["vpcId"]]}]
    pages = aws.ec2.get_paginator("describe_route_tables").paginate(Filters=here)
    tables = [table for page in pages for table in page["RouteTables"]]
    return _not_open(config["subnetIds"], tables)


def _not_open(subnets: Sequence[str], tables: Sequence[Json]) -> list[str]:
    """Return the subnets whose route table, their own or the main one, has no internet gateway."""
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
        each for each in subnets if each not in open_ and (each in explicit or not main_is_open)
    ]


def _subnets(aws: Aws, ids: list[str], vpc: str, least: int) -> dict[str, str]:
    """Return subnets by key, which has their zone: at least ``least`` zones, one subnet in each."""
    if not ids:
        return {}
    there = {each["SubnetId"]: each for each in _all(aws, SUBNETS, ids)}
    _missing("existing.private_subnets", ids, there)
    if strangers := [each for each in ids if there[each]["VpcId"] != vpc]:
        raise Usage(f"existing.private_subnets: {', '.join(strangers)} are not in {vpc}")
    zones = [there[each]["AvailabilityZoneId"] for each in ids]
    if len(set(zones)) < least or len(set(zones)) < len(zones):
        raise Usage(
            f"existing.private_subnets: {', '.join(ids)} are in {', '.join(zones)}",
            "Set one subnet in each of two zones or more.",
        )
    return {f"network/{PRIVATE_SUBNET}{zone}": id_ for zone, id_ in zip(zones, ids, strict=True)}


def _room(aws: Aws, config: Config, vpc: str) -> None:
    """Raise Usage if new subnets do not fit in free blocks of the VPC.

    The sources are CreateSubnet (InvalidSubnet.Range, InvalidSubnet.Conflict) and
    AssociateVpcCidrBlock (CidrConflict).
    """
    (there,) = _all(aws, VPCS, [vpc]) or [None]
    if there is None:
        raise NotFound(f"existing.vpc: {vpc} does not exist in this region")
    blocks = [IPv4Network(each["CidrBlock"]) for each in there["CidrBlockAssociationSet"]]
    _check_free(config, vpc, blocks, _others(aws, config, SUBNETS, vpc))
    for more in map(IPv4Network, config.network.secondary_cidrs):
        for block in blocks:
            if more != block and more.overlaps(block):
                raise Usage(
                    f"network.secondary_cidrs: {more} overlaps {block}, which {vpc} has already",
                    "Choose a block outside of it.",
                    setting="network.secondary_cidrs",
                )


def _check_free(
    config: Config, vpc: str, blocks: Sequence[IPv4Network], subnets: Sequence[Json]
) -> None:
    """Raise Usage if network.cidr is outside of the VPC's blocks or overlaps other subnets."""
    wanted = IPv4Network(config.network.cidr)
    if not any(wanted.subnet_of(block) for block in blocks):
        raise Usage(
            f"network.cidr: {wanted} is not in {vpc}, which has {', '.join(map(str, blocks))}",
            "Choose a free block of the VPC, or set existing.private_subnets.",
            setting="network.cidr",
        )
    for each in subnets:
        if wanted.overlaps(IPv4Network(each["CidrBlock"])):
            raise Usage(
                f"network.cidr: {wanted} overlaps {each['SubnetId']}, which has "
                f"{each['CidrBlock']} of {vpc}",
                "Choose a free block of the VPC.",
                setting="network.cidr",
            )


def _internet_gateway(aws: Aws, config: Config, vpc: str) -> dict[str, str]:
    """Return the VPC's internet gateway: it has one at most (AttachInternetGateway:
    Resource.AlreadyAssociated)."""
    for each in _others(aws, config, INTERNET_GATEWAYS, vpc):
        return {"network/internet-gateway": each["InternetGatewayId"]}
    return {}


def _endpoints(aws: Aws, config: Config, vpc: str, *, theirs_alone: bool) -> dict[str, str]:
    """Return the VPC's endpoints that we need: a second one of a service cannot have its DNS name.

    A route table can have one S3 endpoint (CreateVpcEndpoint: RouteAlreadyExists): raises Usage if
    a given one has another.
    """
    theirs, wanted = config.existing, interface_endpoints(config, theirs_alone=theirs_alone)
    if not wanted and not theirs.route_tables:
        return {}
    found = {}
    for each in _others(aws, config, VPC_ENDPOINTS, vpc):
        name = each["ServiceName"].removeprefix(f"com.amazonaws.{config.region}.")
        if each.get("PrivateDnsEnabled") and name in wanted:
            found[f"network/endpoint-{name}"] = each["VpcEndpointId"]
        taken = sorted(set(each.get("RouteTableIds", ())) & set(theirs.route_tables))
        if name == "s3" and taken and not theirs.s3_endpoint:
            raise Usage(
                f"existing.route_tables: {', '.join(taken)} leads to S3 through "
                f"{each['VpcEndpointId']} already",
                "Set it as existing.s3_endpoint, and remove existing.route_tables.",
            )
    return found


def _others(aws: Aws, config: Config, listing: Listing, vpc: str) -> list[Json]:
    """List the resources of a kind in a VPC that do not have this cluster's tag."""
    found = Snapshot(aws).inside(listing, vpc)
    return [each for each in found if tag(each.get("Tags", ()), CLUSTER) != config.name]


def _nat_gateways(aws: Aws, ids: tuple[str, ...]) -> dict[str, str]:
    """Return NAT gateways by key, which has the zone of their subnet."""
    if not ids:
        return {}
    there = {g["NatGatewayId"]: g for g in _all(aws, NAT_GATEWAYS, ids)}
    _missing("existing.nat_gateways", ids, there)
    homes = [there[each]["SubnetId"] for each in ids]
    zones = {each["SubnetId"]: each["AvailabilityZoneId"] for each in _all(aws, SUBNETS, homes)}
    return {f"network/nat-gateway-{zones[home]}": id_ for home, id_ in zip(homes, ids, strict=True)}


def _all(aws: Aws, listing: Listing, ids: Sequence[str]) -> list[Json]:
    """Describe resources by id, without those that do not exist."""
    return Snapshot(aws).region(listing, {listing.id_filter: sorted(set(ids))})


def _missing(setting: str, ids: list[str] | tuple[str, ...], there: JsonMapping) -> None:
    if gone := [each for each in ids if each not in there]:
        raise NotFound(f"{setting}: {', '.join(gone)} not found in this region")
