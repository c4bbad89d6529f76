"""The journal: what we set out to make, what came of it, written down before and after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hyperpod_eks import __version__, files
from hyperpod_eks.errors import Usage
from hyperpod_eks.resources.base import KINDS, Live, Proof, Resource, Sent
from hyperpod_eks.state.codec import Spelled, braced, check_document, pack, spelled, unpack
from hyperpod_eks.state.file_store import (
    FileStore,
    Unwritable,
    backups_of,
    home,
    kept,
    last_serial,
    nearest,
    old_backups_of,
)
from hyperpod_eks.state.record import Record

SCHEMA = "hyperpod-eks/manifest/v1"


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
    def store(self) -> FileStore:
        """Where it is kept."""
        return FileStore(self.path)

    @property
    def exists(self) -> bool:
        """Whether there is anything on disk."""
        return self.store.exists

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
    def adopted(self) -> Adopted:
        """Ids of what was adopted, by key."""
        return Adopted(self)

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
        self.store.remove(self.lineage)
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
        try:
            self.store.write(spelled(document).encode(), self.serial)
        except Unwritable:
            self.serial -= 1
            raise

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


class Adopted(Mapping[str, str]):
    """Ids of what was adopted, by key, as the journal has them at any time."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def __getitem__(self, key: str) -> str:
        if (record := self._manifest.records[key]).origin != "adopted":
            raise KeyError(key)
        return record.id

    def __iter__(self) -> Iterator[str]:
        records = self._manifest.records.copy()  # another thread may add one meanwhile
        return (key for key, record in records.items() if record.origin == "adopted")

    def __len__(self) -> int:
        return sum(1 for _ in self)


def backups(path: Path) -> Iterator[Manifest]:
    """Yield the versions of a manifest that are kept and can be read, newest first."""
    for old in sorted(kept(home(path)), key=lambda kept: kept.stem, reverse=True):
        with suppress(Usage):
            yield read(old)


def _record(members: dict[str, Any]) -> Record:
    if (sent := members.get("sent")) is not None:
        facts = {name: Sent(each["value"], Proof(each["proof"])) for name, each in sent.items()}
        members["sent"] = facts
    return Record(**members)


def read(path: Path, cluster: str = "", *, broken: bool = False, again: str = "") -> Manifest:
    """Read a manifest; an absent one is empty.

    ``again`` is what commands to run next call the cluster: its name and where it is.

    ``cluster`` is the name that it must have, if given.  With ``broken``, one that cannot be read
    is put aside (``PATH.broken``) and counts as absent.

    Raises Usage when it is another cluster's, unreadable, broken or from a newer version; the
    message names the way back.
    """
    path = home(path)
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
        return Manifest(path, cluster, serial=last_serial(path))
    except OSError as error:
        raise Usage(f"cannot read the manifest {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if broken:
            path.rename(path.with_name(f"{path.name}.broken"))
            return Manifest(path, cluster, serial=last_serial(path))
        raise Usage(
            f"the manifest {path} is broken: {type(error).__name__}: {str(error)[:300]}",
            f"To rebuild it from names and tags: hyperpod-eks adopt "
            f"{again or cluster or 'NAME'} --rebuild\n"
            f"Older versions: {nearest(backups_of(path), old_backups_of(path))}/",
        ) from error
    if cluster and manifest.cluster != cluster:
        raise Usage(
            f"{path} is the manifest of the cluster {manifest.cluster!r}, not of {cluster!r}",
            "Choose another file with --manifest.",
        )
    return manifest


def _digest(*words: str) -> str:
    return hashlib.sha256("|".join(words).encode()).hexdigest()
