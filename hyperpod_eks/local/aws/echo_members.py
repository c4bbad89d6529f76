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
    ordered: Paths = field(default=())

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


def _rows(results: str, *kept: str) -> Members:
    """Classify a list by what its rows are and how they are; the rest of a row is AWS's own."""
    paths = (results, *(f"{results}[].{name}" for name in kept))
    return Members(
        kept={"which it is and how it is, or its absence is an answer": paths},
        echoes={},
        unordered=(results,),
    )


def _whole(*members: str) -> Members:
    """Classify what has no member that may be otherwise: names, and what was written by a put."""
    return Members(kept={"nothing but who or what it is": members}, echoes={})


#: Reads of the tool whose answers are not altered, and why.
UNALTERED = {
    ("iam", "SimulatePrincipalPolicy"): "a decision about each action, not a description",
    ("pricing", "GetProducts"): "its products are JSON texts",
    ("s3", "HeadBucket"): "its answer is headers alone, and whether it is there",
    ("s3", "HeadObject"): "its answer is headers alone: what the tool wrote at its put",
    ("s3", "GetBucketPolicy"): "its answer is the policy itself",
    ("s3", "GetObject"): "its answer is the object itself",
}

_STATE = ("State", "Tags")
_AMOUNTS = (
    "ComputeQuotaConfig.ComputeQuotaResources",
    "ComputeQuotaConfig.ResourceSharingConfig.AbsoluteBorrowLimits",
)
_LISTS: Mapping[tuple[str, str], Members] = {
    ("ec2", "DescribeAvailabilityZones"): _rows(
        "AvailabilityZones", "State", "ZoneId", "ZoneName", "ZoneType", "RegionName"
    ),
    ("ec2", "DescribeRegions"): _rows("Regions", "RegionName", "OptInStatus"),
    ("ec2", "DescribeInstanceTypeOfferings"): _rows(
        "InstanceTypeOfferings", "InstanceType", "Location"
    ),
    ("ec2", "DescribeInstanceTypes"): _rows(
        "InstanceTypes", "InstanceType", "VCpuInfo", "MemoryInfo", "GpuInfo", "NeuronInfo",
        "NetworkInfo", "InferenceAcceleratorInfo", "ProcessorInfo",
    ),
    ("ec2", "DescribeNetworkInterfaces"): _rows(
        "NetworkInterfaces", "NetworkInterfaceId", "Status", "Attachment", "Association", "Groups",
        "TagSet", "RequesterManaged", "RequesterId", "InterfaceType", "Description",
    ),
    ("ec2", "DescribeVolumes"): _rows("Volumes", "VolumeId", "Attachments", *_STATE),
    ("ec2", "DescribeTags"): _whole("Tags"),
    ("ec2", "DescribeVpcAttribute"): _whole("VpcId", "EnableDnsHostnames", "EnableDnsSupport"),
    ("ec2", "DescribeVpcEndpointServices"): Members(
        kept={
            "what is offered and where": (
                "ServiceNames",
                "ServiceDetails",
                "ServiceDetails[].ServiceName",
                "ServiceDetails[].ServiceType",
                "ServiceDetails[].AvailabilityZones",
                "ServiceDetails[].AvailabilityZoneIds",
            )
        },
        echoes={},
        unordered=("ServiceDetails",),
    ),
    ("ec2", "DescribeEgressOnlyInternetGateways"): _rows(
        "EgressOnlyInternetGateways", "EgressOnlyInternetGatewayId", "Attachments", "Tags"
    ),
    ("ec2", "DescribeInstanceConnectEndpoints"): _rows(
        "InstanceConnectEndpoints", "InstanceConnectEndpointId", "VpcId", *_STATE
    ),
    ("ec2", "DescribeNetworkAcls"): _rows("NetworkAcls", "NetworkAclId", "IsDefault", "Tags"),
    ("ec2", "DescribeTransitGatewayVpcAttachments"): _rows(
        "TransitGatewayVpcAttachments", "TransitGatewayAttachmentId", "VpcId", *_STATE
    ),
    ("ec2", "DescribeVpcPeeringConnections"): _rows(
        "VpcPeeringConnections", "VpcPeeringConnectionId", "Status", "Tags"
    ),
    ("ec2", "DescribeVpnGateways"): _rows(
        "VpnGateways", "VpnGatewayId", "VpcAttachments", *_STATE
    ),
    ("eks", "DescribeAddonConfiguration"): _whole(
        "addonName", "addonVersion", "configurationSchema", "podIdentityConfiguration"
    ),
    ("eks", "DescribeAddonVersions"): _rows(
        "addons", "addonName", "addonVersions", "addonVersions[].addonVersion",
        "addonVersions[].compatibilities", "addonVersions[].requiresIamPermissions",
    ),
    ("eks", "DescribeClusterVersions"): _rows(
        "clusterVersions", "clusterVersion", "defaultVersion", "status", "versionStatus",
        "endOfStandardSupportDate", "endOfExtendedSupportDate",
    ),
    ("eks", "DescribePodIdentityAssociation"): Members(
        kept={
            "whose it is": (
                "association",
                *(
                    f"association.{name}"
                    for name in (
                        "associationArn", "associationId", "clusterName", "namespace",
                        "serviceAccount", "roleArn", "ownerArn", "tags",
                    )
                ),
            )
        },
        echoes={
            "CreatePodIdentityAssociation": (
                "association.disableSessionTags",
                "association.targetRoleArn",
                "association.policy",
            )
        },
    ),
    ("eks", "ListAccessEntries"): _whole("accessEntries"),
    ("eks", "ListAddons"): _whole("addons"),
    ("eks", "ListClusters"): _whole("clusters"),
    ("eks", "ListAssociatedAccessPolicies"): _rows(
        "associatedAccessPolicies", "policyArn", "accessScope"
    ),
    ("eks", "ListPodIdentityAssociations"): _rows(
        "associations", "associationId", "associationArn", "namespace", "serviceAccount", "ownerArn"
    ),
    ("eks", "ListTagsForResource"): _whole("tags"),
    ("ecr", "DescribeRepositories"): _rows(
        "repositories", "repositoryName", "repositoryArn", "repositoryUri"
    ),
    ("ecr", "ListTagsForResource"): _whole("tags"),
    ("fsx", "DescribeBackups"): _rows(
        "Backups", "BackupId", "Type", "Lifecycle", "FileSystem", "Tags"
    ),
    ("fsx", "DescribeDataRepositoryAssociations"): Members(
        kept={
            "which it is and how it is": (
                "Associations",
                *(
                    f"Associations[].{name}"
                    for name in (
                        "AssociationId", "ResourceARN", "FileSystemId", "FileSystemPath",
                        "DataRepositoryPath", "Lifecycle", "FailureDetails", "Tags",
                    )
                ),
            )
        },
        echoes={
            "CreateDataRepositoryAssociation": (
                "Associations[].S3",
                "Associations[].BatchImportMetaDataOnCreate",
                "Associations[].ImportedFileChunkSize",
            )
        },
        unordered=("Associations",),
    ),
    ("fsx", "DescribeFileSystems"): Members(
        kept={
            "which it is and how it is": (
                "FileSystems",
                *(
                    f"FileSystems[].{name}"
                    for name in (
                        "FileSystemId", "FileSystemType", "ResourceARN", "Lifecycle", "Tags",
                        "VpcId", "SubnetIds", "NetworkInterfaceIds", "DNSName", "FailureDetails",
                        "LustreConfiguration", "LustreConfiguration.MountName",
                    )
                ),
            )
        },
        echoes={
            "CreateFileSystem": tuple(
                f"FileSystems[].{name}"
                for name in (
                    "StorageCapacity", "StorageType", "FileSystemTypeVersion", "KmsKeyId",
                    *(
                        f"LustreConfiguration.{member}"
                        for member in (
                            "DeploymentType", "PerUnitStorageThroughput", "DataCompressionType",
                            "AutomaticBackupRetentionDays", "DailyAutomaticBackupStartTime",
                            "CopyTagsToBackups", "WeeklyMaintenanceStartTime", "DriveCacheType",
                            "MetadataConfiguration", "EfaEnabled", "ThroughputCapacity",
                            "DataReadCacheConfiguration", "RootSquashConfiguration",
                        )
                    ),
                )
            )
        },
        unordered=("FileSystems",),
    ),
    ("sagemaker", "DescribeClusterEvent"): _whole("EventDetails"),
    ("sagemaker", "DescribeClusterNode"): Members(
        kept={
            "which node it is and how it is": (
                "NodeDetails",
                *(
                    f"NodeDetails.{name}"
                    for name in (
                        "InstanceGroupName", "InstanceId", "NodeLogicalId", "InstanceStatus",
                        "InstanceType", "LaunchTime",
                    )
                ),
            )
        },
        echoes={
            "CreateCluster": (
                "NodeDetails.LifeCycleConfig",
                "NodeDetails.OverrideVpcConfig",
                "NodeDetails.ThreadsPerCore",
                "NodeDetails.InstanceStorageConfigs",
            )
        },
    ),
    ("sagemaker", "DescribeClusterSchedulerConfig"): Members(
        kept={
            "which it is and how it is": (
                "ClusterSchedulerConfigArn", "ClusterSchedulerConfigId",
                "ClusterSchedulerConfigVersion", "Name", "ClusterArn", "Status",
            ),
            "what a class is": ("SchedulerConfig.PriorityClasses",),
        },
        echoes={
            "CreateClusterSchedulerConfig": (
                "SchedulerConfig", "SchedulerConfig.FairShare",
                "SchedulerConfig.IdleResourceSharing", "Description",
            )
        },
        unordered=("SchedulerConfig.PriorityClasses",),
    ),
    ("sagemaker", "DescribeComputeQuota"): Members(
        kept={
            "which it is and how it is": (
                "ComputeQuotaArn", "ComputeQuotaId", "ComputeQuotaVersion", "Name", "ClusterArn",
                "Status", "ComputeQuotaTarget", "ComputeQuotaTarget.TeamName",
            ),
            "an amount that is absent is not granted": _AMOUNTS,
        },
        echoes={
            "CreateComputeQuota": (
                "ComputeQuotaConfig", "ComputeQuotaConfig.PreemptTeamTasks",
                *(
                    f"ComputeQuotaConfig.ResourceSharingConfig{name}"
                    for name in ("", ".Strategy", ".BorrowLimit")
                ),
                "ComputeQuotaTarget.FairShareWeight", "ActivationState", "Description",
            )
        },
        unordered=_AMOUNTS,
    ),
    ("sagemaker", "DescribeTrainingPlan"): _whole(
        "TrainingPlanArn", "TrainingPlanName", "Status", "StartTime", "EndTime",
        "TotalInstanceCount", "AvailableInstanceCount", "InUseInstanceCount", "TargetResources",
        "ReservedCapacitySummaries",
    ),
    ("sagemaker", "ListClusterEvents"): _rows(
        "Events", "EventId", "EventTime", "EventLevel", "ResourceType", "InstanceGroupName",
        "InstanceId", "Description",
    ),
    ("sagemaker", "ListClusterNodes"): _rows(
        "ClusterNodeSummaries", "InstanceGroupName", "InstanceId", "NodeLogicalId", "InstanceType",
        "InstanceStatus", "LaunchTime",
    ),
    ("sagemaker", "ListClusterOperations"): _rows(
        "ClusterOperationSummaries", "OperationId", "Type", "Status"
    ),
    ("sagemaker", "ListClusterSchedulerConfigs"): _rows(
        "ClusterSchedulerConfigSummaries", "ClusterSchedulerConfigId", "Name", "Status"
    ),
    ("sagemaker", "ListClusters"): _rows(
        "ClusterSummaries", "ClusterArn", "ClusterName", "CreationTime", "ClusterStatus"
    ),
    ("sagemaker", "ListComputeQuotas"): _rows(
        "ComputeQuotaSummaries", "ComputeQuotaId", "Name", "Status", "ClusterArn"
    ),
    ("sagemaker", "ListTags"): _whole("Tags"),
    ("s3", "ListBuckets"): _rows("Buckets", "Name"),
    ("s3", "ListObjectsV2"): Members(
        kept={
            "which it is, and what is in it": ("Contents", "Contents[].Key", "Contents[].ETag"),
            "says how keys are written": ("EncodingType",),
        },
        echoes={},
    ),
    ("s3", "ListObjectVersions"): Members(
        kept={
            "which it is": (
                *("Versions", "Versions[].Key", "Versions[].VersionId"),
                *("DeleteMarkers", "DeleteMarkers[].Key", "DeleteMarkers[].VersionId"),
            ),
            "says how keys are written": ("EncodingType",),
        },
        echoes={},
    ),
    ("s3", "ListMultipartUploads"): Members(
        kept={
            "which it is": ("Uploads", "Uploads[].Key", "Uploads[].UploadId"),
            "says how keys are written": ("EncodingType",),
        },
        echoes={},
    ),
    ("s3", "GetBucketTagging"): _whole("TagSet"),
    # a member that is absent is false (S3 API, PublicAccessBlockConfiguration)
    ("s3", "GetPublicAccessBlock"): _whole("PublicAccessBlockConfiguration"),
    ("s3", "GetBucketOwnershipControls"): _whole("OwnershipControls"),
    ("s3", "GetBucketEncryption"): Members(
        kept={
            "how it is": (
                "ServerSideEncryptionConfiguration",
                "ServerSideEncryptionConfiguration.Rules",
                "ServerSideEncryptionConfiguration.Rules[].ApplyServerSideEncryptionByDefault",
            )
        },
        echoes={
            "PutBucketEncryption": ("ServerSideEncryptionConfiguration.Rules[].BucketKeyEnabled",)
        },
    ),
    ("elbv2", "DescribeLoadBalancers"): _rows("LoadBalancers", "LoadBalancerArn", "VpcId"),
    ("elbv2", "DescribeTargetGroups"): _rows("TargetGroups", "TargetGroupArn", "VpcId"),
    ("elbv2", "DescribeTags"): _rows("TagDescriptions", "ResourceArn", "Tags"),
    ("elb", "DescribeLoadBalancers"): _rows(
        "LoadBalancerDescriptions", "LoadBalancerName", "VPCId"
    ),
    ("elb", "DescribeTags"): _rows("TagDescriptions", "LoadBalancerName", "Tags"),
    ("iam", "GetAccountSummary"): _whole("SummaryMap"),
    ("amp", "DescribeWorkspace"): Members(
        kept={
            "which it is, how it is, and whose": (
                "workspace",
                *(f"workspace.{n}" for n in ("workspaceId", "arn", "status", "createdAt", "tags")),
                "workspace.prometheusEndpoint",
            )
        },
        echoes={"CreateWorkspace": ("workspace.alias", "workspace.kmsKeyArn")},
    ),
    ("amp", "ListWorkspaces"): _rows(
        "workspaces", "workspaceId", "arn", "status", "createdAt", "tags"
    ),
    ("iam", "GetOpenIDConnectProvider"): _whole("Url", "ClientIDList", "Tags"),
    ("iam", "ListOpenIDConnectProviders"): _rows("OpenIDConnectProviderList", "Arn"),
    ("iam", "ListOpenIDConnectProviderTags"): _whole("Tags"),
    ("iam", "GetPolicyVersion"): Members(
        kept={"what it says": ("PolicyVersion", "PolicyVersion.Document")}, echoes={}
    ),
    ("iam", "ListAttachedRolePolicies"): _whole("AttachedPolicies"),
    ("iam", "ListPolicies"): _rows(
        "Policies", "PolicyName", "Arn", "Path", "DefaultVersionId", "AttachmentCount"
    ),
    ("iam", "ListPolicyTags"): _whole("Tags"),
    ("iam", "ListPolicyVersions"): _rows(
        "Versions", "VersionId", "IsDefaultVersion", "CreateDate"
    ),
    ("iam", "ListRolePolicies"): _whole("PolicyNames"),
    ("iam", "ListRoleTags"): _whole("Tags"),
    ("iam", "ListRoles"): _rows("Roles", "RoleName", "Arn", "Path"),
    ("logs", "DescribeLogStreams"): _rows(
        "logStreams", "logStreamName", "creationTime", "lastEventTimestamp", "lastIngestionTime"
    ),
    ("logs", "GetLogEvents"): _whole("events", "nextForwardToken", "nextBackwardToken"),
    ("logs", "ListTagsForResource"): _whole("tags"),
    ("service-quotas", "ListServiceQuotas"): _rows(
        "Quotas", "QuotaName", "QuotaCode", "ServiceCode", "Value"
    ),
    ("sts", "GetCallerIdentity"): _whole("UserId", "Account", "Arn"),
}  # fmt: skip

MEMBERS: Mapping[tuple[str, str], Members] = {
    **_LISTS,
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
        # "The order of instance types determines the priority" (ClusterInstanceRequirements)
        ordered=(
            _GROUP + "InstanceRequirements.CurrentInstanceTypes",
            _GROUP + "InstanceRequirements.DesiredInstanceTypes",
        ),
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
                "cluster.identity",
                "cluster.tags",
                "cluster.resourcesVpcConfig",
                "cluster.resourcesVpcConfig.vpcId",
                "cluster.resourcesVpcConfig.clusterSecurityGroupId",
            ),
            # CreateCluster: "Required: Yes", "You must specify at least two subnets"; no call
            # takes them back.  They are read of clusters that others created: their role is
            # adopted, and their subnets are the nodes'.
            "no cluster is without": ("cluster.roleArn", "cluster.resourcesVpcConfig.subnetIds"),
            "how it is": ("cluster.status", "cluster.health"),
            "absence is an answer": ("cluster.logging",),
        },
        echoes={
            "CreateCluster": (
                "cluster.kubernetesNetworkConfig",
                "cluster.accessConfig",
                "cluster.upgradePolicy",
                "cluster.encryptionConfig",
                "cluster.deletionProtection",
                "cluster.resourcesVpcConfig.securityGroupIds",
                "cluster.resourcesVpcConfig.endpointPublicAccess",
                "cluster.resourcesVpcConfig.endpointPrivateAccess",
                "cluster.resourcesVpcConfig.publicAccessCidrs",
            ),
        },
        unordered=("cluster.resourcesVpcConfig.subnetIds",),
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
