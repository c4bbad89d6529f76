"""The command line: options in, one document on stdout, progress on stderr, an exit code."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from hyperpod_eks import __version__
from hyperpod_eks.cli.local import local as local_group
from hyperpod_eks.errors import Exit, HyperpodError

F = TypeVar("F", bound=Callable[..., Any])

EXAMPLES = """
\b
Examples:
  hyperpod-eks create demo --local         the whole life of a cluster,
  hyperpod-eks status demo --local         on the embedded stack,
  hyperpod-eks delete demo --local --yes   with no AWS account
  hyperpod-eks create -f cluster.yaml      the same on AWS
"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXAMPLES,
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Create, look at and delete a SageMaker HyperPod cluster orchestrated by Amazon EKS."""


def shared(command: F) -> F:
    """Add the options that create, status and delete share."""
    for option in reversed(
        [
            click.argument("name", required=False),
            click.option(
                "-f", "--file", metavar="FILE", help="Config file; - reads standard input."
            ),
            click.option("--local", is_flag=True, help="Use the embedded stack instead of AWS."),
            click.option("--region", help="AWS region."),
            click.option("--profile", help="Profile of the AWS configuration."),
            click.option(
                "--manifest",
                type=click.Path(path_type=Path),
                help="Where the state is kept.  [default: ./NAME.hyperpod-eks.json]",
            ),
            click.option(
                "-o",
                "--output",
                type=click.Choice(["text", "json"]),
                default="text",
                envvar="HYPERPOD_EKS_OUTPUT",
                show_default=True,
                help="Form of the document on stdout.",
            ),
            click.option(
                "--parallelism",
                type=click.IntRange(1, 64),
                default=8,
                show_default=True,
                help="Calls to AWS at the same time.",
            ),
        ]
    ):
        command = option(command)
    return command


progress = click.option(
    "--progress",
    type=click.Choice(["auto", "live", "plain", "none"]),
    default="auto",
    show_default=True,
    help="How to tell what happens, on stderr.",
)
lock_timeout = click.option(
    "--lock-timeout",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait for another run on the same manifest.",
)


@main.command(epilog="Exit codes and the JSON document: docs/pipelines.md")
@shared
@progress
@lock_timeout
@click.option("--kubernetes-version", metavar="1.N", help="Kubernetes version of a new cluster.")
@click.option(
    "--chart",
    metavar="PATH",
    help="HyperPod Helm chart, or a checkout that has it, instead of the pinned download.",
)
@click.option("--lifecycle", metavar="PATH", help="Folder of lifecycle scripts.")
@click.option("--helm", metavar="PATH", help="The helm program.  [default: helm on PATH]")
@click.option(
    "--replace-failed", is_flag=True, help="Delete what AWS calls failed and make it again, once."
)
def create(**options: Any) -> None:
    """Make the cluster NAME, or what is missing of it; run again, it continues.

    With no config file it is the minimal cluster: two ml.m5.2xlarge with 500 GB each.  Without
    -f, a cluster that exists keeps the config of its last create.
    """
    _tell("create", options)


@main.command()
@shared
def status(**options: Any) -> None:
    """Show the cluster NAME: resources, health, nodes, and what differs from its declaration."""
    _tell("status", options)


@main.command()
@shared
@progress
@lock_timeout
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--keep",
    metavar="WHAT,...",
    default="",
    help="Leave standing: bucket, logs, network.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would go and what would stay.")
def delete(**options: Any) -> None:
    """Take the cluster NAME away, with everything that create made, and prove that it is gone."""
    _tell("delete", options)


@main.command()
@shared
@lock_timeout
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="KEY=ID",
    help="Use this existing resource in place of one that create would make.",
)
@click.option("--rebuild", is_flag=True, help="Make a lost or broken manifest anew.")
def adopt(**options: Any) -> None:
    """Put existing resources into the manifest of the cluster NAME.

    What is adopted by id is used as it is: never changed, never deleted.  Keys: network/vpc,
    network/internet-gateway, network/security-group, network/private-subnet-ZONEID,
    iam/cluster-role, iam/execution-role, s3/bucket, eks/cluster.

    --rebuild finds what create made by names and tags and writes a new manifest; a broken one is
    kept beside it.
    """
    _tell("adopt", options)


@main.command()
@click.option("--local", is_flag=True, help="Use the embedded stack instead of AWS.")
@click.option("--region", help="AWS region.")
@click.option("--profile", help="Profile of the AWS configuration.")
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Manifest of a cluster that is known.  [default: *.hyperpod-eks.json here]",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def orphans(output: str, **options: Any) -> None:
    """List what carries our tags and stands in no manifest.  Nothing is changed."""
    from hyperpod_eks.cli import commands  # noqa: PLC0415

    _print(output, commands.orphans(**options))


main.add_command(local_group)


def _tell(verb: str, options: dict[str, Any]) -> None:
    """Run a command while its progress is told, then print its document.

    The first line is out before anything heavy is imported.
    """
    from hyperpod_eks import progress  # noqa: PLC0415

    kind, output = options.pop("progress", "none"), options.pop("output")
    options.setdefault("lock_timeout", 0.0)
    title = f"hyperpod-eks {verb} {options['name'] or options['file'] or ''}".rstrip()
    with progress.choose(sys.stderr, os.environ, kind, title) as report:
        from hyperpod_eks.cli import commands  # noqa: PLC0415

        document = getattr(commands, verb)(report, **options)
    _print(output, document)


def _print(output: str, document: dict[str, Any]) -> None:
    from hyperpod_eks.cli import commands  # noqa: PLC0415

    click.echo(json.dumps(document, indent=2) if output == "json" else commands.text(document))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; every error ends as words on stderr.

    In JSON mode the error is a document on stdout as well.
    """
    from hyperpod_eks.cli.stop import Interrupted  # noqa: PLC0415

    try:
        left = main.main(list(arguments), prog_name="hyperpod-eks", standalone_mode=False)
        return left if isinstance(left, int) else Exit.OK
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.Abort:
        click.echo("aborted", err=True)
        return Exit.USAGE
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Interrupted as stop:
        return _fail(arguments, stop.code, str(stop), stop.hint, type(stop).__name__)
    except HyperpodError as error:
        notes = getattr(error, "__notes__", [])
        message = "\n".join([str(error), *notes])
        return _fail(arguments, error.exit, message, error.hint, type(error).__name__)
    except Exception as error:  # noqa: BLE001  whatever it is, the user gets words
        return _unforeseen(arguments, error)


def _fail(arguments: Sequence[str], code: int, message: str, hint: str, kind: str) -> int:
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(hint, err=True)
    if _wants_json(arguments):
        document = {
            "schema": "hyperpod-eks/result/v1",
            "ok": False,
            "exit_code": int(code),
            "error": {"class": kind, "message": message, "hint": hint},
        }
        click.echo(json.dumps(document))
    return int(code)


def _wants_json(arguments: Sequence[str]) -> bool:
    given = [*arguments, os.environ.get("HYPERPOD_EKS_OUTPUT", "")]
    return any(x in ("json", "-ojson", "--output=json") for x in given)


def _unforeseen(arguments: Sequence[str], error: Exception) -> int:
    """What we did not foresee: credentials first, then AWS's refusals, then bugs with a log."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    from hyperpod_eks.aws import meaning  # noqa: PLC0415
    from hyperpod_eks.retry import Class  # noqa: PLC0415

    kind = meaning(error)
    if kind in (Class.EXPIRED, Class.DENIED):
        hint = "Nothing is lost: renew or correct the credentials and run the same command again."
        return _fail(arguments, Exit.DENIED, str(error), hint, "Denied")
    if isinstance(error, BotoCoreError | ClientError):
        return _fail(arguments, Exit.FAILED, str(error), "Run the same command again.", "Aws")
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"hyperpod-eks-{os.getpid()}.log"  # noqa: S108
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        traceback.print_exception(error, file=out)
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    hint = f"This is a bug of hyperpod-eks; please report it with {log}."
    return _fail(arguments, Exit.BUG, f"{type(error).__name__}: {error}{notes}", hint, "Bug")
