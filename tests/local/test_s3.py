from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
import urllib3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from hyperpod_eks.local.stack import Stack
from tests.local.conftest import REGION, Clients


@pytest.fixture
def bucket(aws: Clients) -> str:
    aws.s3.create_bucket(
        Bucket="sagemaker-b", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    return "sagemaker-b"


def test_a_new_bucket_is_private_encrypted_and_owner_enforced(aws: Clients, bucket: str) -> None:
    encryption = aws.s3.get_bucket_encryption(Bucket=bucket)
    (rule,) = encryption["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    block = aws.s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    assert len(block) == 4
    controls = aws.s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]
    assert controls["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert aws.s3.put_object(Bucket=bucket, Key="k", Body=b"")["ServerSideEncryption"] == "AES256"


def test_a_bucket_may_be_born_with_tags(aws: Clients) -> None:
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "<2 & 3>"}]
    born: Any = {"LocationConstraint": REGION, "Tags": tags}
    aws.s3.create_bucket(Bucket="sagemaker-t", CreateBucketConfiguration=born)
    assert aws.s3.get_bucket_tagging(Bucket="sagemaker-t")["TagSet"] == tags


def test_a_bucket_is_never_without_encryption(aws: Clients, bucket: str) -> None:
    aws.s3.delete_bucket_encryption(Bucket=bucket)
    assert aws.s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]


def test_a_bucket_goes_when_every_version_of_every_object_is_gone(
    stack: Stack, aws: Clients, bucket: str
) -> None:
    before = stack.inventory()["s3"]
    aws.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    aws.s3.delete_object(Bucket=bucket, Key="k")
    versions = stack.inventory()["s3"][bucket]["Objects"]["k"]
    assert len(versions) == 2
    assert sum(version.endswith("deleted") for version in versions) == 1
    with pytest.raises(ClientError, match="BucketNotEmpty"):
        aws.s3.delete_bucket(Bucket=bucket)
    listed = aws.s3.list_object_versions(Bucket=bucket)
    for version in listed["Versions"] + listed["DeleteMarkers"]:
        aws.s3.delete_object(Bucket=bucket, Key="k", VersionId=version["VersionId"])
    aws.s3.delete_bucket(Bucket=bucket)
    assert stack.inventory()["s3"] == {} != before


def test_calls_count_as_made_over_tls(aws: Clients, bucket: str) -> None:
    everyone = {"Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}/*"}
    plain = {"Bool": {"aws:SecureTransport": "false"}}
    statement = {"Effect": "Deny", **everyone, "Condition": plain}
    policy: dict[str, Any] = {"Version": "2012-10-17", "Statement": [statement]}
    aws.s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    assert aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    assert json.loads(aws.s3.get_bucket_policy(Bucket=bucket)["Policy"]) == policy
    policy = {"Version": "2012-10-17", "Statement": {"Effect": "Deny", **everyone}}
    aws.s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    with pytest.raises(ClientError, match="403"):
        aws.s3.get_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_urls_and_forms_work(stack: Stack, bucket: str, version: str) -> None:
    """S3 User Guide, "Download and upload objects with presigned URLs", "Browser-based uploads"."""
    s3 = boto3.client("s3", config=Config(signature_version=version))
    known, there = {"Bucket": bucket, "Key": "k"}, urllib3.PoolManager()
    asked = ("PUT", "put_object"), ("GET", "get_object"), ("HEAD", "head_object")
    for method, operation in asked:
        url = s3.generate_presigned_url(operation, known)
        answer = there.request(method, url, body=b"1" if method == "PUT" else None)
        assert (answer.status, answer.data) == (200, b"1" if method == "GET" else b"")
    form = s3.generate_presigned_post(bucket, "posted")
    fields = {**form["fields"], "file": ("f", b"2")}
    assert there.request("POST", form["url"], fields=fields).status == 204
    assert s3.get_object(Bucket=bucket, Key="posted")["Body"].read() == b"2"
    seen = [(call.operation, call.mutating) for call in stack.calls if call.service == "s3"]
    assert seen[1:4] == [("PutObject", True), ("GetObject", False), ("HeadObject", False)]


def test_nobody_reads_a_private_object(stack: Stack, aws: Clients, bucket: str) -> None:
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    nobody = boto3.client("s3", config=Config(signature_version=UNSIGNED))
    with pytest.raises(ClientError, match="403"):
        nobody.get_object(Bucket=bucket, Key="k")
