"""The lock files of dependencies, and the content of the wheel."""

from __future__ import annotations

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


def test_the_wheel_has_our_files_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    hidden = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("hyperpod_eks", "lifecycle", "docs", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for planted in ("hyperpod_eks/.env", "hyperpod_eks/notes.txt", "lifecycle/.env"):
        (source / planted).write_text("SECRET=1")

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip

    (wheel,) = tmp_path.glob("*.whl")
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
