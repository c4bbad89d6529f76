"""File systems that the cluster's pods share."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue

from hyperpod_eks.config import storage_checks as checks
from hyperpod_eks.config.rules import Aws, Check, Members, Pattern
from hyperpod_eks.config.section import GROUP, Key, Section, ZoneId

S3 = "CreateDataRepositoryAssociation.S3."
LUSTRE = "CreateFileSystem.LustreConfiguration."
FILE_SYSTEM_ID = Pattern(
    "the id of a file system",
    "fs- and 8 or 17 hexadecimal digits",
    r"fs-(?:[0-9a-f]{8}|[0-9a-f]{17})",
    "list them with `aws fsx describe-file-systems`",
)
FILE_SYSTEM_NAME = Pattern(
    "the name of a file system",
    "up to 30 lowercase letters, digits and hyphens, not at an end: Kubernetes uses it too",
    r"[a-z0-9](?:[-a-z0-9]{0,28}[a-z0-9])?",
    "choose one like data",
)

Namespaces = Annotated[
    tuple[
        Annotated[
            str,
            Pattern(
                "a Kubernetes namespace",
                "lowercase letters, digits and hyphens, not at an end",
                r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?",
                "list them with `kubectl get namespaces`",
            ),
        ],
        ...,
    ],
    Field(
        strict=False,
        description="Namespaces that get a PersistentVolumeClaim with the file system's name;"
        " each must exist, or be among `objects`. `[]` for none.",
    ),
]


class S3Link(Section):
    """A folder of a file system that FSx keeps in step with a prefix of a bucket."""

    file_system_path: Annotated[
        str,
        Aws("fsx", "CreateDataRepositoryAssociation.FileSystemPath"),
        Check("an absolute path", checks.path_fault),
        Field(description="Folder of the file system, like /datasets."),
    ]
    data_repository_path: Annotated[
        str,
        Pattern(
            "a path in S3",
            "s3://BUCKET or s3://BUCKET/PREFIX",
            r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[^\r\n]*)?",
            "list buckets with `aws s3 ls`",
        ),
        Field(description="Bucket in the cluster's region, with a prefix or without."),
    ]
    batch_import_meta_data_on_create: Annotated[
        bool, Field(description="Import the names of all objects when the link is created.")
    ] = False
    auto_import: Annotated[
        tuple[Annotated[str, Aws("fsx", S3 + "AutoImportPolicy.Events[]")], ...],
        Field(strict=False, description="Which changes in the bucket FSx imports."),
    ] = ()
    auto_export: Annotated[
        tuple[Annotated[str, Aws("fsx", S3 + "AutoExportPolicy.Events[]")], ...],
        Field(strict=False, description="Which changes in the folder FSx exports."),
    ] = ()


class FsxLustre(Section):
    """A file system of FSx for Lustre, new or existing."""

    file_system_id: Annotated[
        Annotated[str, FILE_SYSTEM_ID] | None,
        Field(
            description="An existing file system, which is never changed or deleted; no other"
            " setting of this section can be set with it."
        ),
    ] = None
    availability_zone_id: Annotated[
        ZoneId | None,
        Field(
            description="Its zone, one of the cluster's. Without it: where it already is, else the"
            " zone of the first instance group. Nodes in other zones reach it more slowly, and AWS"
            " bills that traffic."
        ),
    ] = None
    deployment_type: Annotated[
        str,
        Aws("fsx", LUSTRE + "DeploymentType"),
        Field(description="PERSISTENT types replicate data; SCRATCH types do not."),
    ] = "PERSISTENT_2"
    storage_type: Annotated[
        str, Aws("fsx", "CreateFileSystem.StorageType"), Field(description="Kind of storage.")
    ] = "SSD"
    storage_capacity: Annotated[
        Annotated[int, Aws("fsx", "CreateFileSystem.StorageCapacity")] | None,
        Field(
            description="Size in GiB, in steps that depend on the type. Without it: the smallest."
            " It can grow later, and never shrinks."
        ),
    ] = None
    per_unit_storage_throughput: Annotated[
        Annotated[int, Aws("fsx", LUSTRE + "PerUnitStorageThroughput")] | None,
        Field(
            description="MB/s for each TiB of a PERSISTENT type. Without it: the lowest that the"
            " type offers."
        ),
    ] = None
    throughput_capacity: Annotated[
        Annotated[int, Check("MB/s: 1000, 2000, or a multiple of 4000", checks.throughput_fault)]
        | None,
        Field(description="MB/s of the whole file system, with INTELLIGENT_TIERING only."),
    ] = None
    data_read_cache_configuration: Annotated[
        Annotated[Mapping[str, JsonValue], Members("fsx", LUSTRE + "DataReadCacheConfiguration")]
        | None,
        Field(description="The SSD cache of INTELLIGENT_TIERING, like `{sizing_mode: NO_CACHE}`."),
    ] = None
    drive_cache_type: Annotated[
        Annotated[str, Aws("fsx", LUSTRE + "DriveCacheType")] | None,
        Field(description="The SSD cache of HDD storage, which needs it. READ or NONE."),
    ] = None
    metadata_configuration: Annotated[
        Annotated[Mapping[str, JsonValue], Members("fsx", LUSTRE + "MetadataConfiguration")] | None,
        Field(
            description="Metadata IOPS of PERSISTENT_2: `{mode: AUTOMATIC}`, or"
            " `{mode: USER_PROVISIONED, iops: 6000}`."
        ),
    ] = None
    efa_enabled: Annotated[
        bool | None,
        Field(
            description="Serve clients over EFA, with GPUDirect Storage; PERSISTENT_2 with a"
            " `metadata_configuration` only."
        ),
    ] = None
    file_system_type_version: Annotated[
        Annotated[str, Check("2.10, 2.12 or 2.15", checks.version_fault)] | None,
        Field(description="Lustre version. Without it: AWS's default, and upgrades by you alone."),
    ] = None
    data_compression_type: Annotated[
        Annotated[str, Aws("fsx", LUSTRE + "DataCompressionType")] | None,
        Field(description="LZ4 or NONE. Without it: AWS's default, NONE."),
    ] = None
    kms_key: Annotated[Key, Field(description="KMS key of a PERSISTENT type.")] = None
    automatic_backup_retention_days: Annotated[
        Annotated[int, Aws("fsx", LUSTRE + "AutomaticBackupRetentionDays")] | None,
        Field(
            description="Days for which AWS keeps its daily backups; 0 for none. PERSISTENT types"
            " without links to S3 only."
        ),
    ] = None
    daily_automatic_backup_start_time: Annotated[
        Annotated[str, Aws("fsx", LUSTRE + "DailyAutomaticBackupStartTime")] | None,
        Field(description='When the daily backup starts, in UTC, like "05:00".'),
    ] = None
    copy_tags_to_backups: Annotated[
        bool | None, Field(description="Whether backups get the file system's tags.")
    ] = None
    weekly_maintenance_start_time: Annotated[
        Annotated[str, Aws("fsx", LUSTRE + "WeeklyMaintenanceStartTime")] | None,
        Field(description='When AWS may maintain it, weekday and UTC, like "7:09:00".'),
    ] = None
    namespaces: Namespaces = ("default",)
    mount_on: Annotated[
        Mapping[
            str,
            Annotated[
                str,
                Aws("sagemaker", GROUP + "InstanceStorageConfigs.FsxLustreConfig.MountPath"),
            ],
        ],
        Field(
            description="Where the nodes of instance groups mount it, like `{workers: /fsx}`, for"
            " programs outside of pods. HyperPod waits for the file system then."
        ),
    ] = {}
    s3: Annotated[
        tuple[S3Link, ...],
        Field(
            strict=False,
            max_length=8,
            description="Links to S3 buckets, at most 8. FSx backs up no linked file system.",
        ),
    ] = ()
    root_squash_configuration: Annotated[
        Annotated[Mapping[str, JsonValue], Members("fsx", LUSTRE + "RootSquashConfiguration")]
        | None,
        Field(description="Which user the clients' root becomes."),
    ] = None


class Efs(Section):
    """An existing file system of Amazon EFS, which is never changed or deleted."""

    file_system_id: Annotated[
        str,
        Pattern(
            "the id of an EFS file system",
            "fs- and 8 to 40 hexadecimal digits",
            r"fs-[0-9a-f]{8,40}",
            "list them with `aws efs describe-file-systems`",
        ),
        Field(
            description="Its id. It needs a mount target in each zone of the nodes, whose security"
            " group lets TCP 2049 in from the nodes."
        ),
    ]
    access_point_id: Annotated[
        Annotated[
            str,
            Pattern(
                "the id of an access point",
                "fsap- and 8 to 40 hexadecimal digits",
                r"fsap-[0-9a-f]{8,40}",
                "list them with `aws efs describe-access-points`",
            ),
        ]
        | None,
        Field(description="Access point of the file system that pods mount. Without it: `/`."),
    ] = None
    namespaces: Namespaces = ("default",)


class FsxOpenZfs(Section):
    """An existing file system of FSx for OpenZFS, which is never changed or deleted."""

    file_system_id: Annotated[str, FILE_SYSTEM_ID, Field(description="Its id.")]
    volume_id: Annotated[
        Annotated[
            str,
            Pattern(
                "the id of an OpenZFS volume",
                "fsvol- and 17 hexadecimal digits",
                r"fsvol-[0-9a-f]{17}",
                "list them with `aws fsx describe-volumes`",
            ),
        ]
        | None,
        Field(description="Volume that pods mount, with its `volume_path`. Without it: the root."),
    ] = None
    volume_path: Annotated[
        Annotated[
            str,
            Pattern(
                "the path of an OpenZFS volume",
                "starts with fsx/, with no / before it",
                r"fsx(?:/[A-Za-z0-9_.:-]+)+",
                "copy OpenZFSConfiguration.VolumePath of `aws fsx describe-volumes`",
            ),
        ]
        | None,
        Field(description="Path of the volume, like fsx/vol1."),
    ] = None
    namespaces: Namespaces = ("default",)


class Storage(Section):
    """File systems for the pods.  Their data is kept when the cluster is deleted."""

    fsx_lustre: Annotated[
        Mapping[Annotated[str, FILE_SYSTEM_NAME], FsxLustre],
        Field(
            description="FSx for Lustre file systems by name. `delete` keeps them, with subnet,"
            " security group and VPC, unless `--delete-data` is given."
        ),
    ] = {}
    efs: Annotated[
        Mapping[Annotated[str, FILE_SYSTEM_NAME], Efs],
        Field(description="Existing EFS file systems by name. Their CSI driver is installed."),
    ] = {}
    fsx_openzfs: Annotated[
        Mapping[Annotated[str, FILE_SYSTEM_NAME], FsxOpenZfs],
        Field(
            description="Existing FSx for OpenZFS file systems by name. Their CSI driver is no EKS"
            " add-on: declare its chart under `charts`."
        ),
    ] = {}

    def claims(self) -> list[tuple[str, str]]:
        """Return namespace and name of every claim."""
        every: dict[str, FsxLustre | Efs | FsxOpenZfs] = {
            **self.fsx_lustre,
            **self.efs,
            **self.fsx_openzfs,
        }
        return [(space, name) for name, one in every.items() for space in one.namespaces]
