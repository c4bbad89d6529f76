"""The manifest survives failures of its writer, its file and its folder."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks import __version__
from hyperpod_eks.errors import Locked, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.local import CHART
from hyperpod_eks.resources.base import KINDS, Live
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.state.codec import pack
from hyperpod_eks.state.file_store import BACKUPS, FileStore, locked
from hyperpod_eks.state.manifest import Manifest, read
from hyperpod_eks.state.record import Record
from hyperpod_eks.state.store import Unwritable
from tests.conftest import User

VPC = Vpc("vpc", cidr="10.0.0.0/16")
SUBNET = Subnet("private-subnet-usw2-az1", vpc=VPC, cidr="10.0.0.0/18", zone="usw2-az1")

# a writer that is killed at its n-th file operation
WRITER = """
import os, sys
from pathlib import Path
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.manifest import read
from hyperpod_eks.steps.network import Vpc

path, fuse = Path(sys.argv[1]), int(sys.argv[2])
manifest = read(FileStore(path), "demo")
count = 0

def hook(event, args):
    global count
    if event in {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.scandir"}:
        count += 1
        if count == fuse:
            os._exit(137)

sys.addaudithook(hook)
manifest.intend(Vpc("vpc", cidr="10.0.0.0/16"), 5.0)
manifest.commit()
os._exit(0)
"""


def a_manifest(path: Path) -> Manifest:
    manifest = Manifest(FileStore(path), "demo", "111122223333", "us-west-2", "abc")
    manifest.save()
    return manifest


def file_of(manifest: Manifest) -> Path:
    assert isinstance(manifest.store, FileStore)
    return manifest.store.path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "demo.json")
    manifest.intend(VPC, 1.0)
    manifest.record(VPC, Live("vpc-1", "arn:vpc-1"), "ready", 2.0)
    manifest.intend(SUBNET, 3.0)
    manifest.commit()
    again = read(FileStore(file_of(manifest)), "demo")
    assert again.records == manifest.records
    assert again.remembered() == {VPC.key: VPC, SUBNET.key: SUBNET}
    assert (again.records[VPC.key].unsure, again.records[SUBNET.key].unsure) == (False, True)


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "demo.json")
    assert file_of(manifest).stat().st_mode & 0o777 == 0o600


def test_a_birth_keeps_its_token_until_it_is_resolved(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "demo.json")
    token = manifest.intend(VPC, 1.0)
    manifest.commit()
    assert read(FileStore(file_of(manifest)), "demo").intend(VPC, 99.0) == token
    manifest.record(VPC, Live("vpc-1"), "ready", 2.0)
    manifest.commit()
    assert manifest.intend(VPC, 99.0) != token
    assert len(token) <= 64


def test_the_last_ten_versions_are_kept(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "demo.json")
    for now in range(20):
        manifest.record(VPC, Live(f"vpc-{now}"), "ready", float(now))
        manifest.commit()
    kept = sorted((tmp_path / ".demo.json.backups").glob("*.json"))
    assert len(kept) == BACKUPS
    serials = [json.loads(each.read_text())["serial"] for each in kept]
    assert serials == list(range(manifest.serial - BACKUPS, manifest.serial))


def test_a_lock_is_free_though_a_program_being_started_still_has_it(tmp_path: Path) -> None:
    """Between fork and exec a child has every descriptor, on a busy machine for some time."""
    path = tmp_path / "demo.json"
    with locked(path):
        links = {int(each.name): each for each in Path("/proc/self/fd").iterdir()}
        lock = str(path.with_name("demo.json.lock"))
        (held,) = (n for n, each in links.items() if os.path.realpath(each) == lock)
        forked = os.dup(held)
    try:
        with locked(path):
            pass
    finally:
        os.close(forked)


def test_a_killed_writer_leaves_the_old_or_the_new_version(tmp_path: Path) -> None:
    outcomes = []
    for fuse in range(1, 30):
        folder = tmp_path / str(fuse)
        folder.mkdir()
        before = a_manifest(folder / "demo.json").records
        done = subprocess.run(
            [sys.executable, "-c", WRITER, str(folder / "demo.json"), str(fuse)], check=False
        )
        records = read(FileStore(folder / "demo.json"), "demo").records
        assert records == before or set(records) == {VPC.key}
        outcomes.append((done.returncode, len(records)))
        if done.returncode == 0:
            break
    assert outcomes[0] == (137, 0)
    assert outcomes[-1] == (0, 1)
    assert len(outcomes) > 4  # more than one kill hit a save


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is broken"),
        ('{"schema": "hyperpod-eks/manifest/v1", "clus', "is broken"),
        ("[]", "is broken"),
        ('{"schema": "hyperpod-eks/manifest/v3"}', "reads up to 'hyperpod-eks/manifest/v2'"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_a_way_back(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "demo.json"
    path.write_text(text)
    with pytest.raises(Usage, match=says) as caught:
        read(FileStore(path), "demo")
    assert caught.value.hint
    assert path.read_text() == text


@pytest.mark.parametrize("since", [-1e300, 1e300, -1.0, 253402300800])
def test_a_time_that_no_calendar_has_breaks_a_manifest(tmp_path: Path, since: float) -> None:
    manifest = a_manifest(tmp_path / "demo.json")
    manifest.record(VPC, Live("vpc-1"), "ready", since)
    manifest.commit()
    with pytest.raises(Usage, match="is broken"):
        read(FileStore(file_of(manifest)), "demo")


@pytest.mark.parametrize("seconds", [-1.0, 10**400])
def test_a_duration_that_no_create_has_breaks_a_manifest(tmp_path: Path, seconds: float) -> None:
    manifest = a_manifest(tmp_path / "demo.json")
    manifest.durations["eks/cluster"] = seconds
    manifest.record(VPC, Live("vpc-1"), "ready", 1.0)  # a duration alone is not written
    manifest.commit()
    with pytest.raises(Usage, match="is broken"):
        read(FileStore(file_of(manifest)), "demo")


def test_the_names_of_kinds_in_manifests_stay() -> None:
    """Moving or renaming a class must not change manifests; a new kind adds a line."""
    import_module("hyperpod_eks.stack")  # imports every kind
    ours = {name for name, kind in KINDS.items() if kind.__module__.startswith("hyperpod_eks.")}
    assert sorted(ours) == [
        "addons/Addon", "addons/LinkedAddon", "addons/PodIdentity",
        "amp/Workspace",
        "eks/AccessEntry", "eks/AccessPolicy", "eks/CallersEntries",
        "eks/Cluster", "eks/LogGroup", "eks/NodesEntry",
        "fsx/FileSystem", "fsx/Link", "fsx/Volume",
        "helm/ChartRelease", "helm/Release",
        "hyperpod/Cluster", "hyperpod/LogGroup", "hyperpod/NodeClass", "hyperpod/Nodes",
        "iam/OidcProvider", "iam/Policy", "iam/Role", "iam/ServiceAccountRole",
        "iam/ServiceLinkedRole",
        "images/Repository",
        "kubernetes/JobsOfTest", "kubernetes/Object",
        "leftovers/Interfaces", "leftovers/Leftovers", "leftovers/LoadBalancers",
        "leftovers/Volumes",
        "monitoring/LogGroup",
        "network/Address", "network/Endpoint", "network/InternetGateway", "network/NatGateway",
        "network/Opening", "network/RouteTable", "network/SecurityGroup", "network/Subnet",
        "network/Vpc", "network/VpcCidr",
        "s3/Bucket", "s3/CertificateBucket", "s3/Scripts",
        "sagemaker/ClusterSchedulerConfig", "sagemaker/ComputeQuota", "sagemaker/Governed",
    ]  # fmt: skip


def test_what_an_earlier_version_called_a_kind_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tests/Cloud", "network/Cloud", "tests/Nearer"):
        monkeypatch.setitem(KINDS, name, Vpc)  # restored after the test

    @frozen
    class Cloud(Vpc):
        kind = "tests/Cloud"
        aliases = ("network/Cloud",)

    @frozen
    class Nearer(Cloud):  # has no previous kinds
        kind = "tests/Nearer"

    manifest = a_manifest(tmp_path / "demo.json")
    manifest.intend(VPC, 5.0)
    manifest.commit()
    text = file_of(manifest).read_text()
    file_of(manifest).write_text(text.replace("network/Vpc", "network/Cloud"))

    (again,) = read(FileStore(file_of(manifest)), "demo").remembered().values()
    assert type(again) is Cloud
    assert KINDS["tests/Nearer"] is Nearer


def test_a_kind_of_another_version_stops_a_run_before_its_first_change(user: User) -> None:
    user.has("demo")
    path = user.folder / "demo.hyperpod-eks.json"
    text = path.read_text()
    newer = text.replace('"s3/Bucket"', '"s3/Vault"').replace(
        f'"tool_version": "{__version__}"', '"tool_version": "7.1.0"'
    )
    path.write_text(newer)
    user.mutations()
    for command in (("create", "demo"), ("plan", "demo"), ("delete", "demo", "--yes")):
        said = user.types(*command)
        assert said.code == 2, said.err
        assert "s3/bucket is of the kind 's3/Vault', which this version" in said.err
        assert "7.1.0 wrote the manifest" in said.err
    assert user.mutations() == []
    assert path.read_text() == newer
    assert user.types("status", "demo").code == 0


def test_another_clusters_manifest_is_refused(tmp_path: Path) -> None:
    a_manifest(tmp_path / "demo.json")
    with pytest.raises(Usage, match="manifest of the cluster 'demo', not of 'other'"):
        read(FileStore(tmp_path / "demo.json"), "other")


def test_a_full_disk_stops_before_anything_is_made() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    manifest = Manifest(FileStore(Path("/dev/full/demo.json")), "demo")
    manifest.intend(VPC, 1.0)
    with pytest.raises(Unwritable, match="cannot write the manifest"):
        manifest.commit()


SMALL = """
import sys
from pathlib import Path
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.resources.base import KINDS, Live
from hyperpod_eks.steps.network import Vpc

manifest = Manifest(FileStore(Path(sys.argv[1], "demo.json")), "demo")
manifest.config = {"note": "x" * 9000}
for now in range(30):
    manifest.record(Vpc("vpc", cidr="10.0.0.0/16"), Live(f"vpc-{now}"), "ready", float(now))
    manifest.commit()
"""


def test_on_a_full_disk_the_oldest_versions_go_first(tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    script = (
        'mount -t tmpfs -o size=64k none "$1" && "$2" -c "$3" "$1" &&'
        ' ls "$1/.demo.json.backups" | tail -1 && tail -c 900 "$1/demo.json"'
    )
    done = subprocess.run(
        [*command, "sh", "-c", script, "sh", str(tmp_path), sys.executable, SMALL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("00000029.json\n")  # the one that the thirtieth replaced


def test_a_second_run_is_told_who_holds_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    with (
        locked(path),
        pytest.raises(Locked, match=rf"process {os.getpid()} on .* is working on"),
        locked(path),
    ):
        pass
    with locked(path):
        pass


def test_the_kernel_frees_the_lock_of_a_killed_run(tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from hyperpod_eks.state.file_store import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Locked, match=f"process {holder.pid}"), locked(path):
            pass
        holder.kill()
    with locked(path):
        pass


def test_declarations_refer_to_each_other_by_key() -> None:
    assert pack(SUBNET)["vpc"] == {"$resource": "network/vpc"}


# after a power cut: data that was not synced may be lost

POWER = """
import os, sys
from pathlib import Path
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.manifest import read
from hyperpod_eks.steps.network import Vpc

done, real = [], os.fsync

def fsync(descriptor):
    place = os.readlink(f"/proc/self/fd/{descriptor}")
    done.append(("folder" if os.path.isdir(place) else "file", os.fstat(descriptor).st_size))
    real(descriptor)

def hook(event, args):
    if event == "os.rename":
        done.append(("rename", os.stat(args[0]).st_size))

os.fsync = fsync
sys.addaudithook(hook)
manifest = read(FileStore(Path(sys.argv[1])), "demo")
manifest.intend(Vpc("vpc", cidr="10.0.0.0/16"), 5.0)
manifest.commit()
print(*(f"{what}:{size}" if what != "folder" else what for what, size in done))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_power_cut_leaves_the_old_or_the_new_version(tmp_path: Path) -> None:
    a_manifest(tmp_path / "demo.json")
    ran = subprocess.run(
        [sys.executable, "-c", POWER, str(tmp_path / "demo.json")],
        check=True,
        capture_output=True,
        text=True,
    )
    size = (tmp_path / "demo.json").stat().st_size
    # the content is synced before the rename, and the folder after it
    assert ran.stdout.split() == [f"file:{size}", f"rename:{size}", "folder"]


def test_the_serial_rises_with_every_version(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "demo.json")
    serials = []
    for now in range(5):
        manifest.record(VPC, Live(f"vpc-{now}"), "ready", float(now))
        manifest.commit()
        serials.append(json.loads(file_of(manifest).read_text())["serial"])
    assert serials == sorted(set(serials))


def test_a_birth_that_is_tried_again_counts_from_the_last_try(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "demo.json")
    token = manifest.intend(VPC, 1.0)
    assert manifest.intend(VPC, 3600.0) == token
    manifest.commit()
    assert read(FileStore(file_of(manifest)), "demo").records[VPC.key].since == 3600.0


def test_what_a_kill_leaves_beside_it_goes_with_the_next_run(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path / "demo.json")
    for name in (".demo.json.tmp", ".demo.json.0123.tmp"):
        (tmp_path / name).write_text("half of a ver")
    with locked(file_of(manifest)):
        manifest.intend(VPC, 1.0)
        manifest.commit()
    assert list(tmp_path.glob(".*tmp")) == []
    assert read(FileStore(file_of(manifest)), "demo").records[VPC.key].unsure


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_done() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    says = "cannot write in the manifest's folder /proc"
    with pytest.raises(Usage, match=says) as caught, locked(Path("/proc/demo.json")):
        pass
    assert "--manifest" in caught.value.hint


def test_manifests_whose_names_begin_alike_share_nothing(tmp_path: Path) -> None:
    """They have separate locks and backups; an earlier version shared them."""
    west, east = tmp_path / "demo.us-west-2", tmp_path / "demo.us-east-1"
    for path in (west, east):
        with locked(path):
            manifest = a_manifest(path)
            manifest.record(VPC, Live(f"vpc-of-{path.name}"), "ready", 1.0)
            manifest.commit()
            manifest.record(VPC, Live("vpc-2"), "ready", 2.0)
            manifest.commit()
    with locked(west), locked(east), pytest.raises(Locked), locked(west):
        pass
    for path in (west, east):
        kept = sorted((tmp_path / f".{path.name}.backups").glob("*.json"))
        assert f"vpc-of-{path.name}" in kept[-1].read_text()
    path = tmp_path / "x.lock"  # the lock must not be the manifest itself
    manifest = a_manifest(path)
    manifest.record(VPC, Live("vpc-1"), "ready", 1.0)
    manifest.commit()
    with locked(path):
        assert read(FileStore(path), "demo").records[VPC.key].id == "vpc-1"


def test_an_earlier_version_is_kept_out(tmp_path: Path) -> None:
    """It locks the manifest's path with the suffix replaced."""
    path, lock = tmp_path / "demo.json", tmp_path / "demo.lock"
    with locked(path), lock.open() as theirs, pytest.raises(BlockingIOError):
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open("r+") as theirs:
        theirs.write("process 7 on old")
        theirs.flush()
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(Locked, match="process 7 on old is working on"), locked(path):
            pass


def test_a_name_without_a_suffix_has_a_lock_of_its_own_too(tmp_path: Path) -> None:
    """It also excludes an earlier version, which uses demo.lock for both."""
    short, long = tmp_path / "demo", tmp_path / "demo.json"
    with locked(short), locked(long), pytest.raises(Locked), locked(short):
        pass
    with locked(short), (tmp_path / "demo.lock").open() as theirs, pytest.raises(BlockingIOError):
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_is_no_lock_of_ours_is_not_emptied(tmp_path: Path) -> None:
    path, lock, victim = (tmp_path / name for name in ("demo.json", "demo.json.lock", "victim"))
    lock.write_text('{"name": "another manifest"}')
    with pytest.raises(Usage, match="is not a lock of hyperpod-eks"), locked(path):
        pass
    assert lock.read_text() == '{"name": "another manifest"}'
    lock.unlink()
    victim.write_text("theirs")
    lock.symlink_to(victim)
    with pytest.raises(Usage, match="is a link, not a lock"), locked(path):
        pass
    assert victim.read_text() == "theirs"
    (tmp_path / "demo.lock").mkdir()  # no earlier version works here
    lock.unlink()
    with locked(path):
        pass


def test_backups_go_with_the_manifest(tmp_path: Path) -> None:
    """Backups contain the config; those of an earlier version are moved too, if they are ours."""
    manifest, older = a_manifest(tmp_path / "demo.json"), tmp_path / ".demo.backups"
    manifest.lineage = "of-demo"
    for id_ in ("vpc-1", "vpc-2"):
        manifest.record(VPC, Live(id_), "ready", 1.0)
        manifest.commit()
    older.mkdir()
    (older / "00000007.json").write_text(file_of(manifest).read_text())
    (older / "00000008.json").write_text('{"lineage": "of-another"}')
    path = file_of(manifest).rename(tmp_path / "elsewhere")
    assert read(FileStore(file_of(manifest)), "demo").serial == 8  # old ones count too
    path.rename(file_of(manifest))
    manifest.retire()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".demo.backups"]
    assert [path.name for path in older.iterdir()] == ["00000008.json"]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_manifest_must_be_a_file(user: User, kind: str) -> None:
    path = user.folder / "m"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/null")
    for words in (["status"], ["create", "--chart", str(CHART)], ["adopt", "--rebuild"]):
        said = user.types(*words, "demo", "--manifest", str(path))
        assert (said.code, f"is a {kind}, not a regular file" in said.err) == (2, True), said.err
    assert user.stack.calls == []


# what a user sees


def test_every_way_to_lose_the_manifest_has_its_words_and_its_way_back(user: User) -> None:
    user.has("demo")
    path = user.folder / "demo.hyperpod-eks.json"
    whole = path.read_text()

    def refused(text: str, *words: str) -> str:
        path.write_text(text)
        user.mutations()
        for verb in (("create", "--chart", str(CHART)), ("delete", "--yes"), ("status",)):
            said = user.types(*verb, "demo", *words)
            assert (said.code, said.out) == (2, "")
        assert user.mutations() == []
        return said.err

    def unharmed(*words: str) -> None:
        user.mutations()
        assert user.types("create", "demo", "--chart", str(CHART), *words).code == 0
        assert user.mutations() == []

    told = refused(whole.replace("manifest/v1", "manifest/v9"))
    assert "Use the version of hyperpod-eks that wrote it." in told
    path.write_text(whole)
    unharmed()

    assert "hyperpod-eks adopt demo --rebuild" in refused(whole[: len(whole) // 2])
    elsewhere = ("--region", "eu-west-1", "--manifest", str(path))
    again = f"adopt demo --manifest {path} --region eu-west-1 --rebuild"
    assert again in refused(whole[: len(whole) // 2], *elsewhere)
    assert user.types("adopt", "demo", "--rebuild").code == 0
    unharmed()

    path.unlink()
    assert user.types("adopt", "demo", "--rebuild").code == 0
    unharmed()

    path.unlink()
    assert user.types("delete", "demo", "--yes").code == 0
    assert user.types("status", "demo").code == 8


def test_where_no_manifest_can_be_written_nothing_is_made(user: User) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    said = user.types("create", "demo", "--chart", str(CHART), "--manifest", "/proc/demo.json")
    assert said.code == 2
    assert "cannot write in the manifest's folder /proc" in said.err
    assert "--manifest" in said.err
    assert user.stack.calls == []


def test_a_disk_that_is_almost_full_is_found_before_and_not_explained_by_aws(user: User) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        checked = user.types("create", "demo", "--chart", str(CHART))
        skip = ("--skip", "folders")
        said = user.types("create", "demo", "--chart", str(CHART), *skip, "-o", "json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checked.code == 3
    assert "folders: the manifest cannot be written in " in checked.err
    assert said.code == 1
    assert "cannot write the manifest demo.hyperpod-eks.json: File too large" in said.err
    assert said.document["error"]["causes"] == []
    assert "ListClusterEvents" not in {call.operation for call in user.stack.calls}
    assert user.types("delete", "demo", "--yes").code == 0


def test_a_new_life_goes_on_counting_so_that_its_backups_are_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    first = a_manifest(path)
    for now in range(20):
        first.record(VPC, Live(f"vpc-{now}"), "ready", float(now))
        first.commit()
    path.unlink()
    second = read(FileStore(path), "demo")
    for id_ in ("vpc-new", "vpc-newer", "vpc-newest"):
        second.record(VPC, Live(id_), "ready", 100.0)
        second.commit()
    newest = max((tmp_path / ".demo.json.backups").glob("*.json"))
    assert "vpc-newer" in newest.read_text()


def test_a_link_stays_one_and_whoever_comes_by_it_is_kept_out(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    there, link = tmp_path / "shared" / "demo.json", tmp_path / "demo.json"
    link.symlink_to(there)
    with locked(there), pytest.raises(Locked), locked(link):
        pass
    manifest = read(FileStore(link), "demo")
    manifest.record(VPC, Live("vpc-1"), "ready", 1.0)
    manifest.commit()
    assert link.is_symlink()
    assert read(FileStore(there), "demo").records["network/vpc"].id == "vpc-1"


def test_a_disk_without_hard_links_or_locks_will_do_or_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    manifest = a_manifest(tmp_path / "demo.json")
    for id_ in ("vpc-1", "vpc-2"):
        manifest.record(VPC, Live(id_), "ready", 1.0)
        manifest.commit()
    newest = max((tmp_path / ".demo.json.backups").glob("*.json"))
    assert "vpc-1" in newest.read_text()
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(Usage, match="cannot lock"), locked(tmp_path / "demo.json"):
        pass


def test_a_full_disk_does_not_keep_a_run_from_the_lock(tmp_path: Path) -> None:
    """The holder's name is only informative; writing the manifest reports the full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with (
            locked(tmp_path / "demo.json"),
            pytest.raises(Locked, match="another run is working"),
            locked(tmp_path / "demo.json"),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_adopted_ids_can_be_listed_while_another_thread_writes(tmp_path: Path) -> None:
    """Workers list them while the engine records what it creates."""
    manifest = a_manifest(tmp_path / "m.json")

    class Interrupted(Record):
        """A record during whose reading another one is written."""

        def __getattribute__(self, name: str) -> Any:
            if name == "origin":
                manifest.intend(VPC, 5.0)
            return super().__getattribute__(name)

    manifest.records["s3/bucket"] = Interrupted("", {}, "ready", 5.0, "", "b", origin="adopted")
    assert [*manifest.adopted] == ["s3/bucket"]
    assert "network/vpc" in manifest.records
