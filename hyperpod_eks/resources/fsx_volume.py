"""Volumes of pods on a file system of FSx for Lustre: static ones, so that no claim owns data.

The driver deletes a dynamically provisioned file system with its claim.  A static volume with the
policy Retain leaves it alone (aws-fsx-csi-driver, examples/kubernetes/static_provisioning).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import client as kube
from hyperpod_eks.resources.base import Fact, Live, NotReady, References
from hyperpod_eks.resources.fsx import FileSystem
from hyperpod_eks.resources.kubernetes import Object

DRIVER = "fsx.csi.aws.com"


@frozen
class Volume(Object):
    """A PersistentVolume; what identifies the file system is known once that is ready."""

    file_system: FileSystem

    kind = "fsx/Volume"
    step = "kubernetes"
    facts = answers = ("digest", "taken", "handle")
    immutable: ClassVar[Mapping[str, str]] = {
        "handle": "Kubernetes does not give a volume another file system; set `namespaces: []`, run"
        " create --yes, which deletes the volumes and no data, and set it back"
    }

    def _live(self, found: JsonMapping, lineage: str) -> Live:
        live = super()._live(found, lineage)
        handle = kube.text(found, "spec", "csi", "volumeHandle")
        return replace(live, facts={**live.facts, "handle": handle})

    def expected(self, name: str, references: References) -> Fact:
        """The file system's id, or as for every object."""
        return (
            references(self.file_system).id
            if name == "handle"
            else super().expected(name, references)
        )

    def _apply(self, aws: Aws, references: References, *, force: bool = False) -> Live:
        try:
            return super()._apply(aws, references, force=force)
        except NotReady:
            raise HyperpodError(
                f"{self.file_system.key}: FSx does not describe the DNS name and the mount name of"
                f" {references(self.file_system).id}, which its volumes need",
                "Check it with `aws fsx describe-file-systems`, then run the same command again.",
            ) from None

    def resolve_document(self, references: References) -> JsonObject:
        """Add the file system's id, DNS name, mount name and size."""
        live = references(self.file_system)
        about = live.attributes
        if not (about.get("dns_name") and about.get("mount_name")):
            raise NotReady(self.file_system.key)
        document = super().resolve_document(references)
        document["spec"]["capacity"] = {"storage": f"{about.get('capacity') or 1200}Gi"}
        document["spec"]["csi"] |= {
            "volumeHandle": live.id,
            "volumeAttributes": {"dnsname": about["dns_name"], "mountname": about["mount_name"]},
        }
        return document


def storage_class(name: str) -> JsonObject:
    """Return the class that joins volumes and claims; it provisions nothing."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": f"fsx-{name}"},
        "provisioner": "kubernetes.io/no-provisioner",
        "reclaimPolicy": "Retain",
        "volumeBindingMode": "Immediate",
    }


def persistent_volume(name: str, namespace: str) -> JsonObject:
    """Return the volume for one namespace, without what is known only of the file system."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"fsx-{name}.{namespace}"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "claimRef": {"namespace": namespace, "name": name},
            "csi": {"driver": DRIVER},
            "mountOptions": ["flock"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": f"fsx-{name}",
        },
    }


def volume_claim(name: str, namespace: str) -> JsonObject:
    """Return the claim in one namespace; it asks for 1 GiB, since it gets the whole volume.

    Kubernetes refuses to change the size of a claim of a static volume, which may grow.
    """
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": f"fsx-{name}",
            "volumeName": f"fsx-{name}.{namespace}",
        },
    }
