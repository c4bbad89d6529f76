"""The contents of a namespace, or the objects of a kind, before they are deleted."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import islice
from typing import NamedTuple
from urllib.parse import quote

from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube.access import Access, _package
from hyperpod_eks.kube.client import METADATA_ONLY, Content, _ask, _list, _words, part, parts, text
from hyperpod_eks.workers import for_each

MERGE = "application/merge-patch+json"
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
"""Aggregated discovery: every kind in two answers (Kubernetes documentation, "The Kubernetes API";
stable since 1.30, and the add-on for task governance needs 1.30)."""
AT_ONCE, MOST, _SHOWN = 8, 10_000, 8
"""Lists at the same time; objects of a kind that are read, and names of a kind that are shown."""
DERIVED = {
    ("", "events"),
    ("events.k8s.io", "events"),
    ("", "endpoints"),
    ("discovery.k8s.io", "endpointslices"),
    ("coordination.k8s.io", "leases"),
}
"""Kinds by group that the control plane writes about other objects."""
METRICS = "metrics.k8s.io"
"""The end of groups whose objects are measurements."""
OWN = {("configmaps", "kube-root-ca.crt"), ("serviceaccounts", "default")}
"""What Kubernetes itself creates in every namespace."""
TOKEN_OF = "kubernetes.io/service-account.name"  # noqa: S105  an annotation
"""Whose token a Secret is; the control plane of Kubernetes before 1.24 wrote those of `default`."""
CLAIMS = "persistentvolumeclaims"
_WORDS = {CLAIMS: ("claim", "claims")}


class Thing(NamedTuple):
    """An object in a namespace."""

    kind: str
    """Its plural, as kubectl has it."""
    singular: str
    name: str
    uid: str


@frozen
class Contents:
    """What is there and would be missed: all but what Kubernetes itself writes."""

    things: frozenset[Thing] = frozenset()
    unread: frozenset[str] = frozenset()
    """Kinds that could not be listed, with the reasons: it is not certain that there are none."""

    def __bool__(self) -> bool:
        return bool(self.things or self.unread)

    def __sub__(self, before: Contents) -> Contents:
        """Return what is here and was not there before; objects are the same by their uid."""
        known = {each.uid for each in before.things}
        new = frozenset(each for each in self.things if each.uid not in known)
        unread = {each.partition(" ")[0] for each in before.unread}
        return Contents(
            new, frozenset(each for each in self.unread if each.partition(" ")[0] not in unread)
        )

    def __str__(self) -> str:
        named: dict[tuple[str, str], list[str]] = defaultdict(list)
        for each in sorted(self.things):
            named[each.kind, each.singular].append(each.name)
        words = [
            f"{_WORDS.get(kind, (singular, kind))[len(names) > 1]} {', '.join(names[:_SHOWN])}"
            + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
            for (kind, singular), names in named.items()
        ]
        words = sorted(words) + [f"perhaps {each}" for each in sorted(self.unread)]
        return "; ".join(words) or "it is empty"


class _Kind(NamedTuple):
    """A kind in namespaces, as the API server serves it."""

    root: str
    plural: str
    singular: str


def contents(
    access: Access, namespace: str, own: Collection[tuple[str, str]] = frozenset()
) -> Contents:
    """Return what is in a namespace: the objects of every kind that can be listed.

    Without what the control plane writes, ``own`` (plurals and names), and what an owner in the
    namespace has created: it is in the answer.  A request for each kind and two for the kinds
    themselves, and further ones where a kind has more than a page.  A kind that cannot be listed
    is in `Contents.unread`.  Raises KubeNotReady if a retry may succeed, HyperpodError for other
    failures, if nothing at all can be listed.
    """
    with _words(access):
        kinds, unread = _kinds(access)
    return _contents(access, kinds, unread, namespace, own)


def objects_of(access: Access, group: str, plurals: Collection[str]) -> Contents:
    """Return the objects of kinds of an API group in all namespaces, as NAMESPACE/NAME.

    None of a kind that is not served.  Else as `contents`.
    """
    with _words(access):
        kinds, unread = _kinds(access)
    root = f"/apis/{group}/"
    chosen = [each for each in kinds if each.root.startswith(root) and each.plural in plurals]
    return _contents(access, chosen, [each for each in unread if group in each])


def _contents(
    access: Access,
    kinds: Sequence[_Kind],
    unread: list[str],
    namespace: str = "",
    own: Collection[tuple[str, str]] = frozenset(),
) -> Contents:
    found: list[tuple[_Kind, JsonMapping]] = []
    failures: list[HyperpodError] = []

    def ask(kind: _Kind) -> None:
        try:
            found.extend((kind, part(each, "metadata")) for each in _some(access, kind, namespace))
        except HyperpodError as error:
            failures.append(error)
            unread.append(f"{kind.plural} ({error})")

    for_each(ask, kinds, AT_ONCE)
    if failures and len(failures) == len(kinds):
        raise failures[0]
    uids = {text(about, "uid") for _, about in found}
    return Contents(
        frozenset(
            Thing(kind.plural, kind.singular, _name(about, namespace), text(about, "uid"))
            for kind, about in found
            if (kind.plural, text(about, "name")) not in {*OWN, *own}
            and text(about, "annotations", TOKEN_OF) != "default"
            and (kind.plural == CLAIMS or not _owners(about) & uids)
        ),
        frozenset(unread),
    )


def _name(about: JsonMapping, namespace: str) -> str:
    name = text(about, "name")
    return name if namespace else f"{text(about, 'namespace')}/{name}"


def _owners(about: JsonMapping) -> set[str]:
    return {text(each, "uid") for each in parts(about, "ownerReferences")}


def _kinds(access: Access) -> tuple[list[_Kind], list[str]]:
    """Return the kinds of the preferred versions, and groups whose kinds may not be known."""
    kinds, unread, known = [], [], set(DERIVED)
    for path in ("/api", "/apis"):
        document = _ask(access, path, accept=DISCOVERY)
        if text(document, "kind") != "APIGroupDiscoveryList":
            raise HyperpodError(
                f"Kubernetes API of {access.cluster}: {path} does not list the kinds in one answer",
                "Kubernetes 1.30 and later do. Upgrade the cluster.",
            )
        for group in parts(document, "items"):
            name = text(group, "metadata", "name")
            if name.endswith(METRICS):
                continue
            for version in parts(group, "versions"):
                root = f"{path}/{name}/{text(version, 'version')}".replace("//", "/")
                if text(version, "freshness") == "Stale":  # its own API server does not answer
                    unread.append(f"kinds of {name} (their API server does not answer)")
                for each in parts(version, "resources"):
                    plural = text(each, "resource")
                    verbs = each.get("verbs")
                    listed = isinstance(verbs, list) and "list" in verbs
                    if text(each, "scope") != "Namespaced" or not listed:
                        continue
                    if (name, plural) not in known:
                        known.add((name, plural))
                        kinds.append(_Kind(root, plural, text(each, "singularResource") or plural))
    return kinds, unread


def _some(access: Access, kind: _Kind, namespace: str) -> list[JsonMapping]:
    """List a kind's objects, their metadata only; none if it is no longer served."""
    inside = f"namespaces/{quote(namespace)}/" if namespace else ""
    path = f"{kind.root}/{inside}{kind.plural}"
    with _words(access):
        try:
            found = [*islice(_list(access, path, METADATA_ONLY), MOST + 1)]
        except _package().ApiException as error:
            if error.status in (404, 405):
                return []
            raise
    if len(found) > MOST:
        raise HyperpodError(f"more than {MOST}")
    return found


def retain_volumes(access: Access, namespace: str) -> None:
    """Keep the volumes of a namespace's claims without the claims.  Raises as `contents`."""
    with _words(access):
        for each in _list(access, "/api/v1/persistentvolumes"):
            spec = part(each, "spec")
            mine = text(spec, "claimRef", "namespace") == namespace
            if mine and text(spec, "persistentVolumeReclaimPolicy") != "Retain":
                _retain(access, each)


def _retain(access: Access, volume: JsonMapping) -> None:
    name = text(volume, "metadata", "name")
    patch = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    content = Content(MERGE, json.dumps(patch).encode())
    try:
        _ask(access, f"/api/v1/persistentvolumes/{name}", "PATCH", content=content)
    except _package().ApiException as error:
        if error.status != 404:
            raise
