"""Images are copied between registries as they are, and nothing is given to strangers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.aws.registry import Image, Registry, copy, docker_login, parse
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.local.aws.server import Server

KIND = "application/vnd.oci.image.manifest.v1+json"
IMAGE = Image("registry.test", "team/app", "v1", "")


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Host:
    """A registry on loopback, one image in it, which keeps all requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        """Method, path and Authorization."""
        self.answers: dict[tuple[str, str], list[tuple[str, dict[str, str], bytes]]] = {}
        """What is answered first, by method and path."""
        self.content: dict[str, bytes] = {}
        """By the end of a path."""
        self.taken: dict[str, bytes] = {}
        self.server = Server(self)
        self.url = self.server.url

    def holds(self) -> str:
        """Put the image in, without a media type in its manifest; return its digest."""
        config, layer = b"{}", b"the layer" * 300_000
        for each in (config, layer):
            self.content[digest(each)] = each
        described = [{"digest": digest(each), "size": len(each)} for each in (config, layer)]
        manifest = {"schemaVersion": 2, "config": described[0], "layers": described[1:]}
        self.content["v1"] = content = json.dumps(manifest, indent=3).encode()
        return digest(content)

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        self.asked.append((method, path, environ.get("HTTP_AUTHORIZATION", "")))
        end, headers = path.rpartition("/")[2], {"Content-Type": KIND}
        if ready := self.answers.get((method, path)):
            status, headers, content = ready.pop(0)
        elif method in ("GET", "HEAD"):
            content = self.content.get(end, b"")
            status = "200 OK" if end in self.content else "404 Not Found"
            headers["Docker-Content-Digest"] = digest(content)
        elif method == "PUT" and "manifests" in path:
            self.content[end], status, content = body, "201 Created", b""
        elif method == "PUT":
            name = environ["QUERY_STRING"].rpartition("=")[2].replace("%3A", ":")
            self.content[name], status, content = self.taken.pop(end), "201 Created", b""
        else:
            at = path if method == "PATCH" else f"{path}one"
            self.taken[at.rpartition("/")[2]], status, content = body, "202 Accepted", b""
            headers["Location"] = at
        headers["Content-Length"] = str(len(content))
        start(status, list(headers.items()))
        return [] if method == "HEAD" else [content]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Host, Host]]:
    monkeypatch.setattr("hyperpod_eks.aws.registry.PAUSE", 0.0)
    both = Host(), Host()
    yield both
    for each in both:
        each.server.stop()


def copied(origin: Host, target: Host, login: str = "") -> bool:
    source, into = (
        Registry("registry.test", None, origin.url, login),
        Registry("ecr", None, target.url),
    )
    try:
        return copy(IMAGE, source, "demo/app", into)
    finally:
        source.close()
        into.close()


def test_a_copy_has_every_byte_and_what_is_there_is_not_sent_again(
    hosts: tuple[Host, Host],
) -> None:
    origin, target = hosts
    whole = origin.holds()
    layer = json.loads(origin.content["v1"])["layers"][0]["digest"]
    target.content[layer] = origin.content[layer]  # of a copy that was interrupted

    assert copied(origin, target)

    assert digest(target.content["v1"]) == whole
    assert target.content.items() >= origin.content.items()
    assert ("GET", f"/v2/team/app/blobs/{layer}", "") not in origin.asked
    assert not copied(origin, target)


def test_a_login_and_a_token_are_shown_to_their_registry_alone(hosts: tuple[Host, Host]) -> None:
    origin, target = hosts
    origin.holds()
    manifest, (layer,) = "/v2/team/app/manifests/v1", json.loads(origin.content["v1"])["layers"]
    challenge = f'Bearer realm="{origin.url}/token",service="registry.test"'
    origin.answers["GET", manifest] = [("401 No", {"WWW-Authenticate": challenge}, b"")]
    origin.answers["GET", "/token"] = [("200 OK", {}, b'{"token": "the-token-of-today"}')]
    blob = f"/v2/team/app/blobs/{layer['digest']}"
    elsewhere = {"Location": f"{target.url}/cdn/{layer['digest']}"}
    origin.answers["GET", blob] = [("307 Elsewhere", elsewhere, b"")]
    target.answers["GET", f"/cdn/{layer['digest']}"] = [
        ("200 OK", {}, origin.content[layer["digest"]])
    ]

    assert copied(origin, target, login="dXNlcjpwYXNzd29yZA==")

    assert ("GET", "/token", "Basic dXNlcjpwYXNzd29yZA==") in origin.asked
    assert ("GET", blob, "Bearer the-token-of-today") in origin.asked
    assert ("GET", f"/cdn/{layer['digest']}", "") in target.asked
    assert {each for _, _, each in target.asked} == {""}


def test_other_content_is_refused_before_it_is_complete(hosts: tuple[Host, Host]) -> None:
    origin, target = hosts
    origin.holds()
    (layer,) = json.loads(origin.content["v1"])["layers"]
    origin.content[layer["digest"]] = b"another one" * 300_000
    with pytest.raises(HyperpodError, match="other content"):
        copied(origin, target)
    assert not {"v1", layer["digest"]} & target.content.keys()


@pytest.mark.parametrize(
    ("status", "times", "words"),
    [
        ("429 Too Many Requests", 1, "docker login registry.test"),
        ("403 Forbidden", 1, "docker login registry.test"),
        ("404 Not Found", 1, "registry.test/team/app:v1 cannot be copied"),
        ("503 Unavailable", 3, "registry.test answers 503 Unavailable"),
        ("503 Unavailable", 2, ""),
    ],
)
def test_what_a_registry_refuses_is_said(
    hosts: tuple[Host, Host], status: str, times: int, words: str
) -> None:
    origin, target = hosts
    origin.holds()
    origin.answers["GET", "/v2/team/app/manifests/v1"] = [(status, {}, b"")] * times
    if not words:  # it has passed
        assert copied(origin, target)
        return
    with pytest.raises(HyperpodError) as refused:
        copied(origin, target)
    assert words in f"{refused.value} {refused.value.hint}"
    assert refused.value.cause
    assert refused.value.cause.id == "image-not-copied"


@pytest.mark.parametrize(
    "manifest", [b"<html>", b"[]", b'{"layers": [{"digest": "md5:1"}]}', b"{}"]
)
def test_a_manifest_that_is_none_is_refused(hosts: tuple[Host, Host], manifest: bytes) -> None:
    origin, target = hosts
    path = "/v2/team/app/manifests/v1"
    origin.answers["GET", path] = [("200 OK", {"Content-Type": "text/html"}, manifest)]
    with pytest.raises(HyperpodError, match="cannot be copied"):
        copied(origin, target)
    assert target.content == {}


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("busybox:1.36", "docker.io/library/busybox", "1.36"),
        ("docker.io/busybox", "docker.io/library/busybox", "latest"),
        ("nvcr.io/nvidia/k8s/plugin:v1", "nvcr.io/nvidia/k8s/plugin", "v1"),
        ("localhost/a/b:c", "localhost/a/b", "c"),
        ("127.0.0.1:5000/a:b", "127.0.0.1:5000/a", "b"),
        (f"quay.io/a/b:v1@sha256:{'a' * 64}", "quay.io/a/b", f"sha256:{'a' * 64}"),
    ],
)
def test_references_are_read_as_docker_reads_them(text: str, name: str, version: str) -> None:
    found = parse(text)
    assert found
    assert (found.name, found.version) == (name, version)


def test_logins_of_docker_are_used(tmp_path: Path) -> None:
    hub = {"https://index.docker.io/v1/": {"auth": "YTpi"}, "quay.io": {}, "nvcr.io": None}
    (tmp_path / "config.json").write_text(json.dumps({"auths": hub}))
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    assert docker_login("docker.io", environ) == "YTpi"
    assert [docker_login(each, environ) for each in ("quay.io", "nvcr.io", "x.io")] == [""] * 3
    (tmp_path / "config.json").write_text("[]")
    assert docker_login("docker.io", environ) == ""
