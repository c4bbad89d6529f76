"""Kubernetes objects of the config: created, kept as declared, and nobody else's changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hyperpod_eks import engine
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.kube import client, objects
from hyperpod_eks.kube.client import Content
from hyperpod_eks.local import CHART
from hyperpod_eks.local.kubernetes import Fault
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import State
from hyperpod_eks.resources.kubernetes import Object
from hyperpod_eks.session import connect
from tests.conftest import User, new_aws

BASE = "name: demo\ninstance_groups: [{name: a, instance_type: ml.m5.2xlarge, instance_count: 1}]\n"
OBJECTS = """objects:
  - team.yaml
  - {apiVersion: v1, kind: ServiceAccount, metadata: {name: trainer, namespace: team-a}}
"""
FILE = """
apiVersion: v1
kind: ResourceQuota
metadata: {name: gpus, namespace: team-a}
spec: {hard: {requests.nvidia.com/gpu: "8", pods: "20"}}
---
# nothing
---
apiVersion: v1
kind: Namespace
metadata: {name: team-a, labels: {team: a}}
"""
CREATE = ("create", "-f", "c.yaml", "--chart", str(CHART))
PLAN = ("plan", "-f", "c.yaml", "--chart", str(CHART), "--detailed-exitcode")
QUOTA = "/api/v1/namespaces/team-a/resourcequotas/gpus"
KEYS = {
    "kubernetes/namespace:team-a",
    "kubernetes/resourcequota:team-a:gpus",
    "kubernetes/serviceaccount:team-a:trainer",
}


def kubernetes(
    method: str, path: str, body: Any = None, kind: str = "application/json", **query: str
) -> Any:
    """Call the cluster's Kubernetes API as somebody else."""
    access = eks.access(Snapshot(new_aws()), "demo")
    assert access
    content = Content(kind, json.dumps(body).encode()) if body is not None else None
    return client._ask(access, path, method, content=content, **query)


def merge(path: str, body: Any, manager: str = "kubectl-edit") -> Any:
    kind = "application/merge-patch+json"
    return kubernetes("PATCH", path, body, kind, fieldManager=manager)


def declare(user: User, objects: str, file: str = FILE) -> None:
    (user.folder / "c.yaml").write_text(BASE + objects)
    (user.folder / "team.yaml").write_text(file)


@pytest.fixture
def user(user: User) -> User:
    """A user with a cluster that has a namespace, a quota and a service account."""
    declare(user, OBJECTS)
    user.has("demo", "-f", "c.yaml")
    return user


def records(user: User) -> dict[str, Any]:
    found = json.loads((user.folder / "demo.hyperpod-eks.json").read_text())
    return {k: v for k, v in found["resources"].items() if k.startswith("kubernetes/")}


def test_objects_are_created_after_their_namespace_and_change_nothing_again(user: User) -> None:
    quota = kubernetes("GET", QUOTA)
    assert quota["spec"]["hard"] == {"requests.nvidia.com/gpu": "8", "pods": "20"}
    assert {key: each["state"] for key, each in records(user).items()} == dict.fromkeys(
        KEYS, "ready"
    )
    assert user.types(*PLAN).code == 0
    before = quota["metadata"]["resourceVersion"]
    assert user.types(*CREATE).code == 0
    assert kubernetes("GET", QUOTA)["metadata"]["resourceVersion"] == before
    steps = user.types("status", "demo", "-o", "json").document["steps"]
    shown = next(step["resources"] for step in steps if step["name"] == "kubernetes")
    assert {f"kubernetes/{each['name']}" for each in shown} == KEYS


def test_a_manifest_with_objects_is_of_a_schema_that_0_1_0_refuses(user: User) -> None:
    found = json.loads((user.folder / "demo.hyperpod-eks.json").read_text())
    assert found["schema"] == "hyperpod-eks/manifest/v2"
    documents = [each["want"]["document"] for each in records(user).values()]
    assert all(each.startswith("sha256:") for each in documents)


def test_a_change_in_the_file_changes_the_object_and_removes_what_it_leaves_out(user: User) -> None:
    declare(user, OBJECTS, FILE.replace(', pods: "20"', "").replace('"8"', '"16"'))
    assert user.types(*PLAN).code == 5
    assert user.types(*CREATE).code == 0
    assert kubernetes("GET", QUOTA)["spec"]["hard"] == {"requests.nvidia.com/gpu": "16"}


def test_what_another_manager_has_set_is_set_back_only_with_consent(user: User) -> None:
    merge(QUOTA, {"spec": {"hard": {"pods": "99", "services": "3"}}})

    plan = user.types(*PLAN)
    assert plan.code == 5
    assert "spec.hard.pods (kubectl-edit)" in plan.out

    assert user.types(*CREATE).code == 2
    assert kubernetes("GET", QUOTA)["spec"]["hard"]["pods"] == "99"

    assert user.types(*CREATE, "--yes").code == 0
    hard = kubernetes("GET", QUOTA)["spec"]["hard"]
    assert hard == {"requests.nvidia.com/gpu": "8", "pods": "20", "services": "3"}


def test_a_field_that_others_removed_is_seen(user: User) -> None:
    merge(QUOTA, {"spec": {"hard": {"pods": None}}})
    assert "spec.hard.pods (removed)" in user.types(*PLAN).out
    assert user.types(*CREATE, "--yes").code == 0
    assert kubernetes("GET", QUOTA)["spec"]["hard"]["pods"] == "20"


def test_an_object_of_somebody_else_stops_create_and_stays(user: User) -> None:
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}}
    path = "/api/v1/namespaces/default/configmaps"
    kubernetes("POST", path, theirs)
    ours = "{apiVersion: v1, kind: ConfigMap, metadata: {name: theirs}, data: {a: b}}"
    declare(user, f"{OBJECTS}  - {ours}\n")
    said = user.types(*CREATE)
    assert said.code == 7
    assert "configmap:theirs" in said.err
    assert "data" not in kubernetes("GET", f"{path}/theirs")


def test_an_object_that_is_no_longer_declared_is_deleted(user: User) -> None:
    declare(user, "objects: [team.yaml]\n")
    assert user.types(*CREATE).code == 0
    with pytest.raises(Exception, match="404"):
        kubernetes("GET", "/api/v1/namespaces/team-a/serviceaccounts/trainer")


def test_a_namespace_is_deleted_with_what_is_in_it_only_with_consent(user: User) -> None:
    more = "  - {apiVersion: v1, kind: Namespace, metadata: {name: team-b}}\n"
    path = "/api/v1/namespaces/team-b"
    declare(user, OBJECTS + more)
    assert user.types(*CREATE).code == 0
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}}
    kubernetes("POST", f"{path}/configmaps", theirs)
    declare(user, OBJECTS)
    plan = user.types(*PLAN, "-o", "json").out
    assert "no longer declared, with everything in it" in plan
    said = user.types(*CREATE)
    assert said.code == 2
    assert "it is deleted with everything in it" in said.err
    assert kubernetes("GET", f"{path}/configmaps/theirs")
    assert user.types(*CREATE, "--yes").code == 0
    with pytest.raises(Exception, match="404"):
        kubernetes("GET", path)


def test_a_delete_says_what_goes_with_a_namespace_in_a_cluster_that_stays(user: User) -> None:
    path = user.folder / "demo.hyperpod-eks.json"
    document = json.loads(path.read_text())
    document["resources"]["eks/cluster"]["origin"] = "adopted"
    path.write_text(json.dumps(document))
    said = user.types("delete", "demo")
    assert said.code == 2
    assert "kubernetes/namespace:team-a, with everything in it" in said.err
    rows = user.types("delete", "demo", "--dry-run", "-o", "json").document["plan"]
    whys = {row["key"]: (row["action"], row["why"]) for row in rows}
    assert whys["kubernetes/namespace:team-a"] == ("delete", "with everything in it")


def claims(user: User, *namespaces: str, policy: str = "Delete") -> None:
    """Bind the claim ``data`` of each namespace to a volume, as a driver does."""
    for namespace in namespaces:
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": policy,
            "claimRef": {"namespace": namespace, "name": "data"},
            "csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-0123456789abcdef0"},
        }
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "spec": spec}
        name = {"name": f"pvc-{namespace}"}
        kubernetes("POST", "/api/v1/persistentvolumes", {**volume, "metadata": name})


def test_a_claim_or_namespace_whose_volumes_would_go_with_it_is_kept(user: User) -> None:
    more = """
  - {apiVersion: v1, kind: Namespace, metadata: {name: team-b}}
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: {name: data, namespace: team-a}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
    claim = "/api/v1/namespaces/team-a/persistentvolumeclaims/data"
    keys = ("kubernetes/namespace:team-b", "kubernetes/persistentvolumeclaim:team-a:data")
    declare(user, OBJECTS + more)
    assert user.types(*CREATE).code == 0
    claims(user, "team-a", "team-b")
    declare(user, OBJECTS)
    said = user.types(*CREATE, "--yes")
    assert said.code == 0
    for key in keys:
        assert f"{key} (" in said.err
    assert "is no longer declared; it is kept, because it holds data" in said.err
    assert kubernetes("GET", claim)
    assert kubernetes("GET", "/api/v1/namespaces/team-b")["status"]["phase"] == "Active"
    rows = user.types(*PLAN, "-o", "json").document["resources"]
    assert {row["key"] for row in rows if row["action"] == "keep"} >= {*keys}

    path = user.folder / "demo.hyperpod-eks.json"
    content = path.read_text()
    document = json.loads(content)
    document["resources"]["eks/cluster"]["origin"] = "adopted"
    path.write_text(json.dumps(document))
    rows = user.types("delete", "demo", "--dry-run", "-o", "json").document["plan"]
    whys = {row["key"]: (row["action"], row["why"]) for row in rows}
    assert {whys[key] for key in (*keys, "kubernetes/namespace:team-a")} == {
        ("keep", "it holds data; delete --delete-data deletes it")
    }
    said = user.types("delete", "demo", "--dry-run", "--delete-data", "-o", "json")
    rows = {row["key"]: row["action"] for row in said.document["plan"]}
    assert {rows[key] for key in keys} == {"delete"}
    said = user.types("delete", "demo", "--delete-data")
    assert "(PersistentVolumeClaim/team-a/data): its volume, which Kubernetes" in said.err
    path.write_text(content)

    retain = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    for namespace in ("team-a", "team-b"):
        merge(f"/api/v1/persistentvolumes/pvc-{namespace}", retain)
    assert user.types(*CREATE, "--yes").code == 0
    with pytest.raises(Exception, match="404"):
        kubernetes("GET", claim)


def test_a_program_keeps_namespaces_with_volumes_too(user: User) -> None:
    """Whatever it has opened the cluster for: volumes are looked for by a delete alone."""
    declare(user, OBJECTS)
    assert user.types(*CREATE).code == 0
    claims(user, "team-a")
    path = user.folder / "demo.hyperpod-eks.json"
    document = json.loads(path.read_text())
    document["resources"]["eks/cluster"]["origin"] = "adopted"
    path.write_text(json.dumps(document))
    with connect("c.yaml") as cluster:
        others = {want.key for want in cluster.wants} - KEYS
        _, kept = engine.delete(cluster.wants, cluster.context, frozenset(others))
    assert kept["kubernetes/namespace:team-a"] == "it holds data; delete --delete-data deletes it"
    assert kubernetes("GET", "/api/v1/namespaces/team-a")["status"]["phase"] == "Active"


def test_a_kind_that_comes_later_is_waited_for(user: User) -> None:
    custom = """
apiVersion: example.com/v1
kind: Widget
metadata: {name: one}
spec: {size: 3}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {
        size: {type: integer}}}}}}
"""
    declare(user, OBJECTS, FILE + "---" + custom)
    plan = user.types(*PLAN)
    assert plan.code == 5, plan.err
    said = user.types(*CREATE)
    assert said.code == 0, said.err
    assert kubernetes("GET", "/apis/example.com/v1/widgets/one")["spec"] == {"size": 3}
    declare(user, OBJECTS)
    assert user.types(*CREATE).code == 2  # a kind goes with all its objects
    assert user.types(*CREATE, "--yes").code == 0


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{kind: Namespace, metadata: {name: a}}", "has no usable apiVersion (it is missing)"),
        ("{apiVersion: v1, kind: namespace, metadata: {name: a}}", "kind (it is 'namespace')"),
        ("{apiVersion: v1, kind: Namespace, metadata: {}}", "metadata.name (it is missing)"),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a, uid: b}}", "has uid, which the"),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a}, status: {}}", "has status"),
        ("{apiVersion: v1, kind: PodList, metadata: {name: a}, items: []}", "is a list of"),
        (
            "{apiVersion: v1, kind: Secret, metadata: {name: a}, stringData: {p: hunter2}}",
            "has stringData.p as a value",
        ),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {b: 1}}}",
            "has metadata.labels.b that is no text",
        ),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: [b]}}", "is no mapping"),
        ("{apiVersion: v1, kind: Secret, metadata: {name: a}, data: [b]}", "data that is no"),
        ("missing.yaml", "missing.yaml: cannot be read"),
        (r'"a\0b"', "cannot be read: embedded null byte"),
        ("[1]", "objects[0]"),
        ("3", "objects[0]"),
    ],
)
def test_a_wrong_object_is_refused_with_its_place(user: User, entry: str, says: str) -> None:
    declare(user, f"objects:\n  - {entry}\n")
    said = user.types("validate", "-f", "c.yaml")
    assert said.code == 2, said.err
    assert says in said.err
    assert "hunter2" not in said.err


def test_what_kubernetes_does_not_change_in_place_is_said_with_the_way(user: User) -> None:
    storage = (
        "  - {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: fast},"
        " provisioner: ebs.csi.aws.com, parameters: {type: TYPE}}\n"
    )
    declare(user, OBJECTS + storage.replace("TYPE", "gp3"))
    assert user.types(*CREATE).code == 0
    declare(user, OBJECTS + storage.replace("TYPE", "io2"))
    said = user.types(*CREATE)
    assert said.code == 1
    assert "does not change this in place" in said.err


POLICY = "ValidatingAdmissionPolicy"
WEBHOOK = 'admission webhook "limits.example.com" denied the request: '


@pytest.mark.sample("webhook", "admission policy")
@pytest.mark.parametrize(
    ("code", "message", "says", "fix"),
    [
        (403, f"{WEBHOOK}no image of yours", ("the admission webhook limits.example.com refuses it"
         " (spec.hard): no image of yours"), "ask whoever runs the webhook"),
        (400, WEBHOOK.removesuffix(": ") + " without explanation",
         "webhook limits.example.com refuses it", "validatingwebhookconfigurations"),
        (422, f"""quota "a" is forbidden: {POLICY} 'p' with binding 'b' denied request: too much""",
         "the admission policy p refuses it (spec.hard): too much",
         "kubectl get validatingadmissionpolicy p"),
        (403, 'pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged',
         "the Pod Security Standard restricted:latest", "pod-security.kubernetes.io/enforce"),
        (403, 'pods "x" is forbidden: exceeded quota: small, requested: pods=1',
         "it exceeds the quota small", "kubectl describe quota small -n team-a"),
    ],
    ids=["webhook", "webhook without a reason", "admission policy", "pod security", "quota"],
)  # fmt: skip
def test_what_the_clusters_own_rules_refuse_is_said_with_who_refuses_it(
    user: User, code: int, message: str, says: str, fix: str
) -> None:
    """Sentences of kubernetes/apiserver and of kubernetes' admission plugins."""
    (endpoint,) = user.stack.sim.clusters.values()
    fault = Fault(code, "Forbidden", message, "PATCH", "resourcequotas", 9, "spec.hard")
    endpoint.faults.append(fault)
    declare(user, OBJECTS, FILE.replace('"20"', '"30"'))
    said = user.types(*CREATE)
    endpoint.faults.clear()
    assert said.code == 1
    assert says in said.err.replace("\n", " ")
    assert fix in said.err
    assert "access entr" not in said.err


def test_an_object_in_a_namespace_that_does_not_exist(user: User) -> None:
    declare(user, OBJECTS + OBJECTS.splitlines()[-1].replace("team-a", "nowhere") + "\n")
    said = user.types(*CREATE)
    assert said.code == 1
    assert "ServiceAccount/nowhere/trainer: its namespace nowhere does not exist" in said.err
    assert "kubectl create namespace nowhere" in said.err


@pytest.mark.parametrize(
    "fields",
    [{"f:spec": {"k:{": {}}}, {"f:spec": {"k:[1]": {}}}, {"f:spec": 3}, {"f:spec": {"v:": {}}}],
)
def test_managed_fields_that_are_none_are_no_fault_of_this_program(fields: Any) -> None:
    managers = [{"manager": "kubectl", "operation": "Update", "fieldsV1": fields}]
    live = {"kind": "Widget", "metadata": {"name": "one", "managedFields": managers}}
    with pytest.raises(HyperpodError, match=r"Widget one: .* kubectl owns .* cannot be read"):
        objects.taken({"spec": {"items": [{"a": 1}]}}, live)


def test_an_object_declared_twice_is_refused(user: User) -> None:
    declare(user, f"{OBJECTS}  - team.yaml\n")
    said = user.types("validate", "-f", "c.yaml")
    assert said.code == 2
    assert "objects[3]: declares resourcequota:team-a:gpus, as objects[0] does" in said.err


def test_a_secret_takes_its_values_from_variables_and_keeps_none(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = (
        "  - {apiVersion: v1, kind: Secret, metadata: {name: pull, namespace: team-a},"
        " stringData: {key: '${env:PULL_KEY}'}}\n"
    )
    declare(user, OBJECTS + secret)
    user.stack.calls.clear()
    said = user.types(*CREATE)
    assert (said.code, user.stack.calls) == (2, []), said.err
    assert "].stringData.key: the environment variable PULL_KEY is not set" in said.err
    monkeypatch.setenv("PULL_KEY", "hunter2-hunter2")
    said = user.types(*CREATE)
    assert said.code == 0, said.err
    assert user.types(*PLAN).code == 0
    manifest = (user.folder / "demo.hyperpod-eks.json").read_text()
    assert "hunter2" not in manifest + said.err


def test_null_is_no_time_of_deletion() -> None:
    cluster: Any = None
    one = Object("a", cluster, "v1", "Namespace", "", "a", "{}")
    for metadata, state in (({"deletionTimestamp": None}, State.READY), (None, State.READY)):
        assert one._live({"metadata": metadata}, "ours").state is state
    gone = {"deletionTimestamp": "2026-11-29T00:00:00Z"}
    assert one._live({"metadata": gone}, "ours").state is State.LEAVING
