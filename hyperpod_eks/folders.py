"""The folders of the tool: packaged ones, and those in the user's home or a temporary folder."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from hyperpod_eks.files import make_folder

TOOL = "hyperpod-eks"


def packaged(name: str, in_checkout: str) -> Path:
    """Return a folder that is part of the tool: in the package, or in the checkout around it."""
    from importlib.resources import files  # noqa: PLC0415  most commands need none

    package = Path(str(files("hyperpod_eks")))
    installed = package / name
    return installed if installed.is_dir() else package.parent / in_checkout


def cache() -> Path:
    """Return the folder for downloads and for the embedded stack."""
    return _folder("XDG_CACHE_HOME", ".cache")


def cached(name: str) -> Path:
    """Return the path of an item in the cache, or for it; a read-only cache may contain it."""
    wanted = _wanted("XDG_CACHE_HOME", ".cache")
    if wanted:
        with suppress(OSError):
            if (wanted / name).exists():
                return wanted / name
    return cache() / name


def state() -> Path:
    """Return the folder for the logs of runs."""
    return _folder("XDG_STATE_HOME", ".local/state")


def complaint() -> str:
    """Return which of our folders are not writable and their replacement; empty if both are."""
    usual = {"logs": ("XDG_STATE_HOME", ".local/state"), "downloads": ("XDG_CACHE_HOME", ".cache")}
    wanted = {what: _wanted(*where) for what, where in usual.items()}
    lost = {what: here for what, here in wanted.items() if not (here and _writable(here))}
    if not lost:
        return ""
    reason = "there is no home directory"
    if known := [str(here) for here in lost.values() if here]:
        reason = f"{' and '.join(known)} cannot be written"
    what, instead = " and ".join(lost), _temporary()
    if _writable(instead):
        return f"{reason}; {what} go to {instead}"
    return f"{reason}, and {instead} cannot be written; there are no {what}"


def _folder(variable: str, usual: str) -> Path:
    wanted = _wanted(variable, usual)
    return wanted if wanted and _writable(wanted) else _temporary()


def _wanted(variable: str, usual: str) -> Path | None:
    """Return the folder's regular path (XDG Base Directory Specification); None without a home.

    A relative path in a variable is ignored, as that page requires.
    """
    base = os.environ.get(variable, "")
    if not os.path.isabs(base):  # noqa: PTH117  "" is none
        home = os.path.expanduser("~")  # noqa: PTH111  Path raises without a home
        if not os.path.isabs(home):  # noqa: PTH117
            return None
        base = os.path.join(home, usual)  # noqa: PTH118
    return Path(base) / TOOL


def _writable(folder: Path) -> bool:
    """Whether a folder is writable, or can be created if it is missing."""
    for each in (folder, *folder.parents):
        try:
            mode = each.stat().st_mode
        except FileNotFoundError:
            continue
        except OSError:
            return False
        return stat.S_ISDIR(mode) and os.access(each, os.W_OK | os.X_OK)
    return False


def _temporary() -> Path:
    """Return our folder for temporary files, the same one in each run if possible.

    All users can write beside it, so a link, or a folder that others own or can access, is not
    used.  The result is not writable if nothing is, as in a container with a read-only root.
    """
    try:
        base = Path(tempfile.gettempdir()) / f"{TOOL}-{os.geteuid()}"
    except FileNotFoundError:
        return Path("/tmp") / TOOL  # noqa: S108  writing there fails with the reason
    with suppress(OSError):
        make_folder(base)
        found = base.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
        if ours and not found.st_mode & 0o077:
            return base / TOOL
    return Path(_made_once()) / TOOL


_unique: list[str] = []


def _made_once() -> str:
    if not _unique:
        _unique.append(tempfile.mkdtemp(prefix=f"{TOOL}-"))
    return _unique[0]
