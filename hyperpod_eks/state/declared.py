"""The config that a cluster was last declared with: kept in its bucket, found by every machine.

It is written before the first change of a run, under a number of its own, and never changed.
What a config names on a disk is kept as a digest of its content, or not at all if it is part of
the tool; references to variables (``${env:NAME}``) are kept as they are written.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from hyperpod_eks import __version__
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.config.chart_checks import chart_folders
from hyperpod_eks.config.lifecycle import (
    ELSEWHERE,
    check_folder,
    find_chart,
    is_elsewhere,
    lifecycle_files,
    packaged_lifecycle,
)
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, Locked, Usage
from hyperpod_eks.helm import chart
from hyperpod_eks.resolve.names import lineage
from hyperpod_eks.resources.s3 import claim_key, own_prefix
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.state.objects import NO_BUCKET, Objects, Overtaken
from hyperpod_eks.terminal.text import clean

SCHEMA = "hyperpod-eks/declared/v1"
KEPT = 50
"""How many are kept, the newest ones."""
LARGEST = 8 << 20
"""The largest one in bytes; a config of ten groups has four thousand, one with CRDs millions."""
UNKNOWN = f"{ELSEWHERE}unknown"
"""A folder that is not on this machine, and whose content is not known."""


class Newest(NamedTuple):
    """What the bucket has: the newest config's number (0 for none), ETag and size."""

    number: int
    etag: str
    size: int
    claimed: bool
    """Whether there is a claim, held or not."""

    @property
    def mark(self) -> str:
        """What a manifest remembers of the one that it has written or read last."""
        return f"{self.number} {self.etag}" if self.number else ""


class Declared(NamedTuple):
    """A config as it was kept, and when and by which version of the tool."""

    config: JsonObject
    saved_at: str
    tool_version: str


class Declarations:
    """The configs of one cluster in its bucket."""

    def __init__(self, aws: Aws, bucket: str, account: str = "") -> None:
        """``account``, if given, owns the bucket, or it is not read."""
        self._aws = aws
        self.objects = Objects(aws, bucket, f"the config of {aws.cluster}", owner=account)
        self._prefix = f"{own_prefix(aws.cluster)}config/"

    @property
    def _place(self) -> dict[str, str]:
        """What identifies the cluster."""
        who, cluster = self._aws.identity, self._aws.cluster
        return {
            "cluster": cluster,
            "account": who.account,
            "region": who.region,
            "lineage": lineage(who, cluster),
        }

    def name(self, number: int) -> str:
        """Return the URL of one, for messages."""
        return f"s3://{self.objects.bucket}/{self._key(number)}"

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number:08d}.json"

    def look(self) -> Newest:
        """Ask for the newest one.  Raises Denied; without a bucket there is none."""
        cluster = self._aws.cluster
        try:
            found = self.objects.listed(own_prefix(cluster))
        except Usage as error:
            if error.reason != NO_BUCKET:
                raise
            found = {}
        number = max(self._numbers(found), default=0)
        etag, size = found.get(self._key(number), ("", 0))
        return Newest(number, etag, size, claim_key(cluster) in found)

    def _numbers(self, keys: Iterable[str]) -> list[int]:
        names = (re.fullmatch(rf"{re.escape(self._prefix)}(\d{{8}})\.json", key) for key in keys)
        return sorted(int(name[1]) for name in names if name)

    def read(self, newest: Newest) -> Declared:
        """Read one.  Raises Denied, and Usage for what is no config of this cluster."""
        name = self.name(newest.number)
        if newest.size > LARGEST:
            raise self._unusable(newest.number, f"it has {newest.size} bytes")
        found = self.objects.get(self._key(newest.number))
        if found is None:
            raise Usage(f"{name} was removed a moment ago", "Run the same command again.")
        try:
            document = json.loads(found.content)
            schema = str(document["schema"])
            if schema != SCHEMA and re.fullmatch(r"hyperpod-eks/declared/v\d{1,9}", schema):
                raise Usage(
                    f"{name} has the schema {schema!r}; this version reads {SCHEMA!r}",
                    f"Use hyperpod-eks {clean(document.get('tool_version', ''))[:40]} or a newer"
                    " version, which wrote it.",
                )
            if schema != SCHEMA:
                raise ValueError(f"the schema is {schema[:80]!r}")
            for member, value in self._place.items():
                if document[member] != value:
                    raise ValueError(f"{member} is {str(document[member])[:80]!r}, not {value!r}")
            config = document["config"]
            if not isinstance(config, dict) or document["sha256"] != _digest(config):
                raise ValueError("its digest differs from its content")
            for setting, path in _paths(config).items():  # no folder of whoever reads it is sent
                if path and not is_elsewhere(path):
                    raise ValueError(f"{setting} is {path[:80]!r}, not a digest")
            said = str(document["saved_at"]), str(document["tool_version"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = f"{type(error).__name__}: {clean(error)[:300]}"
            raise self._unusable(newest.number, why) from error
        return Declared(config, *(clean(text)[:40] for text in said))

    def _unusable(self, number: int, why: str) -> Usage:
        return Usage(
            f"{self.name(number)} is not a config of the cluster {self._aws.cluster}: {why}",
            "Pass the config with -f FILE; create then keeps it as the newest one.",
        )

    def holder(self) -> str:
        """Return who holds the claim on the cluster; "" for nobody."""
        found = self.objects.get(claim_key(self._aws.cluster))
        try:
            document = json.loads(found.content) if found else {}
            held = document.get("state") == "held"
            return clean(document.get("holder") or "another run")[:200] if held else ""
        except (ValueError, AttributeError, RecursionError):
            return ""

    def keep(self, manifest: Manifest, *, given: bool, seen: Newest | None = None) -> JsonObject:
        """Keep the manifest's config as the newest one, unless the newest one is equal.

        Returns the newest one before; {} without one, or for one that cannot be used.

        Call it while the cluster is claimed.  ``seen`` is what `look` returned before.  Raises
        Locked if another run has declared a config since then, unless this run was ``given`` its
        own; Denied and Usage.
        """
        newest = self.look() if seen is None or seen.number else seen
        if not given and newest.mark != manifest.config_version:
            raise self.declared_meanwhile()
        before = self._before(newest, given=given)
        config = portable(manifest.config, before)
        if config == before:
            manifest.config_version = newest.mark
            return before
        document = {
            "schema": SCHEMA,
            **self._place,
            "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "tool_version": __version__,
            "run": manifest.claim,  # no other run writes the same content
            "sha256": _digest(config),
            "config": config,
        }
        number = newest.number + 1
        try:
            content = json.dumps(document, indent=1).encode()
            written = self.objects.put(self._key(number), content, None)
        except Overtaken as error:
            raise self.declared_meanwhile() from error
        manifest.config_version = newest._replace(number=number, etag=written.etag).mark
        self._drop_oldest(number)
        return before

    def _before(self, newest: Newest, *, given: bool) -> JsonObject:
        """Return the newest config; {} without one, or for one that a ``given`` one replaces."""
        if newest.number:
            try:
                return self.read(newest).config
            except Usage:
                if not given:
                    raise
        return {}

    def declared_meanwhile(self) -> Locked:
        """Return the error for a run that has read what is not the newest config any more."""
        return Locked(
            f"another run has declared a config of {self._aws.cluster} since this one read it",
            "Run the same command again.",
        )

    def _drop_oldest(self, number: int) -> None:
        """Delete what is older than the newest KEPT; whoever may not leaves them."""
        if number > KEPT:
            with absent("AccessDenied"):
                self.objects.delete(self._key(number - KEPT))


def portable(config: JsonMapping, before: JsonMapping | None = None) -> JsonObject:
    """Return a config without what only this machine has.

    Folders become digests of their content, or are left out if they are the tool's own.  ``before``
    is the newest kept config: it has the digests of folders that are not on this machine.
    """
    found: JsonObject = copy.deepcopy(dict(config))
    known = _paths(before or {})
    for setting, part, key in _folders(found):
        path = part.pop(key, None)
        if isinstance(path, str):
            digest = _content(setting, path)
            if digest == UNKNOWN:
                digest = known.get(setting) or UNKNOWN
            part.update({key: digest} if digest else {})
    if not str(found.get("state", "")).startswith("s3://"):
        found.pop("state", None)
    return found


def located(config: JsonMapping, known: Mapping[str, Iterable[str | None]]) -> JsonObject:
    """Return a config for this machine: digests become folders with that content.

    ``known`` are the paths that each setting may mean.  A folder that is not on this machine stays
    a digest: what was uploaded or installed from it then stays as it is.
    """
    found: JsonObject = copy.deepcopy(dict(config))
    for setting, part, key in _folders(found):
        path = part.get(key)
        if not (path and isinstance(path, str)):
            continue
        if not is_elsewhere(path) and not _exists(path):
            path = part[key] = UNKNOWN
        if is_elsewhere(path) and path != UNKNOWN:
            same = (each for each in known.get(setting, ()) if each and _there(setting, each))
            here = (each for each in same if _content(setting, each) == path)
            part[key] = next(here, path)
    return found


LIFECYCLE, CHART = "lifecycle.path", "chart.path"


def _folders(config: JsonMapping) -> Iterator[tuple[str, JsonObject, str]]:
    """Yield each setting that names a folder, its section and its key there."""
    for setting in (LIFECYCLE, CHART):
        section, key = setting.split(".")
        if isinstance(part := config.get(section), dict):
            yield setting, part, key
    for name, part in chart_folders(config).items():
        yield f"charts.{name}.chart", part, "chart"


def _paths(config: JsonMapping) -> dict[str, str]:
    """Return the folders of a config by setting."""
    found = {setting: part.get(key) for setting, part, key in _folders(config)}
    return {setting: path for setting, path in found.items() if isinstance(path, str)}


def further_charts(config: JsonMapping) -> dict[str, list[str | None]]:
    """Return the folders of further charts as `located` takes what is known."""
    found = _paths(config)
    return {setting: [path] for setting, path in found.items() if setting.startswith("charts.")}


def _exists(path: str) -> bool:
    with suppress(OSError, ValueError):  # too long a name, or a NUL
        return Path(path).exists()
    return False


def _there(setting: str, path: str) -> bool:
    with suppress(OSError, ValueError):
        if setting == LIFECYCLE:
            return Path(path).is_dir()
        return bool(find_chart(Path(path)) if setting == CHART else not check_folder(Path(path)))
    return False


def _content(setting: str, path: str) -> str:
    """Return the digest of a folder's content; "" for the tool's own, UNKNOWN for none."""
    if is_elsewhere(path):
        return path
    if setting == LIFECYCLE and Path(path) == packaged_lifecycle():
        return ""
    if not _there(setting, path):
        return UNKNOWN
    try:
        if setting == CHART:
            digest = chart.digest(chart.locate(Path(path)))
            return "" if digest == chart.PINNED.digest else f"{ELSEWHERE}{digest}"
        if setting != LIFECYCLE:
            return f"{ELSEWHERE}{chart.digest(Path(path))}"
        whole = hashlib.sha256()
        for name, file in lifecycle_files(Path(path)).items():
            whole.update(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {name}\n".encode())
        return f"{ELSEWHERE}{whole.hexdigest()}"
    except (OSError, HyperpodError):
        return UNKNOWN


def _digest(config: JsonMapping) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
