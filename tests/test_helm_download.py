"""Without helm on the machine, the tool downloads it, and runs nothing but what it expects."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.helm import download
from hyperpod_eks.helm.program import find_helm

PROGRAM = b"#!/bin/sh\necho v4.1.4\n"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder in the place of helm's site, for a user without helm."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(download, "SITE", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("HYPERPOD_EKS_HELM", raising=False)
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield folder
    server.shutdown()
    server.server_close()


def published(
    site: Path, monkeypatch: pytest.MonkeyPatch, content: bytes = PROGRAM, member: str = ""
) -> Path:
    """Write an archive with a helm for this platform, and record its digest."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        info = tarfile.TarInfo(member or f"{download.here()}/helm")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    archive = site / f"helm-v{download.VERSION}-{download.here()}.tar.gz"
    archive.write_bytes(file.getvalue())
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    monkeypatch.setattr(download, "DIGESTS", {download.here(): digest})
    return archive


def left(tmp_path: Path) -> list[str]:
    """Return the files in the cache."""
    found = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    return sorted(str(path.relative_to(tmp_path / "cache")) for path in found)


def test_it_is_downloaded_once_and_found_again(
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    archive = published(site, monkeypatch)
    helm = find_helm()
    (warning,) = caplog.messages
    assert warning.endswith(f"none on PATH; helm 4.1.4 was downloaded from {download.SITE}")
    assert helm.version == (4, 1, 4)
    assert left(tmp_path) == ["hyperpod-eks/helm/4.1.4/helm"]
    assert os.access(helm.binary, os.X_OK)
    archive.unlink()
    assert find_helm() == helm
    monkeypatch.setenv("HYPERPOD_EKS_HELM", "never")
    assert find_helm() == helm  # only downloads are forbidden


def test_another_content_is_neither_kept_nor_run(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = published(site, monkeypatch, b"#!/bin/sh\ntouch ../ran\n")
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(HyperpodError, match="is not the helm that was expected: digest"):
        find_helm()
    assert left(tmp_path) == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda archive: archive.unlink(), "404"),
        (lambda archive: archive.write_bytes(b""), "is not the helm that was expected"),
    ],
)
def test_a_failed_download_says_how_to_do_without(
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: object,
    says: str,
) -> None:
    archive = published(site, monkeypatch)
    assert callable(change)
    change(archive)
    with pytest.raises(HyperpodError, match=says) as caught:
        find_helm()
    assert caplog.messages == []  # the error says that there is none, and says it once
    assert "HYPERPOD_EKS_HELM" in caught.value.hint
    assert left(tmp_path) == []


def test_an_archive_without_helm_and_one_too_large_are_refused(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(site, monkeypatch, member="README.md")
    with pytest.raises(HyperpodError, match="has no"):
        find_helm()
    published(site, monkeypatch)
    monkeypatch.setattr(download, "LARGEST", 10)
    with pytest.raises(HyperpodError, match="more than 10 bytes"):
        find_helm()
    assert left(tmp_path) == []


def test_a_platform_without_a_recorded_checksum_is_refused(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(Usage, match=r"is not downloaded for [a-z]+-riscv64") as caught:
        find_helm()
    assert "https://helm.sh" in caught.value.hint


def test_a_cache_that_cannot_be_written_is_named(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(site, monkeypatch)
    (tmp_path / "cache" / "hyperpod-eks").mkdir(parents=True)
    (tmp_path / "cache" / "hyperpod-eks" / "helm").write_text("a file")
    with pytest.raises(Usage, match="cannot write helm to"):
        find_helm()
