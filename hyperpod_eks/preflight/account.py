"""Checks of the account: who calls, in which region, with which permissions and quotas."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from hyperpod_eks import workers
from hyperpod_eks.aws.client import Look, meaning
from hyperpod_eks.aws.errors import Class
from hyperpod_eks.config.model import InstanceGroup, RestrictedInstanceGroup
from hyperpod_eks.errors import Denied, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.policy import authorization
from hyperpod_eks.policy.statements import Conditions, Statement, statements
from hyperpod_eks.preflight.inputs import Facts, Finding, Quota, quota_rows
from hyperpod_eks.resolve.site import Site, check_plans
from hyperpod_eks.resources import access_entry, eks
from hyperpod_eks.resources.ec2.gateways import Address, InternetGateway, NatGateway
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.hyperpod import api as hyperpod_api

SIZE = "Maximum number instances allowed per SageMaker HyperPod cluster"
TOTAL = "Total number of instances allowed across SageMaker HyperPod clusters"
TOTAL_SPOT = "Total number of Spot instances allowed across SageMaker HyperPod clusters"
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
    workers.begin(questions)


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
        access_entry.caller(facts.look)
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
    principal = access_entry.caller(facts.look)
    questions = _questions(facts.site)
    told: list[Told] = []
    workers.each(lambda one: told.extend(_told(facts, principal, one)), questions, AT_ONCE)
    for command in ("create", "delete"):
        refused = {one.action for one in told if one.command == command and one.reason == DENIED}
        if refused:
            yield Finding(
                "permissions",
                "error" if command == "create" else "warning",
                f"{principal} may not do what {command} does: {', '.join(sorted(refused))}",
                f"Attach the policies that `hyperpod-eks policy {facts.site.name}` prints.",
                {"principal": principal, "actions": sorted(refused), "command": command},
            )
    for reason in dict.fromkeys(one.reason for one in told if one.reason not in (DENIED, "")):
        actions = sorted({one.action for one in told if one.reason == reason})
        yield Finding(
            "permissions",
            "warning",
            f"could not be checked: {', '.join(actions)}: {reason}",
            f"Compare yours with the policies that `hyperpod-eks policy {facts.site.name}` prints.",
            {"principal": principal, "actions": actions},
        )


AT_ONCE = 16
"""Simulations, as many as a client has connections."""
DENIED = "denied"


@frozen
class Told:
    """What a simulation says of an action: "" for allowed, DENIED, or why nobody knows."""

    command: str
    action: str
    reason: str


@frozen
class Question:
    """What one simulation is asked: actions of one service, on resources of one type.

    AWS refuses mixtures ("Invalid Input Actions: [..] and [..] require different authorization
    information") and says not which actions go together.
    """

    service: str
    condition: Conditions
    wishes: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Command, action, and the resources that it is asked about; none for ``*``."""


def _questions(site: Site) -> list[Question]:
    """Divide the policy's statements by service, type of resource and condition.

    What is allowed under no condition is asked about beside what is: a further key does no harm.
    """
    found: dict[tuple[str, str], dict[str, list[tuple[Statement, str, tuple[str, ...]]]]] = {}
    for row in statements(site):
        for action in row.actions:
            for kind, resources in _asked(action, row.resources):
                by_condition = found.setdefault((action.partition(":")[0], kind), {})
                wish = (row, action, resources)
                by_condition.setdefault(repr(row.condition), []).append(wish)
    for by_condition in found.values():
        if len(by_condition) > 1 and (free := by_condition.pop(repr({}), [])):
            next(iter(by_condition.values())).extend(free)
    return [
        Question(
            service,
            wishes[0][0].condition,
            tuple((row.command, action, resources) for row, action, resources in wishes),
        )
        for (service, _), by_condition in found.items()
        for wishes in by_condition.values()
    ]


def _asked(action: str, patterns: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name what an action is asked about: resources of each type that it needs, or else of one."""
    kinds = authorization.types(action)
    examples = {
        kind: tuple(filter(None, (authorization.example(each, kind) for each in patterns)))
        for kind in kinds
        if "*" not in patterns
    }
    possible = {kind: found for kind, found in examples.items() if found}
    needed = [kind for kind in possible if kinds[kind]] or list(possible)[:1]
    for kind in needed:
        yield kind, possible[kind]
    if not needed:
        yield "", ()


def _told(facts: Facts, principal: str, question: Question) -> list[Told]:
    """Simulate (IAM API SimulatePrincipalPolicy); what AWS does not take together is halved."""
    from hyperpod_eks.aws.exceptions import ClientError  # noqa: PLC0415

    wishes = question.wishes
    actions = sorted({action for _, action, _ in wishes})
    try:
        decided = _decided(facts, principal, question, actions)
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidInput":
            raise
        if len(actions) == 1:
            reason = str(error.response["Error"].get("Message"))
            return [Told(command, action, reason) for command, action, _ in wishes]
        first = set(actions[: len(actions) // 2])
        halves = (
            replace(question, wishes=tuple(w for w in wishes if (w[1] in first) is here))
            for here in (True, False)
        )
        return [one for half in halves for one in _told(facts, principal, half)]
    return [
        Told(command, action, _reason(action, places, decided))
        for command, action, places in wishes
    ]


def _reason(action: str, places: Sequence[str], decided: Mapping[tuple[str, str], str]) -> str:
    """Say what is known of an action; it must be allowed on each of the resources."""
    answers = {
        decided.get((action, place), "AWS's simulation gave no answer")
        for place in places or ("*",)
    }
    denied = DENIED in answers and action in authorization.ON_ITS_ARN
    unsure = "AWS's simulation denies it, and knows no resource of it"
    return unsure if denied else next(iter(sorted(answers - {""})), "")


def _decided(
    facts: Facts, principal: str, question: Question, actions: Sequence[str]
) -> dict[tuple[str, str], str]:
    """Ask one simulation; return "", DENIED or a reason by action and resource."""
    here = "us-east-1" if question.service in ("iam", "route53") else facts.config.region
    context: Any = [
        {
            "ContextKeyName": key,
            "ContextKeyType": "string",
            "ContextKeyValues": [values if isinstance(values, str) else values[0]],
        }
        for comparisons in ({"aws:RequestedRegion": here}, *question.condition.values())
        for key, values in comparisons.items()
    ]
    resources = sorted({each for _, _, several in question.wishes for each in several})
    asked: dict[str, Any] = {"ResourceArns": resources} if resources else {}
    answers = facts.look.all(
        facts.aws.iam,
        "simulate_principal_policy",
        "EvaluationResults",
        PolicySourceArn=principal,
        ActionNames=actions,
        ContextEntries=context,
        **asked,
    )
    return {pair: decision for each in answers for pair, decision in _decisions(each)}


_ABOUT_THE_CALLER = re.compile(r"aws:(?!ResourceTag|RequestTag|TagKeys)")


def _decisions(answer: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """Read one result, by action and resource: of several resources it may hold a list.

    A denial for want of a key that says who asks, when and from where is no answer: the request
    itself has it.  Of the resource's tags and of the request we have given what there will be.
    """

    def read(part: Mapping[str, Any], decision: str) -> str:
        if decision == "allowed":
            return ""
        keys = sorted(part.get("MissingContextValues", ()))
        unknown = ", ".join(each for each in keys if _ABOUT_THE_CALLER.match(each))
        implicit = decision == "implicitDeny" and unknown
        return (
            f"a policy has a condition on {unknown}, which only a real request has"
            if implicit
            else DENIED
        )

    action = answer["EvalActionName"]
    yield (
        (action, answer.get("EvalResourceName", "*")),
        read(answer, answer["EvalDecision"]),
    )
    for each in answer.get("ResourceSpecificResults", ()):
        yield (action, each["EvalResourceName"]), read(each, each["EvalResourceDecision"])


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
        lambda facts: len(facts.missing(Vpc)),
        lambda facts: len(facts.ec2("describe_vpcs", "Vpcs")),
    ),
    Limit(
        "quota-internet-gateways",
        "vpc",
        "Internet gateways per Region",
        lambda facts: len(facts.missing(InternetGateway)),
        lambda facts: len(facts.ec2("describe_internet_gateways", "InternetGateways")),
    ),
    Limit(
        "quota-addresses",
        "ec2",
        "EC2-VPC Elastic IPs",
        lambda facts: len(facts.missing(Address)),
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
    missing = facts.missing(NatGateway)
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
        for group in hyperpod_api.every_group(cluster):
            kind = hyperpod_api.instance_types(group).partition(",")[0]
            spot = "Spot" in group.get("CapacityRequirements", {})
            counter = ours if name == facts.config.name else others
            counter += usage(kind, group.get("TargetCount", 0), spot=spot)
    wanted = Counter[str]()
    for one in facts.config.groups:
        spot = "spot" in (getattr(one, "capacity_requirements", None) or {})
        wanted += usage(one.instance_types[0], one.instance_count, spot=spot)
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


def usage(kind: str, count: int, *, spot: bool) -> Counter[str]:
    """Say what a group uses up of each quota; Spot instances have their own."""
    used = Counter({f"{kind} for cluster {'spot instance ' * spot}usage": count, TOTAL: count})
    return used + Counter({TOTAL_SPOT: count * spot})


def training_plans(facts: Facts) -> Iterator[Finding]:
    """A training plan must be active, of the group's type, in its zone, and large enough."""
    try:
        if facts.site is not None:
            check_plans(facts.site, facts.aws)
    except Usage as error:
        seen = {"setting": error.setting}
        for line in str(error).splitlines():  # one for each plan
            yield Finding("training-plans", "error", line, error.hint, seen)


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
