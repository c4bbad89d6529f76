"""Other programs: found on PATH, and never in the folder that we happen to be in."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

ELSEWHERE = "/"
"""Where the programs that we start work: what lies in the user's folder is no part of them."""


def on_path(name: str) -> str | None:
    """Return the absolute path of a program, or None.

    Relative entries of PATH are left out, and empty ones, which mean the current folder: whoever
    works in a folder that somebody else has filled (a cloned repository) runs nothing of it.
    """
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    absolute = [entry for entry in entries if os.path.isabs(entry)]  # noqa: PTH117  "" is none
    return shutil.which(name, path=os.pathsep.join(absolute))


def signal_group(group: int, number: int) -> None:
    """Send a signal to a program and all that it has started, if it is there."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)
