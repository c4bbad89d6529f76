"""Ways to lose a file system or a volume of a claim: none of them does without consent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from moto.ec2.models import ec2_backends

from hyperpod_eks import session as session_of
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.fsx import of_region
from hyperpod_eks.local.aws.sim import ACCOUNT, Fault
from tests.conftest import REGION, Clients, User

BASE = "name: demo\nregion: us-west-2\n"
CREATE = ("create", "-f", "c.yaml", "--chart", str(CHART), "--yes")
DELETE = ("delete", "demo", "--yes")


def declares(user: User, **settings: Any) -> None:
    """Write the config with these settings of the file system, and create."""
    document = json.dumps({"storage": {"fsx_lustre": {"data": settings}}})[1:-1]
    (user.folder / "c.yaml").write_text(BASE + document)
    user.types(*CREATE)


def leaves_out(user: User) -> None:
    (user.folder / "c.yaml").write_text(BASE)
    user.types(*CREATE)


def renames(user: User) -> None:
    path = user.folder / "c.yaml"
    path.write_text(path.read_text().replace("data", "other"))
    user.types(*CREATE)


def forgets(user: User, *words: str) -> None:
    """Lose the manifest with its copies; then type a command."""
    for path in user.folder.iterdir():
        if "hyperpod-eks" in path.name:
            path.unlink() if path.is_file() else shutil.rmtree(path)
    user.types(*words)


def types(*commands: tuple[str, ...]) -> Callable[[User], None]:
    def way(user: User) -> None:
        for words in commands:
            user.types(*words)

    return way


def fails(user: User, service: str, operation: str, times: int = 99) -> None:
    """Delete while AWS refuses a call, then once more while it does not."""
    code = "AccessDenied" if service != "ec2" else "UnauthorizedOperation"
    user.stack.sim.faults.append(Fault(service, operation, code, 403, "not you", times))
    user.types(*DELETE)
    user.stack.sim.faults.clear()
    user.types(*DELETE)


def dies(user: User, service: str, operation: str) -> None:
    """The answer of a delete's call is lost, and AWS fails until the run ends."""
    user.stack.sim.faults.append(Fault(service, operation, kind="lost"))
    user.types(*DELETE, "--timeout", "0.2")
    user.types(*DELETE)


def becomes_failed(user: User) -> None:
    for one in of_region(REGION).systems.values():
        one["Lifecycle"] = "FAILED"
    user.types(*CREATE, "--replace-failed")
    user.types(*DELETE)


def loses_its_tags(user: User) -> None:
    for one in of_region(REGION).systems.values():
        one["Tags"] = []
    user.types(*DELETE, "--timeout", "0.2")  # its interfaces are waited for


def consents_to_others(user: User) -> None:
    with session_of.connect("c.yaml") as cluster:
        cluster.delete(data=frozenset({"fs-0123456789abcdef0", "vol-0123456789abcdef0"}))


def follows_orphans(user: User) -> None:
    """Delete, lose the manifest, and type what orphans prints."""
    user.types(*DELETE)
    forgets(user)
    document = user.types("orphans", "-o", "json").document
    assert {row["kind"] for row in document["orphans"]} >= {"file-system", "volume"}
    for line in document["next"]:
        user.types(*line.split()[1:], "--yes", "--region", REGION)


def is_interrupted(user: User) -> None:
    """A delete stops in the middle; the cluster is created again and deleted."""
    user.types(*DELETE, "--timeout", "0.05")
    user.types(*CREATE)
    user.types(*DELETE)


def races(user: User) -> None:
    """Another machine deletes with a manifest of its own at the same time as this one."""
    with session_of.connect("c.yaml") as cluster:
        forgets(user, *DELETE, "--region", REGION)
        try:
            cluster.delete()
        except HyperpodError:
            user.types(*DELETE, "--region", REGION)


WAYS: dict[str, Callable[[User], None]] = {
    "delete": types(DELETE),
    "delete twice": types(DELETE, DELETE),
    "delete with the file": types(("delete", "-f", "c.yaml", "--yes")),
    "delete that keeps others": types((*DELETE, "--keep", "bucket,logs")),
    "delete that keeps the network": types((*DELETE, "--keep", "network"), DELETE),
    "data without consent": types(("delete", "demo", "--delete-data")),
    "a dry run": types((*DELETE, "--delete-data", "--dry-run")),
    "data of another run": types((*DELETE, "--delete-data", "--if-created-by", "7")),
    "left out": leaves_out,
    "renamed": renames,
    "smaller": lambda user: declares(user, storage_capacity=1200),
    "of another kind": lambda user: declares(user, deployment_type="SCRATCH_2"),
    "in another zone": lambda user: declares(user, availability_zone_id="usw2-az2"),
    "as an existing one": lambda user: declares(user, file_system_id=next(iter(files()))),
    "no namespaces": lambda user: declares(user, storage_capacity=2400, namespaces=[]),
    "no nodes": types(("scale", "demo", "worker-group=0", "--yes"), DELETE),
    "the manifest is lost": lambda user: forgets(user, *DELETE, "--region", REGION),
    "created again without it": lambda user: forgets(user, *CREATE),
    "rebuilt without it": lambda user: forgets(user, "adopt", "demo", "--rebuild"),
    "as orphans says": follows_orphans,
    "it has failed": becomes_failed,
    "its tags are lost": loses_its_tags,
    "consent to others": consents_to_others,
    "file systems are hidden": lambda user: fails(user, "fsx", "DescribeFileSystems"),
    "volumes are hidden": lambda user: fails(user, "ec2", "DescribeVolumes"),
    "EKS is not deleted": lambda user: fails(user, "eks", "DeleteCluster"),
    "the answer about EKS is lost": lambda user: dies(user, "eks", "DeleteCluster"),
    "the answer about HyperPod is lost": lambda user: dies(user, "sagemaker", "DeleteCluster"),
    "interrupted": is_interrupted,
    "two machines": races,
}
SAMPLE = ("delete twice", "left out")


def files() -> dict[str, Any]:
    return dict(of_region(REGION).systems)


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=() if way in SAMPLE else pytest.mark.prove) for way in WAYS],
)
def test_no_way_loses_data(user: User, session: boto3.Session, way: str) -> None:
    document = json.dumps({"storage": {"fsx_lustre": {"data": {"storage_capacity": 2400}}}})
    (user.folder / "c.yaml").write_text(BASE + document[1:-1])
    user.has("demo", "-f", "c.yaml")
    tags = [{"Key": "kubernetes.io/cluster/demo", "Value": "owned"}]
    volume = Clients(session, user.stack.endpoint).ec2.create_volume(
        AvailabilityZone="us-west-2a",
        Size=8,
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )["VolumeId"]
    (id_,) = files()
    WAYS[way](user)
    assert files()[id_]["Lifecycle"] in ("AVAILABLE", "FAILED")
    assert volume in ec2_backends[ACCOUNT][REGION].volumes
    ec2 = user.stack.inventory()[REGION]["ec2"]
    assert {files()[id_]["VpcId"], *files()[id_]["SubnetIds"]} <= {*ec2["Vpcs"], *ec2["Subnets"]}
