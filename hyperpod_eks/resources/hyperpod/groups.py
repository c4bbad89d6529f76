"""Instance groups in the declaration of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hyperpod_eks.aws import prices
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.prices import Item
from hyperpod_eks.aws.service_model import to_config
from hyperpod_eks.config.mig import LABEL
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources.base import MINUTE, Differs, NotReady, References
from hyperpod_eks.resources.fsx import FileSystem
from hyperpod_eks.resources.hyperpod.diff import MISSING, THERE, is_image, its, member_of

DEEP_CHECKS = 240 * MINUTE
"""Further seconds for deep health checks: "60 to 90 minutes" or longer, by the number of nodes
(SageMaker developer guide, pages on deep health checks and on autoscaling)."""


KEPT = {
    "InstanceType": "its type",
    "InstanceRequirements": "its types",
    "OverrideVpcConfig": "its zones",
    "CapacityRequirements": "its kind of capacity",
}
"""Members that UpdateCluster cannot change, in words: a change replaces the group."""


@frozen
class GroupSpecification:
    """A group of equal instances (CreateCluster, ClusterInstanceGroupSpecification)."""

    name: str
    restricted: bool
    members: JsonMapping
    """The config's members under AWS's names; ids of other resources are added later."""
    zones: tuple[str, ...]
    placed: bool
    """Whether the config names the zones; otherwise an existing group keeps its own."""

    @property
    def instance_type(self) -> str:
        """The instance type, or the first of several."""
        several = self.members.get("InstanceRequirements", {}).get("InstanceTypes", ())
        return str(self.members.get("InstanceType") or next(iter(several), ""))

    @property
    def instance_count(self) -> int:
        """The declared number of nodes."""
        return int(self.members["InstanceCount"])

    @property
    def ebs_volume_size_in_gb(self) -> int:
        """The total size of a node's extra volumes in GB, 0 for none."""
        return sum(
            each.get("EbsVolumeConfig", {}).get("VolumeSizeInGB", 0)
            for each in self.members.get("InstanceStorageConfigs", ())
        )

    def wanted(self, target: int | None, scaled: bool) -> int:
        """Return how many nodes make it ready: the minimum, Karpenter's target, or the count."""
        least = self.members.get("MinInstanceCount")
        if least is not None:
            return int(least)
        karpenter = scaled and target is not None
        return int(target or 0) if karpenter else self.instance_count

    def prices(self) -> Iterator[Item]:
        """Nodes, their extra volumes and their file systems."""
        kind, count = self.instance_type, self.instance_count
        spot = "Spot" in (self.members.get("CapacityRequirements") or {})
        prepaid = bool(self.members.get("TrainingPlanArn"))
        yield prices.nodes(kind, count, prepaid=prepaid, spot=spot, group=self.name)
        if "FSxLustreConfig" in (self.members.get("EnvironmentConfig") or {}):
            yield Item("FSx for Lustre file system", 1, prices.UNKNOWN)
        if size := self.ebs_volume_size_in_gb:
            yield Item(f"EBS, {size} GB", count, prices.EBS, size, self.name)


def by_list(specs: Sequence[tuple[GroupSpecification, JsonMapping]]) -> JsonObject:
    """Return the request's lists of groups; restricted groups have a separate one."""
    lists = {
        "InstanceGroups": [spec for group, spec in specs if not group.restricted],
        "RestrictedInstanceGroups": [spec for group, spec in specs if group.restricted],
    }
    return {member: specs for member, specs in lists.items() if specs}


LUSTRE = "fsx_lustre_config"
Mounts = tuple[tuple[str, FileSystem], ...]
"""File systems that nodes mount, each with the name of its fact: GROUP.instance_storage_configs.N.
What identifies a file system is known once it exists."""


def mounted(mounts: Mounts, name: str, references: References) -> str | None:
    """Return the declared DNS name or mount name of a mount, None for another fact.

    Raises NotReady for a file system without one.
    """
    for prefix, file_system in mounts:
        if name in (f"{prefix}.{LUSTRE}.dns_name", f"{prefix}.{LUSTRE}.mount_name"):
            found = references(file_system).attributes.get(name.rpartition(".")[2])
            if not found:
                raise NotReady(file_system.key)
            return str(found)
    return None


def mounting(group: GroupSpecification, mounts: Mounts, references: References) -> JsonObject:
    """Return the members of a group with the names of the file systems that it mounts."""
    members = dict(group.members)
    storages: list[JsonObject] = [*members.get("InstanceStorageConfigs", ())]
    for prefix, _ in mounts:
        name, _, number = prefix.partition(".instance_storage_configs.")
        if name == group.name:
            names = {
                member: mounted(mounts, f"{prefix}.{LUSTRE}.{to_config(member)}", references)
                for member in ("DnsName", "MountName")
            }
            here = storages[int(number)]["FsxLustreConfig"]
            storages[int(number)] = {"FsxLustreConfig": {**names, **here}}
            members["InstanceStorageConfigs"] = storages
    return members


def deeply_checked(groups: Sequence[object]) -> list[str]:
    """Return the groups whose new nodes run deep health checks before they accept pods."""
    return [
        group.name
        for group in groups or ()
        if isinstance(group, GroupSpecification) and group.members.get("OnStartDeepHealthChecks")
    ]


def lost_nodes(
    there: Mapping[str, JsonMapping], anew: Sequence[str], differs: Differs
) -> list[str]:
    """Return the nodes that a change removes, a line each; ``anew`` are replaced groups."""
    lines = []
    for name in (each for each in anew if each in there):
        count = there[name].get("CurrentCount", 0)
        changed = [member_of(each) for each in differs if each.startswith(f"{name}.")]
        why = " and ".join(KEPT[m] for m in KEPT if to_config(m) in changed)
        lines.append(f"instance group {name}: {its(count, 'replaced')}, to change {why}")
    for name, (is_, declared) in differs.items():
        group, _, setting = name.partition(".")
        if setting == "instance_count" and declared < (is_ or 0) and group not in anew:
            lines.append(f"instance group {group}: {is_ - declared} of its {is_} nodes go")
        elif not setting and (is_, declared) == (THERE, MISSING):
            count = there[group].get("CurrentCount", 0)
            lines.append(f"instance group {group}: it goes, with {its(count)}")
        elif setting.endswith(LABEL) and (count := there.get(group, {}).get("CurrentCount")):
            lines.append(
                f"instance group {group}: {its(count)} may reboot, since {LABEL} changes, and jobs"
                " on them fail: drain them first"
            )
    renewed = [name.partition(".")[0] for name in differs if is_image(name)]
    return lines + [
        renewal(name, there[name].get("CurrentCount", 0))
        for name in dict.fromkeys(renewed)
        if name not in anew
    ]


def renewal(group: str, count: int) -> str:
    """Return what UpdateClusterSoftware does to a group's nodes.

    Source: "Update the SageMaker HyperPod platform software" in AWS's guide to HyperPod on EKS.
    """
    return (
        f"instance group {group}: {its(count)} get{'s' * (count == 1)} a new image; pods are not"
        " drained, and root volumes are replaced"
    )


def renew(aws: Aws, cluster: str, images: JsonMapping) -> None:
    """Call UpdateClusterSoftware for the groups in ``images``, which share one image."""
    image = next((v for name, v in images.items() if name.endswith(".image_id")), None)
    groups: list[Json] = []
    for name in dict.fromkeys(each.partition(".")[0] for each in images):
        release = images.get(f"{name}.image_release_version")
        groups.append(
            {"InstanceGroupName": name, **({"ImageReleaseVersion": release} if release else {})}
        )
    update: JsonObject = {"ImageId": image} if image else {}
    aws.sagemaker.update_cluster_software(ClusterName=cluster, InstanceGroups=groups, **update)
