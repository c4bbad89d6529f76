"""``hyperpod-eks local``: run the embedded stack, an emulated AWS account on this machine."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import click

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.app import Group
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import Output, option
from hyperpod_eks.errors import NotFound
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.views import Local, Prepared, Stack
    from hyperpod_eks.events import Report
    from hyperpod_eks.local.daemon import Running


@frozen
class Start(Output):
    """Options of local start."""

    speed: float | None = option(
        "--speed",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="Simulated seconds per real second.  [default: 60]",
    )
    port: int = option(
        "--port",
        type=click.IntRange(0, 65535),
        default=0,
        show_default=False,
        metavar="N",
        help="Port of the stack.  [default: a free one]",
    )


def start(options: Start, report: Report) -> Local:
    """Start the stack in the background if it is not running."""
    from hyperpod_eks.local import daemon

    return _document("start", daemon.ensure(options.speed, options.port))


@frozen
class Prepare(Output):
    """Options of local prepare."""

    file: str = option(
        "-f", "--file", required=True, metavar="FILE", help="Config file; - reads stdin."
    )
    name: str | None = option(
        "--name", metavar="NAME", help="Name of the cluster, instead of the file's."
    )
    region: str | None = option(
        "--region", metavar="REGION", help="AWS region, instead of the file's."
    )
    helm: str | None = shared.helm()


def prepare(options: Prepare, report: Report) -> Prepared:
    """Create the existing resources that a config refers to.

    These are the resources under `existing` (VPC, EKS cluster and Helm release), the roles of
    `eks.access`, training plans, and quotas.  Safe to re-run.
    """
    from hyperpod_eks.aws import session as aws_session
    from hyperpod_eks.cli.login import use_local
    from hyperpod_eks.cli.prepare import prepare as create
    from hyperpod_eks.config.load import load
    from hyperpod_eks.local import daemon

    overrides = {"name": options.name, "region": options.region}
    config = load(options.file, overrides, os.environ)
    running = daemon.ensure()
    use_local()
    created = create(running, aws_session.session(config.region, None), config, options.helm)
    return {**_document("prepare", running), "created": created}


def status(options: Output, report: Report) -> Local:
    """Show the running stack."""
    return _document("status", _running())


def stop(options: Output, report: Report) -> Local:
    """Stop the stack and delete everything in it."""
    from hyperpod_eks.local import daemon

    return _document("stop", None, stopped=daemon.stop())


@click.command
def env() -> None:
    """Print shell exports that point AWS clients at the stack.

    Usage: eval "$(hyperpod-eks local env)"
    """
    lines = (
        f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}"
        for name, value in _running().environ.items()
    )
    click.echo("\n".join(lines))


def _running() -> Running:
    from hyperpod_eks.local import daemon

    running = daemon.find()
    if running is None:
        raise NotFound("no embedded stack is running", "Start one: hyperpod-eks local start")
    return running


def _document(command: str, running: Running | None, *, stopped: bool = False) -> Local:
    stack: Stack | None = None
    if running:
        stack = {
            "endpoint": running.endpoint,
            "pid": running.pid,
            "speed": running.speed,
            "region": running.region,
        }
    return {**head(f"local {command}", kind="local"), "stopped": stopped, "stack": stack}


def text(document: Local | Prepared) -> str:
    """Return the text of the document."""
    if "created" in document:
        return "\n".join(f"created {each}" for each in document["created"]) or "nothing is missing"
    if stack := document["stack"]:
        return (
            f"the embedded stack answers at {stack['endpoint']}, {stack['speed']:g} times as fast"
            f" as AWS (process {stack['pid']})\n"
            'To point AWS clients at it: eval "$(hyperpod-eks local env)"'
        )
    return (
        "the embedded stack has stopped" if document["stopped"] else "no embedded stack was running"
    )


command = Group("local", help="Run the emulated AWS account that --local uses.")
for each in (
    define("start", Start, start, text, "hyperpod-eks local start --speed 600"),
    define("status", Output, status, text, "hyperpod-eks local status -o json"),
    define("prepare", Prepare, prepare, text, "hyperpod-eks local prepare -f cluster.yaml"),
    define("stop", Output, stop, text, "hyperpod-eks local stop"),
    env,
):
    command.add_command(each)
