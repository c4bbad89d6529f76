"""Options as dataclasses: each field is an option, and commands share options by inheritance."""

from __future__ import annotations

import math
import os
from dataclasses import Field, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from hyperpod_eks.documents import JsonObject

FORMS = ("text", "json", "yaml", "table", "env", "dotenv", "github")


class Option(click.Option):
    """An option whose value is not empty: ``-f "$CONFIG"`` without CONFIG is not no ``-f``."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert a value.  Raises click.BadParameter for an invalid or empty one."""
        typed = ctx.get_parameter_source(self.name or "") is ParameterSource.COMMANDLINE
        if typed and (value == "" or (isinstance(value, tuple | list) and "" in value)):
            raise click.BadParameter("it is empty; pass a value, or omit the option.", ctx, self)
        return super().type_cast_value(ctx, value)


def option(*flags: str, **about: Any) -> Any:
    """Declare a field that is an option; ``about`` are the arguments of `click.Option`.

    The return type is Any, as with `dataclasses.field`, so that a field of any type accepts it.
    """
    return _declared(Option, flags, {"show_default": "default" in about, **about})


def flag(*flags: str, help: str) -> bool:  # noqa: A002  click's name
    """Declare a field that is an option without a value."""
    found: bool = _declared(click.Option, flags, {"is_flag": True, "default": False, "help": help})
    return found


def argument(**about: Any) -> Any:
    """Declare a field that is a positional argument; ``about`` goes to `click.Argument`."""
    return _declared(click.Argument, (), {"required": False, **about})


def _declared(kind: type[click.Parameter], flags: tuple[str, ...], about: JsonObject) -> Any:
    several = about.get("multiple") or about.get("nargs") == -1
    if "type" not in about and "is_flag" not in about:
        about = {"shell_complete": _completed, **about}
    default = about.get("default", () if several else None)
    return field(default=default, metadata={"click": (kind, flags, about)})


def _completed(
    context: click.Context, parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    from hyperpod_eks.cli.complete import completions  # noqa: PLC0415  for completion only

    return completions(context, parameter, begun)


@frozen
class Options:
    """The options and arguments of a command.

    Help lists the options of a class under its ``heading``, by default "Options".
    """


HEADINGS = (
    "Options",
    "Cluster options",
    "Config options",
    "AWS options",
    "Waiting options",
    "Progress options",
    "Output options",
)
"""The headings of options, in the order of help."""


def parameters(options: type[Options]) -> list[click.Parameter]:
    """Return click's parameters of a command; arguments of base classes, such as NAME, first."""
    return [_parameter(each) for each in fields(options)]


def sections(options: type[Options]) -> dict[str, list[click.Parameter]]:
    """Return the options of a command by heading; its own options come before inherited ones."""
    known = {each.name: each for each in fields(options)}
    found: dict[str, list[click.Parameter]] = {heading: [] for heading in HEADINGS}
    for group in options.__mro__:
        if is_dataclass(group):
            bases = filter(is_dataclass, group.__bases__)
            theirs = {each.name for base in bases for each in fields(base)}
            own = [known[each.name] for each in fields(group) if each.name not in theirs]
            section = found[vars(group).get("heading", "Options")]
            section += [_parameter(each) for each in own if each.metadata["click"][1]]  # an option
    return {heading: several for heading, several in found.items() if several}


def _parameter(each: Field[Any]) -> click.Parameter:
    """Return the click parameter of a field."""
    kind, flags, about = each.metadata["click"]
    made: click.Parameter = kind([each.name, *flags], **about)
    return made


class Seconds(click.FloatRange):
    """A duration in seconds; Python reads "nan" as a number, but it is not a duration."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a value.  Raises click.BadParameter for an invalid one."""
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return found


# --- options that commands share, in the order in which help shows them


@frozen
class Output(Options):
    """Output options, which every command has."""

    heading = "Output options"
    output: str = option(
        "-o",
        "--output",
        type=click.Choice(FORMS),
        default="text",
        envvar="HYPERPOD_EKS_OUTPUT",
        help="Format of the document on stdout.",
    )
    query: str | None = option(
        "--query", metavar="JMESPATH", help="Print only this part of the document."
    )
    events: str | None = option(
        "--events",
        metavar="FILE|-|fd:N",
        envvar="HYPERPOD_EKS_EVENTS",
        help="Write events as JSON lines; the last line has the document.",
    )
    no_color: bool = flag("--no-color", help="Disable colors, like NO_COLOR=1.")
    quiet: bool = flag("-q", "--quiet", help="Print only errors.")
    verbose: bool = flag("-v", "--verbose", help="Log every AWS API call to stderr.")
    debug: bool = flag("--debug", help="Log everything, and print the path of the log.")


@frozen
class Progress(Options):
    """Progress options of commands that take long."""

    heading = "Progress options"
    progress: str = option(
        "--progress",
        type=click.Choice(["auto", "live", "plain", "none"]),
        default="auto",
        help="How to show progress on stderr.",
    )
    timeline: Path | None = option(
        "--timeline",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE.svg",
        help="Write a timeline of the run.",
    )


@frozen
class Account(Options):
    """The account and region."""

    heading = "AWS options"
    region: str | None = option("--region", metavar="REGION", help="AWS region.")
    profile: str | None = option(
        "--profile", metavar="PROFILE", help="Profile of the AWS configuration."
    )
    local: bool = flag("--local", help="Use the embedded stack instead of AWS.")


@frozen
class Place(Account):
    """The cluster and its location."""

    heading = "Cluster options"
    name: str | None = argument()
    file: str | None = option("-f", "--file", metavar="FILE", help="Config file; - reads stdin.")
    manifest: str | None = option(
        "--manifest",
        type=click.Path(),
        metavar="PATH",
        help="Manifest of the cluster, a file or s3://BUCKET/KEY.  "
        "[default: ./NAME.hyperpod-eks.json]",
    )

    @property
    def named_otherwise(self) -> bool:
        """Whether a file, a manifest or an environment variable identifies the cluster."""
        return bool(self.file or self.manifest or os.environ.get("HYPERPOD_EKS_NAME"))


@frozen
class Parallel(Options):
    """The number of parallel calls."""

    heading = "AWS options"
    parallelism: int = option(
        "--parallelism",
        type=click.IntRange(1, 64),
        default=10,
        metavar="N",
        help="Maximum number of AWS API calls in flight.",
    )


@frozen
class Cluster(Place, Parallel, Output):
    """Options of every command that calls AWS about one cluster."""


@frozen
class Settings(Options):
    """Settings of the config that have an option."""

    heading = "Config options"
    kubernetes_version: str | None = option(
        "--kubernetes-version", metavar="1.N", help="Kubernetes version; a newer one upgrades."
    )
    chart: str | None = option(
        "--chart",
        metavar="PATH",
        help="HyperPod Helm chart or a checkout of it, instead of the pinned download.",
    )
    lifecycle: str | None = option(
        "--lifecycle", metavar="PATH", help="Folder of lifecycle scripts."
    )

    def settings(self) -> dict[str, str | None]:
        """Return the settings by config key; None where the option is not given."""
        return {
            "eks.version": self.kubernetes_version,
            "chart.path": self.chart,
            "lifecycle.path": self.lifecycle,
        }


@frozen
class Lock(Options):
    """Seconds to wait for another run's lock."""

    heading = "Waiting options"
    lock_timeout: float = option(
        "--lock-timeout",
        type=Seconds(min=0),
        default=0.0,
        show_default=False,
        metavar="SECONDS",
        help="Wait up to this long for another run on this cluster to end.",
    )


@frozen
class Wait(Lock):
    """Seconds to wait for AWS."""

    heading = "Waiting options"
    timeout: float | None = option(
        "--timeout",
        type=Seconds(min=0, min_open=True),
        metavar="SECONDS",
        help="Stop waiting after this many seconds and exit 6; re-run to continue.",
    )


def skip() -> tuple[str, ...]:
    """Declare ``--skip``."""
    found: tuple[str, ...] = option(
        "--skip", multiple=True, metavar="ID", help="Skip this preflight check; can be repeated."
    )
    return found


def helm() -> str | None:
    """Declare ``--helm``."""
    found: str | None = option(
        "--helm",
        metavar="PATH",
        help="Helm program.  [default: $HYPERPOD_EKS_HELM, helm on PATH, or a download]",
    )
    return found


def tail() -> int:
    """Declare ``--tail``."""
    found: int = option(
        "--tail",
        type=click.IntRange(1, 10_000),
        default=100,
        metavar="N",
        help="Maximum number of lines.",
    )
    return found


def replace_failed() -> bool:
    """Declare ``--replace-failed``."""
    return flag("--replace-failed", help="Replace failed resources, at most once per run.")


def yes() -> bool:
    """Declare ``--yes``."""
    return flag("-y", "--yes", help="Skip the confirmation prompt.")


def detailed_exitcode() -> bool:
    """Declare ``--detailed-exitcode``."""
    return flag(
        "--detailed-exitcode",
        help="Exit 5 if there are changes, 7 if create would refuse one.",
    )


@frozen
class Change(Wait, Progress, Cluster):
    """Options of every command that changes a cluster."""

    heading = "Options"
    yes: bool = yes()
    skip: tuple[str, ...] = skip()
