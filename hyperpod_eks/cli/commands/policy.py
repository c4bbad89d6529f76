"""``hyperpod-eks policy``: print the IAM policies that create, status and delete need."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import Cluster as Options

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws, Identity
    from hyperpod_eks.cli.schemas.views import Policy
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.events import Report


def policy(options: Options, report: Report) -> Policy:
    """Print the IAM policies that a user of this tool needs.

    They allow create, status and delete on cluster NAME and nothing else; docs/iam.md explains how
    to use them.  Calls AWS for the account id if the config does not set it.
    """
    from hyperpod_eks import adoption as existing
    from hyperpod_eks.cli.settings import entered, settings
    from hyperpod_eks.policy import statements as policies
    from hyperpod_eks.resolve.resolved import ResolvedConfig

    with settings(options, write=False, files=False) as (config, manifest):
        identity = _identity(entered(config, options.profile), config)
        theirs = {**existing.named(config), **manifest.adopted}
        resolved = ResolvedConfig(config, identity, existing.UNKNOWN_ZONES, {}, "", adopted=theirs)
    documents = policies.documents(policies.statements(resolved))
    return {
        **head("policy"),
        "cluster": {"name": resolved.name},
        "account": identity.account,
        "region": identity.region,
        "policies": [
            {
                "name": f"{resolved.name}-hyperpod-eks-{number}",
                "characters": policies.size(document),
                "document": document,
            }
            for number, document in enumerate(documents, 1)
        ],
    }


def _identity(aws: Aws, config: Config) -> Identity:
    """Return the caller's identity; without a call to AWS if the config sets the account."""
    from hyperpod_eks.aws.client import Identity

    if not config.account:
        return aws.identity
    partition = aws.session.get_partition_for_region(config.region)
    return Identity("", config.account, partition, config.region)


def text(document: Policy) -> str:
    """Return the policy documents, one after the other."""
    return "\n".join(json.dumps(each["document"], indent=2) for each in document["policies"])


command = define(
    "policy",
    Options,
    policy,
    text,
    """
    hyperpod-eks policy -f cluster.yaml
    hyperpod-eks policy demo -o json > policies.json
    """,
    log=Log.IF_IT_FAILS,
)
