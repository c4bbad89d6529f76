"""Signals, where nobody listens any more."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from hyperpod_eks.cli.stop import Interrupted, stoppable
from hyperpod_eks.local.aws.sim import Fault
from tests.conftest import User


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


@pytest.mark.parametrize("words", [["nodes", "demo"], ["logs", "demo", "--node", "i-00000000"]])
def test_ctrl_c_ends_a_look_as_it_ends_a_create(user: User, words: list[str]) -> None:
    fault = Fault("sagemaker", "DescribeCluster", kind="delay", seconds=1.0)
    user.stack.faults.append(fault)
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    said = user.types(*words, "-o", "json")
    timer.join()
    assert said.code == 130, said.err
    assert said.document["resume"] == f"hyperpod-eks {' '.join(words)} -o json"
    assert f"To continue: {said.document['resume']}\n" in said.err
