"""Confirmation before anything is lost: a question on a terminal; elsewhere --yes is required."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection

import click

from hyperpod_eks.cli.console import current_console, say
from hyperpod_eks.errors import Usage
from hyperpod_eks.resolve.resolved import ResolvedConfig


def consenting(name: str, *, yes: bool) -> Callable[[list[str]], None]:
    """Return a function that asks before a change removes, exposes or unprotects anything."""

    def consent(lost: list[str]) -> None:
        lines = "\n".join(f"  {line}" for line in lost)
        confirm(
            f"this change to {name} removes or exposes something:\n{lines}", "Continue?", yes=yes
        )

    return consent


def confirm(summary: str, question: str, *, yes: bool) -> None:
    """Ask whether to continue.  Raises Usage if the answer is no or there is no terminal."""
    if _asks(summary, yes=yes) and not click.confirm(question, err=True):
        raise Usage("not confirmed; nothing was changed")


def confirm_delete(
    resolved: ResolvedConfig,
    kept: Collection[str],
    *,
    data: Collection[str] = (),
    yes: bool,
) -> None:
    """Ask for the cluster's name.  Raises Usage if it differs or there is no terminal.

    ``kept`` are the things that stay; ``data`` has a line for each file system that does not.
    """
    where = f"account {resolved.identity.account}, region {resolved.region}"
    all_but = f" but {', '.join(kept)}" if kept else ""
    lines = "".join(f"\n  {line}" for line in data)
    files = f", and with it{lines}\n" if data else " "
    summary = f"this deletes the cluster {resolved.name} and all its data{all_but}{files}({where})"
    question = "Type the name of the cluster to continue"
    if _asks(summary, yes=yes) and click.prompt(question, err=True) != resolved.name:
        raise Usage("the name does not match; nothing was deleted")


def _asks(summary: str, *, yes: bool) -> bool:
    """Print what is about to happen and return True; return False with --yes.

    Raises Usage if there is no terminal to ask on.
    """
    if yes:
        return False
    if not sys.stdin.isatty() or os.environ.get("CI"):
        raise Usage(summary, "Cannot ask for confirmation without a terminal. Pass --yes.")
    current_console().aside()
    say(f"{summary[0].upper()}{summary[1:]}.")
    return True
