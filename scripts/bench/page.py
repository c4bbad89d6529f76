"""The page about speed: tables and a picture of what was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("wall", "without helm", "cpu", "memory", "calls", "writes", "rounds", "idle")
COLOURS = {
    "hyperpod-eks": "#0b7285",
    "hyperpod-eks, state in S3": "#3bc9db",
    "sequential boto3": "#868e96",
    "AWS CLI": "#ced4da",
}
BEGIN, END = "<!-- measured -->", "<!-- end -->"


@dataclass(frozen=True)
class Goal:
    """A figure that shall be ``limit`` at most; None where it could not be measured."""

    what: str
    limit: float
    figure: float | None
    unit: str = ""

    @property
    def verdict(self) -> str:
        """Whether it is so."""
        if self.figure is None:
            return "not measured"
        return "met" if self.figure <= self.limit else "MISSED"

    def row(self) -> tuple[str, ...]:
        """What a table shows."""
        figure = "" if self.figure is None else f"{number(self.figure)} {self.unit}".strip()
        return (self.what, f"{number(self.limit)} {self.unit}".strip(), figure, self.verdict)


def number(value: float) -> str:
    """Three digits are all that a noisy machine can tell."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, aligned so that it reads well in a terminal too."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def tables(found: Mapping[str, Any], goals: Sequence[Goal], paths: Mapping[str, int]) -> str:
    """Everything as Markdown: the goals first."""
    head: Sequence[str]
    parts = [table(("goal", "at most", "measured", ""), [goal.row() for goal in goals])]
    if "lives" in found:
        parts += ["### A life at 40 ms per call", _lives(found["lives"])]
    if "tls" in found:
        parts += ["### The same through TLS", _lives(found["tls"]["lives"])]
    if "slow" in found:
        rows = [
            [
                tool,
                phase,
                number(about["wall"]),
                number(about["wall"] / paths[phase]),
                number(max(about["gaps"].values())),
                number(about["calls"]),
                number(about["cpu"]),
            ]
            for tool, phases in found["slow"].items()
            for phase, about in phases.items()
        ]
        head = ("tool", "phase", "wall s", "÷ critical path", "longest gap s", "calls", "CPU s")
        parts += ["### The slow simulation", table(head, rows)]
    starts = {
        **found.get("starts", {}),
        **{f"{what}, TLS": about for what, about in found.get("tls", {}).get("starts", {}).items()},
    }
    if starts:
        rows = [
            [what, f"{about['wall']:.2f}", number(about["cpu"]), number(about["memory"])]
            for what, about in starts.items()
        ]
        parts += ["### Starting", table(("command", "wall s", "CPU s", "MiB"), rows)]
    if "scale" in found:
        rows = [
            [
                f"{int(nodes):,}",
                number(about["wall"]),
                number(about["cpu"]),
                number(about["memory"]),
                number(about["calls"]),
                number(about["lists"]),
            ]
            for nodes, about in found["scale"].items()
        ]
        head = ("nodes", "wall s", "CPU s", "MiB", "calls", "of these ListClusterNodes")
        parts += ["### Status of large clusters", table(head, rows)]
    return "\n\n".join(parts)


def _lives(lives: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [*what.split(": "), *(number(about[c]) for c in COLUMNS)]
        for what, about in sorted(lives.items(), key=lambda x: _order(x[0]))
    ]
    head = ("tool", "phase", "wall s", "without helm s", "CPU s", "MiB", *COLUMNS[4:7], "idle s")
    return table(head, rows)


def _order(what: str) -> tuple[int, int]:
    tool, phase = what.split(": ")
    return ("create", "no-op", "status", "delete").index(phase), [*COLOURS].index(tool)


def write(docs: Path, found: Mapping[str, Any], goals: Sequence[Goal], paths: Any) -> None:
    """Put the tables between the marks of docs/performance.md and draw the picture."""
    page = docs / "performance.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    aws = f", {found['aws']}" if found["aws"] else ""
    where = (
        f"{machine()}, load average {found['load']:.1f} when it began, "
        f"Python {platform.python_version()}{aws}, {found['date']}."
    )
    middle = f"\n{where}\n\n{tables(found, goals, paths)}\n"
    page.write_text(f"{before}{BEGIN}{middle}{END}{after}")
    if "lives" in found:
        (docs / "images").mkdir(exist_ok=True)
        (docs / "images" / "performance.svg").write_text(picture(found["lives"]))


def machine() -> str:
    """Say what kind of machine this is."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores ({cpu}, shared)"


def picture(lives: Mapping[str, Mapping[str, float]]) -> str:
    """Bars of the wall time, each phase relative to the sequential script."""
    width, bar, left = 760, 18, 150
    lines, y = [], 44
    for phase in ("create", "no-op", "delete"):
        lines.append(f'<text x="16" y="{y + 13}" class="p">{phase}</text>')
        rows = [(t, lives[f"{t}: {phase}"]["wall"]) for t in COLOURS if f"{t}: {phase}" in lives]
        longest = max(wall for _, wall in rows)
        for tool, wall in rows:
            length = max(2.0, (width - left - 170) * wall / longest)
            lines.append(
                f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" rx="3" '
                f'fill="{COLOURS[tool]}"/><text x="{left + length + 8:.1f}" y="{y + 13}">'
                f"{tool}, {number(wall)} s</text>"
            )
            y += bar + 5
        y += 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" role="img" '
        'aria-label="Wall time of create, no-op create and delete">'
        "<style>text{font:13px system-ui,sans-serif;fill:#495057}.p{font-weight:600}"
        "@media (prefers-color-scheme:dark){text{fill:#ced4da}}</style>"
        f'<text x="16" y="24">Wall time at 40 ms per call, nothing to wait for but calls</text>'
        f"{''.join(lines)}</svg>\n"
    )
