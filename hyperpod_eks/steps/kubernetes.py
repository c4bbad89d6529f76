"""Kubernetes objects that the config declares, once nodes can run what checks them."""

from __future__ import annotations

import json

from hyperpod_eks.config import objects
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.eks import Cluster
from hyperpod_eks.resources.kubernetes import Object

FIRST = frozenset({("v1", "Namespace"), ("apiextensions.k8s.io/v1", "CustomResourceDefinition")})
"""The kinds without which others cannot be created."""


def step(
    resolved: ResolvedConfig, cluster: Cluster, ready: tuple[Resource, ...]
) -> tuple[Object, ...]:
    """Declare the objects after ``ready``; namespaces and custom kinds come before others."""
    first: list[Object] = []
    others = []
    for each in resolved.config.objects:
        if (each["apiVersion"], each["kind"]) in FIRST:
            first.append(_declared(each, cluster, ready))
        else:
            others.append(each)
    return (*first, *(_declared(each, cluster, (*ready, *first)) for each in others))


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
