"""The HTML page of a report, from its document and the pictures of the cluster."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import Usage
from hyperpod_eks.programs import WITH_PICTURES
from hyperpod_eks.terminal.plan import price
from hyperpod_eks.terminal.status import tone, well
from hyperpod_eks.terminal.text import clean, elapsed

if TYPE_CHECKING:
    from jinja2 import Template

MARK = '<meta name="generator" content="hyperpod-eks'
"""What every report has near its begin."""
NODES = 100
"""Maximum nodes to list, those with a problem first."""


def template() -> Template:
    """Return the template of the page.  Raises Usage without the extra `report`."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  of an extra
    except ImportError:
        raise Usage(
            "the package jinja2, which writes the page, is missing", WITH_PICTURES
        ) from None
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=PackageLoader("hyperpod_eks.report", ""),
    )
    environment.filters |= {
        "tone": tone,
        "elapsed": elapsed,
        "usd": usd,
        "width": width,
        "moment": moment,
    }
    return environment.get_template("page.html")


def page(made: Template, document: JsonMapping, wide: str, narrow: str) -> str:
    """Return the page.  ``document`` is ``hyperpod-eks/report/v1`` without secrets.

    Its texts are data of others: control characters are removed, and the template escapes them.
    The pictures are SVG of `picture`; ``narrow`` is for phones.
    """
    about = each_text(document, clean)
    nodes = sorted(about["nodes"], key=well)
    groups = [
        {**group, "cost": about["cost"]["groups"].get(group["name"])}
        for group in about["instance_groups"]
    ]
    return made.render(
        about,
        price=price(about["cost"]),
        groups=groups,
        listed=nodes[:NODES],
        more=len(nodes) - NODES,
        wide=wide,
        narrow=narrow,
        mark=MARK,
    )


def each_text(value: Json, change: Callable[[str], str]) -> Json:
    """Change every text in a document, names of members too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(str(key)): each_text(each, change) for key, each in value.items()}
    return [each_text(each, change) for each in value] if isinstance(value, list) else value


def usd(cost: JsonMapping | None, member: str) -> str:
    """Return a price of an instance group.

    >>> usd({"usd_per_hour": 1.5, "complete": False}, "usd_per_hour")
    'at least 1.50'
    """
    if cost is None:
        return "-"
    words = f"{cost[member]:,.{0 if 'month' in member else 2}f}"
    return words if cost["complete"] else f"at least {words}"


def moment(text: str) -> str:
    """Return a time of a document for people.

    >>> moment("2026-11-30T04:00:35Z")
    '2026-11-30 04:00 UTC'
    """
    return f"{text[:16].replace('T', ' ')} UTC"


def width(svg: str) -> str:
    """Return the width of a picture in pixels.

    >>> width('<svg viewBox="0 0 657 1083">')
    '657'
    """
    found = re.search(r'viewBox="\S+ \S+ (\d+)', svg)
    return found[1] if found else "1200"
