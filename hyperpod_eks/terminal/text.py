"""Lines of text for a terminal: pieces with a style, cut to a width, coloured or not."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TextIO

# By style: ANSI attributes, which are legible on light and dark backgrounds, and rich's style.
STYLES = {
    "good": ("32", "green"),
    "busy": ("36", "cyan"),
    "warn": ("33", "yellow"),
    "bad": ("31", "red"),
    "strong": ("1", "bold"),
    "quiet": ("2", "dim"),
}
_ASCII = str.maketrans({"✔": "+", "✘": "x", "·": ".", "○": "o", "…": "~", "→": ">", "↷": "="})


class Piece(NamedTuple):
    """A part of a line and its style (a key of `STYLES`, or "")."""

    text: str
    style: str = ""


Line = list[Piece]


def elapsed(seconds: float) -> str:
    """Return a duration in seconds as text.

    >>> elapsed(0.31), elapsed(7), elapsed(42.7), elapsed(432), elapsed(3900)
    ('0.3s', '7s', '42s', '7m12s', '1h05m')
    """
    if seconds < 10:
        return f"{max(seconds, 0):.1f}".removesuffix(".0") + "s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes == 0:
        return f"{rest}s"
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


def brief_digest(text: str) -> str:
    """Return the beginning of a SHA-256, which nobody reads whole; any other text as it is.

    >>> brief_digest("0123456789abcdef" * 4)
    '0123456789ab…'
    """
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{64}", text) else text


def clean(text: object) -> str:
    """Return `text` as one line without control characters: texts of AWS are not trusted."""
    words = " ".join(str(text).split())
    return "".join(c for c in words if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def printable(text: str) -> str:
    """Return `text` without unprintable characters; line breaks stay.

    >>> printable("a\\x1b]0;title\\x07b\\x9b2J\\tc")
    'a]0;titleb2J c'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " if c.isspace() else "" for c in text)


def shortened(text: str, most: int) -> str:
    """Cut `text` to `most` characters, and append how many are missing."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more characters)"


def cells(text: str) -> int:
    """Return how many columns of a terminal `text` takes.

    >>> cells("vpc-0…"), cells("クラスタ")
    (6, 8)
    """
    if text.isascii() or text.translate(_ASCII).isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415  3 ms, rarely needed

    return cell_len(text)


def cut(text: str, width: int) -> str:
    """Shorten `text` to `width` columns, ending with "…" if it is cut.

    >>> cut("vpc-0123456789", 8)
    'vpc-012…'
    """
    if cells(text) <= width:
        return text
    while text and cells(text) >= width:
        text = text[:-1]
    return f"{text}…"[: max(width, 0)]


def pad(text: str, width: int) -> str:
    """Cut or fill `text` to exactly `width` columns."""
    text = cut(text, width)
    return text + " " * (width - cells(text))


def crop(line: Iterable[Piece], width: int) -> Line:
    """Cut a line to `width` columns."""
    found, room = [], width
    for text, style in line:
        found.append(Piece(cut(text, room), style))
        room -= cells(text)
        if room <= 0:
            break
    return found


def middle(text: str, width: int) -> str:
    """Shorten `text` to `width` columns in its middle.

    >>> middle("otel-collector-policy", 12)
    'otel-c…olicy'
    """
    if cells(text) <= width:
        return text
    end = cut(text[::-1], (width + 1) // 2)[::-1].lstrip("…") if width > 2 else ""
    return cut(text, width - cells(end)) + end


def fold(line: Iterable[Piece], width: int) -> Iterator[Line]:
    """Break a line that is wider than `width` columns into several; nothing of it is lost.

    It breaks after a space or a sign between words, if there is one in the second half.  What
    follows begins below the last piece, or four columns in if that leaves too little room.
    """
    pieces = [each for each in line if each.text]
    if sum(cells(text) for text, _ in pieces) <= width:
        yield pieces
        return
    *before, last = pieces
    indent = sum(cells(text) for text, _ in before)
    indent += len(last.text) - len(last.text.lstrip(" "))
    indent = indent if indent <= width // 2 else min(4, width // 2)
    first, rest = _split(pieces, width)
    yield first
    while rest:
        first, rest = _split([Piece(" " * indent), *rest], width)
        yield first


def _split(pieces: Line, width: int) -> tuple[Line, Line]:
    """Split pieces so that the first ones fit `width` columns."""
    text = "".join(piece.text for piece in pieces)
    begin = len(text) - len(text.lstrip(" "))
    end = len(text)
    while cells(text[:end]) > width and end > begin + 1:
        end -= 1
    if end < len(text) and text[end] != " ":
        signs = (text.rfind(" ", 0, end), max(text.rfind(sign, 0, end) for sign in "-/:,._"))
        end = next((at + 1 for at in signs if at >= max(end // 2, begin)), end)
    first: Line = []
    rest: Line = []
    for piece, style in pieces:
        first.append(Piece(piece[:end], style))
        rest.append(Piece(piece[max(end, 0) :], style))
        end = max(end - len(piece), 0)
    while rest and not rest[0].text.lstrip(" "):
        rest.pop(0)
    if rest:
        rest[0] = Piece(rest[0].text.lstrip(" "), rest[0].style)
    return first, rest


def wrap(text: str, width: int, most: int = 3) -> list[str]:
    """Break `text` between words into at most `most` lines; the last is cut if necessary."""
    lines = textwrap.wrap(text, max(width, 20), break_on_hyphens=False) or [""]
    return (
        lines
        if len(lines) <= most
        else [*lines[: most - 1], cut(" ".join(lines[most - 1 :]), width)]
    )


def leading(text: str, width: int) -> str:
    """Return the words at the beginning of `text` that fit `width` columns.

    >>> leading("DEGRADED [InsufficientNumberOfReplicas]", 20)
    'DEGRADED'
    """
    found = ""
    for word in text.split(" "):
        if cells(f"{found} {word}".lstrip()) > width:
            break
        found = f"{found} {word}".lstrip()
    return found


def asciify(line: Iterable[Piece]) -> Line:
    """Replace the symbols of a line with ASCII."""
    return [Piece(text.translate(_ASCII), style) for text, style in line]


def paint(line: Iterable[Piece], colour: bool) -> str:
    """Return a line as text, with ANSI attributes if `colour`."""
    return "".join(
        f"\x1b[{STYLES[style][0]}m{text}\x1b[0m" if colour and style and text.strip() else text
        for text, style in line
    ).rstrip()


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return False with ``NO_COLOR``, True with a ``*FORCE*`` variable, else True on a terminal.

    The conventions are those of no-color.org and of CLICOLOR; an empty variable is ignored.
    """
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return stream.isatty() and environ.get("TERM") != "dumb" and environ.get("CLICOLOR") != "0"


def speaks_utf8(stream: TextIO) -> bool:
    """Whether UTF-8 can be written to `stream`."""
    return (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "") == "utf8"
