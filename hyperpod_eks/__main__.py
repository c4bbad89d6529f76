"""Where a process begins, and the only place where an exception becomes words and an exit code."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line and leave with its exit code (docs/pipelines.md)."""
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # closed: no file of ours may come in its place
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))
    # nothing made while we import is garbage: collecting then costs a quarter of the start
    gc.disable()
    # nor has any other package's plugin a say in our settings; looking for one takes 10 ms
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from hyperpod_eks.cli import run  # noqa: PLC0415

    gc.freeze()
    code = run(sys.argv[1:])
    gc.freeze()  # what goes with the process need not be looked through on the way out
    sys.exit(code)


if __name__ == "__main__":
    main()
