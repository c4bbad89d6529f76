"""Diagnose a failure: collect evidence, and match it with known causes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.diagnosis.cause import Cause
from hyperpod_eks.diagnosis.causes import CAUSES
from hyperpod_eks.documents import JsonObject
from hyperpod_eks.errors import HyperpodError, KnownCause
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube.nodes import list_nodes, pending
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.terminal.text import clean, cut
from hyperpod_eks.workers import gather

TAIL = 5
"""Number of lines of a lifecycle log in its evidence."""
SHOWN = 3
"""Maximum pieces of evidence in the text of a diagnosis."""
FEW = 5
"""Maximum pieces of evidence in a diagnosis: a thousand nodes may fail for one reason."""


@frozen
class Evidence:
    """An observation: its ``source`` (``event``, ``pod`` …) and its ``text``, unchanged.

    ``about`` names the group, node, add-on or pod, ``cause`` the cause that is known without
    reading ``text``.
    """

    source: str
    text: str
    about: str = ""
    cause: KnownCause | None = None

    def __str__(self) -> str:
        about = f" ({self.about})" if self.about else ""
        return f"{self.source}{about}: {self.text}"


@frozen
class Diagnosis:
    """A known cause, with the evidence for it and what to do next."""

    id: str
    cause: str
    next: str
    docs: str
    evidence: tuple[Evidence, ...]

    def document(self) -> JsonObject:
        """Return the diagnosis for the error document."""
        return {
            "id": self.id,
            "cause": self.cause,
            "next": self.next,
            "docs": self.docs,
            "evidence": [
                {"source": e.source, "about": clean(e.about), "text": clean(e.text)}
                for e in self.evidence
            ],
        }

    def __str__(self) -> str:
        found = [cut(clean(each), 300) for each in self.evidence if each.source != "error"]
        seen = [f"  seen:  {each}" for each in found[:SHOWN]]
        lines = [f"cause: {self.cause} ({self.id})", *seen, f"  next:  {self.next}"]
        return "\n".join([*lines, f"  more:  hyperpod-eks explain {self.id}"])


def diagnose(evidence: Sequence[Evidence], names: Mapping[str, str]) -> list[Diagnosis]:
    """Match evidence with the known causes, in the order of the table.  Pure.

    ``names`` are the values of placeholders: cluster, name, again, region, eks.
    """
    found: dict[Cause, Diagnosis] = {}
    for cause in CAUSES:
        named = [e for e in evidence if e.cause and e.cause.id == cause.id]
        matching = [e for e in evidence if e in named or cause.fits(e.source, e.text)]
        if not matching:
            continue
        seen = {"about": matching[0].about, "group": _group([*matching, *evidence])}
        seen |= _captured(cause, matching[0].text)
        seen |= named[0].cause.values if named and named[0].cause else {}
        matching += [e for e in evidence if e.source == cause.also]
        found[cause] = _diagnosis(cause, seen, names, matching)
    explained = {each for cause in found for each in cause.instead_of}
    clear = any(not cause.vague for cause in found)
    return [
        diagnosis
        for cause, diagnosis in found.items()
        if cause.id not in explained and not (cause.vague and clear)
    ]


def _diagnosis(
    cause: Cause, seen: Mapping[str, str], names: Mapping[str, str], evidence: Iterable[Evidence]
) -> Diagnosis:
    """Fill in the placeholders of a cause; text of AWS is made safe for the shell in ``next``."""
    quoted = {key: _word(each) for key, each in seen.items()}
    return Diagnosis(
        cause.id,
        clean(_fill(cause.cause, {**seen, **names})),
        _fill(cause.next, {**quoted, **names}),
        f"docs/troubleshooting.md#{cause.id}",
        tuple(_few(evidence)),
    )


def _few(evidence: Iterable[Evidence]) -> Iterator[Evidence]:
    """Yield at most `FEW` pieces, first one of each source: the others mostly repeat it."""
    first = {each.source: each for each in reversed(list(evidence))}
    rest = [each for each in evidence if each not in first.values()]
    yield from [*reversed(first.values()), *rest][:FEW]


def _captured(cause: Cause, text: str) -> dict[str, str]:
    """Return the named groups of the cause's pattern in a text; {} if it does not match."""
    match = cause.pattern.search(text)
    return {name: value or "" for name, value in match.groupdict().items()} if match else {}


def _word(text: str) -> str:
    """Remove characters that are special in a shell: users will paste the text into one.

    >>> _word("ml.p5.48xlarge for cluster usage"), _word("$(curl evil|sh)\x1b]0;x")
    ('ml.p5.48xlarge for cluster usage', 'curl evilsh0x')
    """
    return re.sub(r"[^\w .:/@+=,-]", "", clean(text))


def _group(evidence: Sequence[Evidence]) -> str:
    """Return the instance group in the first ``about`` with one: ``group`` or ``group/node``."""
    ours = ("event", "instance group", "lifecycle log", "node")
    return next((e.about.partition("/")[0] for e in evidence if e.about and e.source in ours), "")


def _fill(template: str, words: Mapping[str, str]) -> str:
    """Replace the placeholders of a template; unknown ones stay."""
    return re.sub(r"\{(\w+)\}", lambda m: words.get(m[1]) or m[0], template)


# --- collecting evidence


def of_error(error: BaseException, message: str) -> list[Evidence]:
    """Return an error as evidence: its whole message, and its causes that name a known cause."""
    found, inner = [Evidence("error", message, cause=_named(error))], error
    while inner.__cause__ and inner.__cause__ is not inner:  # an error that is raised from itself
        inner = inner.__cause__
        cause = _named(inner)
        if cause and all(each.cause != cause for each in found):
            found.append(Evidence("error", str(inner), cause=cause))
    return found


def _named(error: BaseException) -> KnownCause | None:
    return error.cause if isinstance(error, HyperpodError) else None


def collect(aws: Aws, name: str, eks_name: str) -> list[Evidence]:
    """Collect evidence from AWS and Kubernetes, concurrently and read-only; ignore errors."""
    snapshot = Snapshot(aws)
    sources: tuple[Callable[[], Iterable[Evidence]], ...] = (
        lambda: _hyperpod(snapshot, name),
        lambda: _events(aws, name),
        lambda: _nodes(snapshot, name),
        lambda: _logs(snapshot, name),
        lambda: _eks(snapshot, eks_name),
        lambda: _addons(snapshot, eks_name),
        lambda: _kubernetes(snapshot, name, eks_name),
    )

    def read(source: Callable[[], Iterable[Evidence]]) -> list[Evidence]:
        found = []
        with suppress(Exception):  # optional: the error is printed anyway
            for each in source():
                found.append(each)  # noqa: PERF402  keep those before an error
        return found

    parts = gather(*(partial(read, source) for source in sources))
    return [each for part in parts for each in part]


def _hyperpod(snapshot: Snapshot, name: str) -> Iterator[Evidence]:
    found = hyperpod_api.describe(snapshot, name)
    if not found:
        return
    if found.get("FailureMessage"):
        yield Evidence("FailureMessage", found["FailureMessage"])
    for group in hyperpod_api.every_group(found):
        current, target = group.get("CurrentCount", 0), group.get("TargetCount", 0)
        if current != target or group.get("Status") in ("Failed", "Degraded"):
            status = group.get("Status", "")
            text = f"{status} {current} of {target} nodes".strip()
            stuck = KnownCause("stuck-nodes", {"current": str(current), "target": str(target)})
            yield Evidence("instance group", text, group["InstanceGroupName"], stuck)


def _events(aws: Aws, name: str) -> Iterator[Evidence]:
    asked = 0
    for event in hyperpod_api.events(aws, name, 20):
        if hyperpod_api.is_bad(event):
            about = "/".join(
                filter(None, (event.get("InstanceGroupName"), event.get("InstanceId")))
            )
            text, asked = event["Description"], asked + 1
            with suppress(Exception):  # needs one more permission
                text = hyperpod_api.failure(aws, name, event) if asked <= FEW else text
            yield Evidence("event", text, about)


def _nodes(snapshot: Snapshot, name: str) -> Iterator[Evidence]:
    asked = {"ClusterName": name, "PaginationConfig": {"PageSize": 100, "MaxItems": 1000}}
    for each in snapshot.all(
        snapshot.aws.sagemaker, "list_cluster_nodes", "ClusterNodeSummaries", **asked
    ):
        status = each["InstanceStatus"]
        if status.get("Message"):
            about = f"{each['InstanceGroupName']}/{each['InstanceId']}"
            yield Evidence("node", f"{status['Status']}: {status['Message']}", about)


def log_group(snapshot: Snapshot, name: str) -> str:
    """Return the log group of the cluster, or of the last one of this name; "" without one."""
    prefix = f"/aws/sagemaker/Clusters/{name}/"
    found = hyperpod_api.describe(snapshot, name)
    if found:
        return prefix + str(found["ClusterArn"].rpartition("/")[2])
    groups = snapshot.all(
        snapshot.aws.logs, "describe_log_groups", "logGroups", logGroupNamePrefix=prefix
    )
    newest = max(groups, key=lambda each: each.get("creationTime", 0), default=None)
    return str(newest["logGroupName"]) if newest else ""


def _logs(snapshot: Snapshot, name: str) -> Iterator[Evidence]:
    """Yield the last lines of the newest lifecycle logs that did not succeed, newest first."""
    logs, group = snapshot.aws.logs, log_group(snapshot, name)
    if not group:
        return
    streams = logs.describe_log_streams(
        logGroupName=group, orderBy="LastEventTime", descending=True, limit=20
    )["logStreams"]
    scripts = [s["logStreamName"] for s in streams if s["logStreamName"].startswith(SCRIPTS)]
    for stream in scripts[:FEW]:
        lines = logs.get_log_events(
            logGroupName=group, logStreamName=stream, limit=TAIL, startFromHead=False
        )["events"]
        text = " | ".join(line["message"].strip() for line in lines)
        if "exit code 0" not in text:
            yield Evidence("lifecycle log", text, stream.removeprefix(SCRIPTS))


SCRIPTS = "LifecycleConfig/"


def _eks(snapshot: Snapshot, name: str) -> Iterator[Evidence]:
    for found in eks.describe(snapshot, name):
        for issue in found.get("health", {}).get("issues", ()):
            yield Evidence("EKS health", f"{issue['code']}: {issue.get('message', '')}", name)
        if found["status"] == "FAILED":
            failed = KnownCause("eks-failed")
            yield Evidence("EKS", f"the cluster is {found['status']}", name, failed)


def _addons(snapshot: Snapshot, name: str) -> Iterator[Evidence]:
    for addon in snapshot.all(snapshot.aws.eks, "list_addons", "addons", clusterName=name):
        found = snapshot.aws.eks.describe_addon(clusterName=name, addonName=addon)["addon"]
        for issue in found.get("health", {}).get("issues", ()):
            text = f"{found['status']} {issue['code']}: {issue.get('message', '')}"
            yield Evidence("add-on", text, addon)


def _kubernetes(snapshot: Snapshot, name: str, eks_name: str) -> Iterator[Evidence]:
    access = eks.access(snapshot, eks_name)
    if access is None:
        return
    for node in list_nodes(access, name):
        if not node.ready:
            cause = KnownCause("not-ready")
            yield Evidence("Kubernetes node", f"not Ready: {node.why}", node.name, cause)
    for pod in pending(access):
        yield Evidence("pod", pod.why, f"{pod.namespace}/{pod.name}")
