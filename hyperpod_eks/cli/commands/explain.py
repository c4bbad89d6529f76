"""``hyperpod-eks explain``: print what the documentation says about a cause or an exit code."""

from __future__ import annotations

import re
import shutil
import textwrap
from typing import TYPE_CHECKING

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import Output, argument
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.views import Explanation
    from hyperpod_eks.events import Report

PAGES = ("exit-codes.md", "troubleshooting.md")
"""The pages whose sections are topics."""
WHOLE = (
    "change",
    "config",
    "crash-safety",
    "iam",
    "inference",
    "leaving",
    "library",
    "local-stack",
    "monitoring",
    "pipelines",
    "task-governance",
    "teams",
)
"""The pages that are topics, by their names."""


@frozen
class Options(Output):
    """Options of explain."""

    topic: str | None = argument(metavar="[TOPIC]")


def explain(options: Options, report: Report) -> Explanation:
    """Explain an exit code or the cause of an error.

    TOPIC is an exit code, such as 10, the id that an error prints in brackets after its cause,
    such as no-way-out, or a page of the documentation, such as pipelines.  Without TOPIC it lists
    all topics.  Does not call AWS.
    """
    known = topics()
    if options.topic is None:
        listed = "\n".join(f"{topic:<24} {_first(text)}" for topic, text in known.items())
        return {**head("explain"), "topic": None, "text": listed}
    wanted = options.topic.lower().removeprefix("exit-")
    if wanted not in known:
        raise Usage(
            f"explain: unknown topic {options.topic!r}", "To list all topics: hyperpod-eks explain"
        )
    return {**head("explain"), "topic": wanted, "text": known[wanted]}


def topics() -> dict[str, str]:
    """Return the sections by exit code and by id of the cause, and the pages by name."""
    from hyperpod_eks.folders import packaged

    folder = packaged("_docs", "docs")
    found = {}
    for page in PAGES:
        _, *sections = re.split(r"^## ", (folder / page).read_text("utf-8"), flags=re.MULTILINE)
        for section in sections:
            title, _, text = section.partition("\n")
            topic = title.lower().removeprefix("exit ")
            if " " not in topic:
                found[topic] = _readable(text)
    for page in WHOLE:
        title, _, text = (folder / f"{page}.md").read_text("utf-8").partition("\n")
        found[page] = f"{title.removeprefix('# ')}.\n\n{_readable(text)}"
    return found


def _readable(text: str) -> str:
    """Return Markdown as plain text: links as their text, examples indented."""
    text = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text)
    code = re.compile(r"^```\w*\n(.*?)^```\n?", re.DOTALL | re.MULTILINE)
    return code.sub(lambda found: _indented(found[1]), text).replace("`", "").strip()


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())


def _first(text: str) -> str:
    """Return the first sentence of a section."""
    paragraph = text.partition("\n\n")[0].replace("\n", " ")
    first = re.split(r"(?<=[.;:]) ", paragraph.removeprefix("Cause: "))[0].rstrip(".;:")
    return first[:1].upper() + first[1:]


WIDEST = 100
"""Columns of a line that is read easily."""


def text(document: Explanation) -> str:
    """Return the section as text, in lines of the terminal's width."""
    columns = shutil.get_terminal_size((1000, 24)).columns
    if document["topic"] is None:
        return "\n".join(_wrapped(each, columns, 25) for each in document["text"].splitlines())
    blocks = document["text"].split("\n\n")
    return "\n\n".join(_fitted(block, min(columns, WIDEST)) for block in blocks)


def _fitted(block: str, columns: int) -> str:
    """Break a paragraph or a list anew; examples and tables stay as they are."""
    if re.search(r"^( {4}|\|)", block, re.MULTILINE):
        return block
    items = re.split(r"\n(?=[*-] |\d+\. )", block)
    return "\n".join(
        _wrapped(" ".join(item.split()), columns, 2 if item[:2] in ("* ", "- ") else 0)
        for item in items
    )


def _wrapped(line: str, columns: int, indent: int) -> str:
    return textwrap.fill(
        line,
        max(columns, indent + 20),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


command = define(
    "explain",
    Options,
    explain,
    text,
    """
    hyperpod-eks explain 10
    hyperpod-eks explain expired-credentials
    """,
)
