"""The settings of a config: types, rules, descriptions and defaults."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, JsonValue, WithJsonSchema

from hyperpod_eks.aws import published as versions
from hyperpod_eks.config import cross_checks as checks
from hyperpod_eks.config.addons import ADDON_NAME, NEEDED_ADDONS, Addon
from hyperpod_eks.config.charts import RELEASE_NAME, Chart, FurtherChart
from hyperpod_eks.config.existing import Existing
from hyperpod_eks.config.groups import InstanceGroup, Lifecycle, RestrictedInstanceGroup
from hyperpod_eks.config.monitoring import Monitoring, Prometheus
from hyperpod_eks.config.objects import fault as object_fault
from hyperpod_eks.config.operators import Operator, asked_addons
from hyperpod_eks.config.pods import POLICY_ARN, PodIdentity
from hyperpod_eks.config.rules import Aws, Check, Members, Pattern
from hyperpod_eks.config.scaling import AutoScaling
from hyperpod_eks.config.section import Cidrs, Key, Section, ZoneIds
from hyperpod_eks.config.storage import Storage
from hyperpod_eks.config.teams import TEAM_NAME, SchedulerConfig, Team, people
from hyperpod_eks.documents import JsonMapping, JsonObject

MAX_TAGS = 40  # AWS allows 50; the others are for the tool and for Kubernetes


class Network(Section):
    """The VPC that is created for the cluster."""

    cidr: Annotated[
        str,
        Check("IPv4 block, /16 to /24, not a reserved range", checks.cidr_fault),
        Field(description="Address block of the VPC, divided into private and public subnets."),
    ] = "10.0.0.0/16"
    secondary_cidrs: Annotated[
        Cidrs,
        Field(
            strict=False,
            description="Further blocks of the VPC, one for each zone in order: nodes then use"
            " them, because EFA nodes need 50 to 80 addresses each.",
        ),
    ] = ()
    availability_zone_ids: Annotated[
        ZoneIds,
        Field(
            strict=False,
            description="Zones for the subnets, two to six. Empty: those that groups and training"
            " plans name, and more until there are two and every instance type is offered.",
        ),
    ] = ()
    nat: Annotated[
        Literal["single", "per-az", "none"],
        Field(
            description="One NAT gateway for all zones (cheaper), one in each (survives the loss"
            " of a zone), or none: a closed network, with interface endpoints instead."
        ),
    ] = "single"
    interface_endpoints: Annotated[
        tuple[
            Annotated[
                str,
                Pattern(
                    "the short name of an endpoint service",
                    "like ecr.api, without com.amazonaws.<region>.",
                    r"[a-z0-9-]+(?:\.[a-z0-9-]+)*",
                    "list them with `aws ec2 describe-vpc-endpoint-services`",
                ),
            ],
            ...,
        ]
        | None,
        Field(
            strict=False,
            description="Services that are reached inside the VPC, in the zones in which AWS offers"
            " them. Without it: none, or with `nat: none` all that HyperPod needs and the region"
            " has.",
        ),
    ] = None
    endpoint_policy: Annotated[
        Mapping[str, JsonValue] | None,
        Field(description="Policy document of every VPC endpoint. Without it: AWS's, all allowed."),
    ] = None
    security_groups: Annotated[
        Literal["shared", "strict"],
        Field(
            description="One group for nodes and control plane that is open to itself, or two that"
            " let through only what Kubernetes and EFA need."
        ),
    ] = "shared"
    storage_ports: Annotated[
        bool,
        Field(description="Open the ports of FSx for Lustre (988, 1018-1023) among the nodes."),
    ] = False
    subnet_tags: Annotated[
        Mapping[
            Annotated[str, Check("not aws: or hyperpod-eks:", checks.tag_fault)],
            str,
        ],
        Field(
            max_length=10,
            description="Further tags of private subnets, like kubernetes.io/role/internal-elb.",
        ),
    ] = {}


class Access(Section):
    """One IAM principal that may use the Kubernetes API."""

    principal_arn: Annotated[
        str,
        Check("ARN of an IAM role or user, with its path", checks.principal_fault),
        Field(description="Who gets access. The caller of `create` always does."),
    ]
    policy: Annotated[
        Annotated[
            str,
            Pattern(
                "the name of an EKS access policy",
                "like AmazonEKSViewPolicy",
                r"Amazon[A-Za-z0-9]{1,100}Policy",
                "list them with `aws eks list-access-policies`",
            ),
        ]
        | None,
        Field(description="EKS access policy; `null` for none beside `kubernetes_groups`."),
    ] = "AmazonEKSClusterAdminPolicy"
    namespaces: Annotated[
        tuple[
            Annotated[str, Aws("eks", "AssociateAccessPolicy.accessScope.namespaces[]")],
            ...,
        ],
        Field(strict=False, description="Where the policy counts. Empty: the whole cluster."),
    ] = ()
    kubernetes_groups: Annotated[
        tuple[Annotated[str, Check("not system:", checks.kubernetes_group_fault)], ...],
        Field(strict=False, description="Groups of Kubernetes RBAC that it belongs to."),
    ] = ()


class Eks(Section):
    """The EKS control plane that orchestrates the cluster."""

    version: Annotated[
        Annotated[
            str,
            Pattern(
                "a Kubernetes version",
                "major and minor number",
                r"1\.[0-9]{2}",
                f'write it in quotes, like "{versions.SUPPORTED_KUBERNETES[-1]}"',
            ),
        ]
        | None,
        Field(
            description="Kubernetes version. Without it: the highest in standard support that"
            " HyperPod lists."
        ),
    ] = None
    allow_untested_version: Annotated[
        bool, Field(description="Accept a Kubernetes version that HyperPod does not list.")
    ] = False
    support_type: Annotated[
        str,
        Aws("eks", "CreateCluster.upgradePolicy.supportType"),
        Field(
            description="EXTENDED keeps the version after standard support, for a price; STANDARD"
            " lets EKS upgrade the control plane."
        ),
    ] = "EXTENDED"
    log_types: Annotated[
        tuple[Annotated[str, Aws("eks", "CreateCluster.logging.clusterLogging.types[]")], ...],
        Field(strict=False, description="Control plane logs sent to CloudWatch."),
    ] = ("api", "audit", "authenticator", "controllerManager", "scheduler")
    log_retention_days: Annotated[
        int,
        Check(
            "days that CloudWatch Logs offers: 1 to 3653, in its own steps",
            checks.retention_fault,
        ),
        Field(
            description="How long CloudWatch keeps the control plane logs, and those of"
            " `monitoring: cloudwatch`."
        ),
    ] = 30
    endpoint_public_access: Annotated[
        bool, Field(description="Whether the Kubernetes API is reached from the internet.")
    ] = True
    endpoint_private_access: Annotated[
        bool, Field(description="Whether it is reached inside the VPC.")
    ] = True
    public_access_cidrs: Annotated[
        Cidrs,
        Field(strict=False, description="From where on the internet it is reached."),
    ] = ("0.0.0.0/0",)
    access: Annotated[
        tuple[Access, ...],
        Field(strict=False, description="Further principals with access to the Kubernetes API."),
    ] = ()


class Encryption(Section):
    """KMS keys of your own; AWS encrypts with its own ones otherwise."""

    eks_secrets: Annotated[Key, Field(description="For the secrets in Kubernetes.")] = None
    volumes: Annotated[Key, Field(description="For the nodes' EBS volumes.")] = None
    bucket: Annotated[Key, Field(description="For the lifecycle bucket.")] = None
    logs: Annotated[Key, Field(description="For the control plane's log group.")] = None


class Iam(Section):
    """What your organisation asks of roles."""

    path: Annotated[
        str,
        Pattern(
            "a path of IAM",
            "it starts and ends with /, in at most 512 characters",
            r"(?=.{1,512}$)/(?:[\w+=,.@-]+/)*",
            "choose one like /team/",
        ),
        Field(description="Path of the roles and policies that are created."),
    ] = "/"
    permissions_boundary: Annotated[
        Annotated[str, POLICY_ARN] | None,
        Field(description="Permissions boundary of the roles that are created."),
    ] = None
    node_policy: Annotated[
        Literal["narrow", "documented"],
        Field(
            description="`narrow` lets nodes create interfaces in the cluster's own network only;"
            " `documented` is the list of the SageMaker developer guide, on every resource."
        ),
    ] = "narrow"


class Config(Section):
    """A HyperPod cluster, the EKS cluster that orchestrates it, and everything they need."""

    name: Annotated[
        str,
        Aws("sagemaker", "CreateCluster.ClusterName"),
        Field(
            description="Name of the HyperPod and of the EKS cluster; other names start with it."
            " Lowercase, and short enough for the bucket `sagemaker-<name>-<account>-<region>`"
            " (63)."
        ),
    ]
    region: Annotated[
        str,
        Check("an AWS region", checks.region_fault),
        Field(description="Without it: `AWS_REGION`, then where boto3 finds it."),
    ]
    account: Annotated[
        Annotated[
            str,
            Pattern(
                "an AWS account id",
                "12 digits",
                r"[0-9]{12}",
                'write it in quotes, like "111122223333"',
            ),
        ]
        | None,
        Field(description="Guard: nothing is done in any other account."),
    ] = None
    state: Annotated[
        str,
        Field(
            description="Where the manifest is kept: a folder, or `s3://BUCKET/PREFIX` of a bucket"
            " that exists; not the cluster's own. Without it: the current folder."
        ),
    ] = ""
    tags: Annotated[
        Mapping[
            Annotated[
                str,
                Aws("sagemaker", "CreateCluster.Tags.Key"),
                Check("not aws: or hyperpod-eks:", checks.tag_fault),
            ],
            Annotated[str, Aws("sagemaker", "CreateCluster.Tags.Value")],
        ],
        Field(
            max_length=MAX_TAGS, description="Tags on every resource that is created, at most 40."
        ),
    ] = {}
    network: Annotated[Network, Field(description="The VPC.")] = Network.model_construct()
    eks: Annotated[Eks, Field(description="The control plane.")] = Eks.model_construct()
    addons: Annotated[
        Mapping[Annotated[str, ADDON_NAME], Addon],
        Field(
            description="EKS add-ons by name. The four that HyperPod needs (`vpc-cni`,"
            " `kube-proxy`, `coredns`, `eks-pod-identity-agent`) are always there; others come in"
            " the order of the file, each after the one before and after those that it needs."
        ),
    ] = {}
    operators: Annotated[
        tuple[Operator, ...],
        Field(
            strict=False,
            description="Operators of SageMaker HyperPod. `training` is the HyperPod training"
            " operator, `inference` runs endpoints of models, `spaces` runs notebooks (SageMaker"
            " Spaces). Each comes with its add-on, the add-ons that this needs (cert-manager,"
            " drivers of storage) and its roles, `inference` also with an OIDC provider and a"
            " bucket; `addons` can set their versions and settings.",
        ),
    ] = ()
    monitoring: Annotated[
        Monitoring | None,
        Field(
            description="Metrics and logs of nodes and pods. `cloudwatch` is Container Insights:"
            " its add-on, role and log groups. `prometheus` is the observability add-on of HyperPod"
            " with its role, and a workspace that `prometheus` describes. `addons` can set their"
            " versions and further settings."
        ),
    ] = None
    prometheus: Annotated[Prometheus, Field(description="Details of `monitoring: prometheus`.")] = (
        Prometheus.model_construct()
    )
    pod_identity: Annotated[
        tuple[PodIdentity, ...],
        Field(
            strict=False,
            description="Roles for the pods of workloads, by namespace and service account.",
        ),
    ] = ()
    chart: Annotated[Chart, Field(description="The HyperPod Helm chart.")] = Chart.model_construct()
    charts: Annotated[
        Mapping[Annotated[str, RELEASE_NAME], FurtherChart],
        Field(
            description="Further Helm charts by the names of their releases. They are installed at"
            " the same time unless `after` says otherwise, and uninstalled, with consent, when they"
            " are no longer declared; helm keeps the definitions in their `crds` folders."
        ),
    ] = {}
    objects: Annotated[
        tuple[
            Annotated[
                Mapping[str, JsonValue],
                Check("each with apiVersion, kind and metadata.name", object_fault),
                WithJsonSchema({"type": ["object", "string"]}),  # a string is replaced on reading
            ],
            ...,
        ],
        Field(
            strict=False,
            description="Kubernetes objects, created last by server-side apply: objects, or paths"
            " of YAML files with objects, relative to the file. `${env:NAME}` in a text is the"
            " value of that variable, which is sent and never kept.",
        ),
    ] = ()
    lifecycle: Annotated[
        Lifecycle, Field(default_factory=Lifecycle, description="The nodes' scripts.")
    ]
    node_recovery: Annotated[
        str,
        Aws("sagemaker", "CreateCluster.NodeRecovery"),
        Field(description="Whether HyperPod replaces faulty nodes by itself."),
    ] = "Automatic"
    node_provisioning_mode: Annotated[
        Annotated[str, Aws("sagemaker", "CreateCluster.NodeProvisioningMode")] | None,
        Field(
            description="Continuous brings nodes up one by one as AWS finds them; `null` is"
            " all or nothing."
        ),
    ] = "Continuous"
    tiered_storage_config: Annotated[
        Annotated[
            Mapping[str, JsonValue], Members("sagemaker", "CreateCluster.TieredStorageConfig")
        ]
        | None,
        Field(description="Checkpoints in the nodes' memory."),
    ] = None
    auto_scaling: Annotated[
        AutoScaling | None, Field(description="Karpenter, which adds and removes nodes.")
    ] = None
    instance_groups: Annotated[
        tuple[InstanceGroup, ...],
        Field(strict=False, description="The groups of nodes."),
    ] = (  # Not validated: validation would read botocore's model on import.
        InstanceGroup.model_construct(
            name="worker-group", instance_type="ml.m5.2xlarge", instance_count=2
        ),
    )
    restricted_instance_groups: Annotated[
        tuple[RestrictedInstanceGroup, ...],
        Field(strict=False, description="Restricted groups; `instance_groups` may then be []."),
    ] = ()
    restricted_instance_groups_config: Annotated[
        Annotated[
            Mapping[str, JsonValue],
            Members("sagemaker", "CreateCluster.RestrictedInstanceGroupsConfig"),
        ]
        | None,
        Field(description="The file system that restricted groups share."),
    ] = None
    teams: Annotated[
        Mapping[Annotated[str, TEAM_NAME], Team],
        Field(
            description="Teams that share the cluster, by name, with HyperPod task governance: its"
            " add-on, and for each team a compute quota, which comes with the namespace"
            " `hyperpod-ns-TEAM`. See [task governance](task-governance.md)."
        ),
    ] = {}
    scheduler_config: Annotated[
        SchedulerConfig, Field(description="How the teams' tasks are scheduled.")
    ] = SchedulerConfig.model_construct()
    storage: Annotated[Storage, Field(description="File systems for the pods.")] = (
        Storage.model_construct()
    )
    existing: Annotated[Existing, Field(description="What you already have.")] = (
        Existing.model_construct()
    )
    encryption: Annotated[Encryption, Field(description="KMS keys.")] = Encryption.model_construct()
    iam: Annotated[Iam, Field(description="Roles.")] = Iam.model_construct()
    deletion_protection: Annotated[
        bool, Field(description="Refuse `delete`, and let EKS refuse it too.")
    ] = False

    def bucket(self, account: str) -> str:
        """Return the name of the lifecycle bucket in `account`.

        HyperPod's managed node policy reads buckets that are called ``sagemaker-*``.
        """
        return f"sagemaker-{self.name}-{account}-{self.region}"

    @property
    def groups(self) -> tuple[InstanceGroup | RestrictedInstanceGroup, ...]:
        """All groups of nodes, the restricted ones last."""
        return (*self.instance_groups, *self.restricted_instance_groups)

    def document(self) -> JsonObject:
        """Return it as JSON, as manifests and buckets keep it.

        0.1.0 refuses names that it does not know: settings that are newer are left out unless they
        are set.
        """
        found = self.model_dump(mode="json", by_alias=True)
        given = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        for path in (*((name,) for name in found.keys() - SECTIONS), *NEWER):
            _leave_out(found, given, path)
        return found

    def every_addon(self) -> dict[str, Addon]:
        """Return the add-ons by name: those that HyperPod needs, then the others."""
        return dict.fromkeys(NEEDED_ADDONS, Addon.model_construct()) | self.asked_addons()

    def asked_addons(self) -> dict[str, Addon]:
        """Return the add-ons by name that the config asks for, each after those that it needs."""
        return asked_addons(self)

    @property
    def people(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """The teams' people: by ARN, their access policies with namespaces; () for all."""
        return people(self.teams)

    @property
    def scales_itself(self) -> bool:
        """Whether Karpenter, not the config, decides the number of nodes."""
        return self.auto_scaling is not None and self.auto_scaling.mode == "Enable"

    @property
    def pooled_groups(self) -> tuple[InstanceGroup, ...]:
        """The groups that Karpenter scales by `auto_scaling.node_pools`."""
        pools = self.auto_scaling.node_pools if self.auto_scaling else ()
        names = {name for pool in pools for name in pool.instance_groups}
        return tuple(group for group in self.instance_groups if group.name in names)


SECTIONS = frozenset(
    {
        *("name", "region", "account", "tags", "network", "eks", "addons", "chart", "lifecycle"),
        *("node_recovery", "node_provisioning_mode", "tiered_storage_config", "auto_scaling"),
        *("instance_groups", "restricted_instance_groups", "restricted_instance_groups_config"),
        *("existing", "encryption", "iam", "deletion_protection"),
    }
)
"""The top-level settings of 0.1.0."""
NEWER = (
    ("addons", "*", "buckets"),
    ("auto_scaling", "node_pools"),
    ("chart", "images"),
    ("iam", "node_policy"),
)
"""Further settings that 0.1.0 does not have; ``*`` is any name."""


def _leave_out(found: JsonObject, given: JsonMapping, path: tuple[str, ...]) -> None:
    name, *rest = path
    if not rest:
        if name not in given:
            found.pop(name, None)
        return
    for each in list(found) if name == "*" else [name]:
        if isinstance(found.get(each), dict):
            _leave_out(found[each], given.get(each) or {}, tuple(rest))
