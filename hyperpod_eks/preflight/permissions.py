"""Check the caller's permissions by simulation."""

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
    """The caller must have every permission of the policy, by IAM's simulation of each action."""
    if facts.resolved is None:
        return
    principal = access_entry.caller(facts.snapshot)
    questions = _questions(facts.resolved)
    answers: list[Told] = []
    workers.for_each(lambda one: answers.extend(_told(facts, principal, one)), questions, AT_ONCE)
    policy = facts.command("policy")
    yield from _denied(answers, principal, policy)
    yield from _unknown(answers, principal, policy)


def _denied(answers: Sequence[Told], principal: str, policy: str) -> Iterator[Finding]:
    for command in ("create", "delete"):
        refused = {one.action for one in answers if one.command == command and one.reason == DENIED}
        if refused:
            yield Finding(
                "permissions",
                "error" if command == "create" else "warning",
                f"{principal} lacks permissions that {command} needs: {', '.join(sorted(refused))}",
                f"Attach the policies that `{policy}` prints.",
                {"principal": principal, "actions": sorted(refused), "command": command},
            )


def _unknown(answers: Sequence[Told], principal: str, policy: str) -> Iterator[Finding]:
    for reason in dict.fromkeys(one.reason for one in answers if one.reason not in (DENIED, "")):
        actions = sorted({one.action for one in answers if one.reason == reason})
        yield Finding(
            "permissions",
            "warning",
            f"could not be checked: {', '.join(actions)}: {reason}",
            f"Compare yours with the policies that `{policy}` prints.",
            {"principal": principal, "actions": actions},
        )


AT_ONCE = 16
"""Number of concurrent simulations: the number of connections of a client."""
DENIED = "denied"


@frozen
class Told:
    """The result for an action; ``reason`` is "" for allowed, DENIED, or why it is unknown."""

    command: str
    action: str
    reason: str


@frozen
class Question:
    """One simulation: actions of one service, on resources of one type.

    AWS refuses mixtures ("Invalid Input Actions: [..] and [..] require different authorization
    information") and does not document which actions can be combined.
    """

    service: str
    condition: Conditions
    wishes: tuple[tuple[str, str, tuple[str, ...]], ...]
    """For each action: the command that needs it, the action, and resource ARNs; () for ``*``."""


def _questions(resolved: ResolvedConfig) -> list[Question]:
    """Divide the policy's statements by service, resource type and condition.

    Actions without a condition join a question with one: an additional context key is harmless.
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
    """Yield the resource types to simulate, each with ARNs: all required ones, else one."""
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
    """Simulate (IAM API SimulatePrincipalPolicy); halve a mixture that AWS refuses."""
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
    """Return `Told.reason` of an action, which must be allowed on each of the resources."""
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
    """Run one simulation; return `Told.reason` by action and resource."""
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
    """Return the context keys of a request."""
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
    """Yield `Told.reason` by action and resource: a result may have a list of resources.

    A denial because of a missing key about the caller, time or place is not a result: a real
    request has that key.  The keys about tags are in the context that we pass.
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
