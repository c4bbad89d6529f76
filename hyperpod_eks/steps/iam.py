"""The IAM step: roles of the control plane, the nodes and Karpenter; the service-linked role."""

from __future__ import annotations

from collections.abc import Sequence

from hyperpod_eks.documents import Json, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.ec2.security_group import SecurityGroup
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.iam import INTERFACES, Policy, Role, Row
from hyperpod_eks.resources.service_linked_role import ServiceLinkedRole
from hyperpod_eks.steps.s3 import scripts_prefix


@frozen
class Roles:
    """The step's roles, for the other steps."""

    cluster: Role
    execution: Role
    service_linked: ServiceLinkedRole
    scaler: Role | None = None
    """Karpenter's role, if it sets the number of nodes."""


def step(
    resolved: ResolvedConfig, vpc: Vpc, subnets: tuple[Subnet, ...], group: SecurityGroup
) -> Roles:
    """Declare the roles; the nodes' policy names the network that they may use."""
    cluster = Role(
        "cluster-role",
        name=resolved.iam_name("eks", "iam/cluster-role"),
        trusts="eks.amazonaws.com",
        managed=(resolved.managed_policy("AmazonEKSClusterPolicy"),),
        **_common(resolved),
    )
    own = _execution_policy(resolved, (vpc, group, *subnets))
    execution = Role(
        "execution-role",
        name=resolved.iam_name("hyperpod", "iam/execution-role"),
        trusts="sagemaker.amazonaws.com",
        managed=(resolved.managed_policy("AmazonSageMakerClusterInstanceRolePolicy"),),
        policies=() if "iam/execution-role" in resolved.adopted else (own,),
        **_common(resolved),
    )
    scaler = _scaling_role(resolved) if resolved.config.scales_itself else None
    return Roles(cluster, execution, ServiceLinkedRole("service-linked-role"), scaler)


def _common(resolved: ResolvedConfig) -> JsonObject:
    """Return the fields that all our roles share."""
    iam = resolved.config.iam
    return {"path": iam.path, "boundary": iam.permissions_boundary or ""}


def _execution_policy(
    resolved: ResolvedConfig, places: tuple[Vpc | SecurityGroup | Subnet, ...]
) -> Policy:
    """Declare the nodes' policy: as AWS documents it, or limited to the cluster's resources."""
    narrow = resolved.config.iam.node_policy == "narrow"
    keys = sorted({*_volume_keys(resolved), *filter(None, [resolved.config.encryption.bucket])})
    cluster = resolved.arn("eks", f"cluster/{resolved.eks_name}")
    rows = (_node_rows if narrow else _documented)(resolved.identity.partition, cluster)
    rows += _needed_besides(resolved, keys)
    if not resolved.bucket.startswith("sagemaker-"):  # nodes may read those by the managed policy
        bucket = resolved.arn("s3", resolved.bucket)
        objects = [f"{bucket}/{prefix}*" for prefix in _prefixes(resolved)]
        rows.append(("Scripts", ["s3:GetObject", "s3:ListBucket"], [bucket, *objects]))
    return Policy(
        "execution-policy",
        name=resolved.iam_name("hyperpod"),
        prefix=resolved.arn("iam", "policy"),
        path=resolved.config.iam.path,
        rows=tuple(rows),
        network=resolved.arn("ec2", "").removesuffix(":"),
        places=places if narrow else (),
    )


def _prefixes(resolved: ResolvedConfig) -> list[str]:
    """Return the prefixes of all scripts in the bucket, sorted: ours, and those groups name."""
    found = {scripts_prefix(resolved)}
    for group in resolved.config.instance_groups:
        uri = str((group.life_cycle_config or {}).get("source_s3_uri") or "")
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if bucket == resolved.bucket:
            found.add(prefix)
    return sorted(found)


def _scaling_role(resolved: ResolvedConfig) -> Role:
    """Declare Karpenter's role and policy."""
    name = resolved.iam_name("scaling")
    policy = Policy(
        "scaling-policy",
        name=name,
        prefix=resolved.arn("iam", "policy"),
        path=resolved.config.iam.path,
        rows=_scaler_rows(resolved.arn("sagemaker", "cluster/*"), _volume_keys(resolved)),
    )
    return Role(
        "scaling-role",
        name=name,
        trusts="hyperpod.sagemaker.amazonaws.com",
        managed=(),
        policies=(policy,),
        **_common(resolved),
    )


ATTACHMENTS = (
    "ec2:AttachNetworkInterface",
    "ec2:DetachNetworkInterface",
    "ec2:ModifyNetworkInterfaceAttribute",
)
"""Actions on both an instance and an interface (Service Authorization Reference)."""
LOOK = (
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeInstances",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeTags",
    "ec2:DescribeVpcs",
)
IMAGES = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:GetAuthorizationToken",
    "ecr:GetDownloadUrlForLayer",
)


def _volume_keys(resolved: ResolvedConfig) -> list[str]:
    """Return the ARNs of the KMS keys that encrypt the nodes' volumes, sorted."""
    keys = {resolved.config.encryption.volumes}
    for group in resolved.config.groups:
        for storage in group.instance_storage_configs:
            volume: Json = storage.get("ebs_volume_config") or {}
            keys.add(volume.get("volume_kms_key_id"))
    return sorted(
        key if key.startswith("arn:") else resolved.arn("kms", f"key/{key}") for key in keys if key
    )


def _scaler_rows(clusters: str, keys: Sequence[str]) -> tuple[Row, ...]:
    """Allow Karpenter to change the number of nodes (SageMaker developer guide, "Autoscaling")."""
    actions = ("sagemaker:BatchAddClusterNodes", "sagemaker:BatchDeleteClusterNodes")
    rows: tuple[Row, ...] = (("Scale", actions, clusters),)
    return (*rows, ("Keys", ("kms:CreateGrant", "kms:DescribeKey"), keys)) if keys else rows


def _node_rows(partition: str, cluster: str) -> list[Row]:
    """Return the nodes' permissions beyond AmazonSageMakerClusterInstanceRolePolicy.

    The action list is that of the SageMaker developer guide ("IAM role for SageMaker HyperPod",
    EKS additions); interfaces may be created only in the cluster's own VPC.
    """
    here = f"arn:{partition}:ec2:*:*"
    return [
        # the instances belong to an account of AWS
        ("Attach", ATTACHMENTS, [f"{here}:instance/*", f"{here}:network-interface/*"]),
        ("Tag", ["ec2:CreateTags"], [f"{here}:network-interface/*"]),
        ("Look", LOOK, "*"),
        ("Images", IMAGES, "*"),
        ("PodIdentity", ["eks-auth:AssumeRoleForPodIdentity"], cluster),
    ]


def _documented(partition: str, cluster: str) -> list[Row]:
    """Return the same actions on all resources, as in the guide (read 2026-10)."""
    actions = {*INTERFACES, *ATTACHMENTS, *LOOK, *IMAGES, "eks-auth:AssumeRoleForPodIdentity"}
    return [
        ("Documented", sorted(actions), "*"),
        ("Tag", ["ec2:CreateTags"], [f"arn:{partition}:ec2:*:*:network-interface/*"]),
    ]


def _needed_besides(resolved: ResolvedConfig, keys: Sequence[str]) -> list[Row]:
    """Return permissions that the guide's list lacks.

    On HyperPod the VPC CNI attaches interfaces with AttachClusterNodeNetworkInterface, and asks
    STS for the account id (amazon-vpc-cni-k8s, pull request 3874).  AWS's Terraform modules for
    HyperPod allow nodes to read alarms and file systems.
    """
    rows: list[Row] = [
        (
            "AttachByHyperPod",
            ["sagemaker:AttachClusterNodeNetworkInterface"],
            resolved.arn("sagemaker", "cluster/*"),
        ),
        (
            "LookBesides",
            ["cloudwatch:DescribeAlarms", "fsx:DescribeFileSystems", "sts:GetCallerIdentity"],
            "*",
        ),
    ]
    if keys:
        actions = ["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey*"]
        rows.append(("Keys", actions, keys))
    return rows
