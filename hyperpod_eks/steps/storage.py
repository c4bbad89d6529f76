"""The storage step: file systems, which are created beside the control plane."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpod_eks.config.request import request
from hyperpod_eks.config.storage import LUSTRE, FsxLustre
from hyperpod_eks.config.storage_checks import capacity, throughput
from hyperpod_eks.documents import Json
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.fsx import FileSystem
from hyperpod_eks.resources.hyperpod.diff import leaves
from hyperpod_eks.steps.network import Network


def step(resolved: ResolvedConfig, net: Network) -> tuple[FileSystem, ...]:
    """Declare the file systems, each in the subnet of the nodes in its zone."""
    return tuple(
        _existing(name) if one.file_system_id else _new(resolved, net, name, one)
        for name, one in resolved.config.storage.fsx_lustre.items()
    )


def _existing(name: str) -> FileSystem:
    return FileSystem(name, subnet=None, security_group=None, settings={}, smallest={})


def _new(resolved: ResolvedConfig, net: Network, name: str, one: FsxLustre) -> FileSystem:
    settings = dict(_settings(one))
    least = {
        "storage_capacity": capacity(one),
        "per_unit_storage_throughput": throughput(one),
    }
    return FileSystem(
        name,
        subnet=net.nodes[resolved.file_system_zone(name)],
        security_group=net.security_group,
        settings=settings,
        smallest={k: v for k, v in least.items() if v is not None and k not in settings},
    )


def _settings(one: FsxLustre) -> Iterator[tuple[str, Json]]:
    """Yield the declared settings, nested ones with dots in their names."""
    for prefix in ("CreateFileSystem.", LUSTRE):
        for member, value in request(one, prefix).items():
            yield from leaves(member, value)
    plain = {
        "throughput_capacity": one.throughput_capacity,
        "efa_enabled": one.efa_enabled,
        "copy_tags_to_backups": one.copy_tags_to_backups,
        "file_system_type_version": one.file_system_type_version,
        "kms_key_id": one.kms_key,
    }
    yield from ((name, value) for name, value in plain.items() if value is not None)
