"""Documents of commands that show something."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict, final

from hyperpod_eks.cli.schemas.base import Group, Head, Json, KeptData, Moment, Named, Outputs, Pair
from hyperpod_eks.policy.statements import Policy as PolicyDocument
from hyperpod_eks.resources.hyperpod.api import NodeRow, Operation
from hyperpod_eks.resources.team_use import TeamUse

# --- clusters and resources


class StatusCluster(Named):
    """The HyperPod cluster."""

    arn: str
    status: str
    failure: str
    ready: Annotated[bool, "whether everything is as declared"]


class StatusEks(TypedDict, total=False):
    """The EKS cluster."""

    name: str
    version: str
    status: str
    health: list[object]
    endpoint: str


class StatusAddon(TypedDict):
    """An add-on."""

    name: str
    version: str
    status: str
    issues: list[object]


State = Literal["ready", "waiting", "missing", "drifted", "failed", "foreign"]


class StatusRow(TypedDict):
    """A resource."""

    name: str
    id: str
    arn: str
    state: State
    why: str
    differs: dict[str, Pair]
    unproven: NotRequired[
        dict[
            str,
            Annotated[
                list[object],
                "what AWS describes, what it accepted",
                {"minItems": 2, "maxItems": 2},
            ],
        ]
    ]
    unknown: NotRequired[Annotated[list[str], "what AWS does not describe"]]


class StatusStep(TypedDict):
    """A step and its resources."""

    name: str
    resources: list[StatusRow]


Difference = TypedDict("Difference", {"key": str, "field": str, "is": object, "declared": object})


class Remembered(Head):
    """The state in the manifest; printed by status --offline."""

    source: Annotated[Literal["manifest"], "with --offline: what the manifest has"]
    cluster: StatusCluster
    account: str
    region: str
    eks: StatusEks
    addons: list[StatusAddon]
    helm: Json
    instance_groups: list[Group]
    nodes: list[NodeRow]
    steps: list[StatusStep]
    differences: list[Difference]


class Seen(Head):
    """The state in AWS; printed by status."""

    cluster: StatusCluster
    account: str
    region: str
    eks: StatusEks
    addons: list[StatusAddon]
    helm: Json
    instance_groups: list[Group]
    nodes: list[NodeRow]
    steps: list[StatusStep]
    differences: list[Difference]
    warnings: Annotated[
        list[str],
        "Why resources could not be compared, such as a config that was not found, and problems:"
        " nodes without their devices, a version of an add-on that is known to be broken.",
    ]
    compared: Annotated[
        bool,
        "Whether the resources were compared with a config; false if its config was not found.",
    ]
    operations: Annotated[list[Operation], "What HyperPod is doing with the cluster, newest first."]
    teams: Annotated[list[TeamUse], "The use of their quotas; empty without teams."]
    kept_data: Annotated[
        list[KeptData], "What holds data without a cluster, as after a delete that kept it."
    ]


Status = Seen | Remembered


class OutputsHead(Head):
    """The common members of the outputs of a cluster."""

    cluster: Named
    serial: Annotated[int, "of the manifest"]
    outputs: Outputs


@final
class AllOutputs(OutputsHead):
    """All outputs."""


@final
class OneOutput(OutputsHead):
    """One output."""

    key: Annotated[str, "the one that was asked for"]


class ClusterConfig(Head):
    """The config that a cluster was last declared with; printed by config show."""

    cluster: Named
    account: str
    region: str
    source: Annotated[str, "URL of the object, or the manifest's place"]
    number: Annotated[int, "of the object; 0 if the bucket has none"]
    saved_at: Annotated[str, "RFC 3339; empty if the bucket has none"]
    tool_version: Annotated[str, "the version of hyperpod-eks that wrote it"]
    config: Annotated[
        Json,
        "As a config file has it; a folder on another machine is sha256: and its digest.",
    ]


class Listed(TypedDict):
    """A HyperPod cluster."""

    name: str
    region: str
    arn: Annotated[str, "of the HyperPod cluster; empty if there is none"]
    status: str
    nodes: Annotated[int, "that run"]
    target_nodes: int
    orchestrator: Literal["eks", "slurm"]
    eks_cluster: str | None
    kubernetes_version: str | None
    created_by: Annotated[
        Literal["hyperpod-eks", "hyp", "cloudformation", "terraform", "unknown"],
        "as far as tags show",
    ]
    usd_per_hour: Annotated[
        float | None, "Nodes and control plane, about; null if a price is not known."
    ]
    unpriced: Annotated[list[str], "What has no known price."]
    manifest: Annotated[str | None, "Path of its manifest, if it was found."]


class List(Head):
    """All HyperPod clusters of an account, created by any tool; printed by list."""

    account: str
    regions: Annotated[list[str], "Regions that were asked."]
    clusters: list[Listed]
    warnings: Annotated[
        list[str],
        "Regions that are not enabled or did not answer, and manifests that cannot be read.",
    ]


class Orphan(TypedDict):
    """A resource that belongs to no cluster."""

    cluster: str
    kind: str
    id: str
    lineage: str


class Elsewhere(TypedDict):
    """A cluster whose manifest was not found."""

    cluster: str
    lineage: str
    next: Annotated[str, "The command that rebuilds its manifest in this folder."]


class Orphans(Head):
    """Resources with our tags that belong to no cluster; printed by orphans."""

    account: str
    region: str
    orphans: list[Orphan]
    clusters: Annotated[list[Elsewhere], "Existing clusters whose manifest was not found."]
    not_listed: Annotated[list[str], "Services that were not asked, with the reasons."]
    next: Annotated[list[str], "The commands that delete the orphans, one a cluster."]


# --- nodes


class GroupCount(TypedDict):
    """The number of nodes of an instance group."""

    name: str
    current: int
    target: int


class Failed(TypedDict):
    """A node that HyperPod refused to act on, or that the cluster does not have."""

    instance_id: str
    code: str
    message: str


@final
class NodeList(Head):
    """The nodes of a cluster."""

    cluster: Named
    groups: list[GroupCount]
    nodes: list[NodeRow]


NodeAction = Literal["reboot", "replace", "check", "delete"]


@final
class NodeChange(Head):
    """The result of an action on nodes."""

    cluster: Named
    action: NodeAction
    done: Annotated[list[str], "ids of nodes for which it was started"]
    failed: list[Failed]
    scaled: Annotated[
        dict[str, list[int]], "delete: by group, the counts in the config before and now"
    ]


class Offering(TypedDict):
    """An offering of a training plan: capacity that is paid in advance."""

    id: str
    instance_type: str
    instance_count: int
    availability_zones: list[str]
    start: Annotated[str | None, "UTC"]
    end: Annotated[str | None, "UTC"]
    hours: Annotated[float | None, "the duration of the whole plan"]
    upfront_fee: Annotated[str | None, "as AWS says, of the whole plan"]
    currency: str | None
    buy: Annotated[str, "the command that buys it"]


@final
class Capacity(Head):
    """Offerings of training plans for HyperPod, the soonest first."""

    region: str
    offerings: list[Offering]


@final
class CapacityWritten(Head):
    """The training plan that was written to the config file."""

    file: str
    instance_group: str
    training_plan_arn: str


class MirroredImage(TypedDict):
    """An image that the charts or `test` need."""

    image: Annotated[str, "as the chart names it"]
    copy: Annotated[str, "its copy in ECR; empty if nodes reach the image itself"]
    charts: Annotated[list[str], "who needs it: chart, charts.NAME, or test"]
    action: Annotated[
        Literal["copy", "copied", "present", "reachable"],
        "copy: with --dry-run, whether there is one or not; reachable: in ECR in this region",
    ]


class Mirror(Head):
    """The images of a cluster's charts, and the values that name their copies; of mirror."""

    cluster: Named
    registry: str
    images: list[MirroredImage]
    values: Annotated[Json, "settings of the config that name the copies"]
    file: Annotated[str | None, "the config file, if the values were written to it"]
    warnings: list[str]
    next: Annotated[str, "the command that uses the copies"]


class Line(TypedDict):
    """A line of a log."""

    time: Moment
    stream: str
    message: str


class Logs(Head):
    """The newest lines of lifecycle or control plane logs; printed by logs."""

    cluster: Named
    log_group: Annotated[str, "empty if there is none yet"]
    lines: Annotated[list[Line], "oldest first"]


class ClusterEvent(TypedDict):
    """An event of HyperPod."""

    time: Moment
    level: str
    instance_group: str
    instance_id: str
    message: str


class Events(Head):
    """HyperPod's events of a cluster; printed by events."""

    cluster: Named
    events: Annotated[list[ClusterEvent], "oldest first"]


class Ssm(Head):
    """The command that opens a shell on a node; printed by ssm."""

    cluster: Named
    target: Annotated[str, "of the session"]
    run: Annotated[str, "the command"]


# --- access


class KubeCluster(Named):
    """The EKS cluster."""

    arn: str


class Kubeconfig(Head):
    """The location of the written entry; printed by kubeconfig.

    With --stdout, kubeconfig prints the kubeconfig itself.
    """

    cluster: KubeCluster
    path: str
    context: str
    merged: Annotated[bool, "into a file that was named, not one of its own"]


class PolicyRow(TypedDict):
    """An IAM policy with its name."""

    name: str
    characters: Annotated[int, "as IAM counts them, without white space", {"maximum": 6144}]
    document: PolicyDocument


class Policy(Head):
    """IAM policies for the caller of create, status and delete; printed by policy."""

    cluster: Named
    account: str
    region: str
    policies: list[PolicyRow]


# --- other documents


class Diagram(Head):
    """The picture of a cluster; printed by diagram."""

    cluster: Named
    d2: Annotated[str, "the picture as text of D2"]
    svg: str


class Export(Head):
    """The files that were written for another tool; printed by export."""

    cluster: Named
    folder: str
    files: list[str]
    resources: Annotated[
        dict[str, list[str]],
        "by key of the manifest, the types to which it is exported; none for a part of another one",
    ]
    left_out: Annotated[
        dict[str, str], "by key of the manifest, why it is left out, or which part of it is"
    ]
    next: Annotated[str, "the command that imports them"]


class Init(Head):
    """The config that was written; printed by init."""

    path: Annotated[str | None, "null: to stdout"]
    content: str


class Validate(Head):
    """A valid config; printed by validate."""

    file: str
    warnings: list[str]
    config: Json


class Freed(TypedDict):
    """A lock that was freed."""

    lock: Annotated[str, "S3 URL of the lock"]
    holder: Annotated[str, "the run that held it: process, host and time"]


class Unlocked(Head):
    """Locks that were freed; printed by unlock."""

    cluster: Named
    freed: list[Freed]


class Explanation(Head):
    """An explanation; printed by explain."""

    topic: Annotated[str | None, "an exit code or the id of a cause; null for the list of all"]
    text: str


class Version(Head):
    """Versions; printed by version."""

    version: str
    python: str
    platform: str
    packages: dict[str, str]


class Stack(TypedDict):
    """A running embedded stack."""

    endpoint: str
    pid: int
    speed: Annotated[float, "simulated seconds per real second"]
    region: str


class LocalHead(Head):
    """The common members of the local commands' documents."""

    stopped: Annotated[bool, "whether stop stopped one"]
    stack: Annotated[Stack | None, "the one that runs"]


@final
class Local(LocalHead):
    """The embedded stack; printed by local start, status and stop."""


@final
class Prepared(LocalHead):
    """The embedded stack and what was created; printed by local prepare."""

    created: Annotated[list[str], "what prepare created, in words"]
