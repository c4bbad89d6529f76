"""A plan as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.events import steps_of
from hyperpod_eks.terminal.text import (
    Line,
    Piece,
    asciify,
    brief_digest,
    cells,
    clean,
    elapsed,
    fold,
    pad,
    paint,
    wrap,
)

BESIDE = 20
"""Columns that a remark needs beside its resource; else it is below."""
_SIGNS = {
    "create": ("+", "good"),
    "change": ("~", "warn"),
    "replace": ("!", "warn"),
    "delete": ("-", "bad"),
    "wait": ("○", "busy"),
    "refuse": ("✘", "bad"),
    "adopt": ("✔", "quiet"),
    "keep": ("✔", "quiet"),
}


def render(document: JsonMapping, width: int, colour: bool, *, utf8: bool = True) -> str:
    """Return the text of a ``hyperpod-eks/plan/v1`` document, ``width`` columns wide."""
    parts = (
        _head(document),
        *_steps(document, width),
        _sum(document, width),
        _time(document, width),
        _cost(document),
    )
    blocks = []
    for part in parts:
        lines = [each for line in part for each in fold(line, width)]
        blocks.append("\n".join(paint(line if utf8 else asciify(line), colour) for line in lines))
    if document["next"]:
        when = "Once nothing is refused" if document["counts"].get("refuse") else "To do it"
        blocks.append(f"{when}: {document['next']}")  # never cut: users copy it
    return "\n\n".join(filter(None, blocks))


def _head(document: JsonMapping) -> Iterator[Line]:
    where = f"  {document['account']} {document['region']}"
    yield [Piece(document["cluster"]["name"], "strong"), Piece(where, "quiet")]


def _steps(document: JsonMapping, width: int) -> Iterator[Iterable[Line]]:
    """Yield a line for each resource that changes; kept resources are only counted."""
    whole: list[str] = []
    for step in steps_of(row["key"] for row in document["resources"]):
        rows = [row for row in document["resources"] if row["key"].startswith(f"{step}/")]
        busy = [row for row in rows if row["action"] != "keep"]
        if rows and not busy:
            whole.append(step)
        elif rows:
            kept = len(rows) - len(busy)
            more = [Piece(f"  {kept} kept", "quiet")] if kept else []
            yield [[Piece(step, "strong"), *more], *(x for row in busy for x in _row(row, width))]
    if whole:
        sign, style = _SIGNS["keep"]
        yield [[Piece(f"{sign} ", style), Piece(f"as declared: {', '.join(whole)}")]]


def _row(row: JsonMapping, width: int) -> Iterator[Line]:
    sign, style = _SIGNS[row["action"]]
    name = row["key"].partition("/")[2]
    size = max(28, cells(name))
    words = "  ".join(clean(text) for text in (row["id"], row["why"]) if text)
    indent = 15 + size if width - 15 - size >= BESIDE else 15
    wrapped = wrap(words, width - indent, most=6)
    line = [Piece(f"  {sign} {row['action']:<7}  ", style), Piece(name)]
    if words and indent > 15:
        line = [line[0], Piece(pad(name, size)), Piece(f"  {wrapped.pop(0)}", "quiet")]
    yield line
    for more in wrapped if words else ():
        yield [Piece(" " * indent), Piece(more, "quiet")]
    for name, (is_, shall_be) in row["differs"].items():
        for number, text in enumerate(
            wrap(f"{name}: {_brief(is_)} → {_brief(shall_be)}", width - 15)
        ):
            yield [Piece(" " * (13 if number == 0 else 15)), Piece(clean(text))]


def _brief(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_brief, value)) or "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_brief(each)}" for key, each in value.items()) or "none"
    return "none" if value in (None, "") else clean(brief_digest(str(value)))


def _sum(document: JsonMapping, width: int) -> Iterator[Line]:
    counts = document["counts"]
    words = ", ".join(f"{counts[action]} to {action}" for action in _SIGNS if counts.get(action))
    if set(counts) <= {"keep", "adopt"}:
        words = f"nothing to change: {sum(counts.values())} resources are as declared"
    for text in wrap(words, width):
        yield [Piece(text, "strong")]


def _time(document: JsonMapping, width: int) -> Iterator[Line]:
    """Yield the estimated time and the critical path, without resources under ten seconds."""
    path = document["critical_path"]
    if long := [each for each in path if each["seconds"] >= 10]:
        minutes = max(1, round(sum(each["seconds"] for each in path) / 60))
        yield [
            Piece(f"about {minutes} min", "strong"),
            Piece(", on the critical path:", "quiet"),
        ]
        words = ", then ".join(f"{each['key']} {elapsed(each['seconds'])}" for each in long)
        for text in wrap(words, width - 2):
            yield [Piece(f"  {text}", "quiet")]


def price(cost: JsonMapping) -> str:
    """Return the price per hour; of an incomplete one, what it is at least.

    >>> price({"usd_per_hour": 1.2, "complete": False})
    'at least 1.20 USD per hour'
    """
    return f"{'about' if cost['complete'] else 'at least'} {cost['usd_per_hour']:.2f} USD per hour"


def _cost(document: JsonMapping) -> Iterator[Line]:
    cost = document["cost"]
    source = f"{cost['region']} prices of {cost['as_of']}"
    about = f", {cost['usd_per_month']:,.0f} per month, by {source}"
    yield [Piece(price(cost), "strong"), Piece(about, "quiet")]
    for item in cost["items"]:
        usd = item["usd_per_hour"]
        text = "   unknown" if usd is None else f"{usd:>10.3f}"
        yield [Piece(f"{text}  "), Piece(f"{item['count']} x {item['what']}", "quiet")]
