"""The objects of a cluster, and all that can happen to one: create, change, delete, watch."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from typing import Any, NamedTuple

from . import admission, apply, errors, patch, policies, schema
from .clock import Clock, timestamp
from .objects import Obj, clone, deleting, owner_uids, with_metadata
from .resources import Registry, Resource

_FIRST_VERSION = 1000
# The newest, for watches: 10 kB each where nodes come and go. etcd forgets after 5 minutes, but of
# simulated ones there are thousands in a second.
_KEPT_EVENTS = 5_000
# Plugin NamespaceLifecycle of kube-apiserver.
_IMMORTAL = ("default", "kube-public", "kube-system")
SERVICES = "172.20.0.0/16"  # what EKS has where a VPC has addresses in 10.0.0.0/8
# Set by the server alone; what a client sends is ignored.
_SERVER_SET = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
# Finalizers of the server's own, which its controllers take away.
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


class Event(NamedTuple):
    """One change: ADDED, MODIFIED or DELETED, the object after it and, if any, before it."""

    version: int
    type: str
    resource: Resource
    obj: Obj
    before: Obj | None


class Write(NamedTuple):
    """How a client wants a write done."""

    manager: str = ""
    """The field manager; "" keeps no record of who owns the fields."""
    subresource: str = ""
    dry_run: bool = False
    force: bool = False
    validation: str = ""
    """Ignore, Warn or Strict; "" trusts the writer, who is one of the stack's own parts."""
    warnings: list[str] | None = None
    """What the client is warned of is added here."""
    user: tuple[str, tuple[str, ...]] = ("", ())
    """The client's name and groups."""


_QUIETLY = Write()

OBSERVERS: list[Callable[[Event], None]] = []
"""They listen to every store that this process creates from now on."""


class Store:
    """All objects of one cluster.

    An object that has been stored is never changed in place, so readers may keep it without a
    copy and need the lock only to find it. `listeners` are called inside the lock after every
    change, and may change more.
    """

    def __init__(self, registry: Registry, clock: Clock, services: str = SERVICES) -> None:
        self.registry = registry
        self.services = IPv4Network(services)
        """The addresses of Services."""
        self.clock = clock
        self.lock = threading.RLock()
        self.version = _FIRST_VERSION
        self.listeners: list[Callable[[Event], None]] = [*OBSERVERS]
        self.webhooks: list[Callable[[Resource, Obj], Obj]] = []
        """What changes an object before it is created (mutating admission webhooks)."""
        self._changed = threading.Condition(self.lock)
        self._closed = False
        self._events: deque[Event] = deque(maxlen=_KEPT_EVENTS)
        # (group, plural) -> (namespace, name) -> object
        self._objects: dict[tuple[str, str], dict[tuple[str, str], Obj]] = {}
        self.uids: set[str] = set()
        """The uids of all objects."""

    # --- reading ---------------------------------------------------------------------------------

    def find(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        """The object, or None."""
        with self.lock:
            return self._all(resource).get((namespace if resource.namespaced else "", name))

    def get(self, resource: Resource, namespace: str, name: str) -> Obj:
        """The object. Raises ApiError 404."""
        found = self.find(resource, namespace, name)
        if found is None:
            raise errors.not_found(resource, name)
        return found

    def objects(self, resource: Resource, namespace: str = "") -> list[Obj]:
        """The objects of one namespace, or of all, by namespace and name."""
        with self.lock:
            found = sorted(self._all(resource).items())
        return [obj for (where, _), obj in found if namespace in ("", where)]

    def everything(self) -> Iterator[tuple[Resource, Obj]]:
        """Every object once, with its resource."""
        seen = set()
        for resource in self.registry:
            if (resource.group, resource.plural) not in seen:
                seen.add((resource.group, resource.plural))
                for obj in self.objects(resource):
                    yield resource, obj

    def events(self, resource: Resource, since: int, until: float) -> Iterator[Event | None]:
        """Changes after version `since` as they come, until time.monotonic() is `until`.

        Yields None at least every second, so that the reader can see whether it still wants more.
        Ends when changes were forgotten before they were told: the next watch from there is 410.
        """
        while time.monotonic() < until:
            with self.lock:
                if self.version <= since and not self._closed:
                    self._changed.wait(min(1.0, until - time.monotonic()))
                if self._closed or since < self.oldest():
                    return
                batch = self._since(since)
                since = self.version
            yield None
            yield from (e for e in batch if _same(e.resource, resource))

    def oldest(self) -> int:
        """The version from which on changes can still be told."""
        with self.lock:
            full = len(self._events) == _KEPT_EVENTS
            return self._events[0].version - 1 if full else _FIRST_VERSION

    def close(self) -> None:
        """End every `events`."""
        with self.lock:
            self._closed = True
            self._changed.notify_all()

    def _all(self, resource: Resource) -> dict[tuple[str, str], Obj]:
        return self._objects.setdefault((resource.group, resource.plural), {})

    def _since(self, version: int) -> list[Event]:
        newest_first = []
        for event in reversed(self._events):
            if event.version <= version:
                break
            newest_first.append(event)
        return newest_first[::-1]

    # --- writing ---------------------------------------------------------------------------------

    def create(self, resource: Resource, namespace: str, body: Obj, how: Write = _QUIETLY) -> Obj:
        """Store a new object. Raises ApiError 400, 403 (namespace ends), 404, 409 or 422."""
        with self.lock:
            obj = self._addressed(resource, namespace, body)
            metadata = obj["metadata"]
            if not metadata.get("name") and metadata.get("generateName"):
                metadata["name"] = f"{metadata['generateName']}{self.version + 1:05x}"
            obj = self._read(resource, obj, how)
            metadata = obj["metadata"]
            admission.check(resource, obj, namespace, None, whole=bool(how.validation))
            self._check_namespace(resource, namespace, metadata["name"])
            if self.find(resource, namespace, metadata["name"]):
                raise errors.already_exists(resource, metadata["name"])
            obj = admission.fill(resource, obj, self.services, new=True)
            for webhook in self.webhooks:
                obj = webhook(resource, obj)
            if how.manager and not metadata.get("managedFields"):
                manager = self._manager(resource, how, "Update")
                obj = apply.track_update(None, obj, manager, _merge_keys(resource))
            metadata = obj["metadata"]
            for name in _SERVER_SET:
                metadata.pop(name, None)
            metadata["uid"] = str(uuid.uuid4())
            metadata["creationTimestamp"] = timestamp(self.clock)
            if admission.has_generation(resource):
                metadata["generation"] = 1
            if resource.kind == "Job" and not resource.definition:
                admission.claim_pods(obj)
            if how.validation:
                policies.check(self, resource, "CREATE", obj, None, how)
            return obj if how.dry_run else self._commit("ADDED", resource, obj, None)

    def update(self, resource: Resource, namespace: str, body: Obj, how: Write = _QUIETLY) -> Obj:
        """Replace an object (PUT), or its status. Raises ApiError 400, 404, 409 or 422."""
        with self.lock:
            body = self._addressed(resource, namespace, body)
            live = self.get(resource, namespace, body["metadata"]["name"])
            body = self._read(resource, body, how)
            admission.check(resource, body, namespace, None)
            return self._replace(resource, live, body, how)

    def patch(
        self, resource: Resource, namespace: str, name: str, kind: str, body: Any, how: Write
    ) -> tuple[Obj, bool]:
        """Change an object by a patch of `kind` json, merge, strategic or apply.

        Returns the object and whether apply created it. Raises ApiError 400, 404, 409 or 422.
        """
        with self.lock:
            live = self.find(resource, namespace, name)
            if kind == "apply":
                applied = self._addressed(resource, namespace, body)
                applied["metadata"].setdefault("name", name)
                self._check_place(resource, namespace, name, applied)
                return self._apply(resource, namespace, live, applied, how)
            if live is None:
                raise errors.not_found(resource, name)
            new = clone(apply_patch(kind, live, body))
            self._check_place(resource, namespace, name, new)
            new = self._read(resource, new, how, patch=body)
            return self._replace(resource, live, new, how), False

    def set_status(self, resource: Resource, live: Obj, status: Obj) -> None:
        """Write a status as a controller does: quietly if nothing changed."""
        if live.get("status") != status:
            with self.lock:
                self._commit("MODIFIED", resource, {**live, "status": status}, live)

    def modify(self, resource: Resource, live: Obj, new: Obj) -> Obj:
        """Write an object as a controller does, without asking the rules of its kind."""
        with self.lock:
            return self._settled(resource, self._commit("MODIFIED", resource, new, live))

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        options: Obj | None = None,
        how: Write = _QUIETLY,
    ) -> tuple[Obj, bool]:
        """Delete an object, or mark it so if finalizers hold it. `options` are DeleteOptions.

        Returns the object and whether it is gone. Raises ApiError 404, 409 if a precondition
        does not hold, or what a policy answers.
        """
        options = options or {}
        with self.lock:
            live = self.get(resource, namespace, name)
            _check_preconditions(live, options.get("preconditions") or {})
            if resource.kind == "Namespace" and name in _IMMORTAL:
                raise errors.immortal(name)
            if how.validation:
                policies.check(self, resource, "DELETE", None, live, how)
            if options.get("dryRun"):
                return live, True
            doomed = self._doomed(resource, live, options.get("propagationPolicy"))
            if not _finalizers(doomed):
                return self._purge(resource, live), True
            if deleting(live):
                return live, False
            graceless = resource.kind in ("Namespace", "CustomResourceDefinition")
            grace = None if graceless else options.get("gracePeriodSeconds", 0)
            doomed = with_metadata(
                doomed,
                deletionTimestamp=timestamp(self.clock),
                deletionGracePeriodSeconds=grace,
            )
            return self._commit("MODIFIED", resource, doomed, live), False

    def dependents(self, uid: str) -> list[tuple[Resource, Obj]]:
        """The objects owned by the one with this uid."""
        return [(r, o) for r, o in self.everything() if uid in owner_uids(o)]

    def _addressed(self, resource: Resource, namespace: str, body: Any) -> Obj:
        """A copy of a body with kind and place filled in."""
        if not isinstance(body, dict) or not isinstance(body.get("metadata", {}), dict):
            raise errors.bad_request("the body of the request is not a Kubernetes object")
        body = clone(body)
        given: Obj = {k: body.pop(k) for k in ("kind", "apiVersion") if k in body}
        obj = {"kind": resource.kind, "apiVersion": resource.group_version, **given, **body}
        metadata = obj["metadata"] = dict(body.get("metadata") or {})
        if resource.namespaced:
            metadata.setdefault("namespace", namespace)
        else:
            metadata.pop("namespace", None)
        return obj

    def _read(self, resource: Resource, obj: Obj, how: Write, patch: Any = None) -> Obj:
        """What a client sent, without unknown fields. Raises ApiError 400, or 422 for a `patch`."""
        kind = obj["kind"]
        if not how.validation or kind != resource.kind:
            return obj
        reading = schema.read(resource, obj)
        unknown = [f'unknown field "{path}"' for path in reading.unknown]
        told = reading.mistyped.message if reading.mistyped else ""
        if not told and unknown and how.validation == "Strict":
            told = f"strict decoding error: {', '.join(unknown)}"
        if told and patch is not None:
            message = f"Invalid value: {json.dumps(json.dumps(patch))}: {told}"
            raise errors.invalid("", "", "", [errors.Cause("patch", message)])
        if told:
            version = resource.version
            raise errors.bad_request(
                f'{kind} in version "{version}" cannot be handled as a {kind}: {told}'
            )
        if how.validation == "Warn" and how.warnings is not None:
            how.warnings.extend(unknown)
        return reading.obj

    def _declared(self, resource: Resource, namespace: str, applied: Obj) -> Obj:
        """What a client applies. The real server has no code for this mistake, so it says 500.

        Its source: k8s.io/apimachinery pkg/util/managedfields/internal/structuredmerge.go.
        """
        reading = schema.read(resource, applied, defaults=False)
        told = [f".{path}: field not declared in schema" for path in reading.unknown]
        if reading.mistyped:
            told = [f".{reading.mistyped.path}: {reading.mistyped.message}"]
        if told:
            name, version = applied["metadata"]["name"], resource.version
            kind = f"{resource.group}/{version}, Kind={resource.kind}"
            what = told[0] if len(told) == 1 else "errors:\n  " + "\n  ".join(told)
            message = f"failed to create typed patch object ({namespace}/{name}; {kind}): {what}"
            raise errors.ApiError(500, "", message)
        return reading.obj

    def _check_place(self, resource: Resource, namespace: str, name: str, obj: Obj) -> None:
        """A patch does not move an object."""
        metadata = obj["metadata"]
        if metadata.get("name") != name:
            raise errors.misnamed(metadata.get("name"), name)
        if resource.namespaced and metadata.get("namespace", namespace) != namespace:
            raise errors.bad_request(
                f"the namespace of the object ({metadata['namespace']}) does not match the "
                f"namespace on the URL ({namespace})"
            )

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        if resource.namespaced:
            home = self.get(self.registry.builtin("Namespace"), "", namespace)
            if deleting(home):
                raise errors.terminating(resource, name, namespace)

    def _manager(self, resource: Resource, how: Write, operation: str) -> apply.Manager:
        return apply.Manager(
            how.manager,
            operation,
            resource.group_version,
            how.subresource,
            timestamp(self.clock),
        )

    def _apply(
        self, resource: Resource, namespace: str, live: Obj | None, applied: Obj, how: Write
    ) -> tuple[Obj, bool]:
        admission.check(resource, applied, namespace, None)
        if how.validation:
            applied = self._declared(resource, namespace, applied)
        if "status" in resource.subresources and how.subresource != "status":
            applied.pop("status", None)
        manager = self._manager(resource, how, "Apply")
        keys = _merge_keys(resource)
        new = apply.apply(live, applied, manager, force=how.force, keys=keys)
        if live is None:
            return self.create(resource, namespace, new, how), True
        new = self._read(resource, new, how)
        untracked = how._replace(manager="")
        return self._replace(resource, live, new, untracked), False

    def _replace(self, resource: Resource, live: Obj, new: Obj, how: Write) -> Obj:
        name, metadata = live["metadata"]["name"], new["metadata"]
        seen = metadata.get("resourceVersion")
        if seen and seen != live["metadata"]["resourceVersion"]:
            raise errors.modified(resource, name)
        if metadata.get("uid"):
            _check_preconditions(live, {"uid": metadata["uid"]})
        kept = {k: live["metadata"].get(k) for k in (*_SERVER_SET, "generation")}
        if "managedFields" not in metadata:
            kept["managedFields"] = live["metadata"].get("managedFields")
        if how.subresource == "status":
            new = {**live, "status": new.get("status", {})}
        elif "status" in resource.subresources:
            new = {**new, "status": live.get("status")}
        new = with_metadata(new, **kept)
        if new.get("status") is None:
            new.pop("status", None)
        # The status of a built-in kind may be written whatever the rest is.
        whole = bool(how.validation) and (how.subresource != "status" or bool(resource.definition))
        admission.check(resource, new, live["metadata"].get("namespace", ""), live, whole=whole)
        new = admission.fill(resource, new, self.services, new=False)
        if how.manager:
            manager = self._manager(resource, how, "Update")
            new = apply.track_update(live, new, manager, _merge_keys(resource))
        if _content(new) != _content(live) and admission.has_generation(resource):
            new["metadata"]["generation"] += 1
        if how.validation:
            policies.check(self, resource, "UPDATE", new, live, how)
        if how.dry_run or _same_but_for_bookkeeping(live, new):
            return {**new, "metadata": {**new["metadata"], **_version_of(live)}}
        return self._settled(resource, self._commit("MODIFIED", resource, new, live))

    def _doomed(self, resource: Resource, live: Obj, policy: str | None) -> Obj:
        """What a deletion makes of an object before its finalizers are asked."""
        finalizers = live["metadata"].get("finalizers") or []
        if resource.kind == "Namespace":
            return {**live, "status": {**live["status"], "phase": "Terminating"}}
        if resource.kind == "CustomResourceDefinition" and not deleting(live):
            condition = {
                "type": "Terminating",
                "status": "True",
                "lastTransitionTime": timestamp(self.clock),
                "reason": "InstanceDeletionPending",
                "message": "CustomResourceDefinition marked for deletion; CustomResource deletion "
                "will begin soon",
            }
            conditions = [*(live["status"].get("conditions") or []), condition]
            live = {**live, "status": {**live["status"], "conditions": conditions}}
            return with_metadata(live, finalizers=[*finalizers, CRD_FINALIZER])
        first = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(policy or "")
        if first and not deleting(live) and self.dependents(live["metadata"]["uid"]):
            return with_metadata(live, finalizers=[*finalizers, first])
        return live

    def _settled(self, resource: Resource, obj: Obj) -> Obj:
        """Take an object away whose last finalizer has just gone."""
        if deleting(obj) and not _finalizers(obj):
            self._purge(resource, obj)
        return obj

    def _purge(self, resource: Resource, obj: Obj) -> Obj:
        return self._commit("DELETED", resource, dict(obj), obj)

    def _commit(self, type_: str, resource: Resource, obj: Obj, before: Obj | None) -> Obj:
        self.version += 1
        obj = with_metadata(obj, resourceVersion=str(self.version))
        key = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if type_ == "DELETED":
            if self._all(resource).pop(key, None) is None:
                return obj
            self.uids.discard(obj["metadata"]["uid"])
        else:
            self.uids.add(obj["metadata"]["uid"])
            self._all(resource)[key] = obj
        event = Event(self.version, type_, resource, obj, before)
        self._events.append(event)
        self._changed.notify_all()
        for listener in self.listeners:
            listener(event)
        return obj


_PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "json": patch.json_patch,
    "merge": patch.merge_patch,
    "strategic": patch.strategic_merge,
}


def apply_patch(kind: str, live: Obj, body: Any) -> Obj:
    """What a json, merge or strategic patch makes of an object. Raises ApiError 422."""
    if kind == "json" and not (isinstance(body, list) and all(isinstance(o, dict) for o in body)):
        raise errors.bad_request("error decoding patch: json: cannot unmarshal into Go value")
    try:
        new = _PATCHES[kind](live, body)
    except (KeyError, IndexError, TypeError, ValueError):
        raise errors.rejected() from None
    if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
        raise errors.rejected()
    return new


def _merge_keys(resource: Resource) -> apply.Keys:
    if not resource.definition:
        return apply.by_name

    def of_schema(path: apply.Path, *lists: Any) -> tuple[str, ...] | None:
        if path[:1] == ("metadata",):
            return apply.by_name(path, *lists)
        keys = schema.merge_keys(resource.schema, path)
        items = [item for values in lists for item in values or ()]
        fits = all(isinstance(item, dict) != (keys == ("",)) for item in items)
        return keys if keys and fits else None

    return of_schema


def _same(a: Resource, b: Resource) -> bool:
    return (a.group, a.plural) == (b.group, b.plural)


def _finalizers(obj: Obj) -> list[str]:
    own = obj["metadata"].get("finalizers") or []
    return own + (obj["spec"].get("finalizers") or [] if obj["kind"] == "Namespace" else [])


def _check_preconditions(live: Obj, wanted: Obj) -> None:
    for field, told in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        found = live["metadata"][field]
        if wanted.get(field, found) != found:
            raise errors.ApiError(
                409,
                "Conflict",
                f"Precondition failed: {told} in precondition: {wanted[field]}, "
                f"{told} in object meta: {found}",
            )


def _content(obj: Obj) -> Obj:
    return {k: v for k, v in obj.items() if k not in ("metadata", "status")}


def _version_of(obj: Obj) -> Obj:
    return {"resourceVersion": obj["metadata"]["resourceVersion"]}


def _same_but_for_bookkeeping(live: Obj, new: Obj) -> bool:
    """Whether a write changes nothing but times in `managedFields`: it is then no write."""

    def essence(obj: Obj) -> Obj:
        metadata = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
        entries = [{**m, "time": ""} for m in metadata.get("managedFields") or []]
        # The order of entries and times mean nothing; sorted JSON is a comparable form.
        metadata["managedFields"] = sorted(json.dumps(m, sort_keys=True) for m in entries)
        return {**obj, "metadata": metadata}

    return essence(live) == essence(new)
