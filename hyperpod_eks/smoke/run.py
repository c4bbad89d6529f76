"""Run the tests of a cluster, level after level, and stop after the first level that fails."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Literal, NamedTuple

from hyperpod_eks import workers
from hyperpod_eks.smoke import accelerators, cluster, deep, job, pods
from hyperpod_eks.smoke.inputs import LEVELS, Check, Facts, Finding, Measured, Skipped

CHECKS: tuple[Check, ...] = (
    Check("node-count", 1, "number of nodes", "not-registered", cluster.node_count),
    Check("node-ready", 1, "kubelets", "not-ready", cluster.node_ready),
    Check("node-health", 1, "HyperPod's health labels", "node-unhealthy", cluster.node_health),
    Check("node-taints", 1, "taints", "node-taint", cluster.node_taints),
    Check("devices", 1, "GPUs, Neuron devices, EFA", "no-device", cluster.node_devices),
    Check("addons", 1, "EKS add-ons", "addon-unhealthy", cluster.addons),
    Check("components", 1, "plugins, agents, operators", "component-failing", cluster.components),
    Check("kinds", 1, "kinds of jobs", "kind-missing", cluster.kinds),
    Check("claims", 1, "claims of volumes", "claim-pending", cluster.claims),
    Check("admission", 2, "queues and policies", "not-admitted", pods.admitted),
    Check("scheduling", 2, "a node for the pod", "pod-unplaced", pods.placed),
    Check("image", 2, "pull of the image", "image-not-pulled", pods.pulled),
    Check("start", 2, "start of the pod", "pod-not-started", pods.started),
    Check("file-systems", 2, "mount, write and read", "volume-not-mounted", pods.mounted),
    Check("dns", 2, "names of the cluster and of AWS", "pod-dns", pods.dns),
    Check("network", 2, "connection to AWS", "pod-no-way-out", pods.aws),
    Check("credentials", 2, "EKS Pod Identity", "pod-credentials", pods.credentials),
    Check("kubelet", 2, "logs and exec", "kubelet-unreachable", pods.kubelet),
    Check("all-reduce", 3, "NCCL or Neuron", "all-reduce-failed", accelerators.all_reduce),
    Check("efa", 3, "the network that NCCL uses", "efa-not-used", accelerators.efa),
    Check("bandwidth", 3, "bus bandwidth", "slow-network", accelerators.bandwidth),
    Check("deep-health", 4, "deep health checks", "deep-check-failed", deep.deep),
)
"""Every check, in ascending cost."""


class Result(NamedTuple):
    """What a check has found; ``skipped`` says why it did not run, or looked at nothing."""

    check: Check
    findings: tuple[Finding, ...] = ()
    measured: tuple[Measured, ...] = ()
    skipped: str = ""

    @property
    def status(self) -> Literal["passed", "failed", "skipped"]:
        """How it ended: failed, skipped or passed."""
        return "failed" if self.findings else "skipped" if self.skipped else "passed"


USUAL = (1, 2, 3)
"""The levels that run unless others are asked for: the deep health checks take hours."""


def run(
    facts: Facts, levels: Collection[int], begin: Callable[[int], None] = lambda level: None
) -> list[Result]:
    """Run the checks of some levels, those of one concurrently; return a result for each.

    The checks of a level above one that fails are skipped: they would fail for the same reason.
    ``begin`` is called before each level.  What a killed run has left is removed first, and what
    this one has created is removed also if it is interrupted.
    """
    wanted = sorted(set(levels) & set(LEVELS))
    if not set(wanted) & {2, 3}:  # the others create no jobs
        return _levels(facts, wanted, begin)
    job.begin(facts)
    try:
        return _levels(facts, wanted, begin)
    finally:
        job.end(facts)


def _levels(facts: Facts, levels: list[int], begin: Callable[[int], None]) -> list[Result]:
    found: list[Result] = []
    failed = 0
    for level in levels:
        checks = [check for check in CHECKS if check.level == level]
        if failed:
            found += [Result(check, skipped=f"level {failed} failed") for check in checks]
            continue
        begin(level)
        results = workers.gather(*(partial(_result, facts, check) for check in checks))
        found += results
        failed = level if any(each.findings for each in results) else failed
    return found


def _result(facts: Facts, check: Check) -> Result:
    outcomes = list(check.run(facts))
    skipped = next((each.why for each in outcomes if isinstance(each, Skipped)), "")
    findings = tuple(each for each in outcomes if isinstance(each, Finding))
    measured = tuple(each for each in outcomes if isinstance(each, Measured))
    return Result(check, findings, measured, skipped)
