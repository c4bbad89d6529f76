"""``hyperpod-eks token``: print a token; kubectl runs this command as an exec plugin."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log
from hyperpod_eks.cli.options import Output, Place
from hyperpod_eks.errors import Usage
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.base import Json
    from hyperpod_eks.events import Report

LIFE = timedelta(minutes=14)
"""How long kubectl may reuse a token; EKS accepts it for fifteen minutes."""


@frozen
class Options(Place, Output):
    """Options of token."""


def token(options: Options, report: Report) -> Json:
    """Print a token for the Kubernetes API.

    NAME is the name of the EKS cluster.  Without NAME, the config file or the manifest gives the
    name.  kubectl runs this command as an exec plugin.  Does not use the network.
    """
    from hyperpod_eks.aws.session import new_client, region_of
    from hyperpod_eks.cli.login import log_in, use_local
    from hyperpod_eks.kube import access as kube

    name, region = options.name, None
    if name is None or options.file or options.manifest:
        from hyperpod_eks.cli.commands.kubeconfig import find

        name, known = find(options)
        region = known.region
    if not re.fullmatch(r"[0-9A-Za-z][\w-]{0,99}", name, re.ASCII):  # CreateCluster.name
        raise Usage(f"invalid EKS cluster name {name!r}", "Use letters, digits, - and _.")
    if options.local:
        use_local()
    opened = log_in(options.region or region, options.profile)
    return {
        "kind": "ExecCredential",
        "apiVersion": _version(),
        "spec": {},
        "status": {
            "expirationTimestamp": (datetime.now(UTC) + LIFE).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "token": kube.token(new_client(opened, "sts", region_of(opened)), name),
        },
    }


def _version() -> str:
    """Return the apiVersion that kubectl requests."""
    try:
        return str(json.loads(os.environ["KUBERNETES_EXEC_INFO"])["apiVersion"])
    except (KeyError, ValueError, TypeError):
        return "client.authentication.k8s.io/v1beta1"


def text(document: Json) -> str:
    """Return the token as JSON, which kubectl reads."""
    return json.dumps(document)


command = define(
    "token",
    Options,
    token,
    text,
    """
    hyperpod-eks token demo --query status.token
    """,
    log=Log.IF_POSSIBLE,
)
