"""Choosing objects by their labels and fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .errors import bad_request
from .objects import Obj, dig, labels

_TERM = re.compile(
    r"(?P<key>[^\s=!,()]+)\s*(?:(?P<op>==?|!=)\s*(?P<value>[^\s=!,()]*)"
    r"|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?"
)


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
            case "Gt":
                return value is not None and int(value) > int(self.values[0])
            case "Lt":
                return value is not None and int(value) < int(self.values[0])
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
            operator = "NotIn" if match["op"] == "!=" else "In"
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


def predicate(label_selector: str, field_selector: str) -> Callable[[Obj], bool]:
    """A test for the two selectors of a list or watch request; an empty one selects everything."""
    requirements = parse(label_selector)
    fields = [_field(term) for term in filter(None, field_selector.split(","))]

    def selected(obj: Obj) -> bool:
        return all(r.met(labels(obj)) for r in requirements) and all(f(obj) for f in fields)

    return selected


def _field(term: str) -> Callable[[Obj], bool]:
    path, operator, value = (*re.split(r"(!=|==?)", term, maxsplit=1), "", "")[:3]
    if not operator:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    steps, wanted = path.strip().split("."), value.strip()

    def matches(obj: Obj) -> bool:
        found: Any = dig(obj, *steps)
        return (("" if found is None else str(found)) == wanted) != (operator == "!=")

    return matches
