"""Charts in Helm repositories and OCI registries."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hyperpod_eks.aws import transport
from hyperpod_eks.errors import HyperpodError, KnownCause
from hyperpod_eks.frozen import frozen
from hyperpod_eks.helm.program import Helm
from hyperpod_eks.helm.runner import client_with, finish


@frozen
class Remote:
    """One version of a chart: its name in a repository, or an ``oci://`` reference.

    Helm reads registries with the logins of Docker's ``config.json``, and repositories without
    credentials (https://helm.sh/docs/topics/registries/).
    """

    chart: str
    repository: str
    """URL of the repository; empty for an OCI reference."""
    version: str

    def __str__(self) -> str:
        where = f" from {self.repository}" if self.repository else ""
        return f"{self.chart} {self.version}{where}"

    def pull(self, helm: Helm, into: Path, setting: str) -> Path:
        """Download and unpack it in the folder ``into``; return the chart's folder.

        ``setting`` names it in the config.  Raises HyperpodError with helm's message.
        """
        command = ["pull", self.chart, "--version", self.version, "--untar", "--destination", into]
        if self.repository:
            command += ["--repo", self.repository]
        with tempfile.TemporaryDirectory(prefix="hyperpod-eks-") as home:
            network = transport.environment(helm.bundle)
            try:
                finish(client_with(helm, Path(home), None, network)._command.run(command))
            except HyperpodError as error:  # one that heals, too: nobody waits for a download
                raise self._not_pulled(str(error), setting) from error
        for found in into.glob("*/Chart.yaml"):
            return found.parent
        raise self._not_pulled("the archive has no Chart.yaml", setting)

    def _not_pulled(self, why: str, setting: str) -> HyperpodError:
        return HyperpodError(
            f"{setting}: {self} cannot be downloaded: {why}",
            "Correct the chart's name, its version and its repository. Without a connection to"
            f" them, set {setting} to a folder that has the chart.",
            setting=setting,
            cause=KnownCause("chart-not-fetched"),
        )
