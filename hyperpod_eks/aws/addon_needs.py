"""What add-ons need: roles, policies and other add-ons, as AWS publishes it on pages only.

Each table names its pages and the day they were read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hyperpod_eks.documents import JsonMapping


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

    @property
    def by_bucket(self) -> bool:
        """Whether it needs to know buckets."""
        return any("{bucket}" in each for one in self.statements for each in one["Resource"])


def _allow(actions: str, *resources: str, **more: JsonMapping) -> JsonMapping:
    """Return a statement; ``actions`` are names of one service, which begins them."""
    service, _, names = actions.partition(":")
    listed = [f"{service}:{name}" for name in names.split()]
    return {"Effect": "Allow", "Action": listed, "Resource": list(resources), **more}


S3_DRIVER = "aws-mountpoint-s3-csi-driver"
CLOUDWATCH = "amazon-cloudwatch-observability"
OBSERVABILITY = "amazon-sagemaker-hyperpod-observability"
INFERENCE = "amazon-sagemaker-hyperpod-inference"
SPACES = "amazon-sagemaker-spaces"
TRAINING_OPERATOR = "amazon-sagemaker-hyperpod-training-operator"
_CLUSTER_LOGS = "arn:{partition}:logs:{region}:{account}:log-group:/aws/sagemaker/Clusters/*"

# Needs of add-ons for which EKS's DescribeAddonConfiguration recommends no policy, not enough for
# HyperPod, or far too much; read 2026-11-28. They replace its recommendation. Pages beginning
# sagemaker- and hyperpod- are of the Amazon SageMaker AI Developer Guide.
ADDON_ROLES: Mapping[str, AddonRole] = {
    # sagemaker-eks-operator-install.html
    TRAINING_OPERATOR: AddonRole(
        "aws-hyperpod",
        "hp-training-operator-controller-manager",
        ("AmazonSageMakerHyperPodTrainingOperatorAccess",),
    ),
    # hyperpod-observability-addon-setup.html; the log groups as in
    # github.com/awslabs/awsome-distributed-ai, modules/observability/iam_roles.tf
    OBSERVABILITY: AddonRole(
        "hyperpod-observability",
        "hyperpod-observability-operator-otel-collector",
        statements=(
            _allow("aps:RemoteWrite", "arn:{partition}:aps:{region}:{account}:workspace/*"),
            _allow(
                "logs:CreateLogGroup CreateLogStream DescribeLogGroups DescribeLogStreams"
                " FilterLogEvents GetLogEvents GetLogRecord GetQueryResults PutLogEvents StartQuery"
                " StopQuery",
                _CLUSTER_LOGS,
                f"{_CLUSTER_LOGS}:log-stream:*",
            ),
        ),
        one_cluster=True,
    ),
    # sagemaker-hyperpod-eks-ebs.html
    "aws-ebs-csi-driver": AddonRole(
        "kube-system",
        "ebs-csi-controller-sa",
        ("service-role/AmazonEBSCSIDriverPolicy",),
        (
            _allow(
                "sagemaker:AttachClusterNodeVolume DetachClusterNodeVolume",
                "arn:{partition}:sagemaker:{region}:{account}:cluster/*",
            ),
            _allow(
                "eks:DescribeCluster", "arn:{partition}:eks:{region}:{account}:cluster/{cluster}"
            ),
        ),
    ),
    # github.com/kubernetes-sigs/aws-fsx-csi-driver, docs/install.md: EKS recommends
    # AmazonFSxFullAccess
    "aws-fsx-csi-driver": AddonRole(
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
    # github.com/awslabs/mountpoint-s3-csi-driver, docs/install.md
    S3_DRIVER: AddonRole(
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
    # Amazon CloudWatch User Guide, install-CloudWatch-Observability-EKS-addon.html
    CLOUDWATCH: AddonRole(
        "amazon-cloudwatch", "cloudwatch-agent", ("CloudWatchAgentServerPolicy",)
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

# Add-ons that others need: EKS installs those anyway, and their pods or objects fail then.  Pages
# sagemaker-eks-operator-install.html and sagemaker-hyperpod-model-deployment-setup.html of the
# Amazon SageMaker AI Developer Guide, and its pages about Spaces, read 2026-11-28.
ADDON_NEEDS: Mapping[str, tuple[str, ...]] = {
    TRAINING_OPERATOR: ("cert-manager",),
    INFERENCE: (S3_DRIVER, "aws-fsx-csi-driver", "metrics-server", "cert-manager"),
    SPACES: ("cert-manager", "aws-ebs-csi-driver"),
}
