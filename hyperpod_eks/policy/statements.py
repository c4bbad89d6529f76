"""What whoever runs create, status and delete must be allowed to do, statement by statement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import Any

from hyperpod_eks.aws.client import CLUSTER
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.ec2.endpoint import VpcEndpoint
from hyperpod_eks.resources.ec2.gateways import ElasticIp, InternetGateway, NatGateway
from hyperpod_eks.resources.ec2.route_table import RouteTable
from hyperpod_eks.resources.ec2.security_group import SecurityGroup, SecurityGroupRule
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import Vpc, VpcCidr
from hyperpod_eks.resources.iam import ServiceLinkedRole
from hyperpod_eks.steps import network

LIMIT = 6144
"""Characters of a managed policy, white space not counted (IAM User Guide, "IAM quotas")."""

Conditions = Mapping[str, Mapping[str, str | list[str]]]


@frozen
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


def statements(resolved: ResolvedConfig) -> tuple[Statement, ...]:
    """Return what the cluster of this configuration asks for, and nothing else.

    Names are spelled out; EC2's resources have none, so what exists may be changed and deleted
    only if it carries the cluster's tag.  Keys and resource types are those of the Service
    Authorization Reference.
    """
    name, tag = resolved.name, f"aws:ResourceTag/{CLUSTER}"
    tagged: Conditions = {"StringEquals": {tag: name}}
    managed = [resolved.managed_policy(x) for x in (_CONTROL_POLICY, _NODE_POLICY)]
    who = _principals(resolved)
    bucket = resolved.arn("s3", resolved.bucket)
    attached: Conditions = {"ArnEquals": {"iam:PolicyARN": [*managed, *who.policies]}}
    groups = [f"/aws/eks/{resolved.eks_name}/cluster", f"/aws/sagemaker/Clusters/{name}/*"]
    logs = tuple(
        resolved.arn("logs", f"log-group:{group}{end}") for group in groups for end in ("", ":*")
    )
    ec2 = (resolved.arn("ec2", "*/*"),)
    eks = tuple(
        resolved.arn("eks", f"{kind}/{resolved.eks_name}{rest}")
        # UpdateClusterConfig and its kind have been met on ARNs below the cluster's
        for kind, rest in (
            ("cluster", ""),
            ("cluster", "/*"),
            ("addon", "/*"),
            ("access-entry", "/*"),
        )
    )
    rows = (
        Statement("Look", _LOOK),
        *_network(resolved, ec2, tagged),
        Statement(
            "KubernetesLeft",
            (
                "ec2:DeleteSecurityGroup",
                "ec2:DeleteVolume",
                "elasticloadbalancing:DeleteLoadBalancer",
            ),
            (*ec2, resolved.arn("elasticloadbalancing", "loadbalancer/*")),
            {
                "StringEquals": {
                    f"aws:ResourceTag/kubernetes.io/cluster/{resolved.eks_name}": "owned"
                }
            },
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
            (resolved.arn("ec2", "network-interface/*"),),
            command="delete",
        ),
        Statement(
            "BalancersLeft",
            (
                "ec2:DeleteSecurityGroup",
                "elasticloadbalancing:DeleteLoadBalancer",
                "elasticloadbalancing:DeleteTargetGroup",
            ),
            (resolved.arn("elasticloadbalancing", "*"), resolved.arn("ec2", "security-group/*")),
            {"StringEquals": {"aws:ResourceTag/elbv2.k8s.aws/cluster": resolved.eks_name}},
            "delete",
        ),
        # GetRole also reads the caller's own role, whose path its session does not show
        Statement("RolesLook", _ROLES_LOOK, (resolved.arn("iam", "role/*"),)),
        Statement("RolesMake", _ROLES_MAKE, who.made),
        Statement("RolesAttach", ("iam:AttachRolePolicy",), who.made, attached),
        Statement("RolesDelete", _ROLES_DELETE, who.made, command="delete"),
        Statement("Forgotten", _FORGOTTEN, command="delete"),
        Statement(
            "RolesPass",
            ("iam:PassRole",),
            who.passed,
            {"StringEquals": {"iam:PassedToService": who.services}},
        ),
        Statement(
            "RolesOfServices",
            ("iam:CreateServiceLinkedRole",),
            (resolved.arn("iam", "role/aws-service-role/*"),),
            {"StringEquals": {"iam:AWSServiceName": [ServiceLinkedRole.service, _EKS]}},
        ),
        Statement("NodePolicyMake", _POLICY_MAKE, who.policies),
        Statement("NodePolicyDelete", _POLICY_DELETE, who.policies, command="delete"),
        Statement("BucketMake", _BUCKET_MAKE, (bucket,)),
        Statement("BucketDelete", _BUCKET_DELETE, (bucket,), command="delete"),
        Statement("ScriptsMake", ("s3:GetObject", "s3:PutObject"), (f"{bucket}/*",)),
        Statement("ScriptsDelete", _SCRIPTS_DELETE, (f"{bucket}/*",), command="delete"),
        Statement(
            "EksMake",
            _EKS_MAKE,
            eks,
        ),
        Statement("EksDelete", ("eks:DeleteAddon", "eks:DeleteCluster"), eks, command="delete"),
        # a cluster's ARN ends in an id that nobody knows before; and a condition about tags
        # would make AccessDenied of "there is no such cluster"
        Statement("HyperPodMake", _HYPERPOD_MAKE, (resolved.arn("sagemaker", "cluster/*"),)),
        Statement(
            "HyperPodDelete",
            ("sagemaker:DeleteCluster",),
            (resolved.arn("sagemaker", "cluster/*"),),
            tagged,
            "delete",
        ),
        Statement("HoldersLook", _HOLDERS_LOOK, command="delete"),
        Statement("QuotasLook", _QUOTAS_LOOK, command="delete"),
        Statement(
            "QuotasDelete",
            ("sagemaker:DeleteClusterSchedulerConfig", "sagemaker:DeleteComputeQuota"),
            tuple(
                resolved.arn("sagemaker", f"{kind}/*")
                for kind in ("cluster-scheduler-config", "compute-quota")
            ),
            command="delete",
        ),
        Statement("LogsMake", _LOGS_MAKE, logs),
        Statement("LogsDelete", ("logs:DeleteLogGroup",), logs, command="delete"),
        *_optional(resolved),
    )
    return tuple(row for row in rows if row.resources)


def _network(
    resolved: ResolvedConfig, ec2: tuple[str, ...], tagged: Conditions
) -> Iterator[Statement]:
    """Allow what the network's kinds of resources need; in somebody's VPC those that are ours.

    In a VPC of ours all kinds are allowed: a change of the config may bring any.
    """
    kinds = tuple(_KINDS)
    if "network/vpc" in resolved.adopted:
        declared = {type(one) for one in _declared(resolved) if one.key not in resolved.adopted}
        kinds = tuple(kind for kind in _KINDS if kind in declared)
    make, change, delete = (
        tuple(dict.fromkeys(action for kind in kinds for action in _KINDS[kind][part]))
        for part in range(3)
    )
    if not make:
        return
    yield Statement("NetworkMake", make, ec2)
    made = [_plain(action) for action in make]
    signed: Conditions = {"StringEquals": {"ec2:CreateAction": made}}
    yield Statement("NetworkSign", ("ec2:CreateTags",), ec2, signed)
    # what somebody has taken tags from gets them again
    yield Statement("NetworkChange", (*change, "ec2:CreateTags"), ec2, tagged)
    yield Statement("NetworkDelete", delete, ec2, tagged, "delete")


def _declared(resolved: ResolvedConfig) -> Iterator[Resource]:
    """List the network's resources, those that were adopted included."""
    net = network.step(resolved)
    found = [net.vpc, *net.private.values(), *net.nodes.values(), net.control_group, *net.opening]
    for one in (*found, net.security_group, *net.egress):
        yield one
        for name in ("security_groups", "subnets"):
            yield from getattr(one, name, ())
        for name in ("subnet", "address", "target"):
            if part := getattr(one, name, None):
                yield part


@frozen
class _Principals:
    """Whom the statements are about: ARNs of roles and policies, and services that get a role."""

    made: tuple[str, ...]
    passed: tuple[str, ...]
    policies: tuple[str, ...]
    services: list[str]


def _principals(resolved: ResolvedConfig) -> _Principals:
    """Tell the roles that create makes from those that exist and are only passed on."""
    path = resolved.config.iam.path
    keys = {"eks": "iam/cluster-role", "hyperpod": "iam/execution-role"}
    services = [_EKS, _SAGEMAKER]
    if resolved.eks_is_theirs:  # nobody passes its role again, and `policy` cannot know which it is
        del keys["eks"], services[0]
    if resolved.config.scales_itself:
        keys["scaling"] = "iam/scaling-role"
        services.append(ServiceLinkedRole.service)
    names = {purpose: resolved.iam_name(purpose, key) for purpose, key in keys.items()}
    ours = [purpose for purpose, key in keys.items() if key not in resolved.adopted]
    made = tuple(resolved.arn("iam", f"role{path}{names[each]}") for each in ours)
    # of what exists the name is known, and not its path
    adopted = {resolved.arn("iam", f"role/*{names[each]}") for each in keys.keys() - set(ours)}
    own = {group.execution_role for group in resolved.config.groups if group.execution_role}
    return _Principals(
        made,
        (*made, *sorted(adopted | own)),
        tuple(resolved.arn("iam", f"policy{path}{names[each]}") for each in ours if each != "eks"),
        services,
    )


def _optional(resolved: ResolvedConfig) -> list[Statement]:
    """Return what only some configurations need: keys, images, roles of pods, plans, endpoints."""
    found, keys = [], resolved.config.encryption.model_dump().values()
    if used := tuple(sorted(filter(None, set(keys)))):
        found.append(Statement("Keys", _KEYS, used))
    pods = {
        str(each["role_arn"])
        for addon in resolved.config.addons.values()
        for each in addon.pod_identity_associations
    }
    if pods:
        cluster = resolved.arn("eks", f"cluster/{resolved.eks_name}")
        places = (cluster, resolved.arn("eks", f"podidentityassociation/{resolved.eks_name}/*"))
        to_pods: Conditions = {"StringEquals": {"iam:PassedToService": ["pods.eks.amazonaws.com"]}}
        found.append(Statement("PodRoles", _POD_ROLES, places))
        found.append(Statement("PodRolesList", ("eks:ListPodIdentityAssociations",), (cluster,)))
        found.append(Statement("PodRolesPass", ("iam:PassRole",), tuple(sorted(pods)), to_pods))
    plans = tuple(
        sorted(
            {group.training_plan_arn for group in resolved.config.groups if group.training_plan_arn}
        )
    )
    if plans:
        found.append(Statement("TrainingPlans", ("sagemaker:DescribeTrainingPlan",), plans))
    # what depends on another action: Service Authorization Reference, "dependent actions"
    groups = resolved.config.instance_groups
    images = sorted({each.image_id for each in groups if each.image_id} - {"default"})
    if images:
        region = resolved.arn("ec2", "").removesuffix(f"{resolved.identity.account}:")
        shared = (*(f"{region}:image/{each}" for each in images), f"{region}:snapshot/*")
        found.append(Statement("ImagesLook", _of("ec2", "DescribeImages", "DescribeSnapshots")))
        found.append(
            Statement(
                "ImagesShare", _of("ec2", "ModifyImageAttribute", "ModifySnapshotAttribute"), shared
            )
        )
    if any(isinstance(one, VpcEndpoint) and one.subnets for one in _declared(resolved)):
        zones = (f"arn:{resolved.identity.partition}:route53:::hostedzone/*",)
        named = ("route53:AssociateVPCWithHostedZone",)  # CreateVpcEndpoint with private DNS
        found.append(Statement("EndpointNames", named, zones))
        found.append(Statement("EndpointsLook", _of("ec2", "DescribeVpcEndpointServices")))
    return found


def documents(rows: Iterable[Statement]) -> list[dict[str, Any]]:
    """Pack statements, in their order, into as few policies as IAM's size limit allows."""
    found: list[dict[str, Any]] = []
    for one in (part.document() for row in rows for part in _parts(row)):
        if not found or size(with_one(found[-1], one)) > LIMIT:
            found.append(with_one(_EMPTY, one))
        else:
            found[-1] = with_one(found[-1], one)
    return found


def _parts(row: Statement) -> Iterator[Statement]:
    """Halve a statement about too many resources for one policy, until each part fits."""
    middle = len(row.resources) // 2
    if not middle or size(with_one(_EMPTY, row.document())) <= LIMIT:
        yield row
        return
    yield from _parts(replace(row, sid=f"{row.sid}A", resources=row.resources[:middle]))
    yield from _parts(replace(row, sid=f"{row.sid}B", resources=row.resources[middle:]))


_EMPTY: Mapping[str, Any] = {"Version": "2012-10-17", "Statement": []}


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
    *_of(
        "eks",
        "DescribeAddonConfiguration",
        "DescribeAddonVersions",
        "DescribeClusterVersions",
        "ListClusters",
    ),
    *_of("elasticloadbalancing", "DescribeLoadBalancers", "DescribeTags", "DescribeTargetGroups"),
    "iam:SimulatePrincipalPolicy",
    "logs:DescribeLogGroups",
    "sagemaker:ListClusters",
    "servicequotas:ListServiceQuotas",
)
# What each kind needs to be made, changed and deleted.
_RULES = _of(
    "ec2",
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "RevokeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
)
_ROUTES = _of(
    "ec2",
    "AssociateRouteTable",
    "CreateRoute",
    "DeleteRoute",
    "DisassociateRouteTable",
    "ReplaceRoute",
    "ReplaceRouteTableAssociation",
)
_BLOCKS = _of("ec2", "AssociateVpcCidrBlock", "DisassociateVpcCidrBlock")
_KINDS: Mapping[type[Resource], tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    Vpc: (
        _of("ec2", "CreateVpc"),
        _of("ec2", "ModifyVpcAttribute"),
        _of("ec2", "DeleteVpc"),
    ),
    VpcCidr: ((), _BLOCKS, ()),
    InternetGateway: (
        _of("ec2", "CreateInternetGateway"),
        _of("ec2", "AttachInternetGateway"),
        _of("ec2", "DeleteInternetGateway", "DetachInternetGateway"),
    ),
    ElasticIp: (_of("ec2", "AllocateAddress"), (), _of("ec2", "ReleaseAddress")),
    NatGateway: (_of("ec2", "CreateNatGateway"), (), _of("ec2", "DeleteNatGateway")),
    RouteTable: (_of("ec2", "CreateRouteTable"), _ROUTES, _of("ec2", "DeleteRouteTable")),
    SecurityGroup: (
        _of("ec2", "CreateSecurityGroup"),
        _RULES,
        _of("ec2", "DeleteSecurityGroup"),
    ),
    SecurityGroupRule: ((), _RULES, ()),
    Subnet: (_of("ec2", "CreateSubnet"), (), _of("ec2", "DeleteSubnet")),
    VpcEndpoint: (
        _of("ec2", "CreateVpcEndpoint"),
        _of("ec2", "ModifyVpcEndpoint"),
        _of("ec2", "DeleteVpcEndpoints"),
    ),
}
_ROLES_LOOK = _of("iam", "GetRole", "ListAttachedRolePolicies")
# What finds things that carry our tags and that neither config nor manifest names.
_FORGOTTEN = (
    "ec2:DescribeTags",
    *_of("iam", "ListPolicies", "ListPolicyTags", "ListRoles", "ListRoleTags"),
    *_of("s3", "GetBucketTagging", "ListAllMyBuckets"),
)
_ROLES_MAKE = _of(
    "iam",
    "CreateRole",
    "DeleteRolePermissionsBoundary",
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
    "TagResource",
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
    "DeleteAccessEntry",  # UpdateCluster of HyperPod does it, when a group's role changes
    "DescribeAccessEntry",
    "DescribeAddon",
    "DescribeCluster",
    "DisassociateAccessPolicy",
    "ListAccessEntries",
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
    "BatchAddClusterNodes",  # this and the next by UpdateCluster, when a count changes
    "BatchDeleteClusterNodes",
    "CreateCluster",
    "DescribeCluster",
    "DescribeClusterEvent",
    "ListClusterEvents",
    "ListClusterNodes",
    "ListClusterOperations",
    "ListTags",
    "UpdateCluster",
    "UpdateClusterSoftware",
)
# DeleteCluster looks whether task governance still uses the cluster (SageMaker developer guide,
# "Troubleshoot" of task governance).
_QUOTAS_LOOK = _of("sagemaker", "ListClusterSchedulerConfigs", "ListComputeQuotas")
# What else is in a VPC that AWS refuses to delete, to be named.
_HOLDERS_LOOK = _of(
    "ec2",
    "DescribeEgressOnlyInternetGateways",
    "DescribeInstanceConnectEndpoints",
    "DescribeNetworkAcls",
    "DescribeTransitGatewayVpcAttachments",
    "DescribeVpcPeeringConnections",
    "DescribeVpnGateways",
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
