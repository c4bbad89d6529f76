"""Documents about runs: what a command did, or would do."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict, final

from hyperpod_eks.aws.prices import Cost
from hyperpod_eks.cli.schemas.base import Group, Head, Json, KeptData, Named, Outputs, Pair


class ResultRow(TypedDict):
    """A resource."""

    key: Annotated[str, "step/name, like network/vpc"]
    id: str
    state: NotRequired[str]
    changed: NotRequired[Annotated[bool, "whether this run created or changed it"]]
    origin: NotRequired[str]


class ResultStep(TypedDict):
    """A step and its resources."""

    name: str
    resources: list[ResultRow]


class Deletion(TypedDict):
    """A resource, and what delete would do with it."""

    key: str
    id: str
    action: Literal["delete", "keep"]
    why: str


class Refused(TypedDict):
    """A call that AWS refused."""

    service: str
    operation: str
    code: str
    message: str
    request_id: str


class Evidence(TypedDict):
    """Evidence for a cause."""

    source: str
    about: str
    text: str


class Cause(TypedDict):
    """A known cause."""

    id: Annotated[str, "the section in docs/troubleshooting.md"]
    cause: str
    next: Annotated[str, "what to run next"]
    docs: str
    evidence: list[Evidence]


Error = TypedDict(
    "Error",
    {
        "class": Annotated[str, "Kind of the error, like Denied or Capacity."],
        "message": str,
        "hint": Annotated[str, "What to do about it."],
        "aws": Annotated[Refused, "The call that AWS refused."] | None,
        "cause": Annotated[str, "The error that caused it, if another did."],
        "causes": Annotated[list[Cause], "known causes, the likeliest first"],
        "next": Annotated[str, "What to run or to do next, in words if it is no command."],
        "docs": Annotated[str, "Where the exit code is explained."],
    },
)


class Failure(Head):
    """The document of a failed command."""

    error: Error
    resume: Annotated[str | None, "The command that continues; null if none does."]
    log_file: str | None


class Run(Head):
    """The common members of a successful run's document."""

    error: None
    changed: bool
    cluster: Named
    account: str
    region: str
    partition: str
    steps: list[ResultStep]


class TestFinding(TypedDict):
    """Something that does not work."""

    about: Annotated[str, "the group, node, pod or add-on"]
    says: str
    cause: Annotated[str, "the section in docs/troubleshooting.md"]
    explanation: str
    next: Annotated[str, "what to run next"]


class TestFigure(TypedDict):
    """A figure that a check has measured."""

    about: str
    says: str


class TestCheck(TypedDict):
    """A check, and what it found."""

    id: str
    level: int
    looks_at: str
    status: Literal["passed", "failed", "skipped"]
    why: Annotated[str, "why it was skipped; empty otherwise"]
    measured: list[TestFigure]
    findings: list[TestFinding]


class Test(Head):
    """Whether a cluster works; printed by test."""

    cluster: Named
    account: str
    region: str
    levels: Annotated[list[int], "the levels that were asked for"]
    checks: list[TestCheck]


class Created(Run):
    """The result of create."""

    outputs: Outputs
    next: Annotated[str, "create, scale: the command that gives kubectl access"]
    cost: Annotated[Cost | None, "create, scale: of the cluster; null if nothing was changed"]
    warnings: list[str]


class Tested(Created):
    """The result of create --test."""

    test: Annotated[Test, "create --test: whether the cluster works"]


class Scaled(Created):
    """The result of scale."""

    scaled: Annotated[dict[str, list[int]], "scale: by group, the counts before and now"]


class Updated(Run):
    """The result of update-software."""

    instance_groups: Annotated[list[Group], "update-software: the groups now"]


class Delete(Run):
    """The common members of delete's results."""

    removed: Annotated[list[str], "delete: keys of deleted resources"]
    kept: Annotated[dict[str, str], "delete: why a resource is kept, by key"]
    kept_usd_per_hour: Annotated[
        float, "delete: what the kept NAT gateways and addresses cost, about"
    ]
    kept_data: Annotated[list[KeptData], "delete: what was kept because it holds data"]
    backups: Annotated[dict[str, list[str]], "delete --delete-data: backups that stay, by key"]
    remaining: Annotated[dict[str, str], "delete: what AWS still shows, by key"]


@final
class Deleted(Delete):
    """The result of delete."""


@final
class NotCreatedBy(Delete):
    """The result of delete --if-created-by for another run's cluster: nothing was deleted."""

    not_created_by: Annotated[
        str, "delete --if-created-by: the run that did not create the cluster; nothing was deleted"
    ]


@final
class DeletePlan(Run):
    """The result of delete --dry-run."""

    plan: Annotated[list[Deletion], "delete --dry-run: what would be deleted and what kept"]


class Adopted(Run):
    """The result of adopt."""

    resources: Annotated[list[ResultRow], "adopt: what is in the manifest now"]
    config: Annotated[bool, "adopt: whether the manifest has the cluster's config now"]
    warnings: list[str]


# --- plan and preflight


PlanAction = Literal["create", "change", "replace", "delete", "keep", "adopt", "wait", "refuse"]


class PlanRow(TypedDict):
    """A resource, and what create would do with it."""

    key: str
    action: PlanAction
    id: str
    why: str
    differs: dict[str, Pair]


class PathRow(TypedDict):
    """A resource on the critical path, and how long it takes."""

    key: str
    seconds: Annotated[float, "as measured at the last create, or the usual time of AWS"]


@final
class Plan(Head):
    """What create would do, and what it costs; printed by plan.  ``ok``: no action is "refuse"."""

    changes: Annotated[bool, "whether create would change something"]
    cluster: Named
    account: str
    region: str
    kubernetes_version: str
    counts: Annotated[dict[str, int], "resources by action"]
    resources: list[PlanRow]
    critical_path: Annotated[
        list[Annotated[PathRow, {"additionalProperties": False}]],
        "The chain of resources that create waits for longest; the rest is created beside it.",
    ]
    cost: Cost
    warnings: list[str]
    next: Annotated[str, "the command that does it; empty if there is nothing to do"]


class Finding(TypedDict):
    """A problem that a check found."""

    id: Annotated[str, "of the check"]
    severity: Literal["error", "warning", "info"]
    says: str
    fix: Annotated[str, "what to do about it"]
    seen: Annotated[Json, "the facts of it, which differ from check to check"]


class Preflight(Head):
    """The problems that would stop create; printed by preflight."""

    cluster: Named
    account: str
    region: str
    caller: Annotated[str, "ARN of the caller"]
    checks: Annotated[list[str], "ids of the checks that ran"]
    skipped: Annotated[list[str], "ids of --skip"]
    findings: list[Finding]


What = Literal[
    "pending",
    "creating",
    "updating",
    "waiting",
    "ready",
    "deleting",
    "gone",
    "kept",
    "failed",
    "result",
]


class ResourceEvent(TypedDict):
    """An event of a resource."""

    v: Literal["1"]
    time: Annotated[str, {"format": "date-time"}]
    what: What
    key: str
    id: str
    why: str
    changed: bool


class ResultEvent(TypedDict):
    """The last event of a run, with its document."""

    v: Literal["1"]
    time: Annotated[str, {"format": "date-time"}]
    what: What
    document: Json
