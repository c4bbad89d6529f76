"""Checks of the account: who calls, in which region, with which permissions and quotas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hyperpod_eks.aws import meaning
from hyperpod_eks.errors import Denied, Usage
from hyperpod_eks.policy import Statement, statements
from hyperpod_eks.preflight_facts import Facts, Finding, Quota
from hyperpod_eks.retry import Class
from hyperpod_eks.site import check_plans
from hyperpod_eks.steps import eks, hyperpod, network

SIZE = "Maximum number instances allowed per SageMaker HyperPod cluster"
TOTAL = "Total number of instances allowed across SageMaker HyperPod clusters"
VOLUME = "Maximum size of EBS volume in GB for a SageMaker HyperPod cluster instance"


def identity(facts: Facts) -> Iterator[Finding]:
    """The caller must be a principal that an EKS access entry can name."""
    caller = facts.aws.identity.arn
    if ":federated-user/" in caller:
        yield Finding(
            "identity",
            "error",
            f"you are {caller}: EKS has no access entries for federated users",
            "Run this as a role or an IAM user.",
            {"arn": caller},
        )
        return
    try:
        eks.caller(facts.look)
    except (Usage, Denied) as error:
        yield Finding("identity", "error", f"you are {caller}: {error}", error.hint)


def region(facts: Facts) -> Iterator[Finding]:
    """HyperPod must answer in the region: an endpoint of SageMaker alone is no proof."""
    try:
        facts.clusters()
    except Exception as error:
        if meaning(error) in (Class.EXPIRED, Class.DENIED):
            raise
        here = facts.aws.identity.region
        yield Finding(
            "region",
            "error",
            f"HyperPod does not answer in {here}: {error}",
            "Choose a region that has it, for example --region us-west-2.",
            {"region": here},
        )


def permissions(facts: Facts) -> Iterator[Finding]:
    """Every action of the policy is simulated, on the resources and conditions it names."""
    if facts.site is None:
        return
    principal, rows = eks.caller(facts.look), statements(facts.site)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda row: _denied(facts, principal, row), rows))
    for command in ("create", "delete"):
        refused = {
            action
            for row, actions in zip(rows, answers, strict=True)
            if row.command == command
            for action in actions
        }
        if refused:
            yield Finding(
                "permissions",
                "error" if command == "create" else "warning",
                f"{principal} may not do what {command} does: {', '.join(sorted(refused))}",
                f"Attach the policies that `hyperpod-eks policy {facts.site.name}` prints.",
                {"principal": principal, "actions": sorted(refused), "command": command},
            )


def _denied(facts: Facts, principal: str, row: Statement) -> list[str]:
    """Simulate one statement (IAM API SimulatePrincipalPolicy); return what is not allowed."""
    context: Any = [
        {
            "ContextKeyName": key,
            "ContextKeyType": "string",
            "ContextKeyValues": [values if isinstance(values, str) else values[0]],
        }
        for comparisons in row.condition.values()
        for key, values in comparisons.items()
    ]
    asked: dict[str, Any] = {"ContextEntries": context} if context else {}
    answers = facts.look.all(
        facts.aws.iam,
        "simulate_principal_policy",
        "EvaluationResults",
        PolicySourceArn=principal,
        ActionNames=list(row.actions),
        ResourceArns=[_sample(row.resources[0])],
        **asked,
    )
    return [each["EvalActionName"] for each in answers if each["EvalDecision"] != "allowed"]


def _sample(resource: str) -> str:
    """Name one resource that a pattern of the policy stands for.

    >>> _sample("arn:aws:ec2:us-west-2:123456789012:*/*")
    'arn:aws:ec2:us-west-2:123456789012:x/x'
    """
    return resource if resource == "*" else resource.replace("*", "x")


# --- quotas


@dataclass(frozen=True)
class Limit:
    """A quota, what create adds to it, and what is there already."""

    id: str
    service: str
    quota: str
    adds: Callable[[Facts], int]
    there: Callable[[Facts], int]


LIMITS = (
    Limit(
        "quota-vpcs",
        "vpc",
        "VPCs per Region",
        lambda facts: len(facts.missing(network.Vpc)),
        lambda facts: len(facts.ec2("describe_vpcs", "Vpcs")),
    ),
    Limit(
        "quota-internet-gateways",
        "vpc",
        "Internet gateways per Region",
        lambda facts: len(facts.missing(network.InternetGateway)),
        lambda facts: len(facts.ec2("describe_internet_gateways", "InternetGateways")),
    ),
    Limit(
        "quota-addresses",
        "ec2",
        "EC2-VPC Elastic IPs",
        lambda facts: len(facts.missing(network.Address)),
        lambda facts: len(facts.ec2("describe_addresses", "Addresses")),
    ),
    Limit(
        "quota-eks-clusters",
        "eks",
        "Clusters",
        lambda facts: len(facts.missing(eks.Cluster)),
        lambda facts: len(facts.look.all(facts.aws.eks, "list_clusters", "clusters")),
    ),
)


def quotas(facts: Facts) -> Iterator[Finding]:
    """What create makes must fit into what the account may have."""
    for limit in LIMITS:
        if adds := limit.adds(facts):
            found = facts.quotas(limit.service)
            there = limit.there(facts)
            yield from _judge(limit.id, limit.service, limit.quota, found, adds, there)


def nat_gateways(facts: Facts) -> Iterator[Finding]:
    """NAT gateways are counted by zone; those that are deleted do not count."""
    missing = facts.missing(network.NatGateway)
    wanted = Counter(nat.subnet.zone for nat in missing if nat.subnet)
    if not wanted:
        return
    states: Any = [{"Name": "state", "Values": ["pending", "available"]}]
    found = facts.ec2("describe_nat_gateways", "NatGateways", Filter=states)
    places = facts.ec2("describe_subnets", "Subnets")
    zones = {each["SubnetId"]: each["AvailabilityZoneId"] for each in places}
    there = Counter(zones.get(each["SubnetId"], "") for each in found)
    for zone, count in wanted.items():
        yield from _judge(
            "quota-nat-gateways",
            "vpc",
            "NAT gateways per Availability Zone",
            facts.quotas("vpc"),
            count,
            there[zone],
            f" in {zone}",
        )


def instances(facts: Facts) -> Iterator[Finding]:
    """Instances are counted by type, by cluster and in all; every type starts at 0."""
    ours, others = Counter[str](), Counter[str]()
    for name, cluster in facts.clusters().items():
        for group in hyperpod.every_group(cluster):
            counter = ours if name == facts.config.name else others
            counter[group.get("InstanceType", "")] += group.get("TargetCount", 0)
    wanted = Counter[str]()
    for one in facts.config.groups:
        wanted[one.instance_types[0]] += one.instance_count
    found = facts.quotas("sagemaker")
    for kind, count in wanted.items():
        quota = f"{kind} for cluster usage"
        there = ours[kind] + others[kind]
        yield from _judge("quota-instances", "sagemaker", quota, found, count - ours[kind], there)
    total = wanted.total()
    yield from _judge("quota-cluster-size", "sagemaker", SIZE, found, total, 0)
    adds, there = total - ours.total(), ours.total() + others.total()
    yield from _judge("quota-total-instances", "sagemaker", TOTAL, found, adds, there)
    volumes = [one.ebs_volume_size_in_gb or 0 for one in facts.config.groups]
    yield from _judge("quota-volume-size", "sagemaker", VOLUME, found, max(volumes), 0)


def training_plans(facts: Facts) -> Iterator[Finding]:
    """A training plan must be active, of the group's type, in its zone, and large enough."""
    try:
        if facts.site is not None:
            check_plans(facts.site, facts.aws)
    except Usage as error:
        yield Finding("training-plans", "error", str(error), error.hint)


def _judge(
    id_: str,
    service: str,
    name: str,
    limits: dict[str, Quota],
    adds: int,
    there: int,
    where: str = "",
) -> Iterable[Finding]:
    """Compare what is wanted on top of what is there with a limit."""
    quota = limits.get(name)
    if quota is None:
        text = f'Service Quotas does not list "{name}" of {service}, which create adds {adds} to'
        return [Finding(id_, "info", text, "See it in the Service Quotas console.")]
    if adds <= 0 or there + adds <= quota.value:
        return []
    use = f"{there} in use, {adds} more wanted" if there else f"{adds} wanted"
    return [
        Finding(
            id_,
            "error",
            f'"{name}" is {quota.value:g}{where}: {use}',
            "Ask for more: aws service-quotas request-service-quota-increase"
            f" --service-code {service} --quota-code {quota.code} --desired-value {there + adds}",
            {"quota": name, "limit": quota.value, "in_use": there, "wanted": adds},
        )
    ]
