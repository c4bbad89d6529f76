"""SageMaker's API as far as HyperPod goes: one method for each operation; the rest is moto's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import moto.sagemaker.urls
from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker.models import sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse

from hyperpod_eks.local.aws import hyperpod_batches, plugin, wire
from hyperpod_eks.local.aws.hyperpod_checks import invalid
from hyperpod_eks.local.aws.hyperpod_clusters import Backend, of_region
from hyperpod_eks.local.aws.hyperpod_governance import POLICY, QUOTA
from hyperpod_eks.local.aws.hyperpod_model import Cluster, Document, Node
from hyperpod_eks.local.aws.wire import Refused, in_order, page

_LIMIT = 10  # rows of a page when MaxResults is left out


class Response(wire.Response, SageMakerResponse):
    """SageMaker's answers: HyperPod and training plans here, the rest moto's."""

    def __init__(self) -> None:
        SageMakerResponse.__init__(self)
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> Backend:
        """SageMaker of the request's region."""
        return of_region(self.region)

    # -- clusters --------------------------------------------------------------------------------

    def create_cluster(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult({"ClusterArn": self.backend.create(self.request()).arn})

    def describe_cluster(self) -> ActionResult:
        """Answer the cluster and its groups."""
        return ActionResult(self.backend.find(self.request()["ClusterName"]).describe())

    def list_clusters(self) -> ActionResult:
        """Answer summaries, filtered and sorted as asked."""
        request = self.request()
        plan = request.get("TrainingPlanArn")
        found = [
            summary
            for cluster in self.backend.hyperpod.values()
            if (request.get("NameContains") or "") in cluster.name
            and _between(request, cluster.created, "CreationTime")
            and plan in (None, *(summary := cluster.summary())["TrainingPlanArns"])
        ]
        keys = {
            "NAME": lambda row: row["ClusterName"],
            "CREATION_TIME": lambda row: row["CreationTime"],
        }
        rows, token = page(in_order(found, request, keys, "CREATION_TIME"), request, limit=_LIMIT)
        return ActionResult({"ClusterSummaries": rows, "NextToken": token})

    def update_cluster(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult({"ClusterArn": self.backend.update(self.request()).arn})

    def update_cluster_software(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult({"ClusterArn": self.backend.update_software(self.request()).arn})

    def delete_cluster(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult({"ClusterArn": self.backend.delete(self.request()["ClusterName"]).arn})

    # -- nodes -----------------------------------------------------------------------------------

    def list_cluster_nodes(self) -> ActionResult:
        """Answer summaries, oldest first unless asked otherwise."""
        request = self.request()
        nodes: Iterable[Node] = self.backend.find(request["ClusterName"]).nodes.values()
        part = request.get("InstanceGroupNameContains")
        if part or {"CreationTimeAfter", "CreationTimeBefore"} & set(request):
            nodes = [
                node
                for node in nodes
                if (part or "") in node.group.name
                and _between(request, node.launched, "CreationTime")
            ]
        if {"SortBy", "SortOrder"} & set(request):
            keys = {"NAME": lambda n: n.group.name, "CREATION_TIME": lambda n: n.launched}
            nodes = in_order(list(nodes), request, keys, "CREATION_TIME")
        found, token = page(nodes, request, limit=_LIMIT)
        logical = bool(request.get("IncludeNodeLogicalIds"))
        rows = [node.summary(logical=logical) for node in found]
        return ActionResult({"ClusterNodeSummaries": rows, "NextToken": token})

    def describe_cluster_node(self) -> ActionResult:
        """Answer a node, named by its id or its logical id."""
        request = self.request()
        nodes = self.backend.find(request["ClusterName"]).nodes
        wanted = request.get("NodeId") or request.get("NodeLogicalId") or ""
        node = nodes.get(wanted) or next(
            (n for n in nodes.values() if n.logical_id == wanted), None
        )
        if node is None:
            raise Refused("ResourceNotFound", f"Instance with id {wanted} not found.")
        return ActionResult({"NodeDetails": node.details()})

    def batch_add_cluster_nodes(self) -> ActionResult:
        """Answer for each node."""
        return ActionResult(hyperpod_batches.add(self.backend, self.request()))

    def batch_delete_cluster_nodes(self) -> ActionResult:
        """Answer for each node."""
        return ActionResult(hyperpod_batches.remove(self.backend, self.request()))

    def batch_reboot_cluster_nodes(self) -> ActionResult:
        """Answer for each node."""
        return ActionResult(hyperpod_batches.reboot(self.backend, self.request()))

    def batch_replace_cluster_nodes(self) -> ActionResult:
        """Answer for each node."""
        return ActionResult(hyperpod_batches.replace(self.backend, self.request()))

    def start_cluster_health_check(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult(
            {"ClusterArn": hyperpod_batches.check_health(self.backend, self.request()).arn}
        )

    # -- events and operations -------------------------------------------------------------------

    def _continuous(self) -> tuple[Cluster, Document]:
        request = self.request()
        cluster = self.backend.find(request["ClusterName"])
        if not cluster.continuous:
            raise invalid("Events and operations need NodeProvisioningMode Continuous")
        return cluster, request

    def list_cluster_events(self) -> ActionResult:
        """Answer events, newest first unless asked otherwise."""
        cluster, request = self._continuous()
        asked = {
            "InstanceGroupName": request.get("InstanceGroupName"),
            "InstanceId": request.get("NodeId"),
            "ResourceType": request.get("ResourceType"),
            "OperationId": request.get("OperationId"),
        }
        asked = {member: value for member, value in asked.items() if value is not None}
        ordered = (
            cluster.events if request.get("SortOrder") == "Ascending" else reversed(cluster.events)
        )
        found = (
            event
            for event in ordered
            if all(event.get(member) == value for member, value in asked.items())
            and _between(request, event["EventTime"], "EventTime")
        )
        rows, token = page(found, request, limit=_LIMIT)
        return ActionResult({"Events": rows, "NextToken": token})

    def describe_cluster_event(self) -> ActionResult:
        """Answer one event."""
        cluster, request = self._continuous()
        for event in cluster.events:
            if event["EventId"] == request["EventId"]:
                return ActionResult({"EventDetails": event})
        raise Refused("ResourceNotFound", f"Event {request['EventId']} not found.")

    def list_cluster_operations(self) -> ActionResult:
        """Answer operations, newest first unless asked otherwise."""
        cluster, request = self._continuous()
        found = [
            operation
            for operation in cluster.operations.values()
            if request.get("Status") in (None, operation["Status"])
            and request.get("Type") in (None, operation["Type"])
            and _between(request, operation["CreationTime"], "CreationTime")
        ]
        if request.get("SortOrder") != "Ascending":
            found.reverse()
        rows, token = page(found, request, limit=_LIMIT)
        return ActionResult({"ClusterOperationSummaries": rows, "NextToken": token})

    def describe_cluster_operation(self) -> ActionResult:
        """Answer one operation."""
        cluster, request = self._continuous()
        operation = cluster.operations.get(request["OperationId"])
        if operation is None:
            raise Refused("ResourceNotFound", f"Operation {request['OperationId']} not found.")
        return ActionResult(operation)

    # -- training plans --------------------------------------------------------------------------

    def search_training_plan_offerings(self) -> ActionResult:
        """Answer offerings of capacity."""
        return ActionResult(self.backend.training_plans.search(self.request()))

    def create_training_plan(self) -> ActionResult:
        """Answer the ARN."""
        return ActionResult(self.backend.training_plans.create(self.request()))

    def describe_training_plan(self) -> ActionResult:
        """Answer the plan as it stands now."""
        plan = self.request()["TrainingPlanName"]
        return ActionResult(self.backend.training_plans.describe(plan))

    def list_training_plans(self) -> ActionResult:
        """Answer summaries."""
        return ActionResult(self.backend.training_plans.summaries(self.request()))

    # -- task governance -------------------------------------------------------------------------

    def create_cluster_scheduler_config(self) -> ActionResult:
        """Answer ARN and id."""
        return ActionResult(self.backend.governance.create(POLICY, self.request()))

    def describe_cluster_scheduler_config(self) -> ActionResult:
        """Answer the policy."""
        return ActionResult(self.backend.governance.describe(POLICY, self.request()))

    def list_cluster_scheduler_configs(self) -> ActionResult:
        """Answer summaries."""
        return ActionResult(self.backend.governance.summaries(POLICY, self.request()))

    def update_cluster_scheduler_config(self) -> ActionResult:
        """Answer ARN and version."""
        return ActionResult(self.backend.governance.update(POLICY, self.request()))

    def delete_cluster_scheduler_config(self) -> ActionResult:
        """Answer nothing."""
        self.backend.governance.delete(POLICY, self.request())
        return EmptyResult()

    def create_compute_quota(self) -> ActionResult:
        """Answer ARN and id."""
        return ActionResult(self.backend.governance.create(QUOTA, self.request()))

    def describe_compute_quota(self) -> ActionResult:
        """Answer the quota."""
        return ActionResult(self.backend.governance.describe(QUOTA, self.request()))

    def list_compute_quotas(self) -> ActionResult:
        """Answer summaries."""
        return ActionResult(self.backend.governance.summaries(QUOTA, self.request()))

    def update_compute_quota(self) -> ActionResult:
        """Answer ARN and version."""
        return ActionResult(self.backend.governance.update(QUOTA, self.request()))

    def delete_compute_quota(self) -> ActionResult:
        """Answer nothing."""
        self.backend.governance.delete(QUOTA, self.request())
        return EmptyResult()

    # -- tags ------------------------------------------------------------------------------------

    def _tags(self, arn: str) -> dict[str, str] | None:
        """Return the tags, to be changed, of a resource of ours; None if it is moto's."""
        kind = arn.split(":")[5].partition("/")[0]
        if kind == "cluster":
            return self.backend.find(arn).tags
        if kind in (POLICY.arn, QUOTA.arn):
            return self.backend.governance.tags(arn)
        if kind == "training-plan":
            tags: dict[str, str] = self.backend.training_plans.find(arn)["Tags"]
            return tags
        return None

    def list_tags(self) -> ActionResult:
        """Answer a page of tags."""
        request = self.request()
        tags = self._tags(request["ResourceArn"])
        if tags is None:
            return super().list_tags()
        rows, token = page([{"Key": k, "Value": v} for k, v in tags.items()], request)
        return ActionResult({"Tags": rows, "NextToken": token})

    def add_tags(self) -> ActionResult:
        """Answer the tags after the change; there may be 50."""
        request = self.request()
        tags = self._tags(request["ResourceArn"])
        if tags is None:
            return super().add_tags()
        added = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        if len({*tags, *added}) > 50:
            raise Refused("ResourceLimitExceeded", "A resource can have at most 50 tags.")
        tags.update(added)
        return ActionResult({"Tags": [{"Key": k, "Value": v} for k, v in tags.items()]})

    def delete_tags(self) -> ActionResult:
        """Answer nothing."""
        request = self.request()
        tags = self._tags(request["ResourceArn"])
        if tags is None:
            return super().delete_tags()
        for key in request["TagKeys"]:
            tags.pop(key, None)
        return EmptyResult()


def _between(request: Document, moment: Any, member: str) -> bool:
    after, before = request.get(f"{member}After"), request.get(f"{member}Before")
    return (after is None or moment >= after) and (before is None or moment <= before)


def install() -> None:
    """Swap moto's SageMaker classes for ours."""
    plugin.backend(sagemaker_backends, Backend)
    moto.sagemaker.urls.url_paths["{0}/$"] = Response.dispatch


def inventory(account: str, region: str) -> dict[str, Any]:
    """Return every cluster with its groups and nodes, and every training plan."""
    backend = of_region(region)
    return {
        "Clusters": {
            name: {
                "Id": cluster.id,
                "Status": cluster.status,
                **cluster.members,
                "Groups": {each: group.spec for each, group in cluster.groups.items()},
                "Nodes": {
                    node.id: {"Group": node.group.name, "Status": node.status}
                    for node in cluster.nodes.values()
                },
                "Tags": cluster.tags,
            }
            for name, cluster in backend.hyperpod.items()
        },
        "TaskGovernance": backend.governance.inventory(),
        "TrainingPlans": sorted(backend.training_plans.plans),
    }
