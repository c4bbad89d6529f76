"""The real helm, 3 and 4, against the embedded Kubernetes API."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import INSTANT, Cluster, Identity
from hyperpod_eks.local.tls import Pki

BINARIES = Path(__file__).parents[2] / ".cache" / "helm"
HELM3, HELM4 = "3.17.2", "4.3.1"
# helm 4 must not use server-side apply with a chart that ships an aggregated ClusterRole.
CLIENT_SIDE = {HELM3: (), HELM4: ("--server-side=false",)}

# A small chart with the features of HyperPod's chart, written for this test.
CHART = {
    "Chart.yaml": """
        apiVersion: v2
        name: sample
        version: 0.1.0
    """,
    "crds/widgets.yaml": """
        apiVersion: apiextensions.k8s.io/v1
        kind: CustomResourceDefinition
        metadata: {name: widgets.example.com}
        spec:
          group: example.com
          scope: Namespaced
          names: {plural: widgets, singular: widget, kind: Widget}
          versions:
            - name: v1
              served: true
              storage: true
              schema:
                openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
    """,
    "templates/all.yaml": """
        apiVersion: v1
        kind: Namespace
        metadata: {name: aws-hyperpod}
        ---
        apiVersion: apps/v1
        kind: DaemonSet
        metadata: {name: agent, namespace: aws-hyperpod}
        spec:
          selector: {matchLabels: {app: agent}}
          template:
            metadata: {labels: {app: agent}}
            spec:
              containers: [{name: agent, image: "agent:{{ .Values.tag }}"}]
        ---
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: operator, namespace: aws-hyperpod}
        spec:
          selector: {matchLabels: {app: operator}}
          template:
            metadata: {labels: {app: operator}}
            spec:
              containers:
                - name: operator
                  image: operator:1
                  ports: [{containerPort: 8080}, {containerPort: 8443}]
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRole
        metadata: {name: jobs-admin}
        aggregationRule: {clusterRoleSelectors: [{matchLabels: {to-jobs-admin: "true"}}]}
        rules: []
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRole
        metadata: {name: jobs-edit, labels: {to-jobs-admin: "true"}}
        rules: [{apiGroups: [batch], resources: [jobs], verbs: [create]}]
        {{- if .Values.extras }}
        ---
        apiVersion: example.com/v1
        kind: Widget
        metadata: {name: extra, namespace: aws-hyperpod}
        spec: {size: 1}
        {{- end }}
    """,
    "values.yaml": """
        tag: "1"
        extras: true
    """,
}


class Done(NamedTuple):
    code: int
    out: str
    err: str


Helm = Callable[..., Done]


@pytest.fixture
def cluster(pki: Pki) -> Iterator[Cluster]:
    cluster = Cluster(Clock(), lambda _: Identity("admin"), "1.33", pki, delays=INSTANT)
    cluster.add_node("hyperpod-i-0a", {}, ready=True)
    yield cluster
    cluster.stop()


@pytest.fixture
def helm(cluster: Cluster, tmp_path: Path) -> Helm:
    """Return a function that runs `helm VERSION COMMAND ...`; upgrades use the chart above."""
    authority = base64.b64encode(cluster.ca_pem).decode()
    endpoint = {"server": cluster.url, "certificate-authority-data": authority}
    config = tmp_path / "kubeconfig"
    document = {
        "current-context": "eks",
        "contexts": [{"name": "eks", "context": {"cluster": "eks", "user": "eks"}}],
        "clusters": [{"name": "eks", "cluster": endpoint}],
        "users": [{"name": "eks", "user": {"token": "good"}}],
    }
    config.write_text(json.dumps(document))
    config.chmod(0o600)
    for name, text in CHART.items():
        file = tmp_path / "sample" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    homes = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECACHEDIR")
    env = {
        **os.environ,
        **{home: str(tmp_path / home) for home in homes},
        "KUBECONFIG": str(config),
    }

    def helm(version: str, command: str, *arguments: str) -> Done:
        binary = BINARIES / version / "helm"
        if not binary.exists():
            pytest.skip(f"helm {version} is not at {binary}")
        chart = [str(tmp_path / "sample")] if command == "upgrade" else []
        line = [str(binary), command, *(["--install"] if chart else []), "deps", *chart]
        line += ["--namespace", "kube-system", *arguments]
        done = subprocess.run(line, env=env, capture_output=True, text=True, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    return helm


def charted(cluster: Cluster) -> set[str]:
    """Return the keys of the chart's objects, without the CRD, which helm never deletes."""
    bare = {"namespaces/default", "namespaces/kube-system", "namespaces/kube-public"}
    bare |= {"namespaces/kube-node-lease", "nodes/hyperpod-i-0a", "services/default/kubernetes"}
    bare.add("customresourcedefinitions.apiextensions.k8s.io/widgets.example.com")
    everywhere = ("/default", "/kube-root-ca.crt")  # ServiceAccounts and ConfigMaps
    found = {key for key in cluster.snapshot() if not key.startswith("secrets/")} - bare
    return {key for key in found if not key.endswith(everywhere)}


@pytest.mark.parametrize("version", [HELM3, HELM4])
def test_install_again_upgrade_and_uninstall(cluster: Cluster, helm: Helm, version: str) -> None:
    def upgrade(*arguments: str) -> None:
        done = helm(version, "upgrade", *CLIENT_SIDE[version], *arguments)
        assert done.code == 0, done.err

    upgrade("--wait", "--timeout", "20s")
    installed = charted(cluster)
    assert "widgets.example.com/aws-hyperpod/extra" in installed
    assert cluster.deployment_ready("aws-hyperpod", "operator")
    role = cluster.snapshot()["clusterroles.rbac.authorization.k8s.io/jobs-admin"]
    assert [rule["resources"] for rule in role["rules"]] == [["jobs"]]

    upgrade()
    assert charted(cluster) == installed

    upgrade("--set", "extras=false,tag=2")
    changed = cluster.snapshot()
    assert "widgets.example.com/aws-hyperpod/extra" not in changed
    template = changed["daemonsets.apps/aws-hyperpod/agent"]["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "agent:2"

    status = helm(version, "status", "--output", "json")
    assert (json.loads(status.out)["version"], json.loads(status.out)["info"]["status"]) == (
        3,
        "deployed",
    )
    assert helm(version, "uninstall", "--wait", "--timeout", "20s").code == 0
    assert charted(cluster) == set()
    assert not any(key.startswith("secrets/") for key in cluster.snapshot())


def test_helm_4_with_its_defaults_fails_the_second_time(cluster: Cluster, helm: Helm) -> None:
    """The reason for --server-side=false: a controller owns a field that the chart leaves empty."""
    assert helm(HELM4, "upgrade").code == 0
    again = helm(HELM4, "upgrade")
    assert again.code == 1
    assert 'conflict with "clusterrole-aggregation-controller": .rules' in again.err
    assert helm(HELM4, "upgrade", "--force-conflicts").code == 0
    assert cluster.has("ClusterRole", "jobs-admin")


def test_helm_3_and_4_take_turns(helm: Helm) -> None:
    for version in (HELM3, HELM4, HELM3):
        done = helm(version, "upgrade", *CLIENT_SIDE[version])
        assert done.code == 0, done.err


def test_a_role_left_behind_by_uninstall_needs_take_ownership(cluster: Cluster, helm: Helm) -> None:
    cluster.recreate_aggregated = True
    assert helm(HELM3, "upgrade").code == 0
    assert helm(HELM3, "uninstall").code == 0
    assert charted(cluster) == {"clusterroles.rbac.authorization.k8s.io/jobs-admin"}
    refused = helm(HELM3, "upgrade")
    assert refused.code == 1
    assert "invalid ownership metadata" in refused.err
    assert helm(HELM3, "upgrade", "--take-ownership").code == 0
