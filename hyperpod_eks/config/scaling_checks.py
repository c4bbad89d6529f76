"""The rules of node pools (SageMaker developer guide, "Create a NodeClass")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config import objects
from hyperpod_eks.config.rules import Finding, get
from hyperpod_eks.documents import JsonMapping

if TYPE_CHECKING:
    from hyperpod_eks.config.groups import InstanceGroup
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.config.scaling import NodePool
    from hyperpod_eks.config.yaml import Loc

_FIELDS = ("disruption", "limits", "replicas", "template", "weight")
"""The fields of a NodePool's spec (Karpenter, "NodePools"; its definition karpenter.sh/v1)."""
MOST_GROUPS = 10
_GUIDE = 'SageMaker developer guide, "Create a NodeClass"'
NODE_CLASS = ("karpenter.sagemaker.amazonaws.com/v1", "HyperpodNodeClass")
NODE_POOL = ("karpenter.sh/v1", "NodePool")
"""API versions and kinds."""


def spec_fault(spec: JsonMapping) -> str:
    """Refuse what is no field of a NodePool's spec, and another node class."""
    for name in spec:
        if name not in _FIELDS:
            near = model.nearest(name, _FIELDS)
            fix = f"did you mean {near[0]}?" if near else f"known are {', '.join(_FIELDS)}"
            return f"has {name} (a NodePool of karpenter.sh/v1 has no such field); {fix}"
    for name in ("disruption", "limits", "template"):
        if not isinstance(spec.get(name, {}), Mapping):
            return f"has {name} that is not a mapping; write its fields"
    disruption = spec.get("disruption")
    if isinstance(disruption, Mapping) and "consolidateAfter" not in disruption:
        return "has disruption without consolidateAfter (a NodePool needs it); set one like 0s"
    template = get(dict(spec), "template")
    for name in ("metadata", "spec"):
        if not isinstance((template or {}).get(name, {}), Mapping):
            return f"has template.{name} that is not a mapping; write its fields"
    if get(template, "spec", "nodeClassRef") is not None:
        return (
            "has template.spec.nodeClassRef (the node class of instance_groups is created with the"
            " pool); remove it"
        )
    return ""


def node_pools(config: Config) -> Iterator[Finding]:
    """Each pool has groups that Karpenter can scale, and no group is in two pools."""
    scaling = config.auto_scaling
    if scaling is None or not scaling.node_pools:
        return
    here: Loc = ("auto_scaling", "node_pools")
    if scaling.mode != "Enable":
        text = f"are given with mode {model.show(scaling.mode)} (CreateCluster AutoScaling)"
        yield Finding(here, f"{text}; set mode: Enable, or remove them", True)
    if config.node_recovery != "Automatic":
        text = f"{model.show(config.node_recovery)} is not Automatic, which node pools need"
        rule = 'SageMaker developer guide, "Autoscaling on SageMaker HyperPod EKS", prerequisites'
        yield Finding(("node_recovery",), f"{text} ({rule}); set Automatic")
    names: set[str] = set()
    declared = {objects.label(each) for each in config.objects if not objects.fault(each)}
    owners: dict[str, str] = {}
    for index, pool in enumerate(scaling.node_pools):
        loc = (*here, index)
        if pool.name and pool.name in names:
            text = f"{model.show(pool.name)} is the name of an earlier pool; choose another"
            yield Finding((*loc, "name"), text)
        names.add(pool.name)
        for version, kind in (NODE_CLASS, NODE_POOL):
            own = {"apiVersion": version, "kind": kind, "metadata": {"name": pool.name}}
            if objects.label(own) in declared:
                text = f"{model.show(pool.name)} is a {kind} in `objects` as well; keep one"
                yield Finding((*loc, "name"), text)
        yield from _groups(config, pool, (*loc, "instance_groups"), owners)


def _groups(config: Config, pool: NodePool, loc: Loc, owners: dict[str, str]) -> Iterator[Finding]:
    count = len(pool.instance_groups)
    if not 1 <= count <= MOST_GROUPS:
        text = f"has {count} groups (a HyperpodNodeClass has 1 to {MOST_GROUPS}: {_GUIDE})"
        yield Finding(loc, f"{text}; list 1 to {MOST_GROUPS}", True)
    known = {group.name: i for i, group in enumerate(config.instance_groups)}
    restricted = {group.name for group in config.restricted_instance_groups}
    for place, name in enumerate(pool.instance_groups):
        if not name:
            continue
        if name in restricted:
            text = f"{model.show(name)} is a restricted group (Karpenter scales instance_groups)"
            yield Finding((*loc, place), f"{text}; remove it")
        elif name not in known:
            fix = _nearest(name, [*known])
            text = f"{model.show(name)} is not in instance_groups (a NodeClass maps groups of this"
            yield Finding((*loc, place), f"{text} cluster); {fix}")
        elif name in owners:
            text = f"{model.show(name)} is listed already, in {owners[name]}; keep one"
            yield Finding((*loc, place), text)
        else:
            group = config.instance_groups[known[name]]
            for setting, text in _unscalable(group, pool.name):
                yield Finding(("instance_groups", known[name], setting), text)
        owners.setdefault(name, pool.name)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = model.nearest(name, tuple(known))
    return f"did you mean {near[0]}?" if near else f"choose {' or '.join(known[:5])}"


def _unscalable(group: InstanceGroup, pool: str) -> Iterator[tuple[str, str]]:
    """Yield the settings with which Karpenter does not scale a group, with their faults."""
    why = f"node pool {pool}, {_GUIDE}"
    if group.instance_count:
        text = f"{group.instance_count} is not 0 (Karpenter scales others down to 0: {why})"
        yield "instance_count", f"{text}; set 0, or take the group out of the pool"
    if group.on_start_deep_health_checks:
        text = f"are not supported with Karpenter (pods would wait an hour or longer: {why})"
        yield "on_start_deep_health_checks", f"{text}; remove them, or the group from the pool"
    if group.training_plan_arn:
        text = f"is not supported with Karpenter ({why})"
        yield "training_plan_arn", f"{text}; remove it, or the group from the pool"
    if len(group.availability_zone_ids) > 1:
        text = f"names {len(group.availability_zone_ids)} zones (one with Karpenter: {why})"
        yield "availability_zone_ids", f"{text}; declare a group for each"
