"""What a service finds out about an IAM role before it uses it."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from typing import Any

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


def allows(role: Role, action: str, resource: str = "*") -> bool:
    """Say whether the role's policies allow an action; conditions are taken as met.

    ``resource`` is an ARN; the default asks about any resource at all.
    """
    allowed = False
    for statement in permissions(role):
        if not any(like(action.lower(), a.lower()) for a in listed(statement.get("Action"))):
            continue
        resources = listed(statement.get("Resource"))
        if resource != "*" and not any(like(resource, pattern) for pattern in resources):
            continue
        if statement["Effect"] == "Allow":
            allowed = True
        elif "Condition" not in statement:
            return False
    return allowed


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
