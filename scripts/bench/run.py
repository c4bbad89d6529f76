"""Run commands against a backend, and count what they cost."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HELM = """#!/bin/sh
began=$(date +%s.%N)
{helm} "$@"
code=$?
echo "$began $(date +%s.%N)" >>"$BENCH_HELM"
exit $code
"""
"""Stands in helm's place and writes down when helm worked."""
LONGEST = 600.0
"""Seconds after which a command is ended: the longest needs less than half of them."""
ANSWER = 60.0
"""Seconds that the backend may take for an answer."""
OF_A_COMPANY = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE")
"""Variables of this machine that name certificates: only what is measured through TLS has some."""


@dataclass
class Cost:
    """What one command took; times in seconds, memory in MiB of the largest process."""

    wall: float
    cpu: float
    memory: float
    status: int
    output: str
    began: float
    calls: list[dict[str, Any]] = field(default_factory=list)
    helm: float = 0.0

    @property
    def writes(self) -> int:
        """Calls that change something."""
        return sum(call["write"] for call in self.calls)

    @property
    def rounds(self) -> int:
        """The longest chain of calls of which none overlaps the next."""
        rounds, free = 0, 0.0
        for call in sorted(self.calls, key=lambda c: float(c["end"])):
            if call["start"] >= free:
                rounds, free = rounds + 1, call["end"]
        return rounds

    @property
    def idle(self) -> float:
        """Seconds with no call under way."""
        busy = mark = 0.0
        for call in sorted(self.calls, key=lambda c: float(c["start"])):
            busy += max(0.0, call["end"] - max(mark, call["start"]))
            mark = max(mark, call["end"])
        return self.wall - busy


class Backend:
    """The slowed-down embedded stack in a process of its own."""

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        self.folder = folder
        secure = ["--tls", str(folder / "authorities.pem")] if tls else []
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "backend.py"), *secure],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "backend.log").open("ab"),
            text=True,
        )
        self.environ = {name: each for name, each in os.environ.items() if name not in OF_A_COMPANY}
        for name, value in self._answer()["environ"].items():
            if value is None:
                self.environ.pop(name, None)
            else:
                self.environ[name] = value
        self.helm = folder / f"helm-{self.process.pid}"
        self.helm.mkdir()
        (self.helm / "helm").write_text(HELM.format(helm=helm()))
        (self.helm / "helm").chmod(0o700)
        self.environ |= {
            "PATH": f"{self.helm}:{self.environ['PATH']}",
            "BENCH_HELM": str(self.helm / "log"),
            "AWS_PAGER": "",
            "BENCH_CHART": str(ROOT / "hyperpod_eks/local/chart"),
            "BENCH_LIFECYCLE": str(ROOT / "lifecycle"),
        }

    def _answer(self) -> Any:
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], ANSWER)[0]:
            self.process.kill()
        line = self.process.stdout.readline()
        if not line:
            log = (self.folder / "backend.log").read_text()
            raise RuntimeError(f"the backend ended or gave no answer:\n{log[-4000:]}")
        return json.loads(line)

    def order(self, do: str, **arguments: Any) -> Any:
        """Give an order to the backend and return its answer."""
        assert self.process.stdin
        print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
        return self._answer()

    def reset(
        self,
        *,
        latency: float = 0.04,
        throttled: float = 0.0,
        seed: int = 0,
        delays: Mapping[str, float] | None = None,
        state: str = "",
    ) -> None:
        """Empty the account, make a bucket for ``state``, and choose what the next run meets."""
        self.order(
            "reset",
            latency=latency,
            throttled=throttled,
            seed=seed,
            delays=dict(delays or {}),
            bucket=state,
        )

    def run(self, command: Sequence[str], **environ: str) -> Cost:
        """Run a command to its end."""
        self.order("begin")
        log = self.helm / "log"
        log.write_text("")
        cost = run(command, self.environ | environ)
        cost.calls = self.order("calls")
        times = [[float(x) for x in line.split()] for line in log.read_text().splitlines()]
        cost.helm = sum(end - began for began, end in times)
        return cost

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def run(command: Sequence[str], environ: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end, or end it after `LONGEST`.

    The memory is that of its largest process.
    """
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that it can be ended with what it has started
        )
        limit = threading.Timer(LONGEST, os.killpg, (process.pid, signal.SIGKILL))
        limit.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            limit.cancel()
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if wall >= LONGEST:
        text += f"\nended after {LONGEST:.0f} s"
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(wall, cpu, usage.ru_maxrss / 1024, process.returncode, text, began)


def helm() -> str:
    """Find helm: what `make` fetched, newest first, or the one on PATH."""
    fetched = sorted((ROOT / ".cache/helm").glob("4.*/helm"), reverse=True)
    found = fetched[0] if fetched else shutil.which("helm")
    if not found:
        sys.exit("There is no helm: see scripts/get_helm.py.")
    return str(found)


@contextmanager
def backends(folder: Path, count: int = 1, *, tls: bool = False) -> Iterator[list[Backend]]:
    """Lend backends, which end with the block."""
    started = [Backend(folder, tls=tls) for _ in range(count)]
    try:
        yield started
    finally:
        for each in started:
            each.stop()
