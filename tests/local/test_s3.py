from __future__ import annotations

import json
from typing import Any

import pytest
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
