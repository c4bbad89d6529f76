"""Real processes of the tool by the dozen: each forks from one that has imported it."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import botocore.config
import botocore.session  # noqa: F401  imported once, for all processes

import hyperpod_eks.cli.app
import hyperpod_eks.session  # noqa: F401
from hyperpod_eks.__main__ import leave
from hyperpod_eks.cli import run
from hyperpod_eks.engine import apply, destroy, loop
from hyperpod_eks.state import lease

LONGEST = 115.0
"""Seconds that a command may take; then it says where it is."""
SPEED = 20
"""Seconds that pass in the account in one of ours (`shell.running`)."""

_fleet = multiprocessing.get_context("forkserver")
_fleet.set_forkserver_preload(["tests.prove.fleet"])


@dataclass
class Hand:
    """Somebody who works on the cluster: a folder and a home of their own, on a machine."""

    folder: Path
    environ: Mapping[str, str]
    stranger: bool = False
    """Whether it is another machine, which does not see that a process here has died."""
    said_to: str = "said"
    term: float | None = None
    """Seconds after which it takes over a lock."""

    def start(self, words: Sequence[str]) -> BaseProcess:
        """Start a command; `said` is what it prints."""
        self.folder.mkdir(exist_ok=True)
        process = _fleet.Process(target=_work, args=(self, list(words)), daemon=True)
        process.start()
        return process

    def run(self, words: Sequence[str]) -> int:
        """Run a command; return its exit code."""
        process = self.start(words)
        return ended(process)

    @property
    def said(self) -> str:
        """What the last command has printed."""
        return (self.folder / self.said_to).read_text()


def ended(process: BaseProcess) -> int:
    """Wait for a process; return its exit code, negative for a signal."""
    process.join(LONGEST + 5)
    assert process.exitcode is not None, "it does not end"
    return process.exitcode


def _work(hand: Hand, words: list[str]) -> None:
    os.chdir(hand.folder)
    os.environ.clear()
    os.environ.update(hand.environ, HOME=str(hand.folder))
    output = os.open(hand.said_to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(output, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    faulthandler.dump_traceback_later(LONGEST)
    for module in (loop, apply, destroy):  # the account's time is faster than ours
        vars(module)["GRACE"] /= SPEED
    destroy.WRITES_ON /= SPEED
    if hand.stranger:
        lease._process = lambda pid: []
    if hand.term is not None:
        lease.TERM, lease.POLL = hand.term, hand.term / 10
        lease.RENEW, lease.LASTS = hand.term / 5, hand.term * 0.7
    leave(run(words))
