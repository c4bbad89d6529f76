"""The examples for GitHub Actions and GitLab CI: their scripts are run, next to another cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpod_eks.local import CHART
from tests.conftest import User

EXAMPLES = Path(__file__).parents[2] / "examples" / "ci"
SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def action() -> Any:
    return yaml.safe_load((EXAMPLES / "action.yml").read_text())


def gitlab() -> Any:
    return yaml.safe_load((EXAMPLES / "gitlab.yml").read_text())[".hyperpod-eks"]


def of_action(**inputs: str) -> list[str]:
    """Return the scripts of the composite action's steps, each with its environment."""
    given = {name: each.get("default") for name, each in action()["inputs"].items()} | inputs
    context = {
        **{f"inputs.{name}": value for name, value in given.items()},
        "github.run_id": "7",
        "github.run_attempt": "1",
        "github.job": "train",
    }
    scripts = []
    for step in action()["runs"]["steps"]:
        assert step["shell"] == "bash"
        condition = step.get("if", "inputs.command == inputs.command")
        left, right = condition.split(" == ")
        if context[left] != context.get(right, right.strip("'")):
            continue
        env = {
            name: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: str(context[found[1]]), value)
            for name, value in step.get("env", {}).items()
        }
        exports = "".join(f"export {name}='{value}'\n" for name, value in env.items())
        scripts.append(exports + step["run"])
    return scripts


def runs(user: User, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a script like both services: stop at the first command that fails."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=user.folder,
        env={**os.environ, "PATH": path, "CI": "true", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def of_gitlab(part: str) -> str:
    """Return the script of a part of the job, with the job's variables."""
    values: Mapping[str, str] = gitlab()["variables"]
    exports = "".join(f'export {name}="{value}"\n' for name, value in values.items())
    return exports + "\n".join(gitlab()[part])


@pytest.fixture
def config(user: User) -> str:
    (user.folder / "cluster.yaml").write_text(f"name: demo\nchart: {{path: {CHART}}}\n")
    return "cluster.yaml"


@pytest.mark.prove  # from create to delete, in seven processes
def test_the_action_creates_a_cluster_and_deletes_it(user: User, config: str) -> None:
    env = user.folder / "env"
    services = {"RUNNER_TEMP": str(user.folder), "GITHUB_ENV": str(env)}
    for script in of_action(config=config):
        done = runs(user, script, **services)
        assert done.returncode == 0, done.stderr
    known = dict(line.split("=", 1) for line in env.read_text().splitlines() if "=" in line)
    assert known["HYPERPOD_EKS_VPC_ID"].startswith("vpc-")
    assert "demo" in Path(known["KUBECONFIG"]).read_text()
    for script in of_action(config=config, command="delete"):
        done = runs(user, script, **services)
        assert done.returncode == 0, done.stderr
    assert user.types("status", "demo").code == 8


@pytest.mark.prove
def test_the_job_of_gitlab_leaves_what_another_job_created(user: User, config: str) -> None:
    user.has("demo", "--run", "6")
    folder = {"CI_PROJECT_DIR": str(user.folder)}
    done = runs(user, of_gitlab("before_script"), CI_JOB_ID="7", **folder)
    assert done.returncode == 0, done.stderr
    assert "demo" in (user.folder / "cluster.kubeconfig").read_text()
    user.mutations()
    done = runs(user, of_gitlab("after_script"), CI_JOB_ID="7", **folder)
    assert done.returncode == 0, done.stderr
    assert user.mutations() == []
    done = runs(user, of_gitlab("after_script"), CI_JOB_ID="6", **folder)
    assert done.returncode == 0, done.stderr
    assert user.types("status", "demo").code == 8


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    assert SHELLCHECK
    scripts = [step["run"] for step in action()["runs"]["steps"]]
    scripts += [of_gitlab("before_script"), of_gitlab("after_script")]
    for number, script in enumerate(scripts):
        (tmp_path / f"{number}.sh").write_text(f"#!/bin/bash\n{script}\n")
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [SHELLCHECK, "--format=json", *files], capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout) == []
