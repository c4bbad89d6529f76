"""Signals, where nobody listens any more."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from hyperpod_eks.cli.stop import Interrupted, stoppable


def test_a_signal_is_heard_though_the_terminal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    heard: list[BaseException] = []
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        with stoppable(heard.append, "hyperpod-eks create demo"):
            signal.raise_signal(signal.SIGHUP)

    (error,) = heard
    assert isinstance(error, Interrupted)
    assert error.code == 129
