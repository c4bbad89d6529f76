"""The embedded API server refuses the same requests as a real one, with the same status."""

from __future__ import annotations

import copy
import http.client
import json
from typing import Any

import pytest

from .test_kubernetes import APPLY, APPS, CORE, MERGE, Client, workload

BATCH = "/apis/batch/v1/namespaces/default"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GADGETS = "/apis/example.com/v1/namespaces/default/gadgets"
SCHEMA: Any = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 9},
                "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                "code": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
                "port": {"x-kubernetes-int-or-string": True},
                "note": {"type": "string", "nullable": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "env": {"type": "object", "additionalProperties": {"type": "string"}},
                "items": {
                    "type": "array",
                    "maxItems": 3,
                    "items": {"type": "object", "properties": {"name": {"type": "string"}}},
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                },
            },
        },
    },
}


def definition(schema: Any = SCHEMA, **spec: Any) -> Any:
    version = {"name": "v1", "served": True, "storage": True}
    version |= {"schema": {"openAPIV3Schema": schema}} if schema else {}
    names = {"plural": "gadgets", "kind": "Gadget"}
    common = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": "gadgets.example.com"}, "spec": {**common, **spec}}


@pytest.fixture(scope="module", autouse=True)
def defined(client: Client) -> None:
    client.ok("POST", DEFINITIONS, definition())


def changed(body: Any, path: str, value: Any) -> Any:
    """Return a copy of `body` with another value at a dotted path; None removes it."""
    body = copy.deepcopy(body)
    *steps, last = path.split(".")
    at = body
    for step in steps:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    if value is None:
        del at[last]
    else:
        at[last] = value
    return body


POD: Any = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}}
JOB: Any = {"metadata": {"name": "j"}, "spec": {"template": {"spec": {**POD["spec"]}}}}
JOB = changed(JOB, "spec.template.spec.restartPolicy", "Never")
CONFIG = {"metadata": {"name": "c"}, "data": {"a": "b"}}
SECRET = {"metadata": {"name": "s"}, "data": {"a": "Yg=="}}
SERVICE = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
SUBJECT = {"kind": "ServiceAccount", "name": "x", "namespace": "default"}
BINDING = {"metadata": {"name": "b"}, "roleRef": ROLE, "subjects": [SUBJECT]}
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}
TWICE = [{"name": "c", "image": "a:1"}, {"name": "c", "image": "b:1"}]
NETWORK = "/apis/networking.k8s.io/v1/namespaces/default"
PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
DOCKER: Any = {
    "metadata": {"name": "d"},
    "type": "kubernetes.io/dockerconfigjson",
    "data": {".dockerconfigjson": "e30="},
}
BACKEND = {"service": {"name": "s", "port": {"number": 80}}}
INGRESS = {"metadata": {"name": "i"}, "spec": {"defaultBackend": BACKEND}}
POLICY = {"metadata": {"name": "n"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}}
LIMIT = {"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}
LIMITS = {"metadata": {"name": "l"}, "spec": {"limits": [LIMIT]}}
QUOTA = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}
LEASE = {"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 5}}
CONTAINER, TEMPLATE = "spec.template.spec.containers.0.", "spec.template.spec."
DEPLOYMENT = f"{APPS}/deployments"


@pytest.mark.parametrize(
    ("path", "body", "field", "value", "status", "told"),
    [
        (DEPLOYMENT, workload("w"), "spec.selector", None, 422, "spec.selector: Required value"),
        (DEPLOYMENT, workload("w"), "spec.selector.matchLabels", {"a": "b"}, 422, "does not match"),
        (DEPLOYMENT, workload("w"), "spec.replicas", "3", 400, "cannot unmarshal string into Go"),
        (DEPLOYMENT, workload("w"), "spec.replicas", -1, 422, "greater than or equal to 0"),
        (DEPLOYMENT, workload("w"), CONTAINER + "image", None, 422, "image: Required value"),
        (DEPLOYMENT, workload("w"), TEMPLATE + "containers", TWICE, 422, 'Duplicate value: "c"'),
        (
            *(DEPLOYMENT, workload("w"), CONTAINER + "volumeMounts"),
            *([{"name": "v", "mountPath": "/v"}], 422, 'volumeMounts[0].name: Not found: "v"'),
        ),
        (
            *(DEPLOYMENT, workload("w"), CONTAINER + "resources.requests"),
            *({"cpu": "1x"}, 400, "quantities must match the regular expression"),
        ),
        (DEPLOYMENT, workload("w"), TEMPLATE + "restartPolicy", "Never", 422, "Unsupported value"),
        (f"{BATCH}/jobs", JOB, "spec.template.spec.restartPolicy", "Always", 422, "valid values"),
        (f"{CORE}/pods", POD, "spec.containers", [], 422, "spec.containers: Required value"),
        (f"{CORE}/pods", POD, "spec", None, 422, "spec.containers: Required value"),
        (
            f"{CORE}/configmaps",
            CONFIG,
            "data.a",
            5,
            400,
            "Go struct field ConfigMap.data of type",
        ),
        (f"{CORE}/configmaps", CONFIG, "data.a b", "c", 422, "a valid config key must consist of"),
        (f"{CORE}/configmaps", CONFIG, "metadata.labels", {"a": "b c"}, 422, "a valid label must"),
        (f"{CORE}/configmaps", CONFIG, "metadata.labels", {"a b": "c"}, 422, "name part must"),
        (f"{CORE}/configmaps", CONFIG, "metadata.finalizers", ["x"], 422, "neither a standard"),
        (f"{CORE}/configmaps", CONFIG, "metadata.ownerReferences", [OWNER], 422, ".uid: "),
        (f"{CORE}/secrets", SECRET, "data.a", "%", 400, "illegal base64 data"),
        (f"{CORE}/services", SERVICE, "spec.ports", None, 422, "spec.ports: Required value"),
        (f"{CORE}/services", SERVICE, "spec.ports", [{"port": 0}], 422, "between 1 and 65535"),
        (f"{RBAC}/rolebindings", BINDING, "subjects.0.namespace", None, 422, "Required value"),
        (f"{RBAC}/rolebindings", BINDING, "roleRef.kind", "User", 422, "Unsupported value"),
        (f"{CORE}/configmaps", CONFIG, "binaryData", {"a": "Yg=="}, 422, "present in binaryData"),
        (f"{CORE}/secrets", SECRET, "type", "kubernetes.io/tls", 422, "data[tls.crt]: Required"),
        (f"{CORE}/secrets", SECRET, "type", "kubernetes.io/ssh-auth", 422, "Required value"),
        (f"{CORE}/secrets", DOCKER, "data", {".dockerconfigjson": "eA=="}, 422, "redacted"),
        (f"{CORE}/services", SERVICE, "metadata.name", "1a", 422, "a DNS-1035 label must"),
        (f"{NETWORK}/ingresses", INGRESS, "spec.defaultBackend", None, 422, "must be specified"),
        (f"{NETWORK}/networkpolicies", POLICY, "spec.policyTypes", ["In"], 422, "Unsupported"),
        (PRIORITIES, {"metadata": {"name": "p"}, "value": 1}, "value", 2 * 10**9, 422, "maximum"),
        (f"{CORE}/limitranges", LIMITS, "spec.limits.0.min.cpu", "3", 422, "is greater than max"),
        (f"{CORE}/resourcequotas", QUOTA, "spec.hard.pods", "1.5", 422, "must be an integer"),
        (LEASES, LEASE, "spec.leaseDurationSeconds", -1, 422, "must be greater than 0"),
        (DEFINITIONS, definition(), "metadata.name", "x.example.com", 422, "spec.names.plural"),
        (DEFINITIONS, definition(None), "spec.group", "other.com", 422, "schemas are required"),
    ],
)
def test_what_breaks_a_rule_of_its_kind_is_refused(
    client: Client, path: str, body: Any, field: str, value: Any, status: int, told: str
) -> None:
    found, answer = client.send("POST", f"{path}?dryRun=All", changed(body, field, value))
    assert (found, told in answer["message"]) == (status, True), answer
    if not path.startswith(DEFINITIONS):
        client.ok("POST", f"{path}?dryRun=All", changed(body, "metadata.name", "right"))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("spec.size", None, "spec.size: Required value"),
        ("spec.size", "1", 'spec.size in body must be of type integer: "string"'),
        ("spec.size", 0, "spec.size in body should be greater than or equal to 1"),
        ("spec.colour", "green", 'Unsupported value: "green": supported values: "red", "blue"'),
        ("spec.code", "A", "spec.code in body should match '^[a-z]+$'"),
        ("spec.code", "abcd", "spec.code in body should be at most 3 chars long"),
        ("spec.port", 1.5, "must be of type integer or string"),
        ("spec.env", {"a": 1}, "must be of type string"),
        ("spec.items", [{"name": "a"}, {"name": "a"}], "Duplicate value"),
        ("spec.items", [{"name": str(n)} for n in range(4)], "should have at most 3 items"),
    ],
)
def test_a_custom_resource_obeys_the_schema_of_its_definition(
    client: Client, field: str, value: Any, told: str
) -> None:
    gadget = {"metadata": {"name": "g"}, "spec": {"size": 1, "port": "http", "note": "x"}}
    status, answer = client.send("POST", f"{GADGETS}?dryRun=All", changed(gadget, field, value))
    assert (status, told in answer["message"]) == (422, True), answer
    right = client.ok("POST", f"{GADGETS}?dryRun=All", gadget)
    assert right["spec"]["colour"] == "red"


def test_unknown_fields_are_pruned_or_refused_as_the_request_says(client: Client) -> None:
    gadget: Any = {"metadata": {"name": "g"}, "spec": {"size": 1, "bogus": 2, "free": {"any": 1}}}
    deployment = changed(workload("w"), "spec.template.spec.bogus", 2)
    for path, body, at in (
        (GADGETS, gadget, "spec.bogus"),
        (DEPLOYMENT, deployment, "spec.template.spec.bogus"),
    ):
        for validation, warned in (("Ignore", None), ("Warn", f'299 - "unknown field \\"{at}\\""')):
            query = f"{path}?dryRun=All&fieldValidation={validation}"
            response = client.open("POST", query, body, "application/json")
            answer = json.loads(response.read())
            assert (response.status, "bogus" in json.dumps(answer["spec"])) == (201, False)
            assert response.headers["Warning"] == warned
        status, answer = client.send("POST", f"{path}?dryRun=All&fieldValidation=Strict", body)
        assert (status, f'unknown field "{at}"' in answer["message"]) == (400, True)
        applied = {**body, **_type_of(path)}
        name = body["metadata"]["name"]
        status, answer = client.send("PATCH", f"{path}/{name}?fieldManager=m", applied, APPLY)
        assert status == 500
        assert answer["message"].endswith(f".{at}: field not declared in schema")
    status, answer = client.send("POST", f"{GADGETS}?fieldValidation=Loud", gadget)
    assert (status, "Unsupported value" in answer["message"]) == (422, True)


def _type_of(path: str) -> dict[str, str]:
    if path == GADGETS:
        return {"apiVersion": "example.com/v1", "kind": "Gadget"}
    return {"apiVersion": "apps/v1", "kind": "Deployment"}


def test_a_patch_must_leave_a_valid_object(client: Client) -> None:
    client.ok("POST", f"{CORE}/configmaps", changed(CONFIG, "immutable", True))
    for patch, told in (
        ({"data": {"a": "c"}}, "field is immutable when `immutable` is set"),
        ({"data": {"a": 5}}, "cannot unmarshal number"),
    ):
        status, answer = client.send("PATCH", f"{CORE}/configmaps/c", patch, MERGE)
        assert (status, told in answer["message"]) == (422, True), answer
    renamed = {"metadata": {"name": "zz"}}
    status, answer = client.send("PATCH", f"{CORE}/configmaps/c", renamed, MERGE)
    assert (status, "does not match the name on the URL" in answer["message"]) == (400, True)
    assert client.send("GET", f"{CORE}/configmaps/zz")[0] == 404
    client.ok("DELETE", f"{CORE}/configmaps/c")


def test_a_volume_stays_where_it_is(client: Client) -> None:
    source = {"csi": {"driver": "fsx.csi.aws.com", "volumeHandle": "fs-1"}}
    spec = {"accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}, **source}
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}}
    client.ok("POST", f"{CORE}/persistentvolumes", {**volume, "spec": spec})
    patch = {"spec": {"csi": {"volumeHandle": "fs-2"}}}
    status, answer = client.send("PATCH", f"{CORE}/persistentvolumes/v", patch, MERGE)
    assert (status, "is immutable after creation" in answer["message"]) == (422, True), answer
    client.ok(
        "PATCH", f"{CORE}/persistentvolumes/v", {"spec": {"capacity": {"storage": "2Gi"}}}, MERGE
    )
    client.ok("DELETE", f"{CORE}/persistentvolumes/v")


def test_warnings_cannot_add_headers(client: Client) -> None:
    body = {**CONFIG, "x\r\nSet-Cookie: a=b\u2603": 1}
    response = client.open("POST", f"{CORE}/configmaps?dryRun=All", body, "application/json")
    assert response.headers["Set-Cookie"] is None
    assert response.status == http.client.CREATED
    response.read()
