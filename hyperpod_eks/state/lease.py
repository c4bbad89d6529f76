"""A lock that an object is: held as long as its holder writes to it.

Nothing in it is compared with a clock of another machine.  A run that waits for the lock takes it
over once it has seen the same version for TERM seconds of its own clock; a holder that could not
write to it for almost as long stops before its next change.  Its release does not delete the
object, only the end of the cluster does: a first write that S3 performs late would take the lock
for a run that is over.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from hyperpod_eks.documents import JsonObject
from hyperpod_eks.errors import Locked, Usage
from hyperpod_eks.state.objects import NO_BUCKET, Objects, Overtaken, Version
from hyperpod_eks.terminal.text import clean

SCHEMA = "hyperpod-eks/lock/v1"
RENEW = 20.0
"""Seconds between two writes of the holder."""
LASTS = 75.0
"""Seconds after its last write for which the holder may change something."""
TERM = 105.0
"""Seconds without a write after which the lock may be taken over."""
MARGIN = 15.0
"""Seconds beyond TERM that a run should wait at least: it sees the lock every POLL seconds."""
POLL = 5.0
"""Seconds between two looks of a run that waits."""


def clock() -> float:
    """Seconds that pass while the machine sleeps, too, where the system counts them."""
    which = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(which)


class Lease:
    """The lock at a key: `look` whether it is free, `hold` it, `release` it."""

    def __init__(self, objects: Objects, key: str, manifest: str = "") -> None:
        self.objects, self.key = objects, key
        self.manifest = manifest
        """Names the manifest whose lock the holder has, as no copy of it is named."""
        self.run = secrets.token_hex(16)
        """Names this holder as no other one."""
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._version: Version | None = None
        self._written = 0.0
        self._held = False
        self._lost: Locked | None = None
        self._lock = threading.RLock()
        self._over = threading.Event()

    def __str__(self) -> str:
        return f"s3://{self.objects.bucket}/{self.key}"

    @property
    def held(self) -> bool:
        """Whether this run has taken it."""
        return self._held

    def look(self, timeout: float = 0, ended: str = "") -> str:
        """Wait until no other run holds it, ``timeout`` seconds at most; return who held it last.

        ``ended`` is the `run` of a holder that has ended if it had the same manifest, whose lock
        this run has now.  Raises Locked, naming the holder, and what `Objects.get` raises.
        """
        deadline, since, last = clock() + timeout, clock(), None
        while True:
            self._version = self.objects.get(self.key)
            found = self._content()
            if self._version != last:
                since, last = clock(), self._version
            run = str(found.get("run", ""))
            same = bool(ended) and (run, found.get("manifest")) == (ended, self.manifest)
            free = found.get("state") != "held" or same or _is_dead(found)
            if free or clock() - since >= TERM:
                return run
            if clock() >= deadline:
                raise self._locked(found)
            time.sleep(max(0.0, min(POLL, deadline - clock())))

    def hold(self, *, tried: bool = True) -> None:
        """Take it, or make sure that it is still ours, before something is changed.

        Without ``look`` before, it must be a new object.  ``tried`` says that the service is known
        to heed the condition of a write.  Raises Locked once another run has it, and HyperpodError
        when it could not be renewed.
        """
        with self._lock:
            if self._lost:
                raise self._lost
            if not self._held:
                first = self._version is None
                self._write("held")
                if first and not tried:
                    self._try_condition()
                self._held, self._over = True, threading.Event()
                renewal = weakref.ref(self), self._over
                threading.Thread(
                    target=_keep, args=renewal, daemon=True, name="hyperpod-eks"
                ).start()
            elif clock() - self._written > LASTS:
                self._write("held")

    def check(self) -> None:
        """Make sure, as `hold`, that it is still ours, if it was taken and not released."""
        with self._lock:
            if self._held:
                self.hold()

    def delete(self) -> None:
        """Delete the object, for a place that goes with it.  Raises Locked if another run has it.

        A run that is over cannot write it again: each of its writes is on the condition that the
        object is there.
        """
        self._over.set()
        with self._lock:
            if self._lost:
                raise self._lost
            if self._held:
                self._held = False
                assert self._version
                try:
                    self.objects.remove(self.key, self._version)
                except Overtaken as error:
                    self._version = error.version
                    raise self._locked(self._content()) from error

    def release(self) -> None:
        """Let other runs have it; without an answer they wait for TERM seconds."""
        self._over.set()
        with self._lock:
            if self._held and not self._lost:
                self._write("released")
                self._held = False

    def holder(self) -> str:
        """Return who holds it now, in words; empty for nobody.  Raises as `Objects.get`."""
        try:
            self._version = self.objects.get(self.key)
        except Usage as error:
            if error.reason != NO_BUCKET:
                raise
            self._version = None
        found = self._content()
        if found.get("state") != "held":
            return ""
        return _holder(found) + ", which has ended" * _is_dead(found)

    def free(self) -> None:
        """Release it for the holder that was read last.  Raises Locked if it is another one now."""
        self._write("released")

    def renew(self, over: threading.Event) -> None:
        """Write to it, unless it is ``over``; `hold` raises the errors that last."""
        with self._lock, suppress(Exception):
            if self._held and not self._lost and not over.is_set():
                self._write("held")

    def _write(self, state: str) -> None:
        began = clock()
        try:
            self._version = self.objects.put(self.key, self._spelled(state), self._version)
        except Overtaken as error:
            self._version = error.version
            locked = self._locked(self._content())
            if self._held:
                self._lost = locked
            raise locked from error
        self._written = began

    def _try_condition(self) -> None:
        """Raise Usage for a service that is not S3 and does not heed the condition of a write."""
        try:
            self.objects.put(self.key, self._spelled("released"), None)
        except Overtaken:
            return
        raise Usage(
            f"s3://{self.objects.bucket} does not support conditional writes (If-None-Match)",
            "Keep the manifest in a bucket of Amazon S3, or in a file.",
        )

    def _spelled(self, state: str) -> bytes:
        """Return the content; no two are equal, since equal ones have the same ETag."""
        host = socket.gethostname()
        return json.dumps(
            {
                "schema": SCHEMA,
                "state": state,
                "holder": f"process {os.getpid()} on {host}, since {self._since}",
                "process": _process(os.getpid()),
                "run": self.run,
                "manifest": self.manifest,
                "nonce": secrets.token_hex(16),
            }
        ).encode()

    def _content(self) -> JsonObject:
        if self._version is None:
            return {}
        try:
            found = json.loads(self._version.content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise Usage(
                f"{self} is not a lock of this version of hyperpod-eks; nothing was written",
                "Choose another place with --manifest."
                if self.key.endswith(".lock")
                else f"If no run of another version is active: aws s3 rm {self}",
            )
        return found

    def _locked(self, found: JsonObject) -> Locked:
        return Locked(
            f"{_holder(found)} holds the lock {self}",
            f"Wait until it ends, or pass --lock-timeout {TERM + MARGIN:.0f}: the lock of a run"
            f" that has ended is taken over after {TERM:.0f} seconds.",
            then=("To free it now", "unlock"),
        )


def _holder(found: JsonObject) -> str:
    return clean(str(found.get("holder") or "another run"))[:200]


def _keep(lease: weakref.ref[Lease], over: threading.Event) -> None:
    """Renew a lease until it is over, or nobody has it any more."""
    while not over.wait(RENEW) and (it := lease()) is not None:
        it.renew(over)
        del it


def _process(pid: int) -> list[str]:
    """Name a process of this machine as no other is ever named; empty where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return [boot.strip(), str(Path("/proc/self/ns/pid").readlink()), str(pid), started]
    except (OSError, IndexError):
        return []


def _is_dead(found: JsonObject) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    holder, ours = found.get("process"), _process(os.getpid())
    if not (isinstance(holder, list) and len(holder) == 4 and ours and holder[:2] == ours[:2]):
        return False
    return str(holder[2]).isdecimal() and _process(int(holder[2])) != holder
