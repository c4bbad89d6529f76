"""HyperPod task governance: a cluster's scheduler policy, and a compute quota for each team."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent, not_offered
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.config.teams import team_namespace
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube.access import Access
from hyperpod_eks.kube.contents import Contents, contents, retain_volumes
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.access_entry import AccessEntry
from hyperpod_eks.resources.addon import Addon
from hyperpod_eks.resources.base import (
    MINUTE,
    Blocker,
    Differs,
    Fact,
    Facts,
    Live,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.compare import as_declared
from hyperpod_eks.resources.ec2.security_group import SecurityGroup
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.governance_members import (
    SHARES,
    STRATEGY,
    aligned,
    in_order,
    policy_members,
    quota_members,
)
from hyperpod_eks.resources.hyperpod.api import describe, eks_name
from hyperpod_eks.resources.hyperpod.cluster import Cluster
from hyperpod_eks.resources.hyperpod.trouble import governance
from hyperpod_eks.resources.iam import Role
from hyperpod_eks.resources.permissions import Statement, Statements, actions
from hyperpod_eks.resources.tagged import Candidate, Tagged, tags_of
from hyperpod_eks.workers import gather

STATES = {
    "Created": State.READY,
    "Updated": State.READY,
    "UpdateFailed": State.READY,  # `status` differs then
    "UpdateRollbackFailed": State.READY,
    "CreateFailed": State.FAILED,
    "CreateRollbackFailed": State.FAILED,
    "DeleteFailed": State.STUCK,  # never replaced: its namespace is in use
    "DeleteRollbackFailed": State.STUCK,
    "Deleting": State.LEAVING,
}
"""By SchedulerResourceStatus; an unknown one is busy."""
GONE = "Deleted"
"""The status of deleted ones, which stay in lists."""
IN_EFFECT = "in effect"
"""The fact `status` of one whose last update has not failed."""


@frozen
class Governed(Resource):
    """What task governance keeps for a HyperPod cluster: a policy, or a quota.

    Both have a version, which an update must name (``TargetVersion``): one that was changed since
    it was read is not overwritten.  One whose creation failed, because the add-on did not run yet,
    can only be deleted and created again.
    """

    cluster: Cluster
    control: eks.Cluster
    name: str
    settings: JsonMapping
    """The declared facts."""

    kind = "sagemaker/Governed"
    step = "teams"
    elective = "sagemaker"
    gone_before = (Addon, AccessEntry)  # the add-on carries it out, and we look into namespaces
    schema = 2
    patience = 15 * MINUTE
    usual = "1 min"
    typical = 30.0
    typical_change = 30.0
    noun: ClassVar[str] = ""
    """The name of the kind in the API."""
    method: ClassVar[str] = ""
    """The end of the names of its methods."""

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by its name, or what is there in its place, on this cluster."""
        there = [each for each in self._rows(snapshot, type(self)) if self._is_it(each)]
        ours = [each for each in there if each.get("Name") == self.name] or there
        lives = [self._look(snapshot.aws, each) for each in ours]
        return [self._held(snapshot, each) for each in lives if each]

    def _rows(self, snapshot: Snapshot, kind: type[Governed]) -> list[JsonMapping]:
        """Return the summaries of a kind on this cluster, without deleted ones."""
        found = describe(snapshot, self.cluster.name)
        if found is None:
            return []
        rows = snapshot.all(
            snapshot.aws.sagemaker,
            f"list_{kind.method}s",
            f"{kind.noun}Summaries",
            ClusterArn=found["ClusterArn"],
        )
        return [each for each in rows if each.get("Status") != GONE]

    def _held(self, snapshot: Snapshot, live: Live) -> Live:
        """Return one that failed as it was created, as it is if it cannot be replaced."""
        if snapshot.bare or not live.holds_nothing:
            return live
        if not (obstacle := self._obstacle(snapshot, live)):
            return live
        why = f"{live.why}; it is not replaced, {obstacle}"
        return replace(live, state=State.STUCK, why=why, holds_nothing=False)

    @abstractmethod
    def _obstacle(self, snapshot: Snapshot, live: Live) -> str:
        """Return why one that failed as it was created cannot be deleted; empty if it can."""

    @abstractmethod
    def _is_it(self, row: JsonMapping) -> bool:
        """Whether a summary is of this one, or of one in its place."""

    @abstractmethod
    def _described(self, found: JsonMapping) -> JsonMapping:
        """Return the facts of a description."""

    def _look(self, aws: Aws, row: JsonMapping) -> Live | None:
        id_, arn = row[f"{self.noun}Id"], row[f"{self.noun}Arn"]
        ask = partial(getattr(aws.sagemaker, f"describe_{self.method}"), **{f"{self.noun}Id": id_})
        with absent("ResourceNotFound"):
            found, tags = gather(ask, partial(aws.sagemaker.list_tags, ResourceArn=arn))
            if found.get("Status") != GONE:
                return self._live(found, owner(tags.get("Tags") or ()))
        return None

    def _live(self, found: JsonMapping, signed: str | None) -> Live:
        status, reason = str(found.get("Status") or ""), str(found.get("FailureReason") or "")
        words = f"{reason} ({status})" if reason else status
        failed = status.startswith("Update") and status.endswith("Failed")
        facts = self._described(found)
        return Live(
            found[f"{self.noun}Id"],
            found.get(f"{self.noun}Arn", ""),
            owner=signed,
            state=STATES.get(status, State.BUSY),
            why=words,
            facts={
                **{n: as_declared(value, self.settings.get(n)) for n, value in facts.items()},
                "status": words if failed else IN_EFFECT,
            },
            attributes={
                "status": status,
                "version": found.get(f"{self.noun}Version"),
            },
            holds_nothing=status in ("CreateFailed", "CreateRollbackFailed"),
        )

    def names(self, live: Live | None = None) -> Iterable[str]:
        """The declared settings, and that the last update has not failed."""
        return (*self.settings, "status")

    def expected(self, name: str, references: References) -> Fact:
        """The declared value."""
        return IN_EFFECT if name == "status" else self.settings[name]

    def authoritative(self, name: str) -> bool:
        """Only the status."""
        return name == "status"

    def reverts(self, name: str) -> bool:
        """Settings that have a default."""
        return name in self.initial

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; its name is unique on the cluster.  There is no client token."""
        made = getattr(aws.sagemaker, f"create_{self.method}")(
            Name=self.name,
            ClusterArn=references(self.cluster).arn,
            Tags=aws.pairs(self.label),
            **self._request(),
        )
        return Live(
            made[f"{self.noun}Id"],
            made[f"{self.noun}Arn"],
            owner=aws.lineage,
            state=State.BUSY,
            why="Creating",
        )

    @abstractmethod
    def _request(self) -> JsonObject:
        """Return the settings as members of a request."""

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Restore its tags, or set the settings at the version that was read."""
        if live.owner is None:
            aws.sagemaker.add_tags(ResourceArn=live.arn, Tags=aws.pairs(self.label))
        if differs.keys() - {"owner"}:
            getattr(aws.sagemaker, f"update_{self.method}")(
                **{f"{self.noun}Id": live.id},
                TargetVersion=live.attributes["version"],
                **self._request(),
            )

    def delete(self, aws: Aws, live: Live) -> None:
        """Start its deletion."""
        getattr(aws.sagemaker, f"delete_{self.method}")(**{f"{self.noun}Id": live.id})


@frozen
class SchedulerPolicy(Governed):
    """The cluster's policy: classes of priority, and how idle compute is shared.

    A cluster has one; that of somebody else is never changed.
    """

    kind = "sagemaker/ClusterSchedulerConfig"
    noun = "ClusterSchedulerConfig"
    tag_type = "scheduler-policy"
    method = "cluster_scheduler_config"
    asks = ("priority_classes", "fair_share", "idle_resource_sharing")
    initial: ClassVar[Facts] = {"priority_classes": [], "fair_share": "Enabled"}

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on policies; AddTags is a dependent action of the create."""
        return _permissions(resolved, cls.noun, "cluster-scheduler-config")

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> SchedulerPolicy:
        """Declare it with the fields that a delete needs."""
        cluster = _bare_cluster(resolved, vpc)
        return SchedulerPolicy("policy", cluster, cluster.control, name=found.id, settings={})

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """All policies of the region; if there ever was one, also the quotas, which come after it.

        None if the cluster's manifest would know them.  Deleted ones stay in lists.
        """
        if cluster and aws.recorded:
            return
        listed: tuple[type[Governed], ...] = (SchedulerPolicy, ComputeQuota)
        with not_offered():
            for kind in listed:
                rows = Snapshot(aws).all(
                    aws.sagemaker, f"list_{kind.method}s", f"{kind.noun}Summaries"
                )
                for each in rows:
                    if each.get("Status") != GONE:
                        arn = each[f"{kind.noun}Arn"]
                        ask = partial(tags_of, aws.sagemaker.list_tags, "Tags", ResourceArn=arn)
                        yield kind.tag_type, each["Name"], ask
                if not rows:
                    return

    def blockers(self, snapshot: Snapshot, live: Live) -> list[Blocker]:
        """Compute quotas of others, with which the policy cannot be deleted."""
        found = describe(snapshot, self.cluster.name)
        every = governance(snapshot, Live(self.name, found["ClusterArn"])) if found else []
        return [Blocker(each) for each in every if live.id not in each]

    def _obstacle(self, snapshot: Snapshot, live: Live) -> str:
        """The cluster's teams: SageMaker deletes a policy only after their quotas."""
        rows = self._rows(snapshot, ComputeQuota)
        teams = {str((each.get("ComputeQuotaTarget") or {}).get("TeamName")) for each in rows}
        spaces = ", ".join(map(team_namespace, sorted(teams)))
        after = "since SageMaker deletes it only after all teams and their namespaces"
        return spaces and f"{after}: {spaces}"

    def _is_it(self, row: JsonMapping) -> bool:
        return True

    def _look(self, aws: Aws, row: JsonMapping) -> Live | None:
        live = super()._look(aws, row)
        if live is None or live.owner is not None:
            return live
        ask = f"delete-cluster-scheduler-config --cluster-scheduler-config-id {live.id}"
        command = f"aws sagemaker {ask} --region {aws.region}"
        whose = f"somebody else (a cluster has one policy; to delete it: {command})"
        return replace(live, attributes={**live.attributes, "whose": whose})

    def _described(self, found: JsonMapping) -> JsonMapping:
        config = found.get("SchedulerConfig") or {}
        facts = {name: config[member] for name, member in SHARES.items() if member in config}
        classes = config.get("PriorityClasses")
        return facts if classes is None else {**facts, "priority_classes": in_order(classes)}

    def _request(self) -> JsonObject:
        return policy_members(self.settings)


@frozen
class ComputeQuota(Governed):
    """A team's quota, and with it the team's namespace and queues in Kubernetes."""

    team: str
    policy: SchedulerPolicy

    kind = "sagemaker/ComputeQuota"
    noun = "ComputeQuota"
    tag_type = "compute-quota"
    method = "compute_quota"
    asks = (
        "quota",
        "strategy",
        "borrow_limit",
        "absolute_borrow_limits",
        "preempt_team_tasks",
        "fair_share_weight",
        "activation_state",
    )
    initial: ClassVar[Facts] = {
        "quota": [],
        "strategy": STRATEGY,
        "borrow_limit": 50,
        "preempt_team_tasks": "LowerPriority",
        "fair_share_weight": 0,
        "activation_state": "Enabled",
    }

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on quotas; AddTags is a dependent action of the create."""
        return _permissions(resolved, cls.noun, "compute-quota")

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> ComputeQuota:
        """Declare it with the fields that a delete needs; its label has the team."""
        policy = SchedulerPolicy.bare(replace(found, id=resolved.name), resolved, vpc)
        return ComputeQuota(
            found.label,
            policy.cluster,
            policy.control,
            name=found.id,
            settings={},
            team=found.label.removeprefix("quota-"),
            policy=policy,
        )

    @property
    def takes_along(self) -> str:
        """The team's namespace, which SageMaker deletes."""
        return f"with the namespace {team_namespace(self.team)} and everything in it"

    def contents(self, snapshot: Snapshot) -> Contents | None:
        """Return what is in the team's namespace now, beside the queue of the quota."""
        if (access := self._access(snapshot)) is None:
            return None
        space = team_namespace(self.team)
        return contents(access, space, {("localqueues", f"{space}-localqueue")})

    def _access(self, snapshot: Snapshot) -> Access | None:
        """Return the access to the EKS cluster that HyperPod names: it may be anybody's."""
        name = eks_name(snapshot, self.cluster.name)
        return eks.access(snapshot, name) if name else None

    def _obstacle(self, snapshot: Snapshot, live: Live) -> str:
        """What is in the namespace: somebody may have created it before."""
        try:
            there = str(self.contents(snapshot) or "")
        except HyperpodError as error:
            there = str(error)
        return there and f"since the namespace {team_namespace(self.team)} is in use: {there}"

    def _live(self, found: JsonMapping, signed: str | None) -> Live:
        """As every kind; one that somebody has moved to another team is that team's.

        UpdateComputeQuota takes a team's name, and a delete would take that team's namespace.
        """
        live, target = super()._live(found, signed), found.get("ComputeQuotaTarget") or {}
        if target.get("TeamName", self.team) == self.team:
            return live
        whose = f"team {target['TeamName']} (somebody else has set that)"
        return replace(live, owner=whose, attributes={**live.attributes, "whose": whose})

    def _is_it(self, row: JsonMapping) -> bool:
        target = row.get("ComputeQuotaTarget") or {}
        return row.get("Name") == self.name or target.get("TeamName") == self.team

    def _described(self, found: JsonMapping) -> JsonMapping:
        config = found.get("ComputeQuotaConfig") or {}
        sharing = config.get("ResourceSharingConfig") or {}
        target = found.get("ComputeQuotaTarget") or {}
        facts: JsonObject = {
            "strategy": sharing.get("Strategy"),
            "borrow_limit": sharing.get("BorrowLimit"),
            "preempt_team_tasks": config.get("PreemptTeamTasks"),
            "fair_share_weight": target.get("FairShareWeight"),
            "activation_state": found.get("ActivationState"),
        }
        for name, rows in (
            ("quota", config.get("ComputeQuotaResources")),
            ("absolute_borrow_limits", sharing.get("AbsoluteBorrowLimits")),
        ):
            if rows is not None:
                facts[name] = aligned(rows, self.settings.get(name) or ())
        return {name: value for name, value in facts.items() if value is not None}

    def _request(self) -> JsonObject:
        """Return the whole config: members that an update leaves out may be reset."""
        return quota_members(self.team, self.settings)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """As every kind; a state that is no longer declared becomes that of a new quota."""
        if "activation_state" in differs and "activation_state" not in self.settings:
            aws.sagemaker.update_compute_quota(
                ComputeQuotaId=live.id,
                TargetVersion=live.attributes["version"],
                ActivationState=self.initial["activation_state"],
                **self._request(),
            )
            return
        super().update(aws, references, live, differs)

    def delete(self, aws: Aws, live: Live) -> None:
        """Start its deletion, and with it that of the namespace.

        The volumes of the namespace's claims are data: their policy becomes Retain first
        (Kubernetes documentation, "Change the Reclaim Policy of a PersistentVolume").
        """
        snapshot = Snapshot(aws)
        if access := self._access(snapshot):
            retain_volumes(access, team_namespace(self.team))
        super().delete(aws, live)


def _bare_cluster(resolved: ResolvedConfig, vpc: Vpc) -> Cluster:
    """Declare the cluster with what is needed of it here: its name and its key."""
    role = Role("execution-role", name="", trusts="", managed=())
    group = SecurityGroup("security-group", vpc=vpc, name="")
    control = eks.Cluster(
        "cluster",
        name=resolved.eks_name,
        version="",
        pinned=False,
        role=role,
        subnets=(),
        security_group=group,
        log_types=(),
        support_type="",
        deletion_protection=False,
    )
    return Cluster(
        "cluster",
        name=resolved.name,
        control=control,
        role=role,
        scaler=None,
        security_group=group,
        groups=(),
        zones=(),
        settings={},
        scales_itself=False,
    )


def _permissions(resolved: ResolvedConfig, noun: str, resource: str) -> Iterator[Statement]:
    """Yield the statements of one kind, if the config has teams."""
    if not resolved.config.teams:
        return
    own = (resolved.arn("sagemaker", f"{resource}/*"),)
    names = [f"{verb}{noun}" for verb in ("Create", "Delete", "Describe", "Update")]
    cluster = resolved.arn("sagemaker", "cluster/*")
    tags = actions("sagemaker", "AddTags", "ListTags")
    yield Statement("TeamsMake", (*actions("sagemaker", *names), *tags), (*own, cluster))
    yield Statement("TeamsLook", actions("sagemaker", f"List{noun}s"))
