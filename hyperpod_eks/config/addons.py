"""The settings of EKS add-ons."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue

from hyperpod_eks.config.rules import Aws, Members, Pattern
from hyperpod_eks.config.section import Section

NEEDED_ADDONS = ("vpc-cni", "kube-proxy", "coredns", "eks-pod-identity-agent")
"""Without them nodes or pods of HyperPod do not work (SageMaker developer guide, "Prerequisites for
EKS orchestration")."""
FSX_DRIVER = "aws-fsx-csi-driver"
EFS_DRIVER = "aws-efs-csi-driver"
ADDON_NAME = Pattern(
    "the name of an EKS add-on",
    "like aws-fsx-csi-driver",
    r"[0-9A-Za-z][A-Za-z0-9_-]*",
    "list them with `aws eks describe-addon-versions`",
)
BUCKET_NAME = Pattern(
    "the name of an S3 bucket",
    "3 to 63 lowercase letters, digits, dots and hyphens, without s3://",
    r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]",
    "list them with `aws s3 ls`",
)


class Addon(Section):
    """An EKS add-on."""

    version: Annotated[
        Annotated[
            str,
            Pattern(
                "the version of an EKS add-on",
                "like v1.20.4-eksbuild.1",
                r"v[0-9]+\.[0-9]+\.[0-9]+-eksbuild\.[0-9]+",
                "list them with `aws eks describe-addon-versions`",
            ),
        ]
        | None,
        Field(description="Version. Without it: EKS's default for the Kubernetes version."),
    ] = None
    configuration_values: Annotated[
        Mapping[str, JsonValue],
        Field(
            description="Settings of the add-on, as its own schema names them. `${env:NAME}` in a"
            " text is the value of that variable, which is sent and never kept."
        ),
    ] = {}
    pod_identity_associations: Annotated[
        tuple[
            Annotated[
                Mapping[str, JsonValue],
                Members("eks", "CreateAddon.podIdentityAssociations[]"),
            ],
            ...,
        ]
        | None,
        Field(
            strict=False,
            description="Roles of its service accounts, as `{service_account: …, role_arn: …}`;"
            " `[]` for none. Without it: the tool creates the roles that the add-on needs (not for"
            " the four that HyperPod needs, which use the nodes' role).",
        ),
    ] = None
    buckets: Annotated[
        tuple[Annotated[str, Aws("s3", "CreateBucket.Bucket"), BUCKET_NAME], ...],
        Field(
            strict=False,
            max_length=30,  # a policy of IAM has 6,144 characters, and a name 63
            description="Buckets that the role of `aws-mountpoint-s3-csi-driver` reads and writes,"
            " at most 30; no other add-on has this setting.",
        ),
    ] = ()
