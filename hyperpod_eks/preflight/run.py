"""Run the checks that find problems before the first change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

from hyperpod_eks import workers
from hyperpod_eks.aws.errors import ErrorKind
from hyperpod_eks.aws.failures import classify
from hyperpod_eks.aws.service_model import nearest
from hyperpod_eks.config.warnings import warnings
from hyperpod_eks.engine import words_of
from hyperpod_eks.errors import FAILED, Denied, HyperpodError, Usage
from hyperpod_eks.policy import authorization
from hyperpod_eks.preflight import (
    account,
    cluster,
    monitoring,
    network,
    permissions,
    pods,
    quotas,
    storage,
    teams,
)
from hyperpod_eks.preflight.inputs import Check, Facts, Finding
from hyperpod_eks.stack import kinds

CHECKS: tuple[tuple[Check, tuple[str, ...]], ...] = (
    (account.identity, ("identity",)),
    (account.region, ("region",)),
    (permissions.permissions, ("permissions",)),
    (
        quotas.quotas,
        tuple(kind.quota.check for kind in kinds() if kind.quota),
    ),
    (quotas.nat_gateways, ("quota-nat-gateways",)),
    (
        quotas.instances,
        (
            "quota-instances",
            "quota-cluster-size",
            "quota-total-instances",
            "quota-volume-size",
        ),
    ),
    (account.training_plans, ("training-plans",)),
    (network.subnet_addresses, ("subnet-addresses",)),
    (network.routes, ("routes",)),
    (network.security_group, ("security-group",)),
    (network.one_vpc, ("one-vpc",)),
    (network.vpc_dns, ("vpc-dns",)),
    (network.endpoints, ("endpoints",)),
    (cluster.control_plane, ("kubernetes-version", "authentication-mode", "vpc-cni")),
    (cluster.one_cluster, ("one-cluster",)),
    (cluster.names, ("names",)),
    (cluster.failed, ("failed",)),
    (cluster.roles, ("roles",)),
    (cluster.access, ("access",)),
    (pods.unknown_roles, ("addon-roles",)),
    (pods.roles, ("pod-roles",)),
    (pods.agent, ("pod-roles",)),
    (pods.taken, ("pod-roles",)),
    (pods.quota, ("quota-iam",)),
    (storage.quotas, ("quota-file-systems", "quota-file-system-capacity")),
    (storage.places, ("file-system-zones",)),
    (storage.efs, ("file-systems", "mount-targets")),
    (storage.openzfs, ("file-systems",)),
    (teams.governance, ("task-governance",)),
    (monitoring.workspace, ("prometheus-workspace",)),
    (cluster.lifecycle, ("lifecycle",)),
    (cluster.chart, ("chart", "chart-values")),
    (cluster.chart_download, ("chart-download",)),
    (cluster.helm, ("helm",)),
    (cluster.folders, ("folders",)),
)
"""Every check, and the ids of its findings."""

MISFITS = {
    "account": "account",
    "addons": "addon-versions",
    "eks.access": "access",
    "eks.version": "kubernetes-version",
    "existing": "existing",
    "instance_groups.availability_zone_ids": "zones",
    "instance_groups.instance_type": "instance-types",
    "instance_groups.training_plan_arn": "training-plans",
    "network.availability_zone_ids": "zones",
    "network.cidr": "existing",  # of an existing VPC
    "network.secondary_cidrs": "existing",
    "network.interface_endpoints": "endpoints",
    "pod_identity": "pod-roles",
    "storage.fsx_lustre": "file-systems",
}
"""Id of the finding, by the setting or section that does not fit the account."""

ABOUT = {
    "access": "eks.access",
    "authentication-mode": "existing.eks_cluster",
    "chart": "chart.path",
    "chart-values": "chart.values",
    "endpoints": "existing.vpc",
    "file-system-zones": "storage.fsx_lustre",
    "kubernetes-version": "eks.version",
    "lifecycle": "lifecycle.path",
    "names": "name",
    "one-cluster": "existing.eks_cluster",
    "one-vpc": "existing",
    "pod-roles": "pod_identity",
    "quota-cluster-size": "instance_groups",
    "quota-file-system-capacity": "storage.fsx_lustre",
    "quota-file-systems": "storage.fsx_lustre",
    "quota-instances": "instance_groups",
    "quota-nat-gateways": "network.nat",
    "quota-total-instances": "instance_groups",
    "quota-volume-size": "instance_groups",
    "region": "region",
    "roles": "existing",
    "routes": "existing.private_subnets",
    "security-group": "existing.security_group",
    "subnet-addresses": "network.cidr",
    "task-governance": "teams",
    "vpc-cni": "addons.vpc-cni",
    "vpc-dns": "existing.vpc",
}
"""Setting or section that a finding is about, by id, unless the finding names one itself."""

IDS = tuple(dict.fromkeys([*(i for _, ids in CHECKS for i in ids), *MISFITS.values(), "settings"]))
AT_LOADING = frozenset({"lifecycle", "chart", "chart-values", "helm", "settings"})
"""Ids that create checks when it reads its files, before any call to AWS."""
_RANK = {"error": 0, "warning": 1, "info": 2}


class Blocked(Denied):
    """Preflight found problems that would stop create; nothing was changed."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        lines = [f"{one.id}: {one.says}\n  {one.fix}" for one in findings]
        failed = any(one.id == "failed" and one.seen["replaceable"] for one in findings)
        super().__init__(
            "preflight found problems that would stop create:\n" + "\n".join(lines),
            "Nothing was changed. Fix them and run the same command again. To skip these checks:"
            f" {' '.join(f'--skip {each}' for each in sorted({x.id for x in findings}))}",
            reason=FAILED if failed else "",
            cause=next((one.cause for one in findings if one.cause), None),
        )


def run(facts: Facts, skip: Collection[str] = ()) -> list[Finding]:
    """Run all checks that are not skipped, concurrently; return findings, the worst first.

    A check that AWS denies becomes a warning.  Raises Denied for expired credentials.
    """
    wanted = [(check, ids) for check, ids in CHECKS if not set(ids) <= set(skip)]
    parts = workers.gather(*(partial(_found, facts, *each) for each in wanted))
    return in_order(one for part in parts for one in part if one.id not in skip)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity, errors first, then in the order of the checks."""
    return sorted(findings, key=lambda one: (_RANK[one.severity], IDS.index(one.id)))


def _found(facts: Facts, check: Check, ids: tuple[str, ...]) -> list[Finding]:
    from hyperpod_eks.aws.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        return [_about(one) for one in check(facts)]
    except (BotoCoreError, ClientError, HyperpodError) as error:
        if classify(error) is ErrorKind.EXPIRED:
            raise Denied(words_of(error)) from error
        text = f"could not be checked: {words_of(error)}"
        fix = authorization.cure(error) or "Check it manually."
        return [Finding(ids[0], "warning", text, fix)]


def _about(found: Finding) -> Finding:
    """Add the setting that a finding is about to ``seen``, if it is about one."""
    setting = ABOUT.get(found.id)
    return replace(found, seen={"setting": setting, **found.seen}) if setting else found


def misfit(error: HyperpodError) -> Finding:
    """Return an error about a setting, of `resolved.resolve` or `adoption.adopt`, as a finding."""
    setting = error.setting
    fits = (id_ for start, id_ in MISFITS.items() if f"{setting}.".startswith(f"{start}."))
    id_ = next(fits, "settings")
    return Finding(id_, "error", str(error), error.hint, {"setting": setting} if setting else {})


def about_settings(facts: Facts) -> list[Finding]:
    """Return a finding for each setting that is valid but probably a mistake."""
    fix = "See `hyperpod-eks explain config`."
    return [Finding("settings", "warning", text, fix) for text in warnings(facts.config)]


def known(ids: Iterable[str]) -> frozenset[str]:
    """Return ``ids`` as a set.  Raises Usage for an id that does not exist."""
    chosen = frozenset(ids)
    if unknown := sorted(chosen - set(IDS)):
        near = list(dict.fromkeys(each for one in unknown for each in nearest(one, IDS)))
        all_ids = f"The checks are {', '.join(sorted(IDS))}."
        hint = f"Did you mean {' or '.join(near)}?" if near else all_ids
        raise Usage(f"--skip: no such check: {', '.join(unknown)}", hint)
    return chosen
