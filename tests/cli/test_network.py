"""A company's network: all connections use a proxy with a password and a private CA."""

from __future__ import annotations

import base64
import gzip
import http.client
import http.server
import io
import json
import ssl
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hyperpod_eks.config.lifecycle import IN_CHECKOUT
from hyperpod_eks.helm import chart, runner
from hyperpod_eks.local import CHART
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.local.tls import Pki, make_pki
from tests.conftest import User, at_work
from tests.proxy import Proxy, proxy

REGION = "us-west-2"
AWS = f"api.{REGION}.amazonaws.com"
CLUSTERS = f"gr7.{REGION}.eks.amazonaws.com"
CODE = "codeload.github.com"


class Front(http.server.BaseHTTPRequestHandler):
    """An HTTPS server that forwards to the stack or to Kubernetes, and answers for GitHub."""

    protocol_version = "HTTP/1.1"
    intercepts = False
    """Whether connections to Kubernetes end here, with a certificate of the company."""
    stack: Stack
    archive: bytes

    def answer(self) -> None:
        if self.headers["Host"] == CODE:
            return self.give(200, [], self.archive)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        back = self.behind()
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
        back.request(self.command, self.path, body, headers)
        got = back.getresponse()
        content = got.read()
        back.close()
        return self.give(got.status, got.getheaders(), content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer  # noqa: N815  names of the base class

    def behind(self) -> http.client.HTTPConnection:
        if port := self.stack.sim.hosts.get(self.headers["Host"].lower()):
            unverified = ssl._create_unverified_context()
            return http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=unverified)
        place = urlsplit(self.stack.endpoint)
        return http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)

    def give(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def archive() -> bytes:
    """Return the packaged chart in an archive like GitHub's of AWS's repository."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(CHART, f"repository-0123abc/{IN_CHECKOUT}")
    return gzip.compress(packed.getvalue())


@contextmanager
def serving(context: ssl.SSLContext, handler: type[Front]) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def company(stack: Stack, pki: Pki) -> Iterator[Proxy]:
    """Run the proxy: it connects to a Kubernetes API by host name, and otherwise to `Front`."""
    handler: Any = type("Handler", (Front,), {"stack": stack, "archive": archive()})
    with serving(pki.server_context(), handler) as port:

        def lead(host: str) -> int:
            return port if handler.intercepts else stack.sim.hosts.get(host.lower(), port)

        with proxy("user:p@ss", lead) as one:
            yield one


@pytest.fixture
def office(
    one_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[User, Proxy]]:
    """A user in a company: AWS, GitHub and Kubernetes are reachable only through the proxy."""
    pki = make_pki((AWS, CODE, f"*.{CLUSTERS}"))
    (tmp_path / "ca.pem").write_bytes(pki.ca_pem)
    digest = chart.digest(CHART)
    pin = chart.Pin(f"https://{CODE}/aws/sagemaker-hyperpod-cli/tar.gz/0", digest)
    monkeypatch.setattr(chart, "PINNED", pin)
    with company(one_stack, pki) as one, at_work(one_stack, tmp_path) as somebody:
        one_stack.sim.host_names = True
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://{AWS}")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", one_stack.endpoint)  # host names have buckets
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        monkeypatch.setenv("HTTPS_PROXY", f"user:p%40ss@127.0.0.1:{one.port}")
        yield somebody, one


def test_a_whole_life_behind_a_proxy_with_a_password_and_a_private_ca(
    office: tuple[User, Proxy],
) -> None:
    user, one = office
    made = user.types("create", "demo", "-o", "json")
    assert made.code == 0, made.err
    again = user.types("create", "demo", "-o", "json")
    assert (again.code, again.document["changed"]) == (0, False), again.err
    status = user.types("status", "demo", "-o", "json")
    assert status.code == 0, status.err
    gone = user.types("delete", "demo", "--yes")
    assert gone.code == 0, gone.err

    asked = {host.lower() for host, right in one.asked if right}  # in capitals, or in lower case
    kubernetes = {host for host in asked if host.endswith(CLUSTERS)}
    assert asked - kubernetes == {AWS, CODE}
    assert len(kubernetes) == 1
    assert all(right for _, right in one.asked)
    assert [host for host, _ in one.asked].count(CODE) == 1
    for said in (made, again, status, gone):
        assert "p%40ss" not in said.err + said.out
        assert "p@ss" not in said.err + said.out


@pytest.mark.parametrize(("intercepts", "authorities"), [(False, 1), (True, 2)])
def test_helm_gets_the_bundle_only_if_a_proxy_intercepts_tls(
    office: tuple[User, Proxy],
    monkeypatch: pytest.MonkeyPatch,
    intercepts: bool,
    authorities: int,
) -> None:
    """It parses all that it gets a dozen times."""
    user, _ = office
    given: list[int] = []
    run = runner._run

    def count(command: Sequence[str], *rest: Any) -> Any:
        config = json.loads(Path(command[command.index("--kubeconfig") + 1]).read_text())
        coded = config["clusters"][0]["cluster"]["certificate-authority-data"]
        given.append(base64.b64decode(coded).count(b"BEGIN CERTIFICATE"))
        return run(command, *rest)

    monkeypatch.setattr(Front, "intercepts", intercepts)
    monkeypatch.setattr(runner, "_run", count)

    made = user.types("create", "demo", "-o", "json")

    assert made.code == 0, made.err
    assert given == [authorities]


@pytest.mark.parametrize("missing", ["AWS_CA_BUNDLE", "password"])
def test_what_would_stop_the_chart_is_told_before_the_first_change(
    office: tuple[User, Proxy], monkeypatch: pytest.MonkeyPatch, one_stack: Stack, missing: str
) -> None:
    user, one = office
    monkeypatch.setenv("AWS_ENDPOINT_URL", one_stack.endpoint)  # AWS is reachable, GitHub is not
    if missing == "password":
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{one.port}")
    else:
        monkeypatch.delenv("AWS_CA_BUNDLE")
    user.mutations()

    said = user.types("create", "demo", "-o", "json")

    assert said.code == 3, said.err
    assert "chart-download: AWS's HyperPod chart cannot be downloaded" in said.err
    assert ("HTTPS_PROXY" if missing == "password" else "AWS_CA_BUNDLE") in said.err
    assert "--skip chart-download" in said.err
    cause = "proxy" if missing == "password" else "chart-not-fetched"
    assert cause in [each["id"] for each in said.document["error"]["causes"]]
    assert user.mutations() == []
    assert 1 <= len(one.asked) <= 2  # by the early download, and by the check itself
