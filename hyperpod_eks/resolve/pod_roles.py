"""The roles to create for pods: those of add-ons, and those of the config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hyperpod_eks.aws.addon_needs import (
    ADDON_ROLES,
    CERTIFICATES_PREFIX,
    INFERENCE,
    RECOMMENDED,
    AddonRole,
    WebIdentity,
)
from hyperpod_eks.aws.tags import CLUSTER
from hyperpod_eks.config.addons import NEEDED_ADDONS, Addon
from hyperpod_eks.config.rules import get
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.names import fit

if TYPE_CHECKING:
    from hyperpod_eks.resolve.resolved import ResolvedConfig


@frozen
class AddonAnswer:
    """What EKS answers about an add-on's service accounts."""

    namespace: str = ""
    """Namespace of the add-on; empty if EKS does not say it."""
    standalone: bool = False
    """Whether its version does not accept pod identities itself."""
    roles: tuple[AddonRole, ...] = ()
    """What its roles need, if the tool decides about them."""
    unknown: str = ""
    """Why that is not known; empty if it is."""


@frozen
class PodRole:
    """A role to create for the pods of one service account."""

    namespace: str
    account: str
    managed: tuple[str, ...]
    """ARNs of existing policies."""
    statements: tuple[JsonMapping, ...] = ()
    """Permissions beyond those, for a policy of its own."""
    one_cluster: bool = False
    """Whether its trust policy names the EKS cluster."""
    web: WebIdentity | None = None
    """How it is assumed, if not by EKS Pod Identity."""

    @property
    def label(self) -> str:
        """Namespace and service account, in at most 240 characters: a tag has room for 256."""
        if self.web:
            return self.web.label
        return fit(f"{self.namespace}/{self.account}", 240)

    def name(self, resolved: ResolvedConfig) -> str:
        """Return the name of the role and of its policy; unique, for a namespace has no dot."""
        if self.web:
            return fit(f"{self.web.prefix}{resolved.name}-{self.label}-{resolved.region}", 64)
        return resolved.iam_name(f"{self.namespace}.{self.account}")

    def role_arn(self, resolved: ResolvedConfig) -> str:
        """Return the ARN that the role will have."""
        return resolved.arn("iam", f"role{resolved.config.iam.path}{self.name(resolved)}")


def pod_roles(resolved: ResolvedConfig) -> tuple[PodRole, ...]:
    """Return every role to create for pods."""
    addons = [one for name in resolved.config.asked_addons() for one in addon_roles(resolved, name)]
    return (*addons, *workload_roles(resolved))


def workload_roles(resolved: ResolvedConfig) -> Iterator[PodRole]:
    """Yield the roles to create for the service accounts under ``pod_identity``."""
    for each in resolved.config.pod_identity:
        if each.role_arn is None:
            yield PodRole(each.namespace, each.service_account, each.policies, each.statements)


def creates_roles(name: str, addon: Addon) -> bool:
    """Whether the tool decides about an add-on's roles."""
    return addon.pod_identity_associations is None and name not in NEEDED_ADDONS


def addon_roles(resolved: ResolvedConfig, name: str) -> Iterator[PodRole]:
    """Yield the roles to create for an add-on; none for one that is adopted.

    What EKS recommends is known only if it was asked (`resolve.versions`); the needs that are
    published on pages are always known.
    """
    addon = resolved.config.asked_addons().get(name)
    if addon is None or not creates_roles(name, addon) or f"addons/{name}" in resolved.adopted:
        return
    answer = resolved.addons.get(name)
    for one in answer.roles if answer else published(name, addon):
        if one.web and get(addon.configuration_values, *one.web.setting):
            continue  # the config's own role
        yield PodRole(
            (answer.namespace if answer and not one.web else "") or one.namespace or "kube-system",
            one.account,
            tuple(_policy(resolved, each) for each in one.managed),
            (
                *(
                    _narrowed(resolved, _statement(resolved, each, addon.buckets))
                    for each in one.statements
                ),
                *(_key_statements(volume_keys(resolved)) if name == EBS_DRIVER else ()),
                *(_passes(resolved, one.web.prefix) if one.web and one.web.prefix else ()),
            ),
            one.one_cluster,
            one.web,
        )


def _passes(resolved: ResolvedConfig, prefix: str) -> Iterator[JsonObject]:
    """Let a role be passed to SageMaker although it has a path.

    AmazonSageMakerHyperPodInferenceAccess allows that of roles without a path only.
    """
    if (path := resolved.config.iam.path) != "/":
        yield {
            "Effect": "Allow",
            "Action": ["iam:PassRole"],
            "Resource": [resolved.arn("iam", f"role{path}{prefix}*")],
            "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        }


def certificate_bucket(resolved: ResolvedConfig) -> str:
    """Return the name of the bucket to create for the inference operator; "" for none."""
    addon = resolved.config.asked_addons().get(INFERENCE)
    theirs = addon is None or f"addons/{INFERENCE}" in resolved.adopted
    if theirs or get(addon and addon.configuration_values, "tlsCertificateS3Bucket"):
        return ""
    whose = f"{resolved.name}-{resolved.identity.account}-{resolved.region}"
    return fit(f"{CERTIFICATES_PREFIX}-{whose}", 63)


EBS_DRIVER = "aws-ebs-csi-driver"


def volume_keys(resolved: ResolvedConfig) -> list[str]:
    """Return the ARNs of the KMS keys of declared classes of EBS volumes."""
    classes = [each for each in resolved.config.objects if each.get("kind") == "StorageClass"]
    keys = {
        str(get(each.get("parameters"), "kmsKeyId") or "")
        for each in classes
        if each.get("provisioner") == "ebs.csi.aws.com"
    }
    return sorted(key for key in keys if key.startswith("arn:"))


def _key_statements(keys: Sequence[str]) -> Iterator[JsonObject]:
    """Yield what the driver needs for volumes with keys of yours.

    EKS User Guide, "Use Kubernetes volume storage with Amazon EBS", step about a custom KMS key.
    """
    if not keys:
        return
    grants = ["kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant"]
    uses = [f"kms:{each}" for each in ("Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey*")]
    yield {
        "Effect": "Allow",
        "Action": grants,
        "Resource": [*keys],
        "Condition": {"Bool": {"kms:GrantIsForAWSResource": "true"}},
    }
    yield {"Effect": "Allow", "Action": [*uses, "kms:ReEncrypt*"], "Resource": [*keys]}


def published(name: str, addon: Addon) -> tuple[AddonRole, ...]:
    """Return the published needs of an add-on; empty for no such row, or without its buckets."""
    if name in RECOMMENDED:
        return RECOMMENDED[name]
    rows = ADDON_ROLES.get(name, ())
    return () if any(row.by_bucket for row in rows) and not addon.buckets else rows


def _narrowed(resolved: ResolvedConfig, statement: JsonObject) -> JsonObject:
    """Let metrics be written to the cluster's workspace only, if the config says which it is."""
    config = resolved.config
    if statement["Action"] != ["aps:RemoteWrite"] or config.monitoring != "prometheus":
        return statement
    if arn := config.prometheus.workspace_arn:
        return {**statement, "Resource": [arn]}
    ours = {"StringEquals": {f"aws:ResourceTag/{CLUSTER}": resolved.name}}
    return {**statement, "Condition": ours}


def _policy(resolved: ResolvedConfig, policy: str) -> str:
    """Return the ARN of a policy: EKS answers ARNs, and the table has AWS's own by name."""
    return policy if policy.startswith("arn:") else resolved.managed_policy(policy)


def _statement(
    resolved: ResolvedConfig, statement: JsonMapping, buckets: Sequence[str]
) -> JsonObject:
    """Fill in the resources of a statement, for each bucket if they are a bucket's."""
    names = {
        "partition": resolved.identity.partition,
        "region": resolved.region,
        "account": resolved.identity.account,
        "cluster": resolved.eks_name,
    }
    resources = [
        pattern.format(**names, bucket=bucket)
        for pattern in statement["Resource"]
        for bucket in (buckets if "{bucket}" in pattern else ("",))
    ]
    return {**statement, "Resource": resources}
