"""Violations of botocore's models, as messages."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hyperpod_eks.aws import service_model as model

ROLE = "arn:aws:iam::111122223333:role/demo-nodes"


def request(**changes: Any) -> dict[str, Any]:
    """Return a valid CreateCluster request."""
    group = {
        "InstanceGroupName": "workers",
        "InstanceType": "ml.m5.2xlarge",
        "InstanceCount": 2,
        "ExecutionRole": ROLE,
        "LifeCycleConfig": {"SourceS3Uri": "s3://sagemaker-demo/x/", "OnCreate": "on_create.sh"},
        "ThreadsPerCore": 1,
        "InstanceStorageConfigs": [{"EbsVolumeConfig": {"VolumeSizeInGB": 500}}],
    }
    return {
        "ClusterName": "demo",
        "Orchestrator": {"Eks": {"ClusterArn": "arn:aws:eks:us-west-2:111122223333:cluster/demo"}},
        "NodeRecovery": "Automatic",
        "NodeProvisioningMode": "Continuous",
        "VpcConfig": {"SecurityGroupIds": ["sg-0abc"], "Subnets": ["subnet-0abc"]},
        "InstanceGroups": [{**group, **changes}],
        "Tags": [{"Key": "Größe", "Value": "1 / 2"}],
    }


def test_a_good_request_has_no_violations() -> None:
    assert model.violations("sagemaker", "CreateCluster", request()) == []


@pytest.mark.parametrize(
    ("member", "value", "answer"),
    [
        ("InstanceCount", -1, "-1 is below 0 (CreateCluster InstanceCount is 0 to 6758)"),
        ("InstanceCount", True, "true is not a whole number (CreateCluster InstanceCount is 0 to"),
        (
            "ThreadsPerCore",
            3,
            "3 is above 2 (CreateCluster ThreadsPerCore is 1 to 2); set a whole",
        ),
        ("InstanceGroupName", "-a", '"-a" does not match [a-zA-Z0-9](-*[a-zA-Z0-9])* (CreateClus'),
        ("InstanceGroupName", "", '"" has 0 characters (CreateCluster InstanceGroupName has 1 to'),
        ("InstanceType", "ml.m5.3xlarge", '"ml.m5.3xlarge" is not one of the '),
        ("InstanceStorageConfigs", [{}] * 5, "has 5 entries (CreateCluster InstanceStorageConfigs"),
        ("OnStartDeepHealthChecks", [], "has 0 entries (CreateCluster OnStartDeepHealthChecks has"),
        ("LifeCycleConfig", "x", '"x" is not a mapping (CreateCluster LifeCycleConfig); set a'),
        ("KubernetesConfig", {"Labels": {"a": "b" * 64}}, '"bbb'),
    ],
)
def test_a_member_that_breaks_a_rule_is_named(member: str, value: Any, answer: str) -> None:
    first = model.violations("sagemaker", "CreateCluster", request(**{member: value}))[0]
    place, _, text = first.partition(": ")
    assert place.startswith(f"InstanceGroups[0].{member}")
    assert text.startswith(answer)


def test_all_violations_are_told() -> None:
    params = {
        "Nme": "demo",
        "InstanceGroups": [{"InstanceStorageConfigs": [{}]}],
        "VpcConfig": {"SecurityGroupIds": [], "Subnets": ["subnet-0"]},
    }
    told = model.violations("sagemaker", "CreateCluster", params)
    assert [line.split(": ")[0] for line in told] == [
        "ClusterName",
        "Nme",
        "InstanceGroups[0].InstanceCount",
        "InstanceGroups[0].InstanceGroupName",
        "InstanceGroups[0].ExecutionRole",
        "InstanceGroups[0].InstanceStorageConfigs[0]",
        "VpcConfig.SecurityGroupIds",
    ]
    assert told[5].endswith(
        "takes exactly one of EbsVolumeConfig, FsxLustreConfig, FsxOpenZfsConfig)"
    )


def test_eks_requests_are_checked_too() -> None:
    params = {
        "name": "-demo",
        "roleArn": ROLE,
        "resourcesVpcConfig": {"subnetIds": ["subnet-0abc"]},
        "logging": {"clusterLogging": [{"types": ["apis"], "enabled": True}]},
        "tags": {"": "x"},
    }
    places = [line.split(": ")[0] for line in model.violations("eks", "CreateCluster", params)]
    assert places == ["name", "logging.clusterLogging[0].types[0]", 'tags[""]']


def test_every_pattern_of_the_two_services_is_understood_or_left_to_the_service() -> None:
    unknown = set()
    for service in ("sagemaker", "eks"):
        for name, shape in model.service(service)["shapes"].items():
            java = shape.get("pattern", "")
            if java and model._regex(java) is None:
                unknown.add(name)
    # Unsupported classes (\p{M}, \p{S}, surrogate ranges), in members that are never sent.
    assert not {name for name in unknown if re.search("Cluster|Tag|Role|Arn|Vpc", name)}
    assert len(unknown) < 20


def test_values_that_aws_enumerates_come_from_the_model() -> None:
    types = model.enum("sagemaker", "CreateCluster.InstanceGroups.InstanceType")
    assert types == model.enum("sagemaker", "ClusterInstanceType")
    assert {"ml.m5.2xlarge", "ml.p5.48xlarge"} < set(types)
    assert model.bounds("sagemaker", "CreateCluster.InstanceGroups") == (1, 100)
    assert model.pattern("sagemaker", "CreateCluster.ClusterName") == "[a-zA-Z0-9](-*[a-zA-Z0-9])*"
    assert model.enum("eks", "CreateCluster.logging.clusterLogging.types[]")[0] == "api"
    with pytest.raises(KeyError):
        model.shape("sagemaker", "CreateCluster.Colour")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("m5.2xlarge", "ml.m5.2xlarge"),
        ("ML.M5.2XLARGE", "ml.m5.2xlarge"),
        (" ml.m5.2xlarge ", "ml.m5.2xlarge"),
        ("ml.p5.48xlrge", "ml.p5.48xlarge"),
        ("p6-b200.48xlarge", "ml.p6-b200.48xlarge"),
    ],
)
def test_the_nearest_instance_type_is_found(written: str, meant: str) -> None:
    types = model.enum("sagemaker", "ClusterInstanceType")
    assert model.nearest(written, types)[0] == meant


def test_regions_are_known_in_every_partition() -> None:
    regions = model.regions()
    assert {"us-west-2", "cn-north-1", "us-gov-west-1"} < set(regions)
    assert not any(name.endswith("global") for name in regions)
