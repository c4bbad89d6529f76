"""The settings of teams: HyperPod task governance."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue

from hyperpod_eks.config.cross_checks import principal_fault
from hyperpod_eks.config.pods import NAMESPACE
from hyperpod_eks.config.rules import Aws, Check, Members, Pattern
from hyperpod_eks.config.section import Section

GOVERNANCE = "amazon-sagemaker-hyperpod-taskgovernance"
"""The add-on, which `teams` stands for."""
USER_POLICY = "AmazonSagemakerHyperpodUserClusterPolicy"
"""The access policy that counts in the whole cluster (SageMaker developer guide, "Set up
permissions for data scientists"); the others count in namespaces."""
QUOTA = "CreateComputeQuota.ComputeQuotaConfig."
SCHEDULER = "CreateClusterSchedulerConfig.SchedulerConfig."
_NAME = r"[a-z0-9](?:[-a-z0-9]{0,38}[a-z0-9])?"
_RULE = "at most 40 lowercase letters, digits and hyphens, not at an end"
TEAM_NAME = Pattern("the name of a team", _RULE, _NAME, "choose one like vision")
CLASS_NAME = Pattern("the name of a priority class", _RULE, _NAME, "choose one like training")


class Team(Section):
    """A team: its share of the compute, and who belongs to it."""

    quota: Annotated[
        tuple[
            Annotated[
                Mapping[str, JsonValue], Members("sagemaker", f"{QUOTA}ComputeQuotaResources[]")
            ],
            ...,
        ],
        Field(
            strict=False,
            max_length=15,
            description="What is guaranteed: `{instance_type: ml.p5.48xlarge, count: 2}` for whole"
            " instances, or `accelerators`, `v_cpu` and `memory_in_gib` of a type, or its"
            " `accelerator_partition`.",
        ),
    ] = ()
    fair_share_weight: Annotated[
        Annotated[int, Aws("sagemaker", "CreateComputeQuota.ComputeQuotaTarget.FairShareWeight")]
        | None,
        Field(description="Its share of idle compute among those that want it. Without it: 0."),
    ] = None
    resource_sharing_config: Annotated[
        Annotated[Mapping[str, JsonValue], Members("sagemaker", f"{QUOTA}ResourceSharingConfig")]
        | None,
        Field(
            description="Whether the team lends and borrows idle compute: `{strategy: Lend}`, or"
            " `{strategy: LendAndBorrow, borrow_limit: 50}` in percent of its quota, which is what"
            " AWS does without it."
        ),
    ] = None
    preempt_team_tasks: Annotated[
        Annotated[str, Aws("sagemaker", f"{QUOTA}PreemptTeamTasks")] | None,
        Field(
            description="Whether tasks of the team stop its tasks of lower priority. Without it:"
            " LowerPriority."
        ),
    ] = None
    activation_state: Annotated[
        Annotated[str, Aws("sagemaker", "CreateComputeQuota.ActivationState")] | None,
        Field(description="`Disabled` starts no further task of the team. Without it: Enabled."),
    ] = None
    people: Annotated[
        tuple[Annotated[str, Check("ARN of an IAM role or user", principal_fault)], ...],
        Field(
            strict=False,
            description="ARNs of roles and users that may use the team's namespace"
            " `hyperpod-ns-TEAM`.",
        ),
    ] = ()
    policies: Annotated[
        tuple[
            Annotated[
                str,
                Pattern(
                    "the name of an EKS access policy",
                    "like AmazonSagemakerHyperpodTrainingPolicy",
                    r"Amazon[A-Za-z0-9]{1,100}Policy",
                    "list them with `aws eks list-access-policies`",
                ),
            ],
            ...,
        ],
        Field(
            strict=False,
            description="EKS access policies of its people, in its namespaces. They also have"
            f" `{USER_POLICY}` in the cluster.",
        ),
    ] = ("AmazonSagemakerHyperpodTrainingPolicy",)
    namespaces: Annotated[
        tuple[Annotated[str, NAMESPACE], ...],
        Field(
            strict=False,
            description="Further namespaces in which its people have these policies; each must"
            " exist, or be among `objects`.",
        ),
    ] = ()


class SchedulerConfig(Section):
    """The cluster's policy of task governance; with `teams` only."""

    priority_classes: Annotated[
        Mapping[
            Annotated[str, CLASS_NAME],
            Annotated[int, Aws("sagemaker", f"{SCHEDULER}PriorityClasses.Weight")],
        ],
        Field(
            max_length=10,
            description="Weights (0 to 100) of priorities by name, at most 10. Tasks name one with"
            " the label `kueue.x-k8s.io/priority-class: NAME-priority`.",
        ),
    ] = {}
    fair_share: Annotated[
        Annotated[str, Aws("sagemaker", f"{SCHEDULER}FairShare")] | None,
        Field(
            description="Whether teams get idle compute by their `fair_share_weight`; first come,"
            " first served otherwise. Without it: Enabled."
        ),
    ] = None
    idle_resource_sharing: Annotated[
        Annotated[str, Aws("sagemaker", f"{SCHEDULER}IdleResourceSharing")] | None,
        Field(description="Whether compute in no team's quota is shared. Without it: AWS's own."),
    ] = None


def team_namespace(team: str) -> str:
    """Return the namespace that SageMaker creates for a team.

    >>> team_namespace("vision")
    'hyperpod-ns-vision'
    """
    return f"hyperpod-ns-{team}"


def people(teams: Mapping[str, Team]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return by ARN the access policies of people, each with its namespaces; () for all."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, team in teams.items():
        spaces = (team_namespace(name), *team.namespaces)
        for arn in team.people:
            policies = found.setdefault(arn, {USER_POLICY: ()})
            for policy in team.policies:
                if policy != USER_POLICY:
                    policies[policy] = tuple(dict.fromkeys((*policies.get(policy, ()), *spaces)))
    return found
