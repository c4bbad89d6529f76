"""IAM statements: what creating and deleting each kind of resource requires.

Condition keys and resource types are those of the Service Authorization Reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

from hyperpod_eks.aws.tags import CLUSTER
from hyperpod_eks.documents import JsonObject
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.resolve.resolved import ResolvedConfig

Conditions = Mapping[str, Mapping[str, str | list[str]]]


class Document(TypedDict):
    """A statement of an IAM policy document."""

    Sid: str
    Effect: Literal["Allow"]
    Action: list[str]
    Resource: str | list[str]
    Condition: NotRequired[JsonObject]


@frozen
class Statement:
    """One statement of a policy, and the first command that requires it.

    Statements with the same ``sid`` are joined into one.  ``command`` is the first of create and
    delete that uses it; ``status`` uses the reads of create.
    """

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)
    condition: Conditions = field(default_factory=dict)
    command: str = "create"

    def document(self) -> Document:
        """Return the statement for a policy document."""
        one = self.resources[0] if len(self.resources) == 1 else list(self.resources)
        document: Document = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": list(self.actions),
            "Resource": one,
        }
        if self.condition:
            document["Condition"] = dict(self.condition)
        return document


Statements = Iterable[Statement]
"""The statements of one kind."""


def actions(service: str, *names: str) -> tuple[str, ...]:
    """Return the IAM names of a service's actions.

    >>> actions("s3", "CreateBucket")
    ('s3:CreateBucket',)
    """
    return tuple(f"{service}:{name}" for name in names)


def look(service: str, *names: str) -> Statement:
    """Allow reads that support no resource ARNs, or that list whole regions."""
    return Statement("Look", actions(service, *names))


def forgotten(service: str, *names: str) -> Statement:
    """Allow the reads that find tagged resources missing from both config and manifest."""
    return Statement("Forgotten", actions(service, *names), command="delete")


def tagged(resolved: ResolvedConfig) -> Conditions:
    """The condition for resources with the cluster's tag."""
    return {"StringEquals": {f"aws:ResourceTag/{CLUSTER}": resolved.name}}
