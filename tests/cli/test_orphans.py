"""``hyperpod-eks orphans``: resources in no manifest are listed, with the command for deletion."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.aws.client import Identity
from hyperpod_eks.aws.tags import CLUSTER, LABEL, LINEAGE
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.resolve.names import lineage
from tests.conftest import REGION, Clients, User

ELSEWHERE = "eu-west-1"


def test_what_no_cluster_uses_is_listed_with_the_command_that_deletes_it(user: User) -> None:
    user.has("demo", "--region", ELSEWHERE)
    place = ("--region", ELSEWHERE)
    keep = ("--keep", "network,bucket,logs")
    assert user.types("delete", "demo", *place, "--yes", *keep).code == 0
    assert user.types("orphans", *place).out.startswith("no orphans in eu-west-1")
    Path("demo.hyperpod-eks.json").unlink()
    user.mutations()

    said = user.types("orphans", *place)

    assert said.code == 0
    assert user.mutations() == []
    *rows, caution, hint = said.out.splitlines()
    assert "A create that just started" in caution
    kinds = {row.split()[1] for row in rows}
    assert {
        "vpc",
        "subnet",
        "natgateway",
        "elastic-ip",
        "bucket",
        "log-group",
    } <= kinds
    assert {row.split()[0] for row in rows} == {"demo"}
    assert hint == f"To delete them: hyperpod-eks delete demo --region {ELSEWHERE}"
    assert REGION != ELSEWHERE, "or the hint would be right without its region"
    assert user.types(*shlex.split(hint)[4:], "--yes").code == 0
    assert user.types("orphans", *place).out.startswith("no orphans")


def test_a_manifest_that_is_named_knows_its_cluster(user: User) -> None:
    user.types("create", "demo", "--timeout", "0.001", "--manifest", "kept.json")

    assert user.types("orphans").out != ""
    known = user.types("orphans", "--manifest", "kept.json")
    assert known.out.startswith("no orphans")


@pytest.mark.parametrize("state", ["s3://team-state/ml/", "s3://team-state", "shared"])
def test_manifests_that_are_kept_elsewhere_are_found_there(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """As every other command does, both heed HYPERPOD_EKS_STATE."""
    where: Any = {"LocationConstraint": REGION}
    user.has("demo")
    aws.s3.create_bucket(Bucket="team-state", CreateBucketConfiguration=where)
    here = Path("demo.hyperpod-eks.json")
    if state == "shared":
        Path("shared").mkdir()
        here.rename(Path("shared") / here)
    else:
        prefix = state.removeprefix("s3://team-state").strip("/")
        key = "/".join(filter(None, [prefix, here.name]))
        for each in (key, f"{key}.versions/old.hyperpod-eks.json"):
            aws.s3.put_object(Bucket="team-state", Key=each, Body=here.read_bytes())
        here.unlink()
    assert "manifest was not found" in user.types("orphans").out
    monkeypatch.setenv("HYPERPOD_EKS_STATE", state)

    said = user.types("orphans")
    listed = user.types("list", "-o", "json").document["clusters"]

    assert said.out == f"no orphans in {REGION} of account 123456789012\n"
    place = f"{state.rstrip('/')}/{here}"
    assert [each["manifest"] for each in listed] == [place]
    assert user.types("list").out.split()[-1] == "here"


def test_a_state_bucket_that_does_not_exist_is_said(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERPOD_EKS_STATE", "s3://team-state/ml")
    said = user.types("orphans")
    assert (said.code, said.out) == (2, "")
    assert "the bucket team-state of the manifest does not exist" in said.err
    monkeypatch.setenv("HYPERPOD_EKS_STATE", "s3://Team_State")
    said = user.types("orphans")
    assert (said.code, said.out) == (2, "")
    assert "'s3://Team_State/*.hyperpod-eks.json' is not s3://BUCKET/KEY" in said.err


def test_a_cluster_that_lives_is_no_orphan_wherever_its_manifest_is(user: User) -> None:
    user.has("demo", "--region", ELSEWHERE)
    Path("demo.hyperpod-eks.json").unlink()

    said = user.types("orphans", "--region", ELSEWHERE)

    assert said.code == 0
    none, hint, elsewhere, rebuild = said.out.splitlines()
    assert none.startswith("no orphans")
    assert hint.startswith("cluster demo exists, but its manifest was not found")
    assert "--manifest" in elsewhere
    assert "delete" not in said.out
    command = shlex.split(rebuild.partition(": ")[2])
    assert command[:3] == ["hyperpod-eks", "adopt", "demo"]
    assert command[-3:] == ["--region", ELSEWHERE, "--rebuild"]
    rebuilt = user.types(*command[1:])
    assert rebuilt.code == 0
    assert {row.split()[0] for row in rebuilt.out.splitlines()[:-1]} == {"found"}
    assert "manifest was not found" not in user.types("orphans", "--region", ELSEWHERE).out


def test_a_printed_command_leads_to_the_account_that_was_asked(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    keys = "aws_access_key_id = ASIALOCALSTACK000000\naws_secret_access_key = local\n"
    config.write_text(f"[profile team]\nregion = us-west-2\n{keys}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    owner = lineage(Identity("", "123456789012", "aws", REGION), "demo")
    tags = {CLUSTER: "demo", LINEAGE: owner, LABEL: "address-usw2-az1"}
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    born: Any = [{"ResourceType": "elastic-ip", "Tags": pairs}]
    aws.ec2.allocate_address(Domain="vpc", TagSpecifications=born)

    said = user.types("orphans", "--profile", "team")

    assert said.out.splitlines()[-1] == (
        "To delete them: hyperpod-eks delete demo --region us-west-2 --profile team"
    )


def test_what_iam_has_of_another_region_is_no_orphan_of_this_one(user: User, aws: Clients) -> None:
    """IAM is global; `delete demo --region HERE` would delete another cluster of that name."""
    owner = lineage(Identity("", "123456789012", "aws", ELSEWHERE), "demo")
    tags = {CLUSTER: "demo", LINEAGE: owner, LABEL: "cluster-role"}
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    trust = {"Version": "2012-10-17", "Statement": [statement | {"Principal": {"AWS": "*"}}]}
    aws.iam.create_role(
        RoleName=f"demo-eks-{ELSEWHERE}",
        Description="hyperpod-eks: demo",
        AssumeRolePolicyDocument=json.dumps(trust),
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )

    assert user.types("orphans").out == f"no orphans in {REGION} of account 123456789012\n"
    there = user.types("orphans", "--region", ELSEWHERE, "-o", "json").document
    assert [each["id"] for each in there["orphans"]] == [f"demo-eks-{ELSEWHERE}"]
    assert there["next"] == [f"hyperpod-eks delete demo --region {ELSEWHERE}"]


def test_where_there_is_no_cluster_the_hint_leads_to_the_same_place(user: User) -> None:
    said = user.types("status", "demo", "--region", ELSEWHERE)

    assert said.code == 8
    assert f"Create it: hyperpod-eks create demo --region {ELSEWHERE}\n" in said.err


def test_a_redirect_that_leads_nowhere_is_no_bug(user: User) -> None:
    """botocore follows a redirect by asking for the bucket's region, but a list has no bucket."""
    user.stack.sim.faults.append(
        Fault("s3", "ListBuckets", code="PermanentRedirect", status=301, count=100)
    )
    said = user.types("orphans", "-o", "json")
    assert said.code == 1, said.err
    assert "redirected elsewhere for a request that names no bucket" in said.err
