"""The settings of Helm charts: HyperPod's and further ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue

from hyperpod_eks.config.chart_checks import NODES, is_folder
from hyperpod_eks.config.rules import Pattern
from hyperpod_eks.config.section import Section

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
RELEASE_NAME = Pattern(
    "the name of a Helm release",
    "at most 53 lowercase letters, digits and hyphens, and not hyperpod-dependencies or nodes",
    rf"(?!(?:hyperpod-dependencies|{NODES})$)(?=.{{1,53}}$){_LABEL}",
    "choose one like kuberay-operator",
)

Image = Annotated[
    str,
    Pattern(
        "the name of an image",
        "as its pull names it, without a tag and a digest",
        r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*",
        "write one like public.ecr.aws/neuron/neuron-device-plugin",
    ),
]
IMAGES = Field(
    description="Images that templates of the chart name themselves, so that no value can, each"
    " with the image in its place; tags stay. `mirror` writes them."
)
VALUES = Field(
    description="Values that override the chart's own. `${env:NAME}` in a text is the value of that"
    " variable, which helm gets and the manifest does not."
)


class Chart(Section):
    """The HyperPod Helm chart that is installed before the nodes come."""

    path: Annotated[
        Path | None,
        Field(
            strict=False,
            description="Folder of the chart, relative to the file. Without it: the chart that"
            " the tool knows.",
        ),
    ] = None
    values: Annotated[Mapping[str, JsonValue], VALUES] = {}
    images: Annotated[Mapping[Image, Image], IMAGES] = {}


class FurtherChart(Section):
    """A further Helm chart, by the name of its release."""

    chart: Annotated[
        str,
        Field(
            description="The chart: its name in `repository`, an OCI reference"
            " (`oci://REGISTRY/CHART`, read with Docker's logins), or a folder, relative to the"
            " file."
        ),
    ]
    repository: Annotated[
        str | None,
        Field(
            description="URL of the Helm repository that has it. One that asks for a password"
            " cannot be used."
        ),
    ] = None
    version: Annotated[
        Annotated[
            str,
            Pattern(
                "a version of a chart",
                "an exact one, like 1.2.3; ranges would install something else next week",
                r"v?[0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?",
                "list them with `helm search repo --versions`",
            ),
        ]
        | None,
        Field(description="Its exact version; required unless it is a folder, which has one."),
    ] = None
    namespace: Annotated[
        Annotated[
            str,
            Pattern(
                "a namespace",
                "at most 63 lowercase letters, digits and hyphens",
                rf"(?=.{{1,63}}$){_LABEL}",
                "choose one like ray-system",
            ),
        ]
        | None,
        Field(
            description="Namespace of the release, which is created if it is missing and never"
            " deleted. Without it: one with the name of the release."
        ),
    ] = None
    values: Annotated[Mapping[str, JsonValue], VALUES] = {}
    images: Annotated[Mapping[Image, Image], IMAGES] = {}
    after: Annotated[
        tuple[str, ...],
        Field(
            strict=False,
            description="What has to be ready before it is installed: names in `charts` and"
            " `addons`, and `nodes`. A release is ready once helm has installed it; its pods are"
            " not awaited.",
        ),
    ] = ()

    @property
    def folder(self) -> Path | None:
        """The folder of the chart; None for one that is downloaded."""
        return Path(self.chart) if is_folder(self.chart, self.repository) else None
