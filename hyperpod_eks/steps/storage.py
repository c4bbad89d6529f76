"""The storage step: file systems, created beside the control plane, and their volumes for pods."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from hyperpod_eks.config.objects import label
from hyperpod_eks.config.request import request
from hyperpod_eks.config.storage import LUSTRE, Efs, FsxLustre, FsxOpenZfs
from hyperpod_eks.config.storage_checks import PREFIXES, capacity, throughput
from hyperpod_eks.documents import Json, JsonObject
from hyperpod_eks.resolve.file_systems import openzfs_name
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.eks import Cluster
from hyperpod_eks.resources.fsx import FileSystem
from hyperpod_eks.resources.fsx_link import Link
from hyperpod_eks.resources.fsx_volume import (
    Mount,
    Volume,
    persistent_volume,
    source_of,
    storage_class,
    volume_claim,
)
from hyperpod_eks.resources.hyperpod.diff import leaves
from hyperpod_eks.resources.kubernetes import Object
from hyperpod_eks.steps.network import Network


def step(resolved: ResolvedConfig, net: Network) -> tuple[FileSystem, ...]:
    """Declare the file systems, each in the subnet of the nodes in its zone."""
    return tuple(
        _existing(name) if one.file_system_id else _new(resolved, net, name, one)
        for name, one in resolved.config.storage.fsx_lustre.items()
    )


def links(resolved: ResolvedConfig, files: Sequence[FileSystem]) -> tuple[Link, ...]:
    """Declare the links of file systems to S3."""
    declared = resolved.config.storage.fsx_lustre
    return tuple(
        Link(
            f"{one.label}:{link.file_system_path}",
            file_system=one,
            path=link.file_system_path,
            repository=link.data_repository_path,
            imports=tuple(sorted(set(link.auto_import))),
            exports=tuple(sorted(set(link.auto_export))),
            imports_at_once=link.batch_import_meta_data_on_create,
        )
        for one in files
        for link in declared[one.label].s3
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


def volumes(
    resolved: ResolvedConfig,
    cluster: Cluster,
    files: Sequence[FileSystem],
    access: tuple[Resource, ...],
    namespaces: Mapping[str, Resource],
) -> tuple[Object, ...]:
    """Declare a volume and its claim for each namespace; they need no node.

    A claim is in one namespace, and a volume has one claim.  ``namespaces`` has those that the
    config declares, by name, with what creates them.
    """
    found: list[Object] = []
    for mount, spaces, one in _mounts(resolved, files):
        if not spaces:
            continue
        made = _object(cluster, storage_class(mount), access)
        found.append(made)
        for space in spaces:
            theirs = (namespaces[space],) if space in namespaces else ()
            volume = _volume(cluster, persistent_volume(mount, space), one, (*access, made))
            claim = _object(cluster, volume_claim(mount, space), (*access, volume, *theirs))
            found += [volume, claim]
    return tuple(found)


def _mounts(
    resolved: ResolvedConfig, files: Sequence[FileSystem]
) -> Iterator[tuple[Mount, Sequence[str], FileSystem | None]]:
    """Yield how pods mount each file system, the namespaces of its claims, and the resource."""
    declared = resolved.config.storage
    for one in files:
        title = f"{PREFIXES['fsx_lustre']}-{one.label}"
        mount = Mount(one.label, title, "fsx.csi.aws.com", ("flock",))
        yield mount, declared.fsx_lustre[one.label].namespaces, one
    for name, efs in declared.efs.items():
        yield _efs(name, efs), efs.namespaces, None
    for name, zfs in declared.fsx_openzfs.items():
        yield _openzfs(name, zfs, resolved.config.region), zfs.namespaces, None


def _efs(name: str, one: Efs) -> Mount:
    """aws-efs-csi-driver, examples/kubernetes/access_points: the handle is FS::ACCESS_POINT."""
    handle = "::".join(filter(None, (one.file_system_id, one.access_point_id)))
    return Mount(name, f"{PREFIXES['efs']}-{name}", "efs.csi.aws.com", handle=handle)


def _openzfs(name: str, one: FsxOpenZfs, region: str) -> Mount:
    """aws-fsx-openzfs-csi-driver, examples/kubernetes/static-provisioning."""
    attributes = {"DNSName": openzfs_name(one, region), "ResourceType": "filesystem"}
    if one.volume_path:
        attributes |= {"ResourceType": "volume", "VolumePath": one.volume_path}
    return Mount(
        name,
        f"{PREFIXES['fsx_openzfs']}-{name}",
        "fsx.openzfs.csi.aws.com",
        ("nfsvers=4.1", "rsize=1048576", "wsize=1048576", "timeo=600"),
        one.volume_id or one.file_system_id,
        attributes,
    )


def _volume(
    cluster: Cluster, document: JsonObject, one: FileSystem | None, after: tuple[Resource, ...]
) -> Volume:
    place = document["metadata"]["name"]
    return Volume(
        f"persistentvolume:{place}",
        cluster=cluster,
        api_version="v1",
        object_kind="PersistentVolume",
        namespace="",
        name=place,
        document=json.dumps(document, sort_keys=True),
        file_system=one,
        source="" if one else source_of(document["spec"]["csi"]),
        after=after,
    )


def _object(cluster: Cluster, document: JsonObject, after: tuple[Resource, ...]) -> Object:
    metadata = document["metadata"]
    return Object(
        label(document),
        cluster=cluster,
        api_version=document["apiVersion"],
        object_kind=document["kind"],
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        document=json.dumps(document, sort_keys=True),
        after=after,
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
