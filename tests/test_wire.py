"""Requests without a socket (tests/wire.py) are answered as those over HTTP are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from botocore.exceptions import ClientError

from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.stack import Stack

from .conftest import Clients
from .wire import shorten

pytestmark = pytest.mark.usefixtures("over_http")
OWN = {"date", "server", "x-amzn-requestid", "x-amz-request-id", "connection", "last-modified"}
"""Headers that each answer has for itself, or that concern the connection."""


def asked(aws: Clients) -> dict[str, Callable[[], Any]]:
    text = "ä\n" * 500
    return {
        "a body": lambda: aws.s3.put_object(Bucket="demo", Key="a b/ä?", Body=text.encode()),
        "a stream": lambda: aws.s3.get_object(Bucket="demo", Key="a b/ä?"),
        "a header": lambda: aws.s3.head_object(Bucket="demo", Key="a b/ä?"),
        "a query": lambda: aws.s3.list_objects_v2(Bucket="demo", Prefix="a b", MaxKeys=1),
        "a HEAD that fails": lambda: aws.s3.head_object(Bucket="demo", Key="none"),
        "no content": lambda: aws.s3.delete_object(Bucket="demo", Key="none"),
        "ec2": aws.ec2.describe_availability_zones,
        "query": lambda: aws.iam.get_role(RoleName="none"),
        "rest-json": lambda: aws.eks.list_clusters(maxResults=1),
        "json": lambda: aws.sagemaker.describe_cluster(ClusterName="none"),
    }


def answered(call: Callable[[], Any]) -> Any:
    try:
        answer = call()
    except ClientError as error:
        answer = error.response
    meta = answer["ResponseMetadata"]
    meta.pop("RequestId", None), meta.pop("HostId", None)
    meta["HTTPHeaders"] = {k: v for k, v in meta["HTTPHeaders"].items() if k not in OWN}
    if "Body" in answer:
        answer["Body"] = answer["Body"].read()
    answer.pop("LastModified", None)
    for each in answer.get("Contents", ()):
        each.pop("LastModified")
    return answer


def test_an_answer_without_a_socket_is_the_one_over_http(
    stack: Stack, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.s3.create_bucket(
        Bucket="demo", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    over_http = {name: answered(call) for name, call in asked(aws).items()}
    calls = [(c.service, c.operation, c.status, c.request) for c in stack.calls[1:]]
    del stack.calls[1:]

    shorten(stack, monkeypatch)
    monkeypatch.setattr("urllib3.connectionpool.HTTPConnectionPool.urlopen", None)
    for name, call in asked(aws).items():
        assert answered(call) == over_http[name], name
    assert calls == [(c.service, c.operation, c.status, c.request) for c in stack.calls[1:]]


@pytest.mark.parametrize("kind", ["error", "reset", "lost"])
def test_a_fault_is_one_over_http(
    stack: Stack,
    aws: Clients,
    monkeypatch: pytest.MonkeyPatch,
    kind: Literal["error", "reset", "lost"],
) -> None:
    def failed() -> str:
        stack.faults.append(Fault("eks", "ListClusters", kind=kind))
        with pytest.raises(Exception) as error:  # noqa: PT011  botocore's, of two kinds
            aws.eks.list_clusters()
        stack.faults.clear()
        return f"{type(error.value).__name__}: {error.value}"

    over_http = failed()
    shorten(stack, monkeypatch)
    assert failed() == over_http
