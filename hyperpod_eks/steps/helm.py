"""AWS's HyperPod Helm chart, and further ones; their pods are not awaited.

HyperPod's is installed before nodes exist.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable

from hyperpod_eks.config.chart_checks import NODES
from hyperpod_eks.config.charts import Chart
from hyperpod_eks.helm import chart
from hyperpod_eks.helm import devices as chart_devices
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.addon import PodIdentity
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.helm_release import ChartRelease, Release
from hyperpod_eks.resources.kubernetes import Object
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
        images=tuple(sorted(config.images.items())),
        after=control.access,
    )


def further(
    resolved: ResolvedConfig,
    control: eks.Control,
    addons: Iterable[Resource],
    namespaced: Iterable[PodIdentity | Object],
    nodes: Resource,
    binary: str | None,
) -> tuple[ChartRelease, ...]:
    """Declare the releases of further charts, each after what its config names.

    Each is also installed after its namespace, if that is declared, and after the associations in
    it: pods that start before theirs get no credentials (EKS User Guide, "Assign an IAM role to a
    Kubernetes service account").
    """
    charts, found = resolved.config.charts, dict[str, ChartRelease]()
    others = {each.label: each for each in addons} | {NODES: nodes}

    def release(name: str) -> ChartRelease:
        if name not in found:
            config = charts[name]
            namespace = config.namespace or name
            before = [
                *(each for each in namespaced if _namespace(each) == namespace),
                *(release(other) for other in config.after if other in charts),
                *(others[other] for other in config.after if other in others),
            ]
            found[name] = ChartRelease(
                name,
                cluster=control.cluster,
                chart=config.chart,
                repository=config.repository or "",
                version=config.version or "",
                namespace=namespace,
                values=json.dumps(dict(config.values), sort_keys=True),
                binary=binary or "",
                images=tuple(sorted(config.images.items())),
                after=(*control.access, *before),
            )
        return found[name]

    return tuple(release(name) for name in charts)


def _namespace(each: PodIdentity | Object) -> str:
    return each.name if isinstance(each, Object) else each.namespace


def prepare(config: Chart, bundle: str | None) -> None:
    """Download the chart while the EKS cluster is being created.

    Errors are ignored: the install repeats and reports them.
    """
    with contextlib.suppress(Exception):
        if config.path is None:
            chart.download(bundle=bundle)
