"""``hyperpod-eks diagram``: draw a cluster as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.documents import head
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.views import Diagram
    from hyperpod_eks.events import Report
    from hyperpod_eks.picture import Picture


@frozen
class Options(shared.Settings, shared.Cluster):
    """Options of diagram."""

    roles: bool = shared.flag("--roles", help="Draw the IAM roles too.")


def diagram(options: Options, report: Report) -> Diagram:
    """Draw cluster NAME as SVG.

    Without -f it draws what the manifest has, and does not call AWS.  With -f it draws what the
    config declares, as plan does.  Needs the extra `report`.
    """
    from hyperpod_eks import picture

    picture.program()
    drawing = _declared(options, report) if options.file else _recorded(options)
    text = drawing.text(roles=options.roles)
    return {
        **head("diagram"),
        "cluster": {"name": drawing.cluster},
        "d2": text,
        "svg": picture.drawn(text),
    }


def _recorded(options: Options) -> Picture:
    from hyperpod_eks import picture
    from hyperpod_eks.cli.remembered import remembered

    manifest = remembered(options)
    return picture.Picture(picture.recorded(manifest), manifest.cluster, manifest.region)


def _declared(options: Options, report: Report) -> Picture:
    from hyperpod_eks import picture
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.session import PLAN

    with opened(PLAN, options, report, write=False, files=True) as at:
        parts = picture.declared(at.wants, at.resolved.adopted)
        return picture.Picture(parts, at.resolved.name, at.resolved.region)


def text(document: Diagram) -> str:
    """Return the SVG."""
    return document["svg"]


command = define(
    "diagram",
    Options,
    diagram,
    text,
    """
    hyperpod-eks diagram demo > demo.svg
    hyperpod-eks diagram -f cluster.yaml > plan.svg      before the cluster exists
    """,
)
