"""The members of describes by class, each with the reason: the tables of the echo switch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

Paths = tuple[str, ...]


@dataclass(frozen=True)
class Members:
    """The members of one operation's output by path, with what is below them.

    ``kept``: reasons, each with the members that are never touched for it.  ``echoes``: the request
    that says it, each with the members that describe it.  ``unordered``: kept lists whose order AWS
    does not promise.  A member in none of them is AWS's own, and is added at random.
    """

    kept: Mapping[str, Paths]
    echoes: Mapping[str, Paths]
    unordered: Paths = field(default=())

    @cached_property
    def reasons(self) -> Mapping[str, str]:
        """Why a member is kept, by path."""
        return {path: reason for reason, paths in self.kept.items() for path in paths}

    @cached_property
    def requests(self) -> Mapping[str, str]:
        """What request an echo is of, by path."""
        return {path: request for request, paths in self.echoes.items() for path in paths}

    @cached_property
    def inner(self) -> frozenset[str]:
        """Kept members that have further members in the tables: those are looked at too."""
        every = (*self.reasons, *self.requests)
        return frozenset(
            path
            for path in self.reasons
            if any(other.startswith((f"{path}.", f"{path}[].")) for other in every)
        )


_GROUP = "InstanceGroups[]."
_RESTRICTED = "RestrictedInstanceGroups[]."


def _of_groups(*names: str) -> Paths:
    return tuple(start + name for start in (_GROUP, _RESTRICTED) for name in names)


MEMBERS: Mapping[tuple[str, str], Members] = {
    ("sagemaker", "DescribeCluster"): Members(
        kept={
            "which cluster and groups these are": (
                "ClusterArn",
                "ClusterName",
                "CreationTime",
                "Orchestrator",
                "InstanceGroups",
                "RestrictedInstanceGroups",
                *_of_groups("InstanceGroupName"),
            ),
            "how they are": (
                "ClusterStatus",
                "FailureMessage",
                "AutoScaling",
                "AutoScaling.Status",
                "AutoScaling.FailureMessage",
                *_of_groups("CurrentCount", "TargetCount", "Status"),
            ),
        },
        echoes={
            "CreateCluster": (
                "RestrictedInstanceGroupsConfig",
                "VpcConfig",
                "TieredStorageConfig",
                "NodeRecovery",
                "NodeProvisioningMode",
                "ClusterRole",
                "AutoScaling.Mode",
                "AutoScaling.AutoScalerType",
            ),
            "ClusterInstanceGroupSpecification": _of_groups(
                "InstanceType",
                "ExecutionRole",
                "ThreadsPerCore",
                "InstanceStorageConfigs",
                "OnStartDeepHealthChecks",
                "TrainingPlanArn",
                "OverrideVpcConfig",
                "ScheduledUpdateConfig",
            )
            + tuple(
                _GROUP + name
                for name in (
                    "MinCount",
                    "InstanceRequirements",
                    "LifeCycleConfig",
                    "AutoPatchConfig",
                    "CurrentImageId",
                    "DesiredImageId",
                    "CurrentImageReleaseVersion",
                    "DesiredImageReleaseVersion",
                    "KubernetesConfig",
                    "CapacityRequirements",
                    "NetworkInterface",
                )
            ),
            "ClusterRestrictedInstanceGroupSpecification": (_RESTRICTED + "EnvironmentConfig",),
        },
        unordered=("InstanceGroups", "RestrictedInstanceGroups"),
    ),
}
