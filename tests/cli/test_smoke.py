"""``hyperpod-eks test``: a healthy cluster passes; each broken one is found, with its cause."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.eks.models import eks_backends

from hyperpod_eks.local import CHART
from hyperpod_eks.local.kubernetes.api import Fault
from hyperpod_eks.local.stack import Stack
from tests.conftest import Said, User, at_work

CONFIG = """\
name: smoke
region: us-west-2
pod_identity:
- namespace: default
  service_account: trainer
  policies: ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
storage: {fsx_lustre: {scratch: {storage_capacity: 1200, namespaces: [default]}}}
instance_groups:
- {name: plain, instance_type: ml.m5.2xlarge, instance_count: 1}
- {name: gpu, instance_type: ml.p5.48xlarge, instance_count: 2}
"""


@pytest.fixture(scope="module")
def user(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with at_work(one_stack, tmp_path_factory.mktemp("smoke")) as user:
        one_stack.sim.set_quota("sagemaker", "ml.p5.48xlarge for cluster usage", 4)
        (user.folder / "smoke.yaml").write_text(CONFIG)
        user.makes("smoke", "-f", "smoke.yaml")
        account(user, "default")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hyperpod_eks.smoke.pods.UNPLACED", 0.0)
            patch.setattr("hyperpod_eks.smoke.accelerators.UNPLACED", 0.0)
            patch.setattr("hyperpod_eks.smoke.deep.VISIBLE", 0.0)
            patch.setattr("hyperpod_eks.smoke.job.PAUSES", (0.0,))
            yield user


def kubernetes(user: User) -> Any:
    (cluster,) = user.stack.sim.clusters.values()
    return cluster


def account(user: User, namespace: str) -> None:
    """Create the service account of the config."""
    store = kubernetes(user)._store
    resource = store.registry.builtin("ServiceAccount")
    store.create(resource, namespace, {"metadata": {"name": "trainer"}})


@contextmanager
def broken(user: User, **switches: str) -> Iterator[None]:
    """Set switches of the embedded stack: ``crash="aws-node"``; afterwards it heals."""
    before = dict(user.stack.sim.failures)
    try:
        for name, how in switches.items():
            user.stack.sim.failures[f"kubernetes/{name}"] = how
        kubernetes(user).wake()
        yield
    finally:
        user.stack.sim.failures.clear()
        user.stack.sim.failures.update(before)
        kubernetes(user).wake()


@contextmanager
def changed_node(user: User, change: Any) -> Iterator[str]:
    """Change the node of the group plain as its kubelet, HyperPod or somebody else would."""
    store = kubernetes(user)._store
    resource = store.registry.builtin("Node")
    before = next(n for n in store.objects(resource) if "plain" in n["metadata"]["labels"].values())
    name = before["metadata"]["name"]
    try:
        store.modify(resource, before, change(before))
        yield name
    finally:
        store.modify(resource, store.get(resource, "", name), before)


def examined(user: User, *words: str) -> Said:
    return user.types("test", "smoke", "-o", "json", *words)


def found(said: Said) -> dict[str, list[str]]:
    """Return the causes by check, of the checks that failed."""
    return {
        row["id"]: sorted({one["cause"] for one in row["findings"]})
        for row in said.document["checks"]
        if row["status"] == "failed"
    }


def test_a_healthy_cluster_passes_and_nothing_is_changed(user: User) -> None:
    user.mutations()
    said = user.types("test", "smoke")
    assert (said.code, said.err) == (0, said.err)
    assert said.out.splitlines()[0].split() == ["LEVEL", "CHECK", "STATUS", "LOOKS", "AT"]
    assert said.out.splitlines()[-1] == "smoke works"
    assert "failed" not in said.out
    assert user.mutations() == []
    assert left(user) == []
    skipped = re.findall(r"^\d +(\S+) +skipped", said.out, re.MULTILINE)
    assert skipped == []
    assert re.search(r"gpu: 47\d\.\d GB/s bus bandwidth between two ml.p5.48xlarge", said.out)


@pytest.mark.parametrize("space", ["default", "research"])
def test_a_role_may_wait_for_its_service_account(user: User, space: str) -> None:
    """EKS associates roles with names of namespaces and service accounts that are not there."""
    store = kubernetes(user)._store
    store.delete(store.registry.builtin("ServiceAccount"), "default", "trainer")
    text = CONFIG.replace("namespace: default", f"namespace: {space}")
    (user.folder / "later.yaml").write_text(text)
    try:
        said = user.types("test", "smoke", "-f", "later.yaml", "--level", "2")
    finally:
        account(user, "default")
    assert said.code == 0, said.out
    assert f"no such service account yet: {space}/trainer" in said.out


def test_who_may_not_read_service_accounts_may_still_test(user: User) -> None:
    with fault(user, Fault(403, "Forbidden", "no", path="/serviceaccounts")):
        said = examined(user, "--level", "2")
    assert (said.code, found(said)) == (0, {}), said.err


def left(user: User) -> list[str]:
    """Return the jobs and their pods that are in the cluster; events of them expire."""
    return [
        key
        for key in kubernetes(user).snapshot()
        if "/hyperpod-eks-test" in key and not key.startswith("events/")
    ]


def test_create_can_test_what_it_has_created(user: User) -> None:
    words = ("create", "-f", "smoke.yaml", "--chart", str(CHART), "--test")
    said = user.types(*words, "-o", "json")
    assert (said.code, said.document["test"]["exit_code"]) == (0, 0)
    with broken(user, devices="nvidia.com/gpu"):
        said = user.types(*words)
    assert said.code == 11
    assert "smoke is up to date" in said.out
    assert said.out.splitlines()[-1] == "smoke does not work"


def labelled(**labels: str) -> Any:
    def change(node: Any) -> Any:
        about = {**node["metadata"], "labels": {**node["metadata"]["labels"], **labels}}
        return {**node, "metadata": about}

    return change


def tainted(node: Any) -> Any:
    taint = {"key": "example.com/maintenance", "value": "x", "effect": "NoSchedule"}
    return {**node, "spec": {**node["spec"], "taints": [taint]}}


EFA, GPU = "vpc.amazonaws.com/efa", "nvidia.com/gpu"
HEALTH = "sagemaker.amazonaws.com/node-health-status"


@pytest.mark.parametrize(
    ("change", "check", "cause"),
    [
        (labelled(**{HEALTH: "UnschedulablePendingReplacement"}), "node-health", "node-unhealthy"),
        (tainted, "node-taints", "node-taint"),
    ],
)
def test_a_broken_node_is_found(user: User, change: Any, check: str, cause: str) -> None:
    with changed_node(user, change) as node:
        said = examined(user)
    assert (said.code, found(said)) == (11, {check: [cause]})
    (finding,) = (one for row in said.document["checks"] for one in row["findings"])
    assert finding["about"] == f"plain/{node}"
    assert "{" not in finding["explanation"] + finding["next"]


@pytest.mark.sample("agent")
@pytest.mark.parametrize(
    ("switches", "check", "cause", "says"),
    [
        pytest.param({"devices": EFA}, "devices", "no-device", EFA, id="efa"),
        pytest.param({"devices": GPU}, "devices", "no-device", GPU, id="gpu"),
        pytest.param(
            {"crash": "aws-node"}, "components", "component-failing", "CrashLoopBackOff", id="agent"
        ),
    ],
)
def test_a_broken_component_is_found(
    user: User, switches: dict[str, str], check: str, cause: str, says: str
) -> None:
    with broken(user, **switches):
        said = examined(user)
        text = user.types("test", "smoke")
    assert (said.code, found(said)) == (11, {check: [cause]})
    assert text.code == 11
    assert says in text.out
    assert f"({cause})\n  next:  " in text.out
    assert text.out.splitlines()[-1] == "smoke does not work"
    assert found(examined(user)) == {}


def test_an_addon_that_works_before_eks_says_so_is_not_broken(user: User) -> None:
    """As `create` sees it: EKS looks at an add-on again only every quarter of an hour."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vars(user.stack.sim.delays), "addon_check", 900.0)
        with broken(user, crash="coredns"):
            assert found(examined(user))["addons"] == ["addon-unhealthy"]
        assert found(examined(user)) == {}
        shown = user.types("status", "smoke").out
        addon = boto3.client("eks").describe_addon(clusterName="smoke", addonName="coredns")
    assert addon["addon"]["status"] == "DEGRADED"
    assert shown.startswith("✔ smoke  InService, ready\n")
    assert "✘" not in shown
    why = "coredns: Deployment coredns is Available; EKS still says DEGRADED"
    assert f"            {why}\n" in shown


def test_an_addon_that_is_missing_is_found(user: User) -> None:
    boto3.client("eks").delete_addon(clusterName="smoke", addonName="kube-proxy")
    said = examined(user, "--level", "1")
    text = user.types("test", "smoke", "--level", "1").out
    words = ("create", "-f", "smoke.yaml", "--chart", str(CHART))
    assert user.types(*words).code == 0
    assert (said.code, found(said)) == (11, {"addons": ["addon-missing"]})
    assert "addons: kube-proxy: it does not exist\n" in text
    assert "  next:  hyperpod-eks create smoke creates it\n" in text
    assert found(examined(user, "--level", "1")) == {}


def test_a_node_that_never_registered_with_kubernetes_is_found(user: User) -> None:
    """HyperPod counts it as running, while its kubelet cannot join."""
    store = kubernetes(user)._store
    resource = store.registry.builtin("Node")
    node = next(n for n in store.objects(resource) if "plain" in n["metadata"]["labels"].values())
    store.delete(resource, "", node["metadata"]["name"])
    said = examined(user, "--level", "1")
    text = user.types("test", "smoke", "--level", "1").out
    body = {key: each for key, each in node["metadata"].items() if key in ("labels", "annotations")}
    body |= {"name": node["metadata"]["name"]}
    store.create(resource, "", {**node, "metadata": body})
    assert (said.code, found(said)) == (11, {"node-count": ["not-registered"]})
    assert "1 nodes wanted, 1 in HyperPod, 0 registered in Kubernetes" in text
    assert found(examined(user, "--level", "1")) == {}


def test_the_table_fits_a_terminal_of_40_columns(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only commands and words without a space are longer."""
    monkeypatch.setenv("COLUMNS", "40")
    with broken(user, crash="aws-node"):
        said = user.types("test", "smoke", "--level", "1")
    assert said.code == 11
    heads, *lines = said.out.splitlines()
    assert heads.split() == ["LEVEL", "CHECK", "STATUS"]
    long = [line for line in lines if len(line) > 40]
    assert all(re.match(r"  (next|more):  |\s*\S+$", line) for line in long), long
    assert re.search(r"^1 +components +failed$", said.out, re.MULTILINE)


def test_a_control_plane_with_health_issues_is_not_called_ready(user: User) -> None:
    """EKS API, ClusterHealth: the cluster is ACTIVE, and yet something is wrong."""
    eks: Any = eks_backends["123456789012"]["us-west-2"]
    issue = {"code": "Ec2SubnetNotFound", "message": "subnet-0 is gone", "resourceIds": []}
    document = eks.clusters["smoke"].document
    before = document.get("health")
    document["health"] = {"issues": [issue]}
    said = user.types("status", "smoke")
    document["health"] = before or {"issues": []}
    assert said.out.startswith("○ smoke  InService, not ready\n")
    assert "✘ EKS       smoke, Kubernetes" in said.out
    assert "Ec2SubnetNotFound: subnet-0 is gone" in said.out


def test_a_kubelet_that_is_silent_is_found(user: User) -> None:
    cluster = kubernetes(user)
    name = next(n for n in cluster.snapshot() if n.startswith("nodes/")).removeprefix("nodes/")
    cluster.set_node_ready(name, ready=False)
    said = examined(user)
    cluster.set_node_ready(name)
    assert (said.code, found(said)["node-ready"]) == (11, ["not-ready"])


def test_a_kind_whose_definition_was_deleted_is_found(user: User) -> None:
    cluster = kubernetes(user)
    store = cluster._store
    resource = store.registry.builtin("CustomResourceDefinition")
    before = store.get(resource, "", "mpijobs.kubeflow.org")
    store.delete(resource, "", "mpijobs.kubeflow.org")
    said = examined(user)
    body = {k: v for k, v in before.items() if k in ("apiVersion", "kind", "spec")}
    store.create(resource, "", {**body, "metadata": {"name": "mpijobs.kubeflow.org"}})
    assert (said.code, found(said)) == (11, {"kinds": ["kind-missing"]})


def test_a_cluster_that_does_not_exist_is_not_found(user: User) -> None:
    assert user.types("test", "none").code == 8


BROKEN = {
    "registry": ({"registry": "timeout"}, {"image": ["image-not-pulled"]}),
    "registry-denied": ({"registry": "denied"}, {"image": ["image-not-pulled"]}),
    "no-address": ({"sandbox": "yes"}, {"start": ["pod-no-address"]}),
    "mount": ({"mount": "yes"}, {"file-systems": ["volume-not-mounted"]}),
    "read-only": ({"file-system": "read-only"}, {"file-systems": ["file-system-read-only"]}),
    "dns": ({"dns": "all"}, {"dns": ["pod-dns"]}),
    "dns-of-the-cluster": ({"dns": "cluster"}, {"dns": ["pod-dns"]}),
    "egress": ({"egress": "no"}, {"network": ["pod-no-way-out"]}),
    "credentials": ({"credentials": "no"}, {"credentials": ["pod-credentials"]}),
    "kubelet": ({"kubelet": "no"}, {"kubelet": ["kubelet-unreachable"]}),
    "sockets": (
        {"nccl": "sockets"},
        {"efa": ["efa-not-used"], "bandwidth": ["slow-network"]},
    ),
    "slow": ({"nccl": "slow"}, {"bandwidth": ["slow-network"]}),
    "nccl-error": ({"nccl": "error"}, {"all-reduce": ["all-reduce-failed"]}),
}
SAMPLE = {"registry", "mount", "dns", "kubelet", "sockets"}
"""One of each kind for `make test`; the others are in the long proof."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in SAMPLE else pytest.mark.prove) for n in BROKEN]
)
def test_a_cluster_that_does_not_work_is_found(user: User, name: str) -> None:
    switches, expected = BROKEN[name]
    with broken(user, **switches):
        said = examined(user)
    assert (said.code, found(said)) == (11, expected)
    findings = [one for row in said.document["checks"] for one in row["findings"]]
    assert not [one for one in findings if "{" in one["explanation"] + one["next"]]
    assert left(user) == []


def test_level_four_lets_hyperpod_examine_the_nodes(user: User) -> None:
    user.mutations()
    assert user.types("test", "smoke", "--level", "4").code == 2  # it asks
    said = examined(user, "--level", "4", "--yes")
    assert (said.code, found(said)) == (0, {})
    assert user.mutations() == ["sagemaker.StartClusterHealthCheck"]


@pytest.mark.prove
def test_a_deep_health_check_that_fails_is_found(user: User) -> None:
    user.stack.sim.failures["group/gpu"] = "deep-check"
    said = examined(user, "--level", "4", "--yes")
    user.stack.sim.failures.clear()
    assert (said.code, found(said)) == (11, {"deep-health": ["deep-check-failed"]})
    assert found(examined(user, "--level", "1")) == {"node-health": ["node-unhealthy"]}
    assert examined(user, "--level", "4", "--yes").code == 0


def occupied(user: User, **limits: str) -> Any:
    """Return a pod of somebody else that has asked for devices of a node of the group gpu."""
    container = {"name": "main", "image": "busybox", "command": ["sleep", "infinity"]}
    resources = {"limits": limits, "requests": limits}
    spec = {
        "containers": [{**container, "resources": resources}],
        "nodeSelector": {"sagemaker.amazonaws.com/instance-group-name": "gpu"},
    }
    return {"metadata": {"name": "theirs"}, "spec": spec}


def test_devices_that_others_use_are_found(user: User) -> None:
    store = kubernetes(user)._store
    resource = store.registry.builtin("Pod")
    store.create(resource, "default", occupied(user, **{"nvidia.com/gpu": "8"}))
    said = examined(user, "--level", "3")
    store.delete(resource, "default", "theirs")
    assert (said.code, found(said)) == (11, {"all-reduce": ["pod-unplaced"]})
    assert left(user) == []


def test_without_an_answer_of_ecr_the_usual_image_is_used(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    said = examined(user, "--level", "3")
    assert (said.code, found(said)) == (0, {}), said.err


class Gone(Fault):
    """After ``times`` requests that change jobs no other one arrives, as from a killed process."""

    def hits(self, method: str, path: str) -> bool:
        self.times -= method in ("POST", "DELETE") and "jobs" in path
        return self.times < 0


class Pressed(Fault):
    """Ctrl-C is pressed while the ``times``-th job is created.

    That takes longer than a list of all jobs, if one is asked for meanwhile.
    """

    listed: Any = None

    def hits(self, method: str, path: str) -> bool:
        if method == "GET" and "labelSelector=hyperpod-eks%2Ftest" in path and self.listed:
            self.listed.set()
        self.times -= method == "POST" and bool(re.search(self.path, path))
        if self.times == 0:
            self.times, self.listed = -1, threading.Event()
            os.kill(os.getpid(), signal.SIGINT)
            self.listed.wait(0.3)
        return False


class Deleted(Fault):
    """Somebody deletes each job as soon as its pods are looked for."""

    store: Any = None

    def hits(self, method: str, path: str) -> bool:
        if found := re.search(r"/namespaces/([\w-]+)/pods\?.*job-name%3D([\w-]+)", path):
            job = self.store.registry.builtin("Job")
            if self.store.find(job, *found.groups()):
                self.store.delete(job, *found.groups())
        return False


@contextmanager
def fault(user: User, one: Fault) -> Iterator[None]:
    faults = kubernetes(user).faults
    faults.append(one)
    try:
        yield
    finally:
        faults.clear()


def killed_after(user: User, step: int) -> Any:
    return fault(user, Gone(503, "ServiceUnavailable", "nobody asks any more", times=step))


def test_what_a_killed_test_left_is_removed_by_the_next(user: User) -> None:
    with killed_after(user, 3):
        assert examined(user, "--level", "2").code == 1
    assert left(user)
    assert "a test is running, or one was killed" in user.types("status", "smoke").err
    assert examined(user, "--level", "2").code == 0
    assert left(user) == []
    assert "killed" not in user.types("status", "smoke").err


@pytest.mark.prove
def test_what_a_killed_test_left_is_planned_and_deleted_by_create(user: User) -> None:
    with killed_after(user, 3):
        assert examined(user, "--level", "2").code == 1
    there = left(user)
    words = ("smoke", "-f", "smoke.yaml", "--chart", str(CHART))
    assert re.search(
        r"delete +test-jobs +default/hyperpod-eks-test", user.types("plan", *words).out
    )
    assert left(user) == there
    assert user.types("create", *words).code == 0
    assert left(user) == []
    assert "test-jobs" not in user.types("plan", *words).out


@pytest.mark.parametrize(
    ("jobs", "nth"), [("/jobs", 2), pytest.param("/mpijobs", 1, marks=pytest.mark.prove)]
)
def test_ctrl_c_removes_everything_and_says_how_to_go_on(user: User, jobs: str, nth: int) -> None:
    with fault(user, Pressed(0, "", "", path=jobs, times=nth)):
        said = examined(user)
    assert (said.code, said.document["exit_code"]) == (130, 130)
    assert "stopped by SIGINT; what the test created is deleted" in said.err
    assert "To continue: hyperpod-eks test smoke -o json" in said.err
    assert left(user) == []


def test_ctrl_c_in_the_test_of_create_ends_it_and_leaves_nothing(user: User) -> None:
    words = ("create", "-f", "smoke.yaml", "--chart", str(CHART), "--test")
    with fault(user, Pressed(0, "", "", path="/jobs", times=1)):
        said = user.types(*words, "-o", "json")
    assert (said.code, said.document["exit_code"]) == (130, 130)
    assert "stopped by SIGINT; everything is recorded" in said.err
    assert f"To continue: hyperpod-eks {' '.join(words)} -o json" in said.err
    assert left(user) == []


@pytest.mark.prove
def test_a_job_that_somebody_else_deletes_is_an_error_and_no_finding(user: User) -> None:
    meddler = Deleted(0, "", "")
    meddler.store = kubernetes(user)._store
    with fault(user, meddler):
        said = examined(user, "--level", "2")
    assert said.code == 1
    assert "was deleted by somebody else" in said.err
    assert "Another test of this cluster may be running" in said.err
    assert left(user) == []


@pytest.mark.prove
def test_a_test_that_takes_too_long_ends_and_leaves_nothing(user: User) -> None:
    with broken(user, mount="yes"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("hyperpod_eks.smoke.pods.UNPLACED", 1e9)
        said = user.types("test", "smoke", "--level", "2", "--timeout", "3", "-o", "json")
    assert (said.code, said.document["exit_code"]) == (6, 6)
    assert "the test took longer than --timeout" in said.err
    assert left(user) == []


@pytest.mark.prove
def test_pipelines_get_the_document_of_create_and_its_test(user: User) -> None:
    words = ("create", "-f", "smoke.yaml", "--chart", str(CHART), "--test")
    with broken(user, dns="all"):
        said = user.types(*words, "-o", "json", "--events", "events.jsonl")
    assert (said.code, said.document["exit_code"], said.document["ok"]) == (11, 11, False)
    assert said.document["test"]["exit_code"] == 11
    *_, last = (user.folder / "events.jsonl").read_text().splitlines()
    assert json.loads(last)["document"] == said.document
