"""Helm, as HyperPod's chart needs it: one release, in any state, and never waited for.

What a release *is* gets read from helm's own records, the Secrets `sh.helm.release.v1.*`: one
request for the labels of all revisions in all namespaces and one for the newest record tell
state, chart, values and manifest in some 10 ms.  `helm status` takes ten times as long, looks at
one name in one namespace, and needs helm.  What helm *does* goes through pyhelm3 and the helm
program.

The fingerprint of what was installed (see `chart.fingerprint`) is the release's description, as
`helm history` shows it.  Helm writes it only when an install or upgrade has succeeded, and every
other change of the release overwrites it: whatever somebody else did to the release, it no longer
counts as ours.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import gzip
import io
import json
import logging
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hyperpod_eks import folders
from hyperpod_eks.aws import transport
from hyperpod_eks.errors import HyperpodError, Unfinished, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import client as kube
from hyperpod_eks.kube.client import Access, KubeNotReady
from hyperpod_eks.programs import ELSEWHERE, on_path

T = TypeVar("T")
log = logging.getLogger(__name__)

NAME = "hyperpod-dependencies"
NAMESPACE = "kube-system"
OTHER_NAME = "dependencies"
"""What AWS's own CloudFormation templates call the release."""
CHART = "hyperpod-helm-chart"
NAMESPACES = ("aws-hyperpod", "kubeflow", "mpi-operator")
"""The namespaces that the chart makes and an uninstall takes away."""
AGGREGATED = (f"{NAME}-mpi-operator-kubeflow-mpijobs-admin", "kubeflow-training-admin")
"""The chart's aggregated ClusterRoles: the ones that can outlive an uninstall."""

OLDEST = (3, 17)
"""The first helm with --take-ownership."""
TIMEOUT = "5m"
"""What helm gives itself, in helm's spelling."""
PATIENCE = 30.0
"""Seconds for a program to say which helm it is."""
LONGEST = 2_000
"""Bytes of what such a program says that are read."""
LARGEST = 32 << 20
"""Bytes of a record, unpacked; those of AWS's chart have one or two million."""
LAST_WORDS = 10.0
"""Seconds for helm to write down that it was stopped."""
MARK = "hyperpod-eks "
"""What our descriptions begin with; the fingerprint follows."""


# --- the program ----------------------------------------------------------------------------------


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
    try:
        # helm 4 wants to read a file in its config folder, which a home may not have
        with tempfile.TemporaryDirectory(prefix="hyperpod-eks-") as home:
            command = [str(binary), "version", "--template", "{{.Version}}"]
            code, said = _first_words(command, _environment(Path(home)))
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
    stop = partial(_signal, run.pid, signal.SIGKILL)
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


def _environment(home: Path) -> dict[str, str]:
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


# --- what there is --------------------------------------------------------------------------------


@frozen
class Release:
    """The newest revision of a release.

    `status` is helm's: deployed, failed, pending-install, pending-upgrade, pending-rollback,
    uninstalling, uninstalled, superseded, unknown.  `fingerprint` is what `install` was given,
    empty if the last change was not one of ours or failed.
    """

    name: str
    namespace: str
    revision: int
    status: str
    chart: str
    chart_version: str
    fingerprint: str
    description: str
    values: Mapping[str, Any] = field(repr=False)
    manifest: str = field(repr=False)
    hooks: Sequence[Mapping[str, Any]] = field(repr=False)


def releases(access: Access) -> list[Release]:
    """Find HyperPod's release under both names it is known by, in every namespace and state.

    A release called "dependencies" counts only if it is of HyperPod's chart.
    Raises KubeNotReady, HyperpodError as `kube.nodes`.
    """
    newest: dict[tuple[str, str], Mapping[str, Any]] = {}
    selector = f"owner=helm,name in ({NAME},{OTHER_NAME})"
    for found in kube.secret_labels(access, selector):
        key = (kube.text(found, "namespace"), kube.text(found, "labels", "name"))
        if all(key) and (key not in newest or _revision(found) > _revision(newest[key])):
            newest[key] = found
    records = (
        (found, kube.secret(access, found["name"], namespace))
        for (namespace, _), found in sorted(newest.items())
    )
    read = [_read(found, record) for found, record in records if record is not None]
    return [each for each in read if each.name == NAME or each.chart == CHART]


def release(access: Access, name: str = NAME, namespace: str = NAMESPACE) -> Release | None:
    """Find one release; None if there is none.  Raises as `releases`."""
    found = (each for each in releases(access) if (each.name, each.namespace) == (name, namespace))
    return next(found, None)


def _revision(metadata: Mapping[str, Any]) -> int:
    version = kube.text(metadata, "labels", "version")
    return int(version) if version.isdecimal() else 0


def _read(metadata: Mapping[str, Any], record: Mapping[str, bytes]) -> Release:
    """Read a record, by its labels where its content cannot be read."""
    document, info = (found := _document(record)), kube.part(found, "info")
    status = kube.text(info, "status") or kube.text(metadata, "labels", "status") or "unknown"
    description = kube.text(info, "description")
    ours = status == "deployed" and description.startswith(MARK)
    return Release(
        name=kube.text(metadata, "labels", "name"),
        namespace=kube.text(metadata, "namespace"),
        revision=_revision(metadata),
        status=status,
        chart=kube.text(document, "chart", "metadata", "name"),
        chart_version=kube.text(document, "chart", "metadata", "version"),
        fingerprint=description.removeprefix(MARK) if ours else "",
        description=description,
        values=kube.part(document, "config"),
        manifest=kube.text(document, "manifest"),
        hooks=kube.parts(document, "hooks"),
    )


def _document(record: Mapping[str, bytes]) -> Any:
    """Decode a record: JSON in gzip in base64 (in the base64 that every Secret has).

    One that cannot be decoded is an empty one: helm itself passes over it.
    """
    try:
        packed = base64.b64decode(record.get("release", b""))
        with gzip.open(io.BytesIO(packed)) as stream:
            return json.loads(stream.read(LARGEST))
    except (ValueError, OSError, EOFError, RecursionError, zlib.error):
        return {}


# --- what is done ---------------------------------------------------------------------------------


def install(
    access: Access,
    helm: Helm,
    chart: Path,
    values: Mapping[str, Any],
    fingerprint: str,
    *,
    name: str = NAME,
    namespace: str = NAMESPACE,
    timeout: str = TIMEOUT,
) -> Release:
    """Install or upgrade the release, and return it as helm recorded it.

    `chart` is a staged chart (see `chart.stage`), `timeout` is helm's for its hooks ("5m").
    Workloads are not waited for: there are no nodes yet.  Objects that an earlier release left
    behind are taken over.  A release that a broken-off run left pending is rolled back, or
    uninstalled if there is nothing to roll back to.

    Raises KubeNotReady if it is worth another try (no access yet, namespaces that are still being
    deleted, another helm at work), HyperpodError with helm's words otherwise.
    """
    before = release(access, name, namespace)
    if before and before.status not in ("deployed", "failed", "superseded", "uninstalled"):
        _with_client(
            access,
            helm,
            lambda client: client.get_proceedable_revision(
                name, namespace=namespace, timeout=timeout
            ),
        )
    if ending := _terminating(access, {*NAMESPACES, namespace}):
        raise KubeNotReady(
            f"namespaces of an earlier release are still being deleted: {', '.join(ending)}"
        )

    async def work(client: Any) -> None:
        # Helm 4 applies on the server by default and then fights the aggregation controller for
        # the rules of aggregated ClusterRoles.  Helm 3 does not know the flag.
        extra = {"server_side": "false"} if helm.version >= (4,) else {}
        await client.install_or_upgrade_release(
            name,
            _pyhelm3().Chart(client._command, ref=chart, metadata=_metadata(chart)),
            dict(values),
            namespace=namespace,
            create_namespace=False,
            description=MARK + fingerprint,
            take_ownership=True,
            wait=False,
            timeout=timeout,
            **extra,
        )

    try:
        _with_client(access, helm, work)
    except _TimedOut as error:
        raise _timed_out(error, release(access, name, namespace), timeout) from error
    after = release(access, name, namespace)
    if after is None:
        raise HyperpodError(f"helm says that {name} is installed, but there is no record of it")
    return after


def uninstall(
    access: Access,
    helm: Helm,
    what: Release | None,
    *,
    patience: float = 600.0,
    poll: float = 2.0,
) -> None:
    """Uninstall a release and take away what helm leaves; CRDs stay, as helm has it.

    `what` is None if the release is gone, but perhaps not all that it had.  Looks every `poll`
    seconds, `patience` seconds long, until nothing of it is there.  Helm's own waiting is not
    used: it can wait for ever for a ClusterRole that a controller has made again.

    Raises Unfinished that names what is still there, KubeNotReady and HyperpodError as `install`.
    """
    if what is not None:

        async def work(client: Any) -> None:
            await client.uninstall_release(what.name, namespace=what.namespace, timeout=TIMEOUT)

        _with_client(access, helm, work)
    until = time.monotonic() + patience
    while remains := sweep(access, what):
        if time.monotonic() > until:
            raise Unfinished(
                f"helm has uninstalled the chart, but there are still {', '.join(remains)}"
            )
        time.sleep(poll)


def sweep(access: Access, what: Release | None) -> list[str]:
    """Look once at what is left of an uninstalled release: delete ClusterRoles, name the rest.

    Raises as `kube.nodes`.
    """
    roles, named = set(AGGREGATED), set(NAMESPACES)
    workloads: set[tuple[str, str, str]] = set()
    for each in _objects(what.manifest) if what else ():
        kind, name = kube.text(each, "kind"), kube.text(each, "metadata", "name")
        if kind == "ClusterRole" and "aggregationRule" in each:
            roles.add(name)
        elif kind == "Namespace":
            named.add(name)
        else:
            namespace = kube.text(each, "metadata", "namespace") or (what.namespace if what else "")
            workloads.add((kind, namespace, name))
    kube.delete_leftover_cluster_roles(access, sorted(roles))
    there = workloads & kube.workloads(access)
    # a namespace of that name that nobody deletes is somebody else's
    ending = [f"namespace {name}" for name in _terminating(access, named)]
    return ending + ["/".join(each) for each in sorted(there)]


def _terminating(access: Access, names: set[str]) -> list[str]:
    phases = kube.namespaces(access)
    return sorted(name for name in names if phases.get(name) == "Terminating")


def update_dependencies(helm: Helm, chart: Path) -> None:
    """Have helm download the charts that Chart.yaml names.  Raises HyperpodError."""
    with tempfile.TemporaryDirectory(prefix="hyperpod-eks-") as home:
        # pyhelm3 has no call for this one
        command = ["dependency", "update", str(chart)]
        network = transport.environment(helm.bundle)
        _finish(_client(helm, Path(home), None, network)._command.run(command))


def _metadata(chart: Path) -> Any:
    import yaml  # noqa: PLC0415

    return yaml.safe_load((chart / "Chart.yaml").read_bytes())


def _objects(manifest: str) -> list[Mapping[str, Any]]:
    import yaml  # noqa: PLC0415

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 0.07 s for AWS's chart, not 0.5
    try:
        return [each for each in yaml.load_all(manifest, loader) if isinstance(each, Mapping)]
    except yaml.YAMLError:  # of a record that is not whole
        return []


# --- running it -----------------------------------------------------------------------------------


def warm() -> None:
    """Import what running helm takes, 0.3 s of it."""
    import asyncio  # noqa: F401, PLC0415

    import yaml  # noqa: F401, PLC0415

    _pyhelm3()


def _pyhelm3() -> Any:
    import pyhelm3  # type: ignore[import-untyped]  # noqa: PLC0415  no types; costs 0.2 s

    return pyhelm3


def _with_client(access: Access, helm: Helm, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Run `work` with a pyhelm3 client for the cluster, from whatever thread we are in."""
    with kube.kubeconfig(access) as config:
        network = transport.environment(helm.bundle, access.endpoint)
        return _finish(work(_client(helm, config.parent, config, network)))


def _finish(work: Coroutine[Any, Any, T]) -> T:
    import asyncio  # noqa: PLC0415  costs 30 ms

    try:
        return asyncio.run(work)
    except (ValueError, _pyhelm3().errors.Error) as error:  # its models, and json
        raise HyperpodError(f"pyhelm3 does not understand helm or the chart: {error}") from error


def _client(helm: Helm, home: Path, config: Path | None, network: dict[str, str]) -> Any:
    """Make a pyhelm3 client whose helm is run by us, and which never waits."""
    from semver import VersionInfo  # noqa: PLC0415

    base = _pyhelm3().command.Command

    class Command(base):  # type: ignore[misc, valid-type]  # pyhelm3 has no types
        def client_version(self) -> VersionInfo:
            return VersionInfo(*helm.version)  # known already: saves a process

        async def run(self, command: Sequence[Any], input: bytes | None = None) -> bytes:  # noqa: A002
            parts = [str(helm.binary), *(str(part) for part in command)]
            if config:
                parts += ["--kubeconfig", str(config)]
            return await _run(parts, input, _environment(home) | network)

        # the nodes may be missing or gone: whoever waits for pods waits in vain

        async def uninstall(self, release_name: str, **options: Any) -> None:
            await super().uninstall(release_name, **options | {"wait": False})

        async def rollback(self, release_name: str, revision: int | None, **options: Any) -> None:
            await super().rollback(release_name, revision, **options | {"wait": False})

        async def install_or_upgrade(self, *arguments: Any, **options: Any) -> Any:
            # pyhelm3 would parse the whole manifest, 0.5 s for AWS's chart, and we need it not
            return await super().install_or_upgrade(*arguments, **options) | {
                "manifest": "",
                "hooks": [],
            }

    return _pyhelm3().Client(Command(), executable=str(helm.binary))


_WITH_US = (
    "(trap '' TERM; read _ <&{0}; kill -TERM 0; sleep {1}; kill -KILL 0) >/dev/null 2>&1 &"
    ' exec "$@"'
)
"""Run a command that does not outlive us: the shell beside it waits for our end of a pipe.

A helm that does not heed SIGTERM is killed a moment later.
"""


async def _run(
    command: Sequence[str], given: bytes | None, environment: Mapping[str, str]
) -> bytes:
    """Run helm in a process group of its own and return its stdout.

    A signal at the terminal goes to us alone.  When we are interrupted, or end in the middle of
    it, however suddenly, helm gets SIGTERM: it then records the release as failed, not as pending
    for ever, and no helm is left at work beside the next run.
    """
    import asyncio  # noqa: PLC0415

    log.debug("running %s", " ".join(command))
    alive, ours = os.pipe()  # ours closes when we die, and nobody else has it
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
    stop = partial(_signal, process.pid, signal.SIGTERM)
    atexit.register(stop)
    try:
        stdout, stderr = await process.communicate(given)
    except BaseException:
        stop()
        try:
            await asyncio.wait_for(process.wait(), LAST_WORDS)
        except TimeoutError:
            _signal(process.pid, signal.SIGKILL)
            await process.wait()
        raise
    finally:
        atexit.unregister(stop)
        if process.returncode is not None:
            _signal(process.pid, signal.SIGKILL)  # the shell beside it, which has nothing to watch
        os.close(alive)
        os.close(ours)
    if process.returncode:
        raise _meaning(command[1], stdout, stderr, process.returncode)
    return stdout


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


class _TimedOut(HyperpodError):
    """Helm gave up by itself."""


# What helm's stderr says -> what it means; the first that is found counts.
_TIME_HEALS = re.compile(
    r"because it is being terminated"
    r"|another operation \(install/upgrade/rollback\) is in progress"
    r"|cluster unreachable|connection refused|i/o timeout|TLS handshake timeout|no such host"
    r"|: Unauthorized|asked for the client to provide credentials| is forbidden: User "
    r"|etcdserver|the server is currently unable"
)
_PROXY = re.compile(r"Proxy Authentication Required|proxyconnect tcp")
_CHATTER = re.compile(r"WARNING:|level=|[IWE]\d{4} ")
_TIMED_OUT = re.compile(r"timed out waiting for the condition|context deadline exceeded")


def _meaning(verb: str, stdout: bytes, stderr: bytes, code: int) -> Exception:
    """Turn a failed run into an error: pyhelm3's own where pyhelm3 waits for it."""
    text = stderr.decode(errors="replace").strip()
    if "release: not found" in text:
        missing: Exception = _pyhelm3().errors.ReleaseNotFoundError(code, stdout, stderr)
        return missing
    lines = [line.strip() for line in text.splitlines() if not _CHATTER.match(line)]
    words = f"helm {verb}: {' '.join(lines).removeprefix('Error: ') or f'exit code {code}'}"
    if _PROXY.search(text):
        return HyperpodError(words, "helm uses HTTPS_PROXY and NO_PROXY: correct them.")
    if _TIME_HEALS.search(text):
        return KubeNotReady(words)
    if _TIMED_OUT.search(text):
        return _TimedOut(words)
    if "context canceled" in text:
        return Unfinished(f"{words} (helm was stopped)")
    return HyperpodError(words, "See what helm did with `helm history` and `helm status`.")


def _timed_out(error: HyperpodError, what: Release | None, timeout: str) -> HyperpodError:
    """Say what helm was waiting for: the hooks that it began and did not see end."""
    waiting = [
        f"{kube.text(hook, 'kind')} {kube.text(hook, 'name')}"
        for hook in (what.hooks if what else ())
        if kube.text(hook, "last_run", "phase") in ("Running", "Unknown", "Failed")
    ]
    return HyperpodError(
        f"helm gave up after {timeout}, waiting for {', '.join(waiting) or 'the cluster'}: {error}",
        "A chart whose hooks need nodes cannot be installed before the nodes are there. Have a"
        " look with `kubectl get jobs,pods --all-namespaces`.",
    )
