"""The instance types on which the chart's device plugins and its health agent run.

Nodes of a type that a plugin does not list are Ready but offer pods no GPU or EFA, without an
event or an error.  Two of the lists are chart values, which we extend; only another chart
can change the lists in templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hyperpod_eks.config.lifecycle import find_chart
from hyperpod_eks.documents import Json, JsonObject


def _types(**families: str) -> tuple[str, ...]:
    return tuple(
        f"ml.{family.replace('_', '-')}.{size}xlarge"
        for family, sizes in families.items()
        for size in sizes.split(",")
    )


# The lists of AWS's chart at the pinned commit (2026-06-22): values.yaml, and the templates of
# neuron-device-plugin and health-monitoring-agent.
_P: dict[str, str] = {
    "p4d": "24", "p4de": "24", "p5": "4,48", "p5e": "48", "p5en": "48",
    "p6_b200": "48", "p6_b300": "48", "p6e_gb200": "36",
}  # fmt: skip
_G: dict[str, str] = {
    "g5": ",2,4,8,12,16,24,48", "g6": ",2,4,8,12,16,24,48", "g6e": ",2,4,8,12,16,24,48",
    "g7e": "2,4,8,12,24,48", "gr6": "4,8",
}  # fmt: skip
NVIDIA = _types(**_G, **_P)
EFA = _types(
    c5n="9,18", g5="8,12,16,24,48", g6="8,12,16,24,48", g6e="8,12,16,24,48", g7e="8,12,24,48",
    gr6="8", i3en="12,24", m7i="48", r7i="48", trn1="32", trn1n="32", trn2="3,48", **_P,
)  # fmt: skip
NEURON = _types(inf2=",8,24,48", trn1="2,32", trn1n="32", trn2="48")
AGENT = _types(inf2=",8,24,48", trn1="32", trn1n="32", trn2="3,48", **_G, **_P)

# Types of CreateCluster with EFA that the chart does not list (EC2 User Guide, "Elastic Fabric
# Adapter", read 2026-11-28).
_MORE_EFA = frozenset(_types(c6i="32", m6i="32", r6i="32", g4dn="8,12,16", g7="8,12,24,48"))
_GPU, _NEURON = re.compile(r"ml\.(g|gr|p)\d"), re.compile(r"ml\.(trn|inf)\d")
_AFFINITY = (
    "nvidia-device-plugin", "affinity", "nodeAffinity",
    "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms",
)  # fmt: skip
_INSTANCE_TYPE = "node.kubernetes.io/instance-type"


def values_for(types: Iterable[str], chart: Path | None) -> JsonObject:
    """Return chart values with complete lists that add the types missing from the chart's own.

    Empty if the chart lists all of them.  ``chart`` is the user's chart, or None for AWS's at the
    pinned commit.

    >>> values_for(["ml.g5.xlarge", "ml.m5.xlarge"], None)
    {}
    >>> values_for(["ml.c6i.32xlarge"], None)["aws-efa-k8s-device-plugin"][
    ...     "supportedInstanceLabels"]["values"][-1]
    'ml.c6i.32xlarge'
    """
    kinds = sorted({kind for kind in types if _GPU.match(kind) or kind in _MORE_EFA})
    if not kinds:
        return {}
    gpu, efa = (list(NVIDIA), list(EFA)) if chart is None else _lists(chart)
    values: JsonObject = {}
    if gpu and (more := [kind for kind in kinds if _GPU.match(kind) and kind not in gpu]):
        expression = {"key": _INSTANCE_TYPE, "operator": "In", "values": [*gpu, *more]}
        found: Json = [{"matchExpressions": [expression]}]
        for name in reversed(_AFFINITY):
            found = {name: found}
        values |= found
    if efa and (more := [kind for kind in kinds if kind in _MORE_EFA and kind not in efa]):
        labels = {"supportedInstanceLabels": {"values": [*efa, *more]}}
        values["aws-efa-k8s-device-plugin"] = labels
    return values


def unlisted(types: Iterable[str], chart: Path | None) -> Iterator[str]:
    """Yield a warning for each type that a list in the chart's templates lacks."""
    kinds = sorted(set(types))
    for name, listed, concerns, lost in (
        ("neuron-device-plugin", NEURON, (_NEURON,), "pods on its nodes get no Neuron devices"),
        ("health-monitoring-agent", AGENT, (_GPU, _NEURON), "faults of its nodes are not detected"),
    ):
        text = None if chart is None else _templates(chart, name)
        for kind in kinds:
            known = kind in listed if text is None else not text or kind in text
            if not known and any(each.match(kind) for each in concerns):
                yield f"the template of the chart's {name} does not list {kind}: {lost}"


def _lists(chart: Path) -> tuple[list[str], list[str]]:
    """Return the GPU and EFA lists in a chart's values; empty if not in the form of AWS's."""
    import yaml  # noqa: PLC0415  costs 12 ms

    folder = find_chart(chart)
    file = folder / "values.yaml" if folder else None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time
    values = yaml.load(file.read_bytes(), loader) if file and file.is_file() else None  # noqa: S506  a safe one
    terms = _at(values, *_AFFINITY)
    first = terms[0] if isinstance(terms, list) and len(terms) == 1 else None
    expressions = _at(first, "matchExpressions")
    only = expressions[0] if isinstance(expressions, list) and len(expressions) == 1 else None
    gpu = _at(only, "values") if _at(only, "key") == _INSTANCE_TYPE else None
    efa = _at(values, "aws-efa-k8s-device-plugin", "supportedInstanceLabels", "values")
    return (gpu if isinstance(gpu, list) else []), (efa if isinstance(efa, list) else [])


def _templates(chart: Path, name: str) -> str:
    folder = find_chart(chart)
    files = sorted(folder.glob(f"charts/{name}/templates/*.yaml")) if folder else []
    return "\n".join(file.read_text(errors="replace") for file in files)


def _at(of: Json, *path: str) -> Json:
    for name in path:
        of = of.get(name) if isinstance(of, Mapping) else None
    return of
