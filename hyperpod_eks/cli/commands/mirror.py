"""``hyperpod-eks mirror``: copy the images of the charts to ECR."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log, current_console, say
from hyperpod_eks.cli.documents import called, head
from hyperpod_eks.cli.options import flag
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.opening import Opened
    from hyperpod_eks.cli.schemas.views import Mirror, MirroredImage
    from hyperpod_eks.documents import JsonObject
    from hyperpod_eks.events import Report
    from hyperpod_eks.mirror import Chart, Names


@frozen
class Options(shared.Settings, shared.Cluster):
    """Options of mirror."""

    dry_run: bool = flag("--dry-run", help="List the images; copy and write nothing.")
    helm: str | None = shared.helm()


def mirror(options: Options, report: Report) -> Mirror:
    """Copy the images of the charts to ECR, for networks without internet.

    Finds every image of the HyperPod chart and of further charts, as the config's values have it,
    and those of `test` for groups of two nodes or more with accelerators, which have several GB.
    It copies those that nodes in a closed network cannot pull to ECR repositories of cluster NAME,
    with all their platforms and the same digests.  With -f, it writes the values that name the
    copies to the file, and changes nothing else in it; otherwise it prints them.

    Run it where both the registries and ECR can be reached, before create, and again after a new
    chart or version: it copies what is missing.  Images of add-ons are in ECR already.
    """
    from hyperpod_eks import mirror as mirroring
    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.aws.transport import ca_bundle
    from hyperpod_eks.cli.login import log_in
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.local import UPSTREAM
    from hyperpod_eks.resources.helm_release import Release
    from hyperpod_eks.session import PLAN
    from hyperpod_eks.smoke.images import of_accelerators

    with opened(PLAN, options, report, write=False, files=True, helm=options.helm) as at:
        names, bundle = mirroring.Names.of(at.aws), ca_bundle(at.aws.session)
        releases = [each for each in at.wants if isinstance(each, Release)]
        charts = [mirroring.survey(each, names, bundle) for each in releases]
        rows = _rows(charts, of_accelerators(at.config), names)
        wanted = list(dict.fromkeys(o for row in rows if (o := names.origin(row["image"]))))
        for image in wanted:
            names.repository(image)
        warnings = _warn(charts)
        values = mirroring.settings(charts)
        after = _written(options.file, values)
        if not options.dry_run:
            aws = Aws(log_in(at.config.region, options.profile), at.config.name, at.config.tags)
            aws.lineage = at.aws.lineage
            copied = mirroring.copy(
                aws,
                names,
                wanted,
                lambda image: None if options.quiet else say(f"copied {image.name}"),
                upstream=UPSTREAM if options.local else "",
                most=options.parallelism,
            )
            for row in rows:
                if row["action"] == "copy":
                    done = names.origin(row["image"]) in copied
                    row["action"] = "copied" if done else "present"
            if after is not None:
                _write(str(options.file), after)
        return _document(at, names, rows, values, warnings, options)


def _document(
    at: Opened,
    names: Names,
    rows: list[MirroredImage],
    values: JsonObject,
    warnings: list[str],
    options: Options,
) -> Mirror:
    written = options.file if options.file != "-" and values and not options.dry_run else None
    return {
        **head("mirror"),
        "cluster": {"name": at.config.name},
        "registry": names.registry,
        "images": rows,
        "values": values,
        "file": written,
        "warnings": warnings,
        "next": _next(at.config.name, values, options),
    }


def _next(name: str, values: JsonObject, options: Options) -> str:
    """Return the command that uses the copies: without a file `create` would not see the values."""
    command = f"hyperpod-eks create {called(name, options)}"
    return f"{command} --file FILE" if values and options.file in (None, "-") else command


def _rows(charts: list[Chart], tested: Iterable[str], names: Names) -> list[MirroredImage]:
    users: dict[str, list[str]] = {}
    for user, images in [*((each.setting, each.images) for each in charts), ("test", tested)]:
        for image in images:
            users.setdefault(image, []).append(user)
    rows: list[MirroredImage] = []
    for image, used_by in users.items():
        far = names.origin(image) is not None
        old, new = names.renamed(image) if far else ("", "")
        rows.append(
            {
                "image": image,
                "copy": new + image.removeprefix(old) if far else "",
                "charts": used_by,
                "action": "copy" if far else "reachable",
            }
        )
    return rows


def _warn(charts: list[Chart]) -> list[str]:
    warnings = [
        f"{chart.setting}: no value or template of the chart names {image}: nodes in a closed"
        f" network cannot pull it; {_fix(chart.setting, switch)}"
        for chart in charts
        for image, switch in chart.fixed.items()
    ]
    for each in warnings:
        current_console().warn(each)
    return warnings


def _fix(setting: str, switch: str) -> str:
    if switch:
        return f"unless nodes need it, set {setting}.values {switch}: false"
    return "name the copy in a folder of your own with the chart"


def _written(file: str | None, values: JsonObject) -> bytes | None:
    """Return the content of the config file with the values; None where nothing is written.

    Raises Usage for a file that cannot have them: before anything is copied.
    """
    from hyperpod_eks import files
    from hyperpod_eks.config import yaml
    from hyperpod_eks.config.load import load

    if file in (None, "-") or not values:
        return None
    assert file
    try:
        after = yaml.with_values(file, files.read(Path(file)), values)
    except OSError as error:
        raise Usage(f"{file}: cannot be read: {error.strerror}") from error
    load(yaml.parse(file, after).value, {}, os.environ, files=False)
    return after


def _write(file: str, content: bytes) -> None:
    from hyperpod_eks import files

    try:
        files.replace(Path(file), content)
    except OSError as error:
        raise Usage(f"cannot write the values to {file}: {error.strerror}") from error


def text(document: Mirror) -> str:
    """Return the text of the document: the images, and the values or where they were written."""
    import yaml

    from hyperpod_eks.terminal.formats import table

    rows = [{"action": row["action"], "image": row["image"]} for row in document["images"]]
    lines = [table(rows) if rows else "the charts need no images"]
    if document["file"]:
        lines.append(f"values written to {shlex.quote(document['file'])}")
    elif document["values"]:
        lines += ["Values that name the copies:", ""]
        lines.append(yaml.safe_dump(document["values"], sort_keys=False).rstrip("\n"))
        lines += ["", "To use the copies, write them to the config file of the cluster, and run:"]
        return "\n".join([*lines, f"  {document['next']}"])
    return "\n".join([*lines, f"To use the copies: {document['next']}"])


command = define(
    "mirror",
    Options,
    mirror,
    text,
    """
    hyperpod-eks mirror -f cluster.yaml --dry-run    which images, and from where
    hyperpod-eks mirror -f cluster.yaml
    hyperpod-eks mirror demo -o yaml                 the values, to be written by hand
    """,
    log=Log.KEPT,
)
