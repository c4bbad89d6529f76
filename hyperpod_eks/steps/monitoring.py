"""The monitoring step: where the metrics and logs of the add-ons go."""

from __future__ import annotations

from hyperpod_eks.aws.addon_needs import CLOUDWATCH, OBSERVABILITY
from hyperpod_eks.documents import JsonObject
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.insights_logs import GROUPS, PREFIX, InsightsLogs
from hyperpod_eks.resources.linked_addon import link
from hyperpod_eks.resources.prometheus import Workspace
from hyperpod_eks.steps.addons import Link, Links


def step(resolved: ResolvedConfig) -> tuple[Resource, ...]:
    """Declare the workspace of ours, or the log groups in an EKS cluster of ours."""
    config = resolved.config
    if config.monitoring == "prometheus" and not config.prometheus.workspace_arn:
        return (Workspace("prometheus", alias=resolved.name),)
    if config.monitoring != "cloudwatch" or resolved.eks_is_theirs:
        return ()
    names = {group: f"{PREFIX}/{resolved.eks_name}/{group}" for group in GROUPS}
    return tuple(
        InsightsLogs(
            f"{group}-logs",
            name=name,
            arn=resolved.arn("logs", f"log-group:{name}"),
            retention=config.eks.log_retention_days,
            key_arn=config.encryption.logs or "",
        )
        for group, name in names.items()
    )


def before(made: tuple[Resource, ...]) -> Links:
    """Return what the add-on of CloudWatch comes after."""
    return {CLOUDWATCH: Link(after=tuple(x for x in made if isinstance(x, InsightsLogs)))}


def after(resolved: ResolvedConfig, made: tuple[Resource, ...], nodes: Resource) -> dict[str, Link]:
    """Return what the observability add-on is declared with; it fails without nodes."""
    sources = tuple(each for each in made if isinstance(each, Workspace))
    settings = _observability(resolved, sources)
    return {OBSERVABILITY: Link((*sources, nodes), settings, sources)}


def _observability(resolved: ResolvedConfig, made: tuple[Workspace, ...]) -> JsonObject:
    """Return the settings of the add-on that writes metrics (SageMaker developer guide).

    The address of an existing workspace is that of the API reference, WorkspaceDescription.
    """
    prometheus = resolved.config.prometheus
    found: JsonObject = {}
    if made:
        arn, address = link(made[0], "arn"), link(made[0], "endpoint")
    else:
        arn = prometheus.workspace_arn or ""
        place = f"https://aps-workspaces.{resolved.region}.amazonaws.com"
        address = f"{place}/workspaces/{arn.rpartition('/')[2]}"
    found["ampWorkspace"] = {"arn": arn, "prometheusEndpoint": address}
    if levels := prometheus.levels:
        found["metricsProvider"] = {
            f"{_camel(name)}Metrics": {"level": level} for name, level in levels.items()
        }
    return found


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))
