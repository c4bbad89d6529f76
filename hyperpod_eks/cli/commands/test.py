"""``hyperpod-eks test``: examine whether a cluster works."""

from __future__ import annotations

import math
import shutil
import textwrap
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log, say
from hyperpod_eks.cli.documents import called, head
from hyperpod_eks.cli.options import option
from hyperpod_eks.errors import Exit, NotFound
from hyperpod_eks.frozen import frozen
from hyperpod_eks.terminal.text import clean

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.cli.schemas.runs import Test, TestCheck, TestFinding
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.events import Report
    from hyperpod_eks.smoke.inputs import Facts, Finding
    from hyperpod_eks.smoke.run import Result


@frozen
class Options(shared.Wait, shared.Cluster):
    """Options of test."""

    level: tuple[int, ...] = option(
        "--level",
        multiple=True,
        type=click.IntRange(1, 4),
        metavar="N",
        help="Run this level only; can be repeated.  [default: 1, 2, 3]",
    )
    image: str | None = option(
        "--image",
        metavar="IMAGE",
        help="Image with Python for level 2.  [default: one of the region's EKS registry]",
    )
    accelerator_image: str | None = option(
        "--accelerator-image",
        metavar="IMAGE",
        help="Image with nccl-tests or nccom-test for level 3.  [default: the copy of mirror, or"
        " AWS's image]",
    )
    yes: bool = shared.yes()


def test(options: Options, report: Report) -> Test:
    """Test whether cluster NAME works.

    Runs cheap checks first, and stops after the first level with a finding.  Level 1 reads nodes,
    devices, plugins, agents and add-ons.  Level 2 runs a pod on each instance group: image,
    DNS, AWS, roles, file systems, logs and exec.  Level 3 measures an all-reduce between two nodes
    of each group with accelerators, which must be free.  Level 4 starts HyperPod's deep health
    checks, which last hours and continue if the command is stopped; it runs only with --level 4.

    Under task governance, its jobs use the queue with the largest quota for a group's nodes.  test
    deletes what it creates; after a kill, the next test, create or delete does that.  Exits 11 if
    something does not work.
    """
    from hyperpod_eks.cli import opening
    from hyperpod_eks.cli.commands.nodes import CHECKED
    from hyperpod_eks.cli.confirm import confirm
    from hyperpod_eks.cli.explain import explaining
    from hyperpod_eks.cli.settings import entered, settings
    from hyperpod_eks.cli.signals import stoppable
    from hyperpod_eks.smoke.deep import accelerated
    from hyperpod_eks.smoke.run import USUAL

    levels = sorted(set(options.level or USUAL))
    with settings(options, write=True, files=False) as (declared, manifest):
        opening.refuse_variables(options, manifest, manifest.config)
        aws = entered(declared, options.profile, write=4 in levels)
        aws.adopted = manifest.adopted
        config = opening.current(options, aws, manifest, declared, report)
        known = opening.declared(options, manifest) or config is not declared
        cluster = called(config.name, options)
        with explaining(aws, config, cluster, collect=False):
            facts = described_facts(aws, config, options, known=known)
            image, accelerator_image = options.image or facts.image, options.accelerator_image or ""
            facts = replace(
                facts, image=image, accelerator_image=accelerator_image, manifest=manifest
            )
            if 4 in levels and accelerated(facts):
                what = f"deep health checks of all nodes with accelerators: {CHECKED}"
                confirm(what, "Continue?", yes=options.yes)
            with stoppable(_raise):
                return examine(facts, levels, options)


def _raise(stop: BaseException) -> None:
    raise stop


def described_facts(
    aws: Aws, config: Config, place: Options | shared.Change, *, known: bool
) -> Facts:
    """Describe the cluster.  Raises NotFound without one, and without an EKS cluster.

    ``known`` is whether ``config`` is the one that it was declared with.
    """
    from functools import partial

    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.lookup import described
    from hyperpod_eks.mirror import copy_of
    from hyperpod_eks.resources import eks
    from hyperpod_eks.smoke import images
    from hyperpod_eks.smoke.inputs import Facts

    snapshot, name = Snapshot(aws), config.name
    found = described(snapshot, name, place)
    control = aws.adopted.get("eks/cluster") or name
    access = eks.access(snapshot, control)
    if access is None:
        raise NotFound(f"EKS cluster {control} does not exist in {config.region}")
    deadline = time.monotonic() + place.timeout if place.timeout else math.inf
    return Facts(
        snapshot,
        name,
        control,
        access,
        found,
        config if known else None,
        image=images.usual(config.region),
        copy_of=partial(copy_of, aws),
        deadline=deadline,
    )


def examine(facts: Facts, levels: Collection[int], place: Options | shared.Change) -> Test:
    """Run the checks of some levels; say on stderr which one begins; return the document."""
    from hyperpod_eks.smoke.inputs import LEVELS
    from hyperpod_eks.smoke.run import run

    def begin(level: int) -> None:
        if not place.quiet:
            say(f"level {level}: {LEVELS[level]}")

    return _document(facts, run(facts, levels, begin), called(facts.name, place))


def _document(facts: Facts, results: list[Result], cluster: str) -> Test:
    """Return the document, hyperpod-eks/test/v1; ``cluster`` is as `called` returns it."""
    identity = facts.snapshot.aws.identity
    failed = any(each.findings for each in results)
    return {
        **head("test", Exit.NOT_WORKING if failed else Exit.OK),
        "cluster": {"name": facts.name},
        "account": identity.account,
        "region": identity.region,
        "levels": sorted({each.check.level for each in results}),
        "checks": [_row(facts, each, cluster) for each in results],
    }


def _row(facts: Facts, result: Result, cluster: str) -> TestCheck:
    return {
        "id": result.check.id,
        "level": result.check.level,
        "looks_at": result.check.looks_at,
        "status": result.status,
        "why": result.skipped,
        "measured": [{"about": one.about, "says": one.says} for one in result.measured],
        "findings": [_finding(facts, result, one, cluster) for one in result.findings],
    }


def _finding(facts: Facts, result: Result, one: Finding, cluster: str) -> TestFinding:
    """Explain a finding: by what AWS or a pod says, else by the cause that the check knows."""
    from hyperpod_eks.diagnosis.diagnose import Evidence, diagnose
    from hyperpod_eks.errors import KnownCause

    names = {"cluster": cluster, "name": facts.name, "eks": facts.eks_name}
    names |= {"region": facts.snapshot.aws.identity.region}
    names |= {"again": f"hyperpod-eks create {cluster}"}
    group = {"group": one.about.partition("/")[0]}
    cause = one.cause or KnownCause(result.check.cause)
    cause = KnownCause(cause.id, {**group, **cause.values})
    said = [Evidence(f"test {result.check.id}", one.says, one.about)]
    known = [Evidence(f"test {result.check.id}", one.says, one.about, cause)]
    first = (diagnose(said, names) or diagnose(known, names))[0]
    return {
        "about": one.about,
        "says": one.says,
        "cause": first.id,
        "explanation": first.cause,
        "next": first.next,
    }


NARROW = 60
"""Columns of a terminal below which what a check looks at is left out."""


def text(document: Test) -> str:
    """Return the text of the document: a line per check, and the findings with their causes.

    Commands are not broken into lines, so that they can be copied.
    """
    columns = shutil.get_terminal_size((1000, 24)).columns
    rows = document["checks"]
    width = max(len(row["id"]) for row in rows)
    heads = ["LEVEL", f"{'CHECK':<{width}}", "STATUS ", "LOOKS AT"]
    wide = columns >= NARROW
    lines = ["  ".join(heads if wide else heads[:3]).rstrip()]
    for row in rows:
        about = f"  {row['looks_at']}" if wide else ""
        line = f"{row['level']:<5}  {row['id']:<{width}}  {row['status']:<7}{about}".rstrip()
        notes = [f"{each['about']}: {each['says']}" for each in row["measured"]]
        if why := row["why"]:
            fits = wide and len(line) + len(why) + 3 <= columns
            line, notes = (f"{line} ({why})", notes) if fits else (line, [why, *notes])
        lines += [line, *(each for note in notes for each in _wrapped(note, 7, columns))]
    lines += [line for row in rows for line in _explained(row, columns)]
    return "\n".join([*lines, f"{document['cluster']['name']} {_verdict(rows)}"])


def _verdict(rows: list[TestCheck]) -> str:
    """Return what the checks say of a cluster; without any that ran, that it was not tested."""
    statuses = {row["status"] for row in rows}
    if "failed" in statuses:
        return "does not work"
    return "works" if "passed" in statuses else "was not tested: every check was skipped"


def _explained(row: TestCheck, columns: int) -> Iterator[str]:
    """Yield the findings of a check; those with the same words, and the same cause, together."""
    causes: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for one in row["findings"]:
        said = causes.setdefault((one["cause"], one["explanation"], one["next"]), {})
        said.setdefault(one["says"], []).append(one["about"])
    for (cause, explanation, following), said in causes.items():
        for says, abouts in said.items():
            first, *more = _wrapped(f"{row['id']}: {', '.join(abouts)}: {says}", 2, columns)
            yield from (first.removeprefix("  "), *more)
        first, *more = _wrapped(f"{explanation} ({cause})", 9, columns)
        yield from (f"  cause: {first.strip()}", *more)
        yield f"  next:  {following}"
        yield f"  more:  hyperpod-eks explain {cause}"


def _wrapped(text: str, indent: int, columns: int) -> list[str]:
    return textwrap.wrap(
        clean(text),
        max(columns, indent + 20),
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


command = define(
    "test",
    Options,
    test,
    text,
    """
    hyperpod-eks test demo
    hyperpod-eks test -f cluster.yaml --level 1 -o json
    hyperpod-eks test demo --level 4 --yes
    """,
    log=Log.KEPT,
)
