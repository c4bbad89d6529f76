"""AWS's HyperPod Helm chart: it is installed before nodes exist, so its pods are not awaited."""

from __future__ import annotations

import contextlib
import json

from hyperpod_eks.config.model import Chart
from hyperpod_eks.helm import chart, runner
from hyperpod_eks.helm import devices as chart_devices
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.helm_release import Release
from hyperpod_eks.steps import eks


def step(resolved: ResolvedConfig, control: eks.Control, binary: str | None) -> Release:
    """Declare the release; installing it requires the access entries."""
    config = resolved.config.chart
    types = [kind for group in resolved.config.groups for kind in group.instance_types]
    return Release(
        "release",
        cluster=control.cluster,
        chart=str(config.path or ""),
        values=json.dumps(
            chart.merge(
                chart_devices.values_for(types, config.path),
                chart.values_for(resolved.region, config.values),
            ),
            sort_keys=True,
        ),
        binary=binary or "",
        after=control.access,
    )


def prepare(config: Chart, bundle: str | None) -> None:
    """Download the chart and import slow modules while the EKS cluster is being created.

    Errors are ignored: the install repeats and reports them.
    """
    with contextlib.suppress(Exception):
        runner.warm()
        if config.path is None:
            chart.download(bundle=bundle)
