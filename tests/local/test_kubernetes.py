"""The embedded Kubernetes API, seen through its clients and through its handle."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import kubernetes.client
import kubernetes.config
import pytest

from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import (
    Cluster,
    Delays,
    Fault,
    Identity,
    protobuf,
    selection,
)
from hyperpod_eks.local.tls import Pki

KUBECTL = next(Path(__file__).parents[2].glob(".cache/helm/*/kubectl"), None)
USERS = {
    "good": Identity("arn:aws:iam::123456789012:role/admin"),
    "powerless": Identity("arn:aws:iam::123456789012:role/nobody", allowed=False),
}
APPS, CORE = "/apis/apps/v1/namespaces/default", "/api/v1/namespaces/default"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


class Client:
    """Plain requests over one connection."""

    def __init__(self, cluster: Cluster, token: str = "good") -> None:
        self.token = token
        context = ssl.create_default_context(cadata=cluster.ca_pem.decode())
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
        host = cluster.url.removeprefix("https://")
        self._connection = http.client.HTTPSConnection(host, context=context, timeout=30)

    def send(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Send a request; return status and body of the answer."""
        response = self.open(method, path, body, kind)
        text = response.read()
        return response.status, json.loads(text) if text.startswith(b"{") else text.decode()

    def ok(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Send a request, which must succeed; return the body of the answer."""
        status, answer = self.send(method, path, body, kind)
        assert status < 300, answer
        return answer

    def open(
        self, method: str, path: str, body: Any, kind: str, accept: str = "application/json"
    ) -> http.client.HTTPResponse:
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {
            "Content-Type": kind,
            "Accept": accept,
            "Authorization": f"Bearer {self.token}",
        }
        self._connection.request(method, path, raw, headers)
        return self._connection.getresponse()

    def watch(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Return type and object of every event."""
        for line in self.open("GET", path, None, "application/json"):
            event = json.loads(line)
            yield event["type"], event["object"]

    def close(self) -> None:
        self._connection.close()


Start = Callable[..., tuple[Cluster, Client]]


def kubeconfig(cluster: Cluster, token: str = "good") -> dict[str, Any]:
    authority = base64.b64encode(cluster.ca_pem).decode()
    endpoint = {"server": cluster.url, "certificate-authority-data": authority}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "eks",
        "contexts": [{"name": "eks", "context": {"cluster": "eks", "user": "eks"}}],
        "clusters": [{"name": "eks", "cluster": endpoint}],
        "users": [{"name": "eks", "user": {"token": token}}],
    }


def workload(name: str, replicas: int | None = None, image: str = "a:1", **pod: Any) -> Any:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c"}], **pod}}
    template["spec"]["containers"][0]["image"] = image
    spec: Any = {"selector": {"matchLabels": labels}, "template": template}
    return {
        "metadata": {"name": name},
        "spec": {**spec, **({"replicas": replicas} if replicas else {})},
    }


def pods(client: Client) -> list[tuple[str, str | None, str]]:
    """Return name (up to the first dash), node and phase of every pod."""
    items = client.ok("GET", "/api/v1/pods")["items"]
    return sorted(
        (p["metadata"]["name"].split("-")[0], p["spec"].get("nodeName"), p["status"]["phase"])
        for p in items
    )


# --- clients -------------------------------------------------------------------------------------


def test_the_python_client_reads_nodes_and_namespaces(start: Start) -> None:
    cluster, _ = start()
    labels = {"sagemaker.amazonaws.com/compute-type": "hyperpod"}
    gpus = {"nvidia.com/gpu": "8"}
    cluster.add_node("hyperpod-i-0a", labels, ready=True, capacity=gpus)
    config: Any = kubernetes.config
    with config.new_client_from_config_dict(kubeconfig(cluster)) as api_client:
        core: Any = kubernetes.client.CoreV1Api(api_client)
        (node,) = core.list_node(label_selector="sagemaker.amazonaws.com/compute-type").items
        assert node.metadata.name == "hyperpod-i-0a"
        assert node.status.capacity["nvidia.com/gpu"] == "8"
        assert [c.status for c in node.status.conditions if c.type == "Ready"] == ["True"]
        assert core.read_namespace("kube-system").status.phase == "Active"
        with pytest.raises(kubernetes.client.ApiException) as missing:
            core.read_namespace("aws-hyperpod")
        assert missing.value.status == 404
        assert kubernetes.client.VersionApi(api_client).get_code().minor == "33"
        api_client.rest_client.pool_manager.clear()


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not under .cache/helm")
def test_kubectl_shows_nodes_and_waits_for_them(start: Start, tmp_path: Path) -> None:
    cluster, _ = start()
    cluster.add_node("hyperpod-i-0a", {})
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps(kubeconfig(cluster)))
    env = {**os.environ, "KUBECONFIG": str(config), "KUBECACHEDIR": str(tmp_path / "cache")}

    def kubectl(*arguments: str) -> str:
        command = [str(KUBECTL), *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    heading, row = kubectl("get", "nodes").splitlines()
    assert heading.split() == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert row.split()[:2] == ["hyperpod-i-0a", "NotReady"]
    cluster.set_node_ready("hyperpod-i-0a")
    kubectl("wait", "--for=condition=Ready", "node/hyperpod-i-0a", "--timeout=10s")
    assert "not-ready" not in kubectl("describe", "node", "hyperpod-i-0a")
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"


def test_metadata_alone_is_answered_as_a_real_server_does(start: Start) -> None:
    _, client = start()
    accept = "application/json;as=%s;g=meta.k8s.io;v=v1,application/json"
    one, many = (accept % kind for kind in ("PartialObjectMetadata", "PartialObjectMetadataList"))

    def read(path: str, accept: str) -> Any:
        return json.loads(client.open("GET", path, None, "application/json", accept).read())

    empty = read("/api/v1/secrets?labelSelector=owner%3Dhelm", many)
    assert (empty["kind"], empty["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    assert empty["items"] is None
    assert client.ok("GET", "/api/v1/secrets")["items"] == []

    document = {"metadata": {"name": "key", "labels": {"a": "b"}}, "stringData": {"k": "secret"}}
    whole = client.ok("POST", f"{CORE}/secrets", document)
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    assert read(f"{CORE}/secrets/key", one) == {**partial, "metadata": whole["metadata"]}
    assert read("/api/v1/secrets", many)["items"] == [{**partial, "metadata": whole["metadata"]}]
    watch = client.open(
        "GET", "/api/v1/secrets?watch=1&timeoutSeconds=0", None, "application/json", one
    )
    assert json.loads(next(watch))["object"] == {**partial, "metadata": whole["metadata"]}
    watch.read()
    for path, kind in ((f"{CORE}/secrets/key", many), ("/api/v1/secrets", one)):
        refused = read(path, kind)
        assert (refused["code"], refused["reason"]) == (406, "NotAcceptable")
    assert read(f"{CORE}/secrets/nothing", one)["code"] == 404


# --- authentication and authorisation ------------------------------------------------------------


def test_an_unknown_token_is_unauthorized(start: Start) -> None:
    _, client = start()
    client.token = "forged"
    status, answer = client.send("GET", "/api/v1/nodes")
    assert (status, answer["reason"], answer["message"]) == (401, "Unauthorized", "Unauthorized")
    assert client.ok("GET", "/version/")["gitVersion"].startswith("v1.33.")


def test_a_user_without_policies_may_only_ask_about_itself(start: Start) -> None:
    _, client = start()
    client.token = "powerless"
    status, answer = client.send("GET", "/api/v1/nodes")
    assert status == 403
    assert answer["message"] == (
        'nodes is forbidden: User "arn:aws:iam::123456789012:role/nobody" cannot list resource '
        '"nodes" in API group "" at the cluster scope'
    )
    assert client.ok("GET", "/apis")["kind"] == "APIGroupList"
    review = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
    reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert client.send("POST", reviews, review)[0] == 422
    spec = {"resourceAttributes": {"verb": "get", "resource": "pods"}}
    assert client.ok("POST", reviews, {**review, "spec": spec})["status"] == {"allowed": False}
    assert client.send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {})[0] == 403


def test_faults_hit_matching_requests_and_wear_off(start: Start) -> None:
    cluster, client = start()
    cluster.faults.append(
        Fault(503, "ServiceUnavailable", "etcd leader changed", path="/nodes", times=2)
    )
    assert client.send("GET", "/api/v1/pods")[0] == 200
    status, answer = client.send("GET", "/api/v1/nodes")
    assert (status, answer["reason"], answer["message"]) == (
        503,
        "ServiceUnavailable",
        "etcd leader changed",
    )
    assert [client.send("GET", "/api/v1/nodes")[0] for _ in range(2)] == [503, 200]


# --- nodes and workloads -------------------------------------------------------------------------


def test_pods_wait_for_a_ready_node_and_go_with_it(start: Start) -> None:
    cluster, client = start()
    client.ok("POST", f"{APPS}/deployments", workload("web", 2))
    client.ok("POST", f"{APPS}/daemonsets", workload("agent"))
    assert pods(client) == [("web", None, "Pending"), ("web", None, "Pending")]
    assert not cluster.deployment_ready("default", "web")

    cluster.add_node("n1", {})
    assert ("agent", "n1", "Pending") in pods(client)
    cluster.set_node_ready("n1")
    running = [("agent", "n1", "Running"), ("web", "n1", "Running"), ("web", "n1", "Running")]
    assert pods(client) == running
    assert cluster.deployment_ready("default", "web")
    assert client.ok("GET", f"{APPS}/daemonsets/agent")["status"]["numberReady"] == 1

    cluster.set_node_ready("n1", False)
    assert not cluster.deployment_ready("default", "web")
    cluster.remove_node("n1")
    assert pods(client) == [("web", None, "Pending"), ("web", None, "Pending")]


def test_pods_run_a_while_after_they_were_bound(start: Start) -> None:
    clock = Clock()
    cluster, client = start(clock, Delays(pod_start=10, controller=0.5, namespace=5))
    cluster.add_node("n1", {}, ready=True)
    client.ok("POST", f"{APPS}/deployments", workload("web", 1))
    assert pods(client) == []
    clock.advance(9)
    assert pods(client) == [("web", "n1", "Pending")]
    clock.advance(3)
    assert pods(client) == [("web", "n1", "Running")]
    assert cluster.deployment_ready("default", "web")


def test_selectors_and_taints_decide_where_pods_run(start: Start) -> None:
    cluster, client = start()
    unfit = {"key": "sagemaker.amazonaws.com/node-health-status", "value": "Unschedulable"}
    cluster.add_node("gpu", {"gpu": "true"}, ready=True)
    cluster.add_node(
        "sick", {"gpu": "true"}, ready=True, taints=[{**unfit, "effect": "NoSchedule"}]
    )
    cluster.add_node("cpu", {}, ready=True)
    client.ok("POST", f"{APPS}/daemonsets", workload("plugin", nodeSelector={"gpu": "true"}))
    tolerant = workload("doctor", tolerations=[{**unfit, "operator": "Equal"}])
    client.ok("POST", f"{APPS}/daemonsets", tolerant)
    placed = {(name, node) for name, node, _ in pods(client)}
    assert placed == {("plugin", "gpu"), ("doctor", "gpu"), ("doctor", "sick"), ("doctor", "cpu")}


def test_a_new_template_replaces_the_pods(start: Start) -> None:
    cluster, client = start()
    cluster.add_node("n1", {}, ready=True)
    for kind in ("deployments", "daemonsets"):
        client.ok("POST", f"{APPS}/{kind}", workload(kind, image="a:1"))
        client.ok("PUT", f"{APPS}/{kind}/{kind}", workload(kind, image="a:2"))
    items = client.ok("GET", "/api/v1/pods")["items"]
    assert [p["spec"]["containers"][0]["image"] for p in items] == ["a:2", "a:2"]
    client.ok("PUT", f"{APPS}/deployments/deployments", workload("deployments", 3, "a:2"))
    assert len(client.ok("GET", "/api/v1/pods?labelSelector=app=deployments")["items"]) == 3


def test_deleting_an_owner_deletes_what_it_owns(start: Start) -> None:
    cluster, client = start()
    cluster.add_node("n1", {}, ready=True)
    for policy, left in (("Background", 0), ("Foreground", 0), ("Orphan", 1)):
        client.ok("POST", f"{APPS}/deployments", workload("web", 1))
        client.ok("DELETE", f"{APPS}/deployments/web?propagationPolicy={policy}")
        assert len(client.ok("GET", f"{APPS}/replicasets")["items"]) == left
        assert not cluster.has("Deployment", "web", "default")
    assert len(pods(client)) == 1


# --- namespaces, custom resources, roles ---------------------------------------------------------


def test_a_namespace_takes_its_time_and_its_content_to_end(start: Start) -> None:
    clock = Clock()
    cluster, client = start(clock, Delays(namespace=5))
    client.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "aws-hyperpod"}})
    client.ok("POST", "/api/v1/namespaces/aws-hyperpod/configmaps", {"metadata": {"name": "c"}})
    client.ok("DELETE", "/api/v1/namespaces/aws-hyperpod")
    status, answer = client.send(
        "POST", "/api/v1/namespaces/aws-hyperpod/configmaps", {"metadata": {"name": "d"}}
    )
    assert status == 403
    assert "because it is being terminated" in answer["message"]
    clock.advance(4)
    assert cluster.has("Namespace", "aws-hyperpod")
    clock.advance(2)
    assert not cluster.has("Namespace", "aws-hyperpod")
    assert not cluster.has("ConfigMap", "c", "aws-hyperpod")


def test_a_finalizer_holds_a_namespace(start: Start) -> None:
    cluster, client = start()
    held = {"metadata": {"name": "held", "finalizers": ["example.com/wait"]}}
    client.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    client.ok("POST", "/api/v1/namespaces/team/configmaps", held)
    client.ok("DELETE", "/api/v1/namespaces/team")
    assert cluster.has("Namespace", "team")
    let_go = {"metadata": {"finalizers": None}}
    client.ok("PATCH", "/api/v1/namespaces/team/configmaps/held", let_go, MERGE)
    assert not cluster.has("Namespace", "team")


def definition(served: bool = True) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": served, "storage": True, "subresources": {"status": {}}}
    version |= {"schema": {"openAPIV3Schema": schema}}
    names = {"plural": "widgets", "kind": "Widget"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": "widgets.example.com"}, "spec": spec}


def test_custom_resources_come_and_go_with_their_definition(start: Start) -> None:
    cluster, client = start()
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    widgets = "/apis/example.com/v1/namespaces/default/widgets"
    assert client.send("GET", widgets)[0] == 404
    client.ok("POST", definitions, definition())
    widget = client.ok(
        "POST", widgets, {"metadata": {"name": "w"}, "spec": {"a": [1]}, "status": {}}
    )
    assert "status" not in widget
    client.ok("PATCH", f"{widgets}/w/status", {"status": {"phase": "Up"}}, MERGE)
    widget = client.ok("PATCH", f"{widgets}/w", {"spec": {"a": [2]}, "status": None}, MERGE)
    assert (widget["metadata"]["generation"], widget["status"]) == (2, {"phase": "Up"})
    assert cluster.has("Widget", "w", "default")
    client.ok("DELETE", f"{definitions}/widgets.example.com")
    assert not cluster.has("Widget", "w", "default")
    assert not cluster.has("CustomResourceDefinition", "widgets.example.com")
    assert client.send("GET", widgets)[0] == 404
    client.ok("POST", definitions, definition())
    assert client.ok("GET", widgets)["items"] == []


def aggregated_role(client: Client) -> None:
    rule = {"clusterRoleSelectors": [{"matchLabels": {"to": "admin"}}]}
    metadata = {"name": "admin", "labels": {"app.kubernetes.io/managed-by": "Helm"}}
    client.ok("POST", ROLES, {"metadata": metadata, "aggregationRule": rule, "rules": []})
    part = {"metadata": {"name": "part", "labels": {"to": "admin"}}}
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    client.ok("POST", ROLES, {**part, "rules": rules})


def test_the_aggregation_controller_owns_the_rules_of_an_aggregated_role(start: Start) -> None:
    _, client = start()
    aggregated_role(client)
    admin = client.ok("GET", f"{ROLES}/admin")
    assert [rule["resources"] for rule in admin["rules"]] == [["pods"]]
    body = {**admin, "metadata": {"name": "admin"}, "rules": []}
    status, answer = client.send("PATCH", f"{ROLES}/admin?fieldManager=helm", body, APPLY)
    assert status == 409
    assert answer["message"] == (
        'Apply failed with 1 conflict: conflict with "clusterrole-aggregation-controller": .rules'
    )


@pytest.mark.parametrize("recreated", [False, True])
def test_a_deleted_aggregated_role_may_come_back_without_labels(
    start: Start, recreated: bool
) -> None:
    cluster, client = start()
    cluster.recreate_aggregated = recreated
    aggregated_role(client)
    client.ok("DELETE", f"{ROLES}/admin")
    assert cluster.has("ClusterRole", "admin") == recreated
    if recreated:
        assert "labels" not in client.ok("GET", f"{ROLES}/admin")["metadata"]
        client.ok("DELETE", f"{ROLES}/admin")
        assert not cluster.has("ClusterRole", "admin")


# --- server-side apply ---------------------------------------------------------------------------


def test_managers_share_a_list_and_drop_only_their_own_items(start: Start) -> None:
    _, client = start()

    def apply(manager: str, *names: str, force: bool = False) -> Any:
        body = workload("web")
        body |= {"apiVersion": "apps/v1", "kind": "Deployment"}
        containers = [{"name": name, "image": f"{manager}:1"} for name in names]
        body["spec"]["template"]["spec"]["containers"] = containers
        path = f"{APPS}/deployments/web?fieldManager={manager}&force={str(force).lower()}"
        status, answer = client.send("PATCH", path, body, APPLY)
        if status == 409:
            return answer["message"]
        return [c["image"] for c in answer["spec"]["template"]["spec"]["containers"]]

    assert apply("helm", "a", "b") == ["helm:1", "helm:1"]
    assert sorted(apply("mesh", "proxy")) == ["helm:1", "helm:1", "mesh:1"]
    assert sorted(apply("helm", "a")) == ["helm:1", "mesh:1"]
    where = '.spec.template.spec.containers[name="a"].image'
    told = f'Apply failed with 1 conflict: conflict with "helm": {where}'
    assert apply("mesh", "a", "proxy") == told
    assert apply("mesh", "a", "proxy", force=True) == ["mesh:1", "mesh:1"]


def test_an_update_takes_over_the_fields_it_changes(start: Start) -> None:
    _, client = start()
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"a": "1"},
    }
    client.ok("PATCH", f"{CORE}/configmaps/c?fieldManager=helm", config, APPLY)
    client.ok("PATCH", f"{CORE}/configmaps/c?fieldManager=edit", {"data": {"a": "2"}}, MERGE)
    config["data"] = {"a": "3"}
    status, answer = client.send("PATCH", f"{CORE}/configmaps/c?fieldManager=helm", config, APPLY)
    assert status == 409
    assert answer["details"]["causes"][0]["message"] == 'conflict with "edit" using v1'


def test_writing_the_same_again_is_no_write(start: Start) -> None:
    _, client = start()
    path = f"{CORE}/configmaps/c?fieldManager=helm"
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"a": "1"},
    }
    versions = [
        client.ok("PATCH", path, config, APPLY)["metadata"]["resourceVersion"] for _ in "ab"
    ]
    versions.append(client.ok("PUT", path, config)["metadata"]["resourceVersion"])
    assert len(set(versions)) == 1


def test_a_dry_run_changes_nothing(start: Start) -> None:
    cluster, client = start()
    before = cluster.snapshot()
    client.ok("POST", f"{CORE}/configmaps?dryRun=All", {"metadata": {"name": "c"}})
    client.ok("DELETE", "/api/v1/namespaces/kube-node-lease?dryRun=All")
    client.ok(
        "PATCH",
        "/api/v1/namespaces/default?dryRun=All",
        {"metadata": {"labels": {"a": "b"}}},
        MERGE,
    )
    assert cluster.snapshot() == before


# --- watching ------------------------------------------------------------------------------------


def test_a_watch_tells_what_is_there_and_what_happens(start: Start) -> None:
    cluster, client = start()
    cluster.add_node("n1", {"group": "a"})
    with closing(Client(cluster)) as watcher:
        query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true"
        events = watcher.watch(f"/api/v1/nodes?{query}&labelSelector=group=a&timeoutSeconds=20")
        assert next(events)[0] == "ADDED"
        kind, bookmark = next(events)
        assert kind == "BOOKMARK"
        assert bookmark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        cluster.add_node("n2", {"group": "b"})
        cluster.add_node("n3", {"group": "a"})
        client.ok("PATCH", "/api/v1/nodes/n2", {"metadata": {"labels": {"group": "a"}}}, MERGE)
        client.ok("PATCH", "/api/v1/nodes/n1", {"metadata": {"labels": {"group": "b"}}}, MERGE)
        seen = [(kind, obj["metadata"]["name"]) for kind, obj in islice(events, 3)]
        assert seen == [("ADDED", "n3"), ("ADDED", "n2"), ("DELETED", "n1")]
    since = bookmark["metadata"]["resourceVersion"]
    again = client.watch(f"/api/v1/nodes?watch=1&resourceVersion={since}&timeoutSeconds=1")
    assert {obj["metadata"]["name"] for _, obj in again} == {"n1", "n2", "n3"}


def test_a_watch_from_too_long_ago_is_gone(start: Start) -> None:
    _, client = start()
    ((kind, status),) = client.watch("/api/v1/nodes?watch=1&resourceVersion=5")
    assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")


def test_malformed_requests_are_refused(start: Start) -> None:
    cluster, client = start()
    for query in ("timeoutSeconds=abc", "resourceVersion=²", "timeoutSeconds=-1"):
        assert client.send("GET", f"/api/v1/nodes?watch=1&{quote(query, '=')}")[0] == 400
    deep = b'{"a":' * 100_000
    assert client.send("POST", "/api/v1/namespaces", deep)[0] == 400
    patch = [{"op": "replace", "path": "/metadata/labels/x/y/z", "value": 1}, {"op": 7}]
    for body in (patch, {"op": 1}, [1], "x"):
        status, _ = client.send(
            "PATCH", "/api/v1/namespaces/default", body, "application/json-patch+json"
        )
        assert 400 <= status < 500, body
    with closing(Client(cluster, "k8s-aws-v1.aHR0cDovL1s")) as other:
        assert other.send("GET", "/api/v1/nodes")[0] == 401


# --- the handle ----------------------------------------------------------------------------------


def test_snapshots_of_equal_clusters_are_equal(start: Start) -> None:
    snapshots = []
    for _ in range(2):
        cluster, client = start()
        cluster.add_node("n1", {}, ready=True)
        client.ok("POST", f"{APPS}/deployments", workload("web", 2))
        client.ok(
            "POST", f"{CORE}/secrets", {"metadata": {"name": "s"}, "stringData": {"key": "hush"}}
        )
        snapshots.append(cluster.snapshot())
    assert snapshots[0] == snapshots[1]
    assert {"nodes/n1", "deployments.apps/default/web"} <= set(snapshots[0])
    assert snapshots[0]["secrets/default/s"]["data"] == ["key"]
    assert list(snapshots[0]) == sorted(snapshots[0])


def test_concurrent_writers_all_get_through(start: Start) -> None:
    cluster, client = start()

    def write(worker: int) -> None:
        with closing(Client(cluster)) as mine:
            for n in range(20):
                mine.ok("POST", f"{CORE}/configmaps", {"metadata": {"name": f"c{worker}-{n}"}})
                mine.ok(
                    "PATCH",
                    "/api/v1/namespaces/default",
                    {"metadata": {"labels": {f"w{worker}": str(n)}}},
                    MERGE,
                )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    items = client.ok("GET", f"{CORE}/configmaps")["items"]
    versions = {item["metadata"]["resourceVersion"] for item in items}
    assert len(versions) == 160 + 1  # like the cluster's certificate
    labels = client.ok("GET", "/api/v1/namespaces/default")["metadata"]["labels"]
    assert {labels[f"w{worker}"] for worker in range(8)} == {"19"}


def test_stop_ends_connections_watches_and_threads(pki: Pki) -> None:
    before = set(threading.enumerate())
    clock = Clock()
    cluster = Cluster(clock, USERS.get, "1.33", pki)
    with closing(Client(cluster)) as idle, closing(Client(cluster)) as watcher:
        idle.ok("POST", f"{APPS}/deployments", workload("web", 1))
        events = watcher.watch("/api/v1/namespaces?watch=1")
        assert next(events)[0] == "ADDED"
        cluster.stop()
        assert set(threading.enumerate()) <= before  # threads of earlier tests may end
        clock.advance(60)  # scheduled actions do nothing
        assert not any(key.startswith("pods/") for key in cluster.snapshot())
        with suppress(http.client.HTTPException, OSError):
            list(events)  # it ends in any way
        with pytest.raises((http.client.HTTPException, OSError)):
            idle.ok("GET", "/version")


# --- reading requests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("", True),
        ("owner=helm,name==r", True),
        ("owner!=helm", False),
        ("other!=helm", True),
        ("name in (q, r),owner", True),
        ("name notin (q,r)", False),
        ("!other, !gone", True),
        ("owner,gone", False),
    ],
)
def test_label_selectors(selector: str, selected: bool) -> None:
    found = {"owner": "helm", "name": "r"}
    assert all(r.met(found) for r in selection.parse(selector)) == selected


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "told"),
    [
        ("GET", "/api/v1/pods?labelSelector=a%3D%3D%3Db", None, "", "unable to parse requirement"),
        ("GET", "/api/v1/pods?fieldSelector=a", None, "", "invalid selector"),
        ("GET", "/api/v1/pods?watch=1&fieldSelector=a", None, "", "invalid selector"),
        ("GET", "/api/v1/pods?watch=1&resourceVersion=x", None, "", "not a number"),
        ("POST", f"{CORE}/secrets", b"k8s\x00\x0a", protobuf.MEDIA_TYPE, "ends within a number"),
        ("POST", f"{CORE}/secrets", b"k8s\x00\x0a\x00", protobuf.MEDIA_TYPE, "read as JSON only"),
        ("POST", f"{CORE}/secrets", b"{", "application/json", "unrecognized"),
        ("POST", f"{CORE}/secrets", [1], "application/json", "not a Kubernetes object"),
        ("POST", f"{CORE}/secrets", {"metadata": {}}, "application/json", "name or generateName"),
        (
            "PUT",
            f"{CORE}/secrets/a",
            {"metadata": {"name": "b"}},
            "application/json",
            "name on the URL",
        ),
        (
            "POST",
            "/api/v1/secrets",
            {"metadata": {"name": "b"}},
            "application/json",
            "not allow this method",
        ),
    ],
)
def test_bad_requests_are_told_what_is_wrong(
    start: Start, method: str, path: str, body: Any, kind: str, told: str
) -> None:
    _, client = start()
    status, answer = client.send(method, path, body, kind)
    assert 400 <= status < 500
    assert told in answer["message"]
