"""The bucket in which the inference operator keeps the certificates of its endpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from hyperpod_eks.aws.addon_needs import CERTIFICATES_PREFIX
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.pod_roles import certificate_bucket
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Live, Resource
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.permissions import Statement, Statements
from hyperpod_eks.resources.s3 import CREATE, DELETE, DELETE_OBJECTS, Bucket, tagged_buckets
from hyperpod_eks.resources.tagged import Candidate, Tagged
from hyperpod_eks.workers import gather


@frozen
class CertificateBucket(Bucket):
    """A private bucket: once something is in it, it holds data.

    The operator writes certificates into it, and what endpoints have been asked and have answered
    (SageMaker developer guide, "Setting up your HyperPod clusters for model deployment", and of
    data capture).
    """

    policy: str = "TLS only"

    kind = "s3/CertificateBucket"
    schema = 2
    tag_type = "certificate-bucket"
    keep_group = ""

    @property
    def may_hold_data(self) -> bool:
        """Some do: an empty one does not."""
        return True

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on the bucket's ARN and objects, if it is to be created."""
        if not (name := certificate_bucket(resolved)):
            return
        bucket = resolved.arn("s3", name)
        yield Statement("BucketMake", CREATE, (bucket,))
        yield Statement("BucketDelete", DELETE, (bucket,), command="delete")
        yield Statement("ScriptsDelete", DELETE_OBJECTS, (f"{bucket}/*",), command="delete")

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> CertificateBucket:
        """Declare it with the fields that a delete needs."""
        arn = resolved.arn("s3", found.id)
        return CertificateBucket(found.label, name=found.id, region=resolved.region, arn=arn)

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """Buckets with the operator's prefix, unless the cluster's manifest would know it."""
        if not (cluster and aws.recorded):
            yield from tagged_buckets(aws, f"{CERTIFICATES_PREFIX}-{cluster}", "certificate-bucket")

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by name, and whether it is empty."""
        found, full = gather(
            partial(Bucket.find, self, snapshot), partial(self._holds_any, snapshot)
        )
        data = {"holds_data": True, "held_by": frozenset[str]()} if full else {}
        return [replace(each, **data) for each in found]

    def _holds_any(self, snapshot: Snapshot) -> bool:
        """Whether something is in it: for a delete old versions count, and what nobody may list."""
        s3 = snapshot.aws.s3
        ask = s3.list_object_versions if snapshot.bare else s3.list_objects_v2
        with absent("NoSuchBucket", "404"):
            with absent("403", "AccessDenied"):
                found: JsonMapping = ask(Bucket=self.name, MaxKeys=1)
                return any(found.get(x) for x in ("Contents", "Versions", "DeleteMarkers"))
            return True
        return False

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it, with its objects only if it is known to have some: that was agreed to.

        What has come into an empty one since is kept: S3 refuses the delete (BucketNotEmpty).
        """
        if live.holds_data:
            super().delete(aws, live)
        else:
            aws.s3.delete_bucket(Bucket=self.name)

    def holds(self, live: Live) -> str:
        """Return what it holds."""
        return "certificates of endpoints, and requests that they have captured"
