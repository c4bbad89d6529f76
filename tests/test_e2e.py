"""The run on a real account: that it refuses, that it works, and what it recorded."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from .conftest import REGION, User, helm

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


def test_its_short_form_ends_well_on_the_embedded_stack(tmp_path: Path) -> None:
    path = f"{helm('4.3.1')}{os.pathsep}{os.environ['PATH']}"
    done = e2e("run", "--endpoint", "local", PATH=path, E2E_FOLDER=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok     nothing remains" in done.stdout
    assert "0 steps failed" in done.stdout


def members(value: Any) -> Any:
    """The names below a value, those of a list's items together; texts and numbers are dropped."""
    if isinstance(value, dict):
        return {name: members(below) for name, below in value.items()}
    if isinstance(value, list):
        together: dict[str, Any] = {}
        for item in value:
            together |= members(item) if isinstance(item, dict) else {}
        return together
    return None


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_embedded_stack_answers_with_the_members_that_were_recorded(
    path: Path, user: User
) -> None:
    """Such a recording proves something about AWS only if its source is AWS."""
    (user.folder / "cluster.yaml").write_text(
        f"name: demo\nregion: {REGION}\ntags: {{a: b}}\ninstance_groups:\n"
        "- {name: workers, instance_type: ml.m5.2xlarge, instance_count: 1}\n"
    )
    user.makes("demo", "-f", "cluster.yaml")
    found = record(boto3.Session(region_name=REGION), "demo", "created")
    recorded = [a for a in json.loads(path.read_text())["answers"] if a["stage"] == "created"]
    assert [a["operation"] for a in found] == [a["operation"] for a in recorded]
    for ours, theirs in zip(found, recorded, strict=True):
        assert members(ours["answer"]) == members(theirs["answer"]), ours["operation"]
