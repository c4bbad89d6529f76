"""A manifest on disk: written durably, with its backups and its lock."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from hyperpod_eks import files
from hyperpod_eks.errors import HyperpodError, Locked, Usage
from hyperpod_eks.frozen import frozen

BACKUPS = 10


class Unwritable(HyperpodError):
    """The manifest cannot be written, so nothing more is made."""

    hint = "Free some disk or name another place with --manifest; then run the same command again."


@frozen
class FileStore:
    """One file, replaced as a whole: a reader sees the old or the new version, never half of one.

    Written to a temporary file in the same folder, fsynced, renamed, and the folder fsynced.
    """

    path: Path

    @property
    def exists(self) -> bool:
        """Whether there is anything on disk."""
        return self.path.exists()

    def write(self, content: bytes, serial: int) -> None:
        """Replace the content durably, and keep the version before it.  Raises Unwritable."""
        while True:
            try:
                self._back_up(serial - 1)
                files.replace(self.path, content, mode=0o600)
                return
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT) and self._drop_oldest(serial):
                    continue
                raise Unwritable(
                    f"cannot write the manifest {self.path}: {error.strerror}"
                ) from error

    def remove(self, lineage: str) -> None:
        """Remove the file and its backups, which keep the config's values."""
        if self.exists:
            self.path.unlink()
            files.sync_folder(self.path.parent)
        for each in kept(self.path):
            if each.parent == backups_of(self.path) or lineage_of(each) == lineage:
                each.unlink(missing_ok=True)
        for folder in (backups_of(self.path), old_backups_of(self.path)):
            with suppress(OSError):  # it is not there, or another manifest's backups are in it
                folder.rmdir()

    def _back_up(self, serial: int) -> None:
        """Keep the version on disk, which is about to be replaced, and the nine before it."""
        if not self.exists:
            return
        folder = backups_of(self.path)
        folder.mkdir(mode=0o700, exist_ok=True)
        copy = folder / f"{serial:08d}.json"
        try:
            os.link(self.path, copy)
        except (FileNotFoundError, FileExistsError):
            pass
        except OSError:  # shared folders and sticks have no hard links
            try:
                shutil.copy(self.path, copy)
            except OSError:
                copy.unlink(missing_ok=True)  # it would be half of one
                raise
        names = sorted(each.name for each in folder.iterdir() if each.suffix == ".json")
        for old in names[:-BACKUPS]:
            (folder / old).unlink(missing_ok=True)

    def _drop_oldest(self, serial: int) -> bool:
        """Make room on a full disk; the version on disk is kept, whose backup takes none."""
        newest = f"{serial - 1:08d}"
        for old in sorted(backups_of(self.path).glob("*.json")):
            if old.stem.isdecimal() and old.stem < newest:
                old.unlink(missing_ok=True)
                return True
        return False


def backups_of(path: Path) -> Path:
    """The folder of a manifest's backups."""
    return path.with_name(f".{path.name}.backups")


def old_backups_of(path: Path) -> Path:
    """Where earlier versions kept backups, those of ``demo.eu`` and ``demo.us`` together."""
    return path.with_name(f".{path.stem}.backups")


def kept(path: Path) -> list[Path]:
    """All backups that may be of this manifest."""
    folders = {old_backups_of(path), backups_of(path)}
    return [kept for folder in folders for kept in folder.glob("*.json") if kept.stem.isdecimal()]


def lineage_of(kept: Path) -> object:
    """Whose backup it is, None for one that cannot be read."""
    with suppress(OSError, ValueError):
        document = json.loads(kept.read_bytes())
        return document.get("lineage") if isinstance(document, dict) else None
    return None


def nearest(*folders: Path) -> Path:
    """The first folder that exists, else the first."""
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def last_serial(path: Path) -> int:
    """Where the serials of a manifest that is no more ended, so that its backups stay the older."""
    return max((int(kept.stem) for kept in kept(path)), default=0)


def home(path: Path) -> Path:
    """Return the place of a manifest; a link stays one, and all its readers see one file.

    Raises Usage for what is no regular file.
    """
    try:
        target = files.resolved(path)
    except OSError as error:
        raise Usage(f"cannot read the manifest {path}: {error.strerror}") from error
    return target if path.is_symlink() else path


@contextmanager
def locked(path: Path, timeout: float = 0) -> Iterator[None]:
    """Keep every other run away from this manifest; the kernel frees the lock of a dead one.

    The lock is an flock on ``PATH.lock``, or ``.PATH.lock`` for a name without a suffix, which is
    never removed.  Versions that name the lock without the manifest's suffix are kept out as well:
    theirs is taken too, and shared, for the manifests ``demo``, ``demo.eu`` and ``demo.us`` have
    one.  Waits ``timeout`` seconds.

    Raises Locked, naming the holder, and Usage when the folder cannot be written.
    """
    path = home(path)
    own, old = path.with_name(f"{path.name}.lock"), path.with_suffix(".lock")
    if own == old:
        own = path.with_name(f".{path.name}.lock")
    with ExitStack() as stack:
        held = _opened(own, os.O_RDWR)
        stack.callback(os.close, held)
        if (found := os.pread(held, 100, 0)) and not found.startswith(b"process "):
            raise Usage(
                f"{own} is not a lock of hyperpod-eks; nothing was written",
                "Choose another manifest with --manifest.",
            )
        deadline = time.monotonic() + timeout
        _take(held, fcntl.LOCK_EX, own, path, deadline)
        if old != path:
            with suppress(Usage):  # what is there cannot be the lock of an earlier version
                shared = _opened(old, os.O_RDONLY)
                stack.callback(os.close, shared)
                _take(shared, fcntl.LOCK_SH, old, path, deadline)
        # through the descriptor: what a full disk has not taken must not come up again later
        words = f"process {os.getpid()} on {socket.gethostname()}, started {_clock_time()}"
        with suppress(OSError):
            os.truncate(held, 0)
            os.pwrite(held, words.encode(), 0)
        for draft in path.parent.glob(f".{glob.escape(path.name)}.*tmp"):  # of a killed run
            with suppress(OSError):
                draft.unlink()
        try:
            yield
        finally:
            with suppress(OSError):
                os.truncate(held, 0)
                # a program that was just started has the lock too, until it is itself: closing
                # ours would not free it
                fcntl.flock(held, fcntl.LOCK_UN)


def _opened(lock: Path, how: int) -> int:
    """Open a lock, made if there is none.  Raises Usage for what is no file of its own."""
    flags = how | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(lock, flags, 0o600)
    except OSError as error:
        if lock.is_symlink():
            raise Usage(f"{lock} is a link, not a lock", "Remove it.") from error
        raise Usage(
            f"cannot write in the manifest's folder {lock.parent}: {error.strerror}",
            "Choose another path with --manifest.",
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Usage(f"{lock} is not a regular file", "Remove it.")
    return descriptor


def _take(descriptor: int, how: int, lock: Path, path: Path, deadline: float) -> None:
    """Take an flock until the deadline.  Raises Locked and Usage."""
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
                raise Locked(
                    f"{holder or 'another run'} is working on {path}",
                    "Wait until it ends, or pass --lock-timeout.",
                ) from None
            time.sleep(0.1)
        except OSError as error:  # not every network file system has locks
            raise Usage(
                f"cannot lock {lock}: {error.strerror}",
                "Choose a path on a local disk with --manifest.",
            ) from error


def _clock_time() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
