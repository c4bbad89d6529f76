from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
import urllib3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from hyperpod_eks.local.aws.sim import ACCOUNT
from hyperpod_eks.local.stack import Stack
from tests.conftest import REGION, Clients


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


def test_an_object_may_come_in_chunks_over_a_connection_that_stays(bucket: str) -> None:
    """S3 API Reference, "Uploads with trailing headers"; boto3 sends all objects so through TLS."""
    s3 = boto3.client("s3")
    whole = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    with urllib3.PoolManager(1) as there:
        for key in ("one", "other"):
            answer = there.request(
                "PUT",
                s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": key}),
                body=iter([whole[:7], whole[7:]]),
                chunked=True,
                headers={
                    "Content-Encoding": "aws-chunked",
                    "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
                    "x-amz-decoded-content-length": "5",
                    "x-amz-trailer": "x-amz-checksum-crc32",
                },
            )
            assert answer.status == 200
        (pool,) = (there.pools[key] for key in there.pools.keys())  # noqa: SIM118  no iterator
        assert pool.num_connections == 1
    assert s3.get_object(Bucket=bucket, Key="other")["Body"].read() == b"hello"


def test_nobody_reads_a_private_object(stack: Stack, aws: Clients, bucket: str) -> None:
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    nobody = boto3.client("s3", config=Config(signature_version=UNSIGNED))
    with pytest.raises(ClientError, match="403"):
        nobody.get_object(Bucket=bucket, Key="k")


def refused(call: Any, **request: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


ABSENT, CHANGED = (404, "NoSuchKey"), (412, "PreconditionFailed")
NO_SUCH_CONDITION = (501, "NotImplemented")


@pytest.mark.parametrize("how", ["put", "copy", "upload"])
def test_of_writes_on_a_condition_the_first_to_finish_wins(
    aws: Clients, bucket: str, how: str
) -> None:
    """S3 User Guide, "How to prevent object overwrites with conditional writes"."""
    s3 = aws.s3
    there: Any = {"Bucket": bucket, "Key": "k"}
    s3.put_object(Bucket=bucket, Key="source", Body=b"new")

    def write(**condition: Any) -> str:
        if how == "put":
            return str(s3.put_object(**there, Body=b"new", **condition)["ETag"])
        if how == "copy":
            source = f"{bucket}/source"
            copied = s3.copy_object(**there, CopySource=source, **condition)
            return str(copied["CopyObjectResult"]["ETag"])
        begun = s3.create_multipart_upload(**there)["UploadId"]
        part = s3.upload_part(**there, UploadId=begun, PartNumber=1, Body=b"new")
        whole: Any = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
        done = s3.complete_multipart_upload(
            **there, UploadId=begun, MultipartUpload=whole, **condition
        )
        return str(done["ETag"])

    assert refused(write, IfMatch='"other"') == ABSENT
    etag = write(IfNoneMatch="*")
    assert refused(write, IfNoneMatch="*") == CHANGED
    assert refused(write, IfMatch='"other"') == CHANGED
    assert write(IfMatch=etag)
    assert refused(write, IfNoneMatch=etag) == NO_SUCH_CONDITION
    assert refused(write, IfMatch=etag, IfNoneMatch="*") == NO_SUCH_CONDITION
    assert s3.get_object(**there)["Body"].read() == b"new"


def test_a_copy_is_made_of_the_version_that_was_meant(aws: Clients, bucket: str) -> None:
    etag = aws.s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    copy: Any = {"Bucket": bucket, "Key": "copy", "CopySource": f"{bucket}/k"}
    assert refused(aws.s3.copy_object, **copy, CopySourceIfMatch='"other"') == CHANGED
    assert aws.s3.copy_object(**copy, CopySourceIfMatch=etag)


def test_a_delete_on_a_condition_deletes_that_version_alone(aws: Clients, bucket: str) -> None:
    """S3 User Guide, "How to perform conditional deletes"."""
    s3 = aws.s3
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    there: Any = {"Bucket": bucket, "Key": "k"}
    assert refused(s3.delete_object, **there, IfMatch="*") == ABSENT
    etag = s3.put_object(**there, Body=b"1")["ETag"]
    assert refused(s3.delete_object, **there, IfMatch='"other"') == CHANGED
    s3.delete_object(**there, IfMatch="*")
    assert refused(s3.delete_object, **there, IfMatch="*") == CHANGED  # now a delete marker
    assert refused(s3.delete_object, **there, IfMatch=etag) == ABSENT
    etag = s3.put_object(**there, Body=b"2", IfNoneMatch="*")["ETag"]  # a marker is no object
    s3.delete_object(**there, IfMatch=etag)


@pytest.mark.parametrize("others", [(), ("free",)])
def test_of_many_keys_those_go_whose_condition_holds(
    aws: Clients, bucket: str, others: tuple[str, ...]
) -> None:
    etags = {key: aws.s3.put_object(Bucket=bucket, Key=key, Body=b"1")["ETag"] for key in "ab"}
    aws.s3.put_object(Bucket=bucket, Key="free", Body=b"1")
    asked: Any = [
        {"Key": "a", "ETag": '"other"'},
        {"Key": "none", "ETag": etags["a"]},
        *({"Key": key} for key in others),
        *({"Key": "b", "ETag": etags["b"]} for _ in others),
    ]
    answer = aws.s3.delete_objects(Bucket=bucket, Delete={"Objects": asked})
    found = {each["Key"]: each["Code"] for each in answer["Errors"]}
    assert found == {"a": "PreconditionFailed", "none": "NoSuchKey"}
    assert {each["Key"] for each in answer.get("Deleted", ())} == (
        {"free", "b"} if others else set()
    )


def test_a_condition_may_be_spelled_without_quotes(aws: Clients, bucket: str) -> None:
    etag = aws.s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    there: Any = {"Bucket": bucket, "Key": "k"}
    for call in (aws.s3.head_object, aws.s3.get_object):
        assert call(**there, IfMatch=etag.strip('"'))["ETag"] == etag
        assert refused(call, **there, IfNoneMatch=etag.strip('"'))[0] == 304


def test_a_bucket_of_another_account_is_refused(aws: Clients, bucket: str) -> None:
    """S3 User Guide, "Verifying bucket ownership with bucket owner condition"."""
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    there: Any = {"Bucket": bucket, "ExpectedBucketOwner": "999988887777"}
    denied = (403, "AccessDenied")
    assert refused(aws.s3.get_object, **there, Key="k") == denied
    assert refused(aws.s3.put_object, **there, Key="k", Body=b"2") == denied
    assert refused(aws.s3.list_objects_v2, **there) == denied
    there["ExpectedBucketOwner"] = ACCOUNT
    assert aws.s3.get_object(**there, Key="k")["Body"].read() == b"1"


def test_the_account_s_own_name_is_created_once_in_any_region(aws: Clients) -> None:
    """S3 User Guide, "Namespaces for general purpose buckets"; us-east-1 says 200 otherwise."""
    for region in ("us-east-1", "us-west-2"):
        s3 = boto3.client("s3", region_name=region)
        born: Any = {"Bucket": f"team-{ACCOUNT}-{region}-an", "BucketNamespace": "account-regional"}
        if region != "us-east-1":
            born["CreateBucketConfiguration"] = {"LocationConstraint": region}
        s3.create_bucket(**born)
        assert refused(s3.create_bucket, **born) == (409, "BucketAlreadyOwnedByYou")


def test_a_bucket_s_policy_may_demand_conditions(aws: Clients, bucket: str) -> None:
    """S3 User Guide, "Enforce conditional writes on Amazon S3 buckets"."""
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/state/*",
        "Condition": {"Null": {"s3:if-match": "true", "s3:if-none-match": "true"}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    aws.s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    there: Any = {"Bucket": bucket, "Key": "state/k", "Body": b"1"}
    assert refused(aws.s3.put_object, **there)[0] == 403
    etag = aws.s3.put_object(**there, IfNoneMatch="*")["ETag"]
    aws.s3.put_object(**there, IfMatch=etag)
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"1")


@pytest.mark.parametrize("operator", ["ArnEquals", "ArnLike"])
def test_a_bucket_s_policy_may_keep_a_role_away(aws: Clients, bucket: str, operator: str) -> None:
    role, node = assumed(aws, "node")
    aws.iam.put_role_policy(RoleName="node", PolicyName="all", PolicyDocument=allowing("s3:*", "*"))
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": f"arn:aws:s3:::{bucket}/own/*",
        "Condition": {operator: {"aws:PrincipalArn": role}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    aws.s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    for key in ("own/k", "k"):
        aws.s3.put_object(Bucket=bucket, Key=key, Body=b"1")
        assert aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"1"
    assert node.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    for call in (node.get_object, node.head_object, node.delete_object):
        assert refused(call, Bucket=bucket, Key="own/k")[0] == 403


def allowing(action: str, resource: str) -> str:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def assumed(aws: Clients, name: str) -> tuple[str, Any]:
    """Create a role; return its ARN, and S3 as a session of it sees it."""
    trust = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    arn = aws.iam.create_role(
        RoleName=name,
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
    )["Role"]["Arn"]
    keys = boto3.client("sts").assume_role(RoleArn=arn, RoleSessionName="session")["Credentials"]
    return arn, boto3.client(
        "s3",
        region_name=REGION,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )


def test_who_may_not_list_is_not_told_that_a_key_is_absent(
    stack: Stack, aws: Clients, bucket: str
) -> None:
    """S3 API GetObject, "Permissions"; conditions ask for s3:GetObject beside the write."""
    _, reader = assumed(aws, "reader")
    stack.clock.advance(60)
    stack.sim.enforce = True

    def may(*allowed: tuple[str, str]) -> None:
        for number, (action, resource) in enumerate(allowed):
            aws.iam.put_role_policy(
                RoleName="reader",
                PolicyName=f"p{number}",
                PolicyDocument=allowing(action, resource),
            )

    objects = f"arn:aws:s3:::{bucket}/*"
    may(("s3:GetObject", objects))
    denied = (403, "AccessDenied")
    assert refused(reader.get_object, Bucket=bucket, Key="k") == denied
    assert refused(reader.head_object, Bucket=bucket, Key="k")[0] == 403
    etag = aws.s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    assert reader.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    aws.s3.delete_object(Bucket=bucket, Key="k")
    may(("s3:GetObject", objects), ("s3:ListBucket", objects.removesuffix("/*")))
    assert refused(reader.get_object, Bucket=bucket, Key="k") == ABSENT
    assert refused(reader.head_object, Bucket=bucket, Key="k")[0] == 404
    may(("s3:PutObject", objects))
    assert reader.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"] == etag
    assert refused(reader.put_object, Bucket=bucket, Key="k", Body=b"2", IfMatch=etag) == denied
