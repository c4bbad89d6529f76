"""The image of level 2, from the registry of EKS in the region, which closed networks reach."""

from __future__ import annotations

from hyperpod_eks.errors import Usage

ACCOUNT = "602401143452"
OTHERS = {
    "af-south-1": "877085696533",
    "ap-east-1": "800184023465",
    "ap-south-2": "900889452093",
    "ap-southeast-3": "296578399912",
    "ap-southeast-4": "491585149902",
    "ap-southeast-5": "151610086707",
    "ap-southeast-7": "121268973566",
    "ca-west-1": "761377655185",
    "eu-central-2": "900612956339",
    "eu-south-1": "590381155156",
    "eu-south-2": "455263428931",
    "il-central-1": "066635153087",
    "me-central-1": "759879836304",
    "me-south-1": "558608220178",
}
"""The accounts of the registries, by region, where they differ from `ACCOUNT`.

Amazon EKS User Guide, "View Amazon container image registries for Amazon EKS add-ons", read
2026-11-30.  Interface endpoints of ECR reach them, but not public.ecr.aws.
"""
REPOSITORY = "eks/aws-efs-csi-driver:v2.0.0"
"""An image with Python, which its mount helper needs (kubernetes-sigs/aws-efs-csi-driver,
Dockerfile and deploy/kubernetes/overlays/stable/ecr).
"""


def usual(region: str) -> str:
    """Return the image of a region.  Raises Usage where EKS has another kind of registry."""
    if region.startswith(("cn-", "us-gov-")):
        raise Usage(f"no image is known for {region}", "Pass one with Python: --image IMAGE.")
    return f"{OTHERS.get(region, ACCOUNT)}.dkr.ecr.{region}.amazonaws.com/{REPOSITORY}"
