"""The S3 step: the bucket of the lifecycle scripts, and the scripts."""

from __future__ import annotations

from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.s3 import Bucket, LifecycleScripts


def step(resolved: ResolvedConfig) -> LifecycleScripts:
    """Declare the bucket and the scripts."""
    bucket = Bucket(
        "bucket",
        name=resolved.bucket,
        region=resolved.region,
        arn=resolved.arn("s3", resolved.bucket),
        encryption=resolved.config.encryption.bucket or "AES256",
        nodes=_nodes(resolved),
    )
    return LifecycleScripts(
        "scripts",
        bucket=bucket,
        folder=str(resolved.config.lifecycle.path),
        prefix=scripts_prefix(resolved),
    )


def scripts_prefix(resolved: ResolvedConfig) -> str:
    """Return the prefix of the scripts; an adopted bucket may have its own ``lifecycle/``."""
    return f"hyperpod-eks/{resolved.name}/" if "s3/bucket" in resolved.adopted else "lifecycle/"


def _nodes(resolved: ResolvedConfig) -> tuple[str, str]:
    """Return patterns of the ARN of the nodes' role; the path of an adopted one is not known."""
    name = resolved.iam_name("hyperpod", "iam/execution-role")
    return resolved.arn("iam", f"role/{name}"), resolved.arn("iam", f"role/*/{name}")
