"""The end-to-end script for a real account: its refusals, its run, and its recording."""

from __future__ import annotations

import fcntl
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from hyperpod_eks.local.aws.sim import Delays
from hyperpod_eks.local.stack import Stack

from .conftest import REGION, Clients, User, helm, until

ROOT = Path(__file__).parents[1]
record = runpy.run_path(str(ROOT / "scripts/e2e_recording.py"))["record"]
RECORDINGS = sorted(ROOT.glob("tests/recordings/*.json"))


def e2e(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, ROOT / "scripts/e2e.py", *words],
        env={**clean, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("what", ["run", "sweep"])
def test_without_an_account_it_refuses_with_one_sentence(what: str) -> None:
    done = e2e(what)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("e2e: name the account and the region to use: make e2e")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.prove
def test_its_short_form_ends_well_on_the_embedded_stack(tmp_path: Path) -> None:
    path = f"{helm('4.3.1')}{os.pathsep}{os.environ['PATH']}"
    done = e2e("run", "--endpoint", "local", PATH=path, E2E_FOLDER=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok     nothing remains" in done.stdout
    assert "0 steps failed" in done.stdout


def members(value: Any) -> Any:
    """Return the names of members of a value, joined over the items of lists, without values."""
    if isinstance(value, dict):
        return {name: members(below) for name, below in value.items()}
    if isinstance(value, list):
        gather: dict[str, Any] = {}
        for item in value:
            gather |= members(item) if isinstance(item, dict) else {}
        return gather
    return None


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_embedded_stack_answers_with_the_members_that_were_recorded(
    path: Path, user: User
) -> None:
    """A recording says something about AWS only if it was recorded on AWS."""
    (user.folder / "cluster.yaml").write_text(
        f"name: demo\nregion: {REGION}\ntags: {{a: b}}\ninstance_groups:\n"
        "- {name: workers, instance_type: ml.m5.2xlarge, instance_count: 1}\n"
    )
    user.has("demo", "-f", "cluster.yaml")
    found = record(boto3.Session(region_name=REGION), "demo", "created")
    recorded = [a for a in json.loads(path.read_text())["answers"] if a["stage"] == "created"]
    assert [a["operation"] for a in found] == [a["operation"] for a in recorded]
    for ours, theirs in zip(found, recorded, strict=True):
        assert members(ours["answer"]) == members(theirs["answer"]), ours["operation"]


@pytest.fixture
def account(stack: Stack) -> dict[str, str]:
    """Set the variables with which the script uses this process's stack."""
    stack.sim.delays = Delays.instant()
    path = f"{helm('4.3.1')}{os.pathsep}{os.environ['PATH']}"
    found = {name: value for name, value in stack.environ({}).items() if value is not None}
    return {**found, "PATH": path}


def killed(folder: Path, tier: int, text: str, env: dict[str, str], *, alone: bool) -> None:
    """Start a run, and kill it, with or without its command, once one of its files has a text."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        [
            sys.executable,
            ROOT / "scripts/e2e.py",
            "run",
            "--endpoint",
            "local",
            "--tier",
            str(tier),
        ],
        env={**clean, **env, "E2E_FOLDER": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        until(lambda: any(text in each.read_text() for each in folder.glob("*/*.txt")), 300)
        assert run.poll() is None
        (os.kill if alone else os.killpg)(run.pid, signal.SIGKILL)


@pytest.mark.prove
@pytest.mark.parametrize(
    ("tier", "text", "alone"),
    [
        (0, "$ hyperpod_eks create", True),
        pytest.param(0, "$ hyperpod_eks create", False, marks=pytest.mark.prove),
        # the sweep waits a minute for creates in progress
        pytest.param(0, "network/vpc created", False, marks=pytest.mark.prove),
        pytest.param(0, "network/vpc deleting", False, marks=pytest.mark.prove),
        pytest.param(1, "ok     scale to 2", True, marks=pytest.mark.prove),
    ],
)
def test_what_a_killed_run_leaves_is_swept(
    stack: Stack, account: dict[str, str], tmp_path: Path, *, tier: int, text: str, alone: bool
) -> None:
    before = stack.inventory()
    killed(tmp_path, tier, text, account, alone=alone)
    done = e2e("sweep", "--endpoint", "local", E2E_FOLDER=str(tmp_path), **account)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stack.inventory() == before


@pytest.mark.prove
def test_a_run_that_lives_is_not_swept(
    stack: Stack, aws: Clients, account: dict[str, str], tmp_path: Path
) -> None:
    """On this machine its lock shows it; on another machine, that it has not expired."""
    (tmp_path / "e2e-11290000-aaaa").mkdir()
    (tmp_path / "e2e-11290000-aaaa" / "cluster.yaml").write_text(
        f"name: e2e-11290000-aaaa\nregion: {REGION}\naccount: '123456789012'\n"
    )
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "a.aws.internal"},
        "Action": "sts:AssumeRole",
    }
    for name, expires in (("e2e-11290000-aaaa", 0), ("e2e-11290000-bbbb", 9_999_999_999)):
        aws.iam.create_role(
            RoleName=f"{name}-caller",
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": trust}),
            Tags=[{"Key": "expires", "Value": str(expires)}],
        )
    with (tmp_path / "e2e-11290000-aaaa" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = e2e("sweep", "--endpoint", "local", E2E_FOLDER=str(tmp_path), **account)
        assert done.returncode == 1, done.stderr
        assert "e2e-11290000-aaaa is running here; end it first" in done.stdout
        assert "e2e-11290000-bbbb may run elsewhere until" in done.stdout
    assert {"e2e-11290000-aaaa-caller", "e2e-11290000-bbbb-caller"} <= roles(aws)
    done = e2e("sweep", "--endpoint", "local", "--now", E2E_FOLDER=str(tmp_path), **account)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(name.startswith("e2e-") for name in roles(aws))


def roles(aws: Clients) -> set[str]:
    return {role["RoleName"] for role in aws.iam.list_roles()["Roles"]}
