"""The clusters that people run: the examples are made, changed and deleted, as AWS shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .conftest import Owner

EXAMPLES = Path(__file__).parents[2] / "examples"
MINIMAL = (EXAMPLES / "minimal.yaml").read_text()


def lives(owner: Owner, text: str, changed: str, *, yes: bool = False) -> None:
    """Create, again without a change, change, again without a change, delete."""
    assert owner.declares(text)
    assert owner.declares(text) == []
    assert owner.declares(changed, yes=yes)
    assert owner.declares(changed) == []
    assert [s.want.key for s in owner.looks(changed) if s.differs] == []


def test_the_articles_cluster(owner: Owner) -> None:
    text = (EXAMPLES / "article.yaml").read_text().replace("ap-northeast-1", "us-west-2")
    text = text.replace("hyperpod-demo ", "demo ")
    text = text.replace("apne1-az4, apne1-az1", "usw2-az1, usw2-az2")
    lives(owner, text, text.replace("instance_count: 2", "instance_count: 3"))
    (group,) = owner.cluster()["InstanceGroups"]
    assert (group["CurrentCount"], group["ThreadsPerCore"]) == (3, 1)
    assert group["InstanceStorageConfigs"] == [{"EbsVolumeConfig": {"VolumeSizeInGB": 500}}]
    assert owner.deletes(text) == []
    assert owner.account() == owner.before


def test_two_p5_groups_in_two_zones_under_training_plans(
    owner: Owner, plan: Callable[..., str]
) -> None:
    text = (EXAMPLES / "p5-training-plans.yaml").read_text()
    for name, zone in (("train-1", "usw2-az1"), ("train-2", "usw2-az2")):
        arn = plan(name, zone, 3)
        text = text.replace(f"arn:aws:sagemaker:us-west-2:111122223333:training-plan/{name}", arn)
    before = owner.account()
    lives(owner, text, text.replace("{team: research}", "{team: science}"))
    groups = owner.groups()
    subnets = {s["SubnetId"]: s for s in owner.aws.ec2.describe_subnets()["Subnets"]}
    homes = {
        name: [subnets[s] for s in group["OverrideVpcConfig"]["Subnets"]]
        for name, group in groups.items()
    }
    assert {n: [s["AvailabilityZoneId"] for s in h] for n, h in homes.items()} == {
        "system": ["usw2-az1"],
        "train-1": ["usw2-az1"],
        "train-2": ["usw2-az2"],
    }
    assert homes["train-2"][0]["CidrBlock"] == "10.2.0.0/16"
    assert all(group["CurrentCount"] == 2 for group in groups.values())
    assert groups["train-1"]["KubernetesConfig"]["DesiredLabels"] == {"team": "science"}
    assert groups["train-2"]["NetworkInterface"] == {"InterfaceType": "efa-only"}
    assert len(owner.nodes("train-1")) == len(owner.nodes("train-2")) == 2
    assert {n["metadata"]["labels"].get("team") for n in owner.nodes("train-1")} <= {
        "research",
        "science",
    }
    assert owner.deletes(text) == []
    assert owner.account() == before


def test_spot_with_autoscaling(owner: Owner) -> None:
    text = (EXAMPLES / "spot-autoscaling.yaml").read_text()
    sim = owner.stack.sim
    sim.set_quota("sagemaker", "ml.g6.2xlarge for cluster spot instance usage", 10)
    sim.set_quota(
        "sagemaker", "Total number of Spot instances allowed across SageMaker HyperPod clusters", 10
    )
    lives(owner, text, text.replace("{capacity: spot}", "{capacity: cheap}"))
    group = owner.groups()["inference"]
    assert group["CapacityRequirements"] == {"Spot": {}}
    types = group["InstanceRequirements"]["DesiredInstanceTypes"]
    assert types == ["ml.g6.2xlarge", "ml.g6.4xlarge"]
    assert group["KubernetesConfig"]["DesiredTaints"] == [
        {"Key": "spot", "Value": "true", "Effect": "NoSchedule"}
    ]
    cluster = owner.cluster()
    assert cluster["AutoScaling"]["Mode"] == "Enable"
    role = owner.aws.iam.get_role(RoleName=cluster["ClusterRole"].rpartition("/")[2])["Role"]
    assert "hyperpod.sagemaker.amazonaws.com" in str(role["AssumeRolePolicyDocument"])
    # Karpenter asks for more, and the next create leaves it at that
    owner.aws.sagemaker.batch_add_cluster_nodes(
        ClusterName="demo",
        NodesToAdd=[{"InstanceGroupName": "inference", "IncrementTargetCountBy": 2}],
    )
    text = text.replace("{capacity: spot}", "{capacity: any}")
    owner.declares(text)
    assert owner.groups()["inference"]["TargetCount"] == 3
    assert owner.deletes(text) == []
    assert owner.account() == owner.before
