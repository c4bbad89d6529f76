"""What carries this tool's tags in an account, whichever cluster it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from hyperpod_eks.aws.client import CLUSTER, LABEL, LINEAGE, Aws, absent, tag
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Identity, Resource
from hyperpod_eks.resources.ec2.endpoint import VpcEndpoint
from hyperpod_eks.resources.ec2.gateways import ElasticIp, InternetGateway, NatGateway
from hyperpod_eks.resources.ec2.route_table import RouteTable
from hyperpod_eks.resources.ec2.security_group import SecurityGroup, SecurityGroupRule
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.iam import Policy, Role
from hyperpod_eks.resources.logs import LogGroup
from hyperpod_eks.resources.s3 import Bucket
from hyperpod_eks.workers import gather


@frozen
class Signed:
    """A resource with our tags."""

    cluster: str
    lineage: str
    label: str
    kind: str
    id: str


def signed(aws: Aws) -> list[Signed]:
    """List everything in the region (and IAM) that any cluster of this tool has signed.

    EC2 answers for all its kinds but one at once; the other services are asked one by one.
    Nothing is changed.  The tagging API is not used: it is late, and knows neither EKS nor
    SageMaker well.
    """
    return _ask(SOURCES, aws, "", ())


def untracked(aws: Aws, resolved: ResolvedConfig, named: Sequence[Resource]) -> list[Resource]:
    """Declare what this cluster has signed and ``named`` does not name, for a delete to take away.

    A config that has changed and a manifest that is lost leave such things.  They go after the
    clusters and their interfaces, in the order of ``LAST_FIRST``.  EKS and HyperPod are not asked:
    a cluster's name is that of both, so that they are always declared.  Returns the whole stack,
    ``named`` included, so that the order is part of it.
    """
    keys = {want.key for want in named}
    # the names of what cannot have two of one label
    known = {str(getattr(want, name, "")) for want in named for name in ("name", "arn")}
    vpc = next((want for want in named if isinstance(want, Vpc)), Vpc("vpc", cidr=""))
    found: list[Resource] = []
    for one in _ask(SOURCES[:6], aws, resolved.name, known):
        if one.lineage == aws.lineage and one.kind in KINDS:
            want = KINDS[one.kind](one, resolved, vpc)
            # another one in the place of what is declared
            if want.key in keys and want.identity is Identity.NAME:
                want = replace(want, label=one.id)
            if want.key not in keys:
                keys.add(want.key)
                found.append(want)
    if not found:
        return list(named)
    groups = {x.label: x for x in (*named, *found) if isinstance(x, SecurityGroup)}
    control = groups.get("control-plane-security-group")
    if control in found and "security-group" in groups:  # a rule carries no tags
        rule = SecurityGroupRule(
            "control-plane-opening", group=groups["security-group"], peer=control
        )
        found.append(rule)
    ordered: list[Resource] = []
    for want in sorted(found, key=_rank, reverse=True):
        later = [x for x in (*named, *ordered) if _rank(x) > _rank(want)]
        ordered.append(replace(want, after=tuple(later)))
    return [
        *ordered,
        *(
            replace(want, after=(*want.after, *ordered)) if want.key in USERS else want
            for want in named
        ),
    ]


LAST_FIRST = (
    Role,
    Policy,
    Bucket,
    LogGroup,
    NatGateway,
    VpcEndpoint,
    RouteTable,
    Subnet,
    SecurityGroupRule,
    SecurityGroup,
    ElasticIp,
    InternetGateway,
    Vpc,
)
"""Each kind goes before those that stand behind it, which it may be using."""

USERS = ("hyperpod/cluster", "eks/cluster", "network/interfaces")
"""What may use any of them, and has to be gone before."""


def _rank(want: Resource) -> int:
    return LAST_FIRST.index(type(want)) if type(want) in LAST_FIRST else -1


KINDS: Mapping[str, Callable[[Signed, ResolvedConfig, Vpc], Resource]] = {
    "vpc": lambda x, resolved, vpc: Vpc(x.label, cidr=""),
    "internet-gateway": lambda x, resolved, vpc: InternetGateway(x.label, vpc=vpc),
    "elastic-ip": lambda x, resolved, vpc: ElasticIp(x.label),
    "security-group": lambda x, resolved, vpc: SecurityGroup(x.label, vpc=vpc, name=""),
    "subnet": lambda x, resolved, vpc: Subnet(x.label, vpc=vpc, cidr="", zone=""),
    "route-table": lambda x, resolved, vpc: RouteTable(x.label, vpc=vpc, target=None, subnets=()),
    "vpc-endpoint": lambda x, resolved, vpc: VpcEndpoint(x.label, vpc=vpc, service=""),
    "natgateway": lambda x, resolved, vpc: NatGateway(x.label, subnet=None, address=None),
    "role": lambda x, resolved, vpc: Role(x.label, name=x.id, trusts="", managed=()),
    "policy": lambda x, resolved, vpc: Policy(
        x.label,
        name=x.id.rpartition("/")[2],
        prefix=resolved.arn("iam", "policy"),
        path=x.id.removeprefix(resolved.arn("iam", "policy")).rpartition("/")[0] + "/",
        rows=(),
    ),
    "bucket": lambda x, resolved, vpc: Bucket(
        x.label, name=x.id, region=resolved.region, arn=resolved.arn("s3", x.id)
    ),
    "log-group": lambda x, resolved, vpc: LogGroup(
        x.label, name=x.id, arn=resolved.arn("logs", f"log-group:{x.id}"), retention=0
    ),
}
"""How each kind is declared as far as a delete must know it: EC2's by label, the rest by name."""

Candidate = tuple[str, str, Callable[[], Any]]
"""Kind, id, and how to ask for the tags."""
Source = Callable[[Aws, str], Iterator[Candidate]]
"""Given a cluster's name, a source leaves out what cannot be that cluster's, as its name tells."""


def _ask(sources: Sequence[Source], aws: Aws, cluster: str, known: Container[str]) -> list[Signed]:
    """Ask the sources, at once; tags are asked only for what is not ``known`` by id."""

    def told(source: Source) -> list[Signed]:
        return [
            Signed(tag(tags, CLUSTER) or "", lineage, tag(tags, LABEL) or "", kind, id_)
            for kind, id_, ask in source(aws, cluster)
            if id_ not in known
            for tags in [ask()]
            if (lineage := tag(tags, LINEAGE)) is not None
        ]

    every = gather(*(partial(told, source) for source in sources))
    found = [each for some in every for each in some]
    return sorted(found, key=lambda x: (x.cluster, x.kind, x.id))


def _tags(call: Callable[..., Mapping[str, Any]], *path: str, **arguments: str) -> Any:
    """Make a call and return what ``path`` leads to; nothing for what has no tags or is gone."""
    with absent("NoSuch.*", "ResourceNotFound.*", "AccessDenied", "PermanentRedirect"):
        found: Any = call(**arguments)
        for name in path:
            found = found[name]
        return found
    return ()


def _ec2(aws: Aws, cluster: str) -> Iterator[Candidate]:
    tags: dict[tuple[str, str], dict[str, str]] = {}
    filters: Any = [{"Name": "key", "Values": [CLUSTER, LINEAGE, LABEL]}]
    for page in aws.ec2.get_paginator("describe_tags").paginate(Filters=filters):
        for each in page["Tags"]:
            tags.setdefault((each["ResourceType"], each["ResourceId"]), {})[each["Key"]] = each[
                "Value"
            ]
    for (kind, id_), found in tags.items():
        if kind != "natgateway":
            yield kind, id_, partial(dict, found)


def _nats(aws: Aws, cluster: str) -> Iterator[Candidate]:
    """A NAT gateway shows for an hour after it is gone, and its tags with it."""
    ours = {"Name": "tag-key", "Values": [LINEAGE]}
    left = {"Name": "state", "Values": ["pending", "failed", "available", "deleting"]}
    alive: Any = {"Filter": [ours, left]}
    for page in aws.ec2.get_paginator("describe_nat_gateways").paginate(**alive):
        for nat in page["NatGateways"]:
            yield "natgateway", nat["NatGatewayId"], partial(list, nat["Tags"])


_WHOLE: Any = {"PaginationConfig": {"PageSize": 1000}}


def _roles(aws: Aws, cluster: str) -> Iterator[Candidate]:
    ask = aws.iam.list_role_tags
    for page in aws.iam.get_paginator("list_roles").paginate(**_WHOLE):
        for role in page["Roles"]:
            name, about = role["RoleName"], role.get("Description", "")
            if about.startswith("hyperpod-eks: ") and name.startswith(_begin(cluster)):
                yield "role", name, partial(_tags, ask, "Tags", RoleName=name)


def _policies(aws: Aws, cluster: str) -> Iterator[Candidate]:
    ask = aws.iam.list_policy_tags
    for page in aws.iam.get_paginator("list_policies").paginate(Scope="Local", **_WHOLE):
        for policy in page["Policies"]:
            arn = policy["Arn"]
            if policy["PolicyName"].startswith(_begin(cluster)):
                yield "policy", arn, partial(_tags, ask, "Tags", PolicyArn=arn)


def _begin(cluster: str) -> str:
    """What names of IAM begin with: long ones are cut off (site.fit)."""
    return cluster[:50]


def _s3(aws: Aws, cluster: str) -> Iterator[Candidate]:
    # without a region those of all are listed, and of some that the account has not enabled no
    # tags are to be had here (IllegalLocationConstraintException)
    ask = aws.s3.get_bucket_tagging
    ours: Any = {"Prefix": "sagemaker-", "BucketRegion": aws.identity.region, **_WHOLE}
    for page in aws.s3.get_paginator("list_buckets").paginate(**ours):
        for bucket in page.get("Buckets", ()):
            yield "bucket", bucket["Name"], partial(_tags, ask, "TagSet", Bucket=bucket["Name"])


def _logs(aws: Aws, cluster: str) -> Iterator[Candidate]:
    begin = f"/aws/eks/{cluster}/" if cluster else "/aws/eks/"
    ask = aws.logs.list_tags_for_resource
    pages = aws.logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=begin)
    for page in pages:
        for group in page["logGroups"]:
            arn = group["arn"].removesuffix(":*")
            yield "log-group", group["logGroupName"], partial(_tags, ask, "tags", resourceArn=arn)


def _eks(aws: Aws, cluster: str) -> Iterator[Candidate]:
    for page in aws.eks.get_paginator("list_clusters").paginate():
        for name in page["clusters"]:
            ask = partial(_tags, aws.eks.describe_cluster, "cluster", "tags", name=name)
            yield "eks-cluster", name, ask


def _sagemaker(aws: Aws, cluster: str) -> Iterator[Candidate]:
    ask = aws.sagemaker.list_tags
    for page in aws.sagemaker.get_paginator("list_clusters").paginate():
        for each in page["ClusterSummaries"]:
            name, arn = each["ClusterName"], each["ClusterArn"]
            yield "hyperpod-cluster", name, partial(_tags, ask, "Tags", ResourceArn=arn)


SOURCES: tuple[Source, ...] = (_ec2, _nats, _roles, _policies, _s3, _logs, _eks, _sagemaker)
