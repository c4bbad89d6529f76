"""What EKS publishes and nobody can compute: versions, add-ons, access policies; as of 2026-11."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hyperpod_eks.local.kubernetes import Grant

# Amazon EKS User Guide, "Kubernetes version lifecycle", read 2026-11-23: release, end of standard
# support, end of extended support. The days of 1.36 are estimates.
_CALENDAR = {
    "1.36": ("2026-06-02", "2027-08-02", "2028-08-02"),
    "1.35": ("2026-01-28", "2027-03-27", "2028-03-27"),
    "1.34": ("2025-10-02", "2026-12-02", "2027-12-02"),
    "1.33": ("2025-05-29", "2026-07-29", "2027-07-29"),
    "1.32": ("2025-01-23", "2026-03-23", "2027-03-23"),
    "1.31": ("2024-09-26", "2025-11-26", "2026-11-26"),
    "1.30": ("2024-05-23", "2025-07-23", "2026-07-23"),
}
#: The day that decides a version's status: the same whenever the stack runs.
_TODAY = "2026-11-23"
DEFAULT_VERSION = "1.35"


def _day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _version(name: str) -> dict[str, Any]:
    released, standard, extended = _CALENDAR[name]
    status = "STANDARD_SUPPORT" if standard > _TODAY else "EXTENDED_SUPPORT"
    status = status if extended > _TODAY else "UNSUPPORTED"
    return {
        "clusterVersion": name,
        "clusterType": "eks",
        "defaultPlatformVersion": "eks.12",
        "defaultVersion": name == DEFAULT_VERSION,
        "releaseDate": _day(released),
        "endOfStandardSupportDate": _day(standard),
        "endOfExtendedSupportDate": _day(extended),
        "status": status.lower().replace("_", "-"),
        "versionStatus": status,
        "kubernetesPatchVersion": f"{name}.4",
    }


#: ClusterVersionInformation by version, newest first.
VERSIONS = {name: _version(name) for name in _CALENDAR}
CREATABLE = [name for name, one in VERSIONS.items() if one["versionStatus"] != "UNSUPPORTED"]


@dataclass(frozen=True)
class Definition:
    """A kind that an add-on defines: its name and the fields that its spec must have."""

    group: str
    version: str
    kind: str
    required: tuple[str, ...]


@dataclass(frozen=True)
class AddonKind:
    """An add-on: its versions, newest first, and the workload that it puts into the cluster."""

    versions: dict[str, str]
    """By add-on version, the Kubernetes versions that it runs on: from-to, ``1.31-1.36``."""
    default: int
    """Which of the versions for one Kubernetes version is the default: rarely the newest."""
    workload: str
    """Kind, namespace and name: ``DaemonSet/kube-system/aws-node``."""
    type: str = "networking"
    pod_identity: bool = False
    """Whether CreateAddon takes podIdentityAssociations for it (requiresIamPermissions)."""
    recommended: tuple[tuple[str, str], ...] = ()
    """Service accounts, each with the name of a policy that DescribeAddonConfiguration recommends.

    From EKS User Guide, "AWS add-ons" (IAM permissions of each); empty where no page has one.
    """
    needs: str = ""
    """An API group whose kinds the add-on's manifest has, and the add-on that defines them.

    ``cert-manager.io/cert-manager``; empty for none.
    """
    beside: tuple[str, ...] = ()
    """Further add-ons without which it fails."""
    defines: tuple[Definition, ...] = ()
    """Kinds that it defines, and that last longer than it."""

    def for_kubernetes(self, version: str) -> list[str]:
        """Return the versions for a Kubernetes version, newest first."""
        return [name for name, span in self.versions.items() if _within(version, span)]


def _within(version: str, span: str) -> bool:
    first, last = span.split("-")
    return _minor(first) <= _minor(version) <= _minor(last)


def _minor(version: str) -> int:
    return int(version.split(".")[1])


# Plausible versions: DescribeAddonVersions is the truth, and clients must ask it.
ADDONS = {
    "vpc-cni": AddonKind(
        {
            "v1.21.1-eksbuild.1": "1.31-1.36",
            "v1.20.5-eksbuild.1": "1.31-1.36",
            "v1.19.6-eksbuild.7": "1.31-1.36",
            "v1.18.6-eksbuild.1": "1.31-1.36",
            "v1.18.2-eksbuild.1": "1.31-1.35",  # older than HyperPod takes
        },
        1,
        "DaemonSet/kube-system/aws-node",
        pod_identity=True,
        recommended=(("aws-node", "AmazonEKS_CNI_Policy"),),
    ),
    "kube-proxy": AddonKind(
        {
            f"v1.{minor}.{patch}-eksbuild.2": f"1.{minor}-1.{minor}"
            for minor in range(36, 30, -1)
            for patch in (4, 2)
        },
        1,
        "DaemonSet/kube-system/kube-proxy",
    ),
    "coredns": AddonKind(
        {
            "v1.13.1-eksbuild.1": "1.34-1.36",
            "v1.12.4-eksbuild.1": "1.33-1.36",
            "v1.11.4-eksbuild.24": "1.31-1.34",
            "v1.11.3-eksbuild.2": "1.31-1.33",
        },
        1,
        "Deployment/kube-system/coredns",
    ),
    "eks-pod-identity-agent": AddonKind(
        {"v1.4.0-eksbuild.1": "1.31-1.36", "v1.3.10-eksbuild.1": "1.31-1.36"},
        0,
        "DaemonSet/kube-system/eks-pod-identity-agent",
        "security",
    ),
    "aws-fsx-csi-driver": AddonKind(
        {"v1.10.0-eksbuild.1": "1.31-1.36"},
        0,
        "Deployment/kube-system/fsx-csi-controller",
        "storage",
        pod_identity=True,
        recommended=(("fsx-csi-controller-sa", "AmazonFSxFullAccess"),),
    ),
    "aws-mountpoint-s3-csi-driver": AddonKind(
        {"v2.8.0-eksbuild.1": "1.31-1.36"},
        0,
        "Deployment/kube-system/s3-csi-controller",
        "storage",
        pod_identity=True,
    ),
    "aws-ebs-csi-driver": AddonKind(
        {"v1.64.0-eksbuild.1": "1.31-1.36"},
        0,
        "Deployment/kube-system/ebs-csi-controller",
        "storage",
        pod_identity=True,
        recommended=(("ebs-csi-controller-sa", "service-role/AmazonEBSCSIDriverPolicy"),),
    ),
    "aws-efs-csi-driver": AddonKind(
        {"v2.1.13-eksbuild.1": "1.31-1.36"},
        0,
        "Deployment/kube-system/efs-csi-controller",
        "storage",
        pod_identity=True,
        recommended=(("efs-csi-controller-sa", "service-role/AmazonEFSCSIDriverPolicy"),),
    ),
    "metrics-server": AddonKind(
        {"v0.8.0-eksbuild.3": "1.31-1.36"},
        0,
        "Deployment/kube-system/metrics-server",
        "observability",
    ),
    "cert-manager": AddonKind(
        {"v1.18.2-eksbuild.2": "1.31-1.36"},
        0,
        "Deployment/cert-manager/cert-manager",
        "security",
    ),
    "amazon-cloudwatch-observability": AddonKind(
        {"v4.4.0-eksbuild.1": "1.31-1.36"},
        0,
        "Deployment/amazon-cloudwatch/amazon-cloudwatch-observability-controller-manager",
        "observability",
        pod_identity=True,
        recommended=(
            ("cloudwatch-agent", "AWSXrayWriteOnlyAccess"),
            ("cloudwatch-agent", "CloudWatchAgentServerPolicy"),
        ),
    ),
    "amazon-sagemaker-hyperpod-taskgovernance": AddonKind(
        {
            "v1.6.1-eksbuild.1": "1.31-1.36",
            "v1.6.0-eksbuild.1": "1.31-1.36",
            "v1.5.0-eksbuild.1": "1.31-1.36",
            "v1.3.0-eksbuild.1": "1.31-1.35",
        },
        0,
        "Deployment/kueue-system/kueue-controller-manager",
        "machine-learning",
    ),
    "amazon-sagemaker-hyperpod-training-operator": AddonKind(
        {"v1.3.0-eksbuild.1": "1.31-1.36", "v1.2.1-eksbuild.1": "1.31-1.35"},
        0,
        "Deployment/aws-hyperpod/hp-training-operator-hp-training-controller-manager",
        "machine-learning",
        needs="cert-manager.io/cert-manager",
        defines=(
            # github.com/aws/sagemaker-hyperpod-cli, hyperpod_pytorch_job_unified_config.py
            Definition("sagemaker.amazonaws.com", "v1", "HyperPodPyTorchJob", ("replicaSpecs",)),
        ),
    ),
    "amazon-sagemaker-hyperpod-observability": AddonKind(
        {"v1.2.0-eksbuild.3": "1.32-1.37"},
        0,
        "Deployment/hyperpod-observability/hyperpod-observability-central-collector",
        "observability",
        pod_identity=True,
    ),
    "amazon-sagemaker-spaces": AddonKind(
        {"v0.2.1-eksbuild.1": "1.31-1.36"},
        0,
        "Deployment/jupyter-k8s-system/jupyter-k8s-controller-manager",
        "machine-learning",
        pod_identity=True,
        recommended=(
            ("jupyter-k8s-controller-manager", "AmazonSageMakerSpacesControllerPolicy"),
            ("jupyter-k8s-authmiddleware", "AmazonSageMakerSpacesRouterPolicy"),
        ),
        needs="cert-manager.io/cert-manager",
        defines=(
            # github.com/jupyter-infra/jupyter-k8s, api/v1alpha1/workspace_types.go
            Definition("workspace.jupyter.org", "v1alpha1", "Workspace", ("displayName",)),
        ),
    ),
    "amazon-sagemaker-hyperpod-inference": AddonKind(
        {"v2.1.0-eksbuild.1": "1.32-1.37"},
        0,
        "Deployment/hyperpod-inference-system/hyperpod-inference-controller-manager",
        "machine-learning",
        needs="cert-manager.io/cert-manager",
        beside=("aws-mountpoint-s3-csi-driver", "aws-fsx-csi-driver", "metrics-server"),
        defines=(
            # github.com/aws/sagemaker-hyperpod-cli, charts/inference-operator/config/crd
            Definition(
                "inference.sagemaker.aws.amazon.com",
                "v1",
                "InferenceEndpointConfig",
                ("modelName", "modelSourceConfig", "worker"),
            ),
        ),
    ),
}

#: Settings that add-ons take, with their types: the first level of what DescribeAddonConfiguration
#: answers, as public output of it shows (AWS Containers Blog, "Amazon EKS add-ons: Advanced
#: configuration"; aws/amazon-vpc-cni-k8s#2272; "Recent changes to the CoreDNS add-on").  Those of
#: other add-ons are not public in full: they take every setting here.
SETTINGS: dict[str, dict[str, str]] = {
    "amazon-sagemaker-hyperpod-taskgovernance": {},  # a public answer of it
    "coredns": {
        "affinity": "object",
        "autoScaling": "object",
        "computeType": "string",
        "corefile": "string",
        "nodeSelector": "object",
        "podAnnotations": "object",
        "podDisruptionBudget": "object",
        "podLabels": "object",
        "replicaCount": "integer",
        "resources": "object",
        "tolerations": "array",
        "topologySpreadConstraints": "array",
    },
    "kube-proxy": {
        "ipvs": "object",
        "mode": "string",
        "nodeSelector": "object",
        "podAnnotations": "object",
        "podLabels": "object",
        "resources": "object",
        "tolerations": "array",
    },
    "vpc-cni": {
        "affinity": "object",
        "enableNetworkPolicy": "string",
        "enableWindowsIpam": "string",
        "enableWindowsPrefixDelegation": "string",
        "env": "object",
        "eniConfig": "object",
        "init": "object",
        "livenessProbeTimeoutSeconds": "integer",
        "nodeAgent": "object",
        "nodeSelector": "object",
        "originalMatchLabels": "boolean",
        "podAnnotations": "object",
        "podLabels": "object",
        "readinessProbeTimeoutSeconds": "integer",
        "resources": "object",
        "tolerations": "array",
    },
}

_POLICY = "arn:aws:eks::aws:cluster-access-policy/"
_RBAC = "rbac.authorization.k8s.io"
_JOBS = ("", "batch", "kubeflow.org", "sagemaker.amazonaws.com", "kueue.x-k8s.io")
_MODELS = ("", "inference.sagemaker.aws.amazon.com")
_SPACES = ("", "workspace.jupyter.org")
_READS = Grant(writes=False)
#: What an access policy allows, by name (EKS User Guide, "Review access policy permissions"; of
#: HyperPod's, SageMaker developer guide, "Set up permissions for data scientists": that page lists
#: kinds one by one, here their API groups are allowed as a whole).
GRANTS: dict[str, tuple[Grant, ...]] = {
    "AmazonEKSClusterAdminPolicy": (Grant(),),
    "AmazonEKSAdminPolicy": (Grant(clusterwide=False),),
    "AmazonEKSAdminViewPolicy": (_READS,),
    "AmazonEKSEditPolicy": (Grant(clusterwide=False, hidden=(_RBAC,)),),
    "AmazonEKSViewPolicy": (Grant(writes=False, clusterwide=False, hidden=("secrets", _RBAC)),),
    "AmazonSagemakerHyperpodClusterPolicy": (Grant(),),
    "AmazonSagemakerHyperpodSystemNamespacePolicy": (Grant(),),
    "AmazonSagemakerHyperpodUserClusterPolicy": (_READS,),
    "AmazonSagemakerHyperpodTrainingPolicy": (
        Grant(clusterwide=False, groups=_JOBS, hidden=("secrets",)),
    ),
    "AmazonSagemakerHyperpodInferencePolicy": (
        Grant(clusterwide=False, groups=_MODELS, hidden=("secrets",)),
    ),
    "AmazonSagemakerHyperpodSpacePolicy": (
        Grant(clusterwide=False, groups=_SPACES, hidden=("secrets",)),
    ),
    "AmazonSagemakerHyperpodSpaceTemplatePolicy": (Grant(clusterwide=False, groups=_SPACES[1:]),),
    "AmazonSagemakerHyperpodInferenceMonitoringPolicy": (_READS,),
}
ACCESS_POLICIES = {name: _POLICY + name for name in GRANTS}
ADMIN_POLICY = ACCESS_POLICIES["AmazonEKSClusterAdminPolicy"]
HYPERPOD_POLICY = ACCESS_POLICIES["AmazonSagemakerHyperpodClusterPolicy"]
