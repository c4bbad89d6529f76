"""Objects in S3 that several runs write, each on the condition that it knows the last version."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.errors import ErrorKind
from hyperpod_eks.aws.failures import absent, classify, refusal
from hyperpod_eks.documents import JsonObject
from hyperpod_eks.errors import Denied, KnownCause, Usage

PATIENCE = 30.0
"""Seconds for which a write is repeated that met another one, or whose answer is lost."""
CONDITION = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"})
"""The codes with which S3 refuses a write for its condition."""
LOST = (ErrorKind.UNKNOWN, ErrorKind.THROTTLE)
"""The kinds of errors after which a request may be repeated; with UNKNOWN it may have arrived."""
MANIFEST = "the manifest"
NO_BUCKET = "no bucket"
"""The reason of the error about a bucket that does not exist."""
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

    def __init__(self, aws: Aws, bucket: str, what: str = MANIFEST, owner: str = "") -> None:
        self.aws, self.bucket = aws, bucket
        self.what = what
        """What they are, for messages."""
        self.owner = owner
        """The account of the bucket, if it is known: S3 refuses requests for another's."""
        self._there: Any = {"Bucket": bucket} | ({"ExpectedBucketOwner": owner} if owner else {})

    def get(self, key: str) -> Version | None:
        """Read an object; None where there is none.

        Raises Usage without the bucket, and Denied where reading it is not allowed.
        """
        try:
            with absent("NoSuchKey"):
                found = self.aws.s3.get_object(**self._there, Key=key)
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
        condition: JsonObject = {"IfMatch": before.etag} if before else {"IfNoneMatch": "*"}

        def send() -> Version:
            put = self.aws.s3_once.put_object
            answer = put(**self._there, Key=key, Body=content, **condition)
            return Version(answer["ETag"], content)

        def done(now: Version | None) -> bool:
            return now is not None and now.content == content

        written = self._conditionally("s3:PutObject", key, before, send, done)
        assert written
        return written

    def remove(self, key: str, before: Version) -> None:
        """Delete this version of an object; one that is gone does not matter.  Raises as `put`."""

        def send() -> None:
            delete = self.aws.s3_once.delete_object
            delete(**self._there, Key=key, IfMatch=before.etag)

        self._conditionally("s3:DeleteObject", key, before, send, lambda now: now is None)

    def _conditionally(
        self,
        action: str,
        key: str,
        before: Version | None,
        send: Callable[[], Version | None],
        done: Callable[[Version | None], bool],
    ) -> Version | None:
        """Send a request on the condition that the object is as before.

        Returns its result, or what `get` returns once ``done`` says that it shows its effect: then
        the answer was lost.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return send()
            except Exception as error:
                code, _ = refusal(error)
                if code == "NoSuchBucket" and time.monotonic() < deadline:
                    time.sleep(PAUSE)  # one that was just created may not be visible everywhere
                    continue
                self._explain(error, action, key)
                if code not in CONDITION and classify(error) not in LOST:
                    raise
                now = self.get(key)
                if done(now):
                    return now
                if (now and now.etag) != (before and before.etag):
                    raise Overtaken(now) from error
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE)

    def keep(self, key: str, content: bytes) -> None:
        """Write an object that nobody else writes otherwise.  Raises as `put`."""
        self.aws.s3.put_object(**self._there, Key=key, Body=content)

    def list(self, prefix: str, delimiter: str = "") -> Iterator[str]:
        """Return the keys that `listed` has, in order.  Raises as `get`."""
        return iter(self.listed(prefix, delimiter))

    def listed(self, prefix: str, delimiter: str = "") -> dict[str, tuple[str, int]]:
        """Return the ETags and sizes of the objects whose keys begin so, by key, in order.

        Keys with ``delimiter`` after the prefix are left out.  Raises as `get`.
        """
        which: Any = {"Prefix": prefix} | ({"Delimiter": delimiter} if delimiter else {})
        pages = self.aws.s3.get_paginator("list_objects_v2")
        try:
            return {
                item["Key"]: (item["ETag"], item["Size"])
                for page in pages.paginate(**self._there, **which)
                for item in page.get("Contents", ())
            }
        except Exception as error:
            self._explain(error, "s3:ListBucket", prefix)
            raise

    def delete(self, key: str) -> None:
        """Delete an object; it does not matter if it is gone."""
        self.aws.s3.delete_object(**self._there, Key=key)

    def _explain(self, error: Exception, action: str, key: str) -> None:
        """Raise what S3's refusal means for the user, where it is known."""
        code, words = refusal(error)
        if code == "NoSuchBucket":
            hint = "Create it, or choose another place with --manifest."
            if self.what != MANIFEST:  # it goes only with the cluster
                hint = "Run the same command again: it looks for what has changed."
            raise Usage(
                f"the bucket {self.bucket} of {self.what} does not exist",
                hint,
                reason=NO_BUCKET,
                cause=KnownCause("no-bucket", {"bucket": self.bucket}),
            ) from error
        if code.startswith("KMS.") or (code == "AccessDenied" and "kms:" in words):
            raise Denied(
                f"cannot read or write {self.what} s3://{self.bucket}/{key}: {words}",
                "Allow kms:Decrypt and kms:GenerateDataKey on the bucket's KMS key, in your"
                " policies and in the key's; the key must be enabled.",
                cause=KnownCause("bucket-key"),
            ) from error
        if code == "AccessDenied":
            partition = self.aws.session.get_partition_for_region(self.aws.region)
            arn = f"arn:{partition}:s3:::{self.bucket}"
            needed = f"s3:ListBucket on {arn}"
            if not needed.startswith(action):
                needed = f"{action} on {arn}/{key}, and {needed}"
            raise Denied(
                f"not allowed to read or write {self.what} s3://{self.bucket}/{key}: {words}",
                f"Allow {needed}."
                + (f"\nThe bucket must belong to account {self.owner}." if self.owner else ""),
            ) from error
