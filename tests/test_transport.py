"""All connections use proxies, passwords and certificates like boto3."""

from __future__ import annotations

import base64
import http.server
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.httpsession import where

from hyperpod_eks.aws import answers, transport
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.session import session
from hyperpod_eks.aws.transport import Unreachable
from hyperpod_eks.errors import HyperpodError, KnownCause, Usage
from hyperpod_eks.kube.access import Access, kubeconfig
from hyperpod_eks.kube.client import KubeNotReady
from hyperpod_eks.kube.nodes import list_nodes
from hyperpod_eks.local.tls import Pki, make_pki
from hyperpod_eks.resources import eks
from hyperpod_eks.workers import gather

from .proxy import Proxy, proxy

FAR = "abc.gr7.us-west-2.eks.amazonaws.com"
EVERYWHERE = ("sts.us-west-2.amazonaws.com", "codeload.github.com", FAR)
VARIABLES = (
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
)


class Hello(http.server.BaseHTTPRequestHandler):
    """A server that answers STS with an identity, and other requests with a short text."""

    def do_POST(self) -> None:
        who = "<Arn>arn:aws:iam::123456789012:user/x</Arn><Account>123456789012</Account>"
        self.answer(
            f"<GetCallerIdentityResponse><GetCallerIdentityResult>{who}<UserId>X</UserId>"
            "</GetCallerIdentityResult></GetCallerIdentityResponse>".encode()
        )

    def do_GET(self) -> None:
        self.answer(b"hello")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki((*EVERYWHERE, "127.0.0.1"))


@contextmanager
def answering(pki: Pki) -> Iterator[int]:
    """Run a server with a certificate of an authority; yield its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    server.socket = pki.server_context().wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def far(pki: Pki) -> Iterator[int]:
    """The port of a server with a certificate for every host, from its own authority."""
    with answering(pki) as port:
        yield port


@pytest.fixture(scope="module")
def through(far: int) -> Iterator[Proxy]:
    with proxy("user:p@ss", lambda _: far) as one:
        yield one


@pytest.fixture
def bundle(pki: Pki, tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_text("# Größe: the authority of a company\n" + pki.ca_pem.decode())
    return file


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [*VARIABLES, *(each for each in os.environ if each.startswith("AWS_"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    return monkeypatch


def aws() -> Aws:
    return Aws(session("us-west-2", None), "demo", {})


def chart(bundle: str | None = None) -> bytes:
    with transport.download("https://codeload.github.com/x", bundle) as content:
        return content.read()


def test_a_call_that_ctrl_c_ended_is_not_waited_for(
    clean: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    clean.setattr(answers, "SILENCE", 0.5)
    sts = aws().sts
    sts.meta.events.register("before-send", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sts.get_caller_identity()
    time.sleep(2.5)  # it looks each second
    assert "has not answered" not in caplog.text


@pytest.mark.parametrize("spelling", ["http://user:p%40ss@{}", "user:p%40ss@{}"])
def test_everything_passes_the_proxy_with_its_password(
    through: Proxy, bundle: Path, clean: pytest.MonkeyPatch, spelling: str
) -> None:
    through.asked.clear()
    clean.setenv("HTTPS_PROXY", spelling.format(f"127.0.0.1:{through.port}"))
    clean.setenv("AWS_CA_BUNDLE", str(bundle))

    assert aws().identity.account == "123456789012"
    assert chart(str(bundle)) == b"hello"
    ca = base64.b64encode(transport.certificates(str(bundle)).encode()).decode()
    with pytest.raises(HyperpodError, match="the answer is not a JSON object: b'hello'"):
        list_nodes(Access("demo", f"https://{FAR}", ca, lambda: "t"), "demo")

    assert through.asked == [(host, True) for host in EVERYWHERE[:2]] + [(FAR, True)]


def test_a_refusing_proxy_ends_it_at_once_and_names_the_variable(
    through: Proxy, clean: pytest.MonkeyPatch, pki: Pki
) -> None:
    through.asked.clear()
    clean.setenv("HTTPS_PROXY", f"http://user:wrong@127.0.0.1:{through.port}")
    ca = base64.b64encode(pki.ca_pem).decode()
    calls = (
        lambda: aws().identity,
        chart,
        lambda: list_nodes(Access("demo", f"https://{FAR}", ca, lambda: "t"), "demo"),
    )
    for call in calls:
        with pytest.raises(Unreachable, match=f"proxy 127.0.0.1:{through.port} .* 407 ") as caught:
            call()
        assert "HTTPS_PROXY" in caught.value.hint
        assert "wrong" not in f"{caught.value} {caught.value.hint}"
    assert through.asked == [(host, False) for host in EVERYWHERE]


def test_a_proxy_that_speaks_tls_is_trusted_by_the_bundle(
    bundle: Path, clean: pytest.MonkeyPatch, pki: Pki
) -> None:
    """Its refusal arrives only after its certificate was accepted."""
    clean.setenv("AWS_CA_BUNDLE", str(bundle))
    with proxy("user:p", lambda _: 0, pki.server_context()) as one:
        clean.setenv("HTTPS_PROXY", f"https://user:wrong@127.0.0.1:{one.port}")
        about = {"endpoint": f"https://{FAR}", "certificate_authority": ""}
        calls = (
            lambda: aws().identity,
            lambda: chart(str(bundle)),
            lambda: list_nodes(eks.kube_access(aws(), "demo", about), "demo"),
        )
        for call in calls:
            with pytest.raises(Unreachable, match=f"proxy 127.0.0.1:{one.port} .* 407 "):
                call()
        assert one.asked == [(host, False) for host in EVERYWHERE]


def test_a_certificate_of_a_stranger_ends_it_at_once_and_names_the_variable(
    through: Proxy, clean: pytest.MonkeyPatch
) -> None:
    through.asked.clear()
    clean.setenv("HTTPS_PROXY", f"http://user:p%40ss@127.0.0.1:{through.port}")
    for call in (lambda: aws().identity, chart):
        with pytest.raises(Unreachable, match=r"certificate of .* is not trusted here") as caught:
            call()
        assert "AWS_CA_BUNDLE" in caught.value.hint
    assert len(through.asked) == 2


@pytest.mark.parametrize("where", ["AWS_ENDPOINT_URL", "https_proxy"])
def test_what_speaks_no_tls_ends_it_at_once(clean: pytest.MonkeyPatch, where: str) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    clean.setenv(where, f"https://127.0.0.1:{server.server_address[1]}")
    begun = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        _ = aws().identity
    server.shutdown()
    server.server_close()
    assert time.monotonic() < begun + 5  # not retried
    assert where in caught.value.hint
    assert "http://" in caught.value.hint


def test_a_proxy_that_is_not_there_is_tried_a_few_times(clean: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        clean.setenv("https_proxy", f"http://u:p@{place}")
        with pytest.raises(Unreachable, match=f"proxy {place} cannot reach sts") as caught:
            _ = aws().identity
    assert "https_proxy" in caught.value.hint
    assert caught.value.cause == KnownCause("proxy")


def test_a_proxy_in_trouble_is_worth_another_try(clean: pytest.MonkeyPatch, pki: Pki) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        clean.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.getsockname()[1]}")

        def trouble() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=trouble)
        thread.start()
        ca = base64.b64encode(pki.ca_pem).decode()
        with pytest.raises(KubeNotReady, match="503"):
            list_nodes(Access("demo", f"https://{FAR}", ca, lambda: "t"), "demo")
        thread.join()


@pytest.mark.parametrize("kind", ["socks5", "SOCKS5h", "ftp"])
def test_other_kinds_of_proxies_are_refused_in_words(clean: pytest.MonkeyPatch, kind: str) -> None:
    clean.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    clean.setenv("HTTP_PROXY", f"{kind}://user:secret@127.0.0.1:1080")
    with pytest.raises(Usage, match=f"HTTP_PROXY names a {kind} proxy,"):
        aws()
    clean.delenv("HTTP_PROXY")
    clean.delenv("AWS_ENDPOINT_URL")
    clean.setenv("HTTPS_PROXY", f"{kind}://user:secret@127.0.0.1:1080")
    for call in (lambda: aws().identity, chart):
        with pytest.raises(Usage, match=f"HTTPS_PROXY names a {kind} proxy,") as caught:
            call()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "endpoint"),
    [
        ("HTTPS_PROXY", ""),
        ("https_proxy", "http://127.0.0.1:1"),
        ("HTTP_PROXY", "https://127.0.0.1:1"),
        ("http_proxy", ""),
    ],
)
@pytest.mark.parametrize(
    ("url", "says"),
    [
        *((url, "is not a URL") for url in ("http://[", "http://h:99999", "user:secret@h:abc")),
        *((url, "is not a URL") for url in ("http://h\n", "http://user:secret@[::1", "HTTP://h:1")),
        ("http://user:se/cret@h:1", "has a character in user or password that a URL must encode"),
        ("http://user:secret]@h:1", "has a character in user or password that a URL must encode"),
        ("http://user:secret%C3%A9@h:1", "has a user or password that is not ASCII"),
    ],
)
def test_a_proxy_that_is_no_url_is_wrong_usage(
    clean: pytest.MonkeyPatch, url: str, says: str, variable: str, endpoint: str
) -> None:
    """Whatever the endpoint: boto3 would use the proxy for loopback, too."""
    clean.setenv("AWS_ENDPOINT_URL", endpoint)
    clean.setenv(variable, url)
    for call in (lambda: aws().identity, chart):
        with pytest.raises(Usage, match=f"{variable} {says}") as caught:
            call()
        assert "cret" not in f"{caught.value} {caught.value.hint}"


def test_a_proxy_that_is_not_asked_is_not_in_the_way(clean: pytest.MonkeyPatch) -> None:
    """One that boto3 does not use, and one that NO_PROXY excepts from all."""
    clean.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    aws()
    clean.setenv("HTTPS_PROXY", "http://[")
    clean.setenv("NO_PROXY", "*")
    aws()


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:1"])
def test_a_bundle_that_never_ends_is_not_read(
    tmp_path: Path, clean: pytest.MonkeyPatch, kind: str, endpoint: str | None
) -> None:
    """Even if AWS is called by plain HTTP: Kubernetes is not."""
    bundle = tmp_path / "pipe" if kind == "a pipe" else Path("/dev/zero")
    if kind == "a pipe":
        os.mkfifo(bundle)
    if endpoint:
        clean.setenv("AWS_ENDPOINT_URL", endpoint)
    clean.setenv("AWS_CA_BUNDLE", str(bundle))
    with pytest.raises(Usage, match=f"CA bundle {bundle} cannot be used: .* is {kind}, not"):
        _ = aws().identity


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), ("nothing", "it holds no certificate")]
)
def test_a_bundle_that_is_none_is_wrong_usage_before_any_call(
    tmp_path: Path, clean: pytest.MonkeyPatch, content: str | None, says: str
) -> None:
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    clean.setenv("AWS_CA_BUNDLE", str(file))
    with pytest.raises(Usage, match=rf"the CA bundle .*ca\.pem cannot be used: {says}"):
        _ = aws().identity


def test_no_connection_changes_the_protocols_that_all_offer() -> None:
    """urllib3 sets them for each, in the middle of the handshakes of other threads."""
    context = transport.trusting(None)
    context.set_alpn_protocols(["h2"])
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    assert b"\x08http/1.1" in sent.read()


def test_a_bundle_is_read_once_however_many_connections_there_are(
    through: Proxy, bundle: Path, clean: pytest.MonkeyPatch
) -> None:
    """It takes OpenSSL 15 ms, and a status makes forty connections."""
    read: list[object] = []
    load = ssl.SSLContext.load_verify_locations

    def count(self: ssl.SSLContext, cafile: str | None = None, *rest: Any, **more: Any) -> None:
        read.append(cafile)
        load(self, cafile, *rest, **more)

    clean.setenv("AWS_CA_BUNDLE", str(bundle))
    clean.setenv("HTTPS_PROXY", f"http://user:p%40ss@127.0.0.1:{through.port}")
    context = ssl.SSLContext
    clean.setattr(context, "load_verify_locations", count)
    opened = aws()
    assert read == [str(bundle)]
    through.asked.clear()
    gather(*[opened.sts.get_caller_identity] * 3)
    _ = aws().identity
    about = {"endpoint": f"https://{FAR}", "certificate_authority": ""}
    cluster = eks.kube_access(opened, "demo", about)
    for _ in range(2):
        with pytest.raises(HyperpodError, match="the answer is not a JSON object: b'hello'"):
            list_nodes(cluster, "demo")
    assert len(through.asked) > 4
    assert read == [str(bundle)]


def test_a_bundle_that_is_a_section_of_the_profile_is_wrong_usage(
    tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\nca_bundle =\n  file = ca.pem\n")
    clean.setenv("AWS_CONFIG_FILE", str(config))
    with pytest.raises(Usage, match="ca_bundle of the AWS profile is a section"):
        transport.ca_bundle(botocore.session.Session())


def authorities(cluster: Access) -> int:
    """Return how many authorities a kubeconfig for helm has."""
    with kubeconfig(cluster) as path:
        coded = json.loads(path.read_text())["clusters"][0]["cluster"]["certificate-authority-data"]
    return base64.b64decode(coded).count(b"BEGIN CERTIFICATE")


def reached(own: Pki) -> Access:
    """Return the access to a cluster with a CA of its own, after a first answer."""
    ca = base64.b64encode(own.ca_pem).decode()
    about = {"endpoint": f"https://{FAR}", "certificate_authority": ca}
    cluster = eks.kube_access(aws(), "demo", about)
    assert authorities(cluster) == 2 + PUBLIC  # nothing is known yet
    with pytest.raises(HyperpodError, match="the answer is not a JSON object: b'hello'"):
        list_nodes(cluster, "demo")
    return cluster


PUBLIC = Path(where()).read_text().count("BEGIN CERTIFICATE")


@pytest.fixture
def large(bundle: Path, clean: pytest.MonkeyPatch) -> Path:
    """A bundle with the authority of a company and all public ones, which boto3 uses."""
    with bundle.open("a") as file:
        file.write(Path(where()).read_text())
    clean.setenv("AWS_CA_BUNDLE", str(bundle))
    return bundle


@pytest.mark.usefixtures("large")
def test_helm_gets_the_clusters_own_authority_alone_if_that_verifies_the_endpoint(
    through: Proxy, pki: Pki, clean: pytest.MonkeyPatch
) -> None:
    through.asked.clear()
    clean.setenv("HTTPS_PROXY", f"http://user:p%40ss@127.0.0.1:{through.port}")

    assert authorities(reached(pki)) == 1
    assert through.asked == [(FAR, True)]


@pytest.mark.usefixtures("large")
def test_helm_gets_the_bundle_too_if_a_proxy_intercepts_tls(
    through: Proxy, clean: pytest.MonkeyPatch
) -> None:
    """A proxy that intercepts calls to AWS intercepts calls to the cluster too."""
    through.asked.clear()
    clean.setenv("HTTPS_PROXY", f"http://user:p%40ss@127.0.0.1:{through.port}")

    cluster = reached(make_pki())

    assert authorities(cluster) == 2 + PUBLIC
    with pytest.raises(HyperpodError, match="the answer is not a JSON object: b'hello'"):
        list_nodes(cluster, "demo")
    assert through.asked == [(FAR, True)] * 3  # the CA alone was tried once


@pytest.mark.usefixtures("large")
def test_helm_gets_the_bundle_too_once_a_proxy_begins_to_intercept_tls(
    far: int, clean: pytest.MonkeyPatch
) -> None:
    own = make_pki(EVERYWHERE)
    with answering(own) as cluster, proxy("user:p", lambda _: port) as one:
        clean.setenv("HTTPS_PROXY", f"http://user:p@127.0.0.1:{one.port}")
        port = cluster
        access = reached(own)
        assert authorities(access) == 1
        port = far

        with pytest.raises(HyperpodError, match="the answer is not a JSON object: b'hello'"):
            list_nodes(access, "demo")

        assert authorities(access) == 2 + PUBLIC


def test_helm_gets_the_bundle_too_if_the_proxy_speaks_tls(
    large: Path, far: int, pki: Pki, clean: pytest.MonkeyPatch
) -> None:
    """Go verifies the certificate of the proxy with the authorities of the cluster."""
    with proxy("user:p", lambda _: far, pki.server_context()) as one:
        clean.setenv("HTTPS_PROXY", f"https://user:p@127.0.0.1:{one.port}")

        assert authorities(reached(pki)) == 2 + PUBLIC


def test_go_programs_get_the_same_way(bundle: Path, clean: pytest.MonkeyPatch) -> None:
    clean.setenv("https_proxy", "http://p:1")
    clean.setenv("HTTPS_PROXY", "http://q:1")
    clean.setenv("NO_PROXY", ".eks.amazonaws.com")

    given = transport.environment(str(bundle), f"https://{FAR}")

    assert given["SSL_CERT_FILE"] == str(bundle)
    assert given["HTTPS_PROXY"] == given["https_proxy"] == "http://p:1"
    assert given["NO_PROXY"] == f".eks.amazonaws.com,{FAR}"
