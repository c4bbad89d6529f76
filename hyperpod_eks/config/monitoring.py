"""The settings of metrics and logs."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from hyperpod_eks.config.rules import Pattern
from hyperpod_eks.config.section import Section

Monitoring = Literal["cloudwatch", "prometheus"]
Metrics = Literal[
    "training",
    "inference",
    "task_governance",
    "scaling",
    "custom",
    "node",
    "accelerated_compute",
    "network",
]
Level = Literal["BASIC", "ADVANCED", "DISABLED"]


class Prometheus(Section):
    """The metrics that the add-on of HyperPod writes to a workspace."""

    workspace_arn: Annotated[
        Annotated[
            str,
            Pattern(
                "the ARN of a workspace",
                "arn:aws:aps:<region>:<account>:workspace/<id>",
                r"arn:aws[a-z-]*:aps:[a-z0-9-]+:[0-9]{12}:workspace/[A-Za-z0-9_.-]+",
                "print it with `aws amp list-workspaces`",
            ),
        ]
        | None,
        Field(
            description="An existing workspace of Amazon Managed Service for Prometheus. Without"
            " it: one is created, and kept with its metrics by `delete`."
        ),
    ] = None
    levels: Annotated[
        Mapping[Metrics, Level],
        Field(description="How much is measured. Without it: the add-on's own levels."),
    ] = {}
