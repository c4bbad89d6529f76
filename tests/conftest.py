"""One stack for all tests of a process, and a person at a terminal who works with it."""

from __future__ import annotations

import gc
import inspect
import io
import json
import os
import random
import shutil
import signal
import sys
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import botocore.endpoint_provider
import botocore.hooks
import botocore.httpsession
import botocore.session
import pytest
from botocore.config import Config

from hyperpod_eks.aws.service_model import loader
from hyperpod_eks.cli import run
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Delays
from hyperpod_eks.local.stack import Stack

REGION = "us-west-2"
HELM = Path(__file__).parents[1] / ".cache" / "helm"
"""Where `make` puts the helm programs."""
os.environ["GOGC"] = "off"  # collecting garbage is a third of the time of a helm
gc.set_threshold(150_000, 20, 20)  # and of the time of imports and tests


def apply(monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str | None]) -> None:
    """Set and unset variables as a stack's ``environ`` says."""
    for name, value in environ.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def start_over(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty the account, set its clock by ours and point this process's clients at it."""
    stack.reset()
    stack.clock._origin, stack.clock._jumped = datetime.now(UTC), 0.0
    stack.sim.delays = Delays.instant()
    for name in list(os.environ):
        if name.startswith("AWS_") or name == "REQUESTS_CA_BUNDLE":  # long to read, each time
            monkeypatch.delenv(name)
    apply(monkeypatch, stack.environ({}))


def remember_clients() -> None:
    """Let clients of one service share their class, model and rules of endpoints, which are as
    good as constant.

    A command is one process and makes each once; here many run in one, and that was a third of
    the time of their tests.
    """
    creator: Any = botocore.client.ClientCreator
    for name in ("_load_service_model", "_create_client_class"):
        setattr(creator, name, _once_a_service(getattr(creator, name)))
    provider: Any = botocore.endpoint_provider
    rules = provider.RuleSet
    known: dict[tuple[int, ...], Any] = {}

    def rule_set(**given: Any) -> Any:
        parts = given["rules"], given["partitions"]
        key = tuple(map(id, parts))
        if key not in known:
            known[key] = rules(**given), parts  # what is kept keeps its id
        return known[key][0]

    provider.RuleSet = rule_set


def remember_events() -> None:
    """Let clients share what their events are called, and copy their lists of handlers faster.

    botocore computes that anew for every client: a tenth of the time of a command that makes ten.
    """
    hooks: Any = botocore.hooks
    names: dict[str, str] = {}
    aliaser, trie, nodes = hooks.EventAliaser, hooks._PrefixTrie, hooks.NodeList
    begin, takes_more = aliaser.__init__, hooks.accepts_kwargs

    def with_names(self: Any, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self._alias_name_cache = names  # one for all: no client here has aliases of its own

    def copied(node: dict[str, Any]) -> dict[str, Any]:
        values, children = node["values"], node["children"]
        return {
            "chunk": node["chunk"],
            "values": values and nodes(*(list(each) for each in values)),
            "children": {key: copied(child) for key, child in children.items()},
        }

    def copy(self: Any) -> Any:
        new = trie()
        new._root = copied(self._root)
        return new

    def accepts_kwargs(handler: Any) -> bool:
        code = getattr(handler, "__code__", None)
        return bool(code.co_flags & inspect.CO_VARKEYWORDS if code else takes_more(handler))

    aliaser.__init__, trie.__copy__, hooks.accepts_kwargs = with_names, copy, accepts_kwargs


def _once_a_service(make: Callable[..., Any]) -> Callable[..., Any]:
    made: dict[tuple[str, bool], Any] = {}

    def once(self: Any, service: str, *arguments: Any, **named: Any) -> Any:
        # the product's sessions give their clients a base class (`aws._with_answers`)
        ours = "answers" in self._event_emitter._emitter._unique_id_handlers
        if (service, ours) not in made:
            made[service, ours] = make(self, service, *arguments, **named)
        return made[service, ours]

    return once


_http: weakref.WeakSet[Any] = weakref.WeakSet()


def remember_connections() -> None:
    """Know what holds connections, for `close_connections`."""
    http: Any = botocore.httpsession.URLLib3Session
    begin = http.__init__

    def known(self: Any, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        _http.add(self)

    http.__init__ = known


def close_connections() -> None:
    """Close what is open and idle, as a process does that ends; else it stays until garbage is."""
    for each in list(_http):
        each.close()


def keep_files_in_memory() -> None:
    """Let tests write where no disk is, if there is room: that is a tenth of a create's time."""
    memory = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return
    there = os.statvfs(memory)
    if there.f_bavail * there.f_frsize > 2 << 30 and not there.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


keep_files_in_memory()
remember_clients()
remember_events()
remember_connections()


def pytest_configure(config: pytest.Config) -> None:
    """``TEST_ORDER=random`` chooses an order by chance, ``TEST_ORDER=N`` repeats one."""
    if os.environ.get("TEST_ORDER") == "random":  # workers inherit what is chosen here
        os.environ["TEST_ORDER"] = str(random.randrange(10**6))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else our commands ignore it too


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle the modules and the tests in each; a module's tests stay together.

    Those that share an account come before those that begin with an empty one, for a process has
    one account only.
    """
    if not (order := os.environ.get("TEST_ORDER")):
        return
    chance = random.Random(order)
    places = [str(item.path) for item in items]
    task = {place: chance.random() for place in sorted(set(places))}

    def alone(item: pytest.Item) -> bool:
        info: Any = getattr(item, "_fixtureinfo", None)
        found = info.name2fixturedefs.values() if info else ()
        return not any(definitions[-1].scope == "module" for definitions in found)

    items.sort(key=lambda item: (task[str(item.path)], alone(item), chance.random()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if order := os.environ.get("TEST_ORDER"):
        terminalreporter.write_line(f"the order of the tests was TEST_ORDER={order}")


def pytest_sessionfinish() -> None:
    gc.freeze()  # pytest collects garbage five times at the end, and there is much that is none


@pytest.fixture(scope="session")
def one_stack() -> Iterator[Stack]:
    stack = Stack(region=REGION)
    gc.freeze()  # moto and botocore are large and stay
    yield stack
    stack.stop()


@pytest.fixture
def stack(one_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """An empty account where nothing takes time; clients made now talk to it."""
    start_over(one_stack, monkeypatch)
    return one_stack


def new_session(key: str | None = None, secret: str | None = None) -> boto3.Session:
    """Open a session that does not read botocore's models again: that takes half a second."""
    core = botocore.session.get_session()
    core.register_component("data_loader", loader())
    return boto3.Session(key, secret, botocore_session=core)


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


@pytest.fixture
def aws(stack: Stack, session: boto3.Session) -> Clients:
    return Clients(session, stack.endpoint)


@pytest.fixture
def patient(stack: Stack, session: boto3.Session) -> Clients:
    """Clients that retry as boto3 does by default."""
    return Clients(session, stack.endpoint, attempts=3)


# --- a person at a terminal ---------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What a command left behind: its exit code, and what stood on both streams."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What stood on stdout, as JSON."""
        return json.loads(self.out)


class User:
    """Somebody in a folder of their own who types commands; AWS's variables point at the stack."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder, self.stack = folder, stack

    def types(self, *words: str, stdin: str = "") -> Said:
        """Run ``hyperpod-eks WORDS...`` in this process, in a pipe.

        What it sets in the environment ends with it.
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
        """Have a cluster that ``makes`` created in an empty account; return the document.

        For tests of what comes after: a process creates it once and copies it then.
        """
        from tests import copies  # noqa: PLC0415  loads moto

        given = (name, *words)
        return copies.once(self.stack, self.folder, given, lambda: self.makes(*given))

    def mutations(self) -> list[str]:
        """What changed the account since the last time somebody asked, as service.operation."""
        calls = [f"{c.service}.{c.operation}" for c in self.stack.calls if c.mutating]
        self.stack.calls.clear()
        return calls


def until(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that is sure to happen; fail when it does not."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def helm(version: str) -> Path:
    """Return the folder with this helm; skip the test where there is none."""
    folder = HELM / version
    if not (folder / "helm").exists():
        pytest.skip(f"no helm {version} in .cache/helm: `make test` fetches it")
    return folder


@contextmanager
def at_work(stack: Stack, folder: Path) -> Iterator[User]:
    """Let a person, whose helm is 4.3.1, stand in an empty folder before an empty account."""
    with pytest.MonkeyPatch.context() as patch:
        start_over(stack, patch)
        for name in [name for name in os.environ if name.startswith("HYPERPOD_EKS_")]:
            patch.delenv(name)
        patch.delenv("CI", raising=False)
        patch.setenv("PATH", f"{helm('4.3.1')}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setattr("os.fsync", lambda _: None)  # the power does not fail: test_manifest has it
        (folder / "home").mkdir()
        patch.chdir(folder / "home")
        yield User(folder / "home", stack)


@contextmanager
def in_a_copy(user: User, folder: Path) -> Iterator[User]:
    """Let somebody stand in a copy of their folder; what a test changes in it is no other's."""
    shutil.copytree(user.folder, folder, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield User(folder, user.stack)


@pytest.fixture
def user(one_stack: Stack, tmp_path: Path) -> Iterator[User]:
    """A person at a terminal."""
    with at_work(one_stack, tmp_path) as somebody:
        yield somebody


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Spell out lone surrogates in what was captured: pytest-xdist sends reports in UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
