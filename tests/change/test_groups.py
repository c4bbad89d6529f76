"""Typical clusters: each example is created, changed and deleted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.aws.tags import CLUSTER
from hyperpod_eks.errors import Usage
from tests.cli.test_scaling import kubectl

from .conftest import EXAMPLES, Owner

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Effect": "Allow",
                "Principal": {"Service": "pods.eks.amazonaws.com"},
            }
        ],
    }
)


def lives(owner: Owner, text: str, changed: str, *, yes: bool = False) -> None:
    """Create, create again, change, create again: repetitions must change nothing."""
    assert owner.declares(text)
    assert owner.declares(text) == []
    assert owner.declares(changed, yes=yes)
    assert owner.declares(changed) == []
    assert [s.want.key for s in owner.looks(changed) if s.differs] == []


def test_every_example_is_lived_through_and_sends_only_what_the_models_take() -> None:
    """`Owner` fails for a request to SageMaker or EKS that violates their models."""
    sources = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    lived = set(re.findall(r"owner\.example\(\"([a-z0-9-]+)\"\)", sources))
    assert lived == {file.stem for file in EXAMPLES.glob("*.yaml")}


@pytest.mark.prove
def test_the_minimal_cluster(owner: Owner) -> None:
    text = owner.example("minimal")
    grown = (
        "instance_groups: [{name: worker-group, instance_type: ml.m5.2xlarge, instance_count: 3}]"
    )
    lives(owner, text, text + grown)
    assert len(owner.nodes("worker-group")) == 3
    assert owner.deletes(text) == []
    assert owner.account() == owner.before


@pytest.mark.prove
def test_objects_beside_the_cluster(owner: Owner) -> None:
    text = owner.example("objects")
    assert owner.declares(text)
    owner.declares(changed := text.replace('gpu: "8"', 'gpu: "16"'))  # no call of AWS
    assert [s.want.key for s in owner.looks(changed) if s.differs] == []
    assert owner.deletes(text) == []
    assert owner.account() == owner.before


@pytest.mark.prove
def test_roles_for_pods(owner: Owner) -> None:
    text = owner.example("pod-roles")
    for name in ("CloudWatchAgent", "Notebook"):
        owner.aws.iam.create_role(RoleName=name, Path="/team/", AssumeRolePolicyDocument=TRUST)
    before = owner.account()
    lives(owner, text, text.replace("[training-data, checkpoints]", "[training-data]"))
    assert owner.deletes(text) == []
    assert owner.account() == before


@pytest.mark.prove
def test_teams_that_share_a_cluster(owner: Owner) -> None:
    text = owner.example("teams")
    owner.stack.sim.set_quota("sagemaker", "ml.g5.8xlarge for cluster usage", 10)
    for name in ("Vision", "Speech"):
        owner.aws.iam.create_role(RoleName=name, Path="/team/", AssumeRolePolicyDocument=TRUST)
    before = owner.account()
    lives(owner, text, text.replace("count: 2}]   #", "count: 1}]   #"))
    assert owner.deletes(text) == []
    assert owner.account() == before


@pytest.mark.prove
def test_a_platform_for_three_teams(owner: Owner) -> None:
    text = owner.example("platform")
    owner.stack.sim.set_quota("sagemaker", "ml.g5.8xlarge for cluster usage", 10)
    for name in ("Vision", "Speech", "Search"):
        owner.aws.iam.create_role(RoleName=name, Path="/team/", AssumeRolePolicyDocument=TRUST)
    lives(owner, text, text.replace("fair_share_weight: 20", "fair_share_weight: 25"))
    owner.deletes(text)
    left = owner.stack.inventory()["us-west-2"]
    assert (len(left["fsx"]["FileSystems"]), len(left["amp"]), left["eks"]) == (1, 1, {})


@pytest.mark.prove
def test_file_systems_outlive_the_cluster(owner: Owner) -> None:
    text = owner.example("storage")
    lives(owner, text, text.replace("storage_capacity: 2400", "storage_capacity: 4800"))
    owner.deletes(text)
    assert len(owner.stack.inventory()["us-west-2"]["fsx"]["FileSystems"]) == 2


@pytest.mark.prove
def test_further_charts(owner: Owner, tmp_path: Path) -> None:
    """The charts are on the internet: a folder takes their place."""
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: near\nversion: 1.0.0\n")
    text = re.sub(r"\n +(repository|version): .*", "", owner.example("ray"))
    text = re.sub(r"chart: \S+", f"chart: {chart}", text)
    assert owner.declares(text)
    owner.declares(changed := text.replace("enablePrometheus: false", "enablePrometheus: true"))
    assert [s.want.key for s in owner.looks(changed) if s.differs] == []
    assert owner.deletes(text) == []
    assert owner.account() == owner.before


@pytest.mark.prove
def test_gpus_are_divided(owner: Owner) -> None:
    text = owner.example("mig")
    owner.stack.sim.set_quota("sagemaker", "ml.p5.48xlarge for cluster usage", 1)
    lives(owner, text, text.replace("all-3g.40gb", "all-7g.80gb"), yes=True)
    assert owner.deletes(text) == []
    assert owner.account() == owner.before


@pytest.mark.prove
def test_endpoints_for_models(owner: Owner) -> None:
    text = owner.example("inference")
    owner.stack.sim.set_quota("sagemaker", "ml.g5.8xlarge for cluster usage", 1)
    lives(owner, text, text.replace("[demo-models]", "[demo-models, demo-adapters]"))
    assert owner.deletes(text) == []
    assert owner.account() == owner.before


def tags(content: Any) -> Iterator[dict[str, str]]:
    """Yield the tags of every resource with this tool's tags."""
    if isinstance(content, dict):
        if CLUSTER in content:
            yield content
        content = list(content.values())
    for each in content if isinstance(content, list) else ():
        yield from tags(each)


@pytest.mark.prove
def test_the_articles_cluster(owner: Owner) -> None:
    text = owner.example("article").replace("ap-northeast-1", "us-west-2")
    text = text.replace("hyperpod-demo ", "demo ")
    text = text.replace("apne1-az4, apne1-az1", "usw2-az1, usw2-az2")
    text = text.replace("  project:", '  SageMaker: "true"  # as other tools want it\n  project:')
    lives(owner, text, text.replace("instance_count: 2", "instance_count: 3"))
    (group,) = owner.cluster()["InstanceGroups"]
    assert (group["CurrentCount"], group["ThreadsPerCore"]) == (3, 1)
    assert group["InstanceStorageConfigs"] == [{"EbsVolumeConfig": {"VolumeSizeInGB": 500}}]
    signed = list(tags(owner.stack.inventory()))
    assert len(signed) > 25
    assert {each.get("project") for each in signed} == {"hyperpod-demo"}
    keys = [each["Key"] for each in owner.requests("CreateCluster")[-1]["Tags"]]
    assert sorted(keys) == sorted({*keys, "SageMaker"})  # no duplicates (AddTags)
    assert owner.deletes(text) == []
    assert owner.account() == owner.before


def test_two_p5_groups_in_two_zones_under_training_plans(
    owner: Owner, plan: Callable[..., str]
) -> None:
    text = owner.example("p5-training-plans")
    for name, zone in (("train-1", "usw2-az1"), ("train-2", "usw2-az2")):
        arn = plan(name, zone, 3)
        assert arn in text  # the example has the stack's account
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
    assert "MultiNodeTrainingValidation" in groups["train-1"]["OnStartDeepHealthChecks"]
    assert groups["train-2"]["NetworkInterface"] == {"InterfaceType": "efa-only"}
    assert len(owner.nodes("train-1")) == len(owner.nodes("train-2")) == 2
    assert {n["metadata"]["labels"].get("team") for n in owner.nodes("train-1")} <= {
        "research",
        "science",
    }
    assert owner.deletes(text) == []
    assert owner.account() == before


@pytest.mark.prove
def test_spot_with_autoscaling(owner: Owner) -> None:
    kms: Any = owner.aws.session.create_client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    text = owner.example("spot-autoscaling") + f"\nencryption: {{volumes: '{key}'}}\n"
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
    assert rights(owner, "demo-scaling-us-west-2")["Keys"] == [key]  # new nodes' volumes too
    # Karpenter adds nodes, and the next create keeps them
    kubectl("apply", "workloads/spot-inference.yaml")
    text = text.replace("{capacity: spot}", "{capacity: any}")
    owner.declares(text)
    assert owner.groups()["inference"]["TargetCount"] == 2
    assert owner.deletes(text) == []
    assert owner.account() == owner.before


HEAD = "name: demo\nregion: us-west-2\n"
P5 = (
    HEAD
    + """\
network: {availability_zone_ids: [usw2-az1, usw2-az2], secondary_cidrs: [10.1.0.0/16, 10.2.0.0/16]}
instance_groups:
- {name: a, instance_type: ml.p5.48xlarge, instance_count: 2, training_plan_arn: "PLAN"}
"""
)


@pytest.mark.prove
def test_a_training_plan_must_fit_and_can_be_exchanged(
    owner: Owner, plan: Callable[..., str]
) -> None:
    one, two = plan("one", "usw2-az1", 1), plan("two", "usw2-az2", 2)
    other = plan("other", "usw2-az2", 4)
    later = owner.stack.sim.clock.now() + timedelta(days=9)
    sagemaker: Any = owner.aws.sagemaker
    offer = sagemaker.search_training_plan_offerings(
        InstanceType="ml.p5.48xlarge", InstanceCount=2, DurationHours=24,
        TargetResources=["hyperpod-cluster"], StartTimeAfter=later,
    )["TrainingPlanOfferings"][0]["TrainingPlanOfferingId"]  # fmt: skip
    scheduled = sagemaker.create_training_plan(
        TrainingPlanName="scheduled", TrainingPlanOfferingId=offer
    )["TrainingPlanArn"]
    owner.stack.calls.clear()
    text = P5.replace("PLAN", two)
    for wrong, why in (
        (P5.replace("PLAN", one), "has 1 of 1 instances free; 2 are asked for"),
        (P5.replace("PLAN", one.replace("/one", "/none")), "none does not exist in us-west-2"),
        (P5.replace("PLAN", scheduled), "is Scheduled, not Active"),
        (text.replace("p5.48x", "p4d.24x"), "is for ml.p5.48xlarge, not for ml.p4d.24xlarge"),
        (
            text.replace("instance_count", "availability_zone_ids: [usw2-az1], instance_count"),
            "is in usw2-az2, the group in usw2-az1",
        ),
    ):
        with pytest.raises(Usage, match=why):
            owner.declares(wrong)
    assert owner.mutations() == []
    # a group without declared zones is placed in its plan's zone; it can change to a plan there
    owner.declares(text)
    owner.declares(P5.replace("PLAN", other))
    group = owner.groups()["a"]
    assert (group["TrainingPlanArn"], group["CurrentCount"]) == (other, 2)
    home = owner.aws.ec2.describe_subnets(SubnetIds=group["OverrideVpcConfig"]["Subnets"])
    assert {each["AvailabilityZoneId"] for each in home["Subnets"]} == {"usw2-az2"}


@pytest.mark.prove
def test_restricted_groups_with_a_file_system_of_their_own(owner: Owner) -> None:
    text = (
        HEAD
        + """\
instance_groups: []
restricted_instance_groups:
- name: nova
  instance_type: ml.g5.2xlarge
  instance_count: 2
  environment_config:
    fsx_lustre_config: {size_in_gib: 1200, per_unit_storage_throughput: 250}
"""
    )
    lives(owner, text, text.replace("instance_count: 2", "instance_count: 3"))
    cluster = owner.cluster()
    assert cluster["InstanceGroups"] == []
    (group,) = cluster["RestrictedInstanceGroups"]
    assert (group["InstanceGroupName"], group["CurrentCount"]) == ("nova", 3)
    storage = {"SizeInGiB": 1200, "PerUnitStorageThroughput": 250}
    assert group["EnvironmentConfig"]["FSxLustreConfig"] == storage
    (request,) = owner.requests("CreateCluster")[1:]  # after that of EKS
    assert "LifeCycleConfig" not in request["RestrictedInstanceGroups"][0]
    assert len(owner.nodes("nova")) == 3
    with pytest.raises(Usage, match="instance group nova: 1 of its 3 nodes go"):
        owner.declares(text)


LUSTRE, ZFS = (f"fs-{n}.fsx.us-west-2.amazonaws.com" for n in ("0123456789ab", "ba9876543210"))


def rights(owner: Owner, policy: str) -> dict[str, list[str]]:
    """Return the resources of one of our policies, by statement."""
    arn = f"arn:aws:iam::123456789012:policy/{policy}"
    default = owner.aws.iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    found: Any = owner.aws.iam.get_policy_version(PolicyArn=arn, VersionId=default)
    return {s["Sid"]: s["Resource"] for s in found["PolicyVersion"]["Document"]["Statement"]}


@pytest.mark.prove
def test_mounts_keys_and_several_types_without_spot(owner: Owner) -> None:
    kms: Any = owner.aws.session.create_client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    text = (
        HEAD
        + f"""\
instance_groups:
- name: a
  instance_requirements: {{instance_types: [ml.m5.2xlarge, ml.m6i.2xlarge]}}
  instance_count: 2
  instance_storage_configs:
  - ebs_volume_config: {{root_volume: true, volume_kms_key_id: '{key}'}}
  - fsx_lustre_config: {{dns_name: {LUSTRE}, mount_name: abcd, mount_path: /fsx}}
  - fsx_open_zfs_config: {{dns_name: {ZFS}, mount_path: /home}}
"""
    )
    lives(owner, text, text.replace("mount_path: /home", "mount_path: /homes"))
    assert rights(owner, "demo-hyperpod-us-west-2")["Keys"] == [key]
    group = owner.groups()["a"]
    types = group["InstanceRequirements"]["DesiredInstanceTypes"]
    assert types == ["ml.m5.2xlarge", "ml.m6i.2xlarge"]
    assert "CapacityRequirements" not in group
    assert group["InstanceStorageConfigs"] == [
        {"EbsVolumeConfig": {"RootVolume": True, "VolumeKmsKeyId": key}},
        {"FsxLustreConfig": {"DnsName": LUSTRE, "MountName": "abcd", "MountPath": "/fsx"}},
        {"FsxOpenZfsConfig": {"DnsName": ZFS, "MountPath": "/homes"}},
        {"EbsVolumeConfig": {"VolumeSizeInGB": 500}},
    ]
    assert {n["metadata"]["labels"]["node.kubernetes.io/instance-type"] for n in owner.nodes()} <= {
        *types
    }


@pytest.mark.prove
def test_groups_share_a_training_plan_restricted_ones_too(
    owner: Owner, plan: Callable[..., str]
) -> None:
    arn = plan("one", "usw2-az1", 2)
    restricted = HEAD + (
        "instance_groups: []\nrestricted_instance_groups:\n"
        "- {name: a, instance_type: ml.p5.48xlarge, instance_count: 2, "
        f"training_plan_arn: {arn}}}\n"
    )
    both = restricted + restricted.splitlines(keepends=True)[-1].replace("name: a", "name: b")
    with pytest.raises(Usage, match="a, b: training plan one has 2 of 2 instances free; 4 are"):
        owner.declares(both)
    assert owner.mutations() == []
    owner.declares(restricted)
    assert owner.declares(restricted) == []  # although the plan has no free instances now


def homes(owner: Owner) -> dict[str, set[str]]:
    """Return the zones of each group."""
    there = {s["SubnetId"]: s for s in owner.aws.ec2.describe_subnets()["Subnets"]}
    return {
        name: {there[s]["AvailabilityZoneId"] for s in group["OverrideVpcConfig"]["Subnets"]}
        for name, group in owner.groups().items()
    }


def group(name: str, kind: str, more: str = "") -> str:
    return f"- {{name: {name}, instance_type: {kind}, instance_count: 1{more}}}\n"


def test_zones_are_those_that_groups_name_and_that_have_their_types(owner: Owner) -> None:
    """p5e is only in usw2-az3, trn1n only in usw2-az4, and p6-b300 in usw2-az1 and usw2-az2."""
    head = HEAD + "instance_groups:\n"
    for zone, why in (
        ("use1-az1", "use1-az1 is not a zone of us-west-2"),
        ("usw2-az1", "ml.p5e.48xlarge of a is not offered in usw2-az1; usw2-az3 have it"),
    ):
        with pytest.raises(Usage, match=why):
            owner.declares(
                head + group("a", "ml.p5e.48xlarge", f", availability_zone_ids: [{zone}]")
            )
    assert owner.mutations() == []
    text = head + group("a", "ml.m5.2xlarge", ", availability_zone_ids: [usw2-az3]")
    owner.declares(text)
    assert owner.declares(text) == []
    assert homes(owner) == {"a": {"usw2-az3"}}
    # a new group adds its zone; the zone stays when the group is removed
    more = text + group("b", "ml.m5.2xlarge", ", availability_zone_ids: [usw2-az4]")
    owner.declares(more)
    assert owner.declares(more) == []
    assert homes(owner) == {"a": {"usw2-az3"}, "b": {"usw2-az4"}}
    owner.declares(text, yes=True)
    assert owner.declares(text) == []


@pytest.mark.prove
@pytest.mark.parametrize(
    ("kinds", "zones"),
    [
        (("p5e.48xlarge", "p5en.48xlarge"), ({"usw2-az3"}, {"usw2-az3"})),
        (("p6-b300.48xlarge", "trn1n.32xlarge"), ({"usw2-az1"}, {"usw2-az4"})),
    ],
)
def test_every_type_gets_a_zone_that_has_it(
    owner: Owner, kinds: tuple[str, str], zones: tuple[set[str], set[str]]
) -> None:
    text = HEAD + "instance_groups:\n"
    for name, kind in zip("ab", kinds, strict=True):
        owner.stack.sim.set_quota("sagemaker", f"ml.{kind} for cluster usage", 1)
        text += group(name, f"ml.{kind}")
    owner.declares(text)
    assert owner.declares(text) == []
    assert homes(owner) == dict(zip("ab", zones, strict=True))
