"""Karpenter's node pools, once the cluster runs the Karpenter that HyperPod installs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from hyperpod_eks.config import objects
from hyperpod_eks.config.scaling import NodePool
from hyperpod_eks.config.scaling_checks import NODE_CLASS, NODE_POOL
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.hyperpod.nodes import Nodes
from hyperpod_eks.resources.karpenter import NodeClass
from hyperpod_eks.resources.kubernetes import Object


def step(resolved: ResolvedConfig, control: eks.Cluster, nodes: Nodes) -> tuple[Object, ...]:
    """Declare a HyperpodNodeClass and then a NodePool for each pool.

    They are deleted, the NodePool first, before the HyperPod cluster: a Karpenter without its
    cluster would delete neither.
    """
    scaling = resolved.config.auto_scaling
    return tuple(
        each
        for pool in (scaling.node_pools if scaling else ())
        for each in _declared(pool, control, nodes)
    )


def _declared(pool: NodePool, control: eks.Cluster, nodes: Nodes) -> Iterator[Object]:
    after: tuple[Nodes | Object, ...] = (nodes,)
    for (version, kind), spec in zip((NODE_CLASS, NODE_POOL), _specs(pool), strict=True):
        document = {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": pool.name},
            "spec": spec,
        }
        node_class = (version, kind) == NODE_CLASS
        declared = (NodeClass if node_class else Object)(
            objects.label(document),
            cluster=control,
            api_version=version,
            object_kind=kind,
            namespace="",
            name=pool.name,
            document=json.dumps(document, sort_keys=True),
            deleted_before=nodes.cluster,
            after=after,
        )
        yield declared
        after = (*after, declared)


def _specs(pool: NodePool) -> tuple[JsonObject, JsonObject]:
    """Return the specs of the HyperpodNodeClass and the NodePool.

    Without overrides the NodePool is that of AWS's guide (SageMaker developer guide, "Create a
    NodePool"); Karpenter has defaults for the rest.
    """
    group = NODE_CLASS[0].partition("/")[0]
    node: JsonObject = {
        "nodeClassRef": {"group": group, "kind": NODE_CLASS[1], "name": pool.name},
        "expireAfter": "Never",
        "requirements": [{"key": "node.kubernetes.io/instance-type", "operator": "Exists"}],
    }
    return (
        {"instanceGroups": list(pool.instance_groups)},
        _merged({"template": {"spec": node}}, pool.spec),
    )


def _merged(base: JsonMapping, over: JsonMapping) -> JsonObject:
    """Return ``base`` with the values of ``over``: mappings are merged, lists replaced."""
    both = {
        name: _merged(base[name], value)
        for name, value in over.items()
        if isinstance(base.get(name), Mapping) and isinstance(value, Mapping)
    }
    return {**base, **over, **both}
