"""Rules in CEL: "Validation rules" of the CustomResourceDefinition's documentation."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hyperpod_eks.local.kubernetes import cel

from .test_kubernetes import MERGE, Client
from .test_kubernetes_validation import DEFINITIONS, GADGETS, definition

evaluated = pytest.mark.skipif(
    importlib.util.find_spec("cel_expr_python") is None, reason="cel-expr-python is not installed"
)
Define = Callable[..., list[str]]


@pytest.fixture
def define(client: Client) -> Iterator[Define]:
    """Define the resource Gadget, whose spec has these rules; return the warnings to the client."""

    def define(*rules: Any, **properties: Any) -> list[str]:
        spec = {
            "type": "object",
            "properties": {
                "min": {"type": "integer"},
                "max": {"type": "integer"},
                "share": {"type": "number"},
                "the-name": {"type": "string"},
                "parts": {"type": "array", "items": {"type": "string"}},
                **properties,
            },
            "x-kubernetes-validations": [r if isinstance(r, dict) else {"rule": r} for r in rules],
        }
        asked = definition({"type": "object", "properties": {"spec": spec}})
        response = client.open("POST", DEFINITIONS, asked, "application/json")
        told = response.read().decode()
        assert response.status == 201, told
        return response.headers.get_all("Warning") or []

    yield define
    client.send("DELETE", f"{DEFINITIONS}/gadgets.example.com")


def created(client: Client, **spec: Any) -> tuple[int, str]:
    body = {"metadata": {"name": "g"}, "spec": spec}
    status, answer = client.send("POST", GADGETS, body)
    return status, answer.get("message", "").partition("is invalid: ")[2]


@evaluated
@pytest.mark.parametrize(
    ("rule", "right", "wrong", "told"),
    [
        (
            {"rule": "self.min <= self.max", "message": "min is at most max"},
            *({"min": 1, "max": 2}, {"min": 3, "max": 2}),
            'spec: Invalid value: "object": min is at most max',
        ),
        (
            {"rule": "self.min <= self.max", "messageExpression": "'over ' + string(self.max)"},
            *({"min": 1, "max": 2}, {"min": 3, "max": 2}, "over 2"),
        ),
        (
            {"rule": "has(self.min)", "reason": "FieldValueRequired", "fieldPath": ".min"},
            *({"min": 1}, {}, "spec.min: Required value: failed rule: has(self.min)"),
        ),
        ("self.share < 1.5", {"share": 1}, {"share": 2}, "failed rule: self.share < 1.5"),
        ("self.the__dash__name.matches('^[a-z]+$')", {"the-name": "a"}, {"the-name": "A"}, "rule"),
        ("self.parts.all(p, p.startsWith('a'))", {"parts": ["a"]}, {"parts": ["b"]}, "failed rule"),
        ("self.parts.isSorted()", {"parts": ["a", "b"]}, {"parts": ["b", "a"]}, "failed rule"),
        ("self.parts.indexOf('b') < 1", {"parts": ["b"]}, {"parts": ["a", "b"]}, "failed rule"),
        ("self.?min.orValue(1) == 1", {}, {"min": 2}, "failed rule"),
        ("self.min > 0", {"min": 1}, {"max": 1}, "evaluating rule: self.min > 0"),
    ],
)
def test_a_custom_resource_obeys_the_rules_of_its_definition(
    client: Client, define: Define, rule: Any, right: Any, wrong: Any, told: str
) -> None:
    assert define(rule) == []
    status, message = created(client, **wrong)
    assert (status, told in message) == (422, True), message
    assert created(client, **right) == (201, "")


@evaluated
def test_rules_about_the_old_value_are_for_changes(client: Client, define: Define) -> None:
    stays = "oldSelf.optMap(o, o.max == self.max).orValue(true)"
    define("self.min >= oldSelf.min", {"rule": stays, "optionalOldSelf": True})
    assert created(client, min=2, max=5)[0] == 201
    for spec, status in (({"min": 3}, 200), ({"min": 1}, 422), ({"max": 6}, 422)):
        assert client.send("PATCH", f"{GADGETS}/g", {"spec": spec}, MERGE)[0] == status, spec


@evaluated
def test_items_of_keyed_lists_have_an_old_value(client: Client, define: Define) -> None:
    item = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.size >= oldSelf.size"}],
    }
    keyed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    define(disks={"type": "array", "items": item, **keyed})
    assert created(client, disks=[{"name": "a", "size": 2}])[0] == 201
    bigger = [{"name": "b", "size": 1}, {"name": "a", "size": 3}]
    patched = client.send("PATCH", f"{GADGETS}/g", {"spec": {"disks": bigger}}, MERGE)
    assert patched[0] == 200, patched
    smaller = [{"name": "b", "size": 0}, {"name": "a", "size": 3}]
    status, answer = client.send("PATCH", f"{GADGETS}/g", {"spec": {"disks": smaller}}, MERGE)
    assert (status, "spec.disks[0]: Invalid value" in answer["message"]) == (422, True), answer


@evaluated
def test_rules_are_not_asked_of_what_is_invalid_anyway(client: Client, define: Define) -> None:
    define("self.min > 0")
    status, message = created(client, min="x")
    assert status == 422
    assert "some validation rules were not checked because the object was invalid" in message


@evaluated
def test_a_definition_whose_rule_does_not_compile_is_refused(client: Client) -> None:
    schema = {"type": "object", "x-kubernetes-validations": [{"rule": "self.a =! 1"}]}
    status, answer = client.send("POST", DEFINITIONS, definition(schema))
    assert (status, "compilation failed" in answer["message"]) == (422, True), answer
    (cause,) = answer["details"]["causes"]
    at = "spec.versions[0].schema.openAPIV3Schema.x-kubernetes-validations[0].rule"
    assert cause["field"] == at


@evaluated
def test_rules_that_use_what_is_not_here_are_named(client: Client, define: Define) -> None:
    rule = "quantity(self.size).isLessThan(quantity('1'))"
    (told,) = define(rule, size={"type": "string"})
    assert told.endswith(f'does not evaluate the rule of v1 at .spec: \\"{rule}\\""')
    assert created(client, size="5") == (201, "")


@evaluated
def test_a_rule_is_asked_unless_it_names_a_time(client: Client, define: Define) -> None:
    time = {"type": "string", "format": "date-time"}
    late = "has(self.since) && self.since > timestamp('2026-01-01T00:00:00Z')"
    (told,) = define("self.min <= self.max", late, since=time)
    assert "has(self.since)" in told
    assert created(client, min=3, max=2)[0] == 422
    assert created(client, min=1, max=2) == (201, "")


def test_without_the_package_every_rule_is_named(
    client: Client, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cel, "_environment", lambda _: None)
    parts = {"type": "string", "x-kubernetes-validations": [{"rule": "self.size() < 3"}]}
    told = define("self.min > 0", parts={"type": "array", "items": parts})
    assert [line.partition(" at ")[2] for line in told] == [
        '.spec: \\"self.min > 0\\""',
        '.spec.parts[]: \\"self.size() < 3\\""',
    ]
    assert created(client, min=0) == (201, "")
