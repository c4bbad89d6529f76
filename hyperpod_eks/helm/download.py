"""Download helm itself, for a machine that has none.

Archives and their layout are those of https://helm.sh/docs/intro/install/, "From the Binary
Releases".  Nothing is run, or written beside the cache, before the archive has the digest that is
recorded here.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from hyperpod_eks import folders
from hyperpod_eks.aws import transport
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.files import make_folder, sync_folder

VERSION = "4.1.4"
# SHA-256 of the archives: release notes of helm v4.1.4, read 2026-11-30.
DIGESTS = {
    "darwin-amd64": "abf09c8503ad1d8ef76d3737a058c3456a998aae5f5966fce4bb3031aeb1654e",
    "darwin-arm64": "7c2eca678e8001fa863cdf8cbf6ac1b3799f9404a89eb55c08260ef5732e658d",
    "linux-amd64": "70b2c30a19da4db264dfd68c8a3664e05093a361cefd89572ffb36f8abfa3d09",
    "linux-arm64": "13d03672be289045d2ff00e4e345d61de1c6f21c1257a45955a30e8ae036d8f1",
}
SITE = "https://get.helm.sh"
LARGEST = 200 << 20
"""Bytes that the archive, and the program in it, may have."""
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def here() -> str:
    """Return helm's name for this platform, such as "linux-amd64"."""
    machine = platform.machine().lower()
    return f"{sys.platform}-{_ARCHITECTURES.get(machine, machine)}"


def download(bundle: str | None) -> Path:
    """Download helm to the cache, and return its path.

    ``bundle`` is the result of `transport.ca_bundle`.  Raises Usage for a platform whose digest is
    not recorded and for a cache that is not writable, and HyperpodError if the download fails or
    has another digest.
    """
    if here() not in DIGESTS:
        raise Usage(f"helm is not downloaded for {here()}, whose checksum is not recorded")
    url = f"{SITE}/helm-v{VERSION}-{here()}.tar.gz"
    folder = folders.cache() / "helm" / VERSION
    try:
        make_folder(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as parts:
            archive, program = Path(parts) / "archive", Path(parts) / "helm"
            _save(url, archive, bundle)
            _unpack(url, archive, program)
            program.replace(folder / "helm")
            sync_folder(folder)
    except OSError as error:
        raise Usage(
            f"cannot write helm to {folder}: {error.strerror or error}",
            "Set XDG_CACHE_HOME or TMPDIR to a writable folder.",
        ) from error
    return folder / "helm"


def _save(url: str, archive: Path, bundle: str | None) -> None:
    """Write what a URL has to a file.  Raises HyperpodError for another digest."""
    found, size = hashlib.sha256(), 0
    try:
        with transport.download(url, bundle) as answer, archive.open("wb") as file:
            while block := answer.read(1 << 16):
                found.update(block)
                if (size := size + len(block)) > LARGEST:
                    raise HyperpodError(f"it has more than {LARGEST} bytes")
                file.write(block)
    except HyperpodError as error:
        text = f"helm cannot be downloaded from {url}: {error}"
        raise HyperpodError(text, error.hint, cause=error.cause) from error
    if found.hexdigest() != DIGESTS[here()]:
        raise HyperpodError(
            f"{url} is not the helm that was expected: digest {found.hexdigest()}, expected"
            f" {DIGESTS[here()]}",
            "The download was deleted.  Check for a proxy that changes downloads.",
        )


def _unpack(url: str, archive: Path, program: Path) -> None:
    try:
        with tarfile.open(archive) as tar, program.open("wb") as file:
            content = tar.extractfile(f"{here()}/helm")
            assert content
            _copy(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (AssertionError, EOFError, KeyError, tarfile.TarError) as error:
        raise HyperpodError(f"{url} has no {here()}/helm") from error
    program.chmod(0o755)


def _copy(content: IO[bytes], file: IO[bytes]) -> None:
    while block := content.read(1 << 20):
        file.write(block)
