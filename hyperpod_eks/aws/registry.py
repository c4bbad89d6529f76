"""Copies container images from one registry to another.

Both speak the OCI Distribution Specification 1.1.  An image is copied whole: the index with the
manifest of every platform, each byte for byte, so that every digest stays the same.  What is there
already is not sent again: a copy that was interrupted continues.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from hyperpod_eks.aws import redaction, transport
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import HyperpodError, KnownCause

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_BLOCK = 1 << 20
"""Bytes of a layer that are in memory."""
_LARGEST = 4 << 20
"""Bytes of a manifest (OCI Distribution Specification, "Pushing manifests")."""
_TRIES = 3
PAUSE = 1.0
"""Seconds before the second try; the next one waits longer."""
_PATIENCE = 300.0
"""Seconds that a registry may take to check a layer."""
_REDIRECTS = (301, 302, 303, 307, 308)
_HOST, _PART = (
    r"(?:localhost|[\w-]+(?:\.[\w-]+)+|[\w-]+(?=:\d))(?::\d+)?",
    r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*",
)
_REFERENCE = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


class Image(NamedTuple):
    """A reference to an image, with what it leaves out."""

    host: str
    repository: str
    tag: str
    digest: str
    """Empty unless the reference has one, which then counts."""

    @property
    def version(self) -> str:
        """What identifies it in its repository."""
        return self.digest or self.tag

    @property
    def name(self) -> str:
        """Host and repository."""
        return f"{self.host}/{self.repository}"


def parse(text: str) -> Image | None:
    """Read a reference as Docker does; None for a text that is none.

    >>> parse("alpine")
    Image(host='docker.io', repository='library/alpine', tag='latest', digest='')
    >>> parse("public.ecr.aws/neuron/device-plugin:2.19").name
    'public.ecr.aws/neuron/device-plugin'
    >>> parse("--flag"), parse("Always")
    (None, None)
    """
    found = _REFERENCE.fullmatch(text)
    if found is None:
        return None
    host, repository = found["host"] or "docker.io", found["repository"]
    if host == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    digest = found["digest"] or ""
    return Image(host, repository, found["tag"] or ("" if digest else "latest"), digest)


@dataclass
class Registry:
    """A registry, and what logs in to it."""

    host: str
    bundle: str | None
    """As of `transport.ca_bundle`."""
    url: str = ""
    """Where it answers, if that is not ``https://HOST``."""
    login: str = ""
    """Base64 of user and password; empty for no login."""
    _pools: dict[str, PoolManager] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.url = self.url or f"https://{_HOSTS.get(self.host, self.host)}"
        redaction.learn(self.login)

    def close(self) -> None:
        """Close its connections."""
        for pool in self._pools.values():
            pool.clear()

    # -- manifests and blobs

    def digest(self, repository: str, version: str) -> str | None:
        """Return the digest of an image; None if there is none."""
        answer = self._ask("HEAD", repository, f"manifests/{version}", headers=_ACCEPT)
        with closing(answer):
            if answer.status == 404:
                return None
            self._require(answer, 200)
            return answer.headers.get("Docker-Content-Digest", "")

    def manifest(self, repository: str, version: str) -> tuple[str, bytes]:
        """Return media type and content of a manifest.  Raises HyperpodError."""
        answer = self._ask("GET", repository, f"manifests/{version}", headers=_ACCEPT)
        with closing(answer):
            self._require(answer, 200)
            content = answer.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise HyperpodError(f"{self.host}: the manifest of {repository} is too large")
        if version.startswith("sha256:") and _digest(content) != version:
            raise HyperpodError(f"{self.host}: {repository}@{version} has another digest")
        return answer.headers.get("Content-Type", "").partition(";")[0], content

    def put_manifest(self, repository: str, version: str, kind: str, content: bytes) -> None:
        """Store a manifest, whose blobs and manifests the repository has."""
        answer = self._ask(
            "PUT", repository, f"manifests/{version}", headers={"Content-Type": kind}, body=content
        )
        with closing(answer):
            self._require(answer, 201)

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether a repository has a blob."""
        answer = self._ask("HEAD", repository, f"blobs/{digest}")
        with closing(answer):
            if answer.status != 404:
                self._require(answer, 200)
            return answer.status == 200

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """Yield a blob.  Raises HyperpodError before the last block of one with another digest."""
        answer = self._ask("GET", repository, f"blobs/{digest}")
        with closing(answer):
            self._require(answer, 200)
            whole, held = hashlib.sha256(), b""
            for block in answer.stream(_BLOCK, decode_content=False):
                whole.update(block)
                if held:
                    yield held
                held = block
        if f"sha256:{whole.hexdigest()}" != digest:
            raise HyperpodError(
                f"{self.host}: the layer {digest} of {repository} has other content"
            )
        yield held

    def put_blob(self, repository: str, digest: str, size: int, blocks: Iterator[bytes]) -> None:
        """Send a blob in one part, as Docker does: POST, PATCH, PUT."""
        begun = self._ask("POST", repository, "blobs/uploads/")
        with closing(begun):
            self._require(begun, 202)
        about = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        sent = self._to("PATCH", self._location(begun), repository, headers=about, body=blocks)
        with closing(sent):
            self._require(sent, 202)
        at = self._location(sent)
        at += ("&" if urlsplit(at).query else "?") + urlencode({"digest": digest})
        done = self._to("PUT", at, repository, headers={"Content-Length": "0"})
        with closing(done):
            self._require(done, 201)

    def _location(self, answer: BaseHTTPResponse) -> str:
        at = urljoin(self.url, answer.headers.get("Location", ""))
        if urlsplit(at)[:2] != urlsplit(self.url)[:2]:
            raise HyperpodError(f"{self.host}: names another host for an upload")
        return at

    def _require(self, answer: BaseHTTPResponse, status: int) -> None:
        """Raise HyperpodError with the registry's words for any other status."""
        if answer.status == status:
            return
        try:
            errors = json.loads(answer.read(10_000)).get("errors") or []
            words = "; ".join(str(each.get("message") or each.get("code")) for each in errors)
        except (ValueError, AttributeError):
            words = ""
        hint = ""
        if answer.status in (401, 403):
            hint = f"If the image needs a login, run `docker login {self.host}` first."
        elif answer.status == 429:
            hint = f"Wait, or run `docker login {self.host}`: pulls without a login are limited."
        raise HyperpodError(
            f"{self.host} answers {answer.status} {words or answer.reason or ''}".rstrip(),
            hint,
            cause=KnownCause("image-not-copied"),
        )

    # -- requests

    def _ask(
        self,
        method: str,
        repository: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> BaseHTTPResponse:
        """Make a request, again after a login, and after a failure that may pass."""
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        url = f"{self.url}/v2/{repository}/{path}"
        for left in reversed(range(_TRIES)):
            try:
                answer = self._to(method, url, repository, headers=headers, body=body)
                if answer.status == 401 and self._logs_in(answer, repository):
                    answer.close()
                    answer = self._to(method, url, repository, headers=headers, body=body)
                if answer.status < 500 or not left:
                    return answer
                answer.close()
            except HTTPError as error:
                final = transport.in_the_way(error, url, _TRIES - left)
                if final or not left:
                    raise final or HyperpodError(f"{self.host} does not answer: {error}") from error
            time.sleep(PAUSE * (_TRIES - left))
        raise AssertionError  # the last try returns or raises

    def _to(
        self,
        method: str,
        url: str,
        repository: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterator[bytes] | None = None,
    ) -> BaseHTTPResponse:
        """Make one request, and follow redirects of reads; another host gets no login."""
        from urllib3 import Timeout  # noqa: PLC0415

        for _ in range(6):
            asked = dict(headers or {})
            if urlsplit(url)[:2] == urlsplit(self.url)[:2]:
                asked |= self._authorization(repository)
            answer = self._pool(url).request(
                method,
                url,
                headers=asked,
                body=body,
                preload_content=False,
                timeout=Timeout(transport.CONNECT, _PATIENCE),
            )
            if answer.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                return answer
            answer.close()
            to = urljoin(url, answer.headers.get("Location", ""))
            if urlsplit(url).scheme == "https" and urlsplit(to).scheme != "https":
                raise HyperpodError(f"{self.host}: redirects to an address without TLS")
            url = to
        raise HyperpodError(f"{self.host}: redirects without end")

    def _pool(self, url: str) -> PoolManager:
        place = urlsplit(url).netloc
        with self._lock:
            if place not in self._pools:
                self._pools[place] = transport.pool_for(url, self.bundle)
            return self._pools[place]

    def _authorization(self, repository: str) -> dict[str, str]:
        if token := self._tokens.get(repository):
            return {"Authorization": f"Bearer {token}"}
        return {"Authorization": f"Basic {self.login}"} if self.login else {}

    def _logs_in(self, answer: BaseHTTPResponse, repository: str) -> bool:
        """Get a token where the registry says; return whether there is a new one.

        Most registries give one to everybody (CNCF Distribution, "Token Authentication
        Specification").
        """
        scheme, _, about = answer.headers.get("WWW-Authenticate", "").partition(" ")
        given = dict(re.findall(r'(\w+)="([^"]*)"', about))
        realm = given.get("realm", "")
        ours = urlsplit(realm)[:2] == urlsplit(self.url)[:2]
        if scheme.lower() != "bearer" or not (ours or urlsplit(realm).scheme == "https"):
            return False
        query = {"scope": f"repository:{repository}:pull"}
        query |= {"service": given["service"]} if "service" in given else {}
        login = {"Authorization": f"Basic {self.login}"} if self.login else {}
        reply = self._pool(realm).request("GET", f"{realm}?{urlencode(query)}", headers=login)
        try:
            found = json.loads(reply.data) if reply.status == 200 else {}
        except ValueError:
            found = {}
        token = found.get("token") or found.get("access_token") if isinstance(found, dict) else ""
        if not isinstance(token, str) or token in ("", self._tokens.get(repository)):
            return False
        redaction.learn(token)
        self._tokens[repository] = token
        return True


_ACCEPT = {"Accept": ", ".join((*_INDEXES, *_MANIFESTS))}
_HOSTS = {"docker.io": "registry-1.docker.io"}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def copy(image: Image, origin: Registry, into: str, target: Registry) -> bool:
    """Copy an image to the repository ``into``; return False if it is there already.

    Raises HyperpodError with what a registry answers.
    """
    if target.digest(into, image.version) is not None:
        return False
    try:
        _copy(image.repository, image.version, origin, into, target)
    except HyperpodError as error:
        raise HyperpodError(
            f"{image.name}:{image.tag} cannot be copied: {error}"
            if image.tag
            else f"{image.name}@{image.digest} cannot be copied: {error}",
            error.hint,
            cause=error.cause or KnownCause("image-not-copied"),
        ) from error
    return True


def _copy(name: str, version: str, origin: Registry, into: str, target: Registry) -> None:
    """Copy a manifest after what it lists, so that one that exists is complete."""
    kind, content = origin.manifest(name, version)
    document: JsonMapping = _read(content)
    kind = str(document.get("mediaType") or kind)
    if kind in _INDEXES:
        for each in _listed(document, "manifests"):
            if target.digest(into, each["digest"]) is None:
                _copy(name, each["digest"], origin, into, target)
    elif kind in _MANIFESTS:
        for each in (*_listed(document, "config"), *_listed(document, "layers")):
            if "foreign" not in str(each.get("mediaType")):  # Windows's, which Microsoft serves
                _copy_blob(name, each, origin, into, target)
    else:
        raise HyperpodError(
            f"{origin.host} has it in an unknown format, {kind or 'without a name'}"
        )
    target.put_manifest(into, version, kind, content)


def _read(content: bytes) -> JsonMapping:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise HyperpodError("its manifest is not JSON")
    return found


def _listed(document: JsonMapping, member: str) -> Sequence[Json]:
    """Return the descriptors in a manifest's member."""
    found = document.get(member) or []
    listed = found if isinstance(found, list) else [found]
    for each in listed:
        digest = each.get("digest") if isinstance(each, dict) else None
        if not isinstance(digest, str) or not re.fullmatch("sha256:[0-9a-f]{64}", digest):
            raise HyperpodError(f"its manifest has {member} without a SHA-256")
    return listed


def _copy_blob(
    name: str, about: JsonMapping, origin: Registry, into: str, target: Registry
) -> None:
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    digest, size = str(about["digest"]), about.get("size")
    if not isinstance(size, int):
        raise HyperpodError("its manifest has a layer without a size")
    for left in reversed(range(_TRIES)):
        if target.has_blob(into, digest):
            return
        try:
            with closing(origin.blob(name, digest)) as blocks:  # type: ignore[type-var]
                target.put_blob(into, digest, size, blocks)
            return
        except HTTPError as error:  # a connection that broke in the middle
            if not left:
                raise HyperpodError(f"the layer {digest} breaks off: {error}") from error
        time.sleep(PAUSE * (_TRIES - left))


def docker_login(host: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the login of Docker's ``config.json`` for a registry; empty for none.

    Logins that only a credential helper knows are not read.
    """
    folder = environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")  # noqa: PTH111  no home
    try:
        found = json.loads((Path(folder) / "config.json").read_bytes())
        auths = found.get("auths") or {}
        key = {"docker.io": "https://index.docker.io/v1/"}.get(host, host)
        return str((auths.get(key) or {}).get("auth") or "")
    except (OSError, ValueError, AttributeError):
        return ""
