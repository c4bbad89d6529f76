from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients


def listed(aws: Clients, service: str, operation: str = "list_service_quotas") -> dict[str, Any]:
    pages = aws.service_quotas.get_paginator(operation).paginate(ServiceCode=service)
    return {row["QuotaName"]: row for page in pages for row in page["Quotas"]}


def test_quotas_are_listed_under_the_names_of_aws(aws: Clients) -> None:
    assert listed(aws, "vpc")["VPCs per Region"]["Value"] == 5
    assert listed(aws, "ec2")["EC2-VPC Elastic IPs"]["Value"] == 5
    assert listed(aws, "eks")["Clusters"]["Value"] == 100
    sagemaker = listed(aws, "sagemaker")
    assert sagemaker["ml.p5.48xlarge for cluster usage"]["Value"] > 0
    assert sagemaker["ml.c5.large for cluster spot instance usage"]["Value"] == 0
    assert sagemaker["Maximum number instances allowed per SageMaker HyperPod cluster"]
    assert len(sagemaker) > 400  # more than one page


def test_a_quota_can_be_lowered_for_the_account_only(stack: Stack, aws: Clients) -> None:
    name = "ml.p5.48xlarge for cluster usage"
    stack.sim.set_quota("sagemaker", name, 0)
    row = listed(aws, "sagemaker")[name]
    assert row["Value"] == 0
    code = {"ServiceCode": "sagemaker", "QuotaCode": row["QuotaCode"]}
    assert aws.service_quotas.get_service_quota(**code)["Quota"]["Value"] == 0
    assert aws.service_quotas.get_aws_default_service_quota(**code)["Quota"]["Value"] > 0
    assert listed(aws, "sagemaker", "list_aws_default_service_quotas")[name]["Value"] > 0


def test_what_has_no_quota_is_said(stack: Stack, aws: Clients) -> None:
    missing = aws.service_quotas.exceptions.NoSuchResourceException
    with pytest.raises(missing):
        aws.service_quotas.get_service_quota(ServiceCode="vpc", QuotaCode="L-0")
    with pytest.raises(ClientError, match="NoSuchResourceException"):
        aws.service_quotas.list_service_quotas(ServiceCode="moon")
    with pytest.raises(KeyError):
        stack.sim.set_quota("vpc", "Moons", 1)
