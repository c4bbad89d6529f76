"""``hyperpod-eks list``: every cluster of the account, and its creator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from hyperpod_eks.aws.published import HYPERPOD_REGIONS
from hyperpod_eks.aws.tags import LINEAGE
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients, User, at_work


@pytest.fixture(scope="module")
def here(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user with one cluster, which no test may change."""
    with at_work(one_stack, tmp_path_factory.mktemp("list")) as user:
        user.has("demo")
        user.mutations()
        yield user
        assert user.mutations() == []


def test_a_cluster_is_listed_with_all_that_is_known_of_it(here: User) -> None:
    document = here.types("list", "-o", "json").document
    assert document["regions"] == ["us-west-2"]
    (demo,) = document["clusters"]
    assert (demo["name"], demo["created_by"]) == ("demo", "hyperpod-eks")
    assert (demo["status"], demo["nodes"], demo["target_nodes"]) == ("InService", 2, 2)
    assert (demo["eks_cluster"], demo["kubernetes_version"]) == ("demo", "1.35")
    assert demo["usd_per_hour"] == pytest.approx(0.1 + 2 * 0.461, abs=0.01)
    assert demo["manifest"] == "demo.hyperpod-eks.json"
    head, line = here.types("list").out.splitlines()
    assert head.split()[:3] == ["NAME", "REGION", "STATUS"]
    assert line.split()[:5] == ["demo", "us-west-2", "InService", "2/2", "1.35"]
    assert line.split()[-1] == "here"
    assert len(line) <= 80
    said = here.types("list").err
    (note,) = said.splitlines()
    assert note.startswith("USD/HOUR is nodes and control plane, without disks, NAT gateways")
    assert len(note) <= 80


@pytest.mark.parametrize(
    ("key", "value", "creator"),
    [
        ("aws:cloudformation:stack-name", "HyperpodClusterStack-1a2b3-Nested", "hyp"),
        ("aws:cloudformation:stack-name", "sagemaker-my-cluster", "cloudformation"),
        ("ManagedBy", "Terraform", "terraform"),
        ("terraform", "true", "terraform"),
        ("Name", "terraform-test", "unknown"),
        (LINEAGE, "0123456789abcdef", "unknown"),  # copied from another cluster
    ],
)
def test_tags_say_who_made_it(
    here: User, session: boto3.Session, key: str, value: str, creator: str
) -> None:
    sagemaker = Clients(session, here.stack.endpoint).sagemaker
    arn = sagemaker.describe_cluster(ClusterName="demo")["ClusterArn"]
    before = sagemaker.list_tags(ResourceArn=arn)["Tags"]
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=[each["Key"] for each in before])
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": key, "Value": value}])
    (row,) = here.types("list", "-o", "json").document["clusters"]
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=[key])
    sagemaker.add_tags(ResourceArn=arn, Tags=before)
    here.mutations()
    assert (row["created_by"], row["manifest"]) == (creator, None)


def test_elsewhere_its_manifest_is_not_here(here: User, monkeypatch: pytest.MonkeyPatch) -> None:
    (here.folder / "b").mkdir()
    monkeypatch.chdir(here.folder / "b")
    (row,) = here.types("list", "-o", "json").document["clusters"]
    assert (row["created_by"], row["manifest"]) == ("hyperpod-eks", None)
    Path("broken.hyperpod-eks.json").write_text("{")
    said = here.types("list")
    assert said.code == 0
    assert "broken.hyperpod-eks.json is broken" in said.err


def test_all_regions_are_asked_and_those_not_enabled_are_warnings(here: User) -> None:
    fault = Fault("sagemaker", "ListClusters", kind="error", code="AccessDeniedException")
    here.stack.faults.append(fault)
    said = here.types("list", "--all-regions", "-o", "json")
    here.stack.faults.clear()
    assert said.code == 0, said.err
    document = said.document
    assert {"us-west-2", "us-east-1"} <= set(document["regions"]) <= set(HYPERPOD_REGIONS)
    assert any("AccessDenied" in warning for warning in document["warnings"])
    assert "warning: " in said.err


def test_where_nothing_answers_it_is_an_error(here: User) -> None:
    fault = Fault("sagemaker", "ListClusters", kind="error", code="AccessDeniedException")
    here.stack.faults.append(fault)
    said = here.types("list")
    here.stack.faults.clear()
    assert (said.code, said.out) == (3, "")
