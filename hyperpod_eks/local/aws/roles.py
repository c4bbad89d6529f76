"""What a service finds out about an IAM role before it uses it."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.iam.exceptions import NotFoundException
from moto.iam.models import Role, iam_backends

from hyperpod_eks.local.aws.sim import ACCOUNT, current


def find(arn: str) -> Role | None:
    """Return the role with this ARN, path included, once other services see it; else None."""
    if not current().role_visible(arn):
        return None
    roles = iam_backends[ACCOUNT]["aws"].roles.values()
    return next((role for role in roles if role.arn == arn), None)


def trusts(role: Role, service: str) -> bool:
    """Say whether a service (``eks.amazonaws.com``) may assume the role."""
    return any(
        statement.get("Effect") == "Allow"
        and "sts:AssumeRole" in listed(statement.get("Action"))
        and service in listed((statement.get("Principal") or {}).get("Service"))
        for statement in _statements(role.assume_role_policy_document)
    )


def trusts_token(role: Role, issuer: str, subject: str) -> bool:
    """Say whether a pod's token lets it assume the role (sts:AssumeRoleWithWebIdentity).

    ``issuer`` is the URL of the token's issuer, for which IAM must have a provider with the
    audience of STS, and ``subject`` the service account (EKS User Guide, "IAM roles for service
    accounts"; IAM User Guide, "AssumeRoleWithWebIdentity").
    """
    host = issuer.removeprefix("https://")
    arn = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{host}"
    provider = iam_backends[ACCOUNT]["aws"].open_id_providers.get(arn)
    if provider is None or "sts.amazonaws.com" not in provider.client_id_list:
        return False
    context = {f"{host}:aud": "sts.amazonaws.com", f"{host}:sub": subject}
    wish = Wish("sts:AssumeRoleWithWebIdentity", context=context, tags={})
    return any(
        statement.get("Effect") == "Allow"
        and wish.action in listed(statement.get("Action"))
        and arn in listed((statement.get("Principal") or {}).get("Federated"))
        and met(statement, wish)
        for statement in _statements(role.assume_role_policy_document)
    )


def allows(role: Role, action: str, resource: str = "*") -> bool:
    """Say whether the role's policies allow an action; conditions are taken as met.

    ``resource`` is an ARN; the default asks about any resource at all.
    """
    wish = Wish(action, "" if resource == "*" else resource)
    return decide(role, wish).decision == "allowed"


@dataclass(frozen=True)
class Wish:
    """One action on one resource; an empty ``resource`` is one that the request does not tell.

    ``context`` has the condition keys that are known, ``tags`` those of the resource; None where
    they are not known, and an empty mapping where there are none.
    """

    action: str
    resource: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Decision:
    """What IAM says to a wish: ``decision`` as SimulatePrincipalPolicy spells it, and why."""

    decision: str
    why: str = ""
    bounded: bool | None = None
    """Whether the permissions boundary allows it; None where there is none."""


def decide(principal: Any, wish: Wish) -> Decision:
    """Evaluate the policies and the permissions boundary of a role or user.

    A Deny that applies wins over every Allow, and what a boundary does not allow is not allowed
    (IAM User Guide, "Policy evaluation logic", "Permissions boundaries for IAM entities"); the
    words are those of "Troubleshoot access denied error messages".  A condition on a key that is
    not known counts as met in an Allow, and as not met in a Deny: nothing is refused by guesswork.
    """
    kinds = [("an identity-based policy", list(permissions(principal)))]
    if (boundary := _boundary(principal)) is not None:
        kinds.append(("a permissions boundary", boundary))
    bounded = None if boundary is None else _any(boundary, "Allow", wish)
    for kind, statements in kinds:
        if _any(statements, "Deny", wish):
            return Decision("explicitDeny", f"with an explicit deny in {kind}", bounded)
    for kind, statements in kinds:
        if not _any(statements, "Allow", wish):
            no = kind.partition(" ")[2]
            why = f"because no {no} allows the {wish.action} action"
            return Decision("implicitDeny", why, bounded)
    return Decision("allowed", bounded=bounded)


def _boundary(principal: Any) -> list[dict[str, Any]] | None:
    """Return the statements of the permissions boundary, None without one; moto's users have none.

    One that does not exist any more allows nothing.
    """
    arn = getattr(principal, "permissions_boundary_arn", None)
    if not arn:
        return None
    try:
        policy = iam_backends[ACCOUNT]["aws"].get_policy(arn)  # AWS's own are loaded when asked for
    except NotFoundException:
        return []
    return _statements(
        next(v.document for v in policy.versions if v.version_id == policy.default_version_id)
    )


def _any(statements: list[dict[str, Any]], effect: str, wish: Wish) -> bool:
    """Whether a statement of this effect is about a wish."""
    return any(
        each["Effect"] == effect and applies(each, wish) and met(each, wish) for each in statements
    )


def applies(statement: Mapping[str, Any], wish: Wish) -> bool:
    """Whether a statement is about the action and the resource of a wish, conditions aside.

    A resource that is not told is one of an Allow, and of a Deny only if that is for all.
    """

    def acts(patterns: Any) -> bool:
        return any(like(wish.action.lower(), each.lower()) for each in listed(patterns))

    def covers(patterns: Any) -> bool:
        if not wish.resource:
            return statement["Effect"] == "Allow" or "*" in listed(patterns)
        return any(like(wish.resource, each) for each in listed(patterns))

    action = (
        not acts(statement["NotAction"])
        if "NotAction" in statement
        else acts(statement.get("Action"))
    )
    if "NotResource" in statement:
        return action and bool(wish.resource) and not covers(statement["NotResource"])
    return action and covers(statement.get("Resource"))


def met(statement: Mapping[str, Any], wish: Wish) -> bool:
    """Whether all conditions of a statement are met (IAM User Guide, "Condition operators")."""
    unknown = statement["Effect"] == "Allow"
    return all(
        unknown if (value := _value(key, wish)) is None else _compare(operator, value, wanted)
        for operator, comparisons in (statement.get("Condition") or {}).items()
        for key, wanted in comparisons.items()
    )


def _value(key: str, wish: Wish) -> str | None:
    """Return what a condition key is in a request: "" where it is not there, None if unknown."""
    if key in wish.context or wish.tags is None:
        return wish.context.get(key)
    return wish.tags.get(key.partition("ResourceTag/")[2], "")


def _compare(operator: str, value: str, wanted: Any) -> bool:
    """Compare as an operator says; one that is not known here is met by nothing.

    ArnEquals and ArnLike behave alike, and a negated operator is met by a key that is not there
    (IAM User Guide, "Condition operators").
    """
    name = operator.rpartition(":")[2]
    if name == "Null":
        return (value == "") is (str(listed(wanted)[0]).lower() == "true")
    if name.endswith("IfExists"):
        if value == "":
            return True
        name = name.removesuffix("IfExists")
    no = "Not" in name
    kind = name.replace("Not", "")
    one, all_ = value, [str(each) for each in listed(wanted)]
    if kind in ("StringEqualsIgnoreCase", "Bool"):
        one, all_ = one.lower(), [each.lower() for each in all_]
    if kind in ("StringLike", "ArnLike", "ArnEquals"):
        found = any(like(one, pattern) for pattern in all_)
    elif kind in ("StringEquals", "StringEqualsIgnoreCase", "Bool"):
        found = one in all_
    else:
        return False
    return found is not no


def missing(principal: Any, wish: Wish) -> list[str]:
    """Name the condition keys of the policies that a simulation was not told."""
    return sorted(
        {
            key
            for statement in (*permissions(principal), *(_boundary(principal) or ()))
            if applies(statement, wish)
            for comparisons in (statement.get("Condition") or {}).values()
            for key in comparisons
            if key not in wish.context
        }
    )


def permissions(role: Any) -> Iterator[dict[str, Any]]:
    """Yield the statements of a role's or user's own and attached policies."""
    for document in role.policies.values():
        yield from _statements(document)
    for policy in role.managed_policies.values():
        version = next(v for v in policy.versions if v.version_id == policy.default_version_id)
        yield from _statements(version.document)


def _statements(document: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = listed(json.loads(document)["Statement"])
    return found


def listed(value: Any) -> list[Any]:
    """Return what IAM lets stand alone or in a list, as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def like(text: str, pattern: str) -> bool:
    """Say whether a text fits a pattern with * and ?."""
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))
