"""Level 1: what AWS and Kubernetes say of nodes, devices and components; creates nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from hyperpod_eks.aws.addon_needs import ADDON_ROLES, TRAINING_OPERATOR
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import KnownCause
from hyperpod_eks.kube import jobs, objects
from hyperpod_eks.kube.client import part, text
from hyperpod_eks.kube.workloads import troubles, workloads
from hyperpod_eks.resources.addon import NO_NODES, works
from hyperpod_eks.resources.hyperpod import devices
from hyperpod_eks.smoke.inputs import Facts, Finding, Outcome, Skipped
from hyperpod_eks.steps.addons import every_addon

MOST = 20
"""Maximum findings of one check: a thousand nodes may have one fault."""
SYSTEM = frozenset({"kube-system", "aws-hyperpod", "kubeflow", "mpi-operator", "cert-manager"}) | {
    one.namespace for rows in ADDON_ROLES.values() for one in rows if one.namespace != "*"
}
"""Namespaces of components: of the add-ons and of the HyperPod chart (its templates)."""
OWN_TAINTS = ("sagemaker.amazonaws.com/", "node.kubernetes.io/")
"""Prefixes of the taints that HyperPod and Kubernetes set; `node_health` and `node_ready` see them.

Amazon SageMaker AI Developer Guide, "Kubernetes labels for HyperPod"; Kubernetes documentation,
"Well-Known Labels, Annotations and Taints".
"""
KINDS = (
    ("kubeflow.org/v2beta1", "MPIJob"),
    ("kubeflow.org/v1", "PyTorchJob"),
    ("sagemaker.amazonaws.com/v1", "HyperPodPyTorchJob"),
)
"""The kinds of jobs that the operators define."""
CLAIM, CLAIMS = "PersistentVolumeClaim", objects.Kind("persistentvolumeclaims", True)


def node_count(facts: Facts) -> Iterator[Outcome]:
    """Each group must have its target count in HyperPod, and as many nodes in Kubernetes."""
    for group in facts.groups:
        name, target = group["InstanceGroupName"], group.get("TargetCount") or 0
        there, current = len(facts.of_group(name)), group.get("CurrentCount") or 0
        if min(there, current) < target:
            counts = {"group": name, "current": str(current), "target": str(target)}
            yield Finding(
                name,
                f"{target} nodes wanted, {current} in HyperPod, {there} registered in Kubernetes",
                KnownCause("stuck-nodes", counts) if current < target else None,
            )


def node_ready(facts: Facts) -> Iterator[Outcome]:
    """The kubelet of every node must report Ready."""
    for node in islice((node for node in facts.nodes if not node.ready), MOST):
        yield Finding(f"{node.instance_group}/{node.name}", node.why)


def node_health(facts: Facts) -> Iterator[Outcome]:
    """HyperPod must let pods run on every node."""
    bad = (node for node in facts.nodes if node.health not in ("", "Schedulable") or node.checking)
    for node in islice(bad, MOST):
        about = f"{node.instance_group}/{node.name}"
        if node.checking:
            yield Finding(about, "a deep health check is running", KnownCause("node-checking"))
        else:
            yield Finding(about, f"HyperPod says {node.health}", _node(node.instance_id))


def _node(id_: str) -> KnownCause:
    return KnownCause("node-unhealthy", {"node": id_})


def node_taints(facts: Facts) -> Iterator[Outcome]:
    """No node may have a taint that its group does not declare: nobody tolerates it."""
    declared = {g["InstanceGroupName"]: set(facts.taints(g)) for g in facts.groups}
    strange = (
        (node, taint)
        for node in facts.nodes
        for taint in node.taints
        if taint not in declared.get(node.instance_group, ()) and not taint.startswith(OWN_TAINTS)
    )
    for node, taint in islice(strange, MOST):
        values = {"node": node.name, "taint": taint}
        about = f"{node.instance_group}/{node.name}"
        yield Finding(
            about, f"the taint {taint} is not of the group", KnownCause("node-taint", values)
        )


def node_devices(facts: Facts) -> Iterator[Outcome]:
    """Each node must offer its accelerators and network devices to pods."""
    if not any(devices.ACCELERATED.match(node.instance_type) for node in facts.nodes):
        yield Skipped("no node has accelerators")
        return
    for each in devices.missing(facts.snapshot, facts.nodes):
        values = {"device": each.device, "type": each.instance_type}
        yield Finding(each.nodes[0].instance_group, str(each), KnownCause("no-device", values))


def addons(facts: Facts) -> Iterator[Outcome]:
    """Each add-on must be ACTIVE without an issue, or work although EKS still misses replicas.

    None that the cluster is to have may be missing.
    """
    described = facts.addons()
    there = {found["addonName"] for found in described}
    for name in _wanted_addons(facts):
        if name not in there:
            yield Finding(name, "it does not exist", KnownCause("addon-missing"))
    for found in described:
        issues = found.get("health", {}).get("issues") or ()
        name, status = found["addonName"], found["status"]
        if {each["code"] for each in issues} == {NO_NODES} and works(facts.access, name):
            continue
        for issue in issues:
            yield Finding(name, f"{status} {issue['code']}: {issue.get('message', '')}")
        if status not in ("ACTIVE", "UPDATING") and not issues:
            yield Finding(name, f"its status is {status}")


def _wanted_addons(facts: Facts) -> Iterable[str]:
    """Return the names of the add-ons that the cluster is to have, as far as its config says it."""
    if (config := facts.config) is None:
        return ()
    adopted = {*facts.snapshot.aws.adopted}
    if config.existing.eks_cluster:  # another machine may have the manifest
        adopted.add("eks/cluster")
    return every_addon(config, adopted)


def components(facts: Facts) -> Iterator[Outcome]:
    """Each Deployment, DaemonSet and StatefulSet of a component must have all its pods Ready."""
    further = facts.config.charts if facts.config else {}
    spaces = SYSTEM | {one.namespace or name for name, one in further.items()}
    for each in workloads(facts.access, spaces):
        if each.ready < each.wanted:
            values = {"kind": each.kind, "namespace": each.namespace, "workload": each.name}
            first, *more = troubles(facts.access, each) or ["kubelet gives no reason yet"]
            why = first + (f"; {len(more)} more like this" if more else "")
            yield Finding(
                str(each),
                f"{each.ready} of {each.wanted} pods are Ready: {why}",
                KnownCause("component-failing", values),
            )


def kinds(facts: Facts) -> Iterator[Outcome]:
    """The Kubernetes API must serve the kinds of jobs that the declared operators define."""
    wanted = set(_wanted(facts))
    if not wanted:
        yield Skipped("no job operator is declared")
    for version, kind in KINDS:
        if kind in wanted and kind not in objects.served(facts.access, version):
            values = {"kind": kind}
            yield Finding(
                kind,
                f"the Kubernetes API does not serve {kind} of {version}",
                KnownCause("kind-missing", values),
            )


def _wanted(facts: Facts) -> Iterator[str]:
    """Yield the kinds that the config asks for (values.yaml of the HyperPod chart)."""
    if facts.config is None:
        return
    if part(facts.config.chart.values, "mpi-operator").get("enabled") is not False:
        yield "MPIJob"
    if TRAINING_OPERATOR in facts.config.asked_addons():
        yield "HyperPodPyTorchJob"


def claims(facts: Facts) -> Iterator[Outcome]:
    """Each declared PersistentVolumeClaim must be bound, or wait for its first pod.

    Kubernetes documentation, "Storage Classes", "Volume binding mode".
    """
    config = facts.config
    of_files = config.storage.claims() if config else []
    declared = [x for x in (config.objects if config else ()) if text(x, "kind") == CLAIM]
    others = [(_namespace(x), text(x, "metadata", "name")) for x in declared]
    if not of_files and not others:
        yield Skipped("no claim is declared")
    for space, name in (*of_files, *others):
        claim = objects.ObjectReference("v1", CLAIM, space, name)
        found = objects.find(facts.access, claim, CLAIMS)
        warned = "".join(f": {each}" for each in jobs.events(facts.access, space, name)[-1:])
        phase = text(found, "status", "phase") or "missing"
        waits = (space, name) in others and not warned and _waits_for_a_pod(facts, found)
        if phase != "Bound" and not waits:
            cause = KnownCause("claim-pending", {"namespace": space, "claim": name})
            yield Finding(f"{space}/{name}", f"the claim is {phase}{warned}", cause)


def _namespace(document: JsonMapping) -> str:
    return text(document, "metadata", "namespace") or objects.DEFAULT


def _waits_for_a_pod(facts: Facts, claim: JsonMapping | None) -> bool:
    if name := text(claim, "spec", "storageClassName"):
        named = objects.ObjectReference("storage.k8s.io/v1", "StorageClass", "", name)
        found = objects.find(facts.access, named, objects.Kind("storageclasses", False))
        return text(found, "volumeBindingMode") == "WaitForFirstConsumer"
    return False
