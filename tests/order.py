"""Which tests run, and in which order: samples of many cases, and ``TEST_ORDER``."""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from typing import Any

import pytest


def pytest_configure() -> None:
    """Support ``TEST_ORDER=random`` (a random order) and ``TEST_ORDER=N`` (a given one)."""
    if os.environ.get("TEST_ORDER") == "random":  # workers inherit the number
        os.environ["TEST_ORDER"] = str(random.randrange(10**6))


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    """Leave the cases of a test that are not in its sample to `make prove`.

    A sample that names something else, or a case twice, fails the collection.
    """
    found = yield
    items = found if isinstance(found, list) else []
    sample = items[0].get_closest_marker("sample") if items else None
    if sample:
        cases = {each.callspec.id: each for each in items if hasattr(each, "callspec")}
        left = [*cases]
        for case in sample.args:
            if case not in left:
                test, known = items[0].nodeid.partition("[")[0], ", ".join(map(repr, cases))
                why = " twice" if case in cases else f", but its cases are: {known or 'none'}"
                raise pytest.Collector.CollectError(f"{test}: its sample names {case!r}{why}")
            left.remove(case)
        for case in left:
            cases[case].add_marker("prove")
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle the tests if asked to; a file's tests stay together.

    Tests that share a module's account come before those that start with an empty one: a process
    has a single account.

    The order of a file's tests is the same whatever else runs.
    """
    if not (order := os.environ.get("TEST_ORDER")):
        return

    def chance(name: str) -> float:
        return random.Random(f"{order} {name}").random()

    def alone(item: pytest.Item) -> bool:
        info: Any = getattr(item, "_fixtureinfo", None)
        found = info.name2fixturedefs.values() if info else ()
        return not any(definitions[-1].scope == "module" for definitions in found)

    def place(item: pytest.Item) -> tuple[float, str, bool, float]:
        file = item.nodeid.partition("::")[0]
        return chance(file), file, alone(item), chance(item.nodeid)

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if order := os.environ.get("TEST_ORDER"):
        terminalreporter.write_line(f"the order of the tests was TEST_ORDER={order}")
