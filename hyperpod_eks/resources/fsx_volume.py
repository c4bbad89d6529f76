"""Volumes of pods on a file system of FSx or EFS: static ones, so that no claim owns data.

A driver deletes what it has provisioned dynamically with its claim.  A static volume with the
policy Retain leaves it alone (aws-fsx-csi-driver, examples/kubernetes/static_provisioning;
aws-efs-csi-driver, examples/kubernetes/static_provisioning; aws-fsx-openzfs-csi-driver,
examples/kubernetes/static-provisioning).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import client as kube
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Fact, Live, NotReady, References, Resource
from hyperpod_eks.resources.fsx import FileSystem
from hyperpod_eks.resources.kubernetes import Object
from hyperpod_eks.resources.permissions import Statements, look

EFS_READS = ("AccessPoints", "MountTargetSecurityGroups", "MountTargets")


@frozen
class Mount:
    """How pods mount a file system: what its volumes say, in the words of its driver."""

    name: str
    """Name of the claims."""
    title: str
    """Name of the StorageClass, with which those of the volumes begin."""
    driver: str
    options: tuple[str, ...] = ()
    handle: str = ""
    """Its volumeHandle; empty if a resource of ours has it."""
    attributes: Mapping[str, str] = field(default_factory=dict)


@frozen
class Volume(Object):
    """A PersistentVolume; what identifies a file system of ours is known once that is ready."""

    file_system: FileSystem | None
    source: str = field(default="", kw_only=True)
    """What identifies an existing file system, as `source_of` returns it; empty for one of ours."""

    kind = "fsx/Volume"
    step = "kubernetes"
    facts = answers = ("digest", "taken", "handle")
    immutable: ClassVar[Mapping[str, str]] = {
        "handle": "Kubernetes does not give a volume another file system; set `namespaces: []`, run"
        " create --yes, which deletes the volumes and no data, and set it back"
    }

    def _live(self, found: JsonMapping, lineage: str) -> Live:
        live = super()._live(found, lineage)
        return replace(
            live, facts={**live.facts, "handle": source_of(kube.part(found, "spec", "csi"))}
        )

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """The reads with which preflight checks existing file systems."""
        if resolved.config.storage.efs:
            yield look("elasticfilesystem", *(f"Describe{each}" for each in EFS_READS))
        if resolved.config.storage.fsx_openzfs:
            yield look("fsx", "DescribeFileSystems")

    def expected(self, name: str, references: References) -> Fact:
        """The file system's id, or as for every object."""
        if name != "handle":
            return super().expected(name, references)
        return references(self.file_system).id if self.file_system else self.source

    def _apply(self, aws: Aws, references: References, *, force: bool = False) -> Live:
        try:
            return super()._apply(aws, references, force=force)
        except NotReady:
            if self.file_system is None:
                raise
            raise HyperpodError(
                f"{self.file_system.key}: FSx does not describe the DNS name and the mount name of"
                f" {references(self.file_system).id}, which its volumes need",
                "Check it with `aws fsx describe-file-systems`, then run the same command again.",
            ) from None

    def resolve_document(self, references: References) -> JsonObject:
        """Add the id, DNS name, mount name and size of a file system of ours."""
        document = super().resolve_document(references)
        if self.file_system is None:
            return document
        live = references(self.file_system)
        about = live.attributes
        if not (about.get("dns_name") and about.get("mount_name")):
            raise NotReady(self.file_system.key)
        document["spec"]["capacity"] = {"storage": f"{about.get('capacity') or 1200}Gi"}
        document["spec"]["csi"] |= {
            "volumeHandle": live.id,
            "volumeAttributes": {"dnsname": about["dns_name"], "mountname": about["mount_name"]},
        }
        return document


def source_of(csi: JsonMapping) -> str:
    """Return what identifies the file system of a volume, and a path that its id does not have."""
    path = kube.text(csi, "volumeAttributes", "VolumePath")
    return " ".join(filter(None, (kube.text(csi, "volumeHandle"), path)))


def storage_class(mount: Mount) -> JsonObject:
    """Return the class that joins volumes and claims; it provisions nothing."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": mount.title},
        "provisioner": "kubernetes.io/no-provisioner",
        "reclaimPolicy": "Retain",
        "volumeBindingMode": "Immediate",
    }


def persistent_volume(mount: Mount, namespace: str) -> JsonObject:
    """Return the volume for one namespace, without what is known only of a file system of ours.

    Kubernetes wants a capacity, which the drivers of EFS and OpenZFS ignore.
    """
    spec: JsonObject = {
        "accessModes": ["ReadWriteMany"],
        "claimRef": {"namespace": namespace, "name": mount.name},
        "csi": {"driver": mount.driver},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": mount.title,
    }
    if mount.options:
        spec["mountOptions"] = list(mount.options)
    if mount.handle:
        spec["capacity"] = {"storage": "1Gi"}
        spec["csi"]["volumeHandle"] = mount.handle
    if mount.attributes:
        spec["csi"]["volumeAttributes"] = dict(mount.attributes)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{mount.title}.{namespace}"},
        "spec": spec,
    }


def volume_claim(mount: Mount, namespace: str) -> JsonObject:
    """Return the claim in one namespace; it asks for 1 GiB, since it gets the whole volume.

    Kubernetes refuses to change the size of a claim of a static volume, which may grow.
    """
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": namespace, "name": mount.name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": mount.title,
            "volumeName": f"{mount.title}.{namespace}",
        },
    }
