"""The server's own description of itself, which clients ask for before anything else."""

from __future__ import annotations

from . import openapi
from .objects import Obj
from .resources import Registry, Resource

AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

_SUB_VERBS = {
    "log": ["get"],
    "eviction": ["create"],
    "exec": ["create", "get"],
    "token": ["create"],
    "finalize": ["update"],
}
# Sub-resources whose bodies are of another kind.
_FOREIGN = {
    "eviction": {"group": "policy", "version": "v1", "kind": "Eviction"},
    "exec": {"group": "", "version": "v1", "kind": "PodExecOptions"},
    "scale": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
    "token": {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"},
}


def version_document(version: str) -> Obj:
    """/version for a Kubernetes minor version such as "1.33"."""
    major, minor = version.split(".")[:2]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{major}.{minor}.0-eks-local",
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "2025-01-01T00:00:00Z",
        "goVersion": "go1.24",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def answer(registry: Registry, path: str, *, aggregated: bool, version: str) -> Obj | None:
    """The discovery or OpenAPI document at `path`, or None if there is none.

    `aggregated` asks for apidiscovery.k8s.io/v2 at /api and /apis: everything in two requests
    instead of one for each group version.
    """
    if path in ("/api", "/apis") and aggregated:
        return _aggregated(registry, core=path == "/api")
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        groups = [_group(g, v) for g, v in registry.versions().items() if g]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path == "/openapi/v2":
        info = {"title": "Kubernetes", "version": version}
        return {"swagger": "2.0", "info": info, "paths": {}, "definitions": {}}
    if path == "/openapi/v3":
        return openapi.index(registry)
    return _below_a_group(registry, path.strip("/").split("/"), version)


def _below_a_group(registry: Registry, parts: list[str], version: str) -> Obj | None:
    described = parts[:2] == ["openapi", "v3"]
    match parts[2:] if described else parts:
        case ["apis", group] if group in registry.versions() and not described:
            return {
                "kind": "APIGroup",
                "apiVersion": "v1",
                **_group(group, registry.versions()[group]),
            }
        case ["api", "v1"]:
            resources = registry.of("", "v1")
        case ["apis", group, group_version]:
            resources = registry.of(group, group_version)
        case _:
            return None
    if not resources:
        return None
    return openapi.document(resources, version) if described else _resource_list(resources)


def _group(group: str, versions: list[str]) -> Obj:
    entries = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
    return {"name": group, "versions": entries, "preferredVersion": entries[0]}


def _resource_list(resources: list[Resource]) -> Obj:
    entries: list[Obj] = []
    for r in resources:
        common = {"namespaced": r.namespaced, "kind": r.kind}
        entry = {"name": r.plural, "singularName": r.singular, **common, "verbs": r.verbs}
        entry |= {"shortNames": r.short_names} if r.short_names else {}
        entries.append(entry | ({"categories": r.categories} if r.categories else {}))
        for name in r.subresources:
            entry = {"name": f"{r.plural}/{name}", "singularName": "", **common}
            if foreign := _FOREIGN.get(name):
                entry |= foreign
            entries.append({**entry, "verbs": _sub_verbs(name)})
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": resources[0].group_version,
        "resources": entries,
    }


def _sub_verbs(subresource: str) -> list[str]:
    return _SUB_VERBS.get(subresource, ["get", "patch", "update"])


def _aggregated(registry: Registry, *, core: bool) -> Obj:
    items = []
    for group, versions in registry.versions().items():
        if (group == "") == core:
            entries = [
                {
                    "version": version,
                    "freshness": "Current",
                    "resources": [_aggregated_resource(r) for r in registry.of(group, version)],
                }
                for version in versions
            ]
            items.append({"metadata": {"name": group} if group else {}, "versions": entries})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_resource(r: Resource) -> Obj:
    kind = _group_version_kind(r)
    return {
        "resource": r.plural,
        "responseKind": kind,
        "scope": "Namespaced" if r.namespaced else "Cluster",
        "singularResource": r.singular,
        "verbs": r.verbs,
        "shortNames": r.short_names,
        "categories": r.categories,
        "subresources": [
            {
                "subresource": name,
                "responseKind": _FOREIGN.get(name, kind),
                "verbs": _sub_verbs(name),
            }
            for name in r.subresources
        ],
    }


def _group_version_kind(r: Resource) -> dict[str, str]:
    return {"group": r.group, "version": r.version, "kind": r.kind}
