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
    )
    return LifecycleScripts(
        "scripts",
        bucket=bucket,
        folder=str(resolved.config.lifecycle.path),
        # an adopted bucket may have its own lifecycle/
        prefix=f"hyperpod-eks/{resolved.name}/"
        if "s3/bucket" in resolved.adopted
        else "lifecycle/",
    )
