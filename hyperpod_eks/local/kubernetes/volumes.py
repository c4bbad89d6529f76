"""Persistent volumes and claims: they bind, and stay as long as they are in use.

Kubernetes documentation, "Persistent Volumes" (phases, binding, reserving, reclaiming, "Storage
Object in Use Protection") and "Storage Classes" (the default class, volumeBindingMode).  Nothing is
provisioned: the claim of a class with a driver stays Pending, and its pods run all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from .admission import PROTECTION
from .objects import Obj, deleting, dig, labels, with_metadata
from .rules import amount
from .selection import selects
from .store import Store
from .workloads import is_over

KINDS = ("PersistentVolume", "PersistentVolumeClaim", "StorageClass", "Pod")
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_BOUND = {"pv.kubernetes.io/bind-completed": "yes"}
_STATIC = "kubernetes.io/no-provisioner"


class Volumes:
    """The controllers of volumes and claims, as one reconciler."""

    def __init__(self, store: Store) -> None:
        self._store = store
        builtin = store.registry.builtin
        self._volumes, self._claims = builtin("PersistentVolume"), builtin("PersistentVolumeClaim")
        self._classes, self._pods = builtin("StorageClass"), builtin("Pod")

    def reconcile(self) -> None:
        """Look at everything and do what is missing, once; changes made here wake it again."""
        claims = self._store.objects(self._claims)
        if claims:
            used = {name for pod in self._store.objects(self._pods) for name in _used(pod)}
            for claim in claims:
                self._claim(claim, _key(claim) in used)
        for volume in self._store.objects(self._volumes):
            self._volume(volume)

    def obstacle(self, pod: Obj) -> str:
        """Return why the scheduler does not place a pod yet; "" if its claims are fine."""
        namespace = pod["metadata"]["namespace"]
        for _, name in _used(pod):
            claim = self._store.find(self._claims, namespace, name)
            if claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            if deleting(claim):
                return f'persistentvolumeclaim "{name}" is being deleted'
            if dig(claim, "status", "phase") == "Lost":
                return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume'
            if dig(claim, "status", "phase") != "Bound" and not self._is_provisioned(claim):
                return "pod has unbound immediate PersistentVolumeClaims"
        return ""

    # --- claims ----------------------------------------------------------------------------------

    def _claim(self, claim: Obj, used: bool) -> None:
        if deleting(claim):
            if not used:
                self._release(claim)
            return
        bound = dig(claim, "status", "phase") == "Bound"
        if name := dig(claim, "spec", "volumeName"):
            volume = self._store.find(self._volumes, "", name)
            if volume is None and bound:
                self._store.set_status(self._claims, claim, {**claim["status"], "phase": "Lost"})
            elif volume and not bound and self._fits(volume, claim):
                self._bind(volume, claim)
            return
        claim = self._with_class(claim)
        waits = dig(self._class(claim), "volumeBindingMode") == "WaitForFirstConsumer"
        if (used or not waits) and (volume := self._match(claim)):
            self._bind(volume, claim)

    def _with_class(self, claim: Obj) -> Obj:
        """Give a claim that names no class the default one, if there is one."""
        if dig(claim, "spec", "storageClassName") is not None:
            return claim
        for each in self._store.objects(self._classes):
            if (each["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true":
                spec = {**claim["spec"], "storageClassName": each["metadata"]["name"]}
                return self._store.modify(self._claims, claim, {**claim, "spec": spec})
        return claim

    def _class(self, claim: Obj) -> Obj | None:
        name = dig(claim, "spec", "storageClassName")
        return self._store.find(self._classes, "", name) if name else None

    def _is_provisioned(self, claim: Obj) -> bool:
        """Whether a driver would provide its volume."""
        found = self._class(claim)
        named = bool(dig(claim, "spec", "volumeName"))
        return found is not None and found["provisioner"] != _STATIC and not named

    def _match(self, claim: Obj) -> Obj | None:
        """Return the smallest volume that fits, one that is reserved for the claim first."""
        fitting = [v for v in self._store.objects(self._volumes) if self._fits(v, claim)]

        def order(volume: Obj) -> tuple[bool, object]:
            return not dig(volume, "spec", "claimRef"), amount(_size(volume))

        return min(fitting, key=order, default=None)

    def _fits(self, volume: Obj, claim: Obj) -> bool:
        spec, wanted = volume["spec"], claim["spec"]
        reserved = spec.get("claimRef")
        free = dig(volume, "status", "phase") in ("Pending", "Available") and not deleting(volume)
        if not free or (reserved and not _is_for(reserved, claim)):
            return False
        asked = amount(dig(wanted, "resources", "requests", "storage"))
        has = amount(_size(volume))
        return (
            (spec.get("storageClassName") or "") == (wanted.get("storageClassName") or "")
            and set(wanted["accessModes"]) <= set(spec["accessModes"])
            and spec.get("volumeMode") == wanted.get("volumeMode")
            and asked is not None
            and has is not None
            and has >= asked
            and selects(wanted.get("selector") or {}, labels(volume))
        )

    def _bind(self, volume: Obj, claim: Obj) -> None:
        about, name = claim["metadata"], volume["metadata"]["name"]
        reference = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            **{key: about[key] for key in ("namespace", "name", "uid", "resourceVersion")},
        }
        spec = {**volume["spec"], "claimRef": reference}
        volume = self._store.modify(self._volumes, volume, {**volume, "spec": spec})
        self._store.set_status(self._volumes, volume, {**volume["status"], "phase": "Bound"})
        claim = with_metadata(claim, annotations={**(about.get("annotations") or {}), **_BOUND})
        claim = {**claim, "spec": {**claim["spec"], "volumeName": name}}
        claim = self._store.modify(self._claims, claim, claim)
        status = {
            "phase": "Bound",
            "accessModes": volume["spec"]["accessModes"],
            "capacity": {"storage": _size(volume)},
        }
        self._store.set_status(self._claims, claim, status)

    # --- volumes ---------------------------------------------------------------------------------

    def _volume(self, volume: Obj) -> None:
        phase, reference = dig(volume, "status", "phase"), dig(volume, "spec", "claimRef") or {}
        if phase == "Bound":
            where = reference.get("namespace", ""), reference.get("name", "")
            claim = self._store.find(self._claims, *where)
            if claim is None or claim["metadata"]["uid"] != reference.get("uid"):
                self._reclaim(volume)
        elif deleting(volume):
            self._release(volume)
        elif phase == "Pending" or (phase == "Released" and not reference):
            self._store.set_status(
                self._volumes, volume, {**volume["status"], "phase": "Available"}
            )

    def _reclaim(self, volume: Obj) -> None:
        self._store.set_status(self._volumes, volume, {**volume["status"], "phase": "Released"})
        if dig(volume, "spec", "persistentVolumeReclaimPolicy") == "Delete" and not deleting(
            volume
        ):
            self._store.delete(self._volumes, "", volume["metadata"]["name"])

    def _release(self, obj: Obj) -> None:
        """Let an object go that nobody uses."""
        held = obj["metadata"].get("finalizers") or []
        left = [each for each in held if each != PROTECTION[obj["kind"]]]
        resource = self._claims if obj["kind"] == self._claims.kind else self._volumes
        if left != held:
            self._store.modify(resource, obj, with_metadata(obj, finalizers=left or None))


def _key(claim: Obj) -> tuple[str, str]:
    return claim["metadata"]["namespace"], claim["metadata"]["name"]


def _used(pod: Obj) -> Iterator[tuple[str, str]]:
    """Yield the claims that a pod uses until it is over."""
    for volume in () if is_over(pod) else pod["spec"].get("volumes") or ():
        if name := dig(volume, "persistentVolumeClaim", "claimName"):
            yield pod["metadata"]["namespace"], name


def _is_for(reference: Obj, claim: Obj) -> bool:
    """Whether a volume is reserved for a claim: by name, and by uid where that is given."""
    names = reference.get("namespace"), reference.get("name")
    return names == _key(claim) and reference.get("uid") in (None, claim["metadata"]["uid"])


def _size(volume: Obj) -> object:
    return dig(volume, "spec", "capacity", "storage")
