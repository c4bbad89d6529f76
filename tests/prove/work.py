"""One worker of the long proof: ``python -m tests.prove.work PART OF``, results as JSON lines.

The cases are dealt out in a fixed order: worker PART of OF takes every OF-th.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .faults import FAULTS
from .host import Host
from .matrix import Case, Prover, cases


def main(part: int, of: int, limit: float) -> None:
    """Run this worker's share of the cases."""
    with tempfile.TemporaryDirectory(prefix="prove-") as folder:
        host = Host(Path(folder))
        try:
            prover = Prover(host)
            paths = prover.undisturbed()
            every = list(cases(paths))
            tell({"boundaries": {name: len(path) for name, path in paths.items()}})
            tell({"cases": len(every), "faults": len(FAULTS)})
            faults = list(FAULTS.items())[part::of]
            deadline = time.monotonic() + limit
            for name, fault in faults:
                attempt(f"faults: {name}", lambda fault=fault: fault(prover))
            for case in spread(every[part::of]):
                if time.monotonic() > deadline:
                    break
                attempt(str(case), lambda case=case: prover.prove(case))
        finally:
            host.stop()


def spread(mine: list[Case]) -> Iterable[Case]:
    """Take the cases in an order in which a run that is cut short has seen a bit of everything."""
    return random.Random(0).sample(mine, len(mine))


def attempt(name: str, prove: Any) -> None:
    """Run one case and tell what came of it."""
    started, error = time.monotonic(), ""
    try:
        prove()
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # noqa: BLE001  every kind of failure is a result
        error = f"{type(problem).__name__}: {problem}"
        error += "".join(traceback.format_tb(problem.__traceback__)[-2:])
    tell({"case": name, "error": error, "seconds": round(time.monotonic() - started, 2)})


def tell(line: dict[str, Any]) -> None:
    """Write one line."""
    print(json.dumps(line), flush=True)  # noqa: T201  this is its output


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else 1e9)
