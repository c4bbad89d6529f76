"""Where a process begins, and the only place where an exception becomes words and an exit code."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn


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
    leave(run(sys.argv[1:]))


def leave(code: int) -> NoReturn:
    """End the process without C's ``exit``: OpenSSL frees there what our daemons still use.

    One of them that is in a TLS handshake then would turn the exit code into a segmentation fault.
    """
    atexit._run_exitfuncs()  # helm is stopped, temporary folders are removed
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a pipe that is closed, a device that is full
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
