"""The life of HyperPod's nodes: asked for, provisioned, scripted, joined, checked, gone.

``Sim.failures["group/NAME"]`` makes the nodes of a group fail, in one of the ways of ``FAILURES``:

- ``capacity``, ``capacity-zone``, ``subnet-zone``: no instance is found;
- ``efa``: the check of the network between instances fails, before any log is written;
- ``script``, ``script-timeout``: the lifecycle script fails; its log tells;
- ``not-ready``: the node runs, and its kubelet never reports that it is ready;
- ``deep-check``: deep health checks end with a fault (SageMaker developer guide, "Kubernetes labels
  for HyperPod": deep-health-check-status Failed).

Taking the entry out heals a group of a Continuous cluster at the next try.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from moto.ec2.models import ec2_backends
from moto.s3.models import s3_backends

from hyperpod_eks.local.aws import instance_types, logs, roles
from hyperpod_eks.local.aws.hyperpod_model import Cluster, Document, Group, Node
from hyperpod_eks.local.aws.sim import ACCOUNT, current
from hyperpod_eks.local.aws.training_plans import TrainingPlans
from hyperpod_eks.local.kubernetes import ApiError

_ENSURE = "Ensure that your VPC and security groups are properly configured before attempting to"
_SCRIPT = (
    "Lifecycle scripts did not run successfully. Ensure the scripts exist in provided S3 path, "
    "are accessible, and run without errors. Please see CloudWatch logs for lifecycle script "
    "execution details."
)
#: What SageMaker says, by kind of failure.
FAILURES = {
    "capacity": "We currently do not have sufficient capacity for the requested instance "
    "type(s). Please try again.",
    "capacity-zone": "We currently do not have sufficient capacity in the Availability Zone you "
    "requested",
    "subnet-zone": "No subnets in the capacity AZ",
    "efa": f"EFA health checks did not run successfully. {_ENSURE} create a new cluster.",
    "script": _SCRIPT,
    "script-timeout": "Lifecycle scripts execution timed out",
}
_NOT_READY, _DEEP_CHECK = "not-ready", "deep-check"
_NO_INSTANCE = ("capacity", "capacity-zone", "subnet-zone")
#: Simulated seconds until a Continuous cluster tries again what failed.
_RETRY = 300.0

_HEALTH = "sagemaker.amazonaws.com/node-health-status"
_DEEP = "sagemaker.amazonaws.com/deep-health-check-status"


class Fleet:
    """The nodes of all clusters of a region.

    ``settled`` is called with a cluster whenever the number or state of its nodes has changed;
    ``failed`` with a cluster of the classic mode and AWS's words when its nodes cannot be had.
    """

    def __init__(
        self,
        region: str,
        plans: TrainingPlans,
        settled: Callable[[Cluster], None],
        failed: Callable[[Cluster, str], None],
    ) -> None:
        self._region, self._plans = region, plans
        self._settled, self._failed = settled, failed

    @property
    def _ec2(self) -> Any:
        return ec2_backends[ACCOUNT][self._region]

    def subnet(self, subnet_id: str) -> Any:
        """Return a subnet, as moto keeps it."""
        return self._ec2.get_subnet(subnet_id)

    def zone_of(self, subnet_id: str) -> str:
        """Return the Availability Zone of a subnet."""
        return str(self.subnet(subnet_id).availability_zone)

    # -- scaling ---------------------------------------------------------------------------------

    def at_once(self, cluster: Cluster) -> AbstractContextManager[None]:
        """Let many nodes come or go before Kubernetes looks at them."""
        kubernetes = current().clusters.get(cluster.eks_arn)
        return kubernetes.at_once() if kubernetes else nullcontext()

    def scale(self, group: Group) -> None:
        """Bring a group to its target: launch what is missing, terminate the newest too many."""
        staying = [node for node in group.nodes.values() if node.status != "ShuttingDown"]
        missing = group.target - len(staying)
        if missing > 0:
            self.launch(group, missing)
        elif missing < 0:
            self.terminate(group.cluster, staying[missing:])

    def launch(self, group: Group, count: int, zones: Iterable[str] = ()) -> list[Node]:
        """Ask for more nodes, in some zones only; they are Pending from now on."""
        subnets = [self._ec2.get_subnet(each) for each in group.vpc_config["Subnets"]]
        subnets = [s for s in subnets if not zones or s.availability_zone in zones]
        batch = [self._new_node(group, subnets) for _ in range(count)]
        sim = current()
        for after, nodes in self._arrivals(group, batch):
            sim.clock.after(after, partial(self._provision, group, nodes))
        return batch

    def _arrivals(self, group: Group, batch: list[Node]) -> Iterator[tuple[float, list[Node]]]:
        """Say when instances are found: all at once, or in a Continuous cluster one by one.

        "Continuous provisioning" (SageMaker developer guide): the cluster works with what is there
        while the rest is being provisioned.
        """
        sim = current()
        soonest, spread = sim.delays.hyperpod_provision, sim.delays.hyperpod_spread
        if not (group.cluster.continuous and spread):
            yield soonest, batch
            return
        for node in batch:
            yield soonest + spread * sim.draw(f"node {group.cluster.name} {group.name}"), [node]

    def _new_node(self, group: Group, subnets: list[Any]) -> Node:
        sim = current()
        node = Node(
            group,
            f"i-{sim.ids.getrandbits(68):017x}",
            f"{group.name}-{sim.ids.getrandbits(48):012x}",
            group.instance_types[0],
            group.spec.get("ThreadsPerCore") or 1,
            sim.clock.now(),
            subnets[group.launched % len(subnets)],
            group.release,
        )
        group.launched += 1
        group.nodes[node.id] = group.cluster.nodes[node.id] = node
        return node

    def terminate(self, cluster: Cluster, nodes: Iterable[Node]) -> None:
        """Shut nodes down; they are gone ``Delays.hyperpod_terminate`` later."""
        sim, leaving = current(), [node for node in nodes if node.status != "ShuttingDown"]
        for node in leaving:
            node.become("ShuttingDown")

        def gone() -> None:
            self.drop(cluster, leaving)
            self._settled(cluster)

        if leaving:
            sim.clock.after(sim.delays.hyperpod_terminate, gone)

    def drop(self, cluster: Cluster, nodes: Iterable[Node]) -> None:
        """Forget nodes here, in Kubernetes and, a little later, in the VPC."""
        kubernetes = current().clusters.get(cluster.eks_arn)
        with self.at_once(cluster):
            for node in nodes:
                if cluster.nodes.pop(node.id, None) is None:
                    continue
                del node.group.nodes[node.id]
                node.group.counts[node.status] -= 1
                if kubernetes is not None:
                    kubernetes.remove_node(node.kubernetes_name)
                if node.eni_id:
                    sim = current()
                    left = sim.draw(f"eni {cluster.name}") < sim.delays.eni_left
                    self._ec2.remove_service_eni(node.eni_id, left=left)
                    if node.joined:  # else its agent never ran
                        stream = f"SagemakerHealthMonitoringAgent/{node.group.name}/{node.id}"
                        self.write_log(cluster, stream, [f"{node.id} is shut down"])

    # -- from Pending to Running -----------------------------------------------------------------

    def _provision(self, group: Group, batch: list[Node]) -> None:
        """Instances are found, or not; their lifecycle scripts start."""
        sim, waiting = current(), _still(batch, "Pending")
        if not waiting:
            return
        failure = sim.failure("group", group.name) or self._natural_failure(group, waiting)
        if failure not in ("", _NOT_READY, *FAILURES):
            raise ValueError(f"no such failure: {failure}; choose from {[*FAILURES, _NOT_READY]}")
        if failure in _NO_INSTANCE:
            self._fail(group, [], FAILURES[failure], lambda: self._provision(group, batch))
            return
        described = f"AWS SageMaker HyperPod {group.cluster.arn} {group.name}"
        groups = group.vpc_config["SecurityGroupIds"]
        for node in waiting:
            if not node.eni_id:
                eni = self._ec2.add_service_eni(
                    node.subnet.id, groups, described, "amazon-sagemaker"
                )
                node.eni_id, node.private_ip = eni.id, eni.private_ip_address
        if failure == "efa":
            self._fail(group, waiting, FAILURES[failure])
            return
        script_failure = failure if failure in ("script", "script-timeout") else ""
        problem = "" if group.restricted else self._script_problem(group)
        for node in waiting:
            self._log_script(node, problem, script_failure)
        bad = FAILURES.get(script_failure) or (_SCRIPT if problem else "")

        def done() -> None:
            running = _still(waiting, "Pending")
            if bad:
                self._fail(group, running, bad)
            else:
                self._run(group, running)

        sim.clock.after(sim.delays.hyperpod_lifecycle, done)

    def _natural_failure(self, group: Group, nodes: list[Node]) -> str:
        """Return how nodes fail because of what the account looks like, or an empty string."""
        plan = self._plans.zone(group.spec.get("TrainingPlanArn"))
        if plan and any(node.subnet.availability_zone != plan for node in nodes):
            return "subnet-zone"
        if any(map(instance_types.has_efa, group.instance_types)) and not self._open_to_itself(
            group.vpc_config["SecurityGroupIds"]
        ):
            return "efa"
        return ""

    def _open_to_itself(self, group_ids: list[str]) -> bool:
        """Say whether a security group allows all traffic from itself and to itself.

        EFA needs both rules by name; 0.0.0.0/0 does not do (EC2 User Guide, "Elastic Fabric
        Adapter", security group).
        """
        groups = self._ec2.describe_security_groups(group_ids=group_ids)
        return any(
            all(
                any(
                    rule.ip_protocol == "-1"
                    and (rule.source_group or {}).get("GroupId") == group.id
                    for rule in rules
                )
                for rules in (group.ingress_rules, group.egress_rules)
            )
            for group in groups
        )

    def _script_problem(self, group: Group) -> str:
        """Return why the lifecycle script cannot be fetched, as its log says; empty if it can."""
        config = group.spec["LifeCycleConfig"]
        script = config.get("OnCreate") or config["OnInitComplete"]
        match = re.fullmatch(r"(?:https|s3)://([^/]+)/?(.*)", config["SourceS3Uri"])
        assert match is not None  # the model's pattern
        bucket, key = match[1], f"{match[2].rstrip('/')}/{script}".lstrip("/")
        s3 = s3_backends[ACCOUNT]["aws"]
        role = roles.find(group.spec["ExecutionRole"])
        if bucket not in s3.buckets:
            return (
                "fatal error: An error occurred (NoSuchBucket) when calling the ListObjectsV2 "
                "operation: The specified bucket does not exist"
            )
        if role is None or not roles.allows(role, "s3:GetObject", f"arn:aws:s3:::{bucket}/{key}"):
            return (
                "fatal error: An error occurred (AccessDenied) when calling the GetObject "
                "operation: Access Denied"
            )
        found = s3.get_object(bucket, key)
        if found is None:
            return f"{script}: No such file"
        first_line = found.value.split(b"\n", 1)[0]
        if not first_line.startswith(b"#!"):
            return f"{script}: Exec format error"
        if first_line.endswith(b"\r"):
            return f"{script}: /bin/bash^M: bad interpreter: No such file or directory"
        return ""

    def _run(self, group: Group, nodes: list[Node]) -> None:
        """The nodes are up and join the EKS cluster; deep health checks may come first."""
        if not nodes:
            return
        group.trouble = ""
        checks = group.spec.get("OnStartDeepHealthChecks")
        for node in nodes:
            node.joined = True
            node.become("DeepHealthCheckInProgress" if checks else "Running")
            text = f"Instance {node.id} is provisioned and joined the EKS cluster."
            group.cluster.event(text, group=group.name, node=node.id)
        self._join(group, nodes)
        if checks:
            self._finish_checks_later(group, nodes)
        self._settled(group.cluster)

    def _fail(
        self,
        group: Group,
        nodes: list[Node],
        text: str,
        again: Callable[[], None] | None = None,
    ) -> None:
        """End in failure, or in another try a while later if the cluster is Continuous."""
        cluster, sim = group.cluster, current()
        for node in nodes:
            node.become("Failure", text)
        if nodes:
            text = f'Instance {nodes[0].id} failed to provision with the following error: "{text}"'
        if not cluster.continuous:
            note = " Note that multiple instances may be impacted." if nodes else ""
            self._failed(cluster, text + note)
            return
        group.trouble = text
        metadata = {"FailureMessage": text}
        for node in nodes:
            cluster.event(text, level="Error", group=group.name, node=node.id, metadata=metadata)
        if not nodes:
            cluster.event(text, level="Warn", group=group.name, metadata=metadata)

        def replace() -> None:
            failed = _still(nodes, "Failure")
            self.drop(cluster, failed)
            if cluster.groups.get(group.name) is group:
                self.scale(group)

        sim.clock.after(_RETRY, again or replace)

    # -- logs ------------------------------------------------------------------------------------

    def write_log(self, cluster: Cluster, stream: str, lines: Iterable[str]) -> None:
        """Write to the cluster's log group, which is made when it is missing and never deleted."""
        logs.write(self._region, cluster.log_group, stream, lines)

    def _log_script(self, node: Node, problem: str, failure: str) -> None:
        group = node.group
        config = group.spec.get("LifeCycleConfig") or {}
        script = config.get("OnCreate") or config.get("OnInitComplete") or "none"
        lines = [
            f"[start] instance {node.id} of {group.name}",
            f"[lifecycle] download {config.get('SourceS3Uri', 'nothing')}",
        ]
        if not problem:
            lines.append(f"[lifecycle] run {script}")
        if problem or failure == "script":
            lines += [problem or "mkfs: /dev/nvme1n1 is busy", f"[lifecycle] {script}: exit code 1"]
        elif not failure:
            lines.append(f"[lifecycle] {script}: exit code 0")
        self.write_log(group.cluster, f"LifecycleConfig/{group.name}/{node.id}", lines)

    # -- Kubernetes ------------------------------------------------------------------------------

    def _join(self, group: Group, nodes: list[Node]) -> None:
        """Register the nodes with Kubernetes; each is Ready after ``Delays.node_ready``."""
        kubernetes, sim = current().clusters.get(group.cluster.eks_arn), current()
        if kubernetes is None:
            return
        labels = (group.spec.get("KubernetesConfig") or {}).get("Labels") or {}
        mig = labels.get("nvidia.com/mig.config", "")
        if not kubernetes.has("Deployment", "gpu-operator", "kube-system"):
            mig = ""  # nobody reads it
        amounts = instance_types.divided(group.instance_types[0], mig)
        with kubernetes.at_once():
            for node in nodes:
                checking = node.status == "DeepHealthCheckInProgress"
                kubernetes.remove_node(node.kubernetes_name)
                kubernetes.add_node(
                    node.kubernetes_name,
                    self._labels(node, checking=checking),
                    taints=[*taints(group.spec), *([_UNSCHEDULABLE] if checking else [])],
                    capacity=amounts,
                    provider_id=node.provider_id,
                )
            self._ready_later(sim.delays.node_ready, group, nodes)

    def _labels(self, node: Node, *, checking: bool) -> dict[str, str]:
        deep: dict[str, str] = {}
        ended = node.deep_check or (
            "Passed" if node.group.spec.get("OnStartDeepHealthChecks") else ""
        )
        if checking or ended:
            deep = {_DEEP: "InProgress" if checking else ended}
        broken = ended == "Failed" and not checking
        health = "UnschedulablePendingReplacement" if broken else "Schedulable"
        return {
            **group_labels(node.group, node.instance_type, node.subnet),
            _HEALTH: "Unschedulable" if checking else health,
            **deep,
        }

    def _ready_later(self, delay: float, group: Group, nodes: list[Node]) -> None:
        def ready() -> None:
            kubernetes = current().clusters.get(group.cluster.eks_arn)
            if kubernetes is None or current().failure("group", group.name) == _NOT_READY:
                return
            with kubernetes.at_once():
                for node in nodes:
                    if node.id in group.nodes and node.status != "ShuttingDown":
                        _set_ready(kubernetes, node, ready=True)

        current().clock.after(delay, ready)

    # -- checks, updates, reboots ----------------------------------------------------------------

    def check(self, group: Group, nodes: list[Node]) -> None:
        """Run deep health checks on running nodes, which take no work meanwhile."""
        for node in nodes:
            node.become("DeepHealthCheckInProgress")
        self._join(group, nodes)
        self._finish_checks_later(group, nodes)

    def _finish_checks_later(self, group: Group, nodes: list[Node]) -> None:
        def done() -> None:
            checked = _still(nodes, "DeepHealthCheckInProgress")
            failed = current().failure("group", group.name) == _DEEP_CHECK
            for node in checked:
                node.become("Running")
                node.deep_check = "Failed" if failed else "Passed"
                said = "InstanceStress failed" if failed else "all checks passed"
                stream = f"DeepHealthCheckResults/{node.logical_id}"
                self.write_log(group.cluster, stream, [f"{node.id}: {said}"])
            self._join(group, checked)
            self._settled(group.cluster)

        sim = current()
        sim.clock.after(sim.delays.deep_health, done)

    def update(self, group: Group, nodes: list[Node], release: str, batch: int) -> None:
        """Give nodes a new image, ``batch`` at a time, each batch taking its delay."""
        sim, now, rest = current(), nodes[:batch], nodes[batch:]
        kubernetes = sim.clusters.get(group.cluster.eks_arn)
        for node in now:
            node.become("SystemUpdating")
            if kubernetes is not None:
                _set_ready(kubernetes, node, ready=False)

        def done() -> None:
            for node in _still(now, "SystemUpdating"):
                node.become("Running")
                node.release, node.updated = release, sim.clock.now()
                if kubernetes is not None:
                    with _unless_gone():
                        kubernetes.renew_node(node.kubernetes_name)
            self._ready_later(sim.delays.node_ready, group, now)
            if rest:
                self.update(group, _still(rest, "Running"), release, batch)
                return
            group.release, group.update_status = release, "Succeeded"
            self._settled(group.cluster)

        sim.clock.after(sim.delays.hyperpod_software, done)

    def reboot(self, node: Node) -> None:
        """Restart a node: Kubernetes sees it go and come back."""
        kubernetes, sim = current().clusters.get(node.group.cluster.eks_arn), current()
        if kubernetes is not None:
            _set_ready(kubernetes, node, ready=False)
        self._ready_later(sim.delays.node_ready, node.group, [node])


_UNSCHEDULABLE = {"key": _HEALTH, "value": "Unschedulable", "effect": "NoSchedule"}


def group_labels(group: Group, instance_type: str, subnet: Any) -> dict[str, str]:
    """The labels of a group's nodes of a type in a subnet, but for those of their health."""
    zone = subnet.availability_zone
    return {
        **((group.spec.get("KubernetesConfig") or {}).get("Labels") or {}),
        "node.kubernetes.io/instance-type": instance_type,
        "topology.kubernetes.io/region": zone[:-1],
        "topology.kubernetes.io/zone": zone,
        "topology.k8s.aws/zone-id": subnet.availability_zone_id,
        "sagemaker.amazonaws.com/cluster-name": group.cluster.name,
        "sagemaker.amazonaws.com/instance-group-name": group.name,
        "sagemaker.amazonaws.com/compute-type": "hyperpod",
    }


def taints(spec: Document) -> Iterator[dict[str, str]]:
    """The taints that a group declares, as Kubernetes writes them."""
    for taint in (spec.get("KubernetesConfig") or {}).get("Taints") or ():
        yield {
            "key": taint["Key"],
            "effect": taint["Effect"],
            **({"value": taint["Value"]} if taint.get("Value") else {}),
        }


def _set_ready(kubernetes: Any, node: Node, *, ready: bool) -> None:
    with _unless_gone():
        kubernetes.set_node_ready(node.kubernetes_name, ready)


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Let it pass that somebody deleted the Kubernetes node."""
    try:
        yield
    except ApiError as error:
        if error.code != 404:
            raise


def _still(nodes: Iterable[Node], status: str) -> list[Node]:
    """Return those nodes that exist and have not changed meanwhile."""
    return [node for node in nodes if node.status == status and node.id in node.group.nodes]
