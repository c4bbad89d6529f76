"""Endpoints of models that live as their cluster or their operator is deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hyperpod_eks.aws.addon_needs import INFERENCE
from hyperpod_eks.local.kubernetes import Fault
from tests.cli.test_inference import BASE, CONFIG, write
from tests.cli.test_objects import kubernetes
from tests.conftest import Clients, User

ENDPOINTS = (
    "/apis/inference.sagemaker.aws.amazon.com/v1/namespaces/default/inferenceendpointconfigs"
)
STAYS = "while it has objects (inferenceendpointconfig default/endpoint), whose SageMaker endpoints"
COMMAND = "kubectl delete inferenceendpointconfigs,jumpstartmodels --all -A"


@pytest.fixture
def made(user: User, aws: Clients) -> User:
    """A cluster with the inference operator."""
    user.has("demo", *write(user, CONFIG))
    return user


def deploy() -> None:
    """Deploy a model, as a user of the cluster does."""
    text = (Path(__file__).parents[2] / "examples/jobs/endpoint.yaml").read_text()
    kubernetes("POST", ENDPOINTS, yaml.safe_load(text))


def test_delete_asks_about_endpoints_that_leave_something_in_the_account(made: User) -> None:
    asked = made.types("delete", "demo")
    assert (asked.code, "while it has objects" in asked.err) == (2, False), asked.err
    deploy()
    made.mutations()
    assert f"{INFERENCE} is deleted {STAYS}" in made.types("delete", "demo", "--dry-run").err
    asked = made.types("delete", "demo")
    assert (asked.code, made.mutations()) == (2, []), asked.err
    assert f"addons/{INFERENCE}, {STAYS}" in asked.err
    assert COMMAND in asked.err
    gone = made.types("delete", "demo", "--yes")
    assert gone.code == 0, gone.err
    assert f"addons/{INFERENCE} is deleted {STAYS}" in gone.err


def test_the_operator_is_not_removed_under_its_endpoints_without_consent(
    made: User, aws: Clients
) -> None:
    deploy()
    write(made, BASE)
    refused = made.types("create", "-f", "c.yaml")
    assert refused.code == 2
    assert f"addons/{INFERENCE}: it is deleted {STAYS}" in refused.err
    assert INFERENCE in aws.eks.list_addons(clusterName="demo")["addons"]
    kubernetes("DELETE", f"{ENDPOINTS}/endpoint")
    refused = made.types("create", "-f", "c.yaml")
    assert (refused.code, STAYS in refused.err) == (2, False)  # the OIDC provider is asked about
    said = made.types("create", "-f", "c.yaml", "--yes")
    assert said.code == 0, said.err
    assert INFERENCE not in aws.eks.list_addons(clusterName="demo")["addons"]


def test_a_cluster_whose_endpoints_cannot_be_listed_is_deleted_with_consent(made: User) -> None:
    cluster = next(iter(made.stack.sim.clusters.values()))
    cluster.faults.append(Fault(403, "Forbidden", "no", path="/api", times=999))
    asked = made.types("delete", "demo")
    assert asked.code == 2
    assert "objects (perhaps; they could not be listed: Kubernetes API of demo" in asked.err
    gone = made.types("delete", "demo", "--yes")
    assert gone.code == 0, gone.err
