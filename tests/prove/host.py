"""A machine on which the tool runs and dies: one process after the other, in one Python process.

The steps, the engine, the journal, botocore, the embedded stack and helm are the real ones.  Three
things stand in for what surrounds them: requests reach the stack's application without a socket,
time passes only while the tool waits, and a fuse kills the tool at any chosen boundary.  A kill is
what SIGKILL is: from then on no call of that process is made and no file of it is written, so that
whatever ``finally`` tries has no effect.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
import random
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import boto3
import botocore.endpoint
import botocore.loaders
import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError

from hyperpod_eks import engine, workers
from hyperpod_eks.aws import client as doors
from hyperpod_eks.aws.answers import Watch
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.rate_limit import Pace
from hyperpod_eks.config.load import load
from hyperpod_eks.engine import Context
from hyperpod_eks.errors import Remains
from hyperpod_eks.events import Event
from hyperpod_eks.inventory.untracked import untracked
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import ACCESS_KEY, SECRET_KEY, Delays, is_read
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.session import ADOPT, Session
from hyperpod_eks.state.file_store import locked
from hyperpod_eks.state.manifest import read
from hyperpod_eks.workers import Clock, Result, WorkerPool

REGION = "us-west-2"
NAME = "demo"
EPOCH = 1_700_000_000.0
DELAYS = Delays(
    iam=2, unseen=3, nat_create=2, nat_delete=2, eni_linger=2, eni_left=0.25, endpoint_create=1,
    endpoint_delete=1, eks_create=3, eks_update=2, eks_delete=2, addon=2, addon_check=5,
    access_entry=1, logs=2, hyperpod_create=2, hyperpod_provision=2, hyperpod_spread=4,
    hyperpod_lifecycle=1, hyperpod_terminate=2, hyperpod_delete=2, node_ready=1,
)  # fmt: skip
"""Long enough that everything is seen on its way at least once, moods included."""


_botocore: Any = botocore.endpoint
_workers: Any = workers


class Killed(BaseException):
    """SIGKILL: the process is gone."""


class Boundary(NamedTuple):
    """A place where a process may die: before or after a call, at a file, at a wait, at helm."""

    kind: str
    what: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.kind} {self.what} #{self.nth}"


@dataclass
class Process:
    """One run of the tool, and the place where it is going to die.

    ``state`` counts what changes the world: effects in AWS, what happens there by itself, files,
    helm.  Two boundaries with the same count leave the same account and the same disk behind.
    With ``flood`` the calls that were under way at the kill take effect as well, and nobody learns
    of it.
    """

    fuse: Boundary | None = None
    flood: bool = False
    dead: bool = False
    ghost: bool = False  # dead, while its last calls are still on the wire
    state: int = 0
    changes: int = 0
    path: list[tuple[Boundary, int]] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: list[Event] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)

    def at(self, kind: str, what: str) -> None:
        """Come to a boundary; die there if it is the one."""
        with self.lock:
            if self.dead:
                raise Killed
            self.counts[kind, what] += 1
            here = Boundary(kind, what, self.counts[kind, what])
            self.path.append((here, self.state))
            if here == self.fuse:
                self.dead = True
                raise Killed

    def changed(self) -> None:
        """Remember that the world is another one now."""
        with self.lock:
            self.state += 1


class OneHand(WorkerPool):
    """A crew without threads: a job runs when the engine waits; a seed shuffles the order."""

    def __init__(self, host: Host, seed: int) -> None:
        super().__init__(0, host.clock)
        self.host, self.rng = host, random.Random(seed) if seed else None
        self.todo: deque[tuple[Any, Callable[[], Any]]] = deque()

    def submit(self, job: Any, call: Callable[[], Any]) -> None:
        self.at_work += 1
        self.todo.append((job, call))

    def wait(self, seconds: float) -> Result | None:
        if self.host.process.dead:
            raise Killed
        if not self.todo:
            self.host.process.at("wait", "tick")
            self.host.pass_time(max(seconds, 0.01))
            return None
        if self.rng:
            self.todo.rotate(self.rng.randrange(len(self.todo)))
        job, call = self.todo.popleft()
        self.at_work -= 1
        try:
            return Result(job, call(), None)
        except Killed:
            raise
        except BaseException as error:  # noqa: BLE001  as the real crew does
            return Result(job, None, error)

    def flood(self) -> None:
        """Let the first change of every job that was submitted reach AWS."""
        self.host.process.ghost = True
        for _, call in self.todo:
            with suppress(BaseException):
                call()
        self.host.process.ghost = False


def one_after_the_other(call: Callable[[], Any]) -> Future[Any]:
    """Make a call of those that a step makes together, in an order that every run repeats."""
    done: Future[Any] = Future()
    try:
        done.set_result(call())
    except BaseException as error:  # noqa: BLE001  as a thread would
        done.set_exception(error)
    return done


class SharedSession(boto3.Session):
    """A boto3 session whose clients outlive the processes: making them costs more than a run."""

    def __init__(self, host: Host) -> None:
        core = botocore.session.Session()
        core.register_component("data_loader", botocore.loaders.create_loader())
        super().__init__(
            botocore_session=core,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        self.host = host
        self.made: dict[str, Any] = {}

    def client(self, *arguments: Any, **options: Any) -> Any:
        config = options.get("config")
        if config is None:  # kube.token puts handlers of its own on this one
            return super().client(*arguments, **options)
        key = f"{arguments}{config.retries}"
        if key not in self.made:
            make: Any = super().client
            client = make(*arguments, endpoint_url=self.host.stack.endpoint, **options)
            client.meta.events.register("before-send", self.host.send)
            client.meta.events.register("after-call", self.host.answered)
            client.meta.events.register("after-call-error", self.host.answered)
            self.made[key] = client
        client = self.made[key]
        client.meta.events.unregister("after-call", doors._name_service)
        return client

    def somebody(self, service: str) -> Any:
        """Make a client for whoever is not the tool."""
        make: Any = super().client
        return make(service, endpoint_url=self.host.stack.endpoint)


class Still(Pace):
    """A pace that is attached once, for clients that outlive the processes."""

    attached = False

    def attach(self, client: Any) -> None:
        if not self.attached:
            # the pause before another attempt passes in the account's time
            client.meta.events.register_first("needs-retry", self.judge)
        self.attached = True


class Unwatched(Watch):
    """What sends no request: `Host.send` carries them, and each once."""

    def attach(self, client: Any) -> None:
        """Leave the client as it is."""


class Paces(dict[str, Pace]):
    """One still pace for each service."""

    def setdefault(self, service: str, pace: Pace) -> Pace:
        return super().setdefault(service, Still(service))


class Wire:
    """The socket that the stack's fault "lost" closes."""

    def shutdown(self, how: int) -> None:
        """Do nothing: there is no socket."""


class Raw(io.BytesIO):
    """A body as botocore reads it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


class Host:
    """The machine: the account, the disk, and the process that runs now."""

    def __init__(self, folder: Path) -> None:
        from moto.core import responses  # noqa: PLC0415  moto is slow
        from moto.core.utils import method_names_from_class  # noqa: PLC0415

        from hyperpod_eks.local.aws.server import Aws as Application  # noqa: PLC0415  loads moto

        self.folder = folder
        self.stack = Stack(region=REGION)
        # moto looks through a class at every request
        vars(responses)["method_names_from_class"] = functools.cache(method_names_from_class)
        self.application = Application(self.stack.sim)
        self.clock = HostClock(self)
        self.process = Process()
        self.session = SharedSession(self)
        self.paces = Paces()
        self.running = False
        self.seed = 0
        self.lifecycle = folder / "lifecycle"
        self.lifecycle.mkdir()
        (self.lifecycle / "on_create.sh").write_text("#!/bin/bash\n")
        # a bundle of the machine's would be read at every look
        environ = {**self.stack.environ({}), "REQUESTS_CA_BUNDLE": None}
        self._saved = {name: os.environ.get(name) for name in (*environ, "AWS_PROFILE")}
        for name, value in environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._time = _botocore.time
        # botocore's pauses between attempts pass in the account's time, not in ours
        _botocore.time = SimpleNamespace(sleep=self.pass_time)
        self._begun = _workers.start
        _workers.start = one_after_the_other
        self._fsync = os.fsync
        os.fsync = self.fsync  # type: ignore[assignment]  # its parameter has another name
        _hosts.append(self)
        self.begin()

    def stop(self) -> None:
        """Give everything back."""
        _hosts.remove(self)
        os.fsync = self._fsync
        _botocore.time = self._time
        _workers.start = self._begun
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self.stack.stop()

    def begin(self, delays: Delays = DELAYS, seed: int = 0) -> None:
        """Start with an account and a folder that hold nothing of ours; ``seed``: AWS's moods."""
        self.stack.reset()
        self.stack.sim.seed = seed
        self.stack.sim.delays = delays
        self.stack.clock.advance(3600)
        self.folder_now = self.folder / f"home-{next(_numbers)}"
        self.folder_now.mkdir()
        self.path = self.folder_now / f"{NAME}.hyperpod-eks.json"
        self.serial = 0
        self.seed = 0

    # --- what happens to a process

    def pass_time(self, seconds: float) -> None:
        """Let simulated time pass; the account is another one if something happens on the way."""
        if self.stack.clock.due(seconds):
            self.process.changed()
        self.stack.clock.advance(seconds)

    def send(self, request: AWSPreparedRequest, event_name: str, **_: Any) -> AWSResponse:
        """Carry a request to the account: botocore's ``before-send``."""
        process, operation = self.process, ":".join(event_name.split(".")[1:])
        change = not is_read(operation.partition(":")[2])
        if not process.ghost:
            process.at("before", operation)
        answer = self._exchange(request)
        if change:
            process.changed()
            process.changes += 1
        if process.ghost and change:
            raise Killed
        if not process.ghost:
            process.at("after", operation)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answered(self, **_: Any) -> None:
        """Nothing that a dead process's call answers is heard."""
        if self.process.dead and not self.process.ghost:
            raise Killed

    def _exchange(self, request: AWSPreparedRequest) -> AWSResponse | Exception:
        url = urlsplit(request.url)
        body: Any = request.body or b""
        if hasattr(body, "read"):
            body = body.read()
        data = body.encode() if isinstance(body, str) else bytes(body)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": _decoded(url.path or "/"),
            "RAW_URI": url.path + (f"?{url.query}" if url.query else ""),
            "REQUEST_URI": url.path + (f"?{url.query}" if url.query else ""),
            "QUERY_STRING": url.query,
            "SERVER_NAME": url.hostname,
            "SERVER_PORT": str(url.port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": url.netloc,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": url.scheme,
            "wsgi.input": io.BytesIO(data),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "werkzeug.socket": Wire(),
        }
        given: Any = request.headers  # botocore leaves some values as bytes
        for name, value in given.items():
            text = value.decode() if isinstance(value, bytes) else str(value)
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = text
        environ["CONTENT_LENGTH"] = str(len(data))
        begun: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], exc: Any = None) -> Any:
            begun[:] = [status, headers]

        try:
            content = b"".join(self.application(environ, start))
        except ConnectionAbortedError:
            return ConnectionClosedError(endpoint_url=request.url)
        headers = botocore.compat.HTTPHeaders()
        for name, value in begun[1]:
            headers[name] = value
        return AWSResponse(request.url, int(begun[0][:3]), headers, Raw(content))

    def fsync(self, descriptor: Any) -> None:
        """Come to the boundary before an fsync; a killed process's writes outlive it without one.

        That the tool syncs, and in which order, is for tests/test_manifest.py to prove.
        """
        if self.running and threading.current_thread() is threading.main_thread():
            self.process.at("file", "fsync")

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Come to the boundaries at files and at helm: Python tells of every one."""
        if not self.running:
            return
        if event == "subprocess.Popen":
            words = [str(word) for word in arguments[1]]
            verb = next((word for word in words if word in _HELM_CHANGES), "")
            if verb:
                self.process.at("helm", f"start {verb}")
                self.process.changed()
            elif self.process.dead:
                raise Killed
        elif event == "shutil.rmtree" or (
            event == "os.rmdir" and "hyperpod-eks-" in str(arguments)
        ):
            if "hyperpod-eks-" in str(arguments[0]) and not self.process.dead:
                self.process.at("helm", "end")
        elif str(arguments[0]).startswith(str(self.folder_now)):
            what = event.removeprefix("os.")
            if what == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
            self.process.at("file", what)
            if what == "rename":
                self._check(Path(str(arguments[0])))
            self.process.changed()

    def _check(self, draft: Path) -> None:
        """O7: every version parses, and its serial is higher than the one before."""
        running, self.running = self.running, False
        try:
            serial = json.loads(draft.read_text())["serial"]
        finally:
            self.running = running
        if self.process.dead:
            return
        assert serial > self.serial, f"serial {serial} after {self.serial}"
        self.serial = serial

    # --- the tool

    def run(
        self,
        verb: str,
        *,
        fuse: Boundary | None = None,
        flood: bool = False,
        config: Mapping[str, Any] | None = None,
        **context: Any,
    ) -> Process:
        """Run a command in a new process; ``process.dead`` says that it was killed."""
        process = self.process = Process(fuse, flood)
        random.seed(0)  # the engine's pauses differ a little: the same in every run
        pool: list[OneHand] = []
        self.running = True
        try:
            with suppress(Killed):
                self._command(verb, config or {}, pool, context)
        finally:
            self.running = False
        if process.dead and flood and pool:
            pool[0].flood()
        return process

    def _command(
        self, verb: str, config: Mapping[str, Any], pool: list[OneHand], settings: dict[str, Any]
    ) -> None:
        with self._opened(verb, config) as (resolved, wants, context):
            hand = OneHand(self, self.seed)
            context.pool = hand
            pool.append(hand)
            for name, value in settings.items():
                setattr(context, name, value)
            if verb == "create":
                engine.create(wants, context)
            elif verb == "rebuild":
                engine.rebuild(wants, context)
                context.manifest.save()
            else:
                removed, kept = engine.delete(untracked(context.aws, resolved, wants), context)
                signed = untracked(context.aws, resolved, wants)
                if left := engine.verify_deleted(signed, context, frozenset(kept), removed):
                    raise Remains(f"AWS still shows {left}")
                context.manifest.retire()

    @contextmanager
    def _opened(
        self, verb: str, config: Mapping[str, Any]
    ) -> Iterator[tuple[ResolvedConfig, list[Any], Context]]:
        with locked(self.path):
            at = self.resolved(verb, config)
            yield at.resolved, at.wants, at.context

    def resolved(self, verb: str, config: Mapping[str, Any]) -> Session:
        """Do what the command line does before it begins."""
        data: dict[str, Any] = {
            "name": NAME,
            "region": REGION,
            "chart": {"path": str(CHART)},
            "lifecycle": {"path": str(self.lifecycle), "on_create": "on_create.sh"},
            **config,
        }
        aws = Aws(self.session, NAME, {})
        aws._paces = self.paces
        aws._watch = Unwatched()
        report = self.process.events.append
        context = Context(aws, read(self.path, NAME), report, clock=self.clock, parallelism=0)
        at = Session(load(data, {}, {}), context, replace(ADOPT, adopts=verb == "create"))
        at.begin()
        at.resolve(os.environ.get("HYPERPOD_EKS_HELM"))
        return at


class HostClock(Clock):
    """The account's time."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def now(self) -> float:
        return EPOCH + self.host.stack.clock.elapsed()


def _decoded(path: str) -> str:
    return unquote(path, "latin-1")


_HELM_CHANGES = ("install", "upgrade", "rollback", "uninstall")
_numbers = itertools.count(1)
_hosts: list[Host] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _WATCHED and _hosts:
        _hosts[-1].audit(event, arguments)


_WATCHED = frozenset(
    ["open", "os.rename", "os.link", "os.remove", "subprocess.Popen", "shutil.rmtree"]
)
sys.addaudithook(_audit)  # it cannot be taken away again, but does nothing without a host
