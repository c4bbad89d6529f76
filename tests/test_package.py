"""The lock files of dependencies, and the content of the wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hyperpod_eks.cli.commands.explain import PAGES, WHOLE
from hyperpod_eks.cli.commands.init import EXAMPLES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
WANTED = {
    "local": [
        *PROJECT["project"]["dependencies"],
        *(each for each in EXTRAS["local"] if not each.startswith("hyperpod-eks[")),
        *EXTRAS["local-without-cel"],
        *PROJECT["dependency-groups"]["build"],
    ],
    "dev": PROJECT["dependency-groups"]["dev"],
    "site": PROJECT["dependency-groups"]["site"],
}


def locked(name: str) -> dict[str, str]:
    """Return the versions in a file of requirements/; each must have a hash."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    found = re.findall(
        r"^([\w.-]+)==(\S+)( ; [^\\\n]+)? \\\n    --hash=sha256:", text, re.MULTILINE
    )
    assert len(found) == len(re.findall(r"^[a-z]", text, re.MULTILINE))
    return {canonicalize_name(each[0]): each[1] for each in found}


@pytest.mark.parametrize("name", WANTED)
def test_the_lock_fits_what_is_declared(name: str) -> None:
    versions = locked(name)
    for text in WANTED[name]:
        wanted = Requirement(text)
        version = versions.get(canonicalize_name(wanted.name), "")
        assert version, f"`make lock`: {wanted} is not in requirements/{name}.txt"
        assert wanted.specifier.contains(version), f"`make lock`: {wanted}, locked {version}"


def test_both_locks_name_the_same_versions_and_no_index() -> None:
    local, dev = locked("local"), locked("dev")
    assert local.items() <= dev.items()
    for name in WANTED:
        assert "://" not in (ROOT / "requirements" / f"{name}.txt").read_text()


def test_actions_are_pinned_and_may_only_read() -> None:
    for workflow in (ROOT / ".github" / "workflows").iterdir():
        text = workflow.read_text()
        assert "\npermissions:\n  contents: read\n" in text
        for action in re.findall(r"uses: (.*)", text):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action), action


def test_only_the_job_that_publishes_may_sign_in() -> None:
    """It runs nothing of the checkout, and needs a reviewer (PyPI docs, "Trusted Publishers")."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    assert "permissions" not in jobs["build"]
    publish = jobs["publish"]
    assert publish["permissions"] == {"id-token": "write", "attestations": "write"}
    assert publish["environment"] == "release"
    assert not any("checkout" in step.get("uses", "") for step in publish["steps"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a checkout in which other files lie, too."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    hidden = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("hyperpod_eks", "lifecycle", "docs", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for planted in ("hyperpod_eks/.env", "hyperpod_eks/notes.txt", "lifecycle/.env"):
        (source / planted).write_text("SECRET=1")

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip

    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_has_our_files_and_nothing_else(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "hyperpod_eks").rglob("*.py")}
    schemas = {f"hyperpod_eks/_schemas/{p.name}" for p in (ROOT / "docs" / "schemas").iterdir()}
    chart = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "hyperpod_eks" / "local" / "chart").rglob("*.yaml")
    }
    assert packed - modules - schemas - chart == {
        "hyperpod_eks/_lifecycle/on_create.sh",
        "hyperpod_eks/_schemas/config.json",
        *(f"hyperpod_eks/_docs/{page}" for page in PAGES),
        *(f"hyperpod_eks/_docs/{page}.md" for page in WHOLE),
        *(f"hyperpod_eks/_examples/{name}.yaml" for name in EXAMPLES),
        "hyperpod_eks/policy/authorization.json",
        "hyperpod_eks/local/kubernetes/protobuf.json",
        "hyperpod_eks/local/kubernetes/types.json",
        "hyperpod_eks/py.typed",
        "hyperpod_eks/report/page.html",
    }
    assert modules | schemas | chart <= packed


ASKS = """
import json, sys
import hyperpod_eks
from hyperpod_eks.cli import run
from hyperpod_eks.cli.commands.init import EXAMPLES
from hyperpod_eks.cli.commands.explain import WHOLE
from hyperpod_eks.diagnosis.causes import CAUSES
from hyperpod_eks.errors import Exit

assert sys.argv[1] in hyperpod_eks.__file__
topics = [*(str(int(code)) for code in Exit), *(cause.id for cause in CAUSES), *WHOLE]
for topic in topics:
    assert run(["explain", topic, "--events", "-", "-q"]) == 0, topic
for example in EXAMPLES:
    words = ["init", example, "--region", "us-west-2", "--example", example, "-q"]
    assert run(words) == 0, example
assert run(["schema", "-q"]) == run(["policy", "--help"]) == 0
"""


@pytest.mark.prove
def test_a_wheel_explains_every_cause_and_exit_code(wheel: Path, tmp_path: Path) -> None:
    """`more:` of every error names such a topic; there is no checkout to be read."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", ASKS, str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
