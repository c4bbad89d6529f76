#!/usr/bin/env python3
"""Prove that nothing is lost, doubled or left over: every kill, every fault, every mutant.

Prints one table and ends with 0 only if every line of it is as it should be.  What is proved, and
what is not: docs/crash-safety.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
DUPLICATE = re.compile("too much:")
ORPHAN = re.compile("left:|not in the journal|manifest is still there")
TOUCHED = re.compile("changed:|lost:")


def worker(part: int, of: int, limit: float) -> list[dict[str, Any]]:
    """Run one share of the cases; failures are told at once."""
    words = [sys.executable, "-m", "tests.prove.work", str(part), str(of), str(limit)]
    lines = []
    # the same seed everywhere: all workers must see the same boundaries
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONHASHSEED": "0"}
    ) as process:
        assert process.stdout
        for line in process.stdout:
            told = json.loads(line)
            lines.append(told)
            if told.get("error"):
                print(f"FAILED {told['case']}\n  {told['error'][:1000]}", file=sys.stderr)
    if process.returncode:
        lines.append({"case": f"worker {part}", "error": f"ended with {process.returncode}"})
    return lines


def tests(workers: int) -> tuple[int, int]:
    """Run what pytest runs: real processes, lives told by chance, toys; how many, how many passed.

    One that was skipped counts as not passed.
    """
    with tempfile.TemporaryDirectory(prefix="prove-") as folder:
        report = Path(folder) / "report.xml"
        words = [sys.executable, "-m", "pytest", "-n", str(workers), "-m", "prove or not prove"]
        words += ["--tb=short", f"--junitxml={report}"]
        names = ("life", "processes", "races", "journal", "patience")
        words += [f"tests/prove/test_{name}.py" for name in names]
        words += ["tests/engine"]
        run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        if run.returncode:
            print(run.stdout[-5000:], file=sys.stderr)
        if not report.exists():
            return 1, 0
        suite: Any = ElementTree.parse(report).getroot().find("testsuite")
    count = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    return count["tests"], 2 * count["tests"] - sum(count.values())


def mutants(workers: int) -> dict[str, str]:
    """Put every deliberate fault in; by name, what is wrong where it was not caught."""
    sys.path.insert(0, str(ROOT))
    from tests.prove.mutant import caught  # noqa: PLC0415
    from tests.prove.mutants import MUTANTS  # noqa: PLC0415

    with ThreadPoolExecutor(workers) as pool:
        return dict(zip((m.name for m in MUTANTS), pool.map(caught, MUTANTS), strict=True))


def main() -> int:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop the matrix after these")
    options = parser.parse_args()
    began = time.monotonic()
    os.environ["HYPERPOD_EKS_HELM"] = str(ROOT / ".cache" / "helm" / "4.3.1" / "helm")
    with ThreadPoolExecutor(options.workers) as pool:
        shares = pool.map(
            lambda part: worker(part, options.workers, options.seconds), range(options.workers)
        )
        lines = [line for share in shares for line in share]
    found = next((line["boundaries"] for line in lines if "boundaries" in line), {})
    planned = next((line["cases"] + line["faults"] for line in lines if "cases" in line), 0)
    results = [line for line in lines if "case" in line]
    errors = [line["error"] for line in results if line["error"]]
    real = [line for line in results if line["case"].startswith("kill -9")]
    storms = [line for line in results if line["case"].startswith("faults:")]
    kills = [line for line in results if line not in real and line not in storms]
    ran, passed = tests(options.workers)
    caught = mutants(options.workers)
    for name, problem in caught.items():
        if problem:
            print(f"NOT CAUGHT {name}: {problem}", file=sys.stderr)

    def good(some: list[dict[str, Any]]) -> str:
        return f"{sum(not line['error'] for line in some)} of {len(some)} passed"

    table = [
        ("date", datetime.now(UTC).date().isoformat()),
        ("boundaries found", f"{sum(found.values())}"),
        *((f"  in {name}", str(count)) for name, count in found.items()),
        ("cases run", f"{len(kills) + len(storms)} of {planned}"),
        ("  killed at a boundary", good(kills)),
        ("  faults of AWS", good(storms)),
        ("real processes killed at each change", good(real)),
        ("signals, locks, lives by chance, toys", f"{passed} of {ran} passed"),
        ("duplicates", str(sum(bool(DUPLICATE.search(e)) for e in errors))),
        ("orphans", str(sum(bool(ORPHAN.search(e)) for e in errors))),
        ("decoys touched", str(sum(bool(TOUCHED.search(e)) for e in errors))),
        ("deliberate faults caught", f"{sum(not x for x in caught.values())} of {len(caught)}"),
        ("minutes", f"{(time.monotonic() - began) / 60:.0f}"),
    ]
    width = max(len(name) for name, _ in table)
    for name, value in table:
        print(f"{name:<{width}}  {value}")
    whole = len(kills) + len(storms) == planned and real and ran == passed
    return 0 if whole and not errors and not any(caught.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
