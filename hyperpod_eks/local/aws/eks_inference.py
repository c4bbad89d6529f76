"""What the HyperPod inference operator looks at as its add-on is installed."""

from __future__ import annotations

from typing import Any

import yaml

from hyperpod_eks.local.aws import roles
from hyperpod_eks.local.aws.eks_model import Cluster

ACCOUNT_OF_PODS = "system:serviceaccount:hyperpod-inference-system:"
#: The service account of each role: where the settings name it, and whether they must.
_ROLES = (
    (("executionRoleArn",), "hyperpod-inference-controller-manager", True),
    (("alb", "serviceAccount", "roleArn"), "aws-load-balancer-controller", False),
    (("keda", "auth", "aws", "irsa", "roleArn"), "keda-operator", False),
)


def refusal(cluster: Cluster, text: str) -> tuple[str, str]:
    """Return the code and text of an issue of the add-on with these settings; empty for none.

    Its chart refuses settings without the role, whose name must begin as
    AmazonSageMakerHyperPodInferenceAccess says, without the bucket or the cluster
    (github.com/aws/sagemaker-hyperpod-cli, inference-operator/templates/_validateRequiredValues.tpl
    and values.yaml).  Its pods do not start if their tokens do not let them assume the roles
    (SageMaker developer guide, "IAM trust relationship issue"); the codes are ours.
    """
    settings: dict[str, Any] = yaml.safe_load(text) or {}
    for name in ("executionRoleArn", "tlsCertificateS3Bucket", "hyperpodClusterArn"):
        if not settings.get(name):
            return "ConfigurationConflict", f"{name} must be set"
    if not settings["executionRoleArn"].split("/")[-1].startswith("SageMakerHyperPodInference"):
        why = "executionRoleArn must have a role name with prefix 'SageMakerHyperPodInference'"
        return "ConfigurationConflict", why
    issuer = cluster.document["identity"]["oidc"]["issuer"]
    for path, account, needed in _ROLES:
        arn: Any = settings
        for name in path:
            arn = arn.get(name, {}) if isinstance(arn, dict) else {}
        if not arn and not needed:
            continue
        role = roles.find(str(arn))
        if role is None or not roles.trusts_token(role, issuer, ACCOUNT_OF_PODS + account):
            why = f"{arn}: Not authorized to perform sts:AssumeRoleWithWebIdentity"
            return "AddonPermissionFailure", why
    return "", ""
