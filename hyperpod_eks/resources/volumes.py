"""EBS volumes of PersistentVolumeClaims, which hold data and are therefore kept by default."""

from __future__ import annotations

from collections.abc import Sequence

from hyperpod_eks.aws import prices
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import VOLUMES
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import CLUSTER, owner, tag
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import MINUTE, Lifecycle, Live, Resource, State
from hyperpod_eks.resources.leftovers import kubernetes_arns, owned_by_kubernetes
from hyperpod_eks.resources.permissions import Conditions, Statement, Statements, look

STATES = {
    "available": State.READY,
    "error": State.READY,
    "deleting": State.LEAVING,
    "deleted": State.LEAVING,
}
"""By Volume state (EC2 API, Volume); one that is being created or attached is busy."""
DRIVER = "aws-ebs-csi-driver"
_CLAIM = "kubernetes.io/created-for/pvc/"


@frozen
class Volumes(Resource):
    """EBS volumes that were created for the cluster's PersistentVolumeClaims.

    They have the tag ``kubernetes.io/cluster/NAME`` = ``owned``, which the add-on's driver sets
    with the option ``k8s-tag-cluster-id`` (aws-ebs-csi-driver, docs/tagging.md).  They are in no
    VPC, so nothing else is kept with them.  A snapshot of each is completed before its delete.
    """

    cluster: str

    kind = "leftovers/Volumes"
    step = "network"
    lifecycle = Lifecycle.LEFTOVER
    data = True
    patience = 60 * MINUTE

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on volumes, limited by Kubernetes' tag, and their snapshots.

        A snapshot's ARN has no account, and CreateSnapshot needs it beside the volume's (Service
        Authorization Reference, Amazon EC2).
        """
        yield look("ec2", "DescribeVolumes")
        every, owned = kubernetes_arns(resolved), owned_by_kubernetes(resolved)
        yield Statement("KubernetesLeft", ("ec2:DeleteVolume",), every, owned, "delete")
        if DRIVER not in resolved.config.asked_addons():
            return
        keep = ("ec2:CreateSnapshot", "ec2:CreateTags")
        yield Statement("KubernetesLeft", keep, every, owned, "delete")
        copies = (f"arn:{resolved.identity.partition}:ec2:{resolved.region}::snapshot/*",)
        born: Conditions = {"StringEquals": {f"aws:RequestTag/{CLUSTER}": resolved.name}}
        yield Statement("VolumesBackup", keep, copies, born, "delete")
        yield Statement("VolumesLook", ("ec2:DescribeSnapshots",), command="delete")

    @property
    def source(self) -> str:
        """The EKS cluster, whose controllers create them."""
        return "eks/cluster"

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find them by Kubernetes' tag."""
        tagged = {f"tag:kubernetes.io/cluster/{self.cluster}": ["owned"]}
        return [_live(each) for each in snapshot.region(VOLUMES, tagged)]

    def sign(self, aws: Aws, lives: Sequence[Live]) -> None:
        """Add our tags to volumes that are kept: the manifest may be lost."""
        (made,) = aws.born_with(self.label, "volume")
        aws.ec2.create_tags(Resources=[each.id for each in lives], Tags=made["Tags"])

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it once a snapshot that this run has begun is complete.

        EC2 takes no snapshot of a volume in the state ``error``, whose data is lost.
        """
        if live.why == "error":
            aws.ec2.delete_volume(VolumeId=live.id)
        elif id_ := aws.backups.get(live.id):
            if _is_complete(aws, live.id, id_):
                aws.ec2.delete_volume(VolumeId=live.id)
        else:
            made = aws.ec2.create_snapshot(
                VolumeId=live.id,
                Description=f"{live.id} of {self.cluster}, {live.attributes['claim']}"[:255],
                TagSpecifications=aws.born_with(self.label, "snapshot"),
            )
            aws.backups[live.id] = made["SnapshotId"]

    def holds(self, live: Live) -> str:
        """Return its size and its claim."""
        size = live.attributes["capacity"]
        return ", ".join(filter(None, (f"{size} GiB" if size else "", live.attributes["claim"])))

    def lost_with(self, live: Live) -> str:
        """Return its size and its claim; its snapshot stays."""
        return f"{self.holds(live)}; a final snapshot is created"

    def backups(self, aws: Aws, live: Live) -> list[str]:
        """Return the id of the snapshot of this run."""
        return [aws.backups[live.id]] if live.id in aws.backups else []

    def usd_per_month(self, live: Live) -> float | None:
        """Its storage; IOPS and throughput beyond those of gp3's price are not in it."""
        each, size = prices.VOLUMES.get(live.attributes["type"]), live.attributes["capacity"]
        return each * size if each and size else None


def _is_complete(aws: Aws, volume: str, id_: str) -> bool:
    """Whether a snapshot is complete; raise HyperpodError if it has failed."""
    found: Sequence[JsonMapping] = ()
    with absent("InvalidSnapshot.NotFound"):  # created a moment ago
        found = aws.ec2.describe_snapshots(SnapshotIds=[id_])["Snapshots"]
    state = found[0]["State"] if found else ""
    if state == "error":
        raise HyperpodError(
            f"{volume}: its final snapshot {id_} has failed:"
            f" {found[0].get('StateMessage') or 'EC2 gives no reason'}",
            "The volume is kept. Run the same command again for another snapshot.",
        )
    return bool(state == "completed")


def _live(found: JsonMapping) -> Live:
    tags = found.get("Tags") or ()
    state = found.get("State") or ""
    users = ", ".join(str(each.get("InstanceId")) for each in found.get("Attachments") or ())
    space, name = (tag(tags, f"{_CLAIM}{part}") for part in ("namespace", "name"))
    return Live(
        found["VolumeId"],
        owner=owner(tags),
        state=STATES.get(state, State.BUSY),
        why=f"{found['VolumeId']} is attached to {users}" if users else state,
        attributes={
            "capacity": found.get("Size"),
            "type": found.get("VolumeType"),
            "claim": f"claim {space}/{name}" if space and name else "no claim in its tags",
        },
    )
