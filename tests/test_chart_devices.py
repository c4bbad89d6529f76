"""Instance types that the chart's plugins lack are added by complete lists."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpod_eks.helm import chart
from hyperpod_eks.helm import devices as chart_devices
from hyperpod_eks.local import CHART

REAL = os.environ.get("HYPERPOD_CHART")


def gpu(values: Any) -> Any:
    (term,) = values["nvidia-device-plugin"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    return term["matchExpressions"][0]["values"]


def efa(values: Any) -> Any:
    return values["aws-efa-k8s-device-plugin"]["supportedInstanceLabels"]["values"]


def test_what_is_listed_changes_nothing() -> None:
    types = ["ml.m5.2xlarge", *chart_devices.NVIDIA, *chart_devices.EFA, *chart_devices.NEURON]
    assert chart_devices.values_for(types, None) == {}
    assert list(chart_devices.unlisted(chart_devices.AGENT[:3], None)) == []


def test_a_type_that_is_missing_is_added_to_the_whole_list() -> None:
    values = chart_devices.values_for(["ml.g7.12xlarge", "ml.g5.xlarge"], None)

    assert gpu(values) == [*chart_devices.NVIDIA, "ml.g7.12xlarge"]
    assert efa(values) == [*chart_devices.EFA, "ml.g7.12xlarge"]
    mine = {"aws-efa-k8s-device-plugin": {"supportedInstanceLabels": {"values": ["ml.x"]}}}
    assert efa(chart.merge(values, chart.values_for("us-west-2", mine))) == ["ml.x"]


def test_the_lists_of_a_chart_of_ones_own_are_read_from_it(tmp_path: Path) -> None:
    assert chart_devices.values_for(["ml.g4dn.8xlarge"], CHART) == {}  # it has no such lists
    values = chart_devices.values_for(["ml.g7.12xlarge"], None)
    (tmp_path / "Chart.yaml").touch()
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))

    assert chart_devices.values_for(["ml.g7.12xlarge"], tmp_path) == {}
    assert gpu(chart_devices.values_for(["ml.g4dn.8xlarge"], tmp_path))[-1] == "ml.g4dn.8xlarge"


def test_lists_in_templates_are_a_warning(tmp_path: Path) -> None:
    neuron, agent = chart_devices.unlisted(["ml.trn2.3xlarge", "ml.g4dn.xlarge"], None)
    assert neuron == (
        "the template of the chart's neuron-device-plugin does not list ml.trn2.3xlarge: pods on"
        " its nodes get no Neuron devices"
    )
    assert "health-monitoring-agent does not list ml.g4dn.xlarge" in agent
    template = tmp_path / "charts/health-monitoring-agent/templates/agent.yaml"
    template.parent.mkdir(parents=True)
    (tmp_path / "Chart.yaml").touch()
    template.write_text("- ml.g5.xlarge\n")
    assert len(list(chart_devices.unlisted(["ml.g4dn.xlarge"], tmp_path))) == 1
    template.write_text("- ml.g4dn.xlarge\n")
    assert list(chart_devices.unlisted(["ml.g4dn.xlarge"], tmp_path)) == []


@pytest.mark.skipif(REAL is None, reason="HYPERPOD_CHART names no copy of AWS's chart")
def test_the_lists_are_those_of_aws_chart() -> None:
    folder = chart.locate(Path(str(REAL)))
    values = yaml.safe_load((folder / "values.yaml").read_text())

    assert set(gpu(values)) == set(chart_devices.NVIDIA)
    assert set(efa(values)) == set(chart_devices.EFA)
    for name, listed in (
        ("neuron-device-plugin", chart_devices.NEURON),
        ("health-monitoring-agent", chart_devices.AGENT),
    ):
        text = "".join(p.read_text() for p in (folder / f"charts/{name}/templates").glob("*.yaml"))
        assert set(re.findall(r"ml\.[a-z0-9-]+\.[0-9]*xlarge", text)) == set(listed)
