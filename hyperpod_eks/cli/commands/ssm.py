"""``hyperpod-eks ssm``: print or run the command that opens a shell on a node."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log
from hyperpod_eks.cli.documents import called, head
from hyperpod_eks.cli.options import argument, flag
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.options import Place
    from hyperpod_eks.cli.schemas.views import Ssm
    from hyperpod_eks.events import Report


@frozen
class Options(shared.Cluster):
    """Options of ssm."""

    node: str | None = argument()
    run: bool = flag("--run", help="Open the session instead of printing its command.")


def ssm(options: Options, report: Report) -> Ssm:
    """Print the command that opens a shell on a node.

    NODE is an instance id (i-...) or a Kubernetes node name (hyperpod-i-...).  The command needs
    the AWS CLI and its Session Manager plugin.
    """
    from hyperpod_eks.cli.lookup import cluster

    node = options.node
    if node is None and options.name and options.named_otherwise:  # a single argument is the node
        node, options = options.name, replace(options, name=None)
    if node is None:
        see = called(options.name or "", options)
        raise Usage("ssm: NODE is missing", f"To list them: hyperpod-eks nodes {see}")
    with cluster(options) as (snapshot, name):
        target = _target(snapshot, name, node, options)
        command = ["aws", "ssm", "start-session", "--target", target]
        command += ["--region", str(snapshot.aws.region)]
        command += ["--profile", options.profile] if options.profile else []
    if options.run:
        _become(command)
    run = shlex.join(command)
    return {**head("ssm"), "cluster": {"name": name}, "target": target, "run": run}


def _target(snapshot: Snapshot, name: str, node: str, place: Place) -> str:
    """Return the node's Systems Manager target.  Raises NotFound if it does not exist."""
    from hyperpod_eks.cli.lookup import described, described_node, instance

    found, id_ = described(snapshot, name, place), instance(node)
    details = described_node(snapshot, name, id_, place)
    cluster_id = found["ClusterArn"].rpartition("/")[2]
    return f"sagemaker-cluster:{cluster_id}_{details['InstanceGroupName']}-{id_}"


def _become(command: list[str]) -> None:
    """Replace this process with the session, so that the session owns the terminal."""
    from hyperpod_eks.programs import on_path

    program = on_path(command[0])
    if program is None:
        raise Usage(
            "--run: the AWS CLI (aws) is not on PATH",
            "Install the AWS CLI and its Session Manager plugin, or omit --run.",
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, command)  # noqa: S606  the user asked for it


def text(document: Ssm) -> str:
    """Return the command."""
    return str(document["run"])


command = define(
    "ssm",
    Options,
    ssm,
    text,
    """
    hyperpod-eks ssm demo i-0ab12cd34ef56ab78
    hyperpod-eks ssm demo i-0ab12cd34ef56ab78 --run
    """,
    log=Log.IF_IT_FAILS,
)
