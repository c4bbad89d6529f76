"""Show the progress of a run: its events as a live picture, or as lines."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO, cast

from hyperpod_eks.events import Event, EventType, Report, steps_of
from hyperpod_eks.terminal.status import render_status
from hyperpod_eks.terminal.text import (
    STYLES,
    Line,
    Piece,
    asciify,
    cells,
    clean,
    crop,
    cut,
    elapsed,
    leading,
    middle,
    pad,
    speaks_utf8,
    wants_colour,
    wrap,
)

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

__all__ = ["choose", "elapsed", "live", "plain", "render_status", "wants_colour"]

Clock = Callable[[], float]
"""A function that returns seconds since the epoch."""

BESIDE = 20
"""Columns for a message beside a name; with less, it is below."""
HEARTBEAT = 30.0
"""Seconds between two lines about a wait without news."""

_DONE = (EventType.READY, EventType.GONE, EventType.KEPT)
_IDLE = (EventType.PENDING, *_DONE, EventType.FAILED)
_TERSE = (EventType.PENDING, EventType.READY, EventType.GONE)  # shown without details
_PAST = {
    EventType.CREATING: "created",
    EventType.UPDATING: "updated",
    EventType.DELETING: "deleted",
}
_SYMBOL = {
    EventType.PENDING: ("·", "quiet"),
    EventType.READY: ("✔", "good"),
    EventType.GONE: ("-", "good"),
    EventType.KEPT: ("↷", "warn"),
    EventType.FAILED: ("✘", "bad"),
}
_FRAMES = "⠋⠙⠸⠴⠦⠇"
_ASCII_FRAMES = "|/-\\"
_ERASE = "\r\x1b[2K"


@dataclass(eq=False, repr=False)
class Item:
    """The progress of one resource."""

    name: str
    what: EventType = EventType.PENDING
    id: str = ""
    why: str = ""
    usual: str = ""  # the usual duration, from CREATING
    changed: bool = False
    verb: EventType | None = None  # the change: creating, updating or deleting
    began: float | None = None
    ended: float | None = None

    def take(self, event: Event, now: float) -> None:
        """Update the progress from an event."""
        if event.what in _PAST and (self.verb, event.what) != (
            EventType.CREATING,
            EventType.UPDATING,
        ):
            self.verb = event.what  # an update right after a create still counts as created
        if event.what is not EventType.PENDING and self.began is None:
            self.began = now
        ended = event.what in _DONE or event.what is EventType.FAILED
        self.ended = (self.ended or now) if ended else None
        self.what, self.why, self.changed = event.what, clean(event.why), event.changed
        self.id = clean(event.id) or self.id
        if event.what is EventType.CREATING:
            self.usual = self.why

    @property
    def word(self) -> str:
        """The state or, after a change, the change in one word."""
        if self.what in (EventType.READY, EventType.GONE) and self.changed and self.verb:
            return _PAST[self.verb]
        return self.what.value

    def seconds(self, now: float) -> float:
        """Seconds since the first event, or until the last."""
        return ((now if self.ended is None else self.ended) - self.began) if self.began else 0.0


@dataclass(eq=False, repr=False)
class Board:
    """The progress of all resources, drawn as a tree of steps and their resources."""

    title: str
    began: float
    steps: dict[str, dict[str, Item]] = field(default_factory=dict)

    def take(self, event: Event, now: float) -> Item:
        """Update the progress from an event; return the item of its resource."""
        step, _, name = event.key.partition("/")
        items = self.steps.setdefault(step, {})
        item = items.setdefault(name, Item(clean(name)))
        item.take(event, now)
        return item

    def lines(self, width: int, height: int, now: float, *, utf8: bool = True) -> list[Line]:
        """Draw the tree for a terminal of `width` columns and `height` rows.

        A long message of AWS continues below its resource if there are rows left; on a narrow
        terminal all of it is there. If there are too few rows, finished steps are reduced to one
        line each, then steps that have not started, then steps in progress to their resources that
        are in progress or failed; then all steps without such resources are left out.
        """
        frames = _FRAMES if utf8 else _ASCII_FRAMES
        spin = (frames[int(now * 4) % len(frames)], "busy")
        rows = max(height - 1, 1)
        order = steps_of(f"{name}/" for name in self.steps)
        every = {name: list(self.steps[name].values()) for name in order if name in self.steps}
        steps, shown = self._fitting(every, width, rows)
        size = self._size(steps, width)
        spare = rows - 1 - len(steps) - sum(map(len, shown.values()))
        found: list[Line] = []
        for name, items in reversed(steps.items()):  # the last steps take longest
            drawn = [_step(name, items, now, size, spin)]
            for item in shown[name]:
                why, *more = _words(item, size, width, spare)
                spare -= len(more)
                drawn.append(_row(item, why, now, size, spin, width))
                indent = Piece(" " * _indent(size, width))
                drawn += [[indent, Piece(text, _style(item))] for text in more]
            found = drawn + found
        found.insert(0, self._head(size, now))
        if len(found) > rows:
            found = [*found[: rows - 1], [Piece(f"  … {len(found) - rows + 1} more", "quiet")]]
        found = [crop(line, width) for line in found]
        return found if utf8 else [asciify(line) for line in found]

    def _fitting(
        self, steps: dict[str, list[Item]], width: int, rows: int
    ) -> tuple[dict[str, list[Item]], dict[str, list[Item]]]:
        """Return the steps that fit in ``rows``, and the resources to show of each."""
        shown = {name: items for name, items in steps.items() if items}
        size = self._size(steps, width)
        below = sum(len(_words(i, size, width)) - 1 for items in steps.values() for i in items)
        for may_close in (_finished, _untouched):
            for name in [name for name, items in shown.items() if may_close(items)]:
                if 1 + len(steps) + sum(map(len, shown.values())) + below > rows:
                    shown[name] = []
        if 1 + len(steps) + sum(map(len, shown.values())) > rows:
            shown = {name: [i for i in items if _matters(i)] for name, items in shown.items()}
        if 1 + len(steps) + sum(map(len, shown.values())) > rows:
            steps = {name: items for name, items in steps.items() if shown[name]}
        return steps, shown

    def _size(self, steps: Mapping[str, list[Item]], width: int) -> int:
        """Return the number of columns for names."""
        size = max((4 + cells(i.name) for items in steps.values() for i in items), default=0)
        most = 44 if width >= 120 else 28 if width >= 70 else 18
        return min(max(size, 12, cells(self.title)), most)

    def _head(self, size: int, now: float) -> Line:
        items = [item for items in self.steps.values() for item in items.values()]
        done = sum(item.what in _DONE for item in items)
        return [
            Piece(pad(clean(self.title), size), "strong"),
            _time(now - self.began),
            Piece(f"{done} of {len(items)}"),
        ]


def _finished(items: list[Item]) -> bool:
    return all(item.what in _DONE for item in items)


def _untouched(items: list[Item]) -> bool:
    return all(item.what is EventType.PENDING for item in items)


def _matters(item: Item) -> bool:
    return item.what not in (EventType.PENDING, *_DONE)


def _step(name: str, items: list[Item], now: float, size: int, spin: tuple[str, str]) -> Line:
    """Return the line of a step: its state, duration and a count of its resources."""
    if any(item.what is EventType.FAILED for item in items):
        symbol, style = _SYMBOL[EventType.FAILED]
    elif _finished(items):
        symbol, style = _SYMBOL[EventType.READY]
    elif _untouched(items):
        symbol, style = _SYMBOL[EventType.PENDING]
    else:
        symbol, style = spin
    if _finished(items) or _untouched(items):
        words = ", ".join(f"{n} {word}" for word, n in Counter(i.word for i in items).items())
    else:
        words = f"{sum(item.what in _DONE for item in items)} of {len(items)}"
    began = [item.began for item in items if item.began is not None]
    ended = [now if item.ended is None else item.ended for item in items if item.began is not None]
    took = _time(max(ended) - min(began) if began else 0)
    waits = [item.usual for item in items if item.what is EventType.WAITING and item.usual]
    return [
        Piece(f"{symbol} ", style),
        Piece(pad(name, size - 2)),
        took,
        Piece(words),
        Piece(f"  {waits[-1]}" if waits else "", "quiet"),
    ]


def _words(item: Item, size: int, width: int, spare: int = 3) -> list[str]:
    """Split AWS's message on a resource: the part in its row, and at most `spare` more lines."""
    room = width - size - 20
    if item.what in _TERSE:
        return [""]
    if not item.why or cells(item.why) <= room or spare <= 0:
        return [item.why]
    first = leading(item.why, room) if room >= BESIDE else ""
    rest = item.why[len(first) :].strip()
    return [first, *wrap(rest, width - _indent(size, width), most=min(spare, 3))]


def _indent(size: int, width: int) -> int:
    """Return where the lines below a resource begin: beside its name, if there is room."""
    return size + 10 if width - size - 20 >= BESIDE else 4


def _row(item: Item, why: str, now: float, size: int, spin: tuple[str, str], width: int) -> Line:
    """Return the line of a resource: its state, duration, change, AWS's message and id."""
    symbol, style = _SYMBOL.get(item.what, spin)
    over = item.what in _TERSE
    room = 0 if why != item.why else width - size - 10 - 10 - cells(why)
    ident = item.id if not why or room > cells(item.id) + 2 else ""
    return [
        Piece(f"  {symbol} ", style),
        Piece(
            pad(middle(item.name, size - 4), size - 4),
            "quiet" if item.what is EventType.PENDING else "",
        ),
        _time(item.seconds(now)),
        Piece(f"{item.word:<8}  ", "quiet" if over else ""),
        Piece(why, _style(item)),
        Piece(f"  {ident}" if why and ident else ident, "quiet"),
    ]


def _style(item: Item) -> str:
    return "bad" if item.what is EventType.FAILED else ""


def _time(seconds: float) -> Piece:
    text = elapsed(int(seconds)) if seconds >= 1 else ""
    return Piece(f"{text:>8}  ", "quiet")


@contextmanager
def live(
    stream: TextIO, environ: Mapping[str, str], title: str = "", clock: Clock = time.time
) -> Iterator[Report]:
    """Draw a tree of steps on the terminal `stream` until the context is left.

    The first line appears at once, before the slow import of rich; the last picture stays.
    `clock` returns seconds since the epoch.
    """
    quiet = cast("TextIO", _Quiet(stream))
    quiet.write(f"{cut(clean(title), 78)} …")
    quiet.flush()
    picture = Picture(quiet, wants_colour(stream, environ), Board(title, clock()), clock)
    try:
        yield picture
    finally:
        picture.stop()


class Picture:
    """A board on a terminal; rich draws it a few times a second."""

    def __init__(self, stream: TextIO, colour: bool, board: Board, clock: Clock) -> None:
        self.stream, self.colour, self.board, self.clock = stream, colour, board, clock
        self.utf8 = speaks_utf8(stream)
        self.lock = threading.Lock()  # rich draws in its own thread
        self.shown: Live | None = None
        self.unfinished = True

    def __call__(self, event: Event) -> None:
        """Add an event to the picture."""
        with self.lock:
            self.board.take(event, self.clock())
        if self.shown is None:
            self.start()

    def clear(self) -> None:
        """Stop drawing before another message is printed; the next event draws below it."""
        if self.shown is not None:
            self.shown.stop()
            self.shown = None
        if self.unfinished:
            self.stream.write(_ERASE)
            self.stream.flush()
            self.unfinished = False

    def start(self) -> None:
        """Start drawing."""
        from rich.console import Console  # noqa: PLC0415  0.1 s, after the first line
        from rich.live import Live  # noqa: PLC0415

        self.console = Console(
            file=self.stream,
            force_terminal=True,
            color_system="standard" if self.colour else None,
            no_color=False,  # color_system decides
            markup=False,  # brackets are text of AWS
            highlight=False,
            emoji=False,
        )
        self.clear()
        self.shown = Live(
            console=self.console,
            get_renderable=self.draw,
            refresh_per_second=4,
            redirect_stdout=False,  # the result goes there
            vertical_overflow="crop",
        )
        self.shown.start(refresh=True)

    def stop(self) -> None:
        """Stop drawing; the last picture stays."""
        self.clear()

    def draw(self) -> Text:
        """Return the current picture."""
        from rich.text import Text  # noqa: PLC0415

        width, height = self.console.size
        with self.lock:
            lines = self.board.lines(width, height, self.clock(), utf8=self.utf8)
        text = Text(no_wrap=True, overflow="crop", end="")
        for n, line in enumerate(lines):
            for piece in line:
                text.append(piece.text, STYLES[piece.style][1] if piece.style else None)
            text.append("\n" if n < len(lines) - 1 else "")
        return text


@contextmanager
def plain(stream: TextIO, clock: Clock = time.time) -> Iterator[Report]:
    """Write one line to `stream` for each change, for pipes and logs; lines are never cut.

    A wait gets a line when its message changes, and every `HEARTBEAT` seconds otherwise.
    """
    quiet, board, lock = _Quiet(stream), Board("", clock()), threading.Lock()
    reported: dict[str, tuple[tuple[object, ...], float]] = {}

    def report(event: Event) -> None:
        with lock:
            now = clock()
            item = board.take(event, now)
            news = (item.what, item.word, item.why)
            before, at = reported.get(event.key, ((), 0.0))
            waits = item.what not in _IDLE
            if item.what is EventType.PENDING or (
                news == before and not (waits and now - at >= HEARTBEAT)
            ):
                return
            reported[event.key] = news, now
            quiet.write(_sentence(event.key, item, now))
            quiet.flush()

    yield report


def _sentence(key: str, item: Item, now: float) -> str:
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    why = "" if item.what is EventType.READY else item.why
    words = f"{clean(key)} {item.word}{f' {item.id}' if item.id else ''}{f': {why}' if why else ''}"
    took = item.seconds(now)
    return f"{stamp} {words}{f' ({elapsed(took)})' if took >= 0.05 else ''}\n"


@contextmanager
def none() -> Iterator[Report]:
    """Show nothing."""
    yield lambda event: None


def choose(
    stream: TextIO,
    environ: Mapping[str, str],
    progress: str = "auto",
    title: str = "",
    clock: Clock = time.time,
) -> AbstractContextManager[Report]:
    """Return a context that yields a `Report`, which shows progress on `stream`.

    `progress` is ``auto`` (a live picture on a terminal outside CI, lines elsewhere), ``live``
    (which overrides CI, but not a pipe), ``plain`` or ``none``. Colour settings are ignored:
    ``FORCE_COLOR`` must not animate a pipe. `title` is the command and its cluster.
    """
    if progress == "none":
        return none()
    able = stream.isatty() and environ.get("TERM", "dumb") != "dumb"
    ci = environ.get("CI", "").lower() not in ("", "0", "false")
    if able and (progress == "live" or (progress == "auto" and not ci)):
        return live(stream, environ, title, clock)
    return plain(stream, clock)


class _Quiet:
    """A stream that ignores write errors: a closed pipe or terminal must not end the run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "ascii"
        self.errors = "replace"

    def write(self, text: str) -> int:
        with self._surviving():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode("ascii", "replace").decode())
        return len(text)

    def flush(self) -> None:
        with self._surviving():
            self._stream.flush()

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except ValueError:  # the stream is closed
            pass
        except OSError:
            # Python flushes the buffer at exit: another error would change the exit code.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()
