"""The rules of further Helm charts: where each comes from, its version, and what it follows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config.rules import Finding
from hyperpod_eks.documents import JsonMapping, JsonObject

if TYPE_CHECKING:
    from hyperpod_eks.config.charts import FurtherChart
    from hyperpod_eks.config.model import Config

NODES = "nodes"
"""The word in ``after`` for the nodes of the cluster."""
OCI = "oci://"


def is_folder(chart: str, repository: object) -> bool:
    """Whether the setting ``chart`` names a folder."""
    return not repository and "://" not in chart


def chart_folders(config: JsonMapping) -> dict[str, JsonObject]:
    """Return those of ``charts``, in a config that may be invalid, whose chart is a folder."""
    charts, found = config.get("charts"), {}
    for name, each in charts.items() if isinstance(charts, dict) else ():
        chart = each.get("chart") if isinstance(each, dict) else None
        if chart and isinstance(chart, str) and is_folder(chart, each.get("repository")):
            found[name] = each
    return found


def charts(config: Config) -> Iterator[Finding]:
    """Check each chart: where it comes from, its version, and what it follows."""
    for name, each in config.charts.items():
        for setting, text in _source(each):
            yield Finding(("charts", name, setting), text)
        known = {*config.charts, *config.every_addon(), NODES} - {name}
        for index, other in enumerate(each.after):
            if other not in known:
                near = model.nearest(other, tuple(sorted(known)))
                fix = f"did you mean {near[0]}?" if near else "name one of charts or addons"
                text = f"{model.show(other)} is no other chart, no add-on and not {NODES}; {fix}"
                yield Finding(("charts", name, "after", index), text)
        if circle := _circle(config.charts, name):
            text = f"waits for itself ({' after '.join(circle)}); remove one of these"
            yield Finding(("charts", name, "after"), text)


def _source(each: FurtherChart) -> Iterator[tuple[str, str]]:
    """Yield setting and fault; a URL is not shown if it may have a password."""
    if not each.chart:
        yield "chart", "is empty; set a name, a folder or oci://REGISTRY/CHART"
    elif each.chart.startswith(OCI):
        if each.repository is not None:
            yield "repository", "is for a chart's name; remove it: chart is an OCI reference"
        if not re.fullmatch(r"oci://[A-Za-z0-9.-]+(?::[0-9]+)?(?:/[a-z0-9._-]+)+", each.chart):
            text = (
                "is not an OCI reference without user, tag and digest; write oci://REGISTRY/CHART"
            )
            yield "chart", f"{text}, and the tag as version"
    elif each.repository is not None:
        yield from _in_repository(each.chart, each.repository)
    elif "://" in each.chart:
        yield (
            "chart",
            "is a URL; set that of the repository as repository, and the chart's name as chart",
        )
    if each.folder is None and each.version is None:
        yield "version", "is missing (a chart that is downloaded needs an exact one); write it"
    if each.folder is not None and each.version is not None:
        yield "version", "is for a chart that is downloaded; remove it: Chart.yaml has one"


def _in_repository(chart: str, repository: str) -> Iterator[tuple[str, str]]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", chart):
        yield "chart", f"{model.show(chart)} is not the name of a chart in a repository; correct it"
    try:
        url = urlsplit(repository)
        plain = url.scheme in ("http", "https") and url.hostname and "@" not in url.netloc
    except ValueError:
        plain = False
    if not plain or not repository.isprintable() or " " in repository:
        text = "is not a URL of https or http without user and password"
        yield "repository", f"{text}; write one like https://charts.example.org"


def _circle(charts: Mapping[str, FurtherChart], start: str) -> list[str]:
    """Return the names from a chart back to itself, if it follows itself; else []."""
    todo, seen = [[start]], set[str]()
    while todo:
        path = todo.pop()
        for other in charts[path[-1]].after:
            if other == start and len(path) > 1:
                return [*path, start]
            if other in charts and other not in (start, *seen):
                seen.add(other)
                todo.append([*path, other])
    return []
