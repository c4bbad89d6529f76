"""Amazon ECR: moto's repositories, and the registry behind them.

The registry speaks as much of the OCI Distribution Specification 1.1 as a push and a pull need.  As
ECR's, it takes a push only with a login and into a repository that exists, keeps the blobs of each
repository apart, and moves no tag of an immutable repository (ECR User Guide, "Private registry
authentication", "Pushing a Docker image", "Preventing image tags from being overwritten").

Images of other registries have names that begin with `UPSTREAM` and their host.  They are made up:
an index of two platforms each, and equal for equal names.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import moto.ecr.urls
from moto.core.responses import ActionResult
from moto.ecr.models import ECRBackend, ecr_backends
from moto.ecr.responses import ECRResponse

from hyperpod_eks.local import UPSTREAM
from hyperpod_eks.local.aws import plugin
from hyperpod_eks.local.aws.sim import ACCOUNT, current

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PREFIX = "/v2/"
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<what>manifests|blobs)/(?P<which>[^/]+|uploads/[^/]*)")


class Reply(NamedTuple):
    """An answer of the registry."""

    status: str
    content: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Backend(ECRBackend):
    """The repositories of a region, and what was pushed into them."""

    _url_module = plugin.url_module("ecr")

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.blobs: dict[tuple[str, str], bytes] = {}
        """By repository and digest."""
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        """Media type and content by repository and digest."""
        self.tags: dict[tuple[str, str], str] = {}
        """Digests by repository and tag."""
        self.uploads: dict[str, bytes] = {}

    def delete_repository(
        self, repository_name: str, registry_id: str | None = None, force: bool = False
    ) -> Any:
        """Delete a repository with what was pushed into it."""
        gone = super().delete_repository(repository_name, registry_id, force)
        for kept in (self.blobs, self.manifests, self.tags):
            for key in [key for key in kept if key[0] == repository_name]:
                del kept[key]
        return gone

    # -- the registry

    def answer(self, method: str, path: str, query: str, kind: str, body: bytes) -> Reply:
        """Answer a request for a repository, as the specification has it."""
        found = _PATH.fullmatch(path)
        if not found:
            return Reply("200 OK") if path == PREFIX else Reply("404 Not Found")
        name, what, which = found.groups()
        if name.startswith(UPSTREAM):
            self._make_up(name, which)
        elif name not in self.repositories:
            words = f"The repository with name '{name}' does not exist in the registry"
            return _error("404 Not Found", "NAME_UNKNOWN", f"{words} with id '{ACCOUNT}'")
        if what == "blobs":
            return self._blob(method, name, which, query, body)
        if method == "PUT":
            return self._put(name, which, kind, body)
        digest = which if ":" in which else self.tags.get((name, which), "")
        if (name, digest) not in self.manifests:
            return _error("404 Not Found", "MANIFEST_UNKNOWN", "Requested image not found")
        kind, content = self.manifests[name, digest]
        return _content(content, kind, digest, method)

    def _blob(self, method: str, name: str, which: str, query: str, body: bytes) -> Reply:
        if method in ("GET", "HEAD"):
            if (name, which) not in self.blobs:
                return _error("404 Not Found", "BLOB_UNKNOWN", "blob unknown to registry")
            return _content(self.blobs[name, which], "application/octet-stream", which, method)
        upload = which.removeprefix("uploads/") or str(uuid.uuid4())
        at = (("Location", f"/v2/{name}/blobs/uploads/{upload}"),)
        if method in ("POST", "PATCH"):
            self.uploads[upload] = self.uploads.get(upload, b"") + body
            return Reply("202 Accepted", headers=at)
        content = self.uploads.pop(upload, b"") + body
        if query.replace("%3A", ":") != f"digest={digest_of(content)}":
            return _error("400 Bad Request", "DIGEST_INVALID", "provided digest did not match")
        self.blobs[name, digest_of(content)] = content
        return Reply("201 Created", headers=at)

    def _put(self, name: str, which: str, kind: str, body: bytes) -> Reply:
        document, digest = json.loads(body), digest_of(body)
        parts = [document.get("config"), *document.get("layers", ())]
        for each in filter(None, parts):
            if (name, each["digest"]) not in self.blobs:
                return _error("400 Bad Request", "BLOB_UNKNOWN", f"no layer {each['digest']}")
        for each in document.get("manifests", ()):
            if (name, each["digest"]) not in self.manifests:
                return _error("404 Not Found", "MANIFEST_UNKNOWN", f"no image {each['digest']}")
        tag = "" if ":" in which else which
        moves = bool(tag) and self.tags.get((name, tag), digest) != digest
        if moves and self.repositories[name].is_tag_immutable():
            words = f"The image tag '{tag}' already exists in the '{name}' repository"
            return _error("400 Bad Request", "TAG_INVALID", f"{words} and cannot be overwritten")
        if (name, digest) not in self.manifests or (tag and (name, tag) not in self.tags):
            self.put_image(name, body.decode(), tag or None, kind, digest)  # type: ignore[arg-type]
        self.manifests[name, digest] = kind, body
        if tag:
            self.tags[name, tag] = digest
        return Reply("201 Created", headers=(("Docker-Content-Digest", digest),))

    def _make_up(self, name: str, which: str) -> None:
        """Make an image of another registry up."""
        if ":" in which or (name, which) in self.tags or "/" in which:
            return
        listed = []
        for architecture in ("amd64", "arm64"):
            layer = f"the layer of {name}:{which} for {architecture}".encode()
            about = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers"}}
            parts = []
            for kind, content in ((_CONFIG, json.dumps(about).encode()), (_LAYER, layer)):
                self.blobs[name, digest_of(content)] = content
                parts.append(_described(kind, content))
            manifest = {"schemaVersion": 2, "config": parts[0], "layers": parts[1:]}
            content = json.dumps(manifest).encode()
            self.manifests[name, digest_of(content)] = _MANIFEST, content
            platform = {"platform": {"architecture": architecture, "os": "linux"}}
            listed.append(_described(_MANIFEST, content) | platform)
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": listed}
        content = json.dumps(index).encode()
        self.manifests[name, digest_of(content)] = _INDEX, content
        self.tags[name, which] = digest_of(content)


def digest_of(content: bytes) -> str:
    """Return the digest by which content is known."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _described(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(content), "size": len(content)}


def _content(content: bytes, kind: str, digest: str, method: str) -> Reply:
    headers = (("Content-Type", kind), ("Docker-Content-Digest", digest))
    if method == "HEAD":
        return Reply("200 OK", b"", (*headers, ("Content-Length", str(len(content)))))
    return Reply("200 OK", content, headers)


def _error(status: str, code: str, words: str) -> Reply:
    body = json.dumps({"errors": [{"code": code, "message": words}]}).encode()
    return Reply(status, body, (("Content-Type", "application/json"),))


class Response(ECRResponse):
    """moto's answers, with the address of our registry."""

    def get_authorization_token(self) -> ActionResult:
        """Return the login of the account's registry, which is here."""
        token = b64encode(f"AWS:{_password(self.region)}".encode()).decode()
        end = current().clock.now().timestamp() + 12 * 3600
        url = f"http://{self.headers['Host']}"
        row = {"authorizationToken": token, "expiresAt": end, "proxyEndpoint": url}
        return ActionResult({"authorizationData": [row]})


def _password(region: str) -> str:
    return f"the-password-of-{ACCOUNT}-in-{region}"


def registry(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """Answer a request to the registry (PEP 3333); the login says which region's."""
    length, body = environ.get("CONTENT_LENGTH"), b""
    if length or "wsgi.input_terminated" in environ:
        body = environ["wsgi.input"].read(int(length)) if length else environ["wsgi.input"].read()
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    scheme, _, login = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    given = b64decode(login).decode().partition(":")[2] if scheme == "Basic" else ""
    region = given.rpartition("-in-")[2]
    public = path.startswith(PREFIX + UPSTREAM) and method in ("GET", "HEAD")
    sim = current()
    with sim.clock.lock:
        if public or (given and given == _password(region)):
            backend: Any = ecr_backends[ACCOUNT][region or sim.region]
            kind = environ.get("CONTENT_TYPE", "")
            reply = backend.answer(method, path, environ.get("QUERY_STRING", ""), kind, body)
        else:
            challenge = (("WWW-Authenticate", 'Basic realm="local",service="ecr.amazonaws.com"'),)
            reply = Reply("401 Unauthorized", b"Not Authorized", challenge)
    content = b"" if method == "HEAD" else reply.content
    headers = dict(reply.headers)
    headers.setdefault("Content-Length", str(len(content)))
    start(reply.status, list(headers.items()))
    return [content]


def inventory(account: str, region: str) -> dict[str, Any]:
    """Return the repositories, with the digests of their tags."""
    backend: Any = ecr_backends[account][region]
    return {
        "Repositories": {
            name: {
                "tagMutability": each.image_tag_mutability,
                "tags": backend.tagger.get_tag_dict_for_resource(each.arn),
                "images": {tag: digest for (of, tag), digest in backend.tags.items() if of == name},
            }
            for name, each in backend.repositories.items()
        }
    }


def install() -> None:
    """Put our classes into moto's tables."""
    plugin.backend(ecr_backends, Backend)
    moto.ecr.urls.url_paths["{0}/$"] = Response.dispatch
