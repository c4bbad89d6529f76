"""``hyperpod-eks policy``: the IAM policies for whoever runs create, status and delete."""

from __future__ import annotations

import json
from typing import Any

from hyperpod_eks import policy as policies
from hyperpod_eks.aws import Aws, Identity, session
from hyperpod_eks.cli.commands import settings
from hyperpod_eks.report import Report
from hyperpod_eks.site import Site


def policy(tell: Report, **given: Any) -> dict[str, Any]:
    """Write ``hyperpod-eks/policy/v1``; AWS is asked for the account if the config is silent."""
    with settings(given, write=False, files=False) as (config, manifest):
        aws = Aws(session(config.region, given["profile"]), config.name, config.tags)
        if config.account:
            partition = aws.session.get_partition_for_region(config.region)
            identity = Identity("", config.account, partition, config.region)
        else:
            identity = aws.identity
        site = Site(config, identity, (), {}, "", adopted=manifest.adopted)
    documents = policies.documents(policies.statements(site))
    return {
        "schema": "hyperpod-eks/policy/v1",
        "command": "policy",
        "ok": True,
        "exit_code": 0,
        "cluster": {"name": site.name},
        "account": identity.account,
        "region": identity.region,
        "policies": [
            {
                "name": f"{site.name}-hyperpod-eks-{number}",
                "characters": policies.size(document),
                "document": document,
            }
            for number, document in enumerate(documents, 1)
        ],
    }


def text(document: dict[str, Any]) -> str:
    """Write the policy documents alone, one after the other."""
    return "\n".join(json.dumps(each["document"], indent=2) for each in document["policies"])
