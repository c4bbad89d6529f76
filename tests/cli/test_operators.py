"""Operators and metrics: one word each in the config, and all that they need in the right order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.aws.client import Identity
from hyperpod_eks.config.load import load
from hyperpod_eks.config.mig import LABEL
from hyperpod_eks.config.teams import GOVERNANCE
from hyperpod_eks.config.warnings import warnings
from hyperpod_eks.errors import Usage
from hyperpod_eks.helm.unknown_values import unknown
from hyperpod_eks.local import CHART
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.addon import Addon
from hyperpod_eks.resources.hyperpod.groups import lost_nodes
from hyperpod_eks.stack import stack
from tests.cli.test_objects import kubernetes
from tests.cli.test_pod_roles import allowed
from tests.conftest import Clients, User, new_session
from tests.rounds import rounds

TRAINING = "amazon-sagemaker-hyperpod-training-operator"
OBSERVABILITY = "amazon-sagemaker-hyperpod-observability"
CLOUDWATCH = "amazon-cloudwatch-observability"
HERE = Identity("arn:aws:iam::123456789012:user/me", "123456789012", "aws", "us-west-2")
CONFIG: dict[str, Any] = {
    "name": "demo",
    "region": "us-west-2",
    "chart": {"path": str(CHART)},
    "operators": ["training"],
    "monitoring": "prometheus",
    "prometheus": {"levels": {"node": "ADVANCED", "task_governance": "DISABLED"}},
}


def declared(**settings: Any) -> dict[str, Addon]:
    """Return the declared add-ons by name."""
    given = {"name": "demo", "region": "us-west-2", **settings}
    config = load(given, {}, {}, files=False)
    resolved = ResolvedConfig(config, HERE, ("usw2-az1", "usw2-az2"), {}, "1.34")
    return {each.label: each for each in stack(resolved) if isinstance(each, Addon)}


def needs(addon: Addon) -> set[str]:
    return {each.label for each in addon.after if isinstance(each, Addon)}


def write(user: User, **changes: Any) -> tuple[str, ...]:
    """Write the config; return the options that name it."""
    (user.folder / "c.yaml").write_text(json.dumps(CONFIG | changes))
    return "-f", "c.yaml"


def addons(user: User) -> dict[str, Any]:
    """Return the add-ons of the EKS cluster by name, as EKS describes them."""
    found: dict[str, Any] = user.stack.inventory()["us-west-2"]["eks"]["demo"]["Addons"]
    return found


@pytest.fixture
def made(user: User, aws: Clients) -> User:
    """A cluster with operators and metrics."""
    write(user)
    user.has("demo", "-f", "c.yaml")
    return user


def test_a_closed_network_reaches_prometheus() -> None:
    given = {"name": "demo", "region": "us-west-2", "network": {"nat": "none"}}
    config = load({**given, "monitoring": "prometheus"}, {}, {}, files=False)
    resolved = ResolvedConfig(config, HERE, ("usw2-az1", "usw2-az2"), {}, "1.34")
    assert "network/endpoint-aps-workspaces" in {each.key for each in stack(resolved)}


def test_an_addon_comes_after_those_that_it_needs_whatever_the_order_in_the_file() -> None:
    found = declared(addons={TRAINING: {}, "metrics-server": {}, "cert-manager": {}})
    assert [*found][-3:] == ["cert-manager", TRAINING, "metrics-server"]
    assert needs(found[TRAINING]) == {"cert-manager"}
    assert needs(found["cert-manager"]) == set()
    assert needs(declared(operators=["training"])[TRAINING]) == {"cert-manager"}


def test_task_governance_does_not_start_while_others_install_deployments() -> None:
    found = declared(operators=["training", "inference"], teams={"a": {}}, addons={"x": {}})
    assert needs(found[GOVERNANCE]) >= {"cert-manager", TRAINING, "x"}
    assert GOVERNANCE in needs(found["amazon-sagemaker-hyperpod-inference"])
    assert needs(found["cert-manager"]) == set()


def test_a_need_that_addons_does_not_name_is_a_warning() -> None:
    given = {"name": "demo", "region": "us-west-2", "addons": {TRAINING: {}}}
    (text,) = warnings(load(given, {}, {}, files=False))
    assert text.startswith(f"addons.{TRAINING}: it needs cert-manager, ")
    assert warnings(load(given | {"operators": ["training"]}, {}, {}, files=False)) == []


def test_addons_of_an_operator_keep_the_settings_that_the_config_has() -> None:
    own = {"cert-manager": {"configuration_values": {"replicaCount": 1}}}
    found = declared(operators=["training"], addons=own)
    assert json.loads(found["cert-manager"].configuration) == {"replicaCount": 1}
    pinned = {"cert-manager": {"version": "v1.18.2-eksbuild.2"}}
    found = declared(operators=["training"], addons=pinned)
    assert "webhook" in json.loads(found["cert-manager"].configuration)
    assert found["cert-manager"].version == "v1.18.2-eksbuild.2"


def test_the_training_operator_comes_in_one_switch(made: User) -> None:
    found = addons(made)
    assert {name: found[name]["Status"] for name in ("cert-manager", TRAINING)} == {
        "cert-manager": "ACTIVE",
        TRAINING: "ACTIVE",
    }
    path = "/apis/apps/v1/namespaces/cert-manager/deployments/cert-manager"
    pod = kubernetes("GET", path)["spec"]["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists", "effect": "NoSchedule"}]
    made.mutations()
    said = made.types("create", "-f", "c.yaml")
    assert (said.code, made.mutations()) == (0, []), said.err


def workspaces(user: User) -> dict[str, Any]:
    """Return the workspaces of Prometheus by id."""
    found: dict[str, Any] = user.stack.inventory()["us-west-2"].get("amp", {})
    return found


def groups(aws: Clients) -> dict[str, Any]:
    """Return the log groups of Container Insights by name, with the days of their retention."""
    found = aws.logs.describe_log_groups(logGroupNamePrefix="/aws/containerinsights/")
    return {each["logGroupName"]: each.get("retentionInDays") for each in found["logGroups"]}


def test_metrics_are_written_to_a_workspace_of_the_cluster_and_no_other(
    made: User, aws: Clients
) -> None:
    ((id_, workspace),) = workspaces(made).items()
    settings = json.loads(addons(made)[OBSERVABILITY]["Configuration"])
    assert settings == {
        "ampWorkspace": {
            "arn": workspace["arn"],
            "prometheusEndpoint": f"https://aps-workspaces.us-west-2.amazonaws.com/workspaces/{id_}",
        },
        "metricsProvider": {
            "nodeMetrics": {"level": "ADVANCED"},
            "taskGovernanceMetrics": {"level": "DISABLED"},
        },
    }
    account = "hyperpod-observability/hyperpod-observability-operator-otel-collector"
    role = made.stack.inventory()["us-west-2"]["eks"]["demo"]["PodIdentityAssociations"][account]
    write_ = allowed(aws, role["RoleArn"])[1][0]
    assert (write_["Action"], write_["Condition"]) == (
        ["aps:RemoteWrite"],
        {"StringEquals": {"aws:ResourceTag/hyperpod-eks:cluster": "demo"}},
    )


def test_metrics_and_logs_are_kept_until_their_delete_is_asked_for(
    made: User, aws: Clients
) -> None:
    ((id_, _),) = workspaces(made).items()
    words = write(made, monitoring="cloudwatch", prometheus={})
    plan = made.types("plan", *words, "-o", "json").document["resources"]
    about = {row["key"]: row["action"] for row in plan if row["action"] != "keep"}
    assert about.pop(f"addons/{OBSERVABILITY}") == "delete"
    assert about["monitoring/application-logs"] == about[f"addons/{CLOUDWATCH}"] == "create"
    said = made.types("create", *words, "--yes")
    assert said.code == 0, said.err
    assert [*workspaces(made)] == [id_]
    assert {*addons(made)} >= {CLOUDWATCH, TRAINING}
    assert OBSERVABILITY not in addons(made)
    names = {f"/aws/containerinsights/demo/{x}": 30 for x in
             ("application", "dataplane", "host", "performance")}  # fmt: skip
    assert groups(aws) == names
    made.mutations()
    assert made.types("create", *words).code == 0
    assert made.mutations() == []

    said = made.types("delete", "demo", "--yes", "-o", "json")
    assert said.code == 0, said.err
    kept = {row["key"] for row in said.document["kept_data"]}
    assert "monitoring/host-logs" in kept
    assert f"({id_}: metrics) is kept with its data" in said.err
    assert (
        "(/aws/containerinsights/demo/host: logs of pods and nodes) is kept with its data"
        in said.err
    )
    assert (groups(aws), [*workspaces(made)]) == (names, [id_])

    said = made.types("delete", "demo", "--yes", "--delete-data", "-o", "json")
    assert said.code == 0, said.err
    assert (groups(aws), workspaces(made)) == ({}, {})


GPU_OPERATOR: dict[str, Any] = {
    "chart": {
        "values": {
            "gpu-operator": {"enabled": True},
            "nvidia-device-plugin": {"devicePlugin": {"enabled": False}},
        }
    }
}


def group(kind: str, mig: str) -> dict[str, Any]:
    """Return the setting of a group whose GPUs are divided."""
    about = {"name": "gpus", "instance_type": kind, "instance_count": 2}
    labels = {"kubernetes_config": {"labels": {"nvidia.com/mig.config": mig}}}
    return {"instance_groups": [about | labels]}


ARN = "arn:aws:aps:us-west-2:123456789012:workspace/ws-1"


def test_an_existing_workspace_is_used_as_it_is_and_must_exist(user: User, aws: Clients) -> None:
    words = write(user, operators=[], prometheus={"workspace_arn": ARN})
    said = user.types("preflight", *words, "-o", "json")
    finding = next(x for x in said.document["findings"] if x["id"] == "prometheus-workspace")
    assert (finding["severity"], ARN in finding["says"]) == ("error", True)

    arn = new_session().client("amp").create_workspace(alias="theirs")["arn"]
    words = write(user, operators=[], prometheus={"workspace_arn": arn})
    user.mutations()
    said = user.types("create", *words)
    assert said.code == 0, said.err
    settings = json.loads(addons(user)[OBSERVABILITY]["Configuration"])["ampWorkspace"]
    (workspace,) = workspaces(user).values()
    assert settings == {
        "arn": arn,
        "prometheusEndpoint": workspace["prometheusEndpoint"].removesuffix("/"),
    }
    assert user.types("delete", "demo", "--yes", "--delete-data").code == 0
    assert workspaces(user).keys() == {workspace["workspaceId"]}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prometheus": {"levels": {"node": "BASIC"}}}, "has no effect without monitoring"),
        (
            {"monitoring": "prometheus", "prometheus": {"workspace_arn": ARN.replace("2:", "1:")}},
            "is not in us-west-2",
        ),
        ({"monitoring": "prometheus", "prometheus": {"levels": {"gpu": "BASIC"}}}, "gpu"),
        ({"monitoring": "grafana"}, "cloudwatch"),
        ({"operators": ["kubeflow"]}, "training"),
        (group("ml.p5.48xlarge", "all-1g.10gb"), "and nothing reads it"),
        (GPU_OPERATOR | group("ml.g5.2xlarge", "all-1g.10gb"), "has no GPU with MIG"),
        (GPU_OPERATOR | group("ml.p5.48xlarge", "all-1g.18gb"), "choose one of all-1g.10gb, all-"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(Usage, match=says):
        load({"name": "demo", "region": "us-west-2", **settings}, {}, {}, files=False)


def test_nodes_that_are_too_small_for_the_collectors_are_a_warning() -> None:
    given = {"name": "demo", "region": "us-west-2", "monitoring": "prometheus"}
    (text,) = warnings(load(given, {}, {}, files=False))
    assert "4xlarge" in text


def test_a_noop_with_everything_has_at_most_four_rounds(made: User) -> None:
    with rounds(made.stack) as chain:
        assert made.types("create", "-f", "c.yaml").code == 0
    assert len(chain) <= 4, chain


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("ml.p5.48xlarge", "all-3g.40gb"),
        ("ml.p5.48xlarge", "all-disabled"),
        ("ml.p5en.48xlarge", "mixed-of-ours"),
        ("ml.p9.48xlarge-of-next-year".partition("-")[0], "all-1g.1gb"),
    ],
)
def test_gpus_that_can_be_divided_are_accepted(kind: str, wanted: str) -> None:
    given = {"name": "demo", "region": "us-west-2", **GPU_OPERATOR, **group(kind, wanted)}
    if kind == "ml.p9.48xlarge":  # botocore does not know it, and nothing else is wrong with it
        with pytest.raises(Usage, match="instance_type") as refused:
            load(given, {}, {}, files=False)
        assert "mig" not in str(refused.value)
    else:
        load(given, {}, {}, files=False)


def test_another_division_of_gpus_in_use_needs_consent() -> None:
    differs = {f"gpus.kubernetes_config.labels.{LABEL}": ("all-1g.10gb", "all-3g.40gb")}
    there: dict[str, Any] = {"gpus": {"CurrentCount": 2}}
    (line,) = lost_nodes(there, [], differs)
    assert line.startswith("instance group gpus: its 2 nodes may reboot")
    assert lost_nodes({"gpus": {"CurrentCount": 0}}, [], differs) == []


def test_values_that_the_chart_does_not_know_are_a_warning(user: User) -> None:
    values = {"mpi-operator": {"enabeld": False}, "gpu-operator": {"enabled": False, "mig": {}}}
    words = write(user, operators=[], chart={"path": str(CHART), "values": values})
    said = user.types("preflight", *words, "-o", "json")
    found = {x["seen"].get("setting"): x for x in said.document["findings"]}
    assert found["chart.values.mpi-operator.enabeld"]["severity"] == "warning"
    assert "chart.values.gpu-operator.mig" not in found  # of a dependency of NVIDIA's


def test_values_of_dependencies_are_known_where_they_are_in_the_folder(tmp_path: Path) -> None:
    inner = tmp_path / "charts" / "near"
    inner.mkdir(parents=True)
    names = [{"name": "near", "alias": "close"}, {"name": "far"}]
    (tmp_path / "Chart.yaml").write_text(json.dumps({"name": "a", "dependencies": names}))
    (tmp_path / "values.yaml").write_text("b: {c: 1}\nd: {}\nclose: {x: 1}\n")
    (inner / "Chart.yaml").write_text("name: near\n")
    (inner / "values.yaml").write_text("y: 1\n")
    given: dict[str, Any] = {
        "global": {"z": 1}, "b": {"c": 2, "cc": 3}, "d": {"e": 1}, "far": {"f": 1},
        "close": {"x": 2, "y": 2, "z": 3}, "g": 1,
    }  # fmt: skip
    assert [*unknown(tmp_path, given)] == ["b.cc", "close.z", "g"]
