"""S3 whose new buckets are private, encrypted and owner-enforced, as AWS makes them since 2023."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.sax.saxutils import unescape

import moto.s3.urls
from moto.s3.models import (
    FakeBucket,
    FakeDeleteMarker,
    FakeKey,
    PublicAccessBlock,
    S3Backend,
    s3_backends,
)
from moto.s3.responses import S3Response

from hyperpod_eks.local.aws import plugin


def _encryption() -> dict[str, Any]:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    return {"Rule": {**rule, "BucketKeyEnabled": "false"}}


class Bucket(FakeBucket):
    """moto's bucket, whose policy's TLS conditions hold: moto knows no conditions at all."""

    def get_permission(self, action: str, resource: str) -> Any:
        """Judge a call as one that came over TLS: what is denied only to plain HTTP is allowed."""
        policy = json.loads(self.policy) if self.policy else {"Statement": []}
        plain = {"Bool": {"aws:SecureTransport": "false"}}
        listed = policy["Statement"]
        statements = listed if isinstance(listed, list) else [listed]
        left = [each for each in statements if each.get("Condition") != plain]
        whole, self.policy = self.policy, json.dumps({**policy, "Statement": left}).encode()
        try:
            return super().get_permission(action, resource)
        finally:
            self.policy = whole


class Backend(S3Backend):
    """moto's S3 with the settings of a new bucket."""

    _url_module = plugin.url_module("s3")

    def create_bucket(self, *args: Any, **kwargs: Any) -> FakeBucket:
        """Give the bucket SSE-S3, a full public access block and BucketOwnerEnforced."""
        bucket = super().create_bucket(*args, **kwargs)
        bucket.__class__ = Bucket  # type: ignore[type-abstract]  # in CloudFormation's part only
        bucket.encryption = _encryption()
        bucket.public_access_block = PublicAccessBlock("true", "true", "true", "true")
        bucket.ownership_rule = "BucketOwnerEnforced"  # type: ignore[assignment]  # moto says dict
        return bucket

    def put_object(self, *args: Any, **kwargs: Any) -> FakeKey:
        """Give what is encrypted with a KMS key an ETag that is no MD5 (S3 API, "Object")."""
        key = super().put_object(*args, **kwargs)
        if key.encryption == "aws:kms":
            key._etag = key.etag.strip('"')[::-1]
        return key

    def delete_bucket_encryption(self, bucket_name: str) -> None:
        """Go back to SSE-S3: a bucket is never without."""
        self.get_bucket(bucket_name).encryption = _encryption()


class Response(S3Response):
    """moto's answers, and the tags that a bucket may be born with."""

    def _bucket_response_put(self, request: Any, bucket_name: str, querystring: Any) -> Any:
        answer = super()._bucket_response_put(request, bucket_name, querystring)
        if not querystring and (tags := _TAG.findall(self.body.decode())):  # of CreateBucket
            pairs = {unescape(key): unescape(value) for key, value in tags}
            self.backend.put_bucket_tagging(bucket_name, pairs)
        return answer


_TAG = re.compile("<Tag><Key>(.*?)</Key><Value>(.*?)</Value></Tag>", re.DOTALL)


def install() -> None:
    """Swap moto's S3 classes for ours."""
    plugin.backend(s3_backends, Backend)
    FakeKey.__del__ = FakeKey.dispose  # type: ignore[method-assign]  # moto's warns of the same
    for path, dispatch in moto.s3.urls.url_paths.items():
        moto.s3.urls.url_paths[path] = getattr(Response, dispatch.__name__)


def inventory(account: str, region: str) -> dict[str, Any]:
    """Return every bucket with its settings and object versions; ``region`` does not matter."""
    s3 = s3_backends[account]["aws"]
    return {
        bucket.name: {
            "Region": bucket.region_name,
            "Encryption": bucket.encryption,
            "PublicAccessBlock": bucket.public_access_block
            and bucket.public_access_block.to_config_dict(),
            "Ownership": bucket.ownership_rule,
            "Versioning": bucket.versioning_status,
            "Policy": bucket.policy and bucket.policy.decode(),
            "Tags": s3.tagger.get_tag_dict_for_resource(bucket.arn),
            "Uploads": sorted(bucket.multiparts),
            "Objects": {
                name: [_version(version) for version in versions]
                for name, versions in sorted(bucket.keys.lists())
            },
        }
        for bucket in s3.buckets.values()
    }


def _version(version: Any) -> str:
    if isinstance(version, FakeDeleteMarker):
        return f"{version.version_id} deleted"
    return f"{version.version_id} {version.etag} {version.size}"
