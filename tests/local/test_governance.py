"""Task governance in the embedded stack: quotas, their namespaces, and jobs that wait."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.cli.test_objects import kubernetes
from tests.conftest import Clients, User

ADDON = "amazon-sagemaker-hyperpod-taskgovernance"
SPACE = "hyperpod-ns-vision"
JOBS = f"/apis/batch/v1/namespaces/{SPACE}/jobs"
KUEUE = "/apis/kueue.x-k8s.io/v1beta2"
QUEUE = {"kueue.x-k8s.io/queue-name": f"{SPACE}-localqueue"}
CONFIG: Any = {"ComputeQuotaResources": [{"InstanceType": "ml.m5.2xlarge", "Count": 1}]}


@pytest.fixture
def aws(user: User, clients: Clients) -> Clients:
    """Clients of an account with a cluster without the add-on."""
    user.has("demo")
    return clients


def install(aws: Clients, version: str = "v1.6.1-eksbuild.1") -> None:
    aws.eks.create_addon(clusterName="demo", addonName=ADDON, addonVersion=version)


def arn(aws: Clients) -> str:
    return str(aws.sagemaker.describe_cluster(ClusterName="demo")["ClusterArn"])


def policy(aws: Clients, name: str = "demo") -> str:
    classes: Any = [{"Name": "training", "Weight": 80}]
    return str(
        aws.sagemaker.create_cluster_scheduler_config(
            Name=name, ClusterArn=arn(aws), SchedulerConfig={"PriorityClasses": classes}
        )["ClusterSchedulerConfigId"]
    )


def quota(aws: Clients, team: str = "vision", config: Any = CONFIG) -> str:
    return str(
        aws.sagemaker.create_compute_quota(
            Name=f"demo-{team}",
            ClusterArn=arn(aws),
            ComputeQuotaConfig=config,
            ComputeQuotaTarget={"TeamName": team},
            Tags=[{"Key": "a", "Value": "b"}],
        )["ComputeQuotaId"]
    )


def about(aws: Clients, id_: str) -> Any:
    return aws.sagemaker.describe_compute_quota(ComputeQuotaId=id_)


def job(name: str, labels: Any, cpu: str = "6", pods: Any = None) -> Any:
    container = {
        "name": "main",
        "image": "busybox:1",
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": cpu}},
    }
    template: Any = {
        "metadata": {"labels": labels if pods is None else pods},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    return {"metadata": {"name": name, "labels": labels}, "spec": {"template": template}}


def test_a_policy_without_the_add_on_fails_for_good(aws: Clients) -> None:
    id_ = policy(aws)
    found = aws.sagemaker.describe_cluster_scheduler_config(ClusterSchedulerConfigId=id_)
    assert found["Status"] == "CreateFailed"
    assert "add-on" in found["FailureReason"]
    with pytest.raises(ClientError, match="CreateFailed"):
        aws.sagemaker.update_cluster_scheduler_config(
            ClusterSchedulerConfigId=id_, TargetVersion=1, SchedulerConfig={}
        )


def test_jobs_wait_for_their_quota_and_need_a_queue(aws: Clients) -> None:
    install(aws)
    policy_id = policy(aws)
    id_ = quota(aws)
    found = about(aws, id_)
    assert found["Status"] == "Created"
    assert found["ComputeQuotaConfig"]["ResourceSharingConfig"]["BorrowLimit"] == 50
    marks = kubernetes("GET", f"/api/v1/namespaces/{SPACE}")["metadata"]["labels"]
    assert marks["sagemaker.amazonaws.com/quota-allocation-id"] == id_
    queue = kubernetes("GET", f"{KUEUE}/clusterqueues/{SPACE}-clusterqueue")
    (flavor,) = queue["spec"]["resourceGroups"][0]["flavors"]
    assert {"name": "cpu", "nominalQuota": "8", "borrowingLimit": "4"} in flavor["resources"]
    assert kubernetes("GET", f"{KUEUE}/workloadpriorityclasses/training-priority")["value"] == 80

    with pytest.raises(Exception, match="queue-name"):
        kubernetes("POST", JOBS, job("free", {}))
    kubernetes("POST", JOBS, job("first", QUEUE))
    first = kubernetes("GET", f"{JOBS}/first")
    assert first["spec"]["suspend"] is False
    kubernetes("POST", JOBS, job("unlabelled", QUEUE, cpu="1", pods={}))
    pods = kubernetes("GET", f"/api/v1/namespaces/{SPACE}/pods")["items"]
    assert [p["metadata"]["labels"]["job-name"] for p in pods] == ["first"]

    kubernetes("POST", JOBS, job("large", QUEUE, cpu="12"))
    assert kubernetes("GET", f"{JOBS}/large")["spec"]["suspend"] is True
    (waits,) = [
        w
        for w in kubernetes("GET", f"{KUEUE}/namespaces/{SPACE}/workloads")["items"]
        if "large" in w["metadata"]["name"]
    ]
    (condition,) = waits["status"]["conditions"]
    assert condition["type"] == "QuotaReserved"
    assert condition["status"] == "False"
    assert "insufficient unused quota for cpu" in condition["message"]
    more = {"ComputeQuotaResources": [{"InstanceType": "ml.m5.2xlarge", "Count": 3}]}
    with pytest.raises(ClientError, match="ConflictException"):
        aws.sagemaker.update_compute_quota(
            ComputeQuotaId=id_, TargetVersion=2, ComputeQuotaConfig=more
        )
    answer = aws.sagemaker.update_compute_quota(
        ComputeQuotaId=id_, TargetVersion=1, ComputeQuotaConfig=more
    )
    assert (answer["ComputeQuotaVersion"], about(aws, id_)["Status"]) == (2, "Updated")
    assert kubernetes("GET", f"{JOBS}/large")["spec"]["suspend"] is False

    with pytest.raises(ClientError, match="delete it first"):
        aws.sagemaker.delete_cluster(ClusterName="demo")
    with pytest.raises(ClientError, match="while compute quotas exist"):
        aws.sagemaker.delete_cluster_scheduler_config(ClusterSchedulerConfigId=policy_id)
    aws.sagemaker.delete_compute_quota(ComputeQuotaId=id_)
    (left,) = aws.sagemaker.list_compute_quotas(ClusterArn=arn(aws))["ComputeQuotaSummaries"]
    assert left["Status"] == "Deleted"
    spaces = kubernetes("GET", "/api/v1/namespaces")["items"]
    assert SPACE not in [each["metadata"]["name"] for each in spaces]


def test_a_team_borrows_what_another_lends(aws: Clients) -> None:
    install(aws)
    quota(aws)
    quota(aws, "speech")
    kubernetes("POST", JOBS, job("borrower", QUEUE, cpu="11"))
    assert kubernetes("GET", f"{JOBS}/borrower")["spec"]["suspend"] is False
    kubernetes("POST", JOBS, job("greedy", QUEUE, cpu="2"))
    assert kubernetes("GET", f"{JOBS}/greedy")["spec"]["suspend"] is True


def test_an_upgrade_from_v1_3_fails_in_place(aws: Clients) -> None:
    install(aws, "v1.3.0-eksbuild.1")
    aws.eks.update_addon(clusterName="demo", addonName=ADDON, addonVersion="v1.6.1-eksbuild.1")
    found = aws.eks.describe_addon(clusterName="demo", addonName=ADDON)["addon"]
    assert (found["status"], found["addonVersion"]) == ("UPDATE_FAILED", "v1.3.0-eksbuild.1")
    assert "v1alpha1" in found["health"]["issues"][0]["message"]
