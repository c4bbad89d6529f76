"""Limits for the calls, rounds and memory of commands; `make bench` measures seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.aws.rate_limit import FIRST, LARGEST, Pace
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.events import Event, EventType
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.quotas import limits
from hyperpod_eks.local.aws.sim import ACCOUNT, Call, Delays, Fault
from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes import INSTANT, Cluster
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.local.tls import make_pki
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.hyperpod import api
from hyperpod_eks.terminal.timeline import Timeline

from .conftest import User, at_work, new_aws, new_session
from .rounds import rounds

EVERYTHING = """\
name: demo
region: us-west-2
network: {nat: none}
chart:
  values:   # as mirror writes them
    mpi-operator: {mpiOperator: {image: {repository: ECR/demo/docker.io/mpioperator/mpi-operator}}}
charts:
  near: {chart: ./near}
  late: {chart: ./near, after: [near]}
addons:
  aws-ebs-csi-driver:
  aws-efs-csi-driver:
  aws-mountpoint-s3-csi-driver: {buckets: [datasets]}
  amazon-cloudwatch-observability:
pod_identity:
- namespace: research
  service_account: trainer
  statements: [{Effect: Allow, Action: "s3:GetObject", Resource: "arn:aws:s3:::datasets/*"}]
storage:
  fsx_lustre:
    data:
      namespaces: [default, research]
      s3: [{file_system_path: /in, data_repository_path: "s3://datasets/in"}]
objects:
- {apiVersion: v1, kind: Namespace, metadata: {name: research}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: trainer, namespace: research}}
instance_groups:
- {name: system, instance_type: ml.m5.2xlarge, instance_count: 2}
- {name: more, instance_type: ml.m5.2xlarge, instance_count: 0, min_instance_count: 0}
teams:
  vision:
    quota: [{instance_type: ml.m5.2xlarge, count: 1}]
operators: [training, inference, spaces]
auto_scaling:
  mode: Enable
  node_pools: [{name: more, instance_groups: [more]}]
"""
LOOK = 40
"""Maximum calls to read the whole state of a cluster."""


def costs(stack: Stack) -> Counter[str]:
    """Count the calls since the last time by operation."""
    counted = Counter(f"{call.service}.{call.operation}" for call in stack.calls)
    stack.calls.clear()
    return counted


def large(user: User, nodes: int) -> Path:
    """Write the config of a cluster of ten groups."""
    group = {"instance_type": "ml.m5.2xlarge", "instance_count": nodes // 10}
    config = user.folder / "large.yaml"
    document: dict[str, Any] = {
        "name": "large",
        "chart": {"path": str(CHART)},
        "instance_groups": [{"name": f"group-{i}", **group} for i in range(10)],
    }
    config.write_text(json.dumps(document))
    return config


def test_a_token_is_signed_without_a_call(user: User) -> None:
    door = eks.kube_access(new_aws(), "demo", {"endpoint": "", "certificate_authority": ""})
    user.stack.calls.clear()

    assert door.token().startswith("k8s-aws-v1.")
    assert user.stack.calls == []


@dataclass
class Ran:
    """The result of one command."""

    calls: list[Call]
    chain: list[int]
    """Its rounds, each as its number of calls."""

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.mutating]

    @property
    def counted(self) -> Counter[str]:
        """Return the number of calls by operation."""
        return Counter(f"{call.service}.{call.operation}" for call in self.calls)


class Life:
    """A cluster from create to delete, run once for all tests that count its calls."""

    def __init__(self, user: User) -> None:
        self._user = user
        # more calls at once than the default, so that rounds follow from dependencies alone
        more = ("--parallelism", "16", "--timeline", "run.svg")
        self.first = self._runs("create", "demo", "--chart", str(CHART), *more)
        self.drawn = (user.folder / "run.svg").read_text()
        self.again = self._runs("create", "demo")
        self.status = self._runs("status", "demo")
        snapshot = Snapshot(new_aws())
        self.doors = [eks.access(snapshot, "demo") for _ in range(2)]
        self.delete = self._runs("delete", "demo", "--yes")

    def _runs(self, *words: str) -> Ran:
        stack = self._user.stack
        stack.calls.clear()
        with rounds(stack) as chain:
            said = self._user.types(*words)
        assert said.code == 0, said.err
        return Ran(list(stack.calls), chain)


@pytest.fixture(scope="module")
def life(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Life:
    with (
        at_work(one_stack, tmp_path_factory.mktemp("life")) as user,
        pytest.MonkeyPatch.context() as patch,
    ):
        # else reads would be repeated on a busy machine
        patch.setattr("hyperpod_eks.engine.loop.FRESH", 600.0)
        # and so would reads of resources that are being deleted
        patch.setattr("hyperpod_eks.engine.destroy.SHORTEST", 600.0)
        return Life(user)


def test_one_look_reaches_kubernetes_through_one_client(life: Life) -> None:
    one, other = life.doors
    assert one is not None
    assert one is other


def test_a_create_that_has_nothing_to_do_looks_once_and_writes_nothing(life: Life) -> None:
    assert life.again.writes == []
    counted = life.again.counted
    assert counted.total() <= LOOK
    assert [name for name, count in counted.items() if name.startswith("ec2") and count > 2] == []


def test_status_asks_no_more_than_a_create_that_has_nothing_to_do(life: Life) -> None:
    assert (
        life.status.counted.total() <= LOOK + 2
    )  # HyperPod's operations, and the bucket's configs


def test_nothing_is_waited_for_that_is_not_needed(life: Life) -> None:
    """Count rounds: the longest chain of calls that need the previous call's answer."""
    # the bucket, the claim and the config in it come first; the claim is released, or all go last
    most = {"first": 13 + 4, "again": 3, "status": 3, "delete": 18 + 6}
    for command, limit in most.items():
        chain = getattr(life, command).chain
        assert 0 < len(chain) <= limit, (command, chain)


def test_with_everything_on_a_create_that_has_nothing_to_do_waits_four_times(user: User) -> None:
    """Enough calls at once are allowed for rounds to follow from dependencies alone.

    EKS is asked for the add-ons' versions and then for the policies that it recommends; then come
    a list or a name, and what it names.
    """
    s3 = new_session().client("s3")
    s3.create_bucket(
        Bucket="datasets", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    (user.folder / "near").mkdir()
    (user.folder / "near/Chart.yaml").write_text("{apiVersion: v2, name: near, version: 1.0.0}\n")
    registry = f"{ACCOUNT}.dkr.ecr.us-west-2.amazonaws.com"
    (user.folder / "c.yaml").write_text(EVERYTHING.replace("ECR", registry))
    user.makes("demo", "-f", "c.yaml")
    user.stack.calls.clear()
    with rounds(user.stack) as chain:
        user.makes("demo", "-f", "c.yaml", "--parallelism", "64")

    calls = list(user.stack.calls)
    names = iter(f"{call.service}.{call.operation}" for call in calls)
    waits = [sorted(islice(names, count)) for count in chain]
    assert [call for call in calls if call.mutating] == []
    assert 0 < len(waits) <= 4, waits
    assert "eks.DescribeAddonVersions" in waits[0]
    assert "eks.DescribeAddonConfiguration" in waits[1], waits
    assert {"eks.DescribeAddon", "fsx.DescribeDataRepositoryAssociations"} <= {*waits[2]}, waits
    assert {*waits[3]} <= {
        "eks.DescribePodIdentityAssociation",
        "iam.GetPolicyVersion",
        "sagemaker.DescribeClusterSchedulerConfig",
        "sagemaker.DescribeComputeQuota",
        "sagemaker.ListTags",
    }, waits
    assert len(calls) <= 133


def test_a_first_create_makes_hardly_more_calls_than_it_must(life: Life) -> None:
    """docs/performance.md lists the minimum."""
    assert len(life.first.writes) == 43
    counted = life.first.counted
    # AWS cannot simulate mixed services, resource types or conditions
    assert counted.pop("iam.SimulatePrincipalPolicy") <= 40
    assert counted.pop("pricing.GetProducts") == 6  # once a week
    least, config = 68, 2  # it is looked for and written
    preflight, review = 10, 11  # for fields that create's answer does not describe
    busy = 3  # on a busy machine, HyperPod is asked again
    assert counted.total() <= least + config + preflight + review + busy


def test_a_delete_looks_once_before_and_once_after(life: Life) -> None:
    counted = life.delete.counted
    claim = 3  # read, taken and deleted
    assert counted.total() <= 93 + claim + 2 * 8  # untracked resources are listed twice
    once = ("ec2.DescribeSubnets", "ec2.DescribeInternetGateways", "s3.GetBucketTagging")
    assert {name: counted[name] for name in once} == dict.fromkeys(once, 2)


def test_a_first_create_asks_for_each_thing_once(life: Life) -> None:
    counted = life.first.counted
    twice = {name for name, count in counted.items() if ".Create" in name and count > 4}
    assert not twice
    assert counted["eks.DescribeCluster"] <= 5
    assert counted["sagemaker.DescribeCluster"] <= 5


def test_hyperpod_begins_while_the_vpc_cni_is_still_coming(user: User) -> None:
    stack = user.stack
    start: list[Call] = []
    stack.sim.delays = Delays(addon=60)

    def let_the_addons_come() -> None:
        """Advance the clock once CreateCluster of HyperPod is called, or after 20 seconds."""
        deadline = time.monotonic() + 20
        while not start and time.monotonic() < deadline:
            time.sleep(0.02)
            start.extend(call for call in list(stack.calls) if call.service == "sagemaker"
                         and call.operation == "CreateCluster")  # fmt: skip
        stack.clock.advance(60)

    clock = threading.Thread(target=let_the_addons_come)
    clock.start()
    user.makes("demo")
    clock.join()

    assert [call.status for call in start] == [200]


def test_three_times_the_nodes_are_three_times_the_pages_and_nothing_else(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in limits()["sagemaker"]:
        user.stack.sim.set_quota("sagemaker", name, 1e6)
    found = {}
    for nodes in (100, 300):
        config = large(user, nodes)
        said = user.types("create", "-f", str(config))
        assert said.code == 0, said.err
        costs(user.stack)
        status = user.types("status", "-f", str(config), "-o", "json")
        assert len(status.document["nodes"]) == nodes
        found[nodes] = costs(user.stack)

    assert found[100].pop("sagemaker.ListClusterNodes") == 1
    assert found[300].pop("sagemaker.ListClusterNodes") == 3
    assert found[100] == found[300]

    monkeypatch.setattr("hyperpod_eks.resources.hyperpod.api.PAGE", 30)  # ten pages, one a group
    with rounds(user.stack) as chain:
        status = user.types("status", "-f", str(config), "-o", "json")
    places = [(node["instance_group"], node["instance_id"]) for node in status.document["nodes"]]
    assert len(places) == 300
    assert places == sorted(places)  # whichever list ended first
    assert costs(user.stack)["sagemaker.ListClusterNodes"] == 11
    assert len(chain) <= 5  # the pages of all nodes would follow each other

    monkeypatch.setattr(api, "_parts", lambda _: ["group-1"])  # AWS finds less than it should
    status = user.types("status", "-f", str(config), "-o", "json")
    assert len({node["instance_id"] for node in status.document["nodes"]}) == 300


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ({"a": 500, "b": 500}, ["a", "b"]),
        ({"gpu": 700, "gpu-2": 400, "cpu": 900}, ["gpu", "cpu"]),
        ({"workers": 5000}, []),
        ({f"{i:02}x": 10 for i in range(100)}, []),  # a page each: more calls
        ({}, []),
    ],
)
def test_many_nodes_are_listed_by_group_if_that_takes_hardly_more_calls(
    sizes: dict[str, int], parts: list[str]
) -> None:
    groups = [{"InstanceGroupName": n, "CurrentCount": c} for n, c in sizes.items()]
    assert api._parts({"InstanceGroups": groups}) == parts


def test_backups_of_a_cluster_that_is_gone_are_looked_up_once(user: User) -> None:
    user.has("demo")
    user.stack.reset()
    (user.folder / "demo.hyperpod-eks.json").unlink()
    costs(user.stack)
    assert user.types("plan", "demo").code == 0
    assert costs(user.stack)["sagemaker.DescribeCluster"] <= 2


def note(told: list[str], event: Any) -> None:
    told.append(event.resource.kind)


def test_a_thousand_nodes_that_come_at_once_are_looked_at_once() -> None:
    pki = make_pki()
    updates = {}
    for count in (100, 1000):
        cluster = Cluster(Clock(), lambda _: None, "1.33", pki, delays=INSTANT)
        store = cluster._store
        template = {
            "metadata": {"labels": {"app": "agent"}},
            "spec": {"containers": [{"name": "agent", "image": "agent"}]},
        }
        spec = {"selector": {"matchLabels": {"app": "agent"}}, "template": template}
        daemons = {"metadata": {"name": "agent"}, "spec": spec}
        store.create(store.registry.builtin("DaemonSet"), "default", daemons)
        told: list[str] = []
        store.listeners.append(partial(note, told))
        with cluster.at_once():
            for number in range(count):
                cluster.add_node(f"node-{number}", {}, ready=True)
        updates[count] = Counter(told)["DaemonSet"]
        found = store.get(store.registry.builtin("DaemonSet"), "default", "agent")
        assert found["status"]["numberReady"] == count
        cluster.stop()

    assert updates[1000] == updates[100] <= 4


def test_every_tenth_call_refused_and_the_run_still_ends_well(user: User) -> None:
    for service, code, status in (
        ("ec2", "RequestLimitExceeded", 503),
        ("iam", "Throttling", 400),
        ("eks|sagemaker|logs", "ThrottlingException", 400),
    ):
        fault = Fault(service, code=code, status=status, count=10**6, rate=0.1)
        user.stack.faults.append(fault)

    user.makes("demo")

    refused = [call for call in user.stack.calls if call.status in (400, 503)]
    assert refused
    assert len({c.operation for c in user.stack.calls if c.mutating and c.status == 200}) > 20


class Answer:
    """An HTTP response."""

    def __init__(self, status: int) -> None:
        self.status_code = status


class Operation:
    """botocore's model of an operation."""

    name = "DescribeVpcs"


def refusal() -> tuple[Answer, dict[str, Any]]:
    return Answer(503), {"Error": {"Code": "RequestLimitExceeded", "Message": "slow down"}}


class TestPace:
    def test_nobody_waits_before_somebody_was_refused(self) -> None:
        slept: list[float] = []
        pace = Pace("ec2")
        pace.wait(slept.append)
        assert slept == []

    def test_one_refusal_slows_all_workers_down_and_answers_speed_them_up_again(self) -> None:
        slept: list[float] = []
        pace = Pace("ec2")
        assert pace.judge(refusal(), Operation, 1)
        for _ in range(4):
            pace.wait(slept.append)
        assert slept[-1] == pytest.approx(3 * FIRST, abs=0.02)
        for _ in range(20):
            assert pace.judge((Answer(200), {}), Operation, 1) is None
        assert pace.gap == 0

    def test_patience_has_bounds(self) -> None:
        pace = Pace("ec2")
        pauses = [pace.judge(refusal(), Operation, attempt) for attempt in range(1, 13)]
        assert pauses[-1] is None
        assert all(pause and pause <= 2 * LARGEST for pause in pauses[:-1])

    def test_a_refused_call_is_sent_again_when_our_pace_says(
        self, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slept: list[float] = []
        here, sleep = threading.current_thread(), time.sleep

        def note_pause(seconds: float) -> None:
            if threading.current_thread() is here:
                slept.append(seconds)
            else:  # shared by all threads
                sleep(seconds)

        monkeypatch.setattr("botocore.endpoint.time.sleep", note_pause)
        aws = new_aws()
        refused = Fault("ec2", code="RequestLimitExceeded", status=503, count=4)
        user.stack.faults.append(refused)

        aws.ec2.describe_vpcs()

        pauses = [FIRST * 2**n for n in range(4)]
        assert len(slept) == 4
        assert all(p <= s <= 2 * p for s, p in zip(slept, pauses, strict=True))

    def test_what_is_no_throttling_is_left_to_botocore(self) -> None:
        pace = Pace("ec2")
        denied = Answer(403), {"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}
        assert pace.judge(denied, Operation, 1) is None
        assert pace.judge(None, Operation, 1) is None
        assert pace.gap == 0


def test_status_and_a_create_that_has_nothing_to_do_import_only_what_they_need() -> None:
    script = (
        "import sys, hyperpod_eks.engine, hyperpod_eks.cli.opening, hyperpod_eks.cli.recorder\n"
        "from hyperpod_eks.cli.commands import create, status\n"
        "from hyperpod_eks.helm import chart, release\n"
        "from hyperpod_eks.kube import client\n"
        "from hyperpod_eks.aws.session import session\n"
        "session('us-west-2', None)\n"
        "heavy = {'boto3', 'kubernetes', 'pyhelm3', 'moto', 'rich', 'difflib'}\n"
        "ours = 'preflight', 'aws.registry', 'policy.authorization', 'terminal.timeline'\n"
        "print(sorted((heavy | {f'hyperpod_eks.{each}' for each in ours}) & {*sys.modules}))"
    )
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | keys,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_program_of_the_users_imports_kubernetes_whole() -> None:
    script = (
        "import sys\n"
        "from hyperpod_eks.kube.access import Access\n"
        "made = Access('demo', 'https://localhost', '', lambda: 'secret')._rest\n"
        "ours = {'kubernetes', 'kubernetes.config'} & set(sys.modules)\n"
        "import kubernetes, kubernetes.utils\n"
        "whole = kubernetes.config.load_kube_config, kubernetes.utils.parse_quantity\n"
        "known = isinstance(made, kubernetes.client.rest.RESTClientObject)\n"
        "print(ours, known, kubernetes.client.ApiClient and kubernetes.__project__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("set() True kubernetes", "")


class TestTimeline:
    def test_a_bar_for_everything_that_changed(self) -> None:
        clock = iter([0.0, 0.0, 1.0, 61.0, 70.0, 70.0, 70.0])
        heard: list[Event] = []
        timeline = Timeline(heard.append, lambda: next(clock))
        for key, what in (
            ("eks/cluster", EventType.CREATING),
            ("iam/role", EventType.CREATING),
            ("eks/cluster", EventType.READY),
            ("hyperpod/cluster", EventType.FAILED),
        ):
            timeline(Event(key, what))
        drawn = ET.fromstring(timeline.picture("create <demo>"))

        titles = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}title")]
        assert titles == ["eks/cluster: 1 min 1 s", "iam/role: 1 min 9 s"]
        assert len(heard) == 4

    def test_create_draws_one(self, life: Life) -> None:
        assert "hyperpod/cluster" in life.drawn
        assert ET.fromstring(life.drawn).tag.endswith("svg")

    def test_a_folder_that_is_not_there_is_told_before_anything_is_made(self, user: User) -> None:
        said = user.types("create", "demo", "--timeline", "nowhere/run.svg")
        assert said.code == 2
        assert "nowhere does not exist" in said.err
        said = user.types("create", "demo", "--timeline", "/dev/full")
        assert (said.code, "is a device, not a regular file" in said.err) == (2, True)
        assert not user.stack.calls
