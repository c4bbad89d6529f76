"""The manifest: a journal of the intent before each create, and of the result after it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from hyperpod_eks import __version__
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.resources.base import KINDS, Live, Proof, Resource, Sent
from hyperpod_eks.state.codec import Spelled, braced, check_document, pack, spelled, unpack
from hyperpod_eks.state.record import Record, RecordState
from hyperpod_eks.state.store import Store

SCHEMA = "hyperpod-eks/manifest/v"
NEWEST = 2
"""The newest schema: v1 with kinds that 0.1.0 does not know, and would silently drop."""
BROKEN = "broken"
"""The reason of the error about a manifest that cannot be read."""


@dataclass(eq=False, repr=False)
class Manifest:
    """The state of one cluster; every change is durable once `commit` returns.

    Format: one JSON object, documented in docs/architecture.md.
    """

    store: Store
    """Where it is kept."""
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
    """The version of this tool that wrote the manifest that was read."""
    claim: str = ""
    """The last run that claimed the cluster with this manifest (see `claim`)."""
    config_version: str = ""
    """Which config in the cluster's bucket was written or read last (see `declared`)."""
    exists: bool = False
    """Whether any version is kept."""
    _unsaved: dict[str, Record | None] = field(default_factory=dict, repr=False)
    """The stored records of all keys that have changed since; None for new ones."""
    _rows: dict[str, tuple[Record, str]] = field(default_factory=dict, repr=False)
    """Each record as it was last written, and its line of JSON, by key."""

    @property
    def complete(self) -> bool:
        """Whether the last create finished: every record was ready, or is deleted."""
        records = self.records.values()
        return bool(records) and all(x.was_ready or x.state == "deleted" for x in records)

    # --- records

    def intend(self, want: Resource, now: float, named: Sequence[str] = ()) -> str:
        """Record the intent to create a resource, before the call; return the client token.

        ``named`` are the ids in the request.  An unresolved intent with the same declaration and
        ids keeps its token; other requests get a new one, since AWS refuses them with a known
        token.  ``now`` replaces its time: the create may happen as late as that, and waiting for
        it counts from there.
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
        state: RecordState,
        now: float,
        sent: Mapping[str, Sent] | None = None,
    ) -> None:
        """Record that it exists: ``created`` after the call, ``ready`` when it is usable.

        ``sent``, if given, replaces the recorded one.
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
        """Record that an existing resource is used instead of a created one."""
        self._put(key, Record("", {}, "ready", now, "", id_, origin="adopted"))

    @property
    def adopted(self) -> Adopted:
        """The ids of adopted resources, by key."""
        return Adopted(self)

    def was_never_ready(self, key: str, id_: str) -> bool:
        """Whether it has a resource as created, and not as ready since."""
        record = self.records.get(key)
        return record is not None and (record.state, record.id) == ("created", id_)

    def mark(self, key: str, state: RecordState, now: float | None = None) -> None:
        """Change a record's state: ``deleting`` before the call, ``deleted`` once it is gone.

        ``now``, if given, replaces its time.
        """
        if known := self.records.get(key):
            self._put(key, replace(known, state=state, since=known.since if now is None else now))

    def distrust(self) -> None:
        """Count what may be in use as used: a run with another manifest may have seen it ready."""
        for key, record in [*self.records.items()]:
            kind = KINDS.get(record.kind)
            if kind and kind.is_used() and record.state == "created":
                self._put(key, replace(record, state="updating"))

    def forget(self, key: str) -> None:
        """Remove an intent whose create is known to have created nothing."""
        if known := self.records.get(key):  # the ARNs of earlier resources are kept
            self._put(key, replace(known, state="deleted") if known.past else None)

    def remembered(self) -> dict[str, Resource]:
        """Return every resource that may have been created, rebuilt from its record, by key.

        Raises Usage for a kind that this version does not have.
        """
        for key, record in self.records.items():
            if record.kind not in ("", *KINDS) and record.state != "deleted":
                raise Usage(
                    f"{self.store}: {key} is of the kind {record.kind[:80]!r}, which this version"
                    " of hyperpod-eks does not know;"
                    f" {self.tool_version or 'another version'} wrote the manifest",
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
        """Remove the file and its backups, and forget all records, once everything is deleted."""
        self.store.remove(self.lineage)
        self.records.clear()
        self._unsaved.clear()

    # --- the file

    def _put(self, key: str, record: Record | None) -> None:
        on_disk = self._unsaved.pop(key, self.records.get(key))
        if record:
            self.records[key] = record
        else:
            self.records.pop(key, None)
        if record != on_disk:
            self._unsaved[key] = on_disk

    def commit(self) -> None:
        """Save if a record has changed.  Raises as `save`."""
        if self._unsaved:
            self.save()

    def save(self) -> None:
        """Write the whole manifest durably.

        Raises Unwritable, or Locked where another run has it now, with a note for each resource
        whose id is lost with it.
        """
        self.serial += 1
        document = {
            "schema": f"{SCHEMA}{self._schema}",
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
            **({"claim": self.claim} if self.claim else {}),
            **({"config_version": self.config_version} if self.config_version else {}),
        }
        try:
            self.store.write(spelled(document).encode(), self.serial)
        except HyperpodError as error:
            self.serial -= 1
            for key, on_disk in self._unsaved.items():
                made = self.records.get(key)
                if made and made.id and not (on_disk and on_disk.id == made.id):
                    lost = f"created, but not recorded: {key} is {made.id} {made.arn}"
                    error.add_note(lost.rstrip())
            raise
        self.exists = True
        self._unsaved.clear()

    @property
    def _schema(self) -> int:
        """The oldest schema that has the kinds and states of all records."""
        records = self.records.values()
        kinds = {KINDS.get(record.kind) for record in records}
        states = {record.state for record in records}
        return max([1 + ("updating" in states), *(kind.schema for kind in kinds if kind)])

    def _spelled_records(self) -> str:
        """Return the records as JSON; only those that changed are encoded again."""
        rows = []
        for key, record in self.records.items():
            known, row = self._rows.get(key, (None, ""))
            if known is not record:
                row = f"  {json.dumps(key)}: {json.dumps(vars(record), default=vars)}"
                self._rows[key] = record, row
            rows.append(row)
        return braced(rows)


class Adopted(Mapping[str, str]):
    """The ids of adopted resources, by key: a view that follows the manifest's changes."""

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


def versions(store: Store) -> Iterator[Manifest]:
    """Yield the earlier versions of a manifest that can be read, newest first."""
    for content in store.versions():
        with suppress(Usage):
            yield parse(content, store)


def _record(members: dict[str, Any]) -> Record:
    if (sent := members.get("sent")) is not None:
        facts = {name: Sent(each["value"], Proof(each["proof"])) for name, each in sent.items()}
        members["sent"] = facts
    return Record(**members)


def read(store: Store, cluster: str = "", *, broken: bool = False, again: str = "") -> Manifest:
    """Read a manifest; without one, return an empty one.

    ``cluster``, if given, is the name that it must have.  With ``broken``, an invalid file is
    renamed to ``PATH.broken`` and counts as absent.  ``again`` are the arguments that identify the
    cluster in suggested commands.

    Raises Usage if it is another cluster's, unreadable, invalid or from a newer version; the
    message says how to recover.
    """
    content = store.read()
    if content is None:
        return Manifest(store, cluster, serial=store.last_serial())
    try:
        manifest = parse(content, store)
    except Usage as error:
        if error.reason != BROKEN:
            raise
        if broken:
            store.set_aside()
            return Manifest(store, cluster, serial=store.last_serial())
        error.hint = (
            f"To rebuild it from names and tags: hyperpod-eks adopt "
            f"{again or cluster or 'NAME'} --rebuild\nOlder versions: {store.older}"
        )
        raise
    if cluster and manifest.cluster != cluster:
        raise Usage(
            f"{store} is the manifest of the cluster {manifest.cluster!r}, not of {cluster!r}",
            "Choose another file with --manifest.",
        )
    return manifest


def parse(content: bytes, store: Store) -> Manifest:
    """Read a version of a manifest.  Raises Usage for one that is BROKEN or of a newer version."""
    try:
        document = json.loads(content)
        if document["schema"] not in (f"{SCHEMA}{each}" for each in range(1, NEWEST + 1)):
            raise Usage(
                f"{store} has the schema {str(document['schema'])[:80]!r};"
                f" this version reads up to {f'{SCHEMA}{NEWEST}'!r}",
                "Use the version of hyperpod-eks that wrote it.",
            )
        check_document(document)
        known = {each.name for each in fields(Record)}
        records = {
            key: _record({k: v for k, v in record.items() if k in known})
            for key, record in document["resources"].items()
        }
        manifest = Manifest(
            store,
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
            document.get("claim", ""),
            document.get("config_version", ""),
        )
        manifest._rebuilt()  # records that cannot be rebuilt are invalid too
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:300]}"
        raise Usage(f"the manifest {store} is broken: {why}", reason=BROKEN) from error
    manifest.exists = True
    return manifest


def _digest(*words: str) -> str:
    return hashlib.sha256("|".join(words).encode()).hexdigest()
