"""What an instance type of HyperPod has, from the EC2 data that moto carries."""

from __future__ import annotations

import re
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES


def _facts(instance_type: str) -> dict[str, Any]:
    facts: dict[str, Any] = INSTANCE_TYPES.get(instance_type.removeprefix("ml."), {})
    return facts


def has_efa(instance_type: str) -> bool:
    """Say whether instances of this type talk through EFA."""
    return bool((_facts(instance_type).get("NetworkInfo") or {}).get("EfaSupported"))


def accelerators(instance_type: str) -> dict[str, int]:
    """Return the accelerators by Kubernetes resource name: ``{"nvidia.com/gpu": 8}``."""
    facts = _facts(instance_type)
    gpus = (facts.get("GpuInfo") or {}).get("Gpus", ())
    counts = {
        "nvidia.com/gpu": sum(g["Count"] for g in gpus if g["Manufacturer"] == "NVIDIA"),
        "aws.amazon.com/neuron": sum(
            device["Count"] for device in (facts.get("NeuronInfo") or {}).get("NeuronDevices", ())
        ),
    }
    return {name: count for name, count in counts.items() if count}


def capacity(instance_type: str) -> dict[str, str]:
    """Return a Kubernetes node's capacity: quantities by resource name.

    Pods are as many as one network interface has secondary addresses, since HyperPod's CNI uses
    one interface (SageMaker developer guide, "Prerequisites for EKS orchestration").
    """
    facts = _facts(instance_type)
    network = facts.get("NetworkInfo") or {}
    found = {
        "cpu": str((facts.get("VCpuInfo") or {}).get("DefaultVCpus", 8)),
        "memory": f"{(facts.get('MemoryInfo') or {}).get('SizeInMiB', 32768)}Mi",
        "pods": str(network.get("Ipv4AddressesPerInterface", 30) - 1),
        **{name: str(count) for name, count in accelerators(instance_type).items()},
    }
    if efa := (network.get("EfaInfo") or {}).get("MaximumEfaInterfaces"):
        found["vpc.amazonaws.com/efa"] = str(efa)
    return found


def divided(instance_type: str, mig: str) -> dict[str, str]:
    """Return a node's capacity once NVIDIA's operator has divided its GPUs (strategy mixed).

    ``mig`` is the label nvidia.com/mig.config; of its values only ``all-PROFILE`` is known here.
    How often a profile fits: NVIDIA Multi-Instance GPU User Guide, "Supported MIG Profiles".
    """
    amounts = capacity(instance_type)
    gpus = (_facts(instance_type).get("GpuInfo") or {}).get("Gpus") or ()
    found = re.fullmatch(r"all-((\d)g\.(\d+)gb)", mig)
    if not found or not gpus:
        return amounts
    parts = {"1": 7, "2": 3, "3": 2}.get(found[2], 1)
    if found[2] == "1" and int(found[3]) * 7 > gpus[0]["MemoryInfo"]["SizeInMiB"] / 1000:
        parts = 4
    whole = int(amounts.pop("nvidia.com/gpu"))
    return {**amounts, f"nvidia.com/mig-{found[1]}": str(whole * parts)}
