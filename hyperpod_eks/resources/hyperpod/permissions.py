"""IAM statements: what creating and deleting a HyperPod cluster requires."""

from __future__ import annotations

from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.permissions import Statement, Statements, actions, look, tagged

CREATE = actions(
    "sagemaker",
    "AddTags",
    "BatchAddClusterNodes",  # UpdateCluster calls this and the next if a count changes
    "BatchDeleteClusterNodes",
    "CreateCluster",
    "DescribeCluster",
    "DescribeClusterEvent",
    "ListClusterEvents",
    "ListClusterNodes",
    "ListClusterOperations",
    "ListTags",
    "UpdateCluster",
    "UpdateClusterSoftware",
)


def permissions(resolved: ResolvedConfig) -> Statements:
    """Return the statements for the cluster's actions and for their dependent actions."""
    # a cluster's ARN ends in an id that is not known in advance, and a condition on tags
    # would turn the error for a missing cluster into AccessDenied
    every = (resolved.arn("sagemaker", "cluster/*"),)
    yield look("sagemaker", "ListClusters")
    yield Statement("HyperPodMake", CREATE, every)
    yield Statement(
        "HyperPodDelete", ("sagemaker:DeleteCluster",), every, tagged(resolved), "delete"
    )
    yield from _governance(resolved)
    yield from _dependent(resolved)


def _governance(resolved: ResolvedConfig) -> Statements:
    # DeleteCluster checks whether task governance still uses the cluster (SageMaker developer
    # guide, "Troubleshoot" of task governance)
    lists = actions("sagemaker", "ListClusterSchedulerConfigs", "ListComputeQuotas")
    yield Statement("QuotasLook", lists, command="delete")
    yield Statement(
        "QuotasDelete",
        actions("sagemaker", "DeleteClusterSchedulerConfig", "DeleteComputeQuota"),
        tuple(
            resolved.arn("sagemaker", f"{kind}/*")
            for kind in ("cluster-scheduler-config", "compute-quota")
        ),
        command="delete",
    )


def _dependent(resolved: ResolvedConfig) -> Statements:
    """Return the dependent actions (Service Authorization Reference, "dependent actions")."""
    groups = resolved.config.groups
    plans = {group.training_plan_arn for group in groups if group.training_plan_arn}
    if plans:
        yield Statement("TrainingPlans", ("sagemaker:DescribeTrainingPlan",), tuple(sorted(plans)))
    named = {group.image_id for group in resolved.config.instance_groups if group.image_id}
    if images := sorted(named - {"default"}):
        region = resolved.arn("ec2", "").removesuffix(f"{resolved.identity.account}:")
        shared = (*(f"{region}:image/{each}" for each in images), f"{region}:snapshot/*")
        reads = actions("ec2", "DescribeImages", "DescribeSnapshots")
        changes = actions("ec2", "ModifyImageAttribute", "ModifySnapshotAttribute")
        yield Statement("ImagesLook", reads)
        yield Statement("ImagesShare", changes, shared)
