"""Each injected failure prints its cause and the next command.

docs/troubleshooting.md has the output; these tests compare it, and write it with
UPDATE_SNAPSHOTS=1.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jsonschema import ValidationError

import hyperpod_eks
from hyperpod_eks.aws import errors as retry
from hyperpod_eks.diagnosis.causes import CAUSES
from hyperpod_eks.diagnosis.diagnose import Evidence, diagnose, of_error
from hyperpod_eks.errors import HyperpodError, KnownCause
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.hyperpod_model import Cluster as Simulated
from hyperpod_eks.local.aws.sim import Delays, Fault
from hyperpod_eks.resources.hyperpod.api import is_bad
from tests.conftest import Clients, Said, User
from tests.local import ground

DOCS = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
NAMES = {
    "cluster": "demo",
    "name": "demo",
    "again": "hyperpod-eks create demo",
    "eks": "demo",
    "region": "us-west-2",
}
CREATE = ("create", "demo", "--chart", str(CHART))
SOON = ("--timeout", "3")

Break = Callable[[User, Clients], tuple[str, ...]]


def fails(kind: str, *words: str) -> Break:
    """Make the nodes of the group fail in a given way, see local/aws/hyperpod_nodes.py."""

    def how(user: User, aws: Clients) -> tuple[str, ...]:
        user.stack.sim.failures["group/worker-group"] = kind
        return (*CREATE, *SOON, *words)

    return how


def answers(service: str, operation: str, code: str, status: int, message: str) -> Break:
    """Have AWS refuse an operation."""

    def how(user: User, aws: Clients) -> tuple[str, ...]:
        user.stack.faults.append(Fault(service, operation, code, status, message, count=999))
        return (*CREATE, *SOON, "--skip", "permissions", "--skip", "region")

    return how


def control_plane(code: str) -> Break:
    def how(user: User, aws: Clients) -> tuple[str, ...]:
        user.stack.sim.failures["cluster/demo"] = code
        return CREATE

    return how


def addon(code: str) -> Break:
    def how(user: User, aws: Clients) -> tuple[str, ...]:
        user.stack.sim.failures["addon/vpc-cni"] = code
        return CREATE

    return how


def quota(service: str, name: str, value: float, skip: str) -> Break:
    def how(user: User, aws: Clients) -> tuple[str, ...]:
        user.stack.sim.set_quota(service, name, value)
        return (*CREATE, "--skip", skip)

    return how


def classic_script(user: User, aws: Clients) -> tuple[str, ...]:
    user.stack.sim.failures["group/worker-group"] = "script"
    config = user.folder / "cluster.yaml"
    config.write_text(f"name: demo\nnode_provisioning_mode: null\nchart: {{path: {CHART}}}\n")
    return ("create", "-f", "cluster.yaml")


def unreadable_bucket(user: User, aws: Clients) -> tuple[str, ...]:
    """Adopt a role for the nodes without AWS's policy."""
    ground.lay(aws)
    aws.iam.detach_role_policy(RoleName="exec", PolicyArn=ground.INSTANCE_POLICY)
    said = user.types("adopt", "demo", "--resource", "iam/execution-role=exec")
    assert said.code == 0, said.err
    return (*CREATE, *SOON)


def missing_efa_rule(user: User, aws: Clients) -> tuple[str, ...]:
    """Adopt a security group that does not allow traffic from itself, for nodes with EFA."""
    user.has("base")
    tag = [{"Name": "tag:hyperpod-eks:cluster", "Values": ["base"]}]
    vpc = aws.ec2.describe_vpcs(Filters=tag)["Vpcs"][0]["VpcId"]
    group = aws.ec2.create_security_group(VpcId=vpc, GroupName="g", Description="g")["GroupId"]
    subnets = aws.ec2.describe_subnets(
        Filters=[{"Name": "tag:hyperpod-eks:label", "Values": ["private-subnet-*"]}]
    )["Subnets"]
    words = ["adopt", "demo", "--resource", f"network/vpc={vpc}"]
    words += ["--resource", f"network/security-group={group}"]
    for each in subnets:
        words += [
            "--resource",
            f"network/private-subnet-{each['AvailabilityZoneId']}={each['SubnetId']}",
        ]
    said = user.types(*words)
    assert said.code == 0, said.err
    group_ = "{name: g, instance_type: ml.p4d.24xlarge, instance_count: 1}"
    (user.folder / "cluster.yaml").write_text(
        f"name: demo\nchart: {{path: {CHART}}}\ninstance_groups: [{group_}]\n"
    )
    return ("create", "-f", "cluster.yaml", *SOON, "--skip", "security-group")


def impossible_values(user: User, aws: Clients) -> tuple[str, ...]:
    config = user.folder / "cluster.yaml"
    values = "{deep-health-check: {enabled: false}}"
    config.write_text(f"name: demo\nchart: {{path: {CHART}, values: {values}}}\n")
    return ("create", "-f", "cluster.yaml")


def no_entry(user: User, aws: Clients) -> tuple[str, ...]:
    """Let Kubernetes never accept the new access entry."""
    user.stack.sim.delays = Delays(access_entry=1e6)
    return (*CREATE, *SOON)


def taken(user: User, aws: Clients) -> tuple[str, ...]:
    ground.role(aws, "demo-eks-us-west-2", "eks.amazonaws.com")
    return CREATE


def held_subnet(user: User, aws: Clients) -> tuple[str, ...]:
    user.has("demo")
    tag = [{"Name": "tag:hyperpod-eks:label", "Values": ["public-subnet-usw2-az1"]}]
    subnet = aws.ec2.describe_subnets(Filters=tag)["Subnets"][0]["SubnetId"]
    aws.ec2.create_network_interface(SubnetId=subnet, Description="somebody's")
    return ("delete", "demo", "--yes", *SOON)


def wedged_delete(user: User, aws: Clients) -> tuple[str, ...]:
    user.has("demo")
    policy = "arn:aws:iam::123456789012:policy/demo-hyperpod-us-west-2"
    aws.iam.detach_role_policy(RoleName="demo-hyperpod-us-west-2", PolicyArn=policy)
    return ("delete", "demo", "--yes", *SOON)


def no_bucket(user: User, aws: Clients) -> tuple[str, ...]:
    """Name a place of the manifest that nobody has created."""
    place = "s3://team-state-of-nobody/demo.json"
    return (*CREATE, "--region", "us-west-2", "--manifest", place)


def lost_chart(user: User, aws: Clients) -> tuple[str, ...]:
    text = "The EKS cluster is missing one or more required dependencies."
    user.stack.faults.append(
        Fault("sagemaker", "CreateCluster", "ValidationException", 400, text, count=999)
    )
    return (*CREATE, *SOON)


INJECTED: dict[str, tuple[Break, int]] = {
    "expired-credentials": (
        answers(
            "ec2",
            "CreateVpc",
            "ExpiredToken",
            400,
            "The security token included in the request is expired",
        ),
        3,
    ),
    "clock": (answers("ec2", "CreateVpc", "RequestExpired", 400, "Request has expired."), 3),
    "not-allowed": (
        answers(
            "ec2",
            "CreateVpc",
            "UnauthorizedOperation",
            403,
            "You are not authorized to perform this operation.",
        ),
        3,
    ),
    "pass-role": (
        answers(
            "sagemaker",
            "CreateCluster",
            "AccessDeniedException",
            403,
            "User: arn:aws:iam::123456789012:user/ops is not authorized to perform: iam:PassRole"
            " on resource: arn:aws:iam::123456789012:role/demo-hyperpod-us-west-2",
        ),
        3,
    ),
    "bucket-key": (
        answers(
            "s3",
            "PutObject",
            "AccessDenied",
            403,
            "User: arn:aws:iam::123456789012:user/ops is not authorized to perform:"
            " kms:GenerateDataKey on resource: arn:aws:kms:us-west-2:123456789012:key/k because no"
            " identity-based policy allows the kms:GenerateDataKey action",
        ),
        3,
    ),
    "no-bucket": (no_bucket, 2),
    "service-linked-role": (
        answers(
            "iam",
            "CreateServiceLinkedRole",
            "AccessDenied",
            403,
            "User: arn:aws:iam::123456789012:user/ops is not authorized to perform:"
            " iam:CreateServiceLinkedRole on resource: *",
        ),
        3,
    ),
    "no-access-entry": (no_entry, 6),
    "no-hyperpod-region": (
        answers(
            "sagemaker", "(List|Describe)Cluster.*", "UnknownOperationException", 400, "unknown"
        ),
        1,
    ),
    "instance-quota": (
        quota("sagemaker", "ml.m5.2xlarge for cluster usage", 1, "quota-instances"),
        10,
    ),
    "account-quota": (quota("vpc", "VPCs per Region", 1, "quota-vpcs"), 10),
    "no-capacity": (fails("capacity"), 6),
    "no-capacity-in-zone": (fails("capacity-zone"), 6),
    "capacity-elsewhere": (fails("subnet-zone"), 6),
    "efa-self-rule": (fails("efa"), 6),
    "script-failed": (classic_script, 1),
    "script-timeout": (fails("script-timeout"), 6),
    "script-not-readable": (unreadable_bucket, 6),
    "not-ready": (fails("not-ready"), 6),
    "chart-missing": (lost_chart, 1),
    "chart-values": (impossible_values, 2),
    "addon-conflict": (addon("ConfigurationConflict"), 1),
    "addon-denied": (addon("AdmissionRequestDenied"), 1),
    "eks-no-addresses": (control_plane("InsufficientFreeAddresses"), 1),
    "eks-role-gone": (control_plane("IamRoleNotFound"), 1),
    "eks-failed": (control_plane("InternalFailure"), 1),
    "name-taken": (taken, 7),
    "held-by-interface": (held_subnet, 9),
    "role-lacks-permission": (wedged_delete, 9),
}
"""By cause: a function that injects the failure, and the exit code."""

SEEN = {
    "no-credentials": ("error", "Unable to locate credentials"),
    "certificate": (
        "error",
        "the certificate of sts.amazonaws.com is not trusted: [SSL: CERTIFICATE_VERIFY_FAILED]",
    ),
    "proxy": (
        "error",
        'Failed to connect to proxy URL: "http://10.0.0.1:3128/"',
    ),
    "no-way-out": ("lifecycle log", 'Connect timeout on endpoint URL: "https://sts.amazonaws.com"'),
    "script-carriage-return": ("lifecycle log", "on_create.sh: line 2: $'\\r': command not found"),
    "script-old-path": (
        "lifecycle log",
        "sed: can't read /etc/eks/containerd/containerd-config.toml: No such file or directory",
    ),
    "script-missing": ("lifecycle log", "on_create.sh: No such file"),
    "pod-no-address": (
        "test start",
        "FailedCreatePodSandBox: add cmd: failed to assign an IP address to container",
    ),
    "too-many-pods": ("pod", "Unschedulable: 0/1 nodes are available: 1 Too many pods."),
    "chart-not-fetched": (
        "error",
        "Error: could not download chart: Get https://nvidia.github.io/index.yaml: dial tcp",
    ),
    "no-nodes-for-addons": ("add-on", "DEGRADED InsufficientNumberOfReplicas: no replicas"),
    "still-used": ("error", "deleting network/vpc: it has dependencies (DependencyViolation)"),
}
"""Causes that the embedded stack cannot produce: source and text of their evidence."""

NAMED = {
    "failed-in-use": Evidence("error", "eks/cluster has failed"),
    "failed-is-final": Evidence("error", "hyperpod/cluster has failed"),
    "stuck-nodes": Evidence("instance group", "Creating 0 of 2 nodes", "workers"),
    "not-registered": Evidence("test node-count", "1 registered", "workers"),
    "node-unhealthy": Evidence("test node-health", "Unschedulable", "workers"),
    "node-checking": Evidence("test node-health", "a check is running", "workers"),
    "node-taint": Evidence("test node-taints", "a taint", "workers"),
    "no-device": Evidence("test devices", "fewer", "workers"),
    "addon-unhealthy": Evidence("test addons", "its status is DEGRADED", "coredns"),
    "addon-missing": Evidence("test addons", "it does not exist", "kube-proxy"),
    "component-failing": Evidence("test components", "0 of 1", "daemonset/x/y"),
    "kind-missing": Evidence("test kinds", "not served", "MPIJob"),
    "claim-pending": Evidence("test claims", "the claim is Pending", "data/scratch"),
    "not-admitted": Evidence("test x", "words of ours", "gpu"),
    "pod-unplaced": Evidence("test x", "words of ours", "gpu"),
    "image-not-pulled": Evidence("test x", "words of ours", "gpu"),
    "pod-not-started": Evidence("test x", "words of ours", "gpu"),
    "volume-not-mounted": Evidence("test x", "words of ours", "gpu"),
    "file-system-read-only": Evidence("test x", "words of ours", "gpu"),
    "pod-dns": Evidence("test x", "words of ours", "gpu"),
    "pod-no-way-out": Evidence("test x", "words of ours", "gpu"),
    "pod-credentials": Evidence("test x", "words of ours", "gpu"),
    "kubelet-unreachable": Evidence("test x", "words of ours", "gpu"),
    "all-reduce-failed": Evidence("test x", "words of ours", "gpu"),
    "efa-not-used": Evidence("test x", "words of ours", "gpu"),
    "slow-network": Evidence("test x", "words of ours", "gpu"),
    "deep-check-failed": Evidence("test x", "words of ours", "gpu"),
    "image-not-copied": Evidence("error", "quay.io answers 429 Too Many Requests"),
}
"""Causes that the embedded stack cannot bring about and that need no words of AWS."""


def told(said: Said) -> str:
    """Return stderr from the error on, without varying ids and folders."""
    text = said.err[said.err.index("error: ") :]
    text = re.sub(r"\b(i|eni|sg|subnet|vpc)-[0-9a-f]{17}\b", r"\1-0123456789abcdef0", text)
    lines = [line for line in text.splitlines() if not line.startswith("log: ")]
    return "\n".join(lines).replace(str(CHART), "CHART")


@pytest.fixture(scope="module")
def page() -> str:
    return DOCS.read_text()


QUICK = {
    "bucket-key",
    "no-bucket",
    "expired-credentials",
    "instance-quota",
    "script-failed",
    "name-taken",
    "chart-values",
}
"""One cause of each kind for `make test`; the others are in the long proof."""


@pytest.mark.parametrize(
    "id_",
    [pytest.param(i, marks=[] if i in QUICK else pytest.mark.prove) for i in INJECTED],
)
def test_an_injected_failure_prints_its_cause_and_the_next_command(
    user: User, aws: Clients, page: str, id_: str
) -> None:
    bring_about, code = INJECTED[id_]
    words = bring_about(user, aws)

    said = user.types(*words, "--progress", "none")

    assert said.code == code, said.err
    text = told(said)
    assert f"({id_})" in text
    assert re.search(r"^  next:  \S.*[^{}]$", text, re.MULTILINE)
    assert f"more:  hyperpod-eks explain {id_}" in text
    _same_as_documented(page, id_, text)


def _same_as_documented(page: str, id_: str, text: str) -> None:
    """Compare with the section's snapshot, without the error, whose counts of nodes vary."""
    pattern = re.compile(rf"(## {id_}\n.*?```text\n)(.*?)(\n```)", re.DOTALL)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        now = DOCS.read_text()
        DOCS.write_text(pattern.sub(lambda m: m[1] + _causes(text) + m[3], now))
        return
    match = pattern.search(page)
    assert match, f"docs/troubleshooting.md has no section {id_}"
    assert match[2] == _causes(text)


def _causes(text: str) -> str:
    """Return the explanation without the error before it, which varies, and what continues."""
    return text[text.index("cause: ") :].split("\nTo continue:", maxsplit=1)[0]


@pytest.mark.parametrize("id_", SEEN)
def test_what_aws_says_points_to_its_cause(id_: str) -> None:
    source, text = SEEN[id_]

    found = diagnose([Evidence(source, text, "coredns")], NAMES)

    assert [each.id for each in found] == [id_]
    assert "{" not in found[0].next.replace("{", "", found[0].next.count("[?"))


@pytest.mark.parametrize("id_", [*NAMED, "chart-values", "eks-failed", "not-ready"])
def test_a_named_cause_is_found_whatever_the_words_are(id_: str) -> None:
    evidence = NAMED.get(id_, Evidence("error", "words of ours"))
    values = {"current": "0", "target": "2", "group": "workers", "node": "n", "taint": "t"}
    values |= {"device": "d", "type": "t", "kind": "k", "workload": "w", "namespace": "n"}
    values |= {"claim": "c", "least": "400"}

    assert diagnose([evidence], NAMES) == []
    (found,) = diagnose([replace(evidence, cause=KnownCause(id_, values))], NAMES)
    assert found.id == id_
    assert "{" not in found.cause + found.next


def test_the_causes_of_an_error_are_named_as_well() -> None:
    """The chart cannot be downloaded because of the proxy: both are told."""
    proxy = HyperpodError("inner", cause=KnownCause("proxy"))
    error = HyperpodError("outer", cause=KnownCause("chart-not-fetched"))
    error.__cause__ = proxy
    proxy.__cause__ = proxy  # as `raise error from error` leaves it

    found = diagnose(of_error(error, "outer"), NAMES)

    assert [each.id for each in found] == ["proxy", "chart-not-fetched"]


def test_no_pattern_matches_our_own_messages() -> None:
    """A pattern for our words would break with the first better word."""
    package = Path(hyperpod_eks.__file__).parent
    others = ("local", "diagnosis", "cli/schemas")
    ours = {
        text: file.relative_to(package)
        for file in package.rglob("*.py")
        if not file.relative_to(package).as_posix().startswith(others)
        for text in _messages(ast.parse(file.read_text()))
    }
    patterns = [c for c in CAUSES if c.says and re.fullmatch(c.source, "error")]
    assert patterns
    assert len(ours) > 1000
    del ours[retry.CLOCK]  # itself a pattern
    assert [(c.id, f, t) for t, f in ours.items() for c in patterns if c.pattern.search(t)] == []


def _messages(tree: ast.Module) -> Iterator[str]:
    """The sentences of a module, "7" in place of each value; no docstrings and no patterns."""
    seen: set[ast.AST] = set()
    for node in ast.walk(tree):  # parents come first
        if isinstance(node, ast.Expr):
            seen.add(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("re.compile", "Rule"):
            seen |= set(ast.walk(node))
        elif isinstance(node, ast.JoinedStr):
            seen |= set(node.values)
            parts = [each.value if isinstance(each, ast.Constant) else "7" for each in node.values]
            yield "".join(map(str, parts))
        elif node not in seen and isinstance(node, ast.Constant) and " " in str(node.value):
            yield str(node.value)


def test_every_known_cause_is_tried_and_documented(page: str) -> None:
    ids = [cause.id for cause in CAUSES]
    assert len(ids) == len(set(ids))
    assert set(INJECTED) | set(SEEN) | set(NAMED) == set(ids)
    sections = dict(re.findall(r"^## ([a-z-]+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(ids)
    for cause in CAUSES:
        said = " ".join(sections[cause.id].split())
        told = re.escape(f"Cause: {cause.cause}. Next: {cause.next}.")
        assert re.search(re.sub(r"\\{\w+\\}", ".+?", told), said), cause.id


def test_a_better_explanation_takes_the_place_of_a_vague_one() -> None:
    evidence = [
        Evidence("event", "Lifecycle scripts did not run successfully.", "workers/i-1"),
        Evidence("lifecycle log", "on_create.sh: $'\\r': command not found", "workers/i-1"),
        Evidence("add-on", "DEGRADED InsufficientNumberOfReplicas", "coredns"),
        replace(NAMED["stuck-nodes"], cause=KnownCause("stuck-nodes")),
    ]

    assert [each.id for each in diagnose(evidence, NAMES)] == ["script-carriage-return"]


def test_the_error_document_has_the_same(user: User, aws: Clients) -> None:
    words = fails("script-timeout")(user, aws)

    said = user.types(*words, "-o", "json")

    (cause,) = said.document["error"]["causes"]
    assert cause["id"] == "script-timeout"
    assert cause["next"] == "hyperpod-eks logs demo --group worker-group"
    assert {each["source"] for each in cause["evidence"]} >= {"event", "lifecycle log"}


@pytest.mark.prove
def test_the_newest_event_stands_in_the_wait_line(user: User, aws: Clients) -> None:
    words = fails("capacity")(user, aws)

    user.types(*words)
    user.types(*CREATE, *SOON, "--events", "events")  # its first read finds it busy

    waits = "0 of 2 nodes running; We currently do not have sufficient capacity"
    assert waits in (user.folder / "events").read_text()


@pytest.mark.prove
def test_a_real_missing_rule_is_found_on_the_nodes(user: User, aws: Clients) -> None:
    said = user.types(*missing_efa_rule(user, aws), "--progress", "none")

    assert said.code == 6, said.err
    assert "(efa-self-rule)" in said.err


def test_the_next_command_leads_to_the_same_place(user: User, aws: Clients) -> None:
    Path("c.yaml").write_text("name: demo\nregion: us-west-2\n")
    here = ["-f", "c.yaml", "--region", "us-west-2"]
    make_it = "hyperpod-eks create demo --file c.yaml --region us-west-2"
    for verb in ("status", "nodes", "events"):
        assert f"Create it: {make_it}\n" in user.types(verb, *here).err
    said = user.types("outputs", "-f", "c.yaml")
    assert "To create the cluster: hyperpod-eks create demo --file c.yaml\n" in said.err

    words = INJECTED["script-failed"][0](user, aws)
    said = user.types(*words, "--region", "us-west-2")
    there = "demo --file cluster.yaml --region us-west-2"
    assert f"  next:  hyperpod-eks logs {there} --group worker-group, " in said.err
    assert f"then hyperpod-eks create {there} --replace-failed\n" in said.err
    user.stack.sim.failures.clear()
    assert user.types("create", *shlex.split(there), "--replace-failed").code == 0


def test_a_failed_control_plane_is_replaced_by_the_command_that_is_named(
    user: User, aws: Clients
) -> None:
    """The preflight stops the runs after the failed one: the resources after it do not exist."""
    create = control_plane("InternalFailure")(user, aws)
    said = user.types(*create, "-o", "json")
    assert said.code == 1
    assert said.document["resume"].endswith(" --replace-failed")
    user.stack.sim.failures.clear()
    said = user.types(*create, "-o", "json")
    error = said.document["error"]
    assert (said.code, [each["id"] for each in error["causes"]]) == (3, ["eks-failed"]), said.err
    assert error["next"] == "hyperpod-eks create demo --replace-failed"
    said = user.types(*create, "--replace-failed")
    assert said.code == 0, said.err


def test_an_error_of_a_library_names_no_cause_of_ours() -> None:
    """jsonschema's errors have a `cause` too: the exception that they come from."""
    error = HyperpodError("ours")
    error.__cause__ = ValidationError("theirs", cause=ValueError("inner"))
    assert [each.text for each in of_error(error, "ours")] == ["ours"]


@pytest.mark.parametrize("source", ["event", "error", "lifecycle log", "pod"])
def test_what_others_wrote_becomes_no_command_and_moves_no_cursor(source: str) -> None:
    text = "service limit '`id`$(id);id|\x1b]0;pwn\x07' is 0"
    words = f"{text}; arn:aws:iam::1:role/$(id) does not have permission to perform $(id)"
    stranger = KnownCause("name-taken", {"who": "$(id)\x1b[31m"})
    for found in diagnose([Evidence(source, words, "$(id)\x1b[2J/`id`", stranger)], NAMES):
        assert not re.search(r"\$\(|`|;id|[\x00-\x1f\x7f]", found.next), found.next
        assert "\x1b" not in f"{found}{found.document()}".replace("\n", "")
    quota = [each for each in diagnose([Evidence(source, text)], NAMES) if "quota" in each.id]
    assert bool(quota) == (source in ("event", "error"))


@pytest.mark.parametrize(
    ("service", "code", "words"),
    [
        ("eks", "InvalidSignatureException", "Signature expired: 20261128T0 is now earlier than"),
        ("sagemaker", "InvalidSignatureException", "Signature not yet current: 20261128T0 is"),
        ("s3", "RequestTimeTooSkewed", "The difference between the request time and the current"),
    ],
)
def test_a_clock_that_is_wrong_is_no_reason_to_log_in(
    user: User, service: str, code: str, words: str
) -> None:
    user.stack.faults.append(Fault(service, ".*", code, 403, words, count=999))
    said = user.types("create", "demo", "--chart", str(CHART), "-o", "json")
    assert said.code == 3, said.err
    assert said.document["error"]["causes"][0]["id"] == "clock"
    assert "sso login" not in said.err
    assert "renew" not in said.document["error"]["hint"]


@pytest.fixture
def terse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events without a reason in their description: only DescribeClusterEvent has it."""
    event = Simulated.event

    def told(self: Simulated, text: str, **about: Any) -> None:
        reason = "FailureMessage" in (about.get("metadata") or {})
        event(self, "Instance provisioning failed." if reason else text, **about)

    monkeypatch.setattr(Simulated, "event", told)


@pytest.mark.usefixtures("terse")
def test_why_a_node_does_not_come_is_told_wherever_it_is_waited_for(
    user: User, aws: Clients
) -> None:
    words = fails("capacity")(user, aws)
    said = user.types(*words, "-o", "json")
    assert "no-capacity" in [each["id"] for each in said.document["error"]["causes"]]
    user.stack.calls.clear()
    waits = "nodes running; Instance provisioning failed.; Instance provisioning failed.: We curr"
    for seconds in (3, 30):  # its first read finds it busy, which may take longer
        user.types(*CREATE, "--timeout", str(seconds), "--events", "events")
        if waits in (heard := (user.folder / "events").read_text()):
            break
    assert waits in heard
    reason = "sufficient capacity"
    assert reason in user.types("events", "demo", "-v").out
    assert reason not in user.types("events", "demo").out


def test_a_node_that_lost_orchestration_ready_is_no_cause() -> None:
    event = {"EventLevel": "Warn", "Description": "Node i-1 lost orchestration-ready status"}
    assert not is_bad(event)
    assert is_bad({"EventLevel": "Error", "Description": "Instance provisioning failed."})


@pytest.mark.parametrize(
    "words",
    [
        "The service-linked role AWSServiceRoleForSageMakerHyperPod does not exist.",
        pytest.param(
            "Access entry for the execution role was not found in the EKS cluster.",
            marks=pytest.mark.prove,
        ),
        pytest.param(
            "The EKS cluster is missing one or more required dependencies.",
            marks=pytest.mark.prove,
        ),
        pytest.param("Required EKS add-on is not active.", marks=pytest.mark.prove),
    ],
)
def test_what_hyperpod_does_not_see_yet_is_waited_for(user: User, words: str) -> None:
    fault = Fault("sagemaker", "CreateCluster", "ValidationException", 400, words, count=2)
    user.stack.faults.append(fault)
    said = user.types(*CREATE)
    assert said.code == 0, said.err
    assert f"does not see yet what it needs before its cluster: {words}" in said.err


def test_silence_is_not_asked_for_its_reason(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further call would wait for its timeout."""
    monkeypatch.setitem(retry.PATIENCE, retry.ErrorKind.UNKNOWN, 0.0)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    user.stack.faults.append(Fault("iam", "CreateRole", kind="reset", count=10**6))

    said = user.types(*CREATE)

    assert said.code == 1
    assert "sagemaker.ListClusterEvents" not in {
        f"{call.service}.{call.operation}" for call in user.stack.calls
    }
