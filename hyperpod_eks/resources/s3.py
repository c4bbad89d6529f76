"""The bucket for the lifecycle scripts, and its objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hyperpod_eks.aws.answers import policy as policy_of
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent, raise_first
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.config.lifecycle import is_elsewhere, lifecycle_files
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
"""Object metadata key for the MD5 of an object's content."""


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


OWN = "hyperpod-eks.d/"
"""The prefix of what the tool itself keeps in clusters' buckets.

Nodes download the prefix of the scripts.
"""


def own_prefix(cluster: str) -> str:
    """Return the prefix of what the tool keeps of a cluster: a bucket may serve several ones."""
    return f"{OWN}{cluster}/"


def claim_key(cluster: str) -> str:
    """Return the key of the claim on a cluster (see `state.claim`)."""
    return f"{own_prefix(cluster)}claim.json"


@frozen
class Bucket(Resource):
    """A private, encrypted bucket that is accessible only over TLS."""

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
    """Of ``encryption``: AES256, or the ARN of a KMS key."""
    policy: str = "TLS only, nodes read scripts only"
    nodes: tuple[str, ...] = ()
    """Patterns of the ARN of the nodes' role, which may not read what the tool keeps here."""

    kind = "s3/Bucket"
    step = "s3"
    tag_type = "bucket"
    keep_group = "bucket"
    absence: ClassVar[Facts] = {
        "public_access": "open",  # GetPublicAccessBlock: an error if unset
        "ownership": None,  # GetBucketOwnershipControls: an error if unset
        "encryption": None,  # GetBucketEncryption: an error if unset
        "policy": "other",  # GetBucketPolicy: an error if unset
    }
    deleted_at_once = True
    facts = ("public_access", "ownership", "encryption", "policy")
    later = ("public_access", "encryption", "policy")

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on the bucket's ARN."""
        bucket = (resolved.arn("s3", resolved.bucket),)
        yield Statement("BucketMake", CREATE, bucket)
        yield Statement("BucketDelete", DELETE, bucket, command="delete")
        yield forgotten("s3", "GetBucketTagging", "ListAllMyBuckets")

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Bucket:
        """Declare it with the fields that a delete needs."""
        return Bucket(
            found.label, name=found.id, region=resolved.region, arn=resolved.arn("s3", found.id)
        )

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """Buckets with HyperPod's prefix ``sagemaker-``."""
        return tagged_buckets(aws, "sagemaker-", "bucket")

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by name; S3 answers 403 for another account's bucket."""
        with absent("404", "NoSuchBucket"):
            tagging = partial(
                self._read, snapshot.aws.s3.get_bucket_tagging, "TagSet", "NoSuchTagSet"
            )
            asked = {} if snapshot.bare else self._questions(snapshot.aws)
            try:
                tags, *rest = snapshot.gather(tagging, *asked.values())
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
        """Read only these settings."""
        asked = {
            name: each for name, each in self._questions(snapshot.aws).items() if name in names
        }
        facts = dict(zip(asked, gather(*asked.values()), strict=True))
        return [replace(live, facts={**live.facts, **facts}, shown=names)]

    def _questions(self, aws: Aws) -> dict[str, Callable[[], Fact]]:
        """Return, for each fact, the call that reads it."""
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
            known = {"TLS only": (), self.policy: self.nodes}
            same = (
                name
                for name, nodes in known.items()
                if found and _same(found, bucket_policy(self.arn, nodes))
            )
            return next(same, "other")

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

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; its name is globally unique.

        It is tagged at creation if the region supports that (S3 API reference,
        CreateBucketConfiguration.Tags; otherwise AWS answers UnsupportedArgument).
        """
        born: Json = {"Tags": aws.pairs(self.label)}
        if self.region != "us-east-1":  # the only region that must not be named
            born["LocationConstraint"] = self.region
        make = partial(
            aws.s3.create_bucket, Bucket=self.name, ObjectOwnership="BucketOwnerEnforced"
        )
        with absent("UnsupportedArgument"):
            make(CreateBucketConfiguration=born)
            return self._new(aws)
        # other partitions and some new regions accept no tags here
        del born["Tags"]
        make(**({"CreateBucketConfiguration": born} if born else {}))
        self._sign(aws)
        return self._new(aws)

    def _sign(self, aws: Aws) -> None:
        tags = {"TagSet": aws.pairs(self.label)}
        aws.s3.put_bucket_tagging(Bucket=self.name, Tagging=tags)  # type: ignore[arg-type]

    def _new(self, aws: Aws) -> Live:
        # the defaults of new buckets since 2023
        facts = {
            "public_access": "blocked",
            "ownership": "BucketOwnerEnforced",
            "encryption": "AES256",
            "policy": "other",
        }
        return Live(self.name, self.arn, owner=aws.lineage, facts=facts)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Set the settings that differ."""
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
            s3.put_bucket_policy(Bucket=self.name, Policy=bucket_policy(self.arn, self.nodes))
        declared = {**live.facts, **self.declared(references)}
        return Live(self.name, self.arn, owner=aws.lineage, facts=declared)

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete all objects, versions, delete markers and unfinished uploads, then the bucket.

        The claim is the last object.  S3 refuses the delete if another run has claimed since.
        """
        s3 = aws.s3
        gather(partial(empty, aws, self.name, ""), partial(self._abort, s3))
        if aws.claimed == self.name:
            aws.end_claim()
        with absent("BucketNotEmpty"):
            s3.delete_bucket(Bucket=self.name)
            return
        empty(aws, self.name, claim_key(aws.cluster))  # its versions, if the bucket keeps them
        s3.delete_bucket(Bucket=self.name)

    def _abort(self, s3: S3Client) -> None:
        for uploads in s3.get_paginator("list_multipart_uploads").paginate(Bucket=self.name):
            for upload in uploads.get("Uploads", ()):
                s3.abort_multipart_upload(
                    Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"]
                )


def tagged_buckets(aws: Aws, prefix: str, kind: str) -> Iterator[Candidate]:
    """Yield the buckets of the region whose names begin with a prefix.

    Without a region buckets of all regions are listed, and the tags of those in regions that the
    account has not enabled cannot be read (IllegalLocationConstraintException).
    """
    ours: Json = {"Prefix": prefix, "BucketRegion": aws.identity.region, **LARGE_PAGES}
    for page in aws.s3.get_paginator("list_buckets").paginate(**ours):
        for each in page.get("Buckets", ()):
            name = each["Name"]
            yield kind, name, partial(tags_of, aws.s3.get_bucket_tagging, "TagSet", Bucket=name)


def bucket_policy(arn: str, nodes: Sequence[str]) -> str:
    """Return the policy of a `Bucket`.

    AmazonSageMakerClusterInstanceRolePolicy lets nodes read every ``sagemaker-*`` bucket of
    the account, and an explicit deny overrides it (IAM User Guide, "Policy evaluation logic").
    """
    tls = {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    scripts = {
        "Sid": "NodesReadScriptsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": f"{arn}/{OWN}*",
        "Condition": {"ArnLike": {"aws:PrincipalArn": list(nodes)}},
    }
    statements = [tls, scripts] if nodes else [tls]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def empty(aws: Aws, bucket: str, prefix: str) -> None:
    """Delete all versions and delete markers of all objects below a prefix, but not the claim."""
    pages = aws.s3.get_paginator("list_object_versions")
    claim = claim_key(aws.cluster) if aws.claimed in ("", bucket) else ""
    for page in pages.paginate(Bucket=bucket, Prefix=prefix):
        versions = [
            i for i in page.get("Versions", ()) if not (i["Key"] == claim and i.get("IsLatest"))
        ]
        items = [*versions, *page.get("DeleteMarkers", ())]
        if items:
            _delete(aws, bucket, [{"Key": i["Key"], "VersionId": i["VersionId"]} for i in items])


def _delete(aws: Aws, bucket: str, objects: Json) -> None:
    """Delete up to 1000 objects; raise S3's per-object errors, which come with status 200."""
    answer = aws.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
    errors = [
        {**x, "Message": f"{x.get('Key')}: {x.get('Message')}"} for x in answer.get("Errors", ())
    ]
    raise_first("s3", "DeleteObjects", errors)


def _same(one: str, other: str) -> bool:
    """Whether two policies are the same JSON; S3 may change the whitespace."""
    return bool(policy_of(one) == policy_of(other))


def _algorithm(encryption: JsonMapping | None) -> str | None:
    for rule in encryption["Rules"] if encryption else ():
        default = rule.get("ApplyServerSideEncryptionByDefault", {})
        return str(default.get("KMSMasterKeyID") or default.get("SSEAlgorithm"))
    return None


@frozen
class LifecycleScripts(Resource):
    """All files of the lifecycle folder, as objects below one prefix."""

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
        """Actions on the bucket's objects."""
        objects = (f"{resolved.arn('s3', resolved.bucket)}/*",)
        yield Statement("ScriptsMake", actions("s3", "GetObject", "PutObject"), objects)
        yield Statement("ScriptsDelete", DELETE_OBJECTS, objects, command="delete")

    @property
    def uri(self) -> str:
        """The URI for HyperPod (LifeCycleConfig.SourceS3Uri)."""
        return f"s3://{self.bucket.name}/{self.prefix}"

    @property
    def deleted_with(self) -> Resource | None:
        """The bucket, which is deleted with its objects."""
        return self.bucket

    @property
    def unmarked(self) -> bool:
        """Objects have no tags of ours."""
        return True

    def names(self, live: Live | None = None) -> Iterable[str]:
        """Return no fact of objects whose folder is on another machine: they stay as they are."""
        return () if live and is_elsewhere(self.folder) else self.facts

    def files(self) -> dict[str, tuple[Path, str]]:
        """Return path and MD5 (which S3 returns as ETag) of the folder's files, by object key."""
        there = lifecycle_files(Path(self.folder))
        return {self.prefix + name: (path, _md5(path)) for name, path in there.items()}

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """List the prefix, in one call per 1000 objects."""
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
        """Return the MD5s in the metadata of objects with other ETags.

        With a KMS key an ETag is not the MD5 (Amazon S3 API Reference, "Object").
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
            owner=aws.lineage,  # if the bucket is ours (`unmarked`)
            why=f"{len(there)} file{'s' * (len(there) != 1)}",
            facts={"files": dict(there)},
        )

    def expected(self, name: str, references: References) -> Fact:
        """The current files of the folder."""
        if name == "files":
            return {key: md5 for key, (_, md5) in self.files().items()}
        return super().expected(name, references)

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Upload all files; uploads may be repeated."""
        return self._send_all(aws, {})

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Upload changed files, and delete objects that are no longer in the folder."""
        return self._send_all(aws, live.facts["files"])

    def _send_all(self, aws: Aws, there: Mapping[str, str]) -> Live:
        """Upload changed files, eight concurrently; delete objects without a file."""
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
        """Upload a file; return whether the answer's ETag is its MD5 (not with a KMS key)."""
        path, md5 = local[key]
        answer = aws.s3.put_object(
            Bucket=self.bucket.name, Key=key, Body=path.read_bytes(), Metadata={MD5: md5}
        )
        return str(answer.get("ETag")).strip('"') == md5

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete all objects below the prefix, for a bucket that stays."""
        empty(aws, self.bucket.name, self.prefix)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
