"""The rules of roles for pods: statements of policies, and what excludes what."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config.rules import Finding
from hyperpod_eks.documents import JsonMapping

if TYPE_CHECKING:
    from hyperpod_eks.config.model import Config

_STATEMENT = ("Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition")

_ELEMENTS = {
    "Action": (r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+", "like s3:GetObject, or *"),
    "Resource": (r"\*|arn:.+", "an ARN, or *"),
}
"""By element of a statement: the form of its values, as pattern and in words."""


def statement_fault(statement: JsonMapping) -> str:
    """Refuse what is not a statement of an identity-based policy (IAM User Guide, "Grammar")."""
    if unknown := [name for name in statement if name not in _STATEMENT]:
        text = f"has {', '.join(unknown)} (a role's statement has {', '.join(_STATEMENT)})"
        return f"{text}; remove it"
    if statement.get("Effect") not in ("Allow", "Deny"):
        return "has no Effect (each statement has one); set Effect: Allow"
    for one, (pattern, form) in _ELEMENTS.items():
        names = [name for name in (one, f"Not{one}") if name in statement]
        if len(names) != 1:
            found = f"both {one} and" if names else f"neither {one} nor"
            return f"has {found} Not{one} (each statement has one of them); set {one}"
        value = statement[names[0]]
        for each in value if isinstance(value, list) and value else [value]:
            if not (isinstance(each, str) and re.fullmatch(pattern, each)):
                return f"has {names[0]} {model.show(each)} (it is {form}); correct it"
    if not isinstance(statement.get("Condition", {}), Mapping):
        return "has a Condition that is not a mapping; write {StringEquals: {key: value}}"
    return ""


POLICY_SIZE = 6144
"""Maximum characters of a managed policy, without white space (IAM User Guide, "IAM quotas")."""


def pods(config: Config) -> Iterator[Finding]:
    """A service account has one role: an existing one, or one that is created."""
    seen = set()
    for index, each in enumerate(config.pod_identity):
        loc = ("pod_identity", index)
        account = (each.namespace, each.service_account)
        if all(account) and account in seen:
            text = f"{model.show(each.service_account)} has a role already in {each.namespace}"
            yield Finding((*loc, "service_account"), f"{text} (one each); keep one")
        seen.add(account)
        ours = [name for name in ("policies", "statements") if getattr(each, name)]
        if each.role_arn and ours:
            text = f"is given beside {ours[0]} (those are for a role that is created); keep one"
            yield Finding((*loc, "role_arn"), text, True)
        if each.role_arn is None and not ours:
            text = "names no permissions (the role would allow nothing)"
            yield Finding(loc, f"{text}; set role_arn, policies or statements")
        for place, arn in enumerate(each.policies):
            if arn in each.policies[:place]:
                text = f"{model.show(arn)} is listed already; keep one"
                yield Finding((*loc, "policies", place), text)
        size = len(json.dumps([*map(dict, each.statements)], separators=(",", ":"), default=str))
        if size > POLICY_SIZE - 39:
            text = f"have {size} characters (a policy of IAM has at most {POLICY_SIZE})"
            yield Finding((*loc, "statements"), f"{text}; use fewer, or policies", True)
