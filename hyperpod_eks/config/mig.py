"""The rules of MIG: which GPUs can be divided, into what, and what divides them.

Sources: SageMaker developer guide, "Using GPU partitions in Amazon SageMaker HyperPod"; the
profiles of each type: github.com/aws/sagemaker-hyperpod-cli,
sagemaker/hyperpod/training/constants.py, 2026-11.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config.rules import Finding, get

if TYPE_CHECKING:
    from hyperpod_eks.config.model import Config

LABEL = "nvidia.com/mig.config"
_80 = "1g.10gb 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb"
_141 = "1g.18gb 1g.35gb 2g.35gb 3g.71gb 4g.71gb 7g.141gb"
PROFILES = {
    "ml.p4d.24xlarge": "1g.5gb 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb",
    "ml.p4de.24xlarge": _80,
    "ml.p5.48xlarge": _80,
    "ml.p5e.48xlarge": _141,
    "ml.p5en.48xlarge": _141,
    "ml.p6-b200.48xlarge": "1g.23gb 1g.45gb 2g.45gb 3g.90gb 4g.90gb 7g.180gb",
    "ml.p6-b300.48xlarge": "1g.34gb 1g.67gb 2g.67gb 3g.135gb 4g.135gb 7g.269gb",
    "ml.p6e-gb200.36xlarge": "1g.23gb 1g.47gb 2g.47gb 3g.93gb 4g.93gb 7g.186gb",
}
"""The profiles into which a GPU of a type is divided."""
_WHOLE = re.compile(r"(?!p6|p5|p4)(?:g\d\w*|p[23]\w*|inf\d|trn\d\w*|[acdhimrtxz]\w*)")
"""Families of types, of which none has MIG; a newer one than the table knows may have it."""


def mig(config: Config) -> Iterator[Finding]:
    """A group with the label of MIG has GPUs for it, and an operator that reads the label."""
    operator = get(get(config.chart.values, "gpu-operator"), "enabled") is True
    theirs = config.charts or config.existing.helm_release or config.existing.eks_cluster
    for index, group in enumerate(config.instance_groups):
        wanted = get(get(group.kubernetes_config, "labels"), LABEL)
        if not isinstance(wanted, str):
            continue
        loc = ("instance_groups", index, "kubernetes_config")
        if not (operator or theirs) and wanted != "all-disabled":
            text = f"has the label {LABEL}, and nothing reads it (GPUs stay whole); set"
            values = "gpu-operator: {enabled: true}, nvidia-device-plugin: {devicePlugin: {enabled:"
            yield Finding(loc, f"{text} chart.values: {{{values} false}}}}}}")
        for kind in group.instance_types:
            if fault := _misfit(kind, wanted):
                yield Finding(loc, f"has the label {LABEL}: {model.show(wanted)}, and {fault}")


def _misfit(kind: str, wanted: str) -> str:
    """Return why GPUs of a type cannot be divided so, with the fix; "" if they can."""
    if _WHOLE.match(kind.removeprefix("ml.")):
        fix = f"remove the label, or choose one of {', '.join(PROFILES)}"
        return f"{kind} has no GPU with MIG; {fix}"
    profile = wanted.removeprefix("all-")
    known = PROFILES.get(kind, "").split()
    if known and re.fullmatch(r"all-\d+g\.\d+gb", wanted) and profile not in known:
        return f"{kind} has no such profile; choose one of {', '.join(f'all-{x}' for x in known)}"
    return ""
