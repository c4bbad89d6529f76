"""What add-ons need: roles, policies and other add-ons, as AWS publishes it on pages only.

Each table names its pages and the day they were read.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from hyperpod_eks.documents import JsonMapping


class WebIdentity(NamedTuple):
    """How a role is assumed by a token of the cluster's OIDC provider (IRSA).

    It is for add-ons whose settings name their roles, and that take no pod identity for them.
    """

    label: str
    """What the role is called in the manifest and in its name."""
    setting: tuple[str, ...]
    """Where the settings of the add-on have the role's ARN."""
    prefix: str = ""
    """With what its name must begin."""
    services: tuple[str, ...] = ()
    """The services that may assume it too."""
    beside: JsonMapping = MappingProxyType({})
    """Settings of the add-on that come with the role."""


class AddonRole(NamedTuple):
    """What the pods of an add-on's service account need to be allowed.

    ``managed`` are policies, by ARN or, of AWS's own, by name.  In the resources of ``statements``,
    {partition}, {region}, {account} and {cluster} are those of the EKS cluster, and {bucket} is
    each bucket of the config.
    """

    namespace: str
    account: str
    managed: tuple[str, ...] = ()
    statements: tuple[JsonMapping, ...] = ()
    one_cluster: bool = False
    """Whether its trust policy names the EKS cluster (aws:SourceArn)."""
    web: WebIdentity | None = None
    """How it is assumed, if not by EKS Pod Identity; its namespace and account may be patterns."""

    @property
    def by_bucket(self) -> bool:
        """Whether it needs to know buckets."""
        return any("{bucket}" in each for one in self.statements for each in one["Resource"])


def _allow(actions: str, *resources: str, **more: JsonMapping) -> JsonMapping:
    """Return a statement; in ``actions`` the names of a service follow its first one.

    >>> _allow("s3:GetObject PutObject sts:TagSession", "*")["Action"]
    ['s3:GetObject', 's3:PutObject', 'sts:TagSession']
    """
    listed, service = [], ""
    for each in actions.split():
        service = each.partition(":")[0] if ":" in each else service
        listed.append(each if ":" in each else f"{service}:{each}")
    return {"Effect": "Allow", "Action": listed, "Resource": list(resources), **more}


S3_DRIVER = "aws-mountpoint-s3-csi-driver"
CLOUDWATCH = "amazon-cloudwatch-observability"
OBSERVABILITY = "amazon-sagemaker-hyperpod-observability"
INFERENCE = "amazon-sagemaker-hyperpod-inference"
SPACES = "amazon-sagemaker-spaces"
TRAINING_OPERATOR = "amazon-sagemaker-hyperpod-training-operator"
INFERENCE_PREFIX, CERTIFICATES_PREFIX = "SageMakerHyperPodInference", "hyperpod-tls"
"""With what the names of the inference operator's role and bucket begin.

AmazonSageMakerHyperPodInferenceAccess lets the operator pass such a role, and write such a bucket.
"""
INFERENCE_PODS = 13
"""The least number of pods that it runs, with the add-ons that it needs.

SageMaker developer guide, sagemaker-hyperpod-model-deployment-ts-console-cfn-failures.html, read
2026-11-30.
"""
_CLUSTER_LOGS = "arn:{partition}:logs:{region}:{account}:log-group:/aws/sagemaker/Clusters/*"

_BALANCERS = "arn:{partition}:elasticloadbalancing:*:*:"
_TAG = "elbv2.k8s.aws/cluster"
_NEW = {"Null": {f"aws:RequestTag/{_TAG}": "false"}}
_OWN = {"Null": {f"aws:ResourceTag/{_TAG}": "false"}}
_KEPT = {"Null": {f"aws:RequestTag/{_TAG}": "true", f"aws:ResourceTag/{_TAG}": "false"}}
_TAGGED = tuple(_BALANCERS + kind for kind in ("loadbalancer/*/*/*", "targetgroup/*/*"))
# What the AWS Load Balancer Controller does: it changes what has its own tag. The permissions of
# its version 2.13 (github.com/kubernetes-sigs/aws-load-balancer-controller, docs/install,
# iam_policy.json; github.com/awslabs/awsome-distributed-ai, modules/hyperpod_inference_operator),
# read 2026-11-30.
_LOAD_BALANCER_CONTROLLER = (
    _allow(
        "ec2:DescribeAccountAttributes DescribeAddresses DescribeAvailabilityZones"
        " DescribeCoipPools DescribeInstances DescribeInternetGateways DescribeIpamPools"
        " DescribeNetworkInterfaces DescribeRouteTables DescribeSecurityGroups DescribeSubnets"
        " DescribeTags DescribeVpcPeeringConnections DescribeVpcs GetCoipPoolUsage"
        " GetSecurityGroupsForVpc"
        " elasticloadbalancing:DescribeCapacityReservation DescribeListenerAttributes"
        " DescribeListenerCertificates DescribeListeners DescribeLoadBalancerAttributes"
        " DescribeLoadBalancers DescribeRules DescribeSSLPolicies DescribeTags"
        " DescribeTargetGroupAttributes DescribeTargetGroups DescribeTargetHealth"
        " DescribeTrustStores"
        " acm:DescribeCertificate ListCertificates cognito-idp:DescribeUserPoolClient"
        " iam:GetServerCertificate ListServerCertificates"
        " shield:CreateProtection DeleteProtection DescribeProtection GetSubscriptionState"
        " waf-regional:AssociateWebACL DisassociateWebACL GetWebACL GetWebACLForResource"
        " wafv2:AssociateWebACL DisassociateWebACL GetWebACL GetWebACLForResource"
        " ec2:AuthorizeSecurityGroupIngress CreateSecurityGroup RevokeSecurityGroupIngress"
        " elasticloadbalancing:AddListenerCertificates CreateListener CreateRule DeleteListener"
        " DeleteRule ModifyListener ModifyRule RemoveListenerCertificates SetRulePriorities"
        " SetWebAcl",
        "*",
    ),
    _allow(
        "iam:CreateServiceLinkedRole",
        "*",
        Condition={"StringEquals": {"iam:AWSServiceName": "elasticloadbalancing.amazonaws.com"}},
    ),
    _allow(
        "ec2:CreateTags",
        "arn:{partition}:ec2:*:*:security-group/*",
        Condition={**_NEW, "StringEquals": {"ec2:CreateAction": "CreateSecurityGroup"}},
    ),
    _allow(
        "ec2:CreateTags DeleteTags", "arn:{partition}:ec2:*:*:security-group/*", Condition=_KEPT
    ),
    _allow(
        "ec2:DeleteSecurityGroup elasticloadbalancing:DeleteLoadBalancer DeleteTargetGroup"
        " ModifyCapacityReservation ModifyIpPools ModifyListenerAttributes"
        " ModifyLoadBalancerAttributes ModifyTargetGroup ModifyTargetGroupAttributes"
        " SetIpAddressType SetSecurityGroups SetSubnets",
        "*",
        Condition=_OWN,
    ),
    _allow("elasticloadbalancing:CreateLoadBalancer CreateTargetGroup", "*", Condition=_NEW),
    _allow("elasticloadbalancing:AddTags RemoveTags", *_TAGGED, Condition=_KEPT),
    _allow(
        "elasticloadbalancing:AddTags",
        *_TAGGED,
        Condition={
            **_NEW,
            "StringEquals": {
                "elasticloadbalancing:CreateAction": ["CreateLoadBalancer", "CreateTargetGroup"]
            },
        },
    ),
    _allow(
        "elasticloadbalancing:AddTags RemoveTags",
        *(_BALANCERS + kind for kind in ("listener/*/*/*", "listener-rule/*/*/*")),
    ),
    _allow(
        "elasticloadbalancing:DeregisterTargets RegisterTargets", f"{_BALANCERS}targetgroup/*/*"
    ),
)

# Needs of add-ons for which EKS's DescribeAddonConfiguration recommends no policy, not enough for
# HyperPod, or far too much; read 2026-11-28. They replace its recommendation. Pages beginning
# sagemaker- and hyperpod- are of the Amazon SageMaker AI Developer Guide.
ADDON_ROLES: Mapping[str, tuple[AddonRole, ...]] = {
    # sagemaker-eks-operator-install.html
    TRAINING_OPERATOR: (
        AddonRole(
            "aws-hyperpod",
            "hp-training-operator-controller-manager",
            ("AmazonSageMakerHyperPodTrainingOperatorAccess",),
        ),
    ),
    # hyperpod-observability-addon-setup.html; the log groups as in
    # github.com/awslabs/awsome-distributed-ai, modules/observability/iam_roles.tf
    OBSERVABILITY: (
        AddonRole(
            "hyperpod-observability",
            "hyperpod-observability-operator-otel-collector",
            statements=(
                _allow("aps:RemoteWrite", "arn:{partition}:aps:{region}:{account}:workspace/*"),
                _allow(
                    "logs:CreateLogGroup CreateLogStream DescribeLogGroups DescribeLogStreams"
                    " FilterLogEvents GetLogEvents GetLogRecord GetQueryResults PutLogEvents"
                    " StartQuery StopQuery",
                    _CLUSTER_LOGS,
                    f"{_CLUSTER_LOGS}:log-stream:*",
                ),
            ),
            one_cluster=True,
        ),
    ),
    # sagemaker-hyperpod-eks-ebs.html
    "aws-ebs-csi-driver": (
        AddonRole(
            "kube-system",
            "ebs-csi-controller-sa",
            ("service-role/AmazonEBSCSIDriverPolicy",),
            (
                _allow(
                    "sagemaker:AttachClusterNodeVolume DetachClusterNodeVolume",
                    "arn:{partition}:sagemaker:{region}:{account}:cluster/*",
                ),
                _allow(
                    "eks:DescribeCluster",
                    "arn:{partition}:eks:{region}:{account}:cluster/{cluster}",
                ),
            ),
        ),
    ),
    # github.com/kubernetes-sigs/aws-fsx-csi-driver, docs/install.md: EKS recommends
    # AmazonFSxFullAccess
    "aws-fsx-csi-driver": (
        AddonRole(
            "kube-system",
            "fsx-csi-controller-sa",
            statements=(
                _allow(
                    "iam:AttachRolePolicy CreateServiceLinkedRole PutRolePolicy",
                    "arn:{partition}:iam::*:role/aws-service-role/"
                    "s3.data-source.lustre.fsx.amazonaws.com/*",
                ),
                _allow(
                    "iam:CreateServiceLinkedRole",
                    "*",
                    Condition={"StringLike": {"iam:AWSServiceName": ["fsx.amazonaws.com"]}},
                ),
                _allow(
                    "fsx:CreateFileSystem DeleteFileSystem DescribeFileSystems TagResource"
                    " UpdateFileSystem",
                    "*",
                ),
                _allow("s3:ListBucket", "*"),
            ),
        ),
    ),
    # github.com/awslabs/mountpoint-s3-csi-driver, docs/install.md
    S3_DRIVER: (
        AddonRole(
            "kube-system",
            "s3-csi-driver-sa",
            statements=(
                _allow("s3:ListBucket", "arn:{partition}:s3:::{bucket}"),
                _allow(
                    "s3:AbortMultipartUpload DeleteObject GetObject PutObject",
                    "arn:{partition}:s3:::{bucket}/*",
                ),
            ),
        ),
    ),
    # Amazon CloudWatch User Guide, install-CloudWatch-Observability-EKS-addon.html
    CLOUDWATCH: (
        AddonRole("amazon-cloudwatch", "cloudwatch-agent", ("CloudWatchAgentServerPolicy",)),
    ),
    # sagemaker-hyperpod-model-deployment-setup.html (read 2026-11-30), whose every role is one of
    # web identity, and sagemaker-hyperpod-model-deployment-ts-trust.html: without it the operator
    # does not start
    INFERENCE: (
        AddonRole(
            "hyperpod-inference-system",
            "hyperpod-inference-controller-manager",
            ("AmazonSageMakerHyperPodInferenceAccess",),
            web=WebIdentity(
                "inference",
                ("executionRoleArn",),
                f"{INFERENCE_PREFIX}-",
                ("sagemaker.amazonaws.com",),
            ),
        ),
        AddonRole(
            "hyperpod-inference-system",
            "aws-load-balancer-controller",
            statements=_LOAD_BALANCER_CONTROLLER,
            web=WebIdentity(
                "inference-balancers",
                ("alb", "serviceAccount", "roleArn"),
                beside={"alb": {"enabled": True, "serviceAccount": {"create": True}}},
            ),
        ),
        AddonRole(
            "hyperpod-inference-system",
            "keda-operator",
            statements=(
                _allow(
                    "cloudwatch:GetMetricData GetMetricStatistics ListMetrics"
                    " aps:GetLabels GetMetricMetadata GetSeries QueryMetrics",
                    "*",
                ),
            ),
            web=WebIdentity(
                "inference-scaling",
                ("keda", "auth", "aws", "irsa", "roleArn"),
                beside={"keda": {"enabled": True, "auth": {"aws": {"irsa": {"enabled": True}}}}},
            ),
        ),
        AddonRole(
            "*",
            "hyperpod-inference-service-account*",
            ("AmazonSageMakerHyperPodGatedModelAccess",),
            web=WebIdentity(
                "inference-gated-models",
                ("jumpstartGatedModelDownloadRoleArn",),
                services=("sagemaker.amazonaws.com",),
            ),
        ),
    ),
}

# Needs of add-ons for which EKS recommends policies, in case that it does not: of Spaces (SageMaker
# developer guide, "SageMaker Spaces add-on", IAM permissions), read 2026-11-28.
RECOMMENDED: Mapping[str, tuple[AddonRole, ...]] = {
    SPACES: (
        AddonRole(
            "jupyter-k8s-system",
            "jupyter-k8s-controller-manager",
            ("AmazonSageMakerSpacesControllerPolicy",),
        ),
        AddonRole(
            "jupyter-k8s-system",
            "jupyter-k8s-authmiddleware",
            ("AmazonSageMakerSpacesRouterPolicy",),
        ),
    ),
}


class Operated(NamedTuple):
    """Objects for which an add-on creates things in AWS, and deletes these with the object only."""

    group: str
    plurals: tuple[str, ...]
    left: str
    """What is left of them once the add-on is gone, in words."""


# What add-ons have to delete before they are deleted themselves.  Amazon SageMaker AI Developer
# Guide, page about troubleshooting the inference operator, "Prevention"; read 2026-11-30.
OPERATED: Mapping[str, Operated] = {
    INFERENCE: Operated(
        "inference.sagemaker.aws.amazon.com",
        ("inferenceendpointconfigs", "jumpstartmodels"),
        "SageMaker endpoints, certificates in ACM and, if the network stays, load balancers",
    ),
}

# Add-ons that others need: EKS installs those anyway, and their pods or objects fail then.  Pages
# sagemaker-eks-operator-install.html and sagemaker-hyperpod-model-deployment-setup.html of the
# Amazon SageMaker AI Developer Guide, and its pages about Spaces, read 2026-11-28.
ADDON_NEEDS: Mapping[str, tuple[str, ...]] = {
    TRAINING_OPERATOR: ("cert-manager",),
    INFERENCE: (S3_DRIVER, "aws-fsx-csi-driver", "metrics-server", "cert-manager"),
    SPACES: ("cert-manager", "aws-ebs-csi-driver"),
}
