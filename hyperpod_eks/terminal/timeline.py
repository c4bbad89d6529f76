"""A finished run as an SVG: a bar for each resource, from its first change to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from hyperpod_eks import files
from hyperpod_eks.errors import Usage
from hyperpod_eks.events import Event, EventType, Report

DONE = frozenset({EventType.READY, EventType.GONE, EventType.FAILED, EventType.KEPT})
COLOURS = {
    "iam": "#5c7cfa",
    "network": "#0b7285",
    "s3": "#2b8a3e",
    "eks": "#e67700",
    "addons": "#862e9c",
    "helm": "#1864ab",
    "hyperpod": "#c2255c",
}
ROW, LEFT, WIDTH, TOP = 20, 250, 640, 46


@dataclass
class Span:
    """One resource's part of a run, in seconds since the run's start; no ``end`` if unfinished."""

    begin: float
    end: float | None = None
    failed: bool = False


@dataclass
class Timeline:
    """A `Report` that records when each resource began to change and when it was done."""

    tell: Report
    now: Callable[[], float] = time.monotonic
    spans: dict[str, Span] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = self.now()

    def __call__(self, event: Event) -> None:
        """Record the event and pass it on."""
        at = self.now() - self._began
        if event.what in DONE:
            if span := self.spans.get(event.key):
                span.end, span.failed = at, event.what is EventType.FAILED
        elif event.what is not EventType.PENDING and event.key not in self.spans:
            self.spans[event.key] = Span(at)
        self.tell(event)

    def picture(self, title: str) -> str:
        """Return an SVG with a bar for each resource that the run changed or waited for."""
        return picture(title, self.spans, self.now() - self._began)


@contextmanager
def drawing(path: Path, title: str, tell: Report, warn: Callable[[str], None]) -> Iterator[Report]:
    """Yield a `Report` that passes events to ``tell``; write the picture when the run ends.

    Raises Usage if the folder does not exist, or if the path is not a regular file.  An error while
    writing the picture becomes a warning.
    """
    _check_writable(path)
    timeline = Timeline(tell)
    try:
        yield timeline
    finally:
        try:
            files.replace(path, timeline.picture(title).encode())
        except (OSError, Usage) as error:
            warn(f"--timeline: cannot write {path}: {getattr(error, 'strerror', None) or error}")


def _check_writable(path: Path) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise Usage(f"--timeline: folder {folder} does not exist", "Create it first.")
    try:
        files.resolved(path)
    except OSError as error:
        raise Usage(f"--timeline: cannot write {path}: {error.strerror}") from error


def picture(title: str, spans: Mapping[str, Span], seconds: float) -> str:
    """Return an SVG of the spans of a run of ``seconds``; unfinished spans reach to its end."""
    scale = WIDTH / max(seconds, 0.001)
    height = TOP + ROW * max(len(spans), 1) + 34
    parts = [f'<text x="12" y="24" class="t">{escape(title)}, {_words(seconds)}</text>']
    for mark in _marks(seconds):
        x = LEFT + mark * scale
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height - 26}" class="g"/>'
            f'<text x="{x:.1f}" y="{height - 10}" class="m">{_words(mark)}</text>'
        )
    in_time = sorted(spans.items(), key=lambda item: item[1].begin)
    parts += [
        _bar(TOP + row * ROW, key, span, seconds, scale) for row, (key, span) in enumerate(in_time)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 40} {height}" '
        f'role="img" aria-label="{escape(title)}: what ran when">'
        "<style>text{font:12px system-ui,sans-serif;fill:#495057}.t{font-size:15px;"
        "font-weight:600}.k{text-anchor:end}.m{text-anchor:middle}.g{stroke:#adb5bd;"
        "stroke-width:.5}@media(prefers-color-scheme:dark){text{fill:#ced4da}}</style>"
        f"{''.join(parts)}</svg>\n"
    )


def _bar(y: int, key: str, span: Span, seconds: float, scale: float) -> str:
    """Return the SVG of the name and the bar of one resource."""
    end = seconds if span.end is None else span.end
    colour = "#e03131" if span.failed else COLOURS.get(key.partition("/")[0], "#868e96")
    took = _words(end - span.begin)
    return (
        f'<text x="{LEFT - 8}" y="{y + 12}" class="k">{escape(key)}</text>'
        f'<rect x="{LEFT + span.begin * scale:.1f}" y="{y + 2}" height="{ROW - 7}" rx="2" '
        f'width="{max((end - span.begin) * scale, 1.5):.1f}" fill="{colour}">'
        f"<title>{escape(key)}: {took}</title></rect>"
    )


def _marks(seconds: float) -> Iterator[float]:
    """Yield the times of the scale in seconds: about eight round numbers.

    >>> list(_marks(10))
    [0, 2, 4, 6, 8, 10]
    """
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
    step = next((each for each in steps if seconds / each <= 8), 7200)
    yield from (number * step for number in range(int(seconds / step) + 1))


def _words(seconds: float) -> str:
    """Return a duration in seconds as text.

    >>> _words(3.21), _words(725)
    ('3.2 s', '12 min 5 s')
    """
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 and seconds % 1 == 0 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"
