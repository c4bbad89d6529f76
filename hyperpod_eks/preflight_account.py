"""Checks of the account: who calls, in which region, with which permissions and quotas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hyperpod_eks import crew
from hyperpod_eks.aws import Look, meaning
from hyperpod_eks.config import InstanceGroup, RestrictedInstanceGroup
from hyperpod_eks.crew import together
from hyperpod_eks.errors import Denied, HyperpodError, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.policy import Statement, statements
from hyperpod_eks.preflight_facts import Facts, Finding, Quota, quota_rows
from hyperpod_eks.retry import Class
from hyperpod_eks.site import Site, check_plans
from hyperpod_eks.steps import eks, hyperpod, network

SIZE = "Maximum number instances allowed per SageMaker HyperPod cluster"
TOTAL = "Total number of instances allowed across SageMaker HyperPod clusters"
TOTAL_SPOT = "Total number of Spot instances allowed across SageMaker HyperPod clusters"
PAIRS = 100
"""Of action and resource, which one simulation is asked about."""
VOLUME = "Maximum size of EBS volume in GB for a SageMaker HyperPod cluster instance"


def ahead() -> list[Callable[[Look], object]]:
    """Questions that need nothing but a region: its quotas, page by page the slowest of all."""
    return [partial(quota_rows, service=each) for each in ("sagemaker", "vpc", "ec2", "eks")]


def begin(facts: Facts, skip: Collection[str]) -> None:
    """Ask for what needs no look at our own resources, beside that look.

    The checks find the answers, or ask again for what failed.
    """
    questions: list[Callable[[], Any]] = [facts.clusters, facts.control_planes]
    if "permissions" not in skip:
        questions.append(partial(list, permissions(facts)))
    crew.begin(questions)


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
    principal = eks.caller(facts.look)
    lots = together(*(partial(_denied, facts, principal, lot) for lot in _lots(facts.site)))
    for command in ("create", "delete"):
        refused = {action for lot in lots for one, action in lot if one == command}
        if refused:
            yield Finding(
                "permissions",
                "error" if command == "create" else "warning",
                f"{principal} may not do what {command} does: {', '.join(sorted(refused))}",
                f"Attach the policies that `hyperpod-eks policy {facts.site.name}` prints.",
                {"principal": principal, "actions": sorted(refused), "command": command},
            )


def _lots(site: Site) -> list[list[Statement]]:
    """Put together what one simulation can answer: statements under the same conditions.

    A simulation tells of each of its actions with each of its resources; a page of the answer
    holds a hundred.
    """
    lots: dict[str, list[list[Statement]]] = {}
    for row in statements(site):
        same = lots.setdefault(repr(row.condition), [[]])
        if len(_actions([*same[-1], row])) * len(_resources([*same[-1], row])) > PAIRS:
            same.append([])
        same[-1].append(row)
    return [lot for same in lots.values() for lot in same]


def _actions(lot: Sequence[Statement]) -> list[str]:
    return sorted({action for row in lot for action in row.actions})


def _resources(lot: Sequence[Statement]) -> list[str]:
    return sorted({_sample(row.resources[0]) for row in lot})


def _denied(facts: Facts, principal: str, lot: Sequence[Statement]) -> list[tuple[str, str]]:
    """Simulate statements (IAM API SimulatePrincipalPolicy); return commands and denied actions.

    Raises HyperpodError when the answer leaves one of them out.
    """
    context: Any = [
        {
            "ContextKeyName": key,
            "ContextKeyType": "string",
            "ContextKeyValues": [values if isinstance(values, str) else values[0]],
        }
        for comparisons in lot[0].condition.values()
        for key, values in comparisons.items()
    ]
    asked: dict[str, Any] = {"ContextEntries": context} if context else {}
    answers = facts.look.all(
        facts.aws.iam,
        "simulate_principal_policy",
        "EvaluationResults",
        PolicySourceArn=principal,
        ActionNames=_actions(lot),
        ResourceArns=_resources(lot),
        **asked,
    )
    decided = {pair: decision for each in answers for pair, decision in _decisions(each)}
    wished = [
        (row.command, action, (action, _sample(row.resources[0])))
        for row in lot
        for action in row.actions
    ]
    if missing := [action for _, action, pair in wished if pair not in decided]:
        raise HyperpodError(f"the simulation does not tell of {', '.join(missing)}")
    return [(command, action) for command, action, pair in wished if decided[pair] != "allowed"]


def _decisions(answer: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """Read one result, by action and resource: of several resources it may hold a list."""
    action = answer["EvalActionName"]
    yield (action, answer.get("EvalResourceName", "*")), answer["EvalDecision"]
    for each in answer.get("ResourceSpecificResults", ()):
        yield (action, each["EvalResourceName"]), each["EvalResourceDecision"]


def _sample(resource: str) -> str:
    """Name one resource that a pattern of the policy stands for.

    >>> _sample("arn:aws:ec2:us-west-2:123456789012:*/*")
    'arn:aws:ec2:us-west-2:123456789012:x/x'
    """
    return resource if resource == "*" else resource.replace("*", "x")


# --- quotas


@frozen
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
        lambda facts: len(facts.control_planes()),
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
    found = [
        nat
        for nat in facts.ec2("describe_nat_gateways", "NatGateways")
        if nat["State"] in ("pending", "available")
    ]
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
            kind = hyperpod.instance_types(group).partition(",")[0]
            spot = "Spot" in group.get("CapacityRequirements", {})
            counter = ours if name == facts.config.name else others
            counter += _usage(kind, group.get("TargetCount", 0), spot=spot)
    wanted = Counter[str]()
    for one in facts.config.groups:
        spot = "spot" in (getattr(one, "capacity_requirements", None) or {})
        wanted += _usage(one.instance_types[0], one.instance_count, spot=spot)
    found = facts.quotas("sagemaker")
    for quota, count in wanted.items():
        id_ = "quota-total-instances" if quota in (TOTAL, TOTAL_SPOT) else "quota-instances"
        there = ours[quota] + others[quota]
        yield from _judge(id_, "sagemaker", quota, found, count - ours[quota], there)
    yield from _judge("quota-cluster-size", "sagemaker", SIZE, found, wanted[TOTAL], 0)
    largest = max(map(_largest_volume, facts.config.groups))
    yield from _judge("quota-volume-size", "sagemaker", VOLUME, found, largest, 0)


def _largest_volume(group: InstanceGroup | RestrictedInstanceGroup) -> int:
    """The size of a node's largest volume; the extra one is not made beside others with a size."""
    volumes: Any = [one.get("ebs_volume_config") or {} for one in group.instance_storage_configs]
    sizes = [volume["volume_size_in_gb"] for volume in volumes if "volume_size_in_gb" in volume]
    return max(sizes) if sizes else group.ebs_volume_size_in_gb or 0


def _usage(kind: str, count: int, *, spot: bool) -> Counter[str]:
    """Say what a group uses up of each quota; Spot instances have their own."""
    used = Counter({f"{kind} for cluster {'spot instance ' * spot}usage": count, TOTAL: count})
    return used + Counter({TOTAL_SPOT: count * spot})


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
            f" --region {quota.region} --service-code {service} --quota-code {quota.code}"
            f" --desired-value {there + adds}",
            {"quota": name, "limit": quota.value, "in_use": there, "wanted": adds},
        )
    ]
