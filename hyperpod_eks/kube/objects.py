"""Objects of any kind in the Kubernetes API: read, server-side apply, delete.

Server-side apply: the API server records in ``metadata.managedFields`` which manager owns which
field, and refuses to change a field that another manager has set to another value (Kubernetes
documentation, "Server-Side Apply").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote

from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.kube.access import Access, _package
from hyperpod_eks.kube.client import (
    JSON,
    Content,
    NotServed,
    _ask,
    _list,
    _message,
    _words,
    part,
    parts,
    text,
)

MANAGER = "hyperpod-eks"
"""Our name in ``managedFields``."""
DEFAULT = "default"
"""The namespace of an object that names none, as for kubectl."""
APPLY = "application/apply-patch+yaml"  # JSON is YAML


class Kind(NamedTuple):
    """How the API server serves a kind: its name in paths, and whether it is in namespaces."""

    plural: str
    namespaced: bool


class ObjectReference(NamedTuple):
    """What identifies an object."""

    api_version: str
    kind: str
    namespace: str
    """Empty for kinds without namespaces."""
    name: str

    def __str__(self) -> str:
        return "/".join(filter(None, (self.kind, self.namespace, self.name)))


def served(access: Access, api_version: str) -> dict[str, Kind]:
    """Return the kinds of a group's version by name; empty if it is not served.

    Raises KubeNotReady if a retry may succeed, HyperpodError for other failures.
    """
    with _words(access):
        try:
            found = _ask(access, _root(api_version))
        except _package().ApiException as error:
            if error.status == 404:
                return {}
            raise
    return {
        text(each, "kind"): Kind(text(each, "name"), each.get("namespaced") is True)
        for each in parts(found, "resources")
        if "/" not in text(each, "name")  # a subresource
    }


def every(access: Access, api_version: str, kind: Kind, namespace: str = "") -> list[JsonMapping]:
    """List the objects of a kind, in a namespace or in all.  Raises as `served`."""
    within = f"/namespaces/{quote(namespace)}" if namespace else ""
    with _words(access):
        return list(_list(access, f"{_root(api_version)}{within}/{kind.plural}"))


def find(access: Access, reference: ObjectReference, kind: Kind) -> JsonObject | None:
    """Return an object; None if it does not exist.  Raises as `served`."""
    with _words(access):
        try:
            return _ask(access, _path(reference, kind))
        except _package().ApiException as error:
            if error.status == 404:
                return None
            raise


def apply(
    access: Access, reference: ObjectReference, document: JsonMapping, *, force: bool
) -> JsonObject:
    """Create an object, or update the fields in ``document``; return the result.

    Fields that an earlier apply of ours had and this one has not are removed, unless others own
    them too.  ``force`` takes over fields that other managers own.  Raises NotServed as long as
    its kind is not served, HyperpodError for a conflict with another manager, else as `served`.
    """
    content = Content(APPLY, json.dumps(document).encode())
    query = {"fieldManager": MANAGER, "force": "true" if force else "false"}
    kind = served(access, reference.api_version).get(reference.kind)
    if kind is None:
        raise not_served(reference)
    with _words(access):
        try:
            return _ask(access, _path(reference, kind), "PATCH", content=content, **query)
        except _package().ApiException as error:
            if refusal := _refusal(reference, error.body):
                raise refusal from None
            if error.status == 409 and "conflict with" in str(error.body):
                raise HyperpodError(
                    f"{reference}: {_message(error.body)}",
                    "Another manager has set these fields. Leave them out of the declaration, or"
                    " let that manager give them up.",
                ) from None
            if error.status == 422 and "immutable" in str(error.body):
                raise HyperpodError(
                    f"{reference}: {_message(error.body)}",
                    "Kubernetes does not change this in place: remove the object from `objects` and"
                    " run create, which deletes it; then declare it again.",
                ) from None
            raise


def delete(access: Access, reference: ObjectReference, uid: str) -> None:
    """Start the deletion of an object, unless it is gone or another has its name now."""
    kind = served(access, reference.api_version).get(reference.kind)
    if kind is None:
        return
    options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
    content = Content(JSON, json.dumps(options).encode())
    with _words(access):
        try:
            _ask(access, _path(reference, kind), "DELETE", content=content)
        except _package().ApiException as error:
            if refusal := _refusal(reference, error.body, deletes=True):
                raise refusal from None
            if error.status != 404 and not (
                error.status == 409 and "Precondition" in str(error.body)
            ):
                raise


_REFUSALS = (
    (
        re.compile(
            r'admission webhook "(?P<name>[^"]+)" denied the request(?:: )?(?P<why>.*)', re.DOTALL
        ),
        "the admission webhook {name} refuses it",
        (
            "Change the object, or ask whoever runs the webhook: `kubectl get"
            " validatingwebhookconfigurations,mutatingwebhookconfigurations -o yaml` has its rules."
        ),
    ),
    (
        re.compile(
            r"ValidatingAdmissionPolicy '(?P<name>[^']+)'(?: with binding '[^']+')? denied request:"
            r" (?P<why>.*)",
            re.DOTALL,
        ),
        "the admission policy {name} refuses it",
        (
            "Change the object, or the policy: `kubectl get validatingadmissionpolicy {name}"
            " -o yaml` has its rules."
        ),
    ),
    (
        re.compile(r'violates PodSecurity "(?P<name>[^"]+)": (?P<why>.*)', re.DOTALL),
        "the Pod Security Standard {name} of its namespace refuses it",
        "Change its security context, or the namespace's label pod-security.kubernetes.io/enforce.",
    ),
    (
        re.compile(r"exceeded quota: (?P<name>[^,]+), (?P<why>.*)", re.DOTALL),
        "it exceeds the quota {name} of its namespace",
        "Raise the quota, or ask for less: `kubectl describe quota {name} -n {namespace}`.",
    ),
    (
        re.compile(r'^namespaces "(?P<name>[^"]+)" not found(?P<why>)$'),
        "its namespace {name} does not exist",
        (
            "Declare it in `objects`, where it is created first, or run `kubectl create namespace"
            " {name}`. Then run the same command again."
        ),
    ),
)
"""What the API server says when something in the cluster refuses an object, and what to do
(kubernetes/apiserver: admission/plugin/webhook/errors, admission/plugin/policy/validating;
kubernetes: plugin/pkg/admission)."""


def _refusal(
    reference: ObjectReference, body: str | bytes | None, *, deletes: bool = False
) -> HyperpodError | None:
    """Return the error about an object that the cluster's own rules refuse, with the fields."""
    message = _message(body)
    for pattern, what, hint in _REFUSALS:
        if (found := pattern.search(message)) and not (deletes and "not found" in message):
            named = {"name": found["name"], "namespace": reference.namespace or DEFAULT}
            fields = dict.fromkeys(filter(None, (text(x, "field") for x in _causes(body))))
            rest = [f" ({', '.join(fields)})" if fields else "", f": {found['why']}"]
            why = "".join(rest if found["why"] else rest[:1])
            return HyperpodError(f"{reference}: {what.format(**named)}{why}", hint.format(**named))
    return None


def _causes(body: str | bytes | None) -> Sequence[JsonMapping]:
    """Return the causes of a Status document, which name fields."""
    with suppress(ValueError):
        return parts(json.loads(body or ""), "details", "causes")
    return []


def deletable_claims(access: Access) -> set[tuple[str, str]]:
    """Return namespace and name of the claims whose delete deletes the data of their volume.

    The volume's reclaim policy says so (Kubernetes documentation, "Persistent Volumes").  Raises
    as `served`.
    """
    with _words(access):
        volumes = list(_list(access, "/api/v1/persistentvolumes"))
    return {
        (text(each, "spec", "claimRef", "namespace"), text(each, "spec", "claimRef", "name"))
        for each in volumes
        if text(each, "spec", "persistentVolumeReclaimPolicy") != "Retain"
    }


def not_served(reference: ObjectReference) -> NotServed:
    """Return the error about a kind that the API server does not serve (yet)."""
    return NotServed(
        f"the Kubernetes API does not serve {reference.kind} of {reference.api_version}"
    )


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _path(reference: ObjectReference, kind: Kind) -> str:
    within = f"/namespaces/{quote(reference.namespace or DEFAULT)}" if kind.namespaced else ""
    return f"{_root(reference.api_version)}{within}/{kind.plural}/{quote(reference.name)}"


#
# metadata.managedFields[].fieldsV1 is a tree of maps: "f:NAME" for a member, "k:{KEYS}" for the
# item of a list with these keys, "v:VALUE" for a value in a set; an empty map owns all below it
# (Kubernetes API reference, FieldsV1).

Fields = Mapping[str, "Fields"]


class Taken(NamedTuple):
    """A declared field that we no longer own."""

    path: str
    managers: tuple[str, ...]
    """Those who own it now; empty if it was removed."""

    def __str__(self) -> str:
        return f"{self.path} ({', '.join(self.managers) or 'removed'})"


def taken(declared: JsonMapping, live: JsonMapping) -> list[Taken]:
    """Return the fields of a declaration that others have changed or removed since we set them.

    Raises HyperpodError for managed fields that are not as the API reference has them.
    """
    ours: Fields | None = None
    others: list[tuple[str, Fields]] = []
    for entry in parts(live, "metadata", "managedFields"):
        manager, fields = text(entry, "manager"), part(entry, "fieldsV1")
        if not _is_tree(fields):
            raise HyperpodError(
                f"{text(live, 'kind')} {text(live, 'metadata', 'name')}: the API server's list of"
                f" the fields that {manager or 'a manager'} owns (metadata.managedFields) cannot be"
                " read",
                "See `kubectl get --show-managed-fields -o yaml`; a program between you and the API"
                " server may have changed it.",
            )
        if (manager, text(entry, "operation")) == (MANAGER, "Apply"):
            ours = fields
        else:
            others.append((manager, fields))
    content = {k: v for k, v in declared.items() if k not in ("apiVersion", "kind", "metadata")}
    named = part(declared, "metadata")
    metadata = {k: v for k, v in named.items() if k not in ("name", "namespace")}
    content |= {"metadata": metadata} if metadata else {}
    lacks = [(name, set(_missing(content, fields))) for name, fields in others]
    return [
        Taken(path, tuple(dict.fromkeys(name for name, without in lacks if path not in without)))
        for path in _missing(content, ours)
    ]


def _is_tree(fields: Json) -> bool:
    """Whether it is such a tree."""
    return isinstance(fields, Mapping) and all(
        _is_key(*name.partition(":")[::2]) and _is_tree(below) for name, below in fields.items()
    )


def _is_key(kind: str, value: str) -> bool:
    if kind not in ("k", "v"):
        return True
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return False
    return kind == "v" or isinstance(found, dict)


def _missing(declared: Json, fields: Fields | None, path: str = "") -> Iterator[str]:
    """Yield the paths of declared values that are not in a tree of fields; None is no tree."""
    if fields is not None and not fields:
        return  # the whole is owned
    if isinstance(declared, Mapping) and declared:
        for name, value in declared.items():
            here = f"{path}.{name}" if path else name
            yield from _missing(value, fields.get(f"f:{name}") if fields else None, here)
    elif isinstance(declared, list) and declared:
        for index, item in enumerate(declared):
            yield from _missing(item, _item(item, fields or {}), f"{path}[{index}]")
    else:
        yield path


def _item(item: Json, fields: Fields) -> Fields | None:
    """Return the subtree of a list's item; a key that it does not declare has a default."""
    for name, below in fields.items():
        kind, _, value = name.partition(":")
        found: Json = json.loads(value) if kind in ("k", "v") else None
        if kind == "v" and found == item:
            return below
        keyed = kind == "k" and isinstance(item, Mapping)
        if keyed and all(item.get(key, given) == given for key, given in found.items()):
            return below
    return None
