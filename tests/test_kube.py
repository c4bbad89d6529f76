"""The door to Kubernetes, against the embedded API server."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from hyperpod_eks import kube
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.kube import Access, KubeNotReady, Node
from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import INSTANT, Cluster, Fault, Identity
from hyperpod_eks.local.tls import Pki, make_pki

TOKENS = {"good": Identity("admin"), "powerless": Identity("nobody", allowed=False)}


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki()


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
        url = urlsplit(decode(kube.token(session, "demo", region)))
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

        url = urlsplit(decode(kube.token(session, "demo", "us-west-2")))

        assert (url.scheme, url.netloc) == ("http", "127.0.0.1:4566")
        assert parse_qs(url.query)["X-Amz-Credential"][0].startswith("AKIAEXAMPLE/")

    def test_another_cluster_has_another_signature(self, session: boto3.Session) -> None:
        signatures = {
            parse_qs(urlsplit(decode(kube.token(session, name, "us-west-2"))).query)[
                "X-Amz-Signature"
            ][0]
            for name in ("one", "two")
        }
        assert len(signatures) == 2


class TestKubeconfig:
    def test_it_is_ours_alone_and_gone_afterwards(self, cluster: Cluster) -> None:
        with kube.kubeconfig(access(cluster)) as path:
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
            "from hyperpod_eks.kube import Access, kubeconfig\n"
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
            kube.CLUSTER_NAME: "demo",
            kube.GROUP_NAME: "worker-group",
            kube.INSTANCE_TYPE: "ml.m5.2xlarge",
        }
        healthy = labels | {kube.HEALTH_STATUS: "Schedulable"}
        cluster.add_node("hyperpod-i-0b", labels)
        cluster.add_node("hyperpod-i-0a", healthy, ready=True)
        cluster.add_node("hyperpod-i-0c", labels | {kube.CLUSTER_NAME: "other"})
        cluster.add_node("ip-10-0-0-1", {})

        found = kube.nodes(access(cluster), "demo")

        group, kubelet = ("worker-group", "ml.m5.2xlarge"), "1.33.0-eks-local"
        assert found == [
            Node("hyperpod-i-0a", True, "Schedulable", *group, kubelet=kubelet),
            Node("hyperpod-i-0b", False, "", *group, "node is not ready", kubelet),
        ]
        assert [node.name for node in kube.nodes(access(cluster))][-1] == "ip-10-0-0-1"
        assert found[0].instance_id == "i-0a"

    def test_more_nodes_than_fit_a_page(self, cluster: Cluster) -> None:
        names = [f"hyperpod-i-{number:05}" for number in range(kube.PAGE + 1)]
        for name in names:
            cluster.add_node(name, {kube.CLUSTER_NAME: "demo"}, ready=True)

        assert [node.name for node in kube.nodes(access(cluster), "demo")] == names


class TestErrors:
    @pytest.mark.parametrize(
        ("token", "says"),
        [("unknown", "401 Unauthorized: Unauthorized"), ("powerless", "403 Forbidden: nodes is")],
    )
    def test_no_access_is_no_access_yet(self, cluster: Cluster, token: str, says: str) -> None:
        with pytest.raises(KubeNotReady, match=says) as caught:
            kube.nodes(access(cluster, token), "demo")
        assert caught.value.hint

    def test_a_server_that_is_not_there_yet(self, pki: Pki) -> None:
        with socket.socket() as taken:  # bound, and nobody listens
            taken.bind(("127.0.0.1", 0))
            url = f"https://127.0.0.1:{taken.getsockname()[1]}"
            nowhere = Access("demo", url, base64.b64encode(pki.ca_pem).decode(), lambda: "good")
            with pytest.raises(KubeNotReady, match=f"no answer from {url}.*refused"):
                kube.nodes(nowhere, "demo")

    def test_a_server_in_trouble_is_worth_another_try(self, cluster: Cluster) -> None:
        cluster.faults.append(Fault(503, "ServiceUnavailable", "etcd has no leader"))
        with pytest.raises(KubeNotReady, match="etcd has no leader"):
            kube.nodes(access(cluster), "demo")
        assert kube.nodes(access(cluster), "demo") == []

    def test_a_stranger_behind_the_endpoint_is_no_matter_of_time(self, cluster: Cluster) -> None:
        ca = base64.b64encode(make_pki().ca_pem).decode()
        with pytest.raises(HyperpodError, match="does not prove to be the cluster") as caught:
            kube.nodes(Access("demo", cluster.url, ca, lambda: "good"), "demo")
        assert not isinstance(caught.value, KubeNotReady)
        assert "NO_PROXY" in caught.value.hint

    def test_a_refusal_is_told_in_the_servers_words(self, cluster: Cluster) -> None:
        cluster.faults.append(Fault(422, "Invalid", "the selector is wrong"))
        with pytest.raises(HyperpodError, match=r"422 .*the selector is wrong") as caught:
            kube.nodes(access(cluster), "demo")
        assert not isinstance(caught.value, KubeNotReady)


class TestProxy:
    def test_loopback_is_reached_without_the_proxy(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        assert kube.nodes(access(cluster), "demo") == []

    def test_others_are_reached_through_it_unless_excepted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as proxy:
            proxy.settimeout(10)
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
            monkeypatch.setenv("NO_PROXY", "excepted.invalid")
            ca = base64.b64encode(make_pki().ca_pem).decode()

            with pytest.raises(KubeNotReady, match=r"https://excepted\.invalid"):
                kube.nodes(Access("demo", "https://excepted.invalid", ca, lambda: "t"), "demo")
            proxy.setblocking(False)
            with pytest.raises(BlockingIOError):
                proxy.accept()

            proxy.settimeout(10)
            script = (
                "import sys; from hyperpod_eks import kube\n"
                "access = kube.Access('demo', 'https://far.invalid', sys.argv[1], lambda: 't')\n"
                "kube.nodes(access, 'demo')\n"
            )
            asked = subprocess.Popen([sys.executable, "-c", script, ca], stderr=subprocess.DEVNULL)
            connection, _ = proxy.accept()
            with connection:
                assert connection.recv(100).startswith(b"CONNECT far.invalid:443 ")
            asked.wait()


class TestLeftovers:
    def test_namespaces_by_phase(self, cluster: Cluster) -> None:
        assert kube.namespaces(access(cluster)) == dict.fromkeys(
            ("default", "kube-node-lease", "kube-public", "kube-system"), "Active"
        )

    def test_the_content_of_secrets_is_not_asked_for(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(HTTPConnection, "debuglevel", 1)  # it prints what it sends

        assert kube.secret_labels(access(cluster), "owner=helm") == []

        sent = capsys.readouterr().out
        assert "GET /api/v1/secrets?" in sent
        assert f"Accept: {kube.METADATA_ONLY}" in sent

    def test_a_secret_that_is_not_there(self, cluster: Cluster) -> None:
        assert kube.secret(access(cluster), "nothing", "default") is None
