"""Helm: the real program, versions 3 and 4, against the embedded Kubernetes API."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as kubernetes

from hyperpod_eks.errors import HyperpodError, Unfinished, Usage
from hyperpod_eks.helm import chart, runner
from hyperpod_eks.helm import release as helm
from hyperpod_eks.helm.program import Helm, find_helm
from hyperpod_eks.helm.release import Release
from hyperpod_eks.kube import client as kube
from hyperpod_eks.kube.access import Access
from hyperpod_eks.kube.client import KubeNotReady
from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import Cluster, Delays, Identity
from hyperpod_eks.local.tls import Pki
from tests.answers import HOWS, altered, places
from tests.conftest import api_client, known_helm

BINARIES = Path(__file__).parents[1] / ".cache" / "helm"
STAND_IN = Path(chart.__file__).parents[1] / "local" / "chart"
VALUES = chart.values_for("eu-west-1", {})
REAL = os.environ.get("HYPERPOD_CHART")
AGENT = "daemonsets.apps/aws-hyperpod/health-monitoring-agent"
ROLE = "hyperpod-dependencies-mpi-operator-kubeflow-mpijobs-admin"


def version(name: str) -> Helm:
    binary = BINARIES / name / "helm"
    if not binary.exists():
        pytest.skip(f"no helm {name} in .cache/helm")
    major, minor, patch = map(int, name.split("."))
    return Helm(binary, (major, minor, patch))


@pytest.fixture(params=["3.17.2", "4.3.1"])
def either(request: pytest.FixtureRequest) -> Helm:
    return version(request.param)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster(pki: Pki, clock: Clock) -> Iterator[Cluster]:
    """A cluster without nodes, in which the delete of a namespace takes 5 simulated seconds."""
    tokens = {"good": Identity("admin")}
    cluster = Cluster(clock, tokens.get, "1.33", pki, delays=Delays(0, 0, 5))
    yield cluster
    cluster.stop()


@pytest.fixture
def access(cluster: Cluster) -> Access:
    return reach(cluster)


def reach(cluster: Cluster) -> Access:
    return Access("demo", cluster.url, base64.b64encode(cluster.ca_pem).decode(), lambda: "good")


def image(cluster: Cluster) -> str:
    agent = cluster.snapshot()[AGENT]
    return str(agent["spec"]["template"]["spec"]["containers"][0]["image"])


def existing(release: Release | None) -> Release:
    assert release is not None
    return release


class TestLife:
    def test_install_upgrade_uninstall(
        self, either: Helm, cluster: Cluster, clock: Clock, access: Access
    ) -> None:
        assert helm.releases(access) == []

        first = helm.install(access, either, STAND_IN, VALUES, "one")

        assert first == helm.release(access)
        assert (first.revision, first.status, first.fingerprint) == (1, "deployed", "one")
        assert (first.chart, first.chart_version) == (helm.CHART, "0.1.0")
        assert first.values == VALUES
        assert "eu-west-1" in image(cluster)
        assert cluster.has("CustomResourceDefinition", "mpijobs.kubeflow.org")

        # the aggregation controller now owns the rules of the aggregated role
        second = helm.install(access, either, STAND_IN, VALUES | {"global": {}}, "two")
        assert (second.revision, second.status, second.fingerprint) == (2, "deployed", "two")

        cluster.recreate_aggregated = True  # so that it survives helm's delete
        with pytest.raises(
            Unfinished, match=r"but namespace aws-hyperpod, namespace kubeflow, .* still exist"
        ):
            helm.uninstall(access, either, second, patience=0)
        assert helm.release(access) is None
        assert not cluster.has("ClusterRole", ROLE)

        with pytest.raises(KubeNotReady, match="still being deleted: aws-hyperpod, kubeflow, mpi"):
            helm.install(access, either, STAND_IN, VALUES, "three")

        clock.advance(5)
        helm.uninstall(access, either, None, patience=0)
        assert not cluster.has("Namespace", "aws-hyperpod")
        assert not cluster.has("DaemonSet", "health-monitoring-agent", "aws-hyperpod")
        assert not cluster.has("Deployment", f"{helm.NAME}-mpi-operator", helm.NAMESPACE)

    @pytest.mark.skipif(REAL is None, reason="HYPERPOD_CHART names no copy of AWS's chart")
    def test_aws_own_chart(
        self, either: Helm, cluster: Cluster, clock: Clock, access: Access, tmp_path: Path
    ) -> None:
        source = tmp_path / "source"
        shutil.copytree(chart.locate(Path(str(REAL))), source)
        for name in ("nvidia-device-plugin", "aws-efa-k8s-device-plugin"):
            stub = source / "charts" / name
            stub.mkdir()
            number = {"nvidia-device-plugin": "0.16.1"}.get(name, "0.5.20")
            stub.joinpath("Chart.yaml").write_text(
                f"apiVersion: v2\nname: {name}\nversion: {number}\n"
            )
        print_ = chart.fingerprint(chart.content(source), VALUES)
        staged = chart.stage(source, tmp_path, VALUES, either)

        first = helm.install(access, either, staged, VALUES, print_)
        assert (first.status, first.fingerprint) == ("deployed", print_)
        assert "533267293120.dkr.ecr.eu-west-1.amazonaws.com" in image(cluster)
        assert "1.0.1892.0" in image(cluster)
        second = helm.install(access, either, staged, VALUES | {"storage": {}}, "two")
        assert (second.revision, second.status) == (2, "deployed")

        cluster.recreate_aggregated = True
        with pytest.raises(Unfinished):
            helm.uninstall(access, either, second, patience=0)
        clock.advance(5)
        helm.uninstall(access, either, second, patience=0)
        again = helm.install(access, either, staged, VALUES, print_)
        assert (again.revision, again.status) == (1, "deployed")


WAITING = "waiting-for-a-node"
HOOK = f"""
apiVersion: batch/v1
kind: Job
metadata:
  name: {WAITING}
  annotations: {{"helm.sh/hook": post-install}}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{{name: x, image: x}}]
"""


class TestBrokenOff:
    """A chart whose hook needs a node, on a cluster without nodes."""

    @pytest.fixture
    def hooked(self, tmp_path: Path) -> Path:
        folder = tmp_path / "hooked"
        shutil.copytree(STAND_IN, folder)
        (folder / "templates/hook.yaml").write_text(HOOK)
        return folder

    def test_a_killed_install_is_repaired(
        self, cluster: Cluster, clock: Clock, access: Access, tmp_path: Path, hooked: Path
    ) -> None:
        real = version("4.3.1")
        pid = tmp_path / "pid"
        wrapper = tmp_path / "helm"
        wrapper.write_text(f'#!/bin/sh\necho $$ >{pid}\nexec {real.binary} "$@"\n')
        wrapper.chmod(0o755)
        errors: list[Exception] = []

        def install() -> None:
            try:
                helm.install(access, Helm(wrapper, real.version), hooked, VALUES, "one")
            except HyperpodError as error:
                errors.append(error)

        worker = threading.Thread(target=install)
        worker.start()
        until(lambda: cluster.has("Job", WAITING, helm.NAMESPACE))
        os.kill(int(pid.read_text()), signal.SIGKILL)
        worker.join()

        assert errors
        assert existing(helm.release(access)).status == "pending-install"
        cluster.recreate_aggregated = True  # waiting for its deletion would never end
        with pytest.raises(KubeNotReady, match="still being deleted: aws-hyperpod"):
            helm.install(access, real, STAND_IN, VALUES, "two", timeout="5s")
        clock.advance(5)
        repaired = helm.install(access, real, STAND_IN, VALUES, "two")
        assert (repaired.revision, repaired.status, repaired.fingerprint) == (1, "deployed", "two")

    @pytest.mark.parametrize("thread", ["main", "worker"])
    def test_an_interrupt_ends_helm_in_good_order(
        self, cluster: Cluster, access: Access, tmp_path: Path, hooked: Path, thread: str
    ) -> None:
        script = tmp_path / "create.py"
        script.write_text(
            "import sys, threading\n"
            "from pathlib import Path\n"
            "from hyperpod_eks.helm import release as helm\n"
            "from hyperpod_eks.kube import access as kube\n"
            "thread, url, ca, binary, chart = sys.argv[1:]\n"
            "access = kube.Access('demo', url, ca, lambda: 'good')\n"
            "known = helm.Helm(Path(binary), (3, 17, 2))\n"
            "def install():\n"
            "    helm.install(access, known, Path(chart), {}, 'one')\n"
            "if thread == 'main':\n"
            "    install()\n"
            "threading.Thread(target=install, daemon=True).start()\n"
            "threading.Event().wait()\n"
        )
        arguments = (thread, access.endpoint, access.ca, version("3.17.2").binary, hooked)
        with subprocess.Popen(
            [sys.executable, script, *arguments], stderr=subprocess.DEVNULL
        ) as create:
            until(lambda: cluster.has("Job", WAITING, helm.NAMESPACE))
            create.send_signal(signal.SIGINT)
        assert create.returncode

        until(lambda: existing(helm.release(access)).status != "pending-install")
        assert existing(helm.release(access)).status == "failed"

    def test_a_time_out_names_what_helm_waited_for(self, access: Access, hooked: Path) -> None:
        with pytest.raises(HyperpodError, match=f"gave up after 1s, waiting for Job {WAITING}"):
            helm.install(access, version("4.3.1"), hooked, VALUES, "one", timeout="1s")
        failed = existing(helm.release(access))
        assert (failed.status, failed.fingerprint) == ("failed", "")


def until(true: Callable[[], bool]) -> None:
    """Wait for an effect of another process."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.01)


class TestRecords:
    """Reading helm's Secrets without helm."""

    def record(
        self,
        access: Access,
        *,
        name: str = helm.NAME,
        namespace: str = helm.NAMESPACE,
        chart: str = helm.CHART,
        revision: int = 1,
        status: str = "deployed",
        description: str = "hyperpod-eks one",
        alter: Callable[[Any], Any] = lambda document: document,
    ) -> None:
        document = alter(
            {
                "name": name,
                "version": revision,
                "info": {"status": status, "description": description},
                "chart": {"metadata": {"name": chart, "version": "0.1.0"}},
            }
        )
        coded = base64.b64encode(gzip.compress(json.dumps(document).encode())).decode()
        labels = {"owner": "helm", "name": name, "status": status, "version": str(revision)}
        secret: Any = {
            "metadata": {"name": f"sh.helm.release.v1.{name}.v{revision}", "labels": labels},
            "type": "helm.sh/release.v1",
            "data": {"release": base64.b64encode(coded.encode()).decode()},
        }
        kubernetes.CoreV1Api(api_client(access)).create_namespaced_secret(namespace, secret)

    def test_the_newest_revision_counts_as_a_number(self, access: Access) -> None:
        self.record(access, revision=9, status="superseded")
        self.record(access, revision=10, status="pending-upgrade", description="Preparing upgrade")

        found = existing(helm.release(access))

        assert (found.revision, found.status, found.fingerprint) == (10, "pending-upgrade", "")

    @pytest.mark.parametrize(
        ("status", "description", "fingerprint"),
        [
            ("deployed", "hyperpod-eks one", "one"),
            ("deployed", "Upgrade complete", ""),
            ("deployed", "Rollback to 1", ""),
            ("failed", "hyperpod-eks one", ""),
        ],
    )
    def test_only_our_own_success_leaves_a_fingerprint(
        self, access: Access, status: str, description: str, fingerprint: str
    ) -> None:
        self.record(access, status=status, description=description)
        assert existing(helm.release(access)).fingerprint == fingerprint

    def test_the_chart_is_found_where_others_put_it(self, access: Access) -> None:
        self.record(access, name="dependencies")
        self.record(access, name="dependencies", namespace="default", chart="somebody-elses")
        self.record(access, namespace="default", description="Install complete")

        found = [(each.namespace, each.name) for each in helm.releases(access)]

        assert found == [("default", helm.NAME), ("kube-system", "dependencies")]
        assert helm.release(access) is None

    def test_a_record_is_a_release_whatever_is_missing_in_it(self, access: Access) -> None:
        seen: list[Any] = []

        def see(document: Any) -> Any:
            seen.append(document)
            return document

        self.record(access, alter=see)
        alterations: list[Callable[[Any], Any]] = [
            partial(altered, at=at, how=how) for at in places(seen[0]) for how in HOWS
        ]

        for revision, alter in enumerate((*alterations, lambda _: None, lambda _: "?"), start=2):
            self.record(access, revision=revision, alter=alter)
            found = existing(helm.release(access))
            assert (found.revision, found.status) == (revision, "deployed")

    def test_a_record_that_cannot_be_decoded_counts_by_its_labels(self, access: Access) -> None:
        labels = {"owner": "helm", "name": helm.NAME, "status": "failed", "version": "3"}
        begin = b'{"info": {"status": "deployed", "description": "hyperpod-eks x"}'
        endless = begin + b" " * 40_000_000 + b"}"
        packed = [base64.b64encode(gzip.compress(it, 1)) for it in (endless, b"[" * 99_999)]
        records = ["Zm9v", "", *(base64.b64encode(each).decode() for each in packed)]
        for name, content in (("a", {}), *(("b", {"release": each}) for each in records)):
            secret: Any = {"metadata": {"name": name, "labels": labels}, "data": content}
            kubernetes.CoreV1Api(api_client(access)).create_namespaced_secret(
                helm.NAMESPACE, secret
            )
            found = existing(helm.release(access))
            assert (found.revision, found.status, found.fingerprint) == (3, "failed", "")
            kubernetes.CoreV1Api(api_client(access)).delete_namespaced_secret(name, helm.NAMESPACE)


def fake(folder: Path, script: str) -> Path:
    """Create a program with the name helm."""
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / "helm"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    return binary


class TestFind:
    @pytest.fixture(autouse=True)
    def bare(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """No helm on PATH."""
        monkeypatch.delenv("HYPERPOD_EKS_HELM", raising=False)
        monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def test_other_tests_know_the_version_that_helm_prints(self) -> None:
        real, known = version("4.3.1").binary, known_helm() / "helm"
        assert find_helm(known).version == find_helm(real).version
        said, same = (
            subprocess.run([str(binary), "version"], capture_output=True, check=True).stdout
            for binary in (real, known)
        )
        assert said == same

    def test_the_option_comes_first_then_the_variable_then_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        option = fake(tmp_path / "option", "echo v4.0.0")
        variable = fake(tmp_path / "variable", "echo v3.18.0")
        on_path = fake(tmp_path / "path", "echo v3.17.0-rc.1")
        monkeypatch.setenv("HYPERPOD_EKS_HELM", str(variable))

        assert find_helm(option) == Helm(option, (4, 0, 0))
        assert find_helm() == Helm(variable, (3, 18, 0))
        monkeypatch.delenv("HYPERPOD_EKS_HELM")
        assert find_helm() == Helm(on_path, (3, 17, 0))

    def test_the_newest_that_was_fetched_steps_in_for_one_that_is_too_old(
        self, tmp_path: Path
    ) -> None:
        fake(tmp_path / "path", "echo v3.16.4")
        for number in ("3.17.2", "10.0.0", "4.3.1"):
            fake(tmp_path / "cache/hyperpod-eks/helm" / number, f"echo v{number}")

        assert find_helm().version == (10, 0, 0)

    def test_without_any_and_no_download_the_options_are_named(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HYPERPOD_EKS_HELM", "never")
        with pytest.raises(Usage, match="on PATH, and HYPERPOD_EKS_HELM is") as caught:
            find_helm()
        for way in ("--helm", "HYPERPOD_EKS_HELM", "https://helm.sh"):
            assert way in caught.value.hint

    @pytest.mark.parametrize(
        ("script", "says"),
        [
            ("echo v3.16.4", r"is helm v3\.16\.4: 3\.17 is the oldest"),
            ("echo hello", "is no helm: hello"),
            ("echo broken >&2; exit 1", "is no helm: broken"),
            ("yes hello", "is no helm: hello$"),
            ("yes broken >&2", "is no helm: broken$"),
            (r"printf '\377\nmore\n'", "is no helm: �$"),
            ("kill -9 $$", "is no helm: it says nothing$"),
        ],
    )
    def test_an_option_that_will_not_do_is_refused(
        self, tmp_path: Path, script: str, says: str
    ) -> None:
        fake(tmp_path / "path", "echo v4.0.0")
        with pytest.raises(Usage, match=f"--helm: .*{says}"):
            find_helm(fake(tmp_path / "option", script))

    def test_a_program_is_asked_for_its_version_once_until_it_is_another(
        self, tmp_path: Path
    ) -> None:
        asked = tmp_path / "asked"
        program = fake(tmp_path / "option", f"echo >>{asked}; echo v4.0.0")

        assert [find_helm(program).version for _ in range(2)] == [(4, 0, 0)] * 2
        assert asked.read_text() == "\n"

        fake(tmp_path / "option", f"echo >>{asked}; echo v4.10.0")
        assert find_helm(program).version == (4, 10, 0)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(Usage, match="cannot be run"):
            find_helm(tmp_path / "nothing")


class TestRun:
    """How helm is run, observed by a program in its place."""

    @pytest.mark.parametrize("number", [(3, 17, 2), (4, 3, 1)])
    def test_arguments_and_environment(
        self,
        access: Access,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: tuple[int, int, int],
    ) -> None:
        for name in ("LD_LIBRARY_PATH", "HELM_NAMESPACE", "HELM_DRIVER", "KUBECONFIG"):
            monkeypatch.setenv(name, "the user's")
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
        seen = tmp_path / "seen"
        script = f'printf "%s\\n" "$@" >{seen}.arguments; env >{seen}.environment'
        binary = fake(tmp_path / "with blank", f"{script}; cat >{seen}.values; exit 1")
        with pytest.raises(HyperpodError, match="helm upgrade hyperpod-dependencies: exit code 1"):
            helm.install(access, Helm(binary, number), STAND_IN, VALUES, "one")

        arguments = Path(f"{seen}.arguments").read_text().splitlines()
        lines = Path(f"{seen}.environment").read_text().splitlines()
        environment = dict(line.split("=", 1) for line in lines)
        assert json.loads(Path(f"{seen}.values").read_text()) == VALUES
        assert {"--install", "--take-ownership"} < set(arguments)
        assert not {"--wait", "--create-namespace", "--force"} & set(arguments)
        assert ("--server-side=false" in arguments) == (number >= (4,))
        assert arguments[arguments.index("--timeout") + 1] == runner.TIMEOUT
        assert not any("good" in text for text in (*arguments, *lines))
        assert environment["HTTPS_PROXY"] == "http://proxy.invalid"
        assert "the user's" not in environment.values()
        home = Path(arguments[arguments.index("--kubeconfig") + 1]).parent
        for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECACHEDIR"):
            assert Path(environment[name]).parent == home
        assert not home.exists()

    @pytest.mark.parametrize(
        ("stderr", "error", "says"),
        [
            (
                "Error: x is forbidden: namespace aws-hyperpod because it is being terminated",
                KubeNotReady,
                "helm upgrade hyperpod-dependencies: x is forbidden",
            ),
            ("Error: query: failed to query with labels: Unauthorized", KubeNotReady, "Unauth"),
            (
                "Error: Kubernetes cluster unreachable: context deadline exceeded",
                KubeNotReady,
                "unreachable",
            ),
            (
                "Error: another operation (install/upgrade/rollback) is in progress",
                KubeNotReady,
                "in progress",
            ),
            (
                "WARNING: x\nError: failed post-install: timed out waiting for the condition",
                HyperpodError,
                "waiting for the cluster: helm upgrade hyperpod-dependencies: failed post-install",
            ),
            ("Error: context canceled", Unfinished, "helm was stopped"),
            (
                "Error: parse error at (x.yaml:1)",
                HyperpodError,
                "helm upgrade hyperpod-dependencies: parse error at",
            ),
        ],
    )
    def test_what_helm_says_is_told_and_classified(
        self, access: Access, tmp_path: Path, stderr: str, error: type[HyperpodError], says: str
    ) -> None:
        (tmp_path / "stderr").write_text(stderr)
        binary = fake(tmp_path, f"cat >/dev/null; cat {tmp_path / 'stderr'} >&2; exit 1")

        with pytest.raises(HyperpodError, match=says) as caught:
            helm.install(access, Helm(binary, (4, 3, 1)), STAND_IN, VALUES, "one")
        assert type(caught.value) is error

    def test_no_access_is_no_access_yet_and_helm_is_not_run(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        ca = base64.b64encode(cluster.ca_pem).decode()
        stranger = Access("demo", cluster.url, ca, lambda: "unknown")
        nothing = Helm(tmp_path / "nothing", (4, 3, 1))
        with pytest.raises(KubeNotReady, match="401"):
            helm.install(stranger, nothing, STAND_IN, VALUES, "one")


def test_a_role_that_another_release_owns_is_left_alone(cluster: Cluster, access: Access) -> None:
    rbac = kubernetes.RbacAuthorizationV1Api(api_client(access))
    for name, owner in (("orphan", {}), ("owned", {"meta.helm.sh/release-name": "another"})):
        role: Any = {"metadata": {"name": name, "annotations": owner}, "rules": []}
        rbac.create_cluster_role(role)

    assert kube.delete_leftover_cluster_roles(access, ["orphan", "owned", "gone"]) == ["orphan"]
    assert cluster.has("ClusterRole", "owned")
    assert not cluster.has("ClusterRole", "orphan")


def test_a_helm_that_does_not_heed_a_signal_is_killed(tmp_path: Path) -> None:
    """Also if our own process is killed and cannot do it."""
    stubborn, pid = tmp_path / "helm", tmp_path / "pid"
    stubborn.write_text(f"#!/bin/sh\ntrap '' TERM\necho $$ > {pid}\nwhile :; do sleep 0.1; done")
    stubborn.chmod(0o755)
    code = (
        "import asyncio, os, sys; from hyperpod_eks.helm import runner\n"
        "runner.LAST_WORDS = 0.3\n"
        "asyncio.run(runner._run([sys.argv[1], 'upgrade'], None, os.environ))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(stubborn)]) as ours:
        while ours.poll() is None and not (pid.exists() and pid.read_text()):
            time.sleep(0.02)
        ours.kill()
    number = int(pid.read_text())
    deadline = time.monotonic() + 20
    while Path(f"/proc/{number}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
