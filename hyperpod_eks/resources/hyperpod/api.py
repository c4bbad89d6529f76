"""Reads of HyperPod clusters, events, operations and instances from SageMaker's API."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Annotated, TypedDict

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.kube.nodes import Node
from hyperpod_eks.resources.base import MINUTE
from hyperpod_eks.workers import for_each


def every_group(found: JsonMapping) -> list[JsonMapping]:
    """Return all groups in DescribeCluster's answer, restricted ones last."""
    return [*found.get("InstanceGroups", ()), *found.get("RestrictedInstanceGroups", ())]


def instance_types(group: JsonMapping) -> str:
    """Return a described group's instance type, or its types separated by commas."""
    several = group.get("InstanceRequirements", {}).get("CurrentInstanceTypes", ())
    return str(group.get("InstanceType") or ", ".join(several))


def group_row(group: JsonMapping) -> JsonObject:
    """Summarise a described group, for `status`."""
    return {
        "name": group["InstanceGroupName"],
        "instance_type": instance_types(group),
        "status": group.get("Status", ""),
        "current": group.get("CurrentCount", 0),
        "target": group.get("TargetCount", 0),
    }


def describe(snapshot: Snapshot, name: str) -> JsonObject | None:
    """Describe a HyperPod cluster, once per snapshot; None if there is none."""

    def ask() -> JsonObject | None:
        # AWS's model has ResourceNotFound; emulators answer ValidationException
        with (
            absent("ResourceNotFound"),
            absent("ValidationException", says="Could not find cluster"),
        ):
            found: Json = snapshot.aws.sagemaker.describe_cluster(ClusterName=name)
            return found  # type: ignore[no-any-return]
        return None

    return snapshot.once(("hyperpod", name), ask)


def eks_name(snapshot: Snapshot, name: str) -> str:
    """Return the name of the EKS cluster of a HyperPod cluster; "" without one."""
    found = describe(snapshot, name) or {}
    arn: str = ((found.get("Orchestrator") or {}).get("Eks") or {}).get("ClusterArn", "")
    return arn.rpartition("/")[2]


def events(aws: Aws, name: str, most: int, **asked: object) -> Iterator[JsonMapping]:
    """Yield up to ``most`` of a cluster's events, newest first.

    AWS keeps events only for clusters with continuous provisioning; others have none.
    ``asked`` are further members of the ListClusterEvents request.
    """
    from hyperpod_eks.aws.exceptions import ClientError  # noqa: PLC0415

    request: JsonObject = {"ClusterName": name, "SortOrder": "Descending", **asked}
    try:
        while most > 0:
            answer = aws.sagemaker.list_cluster_events(**request, MaxResults=min(most, 100))
            yield from answer["Events"]
            most -= len(answer["Events"])
            if not (following := answer.get("NextToken")):
                return
            request["NextToken"] = following
    except ClientError as error:
        if error.response["Error"].get("Code") != "ValidationException":
            raise


def keeps_events(found: JsonMapping) -> bool:
    """Whether AWS may keep events of a cluster: its mode is continuous, or unknown."""
    return str(found.get("NodeProvisioningMode") or "Continuous").lower() == "continuous"


def newest_event(aws: Aws, found: JsonMapping) -> str:
    """Return the newest event of a described cluster, and why its nodes do not start.

    Best effort: errors are ignored.  The reason, which only DescribeClusterEvent returns, is read
    at most once a minute.
    """
    if not keeps_events(found):
        return ""
    name, said = found["ClusterName"], []
    with suppress(Exception):
        if aws.seldom(("failures", found["ClusterArn"]), MINUTE):
            newest = list(events(aws, name, 20))
            worst = [each for each in newest if is_bad(each)]
            aws.failures[name] = failure(aws, name, worst[0]) if worst else ""
        else:
            newest = list(islice(events(aws, name, 1), 1))
        said = [str(each["Description"]) for each in newest[:1]]
    why = aws.failures.get(name, "")
    return "; ".join([*said, *([why] if why and why not in said else ())])


def is_bad(event: JsonMapping) -> bool:
    """Whether an event may be the cause of a failure.

    HyperPod warns that a starting node "lost orchestration-ready", which is not a cause.
    """
    words = str(event.get("Description", ""))
    return event.get("EventLevel") in ("Warn", "Error") and not re.search(
        "(?i)lost.{0,20}orchestration.?ready", words
    )


def failure(aws: Aws, name: str, event: JsonMapping) -> str:
    """Return the description of an event with its FailureMessage, if it has one.

    The message is in the metadata of the event's subject (SageMaker API reference,
    DescribeClusterEvent, EventMetadata).
    """
    said, known = str(event.get("Description", "")), aws.failures
    if event["EventId"] not in known:
        answer = aws.sagemaker.describe_cluster_event(ClusterName=name, EventId=event["EventId"])
        about: Json = answer.get("EventDetails") or {}
        about = (about.get("EventDetails") or {}).get("EventMetadata") or {}
        found = [part.get("FailureMessage") for part in about.values() if isinstance(part, Mapping)]
        known[event["EventId"]] = next(filter(None, found), "")
    why = known[event["EventId"]]
    return said if why in said else why if said in why else f"{said}: {why}"


class Operation(TypedDict):
    """An operation of HyperPod on a cluster."""

    id: str
    type: Annotated[str, "as HyperPod says: Scaling, DeepHealthCheck"]
    created: str


class NodeRow(TypedDict):
    """An instance, as HyperPod and Kubernetes describe it."""

    name: str
    instance_id: str
    instance_group: str
    instance_type: str
    status: Annotated[str, "as HyperPod says"]
    ready: Annotated[bool, "as Kubernetes says"]
    health: str
    why: str


def operations(snapshot: Snapshot, name: str) -> list[Operation]:
    """Return HyperPod's operations in progress on a cluster, newest first; once per snapshot.

    Best effort: empty without the permission, or without continuous provisioning.
    """

    def ask() -> list[Operation]:
        asked = {"ClusterName": name, "Status": "InProgress", "SortOrder": "Descending"}
        with suppress(Exception):
            found = snapshot.aws.sagemaker.list_cluster_operations(  # type: ignore[attr-defined]
                **asked,
                MaxResults=20,  # the stubs lack the method
            )
            return [
                {
                    "id": each.get("OperationId", ""),
                    "type": each.get("Type", ""),
                    "created": str(each.get("CreationTime", "")),
                }
                for each in found.get("ClusterOperationSummaries") or ()
            ]
        return []

    return snapshot.once(("operations", name), ask)


def instances(snapshot: Snapshot, name: str) -> list[JsonMapping]:
    """Return a cluster's instances; read once per snapshot.

    A page has 100 and names the next one, so that 10,000 instances take a hundred rounds.  Where it
    takes hardly more calls, what follows the first page is listed by instance group, several at a
    time; if that finds fewer than the cluster has, all pages are read after all.
    """

    def pages(**asked: object) -> Iterator[JsonMapping]:
        lister = snapshot.aws.sagemaker.get_paginator("list_cluster_nodes")
        sizes = {"PageSize": PAGE}
        yield from lister.paginate(ClusterName=name, PaginationConfig=sizes, **asked)  # type: ignore[arg-type]  # the filter is data

    def ask() -> list[JsonMapping]:
        found: dict[str, JsonMapping] = {}  # a name may be part of several groups' names

        def keep(page: JsonMapping) -> None:
            found.update((each["InstanceId"], each) for each in page["ClusterNodeSummaries"])

        def read(part: str) -> None:
            for page in pages(InstanceGroupNameContains=part):
                keep(page)

        every = pages()
        first = next(every)
        keep(first)
        cluster = describe(snapshot, name) or {} if first.get("NextToken") else {}
        if parts := _parts(cluster):
            for_each(read, parts, AT_ONCE)
        if not parts or len(found) < sum(_sizes(cluster).values()):
            for page in every:
                keep(page)
        if not parts:
            return list(found.values())  # as AWS sorts them
        # the lists of the groups end in any order
        return sorted(found.values(), key=lambda x: (x["InstanceGroupName"], x["InstanceId"]))

    return snapshot.once(("instances", name), ask)


PAGE = 100
"""Instances per page, the most that ListClusterNodes takes."""
AT_ONCE = 8
"""Instance groups that are listed at the same time."""


def _sizes(cluster: JsonMapping) -> dict[str, int]:
    """Return the number of instances of each group."""
    return {each["InstanceGroupName"]: each.get("CurrentCount", 0) for each in every_group(cluster)}


def _parts(cluster: JsonMapping) -> list[str]:
    """Return parts of groups' names that together select all instances.

    ListClusterNodes selects groups "whose name contain a specified string" (SageMaker API
    reference).  Empty for a single part, and if the parts would take more than a tenth more calls
    than one list of all.
    """
    sizes = _sizes(cluster)
    parts = [part for part in sizes if not any(other in part and other != part for other in sizes)]
    calls = sum(
        max(1, math.ceil(sum(size for name, size in sizes.items() if part in name) / PAGE))
        for part in parts
    )
    few = 1 + calls <= 1.1 * math.ceil(sum(sizes.values()) / PAGE)
    return parts if few and len(parts) > 1 else []


def node_rows(snapshot: Snapshot, name: str, registered: Sequence[Node]) -> list[NodeRow]:
    """Join instances with their Kubernetes nodes, one row per instance."""
    with absent("ResourceNotFound"):
        found = instances(snapshot, name)
        seen = {node.instance_id: node for node in registered}
        rows: list[NodeRow] = []
        for each in found:
            node = seen.get(each["InstanceId"])
            rows.append(
                {
                    "name": node.name if node else "",
                    "instance_id": each["InstanceId"],
                    "instance_group": each["InstanceGroupName"],
                    "instance_type": each["InstanceType"],
                    "status": each["InstanceStatus"]["Status"],
                    "ready": bool(node and node.ready),
                    "health": node.health if node else "",
                    "why": each["InstanceStatus"].get("Message") or (node.why if node else ""),
                }
            )
        return rows
    return []
