from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest

from hyperpod_eks.local.clock import Clock


def test_a_delay_of_zero_runs_here_and_now() -> None:
    seen: list[str] = []
    Clock().after(0, lambda: seen.append(threading.current_thread().name))
    assert seen == [threading.current_thread().name]


def test_manual_time_stands_still_until_it_is_advanced() -> None:
    clock, seen = Clock(), []
    clock.after(540, lambda: seen.append("active"))
    clock.advance(539)
    assert (clock.elapsed(), seen) == (539, [])
    clock.advance(1)
    assert (clock.elapsed(), seen) == (540, ["active"])


def test_events_run_in_order_at_their_own_time_and_may_follow_each_other() -> None:
    clock, seen = Clock(), []

    def first() -> None:
        seen.append(("first", clock.elapsed()))
        clock.after(10, lambda: seen.append(("third", clock.elapsed())))

    clock.after(20, lambda: seen.append(("fourth", clock.elapsed())))
    clock.after(5, first)
    clock.after(5, lambda: seen.append(("second", clock.elapsed())))
    start = clock.now()
    clock.advance(30)
    assert seen == [("first", 5), ("second", 5), ("third", 15), ("fourth", 20)]
    assert (clock.now() - start).total_seconds() == 30


def test_an_event_that_fails_ends_the_advance() -> None:
    clock = Clock()
    clock.after(1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clock.advance(1)


def test_a_fast_clock_fires_by_itself_and_can_be_advanced_too() -> None:
    clock, soon, late = Clock(speed=1000), threading.Event(), threading.Event()
    clock.after(100, soon.set)
    clock.after(1_000_000, late.set)
    assert soon.wait(5)
    assert clock.elapsed() >= 100
    assert not late.is_set()
    clock.advance(1_000_000)
    assert late.is_set()
    assert clock.elapsed() >= 1_000_000
    clock.stop()


def test_an_event_waits_for_who_holds_the_lock() -> None:
    clock, fired = Clock(speed=1000), threading.Event()
    with clock.lock:
        clock.after(1, fired.set)
        assert not fired.wait(0.1)
    assert fired.wait(5)
    clock.stop()


def test_one_broken_event_does_not_stop_time(caplog: pytest.LogCaptureFixture) -> None:
    clock, fired = Clock(speed=1000), threading.Event()
    with caplog.at_level(logging.ERROR):
        clock.after(1, lambda: 1 / 0)
        clock.after(2, fired.set)
        assert fired.wait(5)
    assert "ZeroDivisionError" in caplog.text
    clock.stop()


def test_a_restarted_clock_has_no_events_and_the_real_time() -> None:
    clock, seen = Clock(), []
    clock.after(7200, lambda: seen.append(1))
    clock.advance(3600)
    clock.restart()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    clock.advance(7200)
    assert seen == []


def test_a_stopped_clock_ends_its_thread() -> None:
    before = set(threading.enumerate())
    clock = Clock(speed=1)
    (thread,) = {t for t in threading.enumerate() if t.name == "local-clock"} - before
    clock.stop()
    thread.join(5)
    assert not thread.is_alive()
