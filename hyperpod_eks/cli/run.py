"""Run a command; what it needs beyond click is imported when a command or an error needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import click

from hyperpod_eks.cli.app import main

if TYPE_CHECKING:
    from hyperpod_eks.cli.console import Console


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; print every error to stderr.

    With ``-o json`` or ``-o yaml``, an error is also a document on stdout.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # the caller may have replaced or closed it
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

    @cache
    def console() -> Console:
        from hyperpod_eks.cli.console import Console  # noqa: PLC0415  --help needs none

        return Console(arguments)

    try:
        left = main.main(
            list(arguments), prog_name="hyperpod-eks", standalone_mode=False, obj=console
        )
        return left if isinstance(left, int) else 0
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except BaseException as error:  # noqa: BLE001  `fail` raises what is not ours to handle
        from hyperpod_eks.cli.failures import fail  # noqa: PLC0415  --help needs none

        return fail(console(), error)
    finally:
        if console.cache_info().currsize:
            console().close()
