"""Raw answers of AWS, without anything that says whose they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
from botocore.exceptions import ClientError

# Members whose text is AWS's own: it is kept. All other text becomes "…", every time 0.
KEPT = {
    *(
        "status",
        "type",
        "authenticationMode",
        "supportType",
        "ipFamily",
        "platformVersion",
        "version",
    ),
    *("ClusterStatus", "InstanceStatus", "NodeRecovery", "NodeProvisioningMode", "InstanceType"),
    *("Status", "addonName", "addonVersion", "code", "tier", "state", "deletionProtection"),
    *("EventLevel", "ResourceType", "SoftwareUpdateStatus", "ThreadsPerCore", "Type"),
}


def scrub(value: Any, member: str = "") -> Any:
    """A copy that has the same members, and of their texts only those that are AWS's own.

    Lists keep the first of the items that look alike; tags keep nothing.

    >>> scrub({"status": "ACTIVE", "arn": "arn:aws:eks:...", "tags": {"who": "me"}, "n": 3})
    {'status': 'ACTIVE', 'arn': '…', 'tags': {}, 'n': 0}
    """
    if isinstance(value, dict):
        if member.lower() == "tags":
            return {}
        return {name: scrub(below, name) for name, below in value.items()}
    if isinstance(value, list):
        items: list[Any] = []
        for item in value:
            if (found := scrub(item, member)) not in items:
                items.append(found)
        return items
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return value if member in KEPT else "…"
    return 0


def record(session: boto3.Session, name: str, stage: str) -> list[dict[str, Any]]:
    """What AWS says of the cluster `name` now: service, operation, stage and scrubbed answer."""
    return [
        {"service": service, "operation": operation, "stage": stage, "answer": scrub(answer)}
        for service, operation, answer in _ask(session, name)
    ]


def _ask(session: boto3.Session, name: str) -> Iterator[tuple[str, str, Any]]:
    eks, sagemaker = session.client("eks"), session.client("sagemaker")

    def said(client: Any, operation: str, **parameters: Any) -> Iterator[tuple[str, str, Any]]:
        try:
            answer = getattr(client, operation)(**parameters)
        except ClientError as error:
            answer = {"Error": {"Code": error.response["Error"]["Code"]}}
        answer.pop("ResponseMetadata", None)
        yield client.meta.service_model.service_name, operation, answer

    yield from said(eks, "describe_cluster", name=name)
    for addon in ("vpc-cni", "coredns", "eks-pod-identity-agent"):
        yield from said(eks, "describe_addon", clusterName=name, addonName=addon)
    yield from said(sagemaker, "describe_cluster", ClusterName=name)
    yield from said(sagemaker, "list_cluster_nodes", ClusterName=name)
    yield from said(sagemaker, "list_cluster_events", ClusterName=name)
    try:
        nodes = sagemaker.list_cluster_nodes(ClusterName=name)["ClusterNodeSummaries"]
    except ClientError:
        nodes = []
    for node in nodes[:1]:
        yield from said(
            sagemaker, "describe_cluster_node", ClusterName=name, NodeId=node["InstanceId"]
        )
