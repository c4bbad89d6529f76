"""``hyperpod-eks policy``: print the IAM policies that create, status and delete need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.options import Cluster as Options

if TYPE_CHECKING:
    from hyperpod_eks.aws.client import Aws, Identity
    from hyperpod_eks.cli.schemas.views import Policy
    from hyperpod_eks.config.model import Config
    from hyperpod_eks.events import Report
    from hyperpod_eks.resolve.pod_roles import AddonAnswer


def policy(options: Options, report: Report) -> Policy:
    """Print the IAM policies that a user of this tool needs.

    They allow create, status and delete on cluster NAME and nothing else; `hyperpod-eks explain
    iam` says how to use them.  Calls AWS for the account id if the config does not set it, and for
    the policies that EKS recommends for add-ons.
    """
    from hyperpod_eks import adoption as existing
    from hyperpod_eks.cli.settings import entered, settings
    from hyperpod_eks.policy import statements as policies
    from hyperpod_eks.resolve.resolved import ResolvedConfig

    with settings(options, write=False, files=False) as (config, manifest):
        aws = entered(config, options.profile)
        identity = _identity(aws, config)
        theirs = {**existing.named(config), **manifest.adopted}
        aws.adopted = theirs
        resolved = ResolvedConfig(
            config,
            identity,
            existing.UNKNOWN_ZONES,
            {},
            "",
            addons=_addons(aws, config),
            adopted=theirs,
        )
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


def _addons(aws: Aws, config: Config) -> Mapping[str, AddonAnswer]:
    """Return what EKS answers about add-ons, if only EKS knows the needs of one.

    Without an answer the policies lack the roles of those add-ons, and a warning names them.
    """
    from hyperpod_eks.aws.addon_needs import ADDON_ROLES
    from hyperpod_eks.aws.exceptions import BotoCoreError, ClientError
    from hyperpod_eks.errors import HyperpodError
    from hyperpod_eks.resolve.pod_roles import creates_roles
    from hyperpod_eks.resolve.versions import kubernetes_version

    names = [n for n, each in config.asked_addons().items() if creates_roles(n, each)]
    if asked := [name for name in names if name not in ADDON_ROLES]:
        try:
            return kubernetes_version(aws, config).addons
        except (BotoCoreError, ClientError, HyperpodError) as error:
            current_console().warn(
                f"addons: the policies have no roles for {', '.join(asked)}, since EKS could not be"
                f" asked what they need: {error}"
            )
    return {}


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
