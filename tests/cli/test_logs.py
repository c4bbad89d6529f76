"""``logs`` and ``events``: output of the nodes, the control plane and HyperPod."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest

from hyperpod_eks.local.aws.sim import Fault
from tests.conftest import Clients, Said, User, until


@pytest.fixture
def user(user: User) -> User:
    """A user with the cluster demo."""
    user.has("demo")
    return user


@pytest.fixture
def aws(user: User, session: boto3.Session) -> Clients:
    return Clients(session, user.stack.endpoint)


def node_ids(user: User) -> list[str]:
    return [
        row["instance_id"] for row in user.types("nodes", "demo", "-o", "json").document["nodes"]
    ]


def reads_only(user: User, *words: str) -> Said:
    user.mutations()
    said = user.types(*words)
    assert user.mutations() == []
    return said


def test_logs_are_those_of_the_lifecycle_scripts(user: User) -> None:
    said = reads_only(user, "logs", "demo", "--group", "worker-group")

    assert said.code == 0
    assert said.out.count("[lifecycle] on_create.sh: exit code 0") == 2
    assert {line.split()[1].split("/")[0] for line in said.out.splitlines()} == {"worker-group"}


@pytest.mark.parametrize("spelling", ["{}", "hyperpod-{}"])
def test_logs_of_one_node(user: User, spelling: str) -> None:
    first, _ = node_ids(user)

    for words in (("--node", spelling.format(first)), ("--group", "worker-group", "--node", first)):
        document = reads_only(user, "logs", "demo", *words, "-o", "json").document
        assert {line["stream"] for line in document["lines"]} == {f"worker-group/{first}"}


@pytest.mark.parametrize("verb", ["logs", "events"])
def test_a_group_or_node_that_is_not_there_is_not_found(user: User, verb: str) -> None:
    said = reads_only(user, verb, "demo", "--group", "nobody")
    assert (said.code, said.out) == (8, "")
    assert "the cluster demo has no instance group nobody\nIt has worker-group.\n" in said.err
    said = reads_only(user, verb, "demo", "--node", "i-00000000")
    assert (said.code, said.out) == (8, "")
    assert "has no node i-00000000\nTo list them: hyperpod-eks nodes demo\n" in said.err


def test_without_lines_it_says_when_they_come(user: User) -> None:
    user.stack.faults.append(Fault("logs", "DescribeLogStreams", code="ResourceNotFoundException"))
    said = user.types("logs", "demo")
    assert (said.code, said.out) == (
        0,
        "no log lines yet: lifecycle scripts write when the first nodes start\n",
    )
    user.stack.faults.append(Fault("logs", "DescribeLogStreams", code="ResourceNotFoundException"))
    said = user.types("logs", "demo", "--control-plane")
    assert (said.code, said.out) == (0, "no log lines yet: the control plane writes once it runs\n")


def test_tail_takes_the_newest_lines(user: User, aws: Clients) -> None:
    group = user.types("logs", "demo", "-o", "json").document["log_group"]
    stream = {"logGroupName": group, "logStreamName": "LifecycleConfig/late/i-1"}
    aws.logs.create_log_stream(**stream)
    events = [{"timestamp": 4102444800000, "message": f"line {i}"} for i in range(9)]
    aws.logs.put_log_events(**stream, logEvents=[e | {"timestamp": _now()} for e in events])

    said = user.types("logs", "demo", "--group", "late", "--tail", "2")

    assert [line.split(" ", 2)[2] for line in said.out.splitlines()] == ["line 7", "line 8"]


def _now() -> int:
    return int(time.time() * 1000)


def test_logs_of_the_control_plane(user: User) -> None:
    said = reads_only(user, "logs", "demo", "--control-plane")

    assert said.code == 0
    assert "kube-api-" in said.out
    assert user.types("logs", "demo", "--control-plane", "--group", "g").code == 2


def test_logs_of_a_cluster_that_is_gone_are_still_there(user: User) -> None:
    assert user.types("delete", "demo", "--yes", "--keep", "logs").code == 0

    assert "exit code 0" in user.types("logs", "demo").out


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command as a process while the context is open."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def looks_again(user: User, times: int = 2) -> None:
    """Wait until the command has read new lines a number of times."""

    def looks() -> int:
        calls = list(user.stack.calls)
        return sum(call.operation in ("FilterLogEvents", "DescribeLogGroups") for call in calls)

    before = looks()
    until(lambda: looks() >= before + times)


def test_follow_goes_on_until_told_to_stop(user: User, aws: Clients) -> None:
    group = user.types("logs", "demo", "-o", "json").document["log_group"]
    stream = {"logGroupName": group, "logStreamName": "LifecycleConfig/worker-group/i-new"}
    command = [sys.executable, "-m", "hyperpod_eks", "logs", "demo", "--follow", "-o", "json"]
    with running(command) as following:
        assert following.stdout
        lines = map(json.loads, following.stdout)
        assert next(lines)["message"]
        aws.logs.create_log_stream(**stream)
        aws.logs.put_log_events(**stream, logEvents=[{"timestamp": _now(), "message": "hello"}])

        late = next(line for line in lines if line["message"] == "hello")
        looks_again(user)
        following.send_signal(signal.SIGINT)
        rest = list(lines)
        following.wait()

    assert late["stream"] == "worker-group/i-new"
    assert rest == []
    assert following.returncode == 130


def test_follow_shows_a_line_once_and_waits_for_the_first(user: User, aws: Clients) -> None:
    """The newest line of the tail is read again; before the first node there is no log group."""
    place = user.types("logs", "demo", "-o", "json").document["log_group"]
    aws.logs.delete_log_group(logGroupName=place)
    command = [sys.executable, "-m", "hyperpod_eks", "logs", "demo", "--follow", "-o", "json"]
    stream = {"logGroupName": place, "logStreamName": "LifecycleConfig/worker-group/i-1"}
    with running(command) as following:
        assert following.stdout
        looks_again(user, 1)
        aws.logs.create_log_group(logGroupName=place)
        aws.logs.create_log_stream(**stream)
        aws.logs.put_log_events(**stream, logEvents=[{"timestamp": _now(), "message": "hello"}])
        assert json.loads(following.stdout.readline())["message"] == "hello"
        following.send_signal(signal.SIGINT)
        assert following.stdout.read() == ""
    with running(command) as following:
        assert following.stdout
        assert json.loads(following.stdout.readline())["message"] == "hello"
        looks_again(user)
        following.send_signal(signal.SIGINT)
        assert following.stdout.read() == ""


def test_events_come_newest_last(user: User) -> None:
    rows = reads_only(user, "events", "demo", "-o", "json").document["events"]

    assert rows == sorted(rows, key=lambda row: row["time"])
    assert rows[-1]["message"].startswith(("The cluster is InService", "Instance i-"))
    text = user.types("events", "demo").out.splitlines()
    assert len(text) == len(rows)
    assert len(user.types("events", "demo", "--tail", "1").out.splitlines()) == 1


def test_events_of_a_group_and_of_the_last_hour(user: User) -> None:
    rows = user.types("events", "demo", "--group", "worker-group", "-o", "json").document["events"]
    assert {row["instance_group"] for row in rows} == {"worker-group"}
    assert user.types("events", "demo", "--since", "1h").out
    wrong = user.types("events", "demo", "--since", "yesterday")
    assert wrong.code == 2
    assert "invalid duration 'yesterday'" in wrong.err


@pytest.mark.parametrize(
    "command",
    [
        ("events", "nobody"),
        ("logs", "nobody"),
        ("nodes", "nobody"),
        ("ssm", "nobody", "i-00000000"),
    ],
)
def test_without_a_cluster_there_is_nothing_to_tell(user: User, command: tuple[str, ...]) -> None:
    said = user.types(*command)

    assert said.code == 8
    assert "HyperPod cluster nobody does not exist in us-west-2" in said.err
