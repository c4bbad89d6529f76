"""Existing resources that a cluster uses."""

from typing import Annotated

from pydantic import Field

from hyperpod_eks.config.rules import Aws, Pattern
from hyperpod_eks.config.section import Section, id_pattern

ROLE_NAME = Pattern(
    "the name of a role",
    "the last part of its ARN, without a path",
    r"[\w+=,.@-]{1,64}",
    "list them with `aws iam list-roles`",
)


class Existing(Section):
    """What you already have: used as it is, never changed and never deleted."""

    vpc: Annotated[
        Annotated[str, id_pattern("a VPC", "vpc")] | None,
        Field(
            description="The VPC. Its internet gateway, and those of `network.interface_endpoints`"
            " that it has, are used as well."
        ),
    ] = None
    private_subnets: Annotated[
        tuple[Annotated[str, id_pattern("a subnet", "subnet")], ...],
        Field(
            strict=False,
            description="Private subnets, one in each of two zones or more (one will do in an EKS"
            " cluster of yours); their own routes lead to AWS.",
        ),
    ] = ()
    route_tables: Annotated[
        tuple[Annotated[str, id_pattern("a route table", "rtb")], ...],
        Field(strict=False, description="Route tables that get a new S3 endpoint's route."),
    ] = ()
    nat_gateways: Annotated[
        tuple[Annotated[str, id_pattern("a NAT gateway", "nat")], ...],
        Field(strict=False, description="NAT gateways for new subnets in your VPC."),
    ] = ()
    s3_endpoint: Annotated[
        Annotated[str, id_pattern("a VPC endpoint", "vpce")] | None,
        Field(description="The gateway endpoint of S3."),
    ] = None
    security_group: Annotated[
        Annotated[str, id_pattern("a security group", "sg")] | None,
        Field(description="Security group of the nodes, open to itself."),
    ] = None
    eks_cluster: Annotated[
        Annotated[str, Aws("eks", "CreateCluster.name")] | None,
        Field(
            description="Name of the EKS cluster; VPC, subnets and security group come with it,"
            " and so do its add-ons."
        ),
    ] = None
    cluster_role: Annotated[
        Annotated[str, ROLE_NAME] | None, Field(description="Name of the EKS cluster's role.")
    ] = None
    execution_role: Annotated[
        Annotated[str, ROLE_NAME] | None, Field(description="Name of the nodes' role.")
    ] = None
    bucket: Annotated[
        Annotated[
            str,
            Pattern(
                "the name of a bucket",
                "3 to 63 lowercase letters, digits, dots and hyphens; no directory bucket (--x-s3)",
                r"(?!.*--x-s3$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
                "list them with `aws s3 ls`",
            ),
        ]
        | None,
        Field(description="Bucket for the scripts, below hyperpod-eks/<name>/."),
    ] = None
    helm_release: Annotated[
        Annotated[
            str,
            Pattern(
                "a Helm release",
                "<namespace>/<name>",
                r"[a-z0-9-]+/[a-z0-9.-]+",
                "list them with `helm list -A`",
            ),
        ]
        | None,
        Field(description="The release of the HyperPod chart."),
    ] = None
