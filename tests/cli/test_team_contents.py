"""What is in a team's namespace is asked for, and looked at again, before the team is deleted."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpod_eks import session as session_of
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.local import CHART
from hyperpod_eks.local.kubernetes import Fault
from tests.cli.test_objects import kubernetes
from tests.conftest import User
from tests.local.test_governance import JOBS, QUEUE, SPACE, job

TEAM = "teams: {vision: {quota: [{instance_type: ml.m5.2xlarge, count: 1}]}}\n"
BASE = f"""name: demo
chart: {{path: {CHART}}}
instance_groups: [{{name: a, instance_type: ml.m5.2xlarge, instance_count: 1}}]
"""
CREATE = ("create", "-f", "c.yaml")
HERE = f"namespaces/{SPACE}"


def put(user: User, text: str) -> None:
    (user.folder / "c.yaml").write_text(BASE + text)


@pytest.fixture
def owner(user: User) -> User:
    """A user whose cluster has a team, which is no longer declared."""
    put(user, TEAM)
    user.has("demo", "-f", "c.yaml")
    put(user, "")
    return user


def named(name: str, **members: Any) -> Any:
    return {"metadata": {"name": name}, **members}


def pods(queue: Any) -> Any:
    containers = [{"name": "main", "image": "busybox:1"}]
    labels = {"app": "a", **queue}
    return {"metadata": {"labels": labels}, "spec": {"containers": containers}}


def serves(name: str, **members: Any) -> Any:
    """A Deployment or StatefulSet of the team."""
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": pods(QUEUE), **members}
    return {"metadata": {"name": name, "labels": QUEUE}, "spec": spec}


NOTEBOOKS = {
    "metadata": {"name": "notebooks.kubeflow.org"},
    "spec": {
        "group": "kubeflow.org",
        "scope": "Namespaced",
        "names": {"kind": "Notebook", "plural": "notebooks", "singular": "notebook"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }
        ],
    },
}
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "8Gi"}}}
PORTS = {"ports": [{"port": 80}], "selector": {"app": "a"}}
CRON = {"schedule": "0 0 * * *", "jobTemplate": {"spec": job("nightly", QUEUE)["spec"]}}
THINGS: dict[str, tuple[str, Any]] = {
    "claim data": (f"/api/v1/{HERE}/persistentvolumeclaims", named("data", spec=CLAIM)),
    "configmap recipe": (f"/api/v1/{HERE}/configmaps", named("recipe", data={"a": "b"})),
    "cronjob nightly": (f"/apis/batch/v1/{HERE}/cronjobs", named("nightly", spec=CRON)),
    "deployment chat": (f"/apis/apps/v1/{HERE}/deployments", serves("chat")),
    "job night-run": (JOBS, job("night-run", QUEUE, cpu="1")),
    "notebook lab": (f"/apis/kubeflow.org/v1/{HERE}/notebooks", named("lab")),
    "role readers": (f"/apis/rbac.authorization.k8s.io/v1/{HERE}/roles", named("readers")),
    "secret token": (f"/api/v1/{HERE}/secrets", named("token", stringData={"a": "hidden"})),
    "service chat": (f"/api/v1/{HERE}/services", named("chat", spec=PORTS)),
    "serviceaccount trainer": (f"/api/v1/{HERE}/serviceaccounts", named("trainer")),
    "statefulset store": (
        f"/apis/apps/v1/{HERE}/statefulsets",
        serves("store", serviceName="store"),
    ),
}


def test_the_question_names_all_that_would_be_missed(owner: User) -> None:
    assert "deleted with the namespace hyperpod-ns-vision and everything in it (it is empty)" in (
        owner.types(*CREATE).err
    )
    kubernetes("POST", DEFINITIONS, NOTEBOOKS)
    for path, body in THINGS.values():
        kubernetes("POST", path, body)
    said = owner.types(*CREATE)
    assert said.code == 2
    assert f"everything in it ({'; '.join(sorted(THINGS))})" in said.err
    assert "hidden" not in said.err


def test_what_cannot_be_listed_counts_as_there(owner: User) -> None:
    cluster = next(iter(owner.stack.sim.clusters.values()))
    fault = Fault(503, "ServiceUnavailable", "no answer", path=f"{HERE}/secrets", times=9)
    cluster.faults.append(fault)
    said = owner.types(*CREATE)
    assert said.code == 2
    assert "(perhaps secrets (Kubernetes API of demo: 503" in said.err


def test_what_comes_after_the_question_keeps_the_team(owner: User) -> None:
    kubernetes("POST", JOBS, job("asked-about", QUEUE, cpu="1"))
    asked: list[str] = []

    def agree(lines: list[str]) -> None:
        """Agree, while somebody else starts a job."""
        asked.extend(lines)
        kubernetes("POST", JOBS, job(f"late-{len(asked)}", QUEUE, cpu="1"))

    with session_of.connect("c.yaml") as cluster:
        cluster.context.consent = agree
        with pytest.raises(HyperpodError) as refused:
            cluster.create()
        cluster.context.consent = asked.extend
        assert "this has come into it: job late-1" in str(refused.value)
        names = [each["metadata"]["name"] for each in kubernetes("GET", JOBS)["items"]]
        assert names == ["asked-about", "late-1"]
        cluster.create()  # agreed to both
    assert "job asked-about" in asked[0]
    assert "jobs asked-about, late-1" in asked[1]
    spaces = kubernetes("GET", "/api/v1/namespaces")["items"]
    assert SPACE not in [each["metadata"]["name"] for each in spaces]


def test_a_quota_that_failed_is_replaced_only_if_nothing_is_in_its_namespace(owner: User) -> None:
    put(owner, TEAM.replace("}}\n", "}, night: {}}\n"))
    failures = owner.stack.sim.failures
    failures["compute-quota/demo-night"] = "the webhook does not answer"
    assert owner.types(*CREATE).code == 1
    failures.clear()
    spaces = "/api/v1/namespaces"
    kubernetes("POST", spaces, named("hyperpod-ns-night"))  # somebody had it before
    secrets = f"{spaces}/hyperpod-ns-night/secrets"
    kubernetes("POST", secrets, named("keys"))
    said = owner.types(*CREATE, "--replace-failed")
    assert said.code == 1
    assert "hyperpod-ns-night is in use: secret keys" in said.err
    kubernetes("DELETE", f"{secrets}/keys")
    assert owner.types(*CREATE).code == 0
