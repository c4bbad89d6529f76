"""Level 2: a pod per instance group, and what happens to it until it has answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import NamedTuple

from hyperpod_eks import workers
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, KnownCause
from hyperpod_eks.kube import jobs, objects
from hyperpod_eks.kube.client import KubeNotReady, part, parts, text
from hyperpod_eks.kube.workloads import reasons
from hyperpod_eks.smoke.inputs import Facts, Finding, Outcome, Skipped
from hyperpod_eks.smoke.job import PROBE, WAIT, Refused, labels, once, read_job, run_job, template
from hyperpod_eks.smoke.queues import Place, is_suspended, place, why_queued, within, would_stop

SCRIPT = """
import json, os, socket, sys, time, urllib.request

def resolve(name):
    return socket.getaddrinfo(name, 443)[0][4][0]

def connect(host):
    socket.create_connection((host, 443), 10).close()
    return "connected"

def write(folder):
    path = os.path.join(folder, ".hyperpod-eks-test-" + os.uname().nodename)
    with open(path, "w") as file:
        file.write("hyperpod-eks")
    try:
        with open(path) as file:
            if file.read() != "hyperpod-eks":
                raise OSError("what was read is not what was written")
    finally:
        os.remove(path)
    return "written and read"

def credentials(_):
    with open(os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]) as file:
        headers = {"Authorization": file.read()}
    url = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        if not json.load(answer).get("AccessKeyId"):
            raise OSError("the agent answers without credentials")
    return "credentials received"

for word in sys.argv[1:]:
    verb, _, what = word.partition("=")
    try:
        answer = {"ok": True, "says": globals()[verb](what)}
    except Exception as error:
        answer = {"ok": False, "says": type(error).__name__ + ": " + str(error)}
    print(json.dumps({"asked": word, **answer}), flush=True)
print(json.dumps({"asked": "end", "ok": True, "says": ""}), flush=True)
time.sleep(600)
"""
"""What a pod of this level runs: it answers each argument with a line of JSON, and waits.

Credentials are asked of the EKS Pod Identity agent as the AWS SDKs do, and never printed (Amazon
EKS User Guide, "Learn how EKS Pod Identity grants pods access to AWS services").
"""
REQUESTS = {"cpu": "50m", "memory": "64Mi"}
"""What a pod of this level asks for."""
START = 300.0
"""Seconds in which a pod must have started and answered."""
UNPLACED = 60.0
"""Seconds after which a pod that no node accepts is given up."""


class Pod(NamedTuple):
    """A pod to run: on a group, in a namespace, and what it is asked.

    ``claims`` are mounted below /data; ``account`` is the service account.
    """

    group: str
    place: Place
    asked: tuple[str, ...]
    claims: tuple[str, ...] = ()
    account: str = ""


STAGES = ["refused", "queued", "unbound", "unplaced", "pulling", "mounting", "starting", "answered"]
"""How far a pod may come."""
ANSWERED = STAGES.index("answered")


class Seen(NamedTuple):
    """What happened to a pod: how far it came, one of `STAGES`.

    ``why`` is what kept it there; ``answers`` are those of `SCRIPT`; ``log`` and ``exec`` are why
    its log could not be read and no command could be run.
    """

    pod: Pod
    reached: str
    why: str = ""
    answers: Mapping[str, tuple[bool, str]] = {}
    log: str = ""
    exec: str = ""

    @property
    def about(self) -> str:
        """The group, and what is special about the pod."""
        special = self.pod.account or ",".join(self.pod.claims)
        return f"{self.pod.group}/{special}" if special else self.pod.group


def planned(facts: Facts) -> Iterator[Pod]:
    """Yield the pods to run: one per group, one per group and namespace with claims, and one per
    service account with a role.
    """
    region = facts.snapshot.aws.region
    asked = (
        "resolve=kubernetes.default.svc.cluster.local",
        f"resolve=sts.{region}.amazonaws.com",
        f"connect=sts.{region}.amazonaws.com",
    )
    groups = [
        g["InstanceGroupName"] for g in facts.groups if facts.of_group(g["InstanceGroupName"])
    ]
    config = facts.config
    spaces: dict[str, list[str]] = {}
    for space, name in config.storage.claims() if config else ():
        spaces.setdefault(space, []).append(name)
    for group in groups:
        yield Pod(group, place(facts, group), asked)
        for space, names in spaces.items():
            if there := within(facts, space, group):
                yield Pod(group, there, tuple(f"write=/data/{n}" for n in names), tuple(names))
    for role in config.pod_identity if config else ():
        name = f"{role.namespace}/{role.service_account}"
        usable = (
            (group, there) for group in groups if (there := within(facts, role.namespace, group))
        )
        for group, there in islice(usable, name not in missing_accounts(facts)):
            yield Pod(group, there, ("credentials",), account=role.service_account)


def missing_accounts(facts: Facts) -> list[str]:
    """Return the service accounts with a role, as NAMESPACE/NAME, that do not exist yet.

    Pods that name one are refused until it does (Kubernetes documentation, "Managing Service
    Accounts"), whereas EKS associates a role with any name.  One that may not be read counts as
    existing.
    """

    def absent(namespace: str, name: str) -> bool:
        kind = objects.Kind("serviceaccounts", namespaced=True)
        one = objects.ObjectReference("v1", "ServiceAccount", namespace, name)
        with suppress(KubeNotReady):
            return objects.find(facts.access, one, kind) is None
        return False  # the creation of its pod will show

    def ask() -> list[str]:
        roles = facts.config.pod_identity if facts.config else ()
        names = [(each.namespace, each.service_account) for each in roles]
        gone = workers.gather(*(partial(absent, *each) for each in names))
        return [f"{space}/{name}" for (space, name), no in zip(names, gone, strict=True) if no]

    return once(facts, "service accounts of the test", ask)


def seen(facts: Facts) -> list[Seen]:
    """Run the pods of this level once, and remove them; return what happened to each."""

    def run() -> list[Seen]:
        wanted = list(planned(facts))
        return workers.gather(
            *(partial(_run, facts, number, pod) for number, pod in enumerate(wanted))
        )

    return once(facts, "pods of the test", run)


def _run(facts: Facts, number: int, pod: Pod) -> Seen:
    """Create a pod, watch it until it has answered or cannot, and remove it."""
    document, namespace = _job(facts, number, pod), pod.place.namespace
    if why := would_stop(facts, pod.place, pod.group, REQUESTS, 1):
        return Seen(pod, "queued", why)
    try:
        return run_job(facts, jobs.JOB, namespace, document, partial(_look, facts, pod), START)
    except Refused as error:
        return Seen(pod, "refused", str(error))


def _job(facts: Facts, number: int, pod: Pod) -> JsonObject:
    container: JsonObject = {
        "name": "test",
        "image": facts.image,
        "command": ["python3", "-c", SCRIPT, *pod.asked],
        "resources": {"requests": REQUESTS, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
            # the root folder of a new file system belongs to root
            **({} if pod.claims else {"runAsNonRoot": True, "runAsUser": 65534}),
        },
    }
    spec = template(facts, pod.group, container)
    if pod.account:
        spec["serviceAccountName"] = pod.account
    if pod.claims:
        container["volumeMounts"] = [{"name": n, "mountPath": f"/data/{n}"} for n in pod.claims]
        spec["volumes"] = [
            {"name": n, "persistentVolumeClaim": {"claimName": n}} for n in pod.claims
        ]
    marks = labels(facts, pod.place.queue)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"hyperpod-eks-test-{number}-", "labels": marks},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(START + UNPLACED + WAIT),
            "ttlSecondsAfterFinished": int(WAIT),
            "template": {"metadata": {"labels": marks}, "spec": spec},
        },
    }


def _look(facts: Facts, pod: Pod, job: jobs.Reference, waited: float, last: bool) -> Seen | None:
    """Return what happened to a pod if that is decided, or at the last look; else None."""
    found = jobs.pods(facts.access, f"job-name={job.name}", job.namespace)
    if not found:
        document = read_job(facts, job)
        if not last and waited < UNPLACED:
            return None
        if is_suspended(document):
            return Seen(pod, "queued", why_queued(facts, document))
        warned = "; ".join(jobs.events(facts.access, job.namespace, job.name)[-3:])
        return Seen(pod, "refused", warned or "the Job controller has created no pod")
    (live, *_), name = found, text(found[0], "metadata", "name")
    phase, why = text(live, "status", "phase"), "; ".join(reasons(live))
    if phase == "Running":
        return _answered(facts, job.namespace, name, pod, last=last)
    if phase == "Failed":
        return Seen(pod, "starting", _ended(live) or "the pod failed")
    if not text(live, "spec", "nodeName"):
        reached = "unbound" if "persistentvolumeclaim" in why.lower() else "unplaced"
        return Seen(pod, reached, why) if last or waited >= UNPLACED else None
    if "ImagePull" in why:
        return Seen(pod, "pulling", why)
    warned = "; ".join(jobs.events(facts.access, job.namespace, name)[-3:])
    if last or (warned and waited >= UNPLACED):  # the kubelet tries again
        place = "mounting" if "FailedMount" in warned else "starting"
        return Seen(pod, place, warned or why or "kubelet gives no reason yet")
    return None


def _ended(pod: JsonMapping) -> str:
    for each in parts(pod, "status", "containerStatuses"):
        ended = part(each, "state", "terminated")
        if ended:
            return f"{text(ended, 'reason')}: exit code {ended.get('exitCode')}"
    return text(pod, "status", "message")


def _answered(facts: Facts, namespace: str, name: str, pod: Pod, *, last: bool) -> Seen | None:
    try:
        written = jobs.log(facts.access, namespace, name)
    except HyperpodError as error:
        return Seen(pod, "answered", log=str(error)) if last or _final(error) else None
    answers = dict(_answers(written))
    if "end" not in answers and not last:
        return None
    failed = ""
    try:
        told = jobs.execute(facts.access, namespace, name, ["python3", "-c", f"print('{PROBE}')"])
        failed = "" if PROBE in told else f"it printed {told[:80]!r}"
    except HyperpodError as error:
        failed = str(error)
    return Seen(pod, "answered", answers=answers, exec=failed)


def _final(error: HyperpodError) -> bool:
    """Whether the API server could not reach the kubelet."""
    return ":10250" in str(error)


def _answers(log: str) -> Iterator[tuple[str, tuple[bool, str]]]:
    for line in log.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield text(found, "asked"), (found.get("ok") is True, text(found, "says"))


# --- the checks


def _stopped(facts: Facts, *places: str) -> Iterator[Outcome]:
    yield from _nobody(facts, min(map(STAGES.index, places)))
    for one in seen(facts):
        if one.reached in places:
            yield Finding(one.about, one.why)


def _nobody(facts: Facts, stage: int) -> Iterator[Skipped]:
    """Skip a check of a stage that no pod has reached: it would pass without a look."""
    if not seen(facts):
        yield Skipped("no group has nodes")
    elif all(STAGES.index(one.reached) < stage for one in seen(facts)):
        yield Skipped("no pod has come this far")


def admitted(facts: Facts) -> Iterator[Outcome]:
    """Kueue must admit the pod's job, and no policy may refuse it."""
    yield from _stopped(facts, "queued", "refused")


def placed(facts: Facts) -> Iterator[Outcome]:
    """The scheduler must find a node of the group for the pod."""
    yield from _stopped(facts, "unplaced")


def pulled(facts: Facts) -> Iterator[Outcome]:
    """The kubelet must pull the image."""
    yield from _stopped(facts, "pulling")


def started(facts: Facts) -> Iterator[Outcome]:
    """The pod's containers must start."""
    yield from _stopped(facts, "starting")


def mounted(facts: Facts) -> Iterator[Outcome]:
    """Every file system must be mounted, written and read."""
    if not any(one.pod.claims for one in seen(facts)):
        yield Skipped("no file system is declared for pods")
    for one in seen(facts):
        if one.reached == "unbound":  # in the words of the scheduler
            values = {"namespace": one.pod.place.namespace, "claim": ",".join(one.pod.claims)}
            yield Finding(one.about, one.why, KnownCause("claim-pending", values))
    yield from _stopped(facts, "mounting")
    yield from _asked(facts, "write", "file-system-read-only")


def dns(facts: Facts) -> Iterator[Outcome]:
    """The pod must resolve a name of the cluster and one of AWS."""
    yield from _nobody(facts, ANSWERED)
    yield from _asked(facts, "resolve")


def aws(facts: Facts) -> Iterator[Outcome]:
    """The pod must connect to AWS, through NAT gateway or endpoint."""
    yield from _nobody(facts, ANSWERED)
    unresolved = {one.about for one in seen(facts) for _ in _wrong(one, "resolve")}
    for one in seen(facts):
        if one.about not in unresolved:  # it cannot connect without an address
            yield from _wrong(one, "connect")


def credentials(facts: Facts) -> Iterator[Outcome]:
    """The pod of a service account with a role must get credentials."""
    if not any(one.pod.account for one in seen(facts)):
        missing = missing_accounts(facts)
        yield Skipped(
            f"no such service account yet: {', '.join(missing)}"
            if missing
            else "no service account has a role"
        )
    yield from _asked(facts, "credentials")


def _asked(facts: Facts, verb: str, cause: str = "") -> Iterator[Finding]:
    for one in seen(facts):
        yield from _wrong(one, verb, cause)


def _wrong(one: Seen, verb: str, cause: str = "") -> Iterator[Finding]:
    for asked, (good, says) in one.answers.items():
        if asked.partition("=")[0] == verb and not good:
            yield Finding(
                one.about,
                f"{asked.replace('=', ' ')}: {says}",
                KnownCause(cause) if cause else None,
            )


def kubelet(facts: Facts) -> Iterator[Outcome]:
    """The control plane must reach the kubelet: logs and commands."""
    yield from _nobody(facts, ANSWERED)
    for one in seen(facts):
        for what, why in (("log", one.log), ("exec", one.exec)):
            if why:
                yield Finding(one.about, f"{what}: {why}")
