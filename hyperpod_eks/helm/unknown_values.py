"""Values that a chart does not know: Helm takes them, and nothing happens."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.helm.chart import merge, parsed


def unknown(chart: Path, values: JsonMapping) -> Iterator[str]:
    """Yield the paths of values that are not in the chart's own ``values.yaml``.

    Below a dependency that is not in the folder, and below an empty default (``nodeSelector: {}``),
    every value may be known.
    """
    yield from _strangers(values, _defaults(chart), "", {*_elsewhere(chart, "")})


def _dependencies(chart: Path) -> dict[str, Path | None]:
    """Return the folders of the dependencies by the names of their values, None without one."""
    present = {parsed(each).get("name"): each.parent for each in chart.glob("charts/*/Chart.yaml")}
    found = parsed(chart / "Chart.yaml").get("dependencies") or ()
    return {each.get("alias") or each["name"]: present.get(each["name"]) for each in found}


def _elsewhere(chart: Path, at: str) -> Iterator[str]:
    """Yield the paths of the values of dependencies that are not in the folder."""
    for name, folder in _dependencies(chart).items():
        if folder is None:
            yield f"{at}{name}"
        else:
            yield from _elsewhere(folder, f"{at}{name}.")


def _defaults(chart: Path) -> JsonObject:
    """Return a chart's values with those of the dependencies in its folder, as Helm merges them."""
    file = chart / "values.yaml"
    below = {name: _defaults(x) for name, x in _dependencies(chart).items() if x is not None}
    return merge(below, parsed(file) if file.is_file() else {})


def _strangers(
    values: JsonMapping, defaults: JsonMapping, at: str, elsewhere: Container[str]
) -> Iterator[str]:
    for key, value in values.items():
        place = f"{at}{key}"
        if key == "global" or place in elsewhere:
            continue
        if key not in defaults:
            yield place
        elif isinstance(value, Mapping) and isinstance(defaults[key], Mapping) and defaults[key]:
            yield from _strangers(value, defaults[key], f"{place}.", elsewhere)
