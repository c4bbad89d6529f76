"""Names that derive from the name of the cluster."""

from __future__ import annotations

import hashlib
import re

from hyperpod_eks.aws.client import Identity

PRIVATE_SUBNET = "private-subnet-"
PUBLIC_SUBNET = "public-subnet-"
NODE_SUBNET = "node-subnet-"


def fit(name: str, length: int) -> str:
    """Shorten a name to ``length`` characters so that different names stay different.

    >>> fit("demo-eks", 64)
    'demo-eks'
    >>> fit("a" * 70, 64)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-6bd5e5'
    """
    if len(name) <= length:
        return name
    return f"{name[: length - 7]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def iam_name(cluster: str, purpose: str, region: str) -> str:
    """Return the name of a role or policy; IAM is global, so it includes the region."""
    return fit(f"{cluster}-{purpose}-{region}", 64)


def lineage(identity: Identity, cluster: str) -> str:
    """Derive the lineage, the owner in all tags, from account, region and cluster name.

    EKS and HyperPod allow one cluster of a name in a region, so that the name identifies it.
    Because the lineage is derived, it survives the loss of the manifest.
    """
    seed = f"{identity.partition}:{identity.account}:{identity.region}:{cluster}"
    return hashlib.sha256(seed.encode()).hexdigest()[:16]


def image_prefix(cluster: str) -> str:
    """Return the first part of the names of a cluster's ECR repositories.

    ECR allows lowercase only, and no two hyphens in a row (CreateRepository, repositoryName).

    >>> image_prefix("Team--A")
    'team-a'
    """
    return re.sub("-+", "-", cluster.lower())
