"""The command line: options in, one document on stdout, progress on stderr, an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperpod_eks import __version__
from hyperpod_eks.cli.console import Console, current_console, no_stdout, say
from hyperpod_eks.cli.examples import illustrate
from hyperpod_eks.cli.options import (
    account,
    declared,
    detailed,
    lock_timeout,
    named,
    progress,
    shared,
    skip,
    speaking,
    tail,
    timeout,
)
from hyperpod_eks.errors import Exit, HyperpodError
from hyperpod_eks.terminal.text import shortened

if TYPE_CHECKING:
    from hyperpod_eks.cli.signals import Interrupted

OTHERS = 500
"""Characters of others' words in an error."""
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


@main.command()
@shared
@progress
@lock_timeout
@timeout
@declared
@skip
@click.option(
    "--helm",
    metavar="PATH",
    help="The helm program.  [default: $HYPERPOD_EKS_HELM, else helm on PATH]",
)
@click.option(
    "--replace-failed", is_flag=True, help="Delete what AWS calls failed and make it again, once."
)
@click.option(
    "-y", "--yes", is_flag=True, help="Do not ask before nodes, data or protection are removed."
)
@click.option(
    "--run",
    metavar="ID",
    envvar="HYPERPOD_EKS_RUN",
    default="",
    help="Record that this run created the cluster, for `delete --if-created-by`.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would be done, as `plan` does.")
@detailed
def create(dry_run: bool, detailed_exitcode: bool, yes: bool, run: str, **options: Any) -> int:
    """Make the cluster NAME, or what is missing of it.  Run again, it continues.

    With no config file it is the minimal cluster: two ml.m5.2xlarge with 500 GB each.  Without
    -f, a cluster that exists keeps the config of its last create; if that is not here, nothing
    is changed.
    """
    if dry_run:
        return _tell("plan", options | {"detailed_exitcode": detailed_exitcode})
    if detailed_exitcode:
        raise click.UsageError("--detailed-exitcode goes with --dry-run")
    return _tell("create", options | {"yes": yes, "run": run})


@main.command()
@shared
@progress
@lock_timeout
@timeout
@skip
@click.argument("counts", nargs=-1, metavar="GROUP=COUNT...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before nodes go.")
def scale(**options: Any) -> int:
    """Give instance groups another number of nodes.

    GROUP=COUNT of the cluster NAME, or several.  With -f, the count is written back into the file,
    whose other bytes all stay; without, into the config that the manifest keeps.
    """
    return _tell("scale", options)


@main.command("update-software")
@shared
@progress
@lock_timeout
@timeout
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="Only this group.")
@click.option("--release", metavar="X.Y.Z", help="Release of HyperPod's AMI.  [default: newest]")
@click.option("--batch", type=click.IntRange(min=1), help="How many nodes of a group at a time.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before nodes are renewed.")
def update_software(**options: Any) -> int:
    """Give the nodes the newest software, the kubelet included.

    Pods are not drained before it, and root volumes are replaced.
    """
    return _tell("update_software", options, "scale")


@main.command()
@shared
@declared
@click.option("--replace-failed", is_flag=True, help="Plan for a create with this option.")
@detailed
def plan(**options: Any) -> int:
    """Tell what `create` would do, and what it costs.

    Resource by resource of the cluster NAME; nothing is changed and nothing is written.  The
    actions: create, change (with the fields that differ), replace, delete, keep, adopt, wait,
    refuse (where create would stop).
    """
    return _tell("plan", options)


@main.command()
@shared
@declared
@skip
@click.option(
    "--helm",
    metavar="PATH",
    help="The helm program.  [default: $HYPERPOD_EKS_HELM, else helm on PATH]",
)
def preflight(**options: Any) -> int:
    """Find everything at once that would make `create` fail.

    Nothing is changed.  Exit code 3 when there is an error; warnings and infos leave it at 0.
    `create` begins with the same checks.
    """
    return _tell("preflight", options)


@main.command()
@shared
def policy(**options: Any) -> int:
    """Print the IAM policies that whoever runs this needs.

    For create, status and delete of the cluster NAME: they allow what this cluster needs and
    nothing more; docs/iam.md says how to use them.
    """
    return _tell("policy", options)


@main.command()
@shared
@click.option("--group", metavar="GROUP", help="Only the nodes of this instance group.")
@click.option("--node", metavar="NODE", help="Only this node: i-… or hyperpod-i-….")
@click.option("--control-plane", is_flag=True, help="The logs of the EKS control plane instead.")
@tail
@click.option("--follow", is_flag=True, help="Go on printing what comes, until Ctrl-C.")
def logs(**options: Any) -> int:
    """Show the end of the nodes' lifecycle logs, newest last.

    Of many nodes, the twenty that wrote last are read.
    """
    return _tell("logs", options)


@main.command()
@shared
@click.option("--group", metavar="GROUP", help="Only events of this instance group.")
@click.option("--node", metavar="NODE", help="Only events of this node.")
@click.option("--since", metavar="DURATION", help="Only newer ones: 30m, 2h, 1d.")
@tail
def events(**options: Any) -> int:
    """Show HyperPod's events of the cluster NAME, newest last."""
    return _tell("events", options, "logs")


@main.command()
@shared
@click.argument("action", metavar="[reboot|replace]", required=False)
@click.argument("which", metavar="[NODE]...", nargs=-1)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def nodes(**options: Any) -> int:
    """Show the nodes of the cluster NAME, or mend some.

    Status, readiness and health; or reboot or replace those that are named.  What runs on a node
    stops when it is rebooted; a replaced one loses its disks too.
    """
    return _tell("nodes", options)


@main.command()
@shared
@click.argument("node", metavar="NODE", required=False)
@click.option("--run", is_flag=True, help="Open the session instead of printing its command.")
def ssm(**options: Any) -> int:
    """Print the command that opens a shell on a NODE (i-…).

    It needs the AWS CLI and its Session Manager plugin.
    """
    return _tell("ssm", options, "nodes")


@main.command()
@shared
@click.option("--offline", is_flag=True, help="What the manifest says; AWS is not asked.")
def status(offline: bool, **options: Any) -> int:
    """Show the cluster NAME: resources, health, nodes, drift."""
    return _tell("offline", options, "outputs") if offline else _tell("status", options)


@main.command()
@named
@click.argument("key", required=False)
@account
@speaking
def outputs(**options: Any) -> int:
    """Print values of the cluster NAME for scripts.

    All of them, or that of KEY.  They come from the manifest; AWS is not asked.  With -o env they
    are assignments, safe for eval; -o dotenv and -o github fit files of CI systems.
    """
    return _tell("outputs", options)


@main.command()
@named
@account
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Merge into this file.  [default: $KUBECONFIG, else ./NAME.kubeconfig]",
)
@click.option("--stdout", is_flag=True, help="Print it instead.")
@speaking
def kubeconfig(**options: Any) -> int:
    """Write a kubeconfig, with which kubectl and helm get in.

    Like `aws eks update-kubeconfig`: entries are named after the cluster's ARN.  Every other byte
    of the file stays; the file is written with mode 0600.  `delete` removes the entry from
    ./NAME.kubeconfig and $KUBECONFIG, and ./NAME.kubeconfig if nothing else is in it.
    """
    return _tell("kubeconfig", options)


@main.command()
@click.argument("name")
@account
@speaking
def token(**options: Any) -> int:
    """Print a token for the EKS cluster NAME.

    kubectl asks for it, as from any exec plugin.
    """
    return _tell("token", options, "kubeconfig")


@main.command()
@click.argument("name", required=False)
@click.option("-f", "--file", metavar="FILE", help="Where to; - is stdout.  [default: ./NAME.yaml]")
@click.option("--region", help="AWS region.")
@click.option("--instance-type", metavar="ml.TYPE", help="Type of the nodes.")
@click.option("--instance-count", type=click.IntRange(0), metavar="N", help="How many nodes.")
@click.option("--kubernetes-version", metavar="1.N", help="Kubernetes version.")
@click.option(
    "--nat",
    type=click.Choice(["single", "per-az"]),
    default="single",
    show_default=True,
    help="One NAT gateway, or one in each zone.",
)
@speaking
def init(**options: Any) -> int:
    """Write a config file to start from.  Each setting has a word about it.

    On a terminal it asks for what no option says.  A file that exists is not touched.
    """
    return _tell("init", options)


@main.command()
@click.option("-f", "--file", required=True, metavar="FILE", help="Config file; - reads stdin.")
@click.option("--name", help="Name of the cluster, instead of the file's.")
@click.option("--region", help="AWS region, instead of the file's.")
@declared
@speaking
def validate(**options: Any) -> int:
    """Check a config file, and the folders that it names.

    Neither AWS nor the network is asked.
    """
    return _tell("validate", options, "validate")


@main.command()
@click.option(
    "--document",
    "kind",
    metavar="KIND",
    default="config",
    help="A document's instead of the config's: result, status, plan, outputs, ...",
)
@speaking
def schema(**options: Any) -> int:
    """Print the JSON Schema of the config file or a document."""
    return _tell("schema", options, "validate")


@main.command()
@speaking
def version(**options: Any) -> int:
    """Print the version, and the versions of what it stands on."""
    return _tell("version", options, "validate")


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete our words."""
    from hyperpod_eks.cli.commands import validate as info  # noqa: PLC0415

    click.echo(info.completion(shell, main))


@main.command()
@shared
@progress
@lock_timeout
@timeout
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--keep",
    metavar="WHAT,...",
    default="",
    help="Leave standing: bucket, logs, network.",
)
@click.option(
    "--if-created-by",
    metavar="ID",
    help="Delete only what `create --run ID` created, by its manifest; otherwise exit 0.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would go and what would stay.")
def delete(**options: Any) -> int:
    """Take the cluster NAME away, and prove that it is gone.

    Everything that create made goes; what was adopted stays.
    """
    return _tell("delete", options)


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
def adopt(**options: Any) -> int:
    """Put existing resources into the cluster's manifest.

    What is adopted by id is used as it is: never changed, never deleted.  Keys: network/vpc,
    network/internet-gateway, network/security-group, network/private-subnet-ZONEID,
    iam/cluster-role, iam/execution-role, s3/bucket, eks/cluster.

    --rebuild finds what create made by names and tags and writes a new manifest; a broken one is
    kept beside it.  The config comes from -f, else from the newest backup of the manifest.
    """
    return _tell("adopt", options)


@main.command("list")
@account
@click.option("--all-regions", is_flag=True, help="Ask every enabled region that has HyperPod.")
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Manifest of a cluster that is known.  [default: *.hyperpod-eks.json here]",
)
@speaking
def list_(**options: Any) -> int:
    """List all HyperPod clusters of the account.

    Status, running and wanted nodes, Kubernetes version, who created it (hyperpod-eks, hyp,
    cloudformation, which the console uses too, terraform, or unknown, as far as tags show), USD per
    hour of nodes and control plane, and where its manifest is, if it is here.
    """
    return _tell("list_clusters", options, "list")


@main.command()
@account
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Manifest of a cluster that is known.  [default: *.hyperpod-eks.json here]",
)
@speaking
def orphans(**options: Any) -> int:
    """List what carries our tags and belongs to no cluster.  Nothing is changed.

    What a cluster that exists uses is no orphan, wherever its manifest is.
    """
    return _tell("orphans", options)


@main.group()
def local() -> None:
    """Run an AWS account on this machine, for --local."""


@local.command()
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="Simulated seconds per real second.  [default: 60]",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 takes a free one.")
@speaking
def start(**options: Any) -> int:
    """Start the stack in the background, unless it runs."""
    return _tell("start", options, "local")


@local.command("status")
@speaking
def local_status(**options: Any) -> int:
    """Show the stack that runs."""
    return _tell("status", options, "local")


@local.command()
@speaking
def stop(**options: Any) -> int:
    """End the stack; everything in it is gone."""
    return _tell("stop", options, "local")


@local.command()
@click.option("-f", "--file", required=True, metavar="FILE", help="Config file; - reads stdin.")
@click.option("--name", help="Name of the cluster, instead of the file's.")
@click.option("--region", help="AWS region, instead of the file's.")
@click.option("--helm", metavar="FILE", help="The helm program.  [default: the one on PATH]")
@speaking
def prepare(**options: Any) -> int:
    """Create in the stack what a config expects to exist.

    That is what `existing` names (VPC, EKS cluster and Helm release), roles of `eks.access`,
    training plans, and quotas.  Run again, it creates what is missing.
    """
    return _tell("prepare", options, "local")


@local.command()
def env() -> None:
    """Print shell lines that point AWS clients at the stack.

    Use them so: eval "$(hyperpod-eks local env)"
    """
    from hyperpod_eks.cli.commands.local import environment  # noqa: PLC0415  --help needs none of it

    click.echo(environment())


illustrate(main)


def _tell(verb: str, options: dict[str, Any], module: str = "") -> int:
    """Run a command while its progress is told, then print its document; return the exit code.

    ``cli.commands.MODULE``, by default the one of the command's name, has a function of that
    name, which gets the report and the options and returns the document, and ``text``, which writes
    such a document for people.
    """
    console = current_console()
    with console.telling(verb, options) as report:
        chosen = import_module(f"hyperpod_eks.cli.commands.{module or verb}")
        document = getattr(chosen, verb)(report, **options)
    return console.say(document, chosen.text)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; every error ends as words on stderr.

    For whoever wants JSON or YAML the error is a document on stdout as well.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # replaced or closed by whoever calls us
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    console = Console(arguments)
    try:
        return _run(console)
    finally:
        console.close()


def _run(console: Console) -> int:
    from hyperpod_eks.cli.signals import Interrupted  # noqa: PLC0415

    try:
        left = main.main(
            list(console.words), prog_name="hyperpod-eks", standalone_mode=False, obj=console
        )
        return left if isinstance(left, int) else Exit.OK
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.Abort as aborted:
        if aborted.__cause__ is None:  # it left a question, whose line is not ended
            say("")
        if isinstance(aborted.__cause__ or aborted.__context__, KeyboardInterrupt):
            return _stopped(console, Interrupted(Exit.INTERRUPTED - 128))
        return console.fail(Exit.USAGE, "aborted; nothing was changed", kind="Usage")
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message())
        return Exit.USAGE
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx:
            hint = f"{error.ctx.get_usage()}\nMore: {error.ctx.command_path} --help"
        return console.fail(Exit.USAGE, error.format_message(), hint, "Usage")
    except BrokenPipeError:
        no_stdout()
        return Exit.FAILED
    except Interrupted as stop:
        return _stopped(console, stop)
    except HyperpodError as error:
        notes = getattr(error, "__notes__", [])
        message = "\n".join([str(error), *notes])
        return console.fail(error.exit, message, error.hint, type(error).__name__, error)
    except Exception as error:  # noqa: BLE001  whatever it is, the user gets words
        return _unforeseen(console, error)


def _refused_by_the_system(console: Console, error: OSError) -> int:
    """What the operating system refuses is the user's to correct: a name, a place, a full disk."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    if error.filename is None and full:
        no_stdout()  # what is buffered would fail once more when Python ends
        return console.fail(
            Exit.FAILED, f"cannot write to stdout: {error.strerror}", "Make room.", "HyperpodError"
        )
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    code = Exit.FAILED if full else Exit.USAGE
    kind = "HyperpodError" if full else "Usage"
    return console.fail(code, f"{where}{error.strerror}", "", kind, error)


def _stopped(console: Console, stop: Interrupted) -> int:
    lines = [f"To continue: {console.again}"]
    if console.command == "create":
        lines += [
            f"To delete it instead: {console.called('delete')}",
            "AWS continues, and bills, what was started.",
        ]
    return console.fail(stop.code, str(stop), "\n".join(lines), "Interrupted")


def _unforeseen(console: Console, error: Exception) -> int:
    """What we did not foresee: credentials first, then AWS's refusals, then bugs with a log."""
    import traceback  # noqa: PLC0415  --help needs none of it

    from hyperpod_eks.aws.client import classify  # noqa: PLC0415
    from hyperpod_eks.aws.errors import ErrorKind, renewal  # noqa: PLC0415
    from hyperpod_eks.aws.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from hyperpod_eks.policy import authorization  # noqa: PLC0415

    kind, message = classify(error), shortened(str(error), OTHERS)
    if kind in (ErrorKind.EXPIRED, ErrorKind.DENIED):
        hint = authorization.cure(error) or renewal(str(error))
        return console.fail(Exit.DENIED, message, hint, "Denied", error)
    if kind or isinstance(error, BotoCoreError | ClientError):
        final = isinstance(error, ClientError) and kind is None  # the same would be refused again
        hint = "" if final else "Run the same command again."
        return console.fail(Exit.FAILED, message, hint, "Aws", error)
    if isinstance(error, OSError) and error.strerror:
        return _refused_by_the_system(console, error)
    if isinstance(error, MemoryError) or "can't start new thread" in message:
        hint = "Raise its limits (ulimit, those of the container), and run the same command again."
        text = "this machine has no more threads or memory for this process"
        return console.fail(Exit.FAILED, text, hint, "HyperpodError", error)
    if isinstance(error, UnicodeError):
        hint = f"Use names that the locale can spell (now {sys.getfilesystemencoding()})."
        return console.fail(
            Exit.USAGE, f"a name or a file is not text: {message}", hint, "Usage", error
        )
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    if not (console.log and console.log.path):
        say("".join(traceback.format_exception(error)).rstrip())
    hint = "This is a bug of hyperpod-eks; please report it with what stands in the log."
    return console.fail(Exit.BUG, f"{type(error).__name__}: {error}{notes}", hint, "Bug", error)
