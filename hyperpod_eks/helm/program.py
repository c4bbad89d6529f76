"""Finds the helm program and checks its version."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hyperpod_eks import folders
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.helm import download
from hyperpod_eks.programs import ELSEWHERE, on_path, signal_group

NEVER = "never"
"""The value of ``HYPERPOD_EKS_HELM`` that forbids to download helm."""
OLDEST = (3, 17)
"""The first version of helm with --take-ownership."""
PATIENCE = 30.0
"""Seconds for a program to print its version."""
LONGEST = 2_000
"""Bytes of its output that are read."""


log = logging.getLogger(__name__)


@frozen
class Helm:
    """A usable helm program; the version is (major, minor, patch)."""

    binary: Path
    version: tuple[int, int, int]
    bundle: str | None = None
    """The CA bundle that it trusts (see `transport.ca_bundle`)."""


def find_helm(option: str | Path | None = None, bundle: str | None = None) -> Helm:
    """Find helm: the option, ``HYPERPOD_EKS_HELM``, PATH, or the cache; else download it.

    The first two must be usable if they are given; of the others the first usable one is returned.
    If the variable is ``never``, helm is not downloaded.  Raises Usage, with the options, if there
    is none, and it cannot be downloaded.
    """
    helm = _installed(option)
    return replace(_downloaded(helm, bundle) if isinstance(helm, str) else helm, bundle=bundle)


def refusal() -> Usage | None:
    """Return the error of `find_helm` where it does not even try a download; None otherwise.

    Without ``HYPERPOD_EKS_HELM`` a download is possible, and nothing is looked for.
    """
    try:
        if os.environ.get("HYPERPOD_EKS_HELM"):
            _installed(None)
    except Usage as error:
        return error
    return None


def _installed(option: str | Path | None) -> Helm | str:
    """Find helm on this machine, or return why it is to be downloaded.  Raises Usage."""
    variable = os.environ.get("HYPERPOD_EKS_HELM")
    named = None if variable == NEVER else variable
    for source, path in (("--helm", option), ("HYPERPOD_EKS_HELM", named)):
        if path:
            helm = _examine(Path(_program(path)))
            if isinstance(helm, str):
                raise Usage(f"{source}: {path} {helm}", _OTHERWISE)
            return helm
    refused = []
    for candidate in (on_path("helm"), *_cached()):
        if candidate:
            helm = _examine(Path(candidate))
            if isinstance(helm, Helm):
                return helm
            refused.append(f"{candidate} {helm}")
    missing = f"no usable helm: {'; '.join(refused) or 'there is none on PATH'}"
    if variable == NEVER:
        raise Usage(f"{missing}, and HYPERPOD_EKS_HELM is never", _OTHERWISE)
    return missing


_OTHERWISE = (
    f"Install helm {OLDEST[0]}.{OLDEST[1]} or newer (https://helm.sh/docs/intro/install/), or name"
    " one with --helm or HYPERPOD_EKS_HELM."
)
_downloading = threading.Lock()
"""Held during a download, since several checks look for helm at the same time."""


def _downloaded(missing: str, bundle: str | None) -> Helm:
    """Download helm, and return it; ``missing`` says why."""
    with _downloading:
        helm = next((each for each in map(_examine, _cached()) if isinstance(each, Helm)), None)
        if helm:  # another thread has just done it
            return helm
        try:
            found = _examine(download.download(bundle))
        except HyperpodError as error:
            hint = f"{error.hint} {_OTHERWISE}".strip()
            raise Usage(f"{missing}, and {error}", hint, cause=error.cause) from error
    log.warning("%s; helm %s was downloaded from %s", missing, download.VERSION, download.SITE)
    if isinstance(found, str):
        raise Usage(f"{missing}, and the one that was downloaded {found}", _OTHERWISE)
    return found


def _cached() -> list[Path]:
    found = folders.cached("helm").glob("*/helm")
    return sorted(found, key=lambda path: _version(path.parent.name) or (0, 0, 0), reverse=True)


def _program(path: str | Path) -> str | Path:
    """Resolve a name without a folder on PATH, as a shell does, or else in the current folder."""
    return (os.sep not in str(path) and on_path(str(path))) or path


_usable: dict[tuple[Path, tuple[int, ...]], Helm] = {}
"""Programs that were examined, by path and file: a run asks for each of its releases."""


def _examine(binary: Path) -> Helm | str:
    """Return a program as Helm, or why it is not usable; the same file is run once."""
    binary = binary.absolute()
    try:
        about = binary.stat()
        file = (binary, (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns))
    except OSError as error:
        return f"cannot be run: {error.strerror or error}"
    helm = _usable.get(file) or _run(binary)
    if isinstance(helm, Helm):
        _usable[file] = helm
    return helm


def _run(binary: Path) -> Helm | str:
    try:  # helm 4 reads a file in its config folder, which a home may lack
        folder = tempfile.TemporaryDirectory(prefix="hyperpod-eks-")
    except OSError as error:
        raise Usage(
            f"there is no folder for temporary files: {error.strerror or error}",
            "Set TMPDIR to a folder that can be written.",
        ) from error
    with folder as home:
        command = [str(binary), "version", "--template", "{{.Version}}"]
        try:
            code, said = _first_words(command, environment(Path(home)))
        except OSError as error:
            return f"cannot be run: {error.strerror or error}"
    version = _version(said)
    if code or version is None:
        first, *_ = said.splitlines() or ["it says nothing"]
        return f"is no helm: {first[:200]}"
    if version[:2] < OLDEST:
        number = ".".join(map(str, version))
        return f"is helm v{number}: {OLDEST[0]}.{OLDEST[1]} is the oldest that will do"
    return Helm(binary, version)


def _first_words(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run an unknown program; return its exit code and the beginning of its output.

    After `PATIENCE` seconds or `LONGEST` bytes it is killed, with all processes that it started.
    Raises OSError.
    """
    run = subprocess.Popen(  # noqa: S603  the user's own program
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=ELSEWHERE,
        start_new_session=True,
    )
    stop = partial(signal_group, run.pid, signal.SIGKILL)
    timer = threading.Timer(PATIENCE, stop)
    timer.start()
    begun = time.monotonic()
    try:
        assert run.stdout is not None
        with run.stdout:
            said = run.stdout.read(LONGEST)
        if len(said) == LONGEST:
            stop()
        code = run.wait()
    finally:
        timer.cancel()
        stop()
        run.wait()
    if time.monotonic() > begun + PATIENCE:
        raise TimeoutError(f"it did not end within {PATIENCE:.0f} s")
    return code, said.decode(errors="replace").strip()


def _version(text: str) -> tuple[int, int, int] | None:
    found = re.search(r"^v?(\d+)\.(\d+)\.(\d+)", text, re.MULTILINE)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def environment(home: Path) -> dict[str, str]:
    """Return an isolated environment for helm, without the user's settings of helm and kubectl.

    client-go caches a server's resources by host and port, which loopback servers reuse; it also
    reads the home directory in spite of --kubeconfig, and fails if that is not readable.
    LD_LIBRARY_PATH of a bundled Python breaks other programs' TLS.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HELM_", "KUBE")) and name not in ("LD_LIBRARY_PATH", "LD_PRELOAD")
    }
    # helm uses docker's logins for private registries
    kept.setdefault("DOCKER_CONFIG", os.path.expanduser("~/.docker"))  # noqa: PTH111  no home
    kept.setdefault("GOGC", "400")  # so short a run seldom needs Go's garbage collector
    names = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECACHEDIR")
    return kept | {name: str(home / name.lower()) for name in names} | {"HOME": str(home)}
