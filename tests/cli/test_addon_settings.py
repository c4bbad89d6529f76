"""An add-on's schema and its support of pod identities are checked before anything is created."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws import eks_addons
from tests.conftest import Clients, User

OPERATOR = "amazon-sagemaker-hyperpod-training-operator"
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"replicaCount": {"type": "integer"}, "tolerations": {"type": "array"}},
}


def write(user: User, addons: dict[str, Any]) -> tuple[str, ...]:
    """Write a config with add-ons; return the options that name it."""
    document = {
        "name": "demo", "region": "us-west-2", "chart": {"path": str(CHART)}, "addons": addons
    }  # fmt: skip
    (user.folder / "c.yaml").write_text(json.dumps(document))
    return "-f", "c.yaml"


@pytest.fixture
def schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let EKS publish `SCHEMA` for every add-on."""
    answer = eks_addons.configuration
    monkeypatch.setattr(
        eks_addons,
        "configuration",
        lambda request: answer(request) | {"configurationSchema": json.dumps(SCHEMA)},
    )


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"replicas": 2}, "('replicas' was unexpected); the schema has replicaCount, tolerations"),
        ({"replicaCount": "pass word"}, 'replicaCount: is not as the schema says: type "integer"'),
    ],
)
def test_settings_that_the_schema_refuses_are_told_before_anything_is_made(
    user: User, values: dict[str, Any], says: str, schema: None
) -> None:
    words = write(user, {"coredns": {"configuration_values": values}})

    said = user.types("create", *words)

    assert said.code == 2, said.err
    assert says in said.err
    assert "pass word" not in said.err
    assert user.mutations() == []


def test_settings_that_the_schema_takes_are_created_with(user: User, schema: None) -> None:
    values = {"configuration_values": {"replicaCount": 3}}
    assert user.types("create", *write(user, {"coredns": values})).code == 0


@pytest.fixture
def role(user: User, aws: Clients) -> str:
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "pods.eks.amazonaws.com"},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
            }
        ],
    }
    return str(
        aws.iam.create_role(RoleName="operator", AssumeRolePolicyDocument=json.dumps(trust))[
            "Role"
        ]["Arn"]
    )


def test_a_version_that_takes_no_pod_identity_gets_an_association_before_it(
    user: User, aws: Clients, role: str
) -> None:
    about = {"service_account": "hp-training-operator-controller-manager", "role_arn": role}
    words = write(user, {"cert-manager": {}, OPERATOR: {"pod_identity_associations": [about]}})
    user.stack.calls.clear()

    assert user.types("create", *words).code == 0

    made = [c.operation for c in user.stack.calls if c.mutating and c.service == "eks"]
    last_addon = len(made) - 1 - made[::-1].index("CreateAddon")
    assert made.index("CreatePodIdentityAssociation") < last_addon
    (found,) = aws.eks.list_pod_identity_associations(clusterName="demo")["associations"]
    assert (found["namespace"], found["serviceAccount"]) == (
        "aws-hyperpod", "hp-training-operator-controller-manager",
    )  # fmt: skip
    assert user.types("plan", *words, "--detailed-exitcode").code == 0
    user.stack.calls.clear()
    assert user.types("create", *words).code == 0
    assert user.mutations() == []

    gone = user.types("delete", "demo", "--yes")
    assert (gone.code, "nothing remains" in gone.out) == (0, True), gone.err


@pytest.mark.prove
def test_it_goes_when_it_is_no_longer_declared(user: User, aws: Clients, role: str) -> None:
    about = {"service_account": "operator", "role_arn": role}
    assert user.types("create", *write(user, {"cert-manager": {
        "pod_identity_associations": [about]}})).code == 0  # fmt: skip
    said = user.types("create", *write(user, {"cert-manager": {}}), "--yes")
    assert said.code == 0, said.err
    assert aws.eks.list_pod_identity_associations(clusterName="demo")["associations"] == []
