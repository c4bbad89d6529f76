"""Our policies fit AWS's Service Authorization Reference: every statement can match."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from botocore.exceptions import ClientError

from hyperpod_eks.aws.client import Identity
from hyperpod_eks.config.load import load
from hyperpod_eks.policy import authorization
from hyperpod_eks.policy import statements as policy
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Live, References, Resource
from hyperpod_eks.steps import iam, network

ACCOUNT = "123456789012"
KEY = f"arn:aws:kms:us-west-2:{ACCOUNT}:key/1234"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/pods"
ZONES = ("usw2-az1", "usw2-az2")
SETTINGS: dict[str, dict[str, Any]] = {
    "minimal": {},
    "everything": {
        "network": {"nat": "none", "security_groups": "strict"},
        "addons": {"vpc-cni": {"pod_identity_associations": [
            {"service_account": "a", "role_arn": ROLE}]},
            "aws-fsx-csi-driver": {}, "aws-ebs-csi-driver": {}},
        "pod_identity": [{"namespace": "a", "service_account": "b", "role_arn": ROLE}],
        "encryption": dict.fromkeys(("eks_secrets", "volumes", "bucket", "logs"), KEY),
        "auto_scaling": {"mode": "Enable"},
        "monitoring": "prometheus",
        "operators": ["inference"],
        "iam": {"path": "/team/"},
        "storage": {"fsx_lustre": {"data": {
            "kms_key": KEY,
            "s3": [{"file_system_path": "/a", "data_repository_path": "s3://bucket/a"}],
        }}, "efs": {"home": {"file_system_id": "fs-0123456789abcdef0"}}},
        "instance_groups": [{
            "name": "g",
            "instance_type": "ml.p5.48xlarge",
            "instance_count": 1,
            "image_id": "ami-0123456789abcdef0",
            "training_plan_arn": f"arn:aws:sagemaker:us-west-2:{ACCOUNT}:training-plan/p",
        }],
    },
    "documented": {"iam": {"node_policy": "documented"}, "monitoring": "cloudwatch"},
}  # fmt: skip


def resolved(**settings: Any) -> ResolvedConfig:
    config = load({"name": "demo", "region": "us-west-2", **settings}, {}, {}, files=False)
    return ResolvedConfig(config, Identity("", ACCOUNT, "aws", "us-west-2"), ZONES, {}, "1.35")


def nodes(place: ResolvedConfig) -> list[tuple[list[str], list[str]]]:
    """Return actions and resources in the policies of the nodes' role and of Karpenter's."""

    net = network.step(place)
    places: tuple[Resource, ...] = (net.vpc, net.security_group, *net.nodes.values())
    references = References({want.key: Live(f"{want.label}-0") for want in places})
    roles = iam.step(place, net.vpc, tuple(net.nodes.values()), net.security_group)
    policies = [*roles.execution.policies, *(roles.scaler.policies if roles.scaler else ())]
    return [
        (row["Action"], [row["Resource"]] if isinstance(row["Resource"], str) else row["Resource"])
        for each in policies
        for row in each.expected("document", references)["Statement"]
    ]


def documents(place: ResolvedConfig) -> dict[str, list[tuple[list[str], list[str]]]]:
    rows = [(list(row.actions), list(row.resources)) for row in policy.statements(place)]
    return {"caller": rows, "nodes": nodes(place)}


def plain(action: str) -> str:
    return "kms:GenerateDataKey" if action == "kms:GenerateDataKey*" else action


ACTIONS = {
    plain(action)
    for settings in SETTINGS.values()
    for rows in documents(resolved(**settings)).values()
    for actions, _ in rows
    for action in actions
}
"""All actions of all policies."""


def test_the_extract_has_every_action() -> None:
    assert sorted(a for a in ACTIONS if not authorization.known(a)) == []


@pytest.mark.parametrize("who", ["caller", "nodes"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_every_action_can_match_its_resources(settings: str, who: str) -> None:
    """All statements together cover an action's required types; each covers at least one."""
    every, wrong = defaultdict[str, list[str]](list), []
    for actions, resources in documents(resolved(**SETTINGS[settings]))[who]:
        for action in map(plain, actions):
            every[action] += resources
            kinds = authorization.types(action) or {"*": True}
            if "*" not in resources and not any(
                kind != "*" and authorization.example(each, kind)
                for kind in kinds
                for each in resources
            ):
                wrong.append((action, resources))
    assert wrong == []
    missing = {action: authorization.unmatched(action, places) for action, places in every.items()}
    assert {action: kinds for action, kinds in missing.items() if kinds} == {}


VPC = f"arn:aws:ec2:us-west-2:{ACCOUNT}:vpc/*"
USER = f"User: arn:aws:iam::{ACCOUNT}:user/ann is not authorized to perform: "
EKS = f"arn:aws:eks:us-west-2:{ACCOUNT}:cluster/demo"
REFUSALS = {
    "plain": (
        "AccessDeniedException",
        f"{USER}eks:CreateCluster on resource: {EKS}",
        f'"Action": "eks:CreateCluster", "Resource": "{EKS}"',
    ),
    "ec2": (
        "UnauthorizedOperation",
        (
            f"You are not authorized. {USER}ec2:CreateVpc on resource: {VPC} because no"
            " identity-based policy allows it. Encoded authorization failure message: AbC"
        ),
        f'"Action": "ec2:CreateVpc", "Resource": "{VPC}"',
    ),
    "quoted": (
        "AccessDenied",
        f'{USER}s3:CreateBucket on resource: "arn:aws:s3:::b" because no identity-based policy',
        '"Action": "s3:CreateBucket", "Resource": "arn:aws:s3:::b"',
    ),
    "organisation": (
        "AccessDenied",
        f"{USER}ec2:CreateVpc on resource: {VPC} with an explicit deny in a service control policy",
        f"a service control policy refuses ec2:CreateVpc on {VPC}",
    ),
    "boundary": (
        "AccessDenied",
        f"{USER}ec2:CreateVpc on resource: {VPC} because no permissions boundary allows it",
        f"a permissions boundary refuses ec2:CreateVpc on {VPC}",
    ),
    "silent": ("AccessDenied", "Access Denied", '"Action": "s3:ListBucket", "Resource": "*"'),
    "other": ("ValidationException", "no", ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_names_action_resource_and_statement(kind: str) -> None:
    code, message, words = REFUSALS[kind]
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {}}
    answer["ResponseMetadata"]["Service"] = "s3"

    cure = authorization.cure(ClientError(answer, "HeadBucket"))

    assert words in cure
    assert bool(cure) == bool(words)
