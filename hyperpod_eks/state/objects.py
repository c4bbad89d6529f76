"""Objects in S3 that several runs write, each on the condition that it knows the last version."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from hyperpod_eks.aws.client import Aws, region_of
from hyperpod_eks.aws.errors import ErrorKind
from hyperpod_eks.aws.failures import absent, classify, refusal
from hyperpod_eks.documents import JsonObject
from hyperpod_eks.errors import Denied, Usage

PATIENCE = 30.0
"""Seconds for which a write is repeated that met another one, or whose answer is lost."""
CONDITION = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"})
"""The codes with which S3 refuses a write for its condition."""
PAUSE = 0.5
"""Seconds between two attempts."""


class Version(NamedTuple):
    """A version of an object, as it was read or written."""

    etag: str
    content: bytes


class Overtaken(Exception):
    """Another run has written the object since; what it has now is in ``version``."""

    def __init__(self, version: Version | None) -> None:
        super().__init__("another run has written it")
        self.version = version


class Objects:
    """The objects of a bucket.

    Amazon S3 User Guide, "How to prevent object overwrites with conditional writes": of several
    writes on a condition the first one to finish wins; the others are refused with 412, with 409
    while another is under way, and with 404 where the object is gone.  S3 is read-after-write
    consistent, so what became of an attempt whose answer was lost can be read.
    """

    def __init__(self, aws: Aws, bucket: str) -> None:
        self.aws, self.bucket = aws, bucket

    def get(self, key: str) -> Version | None:
        """Read an object; None where there is none.

        Raises Usage without the bucket, and Denied where reading it is not allowed.
        """
        try:
            with absent("NoSuchKey"):
                found = self.aws.s3.get_object(Bucket=self.bucket, Key=key)
                return Version(found["ETag"], found["Body"].read())
        except Exception as error:
            self._explain(error, "s3:GetObject", key)
            raise
        return None

    def put(self, key: str, content: bytes, before: Version | None) -> Version:
        """Write an object in the place of the version before; None for a new one.

        Whoever writes puts something into the content that no other run writes.  Raises Overtaken,
        Usage and Denied, and botocore's errors where S3 gives no answer for PATIENCE seconds.
        """
        deadline = time.monotonic() + PATIENCE
        condition: JsonObject = {"IfMatch": before.etag} if before else {"IfNoneMatch": "*"}
        while True:
            try:
                put = self.aws.s3_once.put_object
                answer = put(Bucket=self.bucket, Key=key, Body=content, **condition)
                return Version(answer["ETag"], content)
            except Exception as error:
                if not self._may_be_repeated(error, key):
                    raise
                now = self.get(key)
                if now and now.content == content:  # the answer was lost
                    return now
                if (now and now.etag) != (before and before.etag):
                    raise Overtaken(now) from error
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE)

    def keep(self, key: str, content: bytes) -> None:
        """Write an object that nobody else writes otherwise.  Raises as `put`."""
        self.aws.s3.put_object(Bucket=self.bucket, Key=key, Body=content)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin so, in order."""
        pages = self.aws.s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                yield item["Key"]

    def delete(self, *keys: str) -> None:
        """Delete objects; one that is gone does not matter."""
        for key in keys:
            self.aws.s3.delete_object(Bucket=self.bucket, Key=key)

    def _may_be_repeated(self, error: Exception, key: str) -> bool:
        """Whether it was refused for its condition, or its answer was lost."""
        self._explain(error, "s3:PutObject", key)
        code, _ = refusal(error)
        return code in CONDITION or classify(error) in (ErrorKind.UNKNOWN, ErrorKind.THROTTLE)

    def _explain(self, error: Exception, action: str, key: str) -> None:
        """Raise what S3's refusal means for the user, where it is known."""
        code, words = refusal(error)
        if code == "NoSuchBucket":
            raise Usage(
                f"the bucket {self.bucket} of the manifest does not exist",
                "Create it, or choose another place with --manifest.",
            ) from error
        if code == "AccessDenied":
            session = self.aws.session
            partition = session.get_partition_for_region(region_of(session))
            arn = f"arn:{partition}:s3:::{self.bucket}"
            raise Denied(
                f"not allowed to read or write the manifest s3://{self.bucket}/{key}: {words}",
                f"Allow {action} on {arn}/{key}, and s3:ListBucket on {arn}.",
            ) from error
