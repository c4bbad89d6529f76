from __future__ import annotations

import json
import re
import time
import urllib.request
from typing import Any

import pytest

from hyperpod_eks.local.aws.sim import Delays
from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients
from tests.local.ground import (
    CALLER,
    NAME,
    Ground,
    hyperpod_cluster,
    kubernetes,
    nodes,
    orchestrated,
    refusal,
    workers,
)

LOGS = f"/aws/sagemaker/Clusters/{NAME}/"
TIMED = Delays(
    hyperpod_create=240,
    hyperpod_provision=390,
    hyperpod_lifecycle=90,
    node_ready=30,
    hyperpod_terminate=180,
    hyperpod_delete=750,
    hyperpod_software=900,
    eni_linger=60,
)


@pytest.fixture
def ground(aws: Clients) -> Ground:
    return orchestrated(aws)


def cluster(aws: Clients) -> dict[str, Any]:
    found: dict[str, Any] = aws.sagemaker.describe_cluster(ClusterName=NAME)
    return found


def group(aws: Clients, name: str = "workers") -> dict[str, Any]:
    return next(g for g in cluster(aws)["InstanceGroups"] if g["InstanceGroupName"] == name)


def instances(aws: Clients, **filters: Any) -> list[dict[str, Any]]:
    pages = aws.sagemaker.get_paginator("list_cluster_nodes").paginate(ClusterName=NAME, **filters)
    return [node for page in pages for node in page["ClusterNodeSummaries"]]


def interfaces(aws: Clients) -> list[dict[str, Any]]:
    every = aws.ec2.describe_network_interfaces()["NetworkInterfaces"]
    return [eni for eni in every if "HyperPod" in eni["Description"]]


def log(aws: Clients, stream: str) -> list[str]:
    (found,) = aws.logs.describe_log_groups(logGroupNamePrefix=LOGS)["logGroups"]
    events = aws.logs.get_log_events(logGroupName=found["logGroupName"], logStreamName=stream)
    return [event["message"] for event in events["events"]]


def events(aws: Clients, **filters: Any) -> list[dict[str, Any]]:
    pages = aws.sagemaker.get_paginator("list_cluster_events").paginate(ClusterName=NAME, **filters)
    return [event for page in pages for event in page["Events"]]


# -- life ----------------------------------------------------------------------------------------


def test_a_classic_cluster_is_in_service_with_its_nodes(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = TIMED
    arn = aws.sagemaker.create_cluster(**hyperpod_cluster(ground))["ClusterArn"]
    assert arn.startswith("arn:aws:sagemaker:us-west-2:123456789012:cluster/")
    assert len(arn.rsplit("/", 1)[1]) == 12
    stack.clock.advance(240 + 389)
    assert (cluster(aws)["ClusterStatus"], group(aws)["CurrentCount"]) == ("Creating", 0)
    assert [n["InstanceStatus"]["Status"] for n in instances(aws)] == ["Pending", "Pending"]
    assert interfaces(aws) == []
    stack.clock.advance(1 + 89)
    assert cluster(aws)["ClusterStatus"] == "Creating"
    assert len(interfaces(aws)) == 2
    stack.clock.advance(1)
    found = cluster(aws)
    assert found["ClusterStatus"] == "InService"
    assert found["NodeRecovery"] == "Automatic"
    assert found["Orchestrator"]["Eks"]["ClusterArn"].endswith(f"cluster/{NAME}")
    described = group(aws)
    assert (described["CurrentCount"], described["TargetCount"], described["Status"]) == (
        2,
        2,
        "InService",
    )
    assert described["ThreadsPerCore"] == 1
    assert described["LifeCycleConfig"]["OnCreate"] == "on_create.sh"
    registered = nodes(aws)
    assert set(registered) == {f"hyperpod-{n['InstanceId']}" for n in instances(aws)}
    assert not any(node["ready"] for node in registered.values())
    stack.clock.advance(30)
    assert all(node["ready"] for node in nodes(aws).values())


def test_a_continuous_cluster_is_in_service_before_its_nodes(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = TIMED
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, NodeProvisioningMode="Continuous"))
    stack.clock.advance(240)
    assert (cluster(aws)["ClusterStatus"], cluster(aws)["NodeProvisioningMode"]) == (
        "InService",
        "Continuous",
    )
    described = group(aws)
    assert (described["CurrentCount"], described["TargetCount"]) == (0, 2)
    assert (described["Status"], described["ActiveOperations"]) == ("Creating", {"Scaling": 1})
    stack.clock.advance(480)
    described = group(aws)
    assert (described["CurrentCount"], described["Status"]) == (2, "InService")
    assert "ActiveOperations" not in described


def test_deletion_takes_its_time_and_interfaces_linger(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    stack.sim.delays = TIMED
    aws.sagemaker.delete_cluster(ClusterName=NAME)
    assert cluster(aws)["ClusterStatus"] == "Deleting"
    assert {n["InstanceStatus"]["Status"] for n in instances(aws)} == {"ShuttingDown"}
    stack.clock.advance(749)
    assert cluster(aws)["ClusterStatus"] == "Deleting"
    stack.clock.advance(1)
    code, text = refusal(aws.sagemaker.describe_cluster, ClusterName=NAME)
    assert (code, NAME in text) == ("ResourceNotFound", True)
    assert aws.sagemaker.list_clusters()["ClusterSummaries"] == []
    assert nodes(aws) == {}
    assert len(interfaces(aws)) == 2
    code, _ = refusal(aws.ec2.delete_security_group, GroupId=ground.group)
    assert code == "DependencyViolation"
    stack.clock.advance(60)
    assert interfaces(aws) == []
    (left,) = aws.logs.describe_log_groups(logGroupNamePrefix=LOGS)["logGroups"]
    assert left["logGroupName"].startswith(LOGS)  # it is never deleted


def test_nodes_have_labels_interfaces_and_logs(stack: Stack, aws: Clients, ground: Ground) -> None:
    taint = {"Key": "team", "Value": "a", "Effect": "NoSchedule"}
    config = {"Labels": {"tier": "gold"}, "Taints": [taint]}
    gpu = workers(ground, InstanceType="ml.p5.48xlarge", KubernetesConfig=config)
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, gpu))
    first = instances(aws)[0]
    node = nodes(aws)[f"hyperpod-{first['InstanceId']}"]
    labels = node["metadata"]["labels"]
    assert labels["sagemaker.amazonaws.com/cluster-name"] == NAME
    zone, _, provided = node["spec"]["providerID"].removeprefix("aws:///").partition("/")
    assert zone == labels["topology.k8s.aws/zone-id"]
    assert re.fullmatch(f"sagemaker/cluster/hyperpod-[a-z0-9]+-{first['InstanceId']}", provided)
    assert labels["sagemaker.amazonaws.com/instance-group-name"] == "workers"
    assert labels["sagemaker.amazonaws.com/compute-type"] == "hyperpod"
    assert labels["sagemaker.amazonaws.com/node-health-status"] == "Schedulable"
    assert labels["node.kubernetes.io/instance-type"] == "ml.p5.48xlarge"
    assert labels["topology.kubernetes.io/zone"] == "us-west-2a"
    assert labels["tier"] == "gold"
    assert node["spec"]["taints"] == [{"key": "team", "value": "a", "effect": "NoSchedule"}]
    assert node["status"]["capacity"]["nvidia.com/gpu"] == "8"
    assert node["status"]["capacity"]["vpc.amazonaws.com/efa"] == "32"
    assert node["status"]["capacity"]["pods"] == "49"
    details = aws.sagemaker.describe_cluster_node(ClusterName=NAME, NodeId=first["InstanceId"])
    found = details["NodeDetails"]
    eni = next(e for e in interfaces(aws) if e["PrivateIpAddress"] == found["PrivatePrimaryIp"])
    assert (eni["SubnetId"], eni["RequesterManaged"]) == (ground.subnets[0], True)
    assert [g["GroupId"] for g in eni["Groups"]] == [ground.group]
    assert found["Placement"]["AvailabilityZone"] == "us-west-2a"
    assert found["KubernetesConfig"]["CurrentLabels"] == {"tier": "gold"}
    described = group(aws)["KubernetesConfig"]
    assert described["DesiredTaints"] == described["CurrentTaints"] == [taint]
    lines = log(aws, f"LifecycleConfig/workers/{first['InstanceId']}")
    assert lines[-1] == "[lifecycle] on_create.sh: exit code 0"


def test_groups_may_lie_in_a_subnet_of_their_own(aws: Clients, ground: Ground) -> None:
    there = {"SecurityGroupIds": [ground.group], "Subnets": ground.subnets[1:]}
    aws.sagemaker.create_cluster(
        **hyperpod_cluster(
            ground,
            workers(ground),
            workers(ground, InstanceGroupName="far", OverrideVpcConfig=there),
        )
    )
    where = {eni["SubnetId"] for eni in interfaces(aws)}
    assert where == set(ground.subnets)
    assert group(aws, "far")["OverrideVpcConfig"] == there


def test_hyperpod_makes_its_access_entries(stack: Stack, aws: Clients, ground: Ground) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, NodeProvisioningMode="Continuous"))
    linked = (
        "arn:aws:iam::123456789012:role/aws-service-role/hyperpod.sagemaker.amazonaws.com/"
        "AWSServiceRoleForSageMakerHyperPod"
    )
    entries = aws.eks.list_access_entries(clusterName=NAME)["accessEntries"]
    assert entries == [linked, ground.execution_role, CALLER]
    entry = aws.eks.describe_access_entry(clusterName=NAME, principalArn=ground.execution_role)
    assert entry["accessEntry"]["type"] == "HYPERPOD_LINUX"
    assert aws.iam.get_role(RoleName="AWSServiceRoleForSageMakerHyperPod")
    code, _ = refusal(aws.eks.delete_access_entry, clusterName=NAME, principalArn=linked)
    assert code == "InvalidRequestException"
    first = events(aws, SortOrder="Ascending")[0]
    detail = aws.sagemaker.describe_cluster_event(ClusterName=NAME, EventId=first["EventId"])
    metadata = detail["EventDetails"]["EventDetails"]["EventMetadata"]["Cluster"]
    assert metadata == {"SlrAccessEntry": linked, "EksRoleAccessEntries": [ground.execution_role]}


def test_a_cluster_that_lost_its_role_stays_deleting_until_it_is_back(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    stack.sim.delays = TIMED
    aws.sagemaker.delete_cluster(ClusterName=NAME)
    policy = aws.iam.get_role_policy(RoleName="exec", PolicyName="network")["PolicyDocument"]
    aws.iam.delete_role_policy(RoleName="exec", PolicyName="network")
    stack.clock.advance(3600)
    assert cluster(aws)["ClusterStatus"] == "Deleting"
    message = instances(aws)[0]["InstanceStatus"]["Message"]
    assert f"{ground.execution_role} does not have permission to perform ec2:" in message
    aws.iam.put_role_policy(
        RoleName="exec", PolicyName="network", PolicyDocument=json.dumps(policy)
    )
    stack.clock.advance(60)
    assert refusal(aws.sagemaker.describe_cluster, ClusterName=NAME)[0] == "ResourceNotFound"


def test_ids_are_the_same_in_every_run(stack: Stack, aws: Clients, ground: Ground) -> None:
    def run() -> list[str]:
        stack.reset()
        aws.sagemaker.create_cluster(**hyperpod_cluster(orchestrated(aws)))
        return [cluster(aws)["ClusterArn"], *(n["InstanceId"] for n in instances(aws))]

    assert run() == run()


def test_an_account_that_was_cleaned_up_is_as_before(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    aws.iam.create_service_linked_role(AWSServiceName="hyperpod.sagemaker.amazonaws.com")
    before = stack.inventory()
    arn = aws.sagemaker.create_cluster(**hyperpod_cluster(ground))["ClusterArn"]
    during = stack.inventory()["us-west-2"]["hyperpod"]["Clusters"][NAME]
    assert (during["Status"], len(during["Nodes"])) == ("InService", 2)
    aws.sagemaker.delete_cluster(ClusterName=arn)  # by ARN, too
    aws.logs.delete_log_group(logGroupName=f"{LOGS}{arn.rsplit('/', 1)[1]}")
    aws.eks.delete_access_entry(clusterName=NAME, principalArn=ground.execution_role)
    after = stack.inventory()
    entries = after["us-west-2"]["eks"][NAME]["AccessEntries"]
    assert [arn for arn in entries if "aws-service-role" in arn]  # stays with the EKS cluster
    before["us-west-2"]["eks"][NAME]["AccessEntries"] = entries
    assert after == before


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"ClusterName": "a_b"},
            ("1 validation error detected: Value 'a_b' at 'clusterName' failed to satisfy "
            "constraint: Member must satisfy regular expression pattern: "
            "[a-zA-Z0-9](-*[a-zA-Z0-9])*"),
        ),
        ({"ClusterName": "a" * 64}, ("at 'clusterName' failed to satisfy constraint: Member must "
         "have length less than or equal to 63")),
        ({"NodeRecovery": "Manual"}, ("at 'nodeRecovery' failed to satisfy constraint: Member must "
         "satisfy enum value set: [Automatic, None]")),
        ({"AutoScaling": {"Mode": "Enabled"}}, "at 'autoScaling.mode'"),
        ({"Tags": [{"Key": "a", "Value": "b"}] * 51}, "length less than or equal to 50"),
        ({"Tags": [{"Key": "a", "Value": "é 1_.:/=+-@"}, {"Key": "a;", "Value": "b"}]},
         "1 validation error detected: Value 'a;' at 'tags.2.member.key'"),
        ({"Orchestrator": {"Slurm": {}}}, "Orchestrator.Eks"),
        ({"AutoScaling": {"Mode": "Enable", "AutoScalerType": "Karpenter"}}, "Continuous"),
        ({"TieredStorageConfig": {"Mode": "Enable", "InstanceMemoryAllocationPercentage": 5}},
         "between 20 and 100"),
    ],
)  # fmt: skip
def test_requests_are_checked_against_the_model_and_the_rules(
    aws: Clients, ground: Ground, changes: dict[str, Any], text: str
) -> None:
    request = {**hyperpod_cluster(ground), **changes}
    code, message = refusal(aws.sagemaker.create_cluster, **request)
    assert (code, text in message) == ("ValidationException", True), message
    assert aws.sagemaker.list_clusters()["ClusterSummaries"] == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"InstanceType": "ml.x9.large"}, ("at 'instanceGroups.1.member.instanceType' failed to "
         "satisfy constraint: Member must satisfy enum value set: [ml.p4d.24xlarge, ")),
        ({"InstanceCount": 6759}, ("Value '6759' at 'instanceGroups.1.member.instanceCount' failed "
         "to satisfy constraint: Member must have value less than or equal to 6758")),
        ({"InstanceCount": 9999, "ThreadsPerCore": 3}, "2 validation errors detected"),
        ({"LifeCycleConfig": {"SourceS3Uri": "ftp://x/y"}}, "lifeCycleConfig.sourceS3Uri"),
        ({"LifeCycleConfig": {}}, "LifeCycleConfig with SourceS3Uri and OnCreate is required"),
        ({"InstanceRequirements": {"InstanceTypes": ["ml.m5.large"]}}, "exactly one of"),
        ({"InstanceCount": 0}, "Continuous"),
        ({"MinInstanceCount": 1}, "Continuous"),
        ({"CapacityRequirements": {"Spot": {}}}, "Continuous"),
        ({"OnStartDeepHealthChecks": ["InstanceStress"]}, "accelerators"),
        ({"InstanceStorageConfigs": [{"EbsVolumeConfig": {"RootVolume": True}}]}, "RootVolume"),
        ({"ExecutionRole": "arn:aws:iam::123456789012:role/nobody"},
         "cannot assume the execution role arn:aws:iam::123456789012:role/nobody"),
        ({"ExecutionRole": "arn:aws:iam::123456789012:role/eks"}, "cannot assume the execution"),
        ({"OverrideVpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}},
         "subnet ID 'subnet-1' does not exist"),
        ({"TrainingPlanArn": "arn:aws:sagemaker:us-west-2:123456789012:training-plan/p"},
         "Training plan"),
    ],
)  # fmt: skip
def test_groups_are_checked(
    aws: Clients, ground: Ground, changes: dict[str, Any], text: str
) -> None:
    request = hyperpod_cluster(ground, workers(ground, **changes))
    code, message = refusal(aws.sagemaker.create_cluster, **request)
    assert text in message
    assert code in ("ValidationException", "ResourceNotFound")


def test_names_are_taken_once(aws: Clients, ground: Ground) -> None:
    twice = hyperpod_cluster(ground, workers(ground), workers(ground))
    assert "unique" in refusal(aws.sagemaker.create_cluster, **twice)[1]
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    assert refusal(aws.sagemaker.create_cluster, **hyperpod_cluster(ground))[0] == "ResourceInUse"
    code, text = refusal(
        aws.sagemaker.create_cluster, **hyperpod_cluster(ground, ClusterName="other")
    )
    assert (code, "already orchestrates" in text) == ("ValidationException", True)


def test_the_role_must_be_able_to_do_its_work(stack: Stack, aws: Clients, ground: Ground) -> None:
    aws.iam.delete_role_policy(RoleName="exec", PolicyName="network")
    code, text = refusal(aws.sagemaker.create_cluster, **hyperpod_cluster(ground))
    assert code == "ValidationException"
    assert "does not have permission to perform ec2:CreateNetworkInterface" in text
    # a detach also needs permission for the instance, not only for the interface
    only = {
        "Effect": "Allow",
        "Action": ["ec2:*NetworkInterface*", "ec2:Describe*"],
        "Resource": "arn:aws:ec2:*:*:network-interface/*",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [only]})
    aws.iam.put_role_policy(RoleName="exec", PolicyName="network", PolicyDocument=document)
    code, text = refusal(aws.sagemaker.create_cluster, **hyperpod_cluster(ground))
    assert "does not have permission to perform ec2:DetachNetworkInterface" in text


def test_the_eks_cluster_must_be_fit(stack: Stack, aws: Clients, ground: Ground) -> None:
    def refused() -> str:
        return refusal(aws.sagemaker.create_cluster, **hyperpod_cluster(ground))[1]

    kubernetes(aws, "DELETE", "/api/v1/namespaces/aws-hyperpod")
    assert "missing one or more required dependencies" in refused()
    versions = aws.eks.describe_addon_versions(addonName="vpc-cni")["addons"][0]["addonVersions"]
    aws.eks.create_addon(
        clusterName=NAME, addonName="vpc-cni", addonVersion=versions[-1]["addonVersion"]
    )
    kubernetes(aws, "POST", "/api/v1/namespaces", {"metadata": {"name": "aws-hyperpod"}})
    assert "older than 1.18.3" in refused()
    stack.sim.delays = Delays(eks_delete=205)
    aws.eks.delete_cluster(name=NAME)
    assert "must be ACTIVE" in refused()
    stack.clock.advance(205)
    assert "does not exist" in refused()
    config_map = {"authenticationMode": "CONFIG_MAP"}
    aws.eks.create_cluster(
        name=NAME,
        roleArn=ground.eks_role,
        resourcesVpcConfig={"subnetIds": ground.subnets},
        accessConfig=config_map,
    )
    assert "authentication mode" in refused()


def test_the_network_must_be_that_of_the_eks_cluster(aws: Clients, ground: Ground) -> None:
    vpc = aws.ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = aws.ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.0.0/24")["Subnet"]["SubnetId"]
    config = {"SecurityGroupIds": [ground.group], "Subnets": [subnet]}
    request = hyperpod_cluster(ground, VpcConfig=config)
    assert "must share one VPC" in refusal(aws.sagemaker.create_cluster, **request)[1]
    config = {"SecurityGroupIds": ["sg-00000000"], "Subnets": ground.subnets}
    request = hyperpod_cluster(ground, VpcConfig=config)
    assert "'sg-00000000' does not exist" in refusal(aws.sagemaker.create_cluster, **request)[1]


def test_quotas_are_kept(stack: Stack, aws: Clients, ground: Ground) -> None:
    quota = "ml.m5.2xlarge for cluster usage"
    stack.sim.set_quota("sagemaker", quota, 1)
    code, text = refusal(aws.sagemaker.create_cluster, **hyperpod_cluster(ground))
    assert code == "ResourceLimitExceeded"
    assert text.startswith(
        f"The account-level service limit '{quota}' is 1 Instances, with current utilization of "
        "0 Instances and a request delta of 2 Instances. Please use AWS Service Quotas"
    )
    stack.sim.set_quota("sagemaker", quota, 3)
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    request = {"ClusterName": NAME, "InstanceGroups": [workers(ground, InstanceCount=4)]}
    code, text = refusal(aws.sagemaker.update_cluster, **request)
    assert "utilization of 2 Instances and a request delta of 2" in text
    big = {"EbsVolumeConfig": {"VolumeSizeInGB": 2000}}
    request["InstanceGroups"] = [workers(ground, InstanceStorageConfigs=[big])]
    assert "Maximum size of EBS" in refusal(aws.sagemaker.update_cluster, **request)[1]
    assert group(aws)["CurrentCount"] == 2


def test_moto_answers_for_the_rest_of_sagemaker(aws: Clients) -> None:
    assert aws.sagemaker.list_models()["Models"] == []
    assert aws.sagemaker.list_notebook_instances()["NotebookInstances"] == []


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("capacity", "We currently do not have sufficient capacity for the requested instance"),
        ("capacity-zone", "sufficient capacity in the Availability Zone you requested"),
        ("subnet-zone", "No subnets in the capacity AZ"),
        ("efa", "EFA health checks did not run successfully. Ensure that your VPC and security"),
        ("script", "Lifecycle scripts did not run successfully. Ensure the scripts exist in"),
        ("script-timeout", "Lifecycle scripts execution timed out"),
    ],
)
def test_a_classic_cluster_fails_as_a_whole(
    stack: Stack, aws: Clients, ground: Ground, kind: str, text: str
) -> None:
    stack.sim.failures["group/workers"] = kind
    stack.sim.delays = TIMED
    aws.sagemaker.create_cluster(
        **hyperpod_cluster(ground, workers(ground, InstanceGroupName="fine"), workers(ground))
    )
    stack.clock.advance(240 + 390 + 90)
    assert cluster(aws)["ClusterStatus"] == "RollingBack"
    stack.clock.advance(180)
    found = cluster(aws)
    assert (found["ClusterStatus"], text in found["FailureMessage"]) == ("Failed", True)
    assert instances(aws) == []
    request = {"ClusterName": NAME, "InstanceGroups": [workers(ground)]}
    assert "Delete it" in refusal(aws.sagemaker.update_cluster, **request)[1]
    aws.sagemaker.delete_cluster(ClusterName=NAME)
    stack.clock.advance(750 + 60)
    assert interfaces(aws) == []


def test_a_failed_script_leaves_its_words_in_the_log(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.failures["group/*"] = "script"
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    assert cluster(aws)["ClusterStatus"] == "Failed"
    (found,) = aws.logs.describe_log_groups(logGroupNamePrefix=LOGS)["logGroups"]
    streams = aws.logs.describe_log_streams(logGroupName=found["logGroupName"])["logStreams"]
    assert len(streams) == 2
    assert log(aws, streams[0]["logStreamName"])[-1] == "[lifecycle] on_create.sh: exit code 1"


def test_the_network_check_fails_before_anything_is_logged(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    closed = aws.ec2.create_security_group(VpcId=ground.vpc, GroupName="c", Description="c")
    config = {"SecurityGroupIds": [closed["GroupId"]], "Subnets": ground.subnets}
    gpu = workers(ground, InstanceType="ml.p5.48xlarge")
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, gpu, VpcConfig=config))
    assert "EFA health checks" in cluster(aws)["FailureMessage"]
    assert aws.logs.describe_log_groups(logGroupNamePrefix=LOGS)["logGroups"] == []
    aws.sagemaker.delete_cluster(ClusterName=NAME)
    # without EFA the same rules are sufficient
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, VpcConfig=config))
    assert cluster(aws)["ClusterStatus"] == "InService"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("object", "on_create.sh: No such file"),
        ("endings", "/bin/bash^M: bad interpreter"),
        ("first line", "Exec format error"),
        ("bucket", "NoSuchBucket"),
        ("policy", "AccessDenied"),
    ],
)
def test_a_script_that_cannot_be_fetched_fails(
    aws: Clients, ground: Ground, damage: str, words: str
) -> None:
    script = {"Bucket": "sagemaker-demo", "Key": "config/on_create.sh"}
    if damage in ("object", "bucket"):
        aws.s3.delete_object(**script)
    if damage == "endings":
        aws.s3.put_object(**script, Body=b"#!/bin/bash\r\necho\r\n")
    if damage == "first line":
        aws.s3.put_object(**script, Body=b"echo")
    if damage == "bucket":
        aws.s3.delete_bucket(Bucket="sagemaker-demo")
    if damage == "policy":
        arn = "arn:aws:iam::aws:policy/AmazonSageMakerClusterInstanceRolePolicy"
        aws.iam.detach_role_policy(RoleName="exec", PolicyArn=arn)
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    assert "Lifecycle scripts did not run" in cluster(aws)["FailureMessage"]
    (found,) = aws.logs.describe_log_groups(logGroupNamePrefix=LOGS)["logGroups"]
    streams = aws.logs.describe_log_streams(logGroupName=found["logGroupName"])["logStreams"]
    assert words in " ".join(log(aws, streams[0]["logStreamName"]))


def test_a_continuous_cluster_keeps_trying(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.failures["group/workers"] = "capacity"
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, NodeProvisioningMode="Continuous"))
    assert cluster(aws)["ClusterStatus"] == "InService"
    assert (group(aws)["CurrentCount"], group(aws)["Status"]) == (0, "Degraded")
    assert "sufficient capacity" in events(aws, ResourceType="InstanceGroup")[0]["Description"]
    stack.sim.failures["group/workers"] = "script"
    stack.clock.advance(300)
    failed = {node["InstanceId"]: node["InstanceStatus"] for node in instances(aws)}
    assert {status["Status"] for status in failed.values()} == {"Failure"}
    assert "Lifecycle scripts" in next(iter(failed.values()))["Message"]
    worst = events(aws, NodeId=next(iter(failed)))[0]
    assert worst["EventLevel"] == "Error"
    stack.sim.failures.clear()
    stack.clock.advance(300)
    assert (group(aws)["CurrentCount"], group(aws)["Status"]) == (2, "InService")
    assert not set(failed) & {node["InstanceId"] for node in instances(aws)}


def test_a_node_may_never_be_ready(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.failures["group/workers"] = "not-ready"
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    stack.clock.advance(7200)
    assert cluster(aws)["ClusterStatus"] == "InService"
    assert [node["ready"] for node in nodes(aws).values()] == [False, False]


def test_a_group_below_its_minimum_is_rolled_back_after_three_hours(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.failures["group/workers"] = "capacity"
    spec = workers(ground, MinInstanceCount=1)
    aws.sagemaker.create_cluster(
        **hyperpod_cluster(ground, spec, NodeProvisioningMode="Continuous")
    )
    stack.clock.advance(3 * 3600 - 1)
    assert group(aws)["TargetCount"] == 2
    stack.clock.advance(1)
    assert group(aws)["TargetCount"] == 0
    assert "rolled back" in events(aws, ResourceType="InstanceGroup")[0]["Description"]


def test_an_existing_group_below_its_minimum_is_what_it_was_before(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    """SageMaker API ClusterInstanceGroupSpecification, MinInstanceCount."""
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, NodeProvisioningMode="Continuous"))
    stack.sim.failures["group/workers"] = "capacity"
    bigger = workers(ground, InstanceCount=5, MinInstanceCount=4)
    aws.sagemaker.update_cluster(ClusterName=NAME, InstanceGroups=[bigger])
    assert group(aws)["TargetCount"] == 5
    stack.clock.advance(3 * 3600)
    assert (group(aws)["TargetCount"], group(aws)["CurrentCount"]) == (2, 2)
    assert "MinCount" not in group(aws)


def test_a_token_of_added_nodes_is_valid_for_8_hours_and_tells_of_now(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    """SageMaker API BatchAddClusterNodes, ClientToken."""
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, NodeProvisioningMode="Continuous"))
    stack.sim.delays = TIMED

    def added() -> tuple[str, str]:
        (node,) = aws.sagemaker.batch_add_cluster_nodes(
            ClusterName=NAME,
            ClientToken="t",
            NodesToAdd=[{"InstanceGroupName": "workers", "IncrementTargetCountBy": 1}],
        )["Successful"]
        return node["NodeLogicalId"], node["Status"]

    first, status = added()
    assert status == "Pending"
    stack.clock.advance(8 * 3600 - 1)
    assert added() == (first, "Running")
    stack.clock.advance(1)
    assert added()[0] != first


def test_no_more_than_50_nodes_are_added_at_once(aws: Clients, ground: Ground) -> None:
    """SageMaker API BatchAddClusterNodes, NodesToAdd."""
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, NodeProvisioningMode="Continuous"))
    code, text = refusal(
        aws.sagemaker.batch_add_cluster_nodes,
        ClusterName=NAME,
        NodesToAdd=[{"InstanceGroupName": "workers", "IncrementTargetCountBy": n} for n in (50, 1)],
    )
    assert (code, "50" in text) == ("ValidationException", True)


def test_failures_are_ordered_over_http(stack: Stack, aws: Clients, ground: Ground) -> None:
    def order(failures: dict[str, str]) -> None:
        body = json.dumps(failures).encode()
        with urllib.request.urlopen(f"{stack.endpoint}/_stack/failures", body) as answer:
            assert answer.status == 200

    order({"group/workers": "capacity"})
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    assert cluster(aws)["ClusterStatus"] == "Failed"
    order({})
    aws.sagemaker.delete_cluster(ClusterName=NAME)
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    assert cluster(aws)["ClusterStatus"] == "InService"


# -- updates -------------------------------------------------------------------------------------


def test_an_update_scales_up_and_down(stack: Stack, aws: Clients, ground: Ground) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    old = {node["InstanceId"] for node in instances(aws)}
    stack.sim.delays = TIMED

    def update(count: int) -> None:
        groups = [workers(ground, InstanceCount=count)]
        aws.sagemaker.update_cluster(ClusterName=NAME, InstanceGroups=groups)

    update(3)
    assert (cluster(aws)["ClusterStatus"], group(aws)["Status"]) == ("Updating", "Updating")
    for call, request in (
        (aws.sagemaker.update_cluster, {"InstanceGroups": [workers(ground)]}),
        (aws.sagemaker.delete_cluster, {}),
        (aws.sagemaker.update_cluster_software, {}),
    ):
        assert refusal(call, ClusterName=NAME, **request)[0] == "ConflictException"
    stack.clock.advance(480)
    assert (cluster(aws)["ClusterStatus"], group(aws)["CurrentCount"]) == ("InService", 3)
    update(1)
    stack.clock.advance(179)
    assert cluster(aws)["ClusterStatus"] == "Updating"
    stack.clock.advance(1)
    assert (cluster(aws)["ClusterStatus"], len(nodes(aws))) == ("InService", 1)
    assert {node["InstanceId"] for node in instances(aws)} < old  # the newest was deleted
    stack.clock.advance(60)
    assert len(interfaces(aws)) == 1


def test_what_an_update_leaves_out_is_reset_or_gone(aws: Clients, ground: Ground) -> None:
    first = workers(ground, ThreadsPerCore=2)
    second = workers(ground, InstanceGroupName="second", InstanceCount=1)
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, first, second))
    del first["ThreadsPerCore"]
    aws.sagemaker.update_cluster(
        ClusterName=NAME, InstanceGroups=[first, second], NodeRecovery="None"
    )
    assert (group(aws)["ThreadsPerCore"], cluster(aws)["NodeRecovery"]) == (1, "None")
    aws.sagemaker.update_cluster(ClusterName=NAME, InstanceGroups=[first])
    assert [g["InstanceGroupName"] for g in cluster(aws)["InstanceGroups"]] == ["workers"]
    assert len(instances(aws)) == 2
    aws.sagemaker.update_cluster(
        ClusterName=NAME, InstanceGroups=[first, second], InstanceGroupsToDelete=[]
    )
    aws.sagemaker.update_cluster(ClusterName=NAME, InstanceGroupsToDelete=["second"])
    assert len(instances(aws)) == 2


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"InstanceGroupsToDelete": ["workers"]}, "At least one instance group must remain"),
        ({"InstanceGroupsToDelete": ["nobody"]}, "do not exist"),
        ({"InstanceGroups": {"InstanceType": "ml.m5.large"}}, "InstanceType of the existing"),
        (
            {"Orchestrator": {"Eks": {"ClusterArn": "arn:aws:eks:x:123456789012:cluster/y"}}},
            "orchestrator of a cluster cannot be changed",
        ),
        ({"NodeRecovery": "Perhaps"}, "at 'nodeRecovery'"),
    ],
)
def test_what_cannot_be_updated_is_refused(
    aws: Clients, ground: Ground, request_: dict[str, Any], text: str
) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    if "InstanceGroups" in request_:
        request_ = {"InstanceGroups": [workers(ground, **request_["InstanceGroups"])]}
    code, message = refusal(aws.sagemaker.update_cluster, ClusterName=NAME, **request_)
    assert (code, text in message) == ("ValidationException", True), message
    assert cluster(aws)["ClusterStatus"] == "InService"


def test_a_failed_update_rolls_back(stack: Stack, aws: Clients, ground: Ground) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    before = {node["InstanceId"] for node in instances(aws)}
    stack.sim.failures["group/new"] = "capacity"
    new = workers(ground, InstanceGroupName="new")
    groups = [workers(ground, InstanceCount=4), new]
    aws.sagemaker.update_cluster(ClusterName=NAME, InstanceGroups=groups)
    found = cluster(aws)
    assert found["ClusterStatus"] == "InService"
    assert "sufficient capacity" in found["FailureMessage"]
    assert [g["InstanceGroupName"] for g in found["InstanceGroups"]] == ["workers"]
    assert (group(aws)["TargetCount"], group(aws)["CurrentCount"]) == (2, 2)
    assert {node["InstanceId"] for node in instances(aws)} == before
    stack.sim.failures.clear()
    aws.sagemaker.update_cluster(ClusterName=NAME, InstanceGroups=groups)
    assert "FailureMessage" not in cluster(aws)
    assert len(instances(aws)) == 6


def test_software_is_updated_batch_by_batch(stack: Stack, aws: Clients, ground: Ground) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, workers(ground, InstanceCount=3)))
    assert group(aws)["ImageVersionStatus"] == "UpdateAvailable"
    stack.sim.delays = TIMED
    size = {"Type": "INSTANCE_COUNT", "Value": 2}
    aws.sagemaker.update_cluster_software(
        ClusterName=NAME,
        DeploymentConfig={"RollingUpdatePolicy": {"MaximumBatchSize": size}},
    )
    assert (cluster(aws)["ClusterStatus"], group(aws)["SoftwareUpdateStatus"]) == (
        "SystemUpdating",
        "InProgress",
    )
    states = [node["InstanceStatus"]["Status"] for node in instances(aws)]
    assert states == ["SystemUpdating", "SystemUpdating", "Running"]
    assert sum(node["ready"] for node in nodes(aws).values()) == 1
    stack.clock.advance(900)
    states = [node["InstanceStatus"]["Status"] for node in instances(aws)]
    assert states == ["Running", "Running", "SystemUpdating"]
    stack.clock.advance(930)
    assert (cluster(aws)["ClusterStatus"], group(aws)["SoftwareUpdateStatus"]) == (
        "InService",
        "Succeeded",
    )
    assert group(aws)["ImageVersionStatus"] == "UpToDate"
    assert all(node["ready"] for node in nodes(aws).values())
    assert all("LastSoftwareUpdateTime" in node for node in instances(aws))


# -- nodes one by one ----------------------------------------------------------------------------


def test_nodes_are_added_and_deleted_one_by_one(stack: Stack, aws: Clients, ground: Ground) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, NodeProvisioningMode="Continuous"))
    request = {
        "ClusterName": NAME,
        "ClientToken": "t",
        "NodesToAdd": [
            {"InstanceGroupName": "workers", "IncrementTargetCountBy": 2},
            {"InstanceGroupName": "nobody", "IncrementTargetCountBy": 1},
            {
                "InstanceGroupName": "workers",
                "IncrementTargetCountBy": 1,
                "AvailabilityZones": ["us-west-2c"],
            },
        ],
    }
    answer = aws.sagemaker.batch_add_cluster_nodes(**request)
    assert len(answer["Successful"]) == 2
    assert [bad["ErrorCode"] for bad in answer["Failed"]] == [
        "InstanceGroupNotFound",
        "IncompatibleAvailabilityZones",
    ]
    again = aws.sagemaker.batch_add_cluster_nodes(**request)
    assert again["Successful"] == answer["Successful"]
    assert (group(aws)["TargetCount"], group(aws)["CurrentCount"]) == (4, 4)
    listed = instances(aws, IncludeNodeLogicalIds=True)
    logical = answer["Successful"][0]["NodeLogicalId"]
    assert logical in {node["NodeLogicalId"] for node in listed}
    described = aws.sagemaker.describe_cluster_node(ClusterName=NAME, NodeLogicalId=logical)
    first = listed[0]["InstanceId"]
    deleted = aws.sagemaker.batch_delete_cluster_nodes(
        ClusterName=NAME, NodeIds=[first, "i-00000000"], NodeLogicalIds=[logical]
    )
    assert (deleted["Successful"], deleted["SuccessfulNodeLogicalIds"]) == ([first], [logical])
    assert [bad["Code"] for bad in deleted["Failed"]] == ["NodeIdNotFound"]
    assert (group(aws)["TargetCount"], group(aws)["CurrentCount"]) == (2, 2)
    gone = described["NodeDetails"]["InstanceId"]
    assert not {first, gone} & {node["InstanceId"] for node in instances(aws)}
    code, _ = refusal(aws.sagemaker.describe_cluster_node, ClusterName=NAME, NodeId=first)
    assert code == "ResourceNotFound"


def test_nodes_are_rebooted_and_replaced(stack: Stack, aws: Clients, ground: Ground) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    first, second = (node["InstanceId"] for node in instances(aws))
    stack.sim.delays = TIMED
    answer = aws.sagemaker.batch_reboot_cluster_nodes(
        ClusterName=NAME, NodeIds=[first, "i-00000000"]
    )
    assert (answer["Successful"], answer["Failed"][0]["ErrorCode"]) == (
        [first],
        "InstanceIdNotFound",
    )
    assert not nodes(aws)[f"hyperpod-{first}"]["ready"]
    stack.clock.advance(30)
    assert nodes(aws)[f"hyperpod-{first}"]["ready"]
    aws.sagemaker.batch_replace_cluster_nodes(ClusterName=NAME, NodeIds=[second])
    stack.clock.advance(480)
    now = {node["InstanceId"] for node in instances(aws)}
    assert (len(now), first in now, second in now) == (2, True, False)
    code, text = refusal(
        aws.sagemaker.batch_add_cluster_nodes,
        ClusterName=NAME,
        NodesToAdd=[{"InstanceGroupName": "workers", "IncrementTargetCountBy": 1}],
    )
    assert (code, "Continuous" in text) == ("ValidationException", True)


def test_deep_health_checks_keep_work_away(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.delays = Delays(deep_health=3600)
    gpu = workers(ground, InstanceType="ml.p5.48xlarge", OnStartDeepHealthChecks=["InstanceStress"])
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, gpu, NodeProvisioningMode="Continuous"))
    status = "sagemaker.amazonaws.com/deep-health-check-status"

    def seen() -> tuple[set[str], set[str], int]:
        found = nodes(aws).values()
        return (
            {node["InstanceStatus"]["Status"] for node in instances(aws)},
            {node["metadata"]["labels"][status] for node in found},
            sum(len(node["spec"].get("taints", ())) for node in found),
        )

    assert seen() == ({"DeepHealthCheckInProgress"}, {"InProgress"}, 2)
    stack.clock.advance(3600)
    assert seen() == ({"Running"}, {"Passed"}, 0)
    checks = {"InstanceGroupName": "workers", "DeepHealthChecks": ["InstanceConnectivity"]}
    aws.sagemaker.start_cluster_health_check(
        ClusterName=NAME, DeepHealthCheckConfigurations=[checks]
    )
    assert seen()[0] == {"DeepHealthCheckInProgress"}
    (operation,) = aws.sagemaker.list_cluster_operations(ClusterName=NAME, Type="DeepHealthCheck")[
        "ClusterOperationSummaries"
    ]
    assert operation["Status"] == "InProgress"
    stack.clock.advance(3600)
    done = aws.sagemaker.describe_cluster_operation(
        ClusterName=NAME, OperationId=operation["OperationId"]
    )
    assert (done["Status"], done["DeepHealthCheckDetails"]) == ("Done", [checks])


# -- lists ---------------------------------------------------------------------------------------


def test_scaling_shows_as_operations_that_supersede_each_other(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, NodeProvisioningMode="Continuous"))
    stack.sim.delays = TIMED
    for count in (3, 4):
        groups = [workers(ground, InstanceCount=count)]
        aws.sagemaker.update_cluster(ClusterName=NAME, InstanceGroups=groups)
    assert cluster(aws)["ClusterStatus"] == "InService"

    def operations() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = aws.sagemaker.list_cluster_operations(ClusterName=NAME)[
            "ClusterOperationSummaries"
        ]
        return found

    assert [o["Status"] for o in operations()] == ["InProgress", "Superseded"]
    stack.clock.advance(480)
    assert [o["Status"] for o in operations()] == ["Done", "Superseded"]
    newest = aws.sagemaker.describe_cluster_operation(
        ClusterName=NAME, OperationId=operations()[0]["OperationId"]
    )
    (detail,) = newest["ScalingDetails"]
    assert (detail["Original"]["TargetCount"], detail["Desired"]["TargetCount"]) == (3, 4)


def test_events_are_for_continuous_clusters(aws: Clients, ground: Ground) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    code, text = refusal(aws.sagemaker.list_cluster_events, ClusterName=NAME)
    assert (code, "Continuous" in text) == ("ValidationException", True)


def test_nodes_are_listed_page_by_page(stack: Stack, aws: Clients, ground: Ground) -> None:
    small = workers(ground, InstanceGroupName="few", InstanceCount=1)
    aws.sagemaker.create_cluster(
        **hyperpod_cluster(ground, workers(ground, InstanceCount=12), small)
    )
    first = aws.sagemaker.list_cluster_nodes(ClusterName=NAME)
    assert (len(first["ClusterNodeSummaries"]), "NextToken" in first) == (10, True)
    assert len(instances(aws)) == 13
    assert len(instances(aws, InstanceGroupNameContains="ork")) == 12
    assert instances(aws, CreationTimeAfter=stack.clock.now().replace(year=2999)) == []
    names = [
        node["InstanceGroupName"] for node in instances(aws, SortBy="NAME", SortOrder="Descending")
    ]
    assert names == ["workers"] * 12 + ["few"]
    assert refusal(aws.sagemaker.list_cluster_nodes, ClusterName=NAME, NextToken="x")[0] == (
        "ValidationException"
    )


def test_clusters_are_listed_by_name_and_time(aws: Clients, ground: Ground) -> None:
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    (found,) = aws.sagemaker.list_clusters(NameContains="em")["ClusterSummaries"]
    assert (found["ClusterName"], found["ClusterStatus"]) == (NAME, "InService")
    assert aws.sagemaker.list_clusters(NameContains="x")["ClusterSummaries"] == []
    assert aws.sagemaker.list_clusters(CreationTimeBefore=0)["ClusterSummaries"] == []


def test_tags_are_kept_apart_from_the_cluster(aws: Clients, ground: Ground) -> None:
    arn = aws.sagemaker.create_cluster(**hyperpod_cluster(ground))["ClusterArn"]
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])
    aws.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["SageMaker"])
    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    many = [{"Key": f"k{number}", "Value": ""} for number in range(50)]
    assert refusal(aws.sagemaker.add_tags, ResourceArn=arn, Tags=many)[0] == (
        "ResourceLimitExceeded"
    )


# -- the rest of CreateCluster -------------------------------------------------------------------


def test_a_training_plan_gives_capacity_in_its_zone(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    offers = aws.sagemaker.search_training_plan_offerings(
        InstanceType="ml.p5.48xlarge",
        InstanceCount=2,
        DurationHours=48,
        TargetResources=["hyperpod-cluster"],
    )["TrainingPlanOfferings"]
    here, there = (
        aws.sagemaker.create_training_plan(
            TrainingPlanName=name, TrainingPlanOfferingId=offer["TrainingPlanOfferingId"]
        )["TrainingPlanArn"]
        for name, offer in zip(("here", "there"), offers, strict=True)
    )
    plan = aws.sagemaker.describe_training_plan(TrainingPlanName="here")
    assert (plan["Status"], plan["AvailableInstanceCount"]) == ("Active", 2)
    assert plan["ReservedCapacitySummaries"][0]["AvailabilityZone"] == "us-west-2a"

    gpu = workers(ground, InstanceType="ml.p5.48xlarge", TrainingPlanArn=there)
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, gpu))
    assert cluster(aws)["FailureMessage"] == "No subnets in the capacity AZ"
    aws.sagemaker.delete_cluster(ClusterName=NAME)
    gpu["TrainingPlanArn"] = here
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground, gpu))
    assert cluster(aws)["ClusterStatus"] == "InService"
    plan = aws.sagemaker.describe_training_plan(TrainingPlanName=here)
    assert (plan["InUseInstanceCount"], plan["AvailableInstanceCount"]) == (2, 0)
    plans = aws.sagemaker.list_training_plans()["TrainingPlanSummaries"]
    assert {p["TrainingPlanName"] for p in plans} == {"here", "there"}
    (summary,) = aws.sagemaker.list_clusters(TrainingPlanArn=here)["ClusterSummaries"]
    assert summary["TrainingPlanArns"] == [here]
    stack.clock.advance(48 * 3600)
    assert aws.sagemaker.describe_training_plan(TrainingPlanName=here)["Status"] == "Expired"


def test_everything_else_that_a_cluster_may_have_is_described_again(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    quota = "ml.m5.large for cluster spot instance usage"
    total = "Total number of Spot instances allowed across SageMaker HyperPod clusters"
    for each in (quota, total):
        stack.sim.set_quota("sagemaker", each, 5)
    trust = aws.iam.get_role(RoleName="exec")["Role"]["AssumeRolePolicyDocument"]
    trust["Statement"][0]["Principal"] = {"Service": "hyperpod.sagemaker.amazonaws.com"}
    scaler = aws.iam.create_role(RoleName="scaler", AssumeRolePolicyDocument=json.dumps(trust))[
        "Role"
    ]["Arn"]
    storage = [{"EbsVolumeConfig": {"VolumeSizeInGB": 500}}]
    spot = workers(
        ground,
        InstanceGroupName="spot",
        InstanceType="ml.m5.large",
        InstanceCount=0,
        CapacityRequirements={"Spot": {}},
    )
    flexible = workers(
        ground,
        InstanceGroupName="flexible",
        InstanceCount=1,
        InstanceRequirements={"InstanceTypes": ["ml.m5.xlarge", "ml.m5.large"]},
        ImageId="ami-12345678",
        InstanceStorageConfigs=storage,
        NetworkInterface={"InterfaceType": "efa-only"},
    )
    del flexible["InstanceType"]
    restricted = {
        "InstanceGroupName": "nova",
        "InstanceType": "ml.m5.2xlarge",
        "InstanceCount": 1,
        "ExecutionRole": ground.execution_role,
        "EnvironmentConfig": {
            "FSxLustreConfig": {"SizeInGiB": 1200, "PerUnitStorageThroughput": 125}
        },
    }
    aws.sagemaker.create_cluster(
        **hyperpod_cluster(
            ground,
            spot,
            flexible,
            NodeProvisioningMode="Continuous",
            NodeRecovery="None",
            ClusterRole=scaler,
            AutoScaling={"Mode": "Enable", "AutoScalerType": "Karpenter"},
            TieredStorageConfig={"Mode": "Enable", "InstanceMemoryAllocationPercentage": 30},
            RestrictedInstanceGroups=[restricted],
        )
    )
    found = cluster(aws)
    assert found["AutoScaling"]["Status"] == "InService"
    assert (found["ClusterRole"], found["NodeRecovery"]) == (scaler, "None")
    assert found["TieredStorageConfig"]["InstanceMemoryAllocationPercentage"] == 30
    assert group(aws, "spot")["CapacityRequirements"] == {"Spot": {}}
    mixed = group(aws, "flexible")
    assert mixed["InstanceRequirements"]["CurrentInstanceTypes"] == ["ml.m5.xlarge", "ml.m5.large"]
    assert mixed["InstanceTypeDetails"][0]["CurrentCount"] == 1
    assert (mixed["CurrentImageId"], mixed["InstanceStorageConfigs"]) == ("ami-12345678", storage)
    assert mixed["NetworkInterface"] == {"InterfaceType": "efa-only"}
    (nova,) = found["RestrictedInstanceGroups"]
    assert (nova["CurrentCount"], nova["EnvironmentConfig"]["S3OutputPath"][:15]) == (
        1,
        "s3://sagemaker-",
    )


# -- size ----------------------------------------------------------------------------------------


def test_a_large_cluster_costs_in_proportion(stack: Stack, aws: Clients) -> None:
    def life(size: int) -> float:
        stack.reset()
        stack.sim.delays = Delays(
            hyperpod_create=1,
            hyperpod_provision=1,
            hyperpod_lifecycle=1,
            node_ready=1,
            controller=1,  # else Kubernetes controllers would read all nodes for each node
        )
        ground = orchestrated(aws)
        for quota in (
            "ml.m5.2xlarge for cluster usage",
            "Maximum number instances allowed per SageMaker HyperPod cluster",
            "Total number of instances allowed across SageMaker HyperPod clusters",
        ):
            stack.sim.set_quota("sagemaker", quota, size)
        begin = time.process_time()
        aws.sagemaker.create_cluster(
            **hyperpod_cluster(
                ground, workers(ground, InstanceCount=size), NodeProvisioningMode="Continuous"
            )
        )
        stack.clock.advance(5)
        assert group(aws)["CurrentCount"] == size
        assert len(instances(aws, MaxResults=100)) == size
        aws.sagemaker.delete_cluster(ClusterName=NAME)
        stack.clock.advance(5)
        assert interfaces(aws) == []
        return time.process_time() - begin

    life(10)
    assert life(3000) < 25 * life(300)  # 10 times the nodes; quadratic would be 100 times the time
