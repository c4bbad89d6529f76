"""A manifest on disk: durable writes, backups, and the lock."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from hyperpod_eks import files
from hyperpod_eks.errors import Locked, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.state.store import Unwritable

BACKUPS = 10


@frozen
class FileStore:
    """One file, replaced as a whole: a reader sees the old or the new version, never half of one.

    Written to a temporary file in the same folder, fsynced, renamed, and the folder fsynced.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def folder(self) -> Path:
        """The folder of the file."""
        return self.path.parent

    @property
    def identity(self) -> str:
        """Path and inode of the lock, as a digest: the nodes may read it."""
        own, inode = locks_of(self.path)[0], 0
        with suppress(OSError):  # only a run that takes the lock needs it
            inode = own.stat().st_ino
        return hashlib.sha256(f"{own.absolute()} {inode}".encode()).hexdigest()[:32]

    @property
    def older(self) -> str:
        """The folder of the backups."""
        folders = backups_of(self.path), old_backups_of(self.path)
        return f"{next((folder for folder in folders if folder.is_dir()), folders[0])}/"

    def locked(self, timeout: float = 0) -> AbstractContextManager[None]:
        """Hold the lock beside the file, as `locked` does."""
        return locked(self.path, timeout)

    def lease(self) -> None:
        """Return None: the lock ends with its process."""

    def check(self) -> None:
        """Do nothing: the kernel keeps the lock."""

    def read(self) -> bytes | None:
        """Return the content; None without a file.  Raises Usage."""
        try:
            return files.read(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Usage(f"cannot read the manifest {self.path}: {error.strerror}") from error

    def set_aside(self) -> None:
        """Rename the file to ``PATH.broken``."""
        self.path.rename(self.path.with_name(f"{self.path.name}.broken"))

    def last_serial(self) -> int:
        """Return the newest serial of the backups, from which a new manifest continues."""
        return max((int(kept.stem) for kept in kept(self.path)), default=0)

    def versions(self) -> Iterator[bytes]:
        """Read the backups, newest first."""
        for old in sorted(kept(self.path), key=lambda kept: kept.stem, reverse=True):
            with suppress(OSError):
                yield old.read_bytes()

    def write(self, content: bytes, serial: int) -> None:
        """Replace the content durably and back up the previous version.  Raises Unwritable."""
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
        """Remove the file and its backups, which contain the config's values."""
        if self.path.exists():
            self.path.unlink()
            files.sync_folder(self.path.parent)
        for each in kept(self.path):
            if each.parent == backups_of(self.path) or lineage_of(each.read_bytes()) == lineage:
                each.unlink(missing_ok=True)
        for folder in (backups_of(self.path), old_backups_of(self.path)):
            with suppress(OSError):  # absent, or it contains another manifest's backups
                folder.rmdir()

    def _back_up(self, serial: int) -> None:
        """Back up the version on disk before it is replaced, and keep the nine before it."""
        if not self.path.exists():
            return
        folder = backups_of(self.path)
        folder.mkdir(mode=0o700, exist_ok=True)
        copy = folder / f"{serial:08d}.json"
        try:
            os.link(self.path, copy)
        except (FileNotFoundError, FileExistsError):
            pass
        except OSError:  # not every file system has hard links
            try:
                shutil.copy(self.path, copy)
            except OSError:
                copy.unlink(missing_ok=True)  # it may be incomplete
                raise
        names = sorted(each.name for each in folder.iterdir() if each.suffix == ".json")
        for old in names[:-BACKUPS]:
            (folder / old).unlink(missing_ok=True)

    def _drop_oldest(self, serial: int) -> bool:
        """Remove the oldest backup, and return whether there was one.

        The newest is kept: a hard link to the current file, it takes no space.
        """
        newest = f"{serial - 1:08d}"
        for old in sorted(backups_of(self.path).glob("*.json")):
            if old.stem.isdecimal() and old.stem < newest:
                old.unlink(missing_ok=True)
                return True
        return False


def backups_of(path: Path) -> Path:
    """Return the folder of a manifest's backups."""
    return path.with_name(f".{path.name}.backups")


def old_backups_of(path: Path) -> Path:
    """Return the backup folder of earlier versions, shared by ``demo.eu`` and ``demo.us``."""
    return path.with_name(f".{path.stem}.backups")


def kept(path: Path) -> list[Path]:
    """Return all backups that may be of this manifest."""
    folders = {old_backups_of(path), backups_of(path)}
    return [kept for folder in folders for kept in folder.glob("*.json") if kept.stem.isdecimal()]


def lineage_of(content: bytes) -> object:
    """Return the lineage in a manifest; None if it cannot be read."""
    with suppress(ValueError, RecursionError):
        document = json.loads(content)
        return document.get("lineage") if isinstance(document, dict) else None
    return None


def home(path: Path) -> Path:
    """Return the file of a manifest, following a link, so that all its users share one file.

    Raises Usage if it is not a regular file.
    """
    try:
        target = files.resolved(path)
    except OSError as error:
        raise Usage(f"cannot read the manifest {path}: {error.strerror}") from error
    return target if path.is_symlink() else path


def locks_of(path: Path) -> tuple[Path, Path]:
    """Return the lock of a manifest, and that of earlier versions."""
    own, old = path.with_name(f"{path.name}.lock"), path.with_suffix(".lock")
    return (path.with_name(f".{path.name}.lock") if own == old else own), old


@contextmanager
def locked(path: Path, timeout: float = 0) -> Iterator[None]:
    """Lock a manifest against other runs; the kernel releases the lock of a killed run.

    The lock is an flock on ``PATH.lock``, or ``.PATH.lock`` for a name without a suffix; the file
    is never removed.  Earlier versions lock a file named without the manifest's suffix, so that is
    locked too: shared, since ``demo``, ``demo.eu`` and ``demo.us`` have the same one.

    ``timeout`` is in seconds.  Raises Locked, with the holder's name, and Usage if the folder
    cannot be written.
    """
    path = home(path)
    own, old = locks_of(path)
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
            with suppress(Usage):  # not a file: no lock of an earlier version
                shared = _opened(old, os.O_RDONLY)
                stack.callback(os.close, shared)
                _take(shared, fcntl.LOCK_SH, old, path, deadline)
        # unbuffered: text that a full disk refused must not be written again later
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
                # a child process has the descriptor too until it calls exec: closing ours would
                # not release the lock
                fcntl.flock(held, fcntl.LOCK_UN)


def _opened(lock: Path, how: int) -> int:
    """Open a lock file; create it if absent.  Raises Usage for a link or any other kind."""
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
    """Acquire an flock; retry until the deadline.  Raises Locked and Usage."""
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
        except OSError as error:  # not every network file system supports locks
            raise Usage(
                f"cannot lock {lock}: {error.strerror}",
                "Choose a path on a local disk with --manifest.",
            ) from error


def _clock_time() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
