"""Everything that exists in the account, as plain data: what is left after a delete shows here."""

from __future__ import annotations

import json
from typing import Any

from moto.ec2.models import ec2_backends
from moto.logs.models import logs_backends

from hyperpod_eks.local.aws import plugin
from hyperpod_eks.local.aws.sim import ACCOUNT, Sim

#: Services that have no regions.
_GLOBAL = ("iam", "s3")


def inventory(sim: Sim) -> dict[str, Any]:
    """Return the account's content: global services, then the regions.

    Of the regions, the stack's own is always there, another one only with more in it than the
    default VPC. The result went through JSON, its keys are sorted, and it holds no times.
    """
    services = plugin.inventories()
    content: dict[str, Any] = {name: services.pop(name)(ACCOUNT, sim.region) for name in _GLOBAL}
    for region in sorted({sim.region, *ec2_backends[ACCOUNT]}):
        inside = {
            **{name: of(ACCOUNT, region) for name, of in services.items()},
            "logs": _logs(region),
        }
        if region == sim.region or not _pristine(inside):
            content[region] = inside
    content["kubernetes"] = {arn: cluster.snapshot() for arn, cluster in sim.clusters.items()}
    plain: dict[str, Any] = json.loads(json.dumps(content, sort_keys=True, default=str))
    return plain


def _pristine(inside: dict[str, Any]) -> bool:
    ec2 = inside["ec2"]
    default = {vpc_id for vpc_id, vpc in ec2["Vpcs"].items() if vpc["IsDefault"]}
    others = {name: content for name, content in inside.items() if name != "ec2"}
    return _empty(others) and all(
        {thing_id, thing.get("VpcId")} & default
        for things in ec2.values()
        for thing_id, thing in things.items()
    )


def _empty(content: Any) -> bool:
    if isinstance(content, dict):
        return all(_empty(value) for value in content.values())
    return not content


def _logs(region: str) -> dict[str, Any]:
    return {
        name: {
            "RetentionInDays": group.retention_in_days,
            "KmsKeyId": group.kms_key_id,
            "Streams": sorted(group.streams),
        }
        for name, group in logs_backends[ACCOUNT][region].groups.items()
    }
