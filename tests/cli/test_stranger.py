"""Other clients of the embedded stack: `aws`, `kubectl` and `helm` see the same cluster."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import helm

HOSTILE = {
    "AWS_PROFILE": "production",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEXAMPLE",
    "AWS_REGION": "us-west-2",
    "AWS_ENDPOINT_URL": "http://203.0.113.1:1",
    "AWS_ENDPOINT_URL_S3": "http://203.0.113.1:1",
    "AWS_ENDPOINT_URL_EKS": "http://203.0.113.1:1",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "HTTPS_PROXY": "http://203.0.113.1:1",
    "HTTP_PROXY": "http://203.0.113.1:1",
    "http_proxy": "http://203.0.113.1:1",
}
"""Variables of a typical user's shell; 203.0.113.0/24 is reserved for documentation (RFC 5737)."""

WATCH = '''
"""Write down every address that a Python process connects to, and refuse all but loopback."""
import os, sys

def watch(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else "unix"
        with open(os.environ["WATCH"], "a") as out:
            out.write(f"{host}\\n")
        if host not in ("127.0.0.1", "::1", "localhost", "unix"):
            raise PermissionError(f"{host} is not this machine")

sys.addaudithook(watch)
'''


class Laptop:
    """A user's machine: real processes, whose Python records its connections."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(WATCH)
        self.watched = folder / "connections"
        tool = Path(sys.executable).parent
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("AWS_", "HYPERPOD_EKS_"))}
        kept.pop("CI", None)
        self.environ = {
            **kept,
            **HOSTILE,
            "HOME": str(folder),
            "KUBECONFIG": str(folder / "kubeconfig"),
            "PATH": f"{helm('4.3.1')}:{tool}:{kept['PATH']}",
            "PYTHONPATH": str(folder / "site"),
            "WATCH": str(self.watched),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
        }

    @cached_property
    def settings(self) -> str:
        """What `hyperpod-eks local env` prints; it takes half a second of CPU."""
        return self.runs(["hyperpod-eks", "local", "env"])

    def types(self, line: str, environ: Mapping[str, str] | None = None) -> str:
        """Run a line in bash with the embedded stack's environment; return stdout."""
        settings = '"$(hyperpod-eks local env)"' if environ else shlex.quote(self.settings)
        return self.runs(["bash", "-c", f"set -euo pipefail; eval {settings}; {line}"], environ)

    def runs(self, command: list[str], environ: Mapping[str, str] | None = None) -> str:
        ran = subprocess.run(
            command, env={**self.environ, **(environ or {})}, cwd=self.folder, text=True,
            capture_output=True, check=False, timeout=600,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def asks(self, line: str) -> Any:
        """Run a line in bash that prints JSON; return the value."""
        return json.loads(self.types(line))


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A laptop on which `hyperpod-eks create demo --local` has run, with real-looking AWS keys."""
    laptop = Laptop(tmp_path_factory.mktemp("laptop"))
    try:
        laptop.runs(["hyperpod-eks", "local", "start", "--speed", "2000"])
        laptop.runs(["hyperpod-eks", "create", "demo", "--local", "-o", "json"])
        yield laptop
    finally:
        laptop.runs(["hyperpod-eks", "local", "stop"])


@cache
def runs(program: str) -> bool:
    found = shutil.which(program)
    return (
        bool(found)
        and not subprocess.run(
            [str(found), "--version"], capture_output=True, check=False
        ).returncode
    )


def needs(program: str) -> None:
    """Skip the test if a program is missing or does not run."""
    if not runs(program):
        pytest.skip(f"no {program} on PATH")


@pytest.fixture(scope="module")
def configured(laptop: Laptop) -> Laptop:
    """The laptop with the kubeconfig that the AWS CLI writes."""
    needs("aws")
    laptop.types("aws eks update-kubeconfig --name demo")
    return laptop


@pytest.mark.prove
def test_aws_describes_the_eks_cluster(laptop: Laptop) -> None:
    needs("aws")
    cluster = laptop.asks("aws eks describe-cluster --name demo --output json")["cluster"]
    assert (cluster["status"], cluster["version"]) == ("ACTIVE", "1.35")
    assert cluster["accessConfig"]["authenticationMode"] == "API"


@pytest.mark.prove
def test_aws_describes_the_hyperpod_cluster(laptop: Laptop) -> None:
    needs("aws")
    described = "aws sagemaker describe-cluster --cluster-name demo --output json"
    cluster = laptop.asks(described)
    assert cluster["ClusterStatus"] == "InService"
    assert [group["CurrentCount"] for group in cluster["InstanceGroups"]] == [2]
    assert cluster["Orchestrator"]["Eks"]["ClusterArn"].endswith(":cluster/demo")


@pytest.mark.prove
def test_kubectl_sees_the_nodes_through_awss_own_kubeconfig(configured: Laptop) -> None:
    if not (helm("4.3.1") / "kubectl").exists():
        pytest.skip("no kubectl beside helm in .cache/helm")
    nodes = configured.asks("kubectl get nodes -o json")["items"]
    assert len(nodes) == 2
    for node in nodes:
        assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "ml.m5.2xlarge"
        assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"
    assert configured.types("kubectl get nodes --no-headers").count(" Ready ") == 2


@pytest.mark.prove
def test_helm_sees_the_release_and_its_values(configured: Laptop) -> None:
    (release,) = configured.asks("helm list -A -o json")
    assert (release["name"], release["namespace"]) == ("hyperpod-dependencies", "kube-system")
    assert (release["status"], release["revision"]) == ("deployed", "1")
    values = configured.asks("helm get values hyperpod-dependencies -n kube-system -o json")
    assert values["global"]["region"] == "us-west-2"
    assert values["health-monitoring-agent"]["region"] == "us-west-2"


@pytest.mark.prove
def test_the_same_commands_work_on_any_endpoint(laptop: Laptop) -> None:
    """Without --local, the server at AWS_ENDPOINT_URL is AWS."""
    shown = laptop.asks("hyperpod-eks status demo -o json")
    assert shown["cluster"]["ready"] is True


def test_nobody_talks_to_another_machine(laptop: Laptop) -> None:
    laptop.runs(["hyperpod-eks", "status", "demo", "--local"])
    laptop.runs(["hyperpod-eks", "create", "demo", "--local"])
    hosts = set(laptop.watched.read_text().split())
    assert "127.0.0.1" in hosts  # proves that the watch works
    assert hosts <= {"127.0.0.1", "::1", "localhost", "unix"}
