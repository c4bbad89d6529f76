"""Every operation of our own is called, and its answers are validated against AWS's model."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.model import OperationModel

from hyperpod_eks.local.aws import eks, hyperpod
from hyperpod_eks.local.aws.sim import Delays
from hyperpod_eks.local.aws.wire import Tagging, check
from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients
from tests.local.ground import (
    ADMIN_POLICY,
    NAME,
    Ground,
    eks_cluster,
    hyperpod_cluster,
    install_chart,
    lay,
    role,
    workers,
)


@pytest.fixture
def aws(stack: Stack, session: boto3.Session) -> Clients:
    """Clients of its own, because `called` registers a handler."""
    return Clients(session, stack.endpoint)


@pytest.fixture
def called(aws: Clients) -> set[str]:
    """The called operations, in boto3's names; every answer is validated on arrival."""
    seen: set[str] = set()

    def hold(parsed: dict[str, Any], model: OperationModel, **_: Any) -> None:
        if "Error" not in parsed:
            # required members, lengths, patterns, enumerations
            check(_untagged(parsed), model.output_shape, f"answer of {model.name}")
            seen.add(xform_name(model.name))

    for client in (aws.eks, aws.sagemaker):
        client.meta.events.register("after-call.*.*", hold)
    return seen


def _untagged(answer: Any) -> Any:
    """Remove empty tags, which EKS returns although its model requires at least one."""
    if isinstance(answer, dict):
        return {k: _untagged(v) for k, v in answer.items() if (k, v) != ("tags", {})}
    return answer


def operations(response: type) -> set[str]:
    names = (name for name in vars(response) if not name.startswith("_"))
    return {name for name in names if callable(vars(response)[name])}


def test_eks(stack: Stack, aws: Clients, called: set[str]) -> None:
    ground = lay(aws)
    stack.sim.delays = Delays(eks_create=600)
    logging = {"clusterLogging": [{"types": ["api"], "enabled": True}]}
    aws.eks.create_cluster(**eks_cluster(ground, logging=logging, tags={"a": "b"}))
    aws.eks.describe_cluster(name=NAME)
    stack.clock.advance(600)
    _cluster(aws)
    _addon(aws)
    _access(aws, ground)
    _pod_identity(aws, role(aws, "pod", "pods.eks.amazonaws.com"))
    aws.eks.delete_cluster(name=NAME)
    assert called == operations(eks.Response) | operations(Tagging)


def _cluster(aws: Clients) -> None:
    arn = aws.eks.describe_cluster(name=NAME)["cluster"]["arn"]
    aws.eks.list_clusters()
    aws.eks.describe_cluster_versions(includeAll=True)
    aws.eks.update_cluster_config(
        name=NAME, resourcesVpcConfig={"publicAccessCidrs": ["10.0.0.0/8"]}
    )
    key = aws.kms.create_key()["KeyMetadata"]["Arn"]
    encryption = [{"resources": ["secrets"], "provider": {"keyArn": key}}]
    aws.eks.associate_encryption_config(clusterName=NAME, encryptionConfig=encryption)
    aws.eks.update_cluster_version(name=NAME, version="1.36")
    for update in aws.eks.list_updates(name=NAME)["updateIds"]:
        aws.eks.describe_update(name=NAME, updateId=update)
    for name in ("nodegroups", "fargate_profiles", "identity_provider_configs", "insights"):
        getattr(aws.eks, f"list_{name}")(clusterName=NAME)
    aws.eks.list_capabilities(clusterName=NAME)
    aws.eks.tag_resource(resourceArn=arn, tags={"x": "y"})
    aws.eks.list_tags_for_resource(resourceArn=arn)
    aws.eks.untag_resource(resourceArn=arn, tagKeys=["x"])


def _addon(aws: Clients) -> None:
    named = {"clusterName": NAME, "addonName": "coredns"}
    aws.eks.create_addon(**named)
    version = aws.eks.describe_addon(**named)["addon"]["addonVersion"]
    aws.eks.list_addons(clusterName=NAME)
    aws.eks.update_addon(**named, configurationValues="{}")
    aws.eks.describe_addon_versions()
    aws.eks.describe_addon_configuration(addonName="coredns", addonVersion=version)
    aws.eks.delete_addon(**named)


def _access(aws: Clients, ground: Ground) -> None:
    named = {"clusterName": NAME, "principalArn": ground.eks_role}
    aws.eks.create_access_entry(**named)
    aws.eks.describe_access_entry(**named)
    aws.eks.list_access_entries(clusterName=NAME)
    aws.eks.update_access_entry(**named, username="me")
    aws.eks.list_access_policies()
    scope = {"type": "cluster"}
    aws.eks.associate_access_policy(**named, policyArn=ADMIN_POLICY, accessScope=scope)
    aws.eks.list_associated_access_policies(**named)
    aws.eks.disassociate_access_policy(**named, policyArn=ADMIN_POLICY)
    aws.eks.delete_access_entry(**named)


def _pod_identity(aws: Clients, arn: str) -> None:
    made = aws.eks.create_pod_identity_association(
        clusterName=NAME, namespace="n", serviceAccount="s", roleArn=arn
    )["association"]
    named = {"clusterName": NAME, "associationId": made["associationId"]}
    aws.eks.describe_pod_identity_association(**named)
    aws.eks.update_pod_identity_association(**named, roleArn=arn)
    aws.eks.list_pod_identity_associations(clusterName=NAME)
    aws.eks.delete_pod_identity_association(**named)


def test_hyperpod(stack: Stack, aws: Clients, called: set[str]) -> None:
    ground = lay(aws)
    aws.eks.create_cluster(**eks_cluster(ground))
    install_chart(aws)
    plan = _training_plan(aws)
    gpu = workers(
        ground,
        InstanceType="ml.p5.48xlarge",
        TrainingPlanArn=plan,
        OnStartDeepHealthChecks=["InstanceStress"],
        KubernetesConfig={"Labels": {"a": "b"}},
    )
    cpu = workers(
        ground,
        InstanceGroupName="cpu",
        AutoPatchConfig={"PatchingStrategy": "WhenIdle"},
        InstanceStorageConfigs=[{"EbsVolumeConfig": {"VolumeSizeInGB": 100}}],
    )
    stack.sim.delays = Delays(hyperpod_create=240)
    created = aws.sagemaker.create_cluster(
        **hyperpod_cluster(ground, gpu, cpu, NodeProvisioningMode="Continuous")
    )
    aws.sagemaker.describe_cluster(ClusterName=NAME)
    stack.clock.advance(240)
    aws.sagemaker.describe_cluster(ClusterName=NAME)
    aws.sagemaker.list_clusters()
    aws.sagemaker.update_cluster(ClusterName=NAME, InstanceGroups=[gpu, cpu])
    aws.sagemaker.update_cluster_software(ClusterName=NAME)
    aws.sagemaker.describe_cluster(ClusterName=NAME)
    _tags(aws, created["ClusterArn"])
    _nodes(aws)
    _history(aws)
    aws.eks.create_addon(clusterName=NAME, addonName="amazon-sagemaker-hyperpod-taskgovernance")
    _policies(aws, created["ClusterArn"])
    _quotas(aws, created["ClusterArn"])
    aws.sagemaker.delete_cluster(ClusterName=NAME)
    assert called - operations(eks.Response) == operations(hyperpod.Response) - operations(
        eks.Response
    )
    assert {"create_cluster", "describe_cluster", "delete_cluster", "list_clusters"} <= called


def _quotas(aws: Clients, cluster: str) -> None:
    quota = aws.sagemaker.create_compute_quota(
        Name="q",
        ClusterArn=cluster,
        ComputeQuotaConfig={"ResourceSharingConfig": {"Strategy": "DontLend"}},
        ComputeQuotaTarget={"TeamName": "team"},
    )
    quota_id = {"ComputeQuotaId": quota["ComputeQuotaId"]}
    aws.sagemaker.describe_compute_quota(**quota_id)
    aws.sagemaker.update_compute_quota(**quota_id, TargetVersion=1, ActivationState="Disabled")
    aws.sagemaker.list_compute_quotas(ClusterArn=cluster)
    aws.sagemaker.delete_compute_quota(**quota_id)


def _policies(aws: Clients, cluster: str) -> None:
    classes: Any = {"PriorityClasses": [{"Name": "training", "Weight": 80}]}
    made = aws.sagemaker.create_cluster_scheduler_config(
        Name="p", ClusterArn=cluster, SchedulerConfig=classes
    )
    policy_id = {"ClusterSchedulerConfigId": made["ClusterSchedulerConfigId"]}
    aws.sagemaker.describe_cluster_scheduler_config(**policy_id)
    aws.sagemaker.update_cluster_scheduler_config(
        **policy_id, TargetVersion=1, SchedulerConfig=classes
    )
    aws.sagemaker.list_cluster_scheduler_configs(ClusterArn=cluster)
    aws.sagemaker.delete_cluster_scheduler_config(**policy_id)


def _training_plan(aws: Clients) -> str:
    offer = aws.sagemaker.search_training_plan_offerings(
        InstanceType="ml.p5.48xlarge", InstanceCount=4, TargetResources=["hyperpod-cluster"]
    )["TrainingPlanOfferings"][0]
    arn: str = aws.sagemaker.create_training_plan(
        TrainingPlanName="p", TrainingPlanOfferingId=offer["TrainingPlanOfferingId"]
    )["TrainingPlanArn"]
    aws.sagemaker.describe_training_plan(TrainingPlanName="p")
    aws.sagemaker.list_training_plans(
        Filters=[{"Name": "Status", "Value": "Active"}], SortBy="TrainingPlanName"
    )
    return arn


def _tags(aws: Clients, arn: str) -> None:
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])
    aws.sagemaker.list_tags(ResourceArn=arn)
    aws.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a"])


def _nodes(aws: Clients) -> None:
    listed = aws.sagemaker.list_cluster_nodes(ClusterName=NAME, IncludeNodeLogicalIds=True)
    first, second, *_ = listed["ClusterNodeSummaries"]
    ids = {"ClusterName": NAME, "NodeIds": [first["InstanceId"], "i-00000000"]}
    aws.sagemaker.describe_cluster_node(ClusterName=NAME, NodeId=first["InstanceId"])
    add = [
        {"InstanceGroupName": "cpu", "IncrementTargetCountBy": 1},
        {"InstanceGroupName": "nobody", "IncrementTargetCountBy": 1},
    ]
    aws.sagemaker.batch_add_cluster_nodes(ClusterName=NAME, NodesToAdd=add)
    aws.sagemaker.batch_reboot_cluster_nodes(**ids)
    aws.sagemaker.batch_replace_cluster_nodes(**ids)
    aws.sagemaker.batch_delete_cluster_nodes(
        ClusterName=NAME, NodeLogicalIds=[second["NodeLogicalId"], "nobody"]
    )
    check_ = {"InstanceGroupName": "workers", "DeepHealthChecks": ["InstanceStress"]}
    aws.sagemaker.start_cluster_health_check(
        ClusterName=NAME, DeepHealthCheckConfigurations=[check_]
    )


def _history(aws: Clients) -> None:
    for event in aws.sagemaker.list_cluster_events(ClusterName=NAME)["Events"]:
        aws.sagemaker.describe_cluster_event(ClusterName=NAME, EventId=event["EventId"])
    found = aws.sagemaker.list_cluster_operations(ClusterName=NAME)["ClusterOperationSummaries"]
    for operation in found:
        aws.sagemaker.describe_cluster_operation(
            ClusterName=NAME, OperationId=operation["OperationId"]
        )
