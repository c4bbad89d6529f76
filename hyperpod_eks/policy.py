"""What whoever runs create, status and delete must be allowed to do, statement by statement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hyperpod_eks.aws import CLUSTER
from hyperpod_eks.site import Site
from hyperpod_eks.steps.iam import ServiceLinkedRole

LIMIT = 6144
"""Characters of a managed policy, white space not counted (IAM User Guide, "IAM quotas")."""

Conditions = Mapping[str, Mapping[str, str | list[str]]]


@dataclass(frozen=True)
class Statement:
    """One statement of a policy, and the command that cannot do without it.

    ``command`` is the first of create, delete that uses it; ``status`` reads what create reads.
    """

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)
    condition: Conditions = field(default_factory=dict)
    command: str = "create"

    def document(self) -> dict[str, Any]:
        """Return the statement as IAM writes it."""
        one = self.resources[0] if len(self.resources) == 1 else list(self.resources)
        document: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": list(self.actions),
            "Resource": one,
        }
        return document | ({"Condition": self.condition} if self.condition else {})


def statements(site: Site) -> tuple[Statement, ...]:
    """Return what the cluster of this configuration asks for, and nothing else.

    Names are spelled out; EC2's resources have none, so what exists may be changed and deleted
    only if it carries the cluster's tag.  Keys and resource types are those of the Service
    Authorization Reference.
    """
    name, tag = site.name, f"aws:ResourceTag/{CLUSTER}"
    tagged: Conditions = {"StringEquals": {tag: name}}
    managed = [site.managed_policy(x) for x in (_CONTROL_POLICY, _NODE_POLICY)]
    roles, policies, services = _principals(site)
    bucket = site.arn("s3", site.bucket)
    attached: Conditions = {"ArnEquals": {"iam:PolicyARN": [*managed, *policies]}}
    groups = [f"/aws/eks/{site.eks_name}/cluster", f"/aws/sagemaker/Clusters/{name}/*"]
    logs = tuple(
        site.arn("logs", f"log-group:{group}{end}") for group in groups for end in ("", ":*")
    )
    ec2 = (site.arn("ec2", "*/*"),)
    return (
        Statement("Look", _LOOK),
        Statement("NetworkMake", _MAKE, ec2),
        Statement(
            "NetworkSign",
            ("ec2:CreateTags",),
            ec2,
            {"StringEquals": {"ec2:CreateAction": [_plain(action) for action in _MAKE]}},
        ),
        Statement("NetworkChange", _CHANGE, ec2, tagged),
        Statement("NetworkDelete", _DELETE, ec2, tagged, "delete"),
        Statement(
            "KubernetesLeft",
            (
                "ec2:DeleteSecurityGroup",
                "ec2:DeleteVolume",
                "elasticloadbalancing:DeleteLoadBalancer",
            ),
            (*ec2, site.arn("elasticloadbalancing", "loadbalancer/*")),
            {"StringEquals": {f"aws:ResourceTag/kubernetes.io/cluster/{site.eks_name}": "owned"}},
            "delete",
        ),
        Statement(
            "GuardDutyLeft",
            ("ec2:DeleteSecurityGroup", "ec2:DeleteVpcEndpoints"),
            ec2,
            {"StringEquals": {"aws:ResourceTag/GuardDutyManaged": "true"}},
            "delete",
        ),
        # detached interfaces of pods carry tags of the VPC CNI only, which vary with its version
        Statement(
            "InterfacesLeft",
            ("ec2:DeleteNetworkInterface",),
            (site.arn("ec2", "network-interface/*"),),
            command="delete",
        ),
        Statement(
            "BalancersLeft",
            (
                "elasticloadbalancing:DeleteLoadBalancer",
                "elasticloadbalancing:DeleteTargetGroup",
            ),
            (site.arn("elasticloadbalancing", "*"),),
            {"StringEquals": {"aws:ResourceTag/elbv2.k8s.aws/cluster": site.eks_name}},
            "delete",
        ),
        # GetRole also reads the caller's own role, whose path its session does not show
        Statement("RolesLook", ("iam:GetRole",), (site.arn("iam", "role/*"),)),
        Statement("RolesMake", _ROLES_MAKE, roles),
        Statement("RolesAttach", ("iam:AttachRolePolicy",), roles, attached),
        Statement("RolesDelete", _ROLES_DELETE, roles, command="delete"),
        Statement(
            "RolesPass",
            ("iam:PassRole",),
            roles,
            {"StringEquals": {"iam:PassedToService": services}},
        ),
        Statement(
            "RolesOfServices",
            ("iam:CreateServiceLinkedRole",),
            (site.arn("iam", "role/aws-service-role/*"),),
            {"StringEquals": {"iam:AWSServiceName": [ServiceLinkedRole.service, _EKS]}},
        ),
        Statement("NodePolicyMake", _POLICY_MAKE, policies),
        Statement("NodePolicyDelete", _POLICY_DELETE, policies, command="delete"),
        Statement("BucketMake", _BUCKET_MAKE, (bucket,)),
        Statement("BucketDelete", _BUCKET_DELETE, (bucket,), command="delete"),
        Statement("ScriptsMake", ("s3:PutObject",), (f"{bucket}/*",)),
        Statement("ScriptsDelete", _SCRIPTS_DELETE, (f"{bucket}/*",), command="delete"),
        Statement(
            "EksMake",
            _EKS_MAKE,
            tuple(
                site.arn("eks", f"{kind}/{site.eks_name}{rest}")
                for kind, rest in (("cluster", ""), ("addon", "/*"), ("access-entry", "/*"))
            ),
        ),
        Statement(
            "EksDelete",
            ("eks:DeleteAccessEntry", "eks:DeleteAddon", "eks:DeleteCluster"),
            tuple(
                site.arn("eks", f"{kind}/{site.eks_name}{rest}")
                for kind, rest in (("cluster", ""), ("addon", "/*"), ("access-entry", "/*"))
            ),
            command="delete",
        ),
        # a cluster's ARN ends in an id that nobody knows before; and a condition about tags
        # would make AccessDenied of "there is no such cluster"
        Statement("HyperPodMake", _HYPERPOD_MAKE, (site.arn("sagemaker", "cluster/*"),)),
        Statement(
            "HyperPodDelete",
            ("sagemaker:DeleteCluster",),
            (site.arn("sagemaker", "cluster/*"),),
            tagged,
            "delete",
        ),
        Statement("LogsMake", _LOGS_MAKE, logs),
        Statement("LogsDelete", ("logs:DeleteLogGroup",), logs, command="delete"),
        *_optional(site),
    )


def _principals(site: Site) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    """Return the ARNs of the roles and of the policies, and the services that get a role."""
    path = site.config.iam.path
    purposes, services = ["eks", "hyperpod"], [_EKS, _SAGEMAKER]
    if site.config.scales_itself:
        purposes.append("scaling")
        services.append(ServiceLinkedRole.service)
    keys = {"eks": "iam/cluster-role", "hyperpod": "iam/execution-role"}
    roles = [site.iam_name(each, keys.get(each, "")) for each in purposes]
    own = {group.execution_role for group in site.config.groups if group.execution_role}
    policies = [site.arn("iam", f"policy{path}{site.iam_name(x)}") for x in purposes[1:]]
    return (
        (*(site.arn("iam", f"role{path}{each}") for each in roles), *sorted(own)),
        tuple(policies),
        services,
    )


def _optional(site: Site) -> list[Statement]:
    """Return what only some configurations need: keys of one's own, roles of pods, plans."""
    found, keys = [], site.config.encryption.model_dump().values()
    if used := tuple(sorted(filter(None, set(keys)))):
        found.append(Statement("Keys", _KEYS, used))
    pods = {
        str(each["role_arn"])
        for addon in site.config.addons.values()
        for each in addon.pod_identity_associations
    }
    if pods:
        places = (
            site.arn("eks", f"cluster/{site.eks_name}"),
            site.arn("eks", f"podidentityassociation/{site.eks_name}/*"),
        )
        to_pods: Conditions = {"StringEquals": {"iam:PassedToService": ["pods.eks.amazonaws.com"]}}
        found.append(Statement("PodRoles", _POD_ROLES, places))
        found.append(Statement("PodRolesPass", ("iam:PassRole",), tuple(sorted(pods)), to_pods))
    plans = tuple(
        sorted({group.training_plan_arn for group in site.config.groups if group.training_plan_arn})
    )
    if plans:
        found.append(Statement("TrainingPlans", ("sagemaker:DescribeTrainingPlan",), plans))
    return found


def documents(rows: Iterable[Statement]) -> list[dict[str, Any]]:
    """Pack statements, in their order, into as few policies as IAM's size limit allows."""
    found: list[dict[str, Any]] = []
    for row in rows:
        one = row.document()
        if not found or size(with_one(found[-1], one)) > LIMIT:
            found.append({"Version": "2012-10-17", "Statement": []})
        found[-1] = with_one(found[-1], one)
    return found


def with_one(document: Mapping[str, Any], statement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy with one more statement."""
    return {**document, "Statement": [*document["Statement"], statement]}


def size(document: Mapping[str, Any]) -> int:
    """Count characters as IAM does, without white space.

    >>> size({"Version": "2012-10-17", "Statement": []})
    39
    """
    return len(json.dumps(document, separators=(",", ":")))


def _plain(action: str) -> str:
    return action.partition(":")[2]


def _of(service: str, *actions: str) -> tuple[str, ...]:
    return tuple(f"{service}:{action}" for action in actions)


_EKS, _SAGEMAKER = "eks.amazonaws.com", "sagemaker.amazonaws.com"
_CONTROL_POLICY = "AmazonEKSClusterPolicy"
_NODE_POLICY = "AmazonSageMakerClusterInstanceRolePolicy"

# Reads that know no resource, or that answer for whole regions.
_LOOK = (
    *_of(
        "ec2",
        "DescribeAddresses",
        "DescribeAvailabilityZones",
        "DescribeInstanceTypeOfferings",
        "DescribeInstanceTypes",
        "DescribeInternetGateways",
        "DescribeNatGateways",
        "DescribeNetworkInterfaces",
        "DescribeRouteTables",
        "DescribeSecurityGroups",
        "DescribeSubnets",
        "DescribeVolumes",
        "DescribeVpcAttribute",
        "DescribeVpcEndpoints",
        "DescribeVpcs",
    ),
    *_of("eks", "DescribeAddonVersions", "DescribeClusterVersions", "ListClusters"),
    *_of("elasticloadbalancing", "DescribeLoadBalancers", "DescribeTags", "DescribeTargetGroups"),
    "iam:SimulatePrincipalPolicy",
    "logs:DescribeLogGroups",
    "sagemaker:ListClusters",
    "servicequotas:ListServiceQuotas",
)
_MAKE = _of(
    "ec2",
    "AllocateAddress",
    "CreateInternetGateway",
    "CreateNatGateway",
    "CreateRouteTable",
    "CreateSecurityGroup",
    "CreateSubnet",
    "CreateVpc",
    "CreateVpcEndpoint",
)
_CHANGE = _of(
    "ec2",
    "AssociateRouteTable",
    "AssociateVpcCidrBlock",
    "AttachInternetGateway",
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "CreateRoute",
    "DeleteRoute",
    "DisassociateRouteTable",
    "DisassociateVpcCidrBlock",
    "ModifyVpcAttribute",
    "ModifyVpcEndpoint",
    "ReplaceRoute",
    "ReplaceRouteTableAssociation",
    "RevokeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
)
_DELETE = _of(
    "ec2",
    "DeleteInternetGateway",
    "DeleteNatGateway",
    "DeleteRouteTable",
    "DeleteSecurityGroup",
    "DeleteSubnet",
    "DeleteVpc",
    "DeleteVpcEndpoints",
    "DetachInternetGateway",
    "ReleaseAddress",
)
_ROLES_MAKE = _of(
    "iam",
    "CreateRole",
    "DeleteRolePermissionsBoundary",
    "ListAttachedRolePolicies",
    "PutRolePermissionsBoundary",
    "TagRole",
    "UpdateAssumeRolePolicy",
)
_ROLES_DELETE = _of("iam", "DeleteRole", "DeleteRolePolicy", "DetachRolePolicy", "ListRolePolicies")
_POLICY_MAKE = _of(
    "iam",
    "CreatePolicy",
    "CreatePolicyVersion",
    "DeletePolicyVersion",
    "GetPolicy",
    "GetPolicyVersion",
    "ListPolicyVersions",
    "TagPolicy",
)
_POLICY_DELETE = _of("iam", "DeletePolicy")
_BUCKET_MAKE = _of(
    "s3",
    "CreateBucket",
    "GetBucketOwnershipControls",
    "GetBucketPolicy",
    "GetBucketPublicAccessBlock",
    "GetBucketTagging",
    "GetEncryptionConfiguration",
    "ListBucket",
    "PutBucketOwnershipControls",
    "PutBucketPolicy",
    "PutBucketPublicAccessBlock",
    "PutBucketTagging",
    "PutEncryptionConfiguration",
)
_BUCKET_DELETE = _of("s3", "DeleteBucket", "ListBucketMultipartUploads", "ListBucketVersions")
_SCRIPTS_DELETE = _of("s3", "AbortMultipartUpload", "DeleteObject", "DeleteObjectVersion")
_EKS_MAKE = _of(
    "eks",
    "AssociateAccessPolicy",
    "AssociateEncryptionConfig",
    "CreateAccessEntry",
    "CreateAddon",
    "CreateCluster",
    "DescribeAccessEntry",
    "DescribeAddon",
    "DescribeCluster",
    "DisassociateAccessPolicy",
    "ListAddons",
    "ListAssociatedAccessPolicies",
    "TagResource",
    "UpdateAccessEntry",
    "UpdateAddon",
    "UpdateClusterConfig",
    "UpdateClusterVersion",
)
_HYPERPOD_MAKE = _of(
    "sagemaker",
    "AddTags",
    "CreateCluster",
    "DescribeCluster",
    "ListClusterEvents",
    "ListClusterNodes",
    "ListTags",
    "UpdateCluster",
    "UpdateClusterSoftware",
)
_LOGS_MAKE = _of(
    "logs",
    "AssociateKmsKey",
    "CreateLogGroup",
    "DescribeLogStreams",
    "DisassociateKmsKey",
    "GetLogEvents",
    "ListTagsForResource",
    "PutRetentionPolicy",
    "TagResource",
)
_POD_ROLES = _of(
    "eks",
    "CreatePodIdentityAssociation",
    "DeletePodIdentityAssociation",
    "DescribePodIdentityAssociation",
    "UpdatePodIdentityAssociation",
)
# what EKS, EBS, S3 and CloudWatch Logs do with a key on the caller's behalf
_KEYS = _of("kms", "CreateGrant", "Decrypt", "DescribeKey", "GenerateDataKey")
