"""The jobs of examples/ run on the clusters for which they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpod_eks.local import CHART
from tests.cli.test_objects import kubernetes
from tests.conftest import Clients, User

EXAMPLES = Path(__file__).parents[2] / "examples"
INFERENCE = "amazon-sagemaker-hyperpod-inference"
PLURALS = {
    "Job": "jobs",
    "MPIJob": "mpijobs",
    "HyperPodPyTorchJob": "hyperpodpytorchjobs",
    "Workspace": "workspaces",
    "InferenceEndpointConfig": "inferenceendpointconfigs",
}


def group(name: str, kind: str, count: int, **labels: str) -> dict[str, Any]:
    about = {"name": name, "instance_type": kind, "instance_count": count}
    return {**about, "kubernetes_config": {"labels": labels}}


CONFIG: dict[str, Any] = {
    "name": "demo",
    "region": "us-west-2",
    "chart": {
        "path": str(CHART),
        "values": {
            "gpu-operator": {"enabled": True},
            "nvidia-device-plugin": {"devicePlugin": {"enabled": False}},
        },
    },
    "operators": ["training", "inference", "spaces"],
    "addons": yaml.safe_load((EXAMPLES / "inference.yaml").read_text())["addons"],
    "instance_groups": [
        group("gpus", "ml.p5.48xlarge", 2),
        group("parts", "ml.p5en.48xlarge", 1, **{"nvidia.com/mig.config": "all-3g.71gb"}),
        group("system", "ml.m5.2xlarge", 2),
    ],
}


@pytest.fixture
def made(user: User, aws: Clients) -> User:
    """A cluster with every operator."""
    (user.folder / "c.yaml").write_text(json.dumps(CONFIG))
    user.has("demo", "-f", "c.yaml")
    return user


def applied(file: str, **changes: str) -> Any:
    """Do what `kubectl apply -f` does with an example; return the object once nothing moves."""
    text = (EXAMPLES / "jobs" / file).read_text()
    for old, new in changes.items():
        text = text.replace(old, new)
    body = yaml.safe_load(text)
    group_, plural = body["apiVersion"], PLURALS[body["kind"]]
    path = f"/apis/{group_}/namespaces/default/{plural}/{body['metadata']['name']}"
    kind = "application/apply-patch+yaml"
    kubernetes("PATCH", path, body, kind, fieldManager="kubectl", force="true")
    return kubernetes("GET", path)


def conditions(obj: Any) -> set[str]:
    found = obj["status"]["conditions"]
    return {each["type"] for each in found if each["status"] == "True"}


def test_every_example_of_a_job_runs(made: User) -> None:
    assert "Completed" in conditions(applied("training.yaml"))
    assert "Succeeded" in conditions(applied("nccl.yaml"))
    assert "Complete" in conditions(applied("mig.yaml", **{"3g.40gb": "3g.71gb"}))
    assert applied("notebook.yaml")["spec"]["displayName"] == "Notebook"
    assert applied("endpoint.yaml")["spec"]["modelName"] == "llama"
    pods = kubernetes("GET", "/api/v1/namespaces/default/pods")["items"]
    hosts = {
        each["spec"]["nodeName"] for each in pods if "training-pods" in each["metadata"]["name"]
    }
    assert len(hosts) == 2


def test_operators_come_after_what_they_need_and_know_the_cluster(made: User, aws: Clients) -> None:
    eks = made.stack.inventory()["us-west-2"]["eks"]["demo"]
    arn = aws.sagemaker.describe_cluster(ClusterName="demo")["ClusterArn"]
    settings = json.loads(eks["Addons"][INFERENCE]["Configuration"])
    assert settings["hyperpodClusterArn"] == arn
    assert settings["tlsCertificateS3Bucket"] == "hyperpod-tls-demo-123456789012-us-west-2"
    spaces = [each for each in eks["PodIdentityAssociations"] if "jupyter" in each]
    assert spaces == [
        "jupyter-k8s-system/jupyter-k8s-authmiddleware",
        "jupyter-k8s-system/jupyter-k8s-controller-manager",
    ]
    assert "aws-ebs-csi-driver" in eks["Addons"]
    made.mutations()
    assert made.types("create", "-f", "c.yaml").code == 0
    assert made.mutations() == []
    gone = made.types("delete", "demo", "--yes")
    assert (gone.code, "nothing remains" in gone.out) == (0, True), gone.err
