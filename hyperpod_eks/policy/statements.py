"""The IAM policies that create, status and delete need, joined from all kinds' permissions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal, TypedDict

from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Resource
from hyperpod_eks.resources.permissions import Document, Statement, look
from hyperpod_eks.stack import kinds
from hyperpod_eks.steps import network


class Policy(TypedDict):
    """An IAM policy."""

    Version: Literal["2012-10-17"]
    Statement: list[Document]


LIMIT = 6144
"""Maximum characters of a managed policy, without white space (IAM User Guide, "IAM quotas")."""


def statements(resolved: ResolvedConfig) -> tuple[Statement, ...]:
    """Return the statements that the cluster of this config needs, and no others.

    Resources are limited by name; EC2's have no names, so that existing ones are limited by the
    cluster's tag.  Keys and resource types are those of the Service Authorization Reference.
    """
    declared = tuple(_network(resolved))
    rows: dict[str, Statement] = {}
    for row in chain(_COMMON, *(kind.permissions(resolved, declared) for kind in kinds())):
        rows[row.sid] = _joined(rows[row.sid], row) if row.sid in rows else row
    return tuple(
        replace(row, actions=tuple(sorted(row.actions))) for row in rows.values() if row.resources
    )


def _joined(one: Statement, other: Statement) -> Statement:
    """Join the actions, resources and conditions of two statements with the same id."""
    condition = {
        operator: {
            key: _both(values, other.condition.get(operator, {}).get(key, ()))
            for key, values in keys.items()
        }
        for operator, keys in one.condition.items()
    }
    return replace(
        one,
        actions=tuple(dict.fromkeys((*one.actions, *other.actions))),
        resources=tuple(dict.fromkeys((*one.resources, *other.resources))),
        condition=condition,
    )


def _both(one: str | list[str], other: str | Sequence[str]) -> str | list[str]:
    return one if isinstance(one, str) else list(dict.fromkeys((*one, *other)))


def _network(resolved: ResolvedConfig) -> Iterator[Resource]:
    """Yield the network's resources, including adopted ones."""
    net = network.step(resolved)
    found = [net.vpc, *net.private.values(), *net.nodes.values(), net.control_group, *net.opening]
    for one in (*found, net.security_group, *net.egress):
        yield one
        for name in ("security_groups", "subnets"):
            yield from getattr(one, name, ())
        for name in ("subnet", "address", "target"):
            if part := getattr(one, name, None):
                yield part


def documents(rows: Iterable[Statement]) -> list[Policy]:
    """Return statements, in order, in policies that are within IAM's size limit."""
    found: list[Policy] = []
    for one in (part.document() for row in rows for part in _parts(row)):
        if not found or size(with_one(found[-1], one)) > LIMIT:
            found.append(with_one(_EMPTY, one))
        else:
            found[-1] = with_one(found[-1], one)
    return found


def _parts(row: Statement) -> Iterator[Statement]:
    """Split a statement that is too large for one policy into parts that fit."""
    middle = len(row.resources) // 2
    if not middle or size(with_one(_EMPTY, row.document())) <= LIMIT:
        yield row
        return
    yield from _parts(replace(row, sid=f"{row.sid}A", resources=row.resources[:middle]))
    yield from _parts(replace(row, sid=f"{row.sid}B", resources=row.resources[middle:]))


_EMPTY: Policy = {"Version": "2012-10-17", "Statement": []}


def with_one(document: Policy, statement: Document) -> Policy:
    """Return the policy with a statement added."""
    return {"Version": document["Version"], "Statement": [*document["Statement"], statement]}


def size(document: Policy) -> int:
    """Return the number of characters as IAM counts them, without white space.

    >>> size({"Version": "2012-10-17", "Statement": []})
    39
    """
    return len(json.dumps(document, separators=(",", ":")))


_COMMON = (
    look("ec2", "DescribeInstanceTypeOfferings", "DescribeInstanceTypes"),
    look("iam", "SimulatePrincipalPolicy"),
    look("servicequotas", "ListServiceQuotas"),
)
"""Permissions that belong to no kind: the preflight's reads."""
