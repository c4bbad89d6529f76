"""Shared fixtures: one embedded stack for all tests of a process, and a user who types commands."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import signal
import sys
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.httpsession
import pytest
from botocore.config import Config

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.cli import run
from hyperpod_eks.kube.access import Access
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Call, Delays
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.local.tls import Pki, make_pki
from hyperpod_eks.resources.s3 import OWN
from tests import order, published, remember, wire

REGION = "us-west-2"
HELM = Path(__file__).parents[1] / ".cache" / "helm"
"""The folder into which `make` downloads the helm programs."""
os.environ["GOGC"] = "off"  # garbage collection takes a third of helm's time
gc.set_threshold(500_000, 20, 20)  # and of imports and tests


def apply(monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str | None]) -> None:
    """Set the variables of a stack's ``environ``; unset those that are None."""
    for name, value in environ.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def start_over(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty the account, set its clock to the real time, and point this process's clients at it."""
    stack.reset()
    stack.clock._origin, stack.clock._jumped = datetime.now(UTC), 0.0
    stack.sim.delays = Delays.instant()
    for name in list(os.environ):
        if name.startswith("AWS_") or name == "REQUESTS_CA_BUNDLE":  # slow to read
            monkeypatch.delenv(name)
    apply(monkeypatch, stack.environ({}))
    wire.shorten(stack, monkeypatch)


_http: weakref.WeakSet[Any] = weakref.WeakSet()


def remember_connections() -> None:
    """Record the objects that hold connections, for `close_connections`."""
    http: Any = botocore.httpsession.URLLib3Session
    begin = http.__init__

    def known(self: Any, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        _http.add(self)

    http.__init__ = known


def close_connections() -> None:
    """Close idle connections, as the end of a process does; garbage collection would do it late."""
    for each in _known():
        each.close()


def _known() -> list[Any]:
    while True:
        with suppress(RuntimeError):  # another thread has just opened one
            return list(_http)


def keep_files_in_memory() -> None:
    """Keep temporary folders in memory if there is room: it saves a tenth of a create's time."""
    memory = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return
    there = os.statvfs(memory)
    if there.f_bavail * there.f_frsize > 2 << 30 and not there.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


keep_files_in_memory()
remember.everything()
remember_connections()
published.watch()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(order)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for background jobs of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else our commands inherit that


def pytest_sessionfinish() -> None:
    gc.freeze()  # makes pytest's five final collections faster


@pytest.fixture(autouse=True)
def _as_published() -> Iterator[None]:
    """Fail a test in which something was sent or stored that nobody's schema allows."""
    yield
    assert published.problems() == []


@pytest.fixture(scope="session")
def one_stack() -> Iterator[Stack]:
    stack = Stack(region=REGION)
    gc.freeze()  # moto and botocore are large and are never freed
    yield stack
    stack.stop()


@pytest.fixture(scope="session")
def pki() -> Pki:
    return make_pki()


@pytest.fixture
def stack(one_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """An empty account without delays; new clients of this process use it."""
    start_over(one_stack, monkeypatch)
    return one_stack


@pytest.fixture
def over_http(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process's clients send real requests to the stack's port."""
    wire.lengthen(monkeypatch)


def new_session(key: str | None = None, secret: str | None = None) -> boto3.Session:
    """Return a session with this key, or with the credentials of the environment."""
    return boto3.Session(key, secret)


def new_aws(key: str | None = None, secret: str | None = None) -> Aws:
    """Return the account as the tool sees it, with a session of its own."""
    return Aws(new_session(key, secret)._session, "demo", {})


@pytest.fixture(scope="session")
def session() -> boto3.Session:
    return new_session()


class Clients:
    """Clients by attribute: ``aws.ec2.describe_vpcs()``; they do not retry."""

    def __init__(self, session: boto3.Session, endpoint: str, attempts: int = 1) -> None:
        self._session, self._endpoint, self._attempts = session, endpoint, attempts

    def __getattr__(self, service: str) -> Any:
        client = self._session.client(
            service.replace("_", "-"),  # type: ignore[call-overload]  # the name is not a literal
            endpoint_url=self._endpoint,
            region_name=REGION,
            aws_access_key_id="ASIALOCALSTACK000000",
            aws_secret_access_key="local",
            config=Config(retries={"total_max_attempts": self._attempts, "mode": "standard"}),
        )
        setattr(self, service, client)
        return client


@pytest.fixture(scope="session")
def clients(one_stack: Stack, session: boto3.Session) -> Clients:
    return Clients(session, one_stack.endpoint)


@pytest.fixture
def aws(stack: Stack, clients: Clients) -> Clients:
    """Clients of an empty account."""
    return clients


@pytest.fixture
def patient(stack: Stack, session: boto3.Session) -> Clients:
    """Clients that retry as boto3 does by default."""
    return Clients(session, stack.endpoint, attempts=3)


# --- a user who types commands ------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """The result of a command: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Stdout, parsed as JSON."""
        return json.loads(self.out)


class User:
    """A user who types commands in a folder; the AWS variables point at the stack."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder, self.stack = folder, stack

    def types(self, *words: str, stdin: str = "") -> Said:
        """Run ``hyperpod-eks WORDS...`` in this process, without a terminal.

        The environment is restored afterwards.
        """
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8"))
            environ = dict(os.environ)
            try:
                code = run(words)
            finally:
                close_connections()
                os.environ.clear()
                os.environ.update(environ)
        return Said(int(code), *(stream.buffer.getvalue().decode() for stream in (out, err)))

    def makes(self, name: str, *words: str) -> Any:
        """Create a cluster with the stand-in chart; return the document."""
        said = self.types("create", name, "--chart", str(CHART), *words, "-o", "json")
        assert said.code == 0, said.err
        return said.document

    def has(self, name: str, *words: str) -> Any:
        """Provide the cluster that ``makes`` creates in an empty account; return the document.

        Use it in tests that need a cluster: a process creates it once, and later copies it.
        """
        from tests import copies  # noqa: PLC0415  loads moto

        given = (name, *words)
        return copies.once(self.stack, self.folder, given, lambda: self.makes(*given))

    def mutations(self) -> list[str]:
        """Return the mutating calls since the last time, as service.operation.

        What the tool writes for itself, such as the claim, is left out.
        """
        calls = [f"{c.service}.{c.operation}" for c in self.stack.calls if changes(c)]
        self.stack.calls.clear()
        return calls


def changes(call: Call) -> bool:
    """Whether a call changes something other than the tool's own objects in the bucket."""
    about_objects = call.service == "s3" and "Object" in call.operation  # a policy names them too
    return call.mutating and not (about_objects and OWN in call.request)


def until(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until ``happened`` returns True; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def helm(version: str) -> Path:
    """Return the folder with this version of helm; skip the test without it."""
    folder = HELM / version
    if not (folder / "helm").exists():
        pytest.skip(f"no helm {version} in .cache/helm: `make test` fetches it")
    return folder


def known_helm() -> Path:
    """Return the folder with a helm 4.3.1 that takes no time to print its version."""
    helm("4.3.1")
    return Path(__file__).parent / "bin"


def api_client(access: Access) -> Any:
    """Return a client of the `kubernetes` package with all its classes, for the same cluster."""
    from kubernetes.client import ApiClient  # noqa: PLC0415  slow to import

    client = ApiClient(access._configuration)
    client.rest_client = access._rest
    return client


@contextmanager
def at_work(stack: Stack, folder: Path) -> Iterator[User]:
    """Yield a user with helm 4.3.1, an empty folder and an empty account."""
    with pytest.MonkeyPatch.context() as patch:
        start_over(stack, patch)
        for name in [name for name in os.environ if name.startswith("HYPERPOD_EKS_")]:
            patch.delenv(name)
        patch.delenv("CI", raising=False)
        path = known_helm(), helm("4.3.1"), os.environ["PATH"]
        patch.setenv("PATH", os.pathsep.join(map(str, path)))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setattr("hyperpod_eks.helm.download.SITE", "http://127.0.0.1:9")  # nobody is there
        patch.setattr("os.fsync", lambda _: None)  # tests/test_manifest.py covers power cuts
        (folder / "home").mkdir()
        patch.chdir(folder / "home")
        yield User(folder / "home", stack)


@contextmanager
def in_a_copy(user: User, folder: Path) -> Iterator[User]:
    """Yield a user in a copy of the folder, so that changes in it affect no other test."""
    shutil.copytree(user.folder, folder, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield User(folder, user.stack)


@pytest.fixture
def user(one_stack: Stack, tmp_path: Path) -> Iterator[User]:
    """A user with an empty folder and an empty account."""
    with at_work(one_stack, tmp_path) as somebody:
        yield somebody


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in captured output: pytest-xdist sends reports in UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
