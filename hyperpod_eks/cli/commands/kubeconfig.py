"""``hyperpod-eks kubeconfig``: write access to the cluster's Kubernetes API to a kubeconfig."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import Output, Place, flag, option
from hyperpod_eks.errors import NotFound, Unfinished
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws
    from hyperpod_eks.cli.schemas.base import Json
    from hyperpod_eks.cli.schemas.views import Kubeconfig
    from hyperpod_eks.events import Report
    from hyperpod_eks.kube.kubeconfig import Entry
    from hyperpod_eks.state.manifest import Manifest


@frozen
class Options(Place, Output):
    """Options of kubeconfig."""

    kubeconfig: Path | None = option(
        "--kubeconfig",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Merge into this file.  [default: $KUBECONFIG, or ./NAME.kubeconfig]",
    )
    stdout: bool = flag("--stdout", help="Print the kubeconfig instead.")


def kubeconfig(options: Options, report: Report) -> Kubeconfig | Json:
    """Write a kubeconfig for kubectl and helm.

    As with `aws eks update-kubeconfig`, the entries are named after the cluster ARN.  The rest of
    the file is unchanged; the file is written with mode 0600.  delete removes the entry from
    ./NAME.kubeconfig and $KUBECONFIG, and deletes ./NAME.kubeconfig if it is then empty.
    """
    from hyperpod_eks.cli.login import reading
    from hyperpod_eks.cli.remembered import naming_local
    from hyperpod_eks.kube import kubeconfig as files

    name, known = find(options)
    with naming_local(known):
        aws = reading(options, name, known.region)
    entry = _entry(aws, name, local=options.local)
    new = files.document(entry)
    if options.stdout:
        return new
    target = options.kubeconfig or files.choose(files.paths(), entry.arn)
    shared = target is not None
    target = target or files.own_file(known.store.folder, known.cluster, entry.arn)
    files.add(target, new)
    return {
        **head("kubeconfig"),
        "cluster": {"name": name, "arn": entry.arn},
        "path": str(target),
        "context": entry.arn,
        "merged": shared,
    }


def _entry(aws: Aws, name: str, *, local: bool) -> Entry:
    """Describe the EKS cluster.  Raises NotFound without one, Unfinished without an endpoint."""
    from hyperpod_eks.aws.session import profile_of
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.kube import kubeconfig as files
    from hyperpod_eks.resources import eks

    found = eks.describe(Snapshot(aws), name)
    where = f"in {aws.identity.region} of account {aws.identity.account}"
    if not found:
        raise NotFound(f"EKS cluster {name} does not exist {where}")
    cluster = found[0]
    if cluster["status"] not in ("ACTIVE", "UPDATING"):
        raise Unfinished(
            f"the EKS cluster {name} {where} is {cluster['status']}",
            "Its endpoint answers once it is ACTIVE: run the same command again.",
        )
    return files.Entry(
        name,
        cluster["arn"],
        aws.identity.region,
        cluster["endpoint"],
        cluster["certificateAuthority"]["data"],
        profile_of(aws.session),
        local,
        {} if local else files.variables(),
    )


def find(place: Place) -> tuple[str, Manifest]:
    """Return the name of the EKS cluster, and the manifest; with a NAME it need not exist."""
    from hyperpod_eks.cli.remembered import remembered

    known = remembered(replace(place, region=None), absent=bool(place.name))
    return known.adopted.get("eks/cluster") or known.cluster, known


def text(document: Kubeconfig | Json) -> str:
    """Return a message about the entry; a kubeconfig itself as YAML."""
    if document.get("kind") == "Config":
        import yaml

        return str(yaml.safe_dump(document, sort_keys=False))
    path = document["path"]
    use = "" if document["merged"] else f"\nTo use it: export KUBECONFIG={Path(path).absolute()}"
    return f"{path} has the context {document['context']}{use}"


command = define(
    "kubeconfig",
    Options,
    kubeconfig,
    text,
    """
    hyperpod-eks kubeconfig demo                   writes ./demo.kubeconfig
    hyperpod-eks kubeconfig demo --kubeconfig ~/.kube/config
    hyperpod-eks kubeconfig demo --stdout > k && kubectl --kubeconfig k get nodes
    """,
    log=Log.IF_IT_FAILS,
)
