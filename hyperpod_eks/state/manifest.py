"""The journal: what we set out to make, what came of it, written down before and after."""

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hyperpod_eks import __version__, files
from hyperpod_eks.errors import HyperpodError, Locked, Usage
from hyperpod_eks.resources.base import KINDS, Live, Proof, Resource, Sent
from hyperpod_eks.state.codec import Spelled, braced, check_document, pack, spelled, unpack
from hyperpod_eks.state.record import Record

SCHEMA = "hyperpod-eks/manifest/v1"
BACKUPS = 10


class Unwritable(HyperpodError):
    """The manifest cannot be written, so nothing more is made."""

    hint = "Free some disk or name another place with --manifest; then run the same command again."


@dataclass
class Manifest:
    """The state of one cluster on disk; every change is durable when its method returns.

    Format: one JSON object, documented in docs/architecture.md.  Written to a temporary file in
    the same folder, fsynced, renamed, and the folder fsynced, so that a reader sees the old or
    the new version and never half of one.
    """

    path: Path
    cluster: str
    account: str = ""
    region: str = ""
    lineage: str = ""
    serial: int = 0
    records: dict[str, Record] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    """The config of the last create."""
    run: str = ""
    """The ID of the run that created the cluster (``create --run``); empty for none."""
    tool_version: str = ""
    """The version of this tool that wrote it last, as it was read."""
    _rows: dict[str, tuple[Record, str]] = field(default_factory=dict, repr=False)
    """Each record as it was last written, and its line of JSON."""

    @property
    def exists(self) -> bool:
        """Whether there is anything on disk."""
        return self.path.exists()

    @property
    def complete(self) -> bool:
        """Whether the last create came to its end: nothing was left to be made."""
        states = {record.state for record in self.records.values()}
        return bool(states) and states <= {"ready", "deleted"}

    # --- what the engine says

    def intend(self, want: Resource, now: float, named: Sequence[str] = ()) -> str:
        """Write down that we are about to make it, before the call; return the birth's token.

        ``named`` are the ids of what the request names.  A birth that was intended before and is
        still unresolved keeps its token as long as it names the same: with a token that it knows,
        AWS refuses any other request.  Its time is the last one at which it may have happened, for
        that is what the wait for it counts from.
        """
        known = self.records.get(want.key)
        packed = pack(want)
        names = _digest(*named)[:16]
        if known and known.unsure and known.want == packed and known.token.endswith(names):
            self._put(want.key, replace(known, since=now))
            return known.token
        place = self.account, self.region, self.lineage
        token = f"hpe-{_digest(*place, want.key, repr(packed), repr(now))[:40]}{names}"
        past = " ".join(known.arns) if known else ""
        self._put(want.key, Record(want.kind, packed, "intent", now, token, past=past))
        return token

    def record(
        self,
        want: Resource,
        live: Live,
        state: str,
        now: float,
        sent: Mapping[str, Sent] | None = None,
    ) -> None:
        """Write down that it exists: ``created`` after the call, ``ready`` when it is usable.

        ``sent`` takes the place of what the record says was sent, if given.
        """
        known = self.records.get(want.key)
        since, token = (known.since, known.token) if known else (now, "")
        origin = known.origin if known else "created"
        past = " ".join(arn for arn in known.arns if arn != live.arn) if known else ""
        if sent is None and known:
            sent = known.sent
        birth = (want.kind, pack(want), state, since, token)
        self._put(
            want.key,
            Record(*birth, live.id, live.arn, origin, past, sent),
        )

    def adopt(self, key: str, id_: str, now: float) -> None:
        """Write down that an existing resource takes the place of one that we would make."""
        self._put(key, Record("", {}, "ready", now, "", id_, origin="adopted"))

    @property
    def adopted(self) -> dict[str, str]:
        """Ids of what was adopted, by key."""
        return {key: r.id for key, r in self.records.items() if r.origin == "adopted"}

    def mark(self, key: str, state: str, now: float | None = None) -> None:
        """Change a record's state: ``deleting`` before the call, ``deleted`` once it is gone.

        ``now``: since when, if it is not as before.
        """
        if known := self.records.get(key):
            self._put(key, replace(known, state=state, since=known.since if now is None else now))

    def forget(self, key: str) -> None:
        """Strike out an intent of which we know that nothing came."""
        if known := self.records.get(key):
            if known.past:  # what it was before is not forgotten
                self.records[key] = replace(known, state="deleted")
            else:
                del self.records[key]
            self.save()

    def age(self, key: str, now: float) -> float | None:
        """How many seconds ago we set out to make it; None if we never did."""
        known = self.records.get(key)
        return now - known.since if known else None

    def remembered(self) -> dict[str, Resource]:
        """Every resource that we may have made, rebuilt from the journal.

        Raises Usage for a kind that this version does not have.
        """
        for key, record in self.records.items():
            if record.kind not in ("", *KINDS) and record.state != "deleted":
                raise Usage(
                    f"{self.path}: {key} is of the kind {record.kind[:80]!r}, which this version of"
                    f" hyperpod-eks does not know; {self.tool_version or 'another version'} wrote"
                    " the manifest",
                    "Use that version of hyperpod-eks, or a newer one.",
                )
        return self._rebuilt()

    def _rebuilt(self) -> dict[str, Resource]:
        built: dict[str, Resource] = {}
        for key in self.records:
            unpack(key, self.records, built)
        return {k: v for k, v in built.items() if self.records[k].state != "deleted"}

    def declared(self, key: str) -> Resource | None:
        """Rebuild one resource as it was declared when it was recorded."""
        return unpack(key, self.records, {})

    def retire(self) -> None:
        """Everything is gone: remove the file and the backups, which keep the config's values."""
        if self.exists:
            self.path.unlink()
            files.sync_folder(self.path.parent)
        for kept in _kept(self.path):
            if kept.parent == _backups(self.path) or _lineage(kept) == self.lineage:
                kept.unlink(missing_ok=True)
        for folder in (_backups(self.path), _old_backups(self.path)):
            with suppress(OSError):  # it is not there, or another manifest's backups are in it
                folder.rmdir()
        self.records.clear()

    # --- the file

    def _put(self, key: str, record: Record) -> None:
        if self.records.get(key) != record:
            self.records[key] = record
            self.save()

    def save(self) -> None:
        """Write the whole manifest durably.  Raises Unwritable."""
        self.serial += 1
        document = {
            "schema": SCHEMA,
            "tool_version": __version__,
            "serial": self.serial,
            "cluster": self.cluster,
            "account": self.account,
            "region": self.region,
            "lineage": self.lineage,
            "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "resources": Spelled(self._spelled_records()),
            "durations": self.durations,
            "config": self.config,
            **({"run": self.run} if self.run else {}),
        }
        content = spelled(document).encode()
        while True:
            try:
                self._back_up(self.serial - 1)
                files.replace(self.path, content, mode=0o600)
                return
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT) and self._drop_oldest():
                    continue
                self.serial -= 1
                raise Unwritable(
                    f"cannot write the manifest {self.path}: {error.strerror}"
                ) from error

    def _spelled_records(self) -> str:
        """Write the records as JSON; of all that are saved again, one has changed."""
        rows = []
        for key, record in self.records.items():
            known, row = self._rows.get(key, (None, ""))
            if known is not record:
                row = f"  {json.dumps(key)}: {json.dumps(vars(record), default=vars)}"
                self._rows[key] = record, row
            rows.append(row)
        return braced(rows)

    def _back_up(self, serial: int) -> None:
        """Keep the version on disk, which is about to be replaced, and the nine before it."""
        if not self.exists:
            return
        folder = _backups(self.path)
        folder.mkdir(mode=0o700, exist_ok=True)
        kept = folder / f"{serial:08d}.json"
        try:
            os.link(self.path, kept)
        except (FileNotFoundError, FileExistsError):
            pass
        except OSError:  # shared folders and sticks have no hard links
            try:
                shutil.copy(self.path, kept)
            except OSError:
                kept.unlink(missing_ok=True)  # it would be half of one
                raise
        names = sorted(each.name for each in folder.iterdir() if each.suffix == ".json")
        for old in names[:-BACKUPS]:
            (folder / old).unlink(missing_ok=True)

    def _drop_oldest(self) -> bool:
        """Make room on a full disk; the version on disk is kept, whose backup takes none."""
        newest = f"{self.serial - 1:08d}"
        for old in sorted(_backups(self.path).glob("*.json")):
            if old.stem.isdecimal() and old.stem < newest:
                old.unlink(missing_ok=True)
                return True
        return False


def backups(path: Path) -> Iterator[Manifest]:
    """Yield the versions of a manifest that are kept and can be read, newest first."""
    for old in sorted(_kept(_home(path)), key=lambda kept: kept.stem, reverse=True):
        with suppress(Usage):
            yield read(old)


def _record(members: dict[str, Any]) -> Record:
    if (sent := members.get("sent")) is not None:
        facts = {name: Sent(each["value"], Proof(each["proof"])) for name, each in sent.items()}
        members["sent"] = facts
    return Record(**members)


def _backups(path: Path) -> Path:
    return path.with_name(f".{path.name}.backups")


def _old_backups(path: Path) -> Path:
    """Where earlier versions kept backups, those of ``demo.eu`` and ``demo.us`` together."""
    return path.with_name(f".{path.stem}.backups")


def _kept(path: Path) -> list[Path]:
    """All backups that may be of this manifest."""
    folders = {_old_backups(path), _backups(path)}
    return [kept for folder in folders for kept in folder.glob("*.json") if kept.stem.isdecimal()]


def _lineage(kept: Path) -> object:
    with suppress(OSError, ValueError):
        document = json.loads(kept.read_bytes())
        return document.get("lineage") if isinstance(document, dict) else None
    return None


def _nearest(*folders: Path) -> Path:
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _last_serial(path: Path) -> int:
    """Where the serials of a manifest that is no more ended, so that its backups stay the older."""
    return max((int(kept.stem) for kept in _kept(path)), default=0)


def _home(path: Path) -> Path:
    """Return the place of a manifest; a link stays one, and all its readers see one file.

    Raises Usage for what is no regular file.
    """
    try:
        target = files.resolved(path)
    except OSError as error:
        raise Usage(f"cannot read the manifest {path}: {error.strerror}") from error
    return target if path.is_symlink() else path


def read(path: Path, cluster: str = "", *, broken: bool = False, again: str = "") -> Manifest:
    """Read a manifest; an absent one is empty.

    ``again`` is what commands to run next call the cluster: its name and where it is.

    ``cluster`` is the name that it must have, if given.  With ``broken``, one that cannot be read
    is put aside (``PATH.broken``) and counts as absent.

    Raises Usage when it is another cluster's, unreadable, broken or from a newer version; the
    message names the way back.
    """
    path = _home(path)
    try:
        document = json.loads(files.read(path))
        if document["schema"] != SCHEMA:
            raise Usage(
                f"{path} has the schema {str(document['schema'])[:80]!r};"
                f" this version reads {SCHEMA!r}",
                "Use the version of hyperpod-eks that wrote it.",
            )
        check_document(document)
        known = {each.name for each in fields(Record)}
        records = {
            key: _record({k: v for k, v in record.items() if k in known})
            for key, record in document["resources"].items()
        }
        manifest = Manifest(
            path,
            document["cluster"],
            document["account"],
            document["region"],
            document["lineage"],
            document["serial"],
            records,
            document.get("durations", {}),
            document.get("config", {}),
            document.get("run", ""),
            document.get("tool_version", ""),
        )
        manifest._rebuilt()  # what cannot be rebuilt is broken too
    except FileNotFoundError:
        return Manifest(path, cluster, serial=_last_serial(path))
    except OSError as error:
        raise Usage(f"cannot read the manifest {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if broken:
            path.rename(path.with_name(f"{path.name}.broken"))
            return Manifest(path, cluster, serial=_last_serial(path))
        raise Usage(
            f"the manifest {path} is broken: {type(error).__name__}: {str(error)[:300]}",
            f"To rebuild it from names and tags: hyperpod-eks adopt "
            f"{again or cluster or 'NAME'} --rebuild\n"
            f"Older versions: {_nearest(_backups(path), _old_backups(path))}/",
        ) from error
    if cluster and manifest.cluster != cluster:
        raise Usage(
            f"{path} is the manifest of the cluster {manifest.cluster!r}, not of {cluster!r}",
            "Name another file with --manifest.",
        )
    return manifest


@contextmanager
def locked(path: Path, timeout: float = 0) -> Iterator[None]:
    """Keep every other run away from this manifest; the kernel frees the lock of a dead one.

    The lock is an flock on ``PATH.lock``, or ``.PATH.lock`` for a name without a suffix, which is
    never removed.  Versions that name the lock without the manifest's suffix are kept out as well:
    theirs is taken too, and shared, for the manifests ``demo``, ``demo.eu`` and ``demo.us`` have
    one.  Waits ``timeout`` seconds.

    Raises Locked, naming the holder, and Usage when the folder cannot be written.
    """
    path = _home(path)
    own, old = path.with_name(f"{path.name}.lock"), path.with_suffix(".lock")
    if own == old:
        own = path.with_name(f".{path.name}.lock")
    with ExitStack() as stack:
        held = _opened(own, os.O_RDWR)
        stack.callback(os.close, held)
        if (found := os.pread(held, 100, 0)) and not found.startswith(b"process "):
            raise Usage(
                f"{own} is not a lock of hyperpod-eks; nothing was written",
                "Name another manifest with --manifest.",
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
            "Name another place with --manifest.",
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
                    "Wait until it ends, or give --lock-timeout.",
                ) from None
            time.sleep(0.1)
        except OSError as error:  # not every network file system has locks
            raise Usage(
                f"cannot lock {lock}: {error.strerror}",
                "Name a place on a local disk with --manifest.",
            ) from error


def _clock_time() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _digest(*words: str) -> str:
    return hashlib.sha256("|".join(words).encode()).hexdigest()
