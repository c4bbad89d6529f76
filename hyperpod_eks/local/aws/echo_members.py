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
    ("eks", "DescribeCluster"): Members(
        kept={
            "which cluster it is, and where": (
                "cluster",
                "cluster.name",
                "cluster.arn",
                "cluster.id",
                "cluster.createdAt",
                "cluster.version",
                "cluster.endpoint",
                "cluster.certificateAuthority",
                "cluster.tags",
                "cluster.resourcesVpcConfig",
                "cluster.resourcesVpcConfig.vpcId",
                "cluster.resourcesVpcConfig.clusterSecurityGroupId",
            ),
            "how it is": ("cluster.status", "cluster.health"),
            "absence is an answer": ("cluster.logging",),
        },
        echoes={
            "CreateCluster": (
                "cluster.roleArn",
                "cluster.kubernetesNetworkConfig",
                "cluster.accessConfig",
                "cluster.upgradePolicy",
                "cluster.encryptionConfig",
                "cluster.deletionProtection",
                "cluster.resourcesVpcConfig.subnetIds",
                "cluster.resourcesVpcConfig.securityGroupIds",
                "cluster.resourcesVpcConfig.endpointPublicAccess",
                "cluster.resourcesVpcConfig.endpointPrivateAccess",
                "cluster.resourcesVpcConfig.publicAccessCidrs",
            ),
        },
    ),
    ("eks", "DescribeAddon"): Members(
        kept={
            "which add-on it is": ("addon", "addon.addonName", "addon.addonArn", "addon.tags"),
            "how it is": ("addon.status", "addon.health", "addon.addonVersion"),
            "what it names exists": ("addon.podIdentityAssociations",),
        },
        echoes={"CreateAddon": ("addon.configurationValues", "addon.serviceAccountRoleArn")},
    ),
    ("eks", "DescribeAccessEntry"): Members(
        kept={
            "whose entry it is": (
                "accessEntry",
                "accessEntry.principalArn",
                "accessEntry.accessEntryArn",
                "accessEntry.tags",
            ),
        },
        echoes={
            "CreateAccessEntry": (
                "accessEntry.kubernetesGroups",
                "accessEntry.username",
                "accessEntry.type",
            )
        },
    ),
    **{
        ("ec2", operation): Members(
            kept={
                "which it is": (results, *(f"{results}[].{member}" for member in ("Tags", *kept)))
            },
            echoes={},
            unordered=(results,),
        )
        for operation, results, kept in (
            ("DescribeVpcs", "Vpcs", ("State", "CidrBlockAssociationSet")),
            ("DescribeSubnets", "Subnets", ("State",)),
            ("DescribeRouteTables", "RouteTables", ("Routes", "Associations")),
            (
                "DescribeSecurityGroups",
                "SecurityGroups",
                ("IpPermissions", "IpPermissionsEgress"),
            ),
            ("DescribeNatGateways", "NatGateways", ("State", "NatGatewayAddresses")),
            ("DescribeInternetGateways", "InternetGateways", ("Attachments",)),
            (
                "DescribeVpcEndpoints",
                "VpcEndpoints",
                ("State", "RouteTableIds", "SubnetIds", "Groups"),
            ),
            ("DescribeAddresses", "Addresses", ("AssociationId", "NetworkInterfaceId")),
        )
    },
    ("iam", "GetRole"): Members(
        kept={
            "which role it is": ("Role", "Role.Tags"),
            "absence is an answer": ("Role.PermissionsBoundary",),
        },
        echoes={"CreateRole": ("Role.Description", "Role.MaxSessionDuration")},
    ),
    ("iam", "GetPolicy"): Members(
        kept={"which policy it is": ("Policy", "Policy.Tags", "Policy.DefaultVersionId")},
        echoes={"CreatePolicy": ("Policy.Description",)},
    ),
    ("logs", "DescribeLogGroups"): Members(
        kept={
            "which groups these are": ("logGroups",),
            "absence is an answer": ("logGroups[].retentionInDays", "logGroups[].kmsKeyId"),
        },
        echoes={"CreateLogGroup": ("logGroups[].logGroupClass",)},
        unordered=("logGroups",),
    ),
}
