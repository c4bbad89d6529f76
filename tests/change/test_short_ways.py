"""``scale``, ``update-software`` and ``create --yes``, as commands."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from tests.cli.test_commands import on_a_terminal
from tests.conftest import Clients, User

FILE = """\
# ours
name: demo
region: us-west-2
instance_groups:
  - name: workers   # the big ones
    instance_type: ml.m5.2xlarge
    instance_count: 2   # as of spring
  - {name: small, instance_type: ml.m5.xlarge, instance_count: 1}
chart: {path: CHART}
""".replace("CHART", str(CHART))


def counts(aws: Clients) -> dict[str, int]:
    groups = aws.sagemaker.describe_cluster(ClusterName="demo")["InstanceGroups"]
    return {group["InstanceGroupName"]: group["CurrentCount"] for group in groups}


def test_scale_changes_the_count_in_the_file_and_nothing_else(user: User, aws: Clients) -> None:
    Path("c.yaml").write_text(FILE)
    user.has("demo", "-f", "c.yaml")
    said = user.types("scale", "-f", "c.yaml", "workers=3", "small=2")
    assert said.code == 0, said.err
    assert said.out.startswith("workers: 2 -> 3 nodes\nsmall: 1 -> 2 nodes\n")
    assert counts(aws) == {"workers": 3, "small": 2}
    grown = FILE.replace("count: 2   #", "count: 3   #").replace("count: 1}", "count: 2}")
    assert Path("c.yaml").read_text() == grown
    # fewer nodes need confirmation; without it nothing changes, including the file
    said = user.types("scale", "-f", "c.yaml", "workers=1")
    assert (said.code, "workers: 2 of its 3 nodes go" in said.err) == (2, True)
    assert Path("c.yaml").read_text() == grown
    assert counts(aws)["workers"] == 3
    assert user.types("scale", "-f", "c.yaml", "workers=1", "--yes").code == 0
    assert counts(aws) == {"workers": 1, "small": 2}
    # the old count is the cluster's: the file may have another one
    Path("c.yaml").write_text(grown)
    said = user.types("scale", "-f", "c.yaml", "workers=2", "small=1", "--yes")
    assert said.out.startswith("workers: 1 -> 2 nodes\nsmall: 2 -> 1 nodes\n"), said.err
    assert user.types("scale", "-f", "c.yaml", "workers=1", "small=2", "--yes").code == 0
    # without a file, the manifest's config is used
    assert user.types("scale", "demo", "small=3").code == 0
    assert counts(aws) == {"workers": 1, "small": 3}
    # a group that does not exist: not in the file, the manifest and the bucket's config
    names = "error: the config of demo has no instance group none\nIt has workers, small.\n"
    for place in (("-f", "c.yaml"), ("demo",)):
        said = user.types("scale", *place, "none=3")
        assert (said.code, names in said.err) == (8, True), said.err
    Path("demo.hyperpod-eks.json").unlink()
    said = user.types("scale", "demo", "none=3")
    assert (said.code, names in said.err) == (8, True), said.err
    assert counts(aws) == {"workers": 1, "small": 3}


def test_scale_knows_a_group_that_another_machine_has_added(user: User, aws: Clients) -> None:
    file, record = Path("c.yaml"), Path("demo.hyperpod-eks.json")
    file.write_text(FILE)
    user.has("demo", "-f", "c.yaml")
    ours = record.read_bytes()
    added = "  - {name: more, instance_type: ml.m5.xlarge, instance_count: 1}\nchart:"
    file.write_text(FILE.replace("chart:", added))
    assert user.types("create", "-f", "c.yaml").code == 0
    record.write_bytes(ours)
    said = user.types("scale", "demo", "more=2")
    assert said.code == 0, said.err
    assert counts(aws) == {"workers": 2, "small": 1, "more": 2}


def test_scale_changes_no_other_byte_and_writes_through_a_link(user: User) -> None:
    given = b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode()
    real, link = user.folder / "real.yaml", user.folder / "c.yaml"
    real.write_bytes(given)
    link.symlink_to("real.yaml")
    refusal = Fault("sagemaker", "DescribeCluster", code="AccessDeniedException", count=9)
    user.stack.faults.append(refusal)
    assert user.types("scale", "-f", "c.yaml", "workers=10").code == 3
    assert real.read_bytes() == given  # restored
    user.stack.faults.clear()
    said = user.types("scale", "-f", "c.yaml", "workers=10", "small=0")
    assert said.code == 0, said.err
    assert link.is_symlink()
    grown = given.replace(b"count: 2 ", b"count: 10 ").replace(b"count: 1}", b"count: 0}")
    assert real.read_bytes() == grown


@pytest.mark.parametrize("how", ["anchor", "tag", "read-only", "pipe"])
def test_scale_leaves_alone_what_it_cannot_change(user: User, how: str) -> None:
    text, file = FILE, user.folder / "c.yaml"
    if how == "anchor":
        text = text.replace("count: 2", "count: &n 2").replace("count: 1", "count: *n")
    if how == "tag":
        text = text.replace("count: 2", 'count: !!int "2"')
    if how == "pipe":
        os.mkfifo(file)
    else:
        file.write_text(text)
    if how == "read-only":
        file.chmod(0o444)
    said = user.types("scale", "-f", "c.yaml", "workers=3")
    says = {"read-only": "is read-only", "pipe": "is a pipe"}.get(how, "cannot be changed alone")
    assert (said.code, says in said.err) == (2, True), said.err
    assert how == "pipe" or file.read_text() == text
    assert user.mutations() == []


def test_update_software_renews_the_nodes_and_waits(user: User, aws: Clients) -> None:
    user.has("demo")
    said = user.types("update-software", "demo", "--batch", "1")
    assert (said.code, "its 2 nodes get a new image; pods are not drained" in said.err) == (2, True)
    for wrong, code, says in (
        ("--group", 8, "the config of demo has no instance group x\nIt has worker-group.\n"),
        ("--release", 2, "release of HyperPod's AMI 'x'"),
        ("--batch", 2, "'x' is neither a number of nodes nor a percentage"),
    ):
        said = user.types("update-software", "demo", wrong, "x", "--yes")
        assert (said.code, says in said.err) == (code, True)
    assert all(call.operation != "UpdateClusterSoftware" for call in user.stack.calls)
    for wrong in ("0", "0%", "101%", "-1", "1.5%"):
        said = user.types("update-software", "demo", f"--batch={wrong}", "--yes")
        assert (said.code, f"'{wrong}' is neither" in said.err) == (2, True)
    assert all(call.operation != "UpdateClusterSoftware" for call in user.stack.calls)
    for batch, type_ in (("1", "INSTANCE_COUNT"), ("50%", "CAPACITY_PERCENTAGE")):
        user.stack.calls.clear()
        said = user.types("update-software", "demo", "--batch", batch, "--yes")
        assert said.code == 0, said.err
        (call,) = (each for each in user.stack.calls if each.operation == "UpdateClusterSoftware")
        sent = json.loads(call.request[call.request.index("{") :])["DeploymentConfig"][
            "RollingUpdatePolicy"
        ]
        assert sent["MaximumBatchSize"] == {"Type": type_, "Value": int(batch.strip("%"))}
    assert list(user.folder.parent.glob("state/*/logs/*-update-software-*.log"))
    (group,) = aws.sagemaker.describe_cluster(ClusterName="demo")["InstanceGroups"]
    assert (group["Status"], group["ImageVersionStatus"]) == ("InService", "UpToDate")
    nodes = aws.sagemaker.list_cluster_nodes(ClusterName="demo")["ClusterNodeSummaries"]
    assert {node["CurrentImageReleaseVersion"] for node in nodes} == {"1.1.0"}
    assert user.types("create", "demo").code == 0


def test_an_update_of_the_software_whose_answer_is_lost_is_waited_for(user: User) -> None:
    """HyperPod answers the repeated request that the cluster is being updated: by the first one."""
    user.has("demo")
    operation = "UpdateClusterSoftware"
    busy = Fault("sagemaker", operation, "ConflictException", 400, "Cluster is being updated")
    user.stack.faults.extend([Fault("sagemaker", operation, kind="lost"), busy])
    said = user.types("update-software", "demo", "--yes")
    assert (said.code, said.err) == (0, said.err)
    user.stack.faults.append(replace(busy, count=1))  # by another process
    assert user.types("update-software", "demo", "--yes").code == 1


@pytest.mark.prove
def test_a_name_is_a_cluster_and_a_region_is_for_life(user: User) -> None:
    Path("c.yaml").write_text(FILE)
    user.has("demo", "-f", "c.yaml")
    Path("c.yaml").write_text(FILE.replace("name: demo", "name: second"))
    plan = user.types("plan", "-f", "c.yaml", "-o", "json").document
    actions = {row["action"] for row in plan["resources"] if row["action"] != "wait"}
    assert (actions, plan["cluster"]["name"]) == ({"create", "keep"}, "second")
    Path("c.yaml").write_text(FILE.replace("us-west-2", "us-east-1"))
    said = user.types("create", "-f", "c.yaml", "--yes")
    assert (said.code, "belongs to account 123456789012, region us-west-2" in said.err) == (2, True)


def test_a_count_that_did_not_come_to_be_is_taken_back(user: User, aws: Clients) -> None:
    Path("c.yaml").write_text(FILE)
    user.has("demo", "-f", "c.yaml")
    refusal = Fault("sagemaker", "DescribeCluster", code="AccessDeniedException", count=9)
    user.stack.faults.append(refusal)
    assert user.types("scale", "-f", "c.yaml", "workers=3").code == 3
    user.stack.faults.clear()
    assert Path("c.yaml").read_text() == FILE
    said = on_a_terminal("scale", "-f", "c.yaml", "workers=1", typed="\x04")
    assert (said.code, "2 nodes go" in said.err) == (2, True), said.err
    assert Path("c.yaml").read_text() == FILE
    assert counts(aws) == {"workers": 2, "small": 1}
    # after the request the file keeps the new count, with which the command continues
    user.stack.sim.delays.__dict__["hyperpod_provision"] = 1e6
    assert user.types("scale", "-f", "c.yaml", "workers=3", "--timeout", "2").code == 6
    assert "instance_count: 3" in Path("c.yaml").read_text()


def test_a_version_that_cannot_be_had_is_told_of_a_running_cluster_too(user: User) -> None:
    user.has("demo")
    old = user.folder / "old.yaml"
    old.write_text(
        'name: demo\nregion: us-west-2\neks: {version: "1.20", allow_untested_version: true}\n'
        f"chart: {{path: {CHART}}}\n"
    )
    for verb in ("plan", "create"):
        said = user.types(verb, "demo", "--kubernetes-version", "1.36")
        assert (said.code, "HyperPod does not list Kubernetes 1.36" in said.err) == (2, True)
        said = user.types(verb, "-f", str(old))
        assert (said.code, "EKS does not offer Kubernetes 1.20 clusters" in said.err) == (0, True)
        assert "demo keeps its 1.35" in said.err
    assert user.types("status", "demo", "-o", "json").document["differences"] == []
