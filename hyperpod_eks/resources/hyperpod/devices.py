"""Compares the devices that nodes offer to pods with those of their instance types."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from hyperpod_eks.aws.ec2 import INSTANCE_TYPES
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.kube.nodes import Node

ACCELERATED = re.compile(r"ml\.(p|g|gr|trn|inf)\d")
GPU, NEURON, EFA = "nvidia.com/gpu", "aws.amazon.com/neuron", "vpc.amazonaws.com/efa"


def lacking(snapshot: Snapshot, nodes: Sequence[Node]) -> tuple[str, ...]:
    """Return devices that Ready nodes of accelerated types lack, a line per type and device.

    A type's devices are those of EC2 (DescribeInstanceTypes: GpuInfo, NeuronInfo,
    NetworkInfo.EfaInfo), read only if there are such nodes; errors are ignored.
    """
    ready = [node for node in nodes if node.ready and ACCELERATED.match(node.instance_type)]
    lines = []
    for kind in sorted({node.instance_type for node in ready}):
        of_kind = [node for node in ready if node.instance_type == kind]
        for name, count in _devices(snapshot, kind).items():
            least = count if name == GPU else 1
            without = [node for node in of_kind if _offers(node, name) < least]
            if without:
                lines.append(
                    f"{len(without)} of {len(of_kind)} Ready {kind} nodes offer fewer {name} to"
                    f" pods than the {count} of the type ({without[0].name}:"
                    f" {_offers(without[0], name)}): check that the chart's device plugin is on and"
                    " lists the type"
                )
    return tuple(lines)


def _devices(snapshot: Snapshot, kind: str) -> Mapping[str, int]:
    with suppress(Exception):
        (found,) = snapshot.region(INSTANCE_TYPES, ids=[kind.removeprefix("ml.")])
        return _counted(found)
    return {}


def _counted(found: JsonMapping) -> dict[str, int]:
    gpus = (found.get("GpuInfo") or {}).get("Gpus") or ()
    neurons = (found.get("NeuronInfo") or {}).get("NeuronDevices") or ()
    efa = (found.get("NetworkInfo") or {}).get("EfaInfo") or {}
    counts = {
        GPU: sum(each.get("Count", 0) for each in gpus if each.get("Manufacturer") == "NVIDIA"),
        NEURON: sum(each.get("Count", 0) for each in neurons),
        EFA: efa.get("MaximumEfaInterfaces") or 0,
    }
    return {name: count for name, count in counts.items() if count}


def _offers(node: Node, name: str) -> int:
    """Return the number of a node's devices of a name; Neuron devices have several names.

    A node with partitioned GPUs (nvidia.com/mig-...) counts as having all of them.
    """
    if name == GPU and any(each.startswith("nvidia.com/mig-") for each in node.devices):
        return sys.maxsize
    if name == NEURON:
        return max((n for each, n in node.devices.items() if each.startswith(NEURON)), default=0)
    return node.devices.get(name, 0)
