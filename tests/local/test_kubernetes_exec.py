"""Commands in containers through WebSockets, which kubectl and the Python client use."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as kubernetes
from kubernetes.config import new_client_from_config_dict
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL

from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import INSTANT, Cluster, Identity
from hyperpod_eks.local.kubernetes.api import Grant
from hyperpod_eks.local.tls import make_pki

from .test_kubernetes import CORE, Client, kubeconfig

KUBECTLS = sorted(Path(__file__).parents[2].glob(".cache/helm/*/kubectl"))
USERS = {
    "good": Identity("admin"),
    "reader": Identity("reader", grants=(Grant(writes=False),)),
}


def pod(name: str, *command: str, **spec: Any) -> Any:
    container = {"name": "main", "image": "busybox:1", "command": list(command)}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(Clock(), USERS.get, "1.35", make_pki(), delays=INSTANT)
    cluster.add_node("n1", {}, ready=True)
    one = Client(cluster)
    one.ok("POST", f"{CORE}/pods", pod("shell", "sleep", "infinity"))
    one.ok("POST", f"{CORE}/pods", pod("lost", "sleep", "infinity", nodeSelector={"a": "b"}))
    one.close()
    yield cluster
    cluster.stop()


@pytest.mark.skipif(not KUBECTLS, reason="kubectl is not under .cache/helm")
@pytest.mark.parametrize("kubectl", KUBECTLS, ids=lambda path: path.parent.name)
def test_kubectl_has_the_output_and_the_exit_code(
    cluster: Cluster, tmp_path: Path, kubectl: Path
) -> None:
    (tmp_path / "config").write_text(json.dumps(kubeconfig(cluster)))
    environ = {**os.environ, "KUBECONFIG": str(tmp_path / "config"), "HOME": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(kubectl), "exec", *words]
        return subprocess.run(
            command, env=environ, capture_output=True, text=True, check=False, timeout=60
        )

    said = run("shell", "--", "echo", "hello", "world")
    assert (said.returncode, said.stdout) == (0, "hello world\n"), said.stderr
    said = run("shell", "-c", "main", "--", "sh", "-c", "echo one; echo two; exit 3")
    assert (said.returncode, said.stdout) == (3, "one\ntwo\n")
    assert "command terminated with exit code 3" in said.stderr
    said = run("shell", "--", "nvidia-smi")
    assert (said.returncode, said.stdout) == (0, "")
    assert "(no output: default/shell is simulated)" in said.stderr
    said = run("lost", "--", "true")
    assert said.returncode != 0
    assert "pod lost does not have a host assigned" in said.stderr
    said = run("shell", "-c", "other", "--", "true")
    assert said.returncode != 0


def test_the_python_client_has_both_outputs_and_the_status(cluster: Cluster) -> None:
    open_: Any = new_client_from_config_dict
    with open_(kubeconfig(cluster)) as connection:
        core = kubernetes.CoreV1Api(connection)
        answer = stream(
            core.connect_get_namespaced_pod_exec,
            "shell",
            "default",
            command=["sh", "-c", "echo hello; exit 2"],
            stdout=True,
            stderr=True,
            _preload_content=False,
        )
        answer.run_forever(timeout=10)
        answer.sock.shutdown()  # its `close` leaves the socket open until garbage collection
        assert answer.read_stdout() == "hello\n"
        status = json.loads(answer.read_channel(ERROR_CHANNEL))
        assert (status["reason"], status["details"]["causes"][0]["message"]) == (
            "NonZeroExitCode",
            "2",
        )


@pytest.mark.parametrize(
    ("token", "name", "query", "status", "message"),
    [
        ("good", "shell", "command=true", 400, "Upgrade request required"),
        ("good", "shell", "", 400, "you must specify at least 1 command for the container"),
        ("good", "shell", "command=a&container=b", 400, "container b is not valid for pod shell"),
        ("good", "none", "command=true", 404, 'pods "none" not found'),
        ("reader", "shell", "command=true", 403, 'cannot create resource "pods/exec"'),
    ],
)
def test_what_is_no_command_is_refused(
    cluster: Cluster, token: str, name: str, query: str, status: int, message: str
) -> None:
    client = Client(cluster, token)
    for method in ("GET", "POST"):
        code, answer = client.send(method, f"{CORE}/pods/{name}/exec?{query}")
        assert (code, message in answer["message"]) == (status, True), answer
    client.close()
