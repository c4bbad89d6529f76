"""``hyperpod-eks test`` with task governance, and on Trainium: queues, quotas, Neuron."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.kubernetes.api import Fault
from hyperpod_eks.local.stack import Stack
from tests.cli.test_smoke import account, broken, examined, fault, found, kubernetes, left
from tests.conftest import User, at_work

pytestmark = pytest.mark.prove
CONFIG = """\
name: smoke
region: us-west-2
teams:
  vision:
    quota: [{instance_type: ml.p5.48xlarge, count: 2}]
  audio:
    quota: [{instance_type: ml.p5.48xlarge, count: 1}]
  speech:
    quota: [{instance_type: ml.trn1.32xlarge, count: 2}]
pod_identity:
- namespace: hyperpod-ns-speech
  service_account: trainer
  policies: ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
storage: {fsx_lustre: {scratch: {storage_capacity: 1200, namespaces: [hyperpod-ns-vision]}}}
instance_groups:
- {name: plain, instance_type: ml.m5.2xlarge, instance_count: 1}
- {name: gpu, instance_type: ml.p5.48xlarge, instance_count: 3}
- {name: trn, instance_type: ml.trn1.32xlarge, instance_count: 2}
"""
QUEUE = "kueue.x-k8s.io/queue-name"


@pytest.fixture(scope="module")
def user(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with at_work(one_stack, tmp_path_factory.mktemp("smoke")) as user:
        for name in ("ml.p5.48xlarge", "ml.trn1.32xlarge"):
            one_stack.sim.set_quota("sagemaker", f"{name} for cluster usage", 4)
        (user.folder / "smoke.yaml").write_text(CONFIG)
        user.makes("smoke", "-f", "smoke.yaml")
        account(user, "hyperpod-ns-speech")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hyperpod_eks.smoke.pods.UNPLACED", 0.0)
            patch.setattr("hyperpod_eks.smoke.accelerators.UNPLACED", 0.0)
            patch.setattr("hyperpod_eks.smoke.job.PAUSES", (0.0,))
            yield user


class Jobs:
    """The jobs that are created, by kind, namespace and name; a test deletes them at its end."""

    def __init__(self, user: User) -> None:
        self.store, self.seen = kubernetes(user)._store, dict[str, Any]()

    def __enter__(self) -> dict[str, Any]:
        create = self.store.create

        def remembering(resource: Any, namespace: str, body: Any, *more: Any, **named: Any) -> Any:
            made = create(resource, namespace, body, *more, **named)
            if resource.kind in ("Job", "MPIJob"):
                self.seen[f"{resource.kind} {namespace}/{made['metadata']['name']}"] = made
            return made

        self.store.create = remembering
        return self.seen

    def __exit__(self, *_: object) -> None:
        del self.store.create


def test_each_job_uses_the_queue_with_the_largest_quota_for_its_nodes(user: User) -> None:
    with Jobs(user) as jobs:
        said = examined(user)
    assert (said.code, found(said)) == (0, {})
    queues = {
        (name.partition("/")[0], made["metadata"]["labels"].get(QUEUE))
        for name, made in jobs.items()
    }
    assert queues == {
        ("Job default", None),  # no team has a quota for the group plain
        ("Job hyperpod-ns-vision", "hyperpod-ns-vision-localqueue"),
        ("Job hyperpod-ns-speech", "hyperpod-ns-speech-localqueue"),
        ("MPIJob hyperpod-ns-vision", "hyperpod-ns-vision-localqueue"),
        ("MPIJob hyperpod-ns-speech", "hyperpod-ns-speech-localqueue"),
    }
    (measured,) = [row["measured"] for row in said.document["checks"] if row["id"] == "bandwidth"]
    assert [one["about"] for one in measured] == ["gpu", "trn"]
    assert left(user) == []


def test_who_may_not_list_queues_takes_no_accelerators(user: User) -> None:
    with Jobs(user) as jobs, fault(user, Fault(403, "Forbidden", "no", path="/localqueues")):
        said = examined(user, "--level", "3")
    assert (said.code, jobs) == (11, {})
    (row,) = [each for each in said.document["checks"] if each["id"] == "all-reduce"]
    assert [each["about"] for each in row["findings"]] == ["gpu", "trn"]
    assert all("403 Forbidden: no" in each["says"] for each in row["findings"])


def test_neuron_has_a_rank_for_each_core_of_both_nodes(user: User) -> None:
    with Jobs(user) as jobs:
        assert examined(user, "--level", "3").code == 0
    (made,) = [made for name, made in jobs.items() if name.startswith("MPIJob hyperpod-ns-speech")]
    replicas = made["spec"]["mpiReplicaSpecs"]
    (launcher,) = replicas["Launcher"]["template"]["spec"]["containers"]
    (worker,) = replicas["Worker"]["template"]["spec"]["containers"]
    assert (
        "nccom-test -r 64 -N 2 " in launcher["command"][-1]
    )  # trn1.32xlarge: 16 devices, 32 cores
    limits = worker["resources"]["limits"]
    assert (limits["aws.amazon.com/neuron"], limits["vpc.amazonaws.com/efa"]) == ("16", "8")
    assert "hugepages-2Mi" not in limits  # the queue has no quota for it


def test_neuron_devices_that_are_missing_are_found(user: User) -> None:
    with broken(user, devices="aws.amazon.com/neuron"):
        said = examined(user)
    assert (said.code, found(said)) == (11, {"devices": ["no-device"]})
    with broken(user, nccl="error"):
        said = examined(user)
    assert (said.code, found(said)) == (11, {"all-reduce": ["all-reduce-failed"]})
    says = [one["says"] for row in said.document["checks"] for one in row["findings"]]
    assert any("is EFA enabled?" in each for each in says)


def hog(name: str, space: str, **asked: str) -> Any:
    """A job of a team that asks for quota."""
    labels = {QUEUE: f"{space}-localqueue"}
    container = {"name": "main", "image": "i", "command": ["sleep", "infinity"]}
    spec = {
        "restartPolicy": "Never",
        "containers": [{**container, "resources": {"requests": asked}}],
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"template": template}}


@pytest.mark.parametrize(
    ("asked", "check", "lacks"),
    [
        ({"cpu": "576"}, "admission", "insufficient unused quota for cpu in flavor ml.p5.48xlarge"),
        ({"nvidia.com/gpu": "16"}, "all-reduce", "insufficient unused quota for nvidia.com/gpu"),
    ],
)
def test_a_full_quota_is_found_and_explained(
    user: User, asked: dict[str, str], check: str, lacks: str
) -> None:
    cluster, space = kubernetes(user), "hyperpod-ns-vision"
    job = cluster._store.registry.builtin("Job")
    cluster._store.create(job, space, hog("hog", space, **asked))
    said = examined(user)
    cluster._store.delete(job, space, "hog")
    assert (said.code, found(said)) == (11, {check: ["not-admitted"]})
    first = next(one for row in said.document["checks"] for one in row["findings"])
    assert f"the queue {space}-localqueue has not admitted it: " in first["says"]
    assert lacks in first["says"]
    assert "kubectl get workloads" in first["next"]
    assert left(user) == []
    assert examined(user).code == 0


def test_a_queue_that_is_held_is_not_used(user: User) -> None:
    store = kubernetes(user)._store
    queues = store.registry.kind("ClusterQueue")
    name = "hyperpod-ns-vision-clusterqueue"
    before = store.get(queues, "", name)
    store.modify(queues, before, {**before, "spec": {**before["spec"], "stopPolicy": "Hold"}})
    with Jobs(user) as jobs:
        said = examined(user, "--level", "2")
    store.modify(queues, store.get(queues, "", name), before)
    assert (said.code, found(said)) == (0, {})
    assert not [name for name in jobs if "hyperpod-ns-vision" in name]
    assert any("hyperpod-ns-audio" in name for name in jobs)


EBS = """\
objects:
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata: {name: notes, namespace: default}
  spec:
    storageClassName: MODE
    accessModes: [ReadWriteOnce]
    resources: {requests: {storage: 8Gi}}
- {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: late},
   provisioner: ebs.csi.aws.com, volumeBindingMode: WaitForFirstConsumer}
"""


def test_a_claim_without_a_volume_is_found_and_one_that_waits_for_a_pod_is_not(user: User) -> None:
    def declared(more: str) -> None:
        (user.folder / "smoke.yaml").write_text(CONFIG + more)
        said = user.types("create", "-f", "smoke.yaml", "--chart", str(CHART), "--yes")
        assert said.code == 0, said.err

    declared(EBS.replace("MODE", "late"))
    assert found(examined(user, "--level", "1")) == {}
    declared("")
    declared(EBS.replace("MODE", "nobody"))
    said = examined(user)
    assert (said.code, found(said)) == (11, {"claims": ["claim-pending"]})
    (finding,) = (one for row in said.document["checks"] for one in row["findings"])
    assert (finding["about"], finding["says"]) == ("default/notes", "the claim is Pending")
    declared("")


def test_a_claim_of_a_file_system_that_is_gone_is_found_at_both_levels(user: User) -> None:
    store = kubernetes(user)._store
    claims, volumes = map(store.registry.builtin, ("PersistentVolumeClaim", "PersistentVolume"))
    store.delete(claims, "hyperpod-ns-vision", "scratch")
    assert found(examined(user)) == {"claims": ["claim-pending"]}
    said = examined(user, "--level", "2")
    assert (said.code, found(said)) == (11, {"file-systems": ["claim-pending"]})
    (first, *_) = (one for row in said.document["checks"] for one in row["findings"])
    assert 'persistentvolumeclaim "scratch" not found' in first["says"]
    assert "the claim scratch in hyperpod-ns-vision has no volume" in first["explanation"]
    for each in store.objects(volumes):
        store.delete(volumes, "", each["metadata"]["name"])
    said = user.types("create", "-f", "smoke.yaml", "--chart", str(CHART), "--yes")
    assert said.code == 0, said.err
    assert examined(user).code == 0
