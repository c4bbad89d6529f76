"""``hyperpod-eks local``: an AWS account on this machine, to try everything out."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from typing import TYPE_CHECKING

import click

from hyperpod_eks.errors import NotFound

if TYPE_CHECKING:
    from hyperpod_eks.local.daemon import Running


@click.group()
def local() -> None:
    """Run an AWS account on this machine, for --local."""


@local.command()
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="Simulated seconds per real second.  [default: 60]",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 takes a free one.")
def start(speed: float | None, port: int) -> None:
    """Start the stack in the background, unless it runs."""
    from hyperpod_eks.local import daemon  # noqa: PLC0415  not needed for --help

    _show(daemon.ensure(speed, port))


@local.command()
def status() -> None:
    """Show the stack that runs."""
    _show(_running())


@local.command()
def stop() -> None:
    """End the stack; everything in it is gone."""
    from hyperpod_eks.local import daemon  # noqa: PLC0415  not needed for --help

    if not daemon.stop():
        click.echo("No local stack is running.", err=True)


@local.command()
def env() -> None:
    """Print shell lines that point AWS clients at the stack.

    Use them so: eval "$(hyperpod-eks local env)"
    """
    for name, value in _running().environ.items():
        line = f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}"
        click.echo(line)


def _running() -> Running:
    from hyperpod_eks.local import daemon  # noqa: PLC0415  not needed for --help

    running = daemon.find()
    if running is None:
        raise NotFound("no local stack is running", "Start one: hyperpod-eks local start")
    return running


def _show(running: Running) -> None:
    click.echo(json.dumps(dataclasses.asdict(running)))


def use_local() -> None:
    """Point this process, and what it starts, at the embedded stack."""
    from hyperpod_eks.local import daemon  # noqa: PLC0415  the extra may be missing

    for name, value in daemon.ensure().environ.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
