"""Teams at work: jobs wait for their quota, borrow and give way, and status shows who uses what."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.kubernetes import Fault
from tests.cli.test_objects import kubernetes
from tests.conftest import User
from tests.local.test_governance import job
from tests.rounds import rounds

CONFIG = f"""name: demo
chart: {{path: {CHART}}}
instance_groups: [{{name: a, instance_type: ml.m5.2xlarge, instance_count: 2}}]
addons: {{amazon-sagemaker-hyperpod-taskgovernance: {{version: VERSION}}}}
teams:
  vision: {{quota: [{{instance_type: ml.m5.2xlarge, count: 1}}], fair_share_weight: 60}}
  speech: {{quota: [{{instance_type: ml.m5.2xlarge, count: 1}}]}}
scheduler_config:
  priority_classes: {{production: 100, research: 50}}
"""
NEWEST, OLD = "v1.6.1-eksbuild.1", "v1.3.0-eksbuild.1"
CPU = {"instance_type": "ml.m5.2xlarge", "resource": "cpu", "quota": "8"}


def jobs(team: str) -> str:
    return f"/apis/batch/v1/namespaces/hyperpod-ns-{team}/jobs"


def starts(user: User, team: str, name: str, cpu: str, priority: str = "") -> None:
    user.stack.clock.advance(60)  # who came later is decided by seconds
    labels = {"kueue.x-k8s.io/queue-name": f"hyperpod-ns-{team}-localqueue"}
    if priority:
        labels["kueue.x-k8s.io/priority-class"] = f"{priority}-priority"
    kubernetes("POST", jobs(team), job(name, labels, cpu))


def running(team: str) -> dict[str, bool]:
    """Which of a team's jobs run, by name, as `kubectl get jobs` shows them."""
    found = kubernetes("GET", jobs(team))["items"]
    return {each["metadata"]["name"]: not each["spec"]["suspend"] for each in found}


def pods() -> set[str]:
    """The pods of all teams, by uid."""
    found = kubernetes("GET", "/api/v1/pods")["items"]
    return {x["metadata"]["uid"] for x in found if "hyperpod-ns" in x["metadata"]["namespace"]}


def why(team: str, name: str) -> dict[str, str]:
    """The conditions of a job's Workload: type and reason of those that are True."""
    path = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/hyperpod-ns-{team}/workloads"
    for each in kubernetes("GET", path)["items"]:
        if each["metadata"]["name"].startswith(f"job-{name}-"):
            held = [c for c in each["status"]["conditions"] if c["status"] == "True"]
            return {c["type"]: c["reason"] for c in held}
    raise AssertionError(name)


def has_teams(user: User, version: str = NEWEST) -> None:
    (user.folder / "c.yaml").write_text(CONFIG.replace("VERSION", version))
    user.has("demo", "-f", "c.yaml")


@pytest.fixture
def owner(user: User) -> User:
    has_teams(user)
    return user


def of(document: Any, team: str) -> Any:
    """What status says of a team, and of its CPUs."""
    (found,) = (each for each in document["teams"] if each["team"] == team)
    (cpu,) = (each for each in found["resources"] if each["resource"] == "cpu")
    return {name: found[name] for name in ("running", "waiting", "problem")}, cpu


def test_a_job_without_a_queue_is_refused_and_one_with_it_waits_and_runs(owner: User) -> None:
    with pytest.raises(Exception, match="queue-name"):
        kubernetes("POST", jobs("vision"), job("free", {}))
    starts(owner, "vision", "first", "8", "research")
    starts(owner, "vision", "second", "8", "research")
    assert running("vision") == {"first": True, "second": False}
    kubernetes("DELETE", f"{jobs('vision')}/first")
    assert running("vision") == {"second": True}


def test_a_higher_priority_preempts_within_its_team(owner: User) -> None:
    starts(owner, "vision", "research", "8", "research")
    starts(owner, "vision", "other", "4", "research")  # borrows what speech lends
    starts(owner, "vision", "urgent", "4", "production")
    assert running("vision") == {"research": True, "other": False, "urgent": True}
    assert why("vision", "other") == {"Evicted": "Preempted", "Preempted": "InClusterQueue"}
    pods = kubernetes("GET", "/api/v1/namespaces/hyperpod-ns-vision/pods")["items"]
    assert sorted(each["metadata"]["labels"]["job-name"] for each in pods) == ["research", "urgent"]
    kubernetes("DELETE", f"{jobs('vision')}/research")
    assert all(running("vision").values())
    assert why("vision", "other") == {"QuotaReserved": "QuotaReserved", "Admitted": "Admitted"}


def test_a_team_takes_back_what_it_lends_and_status_shows_it(owner: User) -> None:
    starts(owner, "vision", "own", "8", "production")
    starts(owner, "vision", "borrower", "4", "production")
    seen = owner.types("status", "demo", "-f", "c.yaml", "-o", "json").document
    assert of(seen, "vision") == (
        {"running": 2, "waiting": 0, "problem": ""},
        {**CPU, "used": "12", "borrowed": "4"},
    )
    starts(owner, "speech", "late", "8", "research")
    assert running("vision") == {"own": True, "borrower": False}
    assert why("vision", "borrower")["Preempted"] == "InCohortReclamation"
    said = owner.types("status", "demo", "-f", "c.yaml")
    assert said.code == 0, said.err
    rows = [line.split() for line in said.out.splitlines()]
    assert ["○", "vision", "1", "1", "ml.m5.2xlarge", "cpu", "8", "of", "8,"] in [
        row[:9] for row in rows
    ]
    assert ["✔", "speech", "1", "0"] in [row[:4] for row in rows]


def test_a_test_takes_back_nothing_from_a_team_that_borrows(owner: User) -> None:
    starts(owner, "vision", "own", "8", "research")
    starts(owner, "vision", "borrower", "4", "research")
    starts(owner, "speech", "other", "4", "research")
    before = pods()
    said = owner.types("test", "demo", "-f", "c.yaml", "--level", "2", "-o", "json")
    assert pods() == before  # one that was stopped would have another pod by now
    (row, *rest) = said.document["checks"]
    assert {each["status"] for each in rest} == {"skipped"}  # no pod has shown anything
    (finding,) = row["findings"]
    assert (said.code, row["id"], finding["cause"]) == (11, "admission", "not-admitted")
    assert "would stop tasks of hyperpod-ns-vision-clusterqueue" in finding["says"]
    kubernetes("DELETE", f"{jobs('vision')}/borrower")
    said = owner.types("test", "demo", "-f", "c.yaml", "--level", "2", "-o", "json")
    assert said.code == 0, said.err


def test_who_may_not_list_queues_can_test_nodes_without_them(owner: User) -> None:
    cluster = next(iter(owner.stack.sim.clusters.values()))
    fault = Fault(403, "Forbidden", "no", path="/localqueues", times=9)
    cluster.faults.append(fault)
    said = owner.types("test", "demo", "-f", "c.yaml", "--level", "2", "-o", "json")
    assert (said.code, fault.times) == (0, 8), said.err


def test_status_needs_no_further_round_and_says_what_it_cannot_read(owner: User) -> None:
    user = owner
    with rounds(user.stack) as chain:
        assert user.types("status", "demo", "-f", "c.yaml").code == 0
    cluster = next(iter(user.stack.sim.clusters.values()))
    fault = Fault(403, "Forbidden", "no", path="kueue", times=9)
    cluster.faults.append(fault)
    with rounds(user.stack) as without:
        said = user.types("status", "demo", "-f", "c.yaml", "-o", "json")
    assert said.code == 0
    assert said.document["teams"] == []
    assert any("the use of the teams' quotas is not known" in x for x in said.document["warnings"])
    assert "is not known" in said.err
    assert fault.times == 8
    assert len(chain) == len(without)


@pytest.mark.prove
def test_status_asks_an_older_kueue_in_its_own_version(user: User) -> None:
    has_teams(user, OLD)
    starts(user, "speech", "night", "3")
    seen = user.types("status", "demo", "-f", "c.yaml", "-o", "json").document
    assert of(seen, "speech") == (
        {"running": 1, "waiting": 0, "problem": ""},
        {**CPU, "used": "3", "borrowed": "0"},
    )


@pytest.mark.prove
def test_without_teams_kueue_is_not_asked(user: User) -> None:
    user.has("demo")
    cluster = next(iter(user.stack.sim.clusters.values()))
    fault = Fault(403, "Forbidden", "no", path="kueue", times=9)
    cluster.faults.append(fault)
    assert user.types("status", "demo").code == 0
    assert fault.times == 9
