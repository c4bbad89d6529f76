"""Level 3: an all-reduce between two nodes of each group with accelerators."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, KnownCause
from hyperpod_eks.kube import jobs
from hyperpod_eks.kube.client import parts, text
from hyperpod_eks.kube.workloads import reasons
from hyperpod_eks.resources.hyperpod import devices
from hyperpod_eks.resources.hyperpod.devices import EFA, GPU, NEURON
from hyperpod_eks.smoke.images import NCCL_IMAGE, NEURON_IMAGE
from hyperpod_eks.smoke.inputs import Facts, Finding, Measured, Outcome, Skipped
from hyperpod_eks.smoke.job import WAIT, Refused, labels, once, read_job, run_job, template
from hyperpod_eks.smoke.pods import UNPLACED
from hyperpod_eks.smoke.queues import (
    Place,
    is_suspended,
    never_admits,
    places,
    unread,
    why_queued,
    would_stop,
)

NCCL = (
    "/opt/amazon/openmpi/bin/mpirun --allow-run-as-root --tag-output -np {ranks} -N {devices}"
    " --bind-to none -x PATH -x LD_LIBRARY_PATH -x NCCL_DEBUG=INFO -x FI_PROVIDER=efa"
    " --mca pml ^ucx --mca btl tcp,self --mca btl_tcp_if_exclude lo,docker0,veth_def_agent"
    " /opt/nccl-tests/build/all_reduce_perf -b 1M -e 16G -f 4 -g 1 -c 1 -n 20"
)
"""The command of that repository's nccl-tests.yaml, with fewer sizes."""
NCCOM = (
    "hosts=$(awk '{{print $1}}' /etc/mpi/hostfile | xargs getent hosts | awk '{{print $1}}');"
    " export CCOM_SOCKET_IFNAME=eth0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    " NEURON_RT_ROOT_COMM_ID=$(echo $hosts | cut -d' ' -f1):63182;"
    " nccom-test -r {ranks} -N 2 -b 1MB -e 1GB -f 4 -d fp32 --check allr --hosts $hosts"
    " --data-collector-host $(hostname -i) --data-collector-port 60006"
)
"""A rank per NeuronCore of both nodes, as AWS's tests of Neuron on EKS have it
(github.com/aws/aws-k8s-tester, test/cases/neuron/manifests/multi-node-test-neuron.yaml); AWS
Neuron documentation, "NCCOM-TEST User Guide", "MPI Execution".
"""
WORKERS = 2
"""The nodes of an all-reduce."""
SHARED = "/dev/shm"  # noqa: S108  in the pod: NCCL shares memory there
HUGE = "hugepages-2Mi"
"""Pages that EFA uses where it gets them."""
RUN = 1800.0
"""Seconds for the images, which have several GB, and for the all-reduce."""
EXPECTED: Mapping[str, float] = {"ml.p5.48xlarge": 400.0}
"""Bus bandwidth in GB/s that two nodes of a type reach with 16 GiB, where a source names it.

github.com/awslabs/ai-on-sagemaker-hyperpod, validation with nccl-tests.
"""
_ROW = re.compile(
    r"(?:^|>|:)\s*(\d+)\s+\d+\s+\w+\s+(?:\w+\s+-?\d+\s+)?[\d.]+\s+[\d.]+\s+([\d.]+)\s*(\S*)"
)


class Ran(NamedTuple):
    """An all-reduce of a group.

    ``reached`` is impossible, refused, queued, placed, pulled, failed or done: why it did not end
    is ``why``.  It is impossible, and not tried, if no queue can ever admit it.
    """

    group: str
    instance_type: str
    efa: int
    reached: str
    why: str = ""
    log: str = ""

    @property
    def busbw(self) -> float:
        """The bus bandwidth of the largest message in GB/s; 0 if there is none."""
        rows = [(int(m[1]), float(m[2])) for m in map(_ROW.search, self.log.splitlines()) if m]
        return max(rows, default=(0, 0.0))[1]


def ran(facts: Facts) -> list[Ran]:
    """Run the all-reduces once, one after the other, and remove them."""

    def run() -> list[Ran]:
        return [
            _run(facts, group, kind, found)
            for group in (each["InstanceGroupName"] for each in facts.groups)
            for kind, found in _types(facts, group)
        ]

    return once(facts, "all-reduces of the test", run)


def _types(facts: Facts, group: str) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Yield the type of a group with the devices of its nodes, if an all-reduce can run on two.

    Neuron runs one between instances on Trainium alone, through EFA (AWS Neuron documentation,
    "NCCOM-TEST User Guide").
    """
    kinds = {node.instance_type for node in facts.of_group(group)}
    if len(facts.of_group(group)) >= 2 and len(kinds) == 1:
        (kind,) = kinds
        found = devices.of_type(facts.snapshot, kind) if devices.ACCELERATED.match(kind) else {}
        partitioned = any("mig" in name for node in facts.of_group(group) for name in node.devices)
        neuron = NEURON in found and EFA in found and kind.startswith("ml.trn")
        if (found.get(GPU) or neuron) and not partitioned:
            yield kind, found


def _run(facts: Facts, group: str, kind: str, has: Mapping[str, int]) -> Ran:
    begun = Ran(group, kind, has.get(EFA, 0), "refused")
    if why := unread(facts):
        return begun._replace(why=f"no job was created, since it might take a team's nodes: {why}")
    found = places(facts, group)
    never = [never_admits(facts, each, group, _asked(has, each), WORKERS) for each in found]
    if all(never):
        return begun._replace(reached="impossible", why=f"no queue can admit it: {never[0]}")
    there = found[never.index("")]
    if why := would_stop(facts, there, group, _asked(has, there), WORKERS):
        return begun._replace(reached="queued", why=why)
    document = _job(facts, group, kind, has, there)
    try:
        look = partial(_look, facts, begun)
        return run_job(facts, jobs.MPI_JOB, there.namespace, document, look, RUN)
    except Refused as error:
        return begun._replace(why=str(error))


def _asked(has: Mapping[str, int], there: Place) -> dict[str, str]:
    """Return what a worker asks for: all devices of its node."""
    name = GPU if GPU in has else NEURON
    asked = {name: str(has[name]), "memory": "32000Mi"}
    if EFA in has:
        asked |= {EFA: str(has[EFA])}
        if not there.queue or HUGE in there.covers:
            asked |= {HUGE: "5120Mi"}
    return asked


def _job(facts: Facts, group: str, kind: str, has: Mapping[str, int], there: Place) -> JsonObject:
    name = GPU if GPU in has else NEURON
    count = has[name]
    ranks = WORKERS * (count if name == GPU else devices.neuron_cores(facts.snapshot, kind))
    command = (NCCL if name == GPU else NCCOM).format(ranks=ranks, devices=count)
    image = facts.accelerator_image or facts.copy_of(NCCL_IMAGE if name == GPU else NEURON_IMAGE)
    asked = _asked(has, there)
    launcher = {"name": "launcher", "image": image, "command": ["/bin/bash", "-c", command]}
    worker = {
        "name": "worker",
        "image": image,
        "resources": {"requests": asked, "limits": asked},
        "volumeMounts": [{"name": "shm", "mountPath": SHARED}],
    }
    shm = {"volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]}
    about = {"labels": labels(facts, there.queue)}
    return {
        "apiVersion": "kubeflow.org/v2beta1",
        "kind": "MPIJob",
        "metadata": {"generateName": "hyperpod-eks-test-", **about},
        "spec": {
            "slotsPerWorker": count,
            "launcherCreationPolicy": "WaitForWorkersReady",
            "runPolicy": {
                "cleanPodPolicy": "Running",
                "backoffLimit": 0,
                "activeDeadlineSeconds": int(RUN + UNPLACED),
                "ttlSecondsAfterFinished": int(WAIT),
            },
            "mpiReplicaSpecs": {
                "Launcher": {
                    "replicas": 1,
                    "template": {"metadata": about, "spec": template(facts, group, launcher)},
                },
                "Worker": {
                    "replicas": WORKERS,
                    "template": {"metadata": about, "spec": template(facts, group, worker) | shm},
                },
            },
        },
    }


def _look(facts: Facts, ran: Ran, job: jobs.Reference, waited: float, last: bool) -> Ran | None:
    """Return how an all-reduce ended, or what keeps it from running; None before that."""
    found = read_job(facts, job)
    ended = {text(c, "type") for c in parts(found, "status", "conditions") if _is_true(c)}
    pods = jobs.pods(facts.access, f"training.kubeflow.org/job-name={job.name}", job.namespace)
    if ended & {"Succeeded", "Failed"} or (last and pods):
        written = _log(facts, pods)
        reached = "done" if "Succeeded" in ended else "failed"
        return ran._replace(
            reached=reached, why="" if reached == "done" else _end(written), log=written
        )
    why = next((one for pod in pods for one in reasons(pod)), "")
    if "ImagePull" in why:
        return ran._replace(reached="pulled", why=why)
    unplaced = any(not text(pod, "spec", "nodeName") for pod in pods)
    if waited >= UNPLACED and (unplaced or not pods):
        if is_suspended(found):
            return ran._replace(reached="queued", why=why_queued(facts, found))
        return ran._replace(reached="placed", why=why or "its operator has created no pod")
    return None


def _is_true(condition: JsonMapping) -> bool:
    return text(condition, "status") == "True"


def _log(facts: Facts, pods: list[JsonMapping]) -> str:
    for pod in pods:
        if text(pod, "metadata", "labels", "training.kubeflow.org/job-role") == "launcher":
            try:
                place = text(pod, "metadata", "namespace"), text(pod, "metadata", "name")
                return jobs.log(facts.access, *place)
            except HyperpodError as error:
                return str(error)
    return ""


def _end(log: str) -> str:
    return " | ".join(log.splitlines()[-3:]) or "it did not end in time, and wrote nothing"


# --- the checks


def all_reduce(facts: Facts) -> Iterator[Outcome]:
    """The all-reduce must run to its end, with right results."""
    if not ran(facts):
        yield Skipped("no group has two nodes with accelerators")
    elif all(one.reached == "impossible" for one in ran(facts)):
        yield Skipped("; ".join(f"{one.group}: {one.why}" for one in ran(facts)))
        return
    causes = {
        "refused": "not-admitted",
        "queued": "not-admitted",
        "placed": "pod-unplaced",
        "pulled": "image-not-pulled",
    }
    for one in ran(facts):
        if one.reached == "impossible":
            yield Measured(one.group, f"not tested: {one.why}")
        elif one.reached != "done":
            cause = causes.get(one.reached)
            values = {"group": one.group}
            yield Finding(one.group, one.why, KnownCause(cause, values) if cause else None)
        elif wrong := re.search(r"Out of bounds values : (\d+) FAILED", one.log):
            yield Finding(one.group, f"{wrong[1]} values of the result are wrong")


def efa(facts: Facts) -> Iterator[Outcome]:
    """NCCL must use EFA where the type has it."""
    runs = [one for one in ran(facts) if one.reached == "done" and one.efa]
    if not runs:
        yield Skipped("no all-reduce ended on nodes with EFA")
    for one in runs:
        if "NET/" not in one.log:
            yield Measured(one.group, "the log does not say which network was used")
        elif not re.search(r"NET/OFI Selected provider is efa", one.log, re.IGNORECASE):
            lines = [line for line in one.log.splitlines() if "NET/" in line]
            yield Finding(one.group, lines[-1].strip())


def bandwidth(facts: Facts) -> Iterator[Outcome]:
    """The bus bandwidth must be what a source names for the type; else it is only measured."""
    runs = [one for one in ran(facts) if one.reached == "done"]
    if not runs:
        yield Skipped("no all-reduce ended")
    for one in runs:
        figure = f"{one.busbw:.1f} GB/s bus bandwidth between two {one.instance_type}"
        least = EXPECTED.get(one.instance_type)
        if not one.busbw:
            yield Finding(one.group, "the log has no bandwidth", KnownCause("all-reduce-failed"))
        elif least and one.busbw < least:
            values = {"type": one.instance_type, "least": f"{least:.0f}"}
            yield Finding(one.group, figure, KnownCause("slow-network", values))
        else:
            yield Measured(one.group, figure)
