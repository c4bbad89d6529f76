"""Behaviour of a real API server and its controllers on which clients rely."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from hyperpod_eks.local.kubernetes import Cluster
from hyperpod_eks.local.kubernetes.objects import dig

from .test_kubernetes import (
    APPLY,
    APPS,
    CORE,
    KUBECTL,
    MERGE,
    USERS,
    Client,
    kubeconfig,
    workload,
)
from .test_kubernetes_validation import DEFINITIONS, GADGETS, definition

Kubectl = Callable[..., subprocess.CompletedProcess[str]]
JSON, JSON_PATCH = "application/json", "application/json-patch+json"
REVIEWS = "/apis/authorization.k8s.io/v1"


@pytest.fixture(scope="module", autouse=True)
def furnished(cluster: Cluster, client: Client) -> None:
    cluster.add_node("n1", {"size": "5"}, ready=True)
    client.ok("POST", DEFINITIONS, definition())


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    if KUBECTL is None:
        pytest.skip("kubectl is not under .cache/helm")
    home = tmp_path_factory.mktemp("kubectl")
    (home / "config").write_text(json.dumps(kubeconfig(cluster)))
    env = {**os.environ, "KUBECONFIG": str(home / "config"), "KUBECACHEDIR": str(home / "cache")}

    def run(*arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(KUBECTL), *arguments]
        return subprocess.run(
            command, env=env, input=said, capture_output=True, text=True, check=False
        )

    return run


def names(answer: Any) -> list[str]:
    return [item["metadata"]["name"] for item in answer["items"]]


# --- objects -------------------------------------------------------------------------------------


def test_a_new_namespace_has_an_account_and_the_cluster_s_certificate(client: Client) -> None:
    client.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    home = "/api/v1/namespaces/team"
    assert names(client.ok("GET", f"{home}/serviceaccounts")) == ["default"]
    certificate = client.ok("GET", f"{home}/configmaps/kube-root-ca.crt")["data"]["ca.crt"]
    assert certificate.startswith("-----BEGIN CERTIFICATE-----")
    client.ok("DELETE", f"{home}/serviceaccounts/default")
    assert names(client.ok("GET", f"{home}/serviceaccounts")) == ["default"]
    client.ok("DELETE", home)
    assert client.send("GET", home)[0] == 404


def test_the_api_server_has_a_service_at_the_first_address_of_its_range(client: Client) -> None:
    """Like kube-apiserver's pkg/controlplane/controller/kubernetesservice, it recreates it."""
    where = "/api/v1/namespaces/default/services/kubernetes"
    for _ in range(2):
        service = client.ok("GET", where)
        assert service["metadata"]["labels"] == {"component": "apiserver", "provider": "kubernetes"}
        assert service["spec"]["clusterIP"] == "172.20.0.1"
        assert service["spec"]["type"] == "ClusterIP"
        (port,) = service["spec"]["ports"]
        assert (port["name"], port["port"], port["protocol"]) == ("https", 443, "TCP")
        client.ok("DELETE", where)


def test_an_object_whose_owner_never_existed_is_collected(client: Client) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "0"}
    lost = {"metadata": {"name": "lost", "ownerReferences": [owner]}}
    client.ok("POST", f"{CORE}/configmaps", lost)
    assert client.send("GET", f"{CORE}/configmaps/lost")[0] == 404


def test_json_patches_copy_and_move(client: Client) -> None:
    client.ok("POST", f"{CORE}/configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}})
    patch = [
        {"op": "copy", "from": "/data/a", "path": "/data/b"},
        {"op": "move", "from": "/data/a", "path": "/data/c"},
    ]
    changed = client.ok("PATCH", f"{CORE}/configmaps/c", patch, JSON_PATCH)
    assert changed["data"] == {"b": "1", "c": "1"}
    client.ok("DELETE", f"{CORE}/configmaps/c")


def test_managers_share_the_keyed_lists_of_a_custom_resource(client: Client) -> None:
    def apply(manager: str, *items: str) -> Any:
        kind = {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "shared"}}
        spec = {"size": 1, "items": [{"name": name} for name in items]}
        path = f"{GADGETS}/shared?fieldManager={manager}"
        return client.ok("PATCH", path, {**kind, "spec": spec}, APPLY)["spec"]["items"]

    apply("one", "a", "b")
    assert sorted(i["name"] for i in apply("two", "c")) == ["a", "b", "c"]
    assert sorted(i["name"] for i in apply("one", "a")) == ["a", "c"]


def test_replicas_are_read_and_written_through_scale(client: Client) -> None:
    client.ok("POST", f"{APPS}/deployments", workload("web", 1))
    path = f"{APPS}/deployments/web/scale"
    scale = client.ok("GET", path)
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == (
        *("Scale", {"replicas": 1}),
        "app=web",
    )
    assert client.ok("PATCH", path, {"spec": {"replicas": 3}}, MERGE)["spec"] == {"replicas": 3}
    assert len(client.ok("GET", f"{CORE}/pods?labelSelector=app=web")["items"]) == 3
    scale["spec"] = {"replicas": 2}
    assert client.send("PUT", path, scale)[0] == 409  # it has changed since
    del scale["metadata"]["resourceVersion"]
    client.ok("PUT", path, scale)
    assert client.send("PATCH", path, {"spec": {"replicas": -1}}, MERGE)[0] == 422
    client.ok("DELETE", f"{APPS}/deployments/web")


def test_old_templates_are_kept_as_revisions(client: Client) -> None:
    def replica_sets() -> dict[str, int]:
        found = client.ok("GET", f"{APPS}/replicasets?labelSelector=app=web")["items"]
        revision = "deployment.kubernetes.io/revision"
        return {r["metadata"]["annotations"][revision]: r["spec"]["replicas"] for r in found}

    for image in ("a:1", "a:2"):
        for kind in ("deployments", "daemonsets"):
            body = {**workload("web", image=image), "apiVersion": "apps/v1"}
            body["kind"] = {"deployments": "Deployment", "daemonsets": "DaemonSet"}[kind]
            client.ok("PATCH", f"{APPS}/{kind}/web?fieldManager=m", body, APPLY)
    assert replica_sets() == {"1": 0, "2": 1}
    revisions = client.ok("GET", f"{APPS}/controllerrevisions")["items"]
    assert sorted(r["revision"] for r in revisions) == [1, 2]
    back = {**workload("web", image="a:1"), "apiVersion": "apps/v1", "kind": "Deployment"}
    client.ok("PATCH", f"{APPS}/deployments/web?fieldManager=m", back, APPLY)
    assert replica_sets() == {"2": 0, "3": 1}
    for kind in ("deployments", "daemonsets"):
        client.ok("DELETE", f"{APPS}/{kind}/web")
    assert names(client.ok("GET", f"{APPS}/controllerrevisions")) == []


@pytest.mark.parametrize("name", ["default", "kube-public", "kube-system"])
def test_a_cluster_is_never_without_its_own_namespaces(client: Client, name: str) -> None:
    status, answer = client.send("DELETE", f"/api/v1/namespaces/{name}")
    assert (status, "this namespace may not be deleted" in answer["message"]) == (403, True)


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "status"),
    [
        ("PATCH", "configmaps/there", {"op": "add"}, JSON_PATCH, 400),
        ("PATCH", "configmaps/there", [1], JSON_PATCH, 400),
        ("PATCH", "configmaps/there", [{"op": "bogus", "path": "/data"}], JSON_PATCH, 422),
        ("PUT", "configmaps/there", {"metadata": {"name": "there", "uid": "x"}}, JSON, 409),
        ("POST", "pods/there/eviction", {"metadata": {"name": "other"}}, JSON, 400),
        ("DELETE", "configmaps/there", {"propagationPolicy": "Never"}, JSON, 422),
        (
            *("DELETE", "configmaps/there"),
            *({"propagationPolicy": "Orphan", "orphanDependents": True}, JSON, 422),
        ),
        ("GET", "configmaps?resourceVersionMatch=Exact", None, JSON, 422),
        ("GET", "configmaps?resourceVersion=1&resourceVersionMatch=Any", None, JSON, 422),
    ],
)
def test_what_does_not_fit_is_refused(
    client: Client, method: str, path: str, body: Any, kind: str, status: int
) -> None:
    client.send("POST", f"{CORE}/configmaps", {"metadata": {"name": "there"}, "data": {"a": "1"}})
    assert client.send(method, f"{CORE}/{path}", body, kind)[0] == status


def test_collections_of_all_namespaces_are_not_deleted(client: Client) -> None:
    assert client.send("DELETE", "/api/v1/configmaps")[0] == 405


def test_only_known_media_types_are_answered(client: Client) -> None:
    for accept, status in (("text/html", 406), ("text/html, */*;q=0.1", 200)):
        response = client.open("GET", f"{CORE}/configmaps", None, JSON, accept)
        response.read()
        assert response.status == status


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("labelSelector=size%3E4", ["n1"]),
        ("labelSelector=size%3C5", []),
        ("fieldSelector=spec.unschedulable%3Dfalse", ["n1"]),
        ("fieldSelector=spec.unschedulable%3Dtrue", []),
        ("labelSelector=size%3Ex", 400),
        ("fieldSelector=spec.bogus%3D1", 400),
        ("limit=x", 400),
        ("continue=%25", 400),
        ("resourceVersion=x", 400),
    ],
)
def test_lists_select_or_refuse(client: Client, query: str, found: Any) -> None:
    status, answer = client.send("GET", f"/api/v1/nodes?{query}")
    assert (names(answer) if status == 200 else status) == found


def test_lists_come_in_pages(client: Client) -> None:
    every = names(client.ok("GET", "/api/v1/configmaps"))
    seen, token = [], ""
    while True:
        page = client.ok("GET", f"/api/v1/configmaps?limit=3&continue={token}")
        seen += names(page)
        token = page["metadata"].get("continue", "")
        if not token:
            break
        assert page["metadata"]["remainingItemCount"] == len(every) - len(seen)
    assert seen == every


def test_reviews_tokens_and_evictions(client: Client) -> None:
    def ask(path: str, spec: Any) -> Any:
        return client.ok("POST", path, {"spec": spec})["status"]

    rules = ask(f"{REVIEWS}/selfsubjectrulesreviews", {"namespace": "default"})
    assert rules["resourceRules"] == [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    about = {"resourceAttributes": {"verb": "get", "resource": "pods"}}
    mine = USERS["good"].username
    for user, allowed in ((mine, True), ("nobody", False)):
        status = ask(f"{REVIEWS}/subjectaccessreviews", {**about, "user": user})
        assert status == {"allowed": allowed}
    status, _ = client.send("POST", f"{REVIEWS}/subjectaccessreviews", {"spec": about})
    assert status == 422  # about no object
    tokens = "/apis/authentication.k8s.io/v1/tokenreviews"
    assert ask(tokens, {"token": "good"})["user"]["username"] == mine
    assert "authenticated" not in ask(tokens, {"token": "forged"})
    token = ask(f"{CORE}/serviceaccounts/default/token", {"expirationSeconds": 600})
    assert token["token"]
    assert (
        client.send(
            "POST", f"{CORE}/serviceaccounts/default/token", {"spec": {"expirationSeconds": 1}}
        )[0]
        == 422
    )
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}}
    client.ok("POST", f"{CORE}/pods", pod)
    assert client.send("POST", f"{CORE}/pods/p/eviction", {"metadata": {"name": "p"}})[0] == 201
    assert client.send("GET", f"{CORE}/pods/p")[0] == 404


def test_finalize_lets_a_namespace_go(client: Client) -> None:
    client.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "stuck"}})
    held = {"metadata": {"name": "held", "finalizers": ["example.com/wait"]}}
    client.ok("POST", "/api/v1/namespaces/stuck/configmaps", held)
    client.ok("DELETE", "/api/v1/namespaces/stuck")
    home = client.ok("GET", "/api/v1/namespaces/stuck")
    home["spec"]["finalizers"] = []
    client.ok("PUT", "/api/v1/namespaces/stuck/finalize", home)
    assert client.send("GET", "/api/v1/namespaces/stuck")[0] == 404


# --- kubectl -------------------------------------------------------------------------------------


def test_kubectl_lists_all_shows_wide_columns_and_undoes(kubectl: Kubectl, client: Client) -> None:
    client.ok("POST", f"{APPS}/deployments", workload("shown", 1))
    assert "deployment.apps/shown" in kubectl("get", "all").stdout
    heading, row = kubectl("get", "deployments", "shown", "-o", "wide").stdout.splitlines()
    assert heading.split()[-3:] == ["CONTAINERS", "IMAGES", "SELECTOR"]
    assert row.split()[-3:] == ["c", "a:1", "app=shown"]
    image = ("set", "image", "deployment/shown", "c=a:2")
    for command in (
        image,
        ("rollout", "undo", "deployment/shown"),
        ("scale", "--replicas=2", "deployment/shown"),
    ):
        done = kubectl(*command)
        assert done.returncode == 0, done.stderr
    changed = client.ok("GET", f"{APPS}/deployments/shown")
    assert changed["spec"]["template"]["spec"]["containers"][0]["image"] == "a:1"
    assert changed["spec"]["replicas"] == 2


def test_kubectl_says_that_a_kind_is_not_there(kubectl: Kubectl) -> None:
    job = "{apiVersion: kubeflow.org/v1, kind: PyTorchJob, metadata: {name: train}}"
    done = kubectl("apply", "-f", "-", said=job)
    assert done.returncode == 1
    assert 'no matches for kind "PyTorchJob"' in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "deployment made --image=a:1 --replicas=0 --port=80",
        "job made --image=a:1 -- echo hi",
        "cronjob made --image=a:1 --schedule=@daily",
        "role made --verb=get --resource=pods",
        "rolebinding made --role=r --serviceaccount=default:a",
        "service nodeport made --tcp=80:http",
        "ingress made --rule=example.com/bar*=svc:80",
        "poddisruptionbudget made --selector=app=a --min-available=50%",
        "quota made --hard=cpu=1,pods=2",
        "priorityclass made --value=-5",
    ],
)
def test_kubectl_create_sends_protobuf_that_says_what_its_json_says(
    kubectl: Kubectl, command: str
) -> None:
    def made(*arguments: str, said: str = "") -> Any:
        done = kubectl("create", "--output=json", *arguments, said=said)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    found = made("--dry-run=server", *command.split())
    printed = json.dumps(made("--dry-run=client", *command.split()))
    wanted = made("--dry-run=server", "--filename=-", said=printed)
    for each in (found, wanted):
        del each["metadata"]
        each.pop("status", None)  # kubectl omits it in the JSON of some kinds
        each.get("spec", {}).pop("selector", None)  # a Job's has its uid
        (dig(each, "spec", "template", "metadata") or {}).pop("labels", None)
    assert found == wanted


# --- OpenAPI -------------------------------------------------------------------------------------


def test_every_type_that_openapi_names_is_in_the_same_document(client: Client) -> None:
    """k8s.io/kube-openapi describes each group version completely."""
    paths = client.ok("GET", "/openapi/v3")["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/example.com/v1"} <= paths.keys()
    for path in paths.values():
        document = client.ok("GET", path["serverRelativeURL"])
        schemas = document["components"]["schemas"]
        named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(schemas)))
        assert named <= schemas.keys(), path
        kinds = {
            gvk["kind"]
            for schema in schemas.values()
            for gvk in schema.get("x-kubernetes-group-version-kind", ())
        }
        asked = re.findall(r'"x-kubernetes-group-version-kind": {[^}]*"kind": "(\w+)"}',
                           json.dumps(document["paths"]))  # fmt: skip
        assert set(asked) == kinds != set(), path


def test_openapi_changes_with_a_definition(client: Client) -> None:
    def described() -> tuple[str, Any]:
        path = client.ok("GET", "/openapi/v3")["paths"]["apis/example.com/v1"]["serverRelativeURL"]
        schemas = client.ok("GET", path)["components"]["schemas"]
        return path, schemas["com.example.v1.Gadget"]["properties"]["spec"]["properties"]

    before, fields = described()
    assert fields["size"] == {"type": "integer", "minimum": 1, "maximum": 9}
    changed = definition()
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"other": {"type": "string"}}}},
    }
    path = f"{DEFINITIONS}/gadgets.example.com"
    client.ok("PATCH", path, {"spec": {"versions": changed["spec"]["versions"]}}, MERGE)
    after, fields = described()
    assert after != before
    assert list(fields) == ["other"]
    client.ok("PATCH", path, {"spec": {"versions": definition()["spec"]["versions"]}}, MERGE)
    assert described()[0] == before


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("pods.spec.containers.resources", "limits\t<map[string]Quantity>"),
        ("deployments.spec.template.spec", "containers\t<[]Container> -required-"),
        ("gadgets.spec", "size\t<integer> -required-"),
        ("gadgets.spec.colour", "FIELD: colour <string>"),
    ],
)
def test_kubectl_explains(kubectl: Kubectl, client: Client, what: str, said: str) -> None:
    done = kubectl("explain", what)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_kubectl_explains_no_field_that_is_not_there(kubectl: Kubectl) -> None:
    done = kubectl("explain", "pods.spec.bogus")
    assert (done.returncode, 'field "bogus" does not exist' in done.stderr) == (1, True)
