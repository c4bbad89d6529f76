"""The kinds of Karpenter and of HyperPod's node classes, as CustomResourceDefinitions.

NodePool and NodeClaim have the fields and rules of Karpenter's own definitions (kubernetes-sigs/
karpenter, pkg/apis/crds; `tests/test_published.py` compares them).  AWS publishes no definition of
HyperpodNodeClass: this one has what the SageMaker developer guide says ("Create a NodeClass").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .objects import Obj

GROUP, HYPERPOD = "karpenter.sh", "karpenter.sagemaker.amazonaws.com"

_PART = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_KEY = rf"^({_PART}(\.{_PART})*(\/))?{_NAME}$"
_NUMBER = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
_QUANTITY = rf"^(\+|-)?{_NUMBER}(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?{_NUMBER}))?$"
_DURATION = "([0-9]+(s|m|h))+"
_CAPACITY_TYPE, _POOL = f"{GROUP}/capacity-type", f"{GROUP}/nodepool"


def definitions() -> Iterator[Obj]:
    """Yield the definitions of all three kinds."""
    claim = _claim()
    fixed = {**claim, **_rules(("self == oldSelf", "spec is immutable"))}
    fixed["properties"] = {
        **claim["properties"],
        "resources": _object({"requests": _map(_AMOUNT)}),
        "requirements": _requirements(ours=False),
        "nodeClassRef": _reference(),
    }
    yield _definition(GROUP, "NodePool", "nodepools", _pool(claim), _POOL_COLUMNS)
    yield _definition(GROUP, "NodeClaim", "nodeclaims", fixed, _CLAIM_COLUMNS)
    groups = {"minItems": 1, "maxItems": 10, **_list(_TEXT)}
    node_class = _object({"instanceGroups": groups}, required=["instanceGroups"])
    yield _definition(HYPERPOD, "HyperpodNodeClass", "hyperpodnodeclasses", node_class, (_READY,))


def _pool(claim: Obj) -> Obj:
    labels = {
        **_map({**_TEXT, "maxLength": 63, "pattern": f"^({_NAME})?$"}),
        "maxProperties": 100,
        **_rules(*((f"self.all(key, {rule})", told) for rule, told in _restricted("key"))),
    }
    template = _object(
        {"metadata": _object({"labels": labels, "annotations": _map(_TEXT)}), "spec": claim},
        required=["spec"],
    )
    static = "!has(self.replicas)"
    only_nodes = "size(self.limits) == 0 || size(self.limits) == 1 && 'nodes' in self.limits"
    return {
        **_object(
            {
                "template": template,
                "disruption": {**_disruption(), "default": {"consolidateAfter": "0s"}},
                "limits": _map(_AMOUNT),
                "weight": {"type": "integer", "minimum": 1, "maximum": 100},
                "replicas": {"type": "integer", "minimum": 0},
            },
            required=["template"],
        ),
        **_rules(
            (
                "has(self.replicas) == has(oldSelf.replicas)",
                "a NodePool stays static (with replicas) or dynamic",
            ),
            (
                f"{static} || !has(self.limits) || {only_nodes}",
                "only 'limits.nodes' is supported on static NodePools",
            ),
            (f"{static} || !has(self.weight)", "'weight' is not supported on static NodePools"),
        ),
    }


def _disruption() -> Obj:
    moment = r"(@(annually|yearly|monthly|weekly|daily|midnight|hourly))"
    reasons = {"enum": ["Underutilized", "Empty", "Drifted"], **_TEXT}
    budget = _object(
        {
            "nodes": {"default": "10%", "pattern": "^((100|[0-9]{1,2})%|[0-9]+)$", **_TEXT},
            "schedule": {"pattern": rf"^{moment}|((.+)\s(.+)\s(.+)\s(.+)\s(.+))$", **_TEXT},
            "duration": {"pattern": "^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$", **_TEXT},
            "reasons": {"maxItems": 50, **_list(reasons)},
        },
        required=["nodes"],
    )
    both = "self.all(each, has(each.schedule) == has(each.duration))"
    policies = ["WhenEmpty", "WhenEmptyOrUnderutilized", "Balanced"]
    return _object(
        {
            "consolidationPolicy": {"default": policies[1], "enum": policies, **_TEXT},
            "consolidateAfter": {"default": "0s", **_NEVER},
            "budgets": {
                "default": [{"nodes": "10%"}],
                "maxItems": 50,
                **_list(budget),
                **_rules((both, "'schedule' must be set with 'duration'")),
            },
        }
    )


def _claim() -> Obj:
    effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"]
    taint = _object(
        {
            "key": {"minLength": 1, "pattern": _KEY, **_TEXT},
            "value": {"pattern": _KEY, **_TEXT},
            "effect": {"enum": effects, **_TEXT},
            "timeAdded": {"format": "date-time", **_TEXT},
        },
        required=["effect", "key"],
    )
    stays = (
        (f"self.{name} == oldSelf.{name}", f"nodeClassRef.{name} is immutable")
        for name in ("group", "kind")
    )
    return _object(
        {
            "nodeClassRef": {**_reference(), **_rules(*stays)},
            "requirements": _requirements(ours=True),
            "taints": _list(taint),
            "startupTaints": _list(taint),
            "expireAfter": {"default": "720h", **_NEVER},
            "terminationGracePeriod": {"pattern": f"^{_DURATION}$", **_TEXT},
        },
        required=["nodeClassRef", "requirements"],
    )


def _reference() -> Obj:
    def named(name: str, **more: str) -> Obj:
        return {**_TEXT, **more, **_rules(("self != ''", f"{name} may not be empty"))}

    names = {"group": named("group", pattern="^[^/]*$"), "kind": named("kind")}
    return _object({**names, "name": named("name")}, required=["group", "kind", "name"])


def _requirements(*, ours: bool) -> Obj:
    """Return the requirements of a pool's template, or of a claim, which names its pool."""
    rules = [each for each in _restricted("self") if ours or _POOL not in each[1]]
    operators = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Gte", "Lte"]
    one = _object(
        {
            "key": {"maxLength": 316, "pattern": _KEY, **_TEXT, **_rules(*rules)},
            "operator": {"enum": operators, **_TEXT},
            "values": _list(_TEXT),
            "minValues": {"type": "integer", "minimum": 1, "maximum": 50},
        },
        required=["key", "operator"],
    )
    free = "r.operator != 'In' || !has(r.minValues)"
    compares = "r.operator in ['Gt', 'Lt', 'Gte', 'Lte']"
    return {
        **_list(one),
        "maxItems": 100,
        **_rules(
            (
                "self.all(r, r.operator != 'In' || size(r.values) > 0)",
                "requirements with operator 'In' must have a value defined",
            ),
            (
                f"self.all(r, !({compares}) || size(r.values) == 1 && int(r.values[0]) >= 0)",
                "requirements with 'Gt', 'Lt', 'Gte' or 'Lte' must have one positive integer",
            ),
            (
                f"self.all(r, {free} || size(r.values) >= r.minValues)",
                "requirements with 'minValues' must have at least that many values",
            ),
        ),
    }


def _restricted(key: str) -> tuple[tuple[str, str], ...]:
    """Return the rules of labels that Karpenter sets itself, with what they say."""
    domain = f"{key}.split('/')[0].endsWith('{GROUP}')"
    return (
        (
            f"{key} in ['{_CAPACITY_TYPE}', '{_POOL}'] || !{domain}",
            f'label domain "{GROUP}" is restricted',
        ),
        (f"{key} != '{_POOL}'", f'label "{_POOL}" is restricted'),
        (f"{key} != 'kubernetes.io/hostname'", 'label "kubernetes.io/hostname" is restricted'),
    )


_TEXT: Obj = {"type": "string"}
_NEVER = {"pattern": f"^({_DURATION}|Never)$", **_TEXT}
_AMOUNT: Obj = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": _QUANTITY,
    "x-kubernetes-int-or-string": True,
}
_ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_READY = ("Ready", '.status.conditions[?(@.type=="Ready")].status')
_POOL_COLUMNS = (
    ("NodeClass", ".spec.template.spec.nodeClassRef.name"),
    ("Nodes", ".status.nodes"),
    _READY,
)
_CLAIM_COLUMNS = (("Node", ".status.nodeName"), _READY)


def _object(properties: Mapping[str, Any], required: Sequence[str] = ()) -> Obj:
    found: Obj = {"type": "object", "properties": dict(properties)}
    return {**found, "required": list(required)} if required else found


def _list(items: Obj) -> Obj:
    return {"type": "array", "items": items}


def _map(values: Obj) -> Obj:
    return {"type": "object", "additionalProperties": values}


def _rules(*rules: tuple[str, str]) -> Obj:
    return {"x-kubernetes-validations": [{"rule": rule, "message": told} for rule, told in rules]}


def _definition(
    group: str, kind: str, plural: str, spec: Obj, columns: Sequence[tuple[str, str]]
) -> Obj:
    shown = [{"name": name, "type": "string", "jsonPath": path} for name, path in columns]
    age = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [*shown, age],
        "schema": {"openAPIV3Schema": _object({"spec": spec, "status": _ANYTHING}, ["spec"])},
    }
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Cluster", "names": names, "versions": [version]},
    }
