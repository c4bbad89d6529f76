"""What the configuration means in this account: who calls, in which zones, under which names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from hyperpod_eks.aws import CLUSTER, LABEL, Aws, Identity, absent, tag
from hyperpod_eks.config import Config, ZoneSubnets, subnets
from hyperpod_eks.errors import Usage
from hyperpod_eks.versions import choose_version

PRIVATE_SUBNET = "private-subnet-"


@dataclass(frozen=True)
class Site:
    """The configuration, placed: everything that the steps derive their declarations from.

    ``zones`` are availability zone ids; ``offered`` tells for each which EC2 instance types it
    has, of those that the instance groups ask for.
    """

    config: Config
    identity: Identity
    zones: tuple[str, ...]
    offered: dict[str, frozenset[str]]
    kubernetes_version: str
    warnings: tuple[str, ...] = ()
    adopted: Mapping[str, str] = field(default_factory=dict)
    """Ids of existing resources that take the place of ours, by key."""

    @property
    def name(self) -> str:
        """Name of the cluster: HyperPod's, EKS's, and the prefix of everything else."""
        return self.config.name

    @property
    def region(self) -> str:
        """The AWS region."""
        return self.identity.region

    @property
    def bucket(self) -> str:
        """The lifecycle bucket; the prefix ``sagemaker-`` lets the managed policy read it."""
        return self.adopted.get("s3/bucket") or self.config.bucket(self.identity.account)

    @property
    def eks_name(self) -> str:
        """Name of the EKS cluster: the cluster's own, or that of an adopted one."""
        return self.adopted.get("eks/cluster") or self.name

    @property
    def plan(self) -> tuple[ZoneSubnets, ...]:
        """How the VPC's addresses are divided among the zones."""
        return subnets(self.config.network.cidr, self.zones)

    def arn(self, service: str, resource: str) -> str:
        """Spell the ARN of one of our resources, in the caller's partition."""
        region = "" if service in ("iam", "s3") else self.region
        account = "" if service == "s3" else self.identity.account
        return f"arn:{self.identity.partition}:{service}:{region}:{account}:{resource}"

    def managed_policy(self, name: str) -> str:
        """Spell the ARN of a policy that AWS manages."""
        return f"arn:{self.identity.partition}:iam::aws:policy/{name}"

    def iam_name(self, purpose: str, key: str = "") -> str:
        """Name a role or policy: IAM is global, so the region is part of it (64 characters)."""
        return self.adopted.get(key) or fit(f"{self.name}-{purpose}-{self.region}", 64)

    def access_policy(self, name: str) -> str:
        """Spell the ARN of an EKS access policy."""
        return f"arn:{self.identity.partition}:eks::aws:cluster-access-policy/{name}"

    def zone_for(self, instance_type: str) -> str:
        """Choose the zone of an instance group: the first that offers its type."""
        kind = instance_type.removeprefix("ml.")
        return next((z for z in self.zones if kind in self.offered.get(z, ())), self.zones[0])


def fit(name: str, length: int) -> str:
    """Shorten a name to ``length`` characters so that different names stay different.

    >>> fit("demo-eks", 64)
    'demo-eks'
    >>> fit("a" * 70, 64)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a9b3f1'
    """
    if len(name) <= length:
        return name
    return f"{name[: length - 7]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def lineage(identity: Identity, cluster: str) -> str:
    """Derive the owner that all tags name: one account, region and cluster name, one lineage.

    EKS and HyperPod allow one cluster of a name in a region, so the name identifies it; being
    derived, the lineage survives the loss of the manifest.
    """
    seed = f"{identity.partition}:{identity.account}:{identity.region}:{cluster}"
    return hashlib.sha256(seed.encode()).hexdigest()[:16]


def survey(aws: Aws, config: Config) -> Site:
    """Ask AWS, all at once, who we are and which zones fit the instance groups.

    Signs ``aws`` with the lineage.  Zones that already hold this cluster's private subnets win
    over a new choice.  Raises Usage when the account or the zones are not what the config says.
    """
    types = sorted({g.instance_type.removeprefix("ml.") for g in config.instance_groups})
    with ThreadPoolExecutor(5) as pool:
        identity = pool.submit(lambda: aws.identity)
        zones = pool.submit(_available_zones, aws)
        offered = pool.submit(_offerings, aws, types)
        taken = pool.submit(_taken_zones, aws)
        version = pool.submit(_kubernetes_version, aws, config)
        who = identity.result()
        aws.lineage = lineage(who, config.name)
        if config.account and config.account != who.account:
            raise Usage(
                f"account: the config says {config.account}, but these credentials belong to "
                f"{who.account}",
                "Use the right profile (--profile), or correct the config.",
            )
        chosen = _choose_zones(
            config, zones.result(), offered.result(), taken.result(), types, who.region
        )
        return Site(config, who, chosen, offered.result(), *version.result(), adopted=aws.adopted)


def _kubernetes_version(aws: Aws, config: Config) -> tuple[str, tuple[str, ...]]:
    """Choose the version for a new cluster; one that exists keeps its own.

    Also checks pinned add-on versions, so that a wrong one is told before anything is made.
    """
    pages = aws.eks.get_paginator("describe_cluster_versions").paginate()
    offered = [dict(version) for page in pages for version in page["clusterVersions"]]
    warnings: list[str] = []
    try:
        chosen, warnings = choose_version(
            offered, config.eks.version, config.eks.allow_untested_version
        )
    except Usage:
        with absent("ResourceNotFoundException"):
            name = aws.adopted.get("eks/cluster") or config.name
            return aws.eks.describe_cluster(name=name)["cluster"]["version"], ()
        raise
    for name, addon in config.addons.items():
        if addon.version:
            _check_addon(aws, name, addon.version, chosen)
    return chosen, tuple(warnings)


def _check_addon(aws: Aws, name: str, version: str, kubernetes: str) -> None:
    answer = aws.eks.describe_addon_versions(addonName=name, kubernetesVersion=kubernetes)
    known = [v["addonVersion"] for addon in answer["addons"] for v in addon["addonVersions"]]
    if version not in known:
        raise Usage(
            f"addons.{name}.version: {version} is not offered for Kubernetes {kubernetes}; "
            f"EKS offers {', '.join(known[:5]) or 'none'}",
            "Choose one of those, or leave the version out for AWS's default.",
        )


def _available_zones(aws: Aws) -> list[str]:
    """Zones of the region itself; Local and Wavelength Zones need an opt-in and are left out."""
    found = aws.ec2.describe_availability_zones(
        Filters=[
            {"Name": "state", "Values": ["available"]},
            {"Name": "zone-type", "Values": ["availability-zone"]},
        ]
    )["AvailabilityZones"]
    return sorted(zone["ZoneId"] for zone in found)


def _offerings(aws: Aws, types: list[str]) -> dict[str, frozenset[str]]:
    pages = aws.ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone-id", Filters=[{"Name": "instance-type", "Values": types}]
    )
    offered: dict[str, set[str]] = {}
    for page in pages:
        for each in page["InstanceTypeOfferings"]:
            offered.setdefault(each["Location"], set()).add(each["InstanceType"])
    return {zone: frozenset(kinds) for zone, kinds in offered.items()}


def _taken_zones(aws: Aws) -> list[str]:
    found: list[Any] = aws.ec2.describe_subnets(
        Filters=[{"Name": f"tag:{CLUSTER}", "Values": [aws.cluster]}]
    )["Subnets"]
    labels = sorted(tag(each["Tags"], LABEL) or "" for each in found)
    return [x.removeprefix(PRIVATE_SUBNET) for x in labels if x.startswith(PRIVATE_SUBNET)]


def _choose_zones(
    config: Config,
    available: list[str],
    offered: dict[str, frozenset[str]],
    taken: list[str],
    types: list[str],
    region: str,
) -> tuple[str, ...]:
    """Two zones, the ones that offer most of the wanted types first; EKS needs two."""
    wanted = config.network.availability_zone_ids
    unknown = [zone for zone in wanted if zone not in available]
    if unknown:
        raise Usage(
            f"network.availability_zone_ids: {', '.join(unknown)} is not a zone of {region}; "
            f"it has {', '.join(available)}",
            "Zone ids (usw2-az1) are not zone names (us-west-2a); see DescribeAvailabilityZones.",
        )
    for kind in types:
        homes = [zone for zone in wanted or available if kind in offered.get(zone, ())]
        if not homes:
            elsewhere = sorted(zone for zone, kinds in offered.items() if kind in kinds)
            raise Usage(
                f"instance_groups: ml.{kind} is not offered in {', '.join(wanted) or region}"
                + (f"; {', '.join(elsewhere)} have it" if elsewhere else ""),
                "Choose another zone, instance type or region.",
            )
    if wanted:
        return wanted
    fitting = sorted(available, key=lambda zone: (-len(offered.get(zone, ())), zone))
    chosen = [*(zone for zone in taken if zone in available), *fitting]
    return tuple(sorted(dict.fromkeys(chosen).keys(), key=chosen.index)[:2])
