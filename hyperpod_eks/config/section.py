"""The base class of all sections of the config, and shared types."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hyperpod_eks.config import cross_checks as checks
from hyperpod_eks.config.rules import Check, Pattern

# The settings that also have a flag and a variable.
SETTINGS = {
    "name": ("NAME", "HYPERPOD_EKS_NAME"),
    "region": ("--region", "HYPERPOD_EKS_REGION"),
    "eks.version": ("--kubernetes-version", "HYPERPOD_EKS_KUBERNETES_VERSION"),
    "chart.path": ("--chart", "HYPERPOD_EKS_CHART"),
    "lifecycle.path": ("--lifecycle", "HYPERPOD_EKS_LIFECYCLE"),
}
GROUP = "CreateCluster.InstanceGroups."
RESTRICTED = "CreateCluster.RestrictedInstanceGroups."
ZoneId = Annotated[
    str,
    Pattern(
        "an availability zone id",
        "like usw2-az1; ids mean the same place in every account, names do not",
        r"[a-z]{3,4}[0-9]+-az[0-9]+",
        "list them with `aws ec2 describe-availability-zones`, column ZoneId",
    ),
]
ZoneIds = tuple[ZoneId, ...]
Cidrs = tuple[Annotated[str, Check("IPv4 block", checks.block_fault)], ...]
Key = Annotated[
    Annotated[
        str,
        Pattern(
            "the ARN of a KMS key",
            "not an alias: keys are compared by ARN",
            r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+",
            "print it with `aws kms describe-key`",
        ),
    ]
    | None,
    Field(),
]


def id_pattern(kind: str, prefix: str) -> Pattern:
    """Return the pattern for ids of an EC2 resource with a prefix (``vpc``)."""
    return Pattern(
        f"the id of {kind}",
        f"{prefix}- and 8 or 17 hexadecimal digits",
        rf"{prefix}-(?:[0-9a-f]{{8}}|[0-9a-f]{{17}})",
        "copy it from the console or the AWS CLI",
    )


class Section(BaseModel):
    """A section of the config: frozen, strict, without unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        defer_build=True,  # Config's validator contains those of its sections: saves 25 ms
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, given: object) -> object:
        """Read a key without a value (``coredns:``) as the defaults."""
        return {} if given is None else given
