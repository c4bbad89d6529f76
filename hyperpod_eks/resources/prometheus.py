"""Workspaces of Amazon Managed Service for Prometheus, which hold the metrics of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.prices import UNKNOWN, Item
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import CLUSTER, LABEL, owner, tag
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import (
    CountedQuota,
    Differs,
    Identity,
    Live,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.permissions import (
    Conditions,
    Statement,
    Statements,
    actions,
    look,
    tagged,
)
from hyperpod_eks.resources.tagged import Candidate, Tagged

STATES = {
    "ACTIVE": State.READY,
    "UPDATING": State.READY,  # it takes and answers metrics meanwhile
    "DELETING": State.LEAVING,
    "CREATION_FAILED": State.FAILED,
}
"""By WorkspaceStatusCode; CREATING and an unknown one are busy."""


def _listed(snapshot: Snapshot) -> list[JsonMapping]:
    return snapshot.all(snapshot.aws.amp, "list_workspaces", "workspaces")


@frozen
class Workspace(Resource):
    """A workspace: metrics are written to it, and kept for 150 days or as its settings say."""

    alias: str
    """Its name for people; not unique."""

    kind = "amp/Workspace"
    step = "monitoring"
    schema = 2
    elective = "aps"
    tag_type = "workspace"
    data = True
    identity = Identity.REFUSED_TWICE
    usual = "1 min"
    typical = 20.0
    quota = CountedQuota(
        "quota-prometheus-workspaces",
        "aps",
        "Workspaces per region per account",
        lambda snapshot: len(_listed(snapshot)),
    )

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on workspaces with the cluster's tag, or a look at an existing one.

        CreateWorkspace has no resource (Service Authorization Reference, Amazon Managed Service
        for Prometheus).
        """
        config = resolved.config
        if config.monitoring != "prometheus":
            return
        if arn := config.prometheus.workspace_arn:
            yield Statement("PrometheusLook", actions("aps", "DescribeWorkspace"), (arn,))
            return
        every, signed = (resolved.arn("aps", "workspace/*"),), tagged(resolved)
        born: Conditions = {"StringEquals": {f"aws:RequestTag/{CLUSTER}": resolved.name}}
        yield look("aps", "ListWorkspaces")
        yield Statement("PrometheusMake", actions("aps", "CreateWorkspace"), condition=born)
        yield Statement("PrometheusSign", actions("aps", "TagResource"), every, born)
        yield Statement("PrometheusLook", actions("aps", "DescribeWorkspace"), every, signed)
        delete = actions("aps", "DeleteWorkspace")
        yield Statement("PrometheusDelete", delete, every, signed, "delete")

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Workspace:
        """Declare it with the fields that a delete needs."""
        return Workspace(found.label, alias=resolved.name)

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """All workspaces of the region, unless the cluster's manifest would know it."""
        for each in () if cluster and aws.recorded else _listed(Snapshot(aws)):
            yield "workspace", each["workspaceId"], partial(dict, each.get("tags") or {})

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by our tags; the list does not have its endpoint."""
        wanted = (snapshot.aws.cluster, self.label)
        found = []
        for each in _listed(snapshot):
            tags = each.get("tags") or {}
            if (tag(tags, CLUSTER), tag(tags, LABEL)) != wanted:
                continue
            with absent("ResourceNotFoundException"):
                about = snapshot.aws.amp.describe_workspace(workspaceId=each["workspaceId"])
                found.append(self._live(about["workspace"]))
        return found

    def _live(self, found: JsonMapping) -> Live:
        status = found["status"]["statusCode"]
        endpoint = (found.get("prometheusEndpoint") or "").rstrip("/")
        state = STATES.get(status, State.BUSY)
        if state is State.READY and not endpoint:  # as CreateWorkspace answers, for one
            state = State.BUSY
        return Live(
            found["workspaceId"],
            found["arn"],
            owner=owner(found.get("tags") or {}),
            state=state,
            why=status,
            attributes={"endpoint": endpoint},
        )

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; idempotent by client token."""
        return self._live(
            aws.amp.create_workspace(alias=self.alias, clientToken=token, tags=aws.tags(self.label))
        )

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Restore its tags."""
        aws.amp.tag_resource(resourceArn=live.arn, tags=aws.tags(self.label))

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it; its metrics can be read no more, and are gone within a month."""
        aws.amp.delete_workspace(workspaceId=live.id)

    def holds(self, live: Live) -> str:
        """Return what is in it."""
        return "metrics"

    def lost_with(self, live: Live) -> str:
        """Return what goes with it (DeleteWorkspace)."""
        return "its metrics, rules and alerts; there is no backup of them"

    def prices(self, *, extended: bool) -> Iterator[Item]:
        """Metrics are billed by their samples, whose number nothing says."""
        yield Item("Prometheus metrics, by samples", 1, UNKNOWN)
