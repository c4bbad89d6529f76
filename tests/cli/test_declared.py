"""The config travels with the cluster: a second machine without any file works with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.resources.s3 import own_prefix
from tests.conftest import Clients, Said, User

BUCKET = "sagemaker-demo-123456789012-us-west-2"
PREFIX = f"{own_prefix('demo')}config/"
MANIFEST = "demo.hyperpod-eks.json"


@dataclass
class Machines:
    """Two machines: A has created the cluster demo, B has no files of it."""

    user: User
    aws: Clients
    a: Path
    b: Path

    def types(self, *words: str, at: str = "b") -> Said:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.a if at == "a" else self.b)
            return self.user.types(*words)

    def numbers(self) -> list[str]:
        found = self.aws.s3.list_objects_v2(Bucket=BUCKET, Prefix=PREFIX)
        return [item["Key"].removeprefix(PREFIX) for item in found.get("Contents", ())]

    def kept(self, name: str = "") -> Any:
        key = PREFIX + (name or self.numbers()[-1])
        return json.loads(self.aws.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def replace(self, content: object, name: str = "00000001.json") -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.aws.s3.put_object(Bucket=BUCKET, Key=PREFIX + name, Body=body)
        self.user.mutations()

    def counts(self, at: str = "b") -> dict[str, int]:
        said = self.types("status", "demo", "-o", "json", at=at)
        assert (said.code, said.document["differences"]) == (0, []), said.err
        return {g["name"]: g["current"] for g in said.document["instance_groups"]}


def remove_all(aws: Clients, bucket: str) -> None:
    for item in aws.s3.list_objects_v2(Bucket=bucket)["Contents"]:
        aws.s3.delete_object(Bucket=bucket, Key=item["Key"])


@pytest.fixture
def machines(user: User, aws: Clients, tmp_path: Path) -> Machines:
    user.has("demo")
    found = Machines(user, aws, user.folder, tmp_path / "b")
    found.b.mkdir()
    user.mutations()
    return found


def test_what_is_kept_names_nothing_of_this_machine(machines: Machines) -> None:
    assert machines.numbers() == ["00000001.json"]
    kept = machines.kept()
    assert {k: kept[k] for k in ("schema", "cluster", "account", "region")} == {
        "schema": "hyperpod-eks/declared/v1",
        "cluster": "demo",
        "account": "123456789012",
        "region": "us-west-2",
    }
    assert kept["config"]["chart"]["path"].startswith("sha256:")
    assert "path" not in kept["config"]["lifecycle"]
    assert str(Path(__file__).parents[2]) not in json.dumps(kept)
    remembered = json.loads((machines.a / MANIFEST).read_text())
    assert remembered["config_version"].startswith("1 ")


@pytest.mark.sample("older", "truncated")
@pytest.mark.parametrize("state", ["none", "lost", "copy", "older", "truncated"])
def test_a_second_machine_finds_nothing_to_do(machines: Machines, state: str) -> None:
    manifest, there = machines.a / MANIFEST, "b" if state in ("none", "copy") else "a"
    if state == "lost":
        manifest.unlink()
    elif state == "copy":
        (machines.b / MANIFEST).write_bytes(manifest.read_bytes())
    elif state == "older":  # from before the bucket had a config
        document = json.loads(manifest.read_text())
        del document["config_version"]
        document["config"]["instance_groups"][0]["instance_count"] = 7
        manifest.write_text(json.dumps(document))
    elif state == "truncated":
        manifest.write_bytes(manifest.read_bytes()[:1000])
        assert machines.types("create", "demo", at=there).code == 2
        said = machines.types("adopt", "demo", "--rebuild", at=there)
        assert (said.code, "and the config are" in said.out) == (0, True), said.err
    assert machines.counts(there) == {"worker-group": 2}
    for words in (("plan", "demo", "--detailed-exitcode"), ("create", "demo")):
        said = machines.types(*words, at=there)
        assert said.code == 0, said.out + said.err
        assert ("another run has declared" in said.err) == (state == "older")
    assert machines.user.mutations() == []
    assert machines.numbers() == ["00000001.json"]


def test_a_scale_from_another_machine_is_seen_by_all(machines: Machines) -> None:
    said = machines.types("scale", "demo", "worker-group=3")
    assert said.code == 0, said.err
    assert machines.numbers() == ["00000001.json", "00000002.json"]
    assert machines.kept()["config"]["instance_groups"][0]["instance_count"] == 3
    remembered = json.loads((machines.b / MANIFEST).read_text())
    assert remembered["config"]["instance_groups"][0]["instance_count"] == 3
    said = machines.types("plan", "demo", "--detailed-exitcode", at="a")
    assert said.code == 0, said.out
    assert "another run has declared a config of demo" in said.err
    assert machines.counts("a") == {"worker-group": 3}
    said = machines.types("scale", "demo", "worker-group=1", "--yes", at="a")
    assert said.code == 0, said.err
    assert "3 -> 1" in said.out
    assert machines.counts() == {"worker-group": 1}
    assert len(machines.numbers()) == 3


def test_a_scale_that_nobody_agrees_to_leaves_the_config(machines: Machines) -> None:
    for at in ("b", "a"):
        said = machines.types("scale", "demo", "worker-group=1", at=at)
        assert (said.code, "--yes" in said.err) == (2, True)
        assert machines.kept()["config"]["instance_groups"][0]["instance_count"] == 2
        said = machines.types("plan", "demo", "--detailed-exitcode", at=at)
        assert said.code == 0, said.out + said.err


def test_a_delete_from_another_machine_leaves_nothing(machines: Machines) -> None:
    said = machines.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    assert "nothing remains" in said.out
    assert machines.user.stack.inventory()["s3"] == {}


@pytest.mark.prove
def test_what_is_protected_is_not_deleted_by_name(machines: Machines) -> None:
    (machines.b / "demo.yaml").write_text(
        f"name: demo\ndeletion_protection: true\nchart: {{path: {CHART}}}\n"
    )
    assert machines.types("create", "-f", "demo.yaml").code == 0
    (machines.b / MANIFEST).unlink()
    said = machines.types("delete", "demo", "--yes")
    assert (said.code, "deletion_protection" in said.err) == (2, True)


def test_only_the_newest_are_kept(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperpod_eks.state.declared.KEPT", 2)
    for count in (3, 4):
        said = machines.types("scale", "demo", f"worker-group={count}")
        assert said.code == 0, said.err
    assert machines.numbers() == ["00000002.json", "00000003.json"]
    fault = Fault("s3", "DeleteObject", "AccessDenied", 403, count=99)
    machines.user.stack.faults.append(fault)  # whoever may not delete leaves them
    said = machines.types("scale", "demo", "worker-group=5")
    assert said.code == 0, said.err
    assert len(machines.numbers()) == 3


HARMS = {
    "broken": b'{"schema": "hyperpod-eks/decl',
    "list": b"[]",
    "deep": b"[" * 100_000,
    "newer": {"schema": "hyperpod-eks/declared/v2", "tool_version": "9.9\x1b[31m"},
    "large": b" " * ((1 << 20) + 1),
}


@pytest.mark.parametrize("harm", [*HARMS, "lineage", "digest", "invalid", "folder"])
def test_what_is_no_config_of_this_cluster_is_refused_in_words(
    machines: Machines, harm: str
) -> None:
    kept = machines.kept()
    if harm in HARMS:
        machines.replace(HARMS[harm])
    elif harm == "lineage":
        machines.replace(kept | {"lineage": "0" * 16})
    elif harm == "digest":
        kept["config"]["node_recovery"] = "None"
        machines.replace(kept)
    else:
        from hyperpod_eks.state.declared import _digest  # noqa: PLC0415

        if harm == "invalid":
            kept["config"]["eks"]["no_such_setting"] = 1
        else:  # of whoever reads it: create would upload its files
            kept["config"]["lifecycle"]["path"] = str(machines.b)
        machines.replace(kept | {"sha256": _digest(kept["config"])})
    words = ("plan", "demo"), ("scale", "demo", "worker-group=3"), ("create", "demo")
    for each in words if harm == "broken" else words[:1]:
        said = machines.types(*each)
        assert (said.code, said.out) == (2, ""), said.err
        assert f"s3://{BUCKET}/{PREFIX}00000001.json" in said.err
        assert "\x1b" not in said.err
    assert machines.user.mutations() == []
    if harm != "broken":
        return
    said = machines.types("status", "demo", "-o", "json")
    assert (said.code, said.document["compared"]) == (0, False)
    (machines.b / "demo.yaml").write_text(f"name: demo\nchart: {{path: {CHART}}}\n")
    assert machines.types("plan", "-f", "demo.yaml", "--detailed-exitcode").code == 0
    said = machines.types("delete", "demo", "--yes")
    assert said.code == 0, said.err


def test_without_the_right_to_read_it_the_right_is_named(machines: Machines) -> None:
    for operation, action in (("ListObjectsV2", "s3:ListBucket"), ("GetObject", "s3:GetObject")):
        fault = Fault("s3", operation, "AccessDenied", 403, "Access Denied", count=99)
        machines.user.stack.faults.append(fault)
        said = machines.types("plan", "demo")
        assert (said.code, action in said.err) == (3, True), said.err
        said = machines.types("status", "demo")
        assert (said.code, action in said.err) == (0, True), said.err
        machines.user.stack.faults.clear()


def test_folders_of_another_machine_stay_as_they_are(machines: Machines, tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "on_create.sh").write_text("#!/bin/bash\necho ours\n")
    chart = tmp_path / "chart"
    import shutil  # noqa: PLC0415

    shutil.copytree(CHART, chart)
    (chart / "note.txt").write_text("ours")
    (machines.a / "demo.yaml").write_text(
        f"name: demo\nchart: {{path: {chart}}}\nlifecycle: {{path: {folder}}}\n"
    )
    assert machines.types("create", "-f", "demo.yaml", at="a").code == 0
    away = tmp_path / "away"
    folder.rename(away)
    chart.rename(tmp_path / "chart-away")
    machines.user.mutations()
    for words in (("plan", "demo", "--detailed-exitcode"), ("status", "demo"), ("create", "demo")):
        said = machines.types(*words)
        assert said.code == 0, said.out + said.err
        assert "lifecycle.path: the folder is not on this machine" in said.err
        assert "chart.path: the chart is not on this machine" in said.err
    same = ("--lifecycle", str(away), "--chart", str(tmp_path / "chart-away"))
    said = machines.types("plan", "demo", *same, "--detailed-exitcode")
    assert (said.code, said.err) == (0, ""), said.out
    assert machines.user.mutations() == []
    said = machines.types("scale", "demo", "worker-group=3")
    assert said.code == 0, said.err
    first, second = machines.kept("00000002.json"), machines.kept("00000003.json")
    assert first["config"]["lifecycle"] == second["config"]["lifecycle"]
    (away / "on_create.sh").write_text("#!/bin/bash\necho others\n")
    said = machines.types("plan", "demo", "--lifecycle", str(away), "--detailed-exitcode")
    assert said.code == 5
    assert "change   scripts" in said.out
    for key in machines.aws.s3.list_objects_v2(Bucket=BUCKET, Prefix="lifecycle/")["Contents"]:
        machines.aws.s3.delete_object(Bucket=BUCKET, Key=key["Key"])
    said = machines.types("create", "demo")
    assert (said.code, "--lifecycle FOLDER" in said.err) == (2, True), said.err


def test_nodes_may_read_scripts_and_nothing_else(machines: Machines) -> None:
    iam, sts = machines.aws.iam, machines.aws.sts
    (role,) = [
        each for each in iam.list_roles()["Roles"] if each["RoleName"].startswith("demo-hyperpod")
    ]
    keys = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="node")["Credentials"]
    import boto3  # noqa: PLC0415
    from botocore.exceptions import ClientError  # noqa: PLC0415

    s3 = boto3.client(
        "s3",
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )
    assert s3.get_object(Bucket=BUCKET, Key="lifecycle/on_create.sh")
    with pytest.raises(ClientError):
        s3.get_object(Bucket=BUCKET, Key=f"{PREFIX}00000001.json")


@pytest.mark.prove
def test_a_bucket_of_an_earlier_version_is_one_planned_change(machines: Machines) -> None:
    arn = f"arn:aws:s3:::{BUCKET}"
    tls = {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [tls]})
    machines.aws.s3.put_bucket_policy(Bucket=BUCKET, Policy=policy)
    machines.aws.s3.delete_object(Bucket=BUCKET, Key=f"{PREFIX}00000001.json")
    document = json.loads((machines.a / MANIFEST).read_text())
    del document["config_version"]
    document["resources"]["s3/bucket"]["want"]["policy"] = "TLS only"
    document["resources"]["s3/bucket"]["sent"]["policy"]["value"] = "TLS only"
    (machines.a / MANIFEST).write_text(json.dumps(document))
    said = machines.types("plan", "demo", "-o", "json", at="a")
    changes = {r["key"]: r["differs"] for r in said.document["resources"] if r["differs"]}
    assert changes == {"s3/bucket": {"policy": ["TLS only", "TLS only, nodes read scripts only"]}}
    assert machines.types("create", "demo", at="a").code == 0
    assert machines.numbers() == ["00000001.json"]
    assert machines.types("plan", "demo", "--detailed-exitcode").code == 0


@pytest.mark.prove
def test_a_variable_travels_as_a_reference(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_TOKEN", "s3cr3t-value-of-a-variable")
    (machines.a / "demo.yaml").write_text(
        f"name: demo\nchart: {{path: {CHART}, values: {{note: '${{env:TEAM_TOKEN}}'}}}}\n"
    )
    said = machines.types("create", "-f", "demo.yaml", at="a")
    assert said.code == 0, said.err
    assert "${env:TEAM_TOKEN}" in json.dumps(machines.kept())
    for name in machines.numbers():
        assert "s3cr3t" not in json.dumps(machines.kept(name))
    assert "s3cr3t" not in (machines.a / MANIFEST).read_text()
    monkeypatch.setenv("HYPERPOD_EKS_ALLOW_ENV", "TEAM_TOKEN")
    assert machines.types("plan", "demo", "--detailed-exitcode").code == 0
    monkeypatch.delenv("TEAM_TOKEN")
    said = machines.types("plan", "demo")
    assert (said.code, "TEAM_TOKEN is not set" in said.err) == (2, True)
    assert machines.types("status", "demo").code == 0


@pytest.mark.sample("in S3")
@pytest.mark.parametrize("manifest", ["in a file", "in S3"])
def test_another_machines_config_gets_no_variable_unasked(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, manifest: str
) -> None:
    """Who may write the bucket would read any variable of whoever runs the next command."""
    monkeypatch.setenv("TEAM_TOKEN", "s3cr3t-value-of-a-variable")
    monkeypatch.setenv("OTHER", "s3cr3t-value-of-another-one")
    text = f"name: demo\nchart: {{path: {CHART}, values: {{note: '${{env:TEAM_TOKEN}}'"
    (machines.a / "demo.yaml").write_text(f"{text}}}}}\n")
    assert machines.types("create", "-f", "demo.yaml", at="a").code == 0
    machines.user.mutations()
    where: tuple[str, ...] = ("demo",)
    if manifest == "in S3":
        place = {"LocationConstraint": "us-west-2"}
        machines.aws.s3.create_bucket(Bucket="team-state", CreateBucketConfiguration=place)
        body = (machines.a / MANIFEST).read_bytes()
        machines.aws.s3.put_object(Bucket="team-state", Key="demo.json", Body=body)
        where = ("demo", "--manifest", "s3://team-state/demo.json")
        machines.user.mutations()
    for words in (("plan",), ("create",), ("scale", "worker-group=3"), ("preflight",)):
        said = machines.types(words[0], *where, *words[1:])
        assert (said.code, said.out) == (2, ""), (words, said.err)
        assert "environment variables of this one: TEAM_TOKEN" in said.err
        assert "export HYPERPOD_EKS_ALLOW_ENV=TEAM_TOKEN" in said.err
    assert machines.user.mutations() == []
    monkeypatch.setenv("HYPERPOD_EKS_ALLOW_ENV", "TEAM_TOKEN")
    assert machines.types("create", *where).code == 0
    monkeypatch.delenv("HYPERPOD_EKS_ALLOW_ENV")
    # a manifest on this machine remembers what was allowed, and no more
    assert machines.types("plan", *where).code == (2 if manifest == "in S3" else 0)
    text = text.replace("TEAM_TOKEN", "OTHER")
    (machines.a / "demo.yaml").write_text(f"{text}}}}}\n")
    assert machines.types("create", "-f", "demo.yaml", at="a").code == 0
    said = machines.types("plan", *where)
    first = "TEAM_TOKEN" if manifest == "in S3" else "OTHER"
    assert (said.code, f"of this one: {first}" in said.err) == (2, True), said.err
    assert machines.types("delete", *where, "--yes").code == 0  # it sends none


def test_a_half_made_cluster_goes_on_from_what_was_declared(
    user: User, aws: Clients, tmp_path: Path
) -> None:
    machines = Machines(user, aws, user.folder, tmp_path / "b")
    machines.b.mkdir()
    (machines.a / "demo.yaml").write_text(
        f"name: demo\nchart: {{path: {CHART}}}\nnode_recovery: None\n"
    )
    user.stack.faults.append(Fault("eks", "CreateCluster", kind="error", code="AccessDenied"))
    assert machines.types("create", "-f", "demo.yaml", at="a").code == 3
    said = machines.types("create", "demo")
    assert said.code == 0, said.err
    assert aws.sagemaker.describe_cluster(ClusterName="demo")["NodeRecovery"] == "None"


def test_config_show_prints_a_config_file(machines: Machines) -> None:
    said = machines.types("config", "show", "demo")
    all_of_it = "config show demo -o yaml --query config"
    assert (said.code, said.err) == (0, f"To see the defaults, too: hyperpod-eks {all_of_it}\n")
    assert "path: sha256:" in said.out
    assert set(yaml.safe_load(said.out)) == {"name", "region", "chart"}  # what was set
    everything = yaml.safe_load(machines.types(*all_of_it.split()).out)
    assert everything["instance_groups"][0]["instance_count"] == 2
    (machines.b / "demo.yaml").write_text(said.out)
    said = machines.types("plan", "-f", "demo.yaml", "--detailed-exitcode")
    assert said.code == 0, said.out + said.err
    shown = machines.types("config", "show", "demo", "-o", "json").document
    assert shown["source"] == f"s3://{BUCKET}/{PREFIX}00000001.json"
    assert shown["config"] == machines.kept()["config"]
    machines.aws.s3.delete_object(Bucket=BUCKET, Key=f"{PREFIX}00000001.json")
    shown = machines.types("config", "show", "demo", "-o", "json", at="a").document
    assert (shown["number"], shown["config"]["name"]) == (0, "demo")
    assert machines.types("config", "show", "demo").code == 8
    assert set(machines.user.mutations()) <= {"s3.DeleteObject"}


@pytest.mark.sample("there")
@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
def test_in_an_adopted_bucket_it_is_found_by_the_nodes_scripts(
    user: User, aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """The bucket may be another account's, and may be deleted by hand."""
    place = {"LocationConstraint": "us-west-2"}
    aws.s3.create_bucket(Bucket="team-scripts", CreateBucketConfiguration=place)
    machines = Machines(user, aws, user.folder, tmp_path / "b")
    machines.b.mkdir()
    (machines.a / "demo.yaml").write_text(
        f"name: demo\nchart: {{path: {CHART}}}\nexisting: {{bucket: team-scripts}}\n"
    )
    said = machines.types("create", "-f", "demo.yaml", at="a")
    assert said.code == 0, said.err
    (arn,) = (p["Arn"] for p in aws.iam.list_policies(Scope="Local")["Policies"])
    document = aws.iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    allowed = [s for s in document["Document"]["Statement"] if "s3:GetObject" in s["Action"]]
    bucket = "arn:aws:s3:::team-scripts"
    assert [s["Resource"] for s in allowed] == [[bucket, f"{bucket}/hyperpod-eks/demo/*"]]
    machines.user.mutations()
    said = machines.types("plan", "demo", "--detailed-exitcode")
    assert said.code == 0, said.out + said.err
    shown = machines.types("config", "show", "demo", "-o", "json").document
    assert shown["source"].startswith("s3://team-scripts/hyperpod-eks.d/demo/config/")
    monkeypatch.setattr("hyperpod_eks.local.aws.s3.ACCOUNT", "999988887777")  # the bucket's
    assert machines.types("scale", "demo", "worker-group=3").code == 0
    assert machines.types("unlock", "demo").code == 0
    if gone:
        remove_all(aws, "team-scripts")
        aws.s3.delete_bucket(Bucket="team-scripts")
        monkeypatch.setattr("hyperpod_eks.state.claim.PATIENCE", 0.0)
        monkeypatch.setattr("hyperpod_eks.engine.loop.GRACE", 0.0)
    said = machines.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    assert not (machines.b / MANIFEST).exists()
    if not gone:
        assert "Contents" not in aws.s3.list_objects_v2(Bucket="team-scripts")


@pytest.mark.sample("bucket and network")
@pytest.mark.parametrize("theirs", ["bucket", "bucket and network"])
def test_a_half_made_cluster_whose_config_is_not_found_is_not_continued(
    user: User, aws: Clients, tmp_path: Path, theirs: str
) -> None:
    """Nothing that it has names the adopted bucket, where its config and its claim are."""
    place = {"LocationConstraint": "us-west-2"}
    aws.s3.create_bucket(Bucket="team-scripts", CreateBucketConfiguration=place)
    machines = Machines(user, aws, user.folder, tmp_path / "b")
    machines.b.mkdir()
    (machines.a / "demo.yaml").write_text(
        f"name: demo\nchart: {{path: {CHART}}}\nexisting: {{bucket: team-scripts}}\n"
    )
    user.stack.faults.append(Fault("eks", "CreateCluster", kind="error", code="AccessDenied"))
    assert machines.types("create", "-f", "demo.yaml", at="a").code == 3
    if theirs != "bucket":  # only roles have its tags
        for tag in aws.ec2.describe_tags()["Tags"]:
            aws.ec2.delete_tags(Resources=[tag["ResourceId"]])
    user.mutations()
    for words in (("create", "demo", "--yes"), ("plan", "demo"), ("preflight", "demo")):
        said = machines.types(*words)
        assert (said.code, said.out) == (2, ""), said.err
        assert "of the cluster demo exists in us-west-2" in said.err
        assert "but its config was not found" in said.err
        assert "-f FILE" in said.err
    assert user.mutations() == []
    assert "the config of demo was not found" in machines.types("status", "demo").err
    if theirs == "bucket":
        (machines.b / "demo.yaml").write_text((machines.a / "demo.yaml").read_text())
        said = machines.types("create", "-f", "demo.yaml")
        assert said.code == 0, said.err


@pytest.mark.sample("bucket")
@pytest.mark.parametrize("gone", ["objects", "bucket"])
def test_what_was_removed_by_hand_is_declared_again(
    machines: Machines, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperpod_eks.engine.loop.GRACE", 0.0)
    remove_all(machines.aws, BUCKET)
    if gone == "bucket":
        machines.aws.s3.delete_bucket(Bucket=BUCKET)
    said = machines.types("create", "demo", at="a")
    assert said.code == 0, said.err
    assert machines.numbers() == ["00000001.json"]
    assert machines.types("plan", "demo", "--detailed-exitcode").code == 0


@pytest.mark.sample("lost")
@pytest.mark.parametrize("manifest", ["stale", "lost"])
def test_a_scale_of_a_file_that_fails_restores_what_the_cluster_had(
    machines: Machines, manifest: str
) -> None:
    """Not what this folder's manifest has: another run has declared a config since."""
    assert machines.types("scale", "demo", "worker-group=5").code == 0
    if manifest == "lost":
        (machines.a / MANIFEST).unlink()
    text = f"name: demo\nchart: {{path: {CHART}}}\ndeletion_protection: true\n"
    groups = "instance_groups: [{name: worker-group, instance_type: ml.m5.2xlarge,"
    (machines.a / "demo.yaml").write_text(f"{text}{groups} instance_count: 5}}]\n")
    fault = Fault("eks", "UpdateClusterConfig", "AccessDenied", 403, count=99)
    machines.user.stack.faults.append(fault)
    said = machines.types("scale", "-f", "demo.yaml", "worker-group=6", at="a")
    assert said.code == 3, said.err
    assert machines.numbers()[1:] == [f"{number:08d}.json" for number in (2, 3, 4)]
    assert machines.kept()["config"] == machines.kept("00000002.json")["config"]


@pytest.mark.prove
def test_a_cluster_from_a_kept_config_is_announced(machines: Machines) -> None:
    """`delete --keep bucket` leaves its config, and `create NAME` elsewhere is given none."""
    assert machines.types("delete", "demo", "--yes", "--keep", "bucket", at="a").code == 0
    said = machines.types("create", "demo")
    assert said.code == 0, said.err
    assert f"is created with the config in s3://{BUCKET}/{PREFIX}00000001.json" in said.err
    assert "is created with the config in" not in machines.types("create", "demo").err
