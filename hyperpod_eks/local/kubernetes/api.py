"""One request in, one answer out: what the server says, apart from how it is transported."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from . import cel, discovery, errors, failures, policies, protobuf, table, websocket, workloads
from .errors import ApiError, Cause
from .objects import Obj, dig
from .resources import REVIEWS, SELF_REVIEWS, Resource
from .selection import predicate
from .store import Store, Write, apply_patch

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it exists
_PATCHES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
ADDON_MANAGER = "eks-addon-manager"
"""The user agent of EKS's manager of add-ons, which keeps the lock of AWS during its requests."""
_PUBLIC = ("/healthz", "/livez", "/readyz", "/version")
_OPTIONS = {"POST": "Create", "PUT": "Update", "PATCH": "Patch", "DELETE": "Delete"}
_SCALE_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
_MAX_WATCH = 1800.0  # seconds
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True)
class Grant:
    """What a user may do; the default is everything.

    ``namespaces`` are the only ones, where there are any; ``clusterwide`` kinds are those without a
    namespace; ``groups`` are the only API groups, where there are any; ``hidden`` are resources
    (``secrets``) and API groups that are left out.
    """

    writes: bool = True
    clusterwide: bool = True
    namespaces: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def covers(self, verb: str, group: str, plural: str, namespace: str) -> bool:
        """Say whether a verb is granted; an empty namespace is all of them, or none at all."""
        return (
            (self.writes or verb in ("get", "list", "watch"))
            and (namespace in self.namespaces if self.namespaces else True)
            and (not self.groups or group in self.groups)
            and plural not in self.hidden
            and group not in self.hidden
        )


@dataclass(frozen=True)
class Identity:
    """Who a token belongs to, and what that user may do: all, nothing, or what ``grants`` say."""

    username: str
    groups: tuple[str, ...] = ("system:authenticated",)
    allowed: bool = True
    grants: tuple[Grant, ...] = ()

    def may(self, verb: str, resource: Resource, namespace: str, name: str) -> bool:
        """Say whether a request is allowed; a Namespace counts as a thing in itself (RBAC)."""
        within = name if resource.kind == "Namespace" else namespace
        alone = not resource.namespaced and resource.kind != "Namespace"
        return self.allowed and any(
            (grant.clusterwide or not alone)
            and grant.covers(verb, resource.group, resource.plural, within)
            for grant in self.grants or (Grant(),)
        )


@dataclass
class Fault:
    """An error for the next `times` requests whose method and path match: regular expressions.

    `path` is searched in the path with its query, `method` must match whole.
    """

    status: int
    reason: str
    message: str
    method: str = ".*"
    path: str = ""
    times: int = 1
    field: str = ""
    """The field that the refusal names, in `details.causes`."""

    def hits(self, method: str, path: str) -> bool:
        """Whether this request fails; uses up one of `times`."""
        hit = self.times > 0 and re.fullmatch(self.method, method) and re.search(self.path, path)
        self.times -= bool(hit)
        return bool(hit)


@dataclass(frozen=True)
class Request:
    """An HTTP request."""

    method: str
    target: str
    headers: Message
    body: bytes

    @property
    def path(self) -> str:
        """The path without query and without a slash at its end (the Python client sends one)."""
        return urlsplit(self.target).path.rstrip("/") or "/"

    @property
    def query(self) -> dict[str, str]:
        """The last value of every query parameter."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def values(self, name: str) -> list[str]:
        """Return every value of a query parameter."""
        return [v for k, v in parse_qsl(urlsplit(self.target).query) if k == name]

    def accepts(self, what: str) -> bool:
        """Whether the Accept header mentions this."""
        return what in self.headers.get("Accept", "").replace(" ", "")

    def takes_objects(self) -> bool:
        """Whether the Accept header, if any, has a type in which objects are sent."""
        clauses = self.headers.get("Accept", "").split(",")
        kinds = {clause.partition(";")[0].strip() for clause in clauses}
        return bool(kinds & {"", "*/*", "application/*", "application/json", "application/yaml"})

    def metadata_kind(self) -> str:
        """What the first clause of the Accept header asks for, if it is metadata alone: "", or
        PartialObjectMetadata, or PartialObjectMetadataList.
        """
        first = self.headers.get("Accept", "").partition(",")[0].replace(" ", "")
        kind = next((part[3:] for part in first.split(";") if part.startswith("as=")), "")
        return kind if kind.startswith("PartialObjectMetadata") else ""

    def content_type(self) -> str:
        """The media type of the body."""
        return self.headers.get("Content-Type", "application/json").partition(";")[0]

    def content(self) -> Any:
        """The body as data, None if empty. Raises ApiError 400 or 415."""
        if not self.body:
            return None
        kind = self.content_type()
        try:
            if kind == protobuf.MEDIA_TYPE:
                return protobuf.decode(self.body)
            if kind.endswith("yaml") and not self.body.startswith(b"{"):
                return yaml.load(self.body, _LOADER)  # noqa: S506 - a safe loader
            if kind in ("application/json", "application/yaml", *_PATCHES):
                return json.loads(self.body)
        except (ValueError, yaml.YAMLError) as error:
            raise errors.bad_request(f"the object provided is unrecognized: {error}") from None
        message = "415: Unsupported Media Type"
        raise ApiError(415, "UnsupportedMediaType", message, {})


@dataclass(frozen=True)
class Answer:
    """What goes back: a status, and JSON data or text; or a stream of JSON documents."""

    status: int
    content: Any = None
    content_type: str = "application/json"
    warnings: tuple[str, ...] = ()
    """Each becomes a Warning header."""
    stream: Iterator[Obj | None] | None = None
    """Documents as they come; None means that nothing happened and the client may have gone."""
    frames: Iterator[bytes] | None = None
    """Those of a WebSocket, to which the connection is upgraded."""

    def encoded(self) -> bytes:
        """The body."""
        if isinstance(self.content, bytes):
            return self.content
        if isinstance(self.content, str):
            return self.content.encode()
        return json.dumps(self.content, separators=(",", ":")).encode()


@dataclass(frozen=True)
class _Target:
    """What a path below a group version points at; name and sub-resource may be ""."""

    resource: Resource
    namespace: str
    name: str
    subresource: str
    user: Identity = Identity("")


class Api:
    """The API of one cluster: who may ask, what exists, and the verbs."""

    def __init__(
        self,
        store: Store,
        version: str,
        authenticate: Callable[[str], Identity | None],
        afterwards: Callable[[], None] = lambda: None,
        failing: failures.Failing = failures.nothing,
    ) -> None:
        """``afterwards`` is called without a lock after each request but the add-on manager's."""
        self.faults: list[Fault] = []
        self._afterwards = afterwards
        self._failing = failing
        self._store = store
        self.version = discovery.version_document(version)
        self._authenticate = authenticate

    def answer(self, request: Request) -> Answer:
        """Answer a request; refusals are answers, too."""
        try:
            answer = self._answer(request)
            if request.headers.get("User-Agent") != ADDON_MANAGER:
                self._afterwards()
            return answer
        except ApiError as error:
            return Answer(error.code, error.document())
        except RecursionError:  # the real server stops at 10,000 levels of JSON
            deep = errors.bad_request("the object provided is nested too deep")
            return Answer(deep.code, deep.document())

    def _answer(self, request: Request) -> Answer:
        for fault in self.faults:
            if fault.hits(request.method, request.target):
                causes = [Cause(fault.field, fault.message).document()] if fault.field else []
                told = {"causes": causes} if causes else None
                raise ApiError(fault.status, fault.reason, fault.message, told)
        path = request.path
        if path in _PUBLIC:
            return Answer(200, self.version) if path == "/version" else _text(200, "ok")
        user = self._user(request)
        if request.method == "GET" and (found := self._describe(request)):
            return found
        target = self._target(path)
        if target is None:
            return _text(404, "404 page not found\n")
        kind = target.resource.kind
        if kind not in SELF_REVIEWS and not user.may(
            _verb(request, target), target.resource, target.namespace, target.name
        ):
            raise _forbidden(request, target, user)
        if kind in REVIEWS:
            return self._review(request, kind, user)
        return self._dispatch(request, replace(target, user=user))

    def _user(self, request: Request) -> Identity:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            user = self._authenticate(token.strip()) if scheme.lower() == "bearer" else None
        except ValueError:  # it is no presigned URL
            user = None
        if user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    def _review(self, request: Request, kind: str, user: Identity) -> Answer:
        """Answer a question about a user. Any user that is known here may do all or nothing."""
        if request.method != "POST":
            raise errors.not_allowed()
        body = request.content() or {}
        spec = body.get("spec") or {}
        named = [f"{what}Attributes" for what in ("nonResource", "resource")]
        if kind.endswith("AccessReview") and sum(bool(spec.get(name)) for name in named) != 1:
            message = (
                "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes "
                "must be specified"
            )
            cause = errors.Cause("spec.resourceAttributes", message)
            raise errors.invalid("authorization.k8s.io", kind, "", [cause])
        someone = spec.get("user") or spec.get("groups")
        if kind in ("SubjectAccessReview", "LocalSubjectAccessReview") and not someone:
            message = 'Invalid value: "": at least one of user or group must be specified'
            raise errors.invalid(
                "authorization.k8s.io", kind, "", [errors.Cause("spec.user", message)]
            )
        every: Obj = {"verbs": ["*"]} if user.allowed else {"verbs": ["create"]}
        status: Obj
        match kind:
            case "SelfSubjectAccessReview":
                status = {"allowed": self._asks(user, spec)}
            case "SelfSubjectReview":
                status = {"userInfo": {"username": user.username, "groups": user.groups}}
            case "SelfSubjectRulesReview":
                mine = ["authorization.k8s.io"], list(REVIEWS)
                groups, resources = (["*"], ["*"]) if user.allowed else mine
                status = {
                    "resourceRules": [{**every, "apiGroups": groups, "resources": resources}],
                    "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": list(_PUBLIC)}],
                    "incomplete": False,
                }
                if user.allowed:
                    status["nonResourceRules"] = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
            case "TokenReview":
                status = self._token_status(str(spec.get("token") or ""))
            case _:
                same = spec.get("user") == user.username
                status = {"allowed": same or "system:masters" in (spec.get("groups") or ())}
        return Answer(201, {"metadata": {}, **body, "status": status})

    def _asks(self, user: Identity, spec: Obj) -> bool:
        """Say what a SelfSubjectAccessReview asks; `kubectl auth can-i` does."""
        wish = spec.get("resourceAttributes") or {}
        group, plural = wish.get("group") or "", wish.get("resource") or ""
        known = (r for r in self._store.registry if (r.group, r.plural) == (group, plural))
        resource = next(known, None)
        if resource is None or not user.grants:
            return user.allowed
        return user.may(
            wish.get("verb") or "get", resource, wish.get("namespace") or "", wish.get("name") or ""
        )

    def _token_status(self, token: str) -> Obj:
        try:
            found = self._authenticate(token) if token else None
        except ValueError:
            found = None
        if found is None:
            return {"user": {}, "error": "[invalid bearer token]"}
        user = {"username": found.username, "groups": found.groups}
        return {"authenticated": True, "user": user}

    def _describe(self, request: Request) -> Answer | None:
        """Discovery, which every authenticated user may read."""
        aggregated = request.accepts("as=APIGroupDiscoveryList") and request.accepts("v=v2;")
        found = discovery.answer(
            self._store.registry,
            request.path,
            aggregated=aggregated,
            version=self.version["gitVersion"],
        )
        if found is None:
            return None
        if request.path == "/openapi/v2" and request.accepts("protobuf"):
            # kubectl reads whatever comes as protobuf, so that JSON would be broken protobuf.
            title, version = found["info"]["title"], found["info"]["version"]
            return Answer(200, protobuf.openapi(title, version), protobuf.OPENAPI_TYPE)
        if found.get("kind") == "APIGroupDiscoveryList":
            return Answer(200, found, discovery.AGGREGATED_TYPE)
        return Answer(200, found)

    def _target(self, path: str) -> _Target | None:
        """Read a path. Raises ApiError 404 if its group version has no such resource."""
        match [unquote(part) for part in path.strip("/").split("/")]:
            case ["api", version, *rest] if rest:
                group = ""
            case ["apis", group, version, *rest] if rest:
                pass
            case _:
                return None
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource, *more = (*rest, "", "")
        registry = self._store.registry
        resource = registry.find(group, version, plural)
        if resource is None and version not in registry.versions().get(group, ()):
            return None
        known = resource and subresource in ("", *resource.subresources) and not any(more)
        if not resource or not known:
            raise errors.unknown_resource()
        return _Target(resource, namespace, name, subresource)

    def _dispatch(self, request: Request, target: _Target) -> Answer:
        if target.subresource not in ("exec", "log") and not request.takes_objects():
            message = (
                "only the following media types are accepted: application/json, application/yaml, "
                f"{protobuf.MEDIA_TYPE}"
            )
            raise ApiError(406, "NotAcceptable", message, {})
        if request.method == "GET" and request.query.get("watch") in ("1", "true"):
            return self._watch(request, target)
        special = {
            "eviction": {"POST": self._evict},
            "exec": dict.fromkeys(("GET", "POST"), self._exec),
            "finalize": {"PUT": self._finalize},
            "log": {"GET": self._log},
            "scale": dict.fromkeys(("GET", "PUT", "PATCH"), self._scale),
            "token": {"POST": self._token},
        }
        if target.subresource in special:
            if request.method not in special[target.subresource]:
                raise errors.not_allowed()
            return special[target.subresource][request.method](request, target)
        verbs = {
            ("GET", False): self._list,
            ("GET", True): self._get,
            ("POST", False): self._create,
            ("PUT", True): self._update,
            ("PATCH", True): self._patch,
            ("DELETE", False): self._delete_collection,
            ("DELETE", True): self._delete,
        }
        verb = verbs.get((request.method, bool(target.name)))
        if verb is None:
            raise errors.not_allowed()
        answer = verb(request, target)
        if target.resource.definition and isinstance(answer.content, dict):
            answer = replace(answer, content=_in_version(answer.content, target.resource))
        if (kind := request.metadata_kind()) and isinstance(answer.content, dict):
            return replace(answer, content=_metadata_only(answer.content, kind))
        return answer

    # --- reading ---------------------------------------------------------------------------------

    def _get(self, request: Request, target: _Target) -> Answer:
        obj = self._store.get(target.resource, target.namespace, target.name)
        if request.accepts("as=Table"):
            version = obj["metadata"]["resourceVersion"]
            return Answer(200, table.render(target.resource, [obj], self._now(), version))
        return Answer(200, obj)

    def _list(self, request: Request, target: _Target) -> Answer:
        resource = target.resource
        objects, version = self._selected(request, target)
        objects, more = _page(request.query, objects, version)
        if request.accepts("as=Table"):
            return Answer(200, table.render(resource, objects, self._now(), version, more))
        if not resource.definition:  # only the items of custom resources repeat their kind
            skipped = ("kind", "apiVersion")
            objects = [{k: v for k, v in o.items() if k not in skipped} for o in objects]
        return Answer(200, _list_of(resource, objects, version, more))

    def _selected(self, request: Request, target: _Target) -> tuple[list[Obj], str]:
        query = request.query
        _check_numbers(query)
        selected = predicate(
            target.resource, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        with self._store.lock:
            objects = self._store.objects(target.resource, target.namespace)
            version = str(self._store.version)
        return [obj for obj in objects if selected(obj)], version

    def _watch(self, request: Request, target: _Target) -> Answer:
        query, as_table = request.query, request.accepts("as=Table")
        if (kind := request.metadata_kind()) == "PartialObjectMetadataList":
            raise _not_acceptable(kind, "an event")
        names = f"metadata.name={target.name}" if target.name else ""
        fields = ",".join(filter(None, (query.get("fieldSelector", ""), names)))
        selected = predicate(target.resource, query.get("labelSelector", ""), fields)
        _check_numbers(query)

        def documents() -> Iterator[Obj | None]:
            for event in self._changes(request, target, selected):
                if event and as_table and event["type"] not in ("BOOKMARK", "ERROR"):
                    obj, version = event["object"], event["object"]["metadata"]["resourceVersion"]
                    rendered = table.render(target.resource, [obj], self._now(), version)
                    yield {**event, "object": rendered}
                elif event and kind and event["type"] != "ERROR":
                    yield {**event, "object": _metadata_only(event["object"], kind)}
                else:
                    yield event

        return Answer(200, stream=documents())

    def _changes(
        self, request: Request, target: _Target, selected: Callable[[Obj], bool]
    ) -> Iterator[Obj | None]:
        """The watch events: what is there, unless the client knows; a bookmark; what happens."""
        query, resource = request.query, target.resource
        since = query.get("resourceVersion") or "0"
        initial = query.get("sendInitialEvents") == "true"
        if initial or since == "0":
            objects, since = self._selected(request, target)
            for obj in filter(selected, objects):
                yield {"type": "ADDED", "object": obj}
        elif int(since) < self._store.oldest():
            gone = ApiError(410, "Expired", f"too old resource version: {since}")
            yield {"type": "ERROR", "object": gone.document()}
            return
        if initial:
            metadata = {
                "resourceVersion": since,
                "annotations": {"k8s.io/initial-events-end": "true"},
            }
            kind = {"kind": resource.kind, "apiVersion": resource.group_version}
            yield {"type": "BOOKMARK", "object": {**kind, "metadata": metadata}}

        def seen(obj: Obj | None) -> bool:
            here = obj is not None and target.namespace in ("", obj["metadata"].get("namespace"))
            return here and obj is not None and selected(obj)

        until = time.monotonic() + float(query.get("timeoutSeconds") or _MAX_WATCH)
        for event in self._store.events(resource, int(since), until):
            if event is None:
                yield None
                continue
            before, after = seen(event.before), event.type != "DELETED" and seen(event.obj)
            if after:
                yield {"type": "MODIFIED" if before else "ADDED", "object": event.obj}
            elif before:
                yield {"type": "DELETED", "object": event.obj}

    # --- writing ---------------------------------------------------------------------------------

    def _create(self, request: Request, target: _Target) -> Answer:
        self._needs_namespace(target)
        body, how = request.content(), _write(request, target)
        return _written(201, self._store.create(target.resource, target.namespace, body, how), how)

    def _update(self, request: Request, target: _Target) -> Answer:
        body, how = request.content(), _write(request, target)
        name = (body.get("metadata") or {}).get("name") if isinstance(body, dict) else None
        if name != target.name:
            raise errors.misnamed(name, target.name)
        return _written(200, self._store.update(target.resource, target.namespace, body, how), how)

    def _patch(self, request: Request, target: _Target) -> Answer:
        kind, body = _PATCHES.get(request.content_type()), request.content()
        if kind is None or (kind == "strategic" and target.resource.definition):
            raise ApiError(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: "
                "application/json-patch+json, application/merge-patch+json, "
                "application/apply-patch+yaml",
            )
        if kind == "apply" and not request.query.get("fieldManager"):
            cause = errors.Cause(
                "fieldManager", "Required value: is required for apply patch", "FieldValueRequired"
            )
            raise errors.invalid("meta.k8s.io", "PatchOptions", "", [cause])
        how = _write(request, target)
        obj, created = self._store.patch(
            target.resource, target.namespace, target.name, kind, body, how
        )
        return _written(201 if created else 200, obj, how)

    def _delete(self, request: Request, target: _Target) -> Answer:
        resource, name = target.resource, target.name
        options, how = _delete_options(request), _write(request, target)
        obj, gone = self._store.delete(resource, target.namespace, name, options, how)
        warnings = tuple(how.warnings or ())
        if not gone or resource.kind == "Pod":
            return Answer(200, obj, warnings=warnings)
        told = {**errors.details(resource, name), "uid": obj["metadata"]["uid"]}
        return Answer(200, {**_SUCCESS, "details": told}, warnings=warnings)

    def _delete_collection(self, request: Request, target: _Target) -> Answer:
        self._needs_namespace(target)
        options, how = _delete_options(request), _write(request, target)
        objects, version = self._selected(request, target)
        for obj in objects:
            metadata = obj["metadata"]
            if self._store.find(target.resource, metadata.get("namespace", ""), metadata["name"]):
                where = metadata.get("namespace", ""), metadata["name"]
                self._store.delete(target.resource, *where, options, how)
        told = tuple(how.warnings or ())
        return Answer(200, _list_of(target.resource, objects, version), warnings=told)

    # --- sub-resources ---------------------------------------------------------------------------

    def _log(self, request: Request, target: _Target) -> Answer:
        pod = self._store.get(target.resource, target.namespace, target.name)
        failures.reach(pod, self._failing)
        return _text(200, workloads.log(pod, request.query, self._failing))

    def _exec(self, request: Request, target: _Target) -> Answer:
        """Run a command in a container, on a WebSocket: SPDY is not spoken here."""
        pod = self._store.get(target.resource, target.namespace, target.name)
        failures.reach(pod, self._failing)
        query = request.query
        out, err, code = workloads.execute(
            pod, query.get("container", ""), request.values("command")
        )
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise errors.bad_request("Upgrade request required")
        if not websocket.chosen(request.headers.get("Sec-WebSocket-Protocol", "")):
            raise errors.bad_request(f"no known sub-protocol; known: {websocket.PROTOCOLS}")
        wanted = [
            (channel, text)
            for channel, name, text in (
                (websocket.STDOUT, "stdout", out),
                (websocket.STDERR, "stderr", err),
            )
            if query.get(name) in ("1", "true")
        ]
        return Answer(101, frames=websocket.frames(wanted, code))

    def _scale(self, request: Request, target: _Target) -> Answer:
        """autoscaling/v1 Scale: a view of `spec.replicas`, which may be written through it."""
        where = target.resource, target.namespace, target.name
        how = _write(request, target)._replace(subresource="", validation="")
        with self._store.lock:
            live = self._store.get(*where)
            if request.method == "GET":
                return Answer(200, _scale_of(live))
            body = request.content()
            if request.method == "PATCH":
                kind = _PATCHES.get(request.content_type(), "apply")
                body = apply_patch(kind, _scale_of(live), body)
            replicas = dig(body, "spec", "replicas") or 0
            seen = dig(body, "metadata", "resourceVersion")
            if seen and seen != live["metadata"]["resourceVersion"]:
                raise errors.modified(target.resource, target.name)
            if not isinstance(replicas, int) or replicas < 0:
                message = (
                    f"Invalid value: {json.dumps(replicas)}: must be greater than or equal to 0"
                )
                cause = errors.Cause("spec.replicas", message)
                raise errors.invalid("autoscaling", "Scale", target.name, [cause])
            patch = {"spec": {"replicas": replicas}}
            changed, _ = self._store.patch(*where, "merge", patch, how)
        return Answer(200, _scale_of(changed))

    def _evict(self, request: Request, target: _Target) -> Answer:
        """Delete a pod. Budgets are not asked: their status is not kept here."""
        asked = request.content() or {}
        if (asked.get("metadata") or {}).get("name", target.name) != target.name:
            raise errors.bad_request("name in URL does not match name in Eviction object")
        options = asked.get("deleteOptions") or {}
        dry = {"dryRun": ["All"]} if "dryRun" in request.query else {}
        self._store.delete(target.resource, target.namespace, target.name, {**options, **dry})
        return Answer(201, {**_SUCCESS, "code": 201})

    def _finalize(self, request: Request, target: _Target) -> Answer:
        """Replace a namespace's own finalizers, which is how a stuck one is let go."""
        with self._store.lock:
            live = self._store.get(target.resource, "", target.name)
            finalizers = dig(request.content(), "spec", "finalizers") or []
            spec = {**live["spec"], "finalizers": finalizers}
            return Answer(200, self._store.modify(target.resource, live, {**live, "spec": spec}))

    def _token(self, request: Request, target: _Target) -> Answer:
        """A token for a ServiceAccount. Nobody here takes it: only IAM's users come in."""
        account = self._store.get(target.resource, target.namespace, target.name)
        spec = {"expirationSeconds": 3600, **((request.content() or {}).get("spec") or {})}
        if spec["expirationSeconds"] < 600:
            message = "Invalid value: may not specify a duration less than 10 minutes"
            cause = errors.Cause("spec.expirationSeconds", message)
            raise errors.invalid("authentication.k8s.io", "TokenRequest", target.name, [cause])
        end = self._now() + timedelta(seconds=spec["expirationSeconds"])
        status = {
            "token": f"simulated.{account['metadata']['uid']}",
            "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        kind = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"}
        return Answer(
            201, {**kind, "metadata": {"name": target.name}, "spec": spec, "status": status}
        )

    def _needs_namespace(self, target: _Target) -> None:
        if target.resource.namespaced and not target.namespace:
            raise errors.not_allowed()

    def _now(self) -> datetime:
        return self._store.clock.now()


def _text(status: int, text: str) -> Answer:
    return Answer(status, text, "text/plain; charset=utf-8")


def _written(status: int, obj: Obj, how: Write) -> Answer:
    told = [*(how.warnings or ()), *cel.not_evaluated(obj), *policies.not_evaluated(obj)]
    return Answer(status, obj, warnings=tuple(told))


_SUCCESS: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def _in_version(content: Obj, resource: Resource) -> Obj:
    """Return custom resources in the version that was asked for: conversion strategy None."""
    if content.get("kind") == resource.kind:
        return {**content, "apiVersion": resource.group_version}
    if content.get("kind") == f"{resource.kind}List":
        items = [{**each, "apiVersion": resource.group_version} for each in content["items"]]
        return {**content, "items": items}
    return content


def _list_of(resource: Resource, objects: list[Obj], version: str, more: Obj | None = None) -> Obj:
    kind = {"kind": f"{resource.kind}List", "apiVersion": resource.group_version}
    always = {"continue": ""} if resource.definition else {}
    metadata = {**always, "resourceVersion": version, **(more or {})}
    return {**kind, "metadata": metadata, "items": objects}


def _check_numbers(query: dict[str, str]) -> None:
    match = query.get("resourceVersionMatch")
    if match and (not query.get("resourceVersion") or match not in ("Exact", "NotOlderThan")):
        message = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        if query.get("resourceVersion"):
            message = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"'
        cause = errors.Cause("resourceVersionMatch", message, "FieldValueForbidden")
        raise errors.invalid("meta.k8s.io", "ListOptions", "", [cause])
    for name in ("resourceVersion", "timeoutSeconds", "limit"):
        if not re.fullmatch("[0-9]{1,18}", query.get(name) or "0"):
            raise errors.bad_request(f'{name}: Invalid value: "{query[name]}": is not a number')


def _page(query: dict[str, str], objects: list[Obj], version: str) -> tuple[list[Obj], Obj | None]:
    """At most `limit` of the objects, and the list metadata that says how to go on.

    The token has the form of k8s.io/apiserver pkg/storage/continue.go. A page shows what is there
    when it is asked for, where the real server shows what was there at the first.
    """

    def place(obj: Obj) -> list[str]:
        return [obj["metadata"].get("namespace", ""), obj["metadata"]["name"]]

    if token := query.get("continue"):
        try:
            start = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))["start"]
            after = start.split("/", 1)
            objects = [obj for obj in objects if place(obj) > after]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise errors.bad_request("continue key is not valid: illegal base64 data") from None
    limit = int(query.get("limit") or 0)
    if not 0 < limit < len(objects):
        return objects, None
    start = "/".join(place(objects[limit - 1]))
    content = {"v": "meta.k8s.io/v1", "rv": int(version), "start": start}
    raw = json.dumps(content, separators=(",", ":")).encode()
    told = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    return objects[:limit], {"continue": told, "remainingItemCount": len(objects) - limit}


def _scale_of(obj: Obj) -> Obj:
    metadata = {k: v for k, v in obj["metadata"].items() if k in _SCALE_METADATA}
    wanted = (dig(obj, "spec", "selector", "matchLabels") or {}).items()
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": obj["spec"].get("replicas", 1)},
        "status": {
            "replicas": dig(obj, "status", "replicas") or 0,
            "selector": ",".join(f"{key}={value}" for key, value in sorted(wanted)),
        },
    }


_PARTIAL: Obj = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}


def _metadata_only(content: Obj, kind: str) -> Obj:
    """Reduce an answer to metadata, as a server does that is asked for PartialObjectMetadata(List).

    An empty list has `"items": null`: the real handler appends to a nil slice
    (k8s.io/apiserver pkg/endpoints/handlers/response.go, asPartialObjectMetadataList).  There, too,
    a list in place of an object, or the other way round, is not acceptable, and a Status is sent
    as it is.
    """
    if content.get("kind") in ("Status", "Table"):
        return content
    items = content.get("items")
    is_list = isinstance(items, list) and str(content.get("kind", "")).endswith("List")
    if is_list is not (kind == "PartialObjectMetadataList"):
        raise _not_acceptable(kind, "a list" if is_list else "not a list")
    if not isinstance(items, list):
        return {**_PARTIAL, "metadata": content["metadata"]}
    partial = [{**_PARTIAL, "metadata": each["metadata"]} for each in items]
    return {
        "kind": kind,
        "apiVersion": "meta.k8s.io/v1",
        "metadata": content["metadata"],
        "items": partial or None,
    }


def _not_acceptable(kind: str, found: str) -> ApiError:
    message = f"you requested {kind}, but the requested object is {found}"
    return ApiError(406, "NotAcceptable", message, {})


def _verb(request: Request, target: _Target) -> str:
    verb = _VERBS.get(request.method) or request.method.lower()
    if target.subresource == "exec":  # however it is asked for (KEP-5592)
        return "create"
    if not target.name:
        verb = {"get": "list", "delete": "deletecollection"}.get(verb, verb)
    return verb


def _forbidden(request: Request, target: _Target, user: Identity) -> ApiError:
    verb = _verb(request, target)
    resource, namespace = target.resource, target.namespace
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    name = f' "{target.name}"' if target.name else ""
    asked = "/".join(filter(None, (resource.plural, target.subresource)))
    return ApiError(
        403,
        "Forbidden",
        f'{resource.qualified}{name} is forbidden: User "{user.username}" cannot {verb} resource '
        f'"{asked}" in API group "{resource.group}" {where}',
        errors.details(resource, target.name),
    )


def _write(request: Request, target: _Target) -> Write:
    query = request.query
    agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        message = f'Unsupported value: "{validation}": supported values: "Ignore", "Strict", "Warn"'
        cause = errors.Cause("fieldValidation", message, "FieldValueNotSupported")
        raise errors.invalid("meta.k8s.io", f"{_OPTIONS[request.method]}Options", "", [cause])
    return Write(
        manager=query.get("fieldManager") or agent,
        subresource=target.subresource,
        dry_run="dryRun" in query,
        force=query.get("force") == "true",
        validation=validation,
        warnings=[],
        user=(target.user.username, target.user.groups),
    )


def _delete_options(request: Request) -> Obj:
    query, body = request.query, request.content() or {}
    named = ("propagationPolicy", "dryRun")
    options = {**{name: query[name] for name in named if name in query}, **body}
    policy, message = options.get("propagationPolicy"), ""
    if policy and options.get("orphanDependents") is not None:
        told = "orphanDependents and deletionPropagation cannot be both set"
        message = f'Invalid value: "{policy}": {told}'
    elif policy and policy not in ("Foreground", "Background", "Orphan"):
        known = '"Background", "Foreground", "Orphan", "nil"'
        message = f'Unsupported value: "{policy}": supported values: {known}'
    if message:
        cause = errors.Cause("propagationPolicy", message)
        raise errors.invalid("meta.k8s.io", "DeleteOptions", "", [cause])
    return options
