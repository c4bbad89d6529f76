"""ValidatingAdmissionPolicies: what a client writes is held against the rules of bound policies.

How they are read is at
https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/; what matches a
request, in what order, and in which words it is refused, is in k8s.io/apiserver
pkg/admission/plugin/policy.

Writes of the stack's own controllers are not held against them. A policy with an expression that
cannot be evaluated (`authorizer`, functions that `cel` lacks) is not asked at all, and whoever
writes it is told so (`not_evaluated`). There is no audit log, so Audit and annotations do nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from . import cel
from .errors import ApiError, details
from .objects import Obj, labels
from .resources import Resource
from .selection import selects

if TYPE_CHECKING:
    from .store import Store, Write

_KIND = "ValidatingAdmissionPolicy"
_GROUP = "admissionregistration.k8s.io"
CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
"""The reasons of validations, with the status of an answer for each."""
_NAMES = ("object", "oldObject", "request", "params", "namespaceObject", "variables")


class _Asked(NamedTuple):
    """A request: what it writes, in place of what."""

    resource: Resource
    operation: str
    obj: Obj | None
    old: Obj | None
    how: Write

    @property
    def metadata(self) -> Obj:
        found: Obj = (self.obj or self.old or {}).get("metadata") or {}
        return found


class _Denial(NamedTuple):
    message: str
    reason: str = "Invalid"


class _Misconfigured(Exception):
    """A binding that cannot be followed."""


def check(
    store: Store, resource: Resource, operation: str, obj: Obj | None, old: Obj | None, how: Write
) -> None:
    """Ask every policy that is bound and matches. Warnings are added to those of `how`.

    `operation` is CREATE, UPDATE or DELETE. Raises ApiError 401, 403, 413 or 422 at a denial.
    """
    bindings = store.objects(store.registry.builtin(f"{_KIND}Binding"))
    if not bindings or resource.group == _GROUP:  # none of that group's kinds can be matched
        return
    asked, refused = _Asked(resource, operation, obj, old, how), None
    for policy in store.objects(store.registry.builtin(_KIND)):
        spec, name = policy["spec"], policy["metadata"]["name"]
        if not _matches(store, spec.get("matchConstraints"), asked) or not_evaluated(policy):
            continue
        for binding in bindings:
            bound, where = binding["spec"], binding["metadata"]["name"]
            if bound.get("policyName") != name:
                continue
            if not _matches(store, bound.get("matchResources"), asked):
                continue
            actions = bound.get("validationActions") or ()
            try:
                found = list(_denials(store, spec, bound, asked))
            except _Misconfigured as problem:
                found, actions = [_Denial(f"failed to configure binding: {problem}")], ("Deny",)
                found = [] if spec.get("failurePolicy") == "Ignore" else found
            for denial in found:
                if "Warn" in actions and how.warnings is not None:
                    how.warnings.append(
                        f"Validation failed for {_KIND} '{name}' with binding '{where}': "
                        f"{denial.message}"
                    )
                if "Deny" in actions and refused is None:
                    told = f"{_KIND} '{name}' with binding '{where}' denied request: "
                    refused = _Denial(told + denial.message, denial.reason)
    if refused:
        _refuse(asked, refused)


def _refuse(asked: _Asked, denial: _Denial) -> None:
    name = str(asked.metadata.get("name", ""))
    about = {**details(asked.resource, name), "causes": [{"message": denial.message}]}
    message = f'{asked.resource.qualified} "{name}" is forbidden: {denial.message}'
    raise ApiError(CODES[denial.reason], denial.reason, message, about)


# --- what a policy says --------------------------------------------------------------------------


def not_evaluated(policy: Obj) -> list[str]:
    """Name each expression for which a policy is not asked."""
    if policy.get("kind") != _KIND:
        return []
    return [
        f'the embedded stack does not ask this policy: it cannot evaluate {where} "{text}"'
        for where, text in _expressions(policy)
        if not cel.can(text, _NAMES)
    ]


def mistakes(policy: Obj) -> Iterator[tuple[str, str, str]]:
    """Every expression that does not compile: where it is, what it is, what the compiler says."""
    for where, text in _expressions(policy):
        if cel.can(text, _NAMES) and (problem := cel.problem(text, _NAMES)):
            yield where, text, problem


def _expressions(policy: Obj) -> Iterator[tuple[str, str]]:
    spec = policy.get("spec") or {}
    for part in ("variables", "matchConditions", "validations"):
        for n, entry in enumerate(spec.get(part) or ()):
            for field in ("expression", "messageExpression"):
                if entry.get(field):
                    yield f"spec.{part}[{n}].{field}", str(entry[field])


def _denials(store: Store, spec: Obj, bound: Obj, asked: _Asked) -> Iterator[_Denial]:
    """What a policy has against a request, for each of its parameters."""
    tolerant = spec.get("failurePolicy") == "Ignore"
    for params in _params(store, spec.get("paramKind"), bound.get("paramRef"), asked):
        given = _given(store, asked, params)
        for variable in spec.get("variables") or ():  # one that fails is missing where it is named
            value, problem = cel.evaluated(str(variable["expression"]), given)
            if not problem:
                given["variables"][variable["name"]] = value
        conditions = spec.get("matchConditions") or ()
        met = [cel.evaluated(str(each["expression"]), given) for each in conditions]
        if any(value is False for value, _ in met):
            continue
        if problems := [problem for _, problem in met if problem]:
            if not tolerant:
                yield _Denial(problems[0])
            continue
        for validation in spec.get("validations") or ():
            text = str(validation["expression"])
            verdict, problem = cel.evaluated(text, given)
            if problem and not tolerant:
                told = f"expression '{text}' resulted in error: {problem}"
                yield _Denial(told)
            elif not problem and verdict is not True:
                yield _Denial(_message(validation, given), validation.get("reason") or "Invalid")


def _message(validation: Obj, given: Obj) -> str:
    if expression := validation.get("messageExpression"):
        told, _ = cel.evaluated(str(expression), given)
        if isinstance(told, str) and told.strip() and "\n" not in told.strip():
            return told.strip()
    message = str(validation.get("message") or "").strip()
    return message or f"failed expression: {str(validation['expression']).strip()}"


def _given(store: Store, asked: _Asked, params: Obj | None) -> Obj:
    """The variables of every expression."""
    resource, namespace = asked.resource, asked.metadata.get("namespace", "")
    home = store.find(store.registry.builtin("Namespace"), "", namespace) if namespace else None
    gvr = {"group": resource.group, "version": resource.version, "resource": resource.plural}
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    username, groups = asked.how.user
    request = {
        "kind": kind,
        "requestKind": kind,
        "resource": gvr,
        "requestResource": gvr,
        "subResource": asked.how.subresource,
        "name": asked.metadata.get("name", ""),
        "namespace": namespace,
        "operation": asked.operation,
        "userInfo": {"username": username, "groups": list(groups)},
        "dryRun": asked.how.dry_run,
    }
    found = {"object": asked.obj, "oldObject": asked.old, "request": request, "params": params}
    return {**found, "namespaceObject": home, "variables": {}}


def _params(store: Store, kind: Obj | None, ref: Obj | None, asked: _Asked) -> list[Obj | None]:
    if not kind or not ref:
        return [None]
    wanted = kind.get("kind"), kind.get("apiVersion")
    known = (r for r in store.registry if (r.kind, r.group_version) == wanted)
    resource = next(known, None)
    if resource is None:
        raise _Misconfigured(f"paramKind kind `{wanted[1]}, Kind={wanted[0]}` not known")
    namespace = ref.get("namespace") or ""
    if namespace and not resource.namespaced:
        message = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
        raise _Misconfigured(message)
    if resource.namespaced and not namespace:
        namespace = asked.metadata.get("namespace", "")
        if not namespace:
            raise _Misconfigured(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped "
                "resources"
            )
    if ref.get("name"):
        one = store.find(resource, namespace, ref["name"])
        found = [one] if one else []
    else:
        every = store.objects(resource, namespace)
        found = [obj for obj in every if selects(ref.get("selector"), labels(obj))]
    if not found and ref.get("parameterNotFoundAction") == "Deny":
        message = "no params found for policy binding with `Deny` parameterNotFoundAction"
        raise _Misconfigured(message)
    return [*found]


# --- what a policy is about ----------------------------------------------------------------------


def _matches(store: Store, criteria: Obj | None, asked: _Asked) -> bool:
    """Whether a request is among those of `matchConstraints` or `matchResources`."""
    criteria = criteria or {}
    both = [obj for obj in (asked.obj, asked.old) if obj]
    if not any(selects(criteria.get("objectSelector"), labels(obj)) for obj in both):
        return False
    if asked.resource.kind == "Namespace":
        home = asked.obj or asked.old
    else:  # other kinds without a namespace are never left out
        namespaces = store.registry.builtin("Namespace")
        home = store.find(namespaces, "", asked.metadata.get("namespace", ""))
    if home and not selects(criteria.get("namespaceSelector"), labels(home)):
        return False
    versions = {asked.resource.version}
    if criteria.get("matchPolicy") != "Exact":  # objects are not converted between versions here
        same = (asked.resource.group, asked.resource.plural)
        versions |= {r.version for r in store.registry if (r.group, r.plural) == same}
    if any(_named(rule, asked, versions) for rule in criteria.get("excludeResourceRules") or ()):
        return False
    rules = criteria.get("resourceRules") or ()
    return not rules or any(_named(rule, asked, versions) for rule in rules)


def _named(rule: Obj, asked: _Asked, versions: set[str]) -> bool:
    def has(field: str, *wanted: str) -> bool:
        return not {"*", *wanted}.isdisjoint(rule.get(field) or ())

    resource, sub = asked.resource, asked.how.subresource
    scope = rule.get("scope") or "*"
    resources = (str(entry).partition("/") for entry in rule.get("resources") or ())
    return (
        scope in ("*", "Namespaced" if resource.namespaced else "Cluster")
        and has("operations", asked.operation)
        and has("apiGroups", resource.group)
        and has("apiVersions", *versions)
        and any(r in ("*", resource.plural) and s in ("*", sub) for r, _, s in resources)
        and (not rule.get("resourceNames") or asked.metadata.get("name") in rule["resourceNames"])
    )
