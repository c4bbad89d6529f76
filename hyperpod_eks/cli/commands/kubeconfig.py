"""``hyperpod-eks kubeconfig`` and ``token``: the way into the cluster's Kubernetes API."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hyperpod_eks.aws.client import Aws, Snapshot, read_only, region_of
from hyperpod_eks.aws.session import profile_of
from hyperpod_eks.cli.commands.local import use_local
from hyperpod_eks.cli.commands.outputs import remembered
from hyperpod_eks.cli.documents import Document, head
from hyperpod_eks.cli.login import log_in
from hyperpod_eks.errors import NotFound, Unfinished, Usage
from hyperpod_eks.events import Report
from hyperpod_eks.kube import client as kube
from hyperpod_eks.kube import kubeconfig as files
from hyperpod_eks.resources import eks

LIFE = timedelta(minutes=14)
"""How long kubectl keeps a token; EKS takes it for fifteen minutes."""


def kubeconfig(tell: Report, stdout: bool, kubeconfig: Path | None, **given: Any) -> Document:
    """Write an entry for the cluster, into a file of its own or a given one.

    Returns what was written where, or with ``stdout`` the kubeconfig itself.
    """
    name, path, region, cluster_name = _place(**given)
    if given["local"]:
        use_local()
    aws = Aws(log_in(given["region"] or region, given["profile"]), name, {})
    read_only(aws.session)
    found = eks.describe(Snapshot(aws), name)
    where = f"in {aws.identity.region} of account {aws.identity.account}"
    if not found:
        raise NotFound(f"there is no EKS cluster {name} {where}")
    cluster = found[0]
    if cluster["status"] not in ("ACTIVE", "UPDATING"):
        raise Unfinished(
            f"the EKS cluster {name} {where} is {cluster['status']}",
            "Its endpoint answers once it is ACTIVE: run the same command again.",
        )
    profile = profile_of(aws.session)
    entry = files.Entry(
        name,
        cluster["arn"],
        aws.identity.region,
        cluster["endpoint"],
        cluster["certificateAuthority"]["data"],
        profile,
        given["local"],
        {} if given["local"] else files.variables(),
    )
    new = files.document(entry)
    if stdout:
        return new
    target = kubeconfig or files.choose(files.paths(), entry.arn)
    shared, target = target is not None, target or files.own_file(path, cluster_name, entry.arn)
    files.add(target, new)
    return head("kubeconfig") | {
        "cluster": {"name": name, "arn": entry.arn},
        "path": str(target),
        "context": entry.arn,
        "merged": shared,
    }


def _place(
    name: str | None, file: str | None, manifest: Path | None, **_: Any
) -> tuple[str, Path, str | None, str]:
    """Find the EKS cluster's name, the manifest's path, the region if known, and the cluster's."""
    try:
        known = remembered(name, file, manifest)
    except NotFound:
        if not name:
            raise
        return name, manifest or Path(f"{name}.hyperpod-eks.json"), None, name
    eks_name = known.adopted.get("eks/cluster") or known.cluster
    return eks_name, known.path, known.region, known.cluster


def token(
    tell: Report, name: str, local: bool, region: str | None, profile: str | None
) -> Document:
    """Make an ``ExecCredential`` for kubectl; no network call is made."""
    if not re.fullmatch(r"[0-9A-Za-z][\w-]{0,99}", name, re.ASCII):  # CreateCluster.name
        raise Usage(f"invalid EKS cluster name {name!r}", "Use letters, digits, - and _.")
    if local:
        use_local()
    opened = log_in(region, profile)
    try:
        version = json.loads(os.environ["KUBERNETES_EXEC_INFO"])["apiVersion"]
    except (KeyError, ValueError, TypeError):
        version = "client.authentication.k8s.io/v1beta1"
    return {
        "kind": "ExecCredential",
        "apiVersion": version,
        "spec": {},
        "status": {
            "expirationTimestamp": (datetime.now(UTC) + LIFE).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "token": kube.token(opened, name, region_of(opened)),
        },
    }


def text(document: Document) -> str:
    """Say where the entry is; a kubeconfig as YAML, a token as JSON, as kubectl reads them."""
    if document.get("kind") == "ExecCredential":
        return json.dumps(document)
    if document.get("kind") == "Config":
        import yaml  # noqa: PLC0415

        return str(yaml.safe_dump(document, sort_keys=False))
    path = document["path"]
    use = "" if document["merged"] else f"\nTo use it: export KUBECONFIG={Path(path).absolute()}"
    return f"{path} has the context {document['context']}{use}"
