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
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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


def processes() -> tuple[int, int]:
    """Run the cases with real processes; how many, and how many passed."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "prove or not prove", "--tb=short"]
    run = subprocess.run(
        [*words, "tests/prove/test_processes.py", "tests/engine"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    passed = sum(int(n) for n in re.findall(r"(\d+) passed", run.stdout))
    failed = sum(int(n) for n in re.findall(r"(\d+) (?:failed|error)", run.stdout))
    # -q -q style configurations print no summary: then count the dots
    if not passed:
        dots = "".join(re.findall(r"^([.FEs]+) +\[", run.stdout, re.MULTILINE))
        passed, failed = dots.count("."), dots.count("F") + dots.count("E")
    if run.returncode:
        print(run.stdout[-5000:], file=sys.stderr)
        failed = failed or 1
    return passed + failed, passed


def mutants() -> dict[str, str]:
    """Put every deliberate fault in; by name, what is wrong where it was not caught."""
    sys.path.insert(0, str(ROOT))
    from tests.prove.mutants import MUTANTS, caught  # noqa: PLC0415

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return dict(zip((m.name for m in MUTANTS), pool.map(caught, MUTANTS), strict=True))


def main() -> int:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop the matrix after these")
    options = parser.parse_args()
    began = time.monotonic()
    helm = ROOT / ".cache" / "helm" / "4.3.1" / "helm"
    if helm.exists():
        os.environ["HYPERPOD_EKS_HELM"] = str(helm)
    with ThreadPoolExecutor(options.workers) as pool:
        shares = pool.map(
            lambda part: worker(part, options.workers, options.seconds), range(options.workers)
        )
        lines = [line for share in shares for line in share]
    found = next((line["boundaries"] for line in lines if "boundaries" in line), {})
    planned = next((line["cases"] + line["faults"] for line in lines if "cases" in line), 0)
    results = [line for line in lines if "case" in line]
    errors = [line["error"] for line in results if line["error"]]
    real, real_passed = processes()
    faults = mutants()
    for name, problem in faults.items():
        if problem:
            print(f"NOT CAUGHT {name}: {problem}", file=sys.stderr)
    caught = sum(not problem for problem in faults.values())
    passed = len(results) - len(errors)
    table = [
        ("date", datetime.now(UTC).date().isoformat()),
        ("boundaries found", f"{sum(found.values())}"),
        *((f"  in {name}", str(count)) for name, count in found.items()),
        ("cases run", f"{len(results)} of {planned}"),
        ("cases passed", f"{passed} of {len(results)}"),
        ("cases with real processes, and on toys", f"{real_passed} of {real} passed"),
        ("duplicates", str(sum(bool(DUPLICATE.search(e)) for e in errors))),
        ("orphans", str(sum(bool(ORPHAN.search(e)) for e in errors))),
        ("decoys touched", str(sum(bool(TOUCHED.search(e)) for e in errors))),
        ("deliberate faults caught", f"{caught} of {len(faults)}"),
        ("minutes", f"{(time.monotonic() - began) / 60:.0f}"),
    ]
    width = max(len(name) for name, _ in table)
    for name, value in table:
        print(f"{name:<{width}}  {value}")
    good = results and not errors and real == real_passed and caught == len(faults)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
