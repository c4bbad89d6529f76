"""Runs helm, which ends if we end, and converts its messages to errors."""

from __future__ import annotations

import atexit
import logging
import os
import re
import signal
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from hyperpod_eks.aws import transport
from hyperpod_eks.errors import HyperpodError, Unfinished
from hyperpod_eks.helm.program import Helm, environment
from hyperpod_eks.kube import access as kube
from hyperpod_eks.kube.access import Access
from hyperpod_eks.kube.client import KubeNotReady
from hyperpod_eks.programs import ELSEWHERE, signal_group

if TYPE_CHECKING:
    from asyncio.subprocess import Process

T = TypeVar("T")
Client = Any
"""pyhelm3's client; the package has no types."""
log = logging.getLogger(__name__)
TIMEOUT = "5m"
"""The timeout of helm's own waits, in helm's notation."""
LAST_WORDS = 10.0
"""Seconds for helm to record that it was stopped."""


def warm() -> None:
    """Import the modules that running helm needs, which takes 0.3 s."""
    import asyncio  # noqa: F401, PLC0415

    import yaml  # noqa: F401, PLC0415

    pyhelm3_package()
    kube.warm()


def pyhelm3_package() -> ModuleType:
    """Import pyhelm3, at its first use."""
    import pyhelm3  # type: ignore[import-untyped]  # noqa: PLC0415  no types; costs 0.2 s

    package: ModuleType = pyhelm3
    return package


def with_client(
    access: Access,
    helm: Helm,
    work: Callable[[Client], Coroutine[None, None, T]],
    labels: Mapping[str, str] = MappingProxyType({}),
) -> T:
    """Run `work` with a pyhelm3 client for the cluster; may be called from any thread.

    ``labels`` are put on the records of the releases that it installs or upgrades.
    """
    with kube.kubeconfig(access) as config:
        network = transport.environment(helm.bundle, access.endpoint)
        return finish(work(client_with(helm, config.parent, config, network, labels)))


def finish(work: Coroutine[None, None, T]) -> T:
    """Run a coroutine of pyhelm3; raise HyperpodError for pyhelm3's errors."""
    import asyncio  # noqa: PLC0415  costs 30 ms

    try:
        return asyncio.run(work)
    except (ValueError, pyhelm3_package().errors.Error) as error:  # its models, and json
        raise HyperpodError(f"pyhelm3 does not understand helm or the chart: {error}") from error


def client_with(
    helm: Helm,
    home: Path,
    config: Path | None,
    network: dict[str, str],
    labels: Mapping[str, str] = MappingProxyType({}),
) -> Client:
    """Create a pyhelm3 client that runs helm through `_run` and never waits for pods."""
    from semver import VersionInfo  # noqa: PLC0415

    base = pyhelm3_package().command.Command

    class Command(base):  # type: ignore[misc, valid-type]  # pyhelm3 has no types
        def client_version(self) -> VersionInfo:
            return VersionInfo(*helm.version)  # already known, which saves a process

        async def run(self, command: Sequence[object], input: bytes | None = None) -> bytes:  # noqa: A002
            parts = [str(helm.binary), *(str(part) for part in command)]
            if config:
                parts += ["--kubeconfig", str(config)]
            if labels and command[0] == "upgrade":  # pyhelm3 has no argument for them
                parts += ["--labels", ",".join(f"{key}={each}" for key, each in labels.items())]
            return await _run(parts, input, environment(home) | network)

        # without nodes, a wait for pods never ends

        async def uninstall(self, release_name: str, **options: object) -> None:
            await super().uninstall(release_name, **options | {"wait": False})

        async def rollback(
            self, release_name: str, revision: int | None, **options: object
        ) -> None:
            await super().rollback(release_name, revision, **options | {"wait": False})

        async def install_or_upgrade(self, *arguments: object, **options: object) -> object:
            # saves parsing the manifest, 0.5 s for AWS's chart, which we do not need
            return await super().install_or_upgrade(*arguments, **options) | {
                "manifest": "",
                "hooks": [],
            }

    return pyhelm3_package().Client(Command(), executable=str(helm.binary))


_WITH_US = (
    "(trap '' TERM; read _ <&{0}; kill -TERM 0; sleep {1}; kill -KILL 0) >/dev/null 2>&1 &"
    ' exec "$@"'
)
"""Runs a command that ends if we end: a second shell waits until our end of a pipe is closed.

It then sends SIGTERM and, `LAST_WORDS` later, SIGKILL.
"""


async def _run(
    command: Sequence[str], given: bytes | None, environment: Mapping[str, str]
) -> bytes:
    """Run helm in its own process group and return its stdout.

    A terminal's signal reaches only us.  If we are interrupted or end in any way, helm gets
    SIGTERM: it then records the release as failed, not as pending forever, and does not keep
    running beside the next run.
    """
    import asyncio  # noqa: PLC0415

    log.debug("running %s", " ".join(command))
    alive, ours = os.pipe()  # ours closes if we die, as only we have it
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", _WITH_US.format(alive, LAST_WORDS), "sh", *command),
        pass_fds=(alive,),
        stdin=subprocess.PIPE if given is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=ELSEWHERE,
        start_new_session=True,
    )
    stop = partial(signal_group, process.pid, signal.SIGTERM)
    atexit.register(stop)
    try:
        stdout, stderr = await process.communicate(given)
    except BaseException:
        stop()
        await _ended(process)
        raise
    finally:
        atexit.unregister(stop)
        if process.returncode is not None:
            # the second shell has nothing left to watch
            signal_group(process.pid, signal.SIGKILL)
        os.close(alive)
        os.close(ours)
    if process.returncode:
        raise _meaning(" ".join(command[1:3]), stdout, stderr, process.returncode)
    return stdout


async def _ended(process: Process) -> None:
    """Wait for helm to stop after SIGTERM; kill it after `LAST_WORDS`."""
    import asyncio  # noqa: PLC0415

    try:
        await asyncio.wait_for(process.wait(), LAST_WORDS)
    except TimeoutError:
        signal_group(process.pid, signal.SIGKILL)
        await process.wait()


class TimedOut(HyperpodError):
    """Helm's own timeout expired."""


# Patterns of helm's stderr; `_meaning` says what each means.
_TIME_HEALS = re.compile(
    r"because it is being terminated"
    r"|another operation \(install/upgrade/rollback\) is in progress"
    r"|cluster unreachable|connection refused|i/o timeout|TLS handshake timeout|no such host"
    r"|: Unauthorized|asked for the client to provide credentials| is forbidden: User "
    r"|etcdserver|the server is currently unable"
    r"|failed calling webhook .*no endpoints available for service"
)
_TOO_LARGE = re.compile(r"may not be more than \d+ bytes|request is too large|entity too large")
_PROXY = re.compile(r"Proxy Authentication Required|proxyconnect tcp")
_CHATTER = re.compile(r"WARNING:|level=|[IWE]\d{4} ")
_TIMED_OUT = re.compile(r"timed out waiting for the condition|context deadline exceeded")


def _meaning(what: str, stdout: bytes, stderr: bytes, code: int) -> Exception:
    """Convert a failed run into an error: pyhelm3's own if pyhelm3 expects it."""
    text = stderr.decode(errors="replace").strip()
    if "release: not found" in text:
        missing: Exception = pyhelm3_package().errors.ReleaseNotFoundError(code, stdout, stderr)
        return missing
    lines = [line.strip() for line in text.splitlines() if not _CHATTER.match(line)]
    words = f"helm {what}: {' '.join(lines).removeprefix('Error: ') or f'exit code {code}'}"
    if _PROXY.search(text):
        return HyperpodError(words, "helm uses HTTPS_PROXY and NO_PROXY: correct them.")
    if _TOO_LARGE.search(text):
        return HyperpodError(
            words,
            "Helm keeps a release, with its chart, compressed in a Secret, which has at most 1 MiB:"
            " remove files from a copy of the chart, or apply its crds folder yourself.",
        )
    if _TIME_HEALS.search(text):
        return KubeNotReady(words)
    if _TIMED_OUT.search(text):
        return TimedOut(words)
    if "context canceled" in text:
        return Unfinished(f"{words} (helm was stopped)")
    return HyperpodError(words, "See what helm did with `helm history` and `helm status`.")
