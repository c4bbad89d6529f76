"""Obstacles to the creation and the deletion of a HyperPod cluster."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace

from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.errors import Remains
from hyperpod_eks.resources.base import MINUTE, Live
from hyperpod_eks.resources.hyperpod.api import events, failure, instances, is_bad

DENIED = "does not have permission to perform"
UNKNOWN_ROLE = re.compile("(?i)assume.*role|role.*assume|access ?denied|not authorized")
GOVERNANCE = (
    (
        "compute quota",
        "list_compute_quotas",
        "ComputeQuotaSummaries",
        "ComputeQuotaId",
        "delete-compute-quota --compute-quota-id",
    ),
    (
        "scheduler policy",
        "list_cluster_scheduler_configs",
        "ClusterSchedulerConfigSummaries",
        "ClusterSchedulerConfigId",
        "delete-cluster-scheduler-config --cluster-scheduler-config-id",
    ),
)
"""Task governance's settings of a cluster: words, list method, member, id, delete command."""


def is_premature(snapshot: Snapshot, name: str, live: Live) -> bool:
    """Whether a cluster failed, without any instance, because its role had not propagated.

    CreateCluster refuses a role that SageMaker cannot assume yet; if a later check by another
    service fails, the cluster becomes Failed.
    """
    with suppress(Exception):  # False unless it is certain
        newest = list(events(snapshot.aws, name, 100))
        bad = [each for each in newest if is_bad(each)]
        causes = [live.why, *(failure(snapshot.aws, name, each) for each in bad[:1])]
        had = any(each.get("ResourceType") == "Instance" for each in newest)
        unknown = any(UNKNOWN_ROLE.search(cause) for cause in causes)
        return unknown and not had and not instances(snapshot, name)
    return False


def leaving(snapshot: Snapshot, name: str, live: Live) -> Live:
    """Add a node's message, read at most once a minute; raise Remains for a missing permission.

    HyperPod deletes the nodes' interfaces with the permissions of the execution role; without them
    the cluster stays ``Deleting`` forever, and only a node's message says why.
    """
    said: list[str] = []
    if snapshot.aws.seldom(("leaving", live.arn), MINUTE):
        with suppress(Exception):  # best effort
            rows = instances(snapshot, name)
            said = [text for each in rows if (text := each["InstanceStatus"].get("Message"))]
    for text in said:
        if DENIED in text:
            raise Remains(
                f"hyperpod/cluster: HyperPod cannot delete its nodes: {text}",
                "The nodes' role needs that permission until the cluster is deleted. Restore "
                "its policy (run create, or add the action); AWS then continues by itself.",
            )
    return replace(live, why=f"{live.why}; {said[0]}") if said else live


def governance(snapshot: Snapshot, live: Live) -> list[str]:
    """Describe quotas and policies of task governance (SageMaker developer guide, "Troubleshoot").

    They block a delete; those of this tool are deleted before.
    """
    sagemaker, region = snapshot.aws.sagemaker, snapshot.aws.region
    return [
        f"{words} {each.get('Name')} ({each[member]}): aws sagemaker {command} "
        f"{each[member]} --region {region}"
        for words, method, key, member, command in GOVERNANCE
        for each in snapshot.all(sagemaker, method, key, ClusterArn=live.arn)
        if each.get("Status") not in ("Deleting", "Deleted")
    ]
