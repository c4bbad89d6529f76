"""The embedded stack as a background process of the user's: start it, find it, end it.

What runs is written to ``local.json`` in ``$XDG_CACHE_HOME/hyperpod-eks`` (``~/.cache/...``),
readable by its owner alone; the process's own words go to ``local.log`` beside it.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from hyperpod_eks import folders
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.files import make_folder
from hyperpod_eks.local.stack import DEFAULT_REGION, EXTRA_HINT, Stack, client_environ
from hyperpod_eks.programs import ELSEWHERE

#: Simulated seconds per real second: a real create of forty minutes passes in forty seconds.
DEFAULT_SPEED = 60.0

#: Real seconds that a stack may take for an answer.
TIMEOUT = 10.0

#: Real seconds that a start or a stop may take before we give up on it.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Running:
    """A stack that answers; ``speed`` in simulated seconds per real one."""

    endpoint: str
    pid: int
    speed: float
    region: str

    @property
    def environ(self) -> dict[str, str | None]:
        """The variables for a client in this environment; None means: unset it."""
        return client_environ(self.endpoint, self.region)

    def control(self, name: str, body: object = None) -> Any:
        """Call ``/_stack/<name>``: POST a body, or GET; OSError when nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310  the endpoint is http://127.0.0.1:port
            f"{self.endpoint}/_stack/{name}", data
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=TIMEOUT) as answer:
            return json.load(answer)


def find() -> Running | None:
    """Return the stack that runs, or None; what a dead one left behind does not count.

    Raises HyperpodError for one that lives and does not answer in time: it may be stopped, or the
    machine may be busy, and nobody else may take its place.
    """
    try:
        state = json.loads(_state_file().read_text())
        running = Running(**state)
    except (OSError, ValueError, TypeError):
        return None
    try:
        health = running.control("health")
    except (OSError, ValueError) as error:
        late = isinstance(error, TimeoutError) or isinstance(
            getattr(error, "reason", None), TimeoutError
        )
        if late and _alive(running.pid):
            raise HyperpodError(
                f"the embedded stack (process {running.pid}) is not responding",
                f"Wait. If the process is suspended, resume it: kill -CONT {running.pid}",
            ) from error
        return None
    return running if health["pid"] == running.pid else None


def ensure(speed: float | None = None, port: int = 0, region: str = DEFAULT_REGION) -> Running:
    """Return the running stack, started if there is none.

    Args:
        speed: simulated seconds per real second; None: that of the one that runs, or 60.
        port: the port of a new one, 0 for a free one.
        region: the region that a new one gives to clients that name none.

    Raises:
        Usage: one runs at another speed, or the extra ``local`` is not installed.
        HyperpodError: the process did not come up; its log's end is in the message.
    """
    with _lock():
        running = find()
        if running is None:
            return _start(DEFAULT_SPEED if speed is None else speed, port, region)
        if speed not in (None, running.speed):
            raise Usage(
                f"the embedded stack runs at speed {running.speed:g}, not at {speed:g}",
                "Stop it first, which empties it: hyperpod-eks local stop",
            )
        return running


def stop() -> bool:
    """End the running stack and wait until it is gone; False when none runs."""
    with _lock():
        running = find()
        if running is None:
            _state_file().unlink(missing_ok=True)
            return False
        running.control("stop", {})
        # its state file is the last thing to go, unless someone kills it first
        if not _wait(lambda: not (_state_file().exists() and _alive(running.pid))):
            raise HyperpodError(f"the embedded stack (process {running.pid}) did not stop")
        return True


def _start(speed: float, port: int, region: str) -> Running:
    if not all(importlib.util.find_spec(name) for name in ("moto", "flask", "flask_cors")):
        raise Usage("the embedded stack needs packages that are not installed", EXTRA_HINT)
    log = _folder() / "local.log"
    _state_file().unlink(missing_ok=True)
    # the stack must not see credentials, nor trip over a profile that does not exist
    environ = {name: value for name, value in os.environ.items() if name[:4] != "AWS_"}
    environ["XDG_CACHE_HOME"] = str(_folder().parent)  # the same, wherever it works
    # -P and another folder: nothing that lies in the user's is imported
    command = [sys.executable, "-P", "-m", __name__, str(speed), str(port), region]
    with _private(log) as output:
        process = subprocess.Popen(  # noqa: S603  our own module, no shell
            command,
            env=environ,
            cwd=ELSEWHERE,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _wait(lambda: process.poll() is not None or find() is not None)
    running = find()
    if running is None:
        process.kill()
        process.wait()
        last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        last = last or "its log is empty; is the disk full?"
        raise HyperpodError(f"the embedded stack did not start: {last}", f"Its whole log: {log}")
    # Popen would warn of a child still running; this one is meant to outlive us
    process.returncode = 0
    return running


def _wait(done: Any) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _alive(pid: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # one that we started ourselves would stay as a zombie
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _folder() -> Path:
    folder = folders.cache()
    make_folder(folder)
    return folder


def _state_file() -> Path:
    return _folder() / "local.json"


def _private(path: Path) -> IO[str]:
    """Open a file of ours for writing, emptied, for nobody else to read; a link is not followed."""
    if path.is_symlink():
        path.unlink()
    return os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w"
    )


@contextmanager
def _lock() -> Iterator[None]:
    """Let one process at a time start or stop the stack."""
    with _private(_folder() / "local.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Be the background process: serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("speed", type=float)
    parser.add_argument("port", type=int)
    parser.add_argument("region")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s")
    stack = Stack(speed=options.speed, port=options.port, region=options.region)

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    running = Running(stack.endpoint, os.getpid(), options.speed, options.region)
    state, draft = _state_file(), _folder() / f"local.{os.getpid()}"
    with _private(draft) as file:
        json.dump(asdict(running), file)
    draft.replace(state)
    try:
        stack.wait()
    finally:
        state.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        main()
    except HyperpodError as problem:
        sys.exit(f"{problem} {problem.hint}")
