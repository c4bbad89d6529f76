"""What whoever creates and deletes a kind of resource must be allowed to do.

Keys and resource types are those of the Service Authorization Reference.
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
    """A statement as IAM writes it."""

    Sid: str
    Effect: Literal["Allow"]
    Action: list[str]
    Resource: str | list[str]
    Condition: NotRequired[JsonObject]


@frozen
class Statement:
    """One statement of a policy, and the command that cannot do without it.

    Statements with one ``sid`` are one: their actions are joined.  ``command`` is the first of
    create, delete that uses it; ``status`` reads what create reads.
    """

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)
    condition: Conditions = field(default_factory=dict)
    command: str = "create"

    def document(self) -> Document:
        """Return the statement as IAM writes it."""
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
"""What one kind needs."""


def actions(service: str, *names: str) -> tuple[str, ...]:
    """Spell actions of a service.

    >>> actions("s3", "CreateBucket")
    ('s3:CreateBucket',)
    """
    return tuple(f"{service}:{name}" for name in names)


def look(service: str, *names: str) -> Statement:
    """Allow reads that know no resource, or that answer for whole regions."""
    return Statement("Look", actions(service, *names))


def forgotten(service: str, *names: str) -> Statement:
    """Allow what finds things with our tags that neither config nor manifest names."""
    return Statement("Forgotten", actions(service, *names), command="delete")


def tagged(resolved: ResolvedConfig) -> Conditions:
    """What carries the cluster's tag."""
    return {"StringEquals": {f"aws:ResourceTag/{CLUSTER}": resolved.name}}
