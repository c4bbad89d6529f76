"""Compares the devices that nodes offer to pods with those of their instance types."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from hyperpod_eks.aws.ec2 import INSTANCE_TYPES
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.kube.nodes import Node

ACCELERATED = re.compile(r"ml\.(p|g|gr|trn|inf)\d")
GPU, NEURON, EFA = "nvidia.com/gpu", "aws.amazon.com/neuron", "vpc.amazonaws.com/efa"


class Missing(NamedTuple):
    """Ready nodes of a type that offer fewer devices to pods than the type has."""

    instance_type: str
    device: str
    wanted: int
    """The number that the type has."""
    nodes: Sequence[Node]
    ready: int
    """The number of all Ready nodes of the type."""

    def __str__(self) -> str:
        first = self.nodes[0]
        return (
            f"{len(self.nodes)} of {self.ready} Ready {self.instance_type} nodes offer fewer"
            f" {self.device} to pods than the {self.wanted} of the type ({first.name}:"
            f" {_offers(first, self.device)})"
        )


def missing(snapshot: Snapshot, nodes: Sequence[Node]) -> Iterator[Missing]:
    """Yield the devices that Ready nodes of accelerated types lack, by type and device.

    A type's devices are those of EC2 (DescribeInstanceTypes: GpuInfo, NeuronInfo,
    NetworkInfo.EfaInfo), read only if there are such nodes; errors are ignored.
    """
    ready = [node for node in nodes if node.ready and ACCELERATED.match(node.instance_type)]
    for kind in sorted({node.instance_type for node in ready}):
        of_kind = [node for node in ready if node.instance_type == kind]
        for name, count in of_type(snapshot, kind).items():
            least = count if name == GPU else 1
            without = [node for node in of_kind if _offers(node, name) < least]
            if without:
                yield Missing(kind, name, count, without, len(of_kind))


def lacking(snapshot: Snapshot, nodes: Sequence[Node]) -> tuple[str, ...]:
    """Return `missing` as warnings, a line per type and device."""
    return tuple(
        f"{each}: check that the chart's device plugin is on and lists the type"
        for each in missing(snapshot, nodes)
    )


def of_type(snapshot: Snapshot, kind: str) -> Mapping[str, int]:
    """Return the devices that an instance type has, by resource name; {} if that is unknown."""
    return _counted(_described(snapshot, kind))


def neuron_cores(snapshot: Snapshot, kind: str) -> int:
    """Return the number of NeuronCores that an instance type has; 0 if that is unknown."""
    found = (_described(snapshot, kind).get("NeuronInfo") or {}).get("NeuronDevices") or ()
    return sum(x.get("Count", 0) * (x.get("CoreInfo") or {}).get("Count", 0) for x in found)


def _described(snapshot: Snapshot, kind: str) -> JsonMapping:
    with suppress(Exception):
        found: list[JsonMapping] = snapshot.region(INSTANCE_TYPES, ids=[kind.removeprefix("ml.")])
        return found[0]
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
