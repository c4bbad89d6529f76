"""Log groups of CloudWatch Container Insights, which hold what pods and nodes have written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Guard, Live, Resource
from hyperpod_eks.resources.logs import CREATE, LogGroup
from hyperpod_eks.resources.permissions import Statement, Statements, look

PREFIX = "/aws/containerinsights"
GROUPS = ("application", "dataplane", "host", "performance")
"""Amazon CloudWatch User Guide, "Container Insights": what its agents write to."""


@frozen
class InsightsLogs(LogGroup):
    """A log group, created first: the add-on's agents would set no retention, and never delete it.

    One that the agents created earlier has no tags; it has our EKS cluster's name, so it is ours.
    """

    kind = "monitoring/LogGroup"
    step = "monitoring"
    schema = 2
    tag_type = keep_group = ""
    data = True
    guards: ClassVar[Mapping[str, Guard]] = {
        "retention": lambda is_, days: (
            f"logs older than {days} days are deleted" if is_ is None or days < is_ else ""
        ),
    }

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on the ARNs of the log groups."""
        if resolved.config.monitoring != "cloudwatch" or resolved.eks_is_theirs:
            return
        group = f"{PREFIX}/{resolved.eks_name}/*"
        own = tuple(resolved.arn("logs", f"log-group:{group}{end}") for end in ("", ":*"))
        yield look("logs", "DescribeLogGroups")
        yield Statement("LogsMake", CREATE, own)
        yield Statement("LogsDelete", ("logs:DeleteLogGroup",), own, command="delete")

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by name."""
        ours = snapshot.aws.lineage
        return [replace(x, owner=x.owner or ours) for x in LogGroup.find(self, snapshot)]

    def holds(self, live: Live) -> str:
        """Return what is in it."""
        return "logs of pods and nodes"
