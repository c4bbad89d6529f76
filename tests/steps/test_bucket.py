"""The lifecycle bucket if S3 accepts no tags in CreateBucket."""

from __future__ import annotations

import boto3
import pytest

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resources.base import References
from hyperpod_eks.resources.s3 import Bucket
from tests.conftest import Clients


@pytest.mark.parametrize("region", ["us-west-2", "us-east-1"])
def test_a_bucket_is_signed_right_after_it_was_made(
    stack: Stack, aws: Clients, region: str
) -> None:
    text = "The request contained an unsupported argument."
    stack.faults.append(Fault("s3", "CreateBucket", "UnsupportedArgument", 400, text))
    ours = Aws(boto3.Session(region_name=region)._session, "demo", {"team": "ml"})
    ours.lineage = "0123456789abcdef"
    bucket = Bucket("bucket", name="sagemaker-demo", region=region, arn="arn:aws:s3:::demo")

    bucket.create(ours, References({}), "")

    (live,) = bucket.find(Snapshot(ours))
    assert live.owner == ours.lineage
    tags = aws.s3.get_bucket_tagging(Bucket="sagemaker-demo")["TagSet"]
    assert {"Key": "team", "Value": "ml"} in tags
    aws.s3.delete_bucket_tagging(Bucket="sagemaker-demo")  # like a kill between the two calls
    (live,) = bucket.find(Snapshot(ours))
    assert live.owner is None
    bucket.update(ours, References({}), live, {"owner": (None, ours.lineage)})
    (live,) = bucket.find(Snapshot(ours))
    assert live.owner == ours.lineage
