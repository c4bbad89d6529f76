"""Kubernetes objects that the config declares, once nodes can run what checks them."""

from __future__ import annotations

import json

from hyperpod_eks.config import objects
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.eks import Cluster
from hyperpod_eks.resources.kubernetes import Object

NAMESPACE = ("v1", "Namespace")
DEFINITION = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")


def namespaces(
    resolved: ResolvedConfig, cluster: Cluster, access: tuple[Resource, ...]
) -> tuple[Object, ...]:
    """Declare the namespaces, which need no nodes: charts are installed in them."""
    found = resolved.config.objects
    return tuple(_declared(each, cluster, access) for each in found if _kind(each) == NAMESPACE)


def step(
    resolved: ResolvedConfig,
    cluster: Cluster,
    ready: tuple[Resource, ...],
    namespaces: tuple[Object, ...],
) -> tuple[Object, ...]:
    """Declare the other objects after ``ready`` and the namespaces; custom kinds come first."""
    others = [each for each in resolved.config.objects if _kind(each) != NAMESPACE]
    before = (*ready, *namespaces)
    first = [_declared(each, cluster, before) for each in others if _kind(each) == DEFINITION]
    later = [each for each in others if _kind(each) != DEFINITION]
    return (*first, *(_declared(each, cluster, (*before, *first)) for each in later))


def _kind(each: JsonMapping) -> tuple[str, str]:
    return each["apiVersion"], each["kind"]


def _declared(each: JsonMapping, cluster: Cluster, after: tuple[Resource, ...]) -> Object:
    metadata = each["metadata"]
    return Object(
        objects.label(each),
        cluster=cluster,
        api_version=each["apiVersion"],
        object_kind=each["kind"],
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        document=json.dumps(each, sort_keys=True),
        after=after,
    )
