"""A cluster that is created in one folder and used from another: nothing is guessed or damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resources.s3 import own_prefix
from tests.conftest import Clients, Said, User, at_work

SOLO = f"""\
name: solo
region: us-west-2
chart: {{path: {CHART}}}
network: {{nat: per-az}}
eks: {{log_retention_days: 365, public_access_cidrs: [203.0.113.0/24], version: "1.34"}}
deletion_protection: true
instance_groups:
  - {{name: cpu, instance_type: ml.m5.2xlarge, instance_count: 1}}
"""
MANIFEST = "solo.hyperpod-eks.json"


@dataclass
class Team:
    """Two folders, like two machines: A has created the cluster solo, B has no files of it."""

    user: User
    aws: Clients
    a: Path
    b: Path

    def types(self, *words: str, at: str = "b") -> Said:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.a if at == "a" else self.b)
            return self.user.types(*words)


@pytest.fixture(scope="module")
def made(
    one_stack: Stack, session: boto3.Session, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("teams")
    with at_work(one_stack, folder) as user:
        team = Team(user, Clients(session, one_stack.endpoint), folder / "a", folder / "b")
        team.a.mkdir()
        (team.a / "solo.yaml").write_text(SOLO)
        said = team.types("create", "-f", "solo.yaml", at="a")
        assert said.code == 0, said.err
        yield team


@pytest.fixture
def team(made: Team) -> Iterator[Team]:
    """The unchanged cluster; folder B is empty, and folder A is as after create."""
    shutil.rmtree(made.b, ignore_errors=True)
    made.b.mkdir()
    kept = made.a.with_name("kept")
    shutil.copytree(made.a, kept)
    made.user.mutations()
    yield made
    assert made.user.mutations() == []
    shutil.rmtree(made.a)
    kept.rename(made.a)


@pytest.fixture
def older(team: Team) -> Iterator[Team]:
    """The cluster as an earlier version created it: its bucket has no config."""
    place = {"Bucket": "sagemaker-solo-123456789012-us-west-2"}
    prefix = f"{own_prefix('solo')}config/"
    found = team.aws.s3.list_objects_v2(**place, Prefix=prefix)["Contents"]
    kept = {each["Key"]: b"" for each in found}
    for key in kept:
        kept[key] = team.aws.s3.get_object(**place, Key=key)["Body"].read()
        team.aws.s3.delete_object(**place, Key=key)
    for path in (team.a / MANIFEST, *team.a.glob(".*.backups/*.json")):
        document = json.loads(path.read_text())
        document.pop("config_version", None)
        path.write_text(json.dumps(document))
    team.user.mutations()
    yield team
    assert team.user.mutations() == []
    for key, content in kept.items():
        team.aws.s3.put_object(**place, Key=key, Body=content)
    team.user.mutations()


@pytest.mark.sample("create solo --yes", "scale solo worker-group=3 --yes", "preflight solo")
@pytest.mark.parametrize(
    "words",
    [
        ("create", "solo", "--yes"),
        ("create", "solo", "--dry-run"),
        ("plan", "solo"),
        ("scale", "solo", "worker-group=3", "--yes"),
        ("update-software", "solo", "--yes"),
        ("preflight", "solo"),
    ],
    ids=" ".join,
)
def test_a_cluster_that_exists_is_not_compared_with_a_config_that_nobody_gave(
    older: Team, words: tuple[str, ...]
) -> None:
    team = older
    said = team.types(*words)
    assert (said.code, said.out) == (2, "")
    assert "cluster solo already exists in us-west-2 of account 123456789012" in said.err
    assert "-f FILE" in said.err
    assert "hyperpod-eks status solo" in said.err
    assert not (team.b / MANIFEST).exists()


def test_status_shows_what_aws_has_and_calls_nothing_drift(older: Team) -> None:
    team = older
    said = team.types("status", "solo", "-o", "json")
    shown = said.document
    assert said.code == 0
    assert shown["cluster"]["ready"] is True
    assert shown["differences"] == []
    assert [(g["name"], g["current"]) for g in shown["instance_groups"]] == [("cpu", 1)]
    states = {r["state"] for step in shown["steps"] for r in step["resources"]}
    assert states == {"ready"}
    assert shown["compared"] is False
    read = team.types("status", "solo").out
    assert "exist (not compared)" in read
    assert "as declared" not in read
    assert "config of solo was not found" in said.err
    assert shown["warnings"] == [said.err.removeprefix("warning: ").strip()]


def test_a_config_that_is_given_or_remembered_is_the_clusters(team: Team) -> None:
    given = ("-f", str(team.a / "solo.yaml"))
    for at, words in (("b", given), ("a", ("solo",))):
        said = team.types("plan", *words, "--detailed-exitcode", at=at)
        assert said.code == 0, said.out + said.err
    shown = team.types("status", *given, "-o", "json")
    assert (shown.code, shown.document["differences"], shown.err) == (0, [], "")
    assert shown.document["compared"] is True


def test_a_name_from_the_environment_finds_the_remembered_config(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERPOD_EKS_NAME", "solo")
    said = team.types("plan", "--detailed-exitcode", at="a")
    assert said.code == 0, said.out + said.err


def test_what_opens_or_unprotects_is_asked_for_first(team: Team) -> None:
    narrower = SOLO.replace("113.0/24", "113.0/25").replace("365", "731")
    (team.a / "solo.yaml").write_text(narrower)
    planned = team.types("plan", "-f", "solo.yaml", "-o", "json", at="a").document
    whys = {row["key"]: row["why"] for row in planned["resources"] if row["action"] == "change"}
    assert whys == {"eks/cluster": "", "eks/log-group": ""}

    weaker = SOLO.replace("113.0/24", "113.0/24, 0.0.0.0/0").replace("365", "30")
    weaker = weaker.replace("deletion_protection: true", "deletion_protection: false")
    (team.a / "solo.yaml").write_text(weaker.replace("version", "log_types: [api], version"))
    said = team.types("create", "-f", "solo.yaml", at="a")
    assert said.code == 2
    lines = {line.strip() for line in said.err.splitlines()}
    others = ("audit", "authenticator", "controllerManager", "scheduler")
    asked = {
        "eks/cluster: the Kubernetes API is opened to 0.0.0.0/0",
        "eks/cluster: deletion protection is switched off",
        f"eks/cluster: these control plane logs are switched off: {', '.join(others)}",
        "eks/log-group: logs older than 30 days are deleted; until now they were kept for 365 days",
    }
    assert asked <= lines, said.err
    assert "--yes" in said.err
    planned = team.types("plan", "-f", "solo.yaml", "-o", "json", at="a").document
    whys = {row["key"]: row["why"] for row in planned["resources"]}
    assert "deletion protection is switched off" in whys["eks/cluster"]
    assert whys["eks/log-group"].startswith("logs older than 30 days")


@pytest.mark.parametrize("harm", ["lost", "truncated"])
def test_rebuild_restores_the_config_from_the_backups(older: Team, harm: str) -> None:
    team = older
    manifest = team.a / MANIFEST
    whole = manifest.read_text()
    manifest.unlink() if harm == "lost" else manifest.write_text(whole[: len(whole) // 2])
    said = team.types("adopt", "solo", "--rebuild", at="a")
    assert said.code == 0, said.err
    assert "and the config are in the manifest" in said.out
    assert json.loads(manifest.read_text())["config"] == json.loads(whole)["config"]
    said = team.types("plan", "solo", "--detailed-exitcode", at="a")
    assert said.code == 0, said.out + said.err


def test_a_lost_manifest_has_its_config_in_a_backup(older: Team) -> None:
    (older.a / MANIFEST).unlink()
    said = older.types("plan", "solo", "--detailed-exitcode", at="a")
    assert said.code == 0, said.out + said.err
    assert "config of solo was found in a backup" in said.err


@pytest.mark.prove
def test_a_config_in_the_bucket_is_everybodys(team: Team) -> None:
    for words in (("plan", "solo", "--detailed-exitcode"), ("status", "solo"), ("create", "solo")):
        said = team.types(*words)
        assert said.code == 0, said.out + said.err
    assert "another run" not in said.err
    assert team.types("preflight", "solo").code == 0
    said = team.types("delete", "solo", "--yes")
    assert (said.code, "deletion_protection" in said.err) == (2, True)
    (team.b / MANIFEST).unlink()
    said = team.types("adopt", "solo", "--rebuild")
    assert said.code == 0, said.err
    assert "and the config are in the manifest" in said.out


def test_rebuild_without_a_backup_says_that_it_has_no_config(older: Team) -> None:
    team = older
    said = team.types("adopt", "solo", "--rebuild")
    assert said.code == 0, said.err
    assert "the config of solo could not be restored" in said.err
    assert json.loads((team.b / MANIFEST).read_text())["config"] == {}
    for words in (("create", "solo", "--yes"), ("plan", "solo")):
        said = team.types(*words)
        assert (said.code, said.out) == (2, "")
        assert "-f FILE" in said.err
        assert "--rebuild" not in said.err  # has just said that no backup has the config


def test_rebuild_takes_the_config_that_it_is_given(team: Team) -> None:
    said = team.types("adopt", "-f", str(team.a / "solo.yaml"), "--rebuild")
    assert said.code == 0, said.err
    said = team.types("plan", "solo", "--detailed-exitcode")
    assert said.code == 0, said.out + said.err


@pytest.mark.parametrize("other", ["cluster", "account", "region", "life"])
def test_a_backup_of_another_cluster_is_not_this_ones_config(older: Team, other: str) -> None:
    """An earlier cluster of this name had the same lineage, but another VPC and HyperPod ARN."""
    team = older
    folder = team.a / ".solo.hyperpod-eks.json.backups"
    for path in folder.iterdir():
        kept = json.loads(path.read_text())
        if other == "life":
            records = kept["resources"]
            for key in {"network/vpc", "hyperpod/cluster"} & set(records):
                records[key] |= {"id": "earlier", "arn": "earlier"}
        else:
            kept[other] = "other"
        path.write_text(json.dumps(kept))
    (team.a / MANIFEST).unlink()
    said = team.types("adopt", "solo", "--rebuild", at="a")
    assert said.code == 0, said.err
    assert "could not be restored" in said.err
    assert json.loads((team.a / MANIFEST).read_text())["config"] == {}


def colleague(aws: Clients) -> str:
    """Create another administrator's role; return its ARN."""
    everybody = {"AWS": "arn:aws:iam::123456789012:root"}
    trust = {"Effect": "Allow", "Principal": everybody, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = aws.iam.create_role(RoleName="Colleague", AssumeRolePolicyDocument=document)["Role"]
    admin = "arn:aws:iam::aws:policy/AdministratorAccess"
    aws.iam.attach_role_policy(RoleName="Colleague", PolicyArn=admin)
    return str(role["Arn"])


def become(aws: Clients, arn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands that follow run as a role."""
    keys = aws.sts.assume_role(RoleArn=arn, RoleSessionName="colleague")["Credentials"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", keys["SessionToken"])


def test_another_principal_becomes_no_administrator_unasked(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = colleague(team.aws)
    become(team.aws, arn, monkeypatch)
    team.user.mutations()

    assert team.types("status", "solo").code == 0  # what has been declared, another role may read
    given = ("-f", str(team.a / "solo.yaml"))
    planned = team.types("plan", *given, "-o", "json").document
    (entry,) = (row for row in planned["resources"] if row["key"] == "eks/access-caller")
    assert entry["action"] == "create"
    assert f"{arn} becomes an administrator" in entry["why"]

    for words in (("create", *given), ("update-software", *given)):
        said = team.types(*words)
        assert (said.code, said.out) == (2, "")
        assert f"{arn} becomes an administrator" in said.err
        assert "eks.access" in said.err
    assert team.user.mutations() == []

    listed = SOLO.replace("eks: {", f"eks: {{access: [{{principal_arn: {arn}}}], ")
    (team.b / "solo.yaml").write_text(listed)
    for made in (("-f", "solo.yaml"), (*given, "--yes")):
        said = team.types("create", *made)
        assert said.code == 0, said.err
        assert arn in team.aws.eks.list_access_entries(clusterName="solo")["accessEntries"]
        team.aws.eks.delete_access_entry(clusterName="solo", principalArn=arn)
        (team.b / MANIFEST).unlink()
    team.user.mutations()


def test_a_second_role_without_files_has_the_whole_life_of_a_cluster(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    team = Team(user, aws, user.folder, tmp_path / "b")
    team.b.mkdir()
    arn, before = colleague(aws), user.stack.inventory()
    (team.a / "solo.yaml").write_text(
        SOLO.replace("eks: {", f"eks: {{access: [{{principal_arn: {arn}}}], ").replace(
            "deletion_protection: true", "deletion_protection: false"
        )
    )
    assert team.types("create", "-f", "solo.yaml", at="a").code == 0
    user.mutations()
    with monkeypatch.context() as patch:
        become(aws, arn, patch)
        planned = team.types("plan", "solo", "--detailed-exitcode")
        assert planned.code == 0, planned.out + planned.err
        assert team.types("create", "solo").code == 0
        assert team.types("create", "solo").code == 0  # with the manifest that the first one wrote
        assert user.mutations() == []
        assert team.types("scale", "solo", "cpu=2").code == 0
    assert team.types("plan", "solo", "--detailed-exitcode", at="a").code == 0
    become(aws, arn, monkeypatch)
    said = team.types("delete", "solo", "--yes")
    assert said.code == 0, said.err
    after = user.stack.inventory()
    assert (after["s3"], after["us-west-2"]) == (before["s3"], before["us-west-2"])


@pytest.mark.parametrize("verb", ["create", "status", "plan", "delete", "adopt"])
def test_a_command_that_names_no_cluster_says_how_to_name_one(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYPERPOD_EKS_NAME", raising=False)
    said = User(tmp_path, None).types(verb, *(["--rebuild"] if verb == "adopt" else []))  # type: ignore[arg-type]  # not used
    assert (said.code, said.out) == (2, "")
    first, second = said.err.splitlines()
    assert first == "error: no cluster given"
    assert second == "Pass a NAME, a config file (-f FILE) or a manifest (--manifest PATH)."
    said = User(tmp_path, None).types("create", "Demo_X")  # type: ignore[arg-type]
    assert "argument NAME: name:" in said.err


def test_a_half_made_cluster_without_eks_goes_on(user: User) -> None:
    user.stack.faults.append(Fault("eks", "CreateCluster", kind="error", code="AccessDenied"))
    assert user.types("create", "demo", "--chart", str(CHART)).code == 3
    (user.folder / "demo.hyperpod-eks.json").unlink()
    user.makes("demo")


def test_what_keep_left_is_no_cluster(user: User) -> None:
    """Nor are resources of a create that failed before EKS."""
    user.has("demo")
    assert user.types("delete", "demo", "--yes", "--keep", "network,bucket,logs").code == 0
    (user.folder / "demo.hyperpod-eks.json").unlink()
    user.makes("demo")
