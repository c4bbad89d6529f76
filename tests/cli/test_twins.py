"""Two concurrent creates of one cluster: neither deletes resources that the other one uses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.s3 import claim_key
from tests import copies
from tests.conftest import Clients, Said, User, at_work, changes, new_session

ENDS = ("Delete", "Release", "Detach", "Disassociate")


class Two:
    """Two users in separate folders with one account; commands in ``there`` are processes."""

    def __init__(self, here: User, there: Path) -> None:
        self.here, self.there = here, there
        self.first: Said | None = None

    def elsewhere(self, *words: str) -> Said:
        """Run a command in the other folder."""
        done = subprocess.run(
            [sys.executable, "-m", "hyperpod_eks", *words],
            cwd=self.there,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def ended(self) -> list[str]:
        """Return the calls that deleted something since the last time."""
        calls = self.here.stack.calls
        found = [
            f"{c.service}.{c.operation}"
            for c in calls
            if c.operation.startswith(ENDS) and changes(c)
        ]
        calls.clear()
        return found


@pytest.fixture(scope="module")
def raced(
    one_stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Two, bytes, Path]]:
    """The account after a race: the other run created the whole cluster just before our VPC."""
    folder = tmp_path_factory.mktemp("two")
    with at_work(one_stack, folder) as here, pytest.MonkeyPatch.context() as patch:
        there = folder / "there"
        there.mkdir()
        both = Two(here, there)
        create, asked = Vpc.create, Clients(new_session(), one_stack.endpoint)

        def late(self: Vpc, *about: Any) -> Any:
            patch.setattr(Vpc, "create", create)
            (bucket,) = asked.s3.list_buckets()["Buckets"]  # versions before 0.2 do not claim
            asked.s3.delete_object(Bucket=bucket["Name"], Key=claim_key("demo"))
            said = both.elsewhere("create", "demo", "--chart", str(CHART))
            assert said.code == 0, said.err
            return create(self, *about)

        patch.setattr(Vpc, "create", late)
        for name in ("RENEW", "LASTS"):  # it does not see that its claim was deleted
            patch.setattr(f"hyperpod_eks.state.lease.{name}", 3600.0)
        both.first = here.types("create", "demo", "--chart", str(CHART), "-o", "json")
        for each in (here.folder, there):
            shutil.copytree(each, folder / "kept" / each.name)
        yield both, copies.taken(one_stack), folder / "kept"


@pytest.fixture
def two(raced: tuple[Two, bytes, Path]) -> Two:
    """A copy of that account and its folders."""
    both, account, kept = raced
    copies.restore(both.here.stack, account)
    for folder in (both.here.folder, both.there):
        for each in folder.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        shutil.copytree(kept / folder.name, folder, dirs_exist_ok=True)
    return both


def home(aws: Clients) -> str:
    found = aws.eks.describe_cluster(name="demo")["cluster"]["resourcesVpcConfig"]
    return str(found["vpcId"])


@pytest.fixture
def asked(two: Two, session: Any) -> Clients:
    return Clients(session, two.here.stack.endpoint)


def test_the_run_that_lost_says_so_and_removes_nothing(two: Two, asked: Clients) -> None:
    assert two.first
    assert two.first.code == 4, two.first.err
    error = two.first.document["error"]
    assert error["class"] == "Locked"
    assert "another run created eks/cluster" in error["message"]
    assert home(asked) in error["message"]
    assert two.ended() == []


def test_the_cluster_is_gone_on_with_whatever_the_manifest_says(two: Two, asked: Clients) -> None:
    said = two.here.types("create", "demo", "--chart", str(CHART))
    assert said.code == 0, said.err
    manifest = json.loads((two.here.folder / "demo.hyperpod-eks.json").read_text())
    assert manifest["resources"]["network/vpc"]["id"] == home(asked)
    (spare,) = {v["VpcId"] for v in vpcs(asked)} - {home(asked)}
    assert f"network/vpc: {spare}" in said.err
    (used,) = asked.ec2.describe_nat_gateways(Filter=[{"Name": "vpc-id", "Values": [home(asked)]}])[
        "NatGateways"
    ]
    mapped = used["NatGatewayAddresses"][0]["AllocationId"]
    assert manifest["resources"]["network/address-usw2-az1"]["id"] == mapped
    assert "another run" in said.err
    assert two.ended() == []


@pytest.mark.prove
def test_both_go_on_to_see_one_cluster_as_declared(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in (two.here, User(two.there, two.here.stack)):
        monkeypatch.chdir(user.folder)
        said = user.types("create", "demo", "--chart", str(CHART))
        assert said.code == 0, said.err
        planned = user.types("plan", "demo", "--chart", str(CHART), "--detailed-exitcode")
        assert planned.code == 0, planned.out + planned.err
        assert user.types("status", "demo", "-o", "json").document["cluster"]["ready"]
    assert two.ended() == []


def test_one_delete_removes_what_both_made(two: Two, asked: Clients) -> None:
    said = two.here.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    assert vpcs(asked) == []
    assert asked.ec2.describe_addresses()["Addresses"] == []


def vpcs(aws: Clients) -> list[dict[str, Any]]:
    ours: Any = [{"Name": "tag-key", "Values": ["hyperpod-eks:lineage"]}]
    return list(aws.ec2.describe_vpcs(Filters=ours)["Vpcs"])


@pytest.mark.prove
def test_without_a_manifest_the_first_run_deletes_the_duplicate(user: User, aws: Clients) -> None:
    """The second run then has nothing to do."""
    user.has("demo")
    (made,) = vpcs(aws)
    signed: Any = [{"ResourceType": "vpc", "Tags": made["Tags"]}]
    spare = aws.ec2.create_vpc(CidrBlock="10.9.0.0/16", TagSpecifications=signed)["Vpc"]["VpcId"]
    (user.folder / "demo.hyperpod-eks.json").unlink()
    (user.folder / "demo.yaml").write_text("name: demo\n")
    demo = ("demo", "-f", "demo.yaml")
    planned = user.types("plan", *demo, "--chart", str(CHART))
    assert f"{spare} is deleted:" in planned.out
    user.mutations()
    user.makes(*demo)
    assert user.mutations() == ["ec2.DeleteVpc"]
    assert [each["VpcId"] for each in vpcs(aws)] == [made["VpcId"]]
    user.makes(*demo)
    assert user.mutations() == []


@pytest.mark.prove
@pytest.mark.parametrize("attempt", range(3))
def test_of_two_runs_at_the_same_instant_one_wins(
    user: User, aws: Clients, tmp_path: Path, attempt: int
) -> None:
    """Real processes, like two jobs of one pipeline."""
    both = Two(user, tmp_path / "there")
    both.there.mkdir()
    make = ("create", "demo", "--chart", str(CHART))
    with ThreadPoolExecutor() as pool:
        other = pool.submit(both.elsewhere, *make)
        again = Two(user, user.folder)
        ends = sorted([again.elsewhere(*make), other.result()], key=lambda said: said.code)
    assert [said.code for said in ends] in ([0, 0], [0, 4]), ends[1].err
    assert set(both.ended()) <= {"ec2.DeleteNatGateway"}  # a failed one without an address
    for run in (both.elsewhere, again.elsewhere):
        assert run(*make).code == 0
        assert run("plan", *make[1:], "--detailed-exitcode").code == 0
    assert set(both.ended()) <= {"ec2.DeleteVpc", "ec2.ReleaseAddress"}
