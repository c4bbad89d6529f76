"""Checks of service quotas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from hyperpod_eks.aws.ec2 import NAT_GATEWAYS, SUBNETS
from hyperpod_eks.config.groups import InstanceGroup, RestrictedInstanceGroup
from hyperpod_eks.documents import Json
from hyperpod_eks.preflight.inputs import Facts, Finding, Quota
from hyperpod_eks.resources.ec2.gateways import NatGateway
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.stack import kinds

SIZE = "Maximum number instances allowed per SageMaker HyperPod cluster"
TOTAL = "Total number of instances allowed across SageMaker HyperPod clusters"
TOTAL_SPOT = "Total number of Spot instances allowed across SageMaker HyperPod clusters"
VOLUME = "Maximum size of EBS volume in GB for a SageMaker HyperPod cluster instance"


def quotas(facts: Facts) -> Iterator[Finding]:
    """The resources that create would add must fit the account's quotas."""
    for kind in kinds():
        quota = kind.quota
        if quota and (adds := len(facts.missing(kind))):
            found, there = facts.quotas(quota.service), quota.count(facts.snapshot)
            yield from judge(quota.check, quota.service, quota.name, found, adds, there)


def nat_gateways(facts: Facts) -> Iterator[Finding]:
    """NAT gateways must fit the quota of their zone; deleted ones do not count."""
    missing = facts.missing(NatGateway)
    wanted = Counter(nat.subnet.zone for nat in missing if nat.subnet)
    if not wanted:
        return
    found = [nat for nat in facts.ec2(NAT_GATEWAYS) if nat["State"] in ("pending", "available")]
    places = facts.ec2(SUBNETS)
    zones = {each["SubnetId"]: each["AvailabilityZoneId"] for each in places}
    there = Counter(zones.get(each["SubnetId"], "") for each in found)
    for zone, count in wanted.items():
        yield from judge(
            "quota-nat-gateways",
            "vpc",
            "NAT gateways per Availability Zone",
            facts.quotas("vpc"),
            count,
            there[zone],
            f" in {zone}",
        )


def instances(facts: Facts) -> Iterator[Finding]:
    """Instances must fit the quotas by type, by cluster and in total; by type the default is 0."""
    ours, others = Counter[str](), Counter[str]()
    for name, cluster in facts.clusters().items():
        for group in hyperpod_api.every_group(cluster):
            kind = hyperpod_api.instance_types(group).partition(",")[0]
            spot = "Spot" in group.get("CapacityRequirements", {})
            counter = ours if name == facts.config.name else others
            counter += usage(kind, group.get("TargetCount", 0), spot=spot)
    wanted = Counter[str]()
    for one in facts.config.groups:
        spot = "spot" in (getattr(one, "capacity_requirements", None) or {})
        wanted += usage(one.instance_types[0], one.instance_count, spot=spot)
    found = facts.quotas("sagemaker")
    for quota, count in wanted.items():
        id_ = "quota-total-instances" if quota in (TOTAL, TOTAL_SPOT) else "quota-instances"
        there = ours[quota] + others[quota]
        yield from judge(id_, "sagemaker", quota, found, count - ours[quota], there)
    for one in facts.config.pooled_groups:
        spot = "spot" in (one.capacity_requirements or {})
        for quota in usage(one.instance_types[0], 1, spot=spot):
            there = ours[quota] + others[quota]
            for lack in judge("quota-instances", "sagemaker", quota, found, 1, there):
                if lack.severity == "error":  # a create needs none
                    says = f"{lack.says}, so Karpenter can add no node to group {one.name}"
                    yield replace(lack, severity="warning", says=says)
    yield from judge("quota-cluster-size", "sagemaker", SIZE, found, wanted[TOTAL], 0)
    largest = max(map(_largest_volume, facts.config.groups))
    yield from judge("quota-volume-size", "sagemaker", VOLUME, found, largest, 0)


def _largest_volume(group: InstanceGroup | RestrictedInstanceGroup) -> int:
    """Return a node's largest volume in GB; declared volumes replace ebs_volume_size_in_gb."""
    volumes: Json = [one.get("ebs_volume_config") or {} for one in group.instance_storage_configs]
    sizes = [volume["volume_size_in_gb"] for volume in volumes if "volume_size_in_gb" in volume]
    return max(sizes) if sizes else group.ebs_volume_size_in_gb or 0


def usage(kind: str, count: int, *, spot: bool) -> Counter[str]:
    """Return the instances that a group adds to each quota; Spot instances have their own."""
    used = Counter({f"{kind} for cluster {'spot instance ' * spot}usage": count, TOTAL: count})
    return used + Counter({TOTAL_SPOT: count * spot})


def judge(
    id_: str,
    service: str,
    name: str,
    limits: dict[str, Quota],
    adds: int,
    there: int,
    where: str = "",
) -> Iterable[Finding]:
    """Return a finding if ``there``, in use, plus ``adds`` exceeds the quota ``name``."""
    quota = limits.get(name)
    if quota is None:
        text = f'Service Quotas does not list "{name}" of {service}; create needs {adds} more'
        return [Finding(id_, "info", text, "Check it in the Service Quotas console.")]
    if adds <= 0 or there + adds <= quota.value:
        return []
    use = f"{there} in use, {adds} more needed" if there else f"{adds} needed"
    text = f'"{name}" is {quota.value:g}{where}: {use}'
    fix = (
        "Request an increase: aws service-quotas request-service-quota-increase"
        f" --region {quota.region} --service-code {service} --quota-code {quota.code}"
        f" --desired-value {there + adds}"
    )
    seen = {"quota": name, "limit": quota.value, "in_use": there, "wanted": adds}
    return [Finding(id_, "error", text, fix, seen)]
