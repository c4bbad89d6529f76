"""The manifests that AWS and its drivers publish come to what a real cluster makes of them.

They are read from clones (tests/published.py), at one commit, and never copied.  What they leave
to `envsubst` is put in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
import yaml

from hyperpod_eks.local.kubernetes import Cluster
from tests.published import CHARTS, CLONES, HYPERPOD, KUBERAY, Source

from .test_kubernetes import APPLY, Client, workload
from .test_kubernetes_validation import DEFINITIONS

pytestmark = pytest.mark.skipif(
    CLONES is None, reason="HYPERPOD_PUBLISHED names no folder with clones"
)

FSX = "kubernetes-sigs/aws-fsx-csi-driver"
S3 = "awslabs/mountpoint-s3-csi-driver"
EBS = "kubernetes-sigs/aws-ebs-csi-driver"
AI = "awslabs/awsome-distributed-ai"

OPERATORS = (
    Source(HYPERPOD, f"{CHARTS}/training-operators/crds/pytorchjobs.kubeflow.org-"
           "CustomResourceDefinition.yaml"),
    Source(HYPERPOD, f"{CHARTS}/mpi-operator/templates/mpijob-crd.yaml"),
    Source(KUBERAY, "ray-operator/config/crd/bases/ray.io_rayclusters.yaml"),
    Source(KUBERAY, "ray-operator/config/crd/bases/ray.io_rayjobs.yaml"),
)  # fmt: skip
VALUES = {
    "FSX_FILESYSTEM_ID": "fs-0123456789abcdef0",
    "FSX_DNS_NAME": "fs-0123456789abcdef0.fsx.us-east-1.amazonaws.com",
    "FSX_MOUNT_NAME": "abcdef01",
    "FSX_FS_ID": "fs-0123456789abcdef0",
    "FSX_CAPACITY": "1200Gi",
    "FSX_CLAIM": "fsx-claim",
    "NAMESPACE": "default",
    "IMAGE_URI": "111122223333.dkr.ecr.us-east-1.amazonaws.com/fsdp:1",
    "NUM_NODES": "1",
    "GPU_PER_NODE": "1",
    "EFA_PER_NODE": "1",
}


class Example(NamedTuple):
    """Files of one repository, applied one after another."""

    repository: str
    folder: str
    files: tuple[str, ...]
    states: Mapping[str, str]
    """What becomes of the objects: ``Kind/name`` to phase, condition or ready replicas."""


TESTS = "3.test_cases"
FSX_BOUND = {"PersistentVolume/fsx-pv": "Bound", "PersistentVolumeClaim/fsx-claim": "Bound"}
S3_BOUND = {"PersistentVolume/s3-pv": "Bound", "PersistentVolumeClaim/s3-pvc": "Bound"}
EXAMPLES = {
    "FSx, static": Example(
        FSX, "examples/kubernetes/static_provisioning/specs", ("pv", "claim", "pod"),
        {**FSX_BOUND, "Pod/fsx-app": "Running"},
    ),
    "FSx, without the volume": Example(
        FSX, "examples/kubernetes/static_provisioning/specs", ("claim", "pod"),
        {"PersistentVolumeClaim/fsx-claim": "Pending", "Pod/fsx-app": "Pending"},
    ),
    "FSx, dynamic": Example(
        FSX, "examples/kubernetes/dynamic_provisioning/specs", ("storageclass", "claim"),
        {"PersistentVolumeClaim/fsx-claim": "Pending"},
    ),
    "S3": Example(
        S3, "examples/kubernetes/static_provisioning", ("static_provisioning",),
        {**S3_BOUND, "Pod/s3-app": "Running"},
    ),
    "S3, many pods": Example(
        S3, "examples/kubernetes/static_provisioning", ("multiple_pods_one_pv",),
        {**S3_BOUND, "Deployment/s3-app": "3"},
    ),
    "EBS, static": Example(
        EBS, "examples/kubernetes/static-provisioning/manifests", ("pv", "claim", "pod"),
        {"PersistentVolume/test-pv": "Bound", "Pod/app": "Running"},
    ),
    "EBS, dynamic": Example(
        EBS, "examples/kubernetes/dynamic-provisioning/manifests",
        ("storageclass", "claim", "pod"), {"PersistentVolumeClaim/ebs-claim": "Pending"},
    ),
    "FSx of a training job": Example(
        AI, f"{TESTS}/pytorch/deepspeed/qlora/kubernetes", ("storage",),
        {"PersistentVolume/fsx-pv-qlora": "Bound", "PersistentVolumeClaim/fsx-claim-qlora":
         "Bound"},
    ),
    "FSx linked to S3": Example(
        AI, f"{TESTS}/pytorch/cosmos3/storage", ("storage-fsx-dra",),
        {"PersistentVolume/fsx-dra-pv": "Bound", "PersistentVolumeClaim/fsx-claim": "Bound"},
    ),
    "PyTorchJob": Example(
        AI, f"{TESTS}/pytorch/FSDP/kubernetes", ("llama3_2_1b-fsdp",),
        {"PyTorchJob/llama3-2-1b-fsdp": "Succeeded"},
    ),
    "MPIJob": Example(
        AI, "micro-benchmarks/nccl-tests/kubernetes", ("nccl-tests",),
        {"MPIJob/nccl-tests": "Succeeded"},
    ),
    "RayJob": Example(
        AI, f"{TESTS}/megatron/nemo-rl/kubernetes", ("rayjob",), {"RayJob/grpo-g5-qwen-nvrx": ""},
    ),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _operators(cluster: Cluster, client: Client) -> None:
    """Nodes with accelerators, and the operators as AWS's chart has them."""
    labels = {"topology.kubernetes.io/zone": "us-east-2c"}
    for name in ("n1", "n2"):
        devices = {"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "32"}
        cluster.add_node(name, labels, ready=True, capacity=devices)
    for source in OPERATORS:
        body = yaml.load(source.read() or "", yaml.CSafeLoader)
        client.ok("POST", DEFINITIONS, body)
    home = "/apis/apps/v1/namespaces/kube-system/deployments"
    for name in ("mpi-operator", "training-operators"):
        client.ok("POST", home, workload(name))


@pytest.fixture
def applied(client: Client) -> Iterator[dict[str, str]]:
    """Paths by ``Kind/name``; what is at them is deleted after the test, the last one first."""
    paths: dict[str, str] = {}
    yield paths
    for path in reversed(paths.values()):
        client.ok("DELETE", path)


def path_of(client: Client, obj: Any) -> str:
    version, metadata = obj["apiVersion"], obj["metadata"]
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    served = client.ok("GET", base)["resources"]
    kind = next(each for each in served if each["kind"] == obj["kind"])
    place = f"/namespaces/{metadata.get('namespace', 'default')}" if kind["namespaced"] else ""
    return f"{base}{place}/{kind['name']}/{metadata['name']}"


def documents(example: Example) -> Iterator[Any]:
    for name in example.files:
        text = Source(example.repository, f"{example.folder}/{name}.yaml").read()
        assert text, f"no {name}.yaml in the clone of {example.repository}"
        filled = re.sub(r"\$\{?(\w+)\}?", lambda found: VALUES.get(found[1], found[0]), text)
        yield from filter(None, yaml.safe_load_all(filled))


def state(found: Any) -> str:
    """Return an object's phase, or the last of its conditions, or its ready replicas."""
    status = found.get("status") or {}
    last = [each["type"] for each in status.get("conditions") or () if each["status"] == "True"]
    return str(status.get("phase") or status.get("readyReplicas") or (last or [""])[-1])


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_published_example_is_accepted_and_comes_to_its_state(
    client: Client, applied: dict[str, str], name: str
) -> None:
    example = EXAMPLES[name]
    for obj in documents(example):
        path = path_of(client, obj)
        client.ok("PATCH", f"{path}?fieldManager=kubectl&fieldValidation=Strict", obj, APPLY)
        applied[f"{obj['kind']}/{obj['metadata']['name']}"] = path
    found = {each: state(client.ok("GET", applied[each])) for each in example.states}
    assert found == example.states
