"""The kubeconfig: as the AWS CLI writes it, careful with what else is in the file."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from hyperpod_eks import kubeconfig
from hyperpod_eks.errors import Usage
from hyperpod_eks.kubeconfig import Entry, document, merged, without
from tests.conftest import User

pytestmark = pytest.mark.xdist_group("kubeconfig")

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
    user.makes("demo")
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
    user.makes("demo")
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
    assert yaml.safe_load(file.read_text()) == OTHER | {"current-context": "", "preferences": {}}


def test_the_entry_is_the_one_that_the_aws_cli_writes(user: User) -> None:
    user.makes("demo")
    ours, theirs = user.folder / "ours", user.folder / "theirs"
    assert user.types("kubeconfig", "demo", "--kubeconfig", str(ours)).code == 0
    command = ["aws", "eks", "update-kubeconfig", "--name", "demo", "--kubeconfig", str(theirs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("no aws on PATH")
    assert done.returncode == 0, done.stderr
    expected = yaml.safe_load(theirs.read_text())
    # an absolute program, whatever PATH kubectl is called with
    expected["users"][0]["user"]["exec"]["command"] = shutil.which("aws")
    assert yaml.safe_load(ours.read_text()) == expected


def test_without_aws_on_path_the_token_is_ours(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.makes("demo")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "hyperpod-eks").symlink_to(Path(sys.executable).with_name("hyperpod-eks"))
    file = user.folder / "k"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tools))
        file.write_text(user.types("kubeconfig", "demo", "--stdout", "-o", "json").out)
    (entry,) = json.loads(file.read_text())["users"]
    assert entry["user"]["exec"]["args"][:2] == ["token", "demo"]
    monkeypatch.setenv("HYPERPOD_EKS_OUTPUT", "table")
    monkeypatch.setenv("HYPERPOD_EKS_EVENTS", "-")
    assert len(kubectl(file, "get", "nodes", "-o", "name").split()) == 2


def test_no_code_of_the_current_folder_runs(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a module beside kubectl nor a program behind a relative entry of PATH."""
    user.makes("demo")
    hostile = user.folder / "cloned"
    (hostile / "bin").mkdir(parents=True)
    for module in ("json", "flask", "hyperpod_eks"):
        (hostile / f"{module}.py").write_text("open('/dev/stderr', 'w').write('ran'); exit(9)")
    for program in ("aws", "hyperpod-eks"):
        (hostile / "bin" / program).write_text("#!/bin/sh\necho ran >&2; exit 9")
        (hostile / "bin" / program).chmod(0o755)
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("PATH", f"bin{os.pathsep}{os.pathsep}.")
    config = user.types("kubeconfig", "demo", "--stdout", "-o", "json").document
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
    assert "there is no EKS cluster demo in us-west-2 of account 123456789012" in said.err


@pytest.mark.parametrize(
    "text", ["[]", "clusters: 3", "clusters: [{}]", "a: [", "clusters: {a: 1}"]
)
def test_what_is_no_kubeconfig_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(Usage, match="is no kubeconfig"):
        kubeconfig.read(file)
    assert file.read_text() == text


def test_a_profile_goes_into_the_entry() -> None:
    entry = Entry("demo", ARN, "us-west-2", "https://x.invalid", "Q0E=", profile="team")
    user = document(entry)["users"][0]["user"]["exec"]
    assert {"name": "AWS_PROFILE", "value": "team"} in user["env"]
    assert json.dumps(document(entry))


def test_taking_out_leaves_what_was_there() -> None:
    new = document(Entry("demo", ARN, "us-west-2", "https://x.invalid", "Q0E="))
    assert without(merged(OTHER, new), ARN) == OTHER | {"current-context": "", "preferences": {}}
    assert without(OTHER, ARN) == OTHER
