"""``nodes NAME delete``: the chosen nodes go, and the next create does not bring them back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Delays, Fault
from tests.conftest import User, until

TEXT = f"""\
# the file of a team
name: demo
region: us-west-2
chart: {{path: {CHART}}}
instance_groups:
- {{name: a, instance_type: ml.m5.2xlarge, instance_count: 3}}   # as many as needed
- {{name: b, instance_type: ml.m5.2xlarge, instance_count: 2}}
"""


@pytest.fixture
def team(user: User) -> User:
    (user.folder / "demo.yaml").write_text(TEXT)
    user.has("demo", "-f", "demo.yaml")
    user.mutations()
    return user


def groups(user: User) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"a": [], "b": []}
    for row in user.types("nodes", "demo", "-o", "json").document["nodes"]:
        found[row["instance_group"]].append(row["instance_id"])
    return found


def kept(user: User) -> dict[str, int]:
    said = user.types("config", "show", "demo", "-o", "json")
    assert said.code == 0, said.err
    return {g["name"]: g["instance_count"] for g in said.document["config"]["instance_groups"]}


def unchanged(user: User, *words: str) -> None:
    """Create with the config of these words changes nothing, and nothing differs."""
    user.mutations()
    said = user.types("create", *words, "-o", "json")
    assert (said.code, said.document["changed"]) == (0, False), said.err
    assert user.mutations() == []


def test_chosen_nodes_go_and_do_not_come_back(
    team: User, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = groups(team)["a"]
    monkeypatch.chdir(tmp_path_factory.mktemp("another"))  # a machine without files of the cluster
    said = team.types("nodes", "demo", "delete", one, "i-00000000", three, "--yes")

    assert said.code == 1
    assert said.out.splitlines() == [
        f"deleting {one}", f"deleting {three}",
        "refused i-00000000: NodeIdNotFound Node i-00000000 of cluster demo: NodeIdNotFound",
        "a: 3 -> 1 nodes",
    ]  # fmt: skip
    assert team.mutations() == ["sagemaker.BatchDeleteClusterNodes"]
    assert groups(team)["a"] == [two]
    assert kept(team) == {"a": 1, "b": 2}
    unchanged(team, "demo")
    monkeypatch.chdir(team.folder)
    unchanged(team, "demo")
    assert (team.folder / "demo.yaml").read_text() == TEXT


def test_with_a_file_its_count_follows_and_nothing_else(team: User) -> None:
    one, two, three = groups(team)["a"]

    said = team.types("nodes", "-f", "demo.yaml", "delete", two, "--yes", "-o", "json")

    assert (said.code, said.document["done"], said.document["scaled"]) == (0, [two], {"a": [3, 2]})
    text = TEXT.replace("instance_count: 3", "instance_count: 2")
    assert (team.folder / "demo.yaml").read_text() == text
    assert groups(team)["a"] == [one, three]
    for words in (("-f", "demo.yaml"), ("demo",)):
        unchanged(team, *words)


REFUSED: dict[str, tuple[str, str]] = {
    "the minimum": (
        TEXT.replace("instance_count: 2", "instance_count: 2, min_instance_count: 2"),
        "min_instance_count: 2 is more than instance_count, 1",
    ),
    "the last one": (
        TEXT.replace("instance_count: 2", "instance_count: 1") + "node_provisioning_mode: null\n",
        "0 nodes needs node_provisioning_mode: Continuous",
    ),
    "Karpenter": (
        TEXT + "auto_scaling: {mode: Enable}\n",
        "nodes delete: auto_scaling is enabled and the config names no node pools",
    ),
}


@pytest.mark.sample("the minimum")
@pytest.mark.parametrize("why", REFUSED)
def test_what_the_config_does_not_allow_is_refused_before(user: User, why: str) -> None:
    text, told = REFUSED[why]
    (user.folder / "demo.yaml").write_text(text)
    user.makes("demo", "-f", "demo.yaml")
    user.mutations()
    node = groups(user)["b"][0]

    for words in (("demo",), ("-f", "demo.yaml")):
        said = user.types("nodes", *words, "delete", node, "--yes")
        assert (said.code, told in said.err) == (2, True), said.err
    assert user.mutations() == []
    assert (user.folder / "demo.yaml").read_text() == text


def test_a_group_that_only_the_file_lacks_is_no_node_that_does_not_exist(team: User) -> None:
    """Exit code 8 would say that the node is gone."""
    (team.folder / "demo.yaml").write_text(TEXT.replace("name: a,", "name: c,"))
    said = team.types("nodes", "-f", "demo.yaml", "delete", groups(team)["a"][0], "--yes")
    assert said.code == 2
    assert "the config of demo has no instance group a\nIt has c, b.\n" in said.err
    assert team.mutations() == []


def test_it_asks_and_says_what_is_lost(team: User) -> None:
    said = team.types("nodes", "demo", "delete", *groups(team)["a"][:2])

    assert said.code == 2
    assert (
        "delete of 2 nodes of demo: the pods there stop, the disks are lost, a: 3 -> 1 nodes"
        in said.err
    )
    assert team.mutations() == []
    assert kept(team) == {"a": 3, "b": 2}


def test_a_count_that_cannot_be_changed_alone_is_refused_before(team: User) -> None:
    text = TEXT.replace("instance_count: 3", "instance_count: &many 3")
    (team.folder / "demo.yaml").write_text(text)

    said = team.types("nodes", "-f", "demo.yaml", "delete", groups(team)["a"][0], "--yes")

    assert (said.code, "with an anchor" in said.err) == (2, True)
    assert team.mutations() == []


def test_a_refusal_in_between_leaves_the_count_of_what_went(
    team: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperpod_eks.cli.node_deletion.BATCH", 1)
    one, two, three = groups(team)["a"]
    operation = "BatchDeleteClusterNodes"
    refusal = Fault("sagemaker", operation, code="AccessDeniedException", message="No.")
    team.stack.faults.extend([Fault("sagemaker", operation, kind="delay"), refusal])

    said = team.types("nodes", "demo", "delete", one, two, "--yes")

    assert (said.code, "No." in said.err) == (3, True)
    team.stack.faults.clear()
    assert groups(team)["a"] == [two, three]
    assert kept(team) == {"a": 2, "b": 2}
    unchanged(team, "demo")


def test_a_count_that_cannot_be_written_is_told_with_the_command_that_does(team: User) -> None:
    one, two, three = groups(team)["a"]
    denied = Fault("s3", "PutObject", code="AccessDenied", status=403, message="No.")
    team.stack.faults.extend([Fault("s3", "PutObject", kind="delay"), denied])  # after the claim

    said = team.types("nodes", "demo", "delete", one, "--yes")

    assert (said.code, "are being deleted" in said.err) == (1, True), said.err
    assert "hyperpod-eks scale demo a=2" in said.err
    assert groups(team)["a"] == [two, three]
    assert team.types("scale", "demo", "a=2").code == 0
    unchanged(team, "demo")


def test_a_signal_waits_until_the_count_is_written(team: User) -> None:
    one, two, three = groups(team)["a"]
    operation = "BatchDeleteClusterNodes"
    slow = Fault("sagemaker", operation, kind="delay", seconds=0.5)
    team.stack.faults.append(slow)

    def interrupt() -> None:
        until(lambda: slow.count == 0)  # the call has arrived
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    said = team.types("nodes", "demo", "delete", one, "--yes")
    thread.join()

    assert said.code == 128 + signal.SIGINT, said.err
    assert groups(team)["a"] == [two, three]
    assert kept(team) == {"a": 2, "b": 2}
    unchanged(team, "demo")


def test_a_node_that_is_leaving_counts_no_more(team: User) -> None:
    one, two, _ = groups(team)["a"]
    team.stack.sim.delays = Delays(hyperpod_terminate=600)
    assert team.types("nodes", "demo", "delete", one, "--yes").code == 0

    said = team.types("nodes", "demo", "delete", one, two, "--yes")

    assert (said.code, said.out.splitlines()) == (
        1,
        [
            f"deleting {two}",
            f"refused {one}: InvalidNodeStatus Node {one} of cluster demo: InvalidNodeStatus",
            "a: 2 -> 1 nodes",
        ],
    )
    assert kept(team) == {"a": 1, "b": 2}


@pytest.mark.parametrize("seconds", [0, 600], ids=["gone", "leaving"])
def test_a_lost_answer_is_not_taken_for_a_refusal(team: User, seconds: int) -> None:
    one, _, _ = groups(team)["a"]
    team.stack.sim.delays = Delays(hyperpod_terminate=seconds)
    team.stack.faults.append(Fault("sagemaker", "BatchDeleteClusterNodes", kind="lost"))

    said = team.types("nodes", "demo", "delete", one, "i-00000000", "--yes")

    assert said.out.splitlines() == [
        f"deleting {one}",
        "refused i-00000000: NodeIdNotFound Node i-00000000 of cluster demo: NodeIdNotFound",
        "a: 3 -> 2 nodes",
    ]
    assert kept(team) == {"a": 2, "b": 2}
