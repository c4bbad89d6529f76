"""The images of the levels.

That of level 2 is in the registry of EKS in the region, which closed networks reach; those of level
3 are on the internet: `mirror` copies those that a cluster needs.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyperpod_eks.config.model import Config
from hyperpod_eks.errors import Usage
from hyperpod_eks.resources.hyperpod.devices import ACCELERATED

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


NCCL_IMAGE = (
    "public.ecr.aws/hpc-cloud/nccl-tests:cuda13.0.2-efa1.48.0-ofiv1.19.0-ncclv2.30.4-1-testsv2.18.3"
)
"""The image of github.com/awslabs/awsome-distributed-ai, micro-benchmarks/nccl-tests."""
NEURON_IMAGE = (
    "public.ecr.aws/neuron/pytorch-training-neuronx:2.5.1-neuronx-py310-sdk2.21.0-ubuntu22.04"
)
"""An AWS Neuron Deep Learning Container, which has nccom-test."""


def of_accelerators(config: Config) -> Iterator[str]:
    """Yield the images of level 3 for the groups of a config that have two nodes."""
    kinds = {g.instance_type or "" for g in config.instance_groups if g.instance_count >= 2}
    for image, neuron in ((NCCL_IMAGE, False), (NEURON_IMAGE, True)):
        if any(
            ACCELERATED.match(x) and x.startswith(("ml.trn", "ml.inf")) == neuron for x in kinds
        ):
            yield image
