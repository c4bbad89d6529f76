"""A simulated machine: runs and kills the tool's processes one after another in one Python process.

The steps, the engine, the manifest, botocore, the embedded stack and helm are the real ones.  Three
parts are simulated: requests reach the stack's application without a socket, time passes only
while the tool waits, and a fuse kills the tool at a given boundary.  A kill is like SIGKILL:
afterwards that process makes no call and writes no file, so that ``finally`` blocks have no effect.
Instead of being killed it may be suspended there, as by SIGSTOP, while other processes run.
"""

from __future__ import annotations

import functools
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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import botocore.endpoint
import botocore.loaders
import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError

from hyperpod_eks import engine, workers
from hyperpod_eks.aws import client as doors
from hyperpod_eks.aws.answers import Watch
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.rate_limit import Pace
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.config.load import load
from hyperpod_eks.engine import Context
from hyperpod_eks.events import Event
from hyperpod_eks.kube import client as kube
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws import amp
from hyperpod_eks.local.aws.fsx import of_region
from hyperpod_eks.local.aws.sim import ACCESS_KEY, ACCOUNT, SECRET_KEY, Delays, is_read
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.session import ADOPT, Session
from hyperpod_eks.smoke import job as smoke_job
from hyperpod_eks.smoke import run as smoke
from hyperpod_eks.smoke.inputs import Facts, Gate
from hyperpod_eks.state import claim, lease, objects, s3_store
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.lease import TERM
from hyperpod_eks.state.manifest import read
from hyperpod_eks.state.s3_store import S3Store
from hyperpod_eks.state.store import Store
from hyperpod_eks.workers import Clock, Result, WorkerPool
from tests.wire import answered, signed

REGION = "us-west-2"
NAME = "demo"
EPOCH = 1_700_000_000.0
STATE, KEY = "team-state", f"ml/{NAME}.json"
"""Where the manifest is that is not in a file."""
HERE, ELSEWHERE = "here", "elsewhere"
"""Machines: each has its own files, and knows only its own processes."""
DELAYS = Delays(
    iam=2, unseen=3, nat_create=2, nat_delete=2, eni_linger=2, eni_left=0.25, endpoint_create=1,
    endpoint_delete=1, eks_create=3, eks_update=2, eks_delete=2, addon=2, addon_check=5,
    access_entry=1, logs=2, hyperpod_create=2, hyperpod_provision=2, hyperpod_spread=4,
    hyperpod_lifecycle=1, hyperpod_terminate=2, hyperpod_delete=2, node_ready=1,
    amp=2, fsx_rules=2, fsx_create=3, fsx_delete=2, governance=2,
)  # fmt: skip
"""Long enough that every transitional state is observed at least once, under any seed."""


_botocore: Any = botocore.endpoint
_workers: Any = workers


class Killed(BaseException):
    """SIGKILL: the process is killed."""


class Boundary(NamedTuple):
    """A point where a process can be killed: before or after a call, at a file, a wait or helm."""

    kind: str
    what: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.kind} {self.what} #{self.nth}"


@dataclass
class Process:
    """One run of the tool, and the boundary at which it is killed.

    ``state`` counts changes: effects of calls, events in AWS, files and helm.  A kill at two
    boundaries with the same count leaves the same account and the same disk.  With ``flood``, calls
    in flight at the kill take effect too, but nothing records their answers.
    """

    fuse: Boundary | None = None
    flood: bool = False
    machine: str = HERE
    meanwhile: Callable[[], None] | None = None
    """What happens while it is suspended at the fuse, instead of being killed."""
    number: int = field(default_factory=partial(next, itertools.count(10_000_000)))
    """No real process has such an id."""
    suspended: bool = False  # it was
    dead: bool = False
    ghost: bool = False  # killed, while its last calls take effect
    state: int = 0
    changes: int = 0
    path: list[tuple[Boundary, int]] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: list[Event] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)
    aws: Aws | None = None

    def at(self, kind: str, what: str) -> None:
        """Record a boundary; raise Killed if it is the fuse."""
        with self.lock:
            if self.dead:
                raise Killed
            self.counts[kind, what] += 1
            here = Boundary(kind, what, self.counts[kind, what])
            self.path.append((here, self.state))
            if here != self.fuse:
                return
            if self.meanwhile is None:
                self.dead = True
                raise Killed
            self.suspended, meanwhile, self.meanwhile = True, self.meanwhile, None
            meanwhile()

    def changed(self) -> None:
        """Count a change of the account or the disk."""
        with self.lock:
            self.state += 1


class OneHand(WorkerPool):
    """Workers without threads: jobs run when the engine waits, in an order drawn from a seed."""

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
        except BaseException as error:  # noqa: BLE001  like the real workers
            return Result(job, None, error)

    def arrived(self) -> Iterator[Result]:
        """Results that come together, now and then."""
        while self.rng and self.todo and self.rng.random() < 0.5:
            if result := self.wait(0):
                yield result

    def flood(self) -> None:
        """Let the first mutating call of every submitted job take effect."""
        self.host.process.ghost = True
        for _, call in self.todo:
            with suppress(BaseException):
                call()
        self.host.process.ghost = False


def one_after_the_other(call: Callable[[], Any]) -> Future[Any]:
    """Replace `workers.start`: make concurrent calls one after another, in a reproducible order."""
    done: Future[Any] = Future()
    try:
        done.set_result(call())
    except BaseException as error:  # noqa: BLE001  like a thread
        done.set_exception(error)
    return done


class SharedSession(botocore.session.Session):
    """A session whose clients all processes share: creating them takes longer than a run.

    Those that write the manifest, the lock and the claim are others: nobody checks their calls.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.register_component("data_loader", botocore.loaders.create_loader())
        self.set_config_variable("region", REGION)
        self.set_credentials(ACCESS_KEY, SECRET_KEY)
        self.host = host
        self.made: dict[str, Any] = {}

    def create_client(self, *arguments: Any, **options: Any) -> Any:
        config = options.get("config")
        if config is None:
            return super().create_client(*arguments, **options)
        key = f"{arguments}{config.retries}"
        if key not in self.made:
            make: Any = super().create_client
            client = make(*arguments, endpoint_url=self.host.stack.endpoint, **options)
            client.meta.events.register_last("before-send", self.send)
            client.meta.events.register("after-call", self.host.answered)
            client.meta.events.register("after-call-error", self.host.answered)
            self.made[key] = client
        client = self.made[key]
        client.meta.events.unregister("after-call", doors._name_service)
        client.meta.events.unregister("before-send", unique_id="check")
        return client

    def send(self, **about: Any) -> AWSResponse:
        """Send a request to the stack."""
        return self.host.send(of_state=self is self.host.side, **about)

    def check(self, aws: Aws) -> None:
        """Let a process that goes on check the calls, as its own clients would."""
        for client in self.made.values():
            client.meta.events.unregister("before-send", unique_id="check")
            client.meta.events.register("before-send", aws._check, unique_id="check")

    def somebody(self, service: str) -> Any:
        """Return a client for calls that are not the tool's."""
        make: Any = super().create_client
        return make(service, endpoint_url=self.host.stack.endpoint)


class Still(Pace):
    """A `Pace` that is attached to each shared client once."""

    attached = False

    def attach(self, client: Any) -> None:
        if not self.attached:
            # the pause before a retry passes in simulated time
            client.meta.events.register_first("needs-retry", self.judge)
        self.attached = True


class Unwatched(Watch):
    """A `Watch` that does nothing: `Host.send` sends each request once."""

    def attach(self, client: Any) -> None:
        """Leave the client as it is."""


class Paces(dict[str, Pace]):
    """One `Still` for each service."""

    def setdefault(self, service: str, pace: Pace) -> Pace:
        return super().setdefault(service, Still(service))


class Host:
    """The simulated machine: the account, the disk, and the current process."""

    def __init__(self, folder: Path) -> None:
        from moto.core import responses  # noqa: PLC0415  moto is slow
        from moto.core.utils import method_names_from_class  # noqa: PLC0415

        from hyperpod_eks.local.aws.server import Aws as Application  # noqa: PLC0415  loads moto

        self.folder = folder
        self.stack = Stack(region=REGION)
        # moto inspects a class at every request
        vars(responses)["method_names_from_class"] = functools.cache(method_names_from_class)
        self.application = Application(self.stack.sim)
        self.clock = HostClock(self)
        self.process = Process()
        self.session, self.side = SharedSession(self), SharedSession(self)
        self.paces = Paces()
        self.running: list[Process] = []
        self.seed = 0
        self.lifecycle = folder / "lifecycle"
        self.lifecycle.mkdir()
        (self.lifecycle / "on_create.sh").write_text("#!/bin/bash\n")
        # a CA bundle would be read again and again
        environ = {**self.stack.environ({}), "REQUESTS_CA_BUNDLE": None}
        self._saved = {name: os.environ.get(name) for name in (*environ, "AWS_PROFILE")}
        for name, value in environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._time = _botocore.time
        # botocore's pauses before retries pass in simulated time
        _botocore.time = SimpleNamespace(sleep=self.pass_time)
        self._replaced: list[tuple[Any, str, Any]] = []
        self._replace(_workers, "start", one_after_the_other)
        self._replace(s3_store, "start", one_after_the_other)
        time = SimpleNamespace(monotonic=self.clock.now, sleep=self.pass_time)
        for module in (lease, objects, claim):
            self._replace(module, "time", time)
        self._replace(smoke_job, "time", SimpleNamespace(**vars(time), time=self.clock.now))
        self._replace(Gate, "wait", lambda _, seconds: self.pass_time(seconds))
        self._replace(kube, "_send", partial(self.ask_kubernetes, kube._send))
        self._replace(lease, "clock", self.clock.now)
        self._replace(lease, "_process", self.named)
        # no thread renews a lock: the holder does, before a change
        idle = SimpleNamespace(start=lambda: None)
        self._replace(lease, "threading", SimpleNamespace(**_threads, Thread=lambda **_: idle))
        self._replace(claim, "Aws", lambda *_: self.aws(self.side))
        self._replace(SigV4Auth, "add_auth", signed)
        self._fsync = os.fsync
        os.fsync = self.fsync  # type: ignore[assignment]  # another name of its parameter
        _hosts.append(self)
        self.begin()

    def stop(self) -> None:
        """Restore everything that was replaced."""
        _hosts.remove(self)
        os.fsync = self._fsync
        _botocore.time = self._time
        for module, name, value in self._replaced:
            setattr(module, name, value)
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self.stack.stop()

    def _replace(self, module: Any, name: str, value: Any) -> None:
        self._replaced.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    def begin(self, delays: Delays = DELAYS, seed: int = 0, *, in_s3: bool = False) -> None:
        """Start with an empty account and folder; ``seed`` determines AWS's varying behaviour.

        ``in_s3`` puts the manifest into a bucket, which all machines use.
        """
        self.stack.reset()
        self.stack.sim.seed = seed
        self.stack.sim.delays = delays
        self.stack.clock.advance(3600)
        self.folder_now = self.folder / f"home-{next(_numbers)}"
        self.folder_now.mkdir()
        (self.folder_now / ELSEWHERE).mkdir()
        self.process = Process()
        self.serials: dict[str, int] = {}
        self.in_s3 = in_s3
        self.seed = 0
        if in_s3:
            where: Any = {"LocationConstraint": REGION}
            self.session.somebody("s3").create_bucket(Bucket=STATE, CreateBucketConfiguration=where)
            self.stack.calls.clear()

    # --- where the manifest is

    @property
    def path(self) -> Path:
        """The manifest's file on the machine of the current process."""
        machine = self.process.machine
        folder = self.folder_now if machine == HERE else self.folder_now / machine
        return folder / f"{NAME}.hyperpod-eks.json"

    @property
    def store(self) -> Store:
        """The manifest's store, for the current process."""
        return S3Store(self.aws(self.side), STATE, KEY) if self.in_s3 else FileStore(self.path)

    def forget(self) -> None:
        """Let serials begin anew: the manifest is lost, or its cluster is deleted."""
        self.serials.clear()

    def unlock(self) -> None:
        """Free the cluster from a killed run, as `hyperpod-eks unlock` does."""
        self.process = Process()  # the killed one asks for nothing more
        bucket = f"sagemaker-{NAME}-{ACCOUNT}-{REGION}"
        found = claim.lease_of(self.aws(self.side), bucket, ACCOUNT)
        if found.holder():
            found.free()

    def named(self, pid: int) -> list[str]:
        """Name a process as `lease._process` does; empty for one that is not running.

        Without a manifest in S3 no process is known by name, as in a container.
        """
        process = self.process
        if pid != os.getpid():  # of an earlier process, or of one that is suspended
            process = next((each for each in self.running if each.number == pid), Process())
        known = self.in_s3 and process.machine == self.process.machine
        return [process.machine, "", str(process.number), ""] if known else []

    # --- hooks at boundaries

    def pass_time(self, seconds: float) -> None:
        """Advance the simulated time; count a change if something happens in the account."""
        if self.stack.clock.due(seconds):
            self.process.changed()
        self.stack.clock.advance(seconds)

    def send(
        self, request: AWSPreparedRequest, event_name: str, of_state: bool, **_: Any
    ) -> AWSResponse:
        """Send a request to the stack (a handler of botocore's event ``before-send``)."""
        process, operation = self.process, ":".join(event_name.split(".")[1:])
        change = not is_read(operation.partition(":")[2])
        if not process.ghost:
            process.at("before", operation)
        answer = self._exchange(request)
        if change:
            process.changed()
            process.changes += not of_state
        if process.ghost and change and not of_state:
            raise Killed
        if of_state and not isinstance(answer, Exception) and answer.status_code == 200:
            self._check_object(request)
        if not process.ghost:
            process.at("after", operation)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask_kubernetes(self, send: Any, access: Any, method: str, path: str, *more: Any) -> Any:
        """Send a request to a Kubernetes API: those that change jobs are boundaries."""
        process, plural = self.process, "mpijobs" if "mpijobs" in path else "jobs"
        if process.dead:
            raise Killed
        if method == "GET" or "jobs" not in path:
            return send(access, method, path, *more)
        process.at("before", f"{method} {plural}")
        answer = send(access, method, path, *more)
        process.changed()
        process.at("after", f"{method} {plural}")
        return answer

    def answered(self, **_: Any) -> None:
        """Raise Killed instead of returning an answer to a killed process."""
        if self.process.dead and not self.process.ghost:
            raise Killed

    def _exchange(self, request: AWSPreparedRequest) -> AWSResponse | Exception:
        try:
            return answered(self.application, request)
        except ConnectionClosedError as error:
            return error

    def fsync(self, descriptor: Any) -> None:
        """Record the boundary before an fsync, and do nothing: writes survive a kill without it.

        tests/test_manifest.py checks the calls of fsync and their order.
        """
        if self.running and threading.current_thread() is threading.main_thread():
            self.process.at("file", "fsync")

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Record the boundaries at files and helm, which Python's audit events report."""
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
                self._check(str(self.path), Path(str(arguments[0])).read_text)
            self.process.changed()

    def _check_object(self, request: AWSPreparedRequest) -> None:
        if request.method == "PUT" and urlsplit(request.url).path == f"/{STATE}/{KEY}":
            body: Any = request.body
            body.seek(0)
            self._check(KEY, body.read)

    def _check(self, place: str, content: Callable[[], str | bytes]) -> None:
        """O7: every version of the manifest is valid JSON, and its serial number increases."""
        running, self.running = self.running, []
        try:
            serial = json.loads(content())["serial"]
        finally:
            self.running = running
        if self.process.dead:
            return
        known = self.serials.get(place, 0)
        assert serial > known, f"serial {serial} after {known}"
        self.serials[place] = serial

    # --- the tool

    def run(
        self,
        verb: str,
        *,
        fuse: Boundary | None = None,
        flood: bool = False,
        config: Mapping[str, Any] | None = None,
        machine: str = HERE,
        meanwhile: Callable[[], None] | None = None,
        **context: Any,
    ) -> Process:
        """Run a command in a new process; ``process.dead`` is True if it was killed.

        On another machine it waits for the lock until it can be taken over.  With ``meanwhile``
        the process is suspended at the fuse instead.
        """
        process = Process(fuse, flood, machine)
        if meanwhile:
            process.meanwhile = partial(self._suspended, process, meanwhile)
        before, self.process = self.process, process
        random.seed(0)  # reproduces the random part of the engine's pauses
        pool: list[OneHand] = []
        self.running.append(process)
        try:
            with suppress(Killed):
                self._command(verb, config or {}, pool, context)
        finally:
            self.running.remove(process)
            if self.running:  # the one before is suspended
                self.process = before
        if process.dead and flood and pool:
            pool[0].flood()
        return process

    def _suspended(self, process: Process, meanwhile: Callable[[], None]) -> None:
        aws = process.aws
        meanwhile()
        assert aws
        self.session.check(aws)

    def _command(
        self, verb: str, config: Mapping[str, Any], pool: list[OneHand], settings: dict[str, Any]
    ) -> None:
        patience = 3 * TERM if self.process.machine == ELSEWHERE else 0.0
        with self._opened(verb, config, patience) as at:
            hand = OneHand(self, self.seed)
            at.context.pool = hand
            pool.append(hand)
            for name, value in settings.items():
                setattr(at.context, name, value)
            if verb == "create":
                at.create()
            elif verb == "test":
                self._test(at)
            elif verb == "rebuild":
                engine.rebuild(at.wants, at.context)
                at.manifest.save()
            elif verb == "delete data":
                at.delete(data=self._data())
            else:
                at.delete()

    def _test(self, at: Session) -> None:
        """Run the usual levels of the test, which must find nothing."""
        snapshot = Snapshot(at.aws)
        access, found = eks.access(snapshot, NAME), hyperpod_api.describe(snapshot, NAME)
        assert access, "no EKS cluster"
        assert found, "no HyperPod cluster"
        facts = Facts(snapshot, NAME, NAME, access, found, at.config, "image", manifest=at.manifest)
        results = smoke.run(facts, smoke.USUAL)
        assert [each for result in results for each in result.findings] == []

    def _data(self) -> frozenset[str]:
        """Return the ids of all data, as somebody consents who has seen the list."""
        found = self.stack.inventory()[REGION]
        logs = {each for each in found["logs"] if each.startswith("/aws/containerinsights/")}
        files, workspaces = of_region(REGION).systems, amp.of_region(REGION).found
        buckets = {each for each in self.stack.inventory()["s3"] if each.startswith("hyperpod-tls")}
        return frozenset({*files, *found["ec2"]["Volumes"], *workspaces, *logs, *buckets})

    @contextmanager
    def _opened(self, verb: str, config: Mapping[str, Any], patience: float) -> Iterator[Session]:
        """Open a session, as the command line does."""
        data: dict[str, Any] = {
            "name": NAME,
            "region": REGION,
            "chart": {"path": str(CHART)},
            "lifecycle": {"path": str(self.lifecycle), "on_create": "on_create.sh"},
            **config,
        }
        store = self.store
        with store.locked(patience):
            aws = self.process.aws = self.aws(self.session)
            report = self.process.events.append
            context = Context(aws, read(store, NAME), report, clock=self.clock, parallelism=0)
            context.consent = lambda lost: None
            at = Session(load(data, {}, {}), context, ADOPT)
            at.patience = patience
            at.begin()
            at.resolve(os.environ.get("HYPERPOD_EKS_HELM"))
            try:
                yield at
            finally:
                at.close()

    def aws(self, session: SharedSession) -> Aws:
        """Return new clients of the account."""
        aws = Aws(session, NAME, {})
        aws._paces = self.paces
        aws._watch = Unwatched()
        return aws


class HostClock(Clock):
    """A clock with the stack's simulated time."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def now(self) -> float:
        return EPOCH + self.host.stack.clock.elapsed()


_HELM_CHANGES = ("install", "upgrade", "rollback", "uninstall")
_numbers = itertools.count(1)
_threads = {"RLock": threading.RLock, "Event": threading.Event}
_hosts: list[Host] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _WATCHED and _hosts:
        _hosts[-1].audit(event, arguments)


_WATCHED = frozenset(
    ["open", "os.rename", "os.link", "os.remove", "subprocess.Popen", "shutil.rmtree"]
)
sys.addaudithook(_audit)  # cannot be removed, but does nothing without a host
