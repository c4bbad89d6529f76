"""Choosing objects by their labels and fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .errors import bad_request
from .objects import Obj, dig, labels
from .resources import Resource

_INTEGER = re.compile("[+-]?[0-9]{1,18}")
_TERM = re.compile(
    r"(?P<key>[^\s=!<>,()]+)\s*(?:(?P<op>==?|!=|<|>)\s*(?P<value>[^\s=!,()]*)"
    r"|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?"
)

# What a kind can be selected by apart from its name and namespace: the field label conversions of
# k8s.io/kubernetes pkg/apis/*/v1/conversion.go.
_EVENT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_FIELDS: dict[str, tuple[str, ...]] = {
    "Event": (
        *(f"{about}.{name}" for about in ("involvedObject", "regarding") for name in _EVENT),
        *("reason", "reportingComponent", "reportingController", "source", "type"),
    ),
    "Job": ("status.successful",),
    "Namespace": ("status.phase",),
    "Node": ("spec.unschedulable",),
    "Pod": (
        *("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName"),
        *("spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs"),
        "status.nominatedNodeName",
    ),
    "ReplicaSet": ("status.replicas",),
    "Secret": ("type",),
    "Service": ("spec.clusterIP", "spec.type"),
}


class Requirement(NamedTuple):
    """One condition on a label. Operators are those of `matchExpressions`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def met(self, found: Mapping[str, str]) -> bool:
        """Whether labels meet the condition."""
        value = found.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                if value is None or not _INTEGER.fullmatch(value):
                    return False
                above, limit = int(value), int(self.values[0])
                return above > limit if self.operator == "Gt" else above < limit
        raise bad_request(f'"{self.operator}" is not a valid label selector operator')


def parse(text: str) -> list[Requirement]:
    """Read a `labelSelector` query.

    >>> parse("name in (a, b)")
    [Requirement(key='name', operator='In', values=('a', 'b'))]

    Raises ApiError 400 if the text is no selector.
    """
    requirements = []
    for term in filter(None, (t.strip() for t in re.split(r",(?![^()]*\))", text))):
        match = _TERM.fullmatch(term.removeprefix("!").strip())
        if not match:
            raise bad_request(f"unable to parse requirement: {term}")
        key = match["key"]
        if match["op"]:
            operator = {"!=": "NotIn", ">": "Gt", "<": "Lt"}.get(match["op"], "In")
            if operator in ("Gt", "Lt") and not _INTEGER.fullmatch(match["value"]):
                message = "for 'Gt', 'Lt' operators, the value must be an integer"
                raise bad_request(f"unable to parse requirement: {term}: {message}")
            requirements.append(Requirement(key, operator, (match["value"],)))
        elif match["set"]:
            operator = {"in": "In", "notin": "NotIn"}[match["set"]]
            values = tuple(v.strip() for v in match["values"].split(","))
            requirements.append(Requirement(key, operator, values))
        else:
            absent = term.startswith("!")
            requirements.append(Requirement(key, "DoesNotExist" if absent else "Exists"))
    return requirements


def expressions(entries: list[Obj] | None) -> list[Requirement]:
    """Read `matchExpressions`, of label selectors and of node affinity alike."""
    return [
        Requirement(e["key"], e["operator"], tuple(e.get("values") or ())) for e in entries or []
    ]


def selects(selector: Obj | None, found: Mapping[str, str]) -> bool:
    """Whether a LabelSelector object (`matchLabels`, `matchExpressions`) selects these labels."""
    selector = selector or {}
    wanted = selector.get("matchLabels") or {}
    return all(found.get(k) == v for k, v in wanted.items()) and all(
        r.met(found) for r in expressions(selector.get("matchExpressions"))
    )


def predicate(
    resource: Resource, label_selector: str, field_selector: str
) -> Callable[[Obj], bool]:
    """A test for the two selectors of a list or watch request; an empty one selects everything.

    Raises ApiError 400 if one is malformed, or names a field that the kind cannot be selected by.
    """
    requirements = parse(label_selector)
    known = {"metadata.name", *_FIELDS.get(resource.kind, ()), *resource.selectable}
    if resource.namespaced:
        known.add("metadata.namespace")
    fields = [_field(term, known) for term in filter(None, field_selector.split(","))]

    def selected(obj: Obj) -> bool:
        return all(r.met(labels(obj)) for r in requirements) and all(f(obj) for f in fields)

    return selected


def _field(term: str, known: set[str]) -> Callable[[Obj], bool]:
    path, operator, value = (*re.split(r"(!=|==?)", term, maxsplit=1), "", "")[:3]
    if not operator:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    path, wanted = path.strip(), value.strip()
    if path not in known:
        raise bad_request(f"field label not supported: {path}")
    steps = path.split(".")

    def matches(obj: Obj) -> bool:
        found: Any = dig(obj, *steps)
        if found is None:
            found = "false" if wanted in ("true", "false") else ""
        text = str(found).lower() if isinstance(found, bool) else str(found)
        return (text == wanted) != (operator == "!=")

    return matches
