"""Shells complete files and words, without AWS, and never see an error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from hyperpod_eks.cli.app import main
from tests.cli.test_outputs import shell
from tests.conftest import User

GROUPS = "instance_groups: [{name: cpu, instance_count: 2}, {name: gpu, instance_count: 4}]\n"
MANIFEST = {"config": {"instance_groups": [{"name": "worker-group", "instance_count": 3}]}}
RUN = """
import sys
from hyperpod_eks.cli import run
try:
    run([])
finally:
    print(*sys.modules, file=sys.stderr)
"""


def completed(words: str) -> str:
    """Return what bash is told for a line."""
    bash = BashComplete(main, {}, "hyperpod-eks", "")
    *before, begun = words.split(" ")
    found = bash.get_completions(before, begun)
    return " ".join(map(bash.format_completion, found)).replace("plain,", "")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_is_for_this_shell(user: User, name: str) -> None:
    said = user.types("completion", name)
    assert said.code == 0
    assert "_HYPERPOD_EKS_COMPLETE" in said.out
    if program := shutil.which(name):
        subprocess.run([program, "-n"], input=said.out, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("create -f pr", "file,pr"),
        ("delete --manifest pr", "file,pr"),
        ("create --lifecycle pr", "file,pr"),
        ("export terraform --dir pr", "dir,pr"),
        ("status de", "demo"),
        ("scale de", "demo"),
        ("plan --region us-west-", "us-west-1 us-west-2"),
        ("delete --keep bucket,n", "bucket,network"),
        ("plan --query clu", ""),
        ("explain no-capacity-", "no-capacity-in-zone"),
        ("explain 1", "1 10 11 129 130 143"),
        ("scale demo ", "worker-group=3"),
        ("scale demo worker-group = ", ""),  # bash splits the word there
        ("scale -f c.yaml g", "gpu=4"),
        ("scale --manifest demo.hyperpod-eks.json demo w", "worker-group=3"),
        ("update-software demo --group ", "worker-group"),
        ("logs demo --group w", "worker-group"),
        ("events -f c.yaml --group ", "cpu gpu"),
        ("logs broken --group ", ""),
        ("logs none --group ", ""),
        ("logs --group ", ""),
        ("scale -f none.yaml g", ""),
    ],
)
def test_completion_knows_what_a_value_is(user: User, words: str, expected: str) -> None:
    (user.folder / "demo.hyperpod-eks.json").write_text(json.dumps(MANIFEST))
    (user.folder / "broken.hyperpod-eks.json").write_text("[")
    (user.folder / "c.yaml").write_text(GROUPS)
    assert completed(words) == expected
    assert user.stack.calls == []


def test_completion_in_a_deleted_folder_is_silent(user: User, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = shell("cd ../gone; rmdir ../gone; hyperpod-eks", user.folder,
                 _HYPERPOD_EKS_COMPLETE="bash_complete",
                 COMP_WORDS="hyperpod-eks status d", COMP_CWORD="2")  # fmt: skip
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "words", ["pl", "logs demo --group w", "explain no-c", "plan --region us-"]
)
def test_completion_is_quick_and_writes_nothing(user: User, words: str) -> None:
    (user.folder / "demo.hyperpod-eks.json").write_text(json.dumps(MANIFEST))
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env=os.environ
        | {
            "HOME": str(user.folder),
            "_HYPERPOD_EKS_COMPLETE": "bash_complete",
            "COMP_WORDS": f"hyperpod-eks {words}",
            "COMP_CWORD": str(len(words.split(" "))),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    *said, modules = done.stderr.splitlines()
    assert (bool(done.stdout), said) == (True, [])
    heavy = {"boto3", "pydantic", "kubernetes", "rich", "hyperpod_eks.resources"}
    assert heavy & {*modules.split()} == set()
    assert [each.name for each in user.folder.iterdir()] == ["demo.hyperpod-eks.json"]
