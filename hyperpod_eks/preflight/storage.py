"""Checks of file systems: quotas, and the zones of the nodes that would use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hyperpod_eks.preflight.inputs import Facts, Finding
from hyperpod_eks.preflight.quotas import judge
from hyperpod_eks.resolve.file_systems import file_systems
from hyperpod_eks.resources.fsx import FileSystem

HDD = "Lustre Persistent HDD storage capacity"


def quotas(facts: Facts) -> Iterator[Finding]:
    """New file systems must fit the quotas of FSx, by number and by capacity."""
    missing = facts.missing(FileSystem)
    if not missing:
        return
    limits = facts.quotas("fsx")
    adds, there = Counter[str](), Counter[str]()
    for one in missing:
        every = {**one.smallest, **one.settings}
        adds += _used(
            every["deployment_type"], every["storage_type"], every.get("storage_capacity")
        )
    for found in file_systems(facts.snapshot):
        lustre = found.get("LustreConfiguration") or {}
        kind, storage = lustre.get("DeploymentType") or "", found.get("StorageType") or "SSD"
        there += _used(kind, storage, found.get("StorageCapacity"))
    for name, count in adds.items():
        id_ = "quota-file-systems" if name.endswith("systems") else "quota-file-system-capacity"
        yield from judge(id_, "fsx", name, limits, count, there[name])


def _used(kind: str, storage: str, capacity: int | None) -> Counter[str]:
    """Return what a file system adds to each quota (AWS General Reference, FSx quotas)."""
    name = "Scratch" if kind.startswith("SCRATCH") else kind.capitalize()
    size = HDD if storage == "HDD" else f"Lustre {name} storage capacity"
    used = Counter({f"Lustre {name} file systems": 1})
    return used + Counter({size: capacity or 0})


def places(facts: Facts) -> Iterator[Finding]:
    """A file system should be in the zone of some nodes."""
    declared = facts.config.storage.fsx_lustre
    if not declared or facts.resolved is None:
        return
    for name, one in declared.items():
        if one.file_system_id:
            continue
        zone = facts.resolved.file_system_zone(name)
        groups = facts.config.groups
        far = [each.name for each in groups if zone not in facts.resolved.homes(each)]
        if len(far) == len(groups):
            text = f"{name} is in {zone}, and no instance group is: {', '.join(far)}"
            fix = (
                f"Set storage.fsx_lustre.{name}.availability_zone_id to a zone of nodes: traffic"
                " between zones is slower, and AWS bills it."
            )
            seen = {"zone": zone, "groups": far}
            yield Finding("file-system-zones", "warning", text, fix, seen)
