"""S3 whose new buckets are private, encrypted and owner-enforced, as AWS makes them since 2023."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape, unescape

import moto.s3.urls
import xmltodict  # type: ignore[import-untyped]
from moto.s3.exceptions import (
    BucketAlreadyOwnedByYou,
    MissingKey,
    PreconditionFailed,
    S3AccessDeniedError,
)
from moto.s3.models import (
    FakeBucket,
    FakeDeleteMarker,
    FakeKey,
    PublicAccessBlock,
    S3Backend,
    s3_backends,
)
from moto.s3.responses import S3Response
from werkzeug.datastructures import Headers

from hyperpod_eks.local.aws import plugin, roles
from hyperpod_eks.local.aws.sim import ACCOUNT, principal_of


def _encryption() -> dict[str, Any]:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    return {"Rule": {**rule, "BucketKeyEnabled": "false"}}


class Bucket(FakeBucket):
    """moto's bucket, whose policy's conditions are judged: moto knows none at all."""

    asked: Mapping[str, str] = {}
    """The condition keys of the request that is being answered, over TLS as all are."""

    def get_permission(self, action: str, resource: str) -> Any:
        """Judge a call by the statements whose conditions are met."""
        policy = json.loads(self.policy) if self.policy else {"Statement": []}
        wish = roles.Wish(_ACTIONS.get(action, action), resource, self.asked)
        left = [
            {name: each for name, each in statement.items() if name != "Condition"}
            for statement in roles.listed(policy["Statement"])
            if roles.met(statement, wish)
        ]
        whole, self.policy = self.policy, json.dumps({**policy, "Statement": left}).encode()
        try:
            return super().get_permission(wish.action, resource)
        finally:
            self.policy = whole


_ACTIONS = {"s3:HeadObject": "s3:GetObject", "s3:PostObject": "s3:PutObject"}
"""Actions that moto names after the method of the request (Service Authorization Reference)."""


class Backend(S3Backend):
    """moto's S3 with the settings of a new bucket."""

    _url_module = plugin.url_module("s3")

    def create_bucket(self, bucket_name: str, *args: Any, **kwargs: Any) -> FakeBucket:
        """Give the bucket SSE-S3, a full public access block and BucketOwnerEnforced.

        A name of the account's own namespace is refused the second time in every region (S3 User
        Guide, "Namespaces for general purpose buckets"); others are not in us-east-1.
        """
        if kwargs.get("bucket_namespace") == "account-regional" and bucket_name in self.buckets:
            raise BucketAlreadyOwnedByYou(bucket_name)
        bucket = super().create_bucket(bucket_name, *args, **kwargs)
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
    """moto's answers, the conditions of requests, and the tags that a bucket may be born with.

    Requests are answered one at a time (`server.Aws`), so that no other write comes between the
    judgement of a condition and the write: S3's are atomic, too.
    """

    def _bucket_response(self, request: Any, full_url: str) -> Any:
        self._know(self.parse_bucket_name_from_url(request, full_url))
        return super()._bucket_response(request, full_url)

    def _key_response(self, request: Any, full_url: str) -> Any:
        self._know(self.parse_bucket_name_from_url(request, full_url))
        return super()._key_response(request, full_url)

    def _know(self, bucket_name: str) -> None:
        """Tell the bucket what its policy may ask about the request.

        One of another owner than expected is refused (S3 User Guide, "Verifying bucket ownership
        with bucket owner condition").
        """
        bucket = self.backend.buckets.get(bucket_name)
        if not isinstance(bucket, Bucket):
            return
        headers = self.headers
        key = re.search("Credential=([^/]+)/", headers.get("Authorization", ""))
        bucket.asked = {
            "aws:SecureTransport": "true",
            "aws:PrincipalArn": principal_of(key[1]) if key else "",
            "s3:if-match": headers.get("If-Match", ""),
            "s3:if-none-match": headers.get("If-None-Match", ""),
        }
        if headers.get("x-amz-expected-bucket-owner", ACCOUNT) != ACCOUNT:
            raise S3AccessDeniedError

    def _bucket_response_put(self, request: Any, bucket_name: str, querystring: Any) -> Any:
        answer = super()._bucket_response_put(request, bucket_name, querystring)
        if not querystring and (tags := _TAG.findall(self.body.decode())):  # of CreateBucket
            pairs = {unescape(key): unescape(value) for key, value in tags}
            self.backend.put_bucket_tagging(bucket_name, pairs)
        return answer

    def _bucket_response_delete_keys(self, bucket_name: str, authenticated: bool = True) -> Any:
        """Leave objects with another ETag, which moto deletes.

        S3 User Guide, "How to perform conditional deletes".
        """
        document = xmltodict.parse(self.body, strip_whitespace=False)
        errors, left = "", list[Any]()
        for each in roles.listed(document["Delete"].get("Object")):
            try:
                self._judge(bucket_name, each["Key"], each.get("ETag") or "")
                left.append(each)
            except (MissingKey, PreconditionFailed) as error:
                why = f"<Code>{error.code}</Code><Message>{error.message}</Message>"
                errors += f"<Error><Key>{escape(each['Key'])}</Key>{why}</Error>"
        if not errors:
            return super()._bucket_response_delete_keys(bucket_name, authenticated)
        if not left:
            body = f"<DeleteResult>{errors}</DeleteResult>"
            return 200, {"content-type": "application/xml"}, body
        document["Delete"]["Object"] = left
        self.body = xmltodict.unparse(document).encode()
        status, headers, whole = super()._bucket_response_delete_keys(bucket_name, authenticated)
        text = whole if isinstance(whole, str) else whole.decode()
        return status, headers, text.replace("</DeleteResult>", f"{errors}</DeleteResult>")

    def put_object(self) -> Any:
        """Judge the conditions of a PutObject."""
        return self._condition() or super().put_object()

    def copy_object(self) -> Any:
        """Judge the conditions of a CopyObject: moto knows none of the destination."""
        source, _, version = self.headers["x-amz-copy-source"].partition("?versionId=")
        bucket, _, key = unquote(source).lstrip("/").partition("/")
        if wanted := self.headers.get("x-amz-copy-source-if-match"):
            self._judge(bucket, key, wanted, version or None)
        return self._condition() or super().copy_object()

    def _key_response_post(
        self, request: Any, body: bytes, bucket_name: str, query: Any, key_name: str
    ) -> Any:
        refused = self._condition() if query.get("uploadId") else None
        return refused or super()._key_response_post(request, body, bucket_name, query, key_name)

    def delete_object(self) -> Any:
        """Judge ``If-Match: *``, which moto compares as an ETag."""
        if self.headers.get("If-Match") == "*":
            self._judge(self.bucket_name, self.parse_key_name(), "*")
            self.headers = Headers([each for each in self.headers if each[0] != "If-Match"])
        return super().delete_object()

    def head_object(self, bucket_name: str, query: Any, key_name: str, headers: Any) -> Any:
        """Take ETags without quotes, as in a GET."""
        spelled = {
            name: f'"{value}"' if name.startswith("If-") and name.endswith("Match") else value
            for name, value in ((name, value.strip('"')) for name, value in dict(headers).items())
        }
        return super().head_object(bucket_name, query, key_name, headers=spelled)

    def _condition(self) -> Any:
        """Judge the conditions of a write (S3 User Guide, "conditional writes").

        Returns an answer for those that S3 does not have (S3 API PutObject, If-None-Match;
        aws/aws-sdk-ruby #3144).  Raises PreconditionFailed, and MissingKey.
        """
        match, none = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        if none and (match or none != "*"):
            text = "A header you provided implies functionality that is not implemented"
            body = f"<Error><Code>NotImplemented</Code><Message>{text}</Message></Error>"
            return 501, {"content-type": "application/xml"}, body
        key = self.parse_key_name()
        if none and self.backend.get_object(self.bucket_name, key):
            raise PreconditionFailed("If-None-Match")
        if match:
            self._judge(self.bucket_name, key, match)
        return None

    def _judge(self, bucket: str, key: str, etag: str, version: str | None = None) -> None:
        """Raise MissingKey or PreconditionFailed unless the object has this ETag; "" is any."""
        found = self.backend.get_object(bucket, key, version_id=version) if etag else None
        if etag == "*" and not found and self.backend.get_bucket(bucket).keys.getlist(key, None):
            raise PreconditionFailed("If-Match")  # the current version is a delete marker
        if etag and not found:
            raise MissingKey
        if found and etag != "*" and found.etag.strip('"') != etag.strip('"'):
            raise PreconditionFailed("If-Match")


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
