"""Real processes, real signals, a real lock: the tool as a shell runs it, against the stack."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault, is_read
from hyperpod_eks.local.stack import Stack

from . import oracles
from .host import DELAYS, NAME, REGION
from .matrix import Prover

FOREVER = 4000.0


@dataclass
class KillAt(Fault):
    """At its ``nth`` change the calling process gets SIGKILL: before the effect, or after it."""

    nth: int = 1
    victim: Callable[[], int] = int
    hit: bool = False

    def matches(self, service: str, operation: str) -> bool:
        if is_read(operation) or not self.count:
            return False
        self.nth -= 1
        if self.nth:
            return False
        os.kill(self.victim(), signal.SIGKILL)
        self.hit = True
        return True


class Shell:
    """A user in a terminal, on an account where time runs."""

    def __init__(self, prover: Prover, helm: str, folder: Path) -> None:
        self.prover, self.stack, self.folder = prover, prover.host.stack, folder
        self.helm = helm
        prover.begin()
        self.process: subprocess.Popen[str] | None = None
        environ: dict[str, Any] = dict(os.environ) | self.stack.environ({})
        self.environ = {k: v for k, v in environ.items() if v is not None}
        self.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        self.environ["XDG_CACHE_HOME"] = str(folder / "cache")

    def words(self, verb: str) -> list[str]:
        words = [verb, NAME, "--region", REGION, "--manifest", str(self.prover.host.path)]
        if verb == "create":
            scripts = str(self.prover.host.lifecycle)
            return [*words, "--chart", str(CHART), "--lifecycle", scripts, "--helm", self.helm]
        return [*words, "--yes"]

    def start(self, words: list[str]) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hyperpod_eks", *words],
            env=self.environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def run(self, words: list[str]) -> str:
        process = self.start(words)
        out, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-3000:]
        return out + errors

    def killed(self, verb: str, nth: int, *, after: bool) -> None:
        """Run a command that is killed at its ``nth`` change."""
        kill = KillAt(".*", kind="lost" if after else "reset", nth=nth)
        kill.victim = lambda: self.process.pid if self.process else 0
        self.stack.faults[:] = [kill]
        process = self.start(self.words(verb))
        _, errors = process.communicate(timeout=240)
        self.stack.faults.clear()
        assert (process.returncode, kill.hit) == (-signal.SIGKILL, True), errors[-3000:]

    def ends_well(self) -> None:
        """Resume, find nothing more to do, delete, and find the account as it was."""
        self.run(self.words("create"))
        oracles.same_shape(self.prover.host, self.prover.made)
        oracles.journal_knows(self.prover.host)
        self.stack.calls.clear()
        self.run(self.words("create"))
        assert not [call for call in self.stack.calls if call.mutating]
        self.is_deleted()

    def is_deleted(self) -> None:
        self.run(self.words("delete"))
        oracles.nothing_left(self.prover.host, self.prover.before)

    @contextmanager
    def held_at(self, **delays: float) -> Iterator[None]:
        """Let some transition take for ever, until the block ends."""
        self.stack.sim.delays = replace(DELAYS, **delays)
        yield
        self.stack.sim.delays = DELAYS

    def until(self, operation: str) -> None:
        """Wait until a call has been made."""
        deadline = time.monotonic() + 120
        while not any(call.operation == operation for call in list(self.stack.calls)):
            assert time.monotonic() < deadline, f"no {operation}"
            assert self.process
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)

    def release(self) -> None:
        """Let pass what was held."""
        self.stack.clock.advance(FOREVER)


@pytest.fixture
def shell(prover: Prover, helm: str, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(prover, helm, tmp_path)
    with running(shell.stack):
        yield shell
    if shell.process:
        shell.process.kill()
        shell.process.communicate()


@contextmanager
def running(stack: Stack) -> Iterator[None]:
    """Let the account's time run, twenty times as fast as ours."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.05):
            stack.clock.advance(1)

    thread = threading.Thread(target=tick)
    thread.start()
    yield
    over.set()
    thread.join()


def test_kill_nine_in_the_middle(shell: Shell) -> None:
    shell.killed("create", 25, after=True)
    shell.ends_well()


@pytest.mark.prove
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3, 8, 14, 21, 28, 35, 40])
def test_kill_nine_in_create(shell: Shell, nth: int, after: bool) -> None:
    shell.killed("create", nth, after=after)
    shell.ends_well()


@pytest.mark.prove
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [2, 9, 17, 25])
def test_kill_nine_in_delete(shell: Shell, nth: int, after: bool) -> None:
    shell.run(shell.words("create"))
    shell.killed("delete", nth, after=after)
    shell.is_deleted()


@pytest.mark.prove
def test_kill_nine_thrice(shell: Shell) -> None:
    shell.killed("create", 30, after=True)
    shell.killed("create", 5, after=True)
    shell.killed("delete", 6, after=False)
    shell.is_deleted()


def test_of_two_creates_one_works_and_the_other_exits_4(shell: Shell) -> None:
    with shell.held_at(eks_create=FOREVER):
        first = shell.start(shell.words("create"))
        shell.until("CreateCluster")
        began = time.monotonic()
        second = shell.start(shell.words("create"))
        _, errors = second.communicate(timeout=60)
        assert second.returncode == 4, errors
        assert f"process {first.pid} on " in errors
        assert time.monotonic() - began < 10
        first.kill()
        first.communicate()
    shell.release()
    shell.ends_well()


WAITS = [
    ("INT", {"eks_create": FOREVER}, "CreateCluster"),
    pytest.param("TERM", {"nat_create": FOREVER}, "CreateNatGateway", marks=pytest.mark.prove),
    pytest.param("HUP", {"hyperpod_provision": FOREVER}, "DescribeAddon", marks=pytest.mark.prove),
    pytest.param("INT", {"iam": FOREVER}, "AttachRolePolicy", marks=pytest.mark.prove),
    pytest.param("INT", {"addon": FOREVER}, "CreateAddon", marks=pytest.mark.prove),
]


@pytest.mark.parametrize(("name", "delays", "operation"), WAITS)
def test_a_signal_at_a_wait_stops_and_the_printed_command_continues(
    shell: Shell, name: str, delays: dict[str, float], operation: str
) -> None:
    number = signal.Signals[f"SIG{name}"]
    with shell.held_at(**delays):
        process = shell.start(shell.words("create"))
        shell.until(operation)
        time.sleep(1)  # into the wait; any later moment is as good
        began = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - began < 5
        assert process.returncode == 128 + number, errors
    printed = re.search(r"^To continue: hyperpod-eks (.*)$", errors, re.MULTILINE)
    assert printed, errors
    shell.release()
    shell.run(shlex.split(printed[1]))
    oracles.same_shape(shell.prover.host, shell.prover.made)
    oracles.journal_knows(shell.prover.host)
    shell.is_deleted()


def test_a_second_signal_leaves_at_once(shell: Shell) -> None:
    shell.stack.faults.append(Fault("ec2", "CreateSubnet", kind="delay", seconds=4))
    process = shell.start(shell.words("create"))
    shell.until("CreateVpc")
    time.sleep(0.7)  # into the call that does not answer
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 1.5
    time.sleep(4)  # the call that was under way has its effect
    shell.is_deleted()
