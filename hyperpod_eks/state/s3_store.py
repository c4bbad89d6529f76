"""A manifest in S3, which nobody overwrites who has not read the last version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.errors import HyperpodError, Locked
from hyperpod_eks.state.file_store import lineage_of
from hyperpod_eks.state.lease import Lease
from hyperpod_eks.state.objects import Objects, Overtaken, Version
from hyperpod_eks.state.store import Unwritable
from hyperpod_eks.workers import for_each, start

SCHEME = "s3://"


class S3Store:
    """An object, the lock ``KEY.lock`` beside it, and its versions in ``KEY.versions/``."""

    path = None
    folder = Path()
    """Files that come with the manifest are put into the current folder."""

    def __init__(self, aws: Aws, bucket: str, key: str) -> None:
        self.objects, self.key = Objects(aws, bucket), key
        self._version: Version | None = None
        self._lease: Lease | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.objects.bucket}/{self.key}"

    @property
    def identity(self) -> str:
        """Its URL, as a digest: nodes may read it."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:32]

    @property
    def older(self) -> str:
        """Where the versions are."""
        return f"{self}.versions/"

    @contextmanager
    def locked(self, timeout: float = 0) -> Iterator[None]:
        """Keep other runs away: from the first change on, if none has come by then."""
        self._lease = self.lease()
        self._lease.look(timeout)
        try:
            yield
        finally:
            with suppress(Exception):  # the lock ends by itself
                self._lease.release()
            self._lease = None

    def lease(self) -> Lease:
        """Return the lock, held by nobody here."""
        return Lease(self.objects, f"{self.key}.lock")

    def check(self) -> None:
        """Take the lock, or make sure that it is still ours.  Raises Locked."""
        if self._lease:
            self._lease.hold(tried=False)

    def read(self) -> bytes | None:
        """Return the content; None where there is no object."""
        self._version = self.objects.get(self.key)
        return self._version and self._version.content

    def write(self, content: bytes, serial: int) -> None:
        """Replace the version that was read or written last.

        Raises Locked when another run has written one since, and Unwritable.
        """
        self.check()
        before = self._version
        kept = before and start(partial(self._keep, before.content, serial - 1))
        try:
            self._version = self.objects.put(self.key, content, before)
            if kept:
                kept.result()
        except Overtaken as error:
            raise Locked(
                f"another run has written {self} since this one read it",
                "Run the same command again.",
            ) from error
        except HyperpodError:
            raise
        except Exception as error:
            raise Unwritable(
                f"cannot write the manifest {self}: {error}",
                "Run the same command again; until then the resources are in AWS alone.",
            ) from error

    def _keep(self, content: bytes, serial: int) -> None:
        self.objects.keep(f"{self.key}.versions/{serial:08d}.json", content)

    def remove(self, lineage: str) -> None:
        """Delete the object, and its versions of this lineage."""
        self.check()

        def forget(key: str) -> None:
            found = self.objects.get(key)
            if found and lineage_of(found.content) == lineage:
                self.objects.delete(key)

        for_each(forget, self._kept(), 8)
        self.objects.delete(self.key)
        self._version = None

    def set_aside(self) -> None:
        """Keep what cannot be read under ``KEY.broken``."""
        assert self._version
        self.check()
        self.objects.keep(f"{self.key}.broken", self._version.content)

    def last_serial(self) -> int:
        """Return the highest serial among the versions; 0 without."""
        serials = map(_serial, self.objects.list(f"{self.key}.versions/"))
        return max((int(serial) for serial in serials if serial), default=0)

    def versions(self) -> Iterator[bytes]:
        """Read the versions, newest first."""
        return (found.content for key in self._kept() if (found := self.objects.get(key)))

    def _kept(self) -> list[str]:
        """Return the keys of the versions, newest first."""
        keys = filter(_serial, self.objects.list(f"{self.key}.versions/"))
        return sorted(keys, reverse=True)


def _serial(key: str) -> str:
    name = key.rpartition("/")[2].removesuffix(".json")
    return name if name.isdecimal() else ""
