"""The settings of instance groups and of their lifecycle scripts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue

from hyperpod_eks.config.lifecycle import packaged_lifecycle
from hyperpod_eks.config.rules import Aws, Members, Pattern
from hyperpod_eks.config.section import GROUP, RESTRICTED, Section, ZoneIds
from hyperpod_eks.documents import Json


class Lifecycle(Section):
    """The scripts that HyperPod runs on each node when it comes up."""

    path: Annotated[
        Path,
        Field(
            strict=False,
            default_factory=packaged_lifecycle,
            description="Folder that is uploaded, relative to the file. Without it: the scripts"
            " that come with the tool.",
        ),
    ]
    on_create: Annotated[
        str,
        Aws("sagemaker", GROUP + "LifeCycleConfig.OnCreate"),
        Pattern(
            "a file name in the lifecycle folder",
            "no folder in it",
            r"[A-Za-z0-9_][A-Za-z0-9_.-]*",
            "put the entry script at the top of the folder",
        ),
        Field(description="The entry script in that folder."),
    ] = "on_create.sh"


class Group(Section):
    """The settings of every group of nodes: the API's members in snake_case."""

    name: Annotated[
        str,
        Aws("sagemaker", GROUP + "InstanceGroupName"),
        Field(description="Name of the group, unique in the cluster."),
    ]
    instance_count: Annotated[
        int,
        Aws("sagemaker", GROUP + "InstanceCount"),
        Field(description="Number of nodes in the group."),
    ]
    availability_zone_ids: Annotated[
        ZoneIds,
        Field(
            strict=False,
            description="Zones of the nodes. Empty: the training plan's, else the first that has"
            " the type; a group that exists stays where it is.",
        ),
    ] = ()
    threads_per_core: Annotated[
        int,
        Aws("sagemaker", GROUP + "ThreadsPerCore"),
        Field(description="2 turns hyper-threading on, where the type has it."),
    ] = 1
    ebs_volume_size_in_gb: Annotated[
        Annotated[
            int, Aws("sagemaker", GROUP + "InstanceStorageConfigs.EbsVolumeConfig.VolumeSizeInGB")
        ]
        | None,
        Field(
            description="Extra EBS volume of each node, in GB, unless `instance_storage_configs`"
            " has one; `null` for none."
        ),
    ] = 500
    instance_storage_configs: Annotated[
        tuple[
            Annotated[
                Mapping[str, JsonValue], Members("sagemaker", GROUP + "InstanceStorageConfigs[]")
            ],
            ...,
        ],
        Field(
            strict=False,
            max_length=4,
            description="EBS volumes (a root volume to encrypt it) and FSx mounts.",
        ),
    ] = ()
    on_start_deep_health_checks: Annotated[
        tuple[Annotated[str, Aws("sagemaker", GROUP + "OnStartDeepHealthChecks[]")], ...],
        Field(strict=False, description="Checks of accelerators and network before a node works."),
    ] = ()
    training_plan_arn: Annotated[
        Annotated[str, Aws("sagemaker", GROUP + "TrainingPlanArn")] | None,
        Field(description="The training plan whose capacity it uses."),
    ] = None
    scheduled_update_config: Annotated[
        Annotated[Mapping[str, JsonValue], Members("sagemaker", GROUP + "ScheduledUpdateConfig")]
        | None,
        Field(description="When HyperPod updates the nodes' software, and how many at a time."),
    ] = None
    execution_role: Annotated[
        Annotated[str, Aws("sagemaker", GROUP + "ExecutionRole")] | None,
        Field(description="An existing role for these nodes. Without it: the cluster's."),
    ] = None


class InstanceGroup(Group):
    """A group of equal nodes.  Settings are the API's members in snake_case."""

    instance_type: Annotated[
        Annotated[str, Aws("sagemaker", GROUP + "InstanceType")] | None,
        Field(description="SageMaker instance type, with its `ml.`; or `instance_requirements`."),
    ] = None
    instance_requirements: Annotated[
        Annotated[Mapping[str, JsonValue], Members("sagemaker", GROUP + "InstanceRequirements")]
        | None,
        Field(description="Several types, the preferred one first."),
    ] = None
    min_instance_count: Annotated[
        Annotated[int, Aws("sagemaker", GROUP + "MinInstanceCount")] | None,
        Field(description="How many nodes are enough for a start."),
    ] = None
    capacity_requirements: Annotated[
        Annotated[Mapping[str, JsonValue], Members("sagemaker", GROUP + "CapacityRequirements")]
        | None,
        Field(description="`{spot: {}}` for Spot capacity."),
    ] = None
    kubernetes_config: Annotated[
        Annotated[Mapping[str, JsonValue], Members("sagemaker", GROUP + "KubernetesConfig")] | None,
        Field(description="Labels and taints of the Kubernetes nodes."),
    ] = None
    network_interface: Annotated[
        Annotated[Mapping[str, JsonValue], Members("sagemaker", GROUP + "NetworkInterface")] | None,
        Field(description="`{interface_type: efa-only}` saves addresses."),
    ] = None
    image_id: Annotated[
        Annotated[str, Aws("sagemaker", GROUP + "ImageId")] | None,
        Field(description="AMI of your own, or `default`."),
    ] = None
    image_release_version: Annotated[
        Annotated[str, Aws("sagemaker", GROUP + "ImageReleaseVersion")] | None,
        Field(description="Release of HyperPod's AMI. Without it: the newest, once."),
    ] = None
    auto_patch_config: Annotated[
        Annotated[Mapping[str, JsonValue], Members("sagemaker", GROUP + "AutoPatchConfig")] | None,
        Field(description="How HyperPod patches the nodes by itself."),
    ] = None
    life_cycle_config: Annotated[
        Annotated[Mapping[str, JsonValue], Members("sagemaker", GROUP + "LifeCycleConfig")] | None,
        Field(
            description="Scripts of this group alone (`on_init_complete` after the AMI's own"
            " initialisation). Without it: `lifecycle`'s; `{}` sends none."
        ),
    ] = None

    @property
    def instance_types(self) -> tuple[str, ...]:
        """The instance types of its nodes, the preferred one first."""
        several: Json = (self.instance_requirements or {}).get("instance_types", ())
        return (self.instance_type,) if self.instance_type else tuple(several)


class RestrictedInstanceGroup(Group):
    """A restricted group, for Nova customisation."""

    instance_type: Annotated[
        str,
        Aws("sagemaker", RESTRICTED + "InstanceType"),
        Field(description="SageMaker instance type, with its `ml.`."),
    ]
    environment_config: Annotated[
        Annotated[Mapping[str, JsonValue], Members("sagemaker", RESTRICTED + "EnvironmentConfig")]
        | None,
        Field(description="The FSx for Lustre file system that HyperPod creates for it."),
    ] = None

    @property
    def instance_types(self) -> tuple[str, ...]:
        """The instance type of its nodes."""
        return (self.instance_type,)
