"""The table of all commands.  A command's module is imported when the command is invoked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click

from hyperpod_eks import __version__
from hyperpod_eks.cli.help import Context

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Table = dict[str, dict[str, str]]

COMMANDS: Table = {
    "Cluster": {
        "preflight": "Find every problem that would stop create.",
        "policy": "Print the IAM policies that a user of this tool needs.",
        "plan": "Show what create would do, and what it costs.",
        "create": "Create cluster NAME, or the parts of it that are missing.",
        "status": "Show cluster NAME: resources, health, nodes, drift.",
        "test": "Test whether cluster NAME works.",
        "diagram": "Draw cluster NAME as SVG.",
        "report": "Write cluster NAME as an HTML page.",
        "outputs": "Print values of cluster NAME for scripts.",
        "config": "Print the config of cluster NAME.",
        "kubeconfig": "Write a kubeconfig for kubectl and helm.",
        "token": "Print a token for the Kubernetes API.",
        "list": "List all HyperPod clusters in the region.",
        "export": "Write the cluster for another tool, to leave this one.",
        "adopt": "Add existing resources to the manifest.",
        "delete": "Delete cluster NAME and verify that nothing is left.",
        "unlock": "Free a cluster that a dead run still holds.",
        "orphans": "List this tool's resources that belong to no existing cluster.",
    },
    "Nodes": {
        "nodes": "List, reboot, replace, check or delete nodes.",
        "scale": "Change the number of nodes in instance groups.",
        "update-software": "Update the software of the nodes.",
        "logs": "Show the lifecycle logs of the nodes.",
        "events": "Show the HyperPod events of cluster NAME.",
        "ssm": "Print the command that opens a shell on a node.",
    },
    "Config file": {
        "init": "Write a config file to start from.",
        "mirror": "Copy the images of the charts to ECR, for networks without internet.",
        "capacity": "Search training plans: capacity that is paid in advance.",
        "validate": "Check a config file and the folders that it names.",
        "schema": "Print the JSON Schema of the config file or a document.",
    },
    "Embedded stack": {"local": "Run the emulated AWS account that --local uses."},
    "Other": {
        "explain": "Explain an exit code or the cause of an error.",
        "completion": "Generate a shell completion script.",
        "version": "Print the version of hyperpod-eks and its packages.",
    },
}
"""Commands by heading, in the order of use, each with the first sentence of its help."""
EXAMPLES = """
\b
Examples:
  hyperpod-eks create demo --local         create a cluster, without AWS
  hyperpod-eks status demo --local         show it
  hyperpod-eks delete demo --local --yes   delete it
  hyperpod-eks create -f cluster.yaml      create a cluster on AWS
"""


class Group(click.Group):
    """A group that shows its help when no command is given, and names similar ones."""

    context_class = Context

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Treat an empty command line as ``--help``."""
        return super().parse_args(ctx, args or ["--help"] * (not ctx.resilient_parsing))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command.  Raises click.UsageError with similar names for an unknown one.

        Newer versions of click do so, but only where a group holds its commands.
        """
        name = args[0]
        if not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            from difflib import get_close_matches  # noqa: PLC0415  only for errors

            near = get_close_matches(name, self.list_commands(ctx))
            asked = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            ctx.fail(f"No such command {name!r}.{asked}")
        return super().resolve_command(ctx, args)


class Lazy(Group):
    """A group with the commands of a table; showing or completing their names imports none."""

    def __init__(self, table: Table, *, help: str, epilog: str) -> None:  # noqa: A002  click's name
        super().__init__(
            help=help,
            epilog=epilog,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )
        self.table = table

    def list_commands(self, ctx: click.Context | None = None) -> list[str]:
        """Return the names in the order of the table."""
        return [name for commands in self.table.values() for name in commands]

    def get_command(self, ctx: click.Context | None, cmd_name: str) -> click.Command | None:
        """Import a command from ``cli.commands``; return None if the table does not have it."""
        if cmd_name not in self.list_commands():
            return None
        module = import_module(f"hyperpod_eks.cli.commands.{cmd_name.replace('-', '_')}")
        found: click.Command = module.command
        return found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands before the options."""
        for heading, commands in self.table.items():
            with formatter.section(heading):
                formatter.write_dl(list(commands.items()))
        click.Command.format_options(self, ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete command names from the table."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  --help does not need it

        found = [
            CompletionItem(name, help=text)
            for commands in self.table.values()
            for name, text in commands.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


main = click.version_option(__version__, message="%(prog)s %(version)s")(
    Lazy(
        COMMANDS,
        help="Create, inspect and delete a SageMaker HyperPod cluster orchestrated by Amazon EKS.",
        epilog=EXAMPLES,
    )
)
