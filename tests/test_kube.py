"""The Kubernetes client, against the embedded API server."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.httpsession import where
from kubernetes import client as kubernetes

from hyperpod_eks import __version__
from hyperpod_eks.errors import HyperpodError, KnownCause
from hyperpod_eks.helm import release as helm
from hyperpod_eks.kube import client as kube
from hyperpod_eks.kube.access import Access, kubeconfig, token
from hyperpod_eks.kube.client import KubeNotReady
from hyperpod_eks.kube.nodes import (
    CLUSTER_NAME,
    GROUP_NAME,
    HEALTH_STATUS,
    INSTANCE_TYPE,
    Node,
    list_nodes,
    pending,
)
from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import INSTANT, Cluster, Fault, Identity
from hyperpod_eks.local.kubernetes.api import Answer, Api, Request
from hyperpod_eks.local.tls import Pki, make_pki
from tests.answers import HOWS, altered, partial, places
from tests.conftest import api_client
from tests.proxy import proxy

TOKENS = {"good": Identity("admin"), "powerless": Identity("nobody", allowed=False)}


@pytest.fixture
def cluster(pki: Pki) -> Iterator[Cluster]:
    cluster = Cluster(Clock(), TOKENS.get, "1.33", pki, delays=INSTANT)
    yield cluster
    cluster.stop()


def access(cluster: Cluster, token: str = "good") -> Access:
    return Access("demo", cluster.url, base64.b64encode(cluster.ca_pem).decode(), lambda: token)


def decode(token: str) -> str:
    prefix, _, coded = token.partition(".")
    assert prefix == "k8s-aws-v1"
    return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()


class TestToken:
    @pytest.fixture
    def session(self, monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        return boto3.Session("AKIAEXAMPLE", "secret", region_name="us-east-1")

    @pytest.mark.parametrize(
        ("region", "host"),
        [
            ("us-west-2", "sts.us-west-2.amazonaws.com"),
            ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
        ],
    )
    def test_it_is_a_presigned_question_who_we_are_to_the_regions_sts(
        self, session: boto3.Session, region: str, host: str
    ) -> None:
        url = urlsplit(decode(token(session.client("sts", region), "demo")))
        query = parse_qs(url.query)

        assert (url.scheme, url.netloc) == ("https", host)
        assert query["Action"] == ["GetCallerIdentity"]
        assert query["X-Amz-SignedHeaders"] == ["host;x-k8s-aws-id"]
        assert query["X-Amz-Credential"][0].startswith("AKIAEXAMPLE/")
        assert f"/{region}/sts/" in query["X-Amz-Credential"][0]
        assert "secret" not in url.query

    def test_a_custom_endpoint_is_asked_instead(
        self, session: boto3.Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")

        url = urlsplit(decode(token(session.client("sts", "us-west-2"), "demo")))

        assert (url.scheme, url.netloc) == ("http", "127.0.0.1:4566")
        assert parse_qs(url.query)["X-Amz-Credential"][0].startswith("AKIAEXAMPLE/")

    def test_another_cluster_has_another_signature(self, session: boto3.Session) -> None:
        signatures = {
            parse_qs(urlsplit(decode(token(session.client("sts", "us-west-2"), name))).query)[
                "X-Amz-Signature"
            ][0]
            for name in ("one", "two")
        }
        assert len(signatures) == 2


class TestKubeconfig:
    def test_it_is_ours_alone_and_gone_afterwards(self, cluster: Cluster) -> None:
        with kubeconfig(access(cluster)) as path:
            document = json.loads(path.read_text())
            (path.parent / "helm").mkdir()
            modes = path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777

        assert modes == (0o600, 0o700)
        assert document["users"][0]["user"] == {"token": "good"}
        assert document["clusters"][0]["cluster"]["server"] == cluster.url
        assert not path.parent.exists()

    def test_it_is_gone_when_the_process_ends_while_a_worker_holds_it(self, tmp_path: Path) -> None:
        script = tmp_path / "worker.py"
        script.write_text(
            "import sys, threading\n"
            "from hyperpod_eks.kube.access import Access, kubeconfig\n"
            "said = threading.Event()\n"
            "def work():\n"
            "    with kubeconfig(Access('demo', 'https://x', '', lambda: 't')) as path:\n"
            "        print(path.parent, flush=True)\n"
            "        said.set()\n"
            "        threading.Event().wait()\n"
            "threading.Thread(target=work, daemon=True).start()\n"
            "said.wait()\n"
        )
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)

        assert done.stdout.strip()
        assert not Path(done.stdout.strip()).exists()

    def test_the_token_does_not_show_in_what_is_printed(self) -> None:
        told = repr(Access("demo", "https://x", "Q0E=", lambda: "secret"))
        assert told == "Access(cluster='demo', endpoint='https://x')"


class TestNodes:
    def test_the_nodes_of_one_cluster_with_what_hyperpod_says(self, cluster: Cluster) -> None:
        labels = {
            CLUSTER_NAME: "demo",
            GROUP_NAME: "worker-group",
            INSTANCE_TYPE: "ml.m5.2xlarge",
        }
        healthy = labels | {HEALTH_STATUS: "Schedulable"}
        cluster.add_node("hyperpod-i-0b", labels)
        cluster.add_node("hyperpod-i-0a", healthy, ready=True)
        cluster.add_node("hyperpod-i-0c", labels | {CLUSTER_NAME: "other"})
        cluster.add_node("ip-10-0-0-1", {})

        found = list_nodes(access(cluster), "demo")

        group, kubelet = ("worker-group", "ml.m5.2xlarge"), "1.33.0-eks-local"
        taint = "node.kubernetes.io/not-ready=:NoSchedule"  # as the node controller sets it
        assert found == [
            Node("hyperpod-i-0a", True, "Schedulable", *group, kubelet=kubelet),
            Node("hyperpod-i-0b", False, "", *group, "node is not ready", kubelet, taints=(taint,)),
        ]
        assert [node.name for node in list_nodes(access(cluster))][-1] == "ip-10-0-0-1"
        assert found[0].instance_id == "i-0a"

    def test_more_nodes_than_fit_a_page(self, cluster: Cluster) -> None:
        names = [f"hyperpod-i-{number:05}" for number in range(kube.PAGE + 1)]
        for name in names:
            cluster.add_node(name, {CLUSTER_NAME: "demo"}, ready=True)

        assert [node.name for node in list_nodes(access(cluster), "demo")] == names


class TestErrors:
    @pytest.mark.parametrize(
        ("token", "says"),
        [("unknown", "401 Unauthorized: Unauthorized"), ("powerless", "403 Forbidden: nodes is")],
    )
    def test_no_access_is_no_access_yet(self, cluster: Cluster, token: str, says: str) -> None:
        with pytest.raises(KubeNotReady, match=says) as caught:
            list_nodes(access(cluster, token), "demo")
        assert caught.value.hint
        assert caught.value.cause == KnownCause("no-access-entry")

    def test_a_server_that_is_not_there_yet(self, pki: Pki) -> None:
        with socket.socket() as taken:  # bound, but not listening
            taken.bind(("127.0.0.1", 0))
            url = f"https://127.0.0.1:{taken.getsockname()[1]}"
            nowhere = Access("demo", url, base64.b64encode(pki.ca_pem).decode(), lambda: "good")
            with pytest.raises(KubeNotReady, match=f"no answer from {url}.*refused"):
                list_nodes(nowhere, "demo")

    @pytest.mark.parametrize("bundle", [None, where()], ids=["", "bundle"])
    def test_a_server_that_hangs_up_is_worth_another_try(
        self, pki: Pki, bundle: str | None
    ) -> None:
        """As a control plane does that is being deleted, in the middle of a TLS handshake."""
        with socket.create_server(("127.0.0.1", 0)) as server:

            def hang_up() -> None:
                with suppress(OSError):
                    while True:
                        taken, _ = server.accept()
                        taken.recv(1 << 10)
                        taken.close()

            threading.Thread(target=hang_up, daemon=True).start()
            url = f"https://127.0.0.1:{server.getsockname()[1]}"
            ca = base64.b64encode(pki.ca_pem).decode()
            nobody = Access("demo", url, ca, lambda: "good", bundle)
            with pytest.raises(KubeNotReady, match=f"no answer from {url}"):
                list_nodes(nobody, "demo")
            server.shutdown(socket.SHUT_RDWR)

    def test_a_server_in_trouble_is_worth_another_try(self, cluster: Cluster) -> None:
        cluster.faults.append(Fault(503, "ServiceUnavailable", "etcd has no leader"))
        with pytest.raises(KubeNotReady, match="etcd has no leader"):
            list_nodes(access(cluster), "demo")
        assert list_nodes(access(cluster), "demo") == []

    @pytest.mark.parametrize("bundle", [None, where()], ids=["", "bundle"])
    def test_a_stranger_behind_the_endpoint_is_no_matter_of_time(
        self, cluster: Cluster, bundle: str | None
    ) -> None:
        ca = base64.b64encode(make_pki().ca_pem).decode()
        with pytest.raises(
            HyperpodError, match=r"TLS certificate of .* could not be verified"
        ) as caught:
            list_nodes(Access("demo", cluster.url, ca, lambda: "good", bundle), "demo")
        assert not isinstance(caught.value, KubeNotReady)
        assert "NO_PROXY" in caught.value.hint

    def test_a_refusal_is_told_in_the_servers_words(self, cluster: Cluster) -> None:
        cluster.faults.append(Fault(422, "Invalid", "the selector is wrong"))
        with pytest.raises(HyperpodError, match=r"422 .*the selector is wrong") as caught:
            list_nodes(access(cluster), "demo")
        assert not isinstance(caught.value, KubeNotReady)


@contextmanager
def endless(pki: Pki, said: bytes) -> Iterator[str]:
    """A server that answers with these bytes, one at a time, and never ends the answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with (
                suppress(OSError),
                pki.server_context().wrap_socket(server.accept()[0], server_side=True) as client,
            ):
                client.recv(65536)
                client.sendall(said)
                while said:
                    client.sendall(b"x")
                    time.sleep(0.05)
                client.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (b"", "no answer from .*timed out"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", "does not end: .* bytes so far"),
    ],
)
def test_silence_is_told_and_given_up_in_time(
    pki: Pki,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    said: bytes,
    says: str,
) -> None:
    monkeypatch.setattr(kube, "TIMEOUT", (5, 1))
    monkeypatch.setattr(kube, "READING", 0.5)
    monkeypatch.setattr(kube, "SILENCE", 0.1)
    with endless(pki, said) as url:
        mute = Access("demo", url, base64.b64encode(pki.ca_pem).decode(), lambda: "good")
        with pytest.raises(KubeNotReady, match=says):
            list_nodes(mute, "demo")
    assert f"{url} has not answered for 0 s; still trying" in caplog.text


class TestProxy:
    def test_loopback_is_reached_without_the_proxy(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        assert list_nodes(access(cluster), "demo") == []

    def test_others_are_reached_through_it_unless_excepted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("https_proxy", "no_proxy"):  # they would override those in capitals
            monkeypatch.delenv(name, raising=False)
        ca = base64.b64encode(make_pki().ca_pem).decode()
        with proxy("user:right", lambda host: 9) as there:
            monkeypatch.setenv("HTTPS_PROXY", f"http://user:wrong@127.0.0.1:{there.port}")
            monkeypatch.setenv("NO_PROXY", "excepted.invalid")

            with pytest.raises(KubeNotReady, match=r"https://excepted\.invalid"):
                list_nodes(Access("demo", "https://excepted.invalid", ca, lambda: "t"), "demo")
            with pytest.raises(HyperpodError, match="407"):
                list_nodes(Access("demo", "https://far.invalid", ca, lambda: "t"), "demo")

        # other threads of this process may use this proxy too
        hosts = [host for host, _ in there.asked]
        assert "far.invalid" in hosts
        assert "excepted.invalid" not in hosts


class TestLeftovers:
    def test_namespaces_by_phase(self, cluster: Cluster) -> None:
        assert kube.namespaces(access(cluster)) == dict.fromkeys(
            ("default", "kube-node-lease", "kube-public", "kube-system"), "Active"
        )

    def test_the_content_of_secrets_is_not_asked_for(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(HTTPConnection, "debuglevel", 1)  # it would print requests

        assert kube.secret_labels(access(cluster), "owner=helm") == []

        sent = capsys.readouterr().out
        assert "GET /api/v1/secrets?" in sent
        assert f"Accept: {kube.METADATA_ONLY}" in sent

    def test_a_secret_that_is_not_there(self, cluster: Cluster) -> None:
        assert kube.secret(access(cluster), "nothing", "default") is None


ROLE = "kubeflow-training-admin"
READERS: dict[str, tuple[Callable[[Access], Any], str]] = {
    "nodes": (lambda access: list_nodes(access, "demo"), "/nodes"),
    "pending": (pending, "/pods"),
    "namespaces": (kube.namespaces, "/namespaces"),
    "secret_labels": (lambda access: kube.secret_labels(access, "owner=helm"), "/secrets"),
    "secret": (lambda access: kube.secret(access, "record", "default"), "/secrets/record"),
    "workloads": (kube.workloads, "/deployments"),
    "roles": (lambda access: kube.delete_leftover_cluster_roles(access, [ROLE]), ROLE),
    "releases": (helm.releases, "/secrets"),
    "release": (helm.releases, "/secrets/record"),
}


@pytest.fixture(scope="module")
def furnished(pki: Pki) -> Iterator[Access]:
    cluster = Cluster(Clock(), TOKENS.get, "1.33", pki, delays=INSTANT)
    cluster.add_node("hyperpod-i-0a", {CLUSTER_NAME: "demo", "full": "yes"})
    reach = access(cluster)
    labels = {"owner": "helm", "name": helm.NAME, "version": "1", "status": "deployed"}
    record: Any = {
        "metadata": {"name": "record", "labels": labels},
        "data": {"release": "aGVsbG8="},
    }
    pods = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    }
    web: Any = {
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": pods},
    }
    role: Any = {"metadata": {"name": ROLE, "annotations": {"meta.helm.sh/release-name": "a"}}}
    kubernetes.CoreV1Api(api_client(reach)).create_namespaced_secret("default", record)
    kubernetes.AppsV1Api(api_client(reach)).create_namespaced_deployment("default", web)
    kubernetes.RbacAuthorizationV1Api(api_client(reach)).create_cluster_role(role)
    yield reach
    cluster.stop()


class TestWhatIsMissing:
    """A server omits empty members, or returns null for them."""

    @pytest.mark.sample("nodes", "pending", "secret", "workloads", "releases")
    @pytest.mark.parametrize("reader", READERS)
    def test_every_member_may_be_null_absent_or_empty(
        self, furnished: Access, reader: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, path = READERS[reader]
        answer = Api.answer
        seen: list[Any] = []
        instead: list[Any] = []

        def answered(self: Api, request: Request) -> Answer:
            found = answer(self, request)
            if request.method == "GET" and request.path.endswith(path):
                seen.append(found.content)
                return Answer(found.status, *(instead or [found.content]))
            return found

        monkeypatch.setattr(Api, "answer", answered)
        whole = read(furnished)
        document = seen[0]
        answers = {
            f"{how} {at}": altered(document, at, how) for at in places(document) for how in HOWS
        }
        assert len(answers) > 10

        for each in (*answers.values(), partial(document)):
            instead[:] = [each]
            found = read(furnished)
            assert type(found) is type(whole)
            assert len(found) <= max(len(whole), 1)

    def test_the_servers_audit_log_says_who_asked(
        self, furnished: Access, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agents: set[str] = set()

        def heard(_: Api, request: Request) -> Answer:
            agents.add(request.headers["User-Agent"])
            return Answer(200, "{}")

        monkeypatch.setattr(Api, "answer", heard)
        list_nodes(furnished)
        assert agents == {f"hyperpod-eks/{__version__}"}

    @pytest.mark.parametrize("body", ["null", "[]", "<html>Sign in</html>", ""])
    def test_what_is_no_object_ends_with_the_request_named(
        self, furnished: Access, body: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Api, "answer", lambda self, request: Answer(200, body))
        with pytest.raises(HyperpodError, match=r"GET https://.*/nodes: .* not a JSON object"):
            list_nodes(furnished)
