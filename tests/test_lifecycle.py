"""The lifecycle script, run on directories that resemble HyperPod's system images."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "lifecycle" / "on_create.sh"
DATA = "/opt/sagemaker/containerd/data-root"
AL2_CONFIG = (
    'version = 2\n# root = "/elsewhere"\nroot = "/var/lib/containerd"\n\n[grpc]\nroot = "keep"\n'
)
AL2023_CONFIG = 'version = 3\n\n[grpc]\naddress = "/run/containerd/containerd.sock"\n'


class Node:
    """A directory in place of a node's root file system."""

    def __init__(self, root: Path, version: str, *, volume: bool, running: bool = False) -> None:
        self.root = root
        self.log = root / "var/log/provision/provisioning.log"
        self.write("etc/os-release", f'NAME="Amazon Linux"\nVERSION_ID="{version}"\n')
        self.write("var/lib/containerd/io.containerd.content.v1.content/pause", "pause image")
        self.write("var/lib/kubelet/kubeconfig", "kubeconfig")
        self.write("sys/block/nvme0n1/device/model", "Amazon Elastic Block Store              \n")
        self.write("sys/block/nvme9n1/device/model", "Amazon EC2 NVMe Instance Storage        \n")
        self.write(
            "proc/mounts", "/dev/nvme0n1p1 / xfs rw 0 0\n/dev/x /opt/sagemaker-x xfs rw 0 0\n"
        )
        if version == "2":
            self.write("etc/eks/containerd/containerd-config.toml", AL2_CONFIG)
        else:
            self.write("etc/containerd/config.toml", AL2023_CONFIG)
            self.write(
                "usr/lib/systemd/system/containerd.service",
                "[Service]\nExecStartPre=-/sbin/modprobe overlay\nExecStart=/usr/bin/containerd\n",
            )
        self.write(
            "stub/systemctl",
            f'#!/bin/sh\necho "$*" >>"{root}/systemctl.log"\n'
            f'[ "$1" != is-active ] || exit {0 if running else 3}\n',
        ).chmod(0o755)
        if volume:
            self.attach()
            self.mount()

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def attach(self) -> None:
        self.write("sys/block/nvme1n1/device/model", "Amazon Elastic Block Store              \n")

    def mount(self) -> None:
        with (self.root / "proc/mounts").open("a") as mounts:
            mounts.write("/dev/nvme1n1 /opt/sagemaker xfs rw 0 0\n")

    def environment(self, patience: int) -> dict[str, str]:
        return {
            "PATH": f"{self.root / 'stub'}:{os.environ['PATH']}",
            "HYPERPOD_EKS_ROOT": str(self.root),
            "HYPERPOD_EKS_PATIENCE": str(patience),
        }

    def run(self, patience: int = 0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPT)],
            capture_output=True,
            text=True,
            env=self.environment(patience),
            check=False,
        )

    def systemctl(self) -> list[str]:
        log = self.root / "systemctl.log"
        return log.read_text().splitlines() if log.exists() else []

    def snapshot(self) -> dict[str, str]:
        """Return all files of the node except logs, for comparisons."""
        return {
            str(path.relative_to(self.root)): (
                f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
            )
            for path in sorted(self.root.rglob("*"))
            if (path.is_symlink() or path.is_file()) and path.suffix != ".log"
        }


@pytest.mark.parametrize("version", ["2", "2023"])
def test_without_a_volume_nothing_changes(tmp_path: Path, version: str) -> None:
    node = Node(tmp_path, version, volume=False)
    before = node.snapshot()

    done = node.run()

    assert (done.returncode, done.stderr) == (0, "")
    assert "no volume at /opt/sagemaker" in done.stdout
    assert node.snapshot() == before
    assert node.systemctl() == []


@pytest.mark.parametrize("version", ["2", "2023"])
def test_both_data_roots_move_to_the_volume_and_a_second_run_changes_nothing(
    tmp_path: Path, version: str
) -> None:
    node = Node(tmp_path, version, volume=True)

    done = node.run()

    assert (done.returncode, done.stderr) == (0, "")
    content = "io.containerd.content.v1.content/pause"
    assert node.read(f"{DATA[1:]}/{content}") == "pause image"
    assert node.read("opt/sagemaker/kubelet/kubeconfig") == "kubeconfig"
    assert (tmp_path / "var/lib/kubelet").readlink() == Path("/opt/sagemaker/kubelet")
    if version == "2":
        assert node.read("etc/eks/containerd/containerd-config.toml") == AL2_CONFIG.replace(
            '\nroot = "/var/lib/containerd"', f'\nroot = "{DATA}"'
        )
    else:
        assert node.read("etc/containerd/config.toml") == AL2023_CONFIG.replace(
            "[grpc]", f'root = "{DATA}"\n[grpc]'
        )
        assert node.read("etc/systemd/system/containerd.service.d/50-hyperpod-eks.conf") == (
            f"[Service]\nExecStart=\nExecStart=/usr/bin/containerd --root {DATA}\n"
        )
    assert node.log.read_text() == done.stdout

    before, calls = node.snapshot(), node.systemctl()
    again = node.run()

    assert (again.returncode, again.stderr) == (0, "")
    assert node.snapshot() == before
    assert node.systemctl() == calls
    assert node.log.read_text() == done.stdout + again.stdout


def test_al2023_needs_no_config_file_because_nodeadm_writes_it_later(tmp_path: Path) -> None:
    node = Node(tmp_path, "2023", volume=True)
    (tmp_path / "etc/containerd/config.toml").unlink()

    assert node.run().returncode == 0
    assert not (tmp_path / "etc/containerd/config.toml").exists()
    assert (tmp_path / "etc/systemd/system/containerd.service.d/50-hyperpod-eks.conf").exists()


def test_a_running_containerd_is_stopped_for_the_move(tmp_path: Path) -> None:
    node = Node(tmp_path, "2023", volume=True, running=True)

    assert node.run().returncode == 0
    assert node.systemctl() == [
        "is-active --quiet containerd",
        "stop containerd",
        "daemon-reload",
        "start containerd",
    ]


def test_it_waits_for_an_attached_volume_to_be_mounted(tmp_path: Path) -> None:
    node = Node(tmp_path, "2023", volume=False)
    node.attach()
    with subprocess.Popen(
        [str(SCRIPT)], stdout=subprocess.PIPE, text=True, env=node.environment(30)
    ) as script:
        assert script.stdout
        while "waiting for /opt/sagemaker" not in (line := script.stdout.readline()):
            assert line, "the script ended without waiting"
        node.mount()
        rest = script.stdout.read()
    assert script.returncode == 0
    assert f"containerd keeps its data in {DATA}" in rest


def test_a_volume_that_is_never_mounted_is_told_and_not_fatal(tmp_path: Path) -> None:
    node = Node(tmp_path, "2023", volume=False)
    node.attach()

    done = node.run(patience=1)

    assert done.returncode == 0
    assert "warning: a second EBS volume is attached, but /opt/sagemaker is not" in done.stdout


def test_leftovers_of_an_earlier_system_image_give_way(tmp_path: Path) -> None:
    node = Node(tmp_path, "2023", volume=True)
    node.write(f"{DATA[1:]}/meta.db", "from another containerd")
    node.write("opt/sagemaker/kubelet/cpu_manager_state", "from another kubelet")

    assert node.run().returncode == 0
    assert not (tmp_path / DATA[1:] / "meta.db").exists()
    assert not (tmp_path / "opt/sagemaker/kubelet/cpu_manager_state").exists()


def test_a_run_that_broke_off_is_completed(tmp_path: Path) -> None:
    whole = Node(tmp_path / "whole", "2023", volume=True)
    broken = Node(tmp_path / "broken", "2023", volume=True)
    assert whole.run().returncode == 0
    blocker = broken.write("etc/systemd/system", "not a directory")
    assert broken.run().returncode != 0
    blocker.unlink()

    assert broken.run().returncode == 0
    expected = {k: v for k, v in whole.snapshot().items() if not k.startswith("stub")}
    assert {k: v for k, v in broken.snapshot().items() if not k.startswith("stub")} == expected


def break_al2_config(node: Node) -> None:
    (node.root / "etc/eks/containerd/containerd-config.toml").unlink()


def break_unit(node: Node) -> None:
    shutil.rmtree(node.root / "usr/lib/systemd")


def break_exec_start(node: Node) -> None:
    node.write("usr/lib/systemd/system/containerd.service", "[Service]\n")


def break_os(node: Node) -> None:
    node.write("etc/os-release", "VERSION_ID=24.04\n")


def break_folder(node: Node) -> None:
    """Use /proc as a read-only file system: no user can create files in it."""
    (node.root / "etc/systemd").mkdir()
    (node.root / "etc/systemd/system").symlink_to("/proc/self")


@pytest.mark.parametrize(
    ("version", "damage", "says"),
    [
        ("2", break_al2_config, "no /etc/eks/containerd/containerd-config.toml"),
        ("2023", break_unit, "no containerd.service in"),
        ("2023", break_exec_start, "/usr/lib/systemd/system/containerd.service has no ExecStart"),
        ("24.04", break_os, "only Amazon Linux 2 and 2023 are known"),
        ("2023", break_folder, "failed: line"),
    ],
)
def test_a_failure_says_what_failed_and_leaves_time_to_ship_the_log(
    tmp_path: Path, version: str, damage: object, says: str
) -> None:
    node = Node(tmp_path, version, volume=True)
    assert callable(damage)
    damage(node)

    done = node.run()

    assert done.returncode == 1
    assert says in done.stdout
    assert "waiting 0 s for this log to be shipped" in done.stdout.splitlines()[-1]
    assert node.log.read_text() == done.stdout


def test_a_log_that_cannot_be_written_does_not_stop_the_work(tmp_path: Path) -> None:
    node = Node(tmp_path, "2", volume=True)
    node.write("var/log", "not a directory")

    done = node.run()

    assert done.returncode == 0
    assert "end: on_create.sh" in done.stdout


SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    subprocess.run([str(SHELLCHECK), str(SCRIPT)], check=True)
