"""ValidatingAdmissionPolicies: the rules of the Kubernetes page of that name."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .test_kubernetes import MERGE, Client

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("cel_expr_python") is None, reason="cel-expr-python is not installed"
)
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MAPS = "/api/v1/namespaces/default/configmaps"
EVERY = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["configmaps"]}
Bound = Callable[..., list[str]]


@pytest.fixture
def bound(client: Client) -> Iterator[Bound]:
    """Return a function that creates policy `p` and its binding `b`, and returns the warnings."""

    def bound(*validations: Any, binding: dict[str, Any] | None = None, **spec: Any) -> list[str]:
        rules = [v if isinstance(v, dict) else {"expression": v} for v in validations]
        constraints = {"resourceRules": [EVERY]}
        spec = {"matchConstraints": constraints, "validations": rules, **spec}
        body = {"metadata": {"name": "p"}, "spec": spec}
        response = client.open("POST", POLICIES, body, "application/json")
        told = response.read().decode()
        assert response.status == 201, told
        binds = {"policyName": "p", "validationActions": ["Deny"], **(binding or {})}
        client.ok("POST", BINDINGS, {"metadata": {"name": "b"}, "spec": binds})
        return response.headers.get_all("Warning") or []

    yield bound
    for path in (f"{BINDINGS}/b", f"{POLICIES}/p", f"{MAPS}/m", f"{MAPS}/limit"):
        client.send("DELETE", path)
    client.send("DELETE", f"{DEPLOYMENTS}/d")


def created(client: Client, name: str = "m", **metadata: Any) -> tuple[int, str]:
    body = {"metadata": {"name": name, **metadata}, "data": {"size": "5"}}
    status, answer = client.send("POST", MAPS, body)
    return status, answer.get("message", "").partition("denied request: ")[2]


def test_a_denial_is_worded_as_the_real_server_does(client: Client, bound: Bound) -> None:
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}
    rule["operations"] = ["CREATE", "UPDATE"]
    bound("object.spec.replicas <= 5", matchConstraints={"resourceRules": [rule]})
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]},
    }
    spec = {"replicas": 6, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    body = {"metadata": {"name": "d"}, "spec": spec}
    status, answer = client.send("POST", DEPLOYMENTS, body)
    told = (
        "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: "
        "object.spec.replicas <= 5"
    )
    assert (status, answer["reason"]) == (422, "Invalid")
    assert answer["message"] == f'deployments.apps "d" is forbidden: {told}'
    assert answer["details"]["causes"] == [{"message": told}]
    spec["replicas"] = 5
    client.ok("POST", DEPLOYMENTS, body)
    more = {"spec": {"replicas": 7}}
    assert client.send("PATCH", f"{DEPLOYMENTS}/d", more, MERGE)[0] == 422
    client.ok("PATCH", f"{DEPLOYMENTS}/d/scale", more, MERGE)  # another subresource
    client.ok("PATCH", f"{DEPLOYMENTS}/d/status", {"status": {"replicas": 9}}, MERGE)


@pytest.mark.parametrize(
    ("validation", "status", "told"),
    [
        ({"expression": "false", "message": "never"}, 422, "never"),
        ({"expression": "false", "reason": "Forbidden"}, 403, "failed expression: false"),
        ({"expression": "false", "reason": "Unauthorized"}, 401, "failed expression: false"),
        ({"expression": "false", "reason": "RequestEntityTooLarge"}, 413, "expression"),
        (
            {"expression": "false", "messageExpression": "'no ' + object.metadata.name"},
            *(422, "no m"),
        ),
        ({"expression": "false", "messageExpression": "object.x", "message": "told"}, 422, "told"),
        ({"expression": "false", "messageExpression": r"'a\nb'", "message": "told"}, 422, "told"),
        ("object.data.absent == '1'", 422, "resulted in error"),
        ("has(object.data.absent)", 422, "failed expression"),
        ("oldObject == null && request.operation == 'CREATE'", 201, ""),
        ("request.userInfo.username.endsWith('role/admin') && !request.dryRun", 201, ""),
        ("request.resource.resource == 'configmaps' && request.name == 'm'", 201, ""),
        ("namespaceObject.metadata.name == 'default' && params == null", 201, ""),
    ],
)
def test_a_validation(
    client: Client, bound: Bound, validation: Any, status: int, told: str
) -> None:
    assert bound(validation) == []
    found, message = created(client)
    assert (found, told in message) == (status, True), message


def test_what_cel_cannot_take_is_an_error_of_the_validation(client: Client, bound: Bound) -> None:
    bound("object.data.size == ''")
    body = {"metadata": {"name": "m"}, "data": {"size": "\ud800"}}  # half of a character
    status, answer = client.send("POST", MAPS, body)
    assert (status, "resulted in error" in answer["message"]) == (422, True), answer


def test_all_validations_must_hold_and_the_first_denial_is_told(
    client: Client, bound: Bound
) -> None:
    bound("true", {"expression": "false", "message": "one"}, {"expression": "1 > 2"})
    assert created(client) == (422, "one")


def test_deletions_have_an_old_object_alone(client: Client, bound: Bound) -> None:
    bound("request.operation != 'DELETE' || object != null || !('keep' in oldObject.data)")
    client.ok("POST", MAPS, {"metadata": {"name": "m"}, "data": {"keep": "1"}})
    assert client.send("DELETE", f"{MAPS}/m")[0] == 422
    assert client.send("DELETE", MAPS)[0] == 422
    client.ok("PATCH", f"{MAPS}/m", {"data": {"keep": None}}, MERGE)
    client.ok("DELETE", f"{MAPS}/m")


def test_a_warning_refuses_nothing(client: Client, bound: Bound) -> None:
    bound("false", binding={"validationActions": ["Warn", "Audit"]})
    body = {"metadata": {"name": "m"}}
    response = client.open("POST", MAPS, body, "application/json")
    response.read()
    assert response.status == 201
    (warning,) = response.headers.get_all("Warning") or [""]
    assert "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': failed" in warning
    assert client.send("DELETE", f"{MAPS}/m")[0] == 200


def test_failures_are_let_through_by_failure_policy_ignore(client: Client, bound: Bound) -> None:
    bound("object.data.absent == '1'", failurePolicy="Ignore")
    assert created(client)[0] == 201


@pytest.mark.parametrize(
    ("conditions", "policy", "status"),
    [
        (["false"], "Fail", 201),
        (["true"], "Fail", 422),
        (["object.nothing == 1", "false"], "Fail", 201),  # one false condition is enough
        (["object.nothing == 1"], "Fail", 422),
        (["object.nothing == 1"], "Ignore", 201),
        (["!('admins' in request.userInfo.groups)"], "Fail", 422),
    ],
)
def test_match_conditions(
    client: Client, bound: Bound, conditions: list[str], policy: str, status: int
) -> None:
    named = [{"name": f"c{n}", "expression": text} for n, text in enumerate(conditions)]
    bound("false", matchConditions=named, failurePolicy=policy)
    assert created(client)[0] == status


def test_variables_may_name_earlier_ones(client: Client, bound: Bound) -> None:
    variables = [
        {"name": "size", "expression": "int(object.data.size)"},
        {"name": "wrong", "expression": "object.nothing"},
        {"name": "twice", "expression": "variables.size * 2"},
    ]
    bound("variables.twice == 10", variables=variables)
    assert created(client) == (201, "")


def test_a_variable_that_fails_fails_what_names_it(client: Client, bound: Bound) -> None:
    bound("variables.wrong == 1", variables=[{"name": "wrong", "expression": "object.nothing"}])
    assert "resulted in error" in created(client)[1]


@pytest.mark.parametrize(
    ("criteria", "matches"),
    [
        ({"resourceRules": [{**EVERY, "operations": ["DELETE"]}]}, False),
        ({"resourceRules": [{**EVERY, "apiGroups": ["apps"]}]}, False),
        ({"resourceRules": [{**EVERY, "resources": ["*/status"]}]}, False),
        ({"resourceRules": [{**EVERY, "resources": ["*"]}]}, True),
        ({"resourceRules": [{**EVERY, "scope": "Cluster"}]}, False),
        ({"resourceRules": [{**EVERY, "scope": "Namespaced"}]}, True),
        ({"resourceRules": [{**EVERY, "resourceNames": ["other"]}]}, False),
        ({"resourceRules": [EVERY], "excludeResourceRules": [EVERY]}, False),
        ({"resourceRules": [EVERY], "objectSelector": {"matchLabels": {"a": "b"}}}, True),
        ({"resourceRules": [EVERY], "objectSelector": {"matchLabels": {"a": "c"}}}, False),
        (
            {
                "resourceRules": [EVERY],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}},
            },
            False,
        ),
    ],
)
@pytest.mark.parametrize("by", ["matchConstraints", "matchResources"])
def test_what_is_matched(
    client: Client, bound: Bound, by: str, criteria: dict[str, Any], matches: bool
) -> None:
    here: dict[str, Any] = {"matchConstraints": criteria}
    there = {
        "matchConstraints": {"resourceRules": [EVERY]},
        "binding": {"matchResources": criteria},
    }
    bound("false", **(here if by == "matchConstraints" else there))
    assert created(client, labels={"a": "b"})[0] == (422 if matches else 201)


@pytest.mark.parametrize(
    ("ref", "status", "told"),
    [
        ({"name": "limit", "namespace": "default"}, 422, "at most 3"),
        ({"name": "limit"}, 422, "at most 3"),  # in the object's namespace
        ({"selector": {"matchLabels": {"for": "p"}}}, 422, "at most 3"),
        ({"selector": {}}, 422, "no such key"),  # includes the CA's ConfigMap
        ({"name": "none", "parameterNotFoundAction": "Allow"}, 201, ""),
        (
            {"name": "none", "parameterNotFoundAction": "Deny"},
            *(422, "failed to configure binding: no params found for policy binding with `Deny`"),
        ),
    ],
)
def test_parameters(
    client: Client, bound: Bound, ref: dict[str, Any], status: int, told: str
) -> None:
    limit = {"metadata": {"name": "limit", "labels": {"for": "p"}}, "data": {"most": "3"}}
    client.ok("POST", MAPS, limit)
    bound(
        {
            "expression": "int(object.data.size) <= int(params.data.most)",
            "messageExpression": "'at most ' + params.data.most",
        },
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        binding={"paramRef": {"parameterNotFoundAction": "Allow", **ref}},
    )
    found, message = created(client)
    if told == "no such key":  # the message is that of CEL's C++ implementation
        assert (found, "resulted in error" in message) == (422, True), message
    else:
        assert (found, told in message) == (status, True), message


def test_policies_and_bindings_are_listed_with_their_parameters(
    client: Client, bound: Bound
) -> None:
    """The columns are those of k8s.io/kubernetes pkg/printers/internalversion/printers.go."""
    ref = {"name": "limit", "parameterNotFoundAction": "Allow"}
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    bound("true", "true", paramKind=kind, binding={"paramRef": ref})

    def shown(path: str) -> list[Any]:
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
        table = json.loads(client.open("GET", path, None, "application/json", accept).read())
        return [*(row["cells"][:-1] for row in table["rows"])]

    assert shown(POLICIES) == [["p", 2, "v1/ConfigMap"]]
    assert shown(BINDINGS) == [["b", "p", "*/limit"]]


def test_what_is_not_evaluated_is_named_and_not_asked(client: Client, bound: Bound) -> None:
    (told,) = bound("false", "authorizer.group('').resource('pods').check('get').allowed()")
    assert "does not ask this policy: it cannot evaluate spec.validations[1].expression" in told
    assert created(client) == (201, "")


RIGHT: dict[str, Any] = {
    POLICIES: {
        "matchConstraints": {"resourceRules": [EVERY]},
        "validations": [{"expression": "true"}],
    },
    BINDINGS: {"policyName": "p", "validationActions": ["Deny"]},
}


@pytest.mark.parametrize(
    ("path", "wrong", "told"),
    [
        (POLICIES, {"validations": [{"expression": "object.a =! 1"}]}, "compilation failed"),
        (POLICIES, {"validations": []}, "spec.validations: Required value"),
        (POLICIES, {"validations": [{"message": "m"}]}, "spec.validations[0].expression: Required"),
        (POLICIES, {"validations": [{"expression": "1", "reason": "Odd"}]}, 'value: "Odd"'),
        (POLICIES, {"variables": [{"expression": "1"}]}, "spec.variables[0].name: Required value"),
        (POLICIES, {"failurePolicy": "Warn"}, "spec.failurePolicy: Unsupported value"),
        (POLICIES, {"matchConstraints": None}, "spec.matchConstraints: Required value"),
        (POLICIES, {"matchConstraints": {}}, "spec.matchConstraints.resourceRules: Required"),
        (BINDINGS, {"policyName": ""}, "spec.policyName: Required value"),
        (BINDINGS, {"validationActions": []}, "spec.validationActions: Required value"),
        (BINDINGS, {"validationActions": ["Deny", "Warn"]}, "must not contain both Deny and Warn"),
        (BINDINGS, {"validationActions": ["Log"]}, "spec.validationActions[0]: Unsupported value"),
        (BINDINGS, {"paramRef": {"name": "n"}}, "parameterNotFoundAction: Required value"),
        (
            *(BINDINGS, {"paramRef": {"parameterNotFoundAction": "Deny"}}),
            "one of name or selector must be specified",
        ),
    ],
)
def test_what_a_policy_and_a_binding_may_not_say(
    client: Client, path: str, wrong: dict[str, Any], told: str
) -> None:
    """k8s.io/kubernetes pkg/apis/admissionregistration/validation/validation.go."""
    body = {"metadata": {"name": "x"}, "spec": {**RIGHT[path], **wrong}}
    status, answer = client.send("POST", path, body)
    assert (status, told in answer["message"]) == (422, True), answer
