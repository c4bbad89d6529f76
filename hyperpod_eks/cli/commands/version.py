"""``hyperpod-eks version``: print the versions that a bug report needs."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from hyperpod_eks import __version__
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import Output as Options

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.views import Version
    from hyperpod_eks.events import Report

PACKAGES = ("boto3", "botocore", "click", "kubernetes", "pydantic", "pyhelm3", "rich")
"""The packages whose versions are printed."""


def version(options: Options, report: Report) -> Version:
    """Print the version of hyperpod-eks and its packages."""
    from importlib import metadata

    return {
        **head("version"),
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def text(document: Version) -> str:
    """Return the versions, one in each line."""
    lines = [f"hyperpod-eks {document['version']}", f"Python {document['python']}"]
    lines += [f"{name} {number}" for name, number in document["packages"].items()]
    return "\n".join([*lines, document["platform"]])


command = define(
    "version",
    Options,
    version,
    text,
    """
    hyperpod-eks version
    hyperpod-eks version -o json
    """,
)
