"""The tests' own rules: a sample names cases, ids are unique, and an order can be repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import order

ROOT = Path(__file__).parents[1]
CASES = """\
import pytest
@pytest.mark.sample({sample})
@pytest.mark.parametrize("n", [1, 2], ids=[{ids}])
def test_n(n): ...
"""


def test_what_is_mistyped_in_a_sample_fails_the_collection(tmp_path: Path) -> None:
    for name, sample, ids in (
        ("mistyped", "'on'", "'one', 'two'"),
        ("twice", "'one', 'one'", "'one', 'two'"),
        ("ids", "'one'", "'one', 'one'"),
        ("good", "'two'", "'one', 'two'"),
    ):
        (tmp_path / f"test_{name}.py").write_text(CASES.format(sample=sample, ids=ids))
    words = ["-m", "pytest", "--collect-only", "-p", "tests.order", "-p", "no:cacheprovider"]
    words += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", ".", "."]
    done = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    said = done.stdout
    assert "test_mistyped.py::test_n: its sample names 'on', but its cases are: 'one', 't" in said
    assert "test_twice.py::test_n: its sample names 'one' twice" in said
    assert "Duplicate parametrization IDs" in said
    assert said.count("ERROR collecting") == 3
    assert "test_good.py::test_n[two]" in said
    assert "test_good.py::test_n[one]" not in said


def test_a_files_order_does_not_depend_on_what_else_runs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_ORDER", "7")
    everything = [*request.session.items]
    alone = [item for item in reversed(everything) if item.path == Path(__file__)]
    order.pytest_collection_modifyitems(everything)
    order.pytest_collection_modifyitems(alone)
    assert alone == [item for item in everything if item.path == Path(__file__)]
