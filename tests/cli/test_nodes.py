"""``nodes`` and ``ssm``: list, reboot and replace nodes, and open a shell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.cli.commands.nodes import text
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.stack import Stack
from tests.conftest import User, at_work


@pytest.fixture(scope="module")
def cluster(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with at_work(one_stack, tmp_path_factory.mktemp("nodes")) as user:
        user.has("demo")
        yield user


@pytest.fixture
def made(cluster: User) -> User:
    cluster.mutations()
    return cluster


def ids(user: User) -> list[str]:
    return [
        row["instance_id"] for row in user.types("nodes", "demo", "-o", "json").document["nodes"]
    ]


def test_nodes_are_shown_with_status_readiness_and_health(made: User) -> None:
    said = made.types("nodes", "demo")

    head, first, second, total = said.out.splitlines()
    assert head.split() == ["NODE", "GROUP", "TYPE", "STATUS", "READY", "HEALTH"]
    for line in (first, second):
        assert line.split()[1:] == [
            "worker-group", "ml.m5.2xlarge", "Running", "yes", "Schedulable",
        ]  # fmt: skip
    assert total == "worker-group: 2 of 2 nodes, 2 ready"
    assert made.mutations() == []


def test_a_node_is_rebooted(made: User) -> None:
    first, _ = ids(made)

    said = made.types("nodes", "demo", "reboot", f"hyperpod-{first}", "--yes")

    assert (said.code, said.out) == (0, f"rebooting {first}\n")
    assert made.mutations() == ["sagemaker.BatchRebootClusterNodes"]


def test_a_file_or_a_manifest_names_the_cluster(made: User) -> None:
    first, _ = ids(made)
    (made.folder / "demo.yaml").write_text("name: demo\nregion: us-west-2\n")
    for named in (("-f", "demo.yaml"), ("--manifest", "demo.hyperpod-eks.json")):
        said = made.types("nodes", *named, "reboot", first, "--yes")
        assert (said.code, said.out) == (0, f"rebooting {first}\n"), said.err
        said = made.types("ssm", *named, first)
        assert said.code == 0, said.err
        assert said.out.startswith("aws ssm start-session")
        assert made.types("nodes", *named).code == 0
    for words, told in {
        (
            "nodes",
            "demo",
            "restart",
            first,
        ): "unknown action 'restart'; use reboot, replace, check or delete",
        ("nodes", "-f", "demo.yaml", "reboot"): "hyperpod-eks nodes --file demo.yaml",
        ("ssm", "demo"): "hyperpod-eks nodes demo",
    }.items():
        said = made.types(*words)
        assert (said.code, said.out) == (2, "")
        assert told in said.err


def test_a_replaced_node_comes_back_as_another(made: User) -> None:
    first, second = ids(made)

    assert made.types("nodes", "demo", "replace", first, "--yes").code == 0

    after = ids(made)
    assert len(after) == 2
    assert second in after
    assert first not in after


def test_a_node_that_is_not_there_is_refused(made: User) -> None:
    first, _ = ids(made)

    said = made.types("nodes", "demo", "reboot", first, "i-00000000", "--yes")

    assert said.code == 1
    assert f"rebooting {first}" in said.out
    assert "refused i-00000000: InstanceIdNotFound" in said.out


@pytest.mark.parametrize("action", ["reboot", "replace", "check"])
def test_an_action_on_no_node_of_the_cluster_ends_as_for_any_absent_one(
    made: User, action: str
) -> None:
    said = made.types("nodes", "demo", action, "i-00000000", "--yes", "-o", "json")

    assert said.code == said.document["exit_code"] == 8
    assert [each["instance_id"] for each in said.document["failed"]] == ["i-00000000"]


def test_without_a_terminal_it_asks_for_yes(made: User) -> None:
    said = made.types("nodes", "demo", "replace", *ids(made))

    assert said.code == 2
    assert "replace of 2 nodes of demo" in said.err
    assert made.mutations() == []


def test_what_is_no_node_is_refused_before_aws_is_asked(made: User) -> None:
    said = made.types("nodes", "demo", "reboot", "worker-1", "--yes")

    assert said.code == 2
    assert "invalid node 'worker-1'" in said.err
    assert made.mutations() == []


def test_many_nodes_go_in_batches_of_what_aws_takes(made: User) -> None:
    made.types("nodes", "demo", "reboot", *[f"i-{n:08}" for n in range(60)], "--yes")

    assert made.mutations() == ["sagemaker.BatchRebootClusterNodes"] * 3


def test_of_ten_thousand_nodes_those_with_a_problem_are_shown() -> None:
    def row(number: int, **other: object) -> dict[str, object]:
        return {
            "name": f"hyperpod-i-{number}",
            "instance_id": f"i-{number}",
            "instance_group": "workers",
            "instance_type": "ml.p5.48xlarge",
            "status": "Running",
            "ready": True,
            "health": "Schedulable",
            "why": "",
            **other,
        }

    rows = [row(n) for n in range(10_000)]
    rows[77] = row(77, ready=False, why="kubelet has not reported yet")
    document: Any = {
        "command": "nodes",
        "nodes": rows,
        "groups": [{"name": "workers", "current": 10_000, "target": 10_000}],
    }

    lines = text(document).splitlines()

    assert len(lines) == 4
    assert lines[1].split()[:2] == ["i-77", "workers"]
    assert lines[1].endswith("kubelet has not reported yet")
    assert lines[2] == "(9999 more; all of them: -o json)"
    assert lines[3] == "workers: 10000 of 10000 nodes, 9999 ready"


def test_ssm_prints_the_command_of_a_session(made: User) -> None:
    first, _ = ids(made)

    said = made.types("ssm", "demo", first)

    cluster = made.types("status", "demo", "-o", "json").document["cluster"]["arn"]
    target = f"sagemaker-cluster:{cluster.rpartition('/')[2]}_worker-group-{first}"
    assert said.out == f"aws ssm start-session --target {target} --region us-west-2\n"
    assert made.mutations() == []


def test_ssm_of_a_node_that_is_not_there(made: User) -> None:
    said = made.types("ssm", "demo", "i-00000000")

    assert said.code == 8
    assert "hyperpod-eks nodes demo" in said.err


def test_ssm_becomes_the_session(made: User, tmp_path: Path) -> None:
    first, _ = ids(made)
    program = tmp_path / "bin" / "aws"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "aws $*"\n')
    program.chmod(0o755)

    child = os.fork()
    if child == 0:  # the session replaces this process
        os.environ["PATH"] = f"{program.parent}:{os.environ['PATH']}"
        os.dup2(os.open(tmp_path / "said", os.O_WRONLY | os.O_CREAT), 1)
        made.types("ssm", "demo", first, "--run")
        os._exit(1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert (tmp_path / "said").read_text().startswith("aws ssm start-session --target ")


def test_ssm_says_what_is_missing_to_run(made: User, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = ids(made)
    monkeypatch.setenv("PATH", "/nowhere")

    said = made.types("ssm", "demo", first, "--run")

    assert said.code == 2
    assert "the AWS CLI (aws) is not on PATH" in said.err


def test_what_aws_will_refuse_again_is_not_to_be_run_again(made: User) -> None:
    refusal = Fault("sagemaker", "ListClusterNodes", code="ValidationException", message="No.")
    made.stack.faults.append(refusal)
    said = made.types("nodes", "demo")
    assert (said.code, "No." in said.err, "Run the same" in said.err) == (1, True, False)
