"""One worker of the long proof: ``python -m tests.prove.work PART OF``, results as JSON lines.

The cases are dealt out in a fixed order: worker PART of OF takes every OF-th.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any

from .faults import FAULTS
from .host import Host
from .prover import Case, Prover, cases
from .shell import Shell


def main(part: int, of: int, limit: float) -> None:
    """Run the cases of this worker."""
    with tempfile.TemporaryDirectory(prefix="prove-") as folder:
        host = Host(Path(folder))
        try:
            prover = Prover(host)
            every = list(cases(prover))
            tell({"boundaries": {name: len(one.path) for name, one in prover.known.items()}})
            tell({"cases": len(every), "faults": len(FAULTS)})
            faults = list(FAULTS.items())[part::of]
            deadline = time.monotonic() + limit
            for name, fault in faults:
                attempt(f"faults: {name}", partial(fault, prover))
            for case in spread(every[part::of]):
                if time.monotonic() > deadline:
                    break
                attempt(str(case), partial(prover.prove, case))
            if time.monotonic() < deadline:
                real(prover, part, of)
        finally:
            host.stop()


def real(prover: Prover, part: int, of: int) -> None:
    """Kill real processes before and after every change, until there is no next one."""

    def survives(verb: str, nth: int, after: bool) -> bool:
        with tempfile.TemporaryDirectory(prefix="shell-") as folder:
            shell = Shell(prover, os.environ["HYPERPOD_EKS_HELM"], Path(folder))
            return shell.survives(verb, nth, after=after)

    for verb, after in product(("create", "delete"), (False, True)):
        for nth in count(part + 1, of):
            name = f"kill -9 {'after' if after else 'before'} change {nth} of {verb}"
            if not attempt(name, partial(survives, verb, nth, after)):
                break


def spread(mine: list[Case]) -> Iterable[Case]:
    """Return the cases in random order, so that an aborted run has covered a sample of all."""
    return random.Random(0).sample(mine, len(mine))


def attempt(name: str, prove: Callable[[], Any]) -> bool:
    """Run one case and print its result; return False, without output, if it does not exist."""
    started, error = time.monotonic(), ""
    try:
        if prove() is False:
            return False
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # noqa: BLE001  every kind of failure is a result
        error = f"{type(problem).__name__}: {problem}"
        error += "".join(traceback.format_tb(problem.__traceback__)[-2:])
    tell({"case": name, "error": error, "seconds": round(time.monotonic() - started, 2)})
    return True


def tell(line: dict[str, Any]) -> None:
    """Write one line."""
    print(json.dumps(line), flush=True)  # noqa: T201  this is its output


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else 1e9)
