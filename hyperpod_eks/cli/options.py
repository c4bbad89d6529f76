"""The options that commands share, each declared once."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FORMS = ("text", "json", "yaml", "table", "env", "dotenv", "github")


def options(*several: Callable[[F], F]) -> Callable[[F], F]:
    """Join options to one decorator; ``--help`` lists them in this order."""

    def add(command: F) -> F:
        for option in reversed(several):
            command = option(command)
        return command

    return add


name = click.argument("name", required=False)
file = click.option("-f", "--file", metavar="FILE", help="Config file; - reads standard input.")
manifest = click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="State.  [default: ./NAME.hyperpod-eks.json]",
)
account = options(
    click.option("--local", is_flag=True, help="Use the embedded stack instead of AWS."),
    click.option("--region", help="AWS region."),
    click.option("--profile", help="Profile of the AWS configuration."),
)
speaking = options(
    click.option(
        "-o",
        "--output",
        type=click.Choice(FORMS),
        default="text",
        envvar="HYPERPOD_EKS_OUTPUT",
        show_default=True,
        help="Form of the document on stdout.",
    ),
    click.option("--query", metavar="JMESPATH", help="Print only this part of the document."),
    click.option(
        "--events",
        metavar="FILE|-|fd:N",
        envvar="HYPERPOD_EKS_EVENTS",
        help="Write what happens as JSON lines; the last one is the document.",
    ),
    click.option("--no-color", is_flag=True, help="No colour, as NO_COLOR=1."),
    click.option("-q", "--quiet", is_flag=True, help="On stderr nothing but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Tell each call to AWS on stderr."),
    click.option("--debug", is_flag=True, help="Log everything; the log's path is on stderr."),
)
named = options(name, file, manifest)
shared = options(
    named,
    account,
    speaking,
    click.option(
        "--parallelism",
        type=click.IntRange(1, 64),
        default=8,
        show_default=True,
        help="Calls to AWS at the same time.",
    ),
)
progress = options(
    click.option(
        "--progress",
        type=click.Choice(["auto", "live", "plain", "none"]),
        default="auto",
        show_default=True,
        help="How to tell what happens, on stderr.",
    ),
    click.option(
        "--timeline",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE.svg",
        help="Draw what ran when, once it is over.",
    ),
)


class Seconds(click.FloatRange):
    """A duration; "nan" is a number to Python, and no duration."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it.  Raises BadParameter, which is wrong usage."""
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return found


lock_timeout = click.option(
    "--lock-timeout",
    type=Seconds(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait for another run on the same manifest.",
)
timeout = click.option(
    "--timeout",
    type=Seconds(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up waiting after this time, with exit code 6; run again, it goes on.",
)
tail = click.option(
    "--tail",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    metavar="N",
    help="How many lines at most.",
)
skip = click.option(
    "--skip",
    multiple=True,
    metavar="ID",
    help="Leave out this check of the preflight; may be given several times.",
)
declared = options(
    click.option(
        "--kubernetes-version", metavar="1.N", help="Kubernetes version; a newer one upgrades."
    ),
    click.option(
        "--chart",
        metavar="PATH",
        help="HyperPod Helm chart, or a checkout that has it, instead of the pinned download.",
    ),
    click.option("--lifecycle", metavar="PATH", help="Folder of lifecycle scripts."),
)
"""The settings of the config that have a flag."""
detailed = click.option(
    "--detailed-exitcode",
    is_flag=True,
    help="Exit 5 when create would change something, 7 when it would refuse.",
)
