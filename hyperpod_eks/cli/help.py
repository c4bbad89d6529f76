"""How help is laid out."""

from __future__ import annotations

from collections.abc import Iterable

import click

_JOINED = "\N{NON-BREAKING HYPHEN}"
"""Stands for a hyphen while lines are filled: click ends lines after hyphens, inside a name."""


class Formatter(click.HelpFormatter):
    """Writes help whose lines end between words only, so that names can be read and copied."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write a usage line."""
        super().write_usage(prog, _joined(args), prefix)

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        super().write_text(_joined(text))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Write rows of terms and texts."""
        super().write_dl([(term, _joined(text)) for term, text in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        """Return what was written."""
        return super().getvalue().replace(_JOINED, "-")


class Context(click.Context):
    """A context whose help is laid out by `Formatter`."""

    formatter_class = Formatter


def _joined(text: str) -> str:
    return text.replace("-", _JOINED)
