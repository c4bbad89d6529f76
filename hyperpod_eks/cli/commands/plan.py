"""``hyperpod-eks plan``: what create would do, and what it costs, before it is done."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hyperpod_eks.cli.console import current_console
from hyperpod_eks.cli.documents import Document, as_json, head
from hyperpod_eks.cli.opening import opened
from hyperpod_eks.engine import plan as plans
from hyperpod_eks.engine import unproven
from hyperpod_eks.engine.decide import CHANGING
from hyperpod_eks.errors import Exit
from hyperpod_eks.events import Report
from hyperpod_eks.resources.compare import Observation
from hyperpod_eks.terminal.plan import render
from hyperpod_eks.terminal.text import speaks_utf8, wants_colour


def plan(tell: Report, replace_failed: bool, detailed_exitcode: bool, **given: Any) -> Document:
    """Look at everything and tell what create would do: ``hyperpod-eks/plan/v1``."""
    with opened("plan", given, tell, write=False, files=True) as at:
        at.context.replace_failed = replace_failed
        rows, observations = plans.plan(at.wants, at.context)
        version = plans.version_of(observations, at.resolved.kubernetes_version)
        cost = plans.costs(at.wants, plans.support_of(at.context.aws, version))
        counts = Counter(str(row.decision.action) for row in rows)
        changes = any(counts[action] for action in CHANGING)
        code = Exit.OK
        if detailed_exitcode:
            code = Exit.FOREIGN if counts["refuse"] else Exit.CHANGES if changes else Exit.OK
        return head("plan", code) | {
            "ok": not counts["refuse"],
            "changes": changes,
            "cluster": {"name": at.resolved.name},
            "account": at.resolved.identity.account,
            "region": at.resolved.region,
            "kubernetes_version": version,
            "counts": dict(counts),
            "resources": [
                {
                    "key": row.key,
                    "action": row.decision.action,
                    "id": row.id,
                    "why": row.decision.why,
                    "differs": {
                        name: [as_json(is_), as_json(shall_be)]
                        for name, (is_, shall_be) in row.decision.differs.items()
                    },
                }
                for row in rows
            ],
            "critical_path": [
                {"key": key, "seconds": seconds}
                for key, seconds in plans.critical_path(at.wants, rows, at.manifest.durations)
            ],
            "cost": cost,
            "warnings": [*at.warn(), *_unproven(observations)],
            "next": _next(given, replace_failed, counts),
        }


def _unproven(observations: Sequence[Observation]) -> list[str]:
    """Tell what AWS describes in a way of its own."""
    lines = [line for observation in observations for line in unproven(observation)]
    for line in lines:
        current_console().warn(line)
    return lines


def _next(given: Mapping[str, Any], replace_failed: bool, counts: Counter[str]) -> str:
    """Spell the create that does it; nothing where there is nothing to do."""
    if not any(counts[action] for action in (*CHANGING, "wait", "refuse")):
        return ""
    words = ["hyperpod-eks", "create", *([given["name"]] if given["name"] else [])]
    for name in (
        "file",
        "region",
        "profile",
        "manifest",
        "kubernetes_version",
        "chart",
        "lifecycle",
    ):
        if given.get(name):
            words += [f"--{name.replace('_', '-')}", str(given[name])]
    words += ["--local"] if given["local"] else []
    words += ["--replace-failed"] if replace_failed else []
    return shlex.join(words)


def text(document: Document) -> str:
    """Write the plan for people."""
    return render(
        document,
        shutil.get_terminal_size((100, 24)).columns,
        wants_colour(sys.stdout, os.environ),
        utf8=speaks_utf8(sys.stdout),
    )
