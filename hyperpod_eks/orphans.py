"""What carries this tool's tags in an account, whichever cluster it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hyperpod_eks.aws import CLUSTER, LABEL, LINEAGE, Aws, absent, tag


@dataclass(frozen=True)
class Signed:
    """A resource with our tags."""

    cluster: str
    lineage: str
    label: str
    kind: str
    id: str


def signed(aws: Aws) -> list[Signed]:
    """List everything in the region (and IAM) that any cluster of this tool has signed.

    EC2 answers for all its kinds at once; the other services are asked one by one.  Nothing is
    changed.  The tagging API is not used: it is late, and knows neither EKS nor SageMaker well.
    """
    return sorted(
        (each for source in SOURCES for each in source(aws)),
        key=lambda x: (x.cluster, x.kind, x.id),
    )


def _one(kind: str, id_: str, tags: Any) -> Iterator[Signed]:
    lineage = tag(tags, LINEAGE)
    if lineage is not None:
        yield Signed(tag(tags, CLUSTER) or "", lineage, tag(tags, LABEL) or "", kind, id_)


def _ec2(aws: Aws) -> Iterator[Signed]:
    tags: dict[tuple[str, str], dict[str, str]] = {}
    filters: Any = [{"Name": "key", "Values": [CLUSTER, LINEAGE, LABEL]}]
    for page in aws.ec2.get_paginator("describe_tags").paginate(Filters=filters):
        for each in page["Tags"]:
            tags.setdefault((each["ResourceType"], each["ResourceId"]), {})[each["Key"]] = each[
                "Value"
            ]
    # a NAT gateway shows for an hour after it is gone, and its tags with it
    deleted: Any = {"Filter": [{"Name": "state", "Values": ["deleted"]}]}
    gone = {
        nat["NatGatewayId"]
        for page in aws.ec2.get_paginator("describe_nat_gateways").paginate(**deleted)
        for nat in page["NatGateways"]
    }
    for (kind, id_), found in tags.items():
        if id_ not in gone:
            yield from _one(kind, id_, found)


def _iam(aws: Aws) -> Iterator[Signed]:
    for page in aws.iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            if role.get("Description", "").startswith("hyperpod-eks: "):
                tags = aws.iam.list_role_tags(RoleName=role["RoleName"])["Tags"]
                yield from _one("role", role["RoleName"], tags)
    for policies in aws.iam.get_paginator("list_policies").paginate(Scope="Local"):
        for policy in policies["Policies"]:
            tags = aws.iam.list_policy_tags(PolicyArn=policy["Arn"])["Tags"]
            yield from _one("policy", policy["Arn"], tags)


def _s3(aws: Aws) -> Iterator[Signed]:
    for bucket in aws.s3.list_buckets()["Buckets"]:
        if bucket["Name"].startswith("sagemaker-"):
            with absent("NoSuchTagSet", "NoSuchBucket", "AccessDenied", "PermanentRedirect"):
                tags = aws.s3.get_bucket_tagging(Bucket=bucket["Name"])["TagSet"]
                yield from _one("bucket", bucket["Name"], tags)


def _logs(aws: Aws) -> Iterator[Signed]:
    pages = aws.logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix="/aws/eks/")
    for page in pages:
        for group in page["logGroups"]:
            arn = group["arn"].removesuffix(":*")
            tags = aws.logs.list_tags_for_resource(resourceArn=arn)["tags"]
            yield from _one("log-group", group["logGroupName"], tags)


def _eks(aws: Aws) -> Iterator[Signed]:
    for page in aws.eks.get_paginator("list_clusters").paginate():
        for name in page["clusters"]:
            with absent("ResourceNotFoundException"):
                tags: Mapping[str, str] = aws.eks.describe_cluster(name=name)["cluster"]["tags"]
                yield from _one("eks-cluster", name, tags)


def _sagemaker(aws: Aws) -> Iterator[Signed]:
    for page in aws.sagemaker.get_paginator("list_clusters").paginate():
        for cluster in page["ClusterSummaries"]:
            tags = aws.sagemaker.list_tags(ResourceArn=cluster["ClusterArn"])["Tags"]
            yield from _one("hyperpod-cluster", cluster["ClusterName"], tags)


SOURCES = (_ec2, _iam, _s3, _logs, _eks, _sagemaker)
