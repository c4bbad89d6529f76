"""The HyperPod step: a cluster with instance groups, whose nodes join the EKS cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyperpod_eks.config.groups import InstanceGroup, RestrictedInstanceGroup
from hyperpod_eks.config.request import request
from hyperpod_eks.config.scaling import pooled
from hyperpod_eks.config.section import GROUP, RESTRICTED
from hyperpod_eks.documents import JsonObject
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.fsx import FileSystem
from hyperpod_eks.resources.hyperpod.cluster import SETTINGS, Cluster
from hyperpod_eks.resources.hyperpod.groups import GroupSpecification
from hyperpod_eks.resources.hyperpod.nodes import Nodes
from hyperpod_eks.resources.logs import HyperPodLogGroup
from hyperpod_eks.resources.s3 import LifecycleScripts
from hyperpod_eks.steps.iam import Roles
from hyperpod_eks.steps.network import Network


def step(
    resolved: ResolvedConfig,
    roles: Roles,
    net: Network,
    scripts: LifecycleScripts,
    control: eks.Cluster,
    ready: tuple[Resource, ...],
) -> Nodes:
    """Declare the cluster; ``ready`` are resources without which its nodes cannot start."""
    config = resolved.config
    logs = HyperPodLogGroup("log-group", prefix=f"/aws/sagemaker/Clusters/{resolved.name}/")
    settings = request(config, "CreateCluster.")
    if config.auto_scaling:
        settings["AutoScaling"] = request(config.auto_scaling, "CreateCluster.AutoScaling.")
    groups = tuple(_declared(resolved, group, scripts) for group in config.groups)
    cluster = Cluster(
        "cluster",
        name=resolved.name,
        control=control,
        role=roles.execution,
        scaler=roles.scaler,
        security_group=net.security_group,
        groups=groups,
        zones=tuple(net.nodes.items()),
        settings={member: settings.get(member) for member in SETTINGS},
        scales_itself=config.scales_itself,
        mounts=tuple(_mounts(resolved, groups, ready)),
        pooled=tuple(sorted(pooled(config.auto_scaling, config.objects))),
        after=(roles.service_linked, *net.egress, scripts, *ready, logs),
    )
    return Nodes("nodes", cluster=cluster, control=control)


def _mounts(
    resolved: ResolvedConfig, groups: Sequence[GroupSpecification], ready: Sequence[Resource]
) -> Iterator[tuple[str, FileSystem]]:
    """Yield the file systems that nodes mount, which are the last of their groups' storages."""
    files = {each.label: each for each in ready if isinstance(each, FileSystem)}
    for group in groups:
        names = _mounted(resolved, group.name)
        count = len(group.members.get("InstanceStorageConfigs", ())) - len(names)
        for number, name in enumerate(names, count):
            yield f"{group.name}.instance_storage_configs.{number}", files[name]


def _mounted(resolved: ResolvedConfig, group: str) -> dict[str, str]:
    """Return the paths of the file systems that a group's nodes mount, by name."""
    files = resolved.config.storage.fsx_lustre
    return {name: one.mount_on[group] for name, one in files.items() if group in one.mount_on}


def _declared(
    resolved: ResolvedConfig,
    group: InstanceGroup | RestrictedInstanceGroup,
    scripts: LifecycleScripts,
) -> GroupSpecification:
    """Convert a group of the config to the members of AWS's request."""
    restricted = isinstance(group, RestrictedInstanceGroup)
    members = request(group, RESTRICTED if restricted else GROUP)
    _size_and_encrypt(members, group.ebs_volume_size_in_gb, resolved.config.encryption.volumes)
    for path in _mounted(resolved, group.name).values():
        storages = members.setdefault("InstanceStorageConfigs", [])
        storages.append({"FsxLustreConfig": {"MountPath": path}})
    if not restricted:
        default = {"OnCreate": resolved.config.lifecycle.on_create}
        own = members.pop("LifeCycleConfig", default)
        if own:
            members["LifeCycleConfig"] = {"SourceS3Uri": scripts.uri, **own}
    return GroupSpecification(
        group.name, restricted, members, resolved.homes(group), bool(group.availability_zone_ids)
    )


def _size_and_encrypt(members: JsonObject, size: int | None, key: str | None) -> None:
    """Add a volume of ``size`` if no volume has a size, and set the key of all volumes."""
    storage = [*members.get("InstanceStorageConfigs", ())]
    volumes = [volume for each in storage if (volume := each.get("EbsVolumeConfig"))]
    if size and not any("VolumeSizeInGB" in each for each in volumes):
        volumes.append({"VolumeSizeInGB": size})
        members["InstanceStorageConfigs"] = [*storage, {"EbsVolumeConfig": volumes[-1]}]
    for volume in volumes if key else ():
        volume.setdefault("VolumeKmsKeyId", key)
