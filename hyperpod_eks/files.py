"""A user's files: read without blocking on a pipe, and replaced atomically."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from hyperpod_eks.errors import Usage

BOM = b"\xef\xbb\xbf"
"""The byte order mark that some editors write at the start of a UTF-8 file."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def resolved(path: Path) -> Path:
    """Return the file that a path leads to, following links; it may be missing.

    Raises Usage if it exists and is not a regular file: replacing a device or a pipe destroys it,
    and reading one may never end.  Raises OSError if the path cannot be examined.
    """
    try:
        target = path.resolve()
    except RuntimeError as error:  # links that lead in a circle, before Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error
    try:
        # stat the path, not the target: a link in /proc may lead to a nameless file, like a pipe
        mode = path.stat().st_mode
    except FileNotFoundError:
        return target
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "not a file")
        raise Usage(f"{path} is {kind}, not a regular file", "Choose a regular file.")
    return target


def read(path: Path) -> bytes:
    """Return the content of a regular file.  Raises Usage for anything else, and OSError."""
    descriptor = os.open(resolved(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def replace(
    path: Path,
    content: bytes,
    *,
    mode: int | None = None,
    parse: Callable[[bytes], object] | None = None,
) -> None:
    """Replace a file's content so that a crash leaves the old or the new one.

    A link stays a link, and its target keeps its owner and permissions, unless ``mode`` sets
    others; a new file has 0644 less the umask.  The draft is a new file with a random name, opened
    without following links.  ``parse`` checks the content before anything is written; its errors
    are passed on.

    Raises Usage if the file is not regular or is read-only, and OSError.
    """
    if parse:
        parse(content)
    target = resolved(path)
    try:
        old = target.stat()
    except FileNotFoundError:
        old = None
    if old and not (old.st_mode & 0o222 and os.access(target, os.W_OK)):
        raise Usage(
            f"{path} is read-only (mode {stat.S_IMODE(old.st_mode):04o}); nothing was written",
            f"To allow it: chmod u+w {path}",
        )
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o644 if mode is None and not old else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            if old and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                with suppress(OSError):
                    os.fchown(descriptor, old.st_uid, old.st_gid)
            if mode is None and old:
                mode = stat.S_IMODE(old.st_mode)
            if mode is not None:
                os.fchmod(descriptor, mode)
            out.write(content)
            out.flush()
            os.fsync(descriptor)
        draft.replace(target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    sync_folder(target.parent)


def try_writing(path: Path, size: int) -> None:
    """Check that `replace` would have ``size`` bytes of space, with a draft that is deleted.

    Raises Usage and OSError as `replace` would.
    """
    target = resolved(path)
    if target.exists() and not (target.stat().st_mode & 0o222 and os.access(target, os.W_OK)):
        raise Usage(f"{path} is read-only", f"To allow it: chmod u+w {path}")
    with tempfile.TemporaryFile(dir=target.parent) as draft:
        draft.write(bytes(size))
        draft.flush()  # with a buffer, all of it or an error


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, accessible only to their owner."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to disk (fsync), so that a rename survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def splice(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """Replace parts of a text: (start, end, replacement); the rest is unchanged.

    >>> splice("a: 2, b: 10", [(3, 4, "12"), (9, 11, "3")])
    'a: 12, b: 3'
    """
    parts, at = [], 0
    for start, end, instead in sorted(edits, key=lambda edit: edit[0]):
        parts += [text[at:start], instead]
        at = end
    return "".join([*parts, text[at:]])
