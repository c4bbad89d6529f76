"""Teams: quotas by task governance, their namespaces and people, and who may lose them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from hyperpod_eks import session as session_of
from hyperpod_eks.aws.client import Identity
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.config.load import load
from hyperpod_eks.errors import Usage
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.preflight.teams import governance
from hyperpod_eks.resources.governance import SchedulerPolicy
from tests import copies
from tests.cli.test_objects import kubernetes
from tests.conftest import Clients, User
from tests.local.ground import role
from tests.local.test_governance import ADDON, JOBS, QUEUE, SPACE, job
from tests.rounds import rounds

EXAMPLES = Path(__file__).parents[2] / "examples"
BASE = """name: demo
instance_groups: [{name: a, instance_type: ml.m5.2xlarge, instance_count: 2}]
"""
PERSON = "arn:aws:iam::123456789012:role/vision"
TEAMS = f"""teams:
  vision:
    quota: [{{instance_type: ml.m5.2xlarge, count: 1}}]
    fair_share_weight: 60
    people: [{PERSON}]
  speech:
    quota: [{{instance_type: ml.m5.2xlarge, count: 1}}]
scheduler_config:
  priority_classes: {{training: 80, inference: 100}}
"""
VISION = TEAMS[TEAMS.index("  vision") : TEAMS.index("  speech")]
CREATE = ("create", "-f", "c.yaml", "--chart", str(CHART))
PLAN = ("plan", "-f", "c.yaml", "--chart", str(CHART), "--detailed-exitcode")
NAMESPACES = "/api/v1/namespaces"
VOLUMES = "/api/v1/persistentvolumes"
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "8Gi"}}}
OWN_NAMESPACE = """teams: {a: {}}
objects: [{apiVersion: v1, kind: Namespace, metadata: {name: hyperpod-ns-a}}]"""
HERE = Identity("arn:aws:iam::123456789012:user/me", "123456789012", "aws", "ca-central-1")


def declare(user: User, teams: str = TEAMS, *changes: tuple[str, str]) -> None:
    for old, new in changes:
        assert old in teams
        teams = teams.replace(old, new)
    (user.folder / "c.yaml").write_text(BASE + teams)


@pytest.fixture
def aws(clients: Clients) -> Clients:
    return clients


def two_teams(user: User, clients: Clients) -> None:
    """Provide a cluster of two teams."""

    def create() -> None:
        role(clients, "vision", "ec2.amazonaws.com")
        declare(user)
        said = user.types(*CREATE)
        assert said.code == 0, said.err

    copies.once(user.stack, user.folder, (*CREATE, TEAMS), create)


@pytest.fixture
def user(user: User, clients: Clients) -> User:
    """A user with a cluster of two teams."""
    two_teams(user, clients)
    return user


def volume(name: str) -> Any:
    """A volume as a driver creates it for a claim of the team."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "8Gi"},
            "claimRef": {"namespace": SPACE, "name": name},
            "csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-0123456789abcdef0"},
            "persistentVolumeReclaimPolicy": "Delete",
        },
    }


def spaces() -> set[str]:
    return {each["metadata"]["name"] for each in kubernetes("GET", NAMESPACES)["items"]}


def quota(aws: Clients, team: str = "vision") -> Any:
    for each in aws.sagemaker.list_compute_quotas()["ComputeQuotaSummaries"]:
        if each["ComputeQuotaTarget"]["TeamName"] == team and each["Status"] != "Deleted":
            return aws.sagemaker.describe_compute_quota(ComputeQuotaId=each["ComputeQuotaId"])
    return None


def test_create_makes_a_policy_and_a_quota_for_each_team(user: User, aws: Clients) -> None:
    assert {"hyperpod-ns-vision", "hyperpod-ns-speech"} <= spaces()
    found = quota(aws)
    assert found["Name"] == "demo-vision"
    assert found["ComputeQuotaTarget"] == {"TeamName": "vision", "FairShareWeight": 60}
    (summary,) = aws.sagemaker.list_cluster_scheduler_configs()["ClusterSchedulerConfigSummaries"]
    id_ = summary["ClusterSchedulerConfigId"]
    policy = aws.sagemaker.describe_cluster_scheduler_config(ClusterSchedulerConfigId=id_)
    assert policy["SchedulerConfig"]["PriorityClasses"] == [
        {"Name": "inference", "Weight": 100},
        {"Name": "training", "Weight": 80},
    ]
    policies = aws.eks.list_associated_access_policies(clusterName="demo", principalArn=PERSON)
    scopes = {
        each["policyArn"].rpartition("/")[2]: each["accessScope"]
        for each in policies["associatedAccessPolicies"]
    }
    assert scopes == {
        "AmazonSagemakerHyperpodUserClusterPolicy": {"type": "cluster"},
        "AmazonSagemakerHyperpodTrainingPolicy": {"type": "namespace", "namespaces": [SPACE]},
    }
    body = yaml.safe_load((EXAMPLES / "workloads/team-job.yaml").read_text())
    assert kubernetes("POST", JOBS, body, dryRun="All")["spec"]["suspend"] is True


def test_a_test_of_the_cluster_uses_a_queue_and_finds_one_that_is_full(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperpod_eks.smoke.pods.UNPLACED", 0.0)
    assert user.types("test", "demo").code == 0
    speech = JOBS.replace("vision", "speech")
    queue = {name: value.replace("vision", "speech") for name, value in QUEUE.items()}
    kubernetes("POST", speech, job("hog", queue, cpu="12"))  # its 8, and 4 of vision's
    said = user.types("test", "demo", "--level", "2")
    kubernetes("DELETE", f"{speech}/hog")
    assert said.code == 11
    words = " ".join(said.out.split())  # lines are as long as the terminal is wide
    assert "has not admitted it: couldn't assign flavors" in words
    assert "insufficient unused quota for cpu in flavor ml.m5.2xlarge" in words


def test_a_second_create_changes_nothing_in_four_rounds(user: User) -> None:
    user.mutations()
    with rounds(user.stack) as chain:
        assert user.types(*CREATE).code == 0
    assert user.mutations() == []
    assert len(chain) <= 4


def test_a_declared_change_is_sent_without_a_question(user: User, aws: Clients) -> None:
    weight = "    fair_share_weight: 60\n"
    declare(user, TEAMS, (weight, ""), ("  speech:\n", f"  speech:\n{weight}"))
    before = quota(aws)["ComputeQuotaVersion"]
    said = user.types(*CREATE)
    assert said.code == 0, said.err
    for team, expected in (("vision", 0), ("speech", 60)):
        found = quota(aws, team)
        assert found["ComputeQuotaTarget"]["FairShareWeight"] == expected
        assert found["ComputeQuotaVersion"] == before + 1


def test_quotas_are_sent_in_each_form(user: User, aws: Clients) -> None:
    declared = [
        {"InstanceType": "ml.g5.12xlarge", "Accelerators": 2},
        {"InstanceType": "ml.m5.2xlarge", "VCpu": 4.0, "MemoryInGiB": 16.0},
        {
            "InstanceType": "ml.p5.48xlarge",
            "AcceleratorPartition": {"Type": "mig-1g.10gb", "Count": 4},
        },
    ]
    forms = """
      - {instance_type: ml.m5.2xlarge, v_cpu: 4, memory_in_gib: 16}
      - {instance_type: ml.g5.12xlarge, accelerators: 2}
      - {instance_type: ml.p5.48xlarge, accelerator_partition: {type: mig-1g.10gb, count: 4}}"""
    declare(
        user, TEAMS, (" [{instance_type: ml.m5.2xlarge, count: 1}]\n    fair", f"{forms}\n    fair")
    )
    said = user.types(*CREATE)
    assert said.code == 0, said.err
    sent = quota(aws)["ComputeQuotaConfig"]["ComputeQuotaResources"]
    assert sorted(sent, key=lambda each: str(each["InstanceType"])) == declared
    assert user.types(*PLAN).code == 0


def test_what_somebody_else_has_set_is_set_back_with_yes_only(user: User, aws: Clients) -> None:
    found = quota(aws)
    aws.sagemaker.update_compute_quota(
        ComputeQuotaId=found["ComputeQuotaId"],
        TargetVersion=found["ComputeQuotaVersion"],
        ComputeQuotaTarget={"TeamName": "vision", "FairShareWeight": 5},
    )
    refused = user.types(*CREATE)
    assert refused.code == 2
    assert "somebody else has set fair_share_weight to 5; it becomes 60" in refused.err
    assert quota(aws)["ComputeQuotaTarget"]["FairShareWeight"] == 5
    assert user.types(*CREATE, "--yes").code == 0
    assert quota(aws)["ComputeQuotaTarget"]["FairShareWeight"] == 60


def test_a_team_is_deleted_with_consent_that_names_its_namespace(user: User, aws: Clients) -> None:
    kubernetes("POST", JOBS, job("night-run", QUEUE))
    kubernetes("POST", VOLUMES, volume("checkpoints"))
    declare(user, TEAMS, (VISION, ""))
    refused = user.types(*CREATE)
    assert refused.code == 2
    assert "the namespace hyperpod-ns-vision and everything in it" in refused.err
    assert "job night-run" in refused.err
    assert SPACE in spaces()
    assert user.types(*CREATE, "--yes").code == 0
    assert SPACE not in spaces()
    assert quota(aws) is None
    kept = kubernetes("GET", f"{VOLUMES}/checkpoints")
    assert kept["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


def night(user: User) -> None:
    """Declare a team whose quota fails as it is created."""
    failures = user.stack.sim.failures
    declare(user, TEAMS, ("teams:\n", "teams:\n  night: {}\n"))
    failures["compute-quota/demo-night"] = "the webhook does not answer"
    said = user.types(*CREATE)
    assert said.code == 1
    assert "teams/quota-night has failed: the webhook does not answer" in said.err
    del failures["compute-quota/demo-night"]


def test_a_quota_that_failed_as_it_was_created_is_created_again(user: User, aws: Clients) -> None:
    night(user)
    said = user.types(*CREATE)
    assert said.code == 0, said.err
    assert quota(aws, "night")["Status"] == "Created"


@pytest.mark.prove
def test_a_failed_quota_stays_while_its_namespace_is_in_use(user: User, aws: Clients) -> None:
    night(user)
    space = f"{NAMESPACES}/hyperpod-ns-night"  # somebody had it before
    kubernetes("POST", NAMESPACES, {"metadata": {"name": "hyperpod-ns-night"}})
    claim = f"{space}/persistentvolumeclaims"
    kubernetes("POST", claim, {"metadata": {"name": "data"}, "spec": CLAIM})
    said = user.types(*CREATE, "--replace-failed")
    assert said.code == 1
    assert "the namespace hyperpod-ns-night is in use: claim data" in said.err
    kubernetes("DELETE", f"{claim}/data")
    assert user.types(*CREATE).code == 0
    assert quota(aws, "night")["Status"] == "Created"


def test_the_addon_is_not_upgraded_from_v1_3(user: User) -> None:
    from hyperpod_eks.local.aws.eks_clusters import of_region  # noqa: PLC0415  loads moto

    addon = of_region("us-west-2").clusters["demo"].addons[ADDON].document
    newest = addon["addonVersion"]
    addon["addonVersion"] = "v1.3.0-eksbuild.1"
    declare(user, f"addons: {{{ADDON}: {{version: {newest}}}}}\n{TEAMS}")
    said = user.types(*CREATE)
    assert said.code == 2
    assert "Kueue of v1.3 is not updated in place" in said.err
    assert addon["addonVersion"] == "v1.3.0-eksbuild.1"


def test_only_who_has_teams_needs_permissions_for_quotas(user: User) -> None:
    for teams, needed in ((TEAMS, True), ("", False)):
        declare(user, teams)
        said = user.types("policy", "-f", "c.yaml")
        assert said.code == 0, said.err
        assert ("sagemaker:DescribeComputeQuota" in said.out) is needed


def test_a_region_without_task_governance_is_a_warning() -> None:
    config = SimpleNamespace(teams={"vision": object()})
    there: Any = SimpleNamespace(config=config, aws=SimpleNamespace(identity=HERE))
    (found,) = governance(there)
    assert (found.id, found.severity) == ("task-governance", "warning")
    assert "not offered in ca-central-1" in found.says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("teams: {a_b: {}}", "is not the name of a team"),
        ("teams: {a: {quota: [{instance_type: ml.m5.2xlarge}]}}", "names no amount"),
        ("teams: {a: {quota: [{instance_type: ml.m5.big, count: 1}]}}", "ml.m5.big"),
        (
            "teams: {a: {resource_sharing_config: {strategy: Lend, borrow_limit: 9}}}",
            "has borrow_limit with strategy Lend",
        ),
        ("teams: {a: {fair_share_weight: 101}}", "101"),
        ("teams: {a: {people: [me]}}", "is not the ARN"),
        ("scheduler_config: {fair_share: Enabled}", "has no effect without teams"),
        (OWN_NAMESPACE, "SageMaker creates it with the team's quota"),
        ("teams: {a: {}}\ncharts: {kueue: {chart: ./kueue}}", "installs a second Kueue"),
    ],
)
def test_a_config_that_cannot_work_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"{BASE}region: us-west-2\n{text}\n")
    with pytest.raises(Usage) as refused:
        load(str(tmp_path / "c.yaml"), {}, {}, files=False)
    assert says in str(refused.value)


def theirs(aws: Clients) -> str:
    """Create a quota of somebody else for a team of theirs; return its id."""
    ours = quota(aws)
    about = {name: ours[name] for name in ("ClusterArn", "ComputeQuotaConfig")}
    target = {"TeamName": "others"}
    made = aws.sagemaker.create_compute_quota(Name="others", ComputeQuotaTarget=target, **about)
    return str(made["ComputeQuotaId"])


def test_a_delete_that_a_quota_of_others_holds_up_names_it_and_goes_on_after_it(
    user: User, aws: Clients
) -> None:
    id_ = theirs(aws)
    operation, words = "DeleteClusterSchedulerConfig", "It is in use"  # AWS publishes no words
    fault = Fault("sagemaker", operation, "ConflictException", 400, words, count=999)
    user.stack.faults.append(fault)
    said = user.types("delete", "demo", "--yes", "--timeout", "3", "-o", "json")
    user.stack.faults.clear()
    assert said.code == 9, said.err
    error = said.document["error"]
    command = f"aws sagemaker delete-compute-quota --compute-quota-id {id_} --region us-west-2"
    assert f"held by compute quota others ({id_}): {command}" in error["message"]
    assert "run the same command again" in error["hint"]
    assert quota(aws, "others")["Status"] == "Created"
    assert "hyperpod-ns-others" in spaces()
    assert aws.sagemaker.describe_cluster(ClusterName="demo")["ClusterStatus"] == "InService"
    aws.sagemaker.delete_compute_quota(ComputeQuotaId=id_)
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    assert "nothing remains" in said.out


def test_a_quota_of_others_that_holds_the_policy_is_named(user: User, aws: Clients) -> None:
    id_ = theirs(aws)
    with session_of.connect(str(user.folder / "c.yaml"), purpose=session_of.LOOK) as cluster:
        (policy,) = [each for each in cluster.wants if isinstance(each, SchedulerPolicy)]
        snapshot = Snapshot(cluster.aws)
        (live,) = policy.find(snapshot)
        said = [each.words for each in policy.blockers(snapshot, live)]
    command = f"aws sagemaker delete-compute-quota --compute-quota-id {id_} --region us-west-2"
    assert any(command in each for each in said)
    assert not any(live.id in each for each in said)


@pytest.mark.prove
def test_delete_deletes_the_quotas_before_the_cluster(user: User) -> None:
    user.mutations()
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    calls = user.mutations()
    order = ["DeleteComputeQuota", "DeleteClusterSchedulerConfig", "DeleteCluster"]
    places = [calls.index(f"sagemaker.{each}") for each in order]
    assert places == sorted(places)
