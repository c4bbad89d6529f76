"""What the caller may do, by simulation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hyperpod_eks import workers
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.policy import authorization
from hyperpod_eks.policy.statements import statements
from hyperpod_eks.preflight.inputs import Facts, Finding
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources import access_entry
from hyperpod_eks.resources.permissions import Conditions, Statement


def permissions(facts: Facts) -> Iterator[Finding]:
    """Every action of the policy is simulated, on the resources and conditions it names."""
    if facts.resolved is None:
        return
    principal = access_entry.caller(facts.snapshot)
    questions = _questions(facts.resolved)
    told: list[Told] = []
    workers.for_each(lambda one: told.extend(_told(facts, principal, one)), questions, AT_ONCE)
    yield from _denied(told, principal, facts.resolved.name)
    yield from _unknown(told, principal, facts.resolved.name)


def _denied(told: Sequence[Told], principal: str, name: str) -> Iterator[Finding]:
    for command in ("create", "delete"):
        refused = {one.action for one in told if one.command == command and one.reason == DENIED}
        if refused:
            yield Finding(
                "permissions",
                "error" if command == "create" else "warning",
                f"{principal} lacks permissions that {command} needs: {', '.join(sorted(refused))}",
                f"Attach the policies that `hyperpod-eks policy {name}` prints.",
                {"principal": principal, "actions": sorted(refused), "command": command},
            )


def _unknown(told: Sequence[Told], principal: str, name: str) -> Iterator[Finding]:
    for reason in dict.fromkeys(one.reason for one in told if one.reason not in (DENIED, "")):
        actions = sorted({one.action for one in told if one.reason == reason})
        yield Finding(
            "permissions",
            "warning",
            f"could not be checked: {', '.join(actions)}: {reason}",
            f"Compare yours with the policies that `hyperpod-eks policy {name}` prints.",
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


def _questions(resolved: ResolvedConfig) -> list[Question]:
    """Divide the policy's statements by service, type of resource and condition.

    What is allowed under no condition is asked about beside what is: a further key does no harm.
    """
    found: dict[tuple[str, str], dict[str, list[tuple[Statement, str, tuple[str, ...]]]]] = {}
    for row in statements(resolved):
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
        decided.get((action, place), "the IAM simulation gave no answer")
        for place in places or ("*",)
    }
    denied = DENIED in answers and action in authorization.ON_ITS_ARN
    unsure = "the IAM simulation denies it, but it cannot simulate a resource for this action"
    return unsure if denied else next(iter(sorted(answers - {""})), "")


def _decided(
    facts: Facts, principal: str, question: Question, actions: Sequence[str]
) -> dict[tuple[str, str], str]:
    """Ask one simulation; return "", DENIED or a reason by action and resource."""
    resources = sorted({each for _, _, several in question.wishes for each in several})
    asked: JsonObject = {"ResourceArns": resources} if resources else {}
    answers = facts.snapshot.all(
        facts.aws.iam,
        "simulate_principal_policy",
        "EvaluationResults",
        PolicySourceArn=principal,
        ActionNames=actions,
        ContextEntries=_context(question, facts.config.region),
        **asked,
    )
    return {pair: decision for each in answers for pair, decision in _decisions(each)}


def _context(question: Question, region: str) -> Json:
    """Return what a request would have beside its resources."""
    here = "us-east-1" if question.service in ("iam", "route53") else region
    return [
        {
            "ContextKeyName": key,
            "ContextKeyType": "string",
            "ContextKeyValues": [values if isinstance(values, str) else values[0]],
        }
        for comparisons in ({"aws:RequestedRegion": here}, *question.condition.values())
        for key, values in comparisons.items()
    ]


_ABOUT_THE_CALLER = re.compile(r"aws:(?!ResourceTag|RequestTag|TagKeys)")


def _decisions(answer: JsonMapping) -> Iterator[tuple[tuple[str, str], str]]:
    """Read one result, by action and resource: of several resources it may hold a list.

    A denial for want of a key that says who asks, when and from where is no answer: the request
    itself has it.  Of the resource's tags and of the request we have given what there will be.
    """

    action = answer["EvalActionName"]
    yield (
        (action, answer.get("EvalResourceName", "*")),
        _verdict(answer, answer["EvalDecision"]),
    )
    for each in answer.get("ResourceSpecificResults", ()):
        yield (action, each["EvalResourceName"]), _verdict(each, each["EvalResourceDecision"])


def _verdict(part: JsonMapping, decision: str) -> str:
    if decision == "allowed":
        return ""
    keys = sorted(part.get("MissingContextValues", ()))
    unknown = ", ".join(each for each in keys if _ABOUT_THE_CALLER.match(each))
    if decision == "implicitDeny" and unknown:
        return f"a policy has a condition on {unknown}, which only a real request has"
    return DENIED
