"""Volumes and claims bind, are held while in use, and are reclaimed as they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hyperpod_eks.local.kubernetes import Cluster

from .test_kubernetes import APPLY, CORE, MERGE, Client, workload

VOLUMES, CLAIMS, PODS = (
    "/api/v1/persistentvolumes",
    f"{CORE}/persistentvolumeclaims",
    f"{CORE}/pods",
)
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


def volume(name: str, size: str = "10Gi", **spec: Any) -> Any:
    csi = {"driver": "fsx.csi.aws.com", "volumeHandle": name}
    return {
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": size},
            "csi": csi,
            **spec,
        },
    }


def claim(name: str, **spec: Any) -> Any:
    asked = {"requests": {"storage": "5Gi"}}
    return {
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": asked, **spec},
    }


def pod(name: str, of: str) -> Any:
    spec = workload(name)["spec"]["template"]["spec"]
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": of}}]
    return {"metadata": {"name": name}, "spec": {**spec, "volumes": volumes}}


@pytest.fixture(autouse=True)
def _nothing_is_left(cluster: Cluster, client: Client) -> Iterator[None]:
    if client.send("GET", "/api/v1/nodes/n1")[0] == 404:
        cluster.add_node("n1", {}, ready=True)
    yield
    for path in (PODS, CLAIMS, VOLUMES, CLASSES):
        client.ok("DELETE", path)


def phase(client: Client, path: str, name: str) -> str:
    status, found = client.send("GET", f"{path}/{name}")
    return "gone" if status == 404 else str(found["status"]["phase"])


def test_a_claim_gets_the_smallest_volume_that_fits(client: Client) -> None:
    for one in (volume("large", "90Gi"), volume("small", "1Gi"), volume("fits", "9Gi")):
        client.ok("POST", VOLUMES, one)
    client.ok("POST", VOLUMES, volume("other-class", "6Gi", storageClassName="fast"))
    client.ok("POST", VOLUMES, volume("other-mode", "6Gi", accessModes=["ReadWriteOnce"]))
    assert phase(client, VOLUMES, "fits") == "Available"
    client.ok("POST", CLAIMS, claim("data"))
    found = client.ok("GET", f"{CLAIMS}/data")
    assert found["spec"]["volumeName"] == "fits"
    assert found["status"] == {
        "phase": "Bound",
        "accessModes": ["ReadWriteMany"],
        "capacity": {"storage": "9Gi"},
    }
    bound = client.ok("GET", f"{VOLUMES}/fits")
    assert bound["spec"]["claimRef"]["uid"] == found["metadata"]["uid"]
    assert bound["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert bound["status"]["phase"] == "Bound"


def test_a_reserved_volume_waits_for_its_claim(client: Client) -> None:
    reserved = volume("mine", claimRef={"namespace": "default", "name": "data"})
    client.ok("PATCH", f"{VOLUMES}/mine?fieldManager=me", {"apiVersion": "v1",
              "kind": "PersistentVolume", **reserved}, APPLY)  # fmt: skip
    client.ok("POST", CLAIMS, claim("stranger"))
    assert phase(client, CLAIMS, "stranger") == "Pending"
    client.ok("POST", CLAIMS, claim("data", volumeName="mine"))
    assert phase(client, CLAIMS, "data") == "Bound"


@pytest.mark.parametrize("change", [{"storageClassName": "fast"}, {"capacity": {"storage": "1Gi"}}])
def test_a_named_volume_that_does_not_fit_is_not_bound(client: Client, change: Any) -> None:
    client.ok("POST", VOLUMES, volume("mine", **change))
    client.ok("POST", CLAIMS, claim("data", storageClassName="", volumeName="mine"))
    assert phase(client, CLAIMS, "data") == "Pending"
    assert phase(client, VOLUMES, "mine") == "Available"


@pytest.mark.parametrize(("policy", "then"), [("Retain", "Released"), ("Delete", "gone")])
def test_a_claim_in_use_stays_and_its_volume_is_reclaimed(
    client: Client, policy: str, then: str
) -> None:
    client.ok("POST", VOLUMES, volume("mine", persistentVolumeReclaimPolicy=policy))
    client.ok("POST", CLAIMS, claim("data"))
    client.ok("POST", PODS, pod("reader", "data"))
    assert phase(client, PODS, "reader") == "Running"
    client.ok("DELETE", f"{VOLUMES}/mine") if policy == "Delete" else None
    assert phase(client, VOLUMES, "mine") == "Bound"
    assert "deletionTimestamp" in client.ok("DELETE", f"{CLAIMS}/data")["metadata"]
    assert phase(client, CLAIMS, "data") == "Bound"
    client.ok("DELETE", f"{PODS}/reader")
    assert phase(client, CLAIMS, "data") == "gone"
    assert phase(client, VOLUMES, "mine") == then


def test_a_pod_waits_for_its_claim(client: Client) -> None:
    client.ok("POST", PODS, pod("reader", "data"))

    def told() -> str:
        (condition,) = client.ok("GET", f"{PODS}/reader")["status"]["conditions"]
        return str(condition["message"])

    assert told() == '0/1 nodes are available: persistentvolumeclaim "data" not found'
    client.ok("POST", CLAIMS, claim("data"))
    assert told().endswith("pod has unbound immediate PersistentVolumeClaims")
    client.ok("POST", VOLUMES, volume("mine"))
    assert phase(client, PODS, "reader") == "Running"


def test_a_claim_of_no_class_gets_the_default_one(client: Client) -> None:
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    body = {"metadata": {"name": "gp3", "annotations": default}, "provisioner": "ebs.csi.aws.com"}
    assert client.ok("POST", CLASSES, body)["reclaimPolicy"] == "Delete"
    client.ok("POST", CLAIMS, claim("data"))
    assert client.ok("GET", f"{CLAIMS}/data")["spec"]["storageClassName"] == "gp3"
    client.ok("POST", PODS, pod("reader", "data"))
    assert phase(client, PODS, "reader") == "Running"  # nothing is provisioned here


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        (VOLUMES, volume("a", capacity={}), "spec.capacity: Required value"),
        (VOLUMES, volume("a", accessModes=["Many"]), 'Unsupported value: "Many"'),
        (VOLUMES, volume("a", nfs={"server": "a", "path": "/"}), "more than 1 volume type"),
        (VOLUMES, volume("a", csi=None), "must specify a volume type"),
        (VOLUMES, volume("a", csi={"driver": "a", "volumeHandle": ""}), "spec.csi.volumeHandle"),
        (CLAIMS, claim("a", accessModes=["Many"]), 'Unsupported value: "Many"'),
        (CLASSES, {"metadata": {"name": "a"}, "provisioner": ""}, "provisioner: Required"),
        (CLASSES, {"metadata": {"name": "a"}, "provisioner": "a", "volumeBindingMode": "Late"},
         "volumeBindingMode: Unsupported value"),
    ],
)  # fmt: skip
def test_what_kubernetes_refuses_is_refused(
    client: Client, path: str, body: Any, says: str
) -> None:
    status, answer = client.send("POST", path, body)
    assert (status, says in answer["message"]) == (422, True), answer["message"]


def test_a_claim_keeps_its_spec(client: Client) -> None:
    client.ok("POST", VOLUMES, volume("mine"))
    client.ok("POST", CLAIMS, claim("data"))
    spec = {"accessModes": ["ReadWriteOnce"]}
    status, answer = client.send("PATCH", f"{CLAIMS}/data", {"spec": spec}, MERGE)
    assert (status, "spec is immutable after creation" in answer["message"]) == (422, True)
