"""``hyperpod-eks plan``: show what create would do, and what it costs."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import as_json, head
from hyperpod_eks.errors import Exit, Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.runs import Plan, PlanAction, PlanRow
    from hyperpod_eks.engine.plan import Planned
    from hyperpod_eks.events import Report
    from hyperpod_eks.resources.compare import Observation


@frozen
class Options(shared.Settings, shared.Cluster):
    """Options of plan."""

    replace_failed: bool = shared.replace_failed()
    detailed_exitcode: bool = shared.detailed_exitcode()


def plan(options: Options, report: Report) -> Plan:
    """Show what create would do, and what it costs.

    Lists every resource of cluster NAME with an action: create, change (with the fields that
    differ), replace, delete, keep, adopt, wait, refuse (create would stop here).  Changes
    nothing.
    """
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.engine import plan as plans
    from hyperpod_eks.engine.decide import CHANGING
    from hyperpod_eks.helm.program import refusal
    from hyperpod_eks.session import PLAN
    from hyperpod_eks.workers import start

    with opened(PLAN, options, report, write=False, files=True) as at:
        at.context.replace_failed = options.replace_failed
        listed = start(partial(plans.listed, at.wants, at.context.aws))
        helm = start(refusal) if at.lacks_releases else None
        rows, observations = plans.plan(at.wants, at.context)
        version = plans.version_of(observations, at.resolved.kubernetes_version)
        counts = Counter(str(row.decision.action) for row in rows)
        return {
            **head("plan", _code(counts) if options.detailed_exitcode else Exit.OK),
            "ok": not counts["refuse"],
            "changes": any(counts[action] for action in CHANGING),
            "cluster": {"name": at.resolved.name},
            "account": at.resolved.identity.account,
            "region": at.resolved.region,
            "kubernetes_version": version,
            "counts": dict(counts),
            "resources": [_row(row) for row in rows],
            "critical_path": [
                {"key": key, "seconds": seconds}
                for key, seconds in plans.critical_path(at.wants, rows, at.manifest.durations)
            ],
            "cost": plans.cost(
                at.wants,
                listed.result(),
                at.resolved.region,
                extended=version in at.resolved.extended_support,
            ),
            "warnings": [
                *at.warn(),
                *_unproven(observations),
                *_refused(helm.result() if helm else None),
            ],
            "next": _next(options, counts),
        }


def _code(counts: Counter[str]) -> Exit:
    from hyperpod_eks.engine.decide import CHANGING

    if counts["refuse"]:
        return Exit.FOREIGN
    return Exit.CHANGES if any(counts[action] for action in CHANGING) else Exit.OK


def _row(row: Planned) -> PlanRow:
    return {
        "key": row.key,
        "action": cast("PlanAction", str(row.decision.action)),  # mypy: a StrEnum is not a Literal
        "id": row.id,
        "why": row.decision.why,
        "differs": {
            name: [as_json(is_), as_json(declared)]
            for name, (is_, declared) in row.decision.differs.items()
        },
    }


def _unproven(observations: Sequence[Observation]) -> list[str]:
    """Warn of fields that AWS describes otherwise than declared; return the warnings."""
    from hyperpod_eks.engine import unproven

    lines = [line for observation in observations for line in unproven(observation)]
    for line in lines:
        current_console().warn(line)
    return lines


def _refused(error: Usage | None) -> list[str]:
    """Warn of the error with which create would end at once; return the warnings."""
    lines = [f"create would stop: {error}. {error.hint}"] if error else []
    for line in lines:
        current_console().warn(line)
    return lines


def _next(options: Options, counts: Counter[str]) -> str:
    """Return the create command that executes the plan; "" if it has nothing to do."""
    from hyperpod_eks.engine.decide import CHANGING

    if not any(counts[action] for action in (*CHANGING, "wait", "refuse")):
        return ""
    words = ["hyperpod-eks", "create", *filter(None, [options.name])]
    for flag, value in (
        ("--file", options.file),
        ("--region", options.region),
        ("--profile", options.profile),
        ("--manifest", options.manifest),
        ("--kubernetes-version", options.kubernetes_version),
        ("--chart", options.chart),
        ("--lifecycle", options.lifecycle),
    ):
        words += [flag, str(value)] if value else []
    words += ["--local"] if options.local else []
    words += ["--replace-failed"] if options.replace_failed else []
    return shlex.join(words)


def text(document: Plan) -> str:
    """Return the plan as text."""
    import shutil

    from hyperpod_eks.terminal.plan import render
    from hyperpod_eks.terminal.text import speaks_utf8, wants_colour

    return render(
        document,
        shutil.get_terminal_size((1000, 24)).columns,  # nothing is broken in a pipe
        wants_colour(sys.stdout, os.environ),
        utf8=speaks_utf8(sys.stdout),
    )


command = define(
    "plan",
    Options,
    plan,
    text,
    """
    hyperpod-eks plan -f cluster.yaml
    hyperpod-eks plan demo --detailed-exitcode     exits 5 if there are changes
    hyperpod-eks plan demo -o json --query "resources[?action=='change'].key"
    """,
    log=Log.IF_IT_FAILS,
)
