"""The helm program: where it is, and how old."""

from __future__ import annotations

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
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.programs import ELSEWHERE, on_path, signal_group

OLDEST = (3, 17)
"""The first helm with --take-ownership."""
PATIENCE = 30.0
"""Seconds for a program to say which helm it is."""
LONGEST = 2_000
"""Bytes of what such a program says that are read."""


@frozen
class Helm:
    """A helm program that we can work with; the version as (major, minor, patch)."""

    binary: Path
    version: tuple[int, int, int]
    bundle: str | None = None
    """What it trusts, as `transport.ca_bundle` returns it."""


def find_helm(option: str | Path | None = None, bundle: str | None = None) -> Helm:
    """Find helm: the option, ``HYPERPOD_EKS_HELM``, PATH, or what scripts/get_helm.py fetched.

    The first two must be right if they are given; of the others the first that is new enough is
    taken.  Raises Usage that names the options if there is none.
    """
    for source, path in (
        ("--helm", option),
        ("HYPERPOD_EKS_HELM", os.environ.get("HYPERPOD_EKS_HELM")),
    ):
        if path:
            helm = _examine(Path(_program(path)))
            if isinstance(helm, str):
                raise Usage(f"{source}: {path} {helm}", _OTHERWISE)
            return replace(helm, bundle=bundle)
    refused = []
    for candidate in (on_path("helm"), *_cached()):
        if candidate:
            helm = _examine(Path(candidate))
            if isinstance(helm, Helm):
                return replace(helm, bundle=bundle)
            refused.append(f"{candidate} {helm}")
    raise Usage(f"no usable helm: {'; '.join(refused) or 'there is none on PATH'}", _OTHERWISE)


_OTHERWISE = (
    f"Install helm {OLDEST[0]}.{OLDEST[1]} or newer (https://helm.sh/docs/intro/install/), or name"
    " one with --helm or HYPERPOD_EKS_HELM, or on Linux (x86-64) let scripts/get_helm.py fetch one."
)


def _cached() -> list[Path]:
    found = folders.cached("helm").glob("*/helm")
    return sorted(found, key=lambda path: _version(path.parent.name) or (0, 0, 0), reverse=True)


def _program(path: str | Path) -> str | Path:
    """Look a name without a folder up on PATH, as a shell does; a file here may have it too."""
    return (os.sep not in str(path) and on_path(str(path))) or path


def _examine(binary: Path) -> Helm | str:
    """Ask a program for its version; return what is wrong with it where it will not do."""
    binary = binary.absolute()
    try:  # helm 4 wants to read a file in its config folder, which a home may not have
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
    """Run a program of which nothing is known; return its code and how its output begins.

    One that does not end, or whose output does not, is killed with all that it has started.
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
    """Return the environment for helm: nothing of the user's helm and kubectl, nothing to share.

    client-go caches what a server offers by host and port, which loopback servers reuse, and looks
    into the home directory whatever --kubeconfig says, and fails where it cannot be read;
    LD_LIBRARY_PATH of a bundled Python breaks other programs' TLS.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HELM_", "KUBE")) and name not in ("LD_LIBRARY_PATH", "LD_PRELOAD")
    }
    # private registries: helm takes docker's logins
    kept.setdefault("DOCKER_CONFIG", os.path.expanduser("~/.docker"))  # noqa: PTH111  no home
    names = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECACHEDIR")
    return kept | {name: str(home / name.lower()) for name in names} | {"HOME": str(home)}
