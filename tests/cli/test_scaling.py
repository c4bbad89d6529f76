"""Node pools: Karpenter scales the groups that they name, and goes before the cluster."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.kubernetes import Fault as KubernetesFault
from hyperpod_eks.local.stack import Stack
from tests import copies
from tests.cli.test_objects import kubernetes, merge
from tests.conftest import User, new_session
from tests.rounds import rounds

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / "spot-autoscaling.yaml"
POOLS = "/apis/karpenter.sh/v1/nodepools"
CLAIMS = "/apis/karpenter.sh/v1/nodeclaims"
CLASSES = "/apis/karpenter.sagemaker.amazonaws.com/v1/hyperpodnodeclasses"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
CHANGE = ("--chart", str(CHART), "-f", "spot-autoscaling.yaml")
READY = '{.items[0].metadata.name} {.items[0].status.conditions[?(@.type=="Ready")].status}'
GET = ("kubectl", "get", "nodepools", "-o", f"jsonpath={READY}")
PLAN = ("plan", *CHANGE, "--detailed-exitcode")


def commands() -> list[list[str]]:
    """Return the commands for AWS in the header of the example."""
    header = EXAMPLE.read_text().partition("# On the embedded stack")[0]
    lines = [line[4:] for line in header.splitlines() if line.startswith("#   ")]
    return [shlex.split(line, comments=True) for line in lines]


def kubectl(verb: str, file: str) -> None:
    """Do what `kubectl apply -f` and `kubectl delete -f` do with a Deployment."""
    body = yaml.safe_load((EXAMPLES / file).read_text())
    path = f"{DEPLOYMENTS}/{body['metadata']['name']}"
    if verb == "apply":
        kind = "application/apply-patch+yaml"
        kubernetes("PATCH", path, body, kind, fieldManager="kubectl", force="true")
    else:
        kubernetes("DELETE", path)


def nodes(user: User, group: str = "inference") -> list[Any]:
    backend = user.types("nodes", "demo", "-o", "json").document
    return [each for each in backend["nodes"] if each["instance_group"] == group]


def types(user: User, words: list[str]) -> str:
    chart = ["--chart", str(CHART)] if words[1] in ("create", "plan") else []
    said = user.types(*words[1:], *chart)
    assert said.code == 0, said.err
    return said.out


def condition(obj: Any, kind: str) -> Any:
    return next(each for each in obj["status"]["conditions"] if each["type"] == kind)


def quotas(stack: Stack) -> None:
    name = "Total number of Spot instances allowed across SageMaker HyperPod clusters"
    for each in ("ml.g6.2xlarge for cluster spot instance usage", name):
        stack.sim.set_quota("sagemaker", each, 10)


@pytest.fixture
def empty(user: User) -> Any:
    """The account before the example's cluster, which the user has now."""

    def create() -> Any:
        before = user.stack.inventory()
        quotas(user.stack)
        declare(user)
        types(user, commands()[0])
        return before

    return copies.once(user.stack, user.folder, ("scaling",), create)


@pytest.fixture
def made(user: User, empty: Any) -> User:
    """A user with the example's cluster."""
    return user


def declare(user: User, *changes: tuple[str, str]) -> None:
    text = EXAMPLE.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (user.folder / EXAMPLE.name).write_text(text)


def test_create_makes_a_node_class_and_a_node_pool_that_are_ready(made: User) -> None:
    node_class = kubernetes("GET", f"{CLASSES}/inference")
    assert node_class["spec"] == {"instanceGroups": ["inference"]}
    for kind in ("InstanceGroupReady", "SubnetsReady", "Ready"):
        assert condition(node_class, kind)["status"] == "True"
    (group,) = node_class["status"]["instanceGroups"]
    assert group["instanceTypes"] == ["ml.g6.2xlarge", "ml.g6.4xlarge"]
    pool = kubernetes("GET", f"{POOLS}/inference")
    assert pool["spec"]["limits"] == {"nvidia.com/gpu": 8}
    own = pool["spec"]["template"]["spec"]
    assert own["nodeClassRef"]["name"] == "inference"
    assert own["expireAfter"] == "Never"
    assert condition(pool, "Ready")["status"] == "True"
    assert nodes(made) == []
    assert made.types(*PLAN).code == 0


def test_nodes_come_with_pods_and_go_with_them(made: User) -> None:
    file = "workloads/spot-inference.yaml"
    kubectl("apply", file)
    assert len(nodes(made)) == 2
    claims = kubernetes("GET", CLAIMS)["items"]
    assert [condition(each, "Ready")["status"] for each in claims] == ["True", "True"]
    assert len(nodes(made, "system")) == 2
    pods = kubernetes("GET", "/api/v1/namespaces/default/pods")["items"]
    hosts = {each["spec"]["nodeName"] for each in pods if each["status"]["phase"] == "Running"}
    assert len(hosts) == 2

    assert made.types(*PLAN).code == 0
    made.mutations()
    with rounds(made.stack) as chain:
        assert made.types("create", *CHANGE).code == 0
    assert made.mutations() == []
    assert 1 <= len(chain) <= 4

    merge(f"{DEPLOYMENTS}/inference", {"spec": {"replicas": 20}})
    assert len(nodes(made)) == 8  # its limit
    merge(f"{DEPLOYMENTS}/inference", {"spec": {"replicas": 1}})
    assert len(nodes(made)) == 1
    kubectl("delete", file)
    assert nodes(made) == []
    assert kubernetes("GET", CLAIMS)["items"] == []


def test_a_pod_that_a_pool_does_not_admit_brings_no_node(made: User) -> None:
    body = yaml.safe_load((EXAMPLES / "workloads/spot-inference.yaml").read_text())
    del body["spec"]["template"]["spec"]["tolerations"]
    kubernetes("POST", DEPLOYMENTS, body)
    assert nodes(made) == []


@pytest.mark.prove
def test_an_override_changes_the_pool_and_a_removed_pool_takes_its_nodes_along(made: User) -> None:
    kubectl("apply", "workloads/spot-inference.yaml")
    declare(made, ("8}", "1}\n        disruption: {consolidateAfter: 10m}"))
    assert made.types(*PLAN).code == 5
    assert made.types("create", *CHANGE).code == 0
    pool = kubernetes("GET", f"{POOLS}/inference")["spec"]
    assert pool["limits"] == {"nvidia.com/gpu": 1}
    assert pool["disruption"]["consolidateAfter"] == "10m"
    assert made.types(*PLAN).code == 0

    text = yaml.safe_load((made.folder / EXAMPLE.name).read_text())
    del text["auto_scaling"]["node_pools"]
    (made.folder / EXAMPLE.name).write_text(json.dumps(text))
    said = made.types("create", *CHANGE)
    assert said.code == 2
    assert "nodepool.karpenter.sh:inference: it is deleted with its nodes" in said.err
    assert len(nodes(made)) == 2
    assert made.types("create", *CHANGE, "--yes").code == 0
    assert kubernetes("GET", CLASSES)["items"] == kubernetes("GET", POOLS)["items"] == []
    assert nodes(made) == []

    declare(made)
    assert made.types("create", *CHANGE).code == 0
    assert len(nodes(made)) == 2  # the pods still wait


def test_status_warns_of_what_is_not_ready(made: User) -> None:
    merge(f"{CLASSES}/inference", {"spec": {"instanceGroups": ["gone"]}})
    said = made.types("status", "demo", "-o", "json")
    assert any(
        "hyperpodnodeclass.karpenter.sagemaker.amazonaws.com:inference is not ready" in each
        for each in said.document["warnings"]
    )
    assert any("NodeClassNotReady" in each for each in said.document["warnings"])
    assert made.types("create", *CHANGE, "--yes").code == 0
    assert made.types("status", "demo", "-o", "json").document["warnings"] == []


@pytest.mark.prove
def test_a_group_leaves_its_pool_and_the_cluster_together(made: User) -> None:
    more = "  - {name: more, instance_type: ml.g6.2xlarge, instance_count: 0}\n\nauto_scaling:"
    declare(made, ("\nauto_scaling:", more), ("groups: [inf", "groups: [more, inf"))
    assert made.types("create", *CHANGE).code == 0
    assert kubernetes("GET", f"{CLASSES}/inference")["spec"]["instanceGroups"] == [
        "more",
        "inference",
    ]
    # another group takes its place: the class names it once the cluster has it
    declare(
        made,
        ("\nauto_scaling:", more.replace("more", "other")),
        ("groups: [inf", "groups: [other, inf"),
    )
    refused = Fault("sagemaker", "UpdateCluster", "ValidationException", 400, "no", 1)
    made.stack.faults.append(refused)
    assert made.types("create", *CHANGE, "--yes").code == 1
    assert groups_of_class() == ["inference"]

    declare(
        made,
        ("\nauto_scaling:", more.replace("more", "other")),
        ("groups: [inf", "groups: [other, inf"),
    )
    assert made.types("create", *CHANGE, "--yes").code == 0
    assert groups_of_class() == ["other", "inference"]
    declare(made)
    assert made.types("create", *CHANGE, "--yes").code == 0
    assert groups_of_class() == ["inference"]
    assert condition(kubernetes("GET", f"{CLASSES}/inference"), "Ready")["status"] == "True"
    assert made.types(*PLAN).code == 0


def groups_of_class() -> Any:
    return kubernetes("GET", f"{CLASSES}/inference")["spec"]["instanceGroups"]


def test_pools_go_before_karpenter_and_their_groups(made: User) -> None:
    kubectl("apply", "workloads/spot-inference.yaml")
    text = yaml.safe_load((made.folder / EXAMPLE.name).read_text())
    text["auto_scaling"] = {"mode": "Disable"}
    del text["instance_groups"][1]
    (made.folder / EXAMPLE.name).write_text(json.dumps(text))
    said = made.types("create", *CHANGE, "--yes", "--timeout", "2")
    assert said.code == 0, said.err
    assert kubernetes("GET", CLASSES)["items"] == kubernetes("GET", POOLS)["items"] == []
    assert made.types(*PLAN).code == 0


def test_scale_sets_the_counts_that_karpenter_does_not(made: User) -> None:
    with (made.folder / EXAMPLE.name).open("a") as file:
        file.write(f"chart: {{path: {CHART}}}\n")
    assert made.types("create", "-f", EXAMPLE.name).code == 0
    before = (made.folder / EXAMPLE.name).read_text()
    for words in (("demo",), ("-f", EXAMPLE.name)):
        said = made.types("scale", *words, "system=3", "inference=1")
        assert said.code == 2
        assert "Karpenter decides how many nodes inference has" in said.err
    assert (made.folder / EXAMPLE.name).read_text() == before
    said = made.types("scale", "-f", EXAMPLE.name, "system=3")
    assert said.code == 0, said.err
    assert len(nodes(made, "system")) == 3
    assert made.types("plan", "-f", EXAMPLE.name, "--detailed-exitcode").code == 0
    assert made.types("scale", "demo", "system=2", "--yes").code == 0
    assert len(nodes(made, "system")) == 2


def test_a_group_that_has_nodes_comes_to_karpenter_with_consent_only(made: User) -> None:
    text = yaml.safe_load((made.folder / EXAMPLE.name).read_text())
    text["auto_scaling"] = {"mode": "Enable"}
    (made.folder / EXAMPLE.name).write_text(json.dumps(text))
    assert made.types("create", *CHANGE, "--yes").code == 0
    sagemaker = new_session().client("sagemaker")
    added: Any = {"InstanceGroupName": "inference", "IncrementTargetCountBy": 2}
    sagemaker.batch_add_cluster_nodes(ClusterName="demo", NodesToAdd=[added])

    declare(made)
    lost = "instance group inference: its 2 nodes are removed"
    assert lost in made.types(*PLAN, "-o", "json").out
    said = made.types("create", *CHANGE)
    assert (said.code, lost in said.err) == (2, True)
    assert len(nodes(made)) == 2
    assert made.types("create", *CHANGE, "--yes").code == 0
    assert nodes(made) == []
    assert made.types(*PLAN).code == 0


@pytest.mark.prove
def test_the_commands_of_the_example_lead_to_an_empty_account(
    user: User, one_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(user.folder / "demo.kubeconfig"))
    before = one_stack.inventory()
    quotas(one_stack)
    declare(user)
    (user.folder / "workloads").symlink_to(EXAMPLES / "workloads")
    for words in commands():
        if words[0] == "kubectl":
            subprocess.run(words, check=True, timeout=60, capture_output=True)
            pools = subprocess.run(GET, check=True, timeout=60, capture_output=True, text=True)
            assert pools.stdout == "inference True"
        elif types(user, words).count("ml.g6.2xlarge"):
            assert words[1] == "nodes"
            assert len(nodes(user)) == 2
    assert one_stack.inventory() == before


def test_a_cluster_whose_api_cannot_be_reached_is_deleted_nevertheless(
    made: User, empty: Any
) -> None:
    kubectl("apply", "workloads/spot-inference.yaml")
    (endpoint,) = made.stack.sim.clusters.values()
    endpoint.faults.append(
        KubernetesFault(503, "ServiceUnavailable", "no", path="karpenter", times=10**6)
    )
    assert made.types("delete", "demo", "--yes").code == 0
    assert made.stack.inventory() == empty


def test_preflight_warns_of_a_quota_with_which_nothing_scales(user: User, one_stack: Stack) -> None:
    declare(user)
    said = user.types("preflight", *CHANGE, "-o", "json")
    found = {e["says"]: e["severity"] for e in said.document["findings"]}
    lacks = "so Karpenter can add no node to group inference"
    quota = '"ml.g6.2xlarge for cluster spot instance usage" is 0: 1 needed'
    assert found[f"{quota}, {lacks}"] == "warning"
    assert said.code == 0, said.out
    quotas(one_stack)
    assert lacks not in user.types("preflight", *CHANGE, "-o", "json").out
