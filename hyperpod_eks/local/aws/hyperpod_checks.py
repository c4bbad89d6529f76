"""What HyperPod looks at before it takes a request: the groups, the account, the EKS cluster.

Wordings that no public source shows are ours; the codes are SageMaker's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from moto.ec2.models import ec2_backends

from hyperpod_eks.local.aws import eks_clusters, instance_types, roles
from hyperpod_eks.local.aws.eks_model import Cluster as EksCluster
from hyperpod_eks.local.aws.hyperpod_model import Cluster, Document, is_spot
from hyperpod_eks.local.aws.sim import ACCOUNT, current
from hyperpod_eks.local.aws.training_plans import TrainingPlans
from hyperpod_eks.local.aws.wire import Refused

_NAMESPACE = "aws-hyperpod"  # the chart makes it, under a fixed name
_OLDEST_CNI = (1, 18, 3)
#: What the service does in the customer's VPC with the execution role (SageMaker developer guide,
#: "IAM permissions for HyperPod", VPC configuration), and on which resources (Service Authorization
#: Reference): an interface is detached from an instance of the service's account.
_INTERFACE = f"{ACCOUNT}:network-interface/eni-1"
_INSTANCE = "999999999999:instance/i-1"
_NETWORK_ACTIONS = (
    ("ec2:CreateNetworkInterface", (_INTERFACE,)),
    ("ec2:CreateNetworkInterfacePermission", (_INTERFACE,)),
    ("ec2:DeleteNetworkInterface", (_INTERFACE,)),
    ("ec2:DeleteNetworkInterfacePermission", (_INTERFACE,)),
    ("ec2:DetachNetworkInterface", (_INSTANCE, _INTERFACE)),
    ("ec2:ModifyNetworkInterfaceAttribute", (_INSTANCE, _INTERFACE)),
    ("ec2:DescribeNetworkInterfaces", ()),
    ("ec2:DescribeVpcs", ()),
    ("ec2:DescribeDhcpOptions", ()),
    ("ec2:DescribeSubnets", ()),
    ("ec2:DescribeSecurityGroups", ()),
)
_PER_CLUSTER = "Maximum number instances allowed per SageMaker HyperPod cluster"
_IN_ALL = "Total number of instances allowed across SageMaker HyperPod clusters"
_SPOT_IN_ALL = "Total number of Spot instances allowed across SageMaker HyperPod clusters"
_LARGEST = "Maximum size of EBS volume in GB for a SageMaker HyperPod cluster instance"
#: Members of a group that UpdateCluster cannot change.
_FIXED = ("InstanceType", "OverrideVpcConfig", "CapacityRequirements")


def invalid(text: str) -> Refused:
    """Make a ValidationException."""
    return Refused("ValidationException", text)


# -- groups by themselves ------------------------------------------------------------------------


def check_groups(specs: list[Document], *, continuous: bool) -> None:
    """Check instance groups for what the model cannot say."""
    twice = [n for n, k in Counter(s["InstanceGroupName"] for s in specs).items() if k > 1]
    if twice:
        raise invalid(f"Instance group names must be unique: {twice}")
    for spec in specs:
        problem = _problem(spec, continuous=continuous)
        if problem:
            raise invalid(f"Instance group '{spec['InstanceGroupName']}': {problem}")


def _problem(spec: Document, *, continuous: bool) -> str:
    if ("InstanceType" in spec) is ("InstanceRequirements" in spec):
        return "exactly one of InstanceType and InstanceRequirements must be given"
    minimum = spec.get("MinInstanceCount")
    if not continuous:
        for member, used in (
            ("InstanceRequirements", "InstanceRequirements" in spec),
            ("MinInstanceCount", minimum is not None),
            ("Spot capacity", is_spot(spec)),
            ("an InstanceCount of 0", spec["InstanceCount"] == 0),
        ):
            if used:
                return f"{member} needs NodeProvisioningMode Continuous"
    if minimum is not None and minimum > spec["InstanceCount"]:
        return "MinInstanceCount cannot be greater than InstanceCount"
    lifecycle = spec.get("LifeCycleConfig") or {}
    script = lifecycle.get("OnCreate") or lifecycle.get("OnInitComplete")
    if "EnvironmentConfig" not in spec and not (lifecycle.get("SourceS3Uri") and script):
        return "LifeCycleConfig with SourceS3Uri and OnCreate is required for EKS clusters"
    for storage in spec.get("InstanceStorageConfigs") or []:
        if len(storage) != 1:
            return "each InstanceStorageConfigs entry must have exactly one member"
        volume = storage.get("EbsVolumeConfig") or {}
        if volume.get("RootVolume") and (
            "VolumeSizeInGB" in volume or not volume.get("VolumeKmsKeyId")
        ):
            return "a RootVolume takes a VolumeKmsKeyId and no VolumeSizeInGB"
    if spec.get("OnStartDeepHealthChecks"):
        kinds = [spec["InstanceType"]] if "InstanceType" in spec else []
        if not all(map(instance_types.accelerators, kinds)):
            return "deep health checks need instances with accelerators"
        if (spec.get("KubernetesConfig") or {}).get("Taints"):
            return "custom taints cannot be combined with deep health checks"
    return ""


def check_settings(members: Document, *, continuous: bool) -> None:
    """Check the members that are about the whole cluster."""
    auto = members.get("AutoScaling")
    if auto and auto["Mode"] == "Enable":
        if not continuous:
            raise invalid("AutoScaling needs NodeProvisioningMode Continuous")
        role = roles.find(members.get("ClusterRole") or "")
        if role is None or not roles.trusts(role, "hyperpod.sagemaker.amazonaws.com"):
            raise invalid(
                "AutoScaling needs a ClusterRole that hyperpod.sagemaker.amazonaws.com can assume"
            )
    tiered = members.get("TieredStorageConfig") or {}
    share = tiered.get("InstanceMemoryAllocationPercentage")
    if share is not None and not 20 <= share <= 100:
        raise invalid("InstanceMemoryAllocationPercentage must be between 20 and 100")


# -- the account ---------------------------------------------------------------------------------


def check_role(region: str, arn: str) -> None:
    """Check that SageMaker can assume an execution role that may do what nodes need."""
    role = roles.find(arn)
    if role is None or not roles.trusts(role, "sagemaker.amazonaws.com"):
        raise invalid(
            f"SageMaker cannot assume the execution role {arn}. Verify that the role exists and "
            f"that its trust policy allows the principal sagemaker.amazonaws.com."
        )
    if missing := missing_permission(region, arn):
        raise invalid(f"The execution role {arn} does not have permission to perform {missing}")


def missing_permission(region: str, arn: str) -> str:
    """Return the first action that an execution role lacks; empty when it has them all."""
    role = roles.find(arn)
    if role is None:
        return "sts:AssumeRole"
    return next(
        (
            action
            for action, resources in _NETWORK_ACTIONS
            if not roles.allows(role, action)
            or not all(roles.allows(role, action, f"arn:aws:ec2:{region}:{x}") for x in resources)
        ),
        "",
    )


def check_network(region: str, config: Document, vpc_id: str) -> None:
    """Check that subnets and security groups exist in the EKS cluster's VPC."""
    ec2 = ec2_backends[ACCOUNT][region]
    subnets = {subnet.id: subnet.vpc_id for subnet in ec2.describe_subnets()}
    groups = {g.id: home for home, by_id in ec2.groups.items() for g in by_id.values()}
    for what, ids, known in (
        ("subnet", config["Subnets"], subnets),
        ("security group", config["SecurityGroupIds"], groups),
    ):
        for each in ids:
            if each not in known:
                raise invalid(f"The {what} ID '{each}' does not exist")
            if known[each] != vpc_id:
                raise invalid(
                    f"The {what} {each} is not in {vpc_id}, the VPC of the EKS cluster: HyperPod "
                    f"and EKS must share one VPC"
                )


def check_plan(plans: TrainingPlans, spec: Document) -> None:
    """Check that a group's training plan is there, Active, of its type and large enough."""
    if not (arn := spec.get("TrainingPlanArn")):
        return
    plan = plans.describe(arn)
    types = sorted({each["InstanceType"] for each in plan["ReservedCapacitySummaries"]})
    if plan["Status"] != "Active":
        raise invalid(f"Training plan {arn} is not Active: {plan['Status']}")
    if spec.get("InstanceType") not in types:
        raise invalid(f"Training plan {arn} is for {', '.join(types)}")
    if spec["InstanceCount"] > plan["TotalInstanceCount"]:
        raise invalid(f"Training plan {arn} has {plan['TotalInstanceCount']} instances only")


def check_quotas(clusters: Iterable[Cluster], name: str, wanted: Iterable[Document]) -> None:
    """Refuse more instances or larger volumes than the account's limits allow.

    Args:
        clusters: every cluster of the region, as they are before the request.
        name: the cluster that the request is about.
        wanted: the specifications of all its groups after the request.
    """
    sim, wanted = current(), list(wanted)
    used, before, after = Counter[str](), Counter[str](), Counter[str]()
    for cluster in clusters:
        for group in cluster.groups.values():
            _count(used, group.spec)
            if cluster.name == name:
                _count(before, group.spec)
    for spec in wanted:
        _count(after, spec)
    after[_PER_CLUSTER] = after[_IN_ALL]
    before[_PER_CLUSTER] = used[_PER_CLUSTER] = before[_IN_ALL]
    for quota, count in after.items():
        limit, delta = sim.quota("sagemaker", quota), count - before[quota]
        if delta > 0 and used[quota] + delta > limit:
            raise _limit_exceeded(quota, limit, used[quota], delta)
    limit = sim.quota("sagemaker", _LARGEST)
    for spec in wanted:
        for storage in spec.get("InstanceStorageConfigs") or []:
            size = (storage.get("EbsVolumeConfig") or {}).get("VolumeSizeInGB", 0)
            if size > limit:
                raise _limit_exceeded(_LARGEST, limit, 0, size)


def _count(counter: Counter[str], spec: Document) -> None:
    """Count a group's instances under every quota that they use up."""
    kind = spec.get("InstanceType") or spec["InstanceRequirements"]["InstanceTypes"][0]
    spot = is_spot(spec)
    usage = "cluster spot instance usage" if spot else "cluster usage"
    for quota in (f"{kind} for {usage}", _IN_ALL, *([_SPOT_IN_ALL] if spot else [])):
        counter[quota] += spec["InstanceCount"]


def _limit_exceeded(quota: str, limit: float, used: float, delta: float) -> Refused:
    return Refused(
        "ResourceLimitExceeded",
        f"The account-level service limit '{quota}' is {limit:g} Instances, with current "
        f"utilization of {used:g} Instances and a request delta of {delta:g} Instances. Please use "
        f"AWS Service Quotas to request an increase for this quota. If AWS Service Quotas is not "
        f"available, contact AWS support to request an increase for this quota.",
    )


# -- the EKS cluster -----------------------------------------------------------------------------


def check_eks(region: str, arn: str) -> EksCluster:
    """Return the EKS cluster that shall orchestrate, after checking that it can."""
    clusters = eks_clusters.of_region(region).clusters.values()
    cluster = next((c for c in clusters if c.arn == arn), None)
    if cluster is None:
        raise invalid(f"The EKS cluster {arn} does not exist")
    if cluster.status not in ("ACTIVE", "UPDATING"):
        raise invalid(f"The EKS cluster {arn} must be ACTIVE, but is {cluster.status}")
    if cluster.mode == "CONFIG_MAP":
        raise invalid(
            f"The authentication mode of the EKS cluster {arn} must be API or API_AND_CONFIG_MAP"
        )
    kubernetes = current().clusters[arn]
    if not kubernetes.has("Namespace", _NAMESPACE):
        raise invalid(
            f"The EKS cluster {arn} is missing one or more required dependencies: the namespace "
            f"{_NAMESPACE} does not exist. Install the HyperPod Helm chart and try again."
        )
    cni = cluster.addons.get("vpc-cni")
    if cni is not None and _numbers(cni.document["addonVersion"]) < _OLDEST_CNI:
        raise invalid(
            f"The Amazon VPC CNI {cni.document['addonVersion']} of the EKS cluster {arn} is older "
            f"than 1.18.3"
        )
    return cluster


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.removeprefix("v").split("-")[0].split("."))


def check_fixed(old: Document, new: Document) -> None:
    """Refuse to change what a group keeps for life."""
    for member in _FIXED:
        if old.get(member) != new.get(member):
            name = new["InstanceGroupName"]
            raise invalid(f"{member} of the existing instance group '{name}' cannot be changed")
