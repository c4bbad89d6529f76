"""Service Quotas: the limits of the local account, by the names that AWS gives them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import moto.servicequotas.urls
from botocore.model import StringShape
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.core.utils import get_service_model

from hyperpod_eks.local.aws.sim import ACCOUNT, current

#: AWS grants 0 instances of most types; this account is for trying things out.
_INSTANCES_PER_TYPE = 20.0

_LUSTRE = ("Scratch", "Persistent_1", "Persistent_2")

_LIMITS = {
    "vpc": {
        "VPCs per Region": 5.0,
        "Internet gateways per Region": 5.0,
        "NAT gateways per Availability Zone": 5.0,
        "Network interfaces per Region": 5000.0,
    },
    "ec2": {"EC2-VPC Elastic IPs": 5.0},
    "fsx": {
        **{f"Lustre {kind} file systems": 100.0 for kind in _LUSTRE},
        **{f"Lustre {kind} storage capacity": 100800.0 for kind in _LUSTRE},
        "Lustre Persistent HDD storage capacity": 102000.0,
    },
    "aps": {"Workspaces per region per account": 25.0},
    "eks": {"Clusters": 100.0},
    "sagemaker": {
        "Maximum number instances allowed per SageMaker HyperPod cluster": 20.0,
        "Total number of instances allowed across SageMaker HyperPod clusters": 30.0,
        "Maximum size of EBS volume in GB for a SageMaker HyperPod cluster instance": 1024.0,
        "Total number of Spot instances allowed across SageMaker HyperPod clusters": 0.0,
    },
}


def _instance_types() -> list[str]:
    shape = get_service_model("sagemaker").shape_for("ClusterInstanceType")
    return cast("StringShape", shape).enum


@cache
def limits() -> Mapping[str, Mapping[str, float]]:
    """Return the account's quotas, by service code and quota name, before any change.

    SageMaker has one quota per instance type of HyperPod (botocore's ClusterInstanceType).
    """
    types = _instance_types()
    usage = {f"{kind} for cluster usage": _INSTANCES_PER_TYPE for kind in types}
    spot = {f"{kind} for cluster spot instance usage": 0.0 for kind in types}
    return {**_LIMITS, "sagemaker": {**_LIMITS["sagemaker"], **usage, **spot}}


@cache
def code(service: str, name: str) -> str:
    """Return the quota's code; ours, since AWS's differ from source to source: match by name."""
    return "L-" + hashlib.sha256(f"{service}/{name}".encode()).hexdigest()[:8].upper()


class _NoSuchQuota(ServiceException):
    code = "NoSuchResourceException"
    message = "The specified quota does not exist."


class Response(BaseResponse):
    """The read operations of Service Quotas."""

    def __init__(self) -> None:
        super().__init__(service_name="service-quotas")
        self.automated_parameter_parsing = True

    def list_service_quotas(self) -> str:
        """Answer the account's own limits."""
        return self._page(default=False)

    def list_aws_default_service_quotas(self) -> str:
        """Answer the limits without the account's changes."""
        return self._page(default=True)

    def get_service_quota(self) -> ActionResult:
        """Answer the account's own limit."""
        return self._one(default=False)

    def get_aws_default_service_quota(self) -> ActionResult:
        """Answer the limit without the account's change."""
        return self._one(default=True)

    def _names(self) -> tuple[str, list[str]]:
        service = self._get_param("ServiceCode")
        if service not in limits():
            raise _NoSuchQuota("The specified service does not exist.")
        return service, sorted(limits()[service])

    def _row(self, service: str, name: str, *, default: bool) -> dict[str, Any]:
        return {
            "ServiceCode": service,
            "ServiceName": service,
            "QuotaArn": f"arn:aws:servicequotas:{self.region}:{ACCOUNT}:{service}/"
            f"{code(service, name)}",
            "QuotaCode": code(service, name),
            "QuotaName": name,
            "Value": limits()[service][name] if default else current().quota(service, name),
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }

    def _page(self, *, default: bool) -> str:
        service, names = self._names()
        start = int(self._get_param("NextToken") or 0)
        stop = start + int(self._get_param("MaxResults") or 100)
        rows = [self._row(service, name, default=default) for name in names[start:stop]]
        answer: dict[str, Any] = {"Quotas": rows}
        if stop < len(names):
            answer["NextToken"] = str(stop)
        return json.dumps(answer)  # as it goes over the wire; moto's way takes four times as long

    def _one(self, *, default: bool) -> ActionResult:
        service, names = self._names()
        for name in names:
            if code(service, name) == self._get_param("QuotaCode"):
                return ActionResult({"Quota": self._row(service, name, default=default)})
        raise _NoSuchQuota


def install() -> None:
    """Swap moto's answers, which know some VPC quotas only, for ours."""
    moto.servicequotas.urls.url_paths["{0}/$"] = Response.dispatch
