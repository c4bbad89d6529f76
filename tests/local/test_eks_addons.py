from __future__ import annotations

import json
from typing import Any

import pytest

from hyperpod_eks.local.aws.sim import Delays
from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients
from tests.local.ground import (
    NAME,
    Ground,
    eks_cluster,
    hyperpod_cluster,
    install_chart,
    kubernetes,
    lay,
    refusal,
    role,
)


@pytest.fixture
def ground(aws: Clients) -> Ground:
    ground = lay(aws)
    aws.eks.create_cluster(**eks_cluster(ground))
    return ground


def addon(aws: Clients, name: str) -> dict[str, Any]:
    found: dict[str, Any] = aws.eks.describe_addon(clusterName=NAME, addonName=name)["addon"]
    return found


def versions(aws: Clients, name: str, kubernetes_version: str) -> list[dict[str, Any]]:
    (found,) = aws.eks.describe_addon_versions(
        addonName=name, kubernetesVersion=kubernetes_version
    )["addons"]
    listed: list[dict[str, Any]] = found["addonVersions"]
    return listed


def test_an_addon_installs_its_workload(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.delays = Delays(addon=40)
    made = aws.eks.create_addon(
        clusterName=NAME,
        addonName="vpc-cni",
        resolveConflicts="OVERWRITE",
        configurationValues='{"env": {"X": "y"}}',
        tags={"a": "b"},
    )["addon"]
    assert made["status"] == "CREATING"
    stack.clock.advance(39)
    assert addon(aws, "vpc-cni")["status"] == "CREATING"
    stack.clock.advance(1)
    found = addon(aws, "vpc-cni")
    assert (found["status"], found["tags"], found["health"]) == (
        "ACTIVE",
        {"a": "b"},
        {"issues": []},
    )
    assert found["configurationValues"] == '{"env": {"X": "y"}}'
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets/aws-node"
    status, workload = kubernetes(aws, "GET", path)
    image = workload["spec"]["template"]["spec"]["containers"][0]["image"]
    assert (status, image.endswith(found["addonVersion"])) == (200, True)
    assert aws.eks.list_addons(clusterName=NAME)["addons"] == ["vpc-cni"]
    aws.eks.delete_addon(clusterName=NAME, addonName="vpc-cni")
    assert addon(aws, "vpc-cni")["status"] == "DELETING"
    stack.clock.advance(40)
    code, text = refusal(aws.eks.describe_addon, clusterName=NAME, addonName="vpc-cni")
    assert (code, text) == (
        "ResourceNotFoundException",
        f"No addon: vpc-cni found in cluster: {NAME}",
    )
    assert kubernetes(aws, "GET", path)[0] == 404


def test_coredns_is_degraded_until_nodes_are_ready(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    install_chart(aws)
    stack.sim.delays = Delays(
        addon=40, hyperpod_create=240, hyperpod_provision=390, hyperpod_lifecycle=90, node_ready=30
    )
    aws.eks.create_addon(clusterName=NAME, addonName="coredns")
    stack.clock.advance(40)
    found = addon(aws, "coredns")
    assert found["status"] == "DEGRADED"
    assert [issue["code"] for issue in found["health"]["issues"]] == [
        "InsufficientNumberOfReplicas"
    ]
    aws.sagemaker.create_cluster(**hyperpod_cluster(ground))
    stack.clock.advance(240 + 390 + 90)
    assert addon(aws, "coredns")["status"] == "DEGRADED"  # nodes run but are not Ready
    stack.clock.advance(30)
    assert addon(aws, "coredns")["status"] == "ACTIVE"
    assert addon(aws, "coredns")["health"] == {"issues": []}


def test_each_kubernetes_version_has_one_default_which_need_not_be_the_newest(
    aws: Clients,
) -> None:
    for name in ("vpc-cni", "kube-proxy", "coredns", "eks-pod-identity-agent"):
        for minor in range(31, 37):
            listed = versions(aws, name, f"1.{minor}")
            defaults = [
                one["addonVersion"]
                for one in listed
                if any(c["defaultVersion"] for c in one["compatibilities"])
            ]
            assert len(defaults) == 1, (name, minor)
            if name in ("vpc-cni", "kube-proxy"):
                assert defaults != [listed[0]["addonVersion"]]
    old = [one["addonVersion"] for one in versions(aws, "vpc-cni", "1.31")]
    assert any(version.startswith("v1.18.2") for version in old)
    assert aws.eks.describe_addon_versions(addonName="nothing")["addons"] == []
    every = aws.eks.describe_addon_versions(kubernetesVersion="1.35")["addons"]
    assert "amazon-sagemaker-hyperpod-training-operator" in {one["addonName"] for one in every}
    compute = aws.eks.describe_addon_versions(types=["storage"])["addons"]
    assert {one["type"] for one in compute} == {"storage"}


def test_the_default_version_is_installed_unless_one_is_named(aws: Clients, ground: Ground) -> None:
    aws.eks.create_addon(clusterName=NAME, addonName="kube-proxy")
    chosen = addon(aws, "kube-proxy")["addonVersion"]
    assert {
        "clusterVersion": "1.35",
        "platformVersions": ["*"],
        "defaultVersion": True,
    } in next(
        one["compatibilities"]
        for one in versions(aws, "kube-proxy", "1.35")
        if one["addonVersion"] == chosen
    )
    schema = aws.eks.describe_addon_configuration(addonName="kube-proxy", addonVersion=chosen)
    properties = json.loads(schema["configurationSchema"])["properties"]
    assert properties["mode"] == {"type": "string"}
    assert schema["podIdentityConfiguration"] == []


def test_service_accounts_and_policies_are_recommended(aws: Clients) -> None:
    name = "amazon-cloudwatch-observability"
    chosen = versions(aws, name, "1.35")[0]["addonVersion"]
    found = aws.eks.describe_addon_configuration(addonName=name, addonVersion=chosen)
    policies = [
        f"arn:aws:iam::aws:policy/{each}"
        for each in ("AWSXrayWriteOnlyAccess", "CloudWatchAgentServerPolicy")
    ]
    assert found["podIdentityConfiguration"] == [
        {"serviceAccount": "cloudwatch-agent", "recommendedManagedPolicies": policies}
    ]


NO = (
    "ConfigurationValue provided in request is not supported: Json schema validation failed with "
    "error: "
)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"addonName": "nothing"}, "Addon nothing specified is not supported in 1.35"),
        ({"addonVersion": "v0.0.1-eksbuild.1"}, "Addon version specified is not supported"),
        ({"configurationValues": "{not json"}, "ConfigurationValue"),
        (
            {"configurationValues": "replicas: 1"},
            f"{NO}[$.replicas: is not defined in the schema and the schema does not allow ",
        ),
        (
            {"configurationValues": '{"env": "A=1"}'},
            f"{NO}[$.env: string found, object expected]",
        ),
        ({"configurationValues": "null"}, f"{NO}[$: null found, object expected]"),
        (
            {"serviceAccountRoleArn": "arn:aws:iam::123456789012:role/nobody"},
            "nobody does not exist",
        ),
        (
            {
                "addonName": "amazon-sagemaker-hyperpod-training-operator",
                "podIdentityAssociations": [{"serviceAccount": "a", "roleArn": "b"}],
            },
            "Pod Identity feature is not supported for addon version",
        ),
    ],
)
def test_what_cannot_be_installed_is_refused(
    aws: Clients, ground: Ground, changes: dict[str, Any], text: str
) -> None:
    request = {"clusterName": NAME, "addonName": "vpc-cni", **changes}
    code, message = refusal(aws.eks.create_addon, **request)
    assert (code, text in message) == ("InvalidParameterException", True), message
    assert aws.eks.list_addons(clusterName=NAME)["addons"] == []


def test_an_addon_is_installed_once(aws: Clients, ground: Ground) -> None:
    request = {"clusterName": NAME, "addonName": "vpc-cni", "clientRequestToken": "t"}
    first = aws.eks.create_addon(**request)["addon"]
    assert aws.eks.create_addon(**request)["addon"]["addonArn"] == first["addonArn"]
    code, text = refusal(aws.eks.create_addon, clusterName=NAME, addonName="vpc-cni")
    assert (code, text) == ("ResourceInUseException", "Addon already exists.")


def test_an_addon_needs_an_active_cluster(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.delays = Delays(eks_delete=205)
    aws.eks.delete_cluster(name=NAME)
    code, text = refusal(aws.eks.create_addon, clusterName=NAME, addonName="vpc-cni")
    assert (code, "not in ACTIVE" in text) == ("InvalidRequestException", True)


def test_an_update_is_an_update(stack: Stack, aws: Clients, ground: Ground) -> None:
    newest = versions(aws, "vpc-cni", "1.35")[0]["addonVersion"]
    aws.eks.create_addon(clusterName=NAME, addonName="vpc-cni")
    stack.sim.delays = Delays(addon=40)
    update = aws.eks.update_addon(
        clusterName=NAME, addonName="vpc-cni", addonVersion=newest, resolveConflicts="PRESERVE"
    )["update"]
    assert (update["type"], update["status"]) == ("AddonUpdate", "InProgress")
    assert addon(aws, "vpc-cni")["status"] == "UPDATING"
    assert refusal(aws.eks.update_addon, clusterName=NAME, addonName="vpc-cni")[0] == (
        "ResourceInUseException"
    )
    stack.clock.advance(40)
    assert (addon(aws, "vpc-cni")["status"], addon(aws, "vpc-cni")["addonVersion"]) == (
        "ACTIVE",
        newest,
    )
    named = {"name": NAME, "addonName": "vpc-cni"}
    assert aws.eks.list_updates(**named)["updateIds"] == [update["id"]]
    assert aws.eks.list_updates(name=NAME)["updateIds"] == []
    done = aws.eks.describe_update(**named, updateId=update["id"])["update"]
    assert done["status"] == "Successful"


def test_what_others_own_is_a_conflict_unless_overwritten(aws: Clients) -> None:
    ground = lay(aws)
    aws.eks.create_cluster(**eks_cluster(ground, bootstrapSelfManagedAddons=True))
    aws.eks.create_addon(clusterName=NAME, addonName="vpc-cni")
    found = addon(aws, "vpc-cni")
    assert found["status"] == "CREATE_FAILED"
    (issue,) = found["health"]["issues"]
    assert issue["code"] == "ConfigurationConflict"
    assert "conflict" in issue["message"]
    aws.eks.create_addon(clusterName=NAME, addonName="kube-proxy", resolveConflicts="OVERWRITE")
    assert addon(aws, "kube-proxy")["status"] == "ACTIVE"


def test_pod_identities_of_an_addon_go_with_it(aws: Clients, ground: Ground) -> None:
    arn = role(aws, "cni", "pods.eks.amazonaws.com")
    aws.eks.create_addon(
        clusterName=NAME,
        addonName="vpc-cni",
        podIdentityAssociations=[{"serviceAccount": "aws-node", "roleArn": arn}],
    )
    (association,) = aws.eks.list_pod_identity_associations(clusterName=NAME)["associations"]
    found = addon(aws, "vpc-cni")
    assert found["podIdentityAssociations"] == [association["associationArn"]]
    assert association["ownerArn"] == found["addonArn"]
    aws.eks.delete_addon(clusterName=NAME, addonName="vpc-cni", preserve=True)
    assert aws.eks.list_pod_identity_associations(clusterName=NAME)["associations"] == []
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets/aws-node"
    assert kubernetes(aws, "GET", path)[0] == 200  # preserved


def test_an_addon_can_be_made_to_fail(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.failures["addon/vpc-cni"] = "AccessDenied"
    aws.eks.create_addon(clusterName=NAME, addonName="vpc-cni")
    found = addon(aws, "vpc-cni")
    assert found["status"] == "CREATE_FAILED"
    assert found["health"]["issues"][0]["code"] == "AccessDenied"
    aws.eks.delete_addon(clusterName=NAME, addonName="vpc-cni")
    assert aws.eks.list_addons(clusterName=NAME)["addons"] == []
