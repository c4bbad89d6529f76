"""Signals during commands, also if a terminal or AWS no longer answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hyperpod_eks.cli.signals import Interrupted, stoppable
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.state.file_store import locked
from tests.conftest import Said, User, until


def test_a_signal_is_heard_though_the_terminal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    heard: list[BaseException] = []
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        with stoppable(heard.append):
            signal.raise_signal(signal.SIGHUP)

    (error,) = heard
    assert isinstance(error, Interrupted)
    assert error.code == 129


def interrupted(user: User, service: str, operation: str, *words: str) -> Said:
    """Run a command, and interrupt it while one of its calls is delayed."""
    delay = Fault(service, operation, kind="delay", seconds=1.0)
    user.stack.faults.append(delay)

    def press() -> None:
        until(lambda: not delay.count)
        signal.raise_signal(signal.SIGINT)

    other = threading.Thread(target=press)
    other.start()
    said = user.types(*words)
    other.join()
    return said


@pytest.mark.parametrize("words", [["nodes", "demo"], ["logs", "demo", "--node", "i-00000000"]])
def test_ctrl_c_ends_a_look_as_it_ends_a_create(user: User, words: list[str]) -> None:
    said = interrupted(user, "sagemaker", "DescribeCluster", *words, "-o", "json")
    assert said.code == 130, said.err
    assert said.document["resume"] == f"hyperpod-eks {' '.join(words)} -o json"
    assert f"error: stopped by SIGINT\nTo continue: {said.document['resume']}\n" in said.err


@pytest.mark.parametrize("dead", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_IAM"])
def test_a_signal_stops_it_though_aws_does_not_answer(
    stack: Stack, tmp_path: Path, dead: str
) -> None:
    """A network that drops everything: calls end after minutes, but the command ends at once."""
    environ = {k: v for k, v in (os.environ | stack.environ({})).items() if v is not None}
    with socket.create_server(("127.0.0.1", 0)) as nobody:  # accepts and never answers
        environ[dead] = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        words = ["status", "demo", "--region", "us-west-2"]
        process = subprocess.Popen(
            [sys.executable, "-m", "hyperpod_eks", *words],
            cwd=tmp_path,
            env=environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        asked, _ = nobody.accept()
        with asked:
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert time.monotonic() - began < 5


class Dying:
    """An object that is finalised during a Ctrl-C."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_signal_during_a_finaliser_is_not_lost() -> None:
    """Python ignores exceptions in ``__del__``; the command would never stop."""

    def stop(error: BaseException) -> None:
        raise error

    def work() -> None:
        Dying()
        while time.monotonic() < began + 10:
            pass

    began = time.monotonic()
    with pytest.raises(Interrupted), stoppable(stop):
        work()
    assert time.monotonic() < began + 5
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def _waits_for_a_lock(process: int) -> bool:
    """Whether a process has a lock file open; it sleeps between attempts."""
    with suppress(FileNotFoundError):  # just closed
        links = Path(f"/proc/{process}/fd").iterdir()
        return any(link.readlink().suffix == ".lock" for link in links)
    return False


def test_a_signal_while_another_run_has_the_lock_exits_130(tmp_path: Path) -> None:
    manifest = tmp_path / "demo.hyperpod-eks.json"
    with locked(manifest):
        words = ["create", "demo", "--region", "us-west-2", "--lock-timeout", "300"]
        process = subprocess.Popen(
            [sys.executable, "-m", "hyperpod_eks", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: _waits_for_a_lock(process.pid))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 130, errors


@pytest.mark.parametrize(
    ("typed", "at", "undone"),
    [
        ("delete demo --keep bucket,logs", "GetCallerIdentity", False),
        ("delete demo -y", "GetCallerIdentity", False),
        ("create demo --skip permissions --yes", "GetCallerIdentity", False),
        (f"create demo --chart {CHART}", "CreateVpc", True),
    ],
)
def test_the_command_that_continues_has_every_option(
    user: User, typed: str, at: str, undone: bool
) -> None:
    """Without --keep, the command would delete resources that must be kept."""
    service = "ec2" if at == "CreateVpc" else "sts"
    said = interrupted(user, service, at, *typed.split())
    assert said.code == 130
    assert f"To continue: hyperpod-eks {typed}\n" in said.err
    assert ("To delete it instead: hyperpod-eks delete demo\n" in said.err) is undone


def test_the_status_of_a_create_that_stopped_early_names_commands_that_work(user: User) -> None:
    """HyperPod has no events of a cluster that it does not have."""
    user.stack.faults.append(Fault("sagemaker", "CreateCluster", "AccessDenied", 403, count=9))
    assert user.types("create", "demo", "--chart", str(CHART)).code == 3
    said = user.types("status", "demo")
    assert said.err == "To create what is missing: hyperpod-eks create demo\n"


def test_a_process_leaves_without_what_c_does_at_exit() -> None:
    """OpenSSL frees its state at exit, while a daemon thread may be in a handshake."""
    program = """
import atexit, ctypes, sys
from hyperpod_eks import __main__, cli
libc = ctypes.CDLL(None)
libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)
atexit.register(print, "helm is stopped")
cli.run = lambda words: print("said") or 3
__main__.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "said\nhelm is stopped\n"), done.stderr
