"""Rules in CEL (`x-kubernetes-validations`) of custom resources.

They are compiled and evaluated by cel-expr-python, which is CEL's own C++ implementation. What
Kubernetes adds to the language is at https://kubernetes.io/docs/reference/using-api/cel/, and how
its rules are read at
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/,
"Validation rules".  Here `self` has no declared type, so a field that no schema has is an error
when the rule is evaluated and not when it is written.

A rule that cannot be evaluated is named to whoever writes the definition (`not_evaluated`): all of
them where the package is not installed, else those that name a function which is not here, and
those that name a time, which the package takes from no caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

from .errors import Cause
from .objects import Obj
from .schema import ById

_SELF = ("self", "oldSelf")
_MOST_RULES = 20  # Python's clients read at most 100 headers
#: What the compiler says of a name that it lacks: Kubernetes has `quantity`, `url`, `ip` and more.
_LACKS = "undeclared reference"
_TIMES = ("date", "date-time", "duration")
_RESERVED = {
    *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function"),
    *("if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
}
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_SKIPPED = (
    'Invalid value: "null": some validation rules were not checked because the object was invalid; '
    "correct the existing errors to complete validation"
)


class _Absent:
    """The old value where there is none."""


ABSENT = _Absent()


class _Rule(NamedTuple):
    """A rule, where it is in a schema, and the schema of what it is about."""

    where: str
    """As in ``spec.parts[]``."""
    path: str
    """As in ``properties[spec].properties[parts].items.x-kubernetes-validations[0].rule``."""
    says: Obj
    schema: Obj

    @property
    def text(self) -> str:
        return str(self.says.get("rule"))


def not_evaluated(definition: Obj) -> list[str]:
    """Name each rule of a CustomResourceDefinition that is not evaluated, of many the first."""
    if definition.get("kind") != "CustomResourceDefinition":
        return []
    found = [
        f"the embedded stack does not evaluate the rule of {version} at {rule.where or '.'}: "
        f'"{rule.text}"'
        for version, _, rule in _rules_of(definition)
        if not _can(rule)
    ]
    more = len(found) - _MOST_RULES
    return [*found[:_MOST_RULES], *([f"and {more} rules more"] if more > 0 else [])]


def definition_causes(definition: Obj) -> Iterator[Cause]:
    """What is wrong with the rules of a CustomResourceDefinition: it is refused."""
    for _, start, rule in _rules_of(definition):
        told = problem(_expression(rule.says)) if _can(rule) else ""
        if told:
            message = f"Invalid value: {json.dumps(rule.says)}: compilation failed: {told}"
            yield Cause(f"{start}.{rule.path}", message)


def causes(schema: Obj, obj: Obj, live: Obj | None) -> Iterator[Cause]:
    """The rules that a custom resource breaks; `live` is what it was before, if it was."""
    yield from _broken(schema, obj, ABSENT if live is None else live, "", root=True)


def has_rules(schema: Obj) -> bool:
    """Whether there is any rule in a schema."""
    return _has_rules(ById(schema))


@lru_cache(maxsize=64)
def _has_rules(schema: ById) -> bool:
    return next(_rules(schema.value, "", ""), None) is not None


def skipped() -> Cause:
    """What the server says where an object has other faults, so that its rules are not asked."""
    return Cause("<nil>", _SKIPPED)


def _rules_of(definition: Obj) -> Iterator[tuple[str, str, _Rule]]:
    for n, version in enumerate(definition["spec"].get("versions") or ()):
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        for rule in _rules(schema, "", ""):
            yield version["name"], f"spec.versions[{n}].schema.openAPIV3Schema", rule


def _rules(schema: Obj, where: str, path: str) -> Iterator[_Rule]:
    for n, says in enumerate(schema.get("x-kubernetes-validations") or ()):
        at = f"{path}x-kubernetes-validations[{n}].rule"
        yield _Rule(where, at, says, schema)
    for name, below in (schema.get("properties") or {}).items():
        yield from _rules(below, f"{where}.{name}", f"{path}properties[{name}].")
    for name, sign in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(below := schema.get(name), dict):
            yield from _rules(below, where + sign, f"{path}{name}.")


def _can(rule: _Rule) -> bool:
    return can(_expression(rule.says)) and not _meets_times(ById(rule.schema), rule.text)


@lru_cache(maxsize=1024)
def _meets_times(key: ById, text: str) -> bool:
    """Whether a rule about a value of this schema may come upon a date or a duration.

    It does not without the name of the field on the way.
    """
    schema = key.value
    below = [v for k, v in (schema.get("properties") or {}).items() if re.search(rf"\b{k}\b", text)]
    below += [schema[k] for k in ("items", "additionalProperties") if k in schema]
    times = schema.get("type") == "string" and schema.get("format") in _TIMES
    return times or any(_meets_times(ById(each), text) for each in below if isinstance(each, dict))


# --- evaluation ----------------------------------------------------------------------------------


def _broken(schema: Obj, value: Any, old: Any, path: str, *, root: bool = False) -> Iterator[Cause]:
    if value is None:
        return
    for says in schema.get("x-kubernetes-validations") or ():
        if cause := _judged(_Rule("", "", says, schema), value, old, path, root=root):
            yield cause
    if isinstance(value, dict):
        more = schema.get("additionalProperties")
        for name, item in value.items():
            known = (schema.get("properties") or {}).get(name)
            below = known or (more if isinstance(more, dict) else None)
            if below:
                before = old.get(name, ABSENT) if isinstance(old, dict) else ABSENT
                at = f"{path}.{name}" if known else f"{path}[{name}]"
                yield from _broken(below, item, before, at.lstrip("."))
    elif isinstance(value, list) and isinstance(below := schema.get("items"), dict):
        for n, item in enumerate(value):
            yield from _broken(below, item, _former(schema, item, old), f"{path}[{n}]")


def _former(schema: Obj, item: Any, old: Any) -> Any:
    """The old item of a list: known in one with keys alone."""
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    if not (keys and isinstance(old, list) and isinstance(item, dict)):
        return ABSENT
    same = (o for o in old if all(o.get(key) == item.get(key) for key in keys))
    return next(same, ABSENT)


def _judged(rule: _Rule, value: Any, old: Any, path: str, *, root: bool) -> Cause | None:
    says = rule.says
    transition = re.search(r"\boldSelf\b", rule.text)
    if not _can(rule) or (transition and old is ABSENT and not says.get("optionalOldSelf")):
        return None
    given = {"self": _shown(rule.schema, value, root=root), "oldSelf": None}
    if old is not ABSENT:
        given["oldSelf"] = _shown(rule.schema, old, root=root)
    if says.get("optionalOldSelf"):
        given["oldSelf"] = [] if old is ABSENT else [given["oldSelf"]]
    verdict, problem = evaluated(_expression(says), given)
    if verdict is True:
        return None
    at = (path + str(says.get("fieldPath") or "")).lstrip(".")
    reason = str(says.get("reason") or "FieldValueInvalid")
    if problem:
        told = f"{problem} evaluating rule: {says.get('message') or rule.text}"
    else:
        told = str(says.get("message") or f"failed rule: {rule.text}")
        if expression := says.get("messageExpression"):
            text, _ = evaluated(_expression(says, str(expression)), given)
            told = text if isinstance(text, str) and text.strip() else told
    if reason == "FieldValueRequired":
        return Cause(at, f"Required value: {told}", reason)
    if reason == "FieldValueForbidden":
        return Cause(at, f"Forbidden: {told}", reason)
    shown = json.dumps(rule.schema.get("type") if isinstance(value, dict | list) else value)
    start = "Duplicate value" if reason == "FieldValueDuplicate" else "Invalid value"
    return Cause(at, f"{start}: {shown}: {told}", reason)


def _expression(says: Obj, expression: str = "") -> str:
    text = expression or str(says.get("rule"))
    # CEL has these for strings, Kubernetes for lists too, and a function is declared once.
    text = re.sub(r"\.(lastI|i)ndexOf\((?=[^,()]*\))", _index_function, text)
    if not says.get("optionalOldSelf"):
        return text
    old = "size(oldSelf) == 0 ? optional.none() : optional.of(oldSelf[0])"
    renamed = re.sub(r"\boldSelf\b", "oldSelfOrNone", text)
    return f"cel.bind(oldSelfOrNone, {old}, {renamed})"


def _index_function(found: re.Match[str]) -> str:
    return ".lastIndexIn(" if found[1] == "lastI" else ".firstIndexIn("


def _shown(schema: Obj, value: Any, *, root: bool = False) -> Any:
    """A value as rules see it: declared fields alone, by their escaped names."""
    if isinstance(value, dict):
        known, more = schema.get("properties") or {}, schema.get("additionalProperties")
        found = {
            _escaped(name): _shown(known[name], item)
            for name, item in value.items()
            if name in known and (item is not None or known[name].get("nullable"))
        }
        if isinstance(more, dict):
            found |= {k: _shown(more, item) for k, item in value.items() if k not in known}
        if root or schema.get("x-kubernetes-embedded-resource"):
            metadata = value.get("metadata") or {}
            named = {k: metadata[k] for k in ("name", "generateName") if k in metadata}
            found |= {k: value[k] for k in ("apiVersion", "kind") if k in value}
            found["metadata"] = named
        return found
    if isinstance(value, list):
        below = schema.get("items")
        return [_shown(below if isinstance(below, dict) else {}, item) for item in value]
    if schema.get("type") == "number" and isinstance(value, int):
        return float(value)
    return value


def _escaped(name: str) -> str:
    if name in _RESERVED:
        return f"__{name}__"
    return re.sub(r"__|[.\-/]", lambda found: _ESCAPES[found[0]], name)


def can(expression: str, names: tuple[str, ...] = _SELF) -> bool:
    """Whether an expression over these variables can be evaluated here, or is wrong in itself."""
    return _environment(names) is not None and _LACKS not in problem(expression, names)


def problem(expression: str, names: tuple[str, ...] = _SELF) -> str:
    """What the compiler says of an expression over these variables."""
    return _compiled(expression, names)[1]


def evaluated(expression: str, given: Obj) -> tuple[Any, str]:
    """The value of an expression, or what went wrong with it; `given` has its variables."""
    program, problem = _compiled(expression, tuple(given))
    if problem:
        return None, problem
    try:
        found = program.eval(data=given)
    except RuntimeError as error:  # it takes no lone half of a surrogate pair
        return None, str(error)
    if found.type().name() == "ERROR":
        return None, str(found.plain_value()).partition(": ")[2]
    return found.plain_value(), ""


@lru_cache(maxsize=1024)
def _compiled(expression: str, names: tuple[str, ...]) -> tuple[Any, str]:
    """A program, or what the compiler says."""
    try:
        return _environment(names).compile(expression), ""
    except RuntimeError as problem:
        return None, str(problem).removeprefix("INVALID_ARGUMENT: ").removesuffix(
            " [INVALID_ARGUMENT]"
        )


@cache
def _environment(names: tuple[str, ...]) -> Any:
    """CEL with Kubernetes' extensions, or None where the package is not installed."""
    try:
        from cel_expr_python import cel  # noqa: PLC0415 - optional
        from cel_expr_python.ext import (  # noqa: PLC0415
            ext_bindings,
            ext_math,
            ext_optional,
            ext_strings,
        )
    except ImportError:
        return None
    kind = cel.Type

    def method(name: str, returned: Any, run: Any, *signatures: tuple[Any, ...]) -> Any:
        overloads = [
            cel.Overload(f"kubernetes_{name}_{n}", returned, list(parameters), True, run)
            for n, parameters in enumerate(signatures)
        ]
        return cel.FunctionDecl(name, overloads)

    def find(text: str, pattern: str) -> str:
        return next(iter(find_all(text, pattern)), "")

    def find_all(text: str, pattern: str) -> list[str]:
        return [found[0] for found in re.finditer(pattern, text)]

    def first(where: Any, what: Any) -> int:
        if isinstance(where, str):
            return where.find(what)
        return where.index(what) if what in where else -1

    def last(where: Any, what: Any) -> int:
        if isinstance(where, str):
            return where.rfind(what)
        return len(where) - 1 - where[::-1].index(what) if what in where else -1

    text, a_list = (kind.STRING, kind.STRING), (kind.LIST,)
    inside = [text, *((kind.LIST, k) for k in (kind.STRING, kind.INT, kind.DOUBLE, kind.BOOL))]
    functions = [
        method("isSorted", kind.BOOL, lambda items: items == sorted(items), a_list),
        method("sum", kind.DYN, sum, a_list),
        method("min", kind.DYN, min, a_list),
        method("max", kind.DYN, max, a_list),
        method("firstIndexIn", kind.INT, first, *inside),
        method("lastIndexIn", kind.INT, last, *inside),
        method("find", kind.STRING, find, text),
        method("findAll", kind.LIST, find_all, text),
    ]
    return cel.NewEnv(
        variables=dict.fromkeys(names, kind.DYN),
        extensions=[
            ext_bindings.ExtBindings(),
            ext_math.ExtMath(),
            ext_optional.ExtOptional(),
            ext_strings.ExtStrings(),
        ],
        functions=functions,
    )
