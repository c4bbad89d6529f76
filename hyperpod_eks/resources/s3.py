"""The bucket of the lifecycle scripts, and what is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hyperpod_eks.aws.answers import policy as policy_of
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent, raise_first
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.config.lifecycle import lifecycle_files
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Differs, Fact, Facts, Guard, Live, References, Resource
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.permissions import Statement, Statements, actions, forgotten
from hyperpod_eks.resources.tagged import LARGE_PAGES, Candidate, Tagged, tags_of
from hyperpod_eks.workers import for_each, gather

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PRIVATE = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
MD5 = "hyperpod-eks-md5"
"""The metadata of an object in which we note what it is."""


CREATE = actions(
    "s3",
    "CreateBucket",
    "GetBucketOwnershipControls",
    "GetBucketPolicy",
    "GetBucketPublicAccessBlock",
    "GetBucketTagging",
    "GetEncryptionConfiguration",
    "ListBucket",
    "PutBucketOwnershipControls",
    "PutBucketPolicy",
    "PutBucketPublicAccessBlock",
    "PutBucketTagging",
    "PutEncryptionConfiguration",
    "TagResource",
)
DELETE = actions("s3", "DeleteBucket", "ListBucketMultipartUploads", "ListBucketVersions")
DELETE_OBJECTS = actions("s3", "AbortMultipartUpload", "DeleteObject", "DeleteObjectVersion")


@frozen
class Bucket(Resource):
    """A private, encrypted bucket that is reached over TLS alone."""

    name: str
    region: str
    arn: str
    public_access: str = "blocked"
    ownership: str = "BucketOwnerEnforced"
    encryption: str = "AES256"
    guards: ClassVar[Mapping[str, Guard]] = {
        "encryption": lambda is_, declared: (
            f"new objects are not encrypted with {is_} any more"
            if is_ not in (None, "AES256") and declared == "AES256"
            else ""
        ),
    }
    """The algorithm, or the ARN of a KMS key."""
    policy: str = "TLS only"

    kind = "s3/Bucket"
    step = "s3"
    tag_type = "bucket"
    keep_group = "bucket"
    absence: ClassVar[Facts] = {
        "public_access": "open",  # GetPublicAccessBlock: an error of its own
        "ownership": None,  # GetBucketOwnershipControls: an error of its own
        "encryption": None,  # GetBucketEncryption: an error of its own
        "policy": "other",  # GetBucketPolicy: an error of its own
    }
    deleted_at_once = True
    facts = ("public_access", "ownership", "encryption", "policy")
    later = ("public_access", "encryption", "policy")

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """By name."""
        bucket = (resolved.arn("s3", resolved.bucket),)
        yield Statement("BucketMake", CREATE, bucket)
        yield Statement("BucketDelete", DELETE, bucket, command="delete")
        yield forgotten("s3", "GetBucketTagging", "ListAllMyBuckets")

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Bucket:
        """What a delete must know."""
        return Bucket(
            found.label, name=found.id, region=resolved.region, arn=resolved.arn("s3", found.id)
        )

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """By the name, which HyperPod wants to begin so."""
        # without a region those of all are listed, and of some that the account has not enabled no
        # tags are to be had here (IllegalLocationConstraintException)
        ask = aws.s3.get_bucket_tagging
        ours: Json = {"Prefix": "sagemaker-", "BucketRegion": aws.identity.region, **LARGE_PAGES}
        for page in aws.s3.get_paginator("list_buckets").paginate(**ours):
            for bucket in page.get("Buckets", ()):
                yield (
                    "bucket",
                    bucket["Name"],
                    partial(tags_of, ask, "TagSet", Bucket=bucket["Name"]),
                )

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """By name; a bucket of another account answers 403."""
        with absent("404", "NoSuchBucket"):
            tagging = partial(
                self._read, snapshot.aws.s3.get_bucket_tagging, "TagSet", "NoSuchTagSet"
            )
            asked = {} if snapshot.bare else self._questions(snapshot.aws)
            try:
                tags, *rest = gather(tagging, *asked.values())
            except Exception as error:
                if getattr(error, "response", {}).get("Error", {}).get("Code") in (
                    "403",
                    "AccessDenied",
                ):
                    return [Live(self.name, self.arn, owner="of another account, or not allowed")]
                raise
            if snapshot.bare:
                return [Live(self.name, self.arn, owner=owner(tags or ()))]
            facts = dict(zip(asked, rest, strict=True))
            return [Live(self.name, self.arn, owner=owner(tags or ()), facts=facts)]
        return []

    def review(self, snapshot: Snapshot, live: Live, names: frozenset[str]) -> Sequence[Live]:
        """Ask for these settings alone."""
        asked = {
            name: each for name, each in self._questions(snapshot.aws).items() if name in names
        }
        facts = dict(zip(asked, gather(*asked.values()), strict=True))
        return [replace(live, facts={**live.facts, **facts}, shown=names)]

    def _questions(self, aws: Aws) -> dict[str, Callable[[], Fact]]:
        """Return, by fact, the call that asks for it."""
        s3 = aws.s3

        def blocked() -> str:
            name = "PublicAccessBlockConfiguration"
            found = self._read(s3.get_public_access_block, name, f"NoSuch{name}")
            return "blocked" if found == PRIVATE else "open"

        def ownership() -> Fact:
            name, missing = "OwnershipControls", "OwnershipControlsNotFoundError"
            found = self._read(s3.get_bucket_ownership_controls, name, missing)
            return found["Rules"][0]["ObjectOwnership"] if found else None

        def encryption() -> str | None:
            name = "ServerSideEncryptionConfiguration"
            return _algorithm(self._read(s3.get_bucket_encryption, name, f"{name}NotFoundError"))

        def policy() -> str:
            found = self._read(s3.get_bucket_policy, "Policy", "NoSuchBucketPolicy")
            return "TLS only" if found and _same(found, self._tls_only()) else "other"

        return {
            "public_access": blocked,
            "ownership": ownership,
            "encryption": encryption,
            "policy": policy,
        }

    def _read(self, call: Callable[..., JsonMapping], key: str, missing: str) -> Json:
        with absent(missing):
            return call(Bucket=self.name)[key]
        return None

    def _encryption_rule(self) -> Json:
        by_key = self.encryption != "AES256"
        default = {"SSEAlgorithm": "aws:kms" if by_key else "AES256"}
        default |= {"KMSMasterKeyID": self.encryption} if by_key else {}
        return {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": by_key}

    def _tls_only(self) -> str:
        statement = {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [self.arn, f"{self.arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """The name is unique in the world.

        A bucket is signed at birth where that is possible (S3 API reference,
        CreateBucketConfiguration.Tags; elsewhere AWS answers UnsupportedArgument).
        """
        born: Json = {"Tags": aws.pairs(self.label)}
        if self.region != "us-east-1":  # the one region that must not be named
            born["LocationConstraint"] = self.region
        make = partial(
            aws.s3.create_bucket, Bucket=self.name, ObjectOwnership="BucketOwnerEnforced"
        )
        with absent("UnsupportedArgument"):
            make(CreateBucketConfiguration=born)
            return self._new(aws)
        # other partitions and some new regions take no tags here
        del born["Tags"]
        make(**({"CreateBucketConfiguration": born} if born else {}))
        self._sign(aws)
        return self._new(aws)

    def _sign(self, aws: Aws) -> None:
        tags = {"TagSet": aws.pairs(self.label)}
        aws.s3.put_bucket_tagging(Bucket=self.name, Tagging=tags)  # type: ignore[arg-type]

    def _new(self, aws: Aws) -> Live:
        # what AWS gives every new bucket since 2023
        facts = {
            "public_access": "blocked",
            "ownership": "BucketOwnerEnforced",
            "encryption": "AES256",
            "policy": "other",
        }
        return Live(self.name, self.arn, owner=aws.lineage, facts=facts)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Put right what differs."""
        s3 = aws.s3
        if live.owner is None:
            self._sign(aws)
        if "public_access" in differs:
            s3.put_public_access_block(
                Bucket=self.name,
                PublicAccessBlockConfiguration=PRIVATE,  # type: ignore[arg-type]  # plain dict
            )
        if "ownership" in differs:
            s3.put_bucket_ownership_controls(
                Bucket=self.name,
                OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            )
        if "encryption" in differs:
            rules = [self._encryption_rule()]
            s3.put_bucket_encryption(
                Bucket=self.name, ServerSideEncryptionConfiguration={"Rules": rules}
            )
        if "policy" in differs:
            s3.put_bucket_policy(Bucket=self.name, Policy=self._tls_only())
        declared = {**live.facts, **self.declared(references)}
        return Live(self.name, self.arn, owner=aws.lineage, facts=declared)

    def delete(self, aws: Aws, live: Live) -> None:
        """Empty it first: objects, versions, delete markers and unfinished uploads."""
        s3 = aws.s3
        gather(partial(_empty, aws, self.name, ""), partial(self._abort, s3))
        s3.delete_bucket(Bucket=self.name)

    def _abort(self, s3: S3Client) -> None:
        for uploads in s3.get_paginator("list_multipart_uploads").paginate(Bucket=self.name):
            for upload in uploads.get("Uploads", ()):
                s3.abort_multipart_upload(
                    Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"]
                )


def _empty(aws: Aws, bucket: str, prefix: str) -> None:
    """Delete every version of everything below a prefix, and what marks it deleted."""
    pages = aws.s3.get_paginator("list_object_versions")
    for page in pages.paginate(Bucket=bucket, Prefix=prefix):
        items = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        if items:
            _delete(aws, bucket, [{"Key": i["Key"], "VersionId": i["VersionId"]} for i in items])


def _delete(aws: Aws, bucket: str, objects: Json) -> None:
    """Delete up to a thousand objects; what S3 refuses of them it tells in an answer of 200."""
    answer = aws.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
    errors = [
        {**x, "Message": f"{x.get('Key')}: {x.get('Message')}"} for x in answer.get("Errors", ())
    ]
    raise_first("s3", "DeleteObjects", errors)


def _same(one: str, other: str) -> bool:
    """Whether two policies say the same, however S3 has spaced them."""
    return bool(policy_of(one) == policy_of(other))


def _algorithm(encryption: JsonMapping | None) -> str | None:
    for rule in encryption["Rules"] if encryption else ():
        default = rule.get("ApplyServerSideEncryptionByDefault", {})
        return str(default.get("KMSMasterKeyID") or default.get("SSEAlgorithm"))
    return None


@frozen
class LifecycleScripts(Resource):
    """The whole lifecycle folder under one prefix."""

    bucket: Bucket
    folder: str
    prefix: str = "lifecycle/"

    kind = "s3/Scripts"
    step = "s3"
    keep_group = "bucket"
    deleted_at_once = True
    facts = ("files",)

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """In the bucket."""
        objects = (f"{resolved.arn('s3', resolved.bucket)}/*",)
        yield Statement("ScriptsMake", actions("s3", "GetObject", "PutObject"), objects)
        yield Statement("ScriptsDelete", DELETE_OBJECTS, objects, command="delete")

    @property
    def uri(self) -> str:
        """What HyperPod is told (LifeCycleConfig.SourceS3Uri)."""
        return f"s3://{self.bucket.name}/{self.prefix}"

    @property
    def deleted_with(self) -> Resource | None:
        """Objects go with their bucket."""
        return self.bucket

    def files(self) -> dict[str, tuple[Path, str]]:
        """Files of the folder by key: the path, and the MD5 that S3 shows as ETag."""
        there = lifecycle_files(Path(self.folder))
        return {self.prefix + name: (path, _md5(path)) for name, path in there.items()}

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """By listing the prefix: one call for a thousand files."""
        with absent("NoSuchBucket", "404", "403", "AccessDenied"):
            items = snapshot.all(
                snapshot.aws.s3,
                "list_objects_v2",
                "Contents",
                Bucket=self.bucket.name,
                Prefix=self.prefix,
            )
            there = {item["Key"]: item["ETag"].strip('"') for item in items}
            if not snapshot.bare:
                there |= self._noted(snapshot.aws, there)
            return [self._live(snapshot.aws, there)] if there else []
        return []

    def _noted(self, aws: Aws, there: Mapping[str, str]) -> dict[str, str]:
        """Read the MD5s that we noted on objects whose ETags are others.

        With a KMS key an ETag is no MD5 (Amazon S3 API Reference, "Object").
        """
        local = self.files()
        others = [key for key, tag in there.items() if key in local and local[key][1] != tag]
        found: dict[str, str] = {}

        def ask(key: str) -> None:
            with absent("403", "404"):
                about = aws.s3.head_object(Bucket=self.bucket.name, Key=key)
                if noted := about.get("Metadata", {}).get(MD5):
                    found[key] = noted

        for_each(ask, others, 8)
        return found

    def _live(self, aws: Aws, there: Mapping[str, str]) -> Live:
        return Live(
            self.uri,
            owner=aws.lineage,  # the bucket is ours, or the run has stopped before
            why=f"{len(there)} file{'s' * (len(there) != 1)}",
            facts={"files": dict(there)},
        )

    def expected(self, name: str, references: References) -> Fact:
        """The folder as it is now."""
        if name == "files":
            return {key: md5 for key, (_, md5) in self.files().items()}
        return super().expected(name, references)

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Uploads may be repeated, so that this is no more than settling an empty prefix."""
        return self._send_all(aws, {})

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Send what changed, and remove what the folder no longer has."""
        return self._send_all(aws, live.facts["files"])

    def _send_all(self, aws: Aws, there: Mapping[str, str]) -> Live:
        """Eight at a time."""
        local = self.files()
        changed = [key for key, (_, md5) in local.items() if there.get(key) != md5]
        shown: list[bool] = []
        for_each(lambda key: shown.append(self._send(aws, local, key)), changed, 8)
        removed = sorted(there.keys() - local.keys())
        for i in range(0, len(removed), 1000):
            _delete(aws, self.bucket.name, [{"Key": key} for key in removed[i : i + 1000]])
        live = self._live(aws, {key: md5 for key, (_, md5) in local.items()})
        return replace(live, shown=frozenset({"files"} if all(shown) else ()))

    def _send(self, aws: Aws, local: Mapping[str, tuple[Path, str]], key: str) -> bool:
        """Send a file; return whether the ETag in the answer is its MD5, as without a KMS key."""
        path, md5 = local[key]
        answer = aws.s3.put_object(
            Bucket=self.bucket.name, Key=key, Body=path.read_bytes(), Metadata={MD5: md5}
        )
        return str(answer.get("ETag")).strip('"') == md5

    def delete(self, aws: Aws, live: Live) -> None:
        """Leave nothing of ours in a bucket that stays."""
        _empty(aws, self.bucket.name, self.prefix)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
