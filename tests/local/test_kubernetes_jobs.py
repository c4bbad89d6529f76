"""Jobs in the embedded Kubernetes complete, and their pods have logs."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import Delays

from .test_kubernetes import APPS, CORE, Client, Start, workload
from .test_kubernetes_validation import BATCH, DEFINITIONS

KUBEFLOW = "/apis/kubeflow.org/%s/namespaces/default/%s"


def template(*command: str, **spec: Any) -> Any:
    container = {"name": "main", "image": "busybox:1", "command": list(command)}
    return {"spec": {"containers": [container], "restartPolicy": "Never", **spec}}


def job(name: str, *command: str, **spec: Any) -> Any:
    return {"metadata": {"name": name}, "spec": {"template": template(*command), **spec}}


def true_conditions(obj: Any) -> list[str]:
    found = obj.get("status", {}).get("conditions") or ()
    return [c["type"] for c in found if c["status"] == "True"]


def phases(client: Client, selector: str) -> dict[str, str]:
    found = client.ok("GET", f"{CORE}/pods?labelSelector={selector}")["items"]
    return {pod["metadata"]["name"]: pod["status"]["phase"] for pod in found}


def test_a_job_starts_runs_and_ends_with_a_log(start: Start) -> None:
    clock = Clock()
    cluster, client = start(clock, Delays(pod_start=10, controller=0.5, namespace=5, pod_run=30))
    cluster.add_node("n1", {}, ready=True)
    created = client.ok("POST", f"{BATCH}/jobs", job("hello", "sh", "-c", "echo 'hi there'"))
    assert created["spec"]["selector"]["matchLabels"] == {
        "batch.kubernetes.io/controller-uid": created["metadata"]["uid"]
    }
    clock.advance(5)
    ((name, phase),) = phases(client, "job-name=hello").items()
    assert phase == "Pending"
    status, answer = client.send("GET", f"{CORE}/pods/{name}/log")
    assert (status, "ContainerCreating" in answer["message"]) == (400, True)
    clock.advance(10)
    assert phases(client, "job-name=hello") == {name: "Running"}
    assert client.ok("GET", f"{BATCH}/jobs/hello")["status"]["active"] == 1
    clock.advance(40)
    assert phases(client, "job-name=hello") == {name: "Succeeded"}
    done = client.ok("GET", f"{BATCH}/jobs/hello")
    assert (true_conditions(done), done["status"]["succeeded"]) == (["Complete"], 1)
    assert client.send("GET", f"{CORE}/pods/{name}/log") == (200, "hi there\n")
    status, answer = client.send("GET", f"{CORE}/pods/{name}/log?container=other")
    assert (status, answer["message"]) == (400, f"container other is not valid for pod {name}")


@pytest.mark.parametrize(
    ("command", "spec", "condition", "ended"),
    [
        (("sh", "-c", "exit 3"), {"backoffLimit": 1}, ["Failed"], {"Failed": 2}),
        (("false",), {"backoffLimit": 0}, ["Failed"], {"Failed": 1}),
        (("true",), {"completions": 3, "parallelism": 2}, ["Complete"], {"Succeeded": 3}),
        (
            ("true",),
            {"completions": 2, "completionMode": "Indexed"},
            ["Complete"],
            {"Succeeded": 2},
        ),
        (("true",), {"suspend": True}, ["Suspended"], {}),
    ],
)
def test_jobs_fail_repeat_and_wait(
    start: Start, command: tuple[str, ...], spec: Any, condition: list[str], ended: dict[str, int]
) -> None:
    cluster, client = start()
    cluster.add_node("n1", {}, ready=True)
    client.ok("POST", f"{BATCH}/jobs", job("j", *command, **spec))
    assert true_conditions(client.ok("GET", f"{BATCH}/jobs/j")) == condition
    found = list(phases(client, "job-name=j").values())
    assert {phase: found.count(phase) for phase in found} == ended
    client.ok("DELETE", f"{BATCH}/jobs/j?propagationPolicy=Background")
    assert phases(client, "job-name=j") == {}


def test_a_job_ends_at_its_deadline_and_goes_after_its_time_to_live(start: Start) -> None:
    clock = Clock()
    cluster, client = start(clock, Delays(pod_start=1, controller=0.5, namespace=5, pod_run=1))
    cluster.add_node("n1", {}, ready=True)
    limits = {"activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 30}
    client.ok("POST", f"{BATCH}/jobs", job("j", "sleep", "infinity", **limits))
    clock.advance(50)
    assert list(phases(client, "job-name=j").values()) == ["Running"]
    clock.advance(15)
    ended = client.ok("GET", f"{BATCH}/jobs/j")
    assert true_conditions(ended) == ["Failed"]
    assert ended["status"]["conditions"][-1]["reason"] == "DeadlineExceeded"
    assert phases(client, "job-name=j") == {}
    clock.advance(40)
    assert client.send("GET", f"{BATCH}/jobs/j")[0] == 404


def custom(kind: str, version: str) -> Any:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "subresources": {"status": {}}}
    return {
        "metadata": {"name": f"{plural}.kubeflow.org"},
        "spec": {
            "group": "kubeflow.org",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [{**served, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@pytest.mark.parametrize(
    ("kind", "version", "operator", "field", "leader", "left"),
    [
        ("MPIJob", "v2beta1", "deps-mpi-operator", "mpiReplicaSpecs", "Launcher", []),
        (
            *("PyTorchJob", "v1", "deps-training-operators", "pytorchReplicaSpecs", "Master"),
            ["train-worker-0", "train-worker-1"],
        ),
    ],
)
def test_training_jobs_run_where_their_operator_does(
    start: Start, kind: str, version: str, operator: str, field: str, leader: str, left: list[str]
) -> None:
    cluster, client = start()
    cluster.add_node("n1", {}, ready=True)
    client.ok("POST", DEFINITIONS, custom(kind, version))
    jobs = KUBEFLOW % (version, f"{kind.lower()}s")
    waits = ("/usr/sbin/sshd", "-De") if kind == "MPIJob" else ("true",)
    replicas = {
        leader: {"replicas": 1, "template": template("echo", "bandwidth")},
        "Worker": {"replicas": 2, "template": template(*waits)},
    }
    client.ok("POST", jobs, {"metadata": {"name": "train"}, "spec": {field: replicas}})
    assert "status" not in client.ok("GET", f"{jobs}/train")
    client.ok("POST", f"{APPS}/deployments", workload(operator, 1))
    done = client.ok("GET", f"{jobs}/train")
    assert true_conditions(done) == ["Created", "Succeeded"]
    assert done["status"]["replicaStatuses"][leader] == {"succeeded": 1}
    name = "train-launcher" if kind == "MPIJob" else "train-master-0"
    assert client.send("GET", f"{CORE}/pods/{name}/log") == (200, "bandwidth\n")
    assert sorted(phases(client, "training.kubeflow.org/job-role=worker")) == left


@pytest.mark.parametrize(
    ("command", "ends"),
    [(("true",), "Succeeded"), (("sleep", "infinity"), "Running"), (("false",), "Failed")],
)
def test_a_pytorch_job_without_a_master_ends_with_its_workers(
    start: Start, command: tuple[str, ...], ends: str
) -> None:
    """As in training-operator v1.9.0, pkg/controller.v1/pytorch/pytorchjob_controller.go."""
    cluster, client = start()
    cluster.add_node("n1", {}, ready=True)
    client.ok("POST", DEFINITIONS, custom("PyTorchJob", "v1"))
    client.ok("POST", f"{APPS}/deployments", workload("deps-training-operators", 1))
    jobs = KUBEFLOW % ("v1", "pytorchjobs")
    spec = {"pytorchReplicaSpecs": {"Worker": {"replicas": 2, "template": template(*command)}}}
    client.ok("POST", jobs, {"metadata": {"name": "train"}, "spec": spec})
    done = client.ok("GET", f"{jobs}/train")
    assert true_conditions(done)[-1] == ends
    assert sum(done["status"]["replicaStatuses"]["Worker"].values()) == 2
