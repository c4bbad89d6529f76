"""What a manifest records, as the exports read it: resources and their references."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

from hyperpod_eks.aws.tags import CLUSTER, LABEL, LINEAGE
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.events import steps_of
from hyperpod_eks.resources.base import KINDS
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.state.record import Record


class AnyBlock(Protocol):
    """What both exports' blocks have."""

    @property
    def without(self) -> str:
        """What of the resource is left out; empty for nothing."""


Block = TypeVar("Block", bound=AnyBlock)


class LeftOut(Exception):
    """Why a resource is not exported."""


class Ref(NamedTuple):
    """A reference to another resource of the manifest."""

    key: str
    attribute: str
    """``id`` or ``arn``."""
    value: str
    """The id or ARN itself."""


class Item(NamedTuple):
    """A resource of the manifest that exists and belongs to the cluster."""

    key: str
    record: Record
    manifest: Manifest

    @property
    def id(self) -> str:
        """Its id in AWS."""
        return self.record.id

    @property
    def arn(self) -> str:
        """Its ARN; empty for kinds whose ARN is not recorded."""
        return self.record.arn

    @property
    def label(self) -> str:
        """Its name in its step."""
        return self.key.partition("/")[2]

    def __call__(self, field: str, default: Json = None) -> Json:
        """Return a declared field; ``default`` if an earlier version did not have it."""
        return self.record.want.get(field, default)

    def ref(self, field: str, attribute: str = "id") -> Ref:
        """Return the resource that a field names.  Raises LeftOut if it does not exist."""
        return self.reference(self(field), attribute)

    def refs(self, field: str) -> list[Ref]:
        """Return the resources that a field names."""
        return [self.reference(each) for each in self(field, ())]

    def reference(self, field: JsonMapping | None, attribute: str = "id") -> Ref:
        """Return the resource of a reference as manifests have it."""
        key = (field or {}).get("$resource", "")
        record = self.manifest.records.get(key)
        value = getattr(record, attribute) if record else ""
        if not value:
            raise LeftOut(f"it refers to {key or 'a resource'}, whose {attribute} is not recorded")
        return Ref(key, attribute, value)

    @property
    def common_tags(self) -> dict[str, str]:
        """The tags that all resources of the cluster have."""
        return common_tags(self.manifest)

    @property
    def own_tags(self) -> dict[str, str]:
        """The tags of this resource alone."""
        return {"Name": f"{self.manifest.cluster}-{self.label}", LABEL: self.label}


def common_tags(manifest: Manifest) -> dict[str, str]:
    """Return the tags that all resources of a cluster have: the user's, and ours."""
    ours = {CLUSTER: manifest.cluster, LINEAGE: manifest.lineage}
    return {**manifest.config.get("tags", {}), **ours}


class Exported(NamedTuple, Generic[Block]):
    """What an export has and what it leaves out."""

    blocks: dict[str, list[Block]]
    """By key of the resource."""
    left_out: dict[str, str]
    """By key of the resource, why it is not there, or which part of it is not."""


Row = Callable[[Item], Iterator[Block]]
"""What a resource of one kind is in the exported language: its main block comes first."""


def export(
    manifest: Manifest, rows: Mapping[str, Row[Block]], without: Mapping[str, str]
) -> Exported[Block]:
    """Export what a manifest records.

    ``rows`` are by kind; ``without`` says why a kind is left out.
    """
    blocks: dict[str, list[Block]] = {}
    left_out: dict[str, str] = {}
    for key, record in in_order(manifest):
        kind = KINDS[record.kind].kind if record.kind in KINDS else record.kind
        if why := absence(record) or without.get(kind):
            left_out[key] = why
        elif kind not in rows:
            left_out[key] = f"this version exports no {kind}"
        else:
            try:
                blocks[key] = list(rows[kind](Item(key, record, manifest)))
                if parts := [each.without for each in blocks[key] if each.without]:
                    left_out[key] = "; ".join(parts)
            except LeftOut as reason:
                left_out[key] = str(reason)
    return Exported(blocks, left_out)


def in_order(manifest: Manifest) -> list[tuple[str, Record]]:
    """Return the records that are not deleted, in the order of the steps and by key."""
    there = {key: each for key, each in manifest.records.items() if each.state != "deleted"}
    steps = steps_of(key.partition("/")[0] for key in there)
    return sorted(there.items(), key=lambda each: (steps.index(each[0].partition("/")[0]), each[0]))


def absence(record: Record) -> str:
    """Return why a record is not of an existing resource of the cluster; "" if it is."""
    if record.origin == "adopted":
        return f"{record.id} existed before the cluster and does not belong to it"
    if record.deletes:
        return "its deletion has begun"
    return "" if record.id else "it is not certain that it was created; run create first"


def names(keys: Iterable[str], spelled: Callable[[str], str], dash: str) -> dict[str, str]:
    """Return a name for each key that no other key has.

    >>> names(["eks/a.b", "eks/a-b"], lambda key: key.replace(".", "-"), "_")
    {'eks/a.b': 'eks/a-b', 'eks/a-b': 'eks/a-b_2'}
    """
    found: dict[str, str] = {}
    for key in keys:
        base = name = spelled(key)
        number = 1
        while name in found.values():
            number += 1
            name = f"{base}{dash}{number}"
        found[key] = name
    return found
