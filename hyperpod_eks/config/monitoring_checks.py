"""The rules of metrics and logs: what excludes what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hyperpod_eks.config.rules import Finding

if TYPE_CHECKING:
    from hyperpod_eks.config.model import Config


def monitoring(config: Config) -> Iterator[Finding]:
    """Settings of Prometheus without it, and a workspace of another region."""
    prometheus = config.prometheus
    given = prometheus.workspace_arn or prometheus.levels
    if given and config.monitoring != "prometheus":
        text = "has no effect without monitoring: prometheus; set that, or remove it"
        yield Finding(("prometheus",), text)
    _, _, service, region, *_ = [*(prometheus.workspace_arn or "").split(":"), *[""] * 4]
    if service and region != config.region:  # what is no ARN is refused as well
        text = f"is not in {config.region} (the add-on writes to its own region); use one there"
        yield Finding(("prometheus", "workspace_arn"), text, True)
