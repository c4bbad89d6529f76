"""Quotas, policies and workspaces are found by their tags when manifest and config are lost."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from hyperpod_eks.aws.tags import CLUSTER, LABEL, LINEAGE
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from tests.conftest import Clients, User

BASE = f"""name: demo
chart: {{path: {CHART}}}
instance_groups: [{{name: a, instance_type: ml.m5.2xlarge, instance_count: 1}}]
"""
TEAMS = "teams: {vision: {}, speech: {}}\n"
BUCKET = "sagemaker-demo-123456789012-us-west-2"


def loses(user: User, aws: Clients) -> None:
    """Lose the manifest, and every config."""
    (user.folder / "demo.hyperpod-eks.json").unlink()
    (user.folder / "c.yaml").unlink()
    place = {"Bucket": BUCKET}
    for each in aws.s3.list_objects_v2(**place, Prefix="hyperpod-eks.d/demo/config/")["Contents"]:
        aws.s3.delete_object(**place, Key=each["Key"])


def test_lost_quotas_and_policies_go_before_the_cluster_and_others_stay(
    user: User, aws: Clients
) -> None:
    (user.folder / "c.yaml").write_text(BASE + TEAMS)
    user.has("demo", "-f", "c.yaml")
    loses(user, aws)
    arn = aws.sagemaker.describe_cluster(ClusterName="demo")["ClusterArn"]
    theirs = aws.sagemaker.create_compute_quota(
        Name="demo-others",
        ClusterArn=arn,
        ComputeQuotaConfig={},
        ComputeQuotaTarget={"TeamName": "others"},
    )["ComputeQuotaId"]
    shown = user.types("delete", "demo", "--dry-run")
    rows = [line.split()[:2] for line in shown.out.splitlines() if "teams/" in line]
    names = ("policy", "quota-speech", "quota-vision")
    assert sorted(rows) == [["delete", f"teams/{each}"] for each in names]
    aws.sagemaker.delete_compute_quota(ComputeQuotaId=theirs)  # it would hold up the delete
    user.mutations()
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    calls = user.mutations()
    order = ["DeleteComputeQuota", "DeleteClusterSchedulerConfig", "sagemaker.DeleteCluster"]
    places = [next(n for n, call in enumerate(calls) if call.endswith(each)) for each in order]
    assert places == sorted(places)


def test_only_a_region_without_task_governance_is_not_asked(user: User) -> None:
    missing = "The requested operation is not supported in the called region."
    for code, words, ends in (
        ("UnknownOperationException", missing, 0),
        ("ValidationException", "This operation is not supported in this region", 0),
        ("ValidationException", "1 validation error detected", 1),
    ):
        fault = Fault("sagemaker", "ListClusterSchedulerConfigs", code, 400, words, count=9)
        user.stack.faults[:] = [fault]
        said = user.types("orphans", "--region", "ca-central-1", "-o", "json")
        assert said.code == ends, said.err
        assert said.document.get("not_listed", []) == []


def test_a_lost_workspace_is_an_orphan_and_that_of_others_is_not(user: User, aws: Clients) -> None:
    user.has("demo")
    record = aws.sagemaker.list_tags(
        ResourceArn=aws.sagemaker.describe_cluster(ClusterName="demo")["ClusterArn"]
    )["Tags"]
    tags = {each["Key"]: each["Value"] for each in record}
    ours = {**{key: tags[key] for key in (CLUSTER, LINEAGE)}, LABEL: "workspace"}
    mine = aws.amp.create_workspace(alias="demo", tags=ours)["workspaceId"]
    theirs = aws.amp.create_workspace(alias="demo", tags={"team": "other"})["workspaceId"]
    assert user.types("delete", "demo", "--yes").code == 0
    Path("demo.hyperpod-eks.json").unlink(missing_ok=True)
    said = user.types("orphans")
    assert f"demo  workspace  {mine}" in said.out
    assert theirs not in said.out
    assert "keeps file systems, volumes and Prometheus workspaces; --delete-data" in said.out
    (hint,) = (line for line in said.out.splitlines() if line.startswith("To delete them: "))
    command = shlex.split(hint.partition(": ")[2])[1:]
    assert user.types(*command, "--yes", "--delete-data").code == 0
    left = [each["workspaceId"] for each in aws.amp.list_workspaces()["workspaces"]]
    assert left == [theirs]


@pytest.mark.prove
def test_where_policies_cannot_be_listed_orphans_says_so(user: User, aws: Clients) -> None:
    user.has("demo")
    fault = Fault("sagemaker", "ListClusterSchedulerConfigs", "AccessDeniedException", 400)
    user.stack.sim.faults.append(fault)
    said = user.types("orphans", "--manifest", "none.json")
    assert "sagemaker was not asked for resources that only their tags show" in said.err
