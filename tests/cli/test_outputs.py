"""Values for scripts, from the manifest: `outputs` and `status --offline`, also in a real shell."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.cli.commands.outputs import text, values
from hyperpod_eks.config.section import SETTINGS
from hyperpod_eks.errors import Usage
from hyperpod_eks.local.aws.sim import Delays
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.terminal.formats import variables
from tests.commands import EVERY
from tests.conftest import User

BIN = Path(sys.executable).parent


def shell(script: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a line in bash."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{script}"],
        cwd=folder,
        env=os.environ | {"PATH": path} | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_outputs_are_those_of_create_and_ask_nobody(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = user.has("demo")
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    user.stack.calls.clear()
    said = user.types("outputs", "demo", "-o", "json")
    assert said.document["outputs"] == made["outputs"]
    assert None not in made["outputs"].values()
    assert len(made["outputs"]["private_subnet_ids"]) == 2
    vpc = made["outputs"]["vpc_id"]
    assert user.types("outputs", "demo", "vpc_id").out == f"{vpc}\n"
    file = "demo.hyperpod-eks.json"
    assert user.types("outputs", "--manifest", file, "vpc_id").out == f"{vpc}\n"
    assert user.types("outputs", "demo", "vpc_id", "-o", "env").out.startswith(
        "HYPERPOD_EKS_VPC_ID='vpc-"
    )
    said = user.types("outputs", "demo", "vpc")
    assert said.code == 8
    assert "the cluster demo has no output vpc\nIt has cluster_name, region," in said.err
    place = ("--local", "--region", "us-west-2", "--profile", "team")
    assert user.types("outputs", "demo", "vpc_id", *place).out == f"{vpc}\n"
    said = user.types("outputs", "demo", "--region", "eu-west-1")
    assert (said.code, said.out) == (2, "")
    assert "us-west-2" in said.err
    offline = user.types("status", "demo", "--offline", "-o", "json").document
    assert (offline["source"], offline["cluster"]["ready"]) == ("manifest", True)
    assert offline["cluster"]["arn"] == made["outputs"]["cluster_arn"]
    assert "25 resources as declared" in user.types("status", "demo", "--offline").out
    assert user.stack.calls == []


def test_what_is_amid_an_update_is_not_remembered_as_ready(user: User) -> None:
    user.has("demo")
    user.stack.sim.delays = Delays(hyperpod_provision=60)
    group = user.types("status", "demo", "-o", "json").document["instance_groups"][0]
    more = f"{group['name']}={group['target'] + 1}"
    assert user.types("scale", "demo", more, "--yes", "--timeout", "1").code == 6

    said = user.types("status", "demo", "--offline")

    assert "cluster  updating, says the manifest" in said.out
    offline = user.types("status", "demo", "--offline", "-o", "json").document
    assert offline["cluster"]["ready"] is False
    user.stack.clock.advance(60)
    assert user.types("create", "demo", "--yes", "--timeout", "30").code == 0
    offline = user.types("status", "demo", "--offline", "-o", "json").document
    assert offline["cluster"]["ready"] is True


def test_without_a_manifest_there_are_none(user: User) -> None:
    for words in (["outputs", "demo"], ["status", "demo", "--offline"]):
        said = user.types(*words)
        assert (said.code, said.out) == (8, "")
        assert "demo.hyperpod-eks.json" in said.err
        assert "adopt demo --rebuild" in said.err
    assert user.types("outputs").code == 2


def test_what_is_not_made_yet_is_not_found(user: User) -> None:
    (user.folder / "demo.hyperpod-eks.json").write_text(
        json.dumps(
            {
                "schema": "hyperpod-eks/manifest/v1",
                "cluster": "demo",
                "account": "123456789012",
                "region": "us-west-2",
                "lineage": "x",
                "serial": 1,
                "resources": {},
            }
        )
    )
    assert user.types("outputs", "demo", "region").out == "us-west-2\n"
    assert user.types("outputs", "demo", "vpc_id").code == 8
    assert user.types("outputs", "demo", "-o", "json").document["outputs"]["vpc_id"] is None


def test_the_manifest_is_read_without_boto3(user: User) -> None:
    user.has("demo")
    program = (
        "import sys; from hyperpod_eks.cli import run; "
        "code = run(sys.argv[1:]); "
        "heavy = {'boto3', 'botocore', 'kubernetes', 'pyhelm3', 'moto'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    for words in (["outputs", "demo"], ["status", "demo", "--offline"], ["version"], ["schema"]):
        command = [sys.executable, "-c", program, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


HOSTILE = "it's $(touch hacked) `touch hacked` \"; touch hacked; \\ \n two"


def test_variables_are_safe_for_eval(tmp_path: Path) -> None:
    lines = "\n".join(variables({"a-b": HOSTILE, "none": None, "yes": True, "list": ["x", 1]}))
    script = (
        f"eval {shlex.quote(lines)}\n"
        'printf "%s|%s|%s|%s|%s" "$HYPERPOD_EKS_A_B" "$HYPERPOD_EKS_NONE" "$HYPERPOD_EKS_YES"'
        ' "$HYPERPOD_EKS_LIST_0" "$HYPERPOD_EKS_LIST_1"'
    )
    done = shell(script, tmp_path)
    assert done.stdout == f"{HOSTILE}||true|x|1"
    assert list(tmp_path.iterdir()) == []


def test_the_way_from_create_to_kubectl_as_typed(user: User) -> None:
    made = user.has("demo")
    done = shell(
        'eval "$(hyperpod-eks outputs demo -o env)"\n'
        'echo "$HYPERPOD_EKS_CLUSTER_ARN $HYPERPOD_EKS_VPC_ID"\n'
        "hyperpod-eks kubeconfig demo --stdout > k && kubectl --kubeconfig k get nodes\n",
        user.folder,
        HOME=str(user.folder),
    )
    assert done.returncode == 0, done.stderr
    first, head, *nodes = done.stdout.splitlines()
    assert first == f"{made['outputs']['cluster_arn']} {made['outputs']['vpc_id']}"
    assert head.split()[:2] == ["NAME", "STATUS"]
    assert [node.split()[1] for node in nodes] == ["Ready", "Ready"]


def test_what_is_not_made_yet_is_a_dash() -> None:
    found: dict[str, object] = {"vpc_id": None, "private_subnet_ids": [], "region": "us-west-2"}
    document: Any = {"outputs": found}
    said = text(document)
    assert [line.split()[1] for line in said.splitlines()] == ["-", "-", "us-west-2"]


def test_no_output_is_an_input() -> None:
    inputs = {
        parameter.envvar
        for command in EVERY.values()
        for parameter in command.params
        if isinstance(parameter.envvar, str)
    }
    read_ = {variable for _, variable in SETTINGS.values()} | {"HYPERPOD_EKS_HELM"} | inputs
    document = dict.fromkeys([name.removeprefix("HYPERPOD_EKS_").lower() for name in read_], "x")
    printed = {line.partition("=")[0] for line in variables(document)}
    assert printed == {name.replace("_EKS_", "_EKS_CLUSTER_") for name in read_}
    known = set(values(Manifest(FileStore(Path()), "")))
    assert not {f"HYPERPOD_EKS_{name.upper()}" for name in known - {"region"}} & read_


def test_values_for_files_of_ci_systems_are_bare() -> None:
    found = {"region": "us-west-2", "list": ["a b", "it's"], "none": None}
    bare = [
        "HYPERPOD_EKS_CLUSTER_REGION=us-west-2",
        "HYPERPOD_EKS_LIST_0=a b",
        "HYPERPOD_EKS_LIST_1=it's",
        "HYPERPOD_EKS_NONE=",
    ]
    assert list(variables(found, "dotenv")) == list(variables(found, "github")) == bare
    (several,) = variables({"text": "one\nHYPERPOD_EKS_X=two"}, "github")
    first, *rest, last = several.splitlines()
    assert first == f"HYPERPOD_EKS_TEXT<<{last}"
    assert rest == ["one", "HYPERPOD_EKS_X=two"]
    with pytest.raises(Usage, match="HYPERPOD_EKS_TEXT has several lines"):
        list(variables({"text": "one\ntwo"}, "dotenv"))
