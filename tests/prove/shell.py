"""The tool as a real process, which can be killed at any change."""

from __future__ import annotations

import os
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

from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault, is_read
from hyperpod_eks.local.stack import Stack

from . import oracles
from .host import DELAYS, NAME, REGION
from .prover import TWO_NODES, Prover

FOREVER = 4000.0
SLOWLY = replace(DELAYS, eks_delete=20, hyperpod_delete=20)
"""The account's time is twenty times as fast as the processes' (`running`).  A delete of a cluster
takes minutes on AWS; here it must take more than `engine.loop.SHORTEST` of the processes' time."""


@dataclass
class KillAt(Fault):
    """A fault that kills the caller (SIGKILL) at its ``nth`` change, before or after the effect."""

    nth: int = 1
    victim: Callable[[], int] = int
    hit: bool = False

    def matches(self, service: str, operation: str) -> bool:
        if is_read(operation) or not self.count:
            return False
        self.nth -= 1
        if self.nth:
            return False
        self.hit = True  # before the kill: whoever waits for the process looks at once
        os.kill(self.victim(), signal.SIGKILL)
        return True


class Shell:
    """Runs commands as processes, against an account whose time can run."""

    def __init__(self, prover: Prover, helm: str, folder: Path, *, in_s3: bool = False) -> None:
        self.prover, self.stack, self.folder = prover, prover.host.stack, folder
        self.helm = helm
        prover.begin("create, state in S3" if in_s3 else "create")
        self.stack.sim.delays = SLOWLY
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

    def start(self, words: list[str], *, room: int | None = None) -> subprocess.Popen[str]:
        """Start the tool; ``room`` limits the size of files in KiB, as on a full disk."""
        limited = ["bash", "-c", f'ulimit -f {room} && exec "$@"', "-"] if room else []
        # compiled files would be truncated, and later processes would read them
        compiled = {"PYTHONDONTWRITEBYTECODE": "1"} if room else {}
        self.process = subprocess.Popen(
            [*limited, sys.executable, "-m", "hyperpod_eks", *words],
            env=self.environ | compiled,
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
        assert process.returncode == 0, f"exit {process.returncode}: …{errors[-900:]}"
        return out + errors

    def killed(self, verb: str, nth: int, *, after: bool) -> bool:
        """Run a command, killed at its ``nth`` change; return False if it makes fewer."""
        kill = KillAt(".*", kind="lost" if after else "reset", nth=nth)
        kill.victim = lambda: self.process.pid if self.process else 0
        self.stack.faults[:] = [kill]
        process = self.start(self.words(verb))
        _, errors = process.communicate(timeout=240)
        self.stack.faults.clear()
        assert process.returncode == (-signal.SIGKILL if kill.hit else 0), errors[-900:]
        return kill.hit

    def survives(self, verb: str, nth: int, *, after: bool) -> bool:
        """Kill a command at its ``nth`` change, resume, and delete; False if it makes fewer."""
        if verb == "delete":
            self.prover.finish("create", TWO_NODES)
        with running(self.stack):
            hit = self.killed(verb, nth, after=after)
            if hit and verb == "create":
                self.run(self.words("create"))
                oracles.same_shape(self.prover.host, self.prover.made)
                oracles.journal_knows(self.prover.host)
            self.is_deleted()
        return hit

    def ends_well(self) -> None:
        """Resume, check that another create changes nothing, delete, and check the account."""
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
        """Change delays, for example to `FOREVER`, while the context is open."""
        self.stack.sim.delays = replace(SLOWLY, **delays)
        try:
            yield
        finally:
            self.stack.sim.delays = SLOWLY

    def until(self, call: str) -> None:
        """Wait until a call has been made: ``ec2:CreateVpc``."""
        deadline = time.monotonic() + 120
        while not any(f"{c.service}:{c.operation}" == call for c in list(self.stack.calls)):
            assert time.monotonic() < deadline, f"no {call}"
            if self.process:
                assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)

    def release(self) -> None:
        """Remove the faults and let all delays pass."""
        self.stack.faults.clear()
        self.stack.clock.advance(FOREVER)


@contextmanager
def running(stack: Stack) -> Iterator[None]:
    """Let the account's time run, twenty times as fast as real time."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.05):
            stack.clock.advance(1)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
