"""The same requests, and the tool's own, against a real kube-apiserver with its etcd.

KUBEBUILDER_ASSETS names the folder that holds both, as for every test with envtest:
``setup-envtest use -p path`` downloads one and prints it. The flags are envtest's defaults
(sigs.k8s.io/controller-runtime, pkg/internal/testing/controlplane, apiserver.go and etcd.go), but
for the serving certificate, the token where envtest has client certificates, and the address to
advertise, which kube-apiserver otherwise looks for on a default route. There is no controller
manager in it, so nothing that is deleted with its namespace goes, and no workload has pods.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyperpod_eks.errors import Unfinished
from hyperpod_eks.helm import release as helm
from hyperpod_eks.kube import client as kube
from hyperpod_eks.kube.access import Access
from hyperpod_eks.local import CHART
from hyperpod_eks.local.tls import Pki, make_pki
from tests.local.test_kubernetes_contract import RECORDED, replayed
from tests.test_helm import version

ASSETS = os.environ.get("KUBEBUILDER_ASSETS", "")
PATIENCE = 60.0

pytestmark = pytest.mark.skipif(
    not ASSETS, reason="KUBEBUILDER_ASSETS names no folder with kube-apiserver and etcd"
)


@dataclass(frozen=True)
class Server:
    url: str
    pki: Pki

    @property
    def access(self) -> Access:
        authority = base64.b64encode(self.pki.ca_pem).decode()
        return Access("demo", self.url, authority, lambda: "good")

    def is_ready(self) -> bool:
        context = ssl.create_default_context(cadata=self.pki.ca_pem.decode())
        asked = urllib.request.Request(
            f"{self.url}/readyz", headers={"Authorization": "Bearer good"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=2, context=context) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def free_ports(count: int) -> list[int]:
    with ExitStack() as all_:
        found = [all_.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in found]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A new control plane, whose token ``good`` has all permissions."""
    room, pki = tmp_path_factory.mktemp("control-plane"), make_pki()
    clients, peers, secure = free_ports(3)
    for name, content in (
        ("cert.pem", pki.cert_pem),
        ("key.pem", pki.key_pem),
        ("tokens.csv", b'good,admin,admin,"system:masters"\n'),
    ):
        (room / name).write_bytes(content)
    store, peer = f"http://127.0.0.1:{clients}", f"http://127.0.0.1:{peers}"
    commands = {
        "etcd": [
            f"--data-dir={room / 'etcd'}",
            f"--listen-client-urls={store}",
            f"--advertise-client-urls={store}",
            f"--listen-peer-urls={peer}",
            "--unsafe-no-fsync",
        ],
        "kube-apiserver": [
            f"--etcd-servers={store}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={secure}",
            f"--cert-dir={room}",
            f"--tls-cert-file={room / 'cert.pem'}",
            f"--tls-private-key-file={room / 'key.pem'}",
            f"--token-auth-file={room / 'tokens.csv'}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--allow-privileged=true",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://127.0.0.1/",
            # the certificate: client-go's keyutil reads EC keys as SEC 1 and X.509, not as PKCS #8
            f"--service-account-key-file={room / 'cert.pem'}",
            f"--service-account-signing-key-file={room / 'key.pem'}",
        ],
    }
    found = Server(f"https://127.0.0.1:{secure}", pki)
    with ExitStack() as all_:
        running = {}
        for name, flags in commands.items():
            log = all_.enter_context((room / f"{name}.log").open("wb"))
            running[name] = subprocess.Popen([Path(ASSETS, name), *flags], stdout=log, stderr=log)
            all_.callback(running[name].wait)
            all_.callback(running[name].terminate)
        deadline = time.monotonic() + PATIENCE
        while not found.is_ready():
            for name, process in running.items():
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{name}: {(room / f'{name}.log').read_text()[-3000:]}")
            time.sleep(0.2)
        yield found


def test_the_recorded_statuses_are_those_of_the_real_server(server: Server) -> None:
    answers = replayed(server.url, server.pki.ca_pem, lambda: time.sleep(0.6))
    told = {name: status for name, (status, _) in answers.items()}
    assert told == {entry["name"]: entry["status"] for entry in RECORDED}


def test_the_tool_reads_an_empty_cluster(server: Server) -> None:
    """The items of an empty metadata list are null."""
    assert kube.secret_labels(server.access, "owner=helm") == []
    assert helm.releases(server.access) == []
    assert "kube-system" in kube.namespaces(server.access)


@pytest.mark.parametrize("name", ["3.17.2", "4.3.1"])
def test_a_chart_is_installed_upgraded_and_uninstalled(server: Server, name: str) -> None:
    program, values = version(name), {"global": {"region": "eu-west-1"}}
    first = helm.install(server.access, program, CHART, values, "one")
    assert (first.status, first.fingerprint) == ("deployed", "one")
    second = helm.install(server.access, program, CHART, {}, "two")
    assert (second.revision, second.fingerprint) == (first.revision + 1, "two")
    with pytest.raises(Unfinished, match="still namespace"):  # no controller deletes namespaces
        helm.uninstall(server.access, program, second, patience=0)
    assert helm.release(server.access) is None
