"""A home that is read-only or missing leads to a warning, and not to an error."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest

from hyperpod_eks import folders
from hyperpod_eks.helm import program
from hyperpod_eks.local import CHART
from hyperpod_eks.local.stack import Stack
from tests.conftest import User, helm


@pytest.fixture(params=["unwritable", "none"])
def homeless(
    request: pytest.FixtureRequest,
    user: User,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> User:
    """A user whose home is below a file, so that it is never writable; or without a home."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name)
    if request.param == "unwritable":
        monkeypatch.setenv("HOME", str(tmp_path / "file/home"))
    else:  # not even in /etc/passwd
        monkeypatch.setenv("HOME", "~")
    return user


@pytest.mark.sample("none")
def test_a_whole_life_without_a_home(homeless: User) -> None:
    for words in (
        ("create", "demo", "--chart", str(CHART), "--timeout", "40"),
        ("status", "demo"),
        ("kubeconfig", "demo"),
        ("delete", "demo", "--yes"),
    ):
        said = homeless.types(*words)
        assert said.code == 0, said.out + said.err
        lines = [line for line in said.err.splitlines() if line.startswith("warning: ")]
        about = [line for line in lines if "logs and downloads go to" in line]
        assert len(about) == 1, lines
    (log,) = (homeless.folder.parent / "tmp").rglob("*-create-*.log")
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_temporary_folder_of_somebody_elses_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", "~")
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    usual = folders.cache().parent
    assert usual == tmp_path / f"hyperpod-eks-{os.geteuid()}"
    usual.rmdir()
    (tmp_path / "theirs").mkdir()
    usual.symlink_to(tmp_path / "theirs")
    assert usual not in folders.cache().parents
    usual.unlink()
    usual.mkdir()
    usual.chmod(0o777)
    assert usual not in folders.cache().parents


def test_a_look_where_nothing_at_all_can_be_written(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like a container with a read-only root and no volume."""
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "~")
    monkeypatch.setattr(tempfile, "gettempdir", mock.Mock(side_effect=FileNotFoundError("none")))
    monkeypatch.setattr(folders, "_writable", lambda folder: False)
    monkeypatch.setattr(os, "mkdir", refuse)
    says = "no home directory, and /tmp/hyperpod-eks cannot be written; there are no logs and down"
    said = user.types("list", "--region", "us-west-2")
    assert said.code == 0, said.err
    assert says in said.err
    program._usable.clear()  # as in a new process
    said = user.types("preflight", "demo", "-o", "json")
    assert said.code == 3, said.err
    assert {"chart-download", "helm"} <= {each["id"] for each in said.document["findings"]}


def refuse(folder: Path, *_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))


READ_ONLY = """
folder=$1 python=$2
shift 2
mount --make-rprivate /
mount -t tmpfs none "$folder" && chmod 1777 "$folder" && cd "$folder" || exit
mount -o remount,ro,bind / || exit
as() { setpriv --reuid 12345 --regid 12345 --clear-groups "$python" "$@" >&2; }
as -c 'import hyperpod_eks' || exit
for words do as -P -m hyperpod_eks $words; echo $?; done
"""
"""A read-only root except for one folder; and a user without an entry in /etc/passwd."""


@pytest.mark.prove
@pytest.mark.parametrize("home", [None, "/", "/root"])
def test_a_whole_life_on_a_read_only_root(stack: Stack, home: str | None) -> None:
    """Without HOME, with the HOME of a container's arbitrary user, and with another user's."""
    if os.geteuid():
        pytest.skip("only root can become a user without a passwd entry, and mount")
    environ = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    environ["PATH"] = f"{helm('4.3.1')}{os.pathsep}{os.environ['PATH']}"
    environ |= {"HOME": home} if home else {}
    life = f"create demo --chart {CHART}", "status demo", "delete demo --yes"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", folder, sys.executable, *life],
            capture_output=True,
            text=True,
            check=False,
            env=environ,
        )
    if not done.stdout:
        pytest.skip(f"no namespaces, or this Python is not for others: {done.stderr}")
    assert done.stdout.split() == ["0"] * len(life), done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert len(warnings) == len(life), warnings
    says = "cannot be written; logs" if home else "there is no home directory; logs"
    assert all(f"{says} and downloads go to /" in warning for warning in warnings), warnings


def test_relative_folders_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The XDG Base Directory Specification requires it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert folders.cache() == tmp_path / ".cache/hyperpod-eks"


def test_a_user_without_a_passwd_entry(user: User) -> None:
    command = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    names = ("PATH", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    environ = {name: os.environ[name] for name in names if name in os.environ}
    done = subprocess.run(
        [*command, sys.executable, "-m", "hyperpod_eks", "status", "demo"],
        env=environ | {"AWS_REGION": "us-west-2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 8, done.stderr
    assert "there is no home directory; logs and downloads go to" in done.stderr
