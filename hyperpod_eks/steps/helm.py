"""AWS's HyperPod Helm chart: installed before the nodes exist, and so never waited for."""

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
    """Declare the release; whoever installs it needs access first."""
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
    """Have at hand what an install needs, while EKS is being made: the chart, and slow imports.

    Nothing depends on it: what cannot be had now is told when it is needed.
    """
    with contextlib.suppress(Exception):
        runner.warm()
        if config.path is None:
            chart.download(bundle=bundle)
