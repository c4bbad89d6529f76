"""The kubeconfig: the entry equals the AWS CLI's, and the rest of the file is unchanged."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from hyperpod_eks.errors import Locked, Usage
from hyperpod_eks.kube import kubeconfig
from hyperpod_eks.kube.kubeconfig import Entry, document
from hyperpod_eks.local.stack import Stack
from tests.conftest import User, at_work, in_a_copy

ARN = "arn:aws:eks:us-west-2:123456789012:cluster/demo"
OTHER = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "other",
    "clusters": [{"name": "other", "cluster": {"server": "https://other.invalid"}}],
    "contexts": [{"name": "other", "context": {"cluster": "other", "user": "other"}}],
    "users": [{"name": "other", "user": {"token": "secret"}}],
    "extensions": [{"name": "keep me"}],
}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def kubectl(path: Path, *words: str) -> str:
    done = subprocess.run(
        ["kubectl", "--kubeconfig", path, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_of_its_own_goes_with_the_cluster(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    user.has("demo")
    user.mutations()
    said = user.types("kubeconfig", "demo")
    assert said.code == 0, said.err
    file = user.folder / "demo.kubeconfig"
    assert f"export KUBECONFIG={file}" in said.out
    assert mode(file) == 0o600
    assert kubectl(file, "config", "current-context").strip() == ARN
    assert len(kubectl(file, "get", "nodes", "-o", "name").split()) == 2
    assert user.mutations() == []
    assert user.types("delete", "demo", "--yes").code == 0
    assert not file.exists()


def test_an_existing_file_keeps_everything_else(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.has("demo")
    file, link = user.folder / "config", user.folder / "link"
    file.write_text(yaml.safe_dump(OTHER))
    link.symlink_to(file)
    monkeypatch.setenv("KUBECONFIG", f"{link}{os.pathsep}{user.folder / 'second'}")
    said = user.types("kubeconfig", "demo", "-o", "json")
    assert said.document["path"] == str(link)
    assert said.document["merged"] is True
    assert link.is_symlink()
    assert mode(file) == 0o600
    there = yaml.safe_load(file.read_text())
    assert [each["name"] for each in there["clusters"]] == ["other", ARN]
    assert (there["current-context"], there["extensions"]) == (ARN, OTHER["extensions"])
    user.types("kubeconfig", "demo")
    assert yaml.safe_load(file.read_text()) == there
    assert len(kubectl(file, "get", "nodes", "-o", "name").split()) == 2
    assert user.types("delete", "demo", "--yes").code == 0
    assert yaml.safe_load(file.read_text()) == OTHER | {"current-context": ""}


def test_a_token_is_an_exec_credential(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_EXEC_INFO", '{"apiVersion": "client.authentication.k8s.io/v1"}')
    user.mutations()
    said = user.types("token", "demo")
    assert said.document["apiVersion"] == "client.authentication.k8s.io/v1"
    status = said.document["status"]
    kind, url = status["token"].split(".")
    assert kind == "k8s-aws-v1"
    assert b"X-Amz-Signature=" in base64.urlsafe_b64decode(url + "==")
    ends = datetime.fromisoformat(status["expirationTimestamp"])
    assert timedelta(minutes=13) < ends - datetime.now(UTC) <= timedelta(minutes=14)
    assert user.stack.calls == []


def test_there_is_none_for_a_cluster_that_is_not_there(user: User) -> None:
    said = user.types("kubeconfig", "demo")
    assert said.code == 8
    assert "EKS cluster demo does not exist in us-west-2 of account 123456789012" in said.err


@pytest.mark.parametrize(
    "text", ["[]", "clusters: 3", "clusters: [{}]", "a: [", "clusters: {a: 1}"]
)
def test_what_is_no_kubeconfig_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(Usage, match="is not a kubeconfig"):
        kubeconfig.read(file)
    assert file.read_text() == text


def test_a_profile_goes_into_the_entry() -> None:
    entry = Entry("demo", ARN, "us-west-2", "https://x.invalid", "Q0E=", profile="team")
    user = document(entry)["users"][0]["user"]["exec"]
    assert {"name": "AWS_PROFILE", "value": "team"} in user["env"]
    assert json.dumps(document(entry))


def test_a_file_of_the_users_own_is_merged_and_kept(user: User) -> None:
    """The file has the name that ours would get."""
    user.has("demo")
    file = user.folder / "demo.kubeconfig"
    before = (
        yaml.safe_dump(OTHER).replace("current-context: other", "current-context: ''") + "# ours"
    )
    file.write_text(before)
    assert user.types("kubeconfig", "demo").code == 0
    assert [each["name"] for each in yaml.safe_load(file.read_text())["clusters"]] == ["other", ARN]
    assert user.types("delete", "demo", "--yes").code == 0
    after = before.replace("current-context: ''", 'current-context: ""')
    assert file.read_text().rstrip() == after


def test_clusters_of_one_name_have_files_of_their_own(tmp_path: Path) -> None:
    west, east = ARN, ARN.replace("us-west-2", "us-east-1")
    for arn in (west, east, west):
        file = kubeconfig.own_file(tmp_path, "demo", arn)
        kubeconfig.add(file, document(Entry("demo", arn, arn.split(":")[3], "https://x", "Q0E=")))
    assert {path.name for path in tmp_path.iterdir()} == {
        "demo.kubeconfig",
        "demo.us-east-1.kubeconfig",
    }
    assert kubeconfig.forget(kubeconfig.own_files(tmp_path, "demo", east), east) == []
    assert [path.name for path in tmp_path.iterdir()] == ["demo.kubeconfig"]
    assert west in (tmp_path / "demo.kubeconfig").read_text()


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config"
    arns = [f"arn:aws:eks:us-west-2:123456789012:cluster/c{i}" for i in range(8)]

    def add(arn: str) -> None:
        kubeconfig.add(file, document(Entry("c", arn, "us-west-2", "https://x", "Q0E=")))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, arns))
    assert {each["name"] for each in yaml.safe_load(file.read_text())["clusters"]} == set(arns)
    assert list(tmp_path.iterdir()) == [file]


def test_the_lock_of_kubectl_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeconfig, "PATIENCE", 0.1)
    (tmp_path / "config.lock").touch()
    new = document(Entry("demo", ARN, "us-west-2", "https://x.invalid", "Q0E="))
    with pytest.raises(Locked, match="kubectl or another run"):
        kubeconfig.add(tmp_path / "config", new)
    assert not (tmp_path / "config").exists()


@pytest.fixture(scope="module")
def made(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with at_work(one_stack, tmp_path_factory.mktemp("made")) as somebody:
        somebody.has("demo")
        yield somebody


@pytest.fixture
def demo(made: User, tmp_path: Path) -> Iterator[User]:
    """A user with a cluster that is created once; tests that delete it come before."""
    with in_a_copy(made, tmp_path / "copy") as somebody:
        yield somebody


WRONG = {
    "utf-16": "clusters: []".encode("utf-16"),
    "latin-1": "current-context: b\xfcro".encode("latin-1"),
    "tab": b"clusters:\n\t- name: x",
    "nameless": b"contexts:\n- context: {cluster: old, user: old}",
    "folder": None,
    "device": None,
}


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, marks=pytest.mark.prove) if how in ("latin-1", "device") else how
        for how in WRONG
    ],
)
def test_a_kubeconfig_that_cannot_be_changed(
    demo: User, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """``kubeconfig`` refuses it; a delete prints a warning."""
    user, content = demo, WRONG[how]
    file = user.folder / how
    if content is not None:
        file.write_bytes(content)
    elif how == "device":
        file = Path("/dev/null")
    else:
        file.mkdir()
    monkeypatch.setenv("KUBECONFIG", str(file))
    said = user.types("kubeconfig", "demo")
    assert (said.code, str(file) in said.err) == (2, True), said.err
    said = user.types("delete", "nothing", "--yes")
    assert (said.code, "could not be removed from a kubeconfig" in said.err) == (0, True), said.err
    assert content is None or file.read_bytes() == content


def test_the_entry_is_the_one_that_the_aws_cli_writes(demo: User) -> None:
    ours, theirs = demo.folder / "ours", demo.folder / "theirs"
    assert demo.types("kubeconfig", "demo", "--kubeconfig", str(ours)).code == 0
    command = ["aws", "eks", "update-kubeconfig", "--name", "demo", "--kubeconfig", str(theirs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("no aws on PATH")
    assert done.returncode == 0, done.stderr
    expected = yaml.safe_load(theirs.read_text())
    # an absolute path, because kubectl may run with another PATH
    expected["users"][0]["user"]["exec"]["command"] = shutil.which("aws")
    written = yaml.safe_load(ours.read_text())
    # and the location of AWS configuration files outside of ~/.aws
    names = {each["name"] for each in written["users"][0]["user"]["exec"].pop("env")}
    assert names == {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
    assert written == expected


def test_without_aws_on_path_the_token_is_ours(
    demo: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "hyperpod-eks").symlink_to(Path(sys.executable).with_name("hyperpod-eks"))
    file = demo.folder / "k"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tools))
        file.write_text(demo.types("kubeconfig", "demo", "--stdout", "-o", "json").out)
    (entry,) = json.loads(file.read_text())["users"]
    assert entry["user"]["exec"]["args"][:2] == ["token", "demo"]
    monkeypatch.setenv("HYPERPOD_EKS_OUTPUT", "table")
    monkeypatch.setenv("HYPERPOD_EKS_EVENTS", "-")
    assert len(kubectl(file, "get", "nodes", "-o", "name").split()) == 2


def test_no_code_of_the_current_folder_runs(demo: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a module in the current folder nor a program of a relative PATH entry."""
    hostile = demo.folder / "cloned"
    (hostile / "bin").mkdir(parents=True)
    for module in ("json", "flask", "hyperpod_eks"):
        (hostile / f"{module}.py").write_text("open('/dev/stderr', 'w').write('ran'); exit(9)")
    for program in ("aws", "hyperpod-eks"):
        (hostile / "bin" / program).write_text("#!/bin/sh\necho ran >&2; exit 9")
        (hostile / "bin" / program).chmod(0o755)
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("PATH", f"bin{os.pathsep}{os.pathsep}.")
    config = demo.types("kubeconfig", "demo", "--stdout", "-o", "json").document
    entry = config["users"][0]["user"]["exec"]
    assert Path(entry["command"]).is_absolute()
    done = subprocess.run(
        [entry["command"], *entry["args"]],
        env={**os.environ, **{each["name"]: each["value"] for each in entry["env"]}},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["kind"] == "ExecCredential"


def test_the_entry_knows_where_the_profile_is(demo: User, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("aws.ini").write_text("[profile team]\nregion = us-west-2\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", "aws.ini")
    monkeypatch.setenv("AWS_DEFAULT_PROFILE", "team")
    said = demo.types("kubeconfig", "demo", "--stdout", "-o", "json")
    entry = said.document["users"][0]["user"]["exec"]
    variables = {each["name"]: each["value"] for each in entry["env"]}
    assert variables["AWS_PROFILE"] == "team"
    assert variables["AWS_CONFIG_FILE"] == str(demo.folder / "aws.ini")
