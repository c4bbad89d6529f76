"""Other programs: found on PATH, and never in the current folder."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

ELSEWHERE = "/"
"""Working folder of programs that we start, so that files in the user's cannot affect them."""

WITH_PICTURES = (
    "Install this package with its extra `report`: pip install '.[report]' in a checkout,"
    " or pip install 'WHEEL[report]' with the path of the wheel."
)
"""How to get what draws pictures and writes reports."""


def on_path(name: str) -> str | None:
    """Return the absolute path of a program, or None.

    Relative entries of PATH, and empty ones, which mean the current folder, are ignored: nothing in
    a folder that others have filled (a cloned repository) is run.
    """
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    absolute = [entry for entry in entries if os.path.isabs(entry)]  # noqa: PTH117  "" is none
    return shutil.which(name, path=os.pathsep.join(absolute))


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, if it exists."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)
