"""The settings of autoscaling with HyperPod's Karpenter."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Annotated

from pydantic import Field, JsonValue

from hyperpod_eks.config.rules import Aws, Check, Pattern, get
from hyperpod_eks.config.scaling_checks import NODE_CLASS, spec_fault
from hyperpod_eks.config.section import Section
from hyperpod_eks.documents import JsonMapping


class NodePool(Section):
    """A NodePool of Karpenter, with the HyperpodNodeClass that names its groups."""

    name: Annotated[
        str,
        Pattern(
            "the name of a NodePool",
            "at most 63 lowercase letters, digits and hyphens: nodes have it as a label",
            r"(?=.{1,63}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?",
            "choose one like inference",
        ),
        Field(
            description="Name of the NodePool and of its HyperpodNodeClass; nodes have it as the"
            " label `karpenter.sh/nodepool`."
        ),
    ]
    instance_groups: Annotated[
        tuple[str, ...],
        Field(
            strict=False,
            description="Names of the groups, at most 10, whose nodes Karpenter starts; each"
            " has `instance_count: 0` and one zone.",
        ),
    ]
    spec: Annotated[
        Annotated[
            Mapping[str, JsonValue],
            Check("fields of a NodePool's spec but nodeClassRef", spec_fault),
        ],
        Field(
            description="Fields of the NodePool's spec as Karpenter names them (`limits`,"
            " `disruption`, `template`, `weight`), merged over those of AWS's guide: nodes of every"
            " type of the groups, which never expire."
        ),
    ] = {}


class AutoScaling(Section):
    """Nodes by the pods that wait for them: Karpenter, which HyperPod installs."""

    mode: Annotated[
        str,
        Aws("sagemaker", "CreateCluster.AutoScaling.Mode"),
        Field(
            description="`Enable` lets Karpenter decide how many nodes there are; its role is"
            " created."
        ),
    ]
    auto_scaler_type: Annotated[
        Annotated[str, Aws("sagemaker", "CreateCluster.AutoScaling.AutoScalerType")] | None,
        Field(description="The autoscaler; HyperPod has one."),
    ] = None
    node_pools: Annotated[
        tuple[NodePool, ...],
        Field(
            strict=False,
            description="What Karpenter may scale; the counts of other groups stay yours. Without"
            " any, nothing scales until you create a HyperpodNodeClass and a NodePool yourself.",
        ),
    ] = ()


def pooled(scaling: AutoScaling | None, objects: Iterable[JsonMapping]) -> frozenset[str]:
    """Return the groups that node pools name, and HyperpodNodeClasses among the config's objects.

    Karpenter decides how many nodes these have, and about no other group.
    """
    pools = [pool.instance_groups for pool in (scaling.node_pools if scaling else ())]
    for each in objects:
        if (each.get("apiVersion"), each.get("kind")) == NODE_CLASS:
            names = get(dict(each), "spec", "instanceGroups")
            pools.append(tuple(map(str, names)) if isinstance(names, list | tuple) else ())
    return frozenset(chain.from_iterable(pools))
