"""Further Helm charts (`charts`), with the real helm against the embedded stack."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client as kubernetes

from hyperpod_eks.config.load import load
from hyperpod_eks.config.warnings import warnings
from hyperpod_eks.errors import Foreign, HyperpodError
from hyperpod_eks.helm import chart as charts
from hyperpod_eks.helm import release as releases
from hyperpod_eks.helm.program import Helm
from hyperpod_eks.helm.remote import Remote
from hyperpod_eks.kube.access import Access, kubeconfig
from hyperpod_eks.local import CHART
from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import Cluster, Delays, Identity
from hyperpod_eks.local.tls import Pki
from hyperpod_eks.state.declared import located, portable
from tests.cli import test_objects as in_cluster
from tests.conftest import HELM, User, api_client
from tests.test_chart import Server


def chart(folder: Path, name: str, version: str = "1.2.3", **files: str) -> Path:
    """Write a chart with a ConfigMap that shows the value ``note``."""
    content = {
        "Chart.yaml": yaml.safe_dump({"apiVersion": "v2", "name": name, "version": version}),
        "values.yaml": "note: none\n",
        "templates/note.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "
        + name
        + "}\ndata: {note: {{ .Values.note | quote }}}\n",
        **files,
    }
    for each, text in content.items():
        file = folder / name / each
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / name


def packed(folder: Path) -> bytes:
    """Return a chart's folder as `helm package` would."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, folder.name)
    return buffer.getvalue()


class TestRecords:
    """What the label of a release's records says through every change of it."""

    @pytest.fixture
    def cluster(self, pki: Pki) -> Iterator[Cluster]:
        tokens = {"good": Identity("admin")}
        cluster = Cluster(Clock(), tokens.get, "1.33", pki, delays=Delays(0, 0, 5))
        yield cluster
        cluster.stop()

    @pytest.fixture
    def access(self, cluster: Cluster) -> Access:
        ca = base64.b64encode(cluster.ca_pem).decode()
        return Access("demo", cluster.url, ca, lambda: "good")

    @pytest.mark.sample("3.17.2")
    @pytest.mark.parametrize("version", ["3.17.2", "4.3.1"])
    def test_it_is_ours_until_it_is_uninstalled(
        self, version: str, cluster: Cluster, access: Access, tmp_path: Path
    ) -> None:
        binary = HELM / version / "helm"
        if not binary.exists():
            pytest.skip(f"no helm {version} in .cache/helm")
        major, minor, patch = map(int, version.split("."))
        helm = Helm(binary, (major, minor, patch))
        folder = chart(tmp_path, "notes")

        def install(note: str, owner: str = "lineage-1") -> releases.Release:
            return releases.install(
                access, helm, folder, {"note": note}, note, name="notes", namespace="team",
                owner=owner,
            )  # fmt: skip

        assert (install("one").owner, cluster.has("Namespace", "team")) == ("lineage-1", True)
        with pytest.raises(Foreign, match="team/notes has just been installed by somebody else"):
            install("two", "lineage-2")
        # somebody upgrades it by hand: it stays ours, and no longer matches
        with kubeconfig(access) as config:

            def by_hand(*words: str) -> None:
                where = ("--namespace", "team", "--kubeconfig", str(config))
                command = [str(binary), *words, *where]
                subprocess.run(command, check=True, capture_output=True)

            by_hand("upgrade", "notes", str(folder), "--set", "note=theirs")
            found = releases.release(access, "notes", "team")
            assert found
            assert (found.owner, found.revision, found.fingerprint) == ("lineage-1", 2, "")
            by_hand("rollback", "notes", "1")
            found = releases.release(access, "notes", "team")
            assert found
            assert (found.owner, found.revision, found.fingerprint) == ("lineage-1", 3, "")
        # ours is found in any namespace, others' in the declared one alone
        assert releases.release(access, "notes", "other") is None
        assert releases.release(access, "notes", "other", "lineage-2") is None
        elsewhere = releases.release(access, "notes", "other", "lineage-1")
        assert (elsewhere and elsewhere.namespace) == "team"
        # an upgrade that was killed is rolled back before the next one
        self.leave_pending(access)
        found = install("two")
        assert (found.owner, found.status, found.fingerprint) == ("lineage-1", "deployed", "two")
        assert found.revision > 4  # the rollback is one
        releases.uninstall(access, helm, found, patience=0)
        assert releases.release(access, "notes", "team") is None
        assert cluster.has("Namespace", "team")

    def test_a_record_larger_than_a_secret_is_named(self, access: Access, tmp_path: Path) -> None:
        binary = HELM / "4.3.1" / "helm"
        if not binary.exists():
            pytest.skip("no helm 4.3.1 in .cache/helm")
        noise = base64.b64encode(os.urandom(1_100_000)).decode()
        folder = chart(tmp_path, "notes", **{"files/noise.txt": noise})
        with pytest.raises(
            HyperpodError, match=r"helm upgrade notes: .* may not be more than"
        ) as caught:
            releases.install(
                access, Helm(binary, (4, 3, 1)), folder, {}, "x", name="notes", namespace="team",
                owner="lineage-1",
            )  # fmt: skip
        assert "in a Secret, which has at most 1 MiB" in caught.value.hint

    def leave_pending(self, access: Access) -> None:
        """Write the record that a killed `helm upgrade` leaves."""
        api = kubernetes.CoreV1Api(api_client(access))
        newest: Any = api.read_namespaced_secret("sh.helm.release.v1.notes.v3", "team")
        record = json.loads(
            gzip.decompress(base64.b64decode(base64.b64decode(newest.data["release"])))
        )
        record |= {"version": 4, "info": record["info"] | {"status": "pending-upgrade"}}
        coded = base64.b64encode(gzip.compress(json.dumps(record).encode()))
        labels = newest.metadata.labels | {"version": "4", "status": "pending-upgrade"}
        secret: Any = {
            "metadata": {"name": "sh.helm.release.v1.notes.v4", "labels": labels},
            "type": newest.type,
            "data": {"release": base64.b64encode(coded).decode()},
        }
        api.create_namespaced_secret("team", secret)


def declared(user: User, charts: str) -> None:
    """Write the config of a cluster with these charts."""
    head = f"name: demo\nregion: us-west-2\nchart: {{path: {CHART}}}\n"
    text = head + (f"charts:\n{charts}" if charts else "")
    (user.folder / "demo.yaml").write_text(text)


def create(user: User, *words: str) -> Any:
    said = user.types("create", "-f", "demo.yaml", *words, "-o", "json")
    assert said.code == 0, said.err
    return said.document


def content(user: User) -> dict[str, Any]:
    """Return everything in Kubernetes."""
    (found,) = user.stack.inventory()["kubernetes"].values()
    return dict(found)


def note(user: User, name: str, namespace: str) -> str | None:
    found = content(user).get(f"configmaps/{namespace}/{name}")
    return str(found["data"]["note"]) if found else None


def rows(user: User, verb: str = "status") -> dict[str, Any]:
    said = user.types(verb, "-f", "demo.yaml", "-o", "json")
    assert said.code == 0, said.err
    if verb == "plan":
        found = {each["key"]: each["action"] for each in said.document["resources"]}
    else:
        (step,) = (each for each in said.document["steps"] if each["name"] == "charts")
        found = {f"charts/{each['name']}": each["state"] for each in step["resources"]}
    return {key: each for key, each in found.items() if key.startswith("charts/")}


def why(user: User) -> dict[str, str]:
    """Return why `plan` changes each release, by name."""
    said = user.types("plan", "-f", "demo.yaml", "-o", "json")
    resources = said.document["resources"]
    rows = [each for each in resources if each["key"].startswith("charts/")]
    return {each["key"].partition("/")[2]: each["why"] for each in rows}


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Server]:
    """A Helm repository that has the chart ``far`` in versions 1.2.3 and 1.3.0."""
    (tmp_path / "served").mkdir()
    server = Server(tmp_path / "served")
    entries = []
    for version in ("1.2.3", "1.3.0"):
        folder = chart(tmp_path / version, "far", version)
        file = f"far-{version}.tgz"
        (server.folder / file).write_bytes(packed(folder))
        about = {"apiVersion": "v2", "name": "far", "version": version}
        entries.append(about | {"urls": [f"{server.url}/{file}"]})
    index = {"apiVersion": "v1", "entries": {"far": entries}}
    (server.folder / "index.yaml").write_text(yaml.safe_dump(index))
    yield server
    server.stop()


def test_charts_come_change_and_go_with_the_config(
    user: User, repository: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    chart(user.folder, "near")
    both = (
        '  near: {chart: near, values: {note: "x${env:NOTE}y"}}\n'
        f"  far: {{chart: far, repository: '{repository.url}', version: 1.2.3, namespace: team,"
        " after: [near, coredns, nodes]}\n"
    )
    monkeypatch.setenv("NOTE", "SENT-1")
    declared(user, both)
    create(user)
    assert (note(user, "near", "near"), note(user, "far", "team")) == ("xSENT-1y", "none")
    assert rows(user) == {"charts/near": "ready", "charts/far": "ready"}
    assert set(rows(user, "plan").values()) == {"keep"}
    # what changes: a variable, a version, a file, and what others did
    monkeypatch.setenv("NOTE", "SENT-2")
    declared(user, both.replace("1.2.3", "1.3.0"))
    assert set(rows(user, "plan").values()) == {"change"}
    assert why(user) == {"near": "values changed: note", "far": "version 1.2.3 → 1.3.0"}
    create(user)
    assert note(user, "near", "near") == "xSENT-2y"
    chart(user.folder, "near", **{"templates/more.yaml": "# more\n"})
    assert rows(user, "plan") == {"charts/near": "change", "charts/far": "keep"}
    now = f"now {user.folder / 'near'}"
    assert why(user)["near"] == f"the content of the chart or its images changed: {now}"
    assert "SENT" not in user.types("plan", "-f", "demo.yaml", "-o", "json").out
    create(user)
    text = (user.folder / "demo.hyperpod-eks.json").read_text()
    assert json.loads(text)["schema"] == "hyperpod-eks/manifest/v2"  # 0.1.0 would drop releases
    assert "${env:NOTE}" in text
    assert "SENT" not in text
    # one that is no longer declared goes, with or without a manifest; its namespace stays
    declared(user, "  near: {chart: near}\n")
    create(user, "--yes")
    assert (note(user, "near", "near"), note(user, "far", "team")) == ("none", None)
    assert "namespaces/team" in content(user)
    (user.folder / "demo.hyperpod-eks.json").unlink()
    assert rows(user) == {"charts/near": "ready"}
    user.mutations()
    said = user.types("delete", "demo", "--yes", "-f", "demo.yaml")
    assert said.code == 0, said.err


def test_a_chart_that_cannot_be_read_stops_a_create_and_no_delete(user: User) -> None:
    """A folder that cannot be read any more is no reason to keep a cluster that costs money."""
    shutil.copytree(CHART, user.folder / "chart")
    user.makes("demo", "--chart", "chart")
    os.mkfifo(user.folder / "chart" / "pipe")  # nobody writes to it
    assert user.types("status", "demo").code == 0
    (user.folder / "chart" / "templates" / "gone.yaml").symlink_to("nowhere")
    (user.folder / "chart" / "pipe").unlink()
    for verb in ("plan", "create"):
        said = user.types(verb, "demo")
        assert said.code == 2, said.err
        assert "chart/templates/gone.yaml is not a file that can be read; remove or" in said.err
    assert user.types("status", "demo").code == 0
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err


def by_hand(user: User, *words: str) -> None:
    """Run helm as somebody with the cluster's kubeconfig does."""
    said = user.types("kubeconfig", "demo", "--kubeconfig", "kubeconfig")
    assert said.code == 0, said.err
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        [HELM / "4.3.1" / "helm", *words, "--kubeconfig", "kubeconfig"],
        check=True,
        capture_output=True,
        env=os.environ | {"PATH": path},
    )


@pytest.mark.sample("uninstall near --keep-history --namespace near")
@pytest.mark.parametrize(
    "change",
    [
        "upgrade near ./near --set note=theirs --namespace near",
        "uninstall near --keep-history --namespace near",
        "uninstall hyperpod-dependencies --keep-history --namespace kube-system",
    ],
)
def test_what_others_do_with_a_release_is_put_right(user: User, change: str) -> None:
    user.has("demo")
    chart(user.folder, "near")
    declared(user, "  near: {chart: ./near}\n")
    create(user)
    before = content(user)
    by_hand(user, *change.split())
    planned = user.types("plan", "-f", "demo.yaml", "-o", "json").document["resources"]
    changed = "helm/release" if "hyperpod" in change else "charts/near"
    changes = [each for each in planned if each["action"] == "change"]
    assert [each["key"] for each in changes] == [changed]
    assert changes[0]["why"].endswith("its last change failed, or is somebody else's")
    create(user)
    assert content(user).keys() >= {key for key in before if "helm.release" not in key}
    assert note(user, "near", "near") == "none"
    assert user.types("plan", "-f", "demo.yaml", "--detailed-exitcode").code == 0


def test_a_release_of_others_stops_the_run(user: User) -> None:
    user.has("demo")
    folder = chart(user.folder, "near")
    by_hand(user, "install", "near", str(folder), "--namespace", "near", "--create-namespace")
    declared(user, "  near: {chart: near, values: {note: ours}}\n")
    before = content(user)
    for verb, code in (("create", 7), ("preflight", 3)):
        said = user.types(verb, "-f", "demo.yaml", "-o", "json")
        assert (said.code, "near/near already exists" in said.out) == (code, True), said.err
    # neither does a delete touch it, nor one under a name that was ours once
    declared(user, "")
    create(user)
    assert content(user) == before


@pytest.mark.prove
def test_a_release_stays_in_its_namespace(user: User) -> None:
    user.has("demo")
    chart(user.folder, "near")
    declared(user, "  near: {chart: near, values: {note: ours}}\n")
    create(user)
    declared(user, "  near: {chart: near, namespace: other, values: {note: ours}}\n")
    assert rows(user, "plan") == {"charts/near": "refuse"}
    said = user.types("create", "-f", "demo.yaml")
    assert (said.code, "helm cannot move a release" in said.err) == (2, True), said.err
    declared(user, "")
    create(user, "--yes")
    declared(user, "  near: {chart: near, namespace: other, values: {note: ours}}\n")
    create(user)
    assert (note(user, "near", "near"), note(user, "near", "other")) == (None, "ours")


@pytest.mark.sample("change2-refused")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("chart: far", "chart: fir"), "fir"),
        (("1.2.3", "1.2.4"), "1.2.4"),
        (("127.0.0.1", "127.0.0.2"), "refused"),
    ],
)
def test_a_chart_that_cannot_be_downloaded_stops_the_run_before_it_begins(
    user: User, repository: Server, change: tuple[str, str], says: str
) -> None:
    text = f"  far: {{chart: far, repository: '{repository.url}', version: 1.2.3}}\n"
    declared(user, text.replace(*change))
    said = user.types("create", "-f", "demo.yaml")
    assert said.code == 3, said.err
    assert "chart-download: charts.far.chart: " in said.err
    assert says in said.err
    assert user.mutations() == []
    said = user.types("preflight", "-f", "demo.yaml", "-o", "json")
    (found,) = (each for each in said.document["findings"] if each["id"] == "chart-download")
    assert (found["severity"], found["seen"]["setting"]) == ("error", "charts.far.chart")


@pytest.mark.prove
def test_another_machine_finds_the_charts_or_leaves_them(user: User, tmp_path: Path) -> None:
    here = chart(tmp_path, "near")
    declared(user, f"  near: {{chart: {here}}}\n")
    user.has("demo")
    create(user)
    (user.folder / "demo.yaml").unlink()
    (user.folder / "demo.hyperpod-eks.json").unlink()
    away = here.rename(tmp_path / "away")
    for verb in ("plan", "create", "status"):
        said = user.types(verb, "demo", "-o", "json")
        assert said.code == 0, said.err
        assert "charts.near.chart: the chart is not on this machine" in said.err
    assert note(user, "near", "near") == "none"
    kept = user.types("config", "show", "demo")
    assert f"chart: {releases_digest(away)}" in kept.out, kept.err
    # without a release there is nothing that could stay
    by_hand(user, "uninstall", "near", "--namespace", "near")
    for verb, code in (("create", 2), ("preflight", 3)):
        said = user.types(verb, "demo")
        assert said.code == code, said.err
        assert "charts.near.chart: the chart is not on this machine, and no release" in (
            said.out + said.err
        )
    # a manifest that has seen it a moment ago would not believe that it is gone
    (user.folder / "demo.hyperpod-eks.json").unlink()
    declared(user, f"  near: {{chart: {away}}}\n")
    create(user)
    assert note(user, "near", "near") == "none"


def releases_digest(folder: Path) -> str:
    return f"sha256:{charts.digest(folder)}"


def test_a_config_in_the_bucket_names_no_folder_of_its_reader(tmp_path: Path) -> None:
    config = {"charts": {"a": {"chart": str(tmp_path)}, "b": {"chart": "oci://ghcr.io/b"}}}
    kept = portable(config)
    assert kept["charts"]["a"]["chart"] == "sha256:unknown"  # it has no Chart.yaml
    assert kept["charts"]["b"] == config["charts"]["b"]
    folder = chart(tmp_path, "a")
    kept = portable({"charts": {"a": {"chart": str(folder)}}})
    assert kept["charts"]["a"]["chart"] == releases_digest(folder)
    known = {"charts.a.chart": [str(folder)]}
    assert located(kept, known)["charts"]["a"]["chart"] == str(folder)
    assert located(kept, {}) == kept
    assert portable(kept, kept) == kept
    config = {"charts": {"a": {"chart": "a" * 5000}}}
    assert located(config, {})["charts"]["a"]["chart"] == "sha256:unknown"


def test_without_nat_the_images_of_charts_are_a_warning(tmp_path: Path) -> None:
    ours = {"chart": "oci://ghcr.io/a", "version": "1.2.3", "values": {"image": {"registry": "x"}}}
    config = {
        "name": "demo",
        "region": "us-west-2",
        "network": {"nat": "none"},
        "chart": {"values": {"registry": "x"}},
        "charts": {"a": ours, "b": {"chart": "oci://ghcr.io/b", "version": "1.2.3"}},
    }
    found = [each for each in warnings(load(config, {}, {}, files=False)) if "NAT" in each]
    assert [each.partition(":")[0] for each in found] == ["charts.b"]


class Registry:
    """An OCI registry over HTTPS with one chart (OCI distribution specification 1.1, "Pull")."""

    def __init__(self, pki: Pki, name: str, version: str, archive: bytes) -> None:
        config = json.dumps({"name": name, "version": version, "apiVersion": "v2"}).encode()
        helm = "application/vnd.cncf.helm"
        self.blobs = {self.digest(each): each for each in (config, archive)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.about(f"{helm}.config.v1+json", config),
            "layers": [self.about(f"{helm}.chart.content.v1.tar+gzip", archive)],
        }
        self.manifest = json.dumps(manifest).encode()
        registry, tag = self, f"/v2/team/{name}/manifests/{version}"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers["Authorization"] != LOGIN:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="team"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                named = self.path.rpartition("/")[2]
                content = registry.blobs.get(named, b"")
                kind = "application/octet-stream"
                if self.path == tag or named == registry.digest(registry.manifest):
                    content, kind = registry.manifest, MANIFEST
                self.send_response(200 if content else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Docker-Content-Digest", registry.digest(content))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.socket = pki.server_context().wrap_socket(self.http.socket, server_side=True)
        self.place = f"127.0.0.1:{self.http.server_port}/team/{name}"
        threading.Thread(target=partial(self.http.serve_forever, 0.01), daemon=True).start()

    @staticmethod
    def digest(content: bytes) -> str:
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def about(self, kind: str, content: bytes) -> dict[str, object]:
        return {"mediaType": kind, "digest": self.digest(content), "size": len(content)}


LOGIN = f"Basic {base64.b64encode(b'me:secret').decode()}"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def test_a_chart_comes_from_a_registry_with_dockers_login_and_the_certificates_of_aws(
    tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = HELM / "4.3.1" / "helm"
    if not binary.exists():
        pytest.skip("no helm 4.3.1 in .cache/helm")
    archive = packed(chart(tmp_path, "far"))
    registry = Registry(pki, "far", "1.2.3", archive)
    (tmp_path / "ca.pem").write_bytes(pki.ca_pem)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    login = {"auths": {registry.place.partition("/")[0]: {"auth": LOGIN.removeprefix("Basic ")}}}
    (tmp_path / "config.json").write_text(json.dumps(login))
    remote = Remote(f"oci://{registry.place}", "", "1.2.3")
    (tmp_path / "trusting").mkdir()
    (tmp_path / "doubting").mkdir()
    helm = Helm(binary, (4, 3, 1), str(tmp_path / "ca.pem"))
    pulled = remote.pull(helm, tmp_path / "trusting", "charts.far.chart")
    assert (pulled / "templates/note.yaml").is_file()
    with pytest.raises(HyperpodError, match=r"charts\.far\.chart: .*certificate") as caught:
        remote.pull(Helm(binary, (4, 3, 1)), tmp_path / "doubting", "charts.far.chart")
    assert caught.value.cause
    assert caught.value.cause.id == "chart-not-fetched"
    (tmp_path / "config.json").unlink()
    with pytest.raises(HyperpodError, match=r"charts\.far\.chart: .*(401|credential)"):
        remote.pull(helm, tmp_path / "doubting", "charts.far.chart")
    registry.http.shutdown()
    registry.http.server_close()


def definition(lines: int) -> str:
    """Return a CustomResourceDefinition that says a lot, in text that can be compressed."""
    says = " ".join(f"Field {number} of the specification of a job." for number in range(lines))
    schema = {"type": "object", "description": says, "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": schema}}},
    }
    return yaml.safe_dump(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "jobs.example.org"},
            "spec": {
                "group": "example.org",
                "names": {
                    "kind": "Job",
                    "plural": "jobs",
                    "singular": "job",
                    "listKind": "JobList",
                },
                "scope": "Namespaced",
                "versions": [version],
            },
        }
    )


@pytest.mark.prove
def test_definitions_of_over_a_megabyte_come_and_stay(user: User) -> None:
    user.has("demo")
    big = definition(26_000)
    assert len(big) > 1 << 20
    chart(user.folder, "near", **{"crds/jobs.yaml": big})
    declared(user, "  near: {chart: near}\n")
    create(user)
    name = "customresourcedefinitions.apiextensions.k8s.io/jobs.example.org"
    assert name in content(user)
    assert rows(user, "plan") == {"charts/near": "keep"}
    declared(user, "")
    create(user, "--yes")
    assert name in content(user)


@pytest.mark.prove
def test_what_only_uninstalls_reads_again_what_another_machine_changed(
    user: User, tmp_path: Path
) -> None:
    chart(user.folder, "near")
    text = "  near: {chart: near, values: {note: %s}}\n"
    declared(user, text % "ours")
    user.has("demo")
    create(user)
    shutil.copytree(user.folder, tmp_path / "b")
    (tmp_path / "b/demo.hyperpod-eks.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "b")
        theirs = User(tmp_path / "b", user.stack)
        declared(theirs, text % "theirs")
        create(theirs)
    assert note(user, "near", "near") == "theirs"
    declared(user, "")
    create(user, "--yes")
    assert note(user, "near", "near") is None


@pytest.mark.prove
def test_a_namespace_that_is_declared_comes_before_the_chart_in_it(user: User) -> None:
    user.has("demo")
    chart(user.folder, "near")
    declared(user, "  near: {chart: near, namespace: team}\n")
    labelled = (
        "objects: [{apiVersion: v1, kind: Namespace, metadata: {name: team, labels: {a: b}}}]\n"
    )
    file = user.folder / "demo.yaml"
    file.write_text(file.read_text() + labelled)
    create(user)
    labels = content(user)["namespaces/team"]["metadata"]["labels"]
    assert (labels["a"], labels.get("name")) == ("b", None)  # helm's own would have that label
    assert note(user, "near", "team") == "none"
    assert rows(user, "plan") == {"charts/near": "keep"}
    # both go, the release first
    declared(user, "")
    create(user, "--yes")
    assert not [key for key in content(user) if "team" in key]


def test_a_release_with_claims_whose_volumes_would_go_is_kept(user: User) -> None:
    """In an EKS cluster that stays, Kubernetes deletes the volumes with the release's claims."""
    user.has("demo")
    template = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: "
    spec = "{accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n"
    chart(user.folder, "near", **{"templates/claim.yaml": template + spec})
    declared(user, "  near: {chart: near}\n")
    create(user)
    in_cluster.claims(user, "near")
    declared(user, "")
    said = user.types("create", "-f", "demo.yaml", "--yes")
    assert said.code == 0, said.err
    assert "charts/near (near/near) is no longer declared; it is kept, because it" in said.err
    assert note(user, "near", "near") == "none"
    volume = "/api/v1/persistentvolumes/pvc-near"
    policy = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    in_cluster.kubernetes("PATCH", volume, policy, "application/merge-patch+json")
    create(user, "--yes")
    assert note(user, "near", "near") is None
