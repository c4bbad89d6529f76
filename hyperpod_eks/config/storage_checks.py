"""Rules of file systems: what FSx for Lustre offers for each deployment type.

Sources: FSx API reference, CreateFileSystem and CreateFileSystemLustreConfiguration, 2026-11; the
steps of capacity with EFA: FSx for Lustre User Guide, "Working with EFA-enabled file systems".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config.group_checks import MAX_STORAGES
from hyperpod_eks.config.objects import fault, label
from hyperpod_eks.config.rules import Finding, get

if TYPE_CHECKING:
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.config.storage import FsxLustre

TIERING = "INTELLIGENT_TIERING"
THROUGHPUT = {
    ("PERSISTENT_1", "SSD"): (50, 100, 200),
    ("PERSISTENT_1", "HDD"): (12, 40),
    ("PERSISTENT_2", "SSD"): (125, 250, 500, 1000),
}
"""MB/s/TiB by deployment and storage type; other pairs take none."""
_STORAGE = {
    "SCRATCH_1": ("SSD",),
    "SCRATCH_2": ("SSD",),
    "PERSISTENT_1": ("SSD", "HDD"),
    "PERSISTENT_2": ("SSD", TIERING),
}
_HDD_STEPS = {12: 6000, 40: 1800}
_EFA_STEPS = {125: 38400, 250: 19200, 500: 9600, 1000: 4800}
"""GiB by throughput."""
_LONGEST = 200
"""Characters of a linked folder: a tag has 256, with the file system's name."""
_VERSIONS = ("2.10", "2.12", "2.15")
_IOPS = (1500, 3000, 6000, *range(12000, 192001, 12000))
_PERSISTENT_ONLY = (
    "kms_key",
    "automatic_backup_retention_days",
    "daily_automatic_backup_start_time",
    "copy_tags_to_backups",
)

PREFIXES = {"fsx_lustre": "fsx", "efs": "efs", "fsx_openzfs": "openzfs"}
"""What names of StorageClasses and volumes begin with, by section."""

Faults = Iterator[tuple[str, str]]
"""A setting and the rest of the message about it."""


def throughput_fault(value: int) -> str:
    """Refuse a throughput that Intelligent-Tiering does not offer (ThroughputCapacity)."""
    if value in (1000, 2000) or (value > 0 and value % 4000 == 0 and value <= 2_000_000):
        return ""
    near = max(4000, round(value / 4000) * 4000)
    return (
        "is not 1000, 2000 or a multiple of 4000 up to 2000000 (CreateFileSystem"
        f" ThroughputCapacity); set {min(near, 2_000_000)}"
    )


def version_fault(value: str) -> str:
    """Refuse versions that FSx does not list (CreateFileSystem FileSystemTypeVersion)."""
    if value in _VERSIONS:
        return ""
    return (
        f"is not {', '.join(_VERSIONS[:-1])} or {_VERSIONS[-1]} (CreateFileSystem"
        f' FileSystemTypeVersion); set "{_VERSIONS[-1]}"'
    )


def path_fault(value: str) -> str:
    """Refuse a folder without the leading slash, and one that a tag cannot have.

    Sources: CreateDataRepositoryAssociation FileSystemPath; Tag Value.
    """
    if value.startswith("/") and len(value) <= _LONGEST and not re.search(r"[^\w\s.:/=+@-]", value):
        return ""
    if value.startswith("/"):
        text = "has other characters than letters, digits, spaces and _.:/=+-@, or more than"
        return f"{text} {_LONGEST} (the link has it as a tag); choose another folder"
    return f"does not begin with / (CreateDataRepositoryAssociation FileSystemPath); set /{value}"


def throughput(one: FsxLustre) -> int | None:
    """Return the throughput per TiB: the declared one, or the lowest that the type offers."""
    offered = THROUGHPUT.get((one.deployment_type, one.storage_type), ())
    return one.per_unit_storage_throughput or (offered[0] if offered else None)


def step(one: FsxLustre) -> int:
    """Return the step of its capacity in GiB; 0 where it has none, or its throughput is wrong."""
    if one.storage_type == TIERING:
        return 0
    if one.efa_enabled:
        return _EFA_STEPS.get(throughput(one) or 0, 0)
    if one.storage_type == "HDD":
        return _HDD_STEPS.get(throughput(one) or 0, 0)
    return 3600 if one.deployment_type == "SCRATCH_1" else 2400


def capacity(one: FsxLustre) -> int | None:
    """Return its capacity in GiB: the declared one, or the smallest; None for one without."""
    smallest = 1200 if step(one) in (2400, 3600) else step(one)
    return one.storage_capacity or smallest or None


def storage(config: Config) -> Iterator[Finding]:
    """Yield contradictions between the settings of file systems, and with other sections."""
    yield from _twice(config)
    yield from _half_volumes(config)
    for name, one in config.storage.fsx_lustre.items():
        loc = ("storage", "fsx_lustre", name)
        for setting, text in _existing(one) if one.file_system_id else _new(config, one):
            at_key = isinstance(getattr(one, setting), Mapping)
            yield Finding((*loc, setting), text, at_key)
        for group, text in _mounts(config, name, one):
            yield Finding((*loc, "mount_on", group), text)
    ours = dict(_objects(config))
    for index, each in enumerate(config.objects):
        if not fault(each) and (owner := ours.get(label(each), "")):
            text = f"declares {label(each)}, which {owner} creates; remove one"
            yield Finding(("objects", index), text)


def _objects(config: Config) -> Faults:
    """Yield the labels of the objects of file systems, with the settings that declare them."""
    for section, prefix in PREFIXES.items():
        for name, one in getattr(config.storage, section).items():
            owner = f"storage.{section}.{name}"
            yield f"storageclass.storage.k8s.io:{prefix}-{name}", owner
            for space in one.namespaces:
                yield f"persistentvolume:{prefix}-{name}.{space}", owner
                yield f"persistentvolumeclaim:{space}:{name}", owner


def _twice(config: Config) -> Iterator[Finding]:
    """Yield the names that two services' file systems have: their claims have them too."""
    known: dict[str, str] = {}
    for section in PREFIXES:
        for name in getattr(config.storage, section):
            if (other := known.setdefault(name, section)) != section:
                text = f"is the name of storage.{other}.{name} too; choose another name"
                yield Finding(("storage", section, name), text, at_key=True)


def _half_volumes(config: Config) -> Iterator[Finding]:
    """Yield OpenZFS volumes without an id or a path: their driver needs both."""
    for name, one in config.storage.fsx_openzfs.items():
        for setting, other in (("volume_id", "volume_path"), ("volume_path", "volume_id")):
            if getattr(one, setting) and not getattr(one, other):
                text = f"needs {other} (aws-fsx-openzfs-csi-driver, static provisioning); set both"
                yield Finding(("storage", "fsx_openzfs", name, setting), text)


def _mounts(config: Config, name: str, one: FsxLustre) -> Faults:
    """The rules of InstanceStorageConfigs, beside those of the groups themselves."""
    groups, others = {group.name: group for group in config.groups}, config.storage.fsx_lustre
    for group, path in one.mount_on.items():
        if group not in groups:
            known = ", ".join(groups)
            yield group, f"{model.show(group)} is no instance group; choose one of: {known}"
            continue
        storages = groups[group].instance_storage_configs
        taken = [get(get(each, "fsx_lustre_config"), "mount_path") for each in storages]
        taken += [get(get(each, "fsx_open_zfs_config"), "mount_path") for each in storages]
        taken += [x.mount_on.get(group) for other, x in others.items() if other != name]
        if path in taken:
            text = f"{path} is the path of another file system on these nodes; choose another path"
            yield group, text
        sizes = [get(get(each, "ebs_volume_config"), "volume_size_in_gb") for each in storages]
        extra = bool(groups[group].ebs_volume_size_in_gb) and not any(sizes)
        count = len(storages) + extra + sum(group in each.mount_on for each in others.values())
        if count > MAX_STORAGES:
            text = f"is one of {count} volumes and file systems of each node of {group}"
            rule = f"CreateCluster InstanceStorageConfigs has at most {MAX_STORAGES}"
            yield group, f"{text} ({rule}); remove one"


def _existing(one: FsxLustre) -> Faults:
    for setting, about in type(one).model_fields.items():
        if (
            setting in ("file_system_id", "namespaces", "mount_on")
            or getattr(one, setting) == about.default
        ):
            continue
        text = "cannot be set together with file_system_id (an existing one is never changed)"
        yield setting, f"{text}; remove one of them"


def _new(config: Config, one: FsxLustre) -> Faults:
    kinds = _STORAGE.get(one.deployment_type, ())
    if kinds and one.storage_type not in kinds:
        known = " or ".join(kinds)
        text = f"is not offered with {one.deployment_type} (CreateFileSystem StorageType)"
        yield "storage_type", f"{model.show(one.storage_type)} {text}; set {known}"
        return
    zones = config.network.availability_zone_ids
    zone = one.availability_zone_id
    if zone and zones and zone not in zones:
        text = f"is not among network.availability_zone_ids ({', '.join(zones)})"
        yield "availability_zone_id", f"{model.show(zone)} {text}; choose one of those"
    yield from _linked(one)
    yield from _throughput(one)
    yield from _capacity(one)
    yield from _tiering(one)
    yield from _metadata(one)
    yield from _versions(one)
    if one.deployment_type.startswith("SCRATCH"):
        for setting in _PERSISTENT_ONLY:
            if getattr(one, setting):
                text = f"is not offered with {one.deployment_type} (it has no backups, and no key"
                yield setting, f"{text} of yours); remove it, or choose PERSISTENT_2"
    if (one.storage_type == "HDD") != (one.drive_cache_type is not None):
        rule = "(CreateFileSystem DriveCacheType)"
        if one.drive_cache_type:
            yield "drive_cache_type", f"is for storage_type HDD only {rule}; remove it"
        else:
            yield "drive_cache_type", f"is missing: HDD storage needs it {rule}; set READ or NONE"


def _linked(one: FsxLustre) -> Faults:
    """The rules of CreateDataRepositoryAssociation."""
    if not one.s3:
        return
    kind, version = one.deployment_type, one.file_system_type_version
    if kind == "SCRATCH_1":
        yield "s3", "is not offered with SCRATCH_1; remove it, or choose SCRATCH_2"
    elif kind != "PERSISTENT_2" and version in (None, "2.10"):
        yield "s3", f'needs Lustre 2.12 or newer with {kind}; set file_system_type_version: "2.15"'
    for setting in ("automatic_backup_retention_days", "copy_tags_to_backups"):
        if getattr(one, setting):
            text = "cannot be set together with s3 (FSx does not back up a linked file system)"
            yield setting, f"{text}; remove one of them"
    paths = [f"{link.file_system_path.rstrip('/')}/" for link in one.s3]
    for index, path in enumerate(paths):
        for other in paths[:index]:
            if path.startswith(other) or other.startswith(path):
                text = f"has the folders {other} and {path}, which overlap; choose others"
                yield "s3", text


def _throughput(one: FsxLustre) -> Faults:
    offered = THROUGHPUT.get((one.deployment_type, one.storage_type), ())
    given = one.per_unit_storage_throughput
    if given is None or given in offered:
        return
    kind = f"{one.deployment_type} with {one.storage_type}"
    rule = "CreateFileSystem PerUnitStorageThroughput"
    if offered:
        fix = f"set {', '.join(map(str, offered[:-1]))} or {offered[-1]}"
        yield "per_unit_storage_throughput", f"{given} is not offered for {kind} ({rule}); {fix}"
    else:
        yield "per_unit_storage_throughput", f"is not taken for {kind} ({rule}); remove it"


def _capacity(one: FsxLustre) -> Faults:
    given, steps = one.storage_capacity, step(one)
    if given is None:
        return
    if one.storage_type == TIERING:
        text = f"is not taken with {TIERING} (it grows by itself)"
        yield "storage_capacity", f"{text}; remove it"
    elif steps and not (given % steps == 0 and given) and not _small(given, steps):
        small = "1200, " if _small(1200, steps) else ""
        small += "2400, " if steps == 3600 else ""
        up = max(steps, -(-given // steps) * steps)
        near = 1200 if given <= 1200 and small else up
        why = f"{small}or a multiple of {steps}" if small else f"a multiple of {steps}"
        kind = f"{one.deployment_type}{' with EFA' if one.efa_enabled else ''}"
        text = f"{given} is not {why} (CreateFileSystem StorageCapacity of {kind})"
        yield "storage_capacity", f"{text}; set {near}"


def _small(given: int, steps: int) -> bool:
    return given in (1200, 2400) and steps in (2400, 3600)


def _tiering(one: FsxLustre) -> Faults:
    for setting in ("throughput_capacity", "data_read_cache_configuration"):
        given = getattr(one, setting)
        if one.storage_type == TIERING and given is None:
            yield setting, f"is missing: {TIERING} needs it (CreateFileSystem); write it"
        elif one.storage_type != TIERING and given is not None:
            yield setting, f"is for storage_type {TIERING} only; remove it"


def _metadata(one: FsxLustre) -> Faults:
    given = one.metadata_configuration
    mode, iops = get(given, "mode"), get(given, "iops")
    setting = "metadata_configuration"
    if given is not None and one.deployment_type != "PERSISTENT_2":
        yield setting, "is for deployment_type PERSISTENT_2 only; remove it"
    elif mode == "AUTOMATIC" and iops is not None:
        yield setting, "has iops with mode AUTOMATIC, which sets them itself; remove iops"
    elif isinstance(iops, int) and iops not in _IOPS:
        text = f"has {iops} iops (1500, 3000, 6000 and multiples of 12000 up to 192000 are offered)"
        yield setting, f"{text}; set {min(_IOPS, key=lambda offered: abs(offered - iops))}"
    if one.efa_enabled and (given is None or one.deployment_type != "PERSISTENT_2"):
        text = "needs deployment_type PERSISTENT_2 with a metadata_configuration"
        yield "efa_enabled", f"{text}; set them, or remove it"
    if one.efa_enabled and one.storage_type == TIERING and (one.throughput_capacity or 0) % 4000:
        text = f"needs a throughput_capacity of 4000 or a multiple with {TIERING}"
        yield "efa_enabled", f"{text}; set that, or remove it"


def _versions(one: FsxLustre) -> Faults:
    given, setting = one.file_system_type_version, "file_system_type_version"
    if given == "2.10" and one.deployment_type == "PERSISTENT_2":
        yield setting, '"2.10" is too old for PERSISTENT_2; set "2.15"'
    if given == "2.12" and one.metadata_configuration is not None:
        yield setting, '"2.12" is too old for a metadata_configuration; set "2.15"'
