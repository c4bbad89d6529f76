"""The bucket that HyperPod reads its lifecycle scripts from, and the scripts in it."""

from __future__ import annotations

from hyperpod_eks.resolve.site import Site
from hyperpod_eks.resources.s3 import Bucket, Scripts


def step(site: Site) -> Scripts:
    """Declare the bucket and its content."""
    bucket = Bucket(
        "bucket",
        name=site.bucket,
        region=site.region,
        arn=site.arn("s3", site.bucket),
        encryption=site.config.encryption.bucket or "AES256",
    )
    return Scripts(
        "scripts",
        bucket=bucket,
        folder=str(site.config.lifecycle.path),
        # somebody's bucket may have a lifecycle/ of its own
        prefix=f"hyperpod-eks/{site.name}/" if "s3/bucket" in site.adopted else "lifecycle/",
    )
