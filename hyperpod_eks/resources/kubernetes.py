"""Objects in the EKS cluster, of any kind that its Kubernetes API serves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import field, replace
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.config import variables
from hyperpod_eks.documents import DIGEST, JsonMapping, JsonObject, digest
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import client as kube
from hyperpod_eks.kube import objects
from hyperpod_eks.kube.access import Access
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import (
    MINUTE,
    Differs,
    Fact,
    Live,
    NotReady,
    References,
    Resource,
    State,
)

APPLIED = "hyperpod-eks/applied"
"""The annotation with the digest of what was applied last."""

TAKEN_ALONG = {
    "Namespace": "with everything in it",
    "CustomResourceDefinition": "with every object of the kind",
    "NodePool": "with its nodes",
}
NAMESPACE, CLAIM = "Namespace", "PersistentVolumeClaim"


@frozen
class Object(Resource):
    """An object, created and updated by server-side apply.

    It matches if the digest of what was applied last is that of the declaration, and we still own
    every field of it: another manager who changes a field becomes its owner (Kubernetes
    documentation, "Server-Side Apply").  Such a field is set back only with consent.  An object
    without our label is never changed.
    """

    cluster: eks.Cluster
    api_version: str
    object_kind: str
    namespace: str
    """Empty for a kind without namespaces."""
    name: str
    document: str
    """JSON, with references to variables (``${env:NAME}``) unresolved; a digest in a manifest."""
    deleted_before: Resource | None = field(default=None, kw_only=True)
    """What can be deleted only once the deletion of this object has begun; None for nothing."""

    kind = "kubernetes/Object"
    step = "kubernetes"
    schema = 2
    digested = ("document",)
    facts: ClassVar[tuple[str, ...]] = ("digest", "taken")
    answers: ClassVar[tuple[str, ...]] = facts
    patience = 20 * MINUTE

    @property
    def reference(self) -> objects.ObjectReference:
        """What identifies it."""
        return objects.ObjectReference(
            self.api_version, self.object_kind, self.namespace, self.name
        )

    @property
    def takes_along(self) -> str:
        """What others may have put into a namespace, a claim or a kind, or onto nodes."""
        return TAKEN_ALONG.get(self.object_kind, "")

    @property
    def may_hold_data(self) -> bool:
        """Whether its delete may delete the data of claims."""
        return self.api_version == "v1" and self.object_kind in (NAMESPACE, CLAIM)

    def holds(self, live: Live) -> str:
        """Return whose data it holds."""
        what = "its volume" if self.object_kind == CLAIM else "the volumes of its claims"
        return f"{what}, which Kubernetes deletes with it"

    @property
    def deleted_with(self) -> Resource | None:
        """The cluster, whose deletion deletes everything in it."""
        return self.cluster

    @property
    def deleted_first(self) -> bool:
        """Whether something else waits for its deletion."""
        return self.deleted_before is not None

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by its name; it is busy as long as its kind is not served."""
        access, ours = eks.access(snapshot, self.cluster.name), snapshot.aws.lineage
        if access is None:
            return []
        try:
            kinds = snapshot.once(
                ("kubernetes", self.cluster.name, self.api_version),
                lambda: objects.served(access, self.api_version),
            )
            if (kind := kinds.get(self.object_kind)) is None:
                why, about = str(objects.not_served(self.reference)), {"served": False}
                awaited = Live("", owner=ours, state=State.BUSY, why=why, attributes=about)
                return [] if snapshot.bare else [awaited]
            found = objects.find(access, self.reference, kind)
            if found is None:
                return []
            live = self._live(found, ours)
            if snapshot.bare and self.may_hold_data and self._has_data(snapshot, access):
                return [replace(live, holds_data=True, held_by=frozenset())]
        except kube.KubeNotReady as error:  # create restores a lost access entry
            return [Live("", owner=ours, state=State.BUSY, why=str(error), cause=error.cause)]
        return [live]

    def _has_data(self, snapshot: Snapshot, access: Access) -> bool:
        """Whether its delete deletes volumes."""
        question = ("claims", self.cluster.name)
        claims = snapshot.once(question, lambda: objects.deletable_claims(access))
        if self.object_kind == CLAIM:
            return (self.namespace or objects.DEFAULT, self.name) in claims
        return any(namespace == self.name for namespace, _ in claims)

    def _live(self, found: JsonMapping, lineage: str) -> Live:
        metadata = kube.part(found, "metadata")
        applied = kube.text(metadata, "annotations", APPLIED) or "none"
        return Live(
            str(self.reference),
            owner=kube.text(metadata, "labels", kube.LINEAGE) or None,
            state=State.LEAVING if kube.text(metadata, "deletionTimestamp") else State.READY,
            facts={"digest": applied, "taken": tuple(self._taken(found, lineage, applied))},
            attributes={"uid": kube.text(metadata, "uid"), "api_version": self.api_version},
            warnings=tuple(self._troubles(found)),
        )

    def _troubles(self, found: JsonMapping) -> Iterator[str]:
        """Yield why it is not ready, if its status has such a condition."""
        for each in kube.parts(found, "status", "conditions"):
            if (kube.text(each, "type"), kube.text(each, "status")) == ("Ready", "False"):
                reasons = [kube.text(each, "reason"), kube.text(each, "message")]
                yield f"{self.key} is not ready: {': '.join(filter(None, reasons)) or 'no reason'}"

    def _taken(self, found: JsonMapping, lineage: str, applied: str) -> Iterator[str]:
        """Yield the fields that are not ours, but for those that were never applied."""
        if self.document.startswith(DIGEST):
            return
        document = json.loads(self.document)
        for each in objects.taken(_signed(document, lineage, applied), found):
            if each.managers or applied == digest(self.document):
                yield str(each)

    def expected(self, name: str, references: References) -> Fact:
        """The digest of the document with the values of its variables; that nothing is taken."""
        if name == "taken":
            return ()
        if self.document.startswith(DIGEST):
            return self.document
        try:
            return _digest(self.resolve_document(references))
        except Usage as error:  # a command that sends nothing needs no value
            raise NotReady(str(error)) from error

    def resolve_document(self, references: References) -> JsonObject:
        """Return the object to apply; raise NotReady if it names a resource without an id."""
        document: JsonObject = variables.resolved(
            json.loads(self.document), f"objects.{self.label}"
        )
        return document

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Apply it; may be repeated."""
        return self._apply(aws, references)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Apply it; fields that others have taken are taken back."""
        return self._apply(aws, references, force="taken" in differs)

    def _apply(self, aws: Aws, references: References, *, force: bool = False) -> Live:
        access = eks.kube_access(aws, self.cluster.name, references(self.cluster).attributes)
        document = self.resolve_document(references)
        signed = _signed(document, aws.lineage, _digest(document))
        return self._live(objects.apply(access, self.reference, signed, force=force), aws.lineage)

    def disruption(self, live: Live, differs: Differs) -> list[str]:
        """Return the fields that other managers have set or removed."""
        fields = differs.get("taken", ((), ()))[0] or ()
        return [f"{self.key}: {each} is set as declared" for each in fields]

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it from a cluster that stays, with what it owns."""
        access = eks.access(Snapshot(aws), self.cluster.name)
        if access is not None and live.attributes.get("uid"):
            objects.delete(access, self.reference, live.attributes["uid"])


def _signed(document: JsonObject, lineage: str, applied: str) -> JsonObject:
    """Return an object with our label, and the annotation with the digest of what is applied."""
    metadata = document.get("metadata") or {}
    marks = {
        "labels": {**(metadata.get("labels") or {}), kube.LINEAGE: lineage},
        "annotations": {**(metadata.get("annotations") or {}), APPLIED: applied},
    }
    return {**document, "metadata": {**metadata, **marks}}


def _digest(document: JsonMapping) -> str:
    return digest(json.dumps(document, sort_keys=True))
