"""Where the manifest of a cluster is kept, and the lock that keeps other runs away from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hyperpod_eks.errors import HyperpodError

if TYPE_CHECKING:
    from hyperpod_eks.state.lease import Lease


class Unwritable(HyperpodError):
    """The manifest cannot be written, so nothing more is created."""

    hint = "Free some disk or name another place with --manifest; then run the same command again."


class Store(Protocol):
    """The place of one manifest.  Its text is what messages and options call it."""

    @property
    def path(self) -> Path | None:
        """The file; None where it is none of this machine's."""

    @property
    def folder(self) -> Path:
        """Where files are put that come with it, such as a kubeconfig."""

    @property
    def identity(self) -> str:
        """What names it and no copy of it, without saying where it is."""

    @property
    def older(self) -> str:
        """Where earlier versions are, for people."""

    def locked(self, timeout: float = 0) -> AbstractContextManager[None]:
        """Keep every other run away while the context is open; wait ``timeout`` seconds for one.

        Raises Locked, naming the holder, and Usage where a lock cannot be taken.
        """

    def lease(self) -> Lease | None:
        """Return the lock if it is an object in S3, which can be left behind."""

    def check(self) -> None:
        """Make sure that the lock is still ours, before something is changed.  Raises Locked."""

    def read(self) -> bytes | None:
        """Return the manifest; None where there is none.  Raises Usage for what is not one."""

    def write(self, content: bytes, serial: int) -> None:
        """Replace the manifest durably, and keep the version before it.  Raises Unwritable."""

    def remove(self, lineage: str) -> None:
        """Remove the manifest and the versions of this lineage, which have the config's values."""

    def set_aside(self) -> None:
        """Keep one that cannot be read under another name."""

    def last_serial(self) -> int:
        """Return the highest serial among the versions that are kept; 0 without."""

    def versions(self) -> Iterator[bytes]:
        """Return the versions that are kept, newest first."""
